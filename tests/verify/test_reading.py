"""How the verifier reads names: one way to cut, found fast, is the one that counting finds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.language.rules import FullName, IndexHole, LabelHole, Literal, NamePiece, PathHole, PieceHole
from isomorph.language.tree import Number
from isomorph.verify.reading import Pattern, TwoCuts, number_text

PIECES: list[NamePiece] = [
    Literal("."),
    Literal("a"),
    Literal("_b"),
    Literal("::"),
    PieceHole("x"),
    PathHole("y"),
    IndexHole(("i",), Number(0)),
    IndexHole(("j",), Number(1), pad="02"),
    IndexHole(("k",), Number(0), pad="_"),
    LabelHole("p", ("a", "ab")),
    LabelHole("q", ("a", "b", "_b")),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5, unique=True), st.text("ab_.:/01", max_size=9))
def test_cutting_at_borders_is_cutting_by_counting(pieces: list[NamePiece], name: str) -> None:
    """Where a pattern has one way to be cut, both give the same texts; and the texts make up the name."""
    pattern = Pattern(FullName(tuple(pieces), "x"), {})
    try:
        texts = pattern.cut_by_counting(name)
    except TwoCuts:
        assert not pattern.is_plain
        return
    assert texts is None or "".join(texts) == name
    assert pattern.cut(name) == texts


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2000), st.integers(0, 30), st.sampled_from([1, -1]), st.sampled_from([None, "02", "_"]))
def test_an_index_that_is_written_reads_back(value: int, offset: int, sign: int, pad: str | None) -> None:
    hole = IndexHole(("i",), Number(offset), sign, pad)
    pattern = Pattern(FullName((Literal("l"), hole, Literal(".w")), "l{i}.w"), {})
    name = pattern.write({"i": value}, {}, {})
    if offset + sign * value < 0:
        assert name is None
    else:
        assert name is not None
        reading = pattern.read(name, {})
        assert reading is not None
        assert reading.axes == {"i": value}
        assert pattern.read(name, {"i": value}) is None


def test_a_name_with_two_cuts_is_refused() -> None:
    pattern = Pattern(FullName((PieceHole("a"), Literal("_"), PieceHole("b")), "{a}_{b}"), {})
    with pytest.raises(TwoCuts):
        pattern.read("x_y_z", {})
    assert pattern.read("x_y", {}) is not None


def test_numbers_as_keras_and_as_files_write_them() -> None:
    assert [number_text(number, "_") for number in (0, 1, 12)] == ["", "_1", "_12"]
    assert [number_text(number, "03") for number in (0, 1000)] == ["000", "1000"]
    assert number_text(-1, None) is None


def test_a_long_name_is_read_in_a_moment() -> None:
    """Counting is linear in the name: a pattern of many paths on a long name ends."""
    stars = tuple(piece for place in range(12) for piece in (PathHole(f"y{place}"), Literal("a")))
    with pytest.raises(TwoCuts):
        Pattern(FullName(stars, "**a" * 12), {}).read("a" * 5000, {})
