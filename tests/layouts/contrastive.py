"""What the tests of CLIP's and SigLIP's layouts share: comparing sets of arrays, and what transformers writes to disk."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import isomorph as iso
from isomorph.layouts.catalogue import find

Arrays = dict[str, np.ndarray[Any, Any]]


def differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The names in one only, and those whose dtype, shape or any bit differs."""
    return sorted(set(expected) ^ set(found)) + [
        name
        for name in expected
        if name in found
        and (
            (expected[name].dtype, expected[name].shape) != (found[name].dtype, found[name].shape)
            or expected[name].tobytes() != found[name].tobytes()
        )
    ]


def quiet_transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    return transformers


def randomised(model: Any, seed: int = 11) -> Any:
    """Every parameter a random number, the same whenever it is done."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    return model.eval()


def saved(model: Any, folder: Path) -> Arrays:
    """What the library writes to disk."""
    from safetensors.numpy import load_file

    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def as_torch(arrays: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def morph(layout: str) -> iso.Morph:
    """`clip/openai`, reading layout -> hub."""
    return iso.morph(find(layout).path)


def to(layout: str, hub: Mapping[str, Any], **sizes: int) -> Arrays:
    """The hub's tensors in a layout."""
    return dict(morph(layout).inverse.plan(hub, **sizes).state_dict("numpy"))


def back(layout: str, arrays: Mapping[str, Any]) -> Arrays:
    """A layout's tensors as the hub has them."""
    return dict(morph(layout).plan(arrays).state_dict("numpy"))
