"""GGUF, versions 2 and 3: typed metadata, the list of tensors, then their bytes; dims are written fastest first.

    "GGUF" · u32 version · u64 number of tensors · u64 number of values
    value:   string key (u64 length, bytes) · u32 type · its bytes        (gguf_values.py)
    tensor:  string name · u32 n dims · n u64 dims · u32 ggml type · u64 offset from the start of the data
    the data begins at the next multiple of general.alignment (32), as does each tensor in it

Quantised tensors are carried in items: blocks of 32 to 256 numbers with their scales. Every count is held against the bytes that
are there before anything is made of it. (Layout: ggml/docs/gguf.md; what a loader takes: ggml/src/gguf.cpp.)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NoReturn

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.gguf.values import ARRAY, MOST_DEPTH, NAMES, STRING, Value, alignment_of, as_metadata, width
from isomorph.formats.source import Source
from isomorph.tensors import GGML_BLOCKS, DType, TensorSpec, dtype

MAGIC = b"GGUF"
VERSIONS = (2, 3)

TYPES: Mapping[int, DType] = {
    **{
        number: dtype(name)
        for number, name in [
            (0, "f32"), (1, "f16"), (24, "i8"), (25, "i16"), (26, "i32"), (27, "i64"), (28, "f64"), (30, "bf16"),
        ]
    },
    **{
        number: GGML_BLOCKS[name]
        for number, name in [
            (2, "q4_0"), (3, "q4_1"), (6, "q5_0"), (7, "q5_1"), (8, "q8_0"), (9, "q8_1"), (10, "q2_k"), (11, "q3_k"), (12, "q4_k"),
            (13, "q5_k"), (14, "q6_k"), (15, "q8_k"), (16, "iq2_xxs"), (17, "iq2_xs"), (18, "iq3_xxs"), (19, "iq1_s"),
            (20, "iq4_nl"), (21, "iq3_s"), (22, "iq2_s"), (23, "iq4_xs"), (29, "iq1_m"), (34, "tq1_0"), (35, "tq2_0"),
            (39, "mxfp4"), (40, "nvfp4"), (41, "q1_0"),
        ]
    },
}  # fmt: skip
"""Number of a ggml type -> dtype. (Numbers as in ggml.h; 4, 5, 31 to 33 and 36 to 38 were types once.)"""

NUMBERS = {kind.name: number for number, kind in TYPES.items()}

MOST_DIMS = 4
MOST_TEXT = 1 << 16
"""Bytes of a key or of a tensor's name."""
MOST_METADATA = 64 << 20
"""Bytes of all values, and EACH_VALUE for each of them: the largest vocabularies take a third of it."""
EACH_VALUE = 100
MOST_LISTED = 100_000_000
"""Bytes of the list of tensors, as of a safetensors header."""
LARGEST_SIZE = 1 << 63
WINDOW = 1 << 20
SMALLEST_TENSOR, SMALLEST_VALUE = 24, 13
"""Bytes that a tensor of no name and no dims, and a value of no key, take in the header."""


class Header:
    """What stands before the data: `values` in their order, `tensors` with their offsets into the file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values: dict[str, Value] = {}
        self.tensors: dict[str, tuple[TensorSpec, int]] = {}
        self._cursor = Cursor(source)
        self.version, tensors, values = self._start()
        for _ in range(values):
            self._value()
        self._listed = self._cursor.at
        found: dict[str, tuple[TensorSpec, int]] = {}
        for _ in range(tensors):
            self._tensor(found)
        alignment = alignment_of(self.values, lambda problem: FormatError(source.path, problem))
        data = self._cursor.at + -self._cursor.at % alignment
        for name, (spec, offset) in found.items():
            if offset % alignment:
                raise FormatError(
                    source.path,
                    f"tensor `{printable(name)}` begins at byte {offset:,} of the data, which is no multiple of {alignment}",
                )
            self.tensors[name] = (spec, data + offset)

    def _start(self) -> tuple[int, int, int]:
        cursor, path = self._cursor, self.source.path
        if cursor.take(4) != MAGIC:
            raise FormatError(path, "not a GGUF file: it does not begin with GGUF")
        version = cursor.number(4)
        if version not in VERSIONS:
            if version & 0xFFFF == 0 and version >> 24 in VERSIONS:
                raise FormatError(
                    path,
                    "a big-endian GGUF file, which is not read",
                    "Turn it round with gguf's own gguf-convert-endian, FILE little",
                )
            raise FormatError(path, f"a GGUF file of version {version:,}; versions 2 and 3 are read")
        tensors, values = cursor.number(8), cursor.number(8)
        for count, least, what in ((tensors, SMALLEST_TENSOR, "tensors"), (values, SMALLEST_VALUE, "values")):
            if count * least > cursor.left:
                raise FormatError(
                    path,
                    f"its header claims {count:,} {what}, which {cursor.left:,} bytes cannot hold: truncated or corrupt",
                )
        return version, tensors, values

    def _value(self) -> None:
        cursor, path = self._cursor, self.source.path
        cursor.metadata += EACH_VALUE
        key = cursor.text("a key")
        kind = cursor.number(4)
        begin = cursor.at
        cursor.skip_value(kind, key)
        if cursor.at - begin > MOST_METADATA or cursor.metadata > MOST_METADATA:
            raise FormatError(path, f"its metadata takes more than {MOST_METADATA:,} bytes (at `{printable(key, 80)}`)")
        cursor.metadata += cursor.at - begin
        if key in self.values:
            raise FormatError(path, f"its metadata has `{printable(key, 80)}` twice")
        self.values[key] = Value(kind, self.source.read(begin, cursor.at - begin))

    def _tensor(self, found: dict[str, tuple[TensorSpec, int]]) -> None:
        cursor, path = self._cursor, self.source.path
        name = cursor.text("the name of a tensor")

        def wrong(problem: str) -> FormatError:
            return FormatError(path, f"tensor `{printable(name)}`: {problem}")

        if cursor.at - self._listed > MOST_LISTED:
            raise wrong(f"the list of tensors takes more than {MOST_LISTED:,} bytes")
        rank = cursor.number(4)
        if rank > MOST_DIMS:
            raise wrong(f"{rank:,} dims; GGUF has at most {MOST_DIMS}")
        dims = struct.unpack(f"<{rank}Q", cursor.take(8 * rank))
        number, offset = struct.unpack("<IQ", cursor.take(12))
        kind = TYPES.get(number)
        if kind is None:
            raise wrong(f"unknown ggml type {number:,}")
        if name in found:
            raise wrong("there are two of that name")
        shape = tuple(reversed(dims))
        if any(size >= LARGEST_SIZE for size in shape) or offset >= LARGEST_SIZE:
            raise wrong(f"its dims {list(shape)} or its offset {offset:,} are beyond any file")
        if kind.block:
            if not shape or shape[-1] % kind.elements:
                last = shape[-1] if shape else 1
                raise wrong(f"its rows of {last:,} elements are no whole {kind} blocks of {kind.elements}")
            shape = (*shape[:-1], shape[-1] // kind.elements)
        spec = TensorSpec(kind, shape)
        if not spec.numel and TensorSpec(kind, tuple(size or 1 for size in shape)).nbytes >= LARGEST_SIZE:
            raise wrong(f"the shape {list(shape)} is beyond any memory")
        found[name] = (spec, offset)


class Cursor:
    """Reads a header from its start, through a window of the file."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = 0
        self.metadata = 0
        self._begin = 0
        self._window = b""

    @property
    def left(self) -> int:
        return self.source.size - self.at

    def broken(self, what: str) -> NoReturn:
        raise FormatError(
            self.source.path, f"a GGUF file, truncated or corrupt: {what} at byte {self.at:,} of the header"
        )

    def take(self, nbytes: int) -> bytes:
        """The next bytes; few at a time, a window's at most."""
        if nbytes > self.left:
            self.broken(f"{nbytes:,} bytes are needed, {self.left:,} are left,")
        begin = self.at - self._begin
        if begin < 0 or begin + nbytes > len(self._window):
            self._begin, begin = self.at, 0
            self._window = self.source.read(self.at, min(max(nbytes, WINDOW), self.left))
        self.at += nbytes
        return self._window[begin : begin + nbytes]

    def number(self, nbytes: int) -> int:
        return int.from_bytes(self.take(nbytes), "little")

    def text(self, what: str) -> str:
        nbytes = self.number(8)
        if nbytes > MOST_TEXT:
            self.broken(f"{what} of {nbytes:,} bytes")
        try:
            return self.take(nbytes).decode()
        except UnicodeDecodeError:
            self.broken(f"{what} that is no UTF-8")

    def skip(self, nbytes: int) -> None:
        if nbytes > self.left:
            self.broken(f"a value of {nbytes:,} bytes, where {self.left:,} are left,")
        self.at += nbytes

    def skip_value(self, kind: int, key: str, depth: int = 0) -> None:
        """Go past a value of that type."""
        size = width(kind)
        if size is not None:
            self.skip(size)
        elif kind == STRING:
            self.skip(self.number(8))
        elif kind != ARRAY:
            self.broken(f"`{printable(key, 80)}` is of type {kind:,}, which is none (types go from 0 to {max(NAMES)}),")
        elif depth == MOST_DEPTH:
            self.broken(f"`{printable(key, 80)}` has arrays within arrays, more than {MOST_DEPTH} deep,")
        else:
            inner, count = struct.unpack("<IQ", self.take(12))
            if inner not in NAMES:  # an array of no elements is of some type too
                self.broken(f"`{printable(key, 80)}` is of type {inner:,}, which is none,")
            size = width(inner)
            if count * (size or 8) > min(self.left, MOST_METADATA):
                self.broken(f"`{printable(key, 80)}` claims an array of {count:,} elements")
            if size is not None:
                self.skip(size * count)
            elif inner == STRING:
                self._skip_strings(count)
            else:
                for _ in range(count):
                    self.skip_value(inner, key, depth + 1)

    def _skip_strings(self, count: int) -> None:
        """Go past that many strings: hundreds of thousands make up a vocabulary."""
        window, begin, at = self._window, self._begin, self.at
        unpack = struct.Struct("<Q").unpack_from
        for _ in range(count):
            place = at - begin
            if place < 0 or place + 8 > len(window):
                self.at = at
                self.number(8)
                window, begin = self._window, self._begin
                place = at - begin
            at += 8 + unpack(window, place)[0]
        self.at = at
        if at > self.source.size:
            self.broken("a string goes beyond the end of the file")


def read(source: Source) -> tuple[Contents, list[Source]]:
    """What a GGUF file says, or all parts of one, `source` being any of them. FormatError when one is not as it should be."""
    header = Header(source)
    from isomorph.formats.gguf.split import parts_of, read_parts

    parts = parts_of(header)
    if parts > 1:
        return read_parts(source, header, parts)
    return contents_of([header]), [source]


def contents_of(headers: list[Header]) -> Contents:
    """The tensors of files that belong together; the first has the metadata."""
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    for number, header in enumerate(headers):
        for name, (spec, offset) in header.tensors.items():
            if name in tensors:
                raise FormatError(header.source.path, f"tensor `{printable(name)}` is in another part as well")
            tensors[name], locations[name] = spec, Location(number, offset)
    return Contents(
        tuple(header.source.path for header in headers),
        tensors,
        locations,
        as_metadata(headers[0].values),
        format="gguf",
    )
