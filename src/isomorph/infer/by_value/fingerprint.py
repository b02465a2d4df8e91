"""A fingerprint of every tensor of a checkpoint, in one pass and bounded memory: what its elements are, whatever their order.

    tensor ──runs──▶ bits ──hash_elements──▶ hashes ──FibreSums──▶ Print(total, axes, zeros, constant, …)
                      └──rounded to a narrower dtype──▶ hashes ──▶ Casted

Totals add: `total(qkv) = total(q) + total(k) + total(v)`, whatever the interleave. A total is evidence, never a proof.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.fibres import NOTHING, TOGETHER, AxisDigest, FibreSums, digest, row_sums
from isomorph.infer.by_value.hashing import TILE, U64, hash_elements
from isomorph.infer.by_value.rounded import Rounded, casts_of
from isomorph.infer.by_value.runs import runs
from isomorph.infer.texts import number_text
from isomorph.operators.numbers import FLOATS, PARTS
from isomorph.tensors import DTYPES, DType, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Casted:
    """The tensor rounded once to another dtype, to nearest, ties to even. `exact`: no element changed its value.

    `saturated`: a number overflowed and became the dtype's largest, which a cast does only where it says `saturate`.
    """

    total: int
    axes: tuple[AxisDigest, ...]
    exact: bool
    saturated: bool = False


@dataclass(frozen=True, slots=True)
class Print:
    """What is known of a tensor without knowing the order of its elements.

    `total` is the sum of the hashes of its elements, modulo 2**64. `axes` has for each axis the digest of its fibre sums.
    """

    dtype: DType
    shape: tuple[int, ...]
    total: int
    numel: int
    axes: tuple[AxisDigest, ...]
    constant: str | None = None
    """The text of the one value that fills it, as the notation writes numbers; None where there are two, or it is NaN."""
    n_zero: int = 0
    """How many elements are zero, of either sign."""
    finite: bool = True
    """No infinity and no NaN."""
    same: bool = False
    """All elements have the same bits (those of a constant; of NaN and of complex numbers too). False when there is none."""
    casts: Mapping[str, Casted] = field(default_factory=dict)
    """For each other dtype that was asked for and that does not hold every value of this one: the tensor rounded to it."""


def fingerprints(
    checkpoint: Checkpoint,
    *,
    casts: Iterable[DType] = (),
    max_memory: int = 256 << 20,
    progress: Callable[[int], None] | None = None,
    names: Iterable[str] | None = None,
) -> dict[str, Print]:
    """The Print of every tensor (of `names`, where given), in the order of the manifest.

    `casts`: dtypes to which tensors are rounded as well. `max_memory` bounds what is held, whatever the sizes of the tensors.
    `progress` is called with the number of bytes just read.
    """
    wanted = None if names is None else frozenset(names)
    others = tuple({dtype.name: dtype for dtype in casts}.values())
    return {
        name: fingerprint(checkpoint, name, casts=others, max_memory=max_memory, progress=progress)
        for name in checkpoint.manifest
        if wanted is None or name in wanted
    }


def fingerprint(
    checkpoint: Checkpoint,
    name: str,
    *,
    casts: Iterable[DType] = (),
    max_memory: int = 256 << 20,
    progress: Callable[[int], None] | None = None,
) -> Print:
    """The Print of one tensor."""
    spec = checkpoint.manifest[name]
    rounded = [Rounded(spec.dtype, other) for other in casts_of(spec.dtype, casts)]
    wide = _too_long(spec, max_memory // (8 * (2 + len(rounded))))
    sums = FibreSums(spec.shape, wide)
    rounded_sums = [FibreSums(spec.shape, wide) for _ in rounded]
    facts = _Facts(spec.dtype)
    hashes = np.empty(min(TILE, spec.numel), U64)
    for part in runs(checkpoint, name, max_memory=max_memory // 4):
        for start in range(0, len(part), TILE):
            bits = part[start : start + TILE]
            found = hash_elements(bits, spec.dtype, out=hashes[: len(bits)])
            facts.see(bits)
            sums.feed(found)
            for one, its in zip(rounded, rounded_sums, strict=True):
                its_hashes = one.hashes(bits, found)
                if its_hashes is not None:
                    its.feed(its_hashes)
        if progress is not None:
            progress(part.nbytes)
    total, axes = sums.finish()
    made: dict[str, Casted] = {}
    for one, its in zip(rounded, rounded_sums, strict=True):
        if one.is_alive:
            its_total, its_axes = its.finish()
            again = Rounded(spec.dtype, one.target)
            its_axes = _with_stripes(checkpoint, name, its_axes, wide, max_memory, again.hashes)
            made[one.target.name] = Casted(its_total, its_axes, one.is_exact, one.saturated)
    axes = _with_stripes(checkpoint, name, axes, wide, max_memory, lambda bits, found: found)
    constant = facts.constant
    return Print(
        spec.dtype, spec.shape, total, spec.numel, axes, constant, facts.n_zero, facts.finite, facts.same, made
    )


# ── axes that are too long to be held whole ──────────────────────────────────────────────────────────────────────────


def _too_long(spec: TensorSpec, most_entries: int) -> tuple[int, ...]:
    """The axes (of more than one entry, the outermost aside) whose sums are not held while the tensor streams by."""
    inner = [axis for axis, size in enumerate(spec.shape) if size != 1][1:]
    most = max(TOGETHER, most_entries // max(1, len(inner)))
    return tuple(axis for axis in inner if spec.shape[axis] > most) if spec.numel > most else ()


def _with_stripes(
    checkpoint: Checkpoint,
    name: str,
    axes: tuple[AxisDigest, ...],
    wide: Sequence[int],
    max_memory: int,
    change: Callable[[Array, Array], Array | None],
) -> tuple[AxisDigest, ...]:
    """`axes` with the digests of `wide` filled in: the tensor is read once more for each, some entries of the axis at a time."""
    found = list(axes)
    for axis in wide:
        found[axis] = _striped(checkpoint, name, axis, max(1, max_memory // 32), change)
    return tuple(found)


def _striped(
    checkpoint: Checkpoint, name: str, axis: int, most_entries: int, change: Callable[[Array, Array], Array | None]
) -> AxisDigest:
    spec = checkpoint.manifest[name]
    size, inner = spec.shape[axis], math.prod(spec.shape[axis + 1 :])
    ordered = multiset = 0
    for low in range(0, size, most_entries):
        count = min(most_entries, size - low)
        stripe = np.zeros(count, U64)
        for outer in range(math.prod(spec.shape[:axis])):
            start = (outer * size + low) * inner
            place = 0
            for part in runs(checkpoint, name, start=start, stop=start + count * inner):
                for first in range(0, len(part), TILE):
                    bits = part[first : first + TILE]
                    hashes = change(bits, hash_elements(bits, spec.dtype))
                    if hashes is None:  # refused here, so it was when the tensor was read first
                        return NOTHING
                    place = _add_rows(stripe, place, inner, hashes)
        found = digest(stripe, low)
        ordered, multiset = ordered + found.ordered, multiset + found.multiset
    return AxisDigest(ordered % 2**64, multiset % 2**64)


def _add_rows(stripe: Array, place: int, inner: int, hashes: Array) -> int:
    """Add consecutive hashes, the first of which is element `place`, to the sums of their rows of `inner`. The place after them."""
    start = 0
    while start < len(hashes):
        row, column = divmod(place, inner)
        if column == 0 and len(hashes) - start >= inner:
            rows = (len(hashes) - start) // inner
            count = rows * inner
            stripe[row : row + rows] += row_sums(hashes[start : start + count].reshape(rows, inner))
        else:
            count = min(inner - column, len(hashes) - start)
            stripe[row] += np.add.reduce(hashes[start : start + count])
        start += count
        place += count
    return place


class _Facts:
    """Zeros, finiteness and the one value of a tensor, tile by tile."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.n_zero = 0
        self.finite = True
        self.first: bytes | None = None
        self.same = False
        part = DTYPES[PARTS[dtype.name]] if dtype.name in PARTS else dtype
        self.part = part
        self.layout = FLOATS.get(part.name)

    def see(self, bits: Array) -> None:
        """The next elements."""
        if self.first is None:
            self.first = bits[:1].tobytes()
            self.same = True
        if self.same:
            parts = bits.view(self.part.bits).reshape(len(bits), -1)
            self.same = bool((parts == np.frombuffer(self.first, self.part.bits)).all())
        if self.layout is None:
            if self.dtype.kind != "opaque":
                self.n_zero += bits.size - int(np.count_nonzero(bits))
            return
        parts = bits.view(self.part.bits)
        sizes = parts & parts.dtype.type(self.layout.sign_bit - 1)
        self.finite = self.finite and int(sizes.max()) <= self.layout.largest
        if self.dtype.kind == "complex":
            sizes = sizes[0::2] | sizes[1::2]
        self.n_zero += sizes.size - int(np.count_nonzero(sizes))

    @property
    def constant(self) -> str | None:
        if not self.same or self.first is None:
            return None
        return number_text(int.from_bytes(self.first, "little"), self.dtype)
