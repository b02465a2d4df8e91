"""What a command line gives, as tests see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    """What a command line gave: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


Isomorph = Callable[..., Said]
