"""Source tensors + target tensors that hold the same elements -> the moves that make the one of the other, found by their values.

    guesses ─▶ axes in another order ─▶ fibres (fibres.py) ─▶ elements (map.py) ─▶ templates (templates.py)

The first that is confirmed is taken.

Whatever is proposed is compared element by element before it is believed (reading.py).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isomorph.errors import CheckError, MorphError
from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.arrange.fibres import by_fibres, filled_with
from isomorph.infer.by_value.arrange.map import boxes, steps_of
from isomorph.infer.by_value.arrange.reading import Changes, Side, change_of, confirmed, holds
from isomorph.infer.by_value.arrange.templates import by_templates
from isomorph.infer.factor.blocks import Block, NoLayout, Spot, within_dims
from isomorph.infer.factor.relation import relation
from isomorph.language.tree import Op
from isomorph.plan.boxes import row_major, simplify
from isomorph.plan.moves import Box, Fill, Move
from isomorph.tensors import TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLE = 256
"""Elements that an order of axes must explain before all are compared."""
MOST_RANK = 5
MOST_MOVES = 16
"""For each tensor. More are no layout that anybody meant: a shuffled vector is a sum of its elements."""
MOST_TURNED = 4
"""Entries of an axis that may be turned round."""
BYTES_PER_ELEMENT = 96
"""What arranging element by element holds at its peak."""


class Arranged(tuple[Move, ...]):
    """The moves. `is_decided` is False where another layout explains the values as well: then they have not decided."""

    is_decided: bool = True

    @classmethod
    def of(cls, moves: Sequence[Move], is_decided: bool = True) -> Arranged:
        made = cls(moves)
        made.is_decided = is_decided
        return made


def arrange(
    source: Checkpoint,
    source_names: Sequence[str],
    target: Checkpoint,
    target_names: Sequence[str],
    *,
    change: Changes = None,
    guesses: Sequence[tuple[Move, ...]] = (),
    max_memory: int = 256 << 20,
) -> Arranged | None:
    """The moves that fill these targets from these sources, or None where no layout is found that explains every element.

    `change`: the operators that act on the sources' values before they are compared, for all sources or for each by its name; the
    moves carry them. `guesses` are tried first. Elements that no source holds become constants. Only layouts that are relations of
    the notation count; the simplest is tried first.
    """
    left, right = Side(source, change), Side(target)
    for guess in guesses:
        if {move.target.tensor for move in guess} == set(target_names) and confirmed(guess, source, target, change):
            return Arranged.of(guess)
    try:
        if {left.spec(name).dtype for name in source_names} - {right.spec(name).dtype for name in target_names}:
            return None
        plain = _plain(left, source_names, right, target_names, change)
        if plain is not None:
            return plain
        return _first_relation(left, source_names, right, target_names, change, max_memory)
    except (MorphError, CheckError):
        return None


def _first_relation(
    left: Side, sources: Sequence[str], right: Side, targets: Sequence[str], change: Changes, max_memory: int
) -> Arranged | None:
    known = {name: left.checkpoint.manifest[name] for name in sources}
    made = {name: right.checkpoint.manifest[name] for name in targets}
    operators = next((change_of(change, name).operators for name in sources), ())

    def holding(proposed: Iterable[list[Block]]) -> Iterator[Arranged]:
        for blocks in proposed:
            moves = Arranged.of(_alike(_moves(blocks, change), left, right))
            if len(moves) > MOST_MOVES * (len(sources) + len(targets)) or _invents(moves, known, made) or _turns(moves):
                continue
            if not confirmed(moves, left.checkpoint, right.checkpoint, change):
                continue
            if relation(moves, known, made, operators=operators) is not None:
                yield moves

    found = next(holding(_proposed(left, sources, right, targets, max_memory)), None)
    if found is not None:
        others = (Arranged.of(_moves(blocks, change)) for blocks in by_templates(left, sources, right, targets))
        fine = _within_dims(found, {**known, **made})
        found.is_decided = not (_swaps(fine, left, right, change) or any(_differ(found, other) for other in others))
    if found is None:
        usual = list(itertools.islice(holding(by_templates(left, sources, right, targets)), 2))
        found = Arranged.of(usual[0], len(usual) == 1) if usual else None
    return found


def _within_dims(moves: Sequence[Move], specs: Mapping[str, TensorSpec]) -> list[Move]:
    """The same moves, cut so that each axis lies within one dim of both tensors; as they are, where they cannot be cut."""
    blocks = [
        Block(
            move.target.shape,
            Spot((move.source.tensor,), move.source.offset, move.source.strides),
            Spot((move.target.tensor,), move.target.offset, move.target.strides),
        )
        for move in moves
        if isinstance(move.source, Box)
    ]
    try:
        cut = within_dims(blocks, specs)
    except NoLayout:
        return list(moves)
    return [move for move in moves if isinstance(move.source, Fill)] + [
        Move(
            Box(block.target.names[0], block.target.offset, block.shape, block.target.strides),
            Box(block.source.names[0], block.source.offset, block.shape, block.source.strides),
        )
        for block in cut
        if isinstance(block.source, Spot)
    ]


def _swaps(moves: Sequence[Move], left: Side, right: Side, change: Changes) -> bool:
    """True when two axes of one size, exchanged, explain the values as well: a symmetric block."""
    for one, other in itertools.combinations(range(max((len(move.target.shape) for move in moves), default=0)), 2):
        swapped = [_swapped(move, one, other) for move in moves]
        if swapped != list(moves) and confirmed(swapped, left.checkpoint, right.checkpoint, change):
            return True
    return False


def _alike(moves: list[Move], left: Side, right: Side) -> list[Move]:
    """Symmetric blocks, which may lie in either way, lie as those beside them; alone, as they are."""
    if len(moves) > MOST_MOVES:
        return moves
    for one, other in itertools.combinations(range(max(len(move.target.shape) for move in moves)), 2):
        swapped = [_swapped(move, one, other) for move in moves]
        both = [move for move, its in zip(moves, swapped, strict=True) if its != move]
        is_open = {move: holds(its, left, right) for move, its in zip(moves, swapped, strict=True) if its != move}
        fixed = [_is_turned(move, one, other) for move in both if not is_open[move]]
        wanted = bool(fixed) and fixed[0]
        moves = [
            its if is_open.get(move, False) and _is_turned(move, one, other) != wanted else move
            for move, its in zip(moves, swapped, strict=True)
        ]
    return moves


def _is_turned(move: Move, one: int, other: int) -> bool:
    assert isinstance(move.source, Box)
    return move.source.strides[one] < move.source.strides[other]


def _swapped(move: Move, one: int, other: int) -> Move:
    shape = move.target.shape
    if not isinstance(move.source, Box) or len(shape) <= other or shape[one] != shape[other]:
        return move
    strides = list(move.source.strides)
    strides[one], strides[other] = strides[other], strides[one]
    return replace(move, source=replace(move.source, strides=tuple(strides)))


def _differ(moves: Sequence[Move], others: Sequence[Move]) -> bool:
    """True when an element comes from another place, in moves of few elements."""

    def places(these: Sequence[Move]) -> dict[tuple[str, int], tuple[str, int]]:
        found = {}
        for move in these:
            if isinstance(move.source, Box):
                for index in itertools.product(*map(range, move.target.shape)):
                    here = move.source.offset + sum(a * b for a, b in zip(index, move.source.strides, strict=True))
                    there = move.target.offset + sum(a * b for a, b in zip(index, move.target.strides, strict=True))
                    found[move.target.tensor, there] = move.source.tensor, here
        return found

    return places(moves) != places(others)


def _turns(moves: Sequence[Move]) -> bool:
    """True when an axis of more than a few entries is turned round, entry by entry: the notation has no word for that."""
    last: dict[tuple[str, str], tuple[Box, int]] = {}
    for move in moves:
        if isinstance(move.source, Box):
            pair = (move.target.tensor, move.source.tensor)
            before, length = last.get(pair, (move.source, 0))
            goes_back = before.shape == move.source.shape and move.source.offset < before.offset
            last[pair] = move.source, length + 1 if goes_back else 1
            if length + 1 > MOST_TURNED and goes_back:
                return True
    return False


def _invents(moves: Sequence[Move], sources: Mapping[str, TensorSpec], targets: Mapping[str, TensorSpec]) -> bool:
    """True when constants stand where the sources have just so many elements, or in the place of a whole source."""
    if not any(isinstance(move.source, Fill) for move in moves):
        return False
    read = {move.source.tensor for move in moves if isinstance(move.source, Box)}
    counts = [sum(spec.numel for spec in specs.values()) for specs in (sources, targets)]
    return counts[0] == counts[1] or read != set(sources)


def _proposed(
    left: Side, sources: Sequence[str], right: Side, targets: Sequence[str], max_memory: int
) -> Iterator[list[Block]]:
    yield from by_fibres(left, sources, right, targets, max_memory)
    count = sum(left.spec(name).numel for name in sources) + sum(right.spec(name).numel for name in targets)
    if count * BYTES_PER_ELEMENT <= max_memory:
        found = _by_elements(left, sources, right, targets)
        if found is not None:
            yield found


def _by_elements(left: Side, sources: Sequence[str], right: Side, targets: Sequence[str]) -> list[Block] | None:
    steps = steps_of([right.spec(name).shape for name in targets])
    found = boxes([left.whole(name) for name in sources], [right.whole(name) for name in targets], steps)
    if found is None:
        return None
    blocks = []
    for box in found:
        name = targets[box.target]
        to = Spot((name,), box.target_offset, box.target_strides)
        if box.source >= 0:
            at = Spot((sources[box.source],), box.source_offset, box.source_strides)
            blocks.append(Block(box.shape, at, to))
            continue
        try:
            blocks.append(Block(box.shape, filled_with(right, name, box.target_offset, box.shape), to))
        except NoLayout:
            return None
    return blocks


def _moves(blocks: Sequence[Block], change: Changes) -> list[Move]:
    found = []
    for block in blocks:
        order = sorted(range(len(block.shape)), key=lambda k: -block.target.strides[k])
        sizes = tuple(block.shape[k] for k in order)
        there = tuple(block.target.strides[k] for k in order)
        if isinstance(block.source, Fill):
            shape, (strides,) = simplify(sizes, (there,))
            source: Box | Fill = replace(block.source, shape=shape)
            operators: tuple[Op, ...] = ()
        else:
            shape, (strides, here) = simplify(sizes, (there, tuple(block.source.strides[k] for k in order)))
            source = Box(block.source.names[0], block.source.offset, shape, here)
            operators = change_of(change, source.tensor).operators
        found.append(Move(Box(block.target.names[0], block.target.offset, shape, strides), source, operators))
    return sorted(found, key=lambda move: (move.target.tensor, move.target.offset))


# ── one tensor, its axes in another order ────────────────────────────────────────────────────────────────────────────


def _plain(left: Side, sources: Sequence[str], right: Side, targets: Sequence[str], change: Changes) -> Arranged | None:
    """One source and one target: the source's axes in some order, the plainest first."""
    if len(sources) != 1 or len(targets) != 1:
        return None
    source, target = left.spec(sources[0]), right.spec(targets[0])
    dims = [(size, stride) for size, stride in zip(source.shape, row_major(source.shape), strict=True) if size > 1]
    if source.numel != target.numel or len(dims) > MOST_RANK:
        return None
    orders = sorted(itertools.permutations(range(len(dims))), key=lambda order: (_inversions(order), order))
    found: Arranged | None = None
    for order in orders:
        sizes = tuple(dims[k][0] for k in order)
        block = Block(
            sizes, Spot((sources[0],), 0, tuple(dims[k][1] for k in order)), Spot((targets[0],), 0, row_major(sizes))
        )
        if not _fits_sample(block, left, right):
            continue
        moves = Arranged.of(_moves([block], change))
        if confirmed(moves, left.checkpoint, right.checkpoint, change):
            if found is not None:
                found.is_decided = False
                return found
            found = moves
    return found


def _inversions(order: Sequence[int]) -> int:
    return sum(a > b for a, b in itertools.combinations(order, 2))


def _fits_sample(block: Block, left: Side, right: Side) -> bool:
    assert isinstance(block.source, Spot)
    numel = math.prod(block.shape)
    run = block.shape[-1] if block.shape else 1
    length = min(run, 16)
    starts = sorted({int(k) // run * run for k in np.linspace(0, max(numel - 1, 0), SAMPLE // 16)})
    for start in starts if numel else ():
        rest, place = start, block.source.offset
        for size, stride in zip(reversed(block.shape), reversed(block.source.strides), strict=True):
            rest, digit = divmod(rest, size)
            place += digit * stride
        stride = block.source.strides[-1] if block.shape else 1
        made = left.bits(block.source.names[0], place, (length,), (stride,))
        found = right.bits(block.target.names[0], start, (length,), (1,))
        if not np.array_equal(made, found):
            return False
    return True


__all__ = ["Arranged", "arrange", "confirmed"]
