"""Strided boxes: where two of them overlap, and how they simplify."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from isomorph.plan.boxes import overlaps, row_major, simplify


@st.composite
def nested_boxes(draw: st.DrawFn) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """A box whose strides nest, with or without gaps, axes in any order."""
    axes: list[tuple[int, int]] = []
    extent = 1
    for _ in range(draw(st.integers(0, 3))):
        size = draw(st.integers(1, 4))
        stride = extent + draw(st.integers(0, 3))
        axes.append((size, stride))
        extent = stride * size if draw(st.booleans()) else stride * (size - 1) + extent
    axes = draw(st.permutations(axes))
    return draw(st.integers(0, 20)), tuple(size for size, _ in axes), tuple(stride for _, stride in axes)


def elements(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> dict[int, tuple[int, ...]]:
    indices = itertools.product(*map(range, shape))
    return {offset + sum(i * s for i, s in zip(index, strides, strict=True)): index for index in indices}


@given(nested_boxes(), nested_boxes())
def test_overlaps_cover_the_intersection_once_and_know_both_places(one, other):
    """Each shared element is in exactly one piece, and the piece's two linear maps give its index in either box."""
    inside, outside = elements(*one), elements(*other)
    expected = {flat: (inside[flat], outside[flat]) for flat in inside if flat in outside}
    found = {}
    for piece in overlaps(*one, *other):
        for steps in itertools.product(*map(range, piece.shape)):
            first = tuple(
                start + sum(step * each[k] for step, each in zip(steps, piece.steps_a, strict=True))
                for k, start in enumerate(piece.start_a)
            )
            second = tuple(
                start + sum(step * each[k] for step, each in zip(steps, piece.steps_b, strict=True))
                for k, start in enumerate(piece.start_b)
            )
            flat = one[0] + sum(index * stride for index, stride in zip(first, one[2], strict=True))
            assert flat not in found
            found[flat] = (first, second)
    assert expected == found


def test_interleaved_parts_overlap_in_few_pieces():
    """A fused tensor of 16 heads meets each of its interleaved parts in two pieces, whatever their size."""
    heads, width = 16, 65536
    for part in range(3):
        pieces = list(overlaps(0, (heads * 3 * width,), (1,), part * width, (heads, width), (3 * width, 1)))
        assert [(15, width), (width,)] == [piece.shape for piece in pieces]


@given(st.lists(st.integers(1, 4), max_size=4))
def test_a_dense_box_simplifies_to_one_run(shape):
    """Row-major strides of any shape are one run."""
    found, (strides,) = simplify(tuple(shape), (row_major(shape),))
    assert len(found) <= 1
    assert all(stride == 1 for stride in strides)
