"""Matching where values say little, and where there is much to match: bounded work, nothing forced, siblings alike."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_value.arrange.find import arrange
from isomorph.infer.by_value.match import match
from isomorph.infer.by_value.sums import most_for_pairs
from isomorph.infer.nouns import Part
from isomorph.infer.texts import number_text
from isomorph.tensors import DTYPES

Array = np.ndarray[Any, np.dtype[Any]]
F32 = np.float32


def _noise(count: int, seed: int, prefix: str) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = ((16, 16), (16,), (32, 16))
    return {f"{prefix}.{n // 3}.{'wbf'[n % 3]}": rng.standard_normal(shapes[n % 3]).astype(F32) for n in range(count)}


def test_unrelated_checkpoints_are_left_unplaced_in_little_time() -> None:
    source, target = _noise(600, 1, "layers"), _noise(600, 2, "blocks")
    began = time.process_time()
    found = match(ArrayCheckpoint(source), ArrayCheckpoint(target))
    assert time.process_time() - began < 20
    assert not found.relations and not found.silent
    assert found.unplaced == tuple(target) and found.unused == tuple(source)


def test_a_thousand_equal_tensors_are_for_names_to_place() -> None:
    w = np.random.default_rng(0).standard_normal((8, 8)).astype(F32)
    source = {f"a.{n}.w": w for n in range(1000)}
    for made in (w, np.ascontiguousarray(w.T)):
        began = time.process_time()
        found = match(ArrayCheckpoint(source), ArrayCheckpoint({f"b.{n}.w": made for n in range(1000)}))
        assert time.process_time() - began < 20
        assert len(found.silent) == 1000 and not found.unplaced
        last = found.silent[-1]
        assert last.target == "b.999.w" and "a.999.w" in last.candidates
        transposed = [one for one in last.relations if one.sources == ("a.999.w",)]
        assert bool(transposed) == (made is not w)
        if transposed:
            (left,), (right,) = transposed[0].left, transposed[0].right
            assert left.dims == right.dims[::-1]


@pytest.mark.parametrize("high", [2, 3])
def test_small_integers_add_up_by_chance_and_nothing_is_forced(high: int) -> None:
    rng = np.random.default_rng(high)
    source = {f"a.{n}.w": rng.integers(0, high, 24).astype(np.int8) for n in range(300)}
    target = {f"b.{n}.w": rng.integers(0, high, 48).astype(np.int8) for n in range(150)}
    found = match(ArrayCheckpoint(source), ArrayCheckpoint(target))
    assert not found.relations and len(found.unplaced) == 150


def test_a_symmetric_block_lies_as_the_one_beside_it() -> None:
    rng = np.random.default_rng(3)
    q, k = (rng.standard_normal((8, 8)).astype(F32) for _ in "qk")
    k = k + k.T
    for made in (np.concatenate([q, k]), np.concatenate([q.T, k.T], axis=1)):
        (relation,) = match(ArrayCheckpoint({"q": q, "k": k}), ArrayCheckpoint({"qk": made})).relations
        (left,) = relation.left
        assert isinstance(left, Part) and left.names == ("q", "k")  # one part along an axis: both lie alike


def test_a_block_that_may_lie_in_two_ways_is_not_decided() -> None:
    rng = np.random.default_rng(4)
    w = rng.standard_normal((6, 4, 4)).astype(F32)
    even = w + w.transpose(0, 2, 1)
    for tensor, decided in ((w, True), (even, False)):
        source = {"a": tensor[:3].copy(), "b": tensor[3:].copy()}
        found = arrange(
            ArrayCheckpoint(source), ["a", "b"], ArrayCheckpoint({"c": tensor.transpose(0, 2, 1).copy()}), ["c"]
        )
        assert found is not None and found.is_decided == decided


def test_equal_parts_are_in_the_order_of_their_siblings() -> None:
    rng = np.random.default_rng(5)
    source: dict[str, Array] = {}
    target: dict[str, Array] = {}
    for layer in range(5):
        parts = [rng.standard_normal(12).astype(F32) for _ in "qkv"]
        if layer == 1:
            parts = [np.array([1, 2] * 6, F32)] * 3
        source |= {f"l.{layer}.{name}.b": part for name, part in zip("kqv", parts, strict=True)}
        target[f"h.{layer}.b"] = np.stack([part.reshape(3, 4) for part in parts], axis=1).reshape(-1)
    found = match(ArrayCheckpoint(source), ArrayCheckpoint(target))
    assert len(found.relations) == 5 and not found.outliers and not found.unplaced


@pytest.mark.parametrize("size", [4, 5, 12])
def test_an_axis_turned_round_is_a_short_sum_or_nothing(size: int) -> None:
    w = np.random.default_rng(size).standard_normal((size, 7)).astype(F32)
    found = match(ArrayCheckpoint({"w": w}), ArrayCheckpoint({"v": w[::-1].copy()}))
    assert bool(found.relations) == (size <= 4)
    assert ("order that no layout explains" in " ".join(found.notes)) == (size > 4)


def test_memory_bounds_the_sums_of_two() -> None:
    assert most_for_pairs(1 << 40) == 3000
    assert most_for_pairs(64 << 20) ** 2 // 2 * 48 <= 64 << 20


@pytest.mark.parametrize("value", ["0.1", "2.6592", "-0.0010000000474974513", "3", "1e-30"])
def test_numbers_are_written_as_shortly_as_they_can_be(value: str) -> None:
    number = F32(value)
    text = number_text(int(number.view(np.uint32)), DTYPES["f32"])
    assert text is not None and F32(text) == number
    assert len(text.lstrip("-0.")) <= len(np.format_float_positional(number, unique=True, trim="-").lstrip("-0."))
