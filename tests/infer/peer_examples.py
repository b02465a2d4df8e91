"""The 26 conversions of tests/pairs as examples: their files, and what their truth.json says of every element."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent.parent))  # where `peers` is

from conversions import NUMBERED, Array, Arrays, Example, Maker

from isomorph.formats.base import Checkpoint
from isomorph.formats.registry import open_checkpoint
from peers import NAMES, Pair, unpacked  # type: ignore[import-not-found]


def arrays_of(checkpoint: Checkpoint) -> Arrays:
    """Every tensor of a checkpoint."""
    found: Arrays = {}
    for name, spec in checkpoint.manifest.items():
        strides = [int(np.prod(spec.shape[axis + 1 :], dtype=np.int64)) for axis in range(len(spec.shape))]
        found[name] = (
            np.array(checkpoint.fetch(name, 0, spec.shape, strides)).view(spec.dtype.numpy).reshape(spec.shape)
        )
    return found


def peer_example(name: str, folder: Path) -> Example:
    """A pair by its name; packed files are laid into `folder`."""
    pair = unpacked(name, folder)
    source, target = (arrays_of(open_checkpoint(path)) for path in (pair.source, pair.target))
    numbers = numbered(source)
    entries = {str(key): entry for key, entry in pair.truth["tensors"].items()}
    truth = {key: made_of(entries[key]["expr"], numbers, target[key]) for key in target}
    return Example(name, source, target, numbers, truth, configs=(pair.config, None), hand_lines=lines_of(pair))


def lines_of(pair: Pair) -> int:
    """The lines of the hand-written morph that are not blank."""
    return sum(bool(line.strip()) for line in pair.morph.read_text(encoding="utf-8").splitlines())


def numbered(source: Mapping[str, Array]) -> Arrays:
    """A number for every element; tensors that are equal copies, and say something, have the same."""
    maker = Maker("numbers")
    first: dict[tuple[object, ...], str] = {}
    made: Arrays = {}
    for name, array in source.items():
        key = (array.dtype.str, array.shape, array.tobytes())
        says = array.size > 1 and bool((array != array.flat[0]).any())
        made[name] = made[first[key]] if says and key in first else maker.given(array)
        first.setdefault(key, name)
    return made


def made_of(expression: Mapping[str, Any], numbers: Mapping[str, Array], target: Array) -> Array:
    """What an expression of truth.json makes of the numbers."""
    op = expression["op"]
    if op == "source":
        found: Array = numbers[expression["key"]]
        return found
    if op == "const":
        return np.zeros(target.shape, NUMBERED)
    if op in ("concat", "stack"):
        parts = [made_of(one, numbers, target) for one in expression["parts"]]
        join = np.concatenate if op == "concat" else np.stack
        return join(parts, axis=expression["dim"])
    inside = made_of(expression["x"], numbers, target)
    if op == "transpose":
        return inside.T
    if op == "permute":
        return inside.transpose(expression["axes"])
    if op == "reshape":
        return inside.reshape(expression["shape"])
    assert op == "slice", op
    part: Array = inside[(slice(None),) * expression["dim"] + (slice(expression["start"], expression["stop"]),)]
    return part


__all__ = ["NAMES", "arrays_of", "lines_of", "numbered", "peer_example"]
