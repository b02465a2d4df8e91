"""Which combination of alternatives makes two models one function: a search that runs few, and then tries to refute what it found.

A wrong alternative spoils everything after the place where it is used, so outputs agree only when all are right. What is compared
on the way shows more: how much of what the one model computes inside the other computes too grows with every alternative that is
put right. So one question after the other is set to what shows more, and two at a time where one alone does not help (a weight and
a bias of one module); where that ends before the outputs agree, all combinations are tried if they are few. A combination that
agrees decides a question only if no other that was tried agrees too and answers it otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, combinations, islice, product
from math import inf, prod
from typing import NamedTuple

Choice = tuple[int, ...]
"""One alternative of every question, by its place."""
MOST_RUNS = 512
MOST_PAIRS = 128
"""Runs that try to refute what was found by answering two questions otherwise."""
MOST_TOGETHER = 256
"""Combinations that are all tried where none agrees yet."""


class Score(NamedTuple):
    """What one combination shows.

    `held`: on how many probes the outputs agree, the first one first; 0: they do not. `seen`: how much of what the reference
    computes inside the candidate computes too.
    `error`: of the outputs on the first probe, the largest over what is allowed.
    """

    held: int
    seen: float
    error: float


FAILED = Score(0, -1.0, inf)


@dataclass(frozen=True)
class Searched:
    """`best` agrees on most probes; where none agrees, it is the one that shows most.

    `undecided` are the questions that another combination answers otherwise and agrees as well (all, where none agrees), or that
    there were no runs left for. `refuted`: of each question, the smallest error that another alternative gave.
    """

    best: Choice
    score: Score
    undecided: frozenset[int]
    refuted: Mapping[int, float] = field(default_factory=dict)
    runs: int = 0


class Runs:
    """What every combination that was run showed; None for more, once there were `most`."""

    def __init__(self, score: Callable[[Choice, bool], Score], most: int = MOST_RUNS) -> None:
        self._score = score
        self._most = max(most, 1)
        self.known: dict[Choice, Score] = {}

    def __call__(self, choice: Choice, *, is_inside: bool = False) -> Score | None:
        if choice not in self.known:
            if len(self.known) >= self._most:
                return None
            self.known[choice] = self._score(choice, is_inside)
        return self.known[choice]


def search(sizes: Sequence[int], start: Choice, runs: Runs) -> Searched:
    """`sizes` are the numbers of alternatives; at least one combination is run, the one to start from."""
    known = runs.known
    best = climb(sizes, start, runs)
    if not known[best].held and prod(sizes) <= MOST_TOGETHER:
        best = next((one for one in _all(sizes) if (found := runs(one)) is not None and found.held), best)
    if not known[best].held:
        best = max(known, key=lambda one: (known[one].seen, -known[one].error, [-place for place in one]))
        return Searched(best, known[best], frozenset(range(len(sizes))), runs=len(known))
    refuting = None
    while refuting != best:
        refuting = best
        near, singles = _near(sizes, best), sum(sizes) - len(sizes)
        more = _all(sizes) if prod(sizes) <= MOST_PAIRS else islice(near, MOST_PAIRS)
        for other in chain(islice(near, singles), more):
            if runs(other) is None:
                break
        best = max(known, key=lambda one: (known[one].held, one == best))
    rivals = [one for one in known if known[one].held == known[best].held and one != best]
    undecided = {place for one in rivals for place in range(len(sizes)) if one[place] != best[place]}
    beside = {place: list(_beside(sizes, best, place)) for place in range(len(sizes))}
    undecided |= {place for place, others in beside.items() if not all(one in known for one in others)}
    refuted = {
        place: min((known[one].error for one in others if one in known), default=inf)
        for place, others in beside.items()
    }
    return Searched(best, known[best], frozenset(undecided), refuted, len(known))


def climb(sizes: Sequence[int], start: Choice, runs: Runs) -> Choice:
    """From `start` always on to what shows more: one question answered otherwise, or where none helps, two; until outputs agree."""
    best, reached = start, runs(start, is_inside=True)
    if reached is None:
        return start
    is_better = True
    while is_better and not reached.held:
        is_better = False
        for other in _near(sizes, best):
            found = runs(other, is_inside=True)
            if found is None:
                return best
            if found.held or found.seen > reached.seen:
                best, reached, is_better = other, found, True
                break
    return best


def _beside(sizes: Sequence[int], choice: Choice, place: int) -> Iterator[Choice]:
    """The combinations that answer one question otherwise."""
    for other in range(sizes[place]):
        if other != choice[place]:
            yield (*choice[:place], other, *choice[place + 1 :])


def _near(sizes: Sequence[int], best: Choice) -> Iterator[Choice]:
    """The combinations that answer one question otherwise, then those that answer two so."""
    for place in range(len(sizes)):
        yield from _beside(sizes, best, place)
    for one, other in combinations(range(len(sizes)), 2):
        for first in _beside(sizes, best, one):
            yield from _beside(sizes, first, other)


def _all(sizes: Sequence[int]) -> Iterator[Choice]:
    yield from product(*(range(size) for size in sizes))
