"""Which causes are named, what is said when none is, and the table of kinds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from isomorph.trace.diagnose import KINDS, kinds, named, unknown
from isomorph.trace.diagnose.embedding import say as say_embedding
from isomorph.trace.diagnose.embedding_law import EmbeddingLaw
from isomorph.trace.diagnose.matrices import number
from isomorph.trace.diagnose.norm import say as say_norm
from isomorph.trace.diagnose.norm_law import NormLaw
from isomorph.trace.diagnose.shape import lines_of
from isomorph.trace.nouns import Cause

FILES = [path for path in Path(kinds.__file__).parent.glob("*.py") if path.name != "kinds.py"]
SOURCES = "\n".join(path.read_text(encoding="utf-8") for path in FILES)


def test_every_kind_is_in_the_table_and_said_somewhere() -> None:
    """A slug that a hypothesis uses has its meaning in KINDS; KINDS has no other."""
    used = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', SOURCES))
    assert set() == used - set(KINDS)
    assert set() == {kind for kind in KINDS if f'"{kind}"' not in SOURCES}


def test_causes_that_leave_as_little_are_all_named() -> None:
    """Within a factor of four, what is below the floor counting as the floor; repairs first, one of a kind."""
    causes = [
        Cause("a", "a", 3e-16, 1e-15),
        Cause("b", "b", 1e-15, 1e-15, repairs=True),
        Cause("a", "a again", 0.0, 1e-15),
        Cause("c", "c", 1e-14, 1e-15),
    ]
    assert ["b", "a"] == [cause.says for cause in named(causes)]


def test_unknown_says_what_comes_closest() -> None:
    """With what it leaves, and what could not be tried."""
    cause = unknown([Cause("a", "weight is odd", 1e-3, 1e-15)], 1.6e-14, ["norm (ValueError: no)"])
    assert (
        "unknown: none of the known causes explains it (the closest: weight is odd; it leaves 1e-03, 2e-14 is allowed); "
        "could not be tried: norm (ValueError: no)"
    ) == cause.says
    assert ("unknown", 1e-3, 1e-15) == (cause.kind, cause.residual, cause.floor)
    assert "unknown: none of the known causes explains it" == unknown([], 1e-15, []).says
    assert "gives NaN where the reference gives numbers; why is unknown: none" in unknown([], 1e-15, [], "NaN").says


@pytest.mark.parametrize(
    ("candidate", "reference", "kind", "says"),
    [
        (NormLaw(eps=1e-6), NormLaw(eps=1e-5), "norm-eps", "eps is 1e-06, the reference has 1e-05"),
        (NormLaw(gain="1 + weight"), NormLaw(), "norm-one-plus-weight", "norm multiplies by 1 + weight, the reference by weight"),
        (NormLaw(), NormLaw(gain="1 + weight"), "norm-one-plus-weight", "norm multiplies by weight, the reference by 1 + weight"),
        (NormLaw(numerator_is_centred=False, variance_is_centred=False, bias=0), NormLaw(), "norm-mean", "the mean is not subtracted (it is an RMS norm, the reference a layer norm); bias is missing"),
        (NormLaw(), NormLaw(numerator_is_centred=False, variance_is_centred=False), "norm-mean", "the mean is subtracted (it is a layer norm, the reference an RMS norm)"),
        (NormLaw(is_unbiased=True), NormLaw(), "norm-variance", "variance is divided by n - 1, the reference divides by n"),
        (NormLaw(eps_place="deviation", eps=1e-3), NormLaw(eps=1e-6), "norm-eps-place", "eps is added to the deviation, outside the root, the reference adds it to the variance"),
        (NormLaw(over="stored"), NormLaw(over="all axes but the last"), "norm-statistics", "it takes mean and variance over nothing (it has stored ones), the reference over all axes but the last"),
    ],
)  # fmt: skip
def test_two_norms_differ_in_words(candidate: NormLaw, reference: NormLaw, kind: str, says: str) -> None:
    """The candidate first, then the reference."""
    assert (kind, says) == say_norm(candidate, reference)


def test_equal_laws_differ_in_nothing() -> None:
    """Nothing is said of them."""
    assert (None, None) == (
        say_norm(NormLaw(eps=1e-5), NormLaw(eps=1e-5)),
        say_embedding(EmbeddingLaw(), EmbeddingLaw(), 9),
    )


@pytest.mark.parametrize(
    ("candidate", "reference", "says"),
    [
        (EmbeddingLaw(offset=2), EmbeddingLaw(), "row id + 2 is read, the reference reads row id"),
        (EmbeddingLaw(), EmbeddingLaw(offset=-1), "row id is read, the reference reads row id - 1"),
        (EmbeddingLaw(), EmbeddingLaw(scale=8.0), "the factor sqrt(64) is missing"),
        (EmbeddingLaw(scale=8.0), EmbeddingLaw(), "it is multiplied by sqrt(64), the reference is not"),
        (EmbeddingLaw(scale=64.0), EmbeddingLaw(scale=8.0), "the factor sqrt(64) is applied twice"),
        (EmbeddingLaw(scale=3.0), EmbeddingLaw(), "it is scaled by 3, the reference by 1"),
        (
            EmbeddingLaw(zeroed=(1,)),
            EmbeddingLaw(),
            "the output for id 1 is zero (a padding row), the reference's is not",
        ),
        (EmbeddingLaw(highest=30), EmbeddingLaw(), "ids are clamped above row 30, the reference's are not clamped"),
    ],
)
def test_two_look_ups_differ_in_words(candidate: EmbeddingLaw, reference: EmbeddingLaw, says: str) -> None:
    """The candidate first, then the reference."""
    found = say_embedding(candidate, reference, 64)
    assert found is not None
    assert says == found[1]


def test_a_factor_has_as_many_digits_as_it_needs() -> None:
    """Six at most, fewer where the tolerance allows."""
    assert ["0.125", "3", "2.99981", "-2", "0.353553"] == [
        number(0.125),
        number(2.9998, 1e-3),
        number(2.999812345),
        number(-2.0),
        number(8**-0.5),
    ]


def test_the_shape_of_an_error_in_lines() -> None:
    """By batch, position, channel and head: where it is over, and how high."""
    reference = np.random.default_rng(0).normal(size=(2, 6, 8))
    candidate = reference.copy()
    candidate[:, 4:, 4:6] *= 2
    lines = lines_of(reference, candidate, 1e-12, heads=4)
    assert "8 of 96 elements are over 1.0e-12" == lines[0].partition(";")[0]
    assert ["all 2 are over", "4 to 5 of 6 are over", "4 to 5 of 8 are over", "only 2 of 4 is over"] == [
        line.rpartition("| ")[2] for line in lines[1:5]
    ]
    assert "where it is over, the candidate is 2 times the reference" == lines[5]
    assert "by position |    ██| 4 to 5 of 6 are over"[:15] == lines[2][:15]


def test_what_is_not_finite_is_over() -> None:
    """NaN in the candidate is an error at its place; where the reference has none, nothing is counted."""
    reference, candidate = np.ones((4, 3)), np.ones((4, 3))
    candidate[1] = np.nan
    reference[2] = np.nan
    lines = lines_of(reference, candidate, 1e-6)
    assert ("3 of 12 elements are over 1.0e-06; the largest error is inf", "only 1 of 4 is over") == (
        lines[0],
        lines[1].rpartition("| ")[2],
    )
