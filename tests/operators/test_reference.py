"""The kernels and the plain reference share no code, and agree in every bit and in what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import MorphError
from isomorph.language.tree import Op
from isomorph.operators.base import ElementError
from isomorph.operators.computing import add_arrays
from isomorph.operators.reference import add, reference
from isomorph.operators.registry import build
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, Any]
NAMES = list(DTYPES)
FLOATING = [name for name, dtype in DTYPES.items() if dtype.is_float]


def bits_equal(left: Array, right: Array) -> bool:
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def interesting(dtype: DType, seed: int, count: int = 300) -> Array:
    """Values of `dtype`: random bits, small numbers, the edges of every dtype and their neighbours, NaNs, infinities, zeros."""
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 256, count * dtype.nbytes, dtype=np.uint8)
    if dtype.kind == "bool":
        return (raw & 1).view(np.bool_)
    random = raw.view(dtype.numpy)
    with np.errstate(all="ignore"):
        scaled = (generator.standard_normal(count) * 10.0 ** generator.integers(-9, 7, count)).astype(dtype.numpy)
        edges = np.array(
            [0.0, -0.0, 1, -1, 464, 465, 448, 65504, 65519.999, 65520, 57344, 61439, 61440, 3.3895e38, 3.4e38, 1e300]
        )
        whole = np.array(
            [0, 1, 127, 128, 255, 256, 32767, 65535, 2**24 + 1, 2**31, 2**53 + 1, 2**62 + 2**38 + 1, 2**63 - 1]
        )
        if dtype.is_float or dtype.kind == "complex":
            more = np.concatenate([edges, -edges, [np.nan, -np.nan, np.inf, -np.inf], whole + 0.5]).astype(dtype.numpy)
        else:
            more = np.concatenate([whole, -whole]).astype(dtype.numpy)
    return np.concatenate([random, scaled if dtype.kind != "unsigned" else random, more])


def both(op: Op, values: Array, dtype: DType) -> tuple[Any, Any]:
    """(kernel, reference): bytes and dtype of the result, or `refused`."""
    try:
        operator = build(op)
        made = operator.apply(values, dtype)
        kernel: Any = made.tobytes(), operator.result(dtype)
    except MorphError as error:
        kernel = ("refused", error.kinds)
    try:
        plain, result = reference(op, values, dtype)
        assert plain.dtype == result.numpy
        second: Any = plain.tobytes(), result
    except MorphError as error:
        second = ("refused", error.kinds)
    return kernel, second


@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("target", NAMES)
def test_casts_agree_on_every_pair_of_dtypes(source: str, target: str):
    """Whatever the bits: rounding, saturating and exact casts give the same bits or the same refusal, element by element."""
    dtype = DTYPES[source]
    values = interesting(dtype, seed=len(source) * 31 + len(target))
    saturating = Op("cast", source=source, target=target, rounding=True, saturate=True)
    with np.errstate(all="ignore"):
        lacks_nan = DTYPES[target].kind not in ("float", "complex")
        number = values[~np.isnan(values)] if dtype.kind in ("float", "complex") and lacks_nan else values
    kernel, second = both(saturating, number, dtype)
    assert second == kernel
    for op in (
        Op("cast", source=source, target=target, rounding=True),
        Op("cast", source=source, target=target),
        Op("cast", source=target, target=source, rounding=True, inverted=True),
    ):
        for index in range(0, len(values), 3):
            kernel, second = both(op, values[index : index + 3], dtype)
            assert second == kernel, (op, values[index : index + 3])


@pytest.mark.parametrize("source", ["f16", "bf16", "f8e4m3", "f8e5m2", "i8", "u8", "i16", "u16"])
@pytest.mark.parametrize("target", [name for name in NAMES if name not in ("bool",)])
def test_casts_agree_on_every_value_of_a_narrow_dtype(source: str, target: str):
    """All 256 or 65,536 patterns; no NaN where the target has none."""
    dtype = DTYPES[source]
    values = np.arange(1 << 8 * dtype.nbytes).astype(dtype.bits).view(dtype.numpy)
    if dtype.is_float and not (DTYPES[target].is_float or DTYPES[target].kind == "complex"):
        with np.errstate(all="ignore"):
            values = values[~np.isnan(values)]
    kernel, second = both(Op("cast", source=source, target=target, rounding=True, saturate=True), values, dtype)
    assert second == kernel


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["add", "mul", "exp", "log", "neg"]),
    number=st.sampled_from(["1", "-2.5", "0.1", "0", "-0", "1e", "100000", "inf", "0.0000001"]).map(
        lambda text: text.rstrip("e")
    ),
    dtype=st.sampled_from(NAMES),
    seed=st.integers(0, 2**16),
    inverted=st.booleans(),
)
def test_arithmetic_agrees(name: str, number: str, dtype: str, seed: int, inverted: bool):
    """Every operator on every dtype, forward and backward, in threes so that one refusal hides nothing."""
    values = interesting(DTYPES[dtype], seed, 40)
    op = Op(name, number=number if name in ("add", "mul") else None, inverted=inverted)
    for index in range(0, len(values), 3):
        kernel, second = both(op, values[index : index + 3], DTYPES[dtype])
        assert second == kernel, (op, dtype, values[index : index + 3])


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from([name for name in NAMES if name != "bool"]), seed=st.integers(0, 2**16))
def test_sums_agree(name: str, seed: int):
    """Two blocks added: the same bits, the same refusals."""
    dtype = DTYPES[name]
    left, right = interesting(dtype, seed, 40), interesting(dtype, seed + 1, 40)
    for index in range(0, len(left), 2):
        one, other = left[index : index + 2], right[index : index + 2]
        try:
            kernel: Any = add_arrays(one, other, dtype).tobytes()
        except ElementError:
            kernel = "refused"
        try:
            second: Any = add(one, other, dtype).tobytes()
        except MorphError:
            second = "refused"
        assert second == kernel, (one, other)
