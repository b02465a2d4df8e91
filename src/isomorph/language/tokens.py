"""A text as lines, and a cursor on one line: the ground under the parser.

A line is split once into indentation, body and comment (`#` at its start or after a blank, outside quotes). A Cursor reads the body
character by character, never going back further than one word, so that reading is linear in the text. What cannot be read is
raised as `Unreadable` and becomes one Gap per line, so that a report holds all of a text's faults.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from isomorph.errors import Gap
from isomorph.language.tree import Span

BLANKS = " \t"
_WORD = re.compile(r"[^ \t]*")
DEFAULT_FILE = "<morph>"
WIDEST = 160
"""Longer lines are shown as a window around the caret."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `raw` as it stands; its body is `raw[start:end]` (no indentation, comment or trailing blanks)."""

    number: int
    raw: str
    start: int
    end: int
    comment: str | None

    @property
    def body(self) -> str:
        return self.raw[self.start : self.end]

    @property
    def indentation(self) -> str:
        return self.raw[: self.start]


class Unreadable(Exception):
    """A part of a line that cannot be read: `raw[start:end]`, why, and what to write instead."""

    def __init__(
        self, message: str, line: Line, start: int, end: int, hint: str | None = None, kind: str = "syntax"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.start = start
        self.end = end
        self.hint = hint
        self.kind = kind

    def gap(self, file: str) -> Gap:
        return gap_at(
            self.kind, self.message, file, self.line.number, self.line.raw, self.start + 1, self.end + 1, self.hint
        )


def gap_at(
    kind: str,
    message: str,
    file: str,
    number: int,
    raw: str | None,
    column: int = 0,
    end: int = 0,
    hint: str | None = None,
    details: tuple[str, ...] = (),
) -> Gap:
    """A Gap with its line drawn: columns are 1-based, 0 for none; a long line is cut to a window around the caret."""
    named = None if file == DEFAULT_FILE else file
    if number <= 0 and raw is not None:  # a statement that was built, not read
        return Gap(kind, message, named, text=snippet(raw, WIDEST), hint=hint, details=details)
    if raw is None or number <= 0:
        return Gap(kind, message, named, number if number > 0 else None, hint=hint, details=details)
    if not column:
        column = len(raw) - len(raw.lstrip(BLANKS)) + 1
        end = max(column + 1, len(raw.rstrip()) + 1)
    start = 0
    if len(raw) > WIDEST:
        start = max(0, min(column - 1 - WIDEST // 2, len(raw) - WIDEST))
    shown = "".join(char if char.isprintable() else " " for char in raw[start : start + WIDEST])
    left = len(shown) - len(shown.lstrip()) if start == 0 else 0
    shown = shown[left:].rstrip()
    first = column - start - left
    last = min(end - start - left, len(shown) + 1)
    if start:
        shown, first, last = "…" + shown, first + 1, last + 1
    return Gap(kind, message, named, number, max(1, first), max(first + 1, last), shown, details, hint)


def snippet(text: str, most: int = 60) -> str:
    """The text for a message: one line, printable, not long."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def split_lines(text: str) -> list[Line]:
    """All lines; a byte order mark and carriage returns at line ends are let pass."""
    return [
        _line(number, raw.removesuffix("\r")) for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1)
    ]


def _line(number: int, raw: str) -> Line:
    start = len(raw) - len(raw.lstrip(BLANKS))
    end, comment = len(raw), None
    if "#" in raw:
        hash_at = _comment_start(raw, start)
        if hash_at is not None:
            end = hash_at
            comment = raw[hash_at + 1 :].rstrip().removeprefix(" ")
    body_end = start + len(raw[start:end].rstrip())
    return Line(number, raw, start, max(start, body_end), comment)


def _comment_start(raw: str, start: int) -> int | None:
    """Where the comment of a line begins: a `#` at its start or after a blank, outside quotes."""
    position, quoted = start, False
    while position < len(raw):
        char = raw[position]
        if quoted:
            if char == "\\":
                position += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char == "#" and (position == start or raw[position - 1] in BLANKS):
            return position
        position += 1
    return None


class Cursor:
    """A position on a line. It reads `raw[pos:end]`; spans are 1-based columns of the whole line."""

    __slots__ = ("depth", "end", "line", "pos")

    def __init__(self, line: Line, start: int | None = None, end: int | None = None) -> None:
        self.line = line
        self.pos = line.start if start is None else start
        self.end = line.end if end is None else end
        self.depth = 0

    @property
    def at_end(self) -> bool:
        return self.pos >= self.end

    @property
    def char(self) -> str:
        """The next character, `""` at the end."""
        return self.line.raw[self.pos] if self.pos < self.end else ""

    def starts(self, text: str) -> bool:
        return self.line.raw.startswith(text, self.pos, self.end)

    def skip_blanks(self) -> None:
        raw, end = self.line.raw, self.end
        while self.pos < end and raw[self.pos] in BLANKS:
            self.pos += 1

    def word(self) -> str:
        """The text up to the next blank, without moving."""
        found = _WORD.match(self.line.raw, self.pos, self.end)
        return found.group() if found is not None else ""

    def identifier(self) -> str:
        """Read an identifier (letters, digits, `_`, not a digit first); `""` when there is none."""
        raw, end, stop = self.line.raw, self.end, self.pos
        if stop < end and raw[stop].isdigit():
            return ""
        while stop < end and (raw[stop] == "_" or raw[stop].isalnum()):
            stop += 1
        found = raw[self.pos : stop]
        if not found.isidentifier():
            return ""
        self.pos = stop
        return found

    def digits(self) -> str:
        """Read ASCII digits; `""` when there are none."""
        raw, end, stop = self.line.raw, self.end, self.pos
        while stop < end and raw[stop] in "0123456789":
            stop += 1
        found = raw[self.pos : stop]
        self.pos = stop
        return found

    def span(self, start: int, end: int | None = None) -> Span:
        return Span(self.line.number, start + 1, (self.pos if end is None else end) + 1)

    def text(self, start: int, end: int | None = None) -> str:
        return self.line.raw[start : self.pos if end is None else end]

    def fail(self, message: str, start: int | None = None, end: int | None = None, hint: str | None = None) -> NoReturn:
        """Refuse `raw[start:end]`: from here to the end of the word when not given."""
        first = self.pos if start is None else start
        if end is None:
            end = max(first + 1, self.pos) if start is not None else first + max(1, len(self.word()))
        raise Unreadable(message, self.line, first, end, hint)
