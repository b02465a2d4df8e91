"""What every format gives and takes: a header becomes Contents, a layout says which bytes go where. Bytes move elsewhere.

Reading: a format only parses headers. `read(files) -> Contents` names every tensor, its spec and its Location; one class,
`Checkpoint`, then does all the reading (byte ranges, strided boxes, decoding of what is not plain bytes).

Writing: a format only lays out. `lay_out(specs, ...) -> FileLayout` says, before any tensor is read, how long the file is, where
each tensor's row-major bytes go, and every other byte of it; only checksums are asked for at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from isomorph.tensors import Manifest, TensorSpec


@dataclass(frozen=True, slots=True)
class Location:
    """Where a tensor's elements lie.

    `file` is an index into `Contents.files`. Plain (`encoding` None): element (0, 0, …) at `byte_offset`, element steps `strides`
    in elements (None: one row-major run). Otherwise the `encoded_nbytes` bytes from `byte_offset` decode to the elements:
    `deflate` (raw zip member), `utf8-latin1` (a pickle protocol 2 text of code points < 256), `big` (plain bytes, big-endian).
    After decoding, `decoded_offset` (in bytes, into the decoded whole of `decoded_nbytes` bytes) and `strides` apply;
    tensors with the same (file, byte_offset, encoding) are decoded once.
    """

    file: int
    byte_offset: int
    strides: tuple[int, ...] | None = None
    encoding: str | None = None
    encoded_nbytes: int = 0
    decoded_offset: int = 0
    decoded_nbytes: int = 0


@dataclass(frozen=True)
class Contents:
    """What the headers of one checkpoint say."""

    files: tuple[Path, ...]
    tensors: Mapping[str, TensorSpec]
    locations: Mapping[str, Location]
    metadata: Mapping[str, str] = field(default_factory=dict)
    leaves: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: str = ""


@dataclass(frozen=True)
class Literal:
    """Bytes of a target file that are no tensor's: headers, padding, names."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class FileLayout:
    """One target file, laid out before any tensor is read.

    `tensors` maps a name to the byte offset of its row-major little-endian bytes (no overlap; increasing as listed);
    `literals` are all other bytes whose content is known now, by increasing offset. With checksums, `records` lists the
    (offset, nbytes) runs whose CRC-32 is wanted, and `trailer(crcs)` gives the literals that depend on them: all of
    those lie after the last record they describe, so that a file is written in increasing offset order.
    """

    name: str
    nbytes: int
    tensors: Mapping[str, int]
    literals: tuple[Literal, ...]
    records: tuple[tuple[int, int], ...] = ()
    trailer: Callable[[Sequence[int]], tuple[Literal, ...]] | None = None


@dataclass(frozen=True)
class OutputLayout:
    """All files of a target, in the order in which they are written (an index last).

    `is_folder`: the files lie in a folder of the target's name; otherwise there is one file and it has the target's name.
    """

    format: str
    files: tuple[FileLayout, ...]
    is_folder: bool = False


class Writer(Protocol):
    """A format's half for writing. Both functions are pure."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """Raise FormatError when the format cannot hold one of these (a dtype it lacks), naming all of them."""

    def lay_out(self, specs: Mapping[str, TensorSpec], *, name: str, metadata: Mapping[str, str]) -> FileLayout: ...


__all__ = ["Contents", "FileLayout", "Literal", "Location", "Manifest", "OutputLayout", "Writer"]
