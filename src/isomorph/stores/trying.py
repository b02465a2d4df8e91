"""Try again what may pass: a server that is busy, a connection that breaks, a body that ends early. A bounded number of times."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

ATTEMPTS = 5
PAUSE = 0.2
"""Seconds before the second attempt; twice as long before each further one, give or take a half."""

CONNECT_SECONDS, READ_SECONDS = 10, 30
"""A server that says nothing for so long is given up, and asked again."""


class PassingError(Exception):
    """A failure that may pass. Its text says what happened: `it answered 503 (Slow Down)`."""


def trying(act: Callable[[], Result], fail: Callable[[str], Exception]) -> Result:
    """The result of `act`, called again after each PassingError. What `fail(problem)` gives is raised after the last."""
    for attempt in range(ATTEMPTS):
        try:
            return act()
        except PassingError as error:
            problem = str(error)
        if attempt + 1 < ATTEMPTS:
            time.sleep(PAUSE * 2**attempt * (0.5 + random.random()))
    raise fail(f"{problem}, {ATTEMPTS} times")


def is_passing(status: int) -> bool:
    """True for the HTTP answers that ask to come again."""
    return status in (408, 425, 429) or status >= 500
