"""Protocol buffers on the wire, followed without a schema and without reading what is skipped.

A message is fields, one after the other: a tag (number × 8 + wire type, a varint), then a varint (wire type 0), eight bytes (1),
four bytes (5), or a length and so many bytes (2: text, bytes, another message, packed numbers). Nothing says where a message
ends but the length before it, so that a field of a terabyte is stepped over as quickly as one of a byte.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from isomorph.errors import FormatError
from isomorph.formats.source import Source

if TYPE_CHECKING:
    import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types. 3 and 4 (groups) are of the 2000s, and refused."""

MAX_FIELDS = 20_000_000
LONGEST_VARINT = 10
WINDOW = 1 << 14


class Field(NamedTuple):
    """One field: its number and wire type; `value` of a varint; where its bytes begin and end (a varint's too)."""

    number: int
    wire: int
    value: int
    begin: int
    end: int


class Wire:
    """A file that holds messages. `what` names its kind in errors (`ONNX`)."""

    def __init__(self, source: Source, what: str) -> None:
        self.source, self.what = source, what
        self.seen = 0
        self._base = 0
        self._window = b""

    def broken(self, problem: str, at: int) -> NoReturn:
        raise FormatError(self.source.path, f"broken {self.what}: {problem} (byte {at:,})")

    def text(self, field: Field, most: int = 1 << 16) -> str:
        """A text field. FormatError when it is none, is not UTF-8, or is longer than `most` bytes."""
        self.require(field, BYTES)
        if field.end - field.begin > most:
            self.broken(f"a text of {field.end - field.begin:,} bytes; at most {most:,} are read", field.begin)
        try:
            return self.bytes(field.begin, field.end).decode()
        except UnicodeDecodeError:
            self.broken("a text that is not UTF-8", field.begin)

    def signed(self, field: Field) -> int:
        """A varint field as an int64."""
        self.require(field, VARINT)
        return signed(field.value)

    def require(self, field: Field, wire: int) -> None:
        if field.wire != wire:
            self.broken(f"field {field.number} has wire type {field.wire}, not {wire}", field.begin)

    def bytes(self, begin: int, end: int) -> builtins.bytes:
        low = begin - self._base
        if low < 0 or end - self._base > len(self._window):
            if end - begin > WINDOW:
                return self.source.read(begin, end - begin)
            self._load(begin)
            low = 0
        return self._window[low : low + end - begin]

    def fields(self, begin: int, end: int) -> Iterator[Field]:
        """The fields of the message from byte `begin` to `end`, in order. FormatError when they do not fill it exactly."""
        at, base, window = begin, self._base, self._window
        while at < end:
            self.seen += 1
            if self.seen > MAX_FIELDS:
                raise FormatError(self.source.path, f"its {self.what} has more than {MAX_FIELDS:,} fields")
            first = at
            if not base <= at <= base + len(window) - 2 * LONGEST_VARINT:
                base, window = self._load(at)
            tag = window[at - base]
            at += 1
            if tag >= 0x80:  # the field has a number above 15
                tag, at = self._varint(window, base, first)
            number, wire = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                self.broken(f"a field of the number {number}", first)
            value, start = 0, at
            if wire in (BYTES, VARINT):
                value = window[at - base] if at - base < len(window) else 0x80
                at += 1
                if value >= 0x80:
                    value, at = self._varint(window, base, start)
                if wire == BYTES:
                    start, at, value = at, at + value, 0
            elif wire == FIXED64:
                at += 8
            elif wire == FIXED32:
                at += 4
            else:
                self.broken(f"field {number} has the unknown wire type {wire}", first)
            if at > end:
                whole = "the file" if end == self.source.size else "what it is in"
                have = max(end - start, 0)
                self.broken(f"truncated: field {number} takes {at - start:,} bytes, {whole} ends after {have:,}", first)
            yield Field(number, wire, value, start, at)

    def numbers(self, field: Field, most: int) -> list[int]:
        """A repeated integer field's values: one varint, or many packed ones. FormatError for more than `most`."""
        if field.wire == VARINT:
            return [signed(field.value)]
        self.require(field, BYTES)
        if field.end - field.begin > most * LONGEST_VARINT:
            self.broken(f"more than {most} numbers", field.begin)
        window = self.bytes(field.begin, field.end)
        values: list[int] = []
        at = field.begin
        while at < field.end:
            value, at = self._varint(window, field.begin, at)
            values.append(signed(value))
        return values

    def _load(self, at: int) -> tuple[int, builtins.bytes]:
        """(where it begins, bytes of the file from there)."""
        self._base, self._window = at, self.source.read(at, min(WINDOW, self.source.size - at))
        return at, self._window

    def _varint(self, window: builtins.bytes, base: int, at: int) -> tuple[int, int]:
        """(the number at byte `at`, where it ends). FormatError when it is cut, or has no end."""
        begin, value = at - base, 0
        for place in range(min(LONGEST_VARINT, len(window) - begin)):
            byte = window[begin + place]
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value & (1 << 64) - 1, at + place + 1
        whole = len(window) - begin >= LONGEST_VARINT
        return self.broken("a number without an end" if whole else "truncated in a number", at)


def signed(value: int) -> int:
    """A 64-bit varint as two's complement.

    >>> signed(2**64 - 1)
    -1
    """
    return value - (1 << 64) if value >> 63 else value


def packed_varints(data: bytes) -> tuple[np.ndarray[Any, np.dtype[np.uint64]], int]:
    """All whole varints at the beginning of `data`, and how many bytes they take. ValueError for one without an end.

    >>> packed_varints(bytes([1, 0x96, 1, 0x80]))
    (array([  1, 150], dtype=uint64), 3)
    """
    import numpy as np

    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw < 0x80)
    if len(raw) - (int(ends[-1]) + 1 if len(ends) else 0) >= LONGEST_VARINT:
        raise ValueError("a number without an end")
    if not len(ends):
        return np.empty(0, np.uint64), 0
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > LONGEST_VARINT:
        raise ValueError("a number without an end")
    values = np.zeros(len(ends), np.uint64)
    for place in range(longest):
        there = lengths > place
        values[there] |= (raw[starts[there] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values, int(ends[-1]) + 1
