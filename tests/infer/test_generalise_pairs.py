"""The real conversions and layouts of the catalogue, written out as relations and generalised again: the same moves, in few lines."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # where `peers` is

import pytest
from relations_of import draft_of

from isomorph.formats.registry import open_checkpoint
from isomorph.infer.generalise import generalise
from isomorph.infer.nouns import Draft, Part, Relation
from isomorph.language.morph import Morph
from isomorph.language.parse import parse
from isomorph.language.unparse import unparse
from isomorph.layouts.catalogue import find
from isomorph.plan.moves import Move
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest
from isomorph.testing.layouts import hub_probe, plan_into
from isomorph.testing.probe import probe
from peers import NAMES, unpacked

LAYOUTS = [
    "bert/megatron_core",
    "bloom/split",
    "convnext/timm_conv",
    "dinov2_with_registers/timm_swiglu",
    "falcon/gguf",
    "gpt2/megatron_v1",
    "mistral/litgpt_interleaved",
    "mixtral/gguf",
    "qwen3/litgpt_tied",
    "swin/torchvision",
    "t5/tf_keras_encoder",
    "vit/big_vision",
]


def count(text: str) -> int:
    """Lines without comments."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


def moves(plan: Plan) -> Mapping[str, list[Move]]:
    found: dict[str, list[Move]] = {}
    for move in plan.moves:
        found.setdefault(move.target.tensor, []).append(move)
    return found


def written(plan: Plan, manifest: Manifest) -> str:
    """The morph that is found again from a plan's relations; it must do what the plan does."""
    text = unparse(generalise(draft_of(plan), manifest, plan.manifest, config=plan.config))
    assert unparse(parse(text)) == text
    again = make_plan(Morph.parse(text).programs(plan.config), manifest, config=plan.config, like=plan.manifest)
    assert moves(again) == moves(plan)
    assert set(again.dropped) == set(plan.dropped)
    return text


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_is_written_as_a_person_would(name: str, tmp_path: Path) -> None:
    pair = unpacked(name, tmp_path)
    with open_checkpoint(pair.source) as checkpoint:
        manifest = checkpoint.manifest
    plan = make_plan([pair.program], manifest, config=pair.config)
    text = written(plan, manifest)
    by_hand = count(pair.morph.read_text(encoding="utf-8"))
    assert count(text) <= max(1.7 * by_hand, by_hand + 2), text
    assert max(map(len, text.splitlines())) <= 160, text


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_found_again(name: str) -> None:
    layout = find(name)
    plan = plan_into(layout, hub_probe(layout.family.name))
    text = written(plan, plan.source)
    assert count(text) <= len(plan.rules) + 4, text


@pytest.mark.parametrize("name", ["timm_vit_to_hf", "openclip_to_hf", "hf_bert_to_paddle", "hf_t5_to_t5x"])
def test_what_is_written_is_right_on_prime_sizes(name: str, tmp_path: Path) -> None:
    """`isomorph check` of it: sizes that coincide in the pair hide nothing."""
    pair = unpacked(name, tmp_path)
    with open_checkpoint(pair.source) as checkpoint:
        manifest = checkpoint.manifest
    plan = make_plan([pair.program], manifest, config=pair.config)
    module = generalise(draft_of(plan), manifest, plan.manifest, config=pair.config)
    found = probe(Morph.of(module).programs(pair.config), file=name, config=pair.config)
    assert found.is_right, found.problems


@pytest.mark.parametrize("layers", [12, 48])
def test_more_layers_are_not_more_lines(layers: int, tmp_path: Path) -> None:
    pair = unpacked("timm_vit_to_hf", tmp_path)
    with open_checkpoint(pair.source) as checkpoint:
        manifest = checkpoint.manifest
    plan = make_plan([pair.program], manifest, config=pair.config)
    few = generalise(draft_of(plan), manifest, plan.manifest, config=pair.config)
    source, target, draft = _deeper(plan, layers)
    many = generalise(draft, source, target, config=pair.config)
    assert many.statements == few.statements
    assert len(draft.relations) > 10 * layers


def _deeper(plan: Plan, layers: int) -> tuple[Manifest, Manifest, Draft]:
    """The relations of layer 0 in so many layers."""
    kept: list[Relation] = []
    for relation in draft_of(plan).relations:
        names = (*relation.sources, *relation.targets)
        if not any(".0." in name for name in names):
            kept += [] if any(".1." in name or ".2." in name or ".3." in name for name in names) else [relation]
            continue
        kept.extend(_moved(relation, layer) for layer in range(layers))
    specs: tuple[dict[str, object], dict[str, object]] = ({}, {})
    for found, side, old in ((specs[0], "left", plan.source), (specs[1], "right", plan.manifest)):
        for relation in kept:
            for part in getattr(relation, side):
                for name in part.every:
                    found[name] = old[_numbered(name, 0)]
    return Manifest(specs[0]), Manifest(specs[1]), Draft(tuple(kept))  # type: ignore[arg-type] # specs of the plan


def _moved(relation: Relation, layer: int) -> Relation:
    left, right = (
        tuple(Part(tuple(name.replace(".0.", f".{layer}.") for name in part.names), part.dims, part.along) for part in side if isinstance(part, Part))
        for side in (relation.left, relation.right)
    )  # fmt: skip
    return Relation(left, right, relation.sizes)


def _numbered(name: str, layer: int) -> str:
    pieces = name.split(".")
    return ".".join(str(layer) if piece.isdigit() else piece for piece in pieces)
