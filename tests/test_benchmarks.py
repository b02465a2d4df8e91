"""The benchmarks run, on the small checkpoint; what they measure is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def measured(script: str, *options: str, folder: Path) -> str:
    """Run a benchmark, and give what it prints."""
    command = [sys.executable, str(BENCHMARKS / script), *options, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_of_figures_can_be_made(tmp_path: Path) -> None:
    """Every job of core.py succeeds."""
    said = measured("core.py", "--small", "--rounds", "1", "--json", folder=tmp_path)
    found = json.loads(said)
    assert found["tensors"] == 96
    assert {"inspect", "tower to .pth", "verify the tower", "plan many tensors"} <= set(found["jobs"])


def test_the_usual_way_can_be_measured(tmp_path: Path) -> None:
    """torch reads what the demo writes, and does the job by hand."""
    said = measured("notebook_way.py", "--small", "--rounds", "1", folder=tmp_path)
    assert "torch.load, torch.save" in said


def test_memory_can_be_measured(tmp_path: Path) -> None:
    """Every job of memory.py succeeds on checkpoints of two sizes."""
    said = measured("memory.py", "--small", folder=tmp_path)
    assert "| whole CLIP f32 to bf16 |" in said


def test_what_the_catalogue_costs_can_be_measured(tmp_path: Path) -> None:
    """Recognition, `--to` and `-m`: every job succeeds, and both ways write the same file."""
    said = measured("layouts.py", "--small", "--rounds", "1", "--json", folder=tmp_path)
    found = json.loads(said)
    assert found["tensors"] == 1029
    assert {"clip convert --to", "moe plan --to"} <= set(found["seconds"])


def test_the_reference_models_can_be_timed(tmp_path: Path) -> None:
    """Every family, separate and fused, gives what transformers gives before it is timed."""
    found = json.loads(measured("models.py", "--small", "--rounds", "1", "--json", folder=tmp_path))["small"]
    assert {"clip", "vit", "bert", "t5"} == set(found)
    assert all({"transformers", "separate", "fused"} == set(one["milliseconds"]) for one in found.values())
    assert all(gap <= 1e-5 for one in found.values() for gap in one["gaps"].values())
