"""Strided boxes: simplify them, and cut one by another. All on flat row-major element indices; nothing knows a tensor.

A box is (offset, shape, strides). Boxes are simplified by leaving out axes of size 1 and joining axes that follow each other:

>>> simplify((2, 1, 3), ((3, 9, 1), (3, 0, 1)))
((6,), ((1,), (1,)))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


def row_major(shape: Sequence[int]) -> Shape:
    """The strides, in elements, of a dense row-major tensor."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def simplify(shape: Shape, strides: Sequence[Shape]) -> tuple[Shape, tuple[Shape, ...]]:
    """Leave out axes of size 1, and join neighbours that are one axis for every one of `strides`. Order is kept."""
    kept: list[int] = []
    rows: list[list[int]] = [[] for _ in strides]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        if kept and all(row[-1] == each[axis] * size for row, each in zip(rows, strides, strict=True)):
            kept[-1] *= size
            for row, each in zip(rows, strides, strict=True):
                row[-1] = each[axis]
            continue
        kept.append(size)
        for row, each in zip(rows, strides, strict=True):
            row.append(each[axis])
    return tuple(kept), tuple(tuple(row) for row in rows)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Elements that two boxes share, on which the place in either box is linear.

    Element j (of `shape`) is at index `start_a + Σ j_k steps_a[k]` of box A and at `start_b + Σ j_k steps_b[k]` of box B.
    """

    shape: Shape
    start_a: Shape
    steps_a: tuple[Shape, ...]
    start_b: Shape
    steps_b: tuple[Shape, ...]


def overlaps(
    offset_a: int, shape_a: Shape, strides_a: Shape, offset_b: int, shape_b: Shape, strides_b: Shape
) -> Iterator[Overlap]:
    """What box A shares with box B, in disjoint pieces that cover it whole.

    B's strides nest (a target box: each at least the extent of the smaller ones together); A's are positive and otherwise free.
    Where strides divide each other there are few pieces; where they do not, axes are cut at every border.

    >>> [piece.shape for piece in overlaps(0, (12,), (1,), 2, (3, 2), (4, 1))]
    [(2, 2), (2,)]
    """
    if 0 in shape_a or 0 in shape_b:
        return
    other = _Nested(shape_b, strides_b)
    rank = len(shape_a)
    axes = tuple(_Free(axis, size, strides_a[axis], 1) for axis, size in enumerate(shape_a) if size > 1)
    pending = [(axes, (0,) * rank, offset_a - offset_b)]
    while pending:
        axes, start, relative = pending.pop()
        if other.misses(axes, relative):
            continue
        linear = other.linear(axes, relative)
        if linear is not None:
            start_b, steps_b = linear
            steps_a = tuple(tuple(axis.unit if k == axis.axis else 0 for k in range(rank)) for axis in axes)
            yield Overlap(tuple(axis.count for axis in axes), start, steps_a, start_b, steps_b)
            continue
        assert axes, "a single position either lies in B or misses it"
        pending.extend(reversed(list(_split(axes, start, relative, other))))


@dataclass(frozen=True, slots=True)
class _Free:
    """`count` steps along axis `axis` of A: each moves `unit` along that axis, and `step` in flat elements."""

    axis: int
    count: int
    step: int
    unit: int


class _Nested:
    """Box B, its axes by falling stride. `extents[k]`: from the first to the last element of the axes after k, and one."""

    def __init__(self, shape: Shape, strides: Shape) -> None:
        self.rank = len(shape)
        self.order = sorted((axis for axis, size in enumerate(shape) if size > 1), key=lambda axis: -strides[axis])
        self.sizes = [shape[axis] for axis in self.order]
        self.strides = [strides[axis] for axis in self.order]
        self.extents = [1] * (len(self.order) + 1)
        for k in range(len(self.order) - 1, -1, -1):
            self.extents[k] = self.extents[k + 1] + (self.sizes[k] - 1) * self.strides[k]

    def misses(self, axes: Sequence[_Free], relative: int) -> bool:
        """True when surely no element of the piece lies in B."""
        low, high = relative, relative + sum((axis.count - 1) * axis.step for axis in axes)
        if high < 0 or low >= self.extents[0]:
            return True
        inner = list(axes)
        for k, stride in enumerate(self.strides):
            inner = [axis for axis in inner if axis.step % stride]
            low %= stride
            high = low + sum((axis.count - 1) * axis.step for axis in inner)
            if high >= stride:
                return False
            if low >= self.extents[k + 1]:
                return True
        return low > 0 and not inner

    def digits(self, flat: int) -> list[int] | None:
        """The place of a flat position by falling stride, or None outside B."""
        if flat < 0:
            return None
        found = []
        for size, stride in zip(self.sizes, self.strides, strict=True):
            digit, flat = divmod(flat, stride)
            if digit >= size:
                return None
            found.append(digit)
        return found if flat == 0 else None

    def steps(self, step: int) -> list[int] | None:
        """A flat step in B's axes by falling stride, or None when it is no whole sum of them."""
        found = []
        for stride in self.strides:
            digit, step = divmod(step, stride)
            found.append(digit)
        return found if step == 0 else None

    def linear(self, axes: Sequence[_Free], relative: int) -> tuple[Shape, tuple[Shape, ...]] | None:
        """(start, step of each free axis) in B's own axes, when the whole piece lies in B linearly."""
        first = self.digits(relative)
        if first is None:
            return None
        last = list(first)
        steps = []
        for axis in axes:
            step = self.steps(axis.step)
            if step is None:
                return None
            steps.append(step)
            for k, digit in enumerate(step):
                last[k] += digit * (axis.count - 1)
        if any(digit >= size for digit, size in zip(last, self.sizes, strict=True)):
            return None
        return self._own(first), tuple(self._own(step) for step in steps)

    def _own(self, by_stride: list[int]) -> Shape:
        found = [0] * self.rank
        for k, axis in enumerate(self.order):
            found[axis] = by_stride[k]
        return tuple(found)


def _split(
    axes: tuple[_Free, ...], start: Shape, relative: int, other: _Nested
) -> Iterator[tuple[tuple[_Free, ...], Shape, int]]:
    """Cut one free axis: at a border of B, or in two axes where it runs over several of B's."""
    number, cut, inner = _before(axes, relative) if relative < 0 else _within(axes, relative, other)
    axis = axes[number]
    whole = (axis.count - cut) // inner if inner > 1 else 0
    runs: list[tuple[int, tuple[_Free, ...]]] = [(0, (_Free(axis.axis, cut, axis.step, axis.unit),))] if cut else []
    if whole:
        outer = _Free(axis.axis, whole, axis.step * inner, axis.unit * inner)
        runs.append((cut, (outer, _Free(axis.axis, inner, axis.step, axis.unit))))
    done = cut + whole * inner
    if done < axis.count:
        runs.append((done, (_Free(axis.axis, axis.count - done, axis.step, axis.unit),)))
    for begin, parts in runs:
        moved = tuple(place + (begin * axis.unit if k == axis.axis else 0) for k, place in enumerate(start))
        kept = (*axes[:number], *(part for part in parts if part.count > 1), *axes[number + 1 :])
        yield kept, moved, relative + begin * axis.step


def _before(axes: tuple[_Free, ...], relative: int) -> tuple[int, int, int]:
    """(axis, steps, 1) for a piece that begins before B: the largest step goes up to where B can begin, then to where it has."""
    reach = sum((axis.count - 1) * axis.step for axis in axes)
    for number in sorted(range(len(axes)), key=lambda k: -axes[k].step):
        axis = axes[number]
        others = reach - (axis.count - 1) * axis.step
        for short in (-(relative + others), -relative):
            steps = -(-short // axis.step)
            if 1 <= steps < axis.count:
                return number, steps, 1
    number = max(range(len(axes)), key=lambda k: axes[k].count)
    return number, max(1, axes[number].count // 2), 1


def _within(axes: tuple[_Free, ...], relative: int, other: _Nested) -> tuple[int, int, int]:
    """(axis, steps, steps from border to border or 1): the axis of the smallest step that by itself leaves B or its digits."""
    first = other.digits(relative)
    by_step = sorted(range(len(axes)), key=lambda k: axes[k].step)
    number = next((k for k in by_step if first is None or other.linear((axes[k],), relative) is None), by_step[-1])
    cut, inner = _border(axes[number], relative, other)
    return number, cut, inner


def _border(axis: _Free, relative: int, other: _Nested) -> tuple[int, int]:
    """(steps to the next border, steps from border to border or 1): the cut is in 1 .. count - 1, or 0 when runs begin at once."""
    step, count = axis.step, axis.count
    within = relative
    for k, stride in enumerate(other.strides):
        run = other.extents[k]
        if within < run:
            steps = -(-(run - within) // step)  # to the end of B's run at this level
            if steps < count:
                return steps, 1
        within %= stride
        if step < stride:
            head = -(-(stride - within) // step) if within else 0
            if stride % step == 0 and count - head >= 2 * (stride // step):
                return head, stride // step
            steps = head or stride // step
            if 1 <= steps < count:
                return steps, 1
    if within and other.strides and within < other.strides[-1]:
        return 1, 1
    return max(1, count // 2), 1
