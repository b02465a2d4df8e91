"""The conformance cases as arrays: what `tests/cases/README.md` says, and nothing more."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.language.parse import parse
from isomorph.language.rules import Program
from isomorph.language.scopes import flatten
from isomorph.tensors import DType, TensorSpec, spec

CASES = Path(__file__).parent.parent / "cases"


def all_cases(folder: Path = CASES) -> list[tuple[str, dict[str, Any]]]:
    """(id, case) of every case."""
    found: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(folder.glob("*.toml")):
        for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]:
            found.append((f"{path.stem}: {case['name']}", case))
    return found


def stored(values: Sequence[Any], kind: DType) -> np.ndarray:
    """A flat list as bits: numbers, "-0.0", "nan", "inf", "-inf", or hexadecimal patterns."""
    out = np.zeros(len(values), dtype=kind.bits)
    for place, value in enumerate(values):
        if isinstance(value, str) and value.startswith("0x"):
            out[place] = int(value, 16)
        else:
            number = float(value) if kind.is_float else int(value)
            with np.errstate(all="ignore"):
                out[place] = np.array([number]).astype(kind.numpy).view(kind.bits)[0]
    return out


def checkpoint(specs: Mapping[str, TensorSpec], values: Mapping[str, Sequence[Any]]) -> ArrayCheckpoint:
    arrays = {name: stored(values[name], each.dtype).reshape(each.shape) for name, each in specs.items()}
    return ArrayCheckpoint(arrays, dtypes={name: each.dtype for name, each in specs.items()})


def source_of(case: Mapping[str, Any]) -> ArrayCheckpoint:
    specs = {name: spec(text) for name, text in case["source"].items()}
    values: dict[str, Sequence[Any]] = {}
    count = 0
    for name, each in specs.items():
        values[name] = case.get("values", {}).get(name) or range(count, count + each.numel)
        count += each.numel
    return checkpoint(specs, values)


def target_of(case: Mapping[str, Any]) -> ArrayCheckpoint:
    specs = {name: spec(made["spec"]) for name, made in case["target"].items()}
    return checkpoint(specs, {name: made["values"] for name, made in case["target"].items()})


def programs_of(case: Mapping[str, Any]) -> list[Program]:
    files = case.get("files", {})
    config = case.get("config", {})
    texts = [case["morph"], *([case["then"]] if "then" in case else [])]

    def load(name: str) -> Any:
        return parse(files[name], name)

    stages = [flatten(parse(text), load=load, config=config) for text in texts]
    if case.get("direction") == "inverse":
        stages = [stage.inverse for stage in reversed(stages)]
    return stages
