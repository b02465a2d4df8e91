"""A tensor name read by one name pattern, and written by it: the verifier's own reading of LANGUAGE.md 3 (1)–(5).

    Pattern("l.{l}.w").read("l.3.w")  →  Reading({"l": 3})        Pattern.write({"l": 3})  →  "l.3.w"

All cuts of a name are counted from left to right, one position at a time, by character class alone; exactly one cut must be left,
and only then are its texts understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from isomorph.language.expressions import whole_number
from isomorph.language.rules import FullName, IndexHole, LabelHole, Literal, NamePiece, PathHole, PieceHole

Value = int | str | tuple[str, ...]
"""What an axis reads in a name: an index or the position of a label (int), a word (str), the pieces of a path (tuple)."""

DIGITS = frozenset("0123456789")
LONGEST_NUMBER = 100
SEPARATORS = re.compile(r"[./]")
BEYOND_DIGITS = re.compile(r"[^0-9]")


class TwoCuts(Exception):
    """A name that a pattern can cut in two ways."""


class UnknownFactor(Exception):
    """A product of indices in a name whose inner size is not known: (the axis)."""


NOTHING: Mapping[str, Value] = {}
"""What most names have of ties: one mapping for all of them."""


@dataclass(slots=True)
class Reading:
    """The values of one name: `axes` of its untied holes, `ties` of its tied ones."""

    axes: Mapping[str, Value]
    ties: Mapping[str, Value]


@dataclass(frozen=True)
class Number:
    """An index hole whose offset is known: text = offset + sign * (row-major number of `axes`)."""

    axes: tuple[str, ...]
    offset: int
    sign: int
    pad: str | None
    tied: bool


def number_text(number: int, pad: str | None) -> str | None:
    """How an index is written; None for a negative one.

    >>> number_text(7, "02"), number_text(0, "_"), number_text(3, "_"), number_text(120, "02")
    ('07', '', '_3', '120')
    """
    if number < 0:
        return None
    if pad == "_":
        return f"_{number}" if number else ""
    return str(number).zfill(int(pad)) if pad else str(number)


def _text_of(number: int, pad: str | None) -> str:
    """A number without an axis as text: it may be negative."""
    text = number_text(number, pad)
    return str(number).zfill(int(pad or 1)) if text is None and pad != "_" else f"_{number}" if text is None else text


def canonical(text: str) -> int | None:
    """The number that `text` is, when it is written as numbers are: `0`, `12`, not `01`."""
    if not text or len(text) > LONGEST_NUMBER or not DIGITS.issuperset(text) or (text[0] == "0" and text != "0"):
        return None
    return int(text)


class Pattern:
    """A FullName, ready to read. `config` gives the offsets of its index holes."""

    def __init__(self, name: FullName, config: Mapping[str, object]) -> None:
        self.name = name
        pieces: list[NamePiece | Number] = []
        for piece in name.pieces:
            if not isinstance(piece, IndexHole):
                pieces.append(piece)
                continue
            offset = whole_number(piece.offset, {}, config)
            if piece.axes:
                pieces.append(Number(piece.axes, offset, piece.sign, piece.pad, piece.tied))
            else:
                pieces.append(Literal(_text_of(offset, piece.pad)))
        self.pieces = tuple(pieces)
        self._head = pieces[0].value if pieces and isinstance(pieces[0], Literal) else ""
        self._tail = pieces[-1].value if pieces and isinstance(pieces[-1], Literal) else ""
        self.is_plain = _has_one_way(self.pieces)

    def may_fit(self, name: str) -> bool:
        """False when the first or the last text of the pattern already rules the name out."""
        return name.startswith(self._head) and name.endswith(self._tail)

    def read(self, name: str, sizes: Mapping[str, int]) -> Reading | None:
        """The values, or None when the name does not fit. `sizes` are the bound ones: an index must lie below.

        Raises TwoCuts, and UnknownFactor when a product cannot be taken apart.
        """
        texts = self.cut(name) if self.may_fit(name) else None
        if texts is None:
            return None
        axes: dict[str, Value] = {}
        ties: dict[str, Value] = {}
        for piece, text in zip(self.pieces, texts, strict=True):
            if isinstance(piece, Literal):
                continue
            values = _understand(piece, text, sizes)
            if values is None:
                return None
            into = ties if not isinstance(piece, PathHole) and piece.tied else axes
            for axis, value in values.items():
                if into.setdefault(axis, value) != value:
                    return None
        return Reading(axes, ties or NOTHING)

    def cut(self, name: str) -> list[str] | None:
        """The text that each piece covers; None when the pattern cannot cover the name. Raises TwoCuts."""
        return self._cut_at_borders(name) if self.is_plain else self.cut_by_counting(name)

    def _cut_at_borders(self, name: str) -> list[str] | None:
        """The cut, where every piece ends at a border of its own and there is at most one."""
        texts: list[str] = []
        at = 0
        for piece in self.pieces:
            if isinstance(piece, Literal):
                end = at + len(piece.value) if name.startswith(piece.value, at) else -1
            elif isinstance(piece, LabelHole):
                end = next((at + len(label) for label in piece.labels if name.startswith(label, at)), -1)
            elif isinstance(piece, PathHole):
                end = len(name) - (len(self._tail) if piece is not self.pieces[-1] else 0)
            else:
                stop = BEYOND_DIGITS if isinstance(piece, Number) else SEPARATORS
                border = stop.search(name, at)
                end = border.start() if border is not None else len(name)
            if end < at or (end == at and not isinstance(piece, Literal | LabelHole)):
                return None
            text = name[at:end]
            if "::" in text and not isinstance(piece, Literal | LabelHole):
                return None
            texts.append(text)
            at = end
        return texts if at == len(name) else None

    def cut_by_counting(self, name: str) -> list[str] | None:
        """The same for any pattern: the ways to reach every position are counted."""
        ways: list[dict[int, int]] = [{0: 1}]
        for piece in self.pieces:
            ways.append(_step(piece, name, ways[-1]))
            if not ways[-1]:
                return None
        if len(name) not in ways[-1]:
            return None
        if ways[-1][len(name)] > 1:
            raise TwoCuts(name)
        texts: list[str] = []
        end = len(name)
        for piece, starts in zip(reversed(self.pieces), reversed(ways[:-1]), strict=True):
            start = next(
                at for at in sorted(starts, reverse=True) if at <= end and end in _step(piece, name, {at: 1}, end)
            )
            texts.append(name[start:end])
            end = start
        return texts[::-1]

    def write(self, axes: Mapping[str, Value], ties: Mapping[str, Value], sizes: Mapping[str, int]) -> str | None:
        """The name that has these values; None when it cannot be written (a word or a negative number as an index)."""
        parts: list[str] = []
        for piece in self.pieces:
            text = piece.value if isinstance(piece, Literal) else _written(piece, axes, ties, sizes)
            if text is None:
                return None
            parts.append(text)
        return "".join(parts)


def _has_one_way(pieces: tuple[NamePiece | Number, ...]) -> bool:
    """True when every piece has at most one place to end, wherever it begins: then there are no two cuts."""
    for place, piece in enumerate(pieces):
        after = pieces[place + 1] if place + 1 < len(pieces) else None
        next_text = after.value[:1] if isinstance(after, Literal) else ""
        if isinstance(piece, PathHole):
            if place < len(pieces) - (1 if after is None else 2) or not (after is None or next_text):
                return False
        elif isinstance(piece, LabelHole):
            labels = set(piece.labels)
            if any(one != two and two.startswith(one) for one in labels for two in labels):
                return False
        elif isinstance(piece, Number):
            if piece.pad == "_" or not (after is None or (next_text and next_text not in DIGITS)):
                return False
        elif isinstance(piece, PieceHole) and not (after is None or (next_text and next_text in "./")):
            return False
    return True


def _step(piece: NamePiece | Number, name: str, starts: Mapping[int, int], most: int | None = None) -> dict[int, int]:
    """end position → number of ways (2 stands for more), for a piece that begins at `starts` (position → ways)."""
    ends: dict[int, int] = {}

    def add(end: int, ways: int) -> None:
        if most is None or end <= most:
            ends[end] = min(2, ends.get(end, 0) + ways)

    if isinstance(piece, Literal):
        for start, ways in starts.items():
            if name.startswith(piece.value, start):
                add(start + len(piece.value), ways)
    elif isinstance(piece, LabelHole):
        for start, ways in starts.items():
            for label in dict.fromkeys(piece.labels):
                if name.startswith(label, start):
                    add(start + len(label), ways)
    elif isinstance(piece, Number) and piece.pad == "_":
        after = {start + 1: ways for start, ways in starts.items() if name.startswith("_", start)}
        for start, ways in starts.items():
            add(start, ways)
        for end, ways in _runs(name, after, DIGITS.__contains__, most).items():
            add(end, ways)
    elif isinstance(piece, Number):
        return _runs(name, starts, DIGITS.__contains__, most)
    elif isinstance(piece, PieceHole):
        return _runs(name, starts, lambda character: character not in "./", most)
    else:
        return _runs(name, starts, lambda character: True, most)
    return ends


def _runs(name: str, starts: Mapping[int, int], allowed: object, most: int | None) -> dict[int, int]:
    """One or more allowed characters, never `::` within."""
    ends: dict[int, int] = {}
    if not starts:
        return ends
    running = 0
    for at in range(min(starts), len(name) if most is None else min(most, len(name))):
        if at and name[at - 1] == name[at] == ":":
            running = 0
        running = min(2, running + starts.get(at, 0))
        if not allowed(name[at]):  # type: ignore[operator] # a predicate on one character
            running = 0
        if running:
            ends[at + 1] = running
    return ends


def _understand(piece: NamePiece | Number, text: str, sizes: Mapping[str, int]) -> dict[str, Value] | None:
    if isinstance(piece, LabelHole):
        return {piece.axis: piece.labels.index(text)}
    if isinstance(piece, PathHole):
        return {piece.axis: tuple(text.split(piece.separator)) if piece.separator else (text,)}
    if isinstance(piece, PieceHole):
        number = canonical(text)
        if number is None:
            return None if piece.numeric or piece.axis in sizes else {piece.axis: text}
        return None if number >= sizes.get(piece.axis, number + 1) else {piece.axis: number}
    assert isinstance(piece, Number)
    digits = text.removeprefix("_") if piece.pad == "_" else text
    if len(digits) > LONGEST_NUMBER:
        return None
    written = int(digits or "0")
    if number_text(written, piece.pad) != text:
        return None
    number = (written - piece.offset) * piece.sign
    if number < 0:
        return None
    values: dict[str, Value] = {}
    for axis in reversed(piece.axes[1:]):
        if axis not in sizes:
            raise UnknownFactor(axis)
        if sizes[axis] == 0:
            return None
        number, values[axis] = divmod(number, sizes[axis])
    first = piece.axes[0]
    if number >= sizes.get(first, number + 1):
        return None
    values[first] = number
    return values


def _written(
    piece: NamePiece | Number, axes: Mapping[str, Value], ties: Mapping[str, Value], sizes: Mapping[str, int]
) -> str | None:
    if isinstance(piece, PathHole):
        value = axes[piece.axis]
        assert isinstance(value, tuple)
        return (piece.separator or "").join(value)
    if isinstance(piece, LabelHole):
        value = (ties if piece.tied else axes)[piece.axis]
        return piece.labels[value] if isinstance(value, int) and value < len(piece.labels) else None
    if isinstance(piece, PieceHole):
        value = (ties if piece.tied else axes)[piece.axis]
        return str(value)
    assert isinstance(piece, Number)
    number = 0
    for place, axis in enumerate(piece.axes):
        value = (ties if piece.tied else axes)[axis]
        if not isinstance(value, int):
            return None
        if place:
            if axis not in sizes:
                raise UnknownFactor(axis)
            number *= sizes[axis]
        number += value
    return number_text(piece.offset + piece.sign * number, piece.pad)
