"""Hints to the kernel are given where a file is read from front to back, and only there."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from isomorph.formats.ahead import WINDOW, Ahead

MIB = 1 << 20


@pytest.fixture
def hints(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(offset, nbytes) of every hint."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, offset, nbytes, advice: given.append((offset, nbytes)))
    return given


@pytest.mark.parametrize("order", [range(200), [n ^ 1 for n in range(200)]], ids=["one thread", "two take turns"])
def test_what_is_read_in_order_is_asked_for_once_ahead(hints: list[tuple[int, int]], order: list[int]):
    """From the fourth read on, all that follows, without a gap or an overlap, at most two windows ahead."""
    ahead = Ahead(0, 1 << 40)
    for number in order:
        ahead.read(number * MIB, MIB)
        assert not hints or hints[-1][0] + WINDOW <= (number + 2) * MIB + 2 * WINDOW
    assert 200 * MIB <= hints[-1][0] + WINDOW
    assert all(before[0] + before[1] == after[0] for before, after in pairwise(hints))


def test_what_is_read_here_and_there_is_not_asked_for(hints: list[tuple[int, int]]):
    """Columns of a matrix, small reads, the last bytes of a file: no hints."""
    ahead = Ahead(0, 1 << 40)
    for number in range(50):
        ahead.read(number * 32 * MIB, MIB)
        ahead.read(5_000, 4_000)
    end = Ahead(0, 3 * MIB)
    for number in range(3):
        end.read(number * MIB, MIB)
    assert [] == hints


def test_a_system_without_hints_is_read_all_the_same(monkeypatch: pytest.MonkeyPatch):
    """An error of the call, or no such call: nothing happens."""

    def refused(*_: object) -> None:
        raise OSError("not here")

    for number in range(10):
        monkeypatch.setattr(os, "posix_fadvise", refused)
        Ahead(0, 1 << 40).read(number * MIB, MIB)
    monkeypatch.delattr(os, "posix_fadvise")
    ahead = Ahead(0, 1 << 40)
    for number in range(10):
        ahead.read(number * MIB, MIB)
    assert ahead._asked > 0
