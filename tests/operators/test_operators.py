"""What operators make of dtypes, what they are backward, what they refuse, and the numbers they give."""

from __future__ import annotations

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from isomorph.errors import MorphError
from isomorph.language.tree import Op
from isomorph.operators.base import Changes, ElementError, Operator
from isomorph.operators.numbers import NumberOverflow, decode, encode
from isomorph.operators.reference import constant
from isomorph.operators.registry import build
from isomorph.tensors import DTYPES, OPAQUE_DTYPES

F16, BF16, F32, F64, I32, E4M3 = (DTYPES[name] for name in ("f16", "bf16", "f32", "f64", "i32", "f8e4m3"))


def cast(source: str, target: str, rounding: bool = False, saturate: bool = False, inverted: bool = False) -> Operator:
    return build(Op("cast", source=source, target=target, rounding=rounding, saturate=saturate, inverted=inverted))


def refused(operator: Operator, dtype: str) -> str:
    with pytest.raises(MorphError) as caught:
        operator.result(DTYPES[dtype])
    assert caught.value.kinds == {"cast"}
    return str(caught.value)


def test_a_cast_that_meets_another_dtype_names_both():
    """And what to write instead."""
    message = refused(cast("f16", "f32"), "bf16")
    assert "the cast `f16 -> f32` meets bf16, not f16" in message
    assert "write `bf16 -> f32`, or `float -> f32` for every floating dtype" in message


def test_float_takes_floating_dtypes_and_leaves_others_alone():
    """Backward it leaves all dtypes as they are."""
    operator = cast("float", "bf16", rounding=True)
    assert [operator.result(dtype) for dtype in (F64, BF16, I32)] == [BF16, BF16, I32]
    assert [operator.klass(dtype) for dtype in (F64, I32)] == ["rounding", "exact"]
    back = operator.inverse()
    assert [back.result(dtype) for dtype in (F64, BF16, I32)] == [F64, BF16, I32]
    assert back.is_identity(F32) and back.klass(F32) == "exact"
    assert back.inverse() == operator


def test_the_inverse_of_a_rounding_cast_is_exact_and_twice_inverted_it_is_itself():
    """`A ~> B` backward is `B -> A`."""
    operator = cast("f32", "f16", rounding=True, saturate=True)
    back = operator.inverse()
    assert (back.describe(), back.klass(F16), back.result(F16)) == ("f16 -> f32", "exact", F32)
    assert back.inverse() == operator
    assert cast("f32", "f16", rounding=True, saturate=True, inverted=True) == back


@pytest.mark.parametrize(
    ("op", "dtype", "message"),
    [
        (Op("neg"), "u8", "`neg` meets u8"),
        (Op("neg"), "bool", "`neg` meets bool"),
        (Op("add", number="1"), "i32", "`add 1` meets i32"),
        (Op("mul", number="1e9"), "f16", "cannot hold 1e9"),
        (Op("mul", number="0", inverted=True), "f32", "`mul 0` cannot be read backward"),
        (Op("exp"), "i8", "`exp` meets i8"),
        (Op("log"), "c64", "`log` meets c64"),
        (Op("sum"), "bool", "`sum` meets bool"),
        (Op("cast", source="c64", target="f32", rounding=True), "c64", "would lose the imaginary parts"),
    ],
)
def test_operators_refuse_dtypes_they_make_nothing_of(op: Op, dtype: str, message: str):
    """Found without a value."""
    assert message in refused(build(op), dtype)


def test_opaque_elements_are_never_cast():
    """They are carried bit for bit."""
    with pytest.raises(MorphError, match="meets f8e8m0"):
        cast("f32", "f16").result(OPAQUE_DTYPES["f8e8m0"])
    assert cast("float", "f16").result(OPAQUE_DTYPES["f8e8m0"]) == OPAQUE_DTYPES["f8e8m0"]


def test_an_unknown_operator_is_told_with_what_it_may_have_been():
    """Near misses, or all there are."""
    with pytest.raises(MorphError, match=r"no operator is called `mull`\n.*did you mean `mul`"):
        build(Op("mull"))
    with pytest.raises(MorphError, match="no dtype is called `f33`"):
        cast("f33", "f16")


def test_a_sum_is_not_read_backward():
    """It does not say what its parts were."""
    with pytest.raises(MorphError, match="cannot be read backward"):
        build(Op("sum", inverted=True))


def values(operator: Operator, given: object, source: str) -> list[float]:
    array = np.array(given, DTYPES[source].numpy)
    found: list[float] = operator.apply(array, DTYPES[source]).view(operator.result(DTYPES[source]).numpy).tolist()
    return found


def test_f8e4m3_is_the_finite_one():
    """448 is the largest, ties go to it, an infinity is an overflow; saturating clamps, NaN stays."""
    saturating = cast("f32", "f8e4m3", rounding=True, saturate=True)
    assert values(saturating, [464, 465, -np.inf, 1e30], "f32") == [448, 448, -448, 448]
    assert np.isnan(values(saturating, [np.nan], "f32")[0])
    plain = cast("f32", "f8e4m3", rounding=True)
    assert values(plain, [464], "f32") == [448]
    for number in (np.nextafter(np.float32(464), np.float32(465)), np.inf):
        with pytest.raises(ElementError, match=r"overflows f8e4m3, whose largest number is 448.0(.|\n)*saturate"):
            values(plain, [1, number], "f32")


def test_numbers_are_rounded_once():
    """From f64 and i64 too, where rounding to f32 first would end elsewhere."""
    close = 1 + 2.0**-8 + 2.0**-40  # f32 loses the last bit, and bf16 would then round to even
    assert values(cast("f64", "bf16", rounding=True), [close], "f64") == [1 + 2.0**-7]
    assert values(cast("i64", "bf16", rounding=True), [2**62 + 2**54 + 1], "i64") == [2.0**62 * (1 + 2.0**-7)]
    near = 1 + 2.0**-4 + 2.0**-30
    assert values(cast("f64", "f8e4m3", rounding=True), [near], "f64") == [1.125]


def test_casts_to_integers_round_to_even_and_stay_in_range():
    """NaN is an error even when saturating."""
    saturating = cast("f32", "i8", rounding=True, saturate=True)
    assert values(saturating, [0.5, 1.5, 2.5, -1.5, 1e9, -np.inf], "f32") == [0, 2, 2, -2, 127, -128]
    with pytest.raises(ElementError, match="NaN has no value in i8"):
        values(saturating, [0, np.nan], "f32")
    with pytest.raises(ElementError, match=r"element 0: 127.5 overflows i8, whose largest number is 127"):
        values(cast("f32", "i8", rounding=True), [127.5], "f32")


@pytest.mark.parametrize("source", ["f16", "bf16", "f8e4m3", "f8e5m2"])
@pytest.mark.parametrize("target", ["f16", "bf16", "f32", "f8e4m3", "f8e5m2"])
def test_every_narrow_number_is_cast_as_ml_dtypes_casts_it(source: str, target: str):
    """Finite numbers that do not overflow: there no two libraries differ."""
    taken, made = DTYPES[source], DTYPES[target]
    patterns = np.arange(1 << 8 * taken.nbytes).astype(taken.bits).view(taken.numpy)
    with np.errstate(all="ignore"):
        wide = patterns.astype(np.float64)
        fits = np.abs(wide) <= float(ml_dtypes.finfo(made.numpy).max)
        expected = patterns[fits].astype(np.float32).astype(made.numpy)
    assert expected.tobytes() == cast(source, target, rounding=True).apply(patterns[fits], taken).tobytes()


def test_a_nan_keeps_its_sign_and_leading_payload():
    """And never becomes an infinity; widening and back gives the same bits."""
    bits = np.array([0x7FC00001, 0xFF800001, 0x7F810000, 0x7FFFFFFF], "u4")
    made = cast("f32", "bf16", rounding=True).apply(bits, F32)
    assert [hex(each) for each in made.tolist()] == ["0x7fc0", "0xffc0", "0x7f81", "0x7fff"]
    assert bits[2] == cast("bf16", "f32").apply(made[2:3], BF16)[0]
    with pytest.raises(ElementError, match="0x7fc00001"):
        cast("f32", "bf16").apply(bits, F32)


def test_changes_are_counted():
    """Elements seen, changed, and the largest step; over several tiles."""
    array = np.full(100_000, 0.5, "f4")
    array[70_000] = 1.001
    changes = Changes()
    cast("f32", "bf16", rounding=True).apply(array, F32, changes=changes)
    assert (changes.elements, changes.changed) == (100_000, 1)
    assert float(np.float32(1.001)) - 1 <= changes.largest <= 2**-8  # half a unit in the last place of bf16, at 1


def test_an_error_in_a_late_tile_has_its_index_in_the_array():
    """Whatever kernel found it."""
    array = np.ones(100_000, "f4")
    array[77_777] = 1e30
    for operator in (cast("f32", "f16", rounding=True), cast("f32", "f16"), build(Op("mul", number="1e20"))):
        with pytest.raises(ElementError) as caught:
            operator.apply(array, F32)
        assert caught.value.index == 77_777


def test_an_overflow_in_arithmetic_is_an_error_and_nan_stays():
    """Infinities that were there are none."""
    tenfold = build(Op("mul", number="10"))
    with pytest.raises(ElementError, match="overflows f16"):
        values(tenfold, [1, 60000], "f16")
    assert [np.inf] == values(tenfold, [np.inf], "f16")
    nan = np.array([0x7E01], "u2")
    assert nan.tolist() == tenfold.apply(nan, F16).tolist()
    with pytest.raises(ElementError, match="is no number"):
        values(build(Op("log")), [-1], "f32")


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES.values() if dtype.kind in ("float", "signed", "unsigned")])
def test_numbers_are_encoded_as_the_reference_encodes_them(dtype: object):
    """Or refused by both."""
    for text in ("0", "1", "-1", "0.1", "-2.5", "300", "65519", "65520", "-65536", "1e39", "3/7", "1e-46"):
        value = Fraction(text)
        try:
            expected: object = int.from_bytes(constant(value, dtype).tobytes(), "little")  # type: ignore[arg-type]
        except MorphError:
            expected = None
        try:
            found: object = encode(value, dtype)  # type: ignore[arg-type]
        except NumberOverflow:
            found = None
        assert expected == found, (text, dtype)


def test_what_is_encoded_is_decoded():
    """Zeros of both signs, subnormals, infinities."""
    for value in (0.0, -0.0, 1.5, -448.0, 2.0**-9):
        assert repr(value) == repr(decode(encode(value, E4M3), E4M3))
    assert decode(encode(float("-inf"), F16), F16) == float("-inf")
    with pytest.raises(NumberOverflow, match=r"f8e4m3 has no infinity"):
        encode(float("inf"), E4M3)
