"""Manifests, pairs and true plans for tests of proposals."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from isomorph.formats.registry import open_checkpoint
from isomorph.language.morph import Morph
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import DTYPES, Manifest, TensorSpec

sys.path.append(str(Path(__file__).parent.parent))  # where `peers` is

from peers import NAMES, Pair, unpacked

__all__ = ["NAMES", "Pair", "converted", "headers", "manifest_of", "true_plan", "unpacked"]


def headers(shapes: Mapping[str, Sequence[int]], dtype: str = "f32") -> Manifest:
    """A manifest of these shapes."""
    return Manifest({name: TensorSpec(DTYPES[dtype], tuple(shape)) for name, shape in shapes.items()})


def converted(text: str, source: Manifest, sizes: Mapping[str, int] | None = None) -> Plan:
    """The plan of a morph on a manifest."""
    return make_plan(Morph.parse(text).programs({}), source, sizes=sizes or {})


def true_plan(pair: Pair) -> Plan:
    """What is right for a pair: the plan of the morph that was written by hand."""
    return make_plan([pair.program], manifest_of(pair.source), config=pair.config, like=manifest_of(pair.target))


def manifest_of(path: Path) -> Manifest:
    """The headers of a file."""
    return open_checkpoint(path).manifest
