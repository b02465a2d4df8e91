"""Places of elements whose keys repeat, from those of their neighbours: the most common steps propose, most proposals win."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MOST_STEPS = 3
"""Steps tried for each distance in the target."""
MOST_ROUNDS = 12
MOST_BORDERS = 1 << 14
UNKNOWN = -1
"""The place of an element that has none yet."""


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


def complete_places(here: Laid, there: Laid, place: Array, distances: Sequence[int]) -> None:
    """Find places for elements whose keys repeat, from those of their neighbours. Changes `place`."""
    used = np.zeros(here.keys.size, np.bool_)
    used[place[place >= 0]] = True
    for _ in range(MOST_ROUNDS):
        open_ = np.flatnonzero((place == UNKNOWN) & ~there.is_gap)
        if not open_.size:
            return
        proposals = []
        for distance in sorted({*distances, *_distances(place)}):
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


def _distances(place: Array) -> list[int]:
    """How far apart in the targets neighbours of a source most often are: 2 in `(f w)` with w=2."""
    known = np.flatnonzero(place >= 0)
    order = np.argsort(place[known], kind="stable")
    apart = np.diff(known[order])[np.diff(place[known][order]) == 1]
    values, counts = np.unique(apart[apart > 0], return_counts=True)
    return [int(values[k]) for k in np.lexsort((values, -counts))[:MOST_STEPS] if counts[k] * 8 >= counts.max()]


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


def align(here: Laid, there: Laid, place: Array, targets: Sequence[Array]) -> None:
    """Move borders between runs to where most are: multiples of one length. Changes `place`.

    Where keys repeat, a border may have been put beside its place, by as many elements as are equal there.
    """
    common = _common_steps(place, 1)
    for base, array in zip(there.bases.tolist(), targets, strict=True):
        part = place[base : base + array.size]
        broken = np.flatnonzero(~np.isin(np.diff(part), common)) + 1
        if not 0 < broken.size <= MOST_BORDERS:
            continue
        length = next((each for each in _divisors(array.size) if np.mean(broken % each == 0) >= 0.5), 1)
        for border in broken[broken % length > 0].tolist():
            low = border // length * length
            for new, edge in ((low, border), (low + length, border - 1)):
                side = edge + 1 if new == low else edge - 1
                if not (0 <= side < array.size and new <= array.size) or min(part[edge], part[side]) < 0:
                    continue
                step = (part[side] - part[edge]) * (side - edge)
                between = np.arange(min(new, border), max(new, border))
                implied = part[edge] + (between - edge) * step
                if step not in common or implied.min() < 0 or implied.max() >= here.keys.size:
                    continue
                if np.array_equal(here.keys[implied], array[between]) and not here.is_gap[implied].any():
                    part[between] = implied
                    break


def _divisors(number: int) -> list[int]:
    """The divisors of a number above 1, the largest first."""
    small = [k for k in range(1, math.isqrt(number) + 1) if number % k == 0]
    return sorted({*small, *(number // k for k in small)} - {1}, reverse=True)
