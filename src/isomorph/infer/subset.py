"""Some tensors of a checkpoint, as a checkpoint: what is left when others are looked away from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    """Some tensors of a checkpoint, under other names where `names` is a mapping (new -> its own name there).

    It owns nothing: closing it closes nothing.
    """

    def __init__(self, whole: Checkpoint, names: Collection[str] | Mapping[str, str]) -> None:
        self._whole = whole
        self._names: Mapping[str, str] = dict(names) if isinstance(names, Mapping) else {name: name for name in names}

    @cached_property
    def manifest(self) -> Manifest:
        held = self._whole.manifest
        if all(new == old for new, old in self._names.items()):
            return only(held, self._names)
        return Manifest({new: held[old] for new, old in self._names.items()}, origin=held.origin)

    @property
    def paths(self) -> tuple[Path, ...]:
        return self._whole.paths

    @property
    def format(self) -> str:
        return self._whole.format

    def run(self, name: str) -> tuple[int, int] | None:
        return self._whole.run(self._names[name])

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        self._whole.pread(file, offset, buffer)

    def fetch(
        self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        return self._whole.fetch(self._names[name], offset, shape, strides)

    def check_unchanged(self) -> None:
        self._whole.check_unchanged()
