"""The parts of a fused or cut tensor, as a bar: `q 1024 │ k 1024 │ v 1024`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from isomorph.plan.folding import differing
from isomorph.plan.moves import Box, Fill, Mix, Move, Source, names_of
from isomorph.plan.plan import Plan


def bar(plan: Plan, name: str, moves: Sequence[Move]) -> str:
    """`q 1024 │ k 1024 │ v 1024`: the parts of a fused tensor, in their order, by what tells their names apart."""
    shape = plan.targets[name].spec.shape
    parts: dict[str, list[Move]] = {}
    for move in sorted(moves, key=lambda move: move.target.offset):
        parts.setdefault(_label(move.source), []).append(move)
    labels = differing(list(parts))
    windows = [_bounds(part, shape) for part in parts.values()]
    axis = next(
        (k for k in range(len(shape)) if any(high - low < shape[k] for low, high in (window[k] for window in windows))),
        None,
    )
    if any(isinstance(move.source, Mix) for move in moves) or axis is None:
        return " + ".join(labels[:9])
    spans = [window[axis] for window in windows]
    if [*labels] == [str(number) for number in range(len(labels))] and all(high - low == 1 for low, high in spans):
        return f"0..{len(labels) - 1} stacked along axis {axis}"
    if len(spans) > 12:
        return f"{len(spans)} parts stacked: {labels[0]} │ {labels[1]} │ … │ {labels[-1]}"
    if all(before[1] <= after[0] for before, after in itertools.pairwise(spans)):
        return " │ ".join(f"{label} {high - low}" for label, (low, high) in zip(labels, spans, strict=True))
    return " │ ".join(labels) + f"  interleaved along axis {axis}"


def _label(source: Source) -> str:
    if isinstance(source, Fill):
        return "arange" if source.arange_strides is not None else f"{float(source.value):g}"
    return " + ".join(names_of(source))


def _bounds(moves: Sequence[Move], shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """For each axis of the target, the half-open range of indices that the moves touch."""
    low = list(shape)
    high = [0] * len(shape)
    for move in moves:
        box = move.target
        if 0 in box.shape:
            continue
        first = _index(box.offset, shape)
        corner = list(first)
        for size, stride in zip(box.shape, box.strides, strict=True):
            last = _index(box.offset + (size - 1) * stride, shape)
            for axis in range(len(shape)):
                corner[axis] = max(corner[axis], last[axis])
                if size > 1 and stride < _stride(shape, axis) * shape[axis] and last[axis] < first[axis]:
                    corner[axis] = shape[axis] - 1  # it wraps round: the whole axis
            for axis in range(len(shape)):
                if size > 1 and _wraps(stride, size, axis, shape):
                    corner[axis] = shape[axis] - 1
        for axis in range(len(shape)):
            low[axis] = min(low[axis], first[axis])
            high[axis] = max(high[axis], corner[axis] + 1)
    return list(zip(low, high, strict=True))


def _stride(shape: tuple[int, ...], axis: int) -> int:
    step = 1
    for size in shape[axis + 1 :]:
        step *= size
    return step


def _wraps(stride: int, size: int, axis: int, shape: tuple[int, ...]) -> bool:
    """True when `size` steps of `stride` run through the whole of an axis at least once."""
    step = _stride(shape, axis)
    return stride < step * shape[axis] and stride * size >= step * shape[axis]


def _index(flat: int, shape: tuple[int, ...]) -> list[int]:
    found = []
    for size in reversed(shape):
        flat, digit = divmod(flat, size) if size else (0, 0)
        found.append(digit)
    return found[::-1]


def window(plan: Plan, moves: Sequence[Move]) -> str:
    source = moves[0].source
    if not isinstance(source, Box):
        return ""
    shape = plan.source[source.tensor].shape
    window = _bounds([Move(move.source, move.source) for move in moves if isinstance(move.source, Box)], shape)
    if all((low, high) == (0, size) for (low, high), size in zip(window, shape, strict=True)):
        return ", every other part of it"
    return (
        "[" + ", ".join(":" if (a, b) == (0, n) else f"{a}:{b}" for (a, b), n in zip(window, shape, strict=True)) + "]"
    )
