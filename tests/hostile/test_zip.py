"""Zip archives made to be understood in two ways (threats 21 to 26): each is one FormatError."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from isomorph.errors import FormatError
from isomorph.formats.source import Source
from isomorph.formats.zip.archive import read_member, read_members
from isomorph.formats.zip.layout import Entry, lay_out_zip


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    """A plain archive, as Python's zipfile writes it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as opened:
        for name, data in members:
            opened.writestr(zipfile.ZipInfo(name), data, method)
    return bytearray(made.getvalue())


def opened(tmp_path: Path, raw: bytes) -> Source:
    (tmp_path / "m.zip").write_bytes(raw)
    return Source(tmp_path / "m.zip")


def refusal(tmp_path: Path, raw: bytes) -> str:
    source = opened(tmp_path, raw)
    with pytest.raises(FormatError) as caught:
        read_members(source)
    source.close()
    return str(caught.value)


TWO = archive(("a.npy", b"first"), ("b.npy", b"second"))
LOCAL = [0, TWO.index(b"PK\3\4", 1)]
CENTRAL = [TWO.index(b"PK\1\2"), TWO.rindex(b"PK\1\2")]
END = TWO.index(b"PK\5\6")


def edited(*changes: tuple[int, bytes]) -> bytearray:
    raw = bytearray(TWO)
    for offset, data in changes:
        raw[offset : offset + len(data)] = data
    return raw


def flags(value: int) -> bytearray:
    raw = struct.pack("<H", value)
    return edited((LOCAL[0] + 6, raw), (CENTRAL[0] + 8, raw))


def moved_central(raw: bytearray, count: int) -> bytearray:
    """The directory's offset in the end record made larger by `count`."""
    at = raw.index(b"PK\5\6") + 16
    struct.pack_into("<I", raw, at, struct.unpack_from("<I", raw, at)[0] + count)
    return raw


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "encrypted": (lambda: flags(0x1), "zip flags 0x1: encrypted"),
    "patched": (lambda: flags(0x20), "zip flags 0x20"),
    "strongly encrypted": (lambda: flags(0x40), "zip flags 0x40"),
    "masked headers": (lambda: flags(0x2000), "zip flags 0x2000"),
    "another name in front": (lambda: edited((LOCAL[0] + 30, b"x.npy")), "is called x.npy"),
    "another size in front": (lambda: edited((LOCAL[0] + 18, b"\4\0\0\0\4\0\0\0")), "in its own header and"),
    "another CRC in front": (lambda: edited((LOCAL[0] + 14, b"\4\0\0\0")), "in its own header and"),
    "another method in front": (lambda: edited((LOCAL[0] + 8, b"\x08\0")), "two compression methods"),
    "an unknown method": (lambda: edited((LOCAL[0] + 8, b"\x0c\0"), (CENTRAL[0] + 10, b"\x0c\0")), "method 12"),
    "two members of one name": (lambda: edited((LOCAL[1] + 30, b"a"), (CENTRAL[1] + 46, b"a")), "names a.npy twice"),
    "names that differ in case": (
        lambda: archive(("x/data.pkl", b"1"), ("x/DATA.PKL", b"2")),
        "x/DATA.PKL and x/data.pkl differ in case alone",
    ),
    "a name with a NUL": (lambda: edited((LOCAL[0] + 31, b"\0"), (CENTRAL[0] + 47, b"\0")), "has a member called"),
    "members on the same bytes": (lambda: edited((CENTRAL[1] + 42, b"\0\0\0\0")), "overlap"),
    "a member inside another": (
        lambda: edited((CENTRAL[0] + 20, struct.pack("<2I", 45, 45)), (LOCAL[0] + 18, struct.pack("<2I", 45, 45))),
        "overlap",
    ),
    "a member beyond the directory": (
        lambda: edited((CENTRAL[1] + 20, struct.pack("<2I", 999, 999)), (LOCAL[1] + 18, struct.pack("<2I", 999, 999))),
        "beyond the zip directory",
    ),
    "a header outside": (lambda: edited((CENTRAL[1] + 42, b"\xf0\xff\xff\0")), "belong to no zip member"),
    "a hidden member": (
        lambda: edited((END + 8, b"\1\0\1\0"), (END + 12, struct.pack("<I", (END - CENTRAL[0]) // 2))),
        "bytes were put before, after or between",
    ),
    "bytes before": (lambda: b"#!/bin/sh\n" + TWO, "bytes were put before"),
    "bytes before, offsets mended": (
        lambda: moved_central(bytearray(b"#!/bin/sh\n" + TWO), 10),
        "has no header at byte 0",
    ),
    "bytes after": (lambda: TWO + b"x", "truncated, or bytes follow its end"),
    "another archive after": (lambda: TWO + TWO, "bytes were put before"),
    "bytes between": (
        lambda: moved_central(bytearray(TWO[: CENTRAL[0]] + b"gap" + TWO[CENTRAL[0] :]), 3),
        "3 bytes between b.npy and the zip directory",
    ),
    "a comment": (lambda: edited((END + 20, b"\1\0")) + b"c", "truncated, or bytes follow its end"),
    "a comment that looks like an end": (
        lambda: edited((END + 20, b"\x16\0")) + TWO[END:],
        "bytes were put before, after or between",
    ),
    "several volumes": (lambda: edited((END + 4, b"\1\0")), "several volumes"),
    "too many members": (lambda: edited((END + 8, b"\xff\xff\xff\xff")), "claims 65,535 members"),
    "too few members": (lambda: edited((END + 8, b"\1\0\1\0")), "belong to no member"),
    "no zip64 sizes": (lambda: edited((CENTRAL[0] + 20, b"\xff" * 8)), "lacks its zip64 sizes"),
    "a stored member of two sizes": (
        lambda: edited((CENTRAL[0] + 24, b"\x06\0\0\0")),
        "stored in 5 bytes and said to have 6",
    ),
    "only an end": (lambda: bytes(TWO[END:]), "bytes were put before"),
    "too short": (lambda: b"PK\3\4", "truncated: 4 bytes are no zip archive"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_archive_with_two_meanings_is_refused(case: str, tmp_path: Path) -> None:
    """What scanners and loaders could understand differently is not understood at all."""
    make, expected = REFUSED[case]
    assert expected in refusal(tmp_path, make())


def wide_archive(**changes: int) -> bytes:
    """One member, with zip64 records at the end; `changes` overrule their fields."""
    plain = archive(("a.npy", b"first"))
    at = plain.index(b"PK\1\2")
    end = plain.index(b"PK\5\6")
    size = end - at
    said = {"count": 1, "size": size, "offset": at, "where": end, "small_count": 1, "disks": 1, **changes}
    record = struct.pack(
        "<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, said["count"], said["count"], said["size"], said["offset"]
    )
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, said["where"], said["disks"])
    small = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, said["small_count"], said["small_count"], size, at, 0)
    return bytes(plain[:end]) + record + locator + small


def test_zip64_records_agree_with_the_small_ones(tmp_path: Path) -> None:
    """Both ends of the archive say the same, or the small one leaves it to the large one."""
    assert list(read_members(opened(tmp_path, wide_archive()))) == ["a.npy"]
    assert list(read_members(opened(tmp_path, wide_archive(small_count=0xFFFF)))) == ["a.npy"]
    assert "zip and zip64 records disagree (2 and 1)" in refusal(tmp_path, wide_archive(small_count=2))
    assert "does not point to the record before it" in refusal(tmp_path, wide_archive(where=0))
    assert "does not point to the record before it" in refusal(tmp_path, wide_archive(disks=2))
    assert "zip and zip64 records disagree" in refusal(tmp_path, wide_archive(offset=7))


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    """The declared size is compared with the limit, with what deflate can do, and with what comes out."""
    bomb = archive(("a.npy", bytes(10_000_000)), method=zipfile.ZIP_DEFLATED)
    source = opened(tmp_path, bomb)
    member = read_members(source)["a.npy"]
    with pytest.raises(FormatError, match=r"has 10,000,000 bytes; at most 1,000,000 are read"):
        read_member(source, member, 1_000_000)
    at = bomb.index(b"PK\1\2")
    for lie, expected in [(4_000_000_000, "more than deflate can do"), (1000, None)]:
        raw = bytearray(bomb)
        struct.pack_into("<I", raw, at + 24, lie)
        struct.pack_into("<I", raw, 22, lie)
        if expected is not None:
            assert expected in refusal(tmp_path, raw)
            continue
        source = opened(tmp_path, raw)
        with pytest.raises(FormatError, match="does not inflate to 1,000 bytes"):
            read_member(source, read_members(source)["a.npy"], 1_000_000)


def test_a_changed_byte_of_a_small_member_is_noticed(tmp_path: Path) -> None:
    """The CRC is compared; one of 0, which torch can be told to write, says nothing."""
    raw = bytearray(TWO)
    raw[raw.index(b"first")] ^= 1
    source = opened(tmp_path, raw)
    with pytest.raises(FormatError, match=r"a\.npy is corrupt"):
        read_member(source, read_members(source)["a.npy"], 100)
    for at in (LOCAL[0] + 14, CENTRAL[0] + 16):
        raw[at : at + 4] = bytes(4)
    source = opened(tmp_path, raw)
    assert read_member(source, read_members(source)["a.npy"], 100) == b"girst"


def test_what_we_lay_out_is_read_by_both(tmp_path: Path) -> None:
    """Python's zipfile and our reader see the same members; tensors lie where they were asked to."""
    entries = [
        Entry("m/data.pkl", b"pickle"),
        *(Entry(f"m/data/{k}", tensor=str(k), nbytes=k * 7, align=64) for k in range(9)),
        Entry("m/head", b"HEAD", tensor="h", nbytes=3, align=4096),
        Entry("m/version", b"3\n"),
    ]
    sizes = {entry.tensor: entry.nbytes for entry in entries if entry.tensor is not None}
    layout = lay_out_zip("m.zip", entries)
    raw = bytearray(layout.nbytes)
    for literal in layout.literals:
        raw[literal.offset : literal.offset + len(literal.data)] = literal.data
    for name, offset in layout.tensors.items():
        assert offset % (4096 if name == "h" else 64) == 0
        raw[offset : offset + sizes[name]] = name.encode() * sizes[name]
    assert layout.trailer is not None
    for literal in layout.trailer([zlib.crc32(raw[at : at + nbytes]) for at, nbytes in layout.records]):
        raw[literal.offset : literal.offset + len(literal.data)] = literal.data
    source = opened(tmp_path, raw)
    members = read_members(source)
    with zipfile.ZipFile(tmp_path / "m.zip") as theirs:
        assert theirs.testzip() is None
        assert list(members) == theirs.namelist()
        for name, member in members.items():
            assert read_member(source, member, 1 << 20) == theirs.read(name)


def test_large_members_and_archives_have_zip64_records(tmp_path: Path) -> None:
    """Sizes and offsets beyond 4 GiB, laid out and read back from a file of holes."""
    big = 5 << 30
    entries = [
        Entry("a", tensor="a", nbytes=big, align=64),
        Entry("b", tensor="b", nbytes=8, align=64),
        Entry("c", b"end"),
    ]
    layout = lay_out_zip("m.zip", entries)
    assert layout.trailer is not None
    path = tmp_path / "m.zip"
    with path.open("wb") as file:
        file.truncate(layout.nbytes)
        for literal in (*layout.literals, *layout.trailer([1, 2])):
            file.seek(literal.offset)
            file.write(literal.data)
    members = read_members(Source(path))
    assert [(member.nbytes, member.offset) for member in members.values()] == [
        (big, layout.tensors["a"]),
        (8, layout.tensors["b"]),
        (3, layout.nbytes - 3 - len(layout.trailer([1, 2])[-1].data)),
    ]
    with zipfile.ZipFile(path) as theirs:
        assert [(info.file_size, info.CRC) for info in theirs.infolist()] == [(big, 1), (8, 2), (3, zlib.crc32(b"end"))]
        assert theirs.read("c") == b"end"
