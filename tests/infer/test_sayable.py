"""Tensors whose names no rule can hold are set aside and said; odd names that a rule can hold are written."""

from __future__ import annotations

import numpy as np
import pytest

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.draft import from_names
from isomorph.infer.nouns import Inference, Proposed, copy_of
from isomorph.infer.run import infer
from isomorph.infer.sayable import is_sayable
from isomorph.tensors import Manifest, TensorSpec, dtype

ODD = ["?", "|", "[x]", ".", "_", "-", "{", "**", "drop", "where", "a b", '"', "\x1b[31m", "模型", "a..b", "x" * 3000]


def inferred(source: list[str], target: list[str], *, names_only: bool = False) -> Inference:
    draw = np.random.default_rng(0)
    first = {name: draw.standard_normal((3, 4)).astype(np.float32) for name in source}
    second = dict(zip(target, first.values(), strict=True))
    return infer(ArrayCheckpoint(first), ArrayCheckpoint(second), names_only=names_only)


@pytest.mark.parametrize("ending", ["", "x", ".weight"])
def test_odd_names_are_written(ending: str) -> None:
    found = inferred(ODD, [name + ending for name in ODD])
    assert found.is_proved, str(found)
    by_names = inferred(ODD, [name + ending for name in ODD], names_only=True)
    assert not by_names.problems


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb", "\ud800", "y" * 10_000, "n." * 300 + "w", '"' * 3000])
@pytest.mark.parametrize("names_only", [False, True])
def test_what_no_rule_can_name_is_set_aside(name: str, names_only: bool) -> None:
    assert not is_sayable(name)
    found = inferred([name, "kept"], ["new", "kept"], names_only=names_only)
    assert found.coverage.sources == 2
    assert name in found.coverage.dropped
    assert found.coverage.unplaced == ("new",)
    assert found.problems[0].startswith(
        "no morph can name 1 tensor of SRC (a name that is empty, broken or too long): '"
    )
    assert "kept" in found.text
    back = inferred(["new", "kept"], [name, "kept"], names_only=names_only)
    assert (back.coverage.targets, back.coverage.elements, back.coverage.unplaced) == (2, 24, (name,))
    assert back.problems == ()
    assert back.notes[-1].startswith("no morph can name 1 tensor of DST")
    assert not back.is_proved


def test_one_tensor_under_two_names_of_the_target_is_made_once() -> None:
    """A tied head: its file says that it is the embeddings."""
    spec = TensorSpec(dtype("f32"), (7, 4))
    source = Manifest({"word_embeddings.weight": spec})
    target = Manifest({"embed.weight": spec, "other.proj": spec}, shared=(("embed.weight", "other.proj"),))
    made = from_names(Proposed((copy_of("word_embeddings.weight", "embed.weight", (7, 4), "names"),)), source, target)
    assert made.unplaced == ()
    assert made.relations[0].targets == ("embed.weight", "other.proj")
