"""The reference ViT against transformers', on random models of several sizes, through the files that transformers writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import HALVES, OtherFloats, agree, gap, loaded, names_in, saved, stirred

import isomorph as iso
from isomorph.models import vit

TINY = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 24,
    "patch_size": 8,
}  # fmt: skip
SIZES = {
    "tiny": TINY,
    "patches do not fill the image": TINY | {"image_size": 35},
    "neither image nor patch is square": TINY | {"image_size": (16, 30), "patch_size": (8, 5)},
    "one head, no bias on q, k, v": TINY | {"num_attention_heads": 1, "qkv_bias": False},
    "deep, heads of 2, tanh gelu": TINY
    | {"num_hidden_layers": 4, "hidden_size": 16, "num_attention_heads": 8, "hidden_act": "gelu_new"},
    "one channel, wide, relu, other eps": TINY
    | {"num_channels": 1, "hidden_size": 48, "intermediate_size": 96, "hidden_act": "relu", "layer_norm_eps": 1e-3},
}
FIELDS = {
    "ViTModel": ("last_hidden_state", "pooler_output"),
    "ViTForImageClassification": ("logits",),
    "ViTForMaskedImageModeling": ("reconstruction",),
}
BOTH = pytest.mark.parametrize(
    ("dtype", "attention"),
    [(torch.float32, "sdpa"), (torch.float32, "eager"), (torch.float64, "sdpa")],
    ids=["float32-sdpa", "float32-eager", "float64-sdpa"],
)
"""Not eager in float64: there transformers takes the softmax in float32."""


def reference(
    kind: str, sizes: dict[str, Any], *, attention: str = "sdpa", dtype: torch.dtype = torch.float32, **more: Any
) -> Any:
    config = transformers.ViTConfig(**(sizes | more), encoder_stride=8, attn_implementation=attention)
    return stirred(getattr(transformers, kind)(config), seed=3).to(dtype)


def on_disk(theirs: Any, folder: Path) -> tuple[dict[str, Any], set[str]]:
    """The config and the names that transformers writes."""
    saved(theirs, folder)
    return json.loads((folder / "config.json").read_text()), names_in(folder)


def ours(theirs: Any, folder: Path, *, fused: bool = False) -> Any:
    """The model that `build` makes of what transformers writes, on the meta device, filled through the catalogue.

    Where image or patch are not square, the catalogue's sizes do not hold: then by equal names.
    """
    config, names = on_disk(theirs, folder)
    with torch.device("meta"):
        model = vit.build(config, names, fused=fused)
    assert type(model).__name__ == type(theirs).__name__
    model = model.to(theirs.dtype)
    if isinstance(config["image_size"], list):
        assert tuple(iso.torch.load_model(model, folder)) == ([], [])
        return model.eval()
    return loaded(model, folder, "vit/fused_qkv" if fused else "vit/hf")


def images(sizes: dict[str, Any], dtype: torch.dtype = torch.float32, more: int = 0) -> torch.Tensor:
    size = sizes["image_size"]
    height, width = size if isinstance(size, tuple) else (size, size)
    shape = (3, sizes.get("num_channels", 3), height + more, width + more)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)


@torch.no_grad()
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@BOTH
def test_hidden_states_are_those_of_transformers(
    dtype: torch.dtype, attention: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    """Every token and the pooled one, in both precisions, whatever the image and the patch."""
    theirs = reference("ViTModel", sizes, attention=attention, dtype=dtype, pooler_output_size=10)
    pixels = images(sizes, dtype)
    agree(ours(theirs, tmp_path)(pixels), theirs(pixels), FIELDS["ViTModel"])


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", FIELDS)
def test_every_head_is_filled_from_its_file_and_gives_what_transformers_gives(
    kind: str, dtype: torch.dtype, fused: bool, tmp_path: Path
) -> None:
    """Each class by its own fields, images of other sizes too, with q, k and v separate or as one matrix."""
    theirs = reference(kind, TINY, dtype=dtype, num_labels=5)
    model = ours(theirs, tmp_path, fused=fused)
    agree(model(images(TINY, dtype)), theirs(images(TINY, dtype)), FIELDS[kind])
    larger = images(TINY, dtype, more=19)
    agree(model(larger, interpolate_pos_encoding=True), theirs(larger, interpolate_pos_encoding=True), FIELDS[kind])
    assert fused == any(name.endswith("attention.attention.qkv_proj.weight") for name in model.state_dict())
    assert fused or names_in(tmp_path) == set(model.state_dict())


@torch.no_grad()
def test_masked_patches_are_the_mask_token(tmp_path: Path) -> None:
    """As transformers takes them, booleans or numbers; a model without the token says so."""
    theirs = reference("ViTForMaskedImageModeling", TINY, dtype=torch.float64)
    masked = torch.tensor([[1, 0, 0, 1, 1, 0, 0, 0, 1], [0] * 9, [1] * 9])
    model, pixels = ours(theirs, tmp_path), images(TINY, torch.float64)
    expected = theirs(pixels, bool_masked_pos=masked.bool())
    agree(model(pixels, bool_masked_pos=masked), expected, ("reconstruction",))
    with pytest.raises(ValueError, match="this model has no mask token"):
        vit.from_config(TINY)(images(TINY), masked)


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", FIELDS)
def test_half_precision_is_half_throughout(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """No operation of a forward gives another floating dtype, and the numbers are those of float32 to half's precision."""
    theirs = reference(kind, TINY)
    model = ours(theirs, tmp_path).to(dtype)
    for more in (0, 19):
        pixels, wide = images(TINY, dtype, more), bool(more)
        with OtherFloats(dtype) as others:
            got = model(pixels, interpolate_pos_encoding=wide)
        assert others.found == []
        expected = theirs(pixels.float(), interpolate_pos_encoding=wide)
        for field in FIELDS[kind]:
            assert gap(getattr(got, field).float(), getattr(expected, field)) < 24 * torch.finfo(dtype).eps


@torch.no_grad()
def test_other_layouts_of_the_family_fill_it(tmp_path: Path) -> None:
    """From timm's names, with its fused qkv, to the same logits."""
    theirs = reference("ViTForImageClassification", TINY, num_labels=5)
    config, names = on_disk(theirs, tmp_path)
    iso.convert(tmp_path / "model.safetensors", tmp_path / "timm.safetensors", to="vit/timm")
    for fused, layout in ((False, "vit/hf"), (True, "vit/fused_qkv")):
        model = vit.build(config, names, fused=fused)
        assert tuple(iso.torch.load_model(model, tmp_path / "timm.safetensors", to=layout)) == ([], [])
        agree(model(images(TINY)), theirs(images(TINY)), ("logits",))


def test_the_class_is_that_of_the_config_or_of_the_names() -> None:
    """`architectures` where there are no names; what the names hold where there are, with or without their prefix."""
    for kind in FIELDS:
        model = vit.from_config(TINY | {"architectures": ["Another", kind], "encoder_stride": 8})
        assert type(model).__name__ == kind
        for prefix in ("", "vit."):
            names = [prefix + name if name.startswith("pooler") else name for name in model.state_dict()]
            built = vit.build(TINY | {"encoder_stride": 8}, names)
            assert list(built.state_dict()) == list(model.state_dict())
    assert not any(name.startswith("pooler") for name in vit.build(TINY, ["embeddings.cls_token"]).state_dict())


def test_it_has_modules_to_hook_under_the_names_of_the_hub() -> None:
    """What leaves the last norm is the last hidden state."""
    model, seen = vit.from_config(TINY | {"architectures": ["ViTForImageClassification"]}), []
    for name in (
        "vit.encoder.layer.1.attention.attention.key",
        "vit.encoder.layer.1.intermediate.dense",
        "vit.layernorm",
    ):
        model.get_submodule(name).register_forward_hook(lambda module, given, out, name=name: seen.append((name, out)))
    with torch.no_grad():
        out = model(images(TINY))
    assert [(3, 10, 24), (3, 10, 40), (3, 10, 24)] == [tuple(tensor.shape) for _, tensor in seen]
    assert torch.equal(seen[-1][1], out.last_hidden_state)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden_act": "xielu"}, "hidden_act is 'xielu', which is not implemented: known are gelu,"),
        ({"pooler_act": "none"}, "pooler_act is 'none'"),
        ({"num_attention_heads": 5}, "hidden_size 24 is no multiple of num_attention_heads 5"),
        ({"image_size": 7}, "image_size 7 is smaller than patch_size 8"),
    ],
    ids=str,
)
def test_a_config_that_this_vit_is_not_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vit.from_config(TINY | given)


def test_images_of_another_size_are_refused_with_the_way_out() -> None:
    with pytest.raises(
        ValueError, match="are 43 × 43 pixels, the model is for 24 × 24: resize them, or ask for interp"
    ):
        vit.from_config(TINY)(images(TINY, more=19))


@torch.no_grad()
def test_without_labels_the_logits_are_the_class_token() -> None:
    """As in transformers, where `num_labels` 0 is a model without a head."""
    model = vit.from_config(TINY | {"architectures": ["ViTForImageClassification"], "num_labels": 0})
    out = model(images(TINY))
    assert torch.equal(out.logits, out.last_hidden_state[:, 0])
