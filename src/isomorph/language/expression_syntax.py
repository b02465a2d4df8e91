"""Expressions and tests: what stands in `where`, `when`, `assert` and in index holes.

One ladder of precedences reads both: or, and, not, comparison, + -, * // %, minus, x[i], and what is in brackets. What must be a
number and what must be true or false is settled when a step is built. Tests take no brackets.
"""

from __future__ import annotations

from isomorph.language.tokens import Cursor, snippet
from isomorph.language.tree import (
    AxisProduct,
    Binary,
    Binding,
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
    String,
    Subscript,
    Test,
    Truth,
    Variable,
)

DEEPEST = 24
"""Brackets may nest this deep; deeper is refused, so that no text can exhaust the stack."""
MOST_STEPS = 100
"""Operators in one expression."""
MOST_DECIMALS = 60
"""Digits of a decimal, before and after its point."""
MOST_DIGITS = 18
"""Digits of an integer: no size is larger than 10**18."""
WORDS = frozenset({"and", "or", "not", "true", "false"})
COMPARISONS = ("==", "!=", "<=", ">=", "<", ">")

Either = Expression | Test


class _Steps:
    """How much of an expression has been read: brackets open now, operators so far."""

    __slots__ = ("depth", "in_hole", "in_test", "taken")

    def __init__(self, in_hole: bool, in_test: bool = False) -> None:
        self.depth = 0
        self.taken = 0
        self.in_hole = in_hole
        self.in_test = in_test

    def take(self, cursor: Cursor) -> None:
        self.taken += 1
        if self.taken > MOST_STEPS:
            cursor.fail(f"this expression has more than {MOST_STEPS} steps")

    def enter(self, cursor: Cursor) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            cursor.fail(f"brackets nest deeper than {DEEPEST} levels")

    def leave(self) -> None:
        self.depth -= 1


def read_expression(cursor: Cursor) -> Expression:
    """A value: it ends at `,`, or at the end of the cursor."""
    start = cursor.pos
    return _as_value(cursor, _either(cursor, _Steps(in_hole=False)), start)


def read_index(cursor: Cursor) -> Expression:
    """A value in a hole, where `(s j)` is the row-major number of several axes."""
    start = cursor.pos
    return _as_value(cursor, _either(cursor, _Steps(in_hole=True)), start)


def read_test(cursor: Cursor) -> Test:
    """A test, to the end of the cursor."""
    cursor.skip_blanks()
    start = cursor.pos
    if cursor.at_end:
        cursor.fail("a test is missing", hint="for example  config.bias  or  config.num_layers == 12")
    test = _as_test(cursor, _either(cursor, _Steps(in_hole=False, in_test=True)), start)
    cursor.skip_blanks()
    if not cursor.at_end:
        _unexpected(cursor)
    return test


def read_bindings(cursor: Cursor) -> tuple[Binding, ...]:
    """`h=2, d=config.hidden//h`, to the end of the cursor."""
    bindings: list[Binding] = []
    while True:
        cursor.skip_blanks()
        start = cursor.pos
        axis = cursor.identifier()
        word = snippet(cursor.text(start) + cursor.word())
        if not axis:
            cursor.fail(
                f"`where` binds axes to sizes: `{word}` is no axis" if word else "`where` binds nothing",
                hint="for example  where h=config.num_attention_heads, d=64",
            )
        if axis in WORDS:
            cursor.fail(f"`{axis}` is a word of the notation and cannot be bound", start)
        cursor.skip_blanks()
        if cursor.char != "=" or cursor.starts("=="):
            cursor.fail(f"`{axis}` is not bound to a size", start, hint=f"for example  where {axis}=config.{axis}")
        cursor.pos += 1
        cursor.skip_blanks()
        if cursor.at_end or cursor.char == ",":
            cursor.fail(
                f"`{axis}=` has no value", start, cursor.pos, hint=f"for example  {axis}=2  or  {axis}=config.num_heads"
            )
        value = read_expression(cursor)
        bindings.append(Binding(axis, value, cursor.span(start)))
        cursor.skip_blanks()
        if cursor.at_end:
            return tuple(bindings)
        if cursor.char != ",":
            _unexpected(cursor)
        cursor.pos += 1


# ── the ladder ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _either(cursor: Cursor, steps: _Steps) -> Either:
    return _junction(cursor, steps, "or")


def _junction(cursor: Cursor, steps: _Steps, word: str) -> Either:
    cursor.skip_blanks()
    start = cursor.pos
    left = _junction(cursor, steps, "and") if word == "or" else _not(cursor, steps)
    while _take_word(cursor, word):
        steps.take(cursor)
        cursor.skip_blanks()
        middle = cursor.pos
        right = _junction(cursor, steps, "and") if word == "or" else _not(cursor, steps)
        left = Both(word, _as_test(cursor, left, start), _as_test(cursor, right, middle), cursor.span(start))
    return left


def _not(cursor: Cursor, steps: _Steps) -> Either:
    cursor.skip_blanks()
    start = cursor.pos
    if not _take_word(cursor, "not"):
        return _comparison(cursor, steps)
    steps.take(cursor)
    cursor.skip_blanks()
    before = cursor.pos
    path = _postfix(cursor, steps) if cursor.starts("config") else None
    cursor.skip_blanks()
    if not isinstance(path, ConfigPath) or not path.parts or any(cursor.starts(each) for each in COMPARISONS):
        cursor.fail(
            "`not` stands before a config key",
            before,
            None,
            "for example  not config.bias;  a comparison is turned:  !=, >=",
        )
    return Not(Truth(path, path.span), cursor.span(start))


def _comparison(cursor: Cursor, steps: _Steps) -> Either:
    cursor.skip_blanks()
    start = cursor.pos
    left = _sum(cursor, steps)
    cursor.skip_blanks()
    for operator in COMPARISONS:
        if cursor.starts(operator):
            steps.take(cursor)
            at = cursor.pos
            cursor.pos += len(operator)
            cursor.skip_blanks()
            middle = cursor.pos
            right = _sum(cursor, steps)
            cursor.skip_blanks()
            if any(cursor.starts(other) for other in COMPARISONS):
                cursor.fail("comparisons do not chain", at, hint="join two of them with `and`")
            return Compare(
                operator, _as_value(cursor, left, start), _as_value(cursor, right, middle), cursor.span(start)
            )
    if cursor.char == "=" and not steps.in_hole:
        cursor.fail("`=` binds a size; a test compares with `==`", cursor.pos, cursor.pos + 1)
    return left


def _sum(cursor: Cursor, steps: _Steps) -> Either:
    return _steps_of(cursor, steps, ("+", "-"))


def _product(cursor: Cursor, steps: _Steps) -> Either:
    return _steps_of(cursor, steps, ("//", "*", "%"))


def _steps_of(cursor: Cursor, steps: _Steps, operators: tuple[str, ...]) -> Either:
    is_sum = "+" in operators
    cursor.skip_blanks()
    start = cursor.pos
    left = _product(cursor, steps) if is_sum else _minus(cursor, steps)
    while True:
        cursor.skip_blanks()
        operator = next((each for each in operators if cursor.starts(each)), None)
        if operator is None:
            if not is_sum and cursor.char == "/":
                cursor.fail(
                    "`/` is not a step of an expression", cursor.pos, cursor.pos + 1, "sizes are whole: write `//`"
                )
            return left
        steps.take(cursor)
        cursor.pos += len(operator)
        cursor.skip_blanks()
        middle = cursor.pos
        right = _product(cursor, steps) if is_sum else _minus(cursor, steps)
        left = Binary(operator, _as_value(cursor, left, start), _as_value(cursor, right, middle), cursor.span(start))


def _minus(cursor: Cursor, steps: _Steps) -> Either:
    cursor.skip_blanks()
    start = cursor.pos
    if cursor.char != "-":
        return _postfix(cursor, steps)
    steps.take(cursor)
    steps.enter(cursor)
    cursor.pos += 1
    inner_start = cursor.pos
    value = _as_value(cursor, _minus(cursor, steps), inner_start)
    steps.leave()
    return Negative(value, cursor.span(start))


def _postfix(cursor: Cursor, steps: _Steps) -> Either:
    start = cursor.pos
    value = _primary(cursor, steps)
    while cursor.char == "[":
        steps.take(cursor)
        steps.enter(cursor)
        opened = cursor.pos
        cursor.pos += 1
        cursor.skip_blanks()
        middle = cursor.pos
        index = _as_value(cursor, _either(cursor, steps), middle)
        cursor.skip_blanks()
        if cursor.char != "]":
            cursor.fail("`[` is not closed", opened, opened + 1)
        cursor.pos += 1
        steps.leave()
        value = Subscript(_as_value(cursor, value, start), index, cursor.span(start))
    return value


def _primary(cursor: Cursor, steps: _Steps) -> Either:
    start = cursor.pos
    char = cursor.char
    if char == "(":
        return _in_brackets(cursor, steps)
    if char == '"':
        return _string(cursor)
    if char and char in "0123456789":
        return _number(cursor, steps)
    name = cursor.identifier()
    if not name:
        if cursor.at_end:
            cursor.fail("a value is missing at the end", max(cursor.line.start, cursor.end - 1), cursor.end)
        _unexpected(cursor)
    if name in ("true", "false"):
        return Boolean(name == "true", cursor.span(start))
    if name in WORDS:
        cursor.fail(f"`{name}` stands where a value should", start)
    if name == "config" and cursor.char in (".", "["):
        return _config_path(cursor, start)
    if cursor.char == "(":
        if name != "len":
            cursor.fail(f"there is no function `{name}`", start, hint="the only function is len(x)")
        opened = cursor.pos
        steps.enter(cursor)
        cursor.pos += 1
        cursor.skip_blanks()
        middle = cursor.pos
        value = _as_value(cursor, _either(cursor, steps), middle)
        cursor.skip_blanks()
        if cursor.char != ")":
            cursor.fail("`(` is not closed", opened, opened + 1)
        cursor.pos += 1
        steps.leave()
        return Length(value, cursor.span(start))
    if cursor.char == ".":
        cursor.fail(f"`{name}` has no parts: only config has keys", start, hint=f"did you mean config.{name}?")
    return Variable(name, cursor.span(start))


def _in_brackets(cursor: Cursor, steps: _Steps) -> Either:
    start = cursor.pos
    steps.enter(cursor)
    cursor.pos += 1
    if steps.in_hole:
        axes = _axes_in_brackets(cursor)
        if axes is not None:
            steps.leave()
            return AxisProduct(axes, cursor.span(start))
    inner = _either(cursor, steps)
    cursor.skip_blanks()
    if cursor.char != ")":
        cursor.fail("`(` is not closed", start, start + 1)
    cursor.pos += 1
    if isinstance(inner, Compare | Truth | Not | Both):
        cursor.fail(
            "`( )` around a test",
            start,
            cursor.pos,
            "tests take no brackets: `not` binds tightest, then `and`, then `or`",
        )
    steps.leave()
    return inner


def _axes_in_brackets(cursor: Cursor) -> tuple[str, ...] | None:
    """`s j)` after an opening bracket: two axes or more. None, and nothing read, when it is something else."""
    before = cursor.pos
    axes: list[str] = []
    while True:
        cursor.skip_blanks()
        if cursor.char == ")" and len(axes) > 1:
            cursor.pos += 1
            return tuple(axes)
        axis = cursor.identifier()
        if not axis:
            cursor.pos = before
            return None
        axes.append(axis)


def _number(cursor: Cursor, steps: _Steps) -> Number | Decimal:
    """An integer; in a test also a decimal (`0.5`), which sizes and indices never are."""
    start = cursor.pos
    digits = cursor.digits()
    if steps.in_test and cursor.char == ".":
        cursor.pos += 1
        fraction = cursor.digits()
        follows = cursor.char
        if (
            not fraction
            or len(digits) + len(fraction) > MOST_DECIMALS
            or (follows and (follows.isalnum() or follows in "_."))
        ):
            cursor.fail(f"`{snippet(cursor.text(start) + cursor.word())}` is no number", start, cursor.pos + 1)
        return Decimal(cursor.text(start), cursor.span(start))
    if cursor.char and (cursor.char.isalnum() or cursor.char in "_."):
        cursor.fail(f"`{snippet(digits + cursor.word())}` is not a whole number", start, cursor.pos + 1)
    if len(digits) > MOST_DIGITS:
        cursor.fail(f"a number of {len(digits)} digits is no size", start)
    return Number(int(digits), cursor.span(start))


def _string(cursor: Cursor) -> String:
    start = cursor.pos
    cursor.pos += 1
    chars: list[str] = []
    while not cursor.at_end:
        char = cursor.char
        cursor.pos += 1
        if char == '"':
            return String("".join(chars), cursor.span(start))
        if char == "\\":
            if cursor.char not in ('"', "\\"):
                cursor.fail('only `\\"` and `\\\\` are escapes in a string', cursor.pos - 1, cursor.pos + 1)
            char = cursor.char
            cursor.pos += 1
        chars.append(char)
    return cursor.fail('a quote `"` is not closed', start, start + 1)


def _config_path(cursor: Cursor, start: int) -> ConfigPath:
    parts: list[str] = []
    while cursor.char == ".":
        cursor.pos += 1
        part_start = cursor.pos
        if not cursor.identifier():
            cursor.digits()
        part = cursor.text(part_start)
        if not part:
            cursor.fail("a config key is missing after the dot", start)
        parts.append(part)
        if len(parts) > DEEPEST:
            cursor.fail(f"a config path has at most {DEEPEST} parts", start)
    return ConfigPath(tuple(parts), cursor.span(start))


# ── small steps ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _take_word(cursor: Cursor, word: str) -> bool:
    cursor.skip_blanks()
    before = cursor.pos
    if cursor.starts(word) and cursor.identifier() == word:
        return True
    cursor.pos = before
    return False


def _as_value(cursor: Cursor, found: Either, start: int) -> Expression:
    if isinstance(found, Compare | Truth | Not | Both):
        cursor.fail("this is a test; a number is needed here", start)
    return found


def _as_test(cursor: Cursor, found: Either, start: int) -> Test:
    if isinstance(found, Compare | Truth | Not | Both):
        return found
    if isinstance(found, ConfigPath) and found.parts:
        return Truth(found, found.span)
    return cursor.fail(
        f"`{snippet(cursor.text(start).strip())}` is no test",
        start,
        hint="compare it with ==, !=, <, <=, > or >=; only a config key may stand alone",
    )


def _unexpected(cursor: Cursor) -> None:
    cursor.fail(f"`{snippet(cursor.word() or cursor.char)}` does not belong here")
