"""The values of expressions and tests, and the linear form of an index. Nothing is ever executed: a walk over the tree.

Config values are what JSON holds. Numbers stay within 2**127; a float that is a whole number counts as that number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isomorph.errors import Gap, MorphError, near_misses
from isomorph.language.tokens import snippet
from isomorph.language.tree import (
    AxisProduct,
    Binary,
    Boolean,
    Both,
    Compare,
    ConfigPath,
    Decimal,
    Expression,
    Length,
    Negative,
    Not,
    Number,
    Span,
    String,
    Subscript,
    Test,
    Truth,
    Variable,
)

LARGEST = 1 << 127
"""Results beyond are refused: no size comes near, and arithmetic on config values stays cheap."""


def evaluate(expression: Expression, variables: Mapping[str, int], config: Mapping[str, object]) -> object:
    """The value of an expression: an int, bool, str, float, list or mapping (the last two only from the config).

    >>> from isomorph.language.tree import Binary, ConfigPath, Number
    >>> evaluate(Binary("//", ConfigPath(("hidden",)), Number(2)), {}, {"hidden": 8})
    4

    Raises MorphError with one gap: `config` for a missing key or a value of the wrong type, `size` for an unbound name,
    a division by zero or a number out of bounds. The gap has the span's line and columns, not the line's text.
    """
    match expression:
        case Number(value) | String(value) | Boolean(value):
            return value
        case Decimal(text):
            return float(text)
        case Negative(Decimal(text)):
            return -float(text)
        case Variable(name, span):
            found = variables.get(name)
            if found is None:
                near = near_misses(name, variables)
                raise _refusal(
                    "size",
                    f"`{name.partition(chr(39))[0]}` has no value here: neither bound by `where` nor read from a name",
                    span,
                    _did_you_mean(near),
                )
            return found
        case ConfigPath(parts, span):
            return _config_value(parts, config, span)
        case Subscript(value, index, span):
            return _subscript(
                evaluate(value, variables, config), evaluate(index, variables, config), _told(value), span
            )
        case Length(value, span):
            held = evaluate(value, variables, config)
            if not isinstance(held, str | Sequence | Mapping):
                raise _refusal("config", f"len({_told(value)}) is asked, but it is {_kind(held)}", span)
            return len(held)
        case Negative(value, span):
            return _bounded(-_whole(evaluate(value, variables, config), _told(value), span), span)
        case Binary(operator, left, right, span):
            first = _whole(evaluate(left, variables, config), _told(left), span)
            second = _whole(evaluate(right, variables, config), _told(right), span)
            return _bounded(_arithmetic(operator, first, second, _told(right), span), span)
        case AxisProduct(axes, span):
            raise _refusal("size", f"({' '.join(axes)}) is a number only inside a hole of a name", span)
    raise TypeError(expression)


def whole_number(expression: Expression, variables: Mapping[str, int], config: Mapping[str, object]) -> int:
    """The value where a size is needed: an int (True, "12" and 1.5 are refused, 12.0 is 12)."""
    return _whole(evaluate(expression, variables, config), _told(expression), expression.span)


def holds(test: Test, variables: Mapping[str, int], config: Mapping[str, object]) -> bool:
    """True or false. `and` and `or` stop at the first side that decides."""
    match test:
        case Truth(path, span):
            found = evaluate(path, variables, config)
            if found is None or isinstance(found, bool | int | float | str):
                return bool(found)
            raise _refusal("config", f"{_told(path)} is {_kind(found)}, neither true nor false", span)
        case Not(value):
            return not holds(value, variables, config)
        case Both(operator, left, right):
            first = holds(left, variables, config)
            if operator == "and":
                return first and holds(right, variables, config)
            return first or holds(right, variables, config)
        case Compare(operator, left, right, span):
            return _compare(operator, evaluate(left, variables, config), evaluate(right, variables, config), test, span)
    raise TypeError(test)


# ── the linear form of an index ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Linear:
    """`offset + sign * number(axes)`; with no axes, the offset alone. The offset holds integers and config paths only."""

    offset: Expression
    sign: int
    axes: tuple[str, ...]


class NotLinear(ValueError):
    """An index that is no shift or turn of one axis; the text says why."""


def linear(expression: Expression) -> Linear:
    """Reduce an index expression.

    >>> from isomorph.language.tree import Binary, Number, Variable
    >>> linear(Binary("+", Variable("l"), Number(1)))
    Linear(offset=Number(value=1), sign=1, axes=('l',))
    """
    match expression:
        case Variable(name):
            return Linear(Number(0), 1, (name,))
        case AxisProduct(axes):
            return Linear(Number(0), 1, axes)
        case Negative(value):
            inner = linear(value)
            return Linear(_negative(inner.offset), -inner.sign, inner.axes)
        case Binary(operator, left, right) if operator in "+-":
            first, second = linear(left), linear(right)
            if first.axes and second.axes:
                raise NotLinear("an index is made of one axis; several are written as a product, for example {(s j)}")
            sign = second.sign if operator == "+" else -second.sign
            return Linear(
                _join(operator, first.offset, second.offset),
                sign if second.axes else first.sign,
                first.axes or second.axes,
            )
        case Binary(operator, left, right):
            first, second = linear(left), linear(right)
            if not first.axes and not second.axes:
                return Linear(expression, 1, ())
            factor, scaled = (second, first) if first.axes else (first, second)
            if operator == "*" and factor.offset in (Number(1), Number(-1)) and not factor.axes:
                return scaled if factor.offset == Number(1) else linear(Negative(left if first.axes else right))
            raise NotLinear("an axis in a name is shifted or turned ({l+1}, {config.n-1-l}), not scaled")
        case Subscript(value, index):
            if linear(value).axes or linear(index).axes:
                raise NotLinear("an axis in a name is shifted or turned, not used to look something up")
            return Linear(expression, 1, ())
        case String() | Boolean() | Decimal():
            raise NotLinear("an index is a number")
        case Length(value):
            if linear(value).axes:
                raise NotLinear("len() takes a config value")
            return Linear(expression, 1, ())
    return Linear(expression, 1, ())


def _negative(offset: Expression) -> Expression:
    return Number(-offset.value) if isinstance(offset, Number) else Negative(offset)


def _join(operator: str, left: Expression, right: Expression) -> Expression:
    if isinstance(left, Number) and isinstance(right, Number):
        return Number(left.value + right.value if operator == "+" else left.value - right.value)
    if isinstance(right, Number) and right.value == 0:
        return left
    if isinstance(left, Number) and left.value == 0:
        return right if operator == "+" else _negative(right)
    return Binary(operator, left, right)


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _refusal(kind: str, message: str, span: Span, hint: str | None = None) -> MorphError:
    return MorphError(
        [Gap(kind, message, line=span.line or None, column=span.column or None, end=span.end or None, hint=hint)]
    )


def _did_you_mean(near: Sequence[str]) -> str | None:
    return f"did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else None


def _told(expression: Expression) -> str:
    from isomorph.language.unparse import expression_text

    return snippet(expression_text(expression))


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return snippet(repr(value))
    if isinstance(value, str):
        return f'the text "{snippet(value, 30)}"'
    if isinstance(value, Mapping):
        return "a table of keys"
    return "a list" if isinstance(value, Sequence) else f"a {type(value).__name__}"


def _config_value(parts: Sequence[str], config: Mapping[str, object], span: Span) -> object:
    found: object = config
    for depth, part in enumerate(parts):
        path = ".".join(("config", *parts[:depth]))
        if not isinstance(found, Mapping):
            raise _refusal("config", f"{path} is {_kind(found)}; it has no key `{part}`", span)
        if part not in found:
            keys = [str(key) for key in found]
            near = near_misses(part, keys)
            hint = _did_you_mean([f"{path}.{each}" for each in near])
            if hint is None:
                some = ", ".join(snippet(key, 40) for key in keys[:8])
                hint = (
                    f"{path} has {some}{' …' if len(keys) > 8 else ''}"
                    if keys
                    else f"give it: --config FILE or --set {path}.{part}=…"
                )
            raise _refusal("config", f"the config has no key `{'.'.join(parts[: depth + 1])}`", span, hint)
        found = found[part]
    return found


def _subscript(held: object, index: object, told: str, span: Span) -> object:
    if isinstance(held, Mapping):
        if isinstance(index, str) and index in held:
            return held[index]
        if isinstance(index, int) and str(index) in held:
            return held[str(index)]
        raise _refusal("config", f"{told} has no key {_kind(index)}", span)
    if isinstance(held, Sequence) and not isinstance(held, str | bytes):
        at = _whole(index, "the index", span)
        if not 0 <= at < len(held):
            raise _refusal("config", f"{told} has {len(held)} entries; there is no [{at}]", span)
        found: object = held[at]
        return found
    raise _refusal("config", f"{told} is {_kind(held)}; it has no entries", span)


def _whole(value: object, told: str, span: Span) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return _bounded(value, span)
    if isinstance(value, float) and value.is_integer():
        return _bounded(int(value), span)
    raise _refusal("config", f"{told} is {_kind(value)}, where a whole number is needed", span)


def _bounded(value: int, span: Span) -> int:
    if abs(value) >= LARGEST:
        raise _refusal("size", "this number is far beyond any size", span)
    return value


def _arithmetic(operator: str, left: int, right: int, told: str, span: Span) -> int:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        raise _refusal("size", "division by 0" if told == "0" else f"division by {told}, which is 0", span)
    return left // right if operator == "//" else left % right


def _compare(operator: str, left: object, right: object, test: Compare, span: Span) -> bool:
    if operator in ("==", "!="):
        same = left == right and isinstance(left, bool) == isinstance(right, bool)
        return same if operator == "==" else not same
    if isinstance(left, str) and isinstance(right, str):
        pair: tuple[object, object] = (left, right)
    else:
        pair = (_comparable(left, _told(test.left), span), _comparable(right, _told(test.right), span))
    first, second = pair
    if operator == "<":
        return bool(first < second)  # type: ignore[operator] # both are numbers, or both text
    if operator == "<=":
        return bool(first <= second)  # type: ignore[operator] # both are numbers, or both text
    if operator == ">":
        return bool(first > second)  # type: ignore[operator] # both are numbers, or both text
    return bool(first >= second)  # type: ignore[operator] # both are numbers, or both text


def _comparable(value: object, told: str, span: Span) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _refusal("config", f"{told} is {_kind(value)}, which cannot be compared by size", span)
