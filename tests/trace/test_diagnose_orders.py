"""Lines that stand in another order are found by their values and said in words."""

from __future__ import annotations

import numpy as np
import pytest

from isomorph.trace.diagnose.orders import Part, even_parts, order_of_lines, say_order, short_names

RNG = np.random.default_rng(1)
QKV = even_parts(["q", "k", "v"], 48)


def test_an_order_is_found_under_noise() -> None:
    """found[i] is meant[order[i]], up to the tolerance."""
    meant = RNG.normal(size=(48, 7))
    order = RNG.permutation(48)
    found = meant[order] + 1e-9 * RNG.normal(size=(48, 7))
    assert order.tolist() == order_of_lines(found, meant, 1e-7).tolist()  # type: ignore[union-attr]


def test_equal_lines_stay_where_they_are() -> None:
    """Lines that are right where they stand are not exchanged with their likes."""
    meant = RNG.normal(size=(12, 3))
    meant[::3] = 0
    order = np.arange(12)
    order[[1, 2]] = 2, 1
    assert order.tolist() == order_of_lines(meant[order], meant, 1e-12).tolist()  # type: ignore[union-attr]


def test_no_order_where_values_differ() -> None:
    """Neither equal lines nor other values have an order."""
    meant = RNG.normal(size=(12, 3))
    other = meant[::-1].copy()
    other[3, 1] += 1e-3
    assert [None] * 4 == [
        order_of_lines(meant, meant, 1e-9),
        order_of_lines(other, meant, 1e-9),
        order_of_lines(np.full((12, 3), np.nan), meant, 1e-9),
        order_of_lines(meant[:5], meant, 1e-9),
    ]


def grid(*sizes: int, order: tuple[int, ...]) -> np.ndarray:
    return np.arange(int(np.prod(sizes))).reshape(sizes).transpose(order).reshape(-1)


@pytest.mark.parametrize(
    ("order", "kind", "says"),
    [
        (np.r_[16:32, 0:16, 32:48], "parts-permuted", "rows of q and k are swapped (read as k q v)"),
        (np.r_[16:32, 32:48, 0:16], "parts-permuted", "parts stand in another order (read as k v q)"),
        (grid(3, 4, 4, order=(1, 0, 2)), "parts-interleaved", "rows of q k v are interleaved: they alternate 4 times, head by head"),
        (
            np.r_[grid(2, 2, 4, order=(0, 2, 1)), 16 + grid(2, 2, 4, order=(0, 2, 1)), 32:48],
            "rotary-order",
            "in q and k, rows are interleaved within each of 2 heads, as between the two rotary orders (halves and pairs)",
        ),
        (np.r_[0:4, 8:12, 4:8, 12:48], "heads-permuted", "in q, heads 1 and 2 (of 4 rows each) are swapped"),
    ],
)  # fmt: skip
def test_orders_of_a_fused_tensor(order: np.ndarray, kind: str, says: str) -> None:
    """Parts exchanged, interleaved head by head, or changed inside."""
    said = say_order(order, "rows", QKV)
    assert (kind, says) == (said.kind, said.says)


@pytest.mark.parametrize(
    ("order", "kind", "says"),
    [
        (grid(4, 2, 4, order=(0, 2, 1)), "rotary-order", "columns are interleaved within each of 4 heads, as between the two rotary orders (halves and pairs)"),
        (grid(4, 4, 2, order=(0, 2, 1)), "rotary-order", "columns are interleaved within each of 4 heads, as between the two rotary orders (halves and pairs)"),
        (grid(4, 8, order=(1, 0)), "interleaved", "columns are interleaved: read as (4 8) where (8 4) is meant"),
        (grid(4, 8, order=(0, 1)).reshape(4, 8)[::-1].reshape(-1), "heads-permuted", "heads (of 8 columns each) stand in reverse order"),
        (np.r_[1, 0, 2:32], "rows-permuted", "columns 0 and 1 are swapped"),
        (np.arange(32)[::-1], "rows-permuted", "columns stand in reverse order"),
    ],
)  # fmt: skip
def test_orders_of_one_tensor(order: np.ndarray, kind: str, says: str) -> None:
    """Rotary halves, a transposed product of axes, heads, single lines."""
    said = say_order(order, "columns")
    assert (kind, says) == (said.kind, said.says)


def test_parts_of_other_sizes() -> None:
    """With fewer key heads, parts are exchanged as they are."""
    parts = (Part("q", 0, 8), Part("k", 8, 12), Part("v", 12, 16))
    assert "rows of k and v are swapped (read as q v k)" == say_order(np.r_[0:8, 12:16, 8:12], "rows", parts).says


def test_short_names_tell_apart() -> None:
    """What all share in front and behind is left out."""
    assert [["q", "k"], ["self.query", "out"]] == [
        short_names(["a.0.q.weight", "a.0.k.weight"]),
        short_names(["l.1.self.query", "l.1.out"]),
    ]
