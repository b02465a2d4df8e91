"""Plan + layout -> the parts of one target file, in increasing offset order, and the pieces in which they are written.

    Bytes   a header, a name, an index            Copy   a range of a source file, never decoded
    Make    elements that pass through memory: permuted, cast, filled, gathered, or decoded
    Clone   blocks of a source file that the target shares        Sum    bytes of these, read for a checksum and not written

A Piece is what is read into one buffer and written by one call: many small parts, or a stretch of a large one. Nothing here grows
with the checkpoint: parts are made as they are asked for, and no Make is larger than the budget allows.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from operator import attrgetter

from isomorph.engine.budget import Budget
from isomorph.engine.evaluate import acting, source_dtype
from isomorph.engine.split import clip, extent
from isomorph.formats.base import Checkpoint, FileLayout
from isomorph.plan.moves import Box, Move
from isomorph.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Bytes:
    offset: int
    data: bytes

    @property
    def nbytes(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Copy:
    """`nbytes` bytes from `source_offset` of source file number `file`, to `offset` of the target file."""

    offset: int
    nbytes: int
    file: int
    source_offset: int


@dataclass(frozen=True, slots=True)
class Clone:
    """Whole blocks from `source_offset` of source file number `file`, which the target shares from `offset` on."""

    offset: int
    nbytes: int
    file: int
    source_offset: int


@dataclass(frozen=True, slots=True)
class Sum:
    """What a Clone that follows will put at `offset`: read for the checksum of a record, not written."""

    offset: int
    nbytes: int
    file: int
    source_offset: int


@dataclass(frozen=True, slots=True)
class Make:
    """Flat elements `start` to `stop` of target tensor `name`, whose element 0 lies at byte `base` of the file.

    `moves` fill them all; `cost` is about how many bytes of memory making them takes, the result included.
    """

    name: str
    base: int
    itemsize: int
    start: int
    stop: int
    moves: tuple[Move, ...]
    cost: int

    @property
    def offset(self) -> int:
        return self.base + self.start * self.itemsize

    @property
    def nbytes(self) -> int:
        return (self.stop - self.start) * self.itemsize


Part = Bytes | Copy | Make | Clone | Sum

PAGE = 4096
"""Bytes. Writes that begin on a page are the fastest; none is slower for it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Parts that follow each other without a gap."""

    offset: int
    nbytes: int
    parts: tuple[Part, ...]

    @property
    def cost(self) -> int:
        return self.buffer_nbytes + sum(part.cost for part in self.parts if isinstance(part, Make))

    @property
    def buffer_nbytes(self) -> int:
        """The bytes that pass through memory: none of a Clone."""
        return 0 if isinstance(self.parts[0], Clone) else self.nbytes


Groups = Mapping[str, Sequence[Move]]


def moves_by_target(plan: Plan) -> Groups:
    return {name: tuple(moves) for name, moves in groupby(plan.moves, key=lambda move: move.target.tensor)}


def parts_of(plan: Plan, groups: Groups, layout: FileLayout, source: Checkpoint, budget: Budget) -> Iterator[Part]:
    """Everything in the file that is known before it is written, by increasing offset."""
    literals = ((literal.offset, 0, literal.data, "") for literal in layout.literals)
    tensors = ((offset, 1, b"", name) for name, offset in layout.tensors.items())
    for offset, _, data, name in heapq.merge(literals, tensors):
        if name == "" and data:
            yield Bytes(offset, data)
        elif _ == 1:
            yield from _tensor_parts(plan, groups.get(name, ()), name, offset, source, budget)


def _tensor_parts(
    plan: Plan, moves: Sequence[Move], name: str, base: int, source: Checkpoint, budget: Budget
) -> Iterator[Part]:
    spec = plan.targets[name].spec
    itemsize = spec.dtype.nbytes
    copies: list[tuple[int, int, Copy]] = []
    others: list[Move] = []
    for move in moves:
        if 0 in move.target.shape:
            continue
        found = as_copies(move, base, itemsize, source)
        if found is None:
            others.append(move)
        for each in found or ():
            start = (each.offset - base) // itemsize
            copies.append((start, start + each.nbytes // itemsize, each))
    copies.sort(key=lambda copy: copy[0])
    if not others:
        yield from (copy for _, _, copy in copies)
        return
    others.sort(key=lambda move: extent(move.target))
    sweep = _Sweep(others)
    position = 0
    for start, stop, copy in [*copies, (spec.numel, spec.numel, None)]:
        if position < start:
            yield from _bands(name, base, itemsize, spec.shape, position, start, sweep, source, budget)
        if copy is not None:
            yield copy
        position = stop


def as_copy(move: Move, base: int, itemsize: int, source: Checkpoint) -> Copy | None:
    """The move as a range of bytes, where both sides are one run and nothing is computed; `base` is its tensor's first byte."""
    box = _copied(move, source)
    found = None if box is None else source.run(box.tensor)
    if box is None or found is None:
        return None
    file, byte_offset = found
    start = byte_offset + box.offset * itemsize
    return Copy(base + move.target.offset * itemsize, move.target.numel * itemsize, file, start)


def as_copies(move: Move, base: int, itemsize: int, source: Checkpoint) -> list[Copy] | None:
    """`as_copy`, also of a tensor that lies in several stretches (the shards of ranks): a range of bytes of each."""
    whole = as_copy(move, base, itemsize, source)
    if whole is not None:
        return [whole]
    box = _copied(move, source)
    runs = None if box is None else source.runs(box.tensor)
    if box is None or runs is None:
        return None
    copies = []
    begin, end = box.offset, box.offset + move.target.numel
    target = base + (move.target.offset - begin) * itemsize
    first = max(0, bisect_right(runs, begin, key=attrgetter("start")) - 1)
    for run in islice(runs, first, None):
        if run.start >= end:
            break
        low, high = max(begin, run.start), min(end, run.start + run.numel)
        if low < high:
            start = run.byte_offset + (low - run.start) * itemsize
            copies.append(Copy(target + low * itemsize, (high - low) * itemsize, run.file, start))
    return copies


def _copied(move: Move, source: Checkpoint) -> Box | None:
    """The box that a move copies as it is, where it and the target are one run and nothing is computed."""
    box = move.source
    if not isinstance(box, Box) or not box.is_run or not move.target.is_run:
        return None
    if move.operators and acting(move.operators, source.manifest[box.tensor].dtype)[0]:
        return None
    return box


class _Sweep:
    """Moves sorted by where they begin; gives those that reach into a range, for ranges that only move forward."""

    def __init__(self, moves: Sequence[Move]) -> None:
        self._waiting = [(*extent(move.target), move) for move in reversed(moves)]
        self._active: list[tuple[int, Move]] = []

    def touching(self, start: int, stop: int) -> list[Move]:
        while self._waiting and self._waiting[-1][0] < stop:
            _, high, move = self._waiting.pop()
            self._active.append((high, move))
        self._active = [(high, move) for high, move in self._active if high > start]
        return [move for _, move in self._active]


def _bands(
    name: str,
    base: int,
    itemsize: int,
    shape: tuple[int, ...],
    start: int,
    stop: int,
    sweep: _Sweep,
    source: Checkpoint,
    budget: Budget,
) -> Iterator[Part]:
    """Elements `start` to `stop`, band by band: each as large as the budget lets it be, whole rows where a row fits."""
    while start < stop:
        near = sweep.touching(start, min(stop, start + budget.least_elements))
        weight = max(
            (budget.weight(move, itemsize, source_dtype(move.source, source)) for move in near), default=itemsize
        )
        count = budget.elements(weight, all(budget.streams(move) for move in near))
        end = min(stop, start + count)
        if end < stop:
            for axis in range(len(shape)):
                row = math.prod(shape[axis:])
                if row <= count:
                    end = max(end // row * row, start + 1) if end // row * row > start else end
                    break
        clipped = tuple(part for move in sweep.touching(start, end) for part in clip(move, start, end))
        yield Make(name, base, itemsize, start, end, clipped, (end - start) * weight)
        start = end


def from_offset(parts: Iterator[Part], first: int) -> Iterator[Part]:
    """The parts from byte `first` on; one that begins before it is cut there (a Make at a whole element)."""
    for part in parts:
        if part.offset + part.nbytes <= first:
            continue
        cut = first - part.offset
        if cut <= 0:
            yield part
        elif isinstance(part, Bytes):
            yield Bytes(first, part.data[cut:])
        elif not isinstance(part, Make):
            yield replace(part, offset=first, nbytes=part.nbytes - cut, source_offset=part.source_offset + cut)
        else:
            start = part.start + cut // part.itemsize
            moves = tuple(found for move in part.moves for found in clip(move, start, part.stop))
            yield replace(part, start=start, moves=moves)


def pieces_of(parts: Iterator[Part], most: int) -> Iterator[Piece]:
    """Pack parts into pieces of at most `most` bytes (a larger Make, a Clone and a Sum are pieces of their own); copies join."""
    held: list[Part] = []
    begin = end = 0
    for part in parts:
        alone = isinstance(part, Clone | Sum)
        if held and (alone or part.offset != end or (isinstance(part, Make) and end - begin + part.nbytes > most)):
            yield Piece(begin, end - begin, tuple(held))
            held = []
        if isinstance(part, Clone | Sum):
            yield Piece(part.offset, part.nbytes, (part,))
            continue
        while True:
            if not held:
                begin = end = part.offset
            room = _whole_pages(begin, most) - end
            if part.nbytes <= room or isinstance(part, Make):
                _append(held, part)
                end += part.nbytes
                break
            head, part = _cut(part, room)
            _append(held, head)
            yield Piece(begin, end + room - begin, tuple(held))
            held = []
        if end >= _whole_pages(begin, most):
            yield Piece(begin, end - begin, tuple(held))
            held = []
    if held:
        yield Piece(begin, end - begin, tuple(held))


def _whole_pages(begin: int, most: int) -> int:
    """Where a piece that begins at `begin` ends when it is full: on a page of the file, so that the next begins on one."""
    return max((begin + most) // PAGE * PAGE, begin + 1) if most > PAGE else begin + most


def _append(held: list[Part], part: Part) -> None:
    last = held[-1] if held else None
    if (
        isinstance(part, Copy)
        and isinstance(last, Copy)
        and last.file == part.file
        and last.source_offset + last.nbytes == part.source_offset
    ):
        held[-1] = replace(last, nbytes=last.nbytes + part.nbytes)
    else:
        held.append(part)


def _cut(part: Bytes | Copy, nbytes: int) -> tuple[Bytes | Copy, Bytes | Copy]:
    if isinstance(part, Bytes):
        return Bytes(part.offset, part.data[:nbytes]), Bytes(part.offset + nbytes, part.data[nbytes:])
    head = replace(part, nbytes=nbytes)
    tail = Copy(part.offset + nbytes, part.nbytes - nbytes, part.file, part.source_offset + nbytes)
    return head, tail
