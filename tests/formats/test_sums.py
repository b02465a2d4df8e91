"""Checksums kept while bytes are read: in any order, in any cut, by any number of threads; damage is always found."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.formats.zip import sums
from isomorph.formats.zip.archive import Member
from isomorph.formats.zip.sums import Sums

DATA = bytes(number * 37 % 251 for number in range(3000))
SIZES = (700, 1, 900, 1399)


def members(data: bytes) -> list[Member]:
    """Four members, one after the other, with the checksums of `data`."""
    made, at = [], 0
    for size in SIZES:
        made.append(Member(f"data/{len(made)}", at, size, size, zlib.crc32(data[at : at + size]), False, at, False))
        at += size
    return made


def filled(data: bytes, reads: list[tuple[int, int]]) -> Callable[[int, memoryview], None]:
    def fill(offset: int, buffer: memoryview) -> None:
        reads.append((offset, len(buffer)))
        buffer[:] = data[offset : offset + len(buffer)]

    return fill


@given(
    stretches=st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 1500)), min_size=1, max_size=40),
    small=st.sampled_from([1, 64, 5000]),
    flipped=st.integers(0, 2999),
)
def test_a_flipped_byte_of_a_member_that_was_read_is_found(
    stretches: list[tuple[int, int]], small: int, flipped: int
) -> None:
    """Whatever was read of it, and whether or not the reads fit together. The others are not accused."""
    damaged = DATA[:flipped] + bytes([DATA[flipped] ^ 4]) + DATA[flipped + 1 :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sums, "SMALL", small)
        kept = Sums(members(DATA))
        touched = set()
        for offset, nbytes in stretches:
            kept.seen(offset, memoryview(damaged)[offset : offset + nbytes])
            stop = min(offset + nbytes, len(DATA))
            touched |= {
                member.name
                for member in members(DATA)
                if max(offset, member.offset) < min(stop, member.offset + member.nbytes)
            }
        found = [member.name for member, _ in kept.damaged(filled(damaged, []))]
    expected = [
        member.name
        for member in members(DATA)
        if member.offset <= flipped < member.offset + member.nbytes and member.name in touched
    ]
    assert found == expected


def test_stretches_that_make_up_a_member_are_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """In any order, twice or once."""
    monkeypatch.setattr(sums, "SMALL", 100)
    kept = Sums(members(DATA))
    for offset, nbytes in ((200, 501), (0, 200), (200, 501), (701, 900)):
        kept.seen(offset, memoryview(DATA)[offset : offset + nbytes])
    reads: list[tuple[int, int]] = []
    assert list(kept.damaged(filled(DATA, reads))) == []
    assert reads == []
    kept.seen(1601, memoryview(DATA)[1601:1611])
    assert list(kept.damaged(filled(DATA, reads))) == []
    assert reads == [(1601, 1399)]


def test_members_without_a_checksum_or_deflated_are_left_alone() -> None:
    """The first has nothing to be held against; the others are checked where they are inflated."""
    without = Member("a", 0, 4, 4, 0, False, 0, False)
    deflated = Member("b", 4, 900, 4, 7, True, 4, False)
    kept = Sums([without, deflated])
    kept.seen(0, memoryview(bytes(8)))
    assert list(kept.damaged(filled(bytes(8), []))) == []
