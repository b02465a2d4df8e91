"""zstd, through the library of the extra `[orbax]`, in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError
from isomorph.formats.base import Location
from isomorph.formats.source import Source

CHUNK = 1 << 20
WINDOW = 1 << 25
"""Bytes that a frame may look back to: more than any level asks for without being told to."""


def _library(path: Path) -> Any:
    try:
        import zstandard
    except ImportError:
        raise FormatError(
            path, "is compressed with zstd, and zstandard is not installed", 'Run: pip install "isomorph[orbax]"'
        ) from None
    return zstandard


def unpacked(data: bytes, path: Path, most: int) -> bytes:
    """What `data` decompresses to. FormatError when that is more than `most` bytes, or it is corrupt."""
    library = _library(path)
    try:
        with library.ZstdDecompressor(max_window_size=WINDOW).stream_reader(io.BytesIO(data)) as reader:
            found: bytes = reader.read(most + 1)
    except library.ZstdError as error:
        raise FormatError(path, f"corrupt zstd data: {error}") from None
    if len(found) > most:
        raise FormatError(path, f"its zstd data holds more than {most:,} bytes")
    return found


class _Stretch(io.RawIOBase):
    """The encoded bytes of a place, as the library reads them."""

    def __init__(self, source: Source, where: Location) -> None:
        self.source, self.at, self.end = source, where.byte_offset, where.byte_offset + where.encoded_nbytes

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        count = self.end - self.at if size < 0 else min(size, self.end - self.at)
        found = self.source.read(self.at, count)
        self.at += count
        return found


def decoded(source: Source, where: Location) -> Iterator[bytes]:
    """The decompressed bytes, a little at a time. FormatError when they are corrupt."""
    library = _library(source.path)
    decompressor = library.ZstdDecompressor(max_window_size=WINDOW)
    try:
        with decompressor.stream_reader(_Stretch(source, where), read_size=CHUNK) as reader:
            while piece := reader.read(CHUNK):
                yield piece
    except library.ZstdError as error:
        raise FormatError(source.path, f"corrupt zstd data at byte {where.byte_offset}: {error}") from None
