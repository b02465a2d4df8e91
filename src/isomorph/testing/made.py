"""A checkpoint whose elements are computed from their place: no file, no memory, any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.formats.base import Checkpoint
from isomorph.tensors import Manifest, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Element = Callable[[str, TensorSpec, "Array"], "Array"]
"""(tensor name, its spec, flat row-major indices as i64) -> the values there, of the spec's dtype or one that casts to it."""


class MadeCheckpoint(Checkpoint):
    """Tensors of these specs; `element` says what stands where. The same question always has the same answer."""

    def __init__(
        self, specs: Mapping[str, TensorSpec], element: Element, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        self._manifest = Manifest(dict(specs), origin="made on the spot", metadata=metadata or {})
        self._element = element

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def paths(self) -> tuple[Path, ...]:
        return ()

    @property
    def format(self) -> str:
        return "made"

    def run(self, name: str) -> tuple[int, int] | None:
        return None

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        raise IndexError(f"a made checkpoint has no file {file}")

    def fetch(self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Array:
        import numpy as np

        spec = self._manifest[name]
        flat = np.full(tuple(shape), offset, dtype=np.int64)
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
            flat += (np.arange(size) * stride).reshape([-1 if at == axis else 1 for at in range(len(shape))])
        values = self._element(name, spec, flat).astype(spec.dtype.numpy, copy=False)
        return np.ascontiguousarray(values).view(spec.dtype.bits).reshape(tuple(shape))
