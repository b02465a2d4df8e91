"""Random plans: targets cut into boxes along any axes, each filled from anywhere in a source."""

from __future__ import annotations

import math

from engine_plans import plan_of, strides_of
from hypothesis import strategies as st

from isomorph.plan.moves import Box, Move
from isomorph.plan.plan import Plan
from isomorph.tensors import Manifest, TensorSpec, dtype

SOURCE_NUMEL = 4000


@st.composite
def cuts(draw: st.DrawFn, shape: tuple[int, ...], depth: int) -> list[tuple[tuple[int, int], ...]]:
    """The shape cut into rectangles, each a (start, stop) for every axis."""
    pieces = [tuple((0, size) for size in shape)]
    for _ in range(draw(st.integers(0, depth))):
        number = draw(st.integers(0, len(pieces) - 1))
        piece = pieces.pop(number)
        axis = draw(st.integers(0, len(shape) - 1)) if shape else 0
        if not shape or piece[axis][1] - piece[axis][0] < 2:
            pieces.append(piece)
            continue
        middle = draw(st.integers(piece[axis][0] + 1, piece[axis][1] - 1))
        for low, high in ((piece[axis][0], middle), (middle, piece[axis][1])):
            pieces.append((*piece[:axis], (low, high), *piece[axis + 1 :]))
    return pieces


@st.composite
def moves_into(draw: st.DrawFn, name: str, shape: tuple[int, ...], sources: list[str]) -> list[Move]:
    """Moves that fill tensor `name` wholly, each from a permuted (sometimes repeated or backward) box of a source."""
    rows = strides_of(shape)
    moves = []
    for piece in draw(cuts(shape, 4)):
        sizes = tuple(stop - start for start, stop in piece)
        target = Box(name, sum(start * step for (start, _), step in zip(piece, rows, strict=True)), sizes, rows)
        order = draw(st.permutations(range(len(sizes))))
        steps = [0] * len(sizes)
        step = draw(st.sampled_from([1, 1, 1, 2]))
        for axis in reversed(order):
            steps[axis] = step
            step *= sizes[axis]
        reach = sum((size - 1) * each for size, each in zip(sizes, steps, strict=True))
        if math.prod(sizes) and reach >= SOURCE_NUMEL:
            steps, reach = [0] * len(sizes), 0
        offset = draw(st.integers(0, SOURCE_NUMEL - 1 - reach))
        axes = draw(st.permutations(range(len(sizes))))
        target = Box(name, target.offset, tuple(sizes[a] for a in axes), tuple(rows[a] for a in axes))
        moves.append(
            Move(target, Box(draw(st.sampled_from(sources)), offset, target.shape, tuple(steps[a] for a in axes)))
        )
    return moves


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A plan over sources `s0`, `s1` of 4000 elements each, of one dtype."""
    kind = dtype(draw(st.sampled_from(["u8", "i16", "f32", "f64"])))
    manifest = Manifest({"s0": TensorSpec(kind, (SOURCE_NUMEL,)), "s1": TensorSpec(kind, (40, 100))})
    targets, moves = {}, []
    for number in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
        targets[f"t{number}"] = TensorSpec(kind, shape)
        moves.extend(sorted(draw(moves_into(f"t{number}", shape, ["s0", "s1"])), key=lambda move: move.target.offset))
    return plan_of(manifest, targets, moves)
