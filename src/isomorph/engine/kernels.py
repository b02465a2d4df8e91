"""place: a strided array into a strided place, at the speed of memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def place(array: Array, flat: Array, offset: int, strides: Sequence[int]) -> None:
    """flat[offset + Σ ik*strides_k] = array[i], for every index i of `array`. Strides in elements."""
    nbytes = flat.dtype.itemsize
    target = np.lib.stride_tricks.as_strided(flat[offset:], array.shape, [step * nbytes for step in strides])
    target[...] = array
