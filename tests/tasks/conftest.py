"""A sharded checkpoint with ties, stacks and a general rule, its morph, and a command line that is called in-process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

MORPH = """\
layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]
layers.{l}.experts.{e}.w [o i] <-> blocks.{l}.experts.w [e i o]
{=head|emb}.w [v d] <-> tokens.w [v d]
scale [] <-> 1 []
** <-> **
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """src/ (three shards, an index, a config), port.morph, and plan.json for out/; in the working folder."""
    numbers = np.random.default_rng(5)
    tensors = {
        f"layers.{layer}.{part}": numbers.standard_normal((8, 6)).astype("f4")
        for layer in range(4)
        for part in ("q.w", "k.w", "v.w", "experts.0.w", "experts.1.w", "experts.2.w")
    }
    tensors["scale"] = np.ones((), "f4")
    tensors["emb.w"] = numbers.standard_normal((10, 6)).astype("f4")
    tensors["head.w"] = tensors["emb.w"].copy()
    tensors.update({f"other.{number}": numbers.standard_normal(40).astype("f4") for number in range(5)})
    write_shards(tmp_path / "src", tensors)
    (tmp_path / "src" / "config.json").write_text(json.dumps({"hidden_size": 6}))
    (tmp_path / "port.morph").write_text(MORPH)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_shards(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """Three shards and their index; what belongs to one instance lies in several of them."""
    folder.mkdir()
    names = sorted(tensors, key=lambda name: (hash_of(name), name))
    shards = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    weight_map = {}
    for number, shard in enumerate(shards):
        mine = names[number::3]
        save_file({name: tensors[name] for name in mine}, folder / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(mine, shard))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def hash_of(name: str) -> int:
    return sum(name.encode()) % 7
