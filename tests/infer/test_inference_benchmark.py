"""The benchmark of inference runs; what it measures is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_can_be_made(tmp_path: Path) -> None:
    """One pair, by values, by names with and without the catalogue, and by both rivals."""
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks.inference", "--corpus", "pairs", "--only", "openai_clip_visual", "--what", "values,names,rivals"]  # fmt: skip
    done = subprocess.run(
        [*command, "--json", str(path)], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text(encoding="utf-8"))
    assert [True] == [row["exact"] for row in found["values"]]
    assert [45, 45] == [sum(row["states"].values()) for row in found["names"]]
    assert {"weightbridge": 45, "edit distance": 4} == {row["rival"]: row["refused"] for row in found["rivals"]}
    assert "| **pairs**, 1 | 45 | 45 | 0 | 0 | 0 | 1 of 1 |" in done.stdout
