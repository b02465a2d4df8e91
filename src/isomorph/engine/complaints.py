"""What a check or an operator found, as a gap: the rule's line, the tensor, the element, what to do."""

from __future__ import annotations

from collections.abc import Sequence

from isomorph.errors import CheckError, Gap
from isomorph.operators.base import ElementError
from isomorph.plan.moves import Along, Box, Fill, Mix, Source
from isomorph.plan.plan import Plan


def element_of(box: Box, flat: int) -> int:
    """The flat index in its tensor of the `flat`-th element of `box` (row-major in the box's shape)."""
    index = box.offset
    for size, stride in zip(reversed(box.shape), reversed(box.strides), strict=True):
        flat, digit = divmod(flat, size)
        index += digit * stride
    return index


def shown_index(flat: int, shape: Sequence[int]) -> str:
    """`[3, 0]`, and `[]` for a scalar."""
    digits: list[int] = []
    for size in reversed(shape):
        flat, digit = divmod(flat, size) if size else (0, 0)
        digits.append(digit)
    return str(list(reversed(digits)))


def boxes_of(source: Source) -> tuple[Box, ...]:
    if isinstance(source, Mix):
        return tuple(box for part in source.sources for box in boxes_of(part))
    if isinstance(source, Along):
        return tuple(box for part in source.parts for box in boxes_of(part.source))
    return (source,) if isinstance(source, Box) else ()


def gap(
    plan: Plan, rule: int, kind: str, message: str, *, hint: str | None = None, tensors: tuple[str, ...] = ()
) -> Gap:
    """A gap at the line of rule number `rule` (an index into `plan.rules`; none where it is out of range)."""
    if not 0 <= rule < len(plan.rules):
        return Gap(kind, message, hint=hint, tensors=tensors)
    origin = plan.rules[rule].origin
    file = None if origin.file == "<morph>" else origin.file
    return Gap(kind, message, file=file, line=origin.line, text=origin.text, hint=hint, tensors=tensors)


def refused_value(plan: Plan, source: Source, target: Box, error: ElementError) -> CheckError:
    """The error of a value that an operator refused while `target` was made."""
    made = plan.targets[target.tensor]
    where = shown_index(element_of(target, error.index), made.spec.shape)
    origins = ""
    if isinstance(source, Along):  # an element of what lies in between: it has no place in either tensor
        where, origins = "", f" (from {', '.join(dict.fromkeys(box.tensor for box in boxes_of(source)))})"
    elif isinstance(source, Box):
        shape = plan.source[source.tensor].shape if source.tensor in plan.source else ()
        origins = f" (from {source.tensor}{shown_index(element_of(source, error.index), shape)})"
    elif isinstance(source, Fill):
        origins = " (from a constant)"
    message = f"{target.tensor}{where}: {error.problem}{origins}"
    names = (target.tensor, *(box.tensor for box in boxes_of(source)))
    if plan.cast is not None and not plan.rules[made.rule].operators:  # no line of the morph asks for this cast
        hint = (
            "--dtype refuses an overflow. Choose a dtype that reaches further, or cast in a morph:  | float ~> f16 saturate"
            if plan.cast.rounding
            else "--exact refuses to round. Leave it out to round to nearest, or choose a wider --dtype"
        )
        return CheckError([Gap("cast", message, hint=hint.replace("f16", str(plan.cast.target)), tensors=names)])
    return CheckError([gap(plan, made.rule, "cast", message, hint=error.hint, tensors=names)])
