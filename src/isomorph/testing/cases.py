"""The conformance cases of the notation: each a morph, tensors, and what must come of them (see tests/cases/README.md).

load_cases(folder) ──▶ Case(morph, source, config …)  ──run by plan + engine, and again by verify
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.language.parse import parse
from isomorph.language.rules import Program
from isomorph.language.scopes import flatten
from isomorph.language.tree import Module
from isomorph.tensors import TensorSpec, spec

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Case:
    """One case; `facts` is its table as written."""

    file: str
    name: str
    facts: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    @property
    def source(self) -> dict[str, TensorSpec]:
        return {name: spec(text) for name, text in self.facts.get("source", {}).items()}

    @property
    def is_inverse(self) -> bool:
        return self.facts.get("direction") == "inverse"

    @property
    def target(self) -> dict[str, tuple[TensorSpec, list[object]]]:
        return {name: (spec(entry["spec"]), entry["values"]) for name, entry in self.facts.get("target", {}).items()}

    @property
    def error(self) -> Mapping[str, Any] | None:
        return self.facts.get("error")

    def arrays(self) -> Arrays:
        """The source tensors: numbered 0, 1, 2, … through all of them in order, or the case's own values."""
        arrays: Arrays = {}
        number = 0
        for name, tensor in self.source.items():
            values = self.facts.get("values", {}).get(name)
            arrays[name] = stored(list(range(number, number + tensor.numel)) if values is None else values, tensor)
            number += tensor.numel
        return arrays

    def programs(self, *, inverse: bool | None = None) -> tuple[Program, ...]:
        """The flat stages in the case's direction (or the given one). Raises MorphError for a text that cannot be read."""
        turned = self.is_inverse if inverse is None else inverse
        files = self.facts.get("files", {})

        def load(name: str) -> Module:
            from isomorph.errors import Gap, MorphError

            if name not in files:
                raise MorphError([Gap("use", f"{name}.morph is not there", tensors=(name,))])
            return parse(files[name], f"{name}.morph")

        config = self.facts.get("config")
        texts = [self.facts["morph"], *([self.facts["then"]] if "then" in self.facts else [])]
        programs = [flatten(parse(text), load=load, config=config) for text in texts]
        return tuple(program.inverse for program in reversed(programs)) if turned else tuple(programs)


def load_cases(folder: Path) -> Iterator[Case]:
    """Every case of every `.toml` file in the folder, by file name."""
    for path in sorted(folder.glob("*.toml")):
        with path.open("rb") as file:
            for facts in tomllib.load(file)["case"]:
                yield Case(path.stem, facts["name"], facts)


def stored(values: list[Any], tensor: TensorSpec) -> np.ndarray[Any, Any]:
    """A flat list stored in a spec's dtype and shape: numbers, `"nan"`, `"-inf"`, `"-0.0"`, and `"0x…"` bit patterns."""
    array = np.empty(len(values), tensor.dtype.numpy)
    bits = array.view(tensor.dtype.bits)
    for number, value in enumerate(values):
        if isinstance(value, str) and value.startswith("0x"):
            bits[number] = int(value, 16)
        elif isinstance(value, str):
            array[number] = np.float64(value).astype(tensor.dtype.numpy)
        elif tensor.dtype.kind in ("signed", "unsigned"):
            array[number] = value
        else:
            array[number] = np.float64(value).astype(tensor.dtype.numpy)
    return array.reshape(tensor.shape)
