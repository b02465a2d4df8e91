"""Op (as the language writes it) -> Operator. Plug-ins come through the entry-point group `isomorph.operators`.

An entry point is a callable. Of a plain operator it takes the words after the name and gives an Operator, which has

    reference(array, dtype) -> array            values of `dtype.numpy` -> values of `result(dtype).numpy`, in the same shape

of an operator along axes, `name h w -> y x words`, it takes `(words, takes, makes)` and gives an AxisOperator, which has

    reference(array, dtype, after) -> array     [others, *before] values -> [others, *after] values

`reference` is a plain second reading of the operator, by other means than its kernel; verify runs it and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any

from isomorph.errors import Gap, MorphError, near_misses
from isomorph.operators.arithmetic import Arithmetic, Negate, Sum, Transcendental
from isomorph.operators.base import AxisOperator, Operator, OpLike
from isomorph.operators.cast import Cast
from isomorph.operators.pad import make_pad
from isomorph.operators.resize import make_resize
from isomorph.tensors import DTYPES, DType

GROUP = "isomorph.operators"
NAMES = ("cast", "neg", "add", "mul", "exp", "log", "sum", "resize", "pad")


@cache
def plugins() -> dict[str, Callable[..., object]]:
    """The operators that installed packages add, by name; loaded when first asked for."""
    from importlib.metadata import entry_points

    return {point.name: point.load() for point in entry_points(group=GROUP)}


def build(op: OpLike) -> Operator:
    """The operator that `op` says, read backward where `op.inverted`.

    Raises MorphError: kind `syntax` where no operator has the name, kind `cast` where it has no inverse.
    """
    operator = _forward(op)
    return operator.inverse() if op.inverted else operator


def _forward(op: OpLike) -> Operator:
    match op.name:
        case "cast":
            return Cast(
                None if op.source == "float" else _dtype(op.source), _dtype(op.target), op.rounding, op.saturate
            )
        case "neg":
            return Negate()
        case "add" | "mul":
            return Arithmetic(op.name, _number(op), op.number or "")
        case "exp" | "log":
            return Transcendental(op.name)
        case "sum":
            return Sum()
        case "resize" | "pad" if not op.takes:
            hint = f"the axis that is read, an arrow, the axis that is made:  | {_EXAMPLES[op.name]}"
            raise MorphError([Gap("syntax", f"`{op.name}` acts along axes, and must say which", hint=hint)])
        case "resize":
            return make_resize(op.arguments, shown(op.takes), shown(op.makes))
        case "pad":
            return make_pad(op.arguments, shown(op.takes), shown(op.makes))
    factory: Any = plugins().get(op.name)
    if factory is None:
        known = [name for name in (*NAMES, *plugins()) if name != "cast"]
        likely = near_misses(op.name, known)
        hint = (
            f"did you mean {' or '.join(f'`{name}`' for name in likely)}?"
            if likely
            else f"known: {', '.join(known)}, and casts"
        )
        raise MorphError([Gap("syntax", f"no operator is called `{op.name}`", hint=hint)])
    try:
        made: object = factory(op.arguments, shown(op.takes), shown(op.makes)) if op.takes else factory(op.arguments)
    except MorphError:
        raise
    except Exception as error:  # another's code: whatever it raises, it refuses these words
        written = " ".join((op.name, *((*shown(op.takes), "->", *shown(op.makes)) if op.takes else ()), *op.arguments))
        problem = f"`{written}` was refused by the package that has `{op.name}`: {type(error).__name__}: {error}"
        raise MorphError([Gap("syntax", problem, hint="see its documentation for how it is written")]) from error
    if isinstance(made, AxisOperator) and op.takes:
        return made
    if isinstance(made, Operator) and not isinstance(made, AxisOperator) and not op.takes:
        return made
    what = "an operator along axes" if op.takes else "an operator on elements"
    other = f"{op.name} without axes" if op.takes else f"{op.name} n -> m"
    raise MorphError([Gap("syntax", f"`{op.name}` gave a {type(made).__name__}, not {what}", hint=f"is it  {other} ?")])


_EXAMPLES = {"resize": "resize n -> m timm", "pad": "pad v -> u mean"}


def shown(axes: tuple[str, ...]) -> tuple[str, ...]:
    """The axes as they were written: without the marks of the files they belong to."""
    return tuple(axis.partition("'")[0] for axis in axes)


def _dtype(name: str | None) -> DType:
    found = DTYPES.get(name or "")
    if found is None:
        likely = near_misses(name or "", DTYPES)
        hint = f"did you mean {' or '.join(likely)}?" if likely else f"known: {' '.join(DTYPES)}"
        raise MorphError([Gap("syntax", f"no dtype is called `{name}`", hint=hint)])
    return found


def _number(op: OpLike) -> Fraction | float:
    text = op.number or ""
    if text in ("inf", "-inf"):
        return float(text)
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise MorphError([Gap("syntax", f"`{op.name}` takes a number, not `{text}`")]) from None
    return -0.0 if value == 0 and text.startswith("-") else value
