"""`first @ second`: put the moves of a first stage through those of a second, so that nothing in between is ever made.

A source box of the second stage lies on a tensor that the first stage fills box by box. Each overlap of the two becomes one move
from the first stage's own source. Constants become fills; operators follow each other; a check is settled when both of its sides
turn out to be the same source elements, or constants, and kept otherwise (LANGUAGE.md 3, statement 21).
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from isomorph.language.tree import Op
from isomorph.plan.boxes import Overlap, Shape, overlaps, row_major, simplify
from isomorph.plan.instances import Made
from isomorph.plan.moves import Along, Box, Check, Fill, Mix, Move, Source, names_of
from isomorph.plan.plan import CLASSES, Target


def substitute(first: Made, second: Made) -> Made:
    """The targets of `second`, made from the sources of `first`."""
    through = _Through(first.moves)
    result = Made(
        instances=second.instances,
        made_by=second.made_by,
        unmade=second.unmade,
        lossy_rules=first.lossy_rules | second.lossy_rules,
        unbound=second.unbound,
    )
    classes: dict[str, set[str]] = {}
    for name, moves in second.moves.items():
        made: list[Move] = []
        for move in moves:
            classes.setdefault(name, set()).update(first.targets[tensor].klass for tensor in names_of(move.source))
            made.extend(through.move(move))
        made.sort(key=lambda move: move.target.offset)
        result.moves[name] = made
        target = second.targets[name]
        worst = max([target.klass, *classes.get(name, ())], key=lambda klass: CLASSES.index(klass))
        result.targets[name] = Target(name, target.spec, worst, target.rule, target.instance)
    result.used = {tensor for moves in result.moves.values() for move in moves for tensor in names_of(move.source)}
    result.checks = list(first.checks)
    for check in second.checks:
        for kept in through.check(check):
            result.checks.append(kept)
            if kept.kind == "constant":
                result.used.update(names_of(kept.source))
    for check in first.checks:
        if check.kind == "constant":
            result.used.update(names_of(check.source))
    return result


class _Through:
    """Boxes on the tensors of the first stage, told as boxes on its sources."""

    def __init__(self, moves: Mapping[str, Sequence[Move]]) -> None:
        self.moves = moves
        self._known: dict[str, tuple[list[int], list[int]]] = {}

    def _spans(self, tensor: str) -> tuple[list[int], list[int]]:
        """Where each box of a tensor begins, and how far it and all before it reach: both rise, so that they can be searched."""
        found = self._known.get(tensor)
        if found is None:
            spans = [_span(move.target) for move in self.moves[tensor]]
            found = [low for low, _ in spans], list(itertools.accumulate((high for _, high in spans), max))
            self._known[tensor] = found
        return found

    def move(self, move: Move) -> Iterator[Move]:
        source = move.source
        if isinstance(source, Fill):
            yield move
        elif isinstance(source, Along):
            yield replace(move, source=self.along(source))
        elif isinstance(source, Box):
            for shape, offset, strides, inner, operators in self.pieces(source, move.target):
                yield _simple(Box(move.target.tensor, offset, shape, strides), inner, (*operators, *move.operators))
        else:
            yield from self._mix(move, source)

    def along(self, along: Along) -> Along:
        """The same, its parts made from the sources of the first stage."""
        return replace(along, parts=tuple(inner for part in along.parts for inner in self.move(part)))

    def _mix(self, move: Move, mix: Mix) -> Iterator[Move]:
        """A sum: its terms are cut alike, term after term, until each is one source."""
        pending = [(move.target, mix.sources, 0)]
        while pending:
            target, sources, done = pending.pop()
            if done == len(sources):
                yield Move(target, Mix(sources, mix.operators), move.operators)
                continue
            for shape, offset, strides, inner, operators in self._source_pieces(sources[done], target):
                cut = Box(target.tensor, offset, shape, strides)
                others = [inner if k == done else _cut_alike(other, target, cut) for k, other in enumerate(sources)]
                if operators:
                    others[done] = Mix((inner,), operators)
                pending.append((cut, tuple(others), done + 1))

    def _source_pieces(self, source: Source, target: Box) -> Iterator[tuple[Shape, int, Shape, Source, tuple[Op, ...]]]:
        if isinstance(source, Box):
            yield from self.pieces(source, target)
        elif isinstance(source, Fill):
            yield target.shape, target.offset, target.strides, source, ()
        elif isinstance(source, Along):
            yield target.shape, target.offset, target.strides, self.along(source), ()
        else:
            for move in (
                self._mix(Move(target, source), source) if len(source.sources) > 1 else self._single(target, source)
            ):
                yield move.target.shape, move.target.offset, move.target.strides, move.source, move.operators

    def _single(self, target: Box, mix: Mix) -> Iterator[Move]:
        for shape, offset, strides, inner, operators in self._source_pieces(mix.sources[0], target):
            cut = Box(target.tensor, offset, shape, strides)
            yield Move(cut, inner, (*operators, *mix.operators))

    def pieces(self, source: Box, target: Box) -> Iterator[tuple[Shape, int, Shape, Source, tuple[Op, ...]]]:
        """For each overlap of `source` with a box of the first stage: (shape, target offset and strides, its source, operators)."""
        low, high = _span(source)
        lows, highs = self._spans(source.tensor)
        for number in range(bisect_left(highs, low), bisect_right(lows, high)):
            move = self.moves[source.tensor][number]
            box = move.target
            for part in _overlaps(source.offset - box.offset, source.shape, source.strides, box.shape, box.strides):
                offset = target.offset + _dot(part.start_a, target.strides)
                strides = tuple(_dot(step, target.strides) for step in part.steps_a)
                inner = _part(move.source, part.shape, part.start_b, part.steps_b)
                yield part.shape, offset, strides, inner, move.operators

    def check(self, check: Check) -> Iterator[Check]:
        source, expected = check.source, check.expected
        if isinstance(expected, Fill):
            whole = Move(Box("", 0, expected.shape, row_major(expected.shape)), source, check.operators)
            for move in self.move(whole):
                shape = move.target.shape
                fill = _fill_part(expected, move.target)
                if isinstance(move.source, Fill) and not move.operators and move.source == fill:
                    continue
                yield replace(check, source=move.source, operators=move.operators, expected=replace(fill, shape=shape))
            return
        assert isinstance(source, Box)
        assert isinstance(expected, Box)
        names = check.names or (source.tensor, expected.tensor)
        whole = Move(Box("", 0, source.shape, row_major(source.shape)), source)
        for move in self.move(whole):
            cut = move.target
            copy = Box(
                expected.tensor,
                expected.offset + _along(cut, source.shape, expected.strides)[0],
                cut.shape,
                _along(cut, source.shape, expected.strides)[1],
            )
            for other in self.move(Move(cut, copy)):
                one = _cut_alike(move.source, cut, other.target)
                if one == other.source and move.operators == other.operators:
                    continue
                yield from _kept_tie(check, names, one, move.operators, other.source, other.operators)


def _kept_tie(
    check: Check, names: tuple[str, ...], one: Source, first: tuple[Op, ...], other: Source, second: tuple[Op, ...]
) -> Iterator[Check]:
    """A tie between two different sources: boxes are compared as they are; what is computed, as it comes out."""
    if isinstance(other, Fill) and not second:
        yield Check("constant", one, other, first, check.rule, names)
    elif isinstance(one, Fill) and not first:
        yield Check("constant", other, one, second, check.rule, names)
    else:
        yield Check("tie", one, Mix((other,), second) if second else other, first, check.rule, names)


def _along(cut: Box, shape: Shape, strides: Shape) -> tuple[int, Shape]:
    """A box on the row-major index of `shape`, told in other strides of the same shape: (offset, strides)."""

    def tell(flat: int) -> int:
        total = 0
        for size, stride in zip(reversed(shape), reversed(strides), strict=True):
            flat, digit = divmod(flat, size)
            total += digit * stride
        return total

    offset = tell(cut.offset)
    return offset, tuple(
        tell(cut.offset + step) - offset if size > 1 else 0 for step, size in zip(cut.strides, cut.shape, strict=True)
    )


def _cut_alike(source: Source, whole: Box, cut: Box) -> Source:
    """The part of `source` that fills `cut`, a box whose axes each run along axes of `whole` (source and whole have one shape)."""
    shape = whole.shape
    order = sorted(range(len(shape)), key=lambda axis: -whole.strides[axis])

    def index(flat: int) -> Shape:
        found = [0] * len(shape)
        for axis in order:
            if shape[axis] > 1:
                found[axis], flat = divmod(flat, whole.strides[axis])
        return tuple(found)

    start = index(cut.offset - whole.offset)
    steps = tuple(index(step) for step in cut.strides)
    return _part(source, cut.shape, start, steps)


def _part(source: Source, shape: Shape, start: Shape, steps: tuple[Shape, ...]) -> Source:
    """The elements `start + Σ j_k steps[k]` of a source."""
    if isinstance(source, Box):
        offset = source.offset + _dot(start, source.strides)
        return Box(source.tensor, offset, shape, tuple(_dot(step, source.strides) for step in steps))
    if isinstance(source, Along):
        offset = source.offset + _dot(start, source.strides)
        return replace(source, offset=offset, shape=shape, strides=tuple(_dot(step, source.strides) for step in steps))
    if isinstance(source, Fill):
        if source.arange_strides is None:
            return replace(source, shape=shape)
        first = Fraction(source.value) + _dot(start, source.arange_strides)
        return replace(
            source, value=first, shape=shape, arange_strides=tuple(_dot(s, source.arange_strides) for s in steps)
        )
    return replace(source, sources=tuple(_part(inner, shape, start, steps) for inner in source.sources))


def _fill_part(fill: Fill, cut: Box) -> Fill:
    if fill.arange_strides is None:
        return replace(fill, shape=cut.shape)
    offset, strides = _along(cut, fill.shape, fill.arange_strides)
    return replace(fill, value=Fraction(fill.value) + offset, shape=cut.shape, arange_strides=strides)


def _simple(target: Box, source: Source, operators: tuple[Op, ...]) -> Move:
    """The move with fewer axes where neighbours join; axes in the order of the target."""
    if not isinstance(source, Box):
        return Move(target, source, operators)
    order = sorted(range(len(target.shape)), key=lambda axis: -target.strides[axis])
    shape, (target_strides, source_strides) = simplify(
        tuple(target.shape[axis] for axis in order),
        (tuple(target.strides[axis] for axis in order), tuple(source.strides[axis] for axis in order)),
    )
    return Move(
        Box(target.tensor, target.offset, shape, target_strides),
        Box(source.tensor, source.offset, shape, source_strides),
        operators,
    )


@lru_cache(maxsize=1 << 16)
def _overlaps(relative: int, shape: Shape, strides: Shape, other: Shape, other_strides: Shape) -> tuple[Overlap, ...]:
    """The overlaps of two boxes; layers repeat the same geometry, so they are remembered."""
    return tuple(overlaps(relative, shape, strides, 0, other, other_strides))


def _span(box: Box) -> tuple[int, int]:
    return box.offset, box.offset + sum(
        (size - 1) * stride for size, stride in zip(box.shape, box.strides, strict=True) if size
    )


def _dot(steps: Sequence[int], strides: Sequence[int]) -> int:
    return sum(step * stride for step, stride in zip(steps, strides, strict=True))
