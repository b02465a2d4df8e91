"""Tar archives, read in place: the headers are followed, nothing is unpacked, links and devices are refused.

512 bytes of header (name, size in octal, kind, checksum), the member's bytes, zeros up to the next 512; two blocks of zeros at the
end. Long names stand in a member of their own before the one they name (GNU `L`, pax `x`). (POSIX.1-2001, pax; GNU tar's manual.)
"""

from __future__ import annotations

import re
from typing import NamedTuple

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Contents, in_file
from isomorph.formats.source import Source
from isomorph.formats.window import Window

BLOCK = 512
MOST_MEMBERS = 10_000
LONGEST_EXTENSION = 1 << 20
"""Bytes of a long name, or of pax records."""

FILES, FOLDER = b"0\0007", b"5"
PAX, PAX_GLOBAL, LONG_NAME = b"x", b"g", b"L"
KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a named pipe",
    b"K": "a link of a long name", b"S": "a sparse file", b"V": "a volume's label", b"M": "a part of a file",
}  # fmt: skip


class Member(NamedTuple):
    """A file in a tar: its `nbytes` bytes lie at `offset`."""

    name: str
    offset: int
    nbytes: int


def is_tar(head: bytes) -> bool:
    """True when a file begins with the header of a tar: its mark, and a checksum that is right."""
    return head[257:262] == b"ustar" and len(head) >= BLOCK and _number(head[148:156]) == _checksum(head[:BLOCK])


def members_of(source: Source) -> dict[str, Member]:
    """The files of a tar, by name. FormatError when it is cut or damaged; UnsafeError for links, devices and what is neither."""
    path = source.path
    found: dict[str, Member] = {}
    at = 0
    named: str | None = None
    sized: int | None = None
    while at + BLOCK <= source.size:
        head = source.read(at, BLOCK)
        if not any(head):
            break
        if _number(head[148:156]) != _checksum(head):
            raise FormatError(
                path, f"a damaged tar archive: the header at byte {at:,} has another checksum than it says"
            )
        kind, size = head[156:157], _number(head[124:136])
        if size is None:
            raise FormatError(path, f"a damaged tar archive: the header at byte {at:,} has no size")
        if sized is not None and kind not in (PAX, PAX_GLOBAL, LONG_NAME):
            size, sized = sized, None
        begin, at = at + BLOCK, at + BLOCK + size + -size % BLOCK
        if begin + size > source.size:
            raise FormatError(
                path,
                f"truncated: a member of its tar takes bytes {begin:,} to {begin + size:,}, the file has {source.size:,}",
            )
        if kind in (PAX, PAX_GLOBAL, LONG_NAME):
            if size > LONGEST_EXTENSION:
                raise FormatError(
                    path, f"a tar archive with a name of {size:,} bytes; at most {LONGEST_EXTENSION:,} are read"
                )
            extension = source.read(begin, size)
            if kind == LONG_NAME:
                named = _text(extension)
            elif kind == PAX:
                records = _records(extension, path)
                named, sized = records.get("path", named), _decimal(records.get("size"), path)
            continue
        name = named if named is not None else _name(head)
        named = None
        if kind == FOLDER:
            continue
        if kind not in (b"0", b"\0", b"7"):
            what = KINDS.get(kind, f"a member of kind {kind!r}")
            raise UnsafeError(
                path,
                f"a tar archive that holds {what} ({printable(name, 120)}), which is not followed",
                "Unpack it first",
            )
        if name in found:
            raise FormatError(path, f"a tar archive with two members called {printable(name, 120)}")
        if len(found) == MOST_MEMBERS:
            raise FormatError(path, f"a tar archive of more than {MOST_MEMBERS:,} files", "Unpack it first")
        found[name] = Member(name, begin, size)
    return found


def read(source: Source) -> Contents:
    """What a tar holds: the archive that the oldest torch wrote, or one checkpoint that was packed for transport."""
    members = members_of(source)
    from isomorph.formats.torch.tar import MEMBERS

    if members.keys() >= MEMBERS:
        from isomorph.formats.torch.tar import read_members

        return read_members(source, members)
    return _read_one(source, members)


def _read_one(source: Source, members: dict[str, Member]) -> Contents:
    from isomorph.formats.folder import NOT_WEIGHTS, SUFFIXES
    from isomorph.formats.registry import FORMATS
    from isomorph.formats.sniff import sniff

    path = source.path

    def is_weights(name: str) -> bool:
        last = name.rpartition("/")[2]
        return last.endswith(SUFFIXES) and not NOT_WEIGHTS.fullmatch(last) and not last.startswith("._")

    weights = [member for name, member in members.items() if is_weights(name)]
    if len(weights) != 1:
        listed = [member.name for member in weights] or list(members)
        shown = ", ".join(printable(name, 120) for name in listed[:8]) + (
            f" and {len(listed) - 8:,} more" if len(listed) > 8 else ""
        )
        what = (
            f"{len(weights)} files of weights ({shown})"
            if weights
            else f"no file of weights (it holds {shown or 'nothing'})"
        )
        raise FormatError(path, f"a tar archive with {what}; one is read where it lies", "Unpack it first: tar -xf")
    (member,) = weights
    shown = printable(member.name, 120)
    if not member.nbytes:
        raise FormatError(path, f"its member {shown} is empty (0 bytes)")
    try:
        window = Window(source, member.offset, member.nbytes)
        kind = sniff(window)
        if kind == "tar" or kind not in FORMATS or (FORMATS[kind].many_files and kind != "gguf"):
            raise FormatError(
                path,
                "an archive, or a list of other files, which is not read inside of a tar",
                "Unpack it first: tar -xf",
            )
        contents, _ = FORMATS[kind].read(window)
        locations = {name: in_file(where, 0, member.offset) for name, where in contents.locations.items()}
        if any("hdf5" in (where.encoding or "") for where in locations.values()):
            raise FormatError(
                path, "its datasets are compressed, and are not read inside of a tar", "Unpack it first: tar -xf"
            )
    except FormatError as error:
        raise type(error)(path, f"its member {shown}: {error.problem}", error.advice) from None
    if window.members is not None:
        source.members = {
            name: each._replace(offset=each.offset + member.offset) for name, each in window.members.items()
        }
    notes = (*contents.notes, f"read inside of a tar archive, where it is {shown}")
    return Contents(
        (path,), contents.tensors, locations, contents.metadata, contents.leaves, notes, contents.format, contents.containers,
        contents.is_tree,
    )  # fmt: skip


# ── fields of a header ───────────────────────────────────────────────────────────────────────────────────────────────


def _checksum(head: bytes) -> int:
    """The sum of the bytes of a header, its own field taken as blanks."""
    return sum(head[:148]) + 8 * 32 + sum(head[156:BLOCK])


def _number(field: bytes) -> int | None:
    """A number in octal digits, or (where the first bit is set) in binary; None for what is neither."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else 0 if not digits else None


def _name(head: bytes) -> str:
    name = _text(head[:100])
    prefix = _text(head[345:500]) if head[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _records(raw: bytes, path: object) -> dict[str, str]:
    """pax: `LENGTH key=value` and a newline, LENGTH counting the whole record."""
    found: dict[str, str] = {}
    while raw:
        match = re.match(rb"([1-9][0-9]{0,8}) ([^=\n]+)=", raw)
        length = int(match[1]) if match else 0
        if match is None or length > len(raw) or length <= match.end() or raw[length - 1 : length] != b"\n":
            raise FormatError(path, "a damaged tar archive: its pax records cannot be read")
        found[_text(match[2])] = _text(raw[match.end() : length - 1])
        raw = raw[length:]
    return found


def _decimal(text: str | None, path: object) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise FormatError(path, f"a damaged tar archive: a member of {printable(text, 40)} bytes")
    return int(text)
