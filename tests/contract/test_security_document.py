"""SECURITY.md is true: what it names exists, every promise names what keeps it and what holds it, its figures are the measured ones."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import test_promises

from isomorph.formats import allowance, safetensors
from isomorph.formats.hdf5 import decode as hdf5_decode
from isomorph.formats.pickle import interpreter as pickle
from isomorph.formats.zip import archive as zip

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
PROMISES = {
    part.partition("\n")[0]: part
    for part in re.split(r"^### \d\. ", TEXT.partition("\n## What is not")[0], flags=re.M)[1:]
}


def defined(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_what_keeps_it_and_what_holds_it() -> None:
    assert list(PROMISES) == [
        "No code from an input runs",
        "Memory is bounded",
        "Time is linear in the bytes that are read",
        "The output is never larger than the plan declared",
        "Nothing outside the named paths is read or written",
        "The output is complete or absent",
        "Names are harmless",
    ]
    for promise, text in PROMISES.items():
        kept, held = text.partition("- Kept by:")[2].split("- Held by:")
        assert re.search(r"`[\w/]+\.py`", kept), promise
        assert len(re.findall(r"`tests/[\w/]+\.py::test_\w+`", held)) >= 3, promise


def test_every_test_and_module_named_exists() -> None:
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(tests) == TEXT.count("::") > 20
    assert [] == [f"{file}::{test}" for file, test in tests if test not in defined(ROOT / file)]
    modules = re.findall(r"`((?!tests/)[\w/]+\.py)`", TEXT)
    assert [] == [one for one in modules if not (ROOT / "src/isomorph" / one).is_file()]
    assert [] == [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if not (ROOT / link).is_file()]


def test_the_figures_are_those_that_are_measured_and_kept() -> None:
    memory = PROMISES["Memory is bounded"]
    assert test_promises.BESIDES == allowance.BESIDES
    assert f"`--max-memory` + {allowance.BESIDES // 10**6} MB whatever the input says" in memory
    assert f"safetensors {safetensors.LARGEST_HEADER // 10**6} MB" in memory
    assert f"pickles {pickle.MAX_PICKLE_BYTES >> 20} MiB of opcodes" in memory
    assert f"{pickle.MAX_NODES // 10**6} million containers" in memory.replace("\n", " ")
    assert f"zip directories {zip.LARGEST_DIRECTORY >> 20} MiB" in memory
    assert f"with {hdf5_decode.MOST_MEMORY >> 30} GB of memory" in TEXT
