"""Value operators after a bar: `f16 -> f32, neg`, `f32 ~> f8e4m3 saturate`, `add 1`, a plug-in with its arguments.

`resize h w -> y x timm`: an operator along axes replaces those before the arrow by those after it, one by one; then its arguments.
"""

from __future__ import annotations

from isomorph.errors import near_misses
from isomorph.language.term_syntax import NUMBER, read_dtype
from isomorph.language.tokens import Cursor, snippet
from isomorph.language.tree import Op
from isomorph.tensors import DTYPES

PLAIN = ("neg", "exp", "log", "sum")
WITH_NUMBER = ("add", "mul")
MOST = 64

_Word = tuple[str, int, int]


def read_operators(cursor: Cursor) -> tuple[Op, ...]:
    """Operators, to the end or to the word `where`; the cursor stands after the bar."""
    operators: list[Op] = []
    while True:
        words = _words(cursor)
        if not words:
            at = max(cursor.line.start, min(cursor.pos, cursor.end - 1))
            cursor.fail(
                "an operator is missing" + (" before `,`" if cursor.char == "," else ""),
                at,
                at + 1,
                "for example  | f32 ~> bf16  or  | neg",
            )
        operators.append(_operator(cursor, words))
        if len(operators) > MOST:
            cursor.fail(f"more than {MOST} operators in one line", words[0][1], words[0][2])
        if cursor.char != ",":
            return tuple(operators)
        cursor.pos += 1


def _words(cursor: Cursor) -> list[_Word]:
    """The words of one operator. The cursor is left at its comma, at `where`, or at the end."""
    words: list[_Word] = []
    raw = cursor.line.raw
    while True:
        cursor.skip_blanks()
        if cursor.at_end or cursor.char == "," or cursor.word() == "where":
            return words
        start = cursor.pos
        while cursor.pos < cursor.end and raw[cursor.pos] not in " \t,":
            cursor.pos += 1
        words.append((raw[start : cursor.pos], start, cursor.pos))
        if len(words) > MOST:
            cursor.fail("too many words for one operator", start)


def _operator(cursor: Cursor, words: list[_Word]) -> Op:
    name, start, end = words[0]
    span = cursor.span(start, words[-1][2])
    rest = words[1:]
    if rest and rest[0][0] in ("->", "~>"):
        return _cast(cursor, words)
    if name in PLAIN:
        if rest:
            cursor.fail(
                f"`{name}` takes nothing after it", rest[0][1], rest[-1][2], "operators are set apart by commas"
            )
        return Op(name, span=span)
    if name in WITH_NUMBER:
        if not rest:
            cursor.fail(f"`{name}` needs its number", start, end, f"for example  {name} 2")
        number, number_start, number_end = rest[0]
        if NUMBER.fullmatch(number) is None or number.endswith("inf"):
            cursor.fail(
                f"`{name} {snippet(number)}`: `{snippet(number)}` is no number",
                number_start,
                number_end,
                "digits, with a point if need be: 0.5, not 5e-1",
            )
        if len(rest) > 1:
            cursor.fail(f"`{name}` takes one number", rest[1][1], rest[-1][2])
        return Op(name, number=number, span=span)
    if name == "saturate":
        cursor.fail("`saturate` follows a cast", start, end, "for example  f32 ~> f8e4m3 saturate")
    if name in ("->", "~>"):
        cursor.fail(f"the dtype before `{name}` is missing", start, end, "for example  f32 ~> bf16, or float ~> bf16")
    if "->" in name or "~>" in name:
        cursor.fail(f"`{snippet(name)}`: an arrow has blanks around it", start, end, "for example  f32 ~> bf16")
    if name in DTYPES or name == "float":
        cursor.fail(
            f"`{name}` alone is no operator",
            start,
            end,
            f"a cast is  {name} -> f32  (exact) or  {name} ~> f32  (rounds)",
        )
    if not name.replace("-", "_").isidentifier():
        cursor.fail(f"`{snippet(name)}` is no operator", start, end)
    near = near_misses(name[:40], (*PLAIN, *WITH_NUMBER, "saturate"))
    if near and abs(len(near[0]) - len(name)) <= 1 and not rest:
        cursor.fail(f"`{snippet(name)}` is no operator", start, end, f"did you mean `{near[0]}`?")
    arrow = next((place for place, (word, _, _) in enumerate(rest) if word in ("->", "~>")), None)
    if arrow is not None:
        return _along_axes(cursor, words, arrow + 1)
    return Op(name, arguments=tuple(word for word, _, _ in rest), span=span)


def _along_axes(cursor: Cursor, words: list[_Word], arrow: int) -> Op:
    """`resize h w -> y x timm`; the arrow is word number `arrow`, and as many axes stand after it as before."""
    name, start, _ = words[0]
    _, arrow_start, arrow_end = words[arrow]
    if words[arrow][0] == "~>":
        cursor.fail(f"axes are replaced by `->`: {name} n -> m", arrow_start, arrow_end)
    takes = words[1:arrow]
    makes = words[arrow + 1 : arrow + 1 + len(takes)]
    if len(makes) < len(takes):
        cursor.fail(
            f"`{name}` replaces axes one by one: {len(takes)} before the arrow, {len(makes)} after it",
            start,
            words[-1][2],
            "write 1 for an axis that is gone",
        )
    for side in (takes, makes):
        seen: set[str] = set()
        for word, word_start, word_end in side:
            is_unit = word == "1" and side is makes
            if not is_unit and not word.isidentifier():
                cursor.fail(f"`{snippet(word)}` is no axis", word_start, word_end, f"for example  {name} n -> m")
            if word in seen and not is_unit:
                cursor.fail(f"axis `{snippet(word)}` stands twice", word_start, word_end)
            seen.add(word)
    return Op(
        name,
        arguments=tuple(word for word, _, _ in words[arrow + 1 + len(takes) :]),
        takes=tuple(word for word, _, _ in takes),
        makes=tuple(word for word, _, _ in makes),
        span=cursor.span(start, words[-1][2]),
    )


def _cast(cursor: Cursor, words: list[_Word]) -> Op:
    source, source_start, source_end = words[0]
    arrow, arrow_start, arrow_end = words[1]
    source = read_dtype(cursor, source, source_start, source_end, also_float=True)
    if len(words) < 3:
        cursor.fail(f"the dtype after `{arrow}` is missing", arrow_start, arrow_end)
    target = read_dtype(cursor, *words[2])
    rest = words[3:]
    saturate = bool(rest) and rest[0][0] == "saturate"
    if rest[saturate:]:
        cursor.fail(
            f"`{snippet(rest[int(saturate)][0])}` after a cast",
            rest[int(saturate)][1],
            rest[-1][2],
            "only `saturate` may follow; operators are set apart by commas",
        )
    return Op(
        "cast",
        source=source,
        target=target,
        rounding=arrow == "~>",
        saturate=saturate,
        span=cursor.span(source_start, words[-1][2]),
    )
