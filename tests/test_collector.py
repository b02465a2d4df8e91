"""The garbage collector is on again afterwards, and finds what a long-lived process leaves behind."""

from __future__ import annotations

import gc
import weakref

import pytest

from isomorph.collector import uncollected


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.myself = self


def test_what_became_garbage_inside_is_found_afterwards() -> None:
    """A process that opens and plans again and again, and whose own code makes little, does not grow."""
    made: weakref.WeakSet[Cycle] = weakref.WeakSet()
    most = 0
    for _ in range(3000):
        with uncollected():
            for _ in range(20):
                made.add(Cycle())
        most = max(most, len(made))
    assert most < 30_000


def test_it_waits_and_is_left_as_it_was() -> None:
    """Also where something fails inside, and where somebody has it off."""
    with pytest.raises(KeyError), uncollected():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
