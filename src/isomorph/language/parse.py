"""Text -> Module: lines become statements, indentation becomes blocks. Every fault of a text is in one MorphError.

Recursive descent by hand: what a line holds is read by the `*_syntax` modules, each with bounded depth; blocks are kept on an
explicit stack. A line that cannot be read costs one gap, and reading goes on with the next line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from isomorph.errors import Gap, MorphError
from isomorph.language.statement_syntax import Opener, read_statement
from isomorph.language.tokens import DEFAULT_FILE, Cursor, Line, Unreadable, gap_at, snippet, split_lines
from isomorph.language.tree import Comments, Module, Statement

MOST_GAPS = 100
DEEPEST_BLOCK = 40
LARGEST_TEXT = 16 << 20
"""Characters of one morph file; the longest known is a few kilobytes."""


def parse(text: str, file: str = DEFAULT_FILE) -> Module:
    """Read a morph. `file` names it in messages; with the default, gaps say only the line.

    >>> parse("w [o i] <-> w [i o]").statements[0].arrow
    '<->'

    Raises MorphError (kind `syntax`) with a gap for every line that cannot be read.
    """
    if len(text) > LARGEST_TEXT:
        raise MorphError(
            [Gap("syntax", f"{len(text)} characters are no morph", None if file == DEFAULT_FILE else file)]
        )
    return _Reader(text, file).module()


@dataclass
class _Block:
    """An open block: its indentation, what it holds so far, and what closes it into a statement (None for the file itself)."""

    indentation: int
    opener: Opener | None = None
    opened_by: Line | None = None
    statements: list[Statement] = field(default_factory=list)


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.gaps: list[Gap] = []
        self.blocks = [_Block(0)]
        self.pending: tuple[Opener | None, Line] | None = None
        """A line that opens a block which has not begun yet; without an opener its line could not be read."""
        self.comments: list[str] = []
        self.version: int | None = None
        self.header = Comments()
        self.started = False

    def module(self) -> Module:
        for line in split_lines(self.text):
            if line.start == line.end:
                self.comments.append(line.comment or "")
                continue
            if len(self.gaps) >= MOST_GAPS:
                self.gaps.append(
                    Gap(
                        "syntax",
                        f"more may be wrong below line {line.number}; mend these first",
                        None if self.file == DEFAULT_FILE else self.file,
                    )
                )
                break
            try:
                self._line(line)
            except Unreadable as fault:
                self.gaps.append(fault.gap(self.file))
                self.comments.clear()
        self._finish()
        if self.gaps:
            raise MorphError(sorted(self.gaps, key=lambda gap: gap.line or 1 << 60))
        footer = tuple(_tidy(self.comments, first=not self.started, last=True))
        return Module(tuple(self.blocks[0].statements), self.version, self.header, footer, self.file, self.text)

    def _line(self, line: Line) -> None:
        fits = self._enter(line)
        first_in_file, self.started = not self.started, True
        cursor = Cursor(line)
        if cursor.word() == "isomorph":
            self._version(cursor, line, first_in_file)
            return
        block = self.blocks[-1]
        comments = Comments(
            tuple(_tidy(self.comments, first=not block.statements and (len(self.blocks) > 1 or self.version is None))),
            line.comment,
        )
        try:
            found = read_statement(cursor, comments)
        except Unreadable:
            if line.body.endswith(":"):
                self.pending = (None, line)
            raise
        self.comments.clear()
        if isinstance(found, Opener):
            self.pending = (found, line)
        elif fits:
            block.statements.append(found)

    # ── indentation ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, line: Line) -> bool:
        """Open and close blocks up to this line. False (and a gap) when its indentation is that of no open block."""
        if "\t" in line.indentation:
            self._gap(line, "a tab in the indentation", hint="indent with blanks", span=(1, line.start + 1))
            self.pending = None
            return False
        width = line.start
        if self.pending is not None:
            opener, opened_by = self.pending
            self.pending = None
            if width > self.blocks[-1].indentation:
                if len(self.blocks) > DEEPEST_BLOCK:
                    raise Unreadable(f"blocks nest deeper than {DEEPEST_BLOCK} levels", line, line.start, line.end)
                self.blocks.append(_Block(width, opener, opened_by))
                return True
            if opener is not None:
                self._empty(opened_by)
        elif width > self.blocks[-1].indentation:
            self._gap(
                line,
                f"`{snippet(line.body)}` is indented, but the line above opens no block",
                hint="a block follows a line that ends in `:`; lines of one block begin in the same column",
            )
            return False
        while width < self.blocks[-1].indentation:
            self._close()
        if width != self.blocks[-1].indentation:
            self._gap(
                line,
                f"`{snippet(line.body)}` is indented like no open block",
                hint="lines of one block begin in the same column",
            )
            return False
        return True

    def _close(self) -> None:
        block = self.blocks.pop()
        if block.opener is not None and block.statements:
            self.blocks[-1].statements.append(block.opener.close(tuple(block.statements)))

    def _finish(self) -> None:
        if self.pending is not None and self.pending[0] is not None:
            self._empty(self.pending[1])
        while len(self.blocks) > 1:
            self._close()

    def _empty(self, line: Line) -> None:
        self._gap(
            line,
            f"`{snippet(line.body)}` opens a block, but no indented line follows",
            hint='indent the lines it holds; a name that ends in `:` is quoted: "x:"',
        )

    # ── the version, gaps ────────────────────────────────────────────────────────────────────────────────────────────

    def _version(self, cursor: Cursor, line: Line, first: bool) -> None:
        rest = line.body[len("isomorph") :].strip()
        if not first or self.version is not None:
            cursor.fail(
                "`isomorph 1` is the first line of a morph, once", hint='a tensor of that name is quoted: "isomorph"'
            )
        if rest != "1":
            cursor.fail(
                f"this is written in version `{snippet(rest)}` of the notation; only version 1 is known",
                line.start,
                line.end,
                "write  isomorph 1",
            )
        self.version = 1
        self.header = Comments(tuple(_tidy(self.comments, first=True)), line.comment)
        self.comments.clear()

    def _gap(self, line: Line, message: str, hint: str | None = None, span: tuple[int, int] = (0, 0)) -> None:
        self.gaps.append(gap_at("syntax", message, self.file, line.number, line.raw, *span, hint=hint))


def _tidy(comments: list[str], *, first: bool, last: bool = False) -> list[str]:
    """Comment lines with runs of blank lines as one; none at the start of a block, none at the end of the file."""
    kept: list[str] = []
    for comment in comments:
        if comment or (kept and kept[-1]) or (not kept and not first):
            kept.append(comment)
    while last and kept and not kept[-1]:
        kept.pop()
    return kept
