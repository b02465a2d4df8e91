"""What an unplaced tensor is nearest to: fine-tuned copies and maps rounded otherwise are named, unrelated tensors are not."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_value.approximate import Near, nearest, nearest_tensors, summary
from isomorph.infer.by_value.samples import ELEMENTS, counts_of, orders, sample
from isomorph.tensors import OPAQUE_DTYPES

Array = np.ndarray[Any, np.dtype[Any]]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def one(source: dict[str, Array], made: Array) -> Near | None:
    return nearest_tensors(ArrayCheckpoint(source), ArrayCheckpoint({"t": made}), ["t"]).get("t")


def test_a_fine_tuned_copy_is_named_and_others_are_not() -> None:
    source = {f"layers.{i}.w": normal(64, 48, seed=i) for i in range(20)}
    tuned = {
        f"h.{i}.weight": source[f"layers.{i}.w"].T + np.float32(0.01) * normal(48, 64, seed=50 + i) for i in range(20)
    }
    strange = {f"x.{i}": normal(64, 48, seed=100 + i) for i in range(20)}
    target = ArrayCheckpoint(tuned | strange)
    found = nearest_tensors(ArrayCheckpoint(source), target, list(target.manifest))
    assert list(found) == list(tuned)
    for i in range(20):
        near = found[f"h.{i}.weight"]
        assert (near.source, near.order, near.equal, near.is_copy) == (f"layers.{i}.w", (1, 0), 0, True)
        assert near.words.startswith(f"layers.{i}.w, transposed: cosine 0.9999")
        assert near.words.endswith("no element equal: a fine-tuned copy?")
    assert nearest(ArrayCheckpoint(source), target, list(tuned)) == {t: near.words for t, near in found.items()}
    assert summary(found, 20) == (
        "20 of the 20 tensors without a place are near one of the source (cosine at least 0.999948), with no element equal: "
        "a fine-tuned copy, not the same weights"
    )
    assert summary(found, 41) is None and summary({}, 3) is None


def test_norms_near_one_are_compared_without_their_mean() -> None:
    source = {name: 1 + np.float32(0.1) * normal(512, seed=i) for i, name in enumerate("abc")}
    near = one(source, source["b"] + np.float32(0.001) * normal(512, seed=9))
    assert near is not None and near.source == "b" and near.is_copy
    assert one(source, 1 + np.float32(0.1) * normal(512, seed=9)) is None


def test_maps_rounded_otherwise_are_named() -> None:
    values = normal(64, 16)
    scaled = one({"w": values}, values * np.float32(0.125) * np.float32(1.0000002))
    assert scaled is not None and scaled.change == "w * 0.125" and not scaled.is_copy
    assert scaled.words.startswith("w: about w * 0.125, within ") and scaled.words.endswith("rounded otherwise?")
    turned = one({"A_log": values}, -np.exp(values) * np.float32(1.0000002))
    assert turned is not None and turned.change == "-exp(w)"
    moved = one({"n": np.arange(100)}, np.arange(100) + 1)
    assert moved is not None and moved.words == "n: w + 1, in all 100 elements looked at"


def test_equal_elements_are_counted() -> None:
    values = normal(64, 64)
    made = values.copy()
    made[:16] += np.float32(0.3) * normal(16, 64, seed=3)
    near = one({"w": values}, made)
    assert near is not None and near.equal == 0.75 and "75 % of the elements equal" in near.words


def test_of_two_equally_near_the_name_decides() -> None:
    values = normal(8, 9)
    source = ArrayCheckpoint({"a.1.k": values, "a.2.k": values.copy(), "a.2.q": values.copy()})
    target = ArrayCheckpoint({"b.2.k": values + np.float32(0.01)})
    found = nearest_tensors(source, target, ["b.2.k"])
    assert found["b.2.k"].source == "a.2.k"
    assert nearest_tensors(source, target, ["b.2.k"], candidates=["a.1.k"])["b.2.k"].source == "a.1.k"


@pytest.mark.parametrize(
    ("values", "made"),
    [
        (np.zeros(50, np.float32), np.ones(50, np.float32)),
        (np.zeros(50, np.float32), normal(50)),
        (np.array([np.nan] * 9, np.float32), np.array([np.inf] * 9, np.float32)),
        (np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)),
        (np.array(1, np.float32), np.array(2, np.float32)),
        (np.ones(5, np.complex64), np.ones(5, np.complex64)),
        (normal(4), normal(4, seed=1)),
        (normal(30, 20), normal(31, 20)),
        (np.array([True, False] * 20), np.array([True] * 40)),
        (np.array([1e308, -1e308] * 9, np.float64), np.zeros(18)),
    ],
)
def test_nothing_is_near(values: Array, made: Array) -> None:
    assert one({"w": values}, made) is None


def test_huge_numbers_and_other_dtypes() -> None:
    values = normal(40, 40).astype(np.float64) * 1e300
    near = one({"w": values}, values * 1.01)
    assert near is not None and near.source == "w"
    half = one({"w": normal(40, 40).astype(ml_dtypes.bfloat16)}, normal(40, 40))
    assert half is not None and half.is_copy and half.cosine > 0.9999
    opaque = ArrayCheckpoint({"w": np.arange(9, dtype=np.uint8)}, dtypes={"w": OPAQUE_DTYPES["f8e8m0"]})
    assert nearest(opaque, opaque, ["w"]) == {}


@given(st.lists(st.integers(1, 300), max_size=5), st.randoms())
def test_the_sample_of_a_transpose_is_the_sample_transposed(sizes: list[int], chance: Any) -> None:
    sizes = [min(size, 60) for size in sizes] if len(sizes) > 2 else sizes
    while np.prod(sizes, dtype=float) > 1e5:
        sizes.pop()
    values = np.arange(np.prod(sizes, dtype=int), dtype=np.float64).reshape(sizes)
    order = list(range(len(sizes)))
    chance.shuffle(order)
    checkpoint = ArrayCheckpoint({"w": values, "t": values.transpose(order)})
    mine = sample(checkpoint, "w")
    assert mine.size <= ELEMENTS and np.isin(mine, values).all() and np.unique(mine).size == mine.size
    kept = [axis for axis in order if sizes[axis] != 1]
    renumbered = [sorted(kept).index(axis) for axis in kept]
    assert np.array_equal(sample(checkpoint, "t"), mine.transpose(renumbered))


def test_counts_and_orders() -> None:
    assert counts_of([4096, 1024]) == [64, 64] and counts_of([100]) == [100] and counts_of([10_000]) == [4096]
    assert counts_of([5, 0]) == [0, 0] and counts_of([]) == []
    assert list(orders((3, 4), (3, 4))) == [(0, 1)] and list(orders((3, 4), (4, 3))) == [(1, 0)]
    assert (
        list(orders((3, 3), (3, 3))) == [(0, 1), (1, 0)]
        and list(orders((3,), (3,))) == [(0,)]
        and list(orders((), ())) == [()]
    )
    assert list(orders((2,) * 5, (2,) * 5)) == [(0, 1, 2, 3, 4)] and list(orders((2, 3), (2, 4))) == []
