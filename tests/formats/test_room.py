"""Memory that is used again: never while an array still lies in it."""

from __future__ import annotations

import numpy as np

from isomorph.formats.room import LEAST, MOST, _held, room

U1 = np.dtype(np.uint8)


def test_room_is_used_again_once_nobody_holds_it():
    """The block of an array that is gone serves the next (from no blocks on: of several free ones, any may)."""
    _held.blocks.clear()
    first = room(LEAST, U1)
    place = first.ctypes.data
    del first
    assert place == room(LEAST, U1).ctypes.data


def test_room_that_is_held_is_never_given_twice():
    """Views keep their block; many arrays at once have many blocks, with their own values."""
    arrays = [room(LEAST + number, U1) for number in range(40)]
    views = [array[10:20] for array in arrays]
    for number, array in enumerate(arrays):
        array[...] = number
    del arrays, array
    more = [room(LEAST, U1) for _ in range(40)]
    for array in more:
        array[...] = 255
    assert [list(view) for view in views] == [[number] * 10 for number in range(40)]


def test_room_begins_on_a_cache_line_and_has_the_dtype():
    """Where the kernel copies fastest."""
    array = room(LEAST, np.dtype("<u8"))
    assert (0, "<u8", LEAST) == (array.ctypes.data % 64, array.dtype.str, array.size)


def test_small_and_huge_arrays_are_fresh():
    """Neither is worth keeping."""
    assert room(8, U1).base is None
    assert room(MOST + 1, U1).base is None
