"""The elements of a tensor in row-major order, some at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint

Array = np.ndarray[Any, np.dtype[Any]]

AT_ONCE = 1 << 18
"""Bytes of a plain run that are read by one call."""


def runs(
    checkpoint: Checkpoint, name: str, *, start: int = 0, stop: int | None = None, max_memory: int = 64 << 20
) -> Iterator[Array]:
    """Elements `start` to `stop` of the flat tensor, in order, as 1-D arrays of `dtype.bits`. Each is only valid until the next."""
    spec = checkpoint.manifest[name]
    bits = spec.dtype.bits
    stop = spec.numel if stop is None else stop
    run = checkpoint.run(name)
    if run is None:
        most = max(1, max_memory // bits.itemsize)
        for low in range(start, stop, most):
            count = min(most, stop - low)
            yield np.ascontiguousarray(checkpoint.fetch(name, low, (count,), (1,))).view(bits)
        return
    file, offset = run
    most = AT_ONCE // bits.itemsize
    buffer = np.empty(min(most, stop - start), bits)
    for low in range(start, stop, most):
        part = buffer[: min(most, stop - low)]
        checkpoint.pread(file, offset + low * bits.itemsize, part.view("u1").data)
        yield part
