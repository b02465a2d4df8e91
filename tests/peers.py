"""The real conversions of tests/pairs: a source, a target that another package made of it, and our morph between them."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.job.config import config_beside, read_config
from isomorph.language.parse import parse
from isomorph.language.rules import Program
from isomorph.language.scopes import flatten

PAIRS = Path(__file__).parent / "pairs"
NAMES = sorted(folder.name for folder in PAIRS.iterdir() if folder.is_dir())
PACKED = "files.tar.xz"

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Pair:
    """One conversion; `files` is where its source/ and target/ lie (unpacked, where they are packed)."""

    name: str
    files: Path

    @property
    def morph(self) -> Path:
        return PAIRS / self.name / f"{self.name}.morph"

    @cached_property
    def truth(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = json.loads((PAIRS / self.name / "truth.json").read_text(encoding="utf-8"))
        return found

    @cached_property
    def config(self) -> Mapping[str, Any] | None:
        beside = config_beside(self.source)
        return None if beside is None else read_config(beside)

    @cached_property
    def program(self) -> Program:
        text = self.morph.read_text(encoding="utf-8")
        return flatten(parse(text, self.morph.name), config=self.config)

    @property
    def source(self) -> Path:
        return self._file("source")

    @property
    def target(self) -> Path:
        return self._file("target")

    @property
    def dropped_by_the_peer(self) -> list[str]:
        """Source tensors nothing of which the peer's conversion keeps."""
        return list(self.truth["lossy"]["dropped_source_keys"])

    def _file(self, side: str) -> Path:
        """The weights file, or the folder where the weights are sharded."""
        native = self.truth[f"{side}_native"]
        folder = self.files / side
        return folder if "index" in native else folder / str(native["files"][0])


def unpacked(name: str, folder: Path) -> Pair:
    """The pair of that name; `folder` is used when its files are packed."""
    packed = PAIRS / name / PACKED
    if not packed.exists():
        return Pair(name, PAIRS / name)
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return Pair(name, folder)


def load(path: Path) -> Arrays:
    """Every tensor of a file or folder, read by the library whose format it is; nested keys joined by `/`. Not Paddle's."""
    if path.is_dir():
        shards = sorted(path.glob("*.safetensors"))
        return {name: array for shard in shards for name, array in load(shard).items()}
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    if path.suffix == ".msgpack":
        import msgpack

        return _flat(msgpack.unpackb(path.read_bytes(), ext_hook=_flax_array), lambda array: array)
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path) as file:
            found: Arrays = {}
            file.visititems(
                lambda name, node: found.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None
            )
            return found
    import torch

    return _flat(torch.load(path, map_location="cpu", weights_only=True), lambda tensor: tensor.numpy())


def _flax_array(code: int, data: bytes) -> np.ndarray[Any, Any]:
    """What flax.serialization puts in a MessagePack extension: 1 is an array, as (shape, dtype's name, bytes)."""
    import msgpack

    assert code == 1, f"extension {code} is no array"
    shape, name, values = msgpack.unpackb(data)
    return np.frombuffer(values, np.dtype(name)).reshape(shape)


def _flat(tree: Any, to_array: Callable[[Any], np.ndarray[Any, Any]], above: str = "") -> Arrays:
    if not isinstance(tree, dict):
        return {above: to_array(tree)} if hasattr(tree, "shape") else {}
    found: Arrays = {}
    for key, value in tree.items():
        found.update(_flat(value, to_array, f"{above}/{key}" if above else str(key)))
    return found


LOAD_WITH_PADDLE = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
for path, out in zip(sys.argv[1::2], sys.argv[2::2]):
    np.savez(out, **{name: tensor.numpy() for name, tensor in paddle.load(path).items()})
"""


def load_with_paddle(paths: Sequence[Path], folder: Path) -> list[Arrays]:
    """Every tensor of each `.pdparams`, as Paddle loads them in an interpreter of its own; `folder` is for what passes between."""
    passed = [folder / f"{number}.npz" for number in range(len(paths))]
    arguments = [str(path) for pair in zip(paths, passed, strict=True) for path in pair]
    result = subprocess.run(
        [sys.executable, "-c", LOAD_WITH_PADDLE, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return [load(path) for path in passed]


def differing(expected: Mapping[str, np.ndarray[Any, Any]], found: Mapping[str, np.ndarray[Any, Any]]) -> list[str]:
    """The names in one only, and those whose dtype, shape or any bit differs."""
    return sorted(set(expected) ^ set(found)) + [
        name
        for name in expected
        if name in found
        and (
            (expected[name].dtype, expected[name].shape) != (found[name].dtype, found[name].shape)
            or expected[name].tobytes() != found[name].tobytes()
        )
    ]
