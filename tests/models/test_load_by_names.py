"""`isomorph.models.load` where the catalogue has the names and not the shapes: the model's own config says what they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import agree, saved, stirred
from safetensors.torch import load_file, save_file

import isomorph as iso
from isomorph.errors import IsomorphError, MorphError, UsageError

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 12,
    "patch_size": 4,
}
SHAPES: dict[str, dict[str, Any]] = {
    "wide images": {"image_size": (8, 20)},
    "high patches": {"patch_size": (6, 3)},
    "both": {"image_size": (12, 8), "patch_size": (3, 4)},
    "wide heads": {"head_dim": 6},
}


def vit(kind: str, options: dict[str, Any], **more: Any) -> Any:
    """A model of transformers; `head_dim` is an attribute that its config class has no argument for."""
    config = transformers.ViTConfig(**{**SMALL, **options, "num_labels": 3})
    config.head_dim = options.get("head_dim", 4)
    return stirred(getattr(transformers, kind)(config, **more), seed=2)


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
@pytest.mark.parametrize("shape", SHAPES)
def test_vits_that_are_not_square_or_have_heads_of_their_own_width(shape: str, fused: bool, tmp_path: Path) -> None:
    """With a head and without one, in float64: the names of the hub with its base prefix, and without it."""
    options = SHAPES[shape]
    for at, (kind, more, fields) in enumerate(
        (
            ("ViTForImageClassification", {}, ("logits",)),
            ("ViTModel", {}, ("last_hidden_state", "pooler_output")),
            ("ViTModel", {"add_pooling_layer": False}, ("last_hidden_state",)),
        )
    ):
        theirs = vit(kind, options, **more).double()
        model = iso.models.load(saved(theirs, tmp_path / str(at)), fused=fused)
        height, width = model.vit.embeddings.config.image if at == 0 else model.embeddings.config.image
        images = torch.randn(2, 3, height, width, dtype=torch.float64)
        agree(model(images), theirs(images), fields)
        assert fused == any("qkv" in name for name in model.state_dict())


def test_what_is_neither_the_catalogues_nor_the_models_is_refused_as_the_catalogue_says(tmp_path: Path) -> None:
    """Without a config, with one of other shapes, and with a tensor that is not there: the names and shapes that are wrong."""
    folder = saved(vit("ViTModel", SHAPES["both"]), tmp_path)
    told = json.loads((folder / "config.json").read_text())
    said = r"has the names of vit/hf, but not its shapes"
    with pytest.raises(MorphError, match=said):
        iso.models.load(folder, config=told | {"patch_size": 4, "image_size": 12})
    with pytest.raises(MorphError, match=said):
        iso.models.load(folder, config=told | {"hidden_act": "xielu"})
    (folder / "config.json").unlink()
    with pytest.raises(MorphError, match=said):
        iso.models.load(folder)
    state = load_file(folder / "model.safetensors")
    del state["layernorm.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(MorphError, match=r"layernorm\.bias"):
        iso.models.load(folder, config=told)


def test_the_package_has_the_models_without_an_import_of_its_own() -> None:
    """`import isomorph as iso; iso.models.load(…)`, in a process that has done nothing else; and torch is not imported for it."""
    code = "import isomorph as iso, sys; print(iso.models.load.__name__, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["load", "False"]


def test_options_that_there_are_not_are_named(tmp_path: Path) -> None:
    """A misspelt option is no size of an axis; a config is a path or a mapping."""
    folder = saved(vit("ViTModel", {}), tmp_path)
    with pytest.raises(
        UsageError, match=r"fussed is neither an option of isomorph\.models\.load nor an axis of vit/hf"
    ):
        iso.models.load(folder, fussed=1)
    for config in ([1], 3):
        with pytest.raises(UsageError, match=r"config is a (list|int): give the path of a config\.json, a mapping"):
            iso.models.load(folder, config=config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("patch_size", [4, 0], r"patch_size is \(4, 0\): it must be a whole number above 0, or two: height and width"),
        ("image_size", [6], r"image_size is \(6,\): it must be a whole number above 0, or two"),
        ("image_size", "12", r"image_size is '12': it must be"),
        ("head_dim", -4, r"head_dim is -4: it must be a whole number above 0, or null"),
        ("layer_norm_eps", -1.0, r"layer_norm_eps is -1\.0: it must be a number that is not negative"),
        ("id2label", 3, r"id2label is 3 in the config: it must be a mapping or a list, or left out"),
        ("architectures", "ViTModel", r"architectures is 'ViTModel' in the config: it must be a list, or left out"),
    ],
)
def test_settings_that_are_no_settings_are_named(key: str, value: Any, message: str, tmp_path: Path) -> None:
    """Whatever stands in a config.json, an error of ours says what it must be."""
    theirs = vit("ViTModel", {})
    state = {name: one.numpy() for name, one in load_file(saved(theirs, tmp_path) / "model.safetensors").items()}
    told = json.loads((tmp_path / "config.json").read_text())
    with pytest.raises(IsomorphError, match=message):
        iso.models.load(state, config=told | {key: value})
