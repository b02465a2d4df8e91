"""A plain second reading of every operator, for verify. It shares no code with the kernels, nor with their tables.

    reference(op, values, dtype) -> (values, dtype)      arrays of `dtype.numpy`; every bit counts, those of NaN too

Numbers are rounded with whole numbers of the target's own steps in f64 (or by numpy and ml_dtypes, where those round once), NaN is
cut bit by bit, and everything that LANGUAGE.md calls an error is one here: MorphError for dtypes, CheckError for values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from isomorph.errors import CheckError, Gap, MorphError
from isomorph.operators import reference_axes
from isomorph.operators.base import OpLike
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, Any]

FRACTION_BITS = {"f64": 52, "f32": 23, "bf16": 7, "f16": 10, "f8e5m2": 2, "f8e4m3": 3}
LEAST_EXPONENT = {"f64": -1022, "f32": -126, "bf16": -126, "f16": -14, "f8e5m2": -14, "f8e4m3": -6}
LARGEST = {
    "f64": Fraction(2**53 - 1) * 2**971,
    "f32": Fraction(2**24 - 1) * 2**104,
    "bf16": Fraction(2**8 - 1) * 2**120,
    "f16": Fraction(65504),
    "f8e5m2": Fraction(57344),
    "f8e4m3": Fraction(448),
}
HALF_OF = {"c64": "f32", "c128": "f64"}
ONCE = {("f32", "bf16"), ("f32", "f16"), ("f32", "f8e4m3"), ("f32", "f8e5m2"), ("f64", "f32"), ("f64", "f16")}
"""The pairs that numpy and ml_dtypes round once; where they overflow or meet NaN, the plain way below decides."""


@np.errstate(all="ignore")
def reference(op: OpLike, array: Array, dtype: DType, *, inverse: bool = False) -> tuple[Array, DType]:
    """What `op` makes of the values `array` (of `dtype.numpy`), read backward where `op.inverted` or, both: not, `inverse`."""
    back = op.inverted != inverse
    if array.ndim != 1:
        found, made = reference(op, array.reshape(-1), dtype, inverse=inverse)
        return found.reshape(array.shape), made
    if op.name == "cast":
        return _cast(op, array, dtype, back)
    if op.name == "sum":
        return array, dtype
    if op.name == "neg":
        return _negate(array, dtype), dtype
    if op.name in ("add", "mul"):
        return _with_number(op, array, dtype, back), dtype
    if op.name in ("exp", "log"):
        return _exp_or_log((op.name == "exp") != back, array, dtype), dtype
    return _plugin(op, array, dtype, back)


@np.errstate(all="ignore")
def constant(value: Fraction | float, dtype: DType) -> Array:
    """`value` as a scalar array of `dtype`, rounded to nearest in floating dtypes. CheckError where the dtype cannot hold it."""
    if dtype.name in HALF_OF:
        return constant(value, DTYPES[HALF_OF[dtype.name]]).astype(dtype.numpy)
    if isinstance(value, float) and not math.isfinite(value):
        if dtype.name not in FRACTION_BITS or dtype.name == "f8e4m3":
            _wrong("constant", f"{dtype} does not hold {value}")
        return np.array(value).astype(dtype.numpy)
    exact = Fraction(value)
    if dtype.name not in FRACTION_BITS:
        least, greatest = _range(dtype)
        if exact.denominator != 1 or not least <= exact <= greatest or (exact == 0 and str(value)[0] == "-"):
            _wrong("constant", f"{dtype} does not hold {value}")
        return np.array(exact.numerator).astype(dtype.numpy)
    rounded = _nearest(exact, dtype)
    if abs(rounded) > LARGEST[dtype.name]:
        _wrong("constant", f"{value} overflows {dtype}")
    negative_zero = str(value).startswith("-") and rounded == 0
    return np.array(-0.0 if negative_zero else float(rounded)).astype(dtype.numpy)


@np.errstate(all="ignore")
def add(left: Array, right: Array, dtype: DType) -> Array:
    """left + right as `sum` adds: rounded once in `dtype`, an overflow an error, a NaN kept as it was (the left one first)."""
    if left.ndim != 1:
        return add(left.reshape(-1), right.reshape(-1), dtype).reshape(left.shape)
    if dtype.name in HALF_OF:
        half = DTYPES[HALF_OF[dtype.name]]
        return _joined(add(left.real, right.real, half), add(left.imag, right.imag, half), dtype)
    if dtype.name not in FRACTION_BITS:
        total = left + right
        wraps = np.where(right >= 0, total < left, total > left)
        if wraps.any():
            _at(wraps, left, f"the sum overflows {dtype}")
        return total.astype(dtype.numpy, copy=False)
    wide = left.astype(np.float64) + right.astype(np.float64)
    found = _round_back(wide, left, dtype, np.isnan(left) | np.isnan(right), "the sum", _finite(left) & _finite(right))
    keep = np.isnan(right)
    found[keep] = right[keep]
    keep = np.isnan(left)
    found[keep] = left[keep]
    return found


# ── casts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _cast(op: OpLike, array: Array, dtype: DType, back: bool) -> tuple[Array, DType]:
    if op.source == "float":
        if back or not dtype.is_float:
            return array, dtype
        source, target, rounding, saturate = dtype, DTYPES[str(op.target)], op.rounding, op.saturate
    elif back:
        source, target, rounding, saturate = DTYPES[str(op.target)], DTYPES[str(op.source)], False, False
    else:
        source, target, rounding, saturate = DTYPES[str(op.source)], DTYPES[str(op.target)], op.rounding, op.saturate
    if dtype != source:
        raise MorphError([Gap("cast", f"a cast from {source} to {target} meets {dtype}")])
    if source == target:
        return array, dtype
    found, wrong = _convert(array, source, target)
    if rounding:
        if source.kind == "complex" and target.kind != "complex":
            raise MorphError([Gap("cast", f"{source} ~> {target} loses the imaginary parts")])
        nan = _is_nan(array, source) & (not (target.is_float or target.kind == "complex"))
        refused = (nan if saturate else wrong) | _no_bool(array, source)
        if refused.any():
            _at(refused, array, f"it overflows {target} ({source} ~> {target}; `saturate` takes the largest number)")
        return found, target
    again, wrong_again = _convert(found, target, source)
    refused = wrong | wrong_again | _differ(again, array, source) | _no_bool(array, source)
    if refused.any():
        _at(refused, array, f"it is not exactly a {target} ({source} -> {target})")
    return found, target


def _convert(array: Array, source: DType, target: DType) -> tuple[Array, Array]:
    """The values in `target`, rounded once, beyond its largest number that one; and where there is no right value."""
    if source.name in HALF_OF and target.name in HALF_OF:
        halves = DTYPES[HALF_OF[source.name]], DTYPES[HALF_OF[target.name]]
        real, wrong_real = _convert(np.ascontiguousarray(array.real), *halves)
        imag, wrong_imag = _convert(np.ascontiguousarray(array.imag), *halves)
        return _joined(real, imag, target), wrong_real | wrong_imag
    if target.name in HALF_OF:
        half = DTYPES[HALF_OF[target.name]]
        real, wrong = _convert(array, source, half)
        return _joined(real, np.zeros(array.shape, half.numpy), target), wrong
    if source.name in HALF_OF:
        found, wrong = _convert(np.ascontiguousarray(array.real), DTYPES[HALF_OF[source.name]], target)
        return found, wrong | (array.imag != 0) | np.signbit(array.imag)
    if source.name in FRACTION_BITS and target.name in FRACTION_BITS:
        return _float_to_float(array, source, target)
    if source.name in FRACTION_BITS:
        return _float_to_integer(array, target)
    if target.name in FRACTION_BITS:
        return _integer_to_float(_as_integers(array, source), target)
    return _integer_to_integer(_as_integers(array, source), target)


def _float_to_float(array: Array, source: DType, target: DType) -> tuple[Array, Array]:
    if (source.name, target.name) in ONCE:
        found = array.astype(target.numpy)
        odd = ~_finite(found)
    else:
        found = np.empty(array.shape, target.numpy)
        odd = np.ones(array.shape, np.bool_)
    wrong = np.zeros(array.shape, np.bool_)
    if not odd.any():
        return found, wrong
    values = array[odd].astype(np.float64)
    rounded = _to_steps(values, target)
    largest = float(LARGEST[target.name])
    infinite = np.isinf(values) if target.name != "f8e4m3" else np.zeros(values.shape, np.bool_)
    over = (np.abs(rounded) > largest) & ~infinite
    rounded[over] = np.copysign(largest, values[over])
    some = rounded.astype(target.numpy)
    nan = np.isnan(values)
    some[nan] = _nan_bits(array[odd][nan], source, target)
    found[odd] = some
    wrong[odd] = over
    return found, wrong


def _to_steps(values: Array, target: DType) -> Array:
    """f64 values rounded to the nearest multiple of the target's step at their size, ties to even; no largest number."""
    if target.name == "f64":
        return values.copy()
    exponent = np.maximum(np.frexp(values)[1] - 1, LEAST_EXPONENT[target.name])
    shift = FRACTION_BITS[target.name] - exponent
    rounded: Array = np.ldexp(np.rint(np.ldexp(values, shift)), -shift)
    special = ~np.isfinite(values)
    rounded[special] = values[special]
    return rounded


def _nan_bits(array: Array, source: DType, target: DType) -> Array:
    """NaNs of `source` as NaNs of `target`: the sign, and of the payload the bits that there is room for, from the top."""
    nbits = 8 * source.nbytes
    out = []
    for bits in array.view(source.bits).tolist():
        sign, payload = bits >> (nbits - 1), bits & ((1 << FRACTION_BITS[source.name]) - 1)
        digits = f"{payload:0{FRACTION_BITS[source.name]}b}" if source.name != "f8e4m3" else "1"
        room = FRACTION_BITS[target.name]
        kept = digits[:room].ljust(room, "0")
        if "1" not in kept:
            kept = "1".ljust(room, "0")
        if target.name == "f8e4m3":
            kept = "111"
        exponent = "1" * (8 * target.nbytes - 1 - room)
        out.append(int(f"{sign}{exponent}{kept}", 2))
    return np.array(out, target.bits).view(target.numpy)


def _float_to_integer(array: Array, target: DType) -> tuple[Array, Array]:
    whole = np.rint(array.astype(np.float64))
    least, greatest = _range(target)
    above, below = whole >= float(greatest + 1), whole <= float(least) - (1.0 if least > -(2**53) else 0.0)
    if least <= -(2**53):
        below = whole < float(least)
    nan = np.isnan(whole)
    whole[above | below | nan] = 0
    found = whole.astype(_numbers(target))
    found[above], found[below] = greatest, least
    return found.astype(target.numpy, copy=False), above | below | nan


def _integer_to_float(array: Array, target: DType) -> tuple[Array, Array]:
    if target.name in ("f32", "f64"):
        return array.astype(target.numpy), np.zeros(array.shape, np.bool_)
    found, wrong = _float_to_float(array.astype(np.float64), DTYPES["f64"], target)
    if array.dtype.itemsize == 8:  # f64 has rounded these already: take them one by one, exactly
        for index in zip(
            *np.nonzero((array > 2**53) | (array < -(2**53) if array.dtype.kind == "i" else False)), strict=True
        ):
            rounded = _nearest(Fraction(int(array[index])), target)
            largest = LARGEST[target.name]
            wrong[index] = abs(rounded) > largest
            found[index] = np.array(float(max(-largest, min(largest, rounded)))).astype(target.numpy)
    return found, wrong


def _integer_to_integer(array: Array, target: DType) -> tuple[Array, Array]:
    least, greatest = _range(target)
    low, high = (0, 1) if array.dtype.kind == "b" else (np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
    below = array < least if least > low else np.zeros(array.shape, np.bool_)
    above = array > greatest if greatest < high else np.zeros(array.shape, np.bool_)
    found = array.astype(_numbers(target))
    found[below], found[above] = least, greatest
    return found.astype(target.numpy, copy=False), below | above


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _negate(array: Array, dtype: DType) -> Array:
    if dtype.name in HALF_OF:
        half = DTYPES[HALF_OF[dtype.name]]
        return _joined(_negate(array.real, half), _negate(array.imag, half), dtype)
    if dtype.name in FRACTION_BITS:
        bits = np.ascontiguousarray(array).view(dtype.bits)
        top = dtype.bits.type(1 << (8 * dtype.nbytes - 1))
        turned: Array = np.where(bits >= top, bits - top, bits | top).view(dtype.numpy)
        return turned
    if dtype.kind != "signed":
        raise MorphError([Gap("cast", f"neg meets {dtype}")])
    least = array == np.iinfo(dtype.numpy).min
    if least.any():
        _at(least, array, f"it has no negative in {dtype}")
    return (0 - array).astype(dtype.numpy, copy=False)


def _with_number(op: OpLike, array: Array, dtype: DType, back: bool) -> Array:
    if dtype.name not in FRACTION_BITS and dtype.name not in HALF_OF:
        raise MorphError([Gap("cast", f"{op.name} meets {dtype}")])
    text = str(op.number)
    number = float(text) if text.endswith("inf") else Fraction(text)
    if number == 0 and text.startswith("-"):
        number = -0.0
    if dtype.name in HALF_OF:
        half = DTYPES[HALF_OF[dtype.name]]
        real = _with_number(op, array.real, half, back)
        return _joined(real, array.imag if op.name == "add" else _with_number(op, array.imag, half, back), dtype)
    try:
        other = constant(number, dtype).astype(np.float64)
    except CheckError as error:
        raise MorphError([Gap("cast", f"{op.name} {text}: {error}")]) from None
    values = array.astype(np.float64)
    if op.name == "add":
        wide = values - other if back else values + other
    else:
        if back and other == 0:
            raise MorphError([Gap("cast", f"mul {text} cannot be read backward: it is 0 in {dtype}")])
        wide = values / other if back else values * other
    return _round_back(wide, array, dtype, np.isnan(array), f"{op.name} {text}", _finite(array))


def _exp_or_log(is_exp: bool, array: Array, dtype: DType) -> Array:
    name = "exp" if is_exp else "log"
    if dtype.name not in FRACTION_BITS:
        raise MorphError([Gap("cast", f"{name} meets {dtype}")])
    values = array.astype(np.float64)
    wide = np.exp(values) if is_exp else np.log(values)
    may_overflow = _finite(array) if is_exp or dtype.name == "f8e4m3" else np.zeros(array.shape, np.bool_)
    return _round_back(wide, array, dtype, np.isnan(array), name, may_overflow)


def _round_back(wide: Array, array: Array, dtype: DType, was_nan: Array, text: str, may_overflow: Array) -> Array:
    """f64 results in `dtype`; elements that were NaN stay; no other NaN may be made, nor an infinity where `may_overflow`."""
    wide = np.where(was_nan, 0.0, wide)
    made_nan = np.isnan(wide)
    if made_nan.any():
        _at(made_nan, array, f"{text} is no number")
    found, wrong = _float_to_float(wide, DTYPES["f64"], dtype)
    wrong |= np.isinf(wide) & may_overflow
    if wrong.any():
        _at(wrong, array, f"{text} overflows {dtype}")
    found[was_nan] = array[was_nan]
    return found


# ── small things ─────────────────────────────────────────────────────────────────────────────────────────────────────


def along(op: OpLike, array: Array, dtype: DType, after: tuple[int, ...]) -> tuple[Array, DType]:
    """What an operator along axes makes of [others, *before] values of `dtype.numpy`: [others, *after], and their dtype."""
    plain = reference_axes.KNOWN.get(op.name)
    if plain is not None:
        with np.errstate(all="ignore"):
            return plain(op, array, dtype, after, _from_f64), dtype
    operator = _plugin_of(op)
    found = np.asarray(operator.reference(array, dtype, after))
    if found.shape != (array.shape[0], *after):
        message = f"the reference of `{op.name}` gave the shape {found.shape}, not {(array.shape[0], *after)}"
        raise MorphError([Gap("cast", message)])
    return found, operator.result(dtype)


def result(op: OpLike, dtype: DType) -> DType:
    """The dtype that an operator along axes, or one of a package, makes. MorphError where it makes nothing of it."""
    if op.name in reference_axes.KNOWN:
        if dtype.kind != "float":
            raise MorphError([Gap("cast", f"`{op.name}` of {dtype}")])
        return dtype
    made: DType = _plugin_of(op).result(dtype)
    return made


def klass(op: OpLike, dtype: DType) -> str:
    """`exact`, `rounding` or `one-way`: what an operator of a package says of itself."""
    return "one-way" if op.name in reference_axes.KNOWN else str(_plugin_of(op).klass(dtype))


def copied(op: OpLike, before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """How many leading indices of the first axis come out as they went in. Of a package's operator: all are computed."""
    return reference_axes.copied(op, before, after)


def size_problem(op: OpLike, before: tuple[int, ...], after: tuple[int, ...]) -> str | None:
    """Why an operator can do nothing with axes of these sizes; None where it can."""
    return reference_axes.problem(op, before, after)


def _from_f64(values: Array, dtype: DType) -> tuple[Array, Array]:
    if dtype.name == "f64":
        return values, ~np.isfinite(values)
    return _float_to_float(values, DTYPES["f64"], dtype)


def _plugin(op: OpLike, array: Array, dtype: DType, back: bool) -> tuple[Array, DType]:
    operator = _plugin_of(op, back)
    plain: Callable[[Array, DType], Array] = operator.reference
    return np.asarray(plain(array, dtype)), operator.result(dtype)


def _plugin_of(op: OpLike, back: bool | None = None) -> Any:
    """The operator of an installed package, with its reference. MorphError where there is none, or it has none."""
    operator = plugin(op.name, op.arguments, op.takes, op.makes, op.inverted if back is None else back)
    if not callable(getattr(operator, "reference", None)):
        raise reference_axes.no_reference(op.name)
    return operator


@lru_cache(maxsize=256)
def plugin(name: str, arguments: tuple[str, ...], takes: tuple[str, ...], makes: tuple[str, ...], back: bool) -> object:
    """What a package's callable makes of the text; looked up once."""
    from importlib.metadata import entry_points

    for point in entry_points(group="isomorph.operators", name=name):
        axes = [tuple(axis.partition("'")[0] for axis in side) for side in (takes, makes)] if takes else []
        operator: Any = point.load()(arguments, *axes)
        return operator.inverse() if back else operator
    raise MorphError([Gap("syntax", f"no operator is called `{name}`")])


def _nearest(value: Fraction, dtype: DType) -> Fraction:
    """The number nearest to `value` among those of the dtype's step at its size, ties to even; no largest number."""
    if value == 0:
        return value
    size = abs(value)
    exponent = math.floor(math.log2(size.numerator) - math.log2(size.denominator))
    while Fraction(2) ** exponent > size:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= size:
        exponent += 1
    step = Fraction(2) ** (max(exponent, LEAST_EXPONENT[dtype.name]) - FRACTION_BITS[dtype.name])
    return round(value / step) * step


def _range(dtype: DType) -> tuple[int, int]:
    if dtype.kind == "bool":
        return 0, 1
    found = np.iinfo(dtype.numpy)
    return int(found.min), int(found.max)


def _numbers(dtype: DType) -> np.dtype[Any]:
    """The numpy dtype that a value of `dtype` is counted in: bools as bytes."""
    return np.dtype(np.uint8) if dtype.kind == "bool" else dtype.numpy


def _as_integers(array: Array, dtype: DType) -> Array:
    """Bools as 0 and 1 whatever their byte; integers as they are."""
    return (array.view(np.uint8) != 0).astype(np.uint8) if dtype.kind == "bool" else array


def _no_bool(array: Array, dtype: DType) -> Array:
    return array.view(np.uint8) > 1 if dtype.kind == "bool" else np.zeros(array.shape, np.bool_)


def _is_nan(array: Array, dtype: DType) -> Array:
    return np.isnan(array) if dtype.is_float or dtype.kind == "complex" else np.zeros(array.shape, np.bool_)


def _finite(array: Array) -> Array:
    found: Array = np.isfinite(array)
    return found


def _differ(left: Array, right: Array, dtype: DType) -> Array:
    """Where a bit differs. Both of one axis."""
    word = np.dtype("<u8") if dtype.nbytes == 16 else dtype.bits
    words = [np.ascontiguousarray(array).view(word).reshape(array.size, -1) for array in (left, right)]
    unequal: Array = (words[0] != words[1]).any(axis=1)
    return unequal


def _joined(real: Array, imag: Array, dtype: DType) -> Array:
    found = np.empty(real.shape, dtype.numpy)
    found.real, found.imag = real, imag
    return found


def _at(wrong: Array, array: Array, problem: str) -> NoReturn:
    index = int(np.argmax(wrong))
    _wrong("cast", f"element {index} of {wrong.size}, {array[index]}: {problem}")


def _wrong(kind: str, message: str) -> NoReturn:
    raise CheckError([Gap(kind, message)])
