"""Tensors whose bytes are not plain: decoded once, in bounded memory, into one unlinked temporary file."""

from __future__ import annotations

import codecs
import errno
import os
import tempfile
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError, RefusedError
from isomorph.formats.base import Location
from isomorph.formats.source import Source
from isomorph.tensors import DType

if TYPE_CHECKING:
    import numpy as np

    from isomorph.formats.hdf5.process import Decoding

CHUNK = 1 << 20
"""Bytes read, and bytes decoded, at a time."""


class Decoder:
    """Decoded wholes, one after the other in a temporary file that has no name (it is gone when the process ends)."""

    def __init__(self) -> None:
        self._fd, name = tempfile.mkstemp(prefix="isomorph-")
        self._close = weakref.finalize(self, os.close, self._fd)  # a checkpoint that nobody closed closes quietly
        Path(name).unlink()
        self._end = 0
        self._hdf5: Decoding | None = None
        self._offsets: dict[tuple[str, int, str, int], int] = {}

    def offset_of(self, where: Location, source: Source) -> int:
        """Where in the temporary file the decoded whole begins. Not for two threads at once."""
        encoding = (where.encoding or "").removesuffix("+big")
        key = (str(source.path), where.byte_offset, encoding, where.decoded_nbytes)
        if key not in self._offsets:
            self._require_room(where.decoded_nbytes)
            begin = self._end
            count = crc = 0
            for piece in self._pieces(encoding, source, where):
                count += len(piece)
                crc = zlib.crc32(piece, crc)
                if count > where.decoded_nbytes:
                    raise FormatError(
                        source.path,
                        f"the {encoding} data at byte {where.byte_offset} holds more than the "
                        f"{where.decoded_nbytes} bytes declared",
                    )
                self._write(piece, begin + count - len(piece), where.decoded_nbytes)
            if count != where.decoded_nbytes:
                raise FormatError(
                    source.path,
                    f"the {encoding} data at byte {where.byte_offset} holds {count} bytes, "
                    f"{where.decoded_nbytes} are declared",
                )
            if where.decoded_crc not in (0, crc):
                raise FormatError(
                    source.path,
                    f"the {encoding} data at byte {where.byte_offset} is corrupt (CRC-32 {crc:08x}, not {where.decoded_crc:08x})",
                )
            self._offsets[key] = begin
            self._end = begin + count
        return self._offsets[key]

    def _pieces(self, encoding: str, source: Source, where: Location) -> Iterator[bytes]:
        if encoding != "hdf5":
            return _PIECES[encoding](source, where)
        from isomorph.formats.hdf5.process import Decoding

        if self._hdf5 is None or self._hdf5.source is not source:  # one at a time, however many files there are
            self._end_process()
            self._hdf5 = Decoding(source)
        return self._hdf5.elements(where)

    def _end_process(self) -> None:
        if self._hdf5 is not None:
            self._hdf5.close()
            self._hdf5 = None

    def _write(self, piece: bytes, offset: int, wanted: int) -> None:
        view = memoryview(piece)
        try:
            while view:
                count = os.pwrite(self._fd, view, offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise _full(wanted) from None

    def _require_room(self, nbytes: int) -> None:
        """RefusedError before the first byte, where the whole cannot fit: a disk is not filled up to find that out."""
        found = os.fstatvfs(self._fd)
        if nbytes > found.f_bavail * found.f_frsize:
            raise _full(nbytes)

    def fill(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            count = os.preadv(self._fd, [buffer[done : done + (1 << 30)]], offset + done)
            if count == 0:
                raise FormatError(tempfile.gettempdir(), "the temporary file of decoded tensors was cut short")
            done += count

    def close(self) -> None:
        self._end_process()
        self._close()


def _full(nbytes: int) -> RefusedError:
    return RefusedError(
        tempfile.gettempdir(),
        f"is full: {nbytes:,} bytes are needed there to decode a compressed tensor",
        "Free some space, or set TMPDIR to a folder with room",
    )


def _pieces(source: Source, where: Location) -> Iterator[bytes]:
    end = where.byte_offset + where.encoded_nbytes
    for offset in range(where.byte_offset, end, CHUNK):
        yield source.read(offset, min(CHUNK, end - offset))


def _inflate(source: Source, where: Location, bits: int = -15) -> Iterator[bytes]:
    """`bits` as zlib counts them: -15 for bare deflate, 15 with zlib's header, 31 with gzip's."""
    inflater = zlib.decompressobj(bits)
    for piece in _pieces(source, where):
        while piece:
            if inflater.eof:
                raise FormatError(
                    source.path, f"bytes are left over after the deflate data at byte {where.byte_offset}"
                )
            try:
                yield inflater.decompress(piece, CHUNK)
            except zlib.error as error:
                raise FormatError(source.path, f"corrupt deflate data at byte {where.byte_offset}: {error}") from None
            piece = inflater.unconsumed_tail or (inflater.unused_data if inflater.eof else b"")
    if not inflater.eof:
        yield inflater.flush()
        if not inflater.eof:
            raise FormatError(
                source.path, f"the deflate data at byte {where.byte_offset} has no end: truncated or corrupt"
            )


def _latin1(source: Source, where: Location) -> Iterator[bytes]:
    decode = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in _pieces(source, where):
            yield decode.decode(piece).encode("latin-1")
        yield decode.decode(b"", final=True).encode("latin-1")
    except UnicodeError:
        raise FormatError(
            source.path,
            f"the text at byte {where.byte_offset} that should hold bytes is not UTF-8 of characters below 256",
        ) from None


def _numbers(source: Source, where: Location) -> Iterator[bytes]:
    from isomorph.formats.onnx.typed import decoded

    return decoded(source, where)


def _gzip(source: Source, where: Location) -> Iterator[bytes]:
    return _inflate(source, where, 31)


def _zlib(source: Source, where: Location) -> Iterator[bytes]:
    return _inflate(source, where, 15)


def _zstd(source: Source, where: Location) -> Iterator[bytes]:
    from isomorph.formats.zarr.zstd import decoded

    return decoded(source, where)


_PIECES = {
    "gzip": _gzip,
    "zlib": _zlib,
    "zstd": _zstd,
    "deflate": _inflate,
    "utf8-latin1": _latin1,
    "protobuf": _numbers,
}


def filled(where: Location, bits: np.dtype[Any], shape: Sequence[int]) -> np.ndarray[Any, np.dtype[Any]]:
    """An array of `shape` (read-only, of one element's memory) whose every element has the bytes that `where` says."""
    import numpy as np

    return np.broadcast_to(np.frombuffer(bytes.fromhex(where.inside), bits).reshape(()), tuple(shape))


def swapped(array: np.ndarray[Any, np.dtype[Any]], dtype: DType) -> np.ndarray[Any, np.dtype[Any]]:
    """`array` (bits of `dtype`, read big-endian) with the bytes of every number turned round; of both parts of a complex one."""
    import numpy as np

    width = dtype.nbytes // 2 if dtype.kind == "complex" else dtype.nbytes
    if width == 1:
        return array
    flat = np.ascontiguousarray(array).reshape(-1).view(f"u{width}").byteswap()
    return flat.view(array.dtype).reshape(array.shape)
