"""How fast tensors are fingerprinted, next to adding their bytes up and to BLAKE2b: GB/s of one core, the file in the page cache.

    python benchmarks/fingerprints.py --folder DIR [--small] [--rounds 5]

Each kind of checkpoint holds 64 MB (with --small 1 MB). The jobs are interleaved, one thread each, and the median of their
processor time counts: other work on the machine disturbs it less than the clock. A tensor of 2 GB (64 MB) is read in a process
of its own, for its peak of memory. `sum` and `BLAKE2b` read the file as the fingerprints do; `and bf16`: rounded as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measure import run

from isomorph.formats.base import Checkpoint
from isomorph.formats.registry import open_checkpoint
from isomorph.infer.by_value.fingerprint import fingerprints
from isomorph.infer.by_value.runs import runs
from isomorph.tensors import DTYPES, DType

Array = np.ndarray[Any, np.dtype[Any]]

MUST_REACH = 0.5
"""GB/s of a core, for f32, f16 and bf16."""
MEGABYTES = 350
"""What reading the large tensor may take, interpreter and numpy included."""
ALONE = """\
import sys
from isomorph.formats.registry import open_checkpoint
from isomorph.infer.by_value.fingerprint import fingerprints
with open_checkpoint(sys.argv[1]) as checkpoint:
    fingerprints(checkpoint)
"""


@dataclass(frozen=True)
class Kind:
    """A checkpoint to measure: tensors of one dtype and shape."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    count: int = 1
    must_reach: bool = False


def kinds(nbytes: int) -> list[Kind]:
    """The checkpoints, each of about `nbytes`."""

    def square(name: str) -> tuple[int, int]:
        side = int((nbytes // DTYPES[name].nbytes) ** 0.5)
        return side, side

    floats = [Kind(f"{name} square", DTYPES[name], square(name), must_reach=True) for name in ("f32", "f16", "bf16")]
    f32 = DTYPES["f32"]
    return [
        *floats,
        Kind("f64 square", DTYPES["f64"], square("f64")),
        Kind("i64 square", DTYPES["i64"], square("i64")),
        Kind("f32 in one axis", f32, (nbytes // 4,), must_reach=True),
        Kind("f32 [o i 4 4]", f32, (*(int((nbytes // 64) ** 0.5),) * 2, 4, 4), must_reach=True),
        Kind("f32 [n 2]", f32, (nbytes // 8, 2)),
        Kind("f32 many of [64 64]", f32, (64, 64), max(1, nbytes // 64**2 // 4 // 16)),
        Kind("f32 many of [32]", f32, (32,), max(1, nbytes // 32 // 4 // 128)),
    ]


def blocks(kind: Kind) -> Iterator[Array]:
    """The elements of each tensor."""
    chance = np.random.default_rng(0)
    for _ in range(kind.count):
        if kind.dtype.is_integer:
            yield chance.integers(0, 1 << 40, kind.shape)
        else:
            yield chance.standard_normal(kind.shape, dtype=np.float32).astype(kind.dtype.numpy)


def write(path: Path, kind: Kind, parts: Iterable[Array]) -> None:
    """A .safetensors file of `count` tensors, whose bytes are those of `parts`, one after the other."""
    nbytes = math.prod(kind.shape) * kind.dtype.nbytes
    header = json.dumps(
        {
            f"layers.{number}.weight": {
                "dtype": kind.dtype.name.upper(),
                "shape": kind.shape,
                "data_offsets": [number * nbytes, (number + 1) * nbytes],
            }
            for number in range(kind.count)
        }
    ).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for part in parts:
            file.write(part.view("u1").data)


def add_up(checkpoint: Checkpoint) -> None:
    """numpy's sum of the bits, as they are read."""
    for name in checkpoint.manifest:
        for part in runs(checkpoint, name):
            part.sum(dtype=np.uint64)


def blake2b(checkpoint: Checkpoint) -> None:
    for name in checkpoint.manifest:
        digest = hashlib.blake2b()
        for part in runs(checkpoint, name):
            digest.update(part.view("u1").data)


JOBS: Mapping[str, Callable[[Checkpoint], object]] = {
    "prints": fingerprints,
    "and bf16": lambda checkpoint: fingerprints(checkpoint, casts=[DTYPES["bf16"]]),
    "sum": add_up,
    "BLAKE2b": blake2b,
}


def measured(kind: Kind, folder: Path, rounds: int) -> dict[str, float]:
    """GB/s of each job."""
    path = folder / "kind.safetensors"
    write(path, kind, blocks(kind))
    seconds: dict[str, list[float]] = {name: [] for name in JOBS}
    with open_checkpoint(path) as checkpoint:
        nbytes = checkpoint.manifest.nbytes
        for number in range(rounds + 1):
            for name, job in JOBS.items():
                began = time.process_time()
                job(checkpoint)
                if number:  # the first time, tables are made and the file is read
                    seconds[name].append(time.process_time() - began)
    path.unlink()
    return {name: nbytes / statistics.median(took) / 1e9 for name, took in seconds.items()}


def large(folder: Path, nbytes: int) -> tuple[float, float]:
    """(seconds, peak resident MB) of a process that fingerprints one tensor [n 4096] of so many bytes, its imports included."""
    path = folder / "large.safetensors"
    block = np.random.default_rng(0).standard_normal((1024, 4096), dtype=np.float32)
    count = nbytes // block.nbytes
    write(path, Kind("large", DTYPES["f32"], (1024 * count, 4096)), (block + np.float32(n) for n in range(count)))
    found = run([sys.executable, "-c", ALONE, str(path)])
    path.unlink()
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where the files are written; else a temporary folder")
    arguments.add_argument("--small", action="store_true", help="1 MB a kind, and 64 MB for the large tensor")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    names = list(JOBS)
    print(f"| GB/s of a core | {' | '.join(names)} | must reach |")
    print(f"|---|{'---|' * len(names)}---|")
    missed = False
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="isomorph-benchmark-") as folder:
        for kind in kinds(1 << 20 if given.small else 1 << 26):
            found = measured(kind, Path(folder), given.rounds)
            must = f"{MUST_REACH}" if kind.must_reach else ""
            missed |= kind.must_reach and found["prints"] < MUST_REACH
            print(f"| {kind.name} | {' | '.join(f'{found[name]:.2f}' for name in names)} | {must} |", flush=True)
        nbytes = 64 << 20 if given.small else 2 << 30
        seconds, peak = large(Path(folder), nbytes)
    print(
        f"\nOne f32 tensor of {nbytes / 1e9:.2f} GB, in a process of its own: {seconds:.2f} s, peak {peak:.0f} MB ({MEGABYTES})"
    )
    if (missed or peak > MEGABYTES) and not given.small:
        raise SystemExit("not all is as fast, or as small, as it must be")


if __name__ == "__main__":
    main()
