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

from isomorph.infer.by_value.arrange.places import UNKNOWN, Laid, align, complete_places

Array = np.ndarray[Any, np.dtype[Any]]

MOST_BOXES = 2048
MOST_CONSTANTS = 8
CONSTANT = -2
"""Places from here down are those of constants."""


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
        complete_places(here, there, full, (1, *sorted({step for step in steps if step > 1})))
        align(here, there, full, targets)
    place = full[position]
    unplaced = place == UNKNOWN
    constants: list[int] = []
    if unplaced.any():
        found = np.unique(there.keys[position[unplaced]])
        if complete or len(found) > MOST_CONSTANTS:
            return None
        constants = [int(key) for key in found]
        place[unplaced] = CONSTANT - np.searchsorted(found, there.keys[position[unplaced]])
    gathered: list[tuple[int, int, Form]] = []
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
