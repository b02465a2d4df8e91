"""What every format gives and takes: a header becomes Contents, a layout says which bytes go where. Bytes move elsewhere.

Reading: a format only parses headers. `read(source) -> Contents` names every tensor, its spec and its Location; one class,
`checkpoint.FileCheckpoint`, then does all the reading (byte ranges, strided boxes, decoding of what is not plain bytes).
`Checkpoint` is what the rest of the project holds: a manifest, and three ways to get at the elements.

Writing: a format only lays out. `lay_out(specs, ...) -> FileLayout` says, before any tensor is read, how long the file is, where
each tensor's row-major bytes go, and every other byte of it; only checksums are asked for at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from isomorph.tensors import Manifest, TensorSpec

if TYPE_CHECKING:
    import numpy as np


class Location(NamedTuple):  # hundreds of thousands are made: a dataclass takes three times as long
    """Where a tensor's elements lie.

    `file` is an index into `Contents.files`. Plain (`encoding` None): element (0, 0, …) at `byte_offset`, element steps `strides`
    in elements (None: one row-major run). Otherwise the `encoded_nbytes` bytes from `byte_offset` decode to the elements:
    `deflate` (raw zip member), `utf8-latin1` (a pickle protocol 2 text of code points < 256), `big` (plain bytes, big-endian),
    or one of the first two and then `big`, written `deflate+big`. For `big` alone `encoded_nbytes` is not needed. `hdf5` is the
    dataset `inside` of an HDF5 file, whose description is at `byte_offset` and whose chunks lie anywhere. `fill`: nothing is
    stored, and every element has the little-endian bytes that `inside` writes in hexadecimal. After decoding,
    `decoded_offset` (in bytes, into the decoded whole of `decoded_nbytes` bytes) and `strides` apply; tensors with the same
    (file, byte_offset, encoding) are decoded once. `decoded_crc` is the CRC-32 of the whole, 0 when unknown.

    `tiles`: the tensor is made up of boxes that lie apart, in any files, each with a Location of its own (`file` and
    `byte_offset` then say nothing). The tiles cover every element once; `checkpoint.check_locations` refuses gaps and overlaps.
    """

    file: int
    byte_offset: int
    strides: tuple[int, ...] | None = None
    encoding: str | None = None
    encoded_nbytes: int = 0
    decoded_offset: int = 0
    decoded_nbytes: int = 0
    pieces: tuple[Location, ...] = ()
    decoded_crc: int = 0
    inside: str = ""
    tiles: tuple[Tile, ...] = ()


class Run(NamedTuple):
    """`numel` elements from number `start` of the flat tensor on: they lie as they are from `byte_offset` of file number `file`."""

    start: int
    numel: int
    file: int
    byte_offset: int


class Tile(NamedTuple):
    """The box of a tensor that begins at index `start`; its elements lie at `location` as a tensor of `shape`."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    location: Location


def in_file(where: Location, number: int, shift: int = 0) -> Location:
    """A place in a checkpoint of one file (number 0), as it is in file `number` of several, `shift` bytes further on."""
    if not where.pieces and not where.tiles:
        return Location(number, where.byte_offset + shift, *where[2:])  # as `_replace`, in a third of its time
    pieces = tuple(in_file(piece, number, shift) for piece in where.pieces)
    tiles = tuple(tile._replace(location=in_file(tile.location, number, shift)) for tile in where.tiles)
    return where._replace(file=number, byte_offset=where.byte_offset + shift, pieces=pieces, tiles=tiles)


@dataclass(frozen=True)
class Contents:
    """What the headers of one checkpoint say.

    `containers`: the nested mappings and lists that hold a tensor below them, as the keys that lead to them joined by `/`
    (outermost first; only formats that nest have any). A tensor `a/b/w` inside container `a/b` is one that
    `PATH#a/b` calls `w`; without containers a `/` in a name is just a character. `is_tree`: the containers are the names' own
    parts, none is a wrapper around a state dict, and none is entered unasked.
    """

    files: tuple[Path, ...]
    tensors: Mapping[str, TensorSpec]
    locations: Mapping[str, Location]
    metadata: Mapping[str, str] = field(default_factory=dict)
    leaves: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: str = ""
    containers: tuple[str, ...] = ()
    is_tree: bool = False


class Checkpoint(ABC):
    """Named tensors that can be read. A context manager; safe to read from several threads."""

    @property
    @abstractmethod
    def manifest(self) -> Manifest:
        """Every name and spec, in the order of the file."""

    @property
    @abstractmethod
    def paths(self) -> tuple[Path, ...]:
        """The files that bytes are read from; `run` and `pread` count them from 0. Empty for arrays in memory."""

    @property
    @abstractmethod
    def format(self) -> str:
        """The name of the format, as in the registry (`memory` for arrays)."""

    @abstractmethod
    def run(self, name: str) -> tuple[int, int] | None:
        """(file index, byte offset) when the elements are one plain little-endian row-major run of a file, else None."""

    def runs(self, name: str) -> Sequence[Run] | None:
        """The whole tensor as plain stretches, by rising `start`; None when some of it is not plain, or is no stretch."""
        found = self.run(name)
        return None if found is None else (Run(0, self.manifest[name].numel, *found),)

    @abstractmethod
    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of that file from `offset`; SourceChanged when the file has become shorter."""

    @abstractmethod
    def fetch(
        self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """The elements `offset + Σ i_k*strides_k` of the row-major flat tensor, as an array of `dtype.bits` and of `shape`.

        The array may have any layout in memory, may share memory with others and may be read-only: it is for reading.
        """

    def descriptor(self, file: int) -> int | None:
        """The open descriptor of that file, for hints to the kernel and for sharing its blocks; None where there is none."""
        return None

    def crc(self, file: int, offset: int, nbytes: int) -> int | None:
        """The CRC-32 that the file itself keeps of exactly these bytes (a stored zip member); None when it keeps none."""
        return None

    def check_unchanged(self) -> None:  # noqa: B027  (nothing can change where nothing lies in a file)
        """SourceChanged when the size, the mtime or the inode of a file differ from when it was opened."""

    def keep_sums(self) -> None:  # noqa: B027  (only zip archives have checksums)
        """From now on, sum what is read, where the file keeps checksums of it."""

    def check_sums(self) -> None:  # noqa: B027
        """FormatError when bytes read since `keep_sums` are not those that were saved. What was read in bits is read again."""

    def close(self) -> None:  # noqa: B027  (nothing to close where no file is open)
        """Close the files. Reading afterwards is an error."""

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Literal:
    """Bytes of a target file that are no tensor's: headers, padding, names."""

    offset: int
    data: bytes


class Wish(NamedTuple):
    """`nbytes` bytes of a tensor could be shared with the source if its first byte lay at `residue`, modulo the block size."""

    residue: int
    nbytes: int


@dataclass(frozen=True)
class Sharing:
    """The file system of a target can share blocks of `block` bytes with the source: where tensors should lie for that.

    Two files share blocks where their bytes lie at the same offset modulo the block size. Tensors without a wish may lie anywhere.
    """

    block: int
    wishes: Mapping[str, Wish]


@dataclass(frozen=True)
class FileLayout:
    """One target file, laid out before any tensor is read.

    `tensors` maps a name to the byte offset of its row-major little-endian bytes (no overlap; increasing as listed);
    `literals` are all other bytes whose content is known now, by increasing offset. With checksums, `records` lists the
    (offset, nbytes) runs of the file whose CRC-32 is wanted (literals that lie inside count), and `trailer(crcs)` gives the
    literals that depend on them, each after the record it describes. `descriptor(number, crc)` is the one that follows
    that record, for those who write in order; the rest of the trailer lies after the last record.
    """

    name: str
    nbytes: int
    tensors: Mapping[str, int]
    literals: tuple[Literal, ...]
    records: tuple[tuple[int, int], ...] = ()
    trailer: Callable[[Sequence[int]], tuple[Literal, ...]] | None = None
    descriptor: Callable[[int, int], Literal] | None = None


@dataclass(frozen=True)
class OutputLayout:
    """All files of a target, in the order in which they are written (an index last).

    `is_folder`: the files lie in a folder of the target's name; otherwise there is one file and it has the target's name.
    """

    format: str
    files: tuple[FileLayout, ...]
    is_folder: bool = False

    @property
    def outline(self) -> OutputLayout:
        """The files' names and lengths alone: what is still asked for once they are written."""
        return OutputLayout(
            self.format, tuple(FileLayout(file.name, file.nbytes, {}, ()) for file in self.files), self.is_folder
        )


class Writer(Protocol):
    """A format's half for writing. Both functions are pure.

    A writer that can move its tensors to wanted offsets takes `sharing: Sharing | None = None` in `lay_out`, and its row in the
    registry says `shares=True`.
    """

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """Raise FormatError when the format cannot hold one of these (a dtype it lacks), naming all of them."""

    def lay_out(self, specs: Mapping[str, TensorSpec], *, name: str, metadata: Mapping[str, str]) -> FileLayout: ...


__all__ = [
    "Checkpoint", "Contents", "FileLayout", "Literal", "Location", "Manifest", "OutputLayout", "Run", "Sharing", "Tile", "Wish",
    "Writer", "in_file",
]  # fmt: skip
