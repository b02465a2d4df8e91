"""Names: text, wildcards and holes, bare or quoted.

layers.{l+1}.{p=q|k}_proj.*        bare: ends at a blank, `,` or `[`
"my layer {l}: \\{w\\*"            quoted: holes stay active; `\\" \\\\ \\{ \\*` are text
"""

from __future__ import annotations

from isomorph.language.expression_syntax import read_index
from isomorph.language.expressions import NotLinear, linear
from isomorph.language.tokens import BLANKS, Cursor, snippet
from isomorph.language.tree import AxisProduct, Hole, Name, Piece, Text, Wildcard

MOST_PIECES = 256
LONGEST = 4096
"""Characters of one name as written: no tensor's name comes near, and no text can make names costly."""
ESCAPES = '"\\{*'


def read_name(cursor: Cursor) -> Name:
    """A name; the cursor stands at its first character. An empty bare name is refused by the caller."""
    start = cursor.pos
    quoted = cursor.char == '"'
    pieces = _quoted(cursor) if quoted else _bare(cursor)
    if len(pieces) > MOST_PIECES or cursor.pos - start > LONGEST:
        cursor.fail(f"a name is at most {LONGEST} characters and {MOST_PIECES} holes and texts long", start, start + 1)
    if quoted and not cursor.at_end and cursor.char not in BLANKS + ",[":
        cursor.fail(
            "a blank or comma is missing after the closing quote", hint='a quoted name is quoted whole: "a b.{l}"'
        )
    return Name(tuple(pieces), cursor.span(start))


def _bare(cursor: Cursor) -> list[Piece]:
    pieces: list[Piece] = []
    raw, end = cursor.line.raw, cursor.end
    text_start = cursor.pos
    while cursor.pos < end:
        char = raw[cursor.pos]
        if char in " \t,[":
            break
        if char in "*{":
            _text(cursor, text_start, pieces)
            pieces.append(_wildcard(cursor) if char == "*" else _hole(cursor, quoted=False))
            text_start = cursor.pos
            if len(pieces) > MOST_PIECES:
                break
        elif char == "]":
            cursor.fail("`]` closes no `[`", cursor.pos, cursor.pos + 1)
        elif char == "}":
            cursor.fail("`}` closes no `{`", cursor.pos, cursor.pos + 1)
        elif char == '"':
            cursor.fail(
                'a quote `"` inside a name',
                cursor.pos,
                cursor.pos + 1,
                'quote the name whole: "…", with \\" for a quote',
            )
        elif not char.isprintable():
            cursor.fail(
                f"an invisible character (U+{ord(char):04X}) in a name",
                cursor.pos,
                cursor.pos + 1,
                "remove it, or quote the name",
            )
        else:
            cursor.pos += 1
    _text(cursor, text_start, pieces)
    return pieces


def _text(cursor: Cursor, start: int, pieces: list[Piece]) -> None:
    if cursor.pos > start:
        pieces.append(Text(cursor.text(start), cursor.span(start)))


def _quoted(cursor: Cursor) -> list[Piece]:
    opened = cursor.pos
    cursor.pos += 1
    pieces: list[Piece] = []
    chars: list[str] = []
    text_start = cursor.pos

    def flush() -> None:
        if chars:
            pieces.append(Text("".join(chars), cursor.span(text_start)))
            chars.clear()

    while not cursor.at_end:
        char = cursor.char
        if char == '"':
            flush()
            cursor.pos += 1
            if not pieces:
                cursor.fail('an empty name `""`', opened, cursor.pos)
            return pieces
        if char in "*{":
            flush()
            pieces.append(_wildcard(cursor) if char == "*" else _hole(cursor, quoted=True))
            text_start = cursor.pos
            continue
        if char == "\\":
            cursor.pos += 1
            char = cursor.char
            if not char or char not in ESCAPES:
                cursor.fail(
                    f"`\\{char}` is no escape",
                    cursor.pos - 1,
                    cursor.pos + 1,
                    'in quotes, \\" \\\\ \\{ \\* stand for " \\ { *',
                )
        chars.append(char)
        cursor.pos += 1
    return cursor.fail('a quote `"` is not closed', opened, opened + 1)


def _wildcard(cursor: Cursor) -> Wildcard:
    start = cursor.pos
    while cursor.char == "*":
        cursor.pos += 1
    stars = cursor.pos - start
    if stars > 2:
        cursor.fail(
            f"`{snippet(cursor.text(start))}` could be cut in many ways", start, hint="`*` is one piece, `**` any path"
        )
    return Wildcard(stars == 2, cursor.span(start))


# ── holes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _hole(cursor: Cursor, quoted: bool) -> Hole:
    start = cursor.pos
    close = cursor.line.raw.find("}", start, cursor.end)
    inner = cursor.line.raw[start + 1 : close] if close >= 0 else ""
    if close < 0 or "{" in inner or (quoted and '"' in inner):
        cursor.fail("`{` is not closed", start, start + 1)
    shown = snippet(f"{{{inner}}}")
    tied = inner.startswith("=")
    body = Cursor(cursor.line, start + 1 + tied, close)
    cursor.pos = close + 1
    if not inner[tied:].strip(BLANKS):
        cursor.fail(f"an empty hole {shown}", start, hint="write an axis, `{l}`, or `*` for one piece of a name")
    if "|" in inner:
        return _labels(cursor, body, start, shown, tied, quoted)
    pad = _padding(cursor, body, start, shown)
    body.skip_blanks()
    before = body.pos
    axis = body.identifier()
    body.skip_blanks()
    if axis and body.starts("*") and body.pos + 1 == body.end:
        if pad is not None:
            cursor.fail(f"{shown}: a path is no number and takes no padding", start)
        return Hole(axis=axis, path=True, tied=tied, span=cursor.span(start))
    if axis and body.at_end:
        return Hole(axis=axis, pad=pad, tied=tied, span=cursor.span(start))
    if axis and body.char == "=":
        cursor.fail(f"{shown} has one label", start, hint=f"write the text itself, or several: {{{axis}=q|k}}")
    body.pos = before
    return _index(cursor, body, start, shown, tied, pad)


def _labels(cursor: Cursor, body: Cursor, start: int, shown: str, tied: bool, quoted: bool) -> Hole:
    before = body.pos
    axis: str | None = body.identifier()
    if axis and body.char == "=":
        body.pos += 1
    else:
        axis, body.pos = None, before
    labels = tuple(cursor.line.raw[body.pos : body.end].split("|"))
    if axis is None and not tied:
        cursor.fail(
            f"{shown}: labels belong to an axis",
            start,
            hint=f"write {{p={'|'.join(labels)}}}, or {{={'|'.join(labels)}}} for equal copies"
            if len(shown) < 40
            else "write {p=…|…}, or {=…|…} for equal copies",
        )
    if labels[-1].endswith(":_") or (len(labels[-1]) > 2 and labels[-1][-3:-1] == ":0" and labels[-1][-1].isdigit()):
        cursor.fail(f"{shown}: labels take no padding", start)
    for label in labels:
        odd = next((char for char in label if not quoted and (char in ' \t,[]*"' or not char.isprintable())), None)
        if odd is not None:
            cursor.fail(f"{shown}: a label with `{odd}`", start, hint='quote the whole name: "…"')
        if quoted and ("*" in label or "\\" in label):
            cursor.fail(f"{shown}: a label holds no `*` and no `\\`", start)
    return Hole(axis=axis, labels=labels, tied=tied, span=cursor.span(start))


def _padding(cursor: Cursor, body: Cursor, start: int, shown: str) -> str | None:
    """Cut `:02` or `:_` off the end of a hole."""
    inside = body.text(body.pos, body.end)
    before, colon, pad = inside.rpartition(":")
    if not colon:
        return None
    if pad != "_" and not (len(pad) == 2 and pad[0] == "0" and pad[1] in "0123456789"):
        hint = (
            f"a number padded to {pad} digits is {{…:0{pad}}}"
            if len(pad) == 1 and pad in "123456789"
            else "write :02 (two digits) or :_ (Keras)"
        )
        cursor.fail(f"{shown}: `:{pad}` is no padding", start, hint=hint)
    body.end = body.pos + len(before)
    return pad


def _index(cursor: Cursor, body: Cursor, start: int, shown: str, tied: bool, pad: str | None) -> Hole:
    expression = read_index(body)
    body.skip_blanks()
    if not body.at_end:
        cursor.fail(
            f"{shown} cannot be read as an index",
            start,
            hint="for example {l+1}, {config.num_layers-1-l}, {(s j)} or {l:02}",
        )
    try:
        form = linear(expression)
    except NotLinear as reason:
        cursor.fail(f"{shown} is no index: {reason}", start)
    if len(form.axes) > 1:
        if len(set(form.axes)) < len(form.axes):
            cursor.fail(f"{shown} has an axis twice", start)
        if form.sign < 0 or not _is_shift(expression):
            cursor.fail(f"{shown}: a product of axes is only shifted by a number", start, hint="for example {(s j)+1}")
    if tied and not form.axes:
        cursor.fail(f"{shown} ties no axis", start, hint="{=r} is equal copies over r, {=a|b} over names")
    return Hole(index=expression, pad=pad, tied=tied, span=cursor.span(start))


def _is_shift(expression: object) -> bool:
    from isomorph.language.tree import Binary, Number

    if isinstance(expression, Binary):
        return isinstance(expression.left, AxisProduct) and isinstance(expression.right, Number)
    return isinstance(expression, AxisProduct)
