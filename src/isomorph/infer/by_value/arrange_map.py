"""Arrays of keys -> strided boxes: which element of the sources is which element of the targets, and in what regular steps.

    keys ──those that are there once──▶ places ──steps between neighbours──▶ places of all ──runs of equal steps──▶ boxes

Keys that are there once give the places of their elements. The most common steps between known places propose places for the others
(values that repeat); a proposal must hold the right key, and most proposals win. What stays without a place is a constant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MOST_BOXES = 2048
MOST_CONSTANTS = 8
MOST_STEPS = 3
"""Steps tried for each distance in the target."""
MOST_ROUNDS = 12
UNKNOWN, CONSTANT = -1, -2


@dataclass(frozen=True, slots=True)
class KeyBox:
    """target[target_offset + Σ ik * target_strides[k]] is source[…] likewise, or the constant of key `constant` (`source` -1)."""

    target: int
    target_offset: int
    target_strides: tuple[int, ...]
    source: int
    source_offset: int
    source_strides: tuple[int, ...]
    shape: tuple[int, ...]
    constant: int = 0


@dataclass(frozen=True)
class Laid:
    """Arrays one after the other, with gaps between them."""

    keys: Array
    bases: Array
    is_gap: Array

    @staticmethod
    def of(arrays: Sequence[Array]) -> Laid:
        bases, at = [], 0
        for number, array in enumerate(arrays):
            bases.append(at)
            at += array.size + 97 + 13 * number + number**3 % 101
        keys = np.zeros(at, np.uint64)
        is_gap = np.ones(at, np.bool_)
        for base, array in zip(bases, arrays, strict=True):
            keys[base : base + array.size] = array
            is_gap[base : base + array.size] = False
        return Laid(keys, np.array(bases, np.int64), is_gap)

    def place(self, position: int) -> tuple[int, int]:
        """(which array, where in it)."""
        number = int(np.searchsorted(self.bases, position, side="right")) - 1
        return number, position - int(self.bases[number])


def boxes(
    sources: Sequence[Array], targets: Sequence[Array], steps: Sequence[int] = (), complete: bool = False
) -> list[KeyBox] | None:
    """The boxes that make the targets of the sources (flat arrays of u64 keys); None where there is no such order.

    `steps`: distances in the targets that are likely to be steps of axes. `complete`: no constants, every element has a source.
    """
    there, here = Laid.of(targets), Laid.of(sources)
    position = np.flatnonzero(~there.is_gap)
    place = _known(here, there.keys[position])
    full = np.full(there.keys.size, UNKNOWN, np.int64)
    full[position] = place
    if (place == UNKNOWN).any():
        _complete(here, there, full, (1, *sorted({step for step in steps if step > 1})))
    place = full[position]
    unplaced = place == UNKNOWN
    constants: list[int] = []
    if unplaced.any():
        found = np.unique(there.keys[position[unplaced]])
        if complete or len(found) > MOST_CONSTANTS:
            return None
        constants = [int(key) for key in found]
        place[unplaced] = CONSTANT - np.searchsorted(found, there.keys[position[unplaced]])
    gathered = []
    for inside in _pairs(there, here, position, place):
        some = _gathered(position[inside], place[inside])
        if some is None or len(gathered) + len(some) > MOST_BOXES:
            return None
        gathered.extend(some)
    made = []
    for start, source, (shape, target_strides, source_strides) in gathered:
        target, offset = there.place(start)
        if source <= CONSTANT:
            made.append(
                KeyBox(target, offset, target_strides, -1, 0, (0,) * len(shape), shape, constants[CONSTANT - source])
            )
        else:
            number, at = here.place(source)
            made.append(KeyBox(target, offset, target_strides, number, at, source_strides, shape))
    return made


def _known(here: Laid, wanted: Array) -> Array:
    """The place of each wanted key that is in the sources once, and wanted once; else UNKNOWN."""
    held = np.flatnonzero(~here.is_gap)
    keys = here.keys[held]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    low = np.searchsorted(ordered, wanted, side="left")
    high = np.searchsorted(ordered, wanted, side="right")
    once = high - low == 1
    place = np.full(wanted.size, UNKNOWN, np.int64)
    place[once] = held[order[low[once]]]
    used = np.bincount(place[once], minlength=1)
    again = once.copy()
    again[once] = used[place[once]] > 1
    place[again] = UNKNOWN
    return place


def _pairs(there: Laid, here: Laid, position: Array, place: Array) -> Iterator[Array]:
    """The elements of each target that come from one source (or are constants), target by target."""
    target = np.searchsorted(there.bases, position, side="right")
    source = np.where(place >= 0, np.searchsorted(here.bases, place, side="right"), 0)
    both = target * (len(here.bases) + 1) + source
    order = np.argsort(both, kind="stable")
    borders = np.flatnonzero(np.diff(both[order])) + 1
    yield from np.split(order, borders)


# ── completing ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _complete(here: Laid, there: Laid, place: Array, distances: Sequence[int]) -> None:
    """Find places for elements whose keys repeat, from those of their neighbours. Changes `place`."""
    used = np.zeros(here.keys.size, np.bool_)
    used[place[place >= 0]] = True
    for _ in range(MOST_ROUNDS):
        open_ = np.flatnonzero((place == UNKNOWN) & ~there.is_gap)
        if not open_.size:
            return
        proposals = []
        for distance in distances:
            for step in _common_steps(place, distance):
                for sign in (1, -1):
                    proposals.append(_proposed(here, there, place, used, open_, distance, step, sign))
        if not proposals:
            return
        winner = _elected(np.stack(proposals))
        taken = winner >= 0
        if not taken.any():
            return
        winner[taken & (np.bincount(winner[taken], minlength=1)[np.where(taken, winner, 0)] > 1)] = UNKNOWN
        taken = winner >= 0
        if not taken.any():
            return
        place[open_[taken]] = winner[taken]
        used[winner[taken]] = True


def _common_steps(place: Array, distance: int) -> list[int]:
    """The most common differences of the places of elements so far apart; for neighbours, also over elements without a place."""
    if distance == 1:
        known = np.flatnonzero(place >= 0)
        apart, moved = np.diff(known), np.diff(place[known])
        even = (moved % np.maximum(apart, 1) == 0) & (moved > 0)
        found = moved[even] // apart[even]
    else:
        if distance >= place.size:
            return []
        both = (place[distance:] >= 0) & (place[:-distance] >= 0)
        found = place[distance:][both] - place[:-distance][both]
        found = found[found > 0]
    values, counts = np.unique(found, return_counts=True)
    order = np.lexsort((values, -counts))[:MOST_STEPS]
    return [int(values[k]) for k in order if counts[k] * 64 >= counts.max()]


def _proposed(
    here: Laid, there: Laid, place: Array, used: Array, open_: Array, distance: int, step: int, sign: int
) -> Array:
    """For each open element: the place that the next known element along `distance` implies, if every key on the way is right."""
    rows = -(-place.size // distance)
    padded = np.full(rows * distance, UNKNOWN, np.int64)
    padded[: place.size] = place
    grid = padded.reshape(rows, distance)[::sign]
    row = np.arange(rows, dtype=np.int64)[:, None]
    last = np.maximum.accumulate(np.where(grid >= 0, row, -1), axis=0)
    origin = np.take_along_axis(grid, np.maximum(last, 0), axis=0)
    implied = origin + sign * step * (row - last)
    inside = (last >= 0) & (implied >= 0) & (implied < here.keys.size)
    implied = np.where(inside, implied, 0)
    keys = np.zeros(rows * distance, np.uint64)
    keys[: place.size] = there.keys
    wrong = ~inside | here.is_gap[implied] | (here.keys[implied] != keys.reshape(rows, distance)[::sign])
    stopped = np.maximum.accumulate(np.where(wrong & (grid < 0), row, -1), axis=0)
    holds = inside & (stopped <= last) & (grid < 0) & ~used[implied]
    found = np.where(holds, implied, UNKNOWN)[::sign].reshape(-1)
    return np.asarray(found[open_])


def _elected(proposals: Array) -> Array:
    """The place with most proposals in each column; UNKNOWN where two have as many."""
    ordered = np.sort(proposals, axis=0)
    best = np.full(ordered.shape[1], UNKNOWN, np.int64)
    most = np.zeros(ordered.shape[1], np.int64)
    run = np.zeros(ordered.shape[1], np.int64)
    for number in range(ordered.shape[0]):
        same = ordered[number] == ordered[number - 1] if number else np.zeros(ordered.shape[1], np.bool_)
        run = np.where(same, run + 1, 1)
        valid = ordered[number] >= 0
        better = valid & (run > most)
        equal = valid & (run == most) & (ordered[number] != best)
        best = np.where(better, ordered[number], np.where(equal, UNKNOWN, best))
        most = np.where(better, run, most)
    return best


# ── gathering ────────────────────────────────────────────────────────────────────────────────────────────────────────

Form = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""(shape, strides in the target, strides in the source)."""


def _gathered(position: Array, place: Array) -> list[tuple[int, int, Form]] | None:
    """Elements at equal distances in both become boxes, boxes at equal distances larger boxes, as long as there are any."""
    groups: dict[Form, tuple[Array, Array]] = {((), (), ()): (position, place)}
    done: list[tuple[int, int, Form]] = []
    while groups:
        after: dict[Form, list[tuple[Array, Array]]] = {}
        for form, (starts, sources) in groups.items():
            for new, some in _runs(form, starts, sources):
                if new is None:
                    done.extend((int(start), int(source), form) for start, source in zip(*some, strict=True))
                else:
                    after.setdefault(new, []).append(some)
            if len(done) > MOST_BOXES:
                return None
        groups = {}
        for form, parts in after.items():
            starts, sources = (np.concatenate(each) for each in zip(*parts, strict=True))
            order = np.argsort(starts, kind="stable")
            groups[form] = starts[order], sources[order]
        if len(groups) > MOST_BOXES:
            return None
    return sorted(done)


def _runs(form: Form, starts: Array, sources: Array) -> Iterator[tuple[Form | None, tuple[Array, Array]]]:
    """Runs of the most common step, by length; None: what makes no run. What is left of a group is tried again."""
    rest_starts, rest_sources = starts, sources
    while rest_starts.size > 1:
        apart, moved = np.diff(rest_starts), np.diff(rest_sources)
        likely = (moved > 0) | ((moved == 0) & (rest_sources[1:] <= CONSTANT))
        likely &= (rest_sources[1:] >= 0) == (rest_sources[:-1] >= 0)
        likely &= (rest_sources[1:] >= 0) | (moved == 0)
        if not likely.any():
            break
        apart_of, moved_of = _most_common(apart[likely], moved[likely])
        chained = likely & (apart == apart_of) & (moved == moved_of)
        begins, lengths = _lengths(chained)
        for length in np.unique(lengths[lengths > 1]):
            which = begins[lengths == length]
            yield _longer(form, int(length), apart_of, moved_of), (rest_starts[which], rest_sources[which])
        alone = begins[lengths == 1]
        if alone.size == rest_starts.size:
            break
        rest_starts, rest_sources = rest_starts[alone], rest_sources[alone]
    if rest_starts.size:
        yield None, (rest_starts, rest_sources)


def _lengths(chained: Array) -> tuple[Array, Array]:
    """(begin, length) of the runs. One that is several times as long as most are is cut: two met end to end by chance."""
    begins = np.flatnonzero(np.concatenate(([True], ~chained)))
    lengths = np.diff(np.concatenate((begins, [chained.size + 1])))
    values, counts = np.unique(lengths[lengths > 1], return_counts=True)
    usual = int(values[np.argmax(counts)])
    if not ((lengths > usual) & (lengths % usual == 0)).any():
        return begins, lengths
    times = np.where((lengths > usual) & (lengths % usual == 0), lengths // usual, 1)
    cut = np.repeat(np.where(times > 1, usual, lengths), times)
    return np.concatenate(([0], np.cumsum(cut)[:-1])), cut


def _most_common(apart: Array, moved: Array) -> tuple[int, int]:
    """The most common pair, the nearest in the target where there are several."""
    width = int(moved.max()) + 1
    values, counts = np.unique(apart * width + moved, return_counts=True)
    best = int(values[np.argmax(counts)])
    return best // width, best % width


def _longer(form: Form, length: int, apart: int, moved: int) -> Form:
    shape, target, source = form
    if shape and apart == shape[0] * target[0] and moved == shape[0] * source[0]:
        return (length * shape[0], *shape[1:]), target, source
    return (length, *shape), (apart, *target), (moved, *source)


def steps_of(shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The strides of all dims of these shapes, but 1."""
    found: set[int] = set()
    for shape in shapes:
        stride = 1
        for size in reversed(shape):
            stride *= size
            found.add(stride)
    return tuple(sorted(found - {1}))


__all__ = ["KeyBox", "boxes", "steps_of"]
