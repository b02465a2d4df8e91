"""Which parts an upload is made of: bytes that pass through this machine, and ranges that the store copies itself.

A store takes at most 10,000 parts, none but the last below 5 MiB. So what is copied has to be long, and a header or a small tensor
between two copied ranges takes of them what it lacks to 5 MiB. `plan_parts` copies as many bytes as these rules allow:

    header 1 MiB │ copyable 20 MiB │ made 2 MiB │ copyable 3 MiB │ made 40 MiB
    put 5 MiB    │ copy 16 MiB     │ put 15 MiB                  │ put 15 MiB │ put 15 MiB
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

LEAST = 5 << 20
MOST_PARTS = 10_000
USUAL = 2 * LEAST
"""Bytes of a part that is sent, where nothing asks for more."""
LARGEST_COPY = 1 << 30
"""Bytes of a copied part: 5 GiB are allowed, and several at once are faster than one."""
LARGEST_PART = 5 << 30
MOST_STATES = 64


@dataclass(frozen=True, slots=True)
class Range:
    """`nbytes` bytes at `offset` of the target that are those from `source_offset` of source number `file`."""

    offset: int
    nbytes: int
    file: int
    source_offset: int

    @property
    def stop(self) -> int:
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the upload; copied from `source` (its `offset` and `nbytes` are the part's), or sent where that is None."""

    offset: int
    nbytes: int
    source: Range | None = None

    @property
    def stop(self) -> int:
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class _State:
    """Range number `last` is copied from its byte `head` on. `copied` bytes up to its end, if it gives nothing of its end away.

    `before` is the range copied before it, which gives `given` bytes of its end to what is sent between them.
    """

    copied: int
    last: int
    head: int
    given: int = 0
    before: _State | None = None


def plan_parts(
    nbytes: int, ranges: Iterable[Range] = (), *, least: int = LEAST, usual: int = USUAL, most_parts: int = MOST_PARTS
) -> list[Part] | None:
    """The parts of an object of `nbytes`, every byte in one, in order; None when it takes more or larger parts than there may be.

    `ranges` may be copied: increasing, without overlap. As many bytes as can be are copied while `most_parts` suffice; else short
    ranges are sent, and parts are made larger.
    """
    joined = _joined(ranges)
    smallest, sent = least, max(usual, 2 * least)
    while sent <= LARGEST_PART:
        copied = _chosen(nbytes, joined, smallest)
        if _count(nbytes, copied, sent, max(LARGEST_COPY, 2 * least)) <= most_parts:
            return _cut(nbytes, copied, sent, max(LARGEST_COPY, 2 * least))
        if len(copied) > most_parts // 4:
            smallest *= 2
        else:
            sent *= 2
        sent = max(sent, 2 * smallest)
    return None


def _joined(ranges: Iterable[Range]) -> list[Range]:
    found: list[Range] = []
    for one in ranges:
        last = found[-1] if found else None
        if (
            last is not None
            and (last.stop, last.file) == (one.offset, one.file)
            and last.source_offset + last.nbytes == one.source_offset
        ):
            found[-1] = Range(last.offset, last.nbytes + one.nbytes, last.file, last.source_offset)
        elif one.nbytes:
            found.append(one)
    return found


def _chosen(nbytes: int, ranges: Sequence[Range], least: int) -> list[Range]:
    """What of the ranges is copied, so that no copied part and no stretch between two of them is shorter than `least`.

    Ranges are taken from left to right. For each, what matters of the choices before it is how many bytes they copy and how much
    of its own head it gives away; two ranges with another of at least `least` bytes between them do not touch each other.
    """
    usable = [one for one in ranges if one.nbytes >= least or one.stop == nbytes]
    best: list[_State | None] = [None]  # best[k]: of the first k usable ranges
    states: list[_State] = []
    for number, one in enumerate(usable):
        need = 1 if one.stop == nbytes else least
        lacking = _lacking(one.offset, least)
        found = [_State(one.nbytes - lacking, number, lacking)] if one.nbytes - lacking >= need else []
        far = best[number - 1] if number else None
        if far is not None:
            found.append(_State(far.copied + one.nbytes, number, 0, 0, far))
        for state in states:
            before = usable[state.last]
            lacking = _lacking(one.offset - before.stop, least)
            given = min(lacking, before.nbytes - least - state.head)
            if one.nbytes - (lacking - given) >= need:
                found.append(_State(state.copied + one.nbytes - lacking, number, lacking - given, given, state))
        states = _undominated(found)
        best.append(
            max([one for one in (best[-1], *states) if one is not None], key=lambda one: one.copied, default=None)
        )
    chosen: list[Range] = []
    at, given = best[-1], 0
    while at is not None:
        whole = usable[at.last]
        length = whole.nbytes - at.head - given
        chosen.append(Range(whole.offset + at.head, length, whole.file, whole.source_offset + at.head))
        given, at = at.given, at.before
    return chosen[::-1]


def _lacking(gap: int, least: int) -> int:
    return least - gap if 0 < gap < least else 0


def _undominated(states: list[_State]) -> list[_State]:
    kept: list[_State] = []
    for state in sorted(states, key=lambda one: (-one.copied, one.head)):
        if not kept or state.head < kept[-1].head:
            kept.append(state)
    return kept[:MOST_STATES]


def _count(nbytes: int, copied: Sequence[Range], sent: int, most_copied: int) -> int:
    """How many parts `_cut` makes."""
    starts, stops = [0, *(one.stop for one in copied)], [*(one.offset for one in copied), nbytes]
    between = sum(-(-(stop - start) // sent) for start, stop in zip(starts, stops, strict=True))
    return between + sum(-(-one.nbytes // most_copied) for one in copied)


def _cut(nbytes: int, copied: Sequence[Range], sent: int, most_copied: int) -> list[Part]:
    parts: list[Part] = []
    at = 0
    for one in copied:
        parts += [Part(low, high - low) for low, high in _evenly(at, one.offset, sent)]
        for low, high in _evenly(one.offset, one.stop, most_copied):
            parts.append(Part(low, high - low, Range(low, high - low, one.file, one.source_offset + low - one.offset)))
        at = one.stop
    return parts + [Part(low, high - low) for low, high in _evenly(at, nbytes, sent)]


def _evenly(start: int, stop: int, most: int) -> list[tuple[int, int]]:
    """
    >>> _evenly(0, 25, 10)
    [(0, 8), (8, 16), (16, 25)]
    """
    count = -(-(stop - start) // most)
    bounds = [start + (stop - start) * number // count for number in range(count + 1)] if count else []
    return list(pairwise(bounds))
