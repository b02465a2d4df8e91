"""How a matrix or a bias differs from what is meant: named, and undone."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from isomorph.trace.diagnose.matrices import changes_of_bias, changes_of_matrix
from isomorph.trace.diagnose.orders import even_parts

RNG = np.random.default_rng(2)
SQUARE, WIDE, FUSED = RNG.normal(size=(16, 16)), RNG.normal(size=(24, 16)), RNG.normal(size=(48, 16))
QKV = even_parts(["q", "k", "v"], 48)
ORDER = RNG.permutation(16)
Done = Callable[[np.ndarray], np.ndarray]

MATRICES: list[tuple[np.ndarray, Done, str, str]] = [
    (SQUARE, lambda w: w.T, "weight-transposed", "weight is transposed"),
    (WIDE, lambda w: w.T.reshape(24, 16), "weight-reshaped", "weight is reshaped where it should be transposed"),
    (WIDE, lambda w: w.reshape(16, 24).T, "weight-reshaped", "weight is reshaped where it should be transposed"),
    (WIDE, lambda w: 0.125 * w, "weight-scaled", "weight is scaled by 0.125"),
    (WIDE, lambda w: -w, "weight-scaled", "weight is negated"),
    (SQUARE, lambda w: w + np.eye(16), "residual-inside", "its input is added to its output (a residual inside)"),
    (SQUARE, lambda w: w[ORDER], "rows-permuted", "rows stand in another order"),
    (SQUARE, lambda w: w[:, ORDER], "rows-permuted", "columns stand in another order"),
    (SQUARE, lambda w: w[:, np.arange(16).reshape(4, 2, 2).transpose(0, 2, 1).reshape(-1)], "rotary-order", "columns are interleaved within each of 4 heads"),
    (FUSED, lambda w: w[np.r_[16:32, 0:16, 32:48]], "parts-permuted", "rows of q and k are swapped (read as k q v)"),
    (FUSED, lambda w: np.concatenate([w[:16].T, w[16:]]), "weight-transposed", "q: weight is transposed"),
    (FUSED, lambda w: np.concatenate([w[:16].T, w[16:32], 2 * w[32:]]), "weight-transposed", "q: weight is transposed; v: weight is scaled by 2"),
]  # fmt: skip


@pytest.mark.parametrize(("meant", "done", "kind", "says"), MATRICES)
def test_what_was_done_is_named_and_undone(meant: np.ndarray, done: Done, kind: str, says: str) -> None:
    """The first change explains the matrix under noise; a weight altered by `undo` and used so again is the one that is meant."""
    parts = QKV if meant is FUSED else ()
    found = done(meant)
    (change, *_) = changes_of_matrix(found + 1e-9 * RNG.normal(size=found.shape), meant, 1e-7, parts)
    assert (kind, says) == (change.kind, change.says[: len(says)])
    np.testing.assert_allclose(done(change.undo(meant)), meant, atol=1e-6)


def test_rounding_is_named() -> None:
    """A weight that is cast to bfloat16 where it is used."""
    (change,) = changes_of_matrix(WIDE.astype(ml_dtypes.bfloat16).astype(float), WIDE, 1e-9)
    assert "weight is rounded to bf16" == change.says


def test_other_values_are_not_explained() -> None:
    """Equal matrices have no change, other values none that explains them, nor have other shapes or NaN."""
    nan = np.full_like(WIDE, np.nan)
    assert [[], [], [], []] == [changes_of_matrix(one, WIDE, 1e-9) for one in (WIDE, WIDE + 0.1, SQUARE, nan)]


BIAS = RNG.normal(size=48)


@pytest.mark.parametrize(
    ("found", "kind", "says"),
    [
        (0 * BIAS, "bias-missing", "bias is missing"),
        (2 * BIAS, "bias-doubled", "bias is added twice"),
        (-BIAS, "bias-negated", "bias is subtracted"),
        (0.5 * BIAS, "bias-scaled", "bias is scaled by 0.5"),
        (
            BIAS[np.r_[0:16, 32:48, 16:32]],
            "bias-permuted",
            "elements of the bias of k and v are swapped (read as q v k)",
        ),
        (np.r_[BIAS[:16], 0 * BIAS[16:32], BIAS[32:]], "bias-missing", "k: bias is missing"),
        (np.r_[0 * BIAS[:16], BIAS[16:32], 0 * BIAS[32:]], "bias-missing", "q and v: bias is missing"),
    ],
)
def test_what_was_done_to_a_bias(found: np.ndarray, kind: str, says: str) -> None:
    """Missing, doubled, scaled, in another order: whole or in one part."""
    (change,) = changes_of_bias(found, BIAS, 1e-9, QKV)
    assert (kind, says) == (change.kind, change.says)


def test_a_bias_of_other_values_is_not_explained() -> None:
    """Equal biases have no change; other values none that explains them."""
    assert [[], [], []] == [changes_of_bias(one, BIAS, 1e-9, QKV) for one in (BIAS, BIAS + 0.1, np.full(48, np.nan))]
