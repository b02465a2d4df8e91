"""The fault benchmark runs: sound candidates are equal to the references, faults are none of them, and a dozen are scored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `python -m benchmarks.faults --quick` measures."""
    path = tmp_path_factory.mktemp("faults") / "found.json"
    command = [sys.executable, "-m", "benchmarks.faults", "--quick", "--workers", "1", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {**said, "text": done.stdout}


def test_candidates_without_a_fault_equal_their_references(found: dict[str, Any]) -> None:
    """≤ 1e-12 in float64 and ≤ 1e-5 in float32, with weights as of training and as they are made."""
    assert {"clip", "vit", "vit kernels", "bert", "t5", "vit paddle"} == {row["family"] for row in found["sound"]}
    assert [] == [row for row in found["sound"] if row["gap"] > {"float64": 1e-12, "float32": 1e-5}[row["dtype"]]]


def test_every_fault_changes_the_outputs_and_an_equivalent_mutant_does_not(found: dict[str, Any]) -> None:
    """A fault that counts is seen in float64; what is excluded is within rounding."""
    assert 12 == sum(row["equivalent"] is None for row in found["gates"])
    assert 1 == sum(row["equivalent"] is not None for row in found["gates"])
    assert [] == [row["id"] for row in found["gates"] if (row["change"] > 1e-9) == (row["equivalent"] is not None)]


def test_enough_is_planted(found: dict[str, Any]) -> None:
    """At least 150 faults are traced by default, equivalent mutants not counted."""
    assert 150 <= found["planted"]["some"] < found["planted"]["all"]


def test_the_usual_gates_pass_some_of_the_faults(found: dict[str, Any]) -> None:
    """On freshly made weights the cosine sees few of them."""
    passed = [row["id"] for row in found["gates"] if row["equivalent"] is None and row["passes"]["cosine 0.99"]]
    assert "bert/3/eps 1e-06 in norm2" in passed
    assert len(passed) >= 6


def test_a_dozen_planted_faults_are_detected_located_and_diagnosed(found: dict[str, Any]) -> None:
    """In float64, each at its place and by its name."""
    assert 12 == len(found["fault"])
    for what in ("detected", "located", "diagnosed"):
        assert [] == [(row["id"], row["place"], row["says"]) for row in found["fault"] if not row[what]], what


def test_sound_ports_raise_no_alarm(found: dict[str, Any]) -> None:
    """Two of the families, four layers."""
    assert 2 == len(found["clean"])
    assert [] == [(row["id"], row["place"], row["says"]) for row in found["clean"] if row["detected"] or row["error"]]


def test_the_table_counts_what_was_found(found: dict[str, Any]) -> None:
    """The text says the same as the JSON."""
    assert "| float64 | 12 | 12 (100.0 %) |" in found["text"]
    assert "False alarms on sound ports: 0 of 2" in found["text"]
