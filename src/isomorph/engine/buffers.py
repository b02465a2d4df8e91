"""Buffers used again and again: fresh memory costs as much as filling it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


CACHE_LINE = 64
"""Bytes. The kernel copies into memory that begins on a cache line several times faster than into memory that does not."""


def _aligned(whole: Array, nbytes: int) -> Array:
    start = -whole.ctypes.data % CACHE_LINE
    return whole[start : start + nbytes]


class Buffers:
    """A pool of byte buffers that keeps at most `most` bytes. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._free: list[Array] = []

    def take(self, nbytes: int) -> Array:
        """A buffer of exactly `nbytes`: one that was given back and is not more than twice as long, or a new one."""
        needed = nbytes + CACHE_LINE
        with self._lock:
            fitting = [buffer for buffer in self._free if needed <= buffer.size <= 2 * needed]
            if fitting:
                whole = min(fitting, key=lambda buffer: buffer.size)
                self._free = [buffer for buffer in self._free if buffer is not whole]
                return _aligned(whole, nbytes)
        return _aligned(np.empty(needed, np.uint8), nbytes)

    def give_back(self, buffer: Array) -> None:
        """Let `buffer` be used again; what had lain longest is dropped where there is too much."""
        whole = buffer if buffer.base is None else buffer.base
        with self._lock:
            self._free.append(whole)
            while sum(each.size for each in self._free) > self._most:
                del self._free[0]
