"""What a look-up computes is found from ids and rows."""

from __future__ import annotations

import numpy as np
import pytest

from isomorph.trace.diagnose.embedding_law import EmbeddingLaw, fit_embedding, look_up

RNG = np.random.default_rng(3)
TABLE = RNG.normal(size=(40, 16))
IDS = np.r_[0:37, 3, 3, 0].reshape(4, 10)


@pytest.mark.parametrize(
    "law",
    [
        EmbeddingLaw(),
        EmbeddingLaw(offset=2),
        EmbeddingLaw(offset=1, scale=4.0),
        EmbeddingLaw(scale=0.25),
        EmbeddingLaw(scale=3.7),
        EmbeddingLaw(zeroed=(0,)),
        EmbeddingLaw(highest=30),
        EmbeddingLaw(offset=-1, lowest=0),
        EmbeddingLaw(offset=2, scale=-2.0, zeroed=(5,)),
    ],
    ids=str,
)
def test_the_law_is_found(law: EmbeddingLaw) -> None:
    """Offset, scale, bounds and zeroed ids come out as they went in."""
    y = look_up(law, IDS, TABLE)
    fitted = fit_embedding(IDS, y + 1e-10 * RNG.normal(size=y.shape), TABLE, 1e-8)
    assert fitted is not None
    found, error = fitted
    assert (law, round(law.scale, 6), True) == (
        EmbeddingLaw(found.offset, law.scale, found.lowest, found.highest, found.zeroed),
        round(found.scale, 6),
        error < 1e-8,
    )


def test_a_large_table_is_searched_in_part() -> None:
    """Many ids and rows cost no more than a sample, and every id is checked."""
    table = RNG.normal(size=(5000, 32))
    ids = RNG.integers(0, 4990, size=(2, 700))
    law, _ = fit_embedding(ids, look_up(EmbeddingLaw(offset=3), ids, table), table, 1e-12) or (None, 0)
    assert EmbeddingLaw(offset=3) == law
    wrong = look_up(EmbeddingLaw(), ids, table)
    wrong[1, 3] += 0.1
    assert fit_embedding(ids, wrong, table, 1e-12) is None


def test_other_functions_are_not_explained() -> None:
    """Rows of no table, floating inputs, nothing at all."""
    y = RNG.normal(size=(4, 10, 16))
    assert [None] * 3 == [
        fit_embedding(IDS, y, TABLE, 1e-9),
        fit_embedding(IDS.astype(float), y, TABLE, 1e-9),
        fit_embedding(IDS, 0 * y, TABLE, 1e-9),
    ]
