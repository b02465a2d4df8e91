"""Contents + opened files -> tensors: the one place where bytes of a checkpoint are read, whatever its format."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError, SourceChanged, UnsafeError, printable
from isomorph.formats.base import Checkpoint, Contents, Location, Run, Tile
from isomorph.formats.source import Source
from isomorph.formats.tiles import Tiling, flaw
from isomorph.tensors import Manifest, TensorSpec, dtype

if TYPE_CHECKING:
    import numpy as np

    from isomorph.formats.decode import Decoder

MOST_EXPANSION = 64
"""Plain tensors may make up at most so many times the bytes of their files (views, names that share bytes), and a little."""

ALLOWED_EXPANSION = 256 << 20

MOST_FREE = 1040
"""Times its bytes that what is compressed may become without being counted as an expansion: more than deflate can do."""

SPARSE, SPARSE_RATIO = 1 << 20, 8
"""A file larger than that of which less than an eighth is stored is said to be sparse: a download that stopped, or a trap."""

DECODED = {"deflate": 1040, "utf8-latin1": 1040, "gzip": 1040, "zlib": 1040, "zstd": 1 << 16}
"""Encodings, and how many bytes one encoded byte can become (deflate cannot do more than 1032)."""

ENCODINGS = {None, "big", "pieces", "hdf5", "protobuf", "fill", *DECODED, *(f"{name}+big" for name in DECODED)}


class FileCheckpoint(Checkpoint):
    """A checkpoint in files. Everything a header claims is checked against the files before the first tensor is read."""

    def __init__(self, contents: Contents, sources: Sequence[Source]) -> None:
        """Take over `sources`, one for each of `contents.files`. FormatError when a tensor does not lie in its file."""
        self.contents = contents
        self._sources = tuple(sources)
        self._decoder: Decoder | None = None
        self._lock = threading.Lock()
        self._tilings: dict[str, Tiling] = {}
        self._runs: dict[str, Sequence[Run] | None] = {}
        self._kept_crcs: dict[int, dict[tuple[int, int], int]] = {}
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
        if where.tiles or not _is_plain(self.contents.tensors[name], where):
            return None
        return where.file, where.byte_offset

    def runs(self, name: str) -> Sequence[Run] | None:
        if not self.contents.locations[name].tiles:
            return super().runs(name)
        if name not in self._runs:  # asked for by every move that reads it
            self._runs[name] = self._runs_of_tiles(name)
        return self._runs[name]

    def _runs_of_tiles(self, name: str) -> Sequence[Run] | None:
        spec = self.contents.tensors[name]
        bands = self._tiling(name).bands()
        if bands is None:
            return None
        found = sorted(
            Run(start, count, tile.location.file, tile.location.byte_offset)
            for start, count, tile in bands
            if _is_plain(TensorSpec(spec.dtype, tile.shape), tile.location)
        )
        return found if sum(run.numel for run in found) == spec.numel else None

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        self._sources[file].fill(offset, buffer)

    def fetch(
        self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        spec, where = self.contents.tensors[name], self.contents.locations[name]
        if not where.tiles:
            return self._fetch(spec, where, offset, shape, strides)

        def read(tile: Tile, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Any:
            return self._fetch(TensorSpec(spec.dtype, tile.shape), tile.location, offset, shape, strides)

        return self._tiling(name).read(spec.dtype.bits, offset, shape, strides, read)

    def _tiling(self, name: str) -> Tiling:
        found = self._tilings.get(name)
        if found is None:
            found = Tiling(self.contents.tensors[name].shape, self.contents.locations[name].tiles)
            self._tilings[name] = found
        return found

    def _fetch(
        self, spec: TensorSpec, where: Location, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        from isomorph.formats.gather import read_box, read_strided

        bits, base = spec.dtype.bits, where.byte_offset
        if where.encoding == "fill":
            from isomorph.formats.decode import filled

            return filled(where, bits, shape)
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

    def forget_members(self) -> None:
        """Let go of the directories of zip archives: `crc` then knows nothing, and nothing is summed."""
        for source in self._sources:
            source.members = None

    def descriptor(self, file: int) -> int | None:
        source = self._sources[file]
        return source.fileno() if source.is_local else None

    def crc(self, file: int, offset: int, nbytes: int) -> int | None:
        return self._crcs(file).get((offset, nbytes))

    def _crcs(self, file: int) -> dict[tuple[int, int], int]:
        """(offset, nbytes) -> CRC-32 of every stored zip member that has one."""
        if file not in self._kept_crcs:
            members = (self._sources[file].members or {}).values()
            self._kept_crcs[file] = {
                (member.offset, member.nbytes): member.crc
                for member in members
                if member.crc and not member.is_deflated
            }
        return self._kept_crcs[file]

    def check_unchanged(self) -> None:
        for source in self._sources:
            problem = source.changed()
            if problem is not None:
                raise SourceChanged(printable(str(source.path)), problem)

    def keep_sums(self) -> None:
        from isomorph.formats.zip.sums import Castagnoli, Sums

        for source in self._sources:
            if source.castagnoli and source.sums is None:
                source.sums = Castagnoli(source.castagnoli)
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
                        for part in _parts(where)
                        if part.file == number and part.byte_offset in inside
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
    parts = len(contents.files)
    for name, where in contents.locations.items():
        spec = contents.tensors[name]
        if _is_one_run(where):  # nearly all are, and there may be a million
            if nbytes := spec.nbytes:
                names.setdefault((where.file, where.byte_offset, 0, nbytes), []).append(name)
            continue
        parts += len(where.tiles) + len(where.pieces)
        for part in _parts(where):
            if part.encoding is not None and part.encoding != "fill":
                encodings[name] = part.encoding
        if where.strides is not None and not _is_row_major(spec, where):
            strided.append(name)
        if where.tiles:
            names.setdefault(where.tiles, []).append(name)
        elif spec.numel and where.encoding != "fill":
            place = (where.file, where.byte_offset, where.decoded_offset if where.encoding else 0, _reach(spec, where))
            names.setdefault(place, []).append(name)
    return Manifest(
        contents.tensors,
        origin=" + ".join(map(str, contents.files[:1]))
        + (f" and {len(contents.files) - 1} more" if len(contents.files) > 1 else ""),
        metadata=contents.metadata,
        shared=tuple(group for place in names.values() if len(place) > 1 for group in _of_one_size(place, contents)),
        leaves=contents.leaves,
        encodings=encodings,
        strided=frozenset(strided),
        notes=contents.notes,
        parts=parts,
    )


def _of_one_size(names: Sequence[str], contents: Contents) -> Iterator[tuple[str, ...]]:
    """The groups of names on the same bytes that are as many elements of one dtype: views in another order, not repetitions."""
    groups: dict[tuple[object, int], list[str]] = {}
    for name in names:
        spec = contents.tensors[name]
        groups.setdefault((spec.dtype, spec.numel), []).append(name)
    return (tuple(group) for group in groups.values() if len(group) > 1)


def check_locations(contents: Contents, sizes: Sequence[int]) -> None:
    """FormatError unless every element of every tensor lies inside its file (or its decoded whole), and not absurdly often."""
    total = free = 0
    wholes: set[tuple[int, int, str]] = set()
    if contents.tensors.keys() != contents.locations.keys():
        raise FormatError(contents.files[0], "internal: tensors and locations have different names")
    for name, where in contents.locations.items():
        spec = contents.tensors[name]
        if _is_one_run(where) and len(spec.shape) <= 64 and min(spec.shape, default=0) >= 0:
            nbytes = spec.nbytes
            if where.byte_offset >= 0 and where.byte_offset + nbytes <= sizes[where.file]:
                total += nbytes
                continue
        file, problem = where.file, _misplaced(spec, where, sizes[where.file])
        if where.tiles:
            file, problem = _mistiled(spec, where, sizes)
        if problem is not None:
            raise FormatError(contents.files[file], f"tensor `{printable(name)}` {spec}: {problem}")
        total += spec.nbytes
        for part in _parts(where):
            if part.encoding not in _PACKED or not part.encoding:
                continue
            whole = (part.file, part.byte_offset, part.encoding.removesuffix("+big"))
            if whole not in wholes:  # what a whole decodes to is bounded by what it takes in the file, and free once
                wholes.add(whole)
                free += min(part.decoded_nbytes, MOST_FREE * part.encoded_nbytes)
    free = min(
        free, MOST_FREE * sum(sizes)
    )  # a dataset of HDF5 may lie anywhere in its file, and each then counts all of it
    if total - free > MOST_EXPANSION * sum(sizes) + ALLOWED_EXPANSION:
        raise UnsafeError(
            contents.files[0],
            f"its views and shared storages expand {sum(sizes):,} bytes of file to {total:,} bytes of tensors",
            "That is a trap, not a checkpoint; nothing was written",
        )


def _is_one_run(where: Location) -> bool:
    """True for one row-major run of a file."""
    return where.encoding is None and where.strides is None and not where.tiles and not where.pieces


_PACKED = ENCODINGS - {None, "big", "fill"}


def _parts(where: Location) -> Iterator[Location]:
    """The places that a tensor's bytes lie at: of its tiles, of its pieces, or its own."""
    for each in (tile.location for tile in where.tiles) if where.tiles else (where,):
        yield from (piece._replace(file=each.file) for piece in each.pieces) if each.pieces else (each,)


def _mistiled(spec: TensorSpec, where: Location, sizes: Sequence[int]) -> tuple[int, str | None]:
    """(file, what is wrong there or with the tiles as a whole, or None)."""
    if len(spec.shape) > 64 or any(size < 0 for size in spec.shape):
        return where.tiles[0].location.file, "not a shape"
    problem = flaw(spec.shape, where.tiles)
    if problem is not None:
        return where.tiles[0].location.file, problem
    for tile in where.tiles:
        part = tile.location
        problem = "a tile of tiles" if part.tiles else None
        problem = problem or _misplaced(TensorSpec(spec.dtype, tile.shape), part, sizes[part.file])
        if problem is not None:
            return part.file, f"its part at {list(tile.start)} of {list(tile.shape)}: {problem}"
    return 0, None


def _misplaced(spec: TensorSpec, where: Location, size: int) -> str | None:
    if where.encoding not in ENCODINGS:
        return f"unknown encoding {where.encoding!r}"
    if len(spec.shape) > 64 or any(dim < 0 for dim in spec.shape):
        return "not a shape"
    if where.strides is not None and (len(where.strides) != len(spec.shape) or any(step < 0 for step in where.strides)):
        return f"strides {where.strides} do not fit"
    reach = _reach(spec, where)
    if where.encoding == "fill":
        return None if len(where.inside) == 2 * spec.dtype.nbytes else "what it is filled with is no element of it"
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
    if (
        where.decoded_nbytes
        > DECODED.get((where.encoding or "").removesuffix("+big"), MOST_FREE) * where.encoded_nbytes
    ):
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


def _is_plain(spec: TensorSpec, where: Location) -> bool:
    return where.encoding is None and _is_row_major(spec, where)


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
