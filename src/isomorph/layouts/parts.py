"""A checkpoint that is several: the prefixes below which the names of a layout lie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isomorph.layouts.hub import folded
from isomorph.layouts.index import scores

PIECES = "./"
"""What ends a piece of a name."""
LEAST_PART = 0.7
"""What a part of a checkpoint must score for it to be called a model by itself."""
MOST_PARTS = 60
"""Prefixes that are held against the index."""


@dataclass(frozen=True)
class Part:
    """A prefix of some names, below which the names of a layout lie."""

    prefix: str
    count: int
    layout: str


def parts_of(names: Iterable[str]) -> list[Part]:
    """The prefixes under which a checkpoint holds a whole model each: weights and their average, student and teacher, two towers.

    The shallowest that are enough; numbers are taken out of names first, so that many layers cost as much as one.
    """
    counts: dict[str, int] = {}
    for name in names:
        shape = folded(name)
        counts[shape] = counts.get(shape, 0) + 1
    found: list[Part] = []
    queue = [("", counts)]
    tried = 0
    while queue and tried < MOST_PARTS:
        before, inside = queue.pop(0)
        below: dict[str, dict[str, int]] = {}
        for name, number in inside.items():
            ends = [at for at in (name.find(piece) for piece in PIECES) if at >= 0]
            if ends:
                below.setdefault(name[: min(ends) + 1], {})[name[min(ends) + 1 :]] = number
        for piece, rest in below.items():
            if "#" in piece or "" in rest or len(rest) < 2:
                continue
            if tried >= MOST_PARTS:
                break
            tried += 1
            ranked = scores(rest)
            best = [one for one in ranked if one.value >= max(LEAST_PART, ranked[0].value)]
            if best:
                found.append(
                    Part(before + piece, sum(rest.values()), " or ".join(sorted(one.layout for one in best[:3])))
                )
            else:
                queue.append((before + piece, rest))
    return found


def common_prefix(names: Sequence[str]) -> str:
    """What all names begin with."""
    first, last = min(names), max(names)
    same = (at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    return first[: next(same, min(len(first), len(last)))]
