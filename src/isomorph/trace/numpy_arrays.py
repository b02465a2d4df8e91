"""numpy, as the recorder asks of a library."""

from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.tensors import dtype as dtype_of
from isomorph.trace.nouns import Array


class NumpyLibrary:
    """Arrays and numpy's own numbers; those of Python are no tensors."""

    def __init__(self, run: str) -> None:
        self.run = run

    def is_tensor(self, value: Any) -> bool:
        return isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind not in "OUSMm"

    def is_kept(self, value: Any) -> bool:
        return isinstance(value, np.ndarray | np.generic | np.dtype)

    def spelled(self, tensor: Any) -> str:
        return str(np.asarray(tensor).dtype.name)

    def seen(self, tensor: Any) -> Array:
        """Halves widened to float32, whole numbers to int64; in a float64 run, what is floating is float64."""
        found: Array = np.asarray(tensor)
        if found.dtype.kind in "iu":
            return found.astype(np.int64)
        if found.dtype.kind in "bc" or found.dtype == np.float64:
            return found
        return found.astype(np.float64 if self.run == "float64" else np.float32)

    def made(self, array: Array, dtype: str) -> Any:
        return np.array(array, copy=True).astype(dtype_of(dtype).numpy)
