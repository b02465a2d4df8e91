"""SAM, Swin and ConvNeXt: their layouts against real models, other libraries' names, and by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from other_models import (
    FACTS,
    SEEING,
    Arrays,
    ByHand,
    by_hand_and_back,
    convert,
    differing,
    family_of,
    made,
    problems,
    renamed,
    saved,
    shapes,
    turned,
    without,
)

import isomorph as iso
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.layouts.catalogue import find, layouts
from isomorph.layouts.hub import schema

OnDisk = Callable[[str], Arrays]


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    """What transformers writes of a model."""
    return cache(lambda model: saved(model, tmp_path_factory.mktemp(model)))


@pytest.mark.parametrize("model", SEEING)
def test_the_hub_of_a_vision_model_is_what_transformers_writes(on_disk: OnDisk, model: str) -> None:
    """Every tensor is known, none is missed, and no two tell different sizes of one axis."""
    assert [] == problems(family_of(model), on_disk(model))


@pytest.mark.parametrize(
    "model, axes",
    [
        ("sam", {"vision_layers": 3, "vision_heads": 2, "vision_ffn": 28, "patch": 8, "grid_width": 4, "width": 16,
                 "layers": 2, "masks": 5, "points": 4, "iou_width": 12, "iou_layers": 1, "mask_channels": 24, "inner": 8}),
        ("swin", {"depth0": 1, "depth1": 2, "depth2": 1, "depth3": 3, "width0": 12, "width3": 96, "heads0": 2, "heads3": 6,
                  "ffn1": 72, "width": 96, "classes": 5, "patch": 4}),
        ("convnext", {"depth0": 2, "depth1": 1, "depth2": 3, "width0": 6, "width3": 22, "ffn3": 88, "width": 22}),
    ],
)  # fmt: skip
def test_sizes_of_a_vision_model_are_read_off_the_shapes(on_disk: OnDisk, model: str, axes: dict[str, int]) -> None:
    found = schema(family_of(model)).read(ArrayCheckpoint(on_disk(model)).manifest).sizes
    assert axes == {axis: found.get(axis) for axis in axes}


@pytest.mark.parametrize("gone", ["swin.encoder.layers.2.blocks.0.intermediate.dense.bias", "swin.layernorm.weight",
                                  "swin.encoder.layers.1.downsample.reduction.weight"])  # fmt: skip
def test_what_a_stage_lacks_is_named(on_disk: OnDisk, gone: str) -> None:
    arrays = {name: array for name, array in on_disk("swin").items() if name != gone}
    assert schema("swin").read(ArrayCheckpoint(arrays).manifest).missing == (gone,)


# ── what each layout is, written down a second time ──────────────────────────────────────────────────────────────────


def by_hand_facebook_sam(model: str, hub: Arrays) -> Arrays:
    return renamed(
        hub,
        (
            r"^shared_image_embedding\.positional_embedding",
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        ),
        (r"^vision_encoder\.", "image_encoder."),
        (r"^image_encoder\.layers\.", "image_encoder.blocks."),
        (r"patch_embed\.projection", "patch_embed.proj"),
        (r"neck\.conv1", "neck.0"),
        (r"neck\.layer_norm1", "neck.1"),
        (r"neck\.conv2", "neck.2"),
        (r"neck\.layer_norm2", "neck.3"),
        (r"mask_embed\.conv1", "mask_downscaling.0"),
        (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
        (r"mask_embed\.conv2", "mask_downscaling.3"),
        (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
        (r"mask_embed\.conv3", "mask_downscaling.6"),
        (r"encoder\.point_embed\.", "encoder.point_embeddings."),
        (r"upscale_conv1", "output_upscaling.0"),
        (r"upscale_layer_norm", "output_upscaling.1"),
        (r"upscale_conv2", "output_upscaling.3"),
        (r"(mlps\.\d+|iou_prediction_head)\.layers\.0", r"\1.layers.1"),
        (r"(mlps\.\d+|iou_prediction_head)\.proj_in", r"\1.layers.0"),
        (r"(mlps\.\d+|iou_prediction_head)\.proj_out", r"\1.layers.2"),
        (r"layer_norm", "norm"),
    )


def by_hand_timm_sam(model: str, hub: Arrays) -> Arrays:
    return {
        name.removeprefix("image_encoder.").replace("mlp.lin", "mlp.fc"): array
        for name, array in by_hand_facebook_sam(model, hub).items()
        if name.startswith("image_encoder.")
    }


def by_hand_shared(model: str, hub: Arrays) -> Arrays:
    name = "shared_image_embedding.positional_embedding"
    return {**hub, "prompt_encoder.shared_embedding.positional_embedding": hub[name]} if name in hub else hub


def by_hand_microsoft(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in hub.items():
        if re.search(r"self\.(key|value)\.", name) or name.startswith("decoder.") or name.endswith("mask_token"):
            continue
        if "self.query" in name:
            array = np.concatenate([hub[name.replace("query", part)] for part in ("query", "key", "value")])
        found[name] = array
    return renamed(
        found,
        (r"self\.query", "qkv"),
        (r"^swin\.(encoder\.)?", ""),
        (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
        (r"^embeddings\.norm", "patch_embed.norm"),
        (r"^embeddings\.position_embeddings", "absolute_pos_embed"),
        (r"layernorm_before", "norm1"),
        (r"layernorm_after", "norm2"),
        (r"^layernorm", "norm"),
        (r"attention\.output\.dense", "attn.proj"),
        (r"attention\.(self\.)?", "attn."),
        (r"intermediate\.dense", "mlp.fc1"),
        (r"output\.dense", "mlp.fc2"),
        (r"^classifier", "head"),
    )


def by_hand_simmim(model: str, hub: Arrays) -> Arrays:
    decoder = {name: array for name, array in hub.items() if name.startswith("decoder.")}
    inside = by_hand_microsoft(model, hub) | {"mask_token": hub["swin.embeddings.mask_token"]}
    return {**{f"encoder.{name}": array for name, array in inside.items()}, **decoder}


def by_hand_paddle_swin(model: str, hub: Arrays) -> Arrays:
    return turned(by_hand_microsoft(model, hub), r"(qkv|attn\.proj|fc\d|reduction|^head)\.weight")


def by_hand_timm_swin(model: str, hub: Arrays) -> Arrays:
    found = without(by_hand_microsoft(model, hub), "absolute_pos_embed")
    return {
        re.sub(r"^head", "head.fc", re.sub(r"layers\.(\d+)\.downsample", after, name)): array
        for name, array in found.items()
    }


def after(match: re.Match[str]) -> str:
    return f"layers.{int(match[1]) + 1}.downsample"


def by_hand_torchvision_swin(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in without(by_hand_microsoft(model, hub), "absolute_pos_embed").items():
        name = re.sub(r"^layers\.(\d+)\.blocks", lambda match: f"features.{2 * int(match[1]) + 1}", name)
        name = re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"features.{2 * int(match[1]) + 2}", name)
        name = name.replace("patch_embed.proj", "features.0.0").replace("patch_embed.norm", "features.0.2")
        found[name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")] = array
    return found


def by_hand_swin_module(model: str, hub: Arrays) -> Arrays:
    """What the modules hold in memory, asked of the module itself."""
    return {name: tensor.numpy() for name, tensor in made(model).state_dict().items()}


def by_hand_facebook_convnext(model: str, hub: Arrays) -> Arrays:
    return renamed(
        hub,
        (r"^convnext\.(encoder\.)?", ""),
        (r"^embeddings\.patch_embeddings", "downsample_layers.0.0"),
        (r"^embeddings\.layernorm", "downsample_layers.0.1"),
        (r"^stages\.(\d+)\.downsampling_layer", r"downsample_layers.\1"),
        (r"^stages\.(\d+)\.layers", r"stages.\1"),
        (r"layernorm", "norm"),
        (r"layer_scale_parameter", "gamma"),
        (r"^classifier", "head"),
    )


def by_hand_paddle_convnext(model: str, hub: Arrays) -> Arrays:
    return turned(by_hand_facebook_convnext(model, hub), r"(pwconv\d|^head)\.weight")


def by_hand_timm_convnext(model: str, hub: Arrays) -> Arrays:
    return renamed(
        by_hand_facebook_convnext(model, hub),
        (r"^downsample_layers\.0", "stem"),
        (r"^downsample_layers\.(\d+)", r"stages.\1.downsample"),
        (r"^stages\.(\d+)\.(\d+)", r"stages.\1.blocks.\2"),
        (r"dwconv", "conv_dw"),
        (r"pwconv", "mlp.fc"),
        (r"^head", "head.fc"),
        (r"^norm", "head.norm"),
    )


def by_hand_timm_conv(model: str, hub: Arrays) -> Arrays:
    found = by_hand_timm_convnext(model, hub)
    return {
        name: array[..., None, None] if re.search(r"mlp\.fc\d\.weight", name) else array
        for name, array in found.items()
    }


def by_hand_torchvision_convnext(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in by_hand_facebook_convnext(model, hub).items():
        name = re.sub(r"^downsample_layers\.(\d+)", lambda match: f"features.{2 * int(match[1])}", name)
        name = re.sub(r"^stages\.(\d+)\.(\d+)", lambda match: f"features.{2 * int(match[1]) + 1}.{match[2]}", name)
        name = re.sub(r"^norm", "classifier.0", re.sub(r"^head", "classifier.2", name))
        for number, part in ((0, "dwconv"), (2, "norm"), (3, "pwconv1"), (5, "pwconv2")):
            name = name.replace(part, f"block.{number}")
        if name.endswith("gamma"):
            name, array = name.replace("gamma", "layer_scale"), array[:, None, None]
        found[name] = array
    return found


BY_HAND: dict[str, ByHand] = {
    "sam/facebook": by_hand_facebook_sam,
    "sam/hf_module": by_hand_shared,
    "sam/timm": by_hand_timm_sam,
    "swin/microsoft": by_hand_microsoft,
    "swin/simmim": by_hand_simmim,
    "swin/timm": by_hand_timm_swin,
    "swin/torchvision": by_hand_torchvision_swin,
    "swin/paddle": by_hand_paddle_swin,
    "swin/hf_module": by_hand_swin_module,
    "convnext/facebook": by_hand_facebook_convnext,
    "convnext/paddle": by_hand_paddle_convnext,
    "convnext/timm": by_hand_timm_convnext,
    "convnext/timm_conv": by_hand_timm_conv,
    "convnext/torchvision": by_hand_torchvision_convnext,
}
CASES = [
    (model, layout)
    for model in SEEING
    for layout in BY_HAND
    if layout.startswith(family_of(model) + "/") and (layout != "swin/simmim" or model == "swin_pixels")
]
NO_PLACE = {
    "sam/timm": r"shared_image_embedding|prompt_encoder|mask_decoder",
    "swin/microsoft": r"decoder|swin\.embeddings\.mask",
    "swin/paddle": r"decoder|swin\.embeddings\.mask",
    "swin/timm": r"decoder|swin\.embeddings\.(mask|pos)",
    "swin/torchvision": r"decoder|swin\.embeddings\.(mask|pos)",
}
"""What a layout has no name for."""


@pytest.mark.parametrize("model, layout", CASES)
def test_a_vision_layout_is_what_it_is_by_hand_and_goes_back(on_disk: OnDisk, model: str, layout: str) -> None:
    """Bit for bit there; and back, bit for bit all that the layout has a name for."""
    assert [] == by_hand_and_back(model, layout, BY_HAND[layout], on_disk(model), NO_PLACE.get(layout, "-"))


def test_every_layout_of_these_vision_models_is_tried() -> None:
    """A layout that is added is added above."""
    families = ("sam", "swin", "convnext")
    assert set(BY_HAND) == {str(one) for name in families for one in layouts(name) if not one.is_hub}


BUFFERS = r".*(relative_position_index|attn_mask)$"
MODEL_OF = {"swin/microsoft": "swin_absolute", "swin/paddle": "swin_absolute", "swin/simmim": "swin_pixels"}
"""Of which model a fact was taken; else of the family's first."""


@pytest.mark.parametrize("layout", [one for one in FACTS if one in BY_HAND])
def test_a_layout_has_the_names_and_shapes_of_its_own_library(on_disk: OnDisk, layout: str) -> None:
    """What state_dict() of the library's module has, no tensor more, none less, but for buffers that it makes by itself."""
    model = MODEL_OF.get(layout, layout.partition("/")[0])
    expected = {name: shape for name, shape in FACTS[layout].items() if not re.match(BUFFERS, name)}
    assert expected == shapes(convert(model, layout, on_disk(model)))


def test_all_but_memory_is_held_to_the_library_itself() -> None:
    """Only what transformers' own modules hold in memory needs no fact: the module is asked."""
    assert set(BY_HAND) - set(FACTS) == {"sam/hf_module", "swin/hf_module"}


@pytest.mark.parametrize("layout", ["swin/microsoft", "swin/paddle", "swin/simmim", "swin/torchvision"])
def test_buffers_that_follow_from_the_window_are_dropped_by_name(on_disk: OnDisk, layout: str) -> None:
    """A released file holds them; they make nothing, and nothing else is dropped."""
    model = MODEL_OF.get(layout, "swin")
    arrays = convert(model, layout, on_disk(model))
    buffers = {
        name: np.zeros([int(size) for size in shape.split()], np.int64)
        for name, shape in FACTS[layout].items()
        if re.match(BUFFERS, name)
    }
    assert buffers
    plan = iso.morph(find(layout).path).plan({**arrays, **buffers})
    assert [] == differing(convert(model, layout, arrays, back=True), plan.state_dict("numpy"))


def test_the_window_index_that_transformers_4_wrote_is_dropped_by_name(on_disk: OnDisk) -> None:
    hub = on_disk("swin")
    index = {
        name.replace("bias_table", "index"): np.zeros((4, 4), np.int64) for name in hub if name.endswith("bias_table")
    }
    assert [] == problems("swin", {**hub, **index})
    for layout in BY_HAND:
        if layout.startswith("swin/") and layout != "swin/simmim":
            assert [] == differing(convert("swin", layout, hub), convert("swin", layout, {**hub, **index})), layout


@pytest.mark.parametrize("model", ["sam", "swin", "swin_pixels"])
def test_a_vision_model_takes_its_own_layout(on_disk: OnDisk, model: str) -> None:
    """load_state_dict, strict: no key missing, none unexpected, and the values are those that were saved."""
    import torch

    found = convert(model, f"{family_of(model)}/hf_module", on_disk(model))
    assert [] == differing({name: tensor.numpy() for name, tensor in made(model).state_dict().items()}, found)
    made(model).load_state_dict({name: torch.from_numpy(array.copy()) for name, array in found.items()}, strict=True)
