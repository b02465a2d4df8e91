"""The practitioners' checkpoint: clip-vit-large-patch14 as transformers has it, and its vision tower as their notebook makes it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

import isomorph as iso
from isomorph.demo.checkpoint import LARGE, specs
from isomorph.job.inputs import open_sources
from isomorph.language.morph import Morph
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest

TOWER = "isomorph:demo/clip_vision_fused.morph"


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
    return transformers


def clip_config(transformers: Any, text: tuple[int, int, int], vision: tuple[int, int, int], projection: int) -> Any:
    """(width, layers, heads) of both towers."""

    def tower(width: int, layers: int, heads: int) -> dict[str, int]:
        return {
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "projection_dim": projection,
        }

    return transformers.CLIPConfig(
        text_config=tower(*text), vision_config={**tower(*vision), "patch_size": 14}, projection_dim=projection
    )


def test_the_demo_has_the_tensors_of_transformers(transformers: Any) -> None:
    """The 590 of CLIPModel at the config of clip-vit-large-patch14, and both `position_ids` that older files carry."""
    import torch

    with torch.device("meta"):
        model = transformers.CLIPModel(clip_config(transformers, (768, 12, 12), (1024, 24, 16), 768))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: spec.shape for name, spec in specs(LARGE).items()}
    assert 590 == len(expected)
    assert {"text_model.embeddings.position_ids": (1, 77), "vision_model.embeddings.position_ids": (1, 257)} == {
        name: found.pop(name) for name in list(found) if name not in expected
    }
    assert expected == found


def test_the_plan_of_the_notebook() -> None:
    """592 in, 294 out: 48 fused from 144, the rest of the tower renamed, 202 dropped by name, `position_ids` of the tower kept."""
    source = Manifest(specs(LARGE))
    plan = make_plan(Morph.read(TOWER).programs(), source)
    assert (592, 294, 202) == (len(source), len(plan.targets), len(plan.dropped))
    assert 303_177_985 == sum(target.spec.numel for target in plan.targets.values())
    assert "embeddings.position_ids" in plan.targets
    assert all(move.is_range for move in plan.moves)
    assert 390 == len(plan.moves)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_notebooks_job_on_a_real_model(transformers: Any, tmp_path: Path, suffix: str) -> None:
    """torch.save of a CLIPModel -> the tower: equal to what the notebook's own lines make of it."""
    import torch

    torch.manual_seed(7)
    model = transformers.CLIPModel(clip_config(transformers, (32, 2, 4), (48, 3, 4), 24))
    state = dict(model.state_dict())
    state["vision_model.embeddings.position_ids"] = torch.arange(257)[None]
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    source, target = tmp_path / "pytorch_model.bin", tmp_path / f"tower.{suffix}"
    torch.save(state, source)
    report = iso.convert(source, target, TOWER)
    assert report.report.equal

    expected: dict[str, Any] = {}
    for name, tensor in state.items():
        if name.startswith("vision_model.") and "post_layernorm" not in name:
            expected[name.removeprefix("vision_model.").replace("encoder.", "transformer.")] = tensor
    for name in [name for name in expected if ".q_proj." in name]:
        parts = [expected.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        expected[name.replace("q_proj", "qkv_proj")] = torch.cat(parts, dim=0)
    if suffix == "pth":
        made = torch.load(target, weights_only=True)
    else:
        from safetensors.torch import load_file

        made = load_file(target)
    assert sorted(expected) == sorted(made)
    assert all(torch.equal(expected[name], made[name]) for name in expected)

    with open_sources([str(target)]) as tower:  # and back: every tensor of the tower under its old name
        back = make_plan([program.inverse for program in Morph.read(TOWER).programs()], tower.manifest)
    assert sorted(name for name in state if name.startswith("vision_model.") and "post_" not in name) == sorted(
        back.targets
    )
