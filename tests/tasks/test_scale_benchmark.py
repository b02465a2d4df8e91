"""The benchmark of scale runs, on a checkpoint of a few hundred tensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scale.py"


@pytest.mark.parametrize("what", ["linear", "chained"])
def test_a_row_is_measured(tmp_path: Path, what: str) -> None:
    """Tensors, the cost of planning and of a task of a hundred, all by the commands."""
    command = [sys.executable, str(SCRIPT), what, "--folder", str(tmp_path / "f"), "--tensors", "300"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout
    assert "      313  " in said.splitlines()[1] and said.splitlines()[1].count(" s CPU") == 2
