"""Terms: a name, a constant or `drop`, with its axes in brackets."""

from __future__ import annotations

import re

from isomorph.errors import near_misses
from isomorph.language.expression_syntax import MOST_DIGITS
from isomorph.language.name_syntax import read_name
from isomorph.language.tokens import Cursor, snippet
from isomorph.language.tree import Axis, Constant, Dim, Drop, Ellipsis, Integer, Name, Product, Sum, Term
from isomorph.tensors import DTYPES, dtype

DEEPEST = 24
MOST_AXES = 256
"""Axes and brackets written in one term."""
ARROWS = ("<->", "->", "<-")
NUMBER = re.compile(r"-?(?:[0-9]{1,400}(?:\.[0-9]{1,400})?|inf)")
CONSTANT = re.compile(r"(-?(?:[0-9]{1,400}(?:\.[0-9]{1,400})?|inf)|arange)(?::(.*))?", re.DOTALL)


def read_term(cursor: Cursor) -> Term:
    """One term; the cursor stands at its first character, which is no comma and no arrow."""
    start = cursor.pos
    head = _head(cursor)
    after_head = cursor.pos
    cursor.skip_blanks()
    dims = _dims(cursor) if cursor.char == "[" else None
    if dims is None:
        cursor.pos = after_head
    return Term(head, dims, cursor.span(start))


def read_dtype(cursor: Cursor, name: str, start: int, end: int, *, also_float: bool = False) -> str:
    """The dtype `name`, which stands at raw[start:end]; refused with the name it should have."""
    if name in DTYPES or (also_float and name == "float"):
        return name
    try:
        hint: str | None = f"write {dtype(name)}" if dtype(name).name in DTYPES else None
    except KeyError:
        hint = None
    if hint is None:
        near = near_misses(name[:40], DTYPES)
        hint = f"did you mean {' or '.join(near)}?" if near else f"dtypes: {' '.join(DTYPES)}"
    return cursor.fail(f"there is no dtype `{snippet(name)}`", start, end, hint)


def _head(cursor: Cursor) -> Name | Constant | Drop:
    start = cursor.pos
    if cursor.char != '"':
        stop = start
        raw = cursor.line.raw
        while stop < cursor.end and raw[stop] not in " \t,[":
            stop += 1
        word = raw[start:stop]
        if word == "drop":
            cursor.pos = stop
            return Drop(cursor.span(start))
        if word[:1] in "-0123456789ia" and (found := CONSTANT.fullmatch(word)) is not None:
            value, name = found.groups()
            if name is not None and name not in DTYPES and name.startswith(":"):
                cursor.fail(
                    f"`{snippet(word)}` begins like a constant",
                    start,
                    stop,
                    f'a tensor of that name is quoted: "{snippet(word)}"',
                )
            if name is not None:
                read_dtype(cursor, name, start, stop)
            cursor.pos = stop
            return Constant(value, name, cursor.span(start))
    name_read = read_name(cursor)
    if not name_read.pieces:
        cursor.fail(
            "a name is missing before `[`" if cursor.char == "[" else "a name is missing", cursor.pos, cursor.pos + 1
        )
    return name_read


# ── brackets ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Count:
    __slots__ = ("axes",)

    def __init__(self) -> None:
        self.axes = 0

    def take(self, cursor: Cursor) -> None:
        self.axes += 1
        if self.axes > MOST_AXES:
            cursor.fail(f"more than {MOST_AXES} axes in one pair of brackets")


def _dims(cursor: Cursor) -> tuple[Dim, ...]:
    opened = cursor.pos
    cursor.pos += 1
    dims: list[Dim] = []
    count = _Count()
    further = False
    while True:
        cursor.skip_blanks()
        char = cursor.char
        if char == "]":
            cursor.pos += 1
            break
        if not char:
            cursor.fail("`[` is not closed", opened, opened + 1)
        if char == "+":
            cursor.fail("`+` outside `( )`", cursor.pos, cursor.pos + 1, "a sum of axes is bracketed: [(q + k) i]")
        dim = _dim(cursor, opened, count, 0)
        if isinstance(dim, Ellipsis):
            if further:
                cursor.fail("`...` stands twice", cursor.pos - 3, cursor.pos, "it stands for all further axes: once")
            further = True
        dims.append(dim)
    if not cursor.at_end and cursor.char not in " \t,":
        cursor.fail("a blank is missing after `]`", cursor.pos, cursor.pos + 1)
    return tuple(dims)


def _dim(cursor: Cursor, opened: int, count: _Count, depth: int) -> Dim:
    count.take(cursor)
    start = cursor.pos
    char = cursor.char
    if char == "(":
        return _sum(cursor, opened, count, depth + 1)
    if cursor.starts("..."):
        cursor.pos += 3
        if depth:
            cursor.fail(
                "`...` inside `( )`",
                start,
                cursor.pos,
                "further axes are no factor of a product: write [o ...], or name them",
            )
        return Ellipsis(cursor.span(start))
    if char in "0123456789":
        digits = cursor.digits()
        if cursor.char == "_" or cursor.char.isalnum() or len(digits) > MOST_DIGITS or digits.startswith("0"):
            cursor.fail(
                f"`{snippet(digits + _rest_of_axis(cursor))}` is neither an axis nor a size",
                start,
                cursor.pos + 1,
                "axes begin with a letter; sizes are whole and at least 1",
            )
        return Integer(int(digits), cursor.span(start))
    name = cursor.identifier()
    if name:
        if not cursor.at_end and cursor.char not in " \t]()+":
            _odd(cursor, opened, start)
        return Axis(name, cursor.span(start))
    _odd(cursor, opened, start)
    raise AssertionError  # _odd always raises


def _sum(cursor: Cursor, opened: int, count: _Count, depth: int) -> Sum:
    start = cursor.pos
    if depth > DEEPEST:
        cursor.fail(f"brackets nest deeper than {DEEPEST} levels", start, start + 1)
    cursor.pos += 1
    summands: list[Product] = []
    factors: list[Dim] = []
    product_start = cursor.pos
    while True:
        cursor.skip_blanks()
        char = cursor.char
        if char in ("+", ")"):
            if not factors:
                cursor.fail(
                    "a summand of `+` is empty" if char == "+" or summands else "`( )` is empty",
                    start,
                    cursor.pos + 1,
                    "a unit axis is written 1",
                )
            summands.append(Product(tuple(factors), cursor.span(product_start)))
            factors = []
            cursor.pos += 1
            product_start = cursor.pos
            if char == ")":
                return Sum(tuple(summands), cursor.span(start))
            count.take(cursor)
        elif char in ("", "]"):
            cursor.fail("`(` is not closed", start, start + 1)
        else:
            if not factors:
                product_start = cursor.pos
            factors.append(_dim(cursor, opened, count, depth))


def _rest_of_axis(cursor: Cursor) -> str:
    word = cursor.word()
    for stop in "])+(":
        word = word.partition(stop)[0]
    return word


def _odd(cursor: Cursor, opened: int, start: int) -> None:
    char = cursor.char
    word = cursor.word()
    if word in ARROWS or word.rstrip("?") in ARROWS or not char:
        cursor.fail("`[` is not closed", opened, opened + 1)
    if char == ")":
        cursor.fail("`)` closes no `(`", cursor.pos, cursor.pos + 1)
    if char == "[":
        cursor.fail("`[` inside `[ ]`", cursor.pos, cursor.pos + 1, "axes are grouped with ( )")
    if char == ",":
        cursor.fail("a comma `,` between axes", cursor.pos, cursor.pos + 1, "axes are set apart by blanks: [o i]")
    if char == "*":
        cursor.fail("`*` between axes", cursor.pos, cursor.pos + 1, "a product is written side by side: (h d)")
    cursor.fail(
        f"`{snippet(cursor.text(start) + _rest_of_axis(cursor))}` is no axis",
        start,
        cursor.pos + 1,
        "an axis is a name of letters, digits and _; or a size, `...`, or ( )",
    )
