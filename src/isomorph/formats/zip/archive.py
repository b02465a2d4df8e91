"""Zip archives read strictly: one meaning or none. What two zip programs could understand differently is refused.

The directory at the end is the only truth, and everything else must agree with it: local headers, zip64 records, and the members
themselves, which lie one after the other from byte 0 to the directory without a gap or an overlap. (The format leaves room for
prefixes, hidden members, several directories; scanners and loaders then see different files.)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

from isomorph.errors import FormatError, printable
from isomorph.formats.source import Source

LARGEST_DIRECTORY = 256 << 20
MOST_MEMBERS = 1_000_000
FLAGS = {0x0, 0x8, 0x800, 0x808}
"""Allowed: bit 3 (sizes follow the data) and bit 11 (names are UTF-8). Not: encrypted, patched, masked."""

EXPECTED, HEAD = 512, 512
"""So many members are announced to the source at a time, and so many bytes of each: its header, and that of an array in it."""

STORED, DEFLATED = 0, 8
ZIP64_ID = 1
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
DESCRIPTOR_SIZES = (12, 16, 20, 24)

ONE_HEADER, MANY_HEADERS = 1 << 8, 1 << 18
"""Bytes read at once for a local header, and for those of many small members."""

SMALL_MEMBER = 1 << 12
ALIGNED = 64
"""torch fills local headers up, so that what follows begins at a multiple of so many bytes."""

_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_FIELD = struct.Struct("<2H")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")


class Member(NamedTuple):
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


def directory_of(source: Source) -> tuple[int, int, int]:
    """(number of members, first byte of the directory, its end)."""
    return _Reader(source).directory()


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


class _Entry(NamedTuple):
    """One entry of the directory; its local header is at `begin`."""

    begin: int
    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    stored: int
    nbytes: int


def _is_padding(head: bytes, at: int, length: int) -> bool:
    """True when the extra field there is one field, whole, and not the zip64 one: what most local headers have."""
    if length < _FIELD.size:
        return False
    kind, nbytes = _FIELD.unpack_from(head, at)
    return bool(nbytes == length - _FIELD.size and kind != ZIP64_ID)


class _Reader:
    def __init__(self, source: Source) -> None:
        self.source = source
        self._base, self._bytes, self._most = 0, b"", ONE_HEADER

    def fail(self, problem: str) -> FormatError:
        return FormatError(self.source.path, problem)

    def members(self) -> dict[str, Member]:
        count, begin, end = self.directory()
        raw = self.source.read(begin, end - begin)
        found: list[_Entry] = []
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

    def directory(self) -> tuple[int, int, int]:
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

    def _entry(self, raw: bytes, at: int) -> tuple[_Entry, int]:
        """The directory entry at `at`, and where the next one begins."""
        fields = _ENTRY.unpack_from(raw, at)
        mark, _, _, flags, method, _, _, crc, stored, nbytes, name_length, extra_length, comment, disk, _, _, header = (
            fields
        )
        name_at = at + _ENTRY.size
        extra_at = name_at + name_length
        end = extra_at + extra_length
        if mark != b"PK\1\2" or end > len(raw):
            raise self.fail(f"its zip directory is corrupt (byte {at} of it)")
        raw_name = raw[name_at:extra_at]
        name = self._name(raw_name, flags)
        if flags not in FLAGS:
            raise self.fail(f"its member {printable(name)} has zip flags {flags:#x}: encrypted, patched or hidden")
        if method not in (STORED, DEFLATED):
            raise self.fail(f"its member {printable(name)} is compressed with method {method}; only deflate is read")
        if comment or disk not in (0, FULL_16 if extra_length else 0):
            raise self.fail(f"its member {printable(name)} has a comment or lies in another volume")
        if extra_length or FULL_32 in (nbytes, stored, header):
            nbytes, stored, header = self._zip64(raw[extra_at:end], name, [nbytes, stored, header])
        if method == STORED and stored != nbytes:
            raise self.fail(f"its member {printable(name)} is stored in {stored:,} bytes and said to have {nbytes:,}")
        if method == DEFLATED and nbytes > 1040 * stored:
            raise self.fail(
                f"its member {printable(name)} claims {nbytes:,} bytes deflated to {stored:,}, more than deflate can do"
            )
        return _Entry(header, name, raw_name, flags, method, crc, stored, nbytes), end

    def _name(self, raw: bytes, flags: int) -> str:
        try:
            name = raw.decode("ascii" if raw.isascii() else "utf-8" if flags & 0x800 else "cp437")
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

    def _placed(self, entries: list[_Entry], end: int) -> dict[str, Member]:
        """The members with their payload's offset, each checked against its local header; FormatError for gaps and overlaps."""
        placed: dict[str, Member] = {}
        reached = 0
        descriptor = False
        before = ""
        # Headers of small members lie close together: many are read at once.
        self._most = MANY_HEADERS if entries and end < len(entries) * SMALL_MEMBER else ONE_HEADER
        in_order = sorted(entries, key=itemgetter(0))
        for number, entry in enumerate(in_order):
            if number % EXPECTED == 0:
                self.source.expect((one.begin, HEAD) for one in in_order[number : number + EXPECTED])
            begin, name, _, flags, method, crc, stored, nbytes = entry
            if descriptor or begin != reached:
                self._require_next(begin - reached, descriptor, before, name)
            offset = self._payload_offset(entry, end)
            descriptor = bool(flags & 8)
            placed[name] = Member(name, offset, nbytes, stored, crc, method == DEFLATED, begin, descriptor)
            reached, before = offset + stored, name
            if reached > end:
                raise self.fail(
                    f"its member {printable(name)} reaches to byte {reached:,}, beyond the zip directory at {end:,}"
                )
        self._require_next(end - reached, descriptor, before, "")
        return placed

    def _require_next(self, gap: int, descriptor: bool, before: str, after: str) -> None:
        before = printable(before) if before else "the beginning"
        after = printable(after) if after else "the zip directory"
        if gap < 0:
            raise self.fail(f"its zip members overlap: {after} begins {-gap:,} bytes before the end of {before}")
        if gap not in (DESCRIPTOR_SIZES if descriptor else (0,)):
            raise self.fail(f"{gap:,} bytes between {before} and {after} belong to no zip member")

    def _local(self, begin: int, nbytes: int, end: int) -> tuple[bytes, int]:
        """(some bytes of the file, where among them those from `begin` on are, at least `nbytes` of them or all up to `end`)."""
        at = begin - self._base
        if at < 0 or at + min(nbytes, end - begin) > len(self._bytes):
            self._base, at = begin, 0
            self._bytes = self.source.read(begin, min(max(nbytes, self._most), end - begin))
        return self._bytes, at

    def _payload_offset(self, entry: _Entry, end: int) -> int:
        begin = entry.begin
        if begin + _LOCAL.size > end:
            raise self.fail(f"its member {printable(entry.name)} is said to lie at byte {begin:,}, outside the archive")
        head, at = self._local(begin, _LOCAL.size + len(entry.raw_name) + 2 * ALIGNED, end)
        mark, _, flags, method, _, _, crc, stored, nbytes, name_length, extra_length = _LOCAL.unpack_from(head, at)
        length = _LOCAL.size + name_length + extra_length
        if mark != b"PK\3\4" or begin + length > end:
            raise self.fail(f"its member {printable(entry.name)} has no header at byte {begin:,}")
        if at + length > len(head):
            head, at = self._local(begin, length, end)
        extra_at = at + _LOCAL.size + name_length
        raw_name = head[at + _LOCAL.size : extra_at]
        if raw_name != entry.raw_name or flags != entry.flags:
            name = self._name(raw_name, flags)
            if name != entry.name or (flags ^ entry.flags) & 8 or flags not in FLAGS:
                raise self.fail(
                    f"its member {printable(entry.name)} is called {printable(name)} (flags {flags:#x}) at byte {begin:,}"
                )
        if method != entry.method:
            raise self.fail(f"its member {printable(entry.name)} has two compression methods")
        wide = None
        if extra_length and not _is_padding(head, extra_at, extra_length):
            wide = self._extra(head[extra_at : at + length], entry.name)
        if wide is not None or (crc, stored, nbytes) != (entry.crc, entry.stored, entry.nbytes):
            self._require_agreement(entry, crc, stored, nbytes, wide)
        return begin + int(length)

    def _require_agreement(self, entry: _Entry, crc: int, stored: int, nbytes: int, wide: bytes | None) -> None:
        """Local sizes equal those of the directory, or are left to the descriptor (0, or full with zeros in the zip64 field)."""
        if wide is not None and FULL_32 in (stored, nbytes):
            if len(wide) < 16:
                raise self.fail(f"its member {printable(entry.name)} has zip and zip64 sizes that do not go together")
            nbytes, stored = struct.unpack_from("<2Q", wide)
        said = (crc, stored, nbytes)
        true = (entry.crc, entry.stored, entry.nbytes)
        if said == true or (
            entry.flags & 8 and all(left in (0, right) for left, right in zip(said, true, strict=True))
        ):
            return
        raise self.fail(
            f"its member {printable(entry.name)} has CRC and sizes {said} in its own header and {true} in the zip directory"
        )
