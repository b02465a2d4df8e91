"""The search over alternatives: it finds the one combination that agrees in few runs, and decides nothing that it cannot refute."""

from __future__ import annotations

from math import prod

from hypothesis import given
from hypothesis import strategies as st

from isomorph.job.choice_search import FAILED, MOST_RUNS, Choice, Runs, Score, search

SIZES = st.lists(st.integers(2, 4), min_size=1, max_size=6)


class World:
    """Models whose outputs agree under `truths`; inside, all before the first wrong answer is the same."""

    def __init__(self, *truths: Choice, inner: bool = True) -> None:
        self.truths, self.inner, self.runs = truths, inner, 0

    def score(self, choice: Choice, is_inside: bool) -> Score:
        self.runs += 1
        right = max(self._right(choice, truth) for truth in self.truths)
        return Score(
            int(choice in self.truths), right if self.inner and is_inside else 0, 0.1 if choice in self.truths else 1e6
        )

    def _right(self, choice: Choice, truth: Choice) -> int:
        return next(
            (at for at, (one, other) in enumerate(zip(choice, truth, strict=True)) if one != other), len(choice)
        )


@given(st.data())
def test_the_truth_is_found_and_every_question_decided(data: st.DataObject) -> None:
    """Whatever it is, and wherever the search starts."""
    sizes = data.draw(SIZES)
    truth, start = (tuple(data.draw(st.integers(0, size - 1)) for size in sizes) for _ in range(2))
    world = World(truth)
    found = search(sizes, start, Runs(world.score))
    assert (found.best, found.undecided) == (truth, frozenset())
    assert world.runs == found.runs <= MOST_RUNS
    assert all(error == 1e6 for error in found.refuted.values())


@given(st.data())
def test_the_way_to_the_truth_is_short(data: st.DataObject) -> None:
    """By what is seen inside, far fewer runs than there are combinations: each question a few times."""
    sizes = [3] * 8
    truth = tuple(data.draw(st.integers(0, 2)) for _ in sizes)
    found = search(sizes, (0,) * 8, Runs(World(truth).score))
    assert (found.best, found.undecided) == (truth, frozenset())
    assert found.runs < MOST_RUNS < prod(sizes)


@given(st.data())
def test_what_another_combination_explains_too_stays_open(data: st.DataObject) -> None:
    """Two truths: the questions in which they differ are open, the others decided."""
    sizes = data.draw(st.lists(st.integers(2, 3), min_size=2, max_size=4))
    one, other = (tuple(data.draw(st.integers(0, size - 1)) for size in sizes) for _ in range(2))
    found = search(sizes, (0,) * len(sizes), Runs(World(one, other).score))
    assert found.undecided == {at for at in range(len(sizes)) if one[at] != other[at]}
    assert found.best in (one, other)


def test_without_a_view_inside_few_combinations_are_all_tried() -> None:
    found = search([2, 2, 3], (0, 0, 0), Runs(World((1, 1, 2), inner=False).score))
    assert (found.best, found.undecided, found.runs) == ((1, 1, 2), frozenset(), 12)


def test_where_nothing_agrees_nothing_is_decided() -> None:
    """The nearest is told."""
    found = search([2, 2], (0, 0), Runs(lambda choice, _: Score(0, sum(choice), 5.0)))
    assert (found.best, found.undecided, found.score.held) == ((1, 1), frozenset({0, 1}), 0)
    assert search([2], (0,), Runs(lambda *_: FAILED)).undecided == {0}


def test_a_question_that_no_run_was_left_for_stays_open() -> None:
    found = search([2, 2, 2], (0, 0, 0), Runs(World((0, 0, 0)).score, most=3))
    assert found.best == (0, 0, 0)
    assert found.undecided == {2}


def test_more_inputs_tell_apart_what_one_does_not() -> None:
    """Two combinations agree on the first probe; one of them on the second too."""
    held: dict[Choice, int] = {(0,): 1, (1,): 2}
    found = search([2], (0,), Runs(lambda choice, _: Score(held[choice], 0, 0.5)))
    assert (found.best, found.undecided) == ((1,), frozenset())
