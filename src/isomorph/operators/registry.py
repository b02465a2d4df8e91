"""Op (as the language writes it) -> Operator. Plug-ins come through the entry-point group `isomorph.operators`.

An entry point is a callable `(arguments: tuple[str, ...]) -> Operator`; its operator also has `reference(array, dtype)`, a plain
second reading of itself on values, which verify runs.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import cache

from isomorph.errors import Gap, MorphError, near_misses
from isomorph.operators.arithmetic import Arithmetic, Negate, Sum, Transcendental
from isomorph.operators.base import Operator, OpLike
from isomorph.operators.cast import Cast
from isomorph.tensors import DTYPES, DType

GROUP = "isomorph.operators"
NAMES = ("cast", "neg", "add", "mul", "exp", "log", "sum")


@cache
def plugins() -> dict[str, Callable[[tuple[str, ...]], Operator]]:
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
    factory = plugins().get(op.name)
    if factory is None:
        known = [name for name in (*NAMES, *plugins()) if name != "cast"]
        likely = near_misses(op.name, known)
        hint = (
            f"did you mean {' or '.join(f'`{name}`' for name in likely)}?"
            if likely
            else f"known: {', '.join(known)}, and casts"
        )
        raise MorphError([Gap("syntax", f"no operator is called `{op.name}`", hint=hint)])
    return factory(op.arguments)


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
