"""Moves of two plans, held against each other: the same elements into the same places, whatever the boxes they are cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from isomorph.plan.boxes import simplify
from isomorph.plan.moves import Box, Fill, Move


@dataclass(frozen=True)
class Ties:
    """Sources that a reading holds to be equal copies."""

    pairs: tuple[tuple[str, str], ...] = ()

    @cached_property
    def _first(self) -> dict[str, str]:
        first: dict[str, str] = {}
        for one, other in self.pairs:
            a, b = _head(first, one), _head(first, other)
            if a != b:
                first[max(a, b)] = min(a, b)
        return first

    def head(self, name: str) -> str:
        """The copy that stands for all of them."""
        return _head(self._first, name)

    def copies(self, name: str) -> tuple[str, ...]:
        """The other names of a tensor."""
        head = self.head(name)
        everything = dict.fromkeys(each for pair in self.pairs for each in pair)
        return tuple(each for each in everything if each != name and self.head(each) == head)


def _head(first: dict[str, str], name: str) -> str:
    while name in first:
        name = first[name]
    return name


def normal_form(moves: Sequence[Move]) -> tuple[Any, ...]:
    """What moves do to one target, as a value: equal for plans that join or split axes otherwise, in most cases. Names of sources
    stand at the second place of each row."""
    found: list[tuple[Any, ...]] = []
    for move in moves:
        operators = tuple(str(op) for op in move.operators)
        if isinstance(move.source, Box):
            shape, (into, out_of) = simplify(move.target.shape, (move.target.strides, move.source.strides))
            order = sorted(range(len(shape)), key=lambda k: -into[k])
            rows = tuple((shape[k], into[k], out_of[k]) for k in order)
            found.append((move.target.offset, move.source.tensor, move.source.offset, rows, operators))
        elif isinstance(move.source, Fill):
            shape, (into,) = simplify(move.target.shape, (move.target.strides,))
            found.append((move.target.offset, "", str(move.source.value), (shape, into), operators))
        else:
            found.append((move.target.offset, "", repr(move.source), (), operators))
    return tuple(_joined(sorted(found, key=repr)))


def _joined(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Boxes that follow each other along their outermost axis, on both sides, as one."""
    found: list[tuple[Any, ...]] = []
    for row in sorted(rows, key=lambda one: int(one[0])):
        at, tensor, start, axes, operators = row
        if found and tensor and axes and found[-1][3] and isinstance(start, int):
            before, name, began, other, others = found[-1]
            (count, into, out_of), (more, *steps) = other[0], axes[0]
            follows = at == before + count * into and start == began + count * out_of
            if name == tensor and others == operators and other[1:] == axes[1:] and steps == [into, out_of] and follows:
                found[-1] = (before, name, began, ((count + more, into, out_of), *other[1:]), operators)
                continue
        found.append(row)
    return found


def alike(one: object, other: object, ties: Ties) -> bool:
    """Whether two normal forms say the same when these ties hold."""
    return one == other or _tied(one, ties) == _tied(other, ties)


def _tied(form: Any, ties: Ties) -> tuple[Any, ...]:
    return tuple((row[0], ties.head(row[1]), *row[2:]) for row in form)
