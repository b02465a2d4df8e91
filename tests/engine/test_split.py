from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isomorph.engine.split import clip, extent, fractions_of
from isomorph.plan.moves import Box, Move


def elements(box: Box) -> list[int]:
    return [
        box.offset + sum(i * step for i, step in zip(index, box.strides, strict=True))
        for index in np.ndindex(*box.shape)
    ]


@st.composite
def boxes(draw: st.DrawFn) -> Move:
    """Any strides at all, of any sign: nested, interleaved, repeated."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    strides = st.integers(-9, 30)
    target = Box("t", draw(st.integers(0, 200)), shape, tuple(draw(strides) for _ in shape))
    return Move(target, Box("s", 100, shape, tuple(draw(strides) for _ in shape)))


@given(boxes(), st.integers(-50, 400), st.integers(0, 200))
def test_a_clipped_move_fills_what_the_move_fills_in_that_range(move: Move, start: int, length: int):
    """Element for element, from the same source elements, each as often; nothing outside."""
    stop = start + length
    pairs = zip(elements(move.target), elements(move.source), strict=True)  # type: ignore[arg-type]
    expected = sorted(pair for pair in pairs if start <= pair[0] < stop)
    found = []
    for part in clip(move, start, stop):
        found.extend(zip(elements(part.target), elements(part.source), strict=True))  # type: ignore[arg-type]
    assert expected == sorted(found)


@given(boxes())
def test_the_extent_holds_every_element(move: Move):
    """From the least to the greatest."""
    found = elements(move.target)
    expected = (min(found), max(found) + 1) if found else (move.target.offset, move.target.offset)
    assert expected == extent(move.target)


def test_a_nested_box_is_clipped_into_few_parts():
    """At most two for every axis and one, however many rows there are."""
    move = Move(Box("t", 0, (1000, 1000, 10), (10000, 10, 1)), Box("s", 0, (1000, 1000, 10), (1, 1000, 1000000)))
    assert len(clip(move, 12345, 9_000_003)) <= 5


@given(st.lists(st.integers(0, 6), max_size=4), st.integers(1, 50))
def test_fractions_make_up_the_shape_in_order(shape: list[int], most: int):
    """Every index once, row-major, no part larger than asked."""
    expected = list(np.ndindex(*shape))
    found = []
    for part in fractions_of(shape, most):
        starts = [start for start, _ in part]
        indices = [
            tuple(np.add(starts, index).tolist()) if starts else () for index in np.ndindex(*(b - a for a, b in part))
        ]
        assert 1 <= len(indices) <= most
        found.extend(indices)
    assert expected == found
