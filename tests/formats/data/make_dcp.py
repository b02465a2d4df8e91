"""Makes the folder `dcp` beside it: four ranks of torch.distributed.checkpoint on a 2-D mesh, two writing threads each.

python tests/formats/data/make_dcp.py        # torch 2.13; the files are committed, since four ranks take long to start
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

FOLDER = Path(__file__).parent / "dcp"
RANKS = 4


def numbers(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """0, 1, 2, … in row-major order, in the dtype."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape).to(dtype)


def save(rank: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517", GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    flat, mesh = init_device_mesh("cpu", (RANKS,)), init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    state = {
        "model": {
            "grid": distribute_tensor(numbers((6, 8), torch.float32), mesh, [Shard(0), Shard(1)]),
            "bands": distribute_tensor(numbers((5, 3), torch.bfloat16), flat, [Shard(0)]),
            "columns": distribute_tensor(numbers((3, 7), torch.float16), mesh, [Replicate(), Shard(1)]),
            "twice": distribute_tensor(numbers((9, 2), torch.int64), mesh, [Shard(0), Shard(0)]),
            "few": distribute_tensor(numbers((2, 4), torch.float32), flat, [Shard(0)]),  # two ranks hold nothing
            "whole": numbers((4, 2), torch.float8_e4m3fn),
            "scalar": torch.tensor(2.5, dtype=torch.float64),
            "empty": torch.zeros(0, 3),
        },
        "step": 7,
    }
    writer = dcp.FileSystemWriter(FOLDER, single_file_per_rank=False, thread_count=2)
    dcp.save(state, storage_writer=writer)
    dist.destroy_process_group()


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    mp.spawn(save, nprocs=RANKS)
