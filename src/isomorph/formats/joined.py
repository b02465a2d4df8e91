"""Several checkpoints read as one: tensor `w` of input `a` is `a::w`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.formats.base import Checkpoint, Run
from isomorph.tensors import Manifest

if TYPE_CHECKING:
    import numpy as np

SEPARATOR = "::"


class Joined(Checkpoint):
    """Input name -> Checkpoint, as one checkpoint. Closing it closes them all."""

    def __init__(self, inputs: Mapping[str, Checkpoint]) -> None:
        self.inputs = dict(inputs)
        self._first_file: dict[str, int] = {}
        count = 0
        for name, checkpoint in self.inputs.items():
            self._first_file[name] = count
            count += len(checkpoint.paths)
        self._owners = [name for name, checkpoint in self.inputs.items() for _ in checkpoint.paths]

    @cached_property
    def manifest(self) -> Manifest:
        parts = [(name + SEPARATOR, checkpoint.manifest) for name, checkpoint in self.inputs.items()]
        metadata: dict[str, str] = {}
        for _, part in parts:
            metadata = {**part.metadata, **metadata}
        return Manifest(
            {prefix + name: spec for prefix, part in parts for name, spec in part.items()},
            origin=", ".join(f"{prefix.removesuffix(SEPARATOR)}={part.origin}" for prefix, part in parts),
            metadata=metadata,
            shared=tuple(tuple(prefix + name for name in group) for prefix, part in parts for group in part.shared),
            leaves={prefix + name: text for prefix, part in parts for name, text in part.leaves.items()},
            encodings={prefix + name: text for prefix, part in parts for name, text in part.encodings.items()},
            strided=frozenset(prefix + name for prefix, part in parts for name in part.strided),
            notes=tuple(f"{prefix.removesuffix(SEPARATOR)}: {note}" for prefix, part in parts for note in part.notes),
            parts=sum(part.parts for _, part in parts),
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(path for checkpoint in self.inputs.values() for path in checkpoint.paths)

    @property
    def format(self) -> str:
        return "+".join(dict.fromkeys(checkpoint.format for checkpoint in self.inputs.values()))

    def _owner(self, name: str) -> tuple[str, Checkpoint, str]:
        owner, separator, inner = name.partition(SEPARATOR)
        if not separator or owner not in self.inputs:
            raise KeyError(name)
        return owner, self.inputs[owner], inner

    def run(self, name: str) -> tuple[int, int] | None:
        owner, checkpoint, inner = self._owner(name)
        found = checkpoint.run(inner)
        return None if found is None else (found[0] + self._first_file[owner], found[1])

    def runs(self, name: str) -> Sequence[Run] | None:
        owner, checkpoint, inner = self._owner(name)
        found = checkpoint.runs(inner)
        return None if found is None else [run._replace(file=run.file + self._first_file[owner]) for run in found]

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        owner = self._owners[file]
        self.inputs[owner].pread(file - self._first_file[owner], offset, buffer)

    def fetch(
        self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> np.ndarray[Any, np.dtype[Any]]:
        _, checkpoint, inner = self._owner(name)
        return checkpoint.fetch(inner, offset, shape, strides)

    def descriptor(self, file: int) -> int | None:
        owner = self._owners[file]
        return self.inputs[owner].descriptor(file - self._first_file[owner])

    def crc(self, file: int, offset: int, nbytes: int) -> int | None:
        owner = self._owners[file]
        return self.inputs[owner].crc(file - self._first_file[owner], offset, nbytes)

    def check_unchanged(self) -> None:
        for checkpoint in self.inputs.values():
            checkpoint.check_unchanged()

    def keep_sums(self) -> None:
        for checkpoint in self.inputs.values():
            checkpoint.keep_sums()

    def check_sums(self) -> None:
        for checkpoint in self.inputs.values():
            checkpoint.check_sums()

    def close(self) -> None:
        for checkpoint in self.inputs.values():
            checkpoint.close()
