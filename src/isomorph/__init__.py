"""Port a model's weights from one implementation to another, and prove the port right.

morph text ──language──▶ Morph ─┐
checkpoint ──formats──▶ Manifest┼─plan──▶ Plan (proved total, printable, no tensor read yet)
--like TARGET ──────▶ Manifest ─┘          │
                                           ├─engine──▶ target file        convert
                                           └─verify──▶ every element      by a path that shares no code with plan or engine

import isomorph as iso
sd   = iso.open("pytorch_model.bin")
plan = iso.morph("tower.morph").plan(sd)
plan.write("tower.safetensors")
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from isomorph.errors import (
    CheckError,
    Different,
    FormatError,
    IsomorphError,
    MorphError,
    RefusedError,
    SourceChanged,
    UnsafeError,
    UsageError,
)

if TYPE_CHECKING:
    from isomorph.api import BoundPlan, Inference, Morph, convert, infer, morph, open, trace, verify
    from isomorph.statedict import LazyTensor, StateDict

__version__ = "0.1.0"

_LAZY = {
    **dict.fromkeys(
        ("BoundPlan", "Inference", "Morph", "convert", "infer", "morph", "open", "trace", "verify"), "isomorph.api"
    ),
    **dict.fromkeys(("LazyTensor", "StateDict"), "isomorph.statedict"),
}

_MODULES = ("models", "paddle", "torch")
"""Modules for those who hold a model of that library, `isomorph.torch.load_model`, or want one: `isomorph.models.load`."""

__all__ = [
    "BoundPlan",
    "CheckError",
    "Different",
    "FormatError",
    "Inference",
    "IsomorphError",
    "LazyTensor",
    "Morph",
    "MorphError",
    "RefusedError",
    "SourceChanged",
    "StateDict",
    "UnsafeError",
    "UsageError",
    "__version__",
    "convert",
    "infer",
    "morph",
    "open",
    "trace",
    "verify",
]


def __getattr__(name: str) -> Any:
    """The public names are imported when first used, so that `import isomorph` stays small."""
    if name in _MODULES:
        return importlib.import_module(f"isomorph.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'isomorph' has no attribute {name!r}")
    found = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """`isomorph.verify` stays the function: importing the package of the same name would put the package in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _LAZY or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
