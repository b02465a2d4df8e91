"""Parts of an upload: laws over random ranges, and against all choices tried out on small ones."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from isomorph.stores.parts import LEAST, MOST_PARTS, Part, Range, plan_parts

MIB = 1 << 20


@st.composite
def targets(draw: st.DrawFn, unit: int = 1, most: int = 12, longest: int = 9) -> tuple[int, list[Range]]:
    """A size, and ranges that may be copied, some of which follow each other in the same source."""
    at, ranges, source_at = 0, [], 0
    for _ in range(draw(st.integers(0, most))):
        at += draw(st.integers(0, longest)) * unit
        nbytes = draw(st.integers(1, longest)) * unit
        source_at += draw(st.sampled_from([0, unit]))
        ranges.append(Range(at, nbytes, draw(st.integers(0, 1)), source_at))
        at, source_at = at + nbytes, source_at + nbytes
    return at + draw(st.integers(0 if at else 1, longest)) * unit, ranges


def check(nbytes: int, ranges: list[Range], parts: list[Part], least: int, most_parts: int) -> None:
    assert (0, nbytes) == (parts[0].offset, parts[-1].stop)
    assert all(one.stop == other.offset for one, other in pairwise(parts))
    assert all(part.nbytes >= least for part in parts[:-1]) and parts[-1].nbytes > 0
    assert len(parts) <= most_parts
    for part in parts:
        if part.source is not None:
            assert (part.offset, part.nbytes) == (part.source.offset, part.source.nbytes)
            for byte in {part.offset, part.stop - 1}:
                home = next(one for one in ranges if one.offset <= byte < one.stop)
                assert home.file == part.source.file
                assert byte - home.offset + home.source_offset == byte - part.offset + part.source.source_offset


@given(targets(unit=MIB, longest=40))
def test_every_byte_is_in_one_part_of_legal_size(target: tuple[int, list[Range]]) -> None:
    """Parts follow one another from the first byte to the last, 5 MiB or more but for the last, and copies copy what they say."""
    nbytes, ranges = target
    parts = plan_parts(nbytes, ranges)
    assert parts is not None
    check(nbytes, ranges, parts, LEAST, MOST_PARTS)


def most_copied(nbytes: int, ranges: list[Range], least: int) -> int:
    """All ways of copying or sending each byte, tried out: the most bytes that legal parts copy.

    A state is (is the running part copied, its length so far up to `least`); a copied part goes on only inside one source run.
    """
    follows = [False] * (nbytes + 1)  # byte k may be in one copied part with byte k - 1
    copyable = [False] * nbytes
    for one in ranges:
        for byte in range(one.offset, one.stop):
            copyable[byte] = True
            follows[byte] = byte > one.offset
    for one, other in pairwise(ranges):
        if (one.stop, one.file, one.source_offset + one.nbytes) == (other.offset, other.file, other.source_offset):
            follows[other.offset] = True
    states: dict[tuple[bool, int], int] = {}
    for byte in range(nbytes):
        found: dict[tuple[bool, int], int] = {}

        def put(copied: bool, length: int, total: int, found: dict[tuple[bool, int], int] = found) -> None:
            key = (copied, min(length, least))
            found[key] = max(found.get(key, -1), total)

        kinds = (False, True) if copyable[byte] else (False,)
        for kind in kinds:
            if byte == 0:
                put(kind, 1, int(kind))
            for (copied, length), total in states.items():
                if length >= least:
                    put(kind, 1, total + kind)
                if kind == copied and (not kind or follows[byte]):
                    put(kind, length + 1, total + kind)
        states = found
    return max(states.values())


@given(targets(most=5, longest=8), st.integers(2, 4))
def test_no_legal_choice_copies_more(target: tuple[int, list[Range]], least: int) -> None:
    """As many bytes are copied as in the best of all cuts, tried out."""
    nbytes, ranges = target
    parts = plan_parts(nbytes, ranges, least=least)
    assert parts is not None
    check(nbytes, ranges, parts, least, MOST_PARTS)
    assert most_copied(nbytes, ranges, least) == sum(part.nbytes for part in parts if part.source is not None)


@given(targets(unit=MIB, most=30), st.integers(8, 20))
def test_few_parts_are_made_larger(target: tuple[int, list[Range]], most_parts: int) -> None:
    """Where ten thousand parts would not suffice, short ranges are sent and parts grow; the bytes stay the same."""
    nbytes, ranges = target
    parts = plan_parts(nbytes, ranges, most_parts=most_parts)
    assert parts is not None
    check(nbytes, ranges, parts, LEAST, most_parts)


def test_what_no_upload_can_hold_is_said() -> None:
    """More than 10,000 parts of 5 GiB are no upload."""
    assert plan_parts(MOST_PARTS * (5 << 30) + 1) is None


def test_the_example_of_the_module() -> None:
    """A header takes 4 MiB of what follows; a range below 5 MiB is sent."""
    ranges = [Range(1 * MIB, 20 * MIB, 0, 100 * MIB), Range(23 * MIB, 3 * MIB, 0, 0)]
    parts = plan_parts(66 * MIB, ranges, usual=15 * MIB)
    assert parts is not None
    assert [(0, 5), (5, 16), (21, 15), (36, 15), (51, 15)] == [(one.offset // MIB, one.nbytes // MIB) for one in parts]
    assert [None, Range(5 * MIB, 16 * MIB, 0, 104 * MIB), None, None, None] == [one.source for one in parts]
