"""Dtypes, classes and constants of one block on its way: what its operators make of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from isomorph.errors import MorphError
from isomorph.language.tree import Constant, Op
from isomorph.operators.registry import build
from isomorph.plan.constants import arange_problem, constant_dtype_problem, fill_value
from isomorph.plan.kinds import MixOf, Naming, SourceOf, Unsettled
from isomorph.plan.moves import Fill
from isomorph.plan.plan import CLASSES, Class
from isomorph.tensors import DType
from isomorph.tensors import dtype as dtype_of


def around_sum(operators: tuple[Op, ...]) -> tuple[tuple[Op, ...], bool, tuple[Op, ...]]:
    for number, op in enumerate(operators):
        if op.name == "sum":
            return operators[:number], True, operators[number + 1 :]
    return (), False, operators


def acted_on(source: SourceOf, operators: tuple[Op, ...]) -> SourceOf:
    return MixOf((source,), operators) if operators else source


def worst_of(classes: Iterator[Class] | tuple[Class, ...]) -> Class:
    return max(classes, key=CLASSES.index)


def through(operators: Sequence[Op], dtype: DType, klass: Class, target: str) -> tuple[DType, Class]:
    """The dtype and the class after the operators. Raises Unsettled with the target's name."""
    for op in operators:
        try:
            operator = build(op)
            klass = worst_of((klass, operator.klass(dtype)))
            dtype = operator.result(dtype)
        except MorphError as error:
            gap = error.gaps[0]
            raise Unsettled(
                gap.kind, f"`{target}`: {gap.message}", details=gap.details, hint=gap.hint, tensors=(target,)
            ) from None
    return dtype, klass


def effective(operators: tuple[Op, ...], dtype: DType) -> tuple[Op, ...]:
    """The operators without those that leave this dtype alone (`float -> f32` on i64, or on f32)."""
    kept = []
    for op in operators:
        operator = build(op)
        if not operator.is_identity(dtype):
            kept.append(op)
        dtype = operator.result(dtype)
    return tuple(kept)


def made_fill(
    constant: Constant, read_dtypes: Sequence[DType], shape: tuple[int, ...], strides: tuple[int, ...], start: int
) -> Fill:
    if constant.dtype is not None:
        dtype = dtype_of(constant.dtype)
    elif len(read_dtypes) == 1:
        dtype = read_dtypes[0]
    else:
        found = " and ".join(map(str, read_dtypes)) if read_dtypes else "no tensor"
        raise Unsettled(
            "constant",
            f"the dtype of {constant.text} is not known: its instance reads {found}",
            find=constant.text,
            hint=f"Write it with its dtype: {constant.text}:f32",
        )
    problem = constant_dtype_problem(constant, dtype)
    if problem is not None:
        raise Unsettled("constant", problem, find=constant.text)
    if constant.is_arange:
        return _arange(constant, dtype, shape, strides, start)
    return Fill(fill_value(constant, dtype), dtype, shape)


def expected_fill(
    constant: Constant, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], start: int, naming: Naming
) -> Fill:
    names = tuple(name for held in naming.left for name in held.values())
    if constant.dtype is not None and constant.dtype != dtype.name:
        raise Unsettled(
            "constant",
            f"{constant.text}:{constant.dtype} must equal a block of {', '.join(f'`{name}`' for name in names)}, which is {dtype}",
            find=constant.text,
            tensors=names,
        )
    problem = constant_dtype_problem(constant, dtype)
    if problem is not None:
        raise Unsettled("constant", problem, find=constant.text, tensors=names)
    if constant.is_arange:
        return _arange(constant, dtype, shape, strides, start)
    return Fill(fill_value(constant, dtype), dtype, shape)


def _arange(constant: Constant, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], start: int) -> Fill:
    if 0 not in shape:
        last = start + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        problem = arange_problem(last, dtype)
        if problem is not None:
            raise Unsettled("constant", problem, find=constant.text)
    return Fill(Fraction(start), dtype, shape, strides)
