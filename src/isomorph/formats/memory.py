"""Arrays in memory, read the way files are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Checkpoint
from isomorph.tensors import DType, Manifest, TensorSpec, dtype

Array = np.ndarray[Any, np.dtype[Any]]


class ArrayCheckpoint(Checkpoint):
    """A mapping of numpy arrays as a checkpoint. The arrays are not copied (unless they are big-endian or not row-major)."""

    def __init__(
        self,
        arrays: Mapping[str, Array],
        *,
        dtypes: Mapping[str, DType] | None = None,
        metadata: Mapping[str, str] | None = None,
        origin: str = "memory",
        shared: tuple[tuple[str, ...], ...] = (),
    ) -> None:
        """`dtypes` names the dtype of arrays that hold the bits of another (bf16 as u2), `shared` the names of one array each.

        FormatError for arrays of objects, strings, dates, records.
        """
        tensors: dict[str, TensorSpec] = {}
        self._flat: dict[str, Array] = {}
        for name, array in arrays.items():
            given = np.asarray(array)
            kind = (dtypes or {}).get(name) or dtype_of(given, name)
            plain = given.astype(given.dtype.newbyteorder("<"), copy=False) if given.dtype.byteorder == ">" else given
            tensors[name] = TensorSpec(kind, given.shape)
            self._flat[name] = np.ascontiguousarray(plain).reshape(-1).view(kind.bits)
        self._manifest = Manifest(tensors, origin=origin, shared=shared, metadata=dict(metadata or {}))

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def paths(self) -> tuple[Path, ...]:
        return ()

    @property
    def format(self) -> str:
        return "memory"

    def run(self, name: str) -> tuple[int, int] | None:
        if name not in self._flat:
            raise KeyError(name)
        return None

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        raise IndexError(f"arrays in memory have no file {file}")

    def fetch(self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Array:
        flat = self._flat[name]
        if 0 in tuple(shape):
            return np.empty(tuple(shape), flat.dtype)
        steps = [step if size > 1 else 0 for size, step in zip(shape, strides, strict=True)]
        low = offset + sum((size - 1) * min(step, 0) for size, step in zip(shape, steps, strict=True))
        high = offset + sum((size - 1) * max(step, 0) for size, step in zip(shape, steps, strict=True))
        if low < 0 or high >= flat.size:
            raise IndexError(f"elements {low} to {high} of `{name}`, which has {flat.size}")
        nbytes = flat.dtype.itemsize
        return np.lib.stride_tricks.as_strided(
            flat[offset:], tuple(shape), tuple(step * nbytes for step in steps), writeable=False
        )


def dtype_of(array: Array, name: str) -> DType:
    """The dtype of an array. FormatError for objects, strings, dates, records and long doubles."""
    kind = array.dtype
    try:
        found = dtype(kind.name)
    except KeyError:
        found = None
    if found is None or found.nbytes != kind.itemsize or kind.hasobject or kind.names is not None:
        raise FormatError("memory", f"`{printable(name)}` holds {kind}, which is no dtype of tensors")
    return found


__all__ = ["ArrayCheckpoint", "dtype_of"]
