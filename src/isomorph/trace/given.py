"""Inputs that the user gives -> a Probe: by name or by position, for both sides or for one (`reference::x`, `candidate::x`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isomorph.errors import UsageError, near_misses
from isomorph.trace.drawing import drawn_like
from isomorph.trace.nouns import Array
from isomorph.trace.probes import Probe, as_inputs
from isomorph.trace.protocol import Inputs, Side
from isomorph.trace.signature import EXAMPLE, MASK, Key, role_of, signature

SIDES = ("reference", "candidate")


def given_probe(reference: Side, candidate: Side, inputs: Any, *, seed: int = 0, name: str = "given") -> Probe:
    """One probe of these arrays: a mapping (names of either side's forward, or what they mean), a sequence, or one array.

    Each side gets an input under its own name for it. Raises UsageError for names that a side has no place for, for what is no
    array, and where a side does not run on them.
    """
    arrays = _arrays(inputs)
    if isinstance(arrays, list):
        sides: list[Inputs] = [list(arrays), list(arrays)]
    else:
        sides = [_named(side, word, arrays) for side, word in zip((reference, candidate), SIDES, strict=True)]
        _check_names(arrays, (reference, candidate))
    for side, taken in zip((reference, candidate), sides, strict=True):
        side.run(taken, watch=())
    padding = _padding(sides[0])
    rng = np.random.default_rng([seed, 1])
    others = _mapped(sides[0], lambda key, value: _other(key, value, rng, padding))
    return Probe(name, sides[0], sides[1], others, padding)


def _check_names(arrays: Mapping[str, Array], sides: tuple[Side, Side]) -> None:
    """Raises UsageError for a name that neither side takes and that means nothing: it may be misspelt."""
    names = [name for side in sides for name, _ in side.takes()]
    if not all(side.takes() for side in sides):
        return
    for name in arrays:
        plain = name.partition("::")[2] or name
        if plain not in names and role_of(plain) is None:
            near = near_misses(plain, names)
            taken = " and ".join(f"{side.title} takes {', '.join(one for one, _ in side.takes())}" for side in sides)
            raise UsageError(
                f"input `{name}` is taken by neither model: {taken}"
                + (f"; did you mean {' or '.join(near)}?" if near else "")
            )


def _arrays(inputs: Any) -> dict[str, Array] | list[Array]:
    if isinstance(inputs, Mapping):
        if not inputs:
            raise UsageError(f"no input is in what was given: {EXAMPLE}")
        return {str(name): _array(str(name), value) for name, value in inputs.items()}
    if isinstance(inputs, Sequence) and not isinstance(inputs, str | bytes):
        if not inputs:
            raise UsageError(f"no input is in what was given: {EXAMPLE}")
        return [_array(str(place), value) for place, value in enumerate(inputs)]
    return [_array("0", inputs)]


def _array(name: str, value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "cpu"):
        value = value.cpu()
    if not isinstance(value, np.ndarray) and hasattr(value, "numpy"):
        value = value.float().numpy() if str(getattr(value, "dtype", "")).endswith("bfloat16") else value.numpy()
    try:
        found = np.asarray(value)
    except Exception as error:
        raise UsageError(f"input `{name}` is a {type(value).__name__}, not an array: {error}") from error
    if found.dtype.kind not in "fiub" and found.dtype.name != "bfloat16":
        raise UsageError(f"input `{name}` holds {found.dtype}, not numbers: give token ids, pixels, masks as arrays")
    if found.size == 0:
        raise UsageError(f"input `{name}` {list(found.shape)} is empty: nothing would be compared")
    return found


def _named(side: Side, word: str, arrays: Mapping[str, Array]) -> Inputs:
    """The arrays under this side's own names: as written, else by what the name means, else the only one as the only one."""
    its = signature(side)
    names = [name for name, _ in side.takes()]
    mine = {
        name.partition("::")[2] or name: value
        for name, value in arrays.items()
        if name.partition("::")[0] == word or "::" not in name
    }
    for name in arrays:
        head, colons, _ = name.partition("::")
        if colons and head not in SIDES:
            raise UsageError(f"input `{name}`: before `::` stands reference or candidate")
    if not names:
        return list(mine.values())
    found: dict[Key, Array] = {}
    for name, value in mine.items():
        role = role_of(name)
        key: Key | None = name if name in names else its.roles.get(role) if role is not None else None
        if (
            key is None
            and its.main is not None
            and its.main not in found
            and (role is None or role.kind in ("tokens", "image", "features"))
        ):
            key = its.main
        if key is None and len(mine) == 1:
            mains = [
                key
                for role, key in its.roles.items()
                if role.kind in ("tokens", "image", "features") and key in its.required
            ]
            key = mains[0] if len(mains) == 1 else None
        if key is None:
            near = near_misses(name, names)
            raise UsageError(
                f"input `{name}`: {side.title} takes {', '.join(names)}"
                + (
                    f"; did you mean {' or '.join(near)}?"
                    if near
                    else f". To give it to one side only, name it  {_other_word(word)}::{name}"
                )
            )
        if key in found:
            raise UsageError(f"two inputs stand for `{key}` of {side.title}: name them  {word}::{key}  and so on")
        found[key] = value
    return as_inputs(found)


def _other_word(word: str) -> str:
    return SIDES[1 - SIDES.index(word)]


def _padding(inputs: Inputs) -> Array | None:
    """The mask of the main tokens, where one is given that hides something."""
    for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
        if role_of(str(name)) is MASK and value.ndim == 2 and set(np.unique(value)) == {0, 1}:
            return value.astype(bool)
    return None


def _other(key: Key, value: Array, rng: np.random.Generator, padding: Array | None) -> Array:
    role = role_of(key) if isinstance(key, str) else None
    if role is not None and role.kind in ("mask", "flag"):
        return value
    return drawn_like(value, rng, fixed=None if padding is None or padding.shape != value.shape else ~padding)


def _mapped(inputs: Inputs, change: Any) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: change(name, value) for name, value in inputs.items()}
    return [change(place, value) for place, value in enumerate(inputs)]
