"""Read one tensor name by one name pattern, and write it back (LANGUAGE.md 3, statements 1-4).

    "layers.3.attn.q_proj.weight"  by  layers.{l}.attn.{p=q|k|v}_proj.{t}   gives  {l: 3, p: 0, t: "weight"}

A value is an int (an index, or a label's position), a str (a word) or a tuple of str (the pieces of a path). Cuts are made by
character class alone; a name that can be cut in two ways is refused, even if one of the cuts would not read.

The work is linear in the name. A pattern that can cut no name in two ways runs as one regular expression made here (the author's
text is only ever literal in it); any other goes through a table of reachable positions, where two cuts are found by comparing the
cut that takes the longest holes, from the first on, with the one that takes the shortest: they agree exactly when there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from isomorph.language.rules import FullName, IndexHole, LabelHole, Literal, NamePiece, PathHole, PieceHole
from isomorph.language.tree import Expression

Value = int | str | tuple[str, ...]
Values = dict[str, Value]

_CANONICAL = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_MOST_DIGITS = 18
"""An index has at most this many digits: more cannot number a tensor, and would not fit 64 bits."""


class TwoCuts(Exception):
    """A name that a pattern can cut in two ways; `cuts` holds the texts of the holes in both."""

    def __init__(self, name: str, pattern: str, cuts: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
        self.name, self.pattern, self.cuts = name, pattern, cuts
        super().__init__(f"`{name}` can be cut in two ways by {pattern}")


class Unsized(Exception):
    """An index that numbers several axes, of which some have no size yet: `axes` names them."""

    def __init__(self, axes: tuple[str, ...]) -> None:
        self.axes = axes
        super().__init__(f"the sizes of {', '.join(axes)} are not known")


@lru_cache(maxsize=1 << 14)
def piece_value(text: str) -> int | str:
    """A canonical number is an index (`0`, `12`, not `01`); anything else is a word."""
    if text.isascii() and text.isdigit() and (len(text) == 1 or text[0] != "0") and len(text) <= _MOST_DIGITS:
        return int(text)
    return text


def number_text(number: int, pad: str | None) -> str:
    """How an index is written: plainly, padded to a width (`02`), or Keras-style (`_`: nothing for 0, `_n` for n > 0)."""
    if pad is None:
        return str(number)
    if pad == "_":
        return "" if number == 0 else f"_{number}"
    return str(number).zfill(int(pad))


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is known of a rule's axes before any tensor is read.

    `known` are the bound sizes (`--set`, `where` without captures, label counts); `number` evaluates an offset.
    """

    known: Mapping[str, int]
    number: Callable[[Expression], int]


class NamePattern:
    """A FullName made ready to read and write many names.

    `bound` are the axes with a bound size: a word does not fit them, and neither does an index at or above the size.
    """

    def __init__(self, name: FullName, sizes: Sizes) -> None:
        self.text = name.text
        self.known = sizes.known
        self.pieces = _settled(name.pieces, sizes)
        self.offsets: dict[int, int] = {
            number: sizes.number(piece.offset)
            for number, piece in enumerate(self.pieces)
            if isinstance(piece, IndexHole)
        }
        first, last = self.pieces[:1], self.pieces[-1:]
        self.prefix = first[0].value if first and isinstance(first[0], Literal) else ""
        self.suffix = last[0].value if last and isinstance(last[0], Literal) else ""
        self.is_literal = all(isinstance(piece, Literal) for piece in self.pieces)
        self.literal = (
            "".join(piece.value for piece in self.pieces if isinstance(piece, Literal)) if self.is_literal else ""
        )
        self.colons = sum(piece.value.count("::") for piece in self.pieces if isinstance(piece, Literal))
        self.holes = tuple(
            (number, piece) for number, piece in enumerate(self.pieces) if not isinstance(piece, Literal)
        )
        self._plain_holes: tuple[tuple[str, bool], ...] = ()
        """(axis, numeric) of every hole, where each takes a piece whatever it is: most patterns of most morphs."""
        if all(_takes_any_piece(piece, self.known) for _, piece in self.holes):
            self._plain_holes = tuple((p.axis, p.numeric) for _, p in self.holes if isinstance(p, PieceHole))
        axes = tuple(axis for axis, _ in self._plain_holes)
        self._words: tuple[str, ...] = ()
        """The axes of those, where each is there once and takes words, too."""
        if len(set(axes)) == len(axes) and not any(numeric for _, numeric in self._plain_holes):
            self._words = axes
        self._template = ""
        self._in_holes: Callable[[Mapping[str, Value]], object] | None = None
        """The text with a `%s` for every plain hole, and what takes their values in this order."""
        if axes:
            texts = (p.value.replace("%", "%%") if isinstance(p, Literal) else "%s" for p in self.pieces)
            self._template, self._in_holes = "".join(texts), itemgetter(*axes)
        self._regex: re.Pattern[str] | None = None
        if not self.is_literal and _has_one_cut(self.pieces):
            self._regex = re.compile("".join(_regex(piece) for piece in self.pieces), re.DOTALL)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def read(self, name: str) -> Values | None:
        """The values of the holes, or None when the name does not fit.

        Raises TwoCuts; raises Unsized when an index numbers several axes of unknown size.
        """
        if self.is_literal:
            return {} if name == self.literal else None
        if not (name.startswith(self.prefix) and name.endswith(self.suffix)):
            return None
        cut = self._cut(name)
        if cut is None:
            return None
        values: Values = {}
        if self._words:
            return dict(zip(self._words, map(piece_value, cut), strict=True))
        if self._plain_holes:
            for (axis, numeric), text in zip(self._plain_holes, cut, strict=True):
                value = piece_value(text)
                if (numeric and type(value) is not int) or values.setdefault(axis, value) != value:
                    return None
            return values
        for (number, piece), text in zip(self.holes, cut, strict=True):
            if not self._read_hole(number, piece, text, values):
                return None
        return values

    def _cut(self, name: str) -> tuple[str, ...] | None:
        if "::" in name and name.count("::") != self.colons:
            return None  # no hole takes `::`
        if self._regex is None:
            return self._cut_by_table(name)
        found = self._regex.fullmatch(name)
        return None if found is None else found.groups()

    def _cut_by_table(self, name: str) -> tuple[str, ...] | None:
        """The only cut, by a table of which pieces can read the rest of the name from where: O(len(name) * len(pieces))."""
        ends = _reachable(self.pieces, name)
        if not ends[0][0]:
            return None
        longest = _walk(self.pieces, name, ends, longest=True)
        shortest = _walk(self.pieces, name, ends, longest=False)
        if longest != shortest:
            raise TwoCuts(name, self.text, (longest, shortest))
        return longest

    def _read_hole(self, number: int, piece: NamePiece, text: str, values: Values) -> bool:
        value: Value
        match piece:
            case LabelHole():
                value = piece.labels.index(text)
            case PieceHole():
                value = piece_value(text)
                size = self.known.get(piece.axis)
                if (piece.numeric or piece.tied or size is not None) and not isinstance(value, int):
                    return False
                if size is not None and isinstance(value, int) and value >= size:
                    return False
            case PathHole():
                value = tuple(text.split(piece.separator)) if piece.separator is not None else (text,)
            case IndexHole():
                return self._read_index(number, piece, text, values)
            case _:
                return True
        return values.setdefault(piece.axis, value) == value

    def _read_index(self, number: int, piece: IndexHole, text: str, values: Values) -> bool:
        digits = text[1:] if piece.pad == "_" else text
        if len(digits) > _MOST_DIGITS:
            return False
        written = int(digits) if digits else 0
        if number_text(written, piece.pad) != text:
            return False
        index = (written - self.offsets[number]) * piece.sign
        if index < 0:
            return False
        unknown = tuple(axis for axis in piece.axes[1:] if axis not in self.known)
        if unknown:
            raise Unsized(unknown)
        for position, axis in reversed(list(enumerate(piece.axes))):
            size = self.known.get(axis)
            if position == 0:
                value = index
                if size is not None and value >= size:
                    return False
            else:
                if size is None or size <= 0:
                    return False
                index, value = divmod(index, size)
            if values.setdefault(axis, value) != value:
                return False
        return True

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, values: Mapping[str, Value], sizes: Mapping[str, int] | None = None) -> str:
        """The name with these values in its holes. `sizes` adds to the bound sizes (an index of several axes needs them).

        Raises KeyError when an axis has no value, Unsized when an index numbers several axes of unknown size, ValueError when an
        index would be negative.
        """
        if self._in_holes is not None:
            return self._template % self._in_holes(values)
        parts: list[str] = []
        for number, piece in enumerate(self.pieces):
            match piece:
                case Literal():
                    parts.append(piece.value)
                case LabelHole():
                    position = values[piece.axis]
                    assert isinstance(position, int)
                    parts.append(piece.labels[position])
                case PieceHole():
                    parts.append(str(values[piece.axis]))
                case PathHole():
                    value = values[piece.axis]
                    path = value if isinstance(value, tuple) else (str(value),)
                    parts.append((piece.separator or ".").join(path))
                case IndexHole():
                    parts.append(number_text(self._index(number, piece, values, sizes or {}), piece.pad))
        return "".join(parts)

    def _index(self, number: int, piece: IndexHole, values: Mapping[str, Value], sizes: Mapping[str, int]) -> int:
        index = 0
        for position, axis in enumerate(piece.axes):
            value = values[axis]
            if not isinstance(value, int):
                raise ValueError(f"`{value}` is a word, and {self.text} writes a number there")
            if position:
                size = self.known.get(axis, sizes.get(axis))
                if size is None:
                    raise Unsized((axis,))
                index *= size
            index += value
        written = self.offsets[number] + piece.sign * index
        if written < 0:
            raise ValueError(f"{self.text} would write {written} there")
        return written


def _takes_any_piece(piece: NamePiece, known: Mapping[str, int]) -> bool:
    return isinstance(piece, PieceHole) and not piece.tied and piece.axis not in known


def _settled(pieces: tuple[NamePiece, ...], sizes: Sizes) -> tuple[NamePiece, ...]:
    """The pieces with every number that has no axis written out, and neighbouring literals merged."""
    settled: list[NamePiece] = []
    for piece in pieces:
        if isinstance(piece, IndexHole) and not piece.axes:
            piece = Literal(number_text(sizes.number(piece.offset), piece.pad))
        if isinstance(piece, Literal) and settled and isinstance(settled[-1], Literal):
            settled[-1] = Literal(settled[-1].value + piece.value)
        elif not (isinstance(piece, Literal) and piece.value == ""):
            settled.append(piece)
    return tuple(settled)


def _regex(piece: NamePiece) -> str:
    match piece:
        case Literal():
            return re.escape(piece.value)
        case LabelHole():
            return "(" + "|".join(re.escape(label) for label in sorted(piece.labels, key=len, reverse=True)) + ")"
        case PieceHole():
            return "([^./]+)"
        case PathHole():
            return "(.+)"
        case IndexHole():
            return "((?:_[0-9]+)?)" if piece.pad == "_" else "([0-9]+)"


def _has_one_cut(pieces: tuple[NamePiece, ...]) -> bool:
    """True when no name at all can be cut in two ways, seen from the pattern alone.

    Dots and slashes in the literals make segments. At most one hole may cross segments (a path, labels of several segments): the
    segments before it are fixed from the left, those after it from the right. Within a segment, one hole at most may have an
    open end: one of changing length whose neighbour on the right could be part of it. Behind an open end a number begins
    where its digits begin, so what stands before it is a text that ends in none.
    """
    crossing = open_ends = 0
    for number, piece in enumerate(pieces):
        following = pieces[number + 1] if number + 1 < len(pieces) else None
        border = following.value[0] if isinstance(following, Literal) else ""
        match piece:
            case Literal():
                if "." in piece.value or "/" in piece.value:
                    open_ends = 0
                continue
            case LabelHole():
                is_open = len({len(label) for label in piece.labels}) > 1
                crossing += is_open and any("." in label or "/" in label for label in piece.labels)
            case PathHole():
                crossing += 1
                is_open = True
            case IndexHole():
                before = pieces[number - 1] if number else None
                starts = isinstance(before, Literal) and not before.value[-1].isdigit()
                is_open = piece.pad == "_" or border == "" or border.isdigit() or (open_ends > 0 and not starts)
            case _:
                is_open = True
        open_ends += is_open
        if crossing > 1 or open_ends > 1:
            return False
    return True


def _fits(piece: NamePiece, character: str) -> bool:
    if isinstance(piece, PieceHole):
        return character not in "./"
    if isinstance(piece, IndexHole):
        return character.isascii() and character.isdigit()
    return True


def _reachable(pieces: tuple[NamePiece, ...], name: str) -> list[list[bool]]:
    """table[j][i]: pieces[j:] can read name[i:] whole."""
    length = len(name)
    table = [[False] * (length + 1) for _ in range(len(pieces) + 1)]
    table[-1][length] = True
    for j in range(len(pieces) - 1, -1, -1):
        piece, rest, row = pieces[j], table[j + 1], table[j]
        if isinstance(piece, Literal | LabelHole):
            texts = (piece.value,) if isinstance(piece, Literal) else piece.labels
            for i in range(length + 1):
                row[i] = any(
                    i + len(text) <= length and rest[i + len(text)] and name.startswith(text, i) for text in texts
                )
            continue
        keras = isinstance(piece, IndexHole) and piece.pad == "_"
        inside = [False] * (length + 2)  # one more character of the hole can follow, and then the rest
        for i in range(length - 1, -1, -1):
            inside[i] = _fits(piece, name[i]) and (rest[i + 1] or inside[i + 1])
        for i in range(length + 1):
            if keras:
                row[i] = rest[i] or (i < length and name[i] == "_" and inside[i + 1])
            else:
                row[i] = inside[i]
    return table


def _walk(pieces: tuple[NamePiece, ...], name: str, table: list[list[bool]], *, longest: bool) -> tuple[str, ...]:
    """The cut whose holes, from the first on, are the longest (or the shortest) that still reach the end."""
    cut: list[str] = []
    i = 0
    for j, piece in enumerate(pieces):
        rest = table[j + 1]
        if isinstance(piece, Literal):
            i += len(piece.value)
            continue
        if isinstance(piece, LabelHole):
            lengths = sorted({len(label) for label in piece.labels if name.startswith(label, i)}, reverse=longest)
            taken = next(length for length in lengths if rest[i + length])
        else:
            lengths = []
            keras = isinstance(piece, IndexHole) and piece.pad == "_"
            if keras and rest[i]:
                lengths.append(0)
            if not keras or name.startswith("_", i):
                end = i + keras
                while end < len(name) and _fits(piece, name[end]):
                    end += 1
                    if rest[end]:
                        lengths.append(end - i)
                        if not longest:
                            break
            taken = lengths[-1] if longest else lengths[0]
        cut.append(name[i : i + taken])
        i += taken
    return tuple(cut)
