"""Ties and constants, carried out on the values, chunk by chunk: all that do not hold are reported together."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from isomorph.engine.complaints import boxes_of, element_of, gap, shown_index
from isomorph.engine.evaluate import evaluate
from isomorph.engine.split import clip_source, fractions_of
from isomorph.errors import CheckError, Gap
from isomorph.formats.base import Checkpoint
from isomorph.language.tree import Constant
from isomorph.operators.base import ElementError
from isomorph.operators.numbers import shown
from isomorph.plan.moves import Box, Check, Fill, Source
from isomorph.plan.plan import Plan
from isomorph.tensors import DType

MOST_REPORTED = 20
AT_ONCE = 8 << 20
"""Bytes that are compared at a time, on each side."""


def carry_out(plan: Plan, checkpoint: Checkpoint, *, at_once: int = AT_ONCE) -> None:
    """Compare every bit that `plan.checks` name. Raises CheckError with every check that does not hold (at most 20 in full)."""
    gaps: list[Gap] = []
    failed = 0
    for check in plan.checks:
        found = _carry_out(plan, check, checkpoint, at_once)
        if found is not None:
            failed += 1
            if failed <= MOST_REPORTED:
                gaps.append(found)
    if failed > MOST_REPORTED:
        gaps.append(Gap("tie", f"{failed - MOST_REPORTED} more checks do not hold"))
    if gaps:
        raise CheckError(gaps)


def _carry_out(plan: Plan, check: Check, checkpoint: Checkpoint, at_once: int) -> Gap | None:
    shape = check.expected.shape
    for part in fractions_of(shape, max(1, at_once // 16)):
        source, expected = clip_source(check.source, part), clip_source(check.expected, part)
        try:
            left, dtype = evaluate(source, check.operators, checkpoint)
            right, _ = evaluate(expected, (), checkpoint)
        except ElementError as error:
            names = ", ".join(dict.fromkeys(box.tensor for box in boxes_of(source)))
            return gap(plan, check.rule, "cast", f"{names}: {error.problem}", hint=error.hint)
        wrong = _differs(left, right)
        if wrong is not None:
            values = shown(_bits(left, wrong), dtype), shown(_bits(right, wrong), dtype)
            return _complaint(plan, check, boxes_of(source), expected, wrong, values, dtype, checkpoint)
    return None


def _differs(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> int | None:
    """The first flat index whose bits differ."""
    if left.dtype.kind == "V":
        left = np.ascontiguousarray(left)[..., None].view("<u8")
        right = np.ascontiguousarray(right)[..., None].view("<u8")
        unequal = (left != right).any(axis=-1)
    else:
        unequal = left != right
    return int(np.argmax(unequal)) if unequal.any() else None


def _bits(array: np.ndarray[Any, Any], flat: int) -> int:
    return int.from_bytes(array[np.unravel_index(flat, array.shape)].tobytes(), "little")


def _complaint(
    plan: Plan,
    check: Check,
    boxes: tuple[Box, ...],
    expected: Source,
    flat: int,
    values: tuple[str, str],
    dtype: DType,
    checkpoint: Checkpoint,
) -> Gap:
    def place(box: Box) -> str:
        return f"{box.tensor}{shown_index(element_of(box, flat), checkpoint.manifest[box.tensor].shape)}"

    copies = boxes_of(expected)
    names = check.names or tuple(dict.fromkeys(box.tensor for box in (*boxes, *copies)))
    places = " + ".join(place(box) for box in boxes) or "a constant"
    if not isinstance(expected, Fill):
        other = " + ".join(place(box) for box in copies) or "a constant"
        message = f"the copies {' and '.join(names)} differ: {places} is {values[0]}, {other} is {values[1]}"
        hint = "copies marked {=…} must be equal in every bit; if they are not copies, give each a rule of its own"
        return gap(plan, check.rule, "tie", message, hint=hint, tensors=names)
    text = _constant_text(plan, check, expected)
    after = " after its operators" if check.operators else ""
    message = f"{places} is {values[0]}{after}, not the constant {text} ({values[1]} in {dtype})"
    hint = "a constant that is written must hold in every bit (0 is not -0); to leave the values out, write `drop` in its place"
    return gap(plan, check.rule, "constant", message, hint=hint, tensors=names)


def _constant_text(plan: Plan, check: Check, expected: Fill) -> str:
    """The constant as the morph writes it."""
    if 0 <= check.rule < len(plan.rules):
        rule = plan.rules[check.rule]
        for term in (*rule.left, *rule.right):
            if isinstance(term.head, Constant) and _means(term.head, expected):
                return term.head.text
    if expected.arange_strides is not None:
        return "arange"
    value = expected.value
    return str(value.numerator) if isinstance(value, Fraction) and value.denominator == 1 else repr(float(value))


def _means(constant: Constant, expected: Fill) -> bool:
    if constant.is_arange or expected.arange_strides is not None:
        return constant.is_arange and expected.arange_strides is not None
    value = constant.value
    return value == expected.value and str(float(value)) == str(float(expected.value))
