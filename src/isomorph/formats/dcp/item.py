"""One item of a `.distcp` file: the torch zip that `torch.save(tensor)` wrote from a byte of the file on.

Items of one shape differ in their elements, in the checksums of these and in an id that nobody reads. So an item is read whole
once, and the next ones that have the same bytes wherever reading looked are that item with checksums of their own.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from isomorph.errors import FormatError, SourceChanged
from isomorph.formats.base import Location
from isomorph.formats.containers import TENSOR_ALONE
from isomorph.formats.source import Source
from isomorph.formats.torch.zip import read
from isomorph.formats.window import Window
from isomorph.formats.zip.archive import Member, directory_of
from isomorph.tensors import TensorSpec

MOST_KINDS = 16
"""Kinds of items of one length that are kept; others are read whole each time."""

MOST_LENGTHS = 1000
"""Lengths of which kinds are kept: a kind takes a few KB, and a model has tensors of a few dozen shapes."""

CRC_LOCAL, CRC_LISTED = 14, 16
"""Where the CRC-32 is in a local header, and in an entry of the directory."""
LISTED, LENGTHS = 46, 28
"""Bytes of an entry of the directory before its name, and where the lengths of name, extra field and comment are in it."""


class _Kind(NamedTuple):
    """What items of one shape have in common: `ranges` of their bytes are `same`, and `crcs` say where the checksums are."""

    ranges: tuple[slice, ...]
    same: bytes
    members: tuple[Member, ...]
    crcs: tuple[tuple[int, int | None], ...]
    """Of each member: in the directory; and in its own header, where it is there and not among what is `same`."""

    spec: TensorSpec
    location: Location


class Items:
    """The items of all files of a checkpoint."""

    def __init__(self) -> None:
        self._kinds: dict[int, list[_Kind]] = {}

    def read(self, file: Source, offset: int, nbytes: int, name: str) -> tuple[TensorSpec, Location]:
        """The one tensor of an item; its place is counted from the item's first byte. FormatError when it is anything else."""
        try:
            window = Window(file, offset, nbytes)
            spec, location, members = self._known(window) or self._whole(window)
        except FormatError as error:
            kind: Any = type(error)
            raise kind(
                file.path, f"the item of {name} at byte {offset:,} ({nbytes:,} bytes): {error.problem}", error.advice
            ) from None
        except SourceChanged:
            raise
        if file.members is None:
            file.members = {}
        file.members.update(  # type: ignore[attr-defined]
            {
                f"{offset}/{member.name}": member._replace(
                    offset=member.offset + offset, name=f"{name[1:-1]}/{member.name}"
                )
                for member in members
            }
        )
        return spec, location

    def _known(self, window: Window) -> tuple[TensorSpec, Location, tuple[Member, ...]] | None:
        """An item of a kind that was read before."""
        for kind in self._kinds.get(window.size, ()):
            edges = window.edges
            if b"".join([edges[part] for part in kind.ranges]) != kind.same:
                continue
            members = []
            for member, (listed, local) in zip(kind.members, kind.crcs, strict=True):
                crc = edges[listed : listed + 4]
                if local is not None and edges[local : local + 4] != crc:
                    return None  # reading it says what is wrong
                members.append(member._replace(crc=int.from_bytes(crc, "little")))
            return kind.spec, kind.location, tuple(members)
        return None

    def _whole(self, window: Window) -> tuple[TensorSpec, Location, tuple[Member, ...]]:
        contents = read(window)
        if list(contents.tensors) != [TENSOR_ALONE]:
            raise FormatError(window.path, "it holds no single tensor")
        spec, location = contents.tensors[TENSOR_ALONE], contents.locations[TENSOR_ALONE]
        members = tuple((window.members or {}).values())
        kept = self._kinds.get(window.size, [])
        if len(kept) < MOST_KINDS and (kept or len(self._kinds) < MOST_LENGTHS):
            kind = _kind_of(window, spec, location, members)
            if kind is not None:
                self._kinds[window.size] = [*kept, kind]
        return spec, location, members


def _kind_of(window: Window, spec: TensorSpec, location: Location, members: tuple[Member, ...]) -> _Kind | None:
    """The kind of an item that was just read; None where what decides does not lie at its edges.

    What decides is all that reading looks at: headers, directory, and the bytes of every member but the elements and the id.
    """
    _, listed, _ = directory_of(window)
    ranges: list[tuple[int, int]] = []
    crcs: list[tuple[int, int | None]] = []
    raw = window.read(listed, window.size - listed)
    at = 0
    for member in members:
        name_nbytes, extra_nbytes, comment_nbytes = struct.unpack_from("<3H", raw, at + LENGTHS)
        crc, end = listed + at + CRC_LISTED, listed + at + LISTED + name_nbytes + extra_nbytes + comment_nbytes
        local = member.header_offset + CRC_LOCAL
        if _is_looked_at(member.name):
            ranges += [(listed + at, end), (member.header_offset, member.offset + member.stored_nbytes)]
            crcs.append((crc, None))
        else:
            ranges += [(listed + at, crc), (crc + 4, end)]
            follows = member.has_descriptor and not any(window.read(local, 4))
            if follows:
                ranges.append((member.header_offset, member.offset))
            else:
                ranges += [(member.header_offset, local), (local + 4, member.offset)]
            crcs.append((crc, None if follows else local))
        at = end - listed
    ranges.append((listed + at, window.size))
    try:
        found = tuple(slice(*window.at_edges(begin, end)) for begin, end in ranges)
        places = tuple(
            (window.at_edges(crc, crc + 4)[0], None if local is None else window.at_edges(local, local + 4)[0])
            for crc, local in crcs
        )
    except ValueError:
        return None
    edges = window.edges
    return _Kind(found, b"".join([edges[part] for part in found]), members, places, spec, location)


def _is_looked_at(name: str) -> bool:
    inner = name.partition("/")[2]
    return not inner.startswith("data/") and inner != ".data/serialization_id"


__all__ = ["Items"]
