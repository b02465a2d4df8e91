"""A LevelDB table (SSTable), which TensorFlow's `.index` is: sorted keys and values in blocks, read whole and checked.

    block … block   metaindex   index   footer (48 bytes: two handles, padding, magic)
    block           entries, then the offsets of its restart points and their number; after it one byte for how it is compressed,
                    and its masked CRC-32C
    entry           bytes shared with the key before, bytes of its own, bytes of the value (varints); key; value

Source: leveldb's doc/table_format.md; tensorflow/core/lib/io/table*.
"""

from __future__ import annotations

from collections.abc import Iterator

from isomorph.errors import FormatError
from isomorph.formats.source import Source
from isomorph.formats.tf.crc32c import crc32c, masked

MAGIC = bytes.fromhex("57fb808b247547db")
FOOTER = 48
LARGEST_TABLE = 256 << 20
MOST_ENTRIES = 4_000_000
MOST_KEYS = 64 << 20
"""Bytes of all keys: each may begin as the one before did, so that a few bytes can stand for a long one."""

TRAILER = 5

SAVE_AGAIN = "Restore it in TensorFlow and save it with tf.compat.v1.train.Saver(), which writes V2"


class Table:
    """A table in memory. FormatError for every way in which it can be broken."""

    def __init__(self, source: Source) -> None:
        self.path = source.path
        if source.size < FOOTER:
            raise self.broken(f"truncated: {source.size} bytes")
        if source.size > LARGEST_TABLE:
            problem = f"an index of {source.size:,} bytes; at most {LARGEST_TABLE:,} are read"
            raise FormatError(source.path, problem, f"If it is of TensorFlow's first format (V1): {SAVE_AGAIN}")
        self.data = source.read(0, source.size)

    def broken(self, problem: str) -> FormatError:
        return FormatError(self.path, f"a broken index of a TensorFlow checkpoint: {problem}")

    def entries(self) -> Iterator[tuple[bytes, int, int]]:
        """(key, where its value begins and ends in `data`), keys rising."""
        footer = len(self.data) - FOOTER
        if self.data[-len(MAGIC) :] != MAGIC:
            raise self.broken("it does not end as a table does (truncated?)")
        _, at = self._handle(footer, len(self.data))
        index, _ = self._handle(at, len(self.data))
        before: bytes | None = None
        count = reached = keys = 0
        for _, begin, end in self._block(*index):
            (offset, nbytes), stop = self._handle(begin, end)
            if stop != end or offset < reached:
                raise self.broken(f"its blocks overlap, or are out of order (byte {begin:,})")
            reached = offset + nbytes
            for key, first, last in self._block(offset, nbytes):
                count += 1
                keys += len(key)
                if before is not None and key <= before:
                    raise self.broken(f"its keys are not in order (byte {first:,})")
                if count > MOST_ENTRIES or keys > MOST_KEYS:
                    raise self.broken(f"more than {MOST_ENTRIES:,} entries, or {MOST_KEYS:,} bytes of keys")
                before = key
                yield key, first, last

    def _handle(self, at: int, end: int) -> tuple[tuple[int, int], int]:
        offset, at = self._varint(at, end)
        nbytes, at = self._varint(at, end)
        return (offset, nbytes), at

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for place in range(10):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return value, at
        raise self.broken(f"a number without an end at byte {at:,}")

    def _block(self, offset: int, nbytes: int) -> Iterator[tuple[bytes, int, int]]:
        data, end = self.data, offset + nbytes
        if end + TRAILER > len(data) - FOOTER or nbytes < 4:
            raise self.broken(f"a block at bytes {offset:,} to {end:,}, where there is none")
        if data[end] != 0:
            raise FormatError(
                self.path,
                f"its index is compressed (block at byte {offset:,}, kind {data[end]}), which TensorFlow does not write",
            )
        said = int.from_bytes(data[end + 1 : end + TRAILER], "little")
        crc = masked(crc32c([memoryview(data)[offset : end + 1]]))
        if crc != said:
            raise self.broken(f"damaged: the block at byte {offset:,} has the checksum {crc:08x}, not {said:08x}")
        restarts = int.from_bytes(data[end - 4 : end], "little")
        stop = end - 4 - 4 * restarts
        if stop < offset:
            raise self.broken(f"the block at byte {offset:,} claims {restarts:,} restart points")
        at, key = offset, b""
        while at < stop:
            shared, at = self._varint(at, stop)
            own, at = self._varint(at, stop)
            length, at = self._varint(at, stop)
            if shared > len(key) or at + own + length > stop or shared + own > 1 << 20:
                raise self.broken(f"an entry that is larger than its block (byte {at:,})")
            key = key[:shared] + data[at : at + own]
            at += own
            yield key, at, at + length
            at += length
