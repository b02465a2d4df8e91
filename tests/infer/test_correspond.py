"""Sources of targets by names: on the real conversions of tests/pairs, on layouts of the catalogue, and with what is known."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from name_scores import Score, score

from isomorph.formats.registry import open_checkpoint
from isomorph.infer.by_name.correspond import correspond
from isomorph.infer.by_name.links import alike, padded
from isomorph.infer.nouns import copy_of
from isomorph.layouts.catalogue import find
from isomorph.tensors import Manifest, TensorSpec, dtype
from isomorph.testing.layouts import hub_probe, in_layout

sys.path.insert(0, str(Path(__file__).parent.parent))

import peers

F32 = dtype("f32")


def manifest(shapes: dict[str, tuple[int, ...]]) -> Manifest:
    return Manifest({name: TensorSpec(F32, shape) for name, shape in shapes.items()})


def judged(name: str, folder: Path) -> Score:
    pair = peers.unpacked(name, folder)
    source, target = open_checkpoint(pair.source).manifest, open_checkpoint(pair.target).manifest
    facts = pair.truth["tensors"]
    truth = {each: [part[0] for part in fact["parts"] if part[0] in source] for each, fact in facts.items()}
    copies = [
        [first, *others] for fact in facts.values() for first, others in (fact.get("equal_sources") or {}).items()
    ]
    return score(correspond(source, target), truth, copies)


def test_real_conversions(tmp_path: Path) -> None:
    total = Score()
    for name in peers.NAMES:
        (tmp_path / name).mkdir()
        found = judged(name, tmp_path / name)
        assert not found.wrong, name
        assert not found.bad_choices, name
        assert found.share >= 0.95, (name, found.open)
        total += found
    assert total.share >= 0.99


@pytest.mark.parametrize(
    "layout",
    [
        "bert/paddle", "bert/google_tf", "clip/openai", "dinov2/facebook", "distilbert/flax", "gpt2/megatron_v3", "gpt_neox/litgpt",
        "llama/meta", "llama/gguf", "mixtral/gguf", "phi3/litgpt", "qwen3_moe/megatron_core", "t5/t5x", "vit/timm",
        "vit/big_vision", "whisper/openai",
    ],
)  # fmt: skip
def test_layouts_of_the_catalogue(layout: str) -> None:
    """Both ways between the hub and the layout; the truth is read off numbered elements. A head that another variant of the
    model has tied to its embedding is left out."""
    family, _, name = layout.partition("/")
    chosen = find(name, family)
    probe = hub_probe(family)
    there = in_layout(chosen, probe)
    for source, target in ((probe, there), (there, probe)):
        owners: dict[int, str] = {}
        for key, array in source.items():
            for number in np.unique(array).astype(int).tolist():
                owners.setdefault(number, key)
        truth = {
            key: {owners[number] for number in np.unique(array).astype(int).tolist() if number in owners}
            for key, array in target.items()
            if array.any() and not any(word in key for word in ("head", "output.", "proj_out", "decoder.weight"))
        }
        found = score(
            correspond(
                manifest({key: array.shape for key, array in source.items()}),
                manifest({key: array.shape for key, array in target.items()}),
            ),
            {key: names for key, names in truth.items() if names},
        )
        assert not found.wrong
        assert found.share >= 0.9, found.open


def encoder(pattern: str, names: Mapping[str, tuple[int, ...]], layers: int = 2) -> dict[str, tuple[int, ...]]:
    return {f"{pattern.format(layer)}.{name}": shape for layer in range(layers) for name, shape in names.items()}


OPAQUE = (
    encoder("net.{}", {"foo.w": (8, 8), "foo.b": (8,), "bar.w": (8, 8), "bar.b": (8,), "up.w": (32, 8)}),
    encoder("tower.{}", {"x.w": (8, 8), "x.b": (8,), "y.w": (8, 8), "y.b": (8,), "up.w": (32, 8)}),
)


def test_a_known_relation_settles_its_siblings_and_what_is_left() -> None:
    source, target = map(manifest, OPAQUE)
    before = correspond(source, target)
    assert {name for choice in before.choices for name in choice.targets} >= {"tower.0.x.w", "tower.0.y.b"}
    known = [copy_of(f"net.{layer}.foo.w", f"tower.{layer}.y.w", (8, 8)) for layer in range(2)]
    after = correspond(source, target, known=known)
    said = {link.targets[0].names[0]: link.sources[0].names[0] for match in after.matches for link in match.links}
    assert said["tower.1.y.b"] == "net.1.foo.b"
    assert said["tower.0.x.w"] == "net.0.bar.w"
    assert "tower.0.y.w" not in said
    assert not after.choices


def test_a_silent_target_keeps_to_the_sources_that_its_values_allow() -> None:
    source, target = map(manifest, OPAQUE)
    silent = {f"tower.{layer}.x.{leaf}": [f"net.{layer}.bar.{leaf}"] for layer in range(2) for leaf in ("w", "b")}
    found = correspond(source, target, silent=silent)
    for option in (option for choice in found.choices for option in choice.options):
        for match in option:
            for link in match.links:
                if ".x." in link.targets[0].names[0]:
                    assert ".bar." in link.sources[0].names[0]


def test_names_that_are_equal_are_equal_whatever_the_order_of_the_file() -> None:
    shapes = OPAQUE[0]
    turned = dict(reversed(shapes.items()))
    found = correspond(manifest(shapes), manifest(turned))
    assert all(match.sources == match.targets for match in found.matches)
    assert not found.unplaced


def test_unrelated_models_have_nothing_to_say() -> None:
    found = correspond(manifest({"a.weight": (3, 5)}), manifest({"b.kernel": (7, 11)}))
    assert (found.matches, found.choices) == ((), ())
    assert found.unused == ("a.weight",)
    assert found.unplaced == ("b.kernel",)
    assert correspond(manifest({}), manifest({})).matches == ()


def test_a_target_with_more_layers_is_not_filled_by_guessing() -> None:
    inside = {"attn.q_proj.weight": (8, 8), "attn.k_proj.weight": (8, 8), "mlp.up_proj.weight": (32, 8)}
    found = correspond(manifest(encoder("h.{}", inside, 2)), manifest(encoder("layers.{}", inside, 3)))
    assert not found.matches


def test_thousands_of_names_take_seconds() -> None:
    hf = {
        f"self_attn.{each}_proj.{t}": (64, 64) if t == "weight" else (64,)
        for each in "qkvo"
        for t in ("weight", "bias")
    }
    hf |= {"fc1.weight": (256, 64), "fc2.weight": (64, 256), "norm1.weight": (64,), "norm2.weight": (64,)}
    renamed = {"fc1": "mlp.0", "fc2": "mlp.2", "self_attn": "attn", "norm1": "ln_1", "norm2": "ln_2"}

    def other(name: str) -> str:
        for old, new in renamed.items():
            name = name.replace(old, new)
        return name

    source = manifest(encoder("model.encoder.layers.{}", hf, 210))
    target = manifest(encoder("blocks.{}", {other(name): shape for name, shape in hf.items()}, 210))
    start = time.process_time()
    found = correspond(source, target)
    assert time.process_time() - start < 10
    assert len(source) > 2500
    assert not found.unplaced
    assert not found.choices


def test_shapes_that_may_be_one() -> None:
    assert alike((1, 17, 48), (17, 48))
    assert alike((48, 4, 12), (48, 48))
    assert alike((3, 3, 8, 16), (16, 8, 3, 3))
    assert not alike((4, 36), (12, 12))
    assert padded((104, 48), (100, 48))
    assert not padded((104, 48), (50, 48))
    assert math.prod((104, 48)) > math.prod((100, 48))
