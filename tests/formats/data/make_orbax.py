"""Makes `orbax` beside it: checkpoints that Orbax wrote, of arrays that hold 0, 1, 2, … in row-major order.

python tests/formats/data/make_orbax.py        # orbax-checkpoint 0.12, jax on the CPU; too heavy for CI
"""

from __future__ import annotations

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

HERE = Path(__file__).parent / "orbax"


def numbers(shape: tuple[int, ...], dtype: str) -> jnp.ndarray:
    return jnp.arange(int(np.prod(shape))).reshape(shape).astype(dtype)


def tree() -> dict:
    return {
        "params": {
            "dense": {"kernel": numbers((5, 7), "float32"), "bias": numbers((7,), "bfloat16")},
            "wide": numbers((40, 50), "float32"),  # too large to be kept in a node
            "layers": [numbers((2, 3), "float16"), numbers((4,), "int32")],
        },
        "step": numbers((), "int32"),
        "flags": jnp.array([True, False]),
        "note": "a text",
        "rate": 0.5,
    }


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    HERE.mkdir()
    for name, options in {
        "zarr2": {"use_ocdbt": False, "use_zarr3": False},
        "ocdbt": {"use_ocdbt": True, "use_zarr3": False},
        "zarr3": {"use_ocdbt": True, "use_zarr3": True},
        "zarr3_files": {"use_ocdbt": False, "use_zarr3": True},
    }.items():
        saver = ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options))
        saver.save(HERE / name, tree())
    with ocp.CheckpointManager(HERE / "managed", options=ocp.CheckpointManagerOptions(max_to_keep=1)) as manager:
        manager.save(3, args=ocp.args.StandardSave({"w": numbers((3, 2), "float32")}))
        manager.wait_until_finished()
    for waste in (
        *HERE.rglob("array_metadatas"),
        *HERE.rglob("_sharding"),
    ):  # nothing reads them, and they are half of it all
        shutil.rmtree(waste) if waste.is_dir() else waste.unlink()


if __name__ == "__main__":
    main()
