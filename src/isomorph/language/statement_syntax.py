"""Statements: what one line holds. A line that opens a block gives an Opener, closed with what the block holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from isomorph.errors import near_misses
from isomorph.language.expression_syntax import read_bindings, read_test
from isomorph.language.name_syntax import read_name
from isomorph.language.operator_syntax import read_operators
from isomorph.language.term_syntax import ARROWS, read_term
from isomorph.language.tokens import BLANKS, Cursor, snippet
from isomorph.language.tree import (
    Arrow,
    Assert,
    Binding,
    Comments,
    Constant,
    Drop,
    DropStatement,
    Equation,
    Name,
    Op,
    OperatorLine,
    Paths,
    Scope,
    Statement,
    Term,
    Use,
    When,
    Where,
)

KEYWORDS = ("drop", "where", "use", "paths", "when", "assert", "isomorph")
MOST_TERMS = 1024
_ARROW_WORDS: dict[str, tuple[Arrow, bool]] = {
    "<->": ("<->", False),
    "<->?": ("<->", True),
    "->": ("->", False),
    "->?": ("->", True),
    "<-": ("<-", False),
    "<-?": ("<-", True),
}


@dataclass(frozen=True)
class Opener:
    """A line that opens a block: `close` makes the statement of what the block holds."""

    close: Callable[[tuple[Statement, ...]], Statement]


def read_statement(cursor: Cursor, comments: Comments) -> Statement | Opener:
    """The statement of a line; the cursor stands at its first character."""
    start = cursor.pos
    word = cursor.word()
    readers: dict[str, Callable[[Cursor, Comments, int], Statement | Opener]] = {
        "where": _where,
        "|": _operator_line,
        "use": _use,
        "use?": _use,
        "paths": _paths,
        "when": _when,
        "assert": _assert,
        "?": _open,
    }
    reader = readers.get(word)
    if reader is not None:
        cursor.pos += len(word)
        return reader(cursor, comments, start)
    if word in ("drop", "drop?") and not _has_arrow(cursor):
        return _drop(cursor, comments, start)
    if _ends_in_colon(cursor):
        return _scope(cursor, comments, start)
    return _equation(cursor, comments, start)


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _open(cursor: Cursor, comments: Comments, start: int) -> Statement:
    cursor.skip_blanks()
    if cursor.at_end:
        cursor.fail("`?` stands before a rule: an open alternative", start, start + 1)
    if _ends_in_colon(cursor) or not _has_arrow(cursor):
        cursor.fail("`?` stands only before a rule", start, start + 1, "a rule has an arrow:  ? a <-> b")
    return _equation(cursor, comments, start, is_open=True)


def _equation(cursor: Cursor, comments: Comments, start: int, is_open: bool = False) -> Equation:
    left = _side(cursor, "before")
    arrow, maybe = _arrow(cursor)
    right = _side(cursor, "after", arrow)
    operators: tuple[Op, ...] = ()
    where: tuple[Binding, ...] = ()
    cursor.skip_blanks()
    if cursor.word() == "|":
        cursor.pos += 1
        operators = read_operators(cursor)
        cursor.skip_blanks()
    if cursor.word() == "where":
        cursor.pos += len("where")
        where = read_bindings(cursor)
    if not cursor.at_end:
        _after_terms(cursor, right)
    return Equation(left, arrow, right, maybe, is_open, operators, where, comments, cursor.span(start, cursor.end))


def _side(cursor: Cursor, where: str, arrow: str = "") -> tuple[Term, ...]:
    terms: list[Term] = []
    while True:
        cursor.skip_blanks()
        word = cursor.word()
        if cursor.at_end or word in _ARROW_WORDS or word == "|":
            _missing_term(cursor, where, word if word in _ARROW_WORDS else arrow, bool(terms))
        if cursor.char == ",":
            cursor.fail("a term is missing before the comma `,`", cursor.pos, cursor.pos + 1)
        terms.append(read_term(cursor))
        if len(terms) > MOST_TERMS:
            cursor.fail(f"more than {MOST_TERMS} terms on one side")
        cursor.skip_blanks()
        if cursor.char != ",":
            return tuple(terms)
        cursor.pos += 1


def _missing_term(cursor: Cursor, where: str, arrow: str, after_comma: bool) -> NoReturn:
    start = cursor.pos if not cursor.at_end else max(cursor.line.start, cursor.end - max(1, len(arrow)))
    end = start + max(1, len(arrow)) if arrow else start + 1
    if after_comma:
        cursor.fail("a term is missing after the comma `,`", start, end)
    hint = (
        "to leave a tensor out write  drop NAME"
        if where == "after"
        else "an empty left prefix is only for a scope, which ends in `:`"
    )
    cursor.fail(f"a rule needs a term {where} `{arrow or '<->'}`", start, end, hint)


def _arrow(cursor: Cursor) -> tuple[Arrow, bool]:
    cursor.skip_blanks()
    word = cursor.word()
    if word not in _ARROW_WORDS:
        _no_arrow(cursor, word)
    cursor.pos += len(word)
    arrow, maybe = _ARROW_WORDS[word]
    cursor.skip_blanks()
    if not maybe and cursor.word() == "?" and cursor.line.raw[cursor.pos + 1 : cursor.end].strip(BLANKS):
        cursor.pos += 1
        maybe = True
    return arrow, maybe


def _no_arrow(cursor: Cursor, word: str) -> NoReturn:
    """The line went on with something that is no arrow: say what the line looks like."""
    line = cursor.line
    body = snippet(line.body)
    first = line.body.split(None, 1)[0]
    if _has_arrow(cursor):
        if "]" in word and "[" not in word:
            at = line.raw.find("]", cursor.pos)
            cursor.fail("`]` closes no `[`", at, at + 1)
        if word == ":":
            cursor.fail("a lone `:`", cursor.pos, cursor.pos + 1)
        text = line.raw[line.start : _arrow_position(cursor)].rstrip()
        hint = f'"{snippet(text.rpartition(", ")[2])}"' if '"' not in text and "[" not in text else '"…"'
        cursor.fail(
            f"`{snippet(text)}`: two words where one name should be",
            cursor.pos,
            cursor.pos + len(word),
            f"a name with blanks is quoted: {hint}",
        )
    if any(arrow in line.body for arrow in ARROWS):
        at = min(found for arrow in ARROWS if (found := line.raw.find(arrow, line.start)) >= 0)
        for word in body.split():
            if word not in ARROWS and set(word) <= set("<->=~?"):
                start = line.raw.find(word, line.start)
                cursor.fail(f"`{snippet(word)}` is no arrow", start, start + len(word), "a rule is written  a <-> b")
        cursor.fail(
            f"`{body}`: an arrow has blanks around it",
            at,
            at + 3 if line.raw.startswith("<->", at) else at + 2,
            "write  a <-> b",
        )
    for wrong in ("=", "==", "=>", "<=>", "<-->", "<=", "~>", "-->", "→", "↔"):
        if f" {wrong} " in f" {line.body} ":
            at = f" {line.raw} ".find(f" {wrong} ", max(0, line.start - 1))
            cursor.fail(f"`{wrong}` is no arrow", at, at + len(wrong), "a rule is written  a <-> b")
    near = near_misses(first[:20].lower(), KEYWORDS)
    if near and " " in line.body:
        cursor.fail(f"`{body}` is no statement", line.start, line.start + len(first), f"did you mean `{near[0]}`?")
    cursor.fail(
        f"`{body}` is no statement: a rule has an arrow",
        line.start,
        line.end,
        f"write  {snippet(first)} <-> …,  or  drop {snippet(first)};  statements begin with {', '.join(KEYWORDS[:-1])} or |",
    )


def _after_terms(cursor: Cursor, terms: tuple[Term, ...]) -> NoReturn:
    word = cursor.word()
    if word in _ARROW_WORDS:
        cursor.fail(f"a second arrow `{word}` in one rule", hint="write one rule for each pair")
    if "]" in word and "[" not in word:
        at = cursor.line.raw.find("]", cursor.pos)
        cursor.fail("`]` closes no `[`", at, at + 1)
    if word.startswith("|") and len(word) > 1:
        cursor.fail("a bar has blanks around it", hint=f"write  | {snippet(word[1:])}")
    if word == ":":
        cursor.fail("a scope ends in `:` and holds prefixes only", cursor.pos, cursor.pos + 1)
    last = cursor.text(terms[-1].span.column - 1, terms[-1].span.end - 1)
    cursor.fail(
        f"`{snippet(word)}` after the last term",
        hint=f'a name with blanks is quoted: "{snippet(last)} {snippet(word)}"'
        if '"' not in last and "[" not in last
        else "terms are set apart by commas",
    )


def _drop(cursor: Cursor, comments: Comments, start: int) -> DropStatement:
    word = cursor.word()
    cursor.pos += len(word)
    maybe = word == "drop?"
    cursor.skip_blanks()
    if not maybe and cursor.word() == "?":
        cursor.pos += 1
        maybe = True
        cursor.skip_blanks()
    if cursor.at_end:
        cursor.fail("`drop` of nothing", start, hint="name what goes nowhere:  drop **.position_ids")
    terms: list[Term] = []
    while True:
        cursor.skip_blanks()
        if cursor.at_end or cursor.char == ",":
            cursor.fail(
                "a name is missing beside the comma `,`",
                min(cursor.pos, cursor.end - 1),
                min(cursor.pos, cursor.end - 1) + 1,
            )
        before = cursor.pos
        term = read_term(cursor)
        if isinstance(term.head, Constant | Drop):
            cursor.fail("`drop` takes names of tensors", before, hint='a tensor of that name is quoted: drop "0"')
        terms.append(term)
        if len(terms) > MOST_TERMS:
            cursor.fail(f"more than {MOST_TERMS} terms in one line")
        cursor.skip_blanks()
        if cursor.at_end:
            return DropStatement(tuple(terms), maybe, comments, cursor.span(start))
        if cursor.char != ",":
            if cursor.word() in ("where", "|"):
                cursor.fail(f"`drop` takes no `{cursor.word()}`", hint="write the rule in full:  NAME <-> drop where …")
            _after_terms(cursor, tuple(terms))
        cursor.pos += 1


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ends_in_colon(cursor: Cursor) -> bool:
    """True when the line ends in `:` outside quotes."""
    raw = cursor.line.raw
    if cursor.end == cursor.pos or raw[cursor.end - 1] != ":":
        return False
    quoted, position = False, cursor.pos
    while position < cursor.end - 1:
        if raw[position] == "\\" and quoted:
            position += 1
        elif raw[position] == '"':
            quoted = not quoted
        position += 1
    return not quoted


def _scope(cursor: Cursor, comments: Comments, start: int) -> Opener:
    end = cursor.end
    cursor.end -= 1
    left = _prefix(cursor)
    cursor.skip_blanks()
    word = cursor.word()
    if word.rstrip("?") in ("->", "<-") or word == "<->?":
        cursor.fail(
            f"a scope puts prefixes on both sides: `<->`, not `{word}`", hint="one-way and `?` are for the rules inside"
        )
    if word != "<->":
        cursor.end = end
        if not word:
            cursor.fail(
                f"`{snippet(cursor.line.body)}` ends in `:` but is no scope",
                start,
                end,
                "a scope is  left. <-> right.: ;  a name that ends in `:` is quoted",
            )
        _no_arrow(cursor, word)
    cursor.pos += len(word)
    right = _prefix(cursor)
    cursor.skip_blanks()
    if not cursor.at_end:
        word = cursor.word()
        if word in _ARROW_WORDS:
            cursor.fail(f"a second arrow `{word}` in one scope")
        cursor.fail(
            f"`{snippet(word)}` does not belong to a scope, which holds two prefixes",
            hint="a name with blanks is quoted",
        )
    span = cursor.span(start, end)
    return Opener(lambda body: Scope(left, right, body, comments, span))


def _prefix(cursor: Cursor) -> Name:
    cursor.skip_blanks()
    start = cursor.pos
    if cursor.at_end or cursor.word() in _ARROW_WORDS:
        return Name((), cursor.span(start))
    name = read_name(cursor)
    if cursor.char in ("[", ","):
        cursor.fail(
            "a prefix is a name, without axes or commas",
            cursor.pos,
            cursor.pos + 1,
            "a rule line that ends in `:` is a scope; a name that ends in `:` is quoted",
        )
    return name


def _when(cursor: Cursor, comments: Comments, start: int) -> Opener:
    if not _ends_in_colon(cursor):
        cursor.fail(
            f"`{snippet(cursor.line.body)}` has no `:` at its end",
            start,
            cursor.end,
            "a `when` opens a block:  when config.bias:",
        )
    end = cursor.end
    cursor.end -= 1
    test = read_test(cursor)
    span = cursor.span(start, end)
    return Opener(lambda body: When(test, body, comments, span))


# ── lines that reach down their block ────────────────────────────────────────────────────────────────────────────────


def _where(cursor: Cursor, comments: Comments, start: int) -> Where:
    _no_tensor(cursor, "where", start)
    return Where(read_bindings(cursor), comments, cursor.span(start, cursor.end))


def _operator_line(cursor: Cursor, comments: Comments, start: int) -> OperatorLine:
    operators = read_operators(cursor)
    if not cursor.at_end:
        cursor.fail("`where` is a line of its own", hint="a `|` line holds operators only")
    return OperatorLine(operators, comments, cursor.span(start))


def _assert(cursor: Cursor, comments: Comments, start: int) -> Assert:
    _no_tensor(cursor, "assert", start)
    return Assert(read_test(cursor), comments, cursor.span(start, cursor.end))


def _use(cursor: Cursor, comments: Comments, start: int) -> Use:
    word = cursor.text(start)
    _no_tensor(cursor, "use", start)
    maybe = word == "use?"
    cursor.skip_blanks()
    if not maybe and cursor.word() == "?":
        cursor.pos += 1
        maybe = True
        cursor.skip_blanks()
    inverse = cursor.word() == "inverse"
    if inverse:
        cursor.pos += len("inverse")
        cursor.skip_blanks()
    if cursor.at_end:
        cursor.fail("`use` names no file", start, hint="for example  use attention  or  use inverse clip/hf")
    file = _word_or_quoted(cursor)
    cursor.skip_blanks()
    if not cursor.at_end:
        cursor.fail(f"`{snippet(cursor.word())}` after the file that is used", hint="a file name with blanks is quoted")
    return Use(file, maybe, inverse, comments, cursor.span(start))


def _paths(cursor: Cursor, comments: Comments, start: int) -> Paths:
    hint = "for example  paths . <-> /"
    cursor.skip_blanks()
    if cursor.at_end or cursor.word() == "<->":
        cursor.fail("`paths` needs a separator on each side", start, cursor.end, hint)
    left = _word_or_quoted(cursor)
    cursor.skip_blanks()
    if cursor.word() != "<->":
        cursor.fail("`paths` needs `<->` between two separators", start, cursor.end, hint)
    cursor.pos += len("<->")
    cursor.skip_blanks()
    if cursor.at_end:
        cursor.fail("`paths` needs a separator on each side", start, cursor.end, hint)
    right = _word_or_quoted(cursor)
    cursor.skip_blanks()
    if not cursor.at_end:
        cursor.fail(f"`{snippet(cursor.word())}` after the separators", hint=hint)
    return Paths(left, right, comments, cursor.span(start))


def _word_or_quoted(cursor: Cursor) -> str:
    start = cursor.pos
    if cursor.char != '"':
        word = cursor.word()
        cursor.pos += len(word)
        if '"' in word:
            cursor.fail('a quote `"` inside a word', start)
        return word
    cursor.pos += 1
    chars: list[str] = []
    while not cursor.at_end:
        char = cursor.char
        cursor.pos += 1
        if char == '"':
            if not chars:
                cursor.fail('nothing between the quotes `""`', start)
            return "".join(chars)
        if char == "\\":
            char = cursor.char
            if not char or char not in '"\\':
                cursor.fail('only `\\"` and `\\\\` are escapes here', cursor.pos - 1, cursor.pos + 1)
            cursor.pos += 1
        chars.append(char)
    return cursor.fail('a quote `"` is not closed', start, start + 1)


# ── looking ahead ────────────────────────────────────────────────────────────────────────────────────────────────────


def _arrow_position(cursor: Cursor) -> int:
    """Where the first arrow of the line stands, outside quotes and with blanks around it; -1 when there is none."""
    raw, end = cursor.line.raw, cursor.end
    position, quoted = cursor.line.start, False
    while position < end:
        char = raw[position]
        if quoted:
            if char == "\\":
                position += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char in "<-" and (position == cursor.line.start or raw[position - 1] in BLANKS):
            stop = position
            while stop < end and raw[stop] not in BLANKS:
                stop += 1
            if raw[position:stop] in _ARROW_WORDS:
                return position
        position += 1
    return -1


def _has_arrow(cursor: Cursor) -> bool:
    return _arrow_position(cursor) >= 0


def _no_tensor(cursor: Cursor, word: str, start: int) -> None:
    """Refuse `where <-> x`: a tensor of that name is quoted."""
    cursor.skip_blanks()
    if cursor.word() in _ARROW_WORDS or cursor.char == "[":
        cursor.fail(
            f"a first name that reads as `{word}` is quoted", start, start + len(word), f'"{word}" {cursor.word()} …'
        )
