"""What was done to the values: found from sketches, confirmed by hashes, and never said of values that chance made alike."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import CheckError, MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_value.changes import (
    Change,
    apply,
    array_changes,
    cast_change,
    changes_of_leftovers,
    result,
    value_changes,
)
from isomorph.infer.by_value.fingerprint import fingerprints
from isomorph.infer.by_value.scales import numbers_near
from isomorph.infer.by_value.sketches import EXTREMES, sketch_of
from isomorph.language.parse import parse
from isomorph.language.tree import Equation, Op
from isomorph.operators.numbers import encode
from isomorph.operators.reference import reference
from isomorph.tensors import DTYPES, dtype

Array = np.ndarray[Any, np.dtype[Any]]

BF = np.dtype(ml_dtypes.bfloat16)
F32, BF16, F16 = DTYPES["f32"], DTYPES["bf16"], DTYPES["f16"]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def words(values: Array, made: Array) -> list[str]:
    return [change.words for change in array_changes(values, made)]


def by(values: Array, *operators: Op) -> Array:
    """What the plain second reading of the operators makes of the values."""
    kind = dtype(values.dtype.name)
    for op in operators:
        values, kind = reference(op, values, kind)
    return values


def add(number: str) -> Op:
    return Op("add", number=number)


def mul(number: str) -> Op:
    return Op("mul", number=number)


DOWN, UP = Op("cast", "f32", "bf16", rounding=True), Op("cast", "bf16", "f32")
W = normal(40, 30)
POSITIVE = np.abs(W) + np.float32(0.1)


@pytest.mark.parametrize(
    ("values", "operators", "expected"),
    [
        (W, [add("1")], "w + 1"),
        (W, [add("-1")], "w - 1"),
        (W, [Op("neg")], "-w"),
        (W, [Op("neg"), add("1")], "1 - w"),
        (W, [Op("exp")], "exp(w)"),
        (W, [Op("exp"), Op("neg")], "-exp(w)"),
        (POSITIVE, [Op("log")], "log(w)"),
        (-POSITIVE, [Op("neg"), Op("log")], "log(-w)"),
        (W, [mul("0.125")], "w * 0.125"),
        (W, [mul("0.3")], "w * 0.3"),
        (W, [mul("-2.5")], "w * -2.5"),
        (W, [mul("0.088388346")], "w * 0.088388346"),
        (W, [mul("11.313708")], "w * 11.313708"),
        (W, [mul("0.33333334")], "w * 0.33333334"),
        (W.astype(BF), [mul("0.0442")], "w * 0.0442"),
        (W.astype(np.float16), [mul("8")], "w * 8"),
        (W, [add("1"), DOWN], "w + 1, f32 ~> bf16"),
        (W, [DOWN, add("1")], "f32 ~> bf16, w + 1"),
        (W.astype(BF), [UP, mul("0.088388346"), DOWN], "bf16 -> f32, w * 0.088388346, f32 ~> bf16"),
        (W.astype(BF), [add("1"), UP], "w + 1, bf16 -> f32"),
        (W, [mul("0.1118034"), Op("cast", "f32", "f16", rounding=True)], "w * 0.1118034, f32 ~> f16"),
        (W.astype(np.float64), [mul("3"), Op("cast", "f64", "f32", rounding=True)], "w * 3, f64 ~> f32"),
        (W.astype(BF).astype(np.float32), [mul("0.5"), Op("cast", "f32", "bf16")], "w * 0.5, f32 -> bf16"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_maps_are_found_whatever_the_order(values: Array, operators: list[Op], expected: str) -> None:
    made = by(values, *operators)
    shuffled = np.random.default_rng(1).permutation(made.reshape(-1))
    found = array_changes(values, shuffled)
    assert expected in [each.words for each in found]
    for each in found:
        again = np.sort(apply(values, each).reshape(-1).astype(np.float64))
        assert np.array_equal(again, np.sort(shuffled.astype(np.float64)))


@settings(deadline=None)
@given(
    st.integers(1, 4000), st.sampled_from(["root", "inverse root", "inverse", "power", "decimal"]), st.integers(0, 9)
)
def test_any_likely_number_is_found(number: int, kind: str, seed: int) -> None:
    factor = {
        "root": math.sqrt(number),
        "inverse root": 1 / math.sqrt(number),
        "inverse": 1 / number,
        "power": 2.0 ** (number % 21 - 10),
        "decimal": number / 1000,
    }[kind]
    values = normal(600, seed=seed)
    made = values * np.float32(factor)
    found = array_changes(values, made)
    if factor == 1:
        assert found == []
        return
    (change,) = found
    (op,) = change.operators
    assert op.name == "mul" and encode(Fraction(op.number or "0"), F32) == encode(factor, F32)
    assert np.array_equal(apply(values, change), made)


def test_changes_read_as_they_are_written() -> None:
    (change,) = array_changes(W.astype(BF), by(W.astype(BF), UP, mul("0.088388346"), DOWN))
    (statement,) = parse("a <-> b | bf16 -> f32, mul 0.088388346, f32 ~> bf16\n").statements
    assert isinstance(statement, Equation) and statement.operators == change.operators


@pytest.mark.parametrize(
    ("values", "made"),
    [
        (W, W),
        (W, W.T.copy()),
        (W, normal(40, 30, seed=5)),
        (W, normal(40, 30, seed=5) * np.float32(0.5)),
        (W.astype(BF), normal(40, 30, seed=5).astype(BF)),
        (W, W.astype(BF)),
        (W, W[:-1]),
        (W, (W * np.array(2, np.float32)).astype(np.int32)),
        (W.astype(np.int32), W.astype(np.int32) + 1),
        (np.array([0, 1], np.float32), np.array([0, 3], np.float32)),
        (np.empty(0, np.float32), np.empty(0, np.float32)),
        (np.array([np.nan] * 3, np.float32), np.array([np.nan] * 3, np.float32)),
        (W.astype(np.complex64), W.astype(np.complex64) + 1),
    ],
)
def test_nothing_is_said_without_ground(values: Array, made: Array) -> None:
    assert array_changes(values, made) == []


def test_two_numbers_are_no_scaling_but_may_be_a_fixed_map() -> None:
    assert words(np.array([1, 2, 3], np.float32), np.array([5, 10, 15], np.float32)) == []
    assert words(np.array([1, 2, 3], np.float32), np.array([2, 3, 4], np.float32)) == ["w + 1"]
    assert words(np.array([2.6592], np.float32), by(np.array([2.6592], np.float32), Op("exp"))) == ["exp(w)"]
    assert words(np.array([0], np.float32), np.array([1], np.float32)) == ["w + 1", "exp(w)", "1 - w"]


def test_not_a_number_and_infinity_stay() -> None:
    values = np.array([1, np.nan, np.inf, -0.0, 5, -np.inf], np.float32)
    assert words(values, by(values, add("1"))) == ["w + 1"]
    assert words(values, by(values, Op("neg"))) == ["-w"]
    other = by(values, add("1"))
    other[1] = 0
    assert words(values, other) == []


def test_one_wrong_element_in_the_middle_is_seen() -> None:
    made = W + np.array(1, np.float32)
    made[20, 15] = np.float32(1.25)
    assert words(W, made) == []


def test_tensors_of_checkpoints() -> None:
    source = ArrayCheckpoint({"norm": W[0], "other": W[1], "ints": np.arange(30)})
    target = ArrayCheckpoint({"n": by(W[0], add("1")), "m": W[2], "i": np.arange(30) + 1})
    theirs, its = fingerprints(source), fingerprints(target)
    assert [each.words for each in value_changes(source, "norm", target, "n")] == ["w + 1"]
    assert [each.words for each in value_changes(source, "norm", target, "n", theirs["norm"], its["n"])] == ["w + 1"]
    assert value_changes(source, "other", target, "n") == value_changes(source, "ints", target, "i") == []


@pytest.mark.parametrize("name", ["f8e4m3", "f8e5m2", "f16", "f64"])
def test_other_floating_dtypes(name: str) -> None:
    kind = DTYPES[name]
    values = (W * np.float32(4)).astype(kind.numpy)
    wide = values.astype(np.float32) * np.float32(0.5)
    found = array_changes(values, wide.astype(kind.numpy))
    assert len(found) == 1 and "w * 0.5" in found[0].words
    assert array_changes(values, wide)[0].words.startswith(("f8", "w * 0.5", "f16 ->", "f64 ~>"))


def test_many_leftovers_at_once() -> None:
    count = 30
    values = {f"s{i}": normal(16, 16, seed=i).astype(BF) for i in range(count)}
    values |= {f"v{i}": normal(64, seed=100 + i) for i in range(count)}
    made = {f"t{i}": values[f"s{i}"].T * BF.type(0.125) for i in range(0, count, 3)}
    made |= {f"u{i}": by(values[f"v{i}"], add("1")) for i in range(0, count, 2)}
    made |= {f"x{i}": normal(16, 16, seed=1000 + i).astype(BF) for i in range(count)}
    made |= {"nan": np.full(64, np.nan, np.float32), "ints": np.arange(64)}
    source, target = ArrayCheckpoint(values), ArrayCheckpoint(made)
    for prints in (None, fingerprints(target)):
        found = changes_of_leftovers(source, values, target, made, prints=prints)
        said = {t: [(s, change.words) for s, change in pairs] for t, pairs in found.items()}
        expected = {f"t{i}": [(f"s{i}", "w * 0.125")] for i in range(0, count, 3)}
        expected |= {f"u{i}": [(f"v{i}", "w + 1")] for i in range(0, count, 2)}
        assert said == expected and list(said) == [name for name in made if name in expected]


def test_casts() -> None:
    assert cast_change(F32, F32, exact=True) == Change((), "")
    assert cast_change(F32, BF16, exact=False) == Change((Op("cast", "f32", "bf16", rounding=True),), "f32 ~> bf16")
    assert cast_change(F16, F32, exact=True) == Change((Op("cast", "f16", "f32"),), "f16 -> f32")
    assert cast_change(F32, F16, exact=False, saturate=True).words == "f32 ~> f16 saturate"
    change = cast_change(F32, F16, exact=False, saturate=True)
    assert apply(np.array([[1e6, 0.1]], np.float32), change).tolist() == [[65504.0, float(np.float16(0.1))]]
    assert result(change, F32) == F16
    with pytest.raises(CheckError, match="overflows f16"):
        apply(np.array([1e6], np.float32), cast_change(F32, F16, exact=False))
    with pytest.raises(MorphError, match="act on floating dtypes only"):
        apply(np.arange(3), Change((add("1"),), ""))
    assert apply(W.astype(BF).view(np.uint16), Change((Op("neg"),), ""), BF16).dtype == BF


def test_numbers_near() -> None:
    assert numbers_near(0.1249, 0.1251, F32)[0] == "0.125"
    assert numbers_near(0.0883883, 0.0883885, F32)[0] == "0.088388346"
    assert "0.3" in numbers_near(0.29999, 0.30001, F32)
    assert numbers_near(0.0, 1.0, F32) == numbers_near(1.0, math.inf, F32) == numbers_near(2.0, 1.0, F32) == []
    assert all(float(text) > 0 for text in numbers_near(1e-44, 2e-44, F32))
    assert numbers_near(9.9e37, 1.01e38, F32)[0].startswith("1000000000000000")


def test_sketches() -> None:
    values = np.concatenate([normal(100_000), np.array([np.nan, np.inf, -np.inf, 1e3], np.float32)])
    one = sketch_of([values[:70_000].view(np.uint32), values[70_000:].view(np.uint32)], F32)
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))
    assert (one.numel, one.n_nan, one.n_up, one.n_down, one.n_finite) == (100_004, 1, 1, 1, 100_001)
    assert np.array_equal(one.lows, finite[:EXTREMES]) and np.array_equal(one.highs, finite[-EXTREMES:])
    assert one.moments == pytest.approx(
        [np.mean(each) for each in (finite, finite**2, abs(finite), finite**3, finite**4)]
    )
