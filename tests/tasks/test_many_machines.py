"""docs/many-machines.md is true: its Slurm script and its torchrun line run, as plain processes, and make what one run makes."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Isomorph = Callable[..., tuple[int, str, str]]

GUIDE = (Path(__file__).parents[2] / "docs" / "many-machines.md").read_text(encoding="utf-8")
SLURM, TORCHRUN = re.findall(r"^```bash\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)

STUBS = {
    "srun": 'exec "$@"\n',
    "isomorph": f'exec "{sys.executable}" -m isomorph "$@"\n',
    "torchrun": 'while [ "$1" != bash ]; do shift; done\n'
    'for rank in 0 1; do RANK=$rank WORLD_SIZE=2 "$@" || exit 1; done\n',
}
"""What the machine of a test has in place of a cluster: each starts what it is given."""


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    """The stubs come first."""
    (folder / "bin").mkdir()
    for name, text in STUBS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}")
        (folder / "bin" / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def expected(isomorph: Isomorph, folder: Path) -> dict[str, str]:
    """What one run makes; plan.json is there too."""
    plan = ("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", "out/", "--max-shard-size", "1500")
    assert isomorph(*plan)[0] == 0
    assert isomorph("convert", "src", "whole/", "-m", "port.morph", "--max-shard-size", "1500")[0] == 0
    return contents(folder / "whole")


def test_the_slurm_array(
    isomorph: Isomorph, folder: Path, environment: dict[str, str], expected: dict[str, str]
) -> None:
    """Every index of the array that the script asks for, two at once; then --finish."""
    (folder / "convert.slurm").write_text(SLURM)
    first, last = map(int, re.findall(r"--array=(\d+)-(\d+)", SLURM)[0])
    assert f"/{last + 1 - first}" in SLURM
    tasks = [
        subprocess.Popen(
            ["bash", "-eu", "convert.slurm"], cwd=folder, env={**environment, "SLURM_ARRAY_TASK_ID": str(task)}
        )
        for task in range(first, last + 1)
    ]
    assert {0} == {task.wait(timeout=120) for task in tasks}
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert contents(folder / "out") == expected


def test_the_torchrun_line(folder: Path, environment: dict[str, str], expected: dict[str, str]) -> None:
    """Both lines as they stand."""
    subprocess.run(["bash", "-euc", TORCHRUN], cwd=folder, env=environment, check=True, timeout=120)
    assert contents(folder / "out") == expected
