"""One tensor of the candidate that is not what the morph makes: what it is instead, in words. Pure numpy on values.

A cause is said only when it explains every element of the tensor, or of the part of it that is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from isomorph.tensors import dtype
from isomorph.trace.diagnose.matrices import changes_of_bias, changes_of_matrix
from isomorph.trace.diagnose.orders import Part, order_of_lines, say_order
from isomorph.trace.nouns import Array
from isomorph.verify.causes import cause_of

MOST_RANK = 5
MOST_SHARED = 0.01


class Said(NamedTuple):
    """A slug of the taxonomy and a clause about the tensor, which is called by `name` in it."""

    kind: str
    says: str


def cause_of_values(name: str, found: Array, meant: Array, parts: Sequence[Part] = ()) -> Said:
    """What `found` is, where `meant` should be: both float64 and of one shape. `parts` are those of axis 0 of a fused tensor.

    >>> cause_of_values("bias", np.zeros(3), np.ones(3)).says
    'bias is missing (all zeros)'
    """
    if found.shape != meant.shape:
        return Said("weight-shape", f"{name} has the shape {list(found.shape)}, the morph makes {list(meant.shape)}")
    for look in LOOKS:
        said = look(name, found, meant, parts)
        if said is not None:
            return said
    return Said(
        "weight-other", f"{name} has other values ({np.count_nonzero(found != meant):,} of {found.size:,} differ)"
    )


def _not_finite(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    bad = int(np.count_nonzero(~np.isfinite(found) & np.isfinite(meant)))
    return Said("weight-not-finite", f"{name} holds NaN or Inf ({bad:,} of {found.size:,})") if bad else None


def _one_value(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    """A tensor that was never filled."""
    if found.size < 2 or (found != found.flat[0]).any():
        return None
    value = float(found.flat[0])
    if value == 0:
        kind = "bias-missing" if found.ndim == 1 else "weight-zero"
        return Said(kind, f"{name} is missing (all zeros)" if found.ndim == 1 else f"{name} is all zeros")
    return Said("weight-not-loaded", f"{name} is not loaded (all {value:g})")


def _transposed(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    """The axes of a kernel in another order: of the same shape, or only read so."""
    if not 3 <= found.ndim <= MOST_RANK:
        return None
    for order in permutations(range(found.ndim)):
        if order == tuple(range(found.ndim)):
            continue
        turned = meant.transpose(order)
        if turned.shape == found.shape and np.array_equal(turned, found):
            swapped = [axis for axis, other in enumerate(order) if axis != other]
            if swapped == [found.ndim - 2, found.ndim - 1]:
                return Said("kernel-transposed", f"{name} has height and width exchanged")
            return Said("weight-transposed", f"{name} has its axes in the order {' '.join(map(str, order))}")
        if np.array_equal(turned.reshape(-1), found.reshape(-1)):
            return Said(
                "weight-reshaped",
                f"{name} is reshaped where it should be transposed (axes {' '.join(map(str, order))})",
            )
    return None


def _flipped(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    """Later axes of a kernel reversed: colours, or the kernel turned round."""
    if found.ndim < 3:
        return None
    for axes in ((1,), (found.ndim - 1,), (found.ndim - 2,), (found.ndim - 2, found.ndim - 1)):
        if np.array_equal(np.flip(meant, axes), found):
            if axes == (1,):
                return Said("channels-reversed", f"{name} has its input channels in reverse order (BGR for RGB)")
            return Said(
                "kernel-flipped", f"{name} is flipped along {'its kernel' if len(axes) > 1 else f'axis {axes[0]}'}"
            )
    return None


def _matrix(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    if found.ndim == 2:
        for change in changes_of_matrix(found, meant, 0.0, parts) or changes_of_matrix(found, meant, 1e-6, parts):
            if change.kind != "residual-inside":
                return Said(change.kind, _named(change.says, name))
    if found.ndim == 1:
        for change in changes_of_bias(found, meant, 0.0, parts):
            says = change.says.replace("bias is added twice", "bias is doubled").replace(
                "bias is subtracted", "bias is negated"
            )
            return Said(change.kind, _named(says.replace("elements of the bias", "elements"), name))
    return None


def _named(says: str, name: str) -> str:
    """A clause about "weight" or "bias" as one about the tensor's own name; `q: weight is …` keeps its part."""
    said, count = re.subn(r"\b(weight|bias) is\b", lambda _: f"{name} is", says)
    return said if count else f"{name}: {said}"


def _lines(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    """Slices along an axis of a tensor of more than two."""
    for axis in range(found.ndim) if found.ndim > 2 else ():
        order = order_of_lines(np.moveaxis(found, axis, 0), np.moveaxis(meant, axis, 0), 0.0)
        if order is not None:
            said = say_order(order, "rows" if axis == 0 else f"slices along axis {axis}", parts if axis == 0 else ())
            return Said(said.kind, f"{name}: {said.says}")
    return None


def _rounded(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    with np.errstate(all="ignore"):
        for short in ("f32", "f16", "bf16", "f8e5m2", "f8e4m3"):
            if np.array_equal(meant.astype(dtype(short).numpy).astype(np.float64), found):
                return Said("weight-rounded", f"{name} is rounded to {short}")
        for one, two in (("f16", "bf16"), ("bf16", "f16")):
            twice = meant.astype(dtype(one).numpy).astype(np.float64).astype(dtype(two).numpy).astype(np.float64)
            if np.array_equal(twice, found):
                return Said("weight-rounded", f"{name} is rounded to {one}, then to {two}")
    return None


def _one_part(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    """Of a fused tensor, the parts that differ, each with a cause of its own."""
    if len(parts) < 2:
        return None
    said: dict[str, list[str]] = {}
    kinds = []
    for part in parts:
        one, two = found[part.start : part.stop], meant[part.start : part.stop]
        if not np.array_equal(one, two):
            cause = cause_of_values(name, one, two)
            said.setdefault(cause.says, []).append(part.name)
            kinds.append(cause.kind)
    if not kinds or (len(kinds) == len(parts) and len(said) > 1):
        return None
    return Said(kinds[0], "; ".join(f"{' and '.join(names)}: {says}" for says, names in said.items()))


def _by_bits(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    """What `verify` knows of bits: single elements, offsets, values that are nearly right."""
    one, two = (np.ascontiguousarray(side, dtype=np.float64).view(np.uint64) for side in (found, meant))
    cause = cause_of(one, two, dtype("f64"))
    return None if cause is None else Said("weight-other", f"{name}: {cause}")


def _none_shared(name: str, found: Array, meant: Array, parts: Sequence[Part]) -> Said | None:
    """No value of the tensor is one of that which it should be, but for a few by chance: float32 has few numbers near zero."""
    if found.size < 2 or np.isin(found, meant).mean() > MOST_SHARED:
        return None
    return Said(
        "weight-not-loaded", f"{name} is not loaded: none of its values are the reference's (left at its initial ones)"
    )


LOOKS: tuple[Callable[[str, Array, Array, Sequence[Part]], Said | None], ...] = (
    _not_finite,
    _one_value,
    _transposed,
    _flipped,
    _matrix,
    _lines,
    _rounded,
    _one_part,
    _by_bits,
    _none_shared,
)
"""In the order in which they are tried."""
