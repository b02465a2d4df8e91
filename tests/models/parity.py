"""What the tests of the reference models share: transformers' models with numbers that show a fault, and how two outputs are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.utils._python_dispatch import TorchDispatchMode

import isomorph as iso

LIMITS = {torch.float32: 1e-5, torch.float64: 1e-12}
HALVES = (torch.float16, torch.bfloat16)


def stirred(model: Any, seed: int, scale: float = 0.3) -> Any:
    """The model in eval, every parameter drawn anew: no bias is 0 and no norm 1, and attention is sharp."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(1 + drawn if "norm" in name.lower() and name.endswith("weight") else drawn)
    return model.eval()


def filled(model: Any, reference: Any) -> Any:
    """`model` with the values of a transformers model, by equal names; in eval, in the dtype of the reference."""
    state = reference.state_dict()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model.to(next(reference.parameters()).dtype).eval()


def saved(reference: Any, folder: Path) -> Path:
    """The model as `save_pretrained` writes it, its sampling settings left out."""
    reference.save_pretrained(folder)
    return folder


def names_in(folder: Path) -> set[str]:
    with safe_open(str(folder / "model.safetensors"), "np") as file:
        return set(file.keys())


def loaded(model: Any, folder: Path, to: str) -> Any:
    """`model` filled from the folder through the catalogue."""
    missing, unexpected = iso.torch.load_model(model, folder, to=to)
    assert not missing and not unexpected
    return model.eval()


def gap(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference by the largest number expected; infinite where shapes differ or something is not finite."""
    if got.shape != expected.shape or got.dtype != expected.dtype or not bool(got.isfinite().all()):
        return float("inf")
    return float((got - expected).detach().abs().max() / expected.detach().abs().max())


def agree(got: Any, expected: Any, fields: Mapping[str, str] | tuple[str, ...], rows: Any = ...) -> None:
    """The fields of two outputs are equal to within the dtype's limit, at `rows`."""
    for field in fields:
        ours, theirs = getattr(got, field)[rows], getattr(expected, field)[rows]
        assert gap(ours, theirs) <= LIMITS[theirs.dtype], (field, gap(ours, theirs))


def padding(kept: list[list[int]]) -> torch.Tensor:
    """A mask, row by row."""
    return torch.tensor(kept, dtype=torch.long)


class OtherFloats(TorchDispatchMode):
    """Collects every floating dtype that an operation gives, but `dtype`, with the operation.

    The log-sum-exp that torch's attention kernel returns beside its output, and nobody reads, is not counted.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.found: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = function(*args, **(kwargs or {}))
        several = given if isinstance(given, tuple | list) else [given]
        shown = several[:1] if "scaled_dot_product" in str(function) else several
        for one in shown:
            if isinstance(one, torch.Tensor) and one.is_floating_point() and one.dtype != self.dtype:
                self.found.append(f"{function} {one.dtype}")
        return given
