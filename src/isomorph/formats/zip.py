"""Zip archives read strictly: one meaning or none. What two zip programs could understand differently is refused.

The directory at the end is the only truth, and everything else must agree with it: local headers, zip64 records, and the members
themselves, which lie one after the other from byte 0 to the directory without a gap or an overlap. (The format leaves room for
prefixes, hidden members, several directories; scanners and loaders then see different files.)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from isomorph.errors import FormatError, printable
from isomorph.formats.source import Source

LARGEST_DIRECTORY = 256 << 20
MOST_MEMBERS = 1_000_000
FLAGS = {0x0, 0x8, 0x800, 0x808}
"""Allowed: bit 3 (sizes follow the data) and bit 11 (names are UTF-8). Not: encrypted, patched, masked."""

STORED, DEFLATED = 0, 8
ZIP64_ID = 1
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
DESCRIPTOR_SIZES = (12, 16, 20, 24)

_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive. Its bytes lie at `offset`, `stored_nbytes` of them, and are `nbytes` long once inflated."""

    name: str
    offset: int
    nbytes: int
    stored_nbytes: int
    crc: int
    is_deflated: bool
    header_offset: int
    has_descriptor: bool


def read_members(source: Source) -> Mapping[str, Member]:
    """name -> Member, in the order of the directory. Read once per source."""
    if source.members is None:
        source.members = _Reader(source).members()
    return source.members


def read_member(source: Source, member: Member, limit: int) -> bytes:
    """The bytes of a small member, inflated.

    FormatError when they are more than `limit`, or not what the CRC says (a CRC of 0 says nothing).
    """
    if member.nbytes > limit:
        raise FormatError(
            source.path, f"its member {printable(member.name)} has {member.nbytes:,} bytes; at most {limit:,} are read"
        )
    raw = source.read(member.offset, member.stored_nbytes)
    if member.is_deflated:
        inflater = zlib.decompressobj(-15)
        try:
            raw = inflater.decompress(raw, member.nbytes + 1)
        except zlib.error as error:
            raise FormatError(source.path, f"its member {printable(member.name)} is corrupt: {error}") from None
        if len(raw) != member.nbytes or not inflater.eof or inflater.unused_data or inflater.unconsumed_tail:
            raise FormatError(
                source.path, f"its member {printable(member.name)} does not inflate to {member.nbytes:,} bytes"
            )
    if member.crc and zlib.crc32(raw) != member.crc:
        raise FormatError(
            source.path,
            f"its member {printable(member.name)} is corrupt (CRC-32 {zlib.crc32(raw):08x}, not {member.crc:08x})",
        )
    return raw


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source

    def fail(self, problem: str) -> FormatError:
        return FormatError(self.source.path, problem)

    def members(self) -> dict[str, Member]:
        count, begin, end = self._directory()
        raw = self.source.read(begin, end - begin)
        found: list[Member] = []
        seen: set[str] = set()
        at = 0
        for _ in range(count):
            if at + _ENTRY.size > len(raw):
                raise self.fail(f"its zip directory ends after {len(found)} of {count} members")
            entry, at = self._entry(raw, at)
            if entry.name in seen:
                raise self.fail(f"its zip directory names {printable(entry.name)} twice")
            seen.add(entry.name)
            found.append(entry)
        if at != len(raw):
            raise self.fail(f"{len(raw) - at} bytes of its zip directory belong to no member")
        self._require_one_case(seen)
        placed = self._placed(found, begin)
        return {entry.name: placed[entry.name] for entry in found}

    def _require_one_case(self, names: set[str]) -> None:
        """torch looks names up without regard to case, so that in its archives no two may differ in case alone."""
        if not any(name.casefold().rpartition("/")[2] == "data.pkl" for name in names):
            return
        folded: dict[str, str] = {}
        for name in sorted(names):
            other = folded.setdefault(name.casefold(), name)
            if other != name:
                raise self.fail(
                    f"its zip members {printable(other)} and {printable(name)} differ in case alone: which is meant?"
                )

    def _directory(self) -> tuple[int, int, int]:
        """(number of members, first byte of the directory, its end)."""
        source = self.source
        if source.size < _END.size:
            raise self.fail(f"truncated: {source.size} bytes are no zip archive")
        end_at = source.size - _END.size
        mark, disk, first_disk, here, count, nbytes, begin, comment = _END.unpack(source.read(end_at, _END.size))
        if mark != b"PK\5\6":
            raise FormatError(
                source.path,
                "truncated, or bytes follow its end: a zip archive ends with its directory, and this one does not",
                "Copy or download it again",
            )
        if comment or disk or first_disk or here != count:
            raise self.fail("its zip archive has a comment or several volumes; a checkpoint has neither")
        locator_at = end_at - _LOCATOR.size
        located = source.read(locator_at, _LOCATOR.size) if locator_at >= 0 else b""
        directory_end = end_at
        if located[:4] == b"PK\6\7":
            _, disk, end64_at, disks = _LOCATOR.unpack(located)
            if end64_at != locator_at - _END_64.size or end64_at < 0 or disk or disks != 1:
                raise self.fail("its zip64 locator does not point to the record before it")
            record = _END_64.unpack(source.read(end64_at, _END_64.size))
            mark, size, _, _, disk, first_disk, here64, count64, nbytes64, begin64 = record
            if mark != b"PK\6\6" or size != _END_64.size - 12 or disk or first_disk or here64 != count64:
                raise self.fail("its zip64 record is not one")
            for small, full, large in (
                (count, FULL_16, count64),
                (nbytes, FULL_32, nbytes64),
                (begin, FULL_32, begin64),
            ):
                if small not in (full, large):
                    raise self.fail(f"its zip and zip64 records disagree ({small} and {large})")
            count, nbytes, begin, directory_end = count64, nbytes64, begin64, end64_at
        if begin + nbytes != directory_end:
            raise self.fail(
                f"its zip directory is said to lie at bytes {begin:,} to {begin + nbytes:,}, and ends at {directory_end:,}: "
                "bytes were put before, after or between"
            )
        if nbytes > LARGEST_DIRECTORY or count > MOST_MEMBERS or count * _ENTRY.size > nbytes:
            raise self.fail(f"its zip directory claims {count:,} members in {nbytes:,} bytes")
        return count, begin, directory_end

    def _entry(self, raw: bytes, at: int) -> tuple[Member, int]:
        """The directory entry at `at` (its `offset` not known yet), and where the next one begins."""
        fields = _ENTRY.unpack_from(raw, at)
        mark, _, _, flags, method, _, _, crc, stored, nbytes, name_length, extra_length, comment, disk, _, _, header = (
            fields
        )
        name_at = at + _ENTRY.size
        extra_at = name_at + name_length
        end = extra_at + extra_length
        if mark != b"PK\1\2" or end > len(raw):
            raise self.fail(f"its zip directory is corrupt (byte {at} of it)")
        name = self._name(raw[name_at:extra_at], flags)
        if flags not in FLAGS:
            raise self.fail(f"its member {printable(name)} has zip flags {flags:#x}: encrypted, patched or hidden")
        if method not in (STORED, DEFLATED):
            raise self.fail(f"its member {printable(name)} is compressed with method {method}; only deflate is read")
        if comment or disk not in (0, FULL_16 if extra_length else 0):
            raise self.fail(f"its member {printable(name)} has a comment or lies in another volume")
        sizes = self._zip64(raw[extra_at:end], name, [nbytes, stored, header])
        nbytes, stored, header = sizes
        if method == STORED and stored != nbytes:
            raise self.fail(f"its member {printable(name)} is stored in {stored:,} bytes and said to have {nbytes:,}")
        if method == DEFLATED and nbytes > 1040 * stored:
            raise self.fail(
                f"its member {printable(name)} claims {nbytes:,} bytes deflated to {stored:,}, more than deflate can do"
            )
        return Member(name, 0, nbytes, stored, crc, method == DEFLATED, header, bool(flags & 8)), end

    def _name(self, raw: bytes, flags: int) -> str:
        try:
            name = raw.decode("utf-8" if flags & 0x800 else "cp437")
        except UnicodeDecodeError:
            raise self.fail(f"the name of a zip member is not UTF-8: {raw[:40]!r}") from None
        if not name or "\0" in name:
            raise self.fail(f"its zip archive has a member called {printable(name)!r}")
        return name

    def _zip64(self, extra: bytes, name: str, sizes: list[int]) -> list[int]:
        """`sizes` with those that are full (0xffffffff) taken from the zip64 field, in order."""
        wide = self._extra(extra, name)
        missing = [index for index, size in enumerate(sizes) if size == FULL_32]
        if wide is None:
            if missing:
                raise self.fail(f"its member {printable(name)} lacks its zip64 sizes")
            return sizes
        if len(wide) != 8 * len(missing) or not missing:
            raise self.fail(f"its member {printable(name)} has zip and zip64 sizes that do not go together")
        values = struct.unpack(f"<{len(missing)}Q", wide)
        found = list(sizes)
        for index, value in zip(missing, values, strict=True):
            found[index] = value
        return found

    def _extra(self, extra: bytes, name: str) -> bytes | None:
        """The content of the zip64 field, or None. (Other fields are padding and time stamps.)"""
        wide: bytes | None = None
        at = 0
        while at < len(extra):
            if at + 4 > len(extra):
                raise self.fail(f"its member {printable(name)} has a corrupt extra field")
            kind, length = struct.unpack_from("<2H", extra, at)
            at += 4
            if at + length > len(extra) or (kind == ZIP64_ID and wide is not None):
                raise self.fail(f"its member {printable(name)} has a corrupt extra field")
            if kind == ZIP64_ID:
                wide = extra[at : at + length]
            at += length
        return wide

    def _placed(self, entries: list[Member], end: int) -> dict[str, Member]:
        """The members with their payload's offset, each checked against its local header; FormatError for gaps and overlaps."""
        placed: dict[str, Member] = {}
        reached = 0
        descriptor = False
        before = "the beginning"
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            self._require_next(entry.header_offset - reached, descriptor, before, printable(entry.name))
            offset = self._payload_offset(entry, end)
            placed[entry.name] = Member(
                entry.name, offset, entry.nbytes, entry.stored_nbytes, entry.crc, entry.is_deflated, entry.header_offset,
                entry.has_descriptor,
            )  # fmt: skip
            reached, descriptor, before = offset + entry.stored_nbytes, entry.has_descriptor, printable(entry.name)
            if reached > end:
                raise self.fail(f"its member {before} reaches to byte {reached:,}, beyond the zip directory at {end:,}")
        self._require_next(end - reached, descriptor, before, "the zip directory")
        return placed

    def _require_next(self, gap: int, descriptor: bool, before: str, after: str) -> None:
        if gap < 0:
            raise self.fail(f"its zip members overlap: {after} begins {-gap:,} bytes before the end of {before}")
        if gap not in (DESCRIPTOR_SIZES if descriptor else (0,)):
            raise self.fail(f"{gap:,} bytes between {before} and {after} belong to no zip member")

    def _payload_offset(self, entry: Member, end: int) -> int:
        begin = entry.header_offset
        if begin + _LOCAL.size > end:
            raise self.fail(f"its member {printable(entry.name)} is said to lie at byte {begin:,}, outside the archive")
        head = self.source.read(begin, min(256, end - begin))
        mark, _, flags, method, _, _, crc, stored, nbytes, name_length, extra_length = _LOCAL.unpack_from(head)
        length = _LOCAL.size + name_length + extra_length
        if mark != b"PK\3\4" or begin + length > end:
            raise self.fail(f"its member {printable(entry.name)} has no header at byte {begin:,}")
        if length > len(head):
            head = self.source.read(begin, length)
        name = self._name(head[_LOCAL.size : _LOCAL.size + name_length], flags)
        if name != entry.name or bool(flags & 8) != entry.has_descriptor or flags not in FLAGS:
            raise self.fail(
                f"its member {printable(entry.name)} is called {printable(name)} (flags {flags:#x}) at byte {begin:,}"
            )
        if (method == DEFLATED) != entry.is_deflated or method not in (STORED, DEFLATED):
            raise self.fail(f"its member {printable(entry.name)} has two compression methods")
        wide = self._extra(head[_LOCAL.size + name_length : length], name)
        self._require_agreement(entry, crc, stored, nbytes, wide)
        return begin + int(length)

    def _require_agreement(self, entry: Member, crc: int, stored: int, nbytes: int, wide: bytes | None) -> None:
        """Local sizes equal those of the directory, or are left to the descriptor (0, or full with zeros in the zip64 field)."""
        if wide is not None and FULL_32 in (stored, nbytes):
            if len(wide) < 16:
                raise self.fail(f"its member {printable(entry.name)} has zip and zip64 sizes that do not go together")
            nbytes, stored = struct.unpack_from("<2Q", wide)
        said = (crc, stored, nbytes)
        true = (entry.crc, entry.stored_nbytes, entry.nbytes)
        if said == true or (
            entry.has_descriptor and all(left in (0, right) for left, right in zip(said, true, strict=True))
        ):
            return
        raise self.fail(
            f"its member {printable(entry.name)} has CRC and sizes {said} in its own header and {true} in the zip directory"
        )
