"""Contents + opened files -> tensors: the one place where bytes of a checkpoint are read, whatever its format."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError, SourceChanged, UnsafeError, printable
from isomorph.formats.base import Checkpoint, Contents, Location
from isomorph.formats.source import Source
from isomorph.tensors import Manifest, TensorSpec, dtype

if TYPE_CHECKING:
    import numpy as np

    from isomorph.formats.decode import Decoder

MOST_EXPANSION = 64
"""Plain tensors may make up at most so many times the bytes of their files (views, names that share bytes), and a little."""

ALLOWED_EXPANSION = 256 << 20

SPARSE, SPARSE_RATIO = 1 << 20, 8
"""A file larger than that of which less than an eighth is stored is said to be sparse: a download that stopped, or a trap."""

DECODED = {"deflate", "utf8-latin1"}
ENCODINGS = {None, "big", "pieces", "hdf5", "protobuf", *DECODED, *(f"{name}+big" for name in DECODED)}


class FileCheckpoint(Checkpoint):
    """A checkpoint in files. Everything a header claims is checked against the files before the first tensor is read."""

    def __init__(self, contents: Contents, sources: Sequence[Source]) -> None:
        """Take over `sources`, one for each of `contents.files`. FormatError when a tensor does not lie in its file."""
        self.contents = contents
        self._sources = tuple(sources)
        self._decoder: Decoder | None = None
        self._lock = threading.Lock()
        check_locations(contents, [source.size for source in self._sources])
        sparse = tuple(
            f"{printable(source.path.name)} is sparse: {source.size:,} bytes long, {source.stored:,} of them stored; "
            "the rest reads as zeros"
            for source in self._sources
            if source.size > SPARSE and source.stored * SPARSE_RATIO < source.size
        )
        if sparse:
            self.contents = replace(contents, notes=(*contents.notes, *sparse))

    @cached_property
    def manifest(self) -> Manifest:
        return manifest_of(self.contents)

    @property
    def paths(self) -> tuple[Path, ...]:
        return self.contents.files

    @property
    def format(self) -> str:
        return self.contents.format

    def run(self, name: str) -> tuple[int, int] | None:
        where = self.contents.locations[name]
        if where.encoding is not None or not _is_row_major(self.contents.tensors[name], where):
            return None
        return where.file, where.byte_offset

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        self._sources[file].fill(offset, buffer)

    def fetch(
        self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        from isomorph.formats.gather import read_box, read_strided

        spec, where = self.contents.tensors[name], self.contents.locations[name]
        bits, base = spec.dtype.bits, where.byte_offset
        fill: Callable[[int, memoryview], None] = self._sources[where.file].fill
        if where.pieces:
            base, fill = 0, self._joined(where)
        elif where.encoding is not None and where.encoding != "big":
            base, fill = self._decoded(where)
            base += where.decoded_offset
        if _is_row_major(spec, where):
            array = read_box(fill, base + offset * bits.itemsize, bits, shape, strides)
        else:
            array = read_strided(fill, base, bits, spec.shape, where.strides or (), offset, shape, strides)
        if where.encoding is not None and where.encoding.endswith("big"):
            from isomorph.formats.decode import swapped

            return swapped(array, spec.dtype)
        return array

    def _decoded(self, where: Location) -> tuple[int, Any]:
        """(offset, fill) of the decoded whole that `where` is in; decoded now if it was not yet."""
        with self._lock:
            if self._decoder is None:
                from isomorph.formats.decode import Decoder

                self._decoder = Decoder()
            return self._decoder.offset_of(where, self._sources[where.file]), self._decoder.fill

    def _joined(self, where: Location) -> Callable[[int, memoryview], None]:
        """fill of the pieces of a tensor, as if they lay one after the other from byte 0."""
        parts: list[tuple[int, int, Callable[[int, memoryview], None]]] = []
        end = 0
        for piece in where.pieces:
            base, fill = piece.byte_offset, self._sources[where.file].fill
            if piece.encoding is not None:
                base, fill = self._decoded(piece._replace(file=where.file))
                base += piece.decoded_offset
            parts.append((end, base, fill))
            end += piece.decoded_nbytes
        starts = [start for start, _, _ in parts]

        def joined(offset: int, buffer: memoryview) -> None:
            done = 0
            while done < len(buffer):
                index = bisect_right(starts, offset + done) - 1
                start, base, fill = parts[index]
                upto = starts[index + 1] if index + 1 < len(starts) else end
                count = min(len(buffer) - done, upto - offset - done)
                fill(base + offset + done - start, buffer[done : done + count])
                done += count

        return joined

    def check_unchanged(self) -> None:
        for source in self._sources:
            problem = source.changed()
            if problem is not None:
                raise SourceChanged(printable(str(source.path)), problem)

    def keep_sums(self) -> None:
        from isomorph.formats.sums import Sums

        for source in self._sources:
            if source.members is not None and source.sums is None:
                source.sums = Sums(tuple(source.members.values()))

    def check_sums(self) -> None:
        for number, source in enumerate(self._sources):
            sums, source.sums = source.sums, None
            for member, crc in sums.damaged(source.fill) if sums is not None else ():
                inside = range(member.offset, member.offset + member.nbytes)
                name = next(
                    (
                        name
                        for name, where in self.contents.locations.items()
                        if where.file == number and where.byte_offset in inside
                    ),
                    None,
                )
                what = "its bytes" if name is None else f"the bytes of `{printable(name)}`"
                raise FormatError(
                    source.path,
                    f"damaged: {what} are not those that were saved ({printable(member.name, 120)}: CRC-32 {crc:08x}, "
                    f"not {member.crc:08x})",
                    "Copy or download it again",
                )

    def close(self) -> None:
        for source in self._sources:
            source.close()
        if self._decoder is not None:
            self._decoder.close()


def manifest_of(contents: Contents) -> Manifest:
    """What `contents` says, without the bytes' places."""
    names: dict[tuple[object, ...], list[str]] = {}
    encodings: dict[str, str] = {}
    strided: list[str] = []
    for name, where in contents.locations.items():
        spec = contents.tensors[name]
        if where.encoding is not None:
            encodings[name] = where.encoding
        if where.strides is not None and not _is_row_major(spec, where):
            strided.append(name)
        if spec.numel:
            place = (where.file, where.byte_offset, where.decoded_offset if where.encoding else 0, _reach(spec, where))
            names.setdefault(place, []).append(name)
    return Manifest(
        contents.tensors,
        origin=" + ".join(map(str, contents.files[:1]))
        + (f" and {len(contents.files) - 1} more" if len(contents.files) > 1 else ""),
        metadata=contents.metadata,
        shared=tuple(tuple(group) for group in names.values() if len(group) > 1),
        leaves=contents.leaves,
        encodings=encodings,
        strided=frozenset(strided),
        notes=contents.notes,
    )


def check_locations(contents: Contents, sizes: Sequence[int]) -> None:
    """FormatError unless every element of every tensor lies inside its file (or its decoded whole), and not absurdly often."""
    total = free = 0
    wholes: set[tuple[int, int, str]] = set()
    if contents.tensors.keys() != contents.locations.keys():
        raise FormatError(contents.files[0], "internal: tensors and locations have different names")
    for name, where in contents.locations.items():
        spec = contents.tensors[name]
        problem = _misplaced(spec, where, sizes[where.file])
        if problem is not None:
            raise FormatError(contents.files[where.file], f"tensor `{printable(name)}` {spec}: {problem}")
        total += spec.nbytes
        for part in where.pieces or (where,):
            if part.encoding not in _PACKED or not part.encoding:
                continue
            whole = (where.file, part.byte_offset, part.encoding.removesuffix("+big"))
            if whole not in wholes:  # what a whole decodes to is bounded by what it takes in the file, and free once
                wholes.add(whole)
                free += part.decoded_nbytes
    if total - free > MOST_EXPANSION * sum(sizes) + ALLOWED_EXPANSION:
        raise UnsafeError(
            contents.files[0],
            f"its views and shared storages expand {sum(sizes):,} bytes of file to {total:,} bytes of tensors",
            "That is a trap, not a checkpoint; nothing was written",
        )


_PACKED = ENCODINGS - {None, "big"}


def _misplaced(spec: TensorSpec, where: Location, size: int) -> str | None:
    if where.encoding not in ENCODINGS:
        return f"unknown encoding {where.encoding!r}"
    if len(spec.shape) > 64 or any(dim < 0 for dim in spec.shape):
        return "not a shape"
    if where.strides is not None and (len(where.strides) != len(spec.shape) or any(step < 0 for step in where.strides)):
        return f"strides {where.strides} do not fit"
    reach = _reach(spec, where)
    if where.encoding == "pieces":
        if where.strides is not None or sum(piece.decoded_nbytes for piece in where.pieces) != spec.nbytes:
            return "its pieces do not make it up"
        parts = ((TensorSpec(dtype("u8"), (piece.decoded_nbytes,)), piece) for piece in where.pieces)
        return next((problem for part, piece in parts if (problem := _misplaced(part, piece, size))), None)
    if where.encoding not in _PACKED:
        begin, end = where.byte_offset, where.byte_offset + reach
        if begin < 0 or end > size:
            return f"bytes {begin:,} to {end:,} are needed, the file has {size:,}: truncated or corrupt"
        return None
    begin = 0 if where.encoding == "hdf5" else where.byte_offset
    if where.byte_offset < 0 or where.encoded_nbytes < 0 or begin + where.encoded_nbytes > size:
        return f"bytes {where.byte_offset:,} to {where.byte_offset + where.encoded_nbytes:,} are needed, the file has {size:,}"
    if where.decoded_offset < 0 or where.decoded_offset + reach > where.decoded_nbytes:
        return f"{where.decoded_offset + reach:,} bytes are needed, {where.decoded_nbytes:,} are stored"
    if where.decoded_nbytes > 1040 * where.encoded_nbytes:  # deflate cannot do more than 1032 : 1
        return f"{where.encoded_nbytes:,} bytes cannot decode to {where.decoded_nbytes:,}"
    return None


def _reach(spec: TensorSpec, where: Location) -> int:
    """Bytes from the first element to the end of the last."""
    if where.strides is None:
        return spec.nbytes
    if 0 in spec.shape:
        return 0
    return spec.dtype.nbytes * (
        1 + sum((size - 1) * step for size, step in zip(spec.shape, where.strides, strict=True))
    )


def _is_row_major(spec: TensorSpec, where: Location) -> bool:
    if where.strides is None:
        return True
    step = 1
    for size, stride in zip(reversed(spec.shape), reversed(where.strides), strict=True):
        if size == 0:
            return True
        if size != 1 and stride != step:
            return False
        step *= size
    return True


__all__ = ["Checkpoint", "FileCheckpoint", "check_locations", "manifest_of"]
