"""The random numbers of a side: its own stream, so that a run neither takes any from the program nor depends on it.

The stream goes on from run to run: a model with dropout left on gives other numbers each time, and a whole trace repeated gives
the same.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Stream:
    """The random state of one side, over Python's and numpy's generators and the library's.

    `get` and `put` read and set the library's state, `seed` starts it.
    """

    title: str
    get: Callable[[], Any]
    put: Callable[[Any], None]
    seed: Callable[[int], Any]
    number: int = 0
    _copies: int = 0
    _state: tuple[Any, Any, Any] | None = field(default=None, repr=False)

    def branch(self) -> Stream:
        """The stream of a copy: another one, the same each time."""
        self._copies += 1
        return Stream(self.title, self.get, self.put, self.seed, self.number * 1009 + self._copies)

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Inside, random numbers come from this stream; outside, nothing has changed."""
        outside = self._read()
        try:
            if self._state is None:
                start = zlib.crc32(f"{self.title} {self.number}".encode())
                random.seed(start)
                np.random.seed(start)
                self.seed(start)
            else:
                self._write(self._state)
            yield
        finally:
            self._state = self._read()
            self._write(outside)

    def _read(self) -> tuple[Any, Any, Any]:
        return random.getstate(), np.random.get_state(), self.get()

    def _write(self, state: tuple[Any, Any, Any]) -> None:
        random.setstate(state[0])
        np.random.set_state(state[1])
        self.put(state[2])
