"""A reader with faults, so that one can see that they are found."""

from __future__ import annotations

from fuzz.harness import Harness

from isomorph.errors import FormatError


def faulty(data: bytes) -> None:
    """Takes for granted that a 7 follows a 3."""
    if data[:1] != b"\3":
        raise FormatError("m.bin", "does not begin with 3")
    {7: "fine"}[data[1] if len(data) > 1 else 7]


HARNESSES = [Harness("planted", faulty, lambda: {"three": b"\3\7"}, max_nbytes=8)]
