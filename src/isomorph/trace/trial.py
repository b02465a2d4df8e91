"""Sizes of inputs that no config says: read off the model's tensors, and tried on the model until it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import isqrt

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.facts import Facts
from isomorph.trace.nouns import Array
from isomorph.trace.protocol import Side
from isomorph.trace.signature import DECODER, EXAMPLE, FEATURES, IMAGE, MAINS, TOKENS, TYPES, Key, Role

MOST_POSITIONS = 521
MOST_TRIED = 24
MOST_TYPES = 64


def found_by_trial(
    side: Side, facts: Facts, keys: Mapping[Role, Key | None], *, may_guess: bool = False
) -> tuple[Role | None, Facts]:
    """What `facts` lack for the inputs of these roles; and what the main input turned out to be, where nobody said (`may_guess`).

    Raises UsageError where nothing runs.
    """
    if may_guess:
        key = next(key for role, key in keys.items() if role in MAINS)
        for role in (TOKENS, IMAGE, FEATURES):
            found = _found(side, facts, role, {role: key})
            if found is not None:
                return role, found
        raise _nothing(side, "what kind of input it takes")
    for role in keys:
        if role in (TOKENS, IMAGE, FEATURES):
            found = _found(side, facts, role, keys)
            if found is None:
                raise _nothing(
                    side,
                    {"tokens": "how many tokens it knows", "image": "the size of its images"}.get(
                        role.kind, "the width of its input"
                    ),
                )
            facts = found
    if TYPES in keys and keys[TYPES] is not None and facts.types is None:
        facts = _types(side, facts, keys)
    return None, facts


def _nothing(side: Side, what: str) -> UsageError:
    return UsageError(
        f"{what} is not known: {side.title} has no config that says it, and no size that was tried runs. Give the inputs: {EXAMPLE}"
    )


def _found(side: Side, facts: Facts, role: Role, keys: Mapping[Role, Key | None]) -> Facts | None:
    if role is TOKENS:
        found = _vocabulary(side, facts, keys)
        return None if found is None else _positions(side, found, keys)
    return _image(side, facts, keys) if role is IMAGE else _width(side, facts, keys)


def runs(side: Side, values: Mapping[Role, Array], keys: Mapping[Role, Key | None]) -> bool:
    """Whether the side runs on these."""
    given = {keys[role]: value for role, value in values.items() if keys.get(role) is not None}
    try:
        if all(isinstance(key, int) for key in given):
            side.run([given[key] for key in sorted(given, key=lambda key: int(key or 0))], watch=())
        else:
            side.run({str(key): value for key, value in given.items()}, watch=())
    except UsageError:
        return False
    return True


def _trial(
    facts: Facts, tokens: Array | None, keys: Mapping[Role, Key | None], image: Array | None = None
) -> dict[Role, Array]:
    values: dict[Role, Array] = {}
    if tokens is not None:
        values[TOKENS] = tokens
        if DECODER in keys:
            values[DECODER] = np.full((2, 2), facts.start or facts.pad or 0, dtype=np.int64)
    if image is not None:
        values[IMAGE] = image
    elif IMAGE in keys and facts.image is not None:
        values[IMAGE] = np.zeros((2, facts.channels or 3, *facts.image))
    return values


def _is_embedding(side: Side, name: str) -> bool:
    return any(name in facts.own and "embed" in facts.kind.lower() for facts in side.modules().values())


def _tables(side: Side) -> list[int]:
    """The rows of the tensors that are looked up; of all matrices where no module says so."""
    named = {name: spec.shape for name, spec in side.manifest().items() if len(spec.shape) == 2}
    tables = sorted({shape[0] for name, shape in named.items() if _is_embedding(side, name)})
    return tables or sorted({size for shape in named.values() for size in shape})


def _vocabulary(side: Side, facts: Facts, keys: Mapping[Role, Key | None]) -> Facts | None:
    """The largest table whose last row can be looked up and whose next cannot."""
    if facts.vocab is not None:
        return facts
    if IMAGE in keys and facts.image is None:
        facts = _image(side, facts, keys) or facts
    for size in sorted(_tables(side), reverse=True)[:MOST_TRIED]:
        last = np.full((2, 2), size - 1, dtype=np.int64)
        if runs(side, _trial(facts, last, keys), keys) and not runs(side, _trial(facts, last + 1, keys), keys):
            return replace(facts, vocab=size)
    return None


def _positions(side: Side, facts: Facts, keys: Mapping[Role, Key | None]) -> Facts:
    """The most tokens that run; unknown (no limit) where many do."""
    if facts.positions is not None:
        return facts
    for size in sorted(
        (size for size in {*_tables(side), MOST_POSITIONS} if 2 <= size <= MOST_POSITIONS), reverse=True
    )[:MOST_TRIED]:
        for length in dict.fromkeys((size, max(2, size - 2))):
            if runs(side, _trial(facts, np.zeros((2, length), dtype=np.int64), keys), keys):
                return facts if size == MOST_POSITIONS else replace(facts, positions=length)
    return replace(facts, positions=2)


def _types(side: Side, facts: Facts, keys: Mapping[Role, Key | None]) -> Facts:
    """The largest small table whose last row is a type and whose next is none."""
    plain = _trial(facts, np.zeros((2, 2), dtype=np.int64), keys)
    for size in sorted((size for size in _tables(side) if 1 < size <= MOST_TYPES), reverse=True):
        last = np.full((2, 2), size - 1, dtype=np.int64)
        if runs(side, {**plain, TYPES: last}, keys) and not runs(side, {**plain, TYPES: last + 1}, keys):
            return replace(facts, types=size)
    return facts


def _image(side: Side, facts: Facts, keys: Mapping[Role, Key | None]) -> Facts | None:
    """Channels and patch from the first convolution, the size of the image from a table of that many patches (and class tokens)."""
    if facts.image is not None:
        return facts if facts.channels is not None else replace(facts, channels=_first_kernel(side, facts.patch)[0])
    channels, patch = _first_kernel(side, facts.patch)
    for tried, rows in enumerate(_grids(side)):
        if tried >= MOST_TRIED:
            return None
        size = (rows * patch[0], rows * patch[1])
        values = _trial(facts, None, keys, np.zeros((2, channels, *size)))
        if keys.get(TOKENS) is not None:  # token 0 is in every vocabulary
            values |= _trial(facts, np.zeros((2, 2), dtype=np.int64), keys)
            values[IMAGE] = np.zeros((2, channels, *size))
        if runs(side, values, {role: key for role, key in keys.items() if role in values}):
            return replace(facts, image=size, patch=facts.patch or patch, channels=channels)
    return None


def _first_kernel(side: Side, patch: tuple[int, int] | None) -> tuple[int, tuple[int, int]]:
    for spec in side.manifest().values():
        if len(spec.shape) == 4 and spec.shape[1] <= 16:
            return spec.shape[1], (spec.shape[2], spec.shape[3])
    return 3, patch or (16, 16)


def _grids(side: Side) -> Iterator[int]:
    """Rows of patches that some tensor's size speaks for, the largest first; then usual sizes for models that take any."""
    said: set[int] = set()
    for spec in side.manifest().values():
        for size in spec.shape:
            for more in (0, 1, 2):
                root = isqrt(max(0, size - more))
                if root > 1 and root * root == size - more:
                    said.add(root)
    yield from sorted(said, reverse=True)
    yield from (one for one in (14, 8, 32) if one not in said)


def _width(side: Side, facts: Facts, keys: Mapping[Role, Key | None]) -> Facts | None:
    """A size of some tensor that runs as the last axis of [batch, position, width], else of [batch, width]."""
    sizes = [facts.width] if facts.width is not None else []
    sizes += [
        size for spec in side.manifest().values() if len(spec.shape) >= 2 for size in (spec.shape[1], spec.shape[0])
    ]
    sizes += [size for spec in side.manifest().values() if len(spec.shape) == 1 for size in spec.shape]
    for axes in (3, 2):
        for size in list(dict.fromkeys(sizes))[:MOST_TRIED]:
            shape = (2, 3, size) if axes == 3 else (2, size)
            if runs(side, {FEATURES: np.ones(shape)}, {FEATURES: keys.get(FEATURES)}):
                return replace(facts, width=size, rank=axes)
    return None
