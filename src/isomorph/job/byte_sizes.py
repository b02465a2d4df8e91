"""`5GB`, `256MB`, `1GiB`, `1048576` -> bytes; k, M, G and T count by 1000, Ki, Mi, Gi and Ti by 1024."""

from __future__ import annotations

import re

from isomorph.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)(i?)[bB]?")
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def byte_size(value: int | str) -> int:
    """How many bytes. Raises UsageError for what is no size, or none above 0.

    >>> byte_size("5GB")
    5000000000
    """
    match = _SIZE.fullmatch(str(value).strip())
    number = 0
    if match is not None:
        base = 1024 if match[3] else 1000
        number = int(float(match[1]) * base ** _UNITS[match[2].lower()])
    if number <= 0:
        raise UsageError(f"`{value}` is no size; write for example 5GB, 256MB or 1GiB")
    return number
