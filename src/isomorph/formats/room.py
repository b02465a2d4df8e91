"""Room for what is read: arrays whose memory is used again as soon as nobody holds them.

Fresh memory costs a page fault every 4 kB, more than reading into it. So each thread keeps a few blocks, and a new array takes one
that no array uses any more (numpy arrays hold their block; a block that only its thread's list holds is free).
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

LEAST = 1 << 16
"""Bytes below which fresh memory is as good."""
MOST = 12 << 20
"""Bytes of the blocks that a thread keeps for later."""
CACHE_LINE = 64


def _holders(blocks: list[Array], number: int) -> int:
    """How many references there are to a block, those of this call included. (How many those are is the interpreter's affair.)"""
    return sys.getrefcount(blocks[number])


UNHELD = _holders([np.empty(1, np.uint8)], 0)
"""What `_holders` says of a block that only its list holds."""


class _Blocks(threading.local):
    def __init__(self) -> None:
        self.blocks: list[Array] = []


_held = _Blocks()


def room(count: int, dtype: np.dtype[Any]) -> Array:
    """An uninitialised array of `count` elements, in memory of this thread that nothing else uses."""
    nbytes = count * dtype.itemsize
    if nbytes < LEAST or nbytes > MOST:
        return np.empty(count, dtype)
    needed = nbytes + CACHE_LINE
    blocks = _held.blocks
    for number in range(len(blocks)):
        if blocks[number].size >= needed and _holders(blocks, number) == UNHELD:
            blocks.append(blocks.pop(number))
            return _within(blocks[-1], count, dtype)
    block = np.empty(max(needed, min(2 * needed, 1 << 21)), np.uint8)
    blocks.append(block)
    while len(blocks) > 1 and sum(each.size for each in blocks) > MOST:
        del blocks[0]
    return _within(block, count, dtype)


def _within(block: Array, count: int, dtype: np.dtype[Any]) -> Array:
    start = -block.ctypes.data % CACHE_LINE
    return block[start : start + count * dtype.itemsize].view(dtype)
