"""A source of a Move (a Box, a Fill, a Mix) -> its elements, with the operators carried out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from isomorph.engine.kernels import place
from isomorph.engine.split import clip, extent
from isomorph.formats.base import Checkpoint
from isomorph.language.tree import Op
from isomorph.operators.base import AxisOperator, Changes, Operator
from isomorph.operators.casting import cast
from isomorph.operators.computing import add_arrays
from isomorph.operators.numbers import encode
from isomorph.operators.registry import build
from isomorph.plan.boxes import row_major
from isomorph.plan.moves import Along, Box, Fill, Mix, Move, Source
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, Any]

AT_ONCE = 16 << 20
"""Bytes that an operator along axes computes with at a time."""


@lru_cache(maxsize=1024)
def operator_of(op: Op) -> Operator:
    return build(op)


def acting(operators: Sequence[Op], dtype: DType) -> tuple[list[tuple[Operator, DType]], DType]:
    """The operators that change anything, each with the dtype it meets, and the dtype at the end."""
    found = []
    for op in operators:
        operator = operator_of(op)
        if not operator.is_identity(dtype):
            found.append((operator, dtype))
        dtype = operator.result(dtype)
    return found, dtype


def source_dtype(source: Source, checkpoint: Checkpoint) -> DType:
    """The dtype of the elements that `evaluate` gives."""
    if isinstance(source, Box):
        return checkpoint.manifest[source.tensor].dtype
    if isinstance(source, Fill):
        return source.dtype
    if isinstance(source, Along):
        first = source.parts[0]
        met = acting(first.operators, source_dtype(first.source, checkpoint))[1]
        return operator_of(source.operator).result(met)
    return acting(source.operators, source_dtype(source.sources[0], checkpoint))[1]


def evaluate(
    source: Source,
    operators: Sequence[Op],
    checkpoint: Checkpoint,
    changes: Changes | None = None,
    out: Array | None = None,
) -> tuple[Array, DType]:
    """The elements of `source` after `operators`: their bits, in the source's shape and any layout in memory; for reading only.

    `out`, contiguous and of that shape and width, may be used for the result (then it is the result), where something is computed.

    Raises ElementError where an operator refuses a value; its index is row-major in the source's shape.
    """
    if isinstance(source, Box):
        array = checkpoint.fetch(source.tensor, source.offset, source.shape, source.strides)
        dtype = checkpoint.manifest[source.tensor].dtype
    elif isinstance(source, Fill):
        array, dtype = fill(source), source.dtype
    elif isinstance(source, Along):
        array, dtype = _along(source, checkpoint, changes)
    else:
        array, dtype = _mix(source, checkpoint, changes)
    found, result = acting(operators, dtype)
    for number, (operator, met) in enumerate(found):
        is_last = number == len(found) - 1
        array = operator.apply(array, met, changes=changes, out=out if is_last else None)
    return array, result


def _mix(mix: Mix, checkpoint: Checkpoint, changes: Changes | None) -> tuple[Array, DType]:
    total, dtype = evaluate(mix.sources[0], (), checkpoint, changes)
    for source in mix.sources[1:]:
        array, _ = evaluate(source, (), checkpoint, changes)
        total = add_arrays(total, array, dtype)
    found, result = acting(mix.operators, dtype)
    for operator, met in found:
        total = operator.apply(total, met, changes=changes)
    return total, result


def _along(source: Along, checkpoint: Checkpoint, changes: Changes | None) -> tuple[Array, DType]:
    """A box of what an operator along axes makes: as much of `outer` at a time as AT_ONCE allows, one index of it at least."""
    operator = operator_of(source.operator)
    assert isinstance(operator, AxisOperator)
    first = source.parts[0]
    met = acting(first.operators, source_dtype(first.source, checkpoint))[1]
    result = operator.result(met)
    found = np.empty(source.shape, result.bits)
    read, made = math.prod(source.before), math.prod(source.after)
    wanted = Move(
        Box("", source.offset, source.shape, source.strides), Box("", 0, source.shape, row_major(source.shape))
    )
    low, high = extent(wanted.target)
    step = max(1, AT_ONCE // (8 * max(1, read + made)))
    for start in range(low // made if made else 0, -(-high // made) if made else 0, step):
        stop = min(start + step, source.outer)
        pieces = clip(wanted, start * made, stop * made)
        if not pieces:
            continue
        array = np.empty((stop - start) * read, met.bits)
        for part in source.parts:
            for move in clip(part, start * read, stop * read):
                values, _ = evaluate(move.source, move.operators, checkpoint, changes)
                place(values, array, move.target.offset - start * read, move.target.strides)
        after = operator.along(array.reshape(stop - start, *source.before), met, source.after).reshape(-1)
        for piece in pieces:
            assert isinstance(piece.source, Box)
            box, to = piece.target, piece.source
            steps = tuple(stride * result.nbytes for stride in box.strides)
            view = np.lib.stride_tricks.as_strided(after[box.offset - start * made :], box.shape, steps)
            place(view, found.reshape(-1), to.offset, to.strides)
    return found, result


def fill(source: Fill) -> Array:
    """The elements of a constant, as bits. One value is broadcast and takes no memory."""
    if source.arange_strides is None:
        bits = encode(source.value, source.dtype)
        value = np.frombuffer(bits.to_bytes(source.dtype.nbytes, "little"), source.dtype.bits)
        return np.broadcast_to(value.reshape(()), source.shape)
    count = np.full(source.shape, int(Fraction(source.value)), np.int64)
    for axis, (size, step) in enumerate(zip(source.shape, source.arange_strides, strict=True)):
        steps = np.arange(size, dtype=np.int64) * step
        count += steps.reshape([-1 if other == axis else 1 for other in range(len(source.shape))])
    return cast(count, DTYPES["i64"], source.dtype, rounding=True)


def source_text(source: Source) -> str:
    """The source as one line of text, the same for equal sources: for digests."""
    if isinstance(source, Box):
        return f"{source.tensor!r}@{source.offset}{source.shape}{source.strides}"
    if isinstance(source, Fill):
        return f"{source.value}:{source.dtype}{source.shape}{source.arange_strides}"
    if isinstance(source, Along):
        parts = " ".join(
            f"{source_text(part.target)}={source_text(part.source)}{part.operators}" for part in source.parts
        )
        sizes = f"{source.outer}{source.before}{source.after}@{source.offset}{source.shape}{source.strides}"
        return f"({parts} {source.operator} {sizes})"
    return f"({' + '.join(map(source_text, source.sources))} {source.operators})"
