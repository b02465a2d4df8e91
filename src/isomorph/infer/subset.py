"""Some tensors of a checkpoint, as a checkpoint: what is left when others are looked away from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.formats.base import Checkpoint
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    import numpy as np


def only(manifest: Manifest, names: Collection[str]) -> Manifest:
    """The manifest of these names alone, in its own order."""
    kept = frozenset(names)
    shared = (tuple(name for name in group if name in kept) for group in manifest.shared)
    return replace(
        manifest,
        tensors={name: spec for name, spec in manifest.items() if name in kept},
        shared=tuple(group for group in shared if len(group) > 1),
    )


class Subset(Checkpoint):
    """`names` of a checkpoint. It owns nothing: closing it closes nothing."""

    def __init__(self, whole: Checkpoint, names: Collection[str]) -> None:
        self._whole = whole
        self._names = frozenset(names)

    @cached_property
    def manifest(self) -> Manifest:
        return only(self._whole.manifest, self._names)

    @property
    def paths(self) -> tuple[Path, ...]:
        return self._whole.paths

    @property
    def format(self) -> str:
        return self._whole.format

    def run(self, name: str) -> tuple[int, int] | None:
        return self._whole.run(self._held(name))

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        self._whole.pread(file, offset, buffer)

    def fetch(
        self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        return self._whole.fetch(self._held(name), offset, shape, strides)

    def check_unchanged(self) -> None:
        self._whole.check_unchanged()

    def _held(self, name: str) -> str:
        if name not in self._names:
            raise KeyError(name)
        return name
