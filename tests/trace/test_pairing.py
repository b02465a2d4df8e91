"""Pairing: two tensors of one content beside each other, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.trace.arrange import arrangements
from isomorph.trace.carried import is_carried
from isomorph.trace.compare import error_of, measured, real_positions
from isomorph.trace.nouns import Capture, Channels, Event, Link, Site
from isomorph.trace.pairing import Unpaired, beside, into_candidate, settled


@given(st.permutations([2, 3, 5, 7]), st.integers(0, 3))
def test_moved_and_merged_axes_are_found_by_sizes(order: list[int], merged: int) -> None:
    """Law: permuting axes and merging two neighbours is undone, both ways."""
    left = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    right = np.transpose(left, [[2, 3, 5, 7].index(size) for size in order])
    if merged < 3:
        shape = list(right.shape)
        shape[merged : merged + 2] = [shape[merged] * shape[merged + 1]]
        right = right.reshape(shape)
    found = arrangements(left.shape, right.shape)
    assert any(np.array_equal(one.to_left(right), left) and np.array_equal(one.to_right(left), right) for one in found)


def test_sizes_of_another_content_have_no_arrangement() -> None:
    """Nothing is broadcast, cut or padded."""
    assert [] == arrangements((2, 3), (2, 4))
    assert [] == arrangements((2, 3), (3,))


def test_channels_are_put_beside_each_other_and_back() -> None:
    """Two thirds of a fused output, sequence first and permuted, in the reference's layout; the rest stays when it is spliced."""
    drawn = np.random.default_rng(0)
    reference = drawn.normal(size=(2, 5, 4))
    places = np.array([7, 1, 4, 10])
    candidate = drawn.normal(size=(5, 2, 12))
    candidate[..., places] = reference.transpose(1, 0, 2)
    link = Link("out", "r", "c", Channels(2, 2, np.arange(4), places))
    left, right = beside(link, reference, candidate)
    np.testing.assert_array_equal(reference, left)
    np.testing.assert_array_equal(reference, right)
    put = into_candidate(link, left + 1, reference, candidate)
    np.testing.assert_array_equal(reference.transpose(1, 0, 2) + 1, put[..., places])
    others = [place for place in range(12) if place not in places]
    np.testing.assert_array_equal(candidate[..., others], put[..., others])


def test_one_row_of_positions_faces_a_batch_of_them() -> None:
    """[1 T D] against [B T D], either way round; back only where the rows are one."""
    one, many = np.arange(10.0).reshape(1, 5, 2), np.tile(np.arange(10.0).reshape(1, 5, 2), (3, 1, 1))
    link = Link("out", "r", "c", Channels(2, 2, np.arange(2), np.arange(2)))
    for reference, candidate in ((one, many), (many, one)):
        left, right = beside(link, reference, candidate)
        np.testing.assert_array_equal(many, left)
        np.testing.assert_array_equal(many, right)
        np.testing.assert_array_equal(candidate, into_candidate(link, left, reference, candidate))
    with pytest.raises(Unpaired, match="differ"):
        into_candidate(link, many + np.arange(3)[:, None, None], many, one)


def test_equal_sizes_are_settled_by_values_where_they_are_clear() -> None:
    """A square of positions may be turned: a run on weights that are equal tells."""
    reference = np.random.default_rng(0).normal(size=(3, 3, 4))
    turned = settled(Link("out", "r", "c"), reference, reference.transpose(1, 0, 2))
    np.testing.assert_array_equal(reference, beside(turned, reference, reference.transpose(1, 0, 2))[1])
    assert settled(Link("out", "r", "c"), reference, reference).order == ((0,), (1,), (2,))


def event_of(reference: np.ndarray, candidate: np.ndarray) -> tuple[Event, Capture, Capture]:
    site = Site("m", 0, "out")
    sides = (Capture({site: array}, (), (), {}) for array in (reference, candidate))
    return Event(None, Link("out", "m", "m"), site, site, 0), *sides


def test_padded_positions_do_not_count_but_what_is_not_finite_does() -> None:
    """An error at a padded position is none; NaN there is a problem all the same."""
    padding = np.array([[1, 1, 1], [1, 1, 0]], bool)
    reference = np.ones((2, 3, 4))
    candidate = reference.copy()
    candidate[1, 2] = 5
    found = measured(*event_of(reference, candidate), 1e-9, padding)
    assert (0.0, 20, True) == (found.error, found.elements, found.is_within)
    candidate[1, 2, 0] = np.nan
    assert "NaN" == measured(*event_of(reference, candidate), 1e-9, padding).problem
    candidate[1, 2, 0] = np.inf
    assert "Inf" == measured(*event_of(reference, candidate), 1e-9, padding).problem


def test_nothing_compared_never_passes() -> None:
    """No element, no finite element, another content: each is a problem."""
    empty, bad = np.ones((0, 3)), np.full((2, 3), np.nan)
    assert not measured(*event_of(empty, empty), 1.0).is_within
    assert "the reference is not finite" == measured(*event_of(bad, bad), 1.0).problem
    assert "content" in str(measured(*event_of(np.ones((2, 3)), np.ones((2, 4))), 1.0).problem)


def test_an_error_is_relative_to_the_largest_value() -> None:
    """Unit of every tolerance; of a reference of zeros it is absolute."""
    assert 0.25 == error_of(np.array([4.0, 1.0]), np.array([4.0, 2.0]))
    assert 2.0 == error_of(np.zeros(2), np.array([0.0, 2.0]))


@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 2, 5), (6, 5), (2, 4, 3, 5)])
def test_positions_are_found_in_every_usual_layout(shape: tuple[int, ...]) -> None:
    """As many elements are padded as the mask says."""
    mask = real_positions(np.array([[1, 1, 1], [1, 0, 0]], bool), shape)
    assert mask is not None
    share = np.broadcast_to(mask, shape).mean()
    assert 4 / 6 == pytest.approx(share)


def test_carried_errors_are_known_again() -> None:
    """A multiple, a sum of two, one position, the mean; not another error."""
    drawn = np.random.default_rng(0)
    one, two, other = (drawn.normal(size=(2, 5, 4)) for _ in range(3))
    assert is_carried(2 * one, [one])
    assert is_carried(one - two, [one, two])
    assert is_carried(one[:, 0], [one])
    assert is_carried(one.mean(axis=1), [one])
    assert is_carried(one[:, 1:], [one])
    assert not is_carried(other, [one, two])
    assert not is_carried(np.zeros((2, 5, 4)), [one])
