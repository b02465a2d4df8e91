"""A tensor is explained by as few others as possible."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isomorph.trace.diagnose.sparse import combine, explain, solve

SHAPE = (2, 7, 16)


def tensors(count: int = 12):
    return list(np.random.default_rng(0).normal(size=(count, *SHAPE)))


@pytest.mark.parametrize("terms", [(3,), (0, 5), (11, 2, 7), (1, 4, 6, 9)])
def test_a_sum_is_found(terms):
    """Its terms are the ones it was made of, with coefficient one each."""
    given = tensors()
    found = explain(sum(given[i] for i in terms), given, 1e-12)
    assert sorted(terms) == sorted(found[0].terms)
    assert {1.0} == set(found[0].coefficients)


def test_coefficients_are_solved_for():
    """A scaled term keeps its factor, exactly where it is whole."""
    given = tensors()
    found = explain(math.sqrt(16) * given[2] - 0.3 * given[8], given, 1e-12)[0]
    assert (2, 8) == found.terms
    assert 4.0 == found.coefficients[0]
    assert math.isclose(-0.3, found.coefficients[1])


def test_the_fewest_terms_win():
    """A tensor that is itself a sum of others is named alone."""
    given = tensors()
    given.append(given[0] + given[1])
    assert [(12,)] == [one.terms for one in explain(given[12], given, 1e-12)]


def test_broadcast_terms():
    """Tables without a batch axis take part."""
    given = tensors()
    table = np.random.default_rng(5).normal(size=(1, 7, 16))
    found = explain(given[3] + 2 * table, [*given, table], 1e-12)[0]
    assert ((3, 12), (1.0, 2.0)) == (found.terms, found.coefficients)


def test_what_is_no_sum_is_not_explained():
    """A product of two is not a combination of them."""
    given = tensors()
    assert [] == explain(given[0] * given[1], given, 1e-9)
    assert solve(given[0] * given[1], given[:2]).gap > 0.1


def test_combine_is_what_solve_found():
    given = tensors(3)
    target = combine(given, (1.0, 0.0, -2.5))
    found = solve(target, given)
    np.testing.assert_allclose(target, combine(given, found.coefficients), atol=1e-12)
