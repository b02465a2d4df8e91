"""What ranks wrote in safetensors: the boxes of all shards are put together, as torch's own consolidation does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.distributed.checkpoint import _consolidate_hf_safetensors as consolidation

from isomorph.errors import FormatError
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import Array, whole

GRID = np.arange(35, dtype="f4").reshape(5, 7)
BANDS = np.arange(12, dtype="f2").reshape(6, 2)


def shard(folder: Path, number: int, boxes: dict[str, tuple[Array, list[int]]], info: object = None) -> Path:
    """One rank's file; `info` in place of what it should say."""
    path = folder / f"shard-{number:05d}-model-00001-of-00001.safetensors"
    said = {name: {"saved_offsets": start} for name, (_, start) in boxes.items()} if info is None else info
    metadata = {"DCP_SHARDING_INFO": json.dumps(said), "DCP_VERSION": "1.0", "format": "pt"}
    save_file({name: np.ascontiguousarray(array) for name, (array, _) in boxes.items()}, path, metadata)
    return path


def save(folder: Path) -> None:
    shard(folder, 1, {"grid": (GRID[:3, :4], [0, 0]), "bands": (BANDS[:4], [0, 0]), "alone": (BANDS, [0, 0])})
    shard(folder, 2, {"grid": (GRID[:3, 4:], [0, 4]), "bands": (BANDS[4:], [4, 0])})
    shard(folder, 3, {"grid": (GRID[3:, :4], [3, 0])})
    shard(folder, 4, {"grid": (GRID[3:, 4:], [3, 4])})


def failure(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize("named", ["", "shard-00003-model-00001-of-00001.safetensors"])
def test_shards_of_ranks_are_put_together(named: str, tmp_path: Path) -> None:
    """A grid, bands, a tensor that lies in one shard; by the folder, or by any of the shards. torch's consolidation agrees."""
    (tmp_path / "c").mkdir()
    save(tmp_path / "c")
    (tmp_path / "out").mkdir()
    consolidation.consolidate_safetensors_files(
        str(tmp_path / "c"), str(tmp_path / "out"), {"grid": 1, "bands": 1, "alone": 1}, num_threads=1
    )
    with (
        open_checkpoint(tmp_path / "c" / named) as checkpoint,
        safe_open(next((tmp_path / "out").glob("*.safetensors")), "pt") as oracle,
    ):
        assert checkpoint.format == "safetensors_dcp"
        assert {"grid", "bands", "alone"} == set(checkpoint.manifest) == set(oracle.keys())
        for name in checkpoint.manifest:
            expected: torch.Tensor = oracle.get_tensor(name)
            assert expected.numpy().tobytes() == np.ascontiguousarray(whole(checkpoint, name)).tobytes(), name
        assert {"format": "pt"} == dict(checkpoint.manifest.metadata)
        assert checkpoint.manifest.notes == (
            "2 tensors are put together from the shards of several ranks, as far as these reach: shards say nothing of how many "
            "there were (4 are here)",
        )


def test_boxes_that_do_not_fit_together_are_one_error(tmp_path: Path) -> None:
    """A shard that was not copied, one that is there twice, one that does not say where it belongs."""
    save(tmp_path)
    lost = tmp_path / "shard-00003-model-00001-of-00001.safetensors"
    raw = lost.read_bytes()
    lost.unlink()
    assert (
        "tensor `grid` f32[5,7]: its element [3, 0] lies in no tile, and there is no shard-00003-…. Fetch the shards of all ranks"
        in failure(tmp_path)
    )
    lost.write_bytes(raw)
    (tmp_path / "shard-00005-model-00001-of-00001.safetensors").write_bytes(raw)
    assert "tensor `grid` f32[5,7]: its element [3, 0] lies in 2 tiles" in failure(tmp_path)
    shard(tmp_path, 5, {"grid": (GRID, [0, 0])}, info={})
    assert "tensor `grid`: its DCP_SHARDING_INFO does not say where it begins" in failure(tmp_path)
    shard(tmp_path, 5, {"grid": (GRID, [0, 0])}, info={"grid": {"saved_offsets": [-1, 0]}})
    assert "tensor `grid`: its DCP_SHARDING_INFO does not say where it begins" in failure(tmp_path)
    shard(tmp_path, 5, {"grid": (GRID.astype("f8"), [0, 0])})
    assert "tensor `grid`: its dtype or its axes differ between shards" in failure(tmp_path)
    shard(tmp_path, 5, {"grid": (GRID[:1, :1], [(1 << 63) - 1, 0])})
    assert "tensor `grid`" in failure(tmp_path)
    save_file({"grid": GRID}, tmp_path / "shard-00005-model-00001-of-00001.safetensors")
    assert "a shard of one rank that does not say which (DCP_SHARDING_INFO is missing)" in failure(tmp_path)
