"""A trace without a morph, of models that no layout of the catalogue is: names decide where they leave nothing open."""

from __future__ import annotations

import numpy as np
import pytest

from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.job.inferred_plan import inferred
from isomorph.job.traced_plan import traced_plan
from isomorph.tensors import Manifest


def manifest(prefix: str, up: str, *, is_square: bool = False) -> Manifest:
    """Three layers of an MLP with norms, and an embedding."""
    wide = 8 if is_square else 12
    arrays = {f"{prefix}.token_embedding.weight": np.zeros((17, 8), "f4")}
    for layer in range(3):
        at = f"{prefix}.layers.{layer}."
        arrays[f"{at}mlp.{up}.weight"] = np.zeros((wide, 8), "f4")
        arrays[f"{at}mlp.{up}.bias"] = np.zeros(wide, "f4")
        arrays[f"{at}mlp.fc2.weight"] = np.zeros((8, wide), "f4")
        arrays[f"{at}norm.weight"] = np.zeros(8, "f4")
    return ArrayCheckpoint(arrays).manifest


def test_names_that_leave_nothing_open_are_the_morph() -> None:
    """It is said, printed, and planned like any other."""
    reference, candidate = manifest("model", "fc1"), manifest("net.encoder", "fc1")
    found = traced_plan(reference, candidate)
    assert sorted(found.plan.targets) == sorted(candidate)
    assert found.is_found
    assert found.title == "inferred from names and shapes"
    assert found.notes[0].startswith(
        "no morph was given, and no layout recognised: it was inferred from names and shapes"
    )
    assert "<->" in found.text


def test_what_names_leave_open_is_not_decided_here() -> None:
    """The error says what is asked, and which command settles it."""
    reference, candidate = manifest("model", "fc1", is_square=True), manifest("net", "alpha", is_square=True)
    with pytest.raises(MorphError) as refused:
        traced_plan(reference, candidate)
    text = str(refused.value)
    assert "was not recognised, and no morph was given" in text
    assert "names and shapes lead from one to the other but for" in text
    assert "isomorph infer REFERENCE CANDIDATE --resolve trace -o port.morph" in text


def test_strangers_are_no_port() -> None:
    """Where little of the candidate can be placed, nothing is offered."""
    other = ArrayCheckpoint({f"z{number}.q": np.zeros((number + 2, 3), "f4") for number in range(5)}).manifest
    assert inferred(manifest("model", "fc1"), other, (None, None)).text == ""
    with pytest.raises(MorphError, match="was not recognised, and no morph was given"):
        traced_plan(manifest("model", "fc1"), other)
