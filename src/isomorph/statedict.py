"""A checkpoint as a mapping of lazy tensors: nothing is executed, nothing is loaded until it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from isomorph.describe.boxes import values, view
from isomorph.describe.summary import Summary, key_lines
from isomorph.formats.base import Checkpoint
from isomorph.tensors import DType, Manifest, TensorSpec

if TYPE_CHECKING:
    import numpy as np


class LazyTensor:
    """One tensor of a checkpoint. `tensor[0:3]` and `numpy.asarray(tensor)` read elements; all else is known from the header."""

    __slots__ = ("_checkpoint", "name", "spec")

    def __init__(self, checkpoint: Checkpoint, name: str, spec: TensorSpec) -> None:
        self._checkpoint = checkpoint
        self.name = name
        self.spec = spec

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def dtype(self) -> DType:
        """The element type; `.dtype.numpy` is numpy's (bf16 and f8 through ml_dtypes)."""
        return self.spec.dtype

    @property
    def ndim(self) -> int:
        return len(self.spec.shape)

    @property
    def size(self) -> int:
        """How many elements."""
        return self.spec.numel

    @property
    def nbytes(self) -> int:
        return self.spec.nbytes

    def __len__(self) -> int:
        if not self.spec.shape:
            raise TypeError("a tensor without axes has no length")
        return self.spec.shape[0]

    def __getitem__(self, key: object) -> np.ndarray[Any, Any]:
        """Read a part: integers, slices and `...`, as numpy means them; only that part is read."""
        return values(self._checkpoint, self.name, view(self.spec.shape, key))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        import numpy as np

        if copy is False:
            raise ValueError("a lazy tensor is read from its file: it cannot be had without a copy")
        found = np.array(self[...])
        return found if dtype is None else found.astype(dtype, copy=False)

    def numpy(self) -> np.ndarray[Any, Any]:
        """The whole tensor, as an array of its own."""
        return self.__array__()

    def __repr__(self) -> str:
        return f"LazyTensor({self.name!r}, {self.spec})"


class StateDict(Mapping[str, LazyTensor]):
    """What `iso.open` gives: name -> LazyTensor, in the order of the file. A context manager; `print(sd)` shows the folded tree."""

    def __init__(self, checkpoint: Checkpoint, title: str) -> None:
        self.checkpoint = checkpoint
        self.title = title

    @property
    def manifest(self) -> Manifest:
        """Names, specs, metadata, and what is no tensor."""
        return self.checkpoint.manifest

    def __getitem__(self, name: str) -> LazyTensor:
        spec = self.manifest.tensors.get(name)
        if spec is None:
            from isomorph.errors import near_misses

            near = near_misses(str(name), self.manifest)
            raise KeyError(f"{name}" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
        return LazyTensor(self.checkpoint, name, spec)

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest)

    def __len__(self) -> int:
        return len(self.manifest)

    def __contains__(self, name: object) -> bool:
        return name in self.manifest.tensors

    def summary(self) -> Summary:
        """What `isomorph inspect` shows."""
        return Summary(self.title, self.checkpoint.format, self.manifest)

    def keys_text(self) -> str:
        """The flat listing, sorted naturally: `name  [shape]  dtype`, a line each."""
        return "\n".join(key_lines(self.manifest))

    def close(self) -> None:
        """Let go of the files: what was read stays, no more is read."""
        self.checkpoint.close()

    def __enter__(self) -> StateDict:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __str__(self) -> str:
        return str(self.summary())

    def __repr__(self) -> str:
        return f"<StateDict {self.title}: {len(self):,} tensors>"

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
