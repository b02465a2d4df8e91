"""Falcon, GPT-NeoX, BLOOM, SAM, Swin, ConvNeXt and the torch encoder: their layouts against real models and by hand.

Models are transformers' own, of random numbers, every size another. What a layout is called and how large is held to
`other_facts.json`, which each library's own module wrote; what its numbers are is worked out a second time here, in numpy.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isomorph as iso
from isomorph.errors import CheckError, MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.layouts.catalogue import family, find, layouts
from isomorph.layouts.hub import schema

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]

FACTS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "other_facts.json").read_text(encoding="utf-8"))
FAMILIES = ("falcon", "gpt_neox", "bloom", "sam", "swin", "convnext", "encoder")

SWIN = {"embed_dim": 12, "depths": [1, 2, 1, 3], "num_heads": [2, 3, 4, 6], "window_size": 2, "image_size": 64,
        "patch_size": 4, "mlp_ratio": 3.0, "num_labels": 5}  # fmt: skip
CONVNEXT = {"hidden_sizes": [6, 10, 14, 22], "depths": [2, 1, 3, 1], "num_labels": 5}
SAM = {
    "vision_config": {"hidden_size": 20, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
                      "output_channels": 16, "window_size": 3, "global_attn_indexes": [1], "mlp_dim": 28,
                      "num_pos_feats": 8},
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 32, "patch_size": 8, "mask_input_channels": 24,
                              "image_embedding_size": 4},
    "mask_decoder_config": {"hidden_size": 16, "mlp_dim": 36, "num_hidden_layers": 2, "num_attention_heads": 2,
                            "iou_head_hidden_dim": 12, "num_multimask_outputs": 4},
}  # fmt: skip
FALCON = {"hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 2, "vocab_size": 31, "ffn_hidden_size": 40}
NEOX = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40, "vocab_size": 31}
BLOOM = {"hidden_size": 24, "n_head": 3, "n_layer": 2, "vocab_size": 31}

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "falcon_7b": ("FalconForCausalLM", "FalconConfig", {**FALCON, "multi_query": True}),
    "falcon_40b": ("FalconForCausalLM", "FalconConfig", {**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "falcon_rw": ("FalconForCausalLM", "FalconConfig",
                  {**FALCON, "multi_query": False, "bias": True, "parallel_attn": False, "alibi": True}),
    "falcon_classes": ("FalconForTokenClassification", "FalconConfig", {**FALCON, "num_labels": 5}),
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", NEOX),
    "gpt_neox_no_bias": ("GPTNeoXForCausalLM", "GPTNeoXConfig", {**NEOX, "attention_bias": False}),
    "gpt_neox_answers": ("GPTNeoXForQuestionAnswering", "GPTNeoXConfig", NEOX),
    "bloom": ("BloomForCausalLM", "BloomConfig", BLOOM),
    "bloom_classes": ("BloomForSequenceClassification", "BloomConfig", {**BLOOM, "num_labels": 5}),
    "sam": ("SamModel", "SamConfig", SAM),
    "sam_vision": ("SamVisionModel", "SamVisionConfig", {**SAM["vision_config"], "use_rel_pos": False, "qkv_bias": False}),
    "swin": ("SwinForImageClassification", "SwinConfig", SWIN),
    "swin_absolute": ("SwinForImageClassification", "SwinConfig", {**SWIN, "use_absolute_embeddings": True}),
    "swin_two_stages": ("SwinForImageClassification", "SwinConfig",
                        {**SWIN, "depths": [2, 1], "num_heads": [2, 3], "qkv_bias": False}),
    "swin_pixels": ("SwinForMaskedImageModeling", "SwinConfig", {**SWIN, "encoder_stride": 32}),
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", CONVNEXT),
    "convnext_no_scale": ("ConvNextForImageClassification", "ConvNextConfig",
                          {**CONVNEXT, "layer_scale_init_value": 0.0}),
}  # fmt: skip


def family_of(model: str) -> str:
    return next(name for name in FAMILIES if model == name or model.startswith(name + "_"))


@cache
def made(model: str) -> Any:
    """A model of transformers of random numbers, the same whenever it is made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        import transformers

        cls, config, sizes = MODELS[model]
        found = getattr(transformers, cls)(getattr(transformers, config)(**sizes)).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return found


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Arrays]:
    """What transformers writes of a model."""

    @cache
    def saved(model: str) -> Arrays:
        from safetensors.numpy import load_file

        folder = tmp_path_factory.mktemp(model)
        made(model).save_pretrained(folder)
        return load_file(folder / "model.safetensors")

    return saved


def config_of(model: str) -> dict[str, Any]:
    found: dict[str, Any] = made(model).config.to_dict()
    return found


def sizes_for(model: str, layout: str) -> dict[str, int]:
    """What shapes cannot tell of a model: its heads."""
    heads = layout.rpartition("/")[2] in ("split", "gguf", "litgpt") and family_of(model) in ("gpt_neox", "bloom")
    return {"heads": 3} if heads else {}


def convert(model: str, layout: str, arrays: Mapping[str, Any], *, back: bool = False) -> Arrays:
    """The hub's tensors in a layout; `back`, a layout's in the hub."""
    morph = iso.morph(find(layout).path)
    plan = (morph if back else morph.inverse).plan(arrays, config=config_of(model), sizes=sizes_for(model, layout))
    return dict(plan.state_dict("numpy"))


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


def renamed(arrays: Mapping[str, Array], *pairs: tuple[str, str]) -> Arrays:
    """All names with every pattern, one after another, put for what it finds."""
    found = {}
    for name, array in arrays.items():
        for pattern, text in pairs:
            name = re.sub(pattern, text, name)
        found[name] = array
    return found


# ── the hubs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", MODELS)
def test_the_hub_is_what_transformers_writes(on_disk: Callable[[str], Arrays], model: str) -> None:
    """Every tensor is known, none is missed, and no two tell different sizes of one axis."""
    found = schema(family_of(model)).read(ArrayCheckpoint(on_disk(model)).manifest)
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())


@pytest.mark.parametrize(
    "model, axes",
    [
        ("falcon_40b", {"layers": 2, "width": 24, "ffn": 40, "vocab": 31, "qkv": 40}),
        ("gpt_neox", {"layers": 2, "width": 24, "qkv": 72, "ffn": 40, "vocab": 31}),
        ("bloom", {"layers": 2, "width": 24, "qkv": 72, "ffn": 96, "vocab": 31}),
        ("sam", {"vision_layers": 3, "vision_heads": 2, "vision_ffn": 28, "patch": 8, "grid_width": 4, "width": 16,
                 "layers": 2, "masks": 5, "points": 4, "iou_width": 12, "iou_layers": 1, "mask_channels": 24, "inner": 8}),
        ("swin", {"depth0": 1, "depth1": 2, "depth2": 1, "depth3": 3, "width0": 12, "width3": 96, "heads0": 2, "heads3": 6,
                  "ffn1": 72, "width": 96, "classes": 5, "patch": 4}),
        ("convnext", {"depth0": 2, "depth1": 1, "depth2": 3, "width0": 6, "width3": 22, "ffn3": 88, "width": 22}),
    ],
)  # fmt: skip
def test_sizes_are_read_off_the_shapes(on_disk: Callable[[str], Arrays], model: str, axes: dict[str, int]) -> None:
    found = schema(family_of(model)).read(ArrayCheckpoint(on_disk(model)).manifest).sizes
    assert axes == {axis: found.get(axis) for axis in axes}


def test_the_groups_of_falcon_are_told_by_the_shapes_and_the_heads(on_disk: Callable[[str], Arrays]) -> None:
    """The config's num_kv_heads is read where it is meant only; the rows of the matrix say it always."""
    for model, groups in (("falcon_7b", 1), ("falcon_40b", 2), ("falcon_rw", 6)):
        found = schema("falcon").read(ArrayCheckpoint(on_disk(model)).manifest, {"heads": 6})
        assert (found.clashes, found.sizes["kv_heads"]) == ((), groups)


@pytest.mark.parametrize("gone", ["swin.encoder.layers.2.blocks.0.intermediate.dense.bias", "swin.layernorm.weight",
                                  "swin.encoder.layers.1.downsample.reduction.weight"])  # fmt: skip
def test_what_a_stage_lacks_is_named(on_disk: Callable[[str], Arrays], gone: str) -> None:
    arrays = {name: array for name, array in on_disk("swin").items() if name != gone}
    assert schema("swin").read(ArrayCheckpoint(arrays).manifest).missing == (gone,)


PARAMETERS = {
    "falcon": 6_921_720_704,  # tiiuae/falcon-7b
    "gpt_neox": 162_322_944,  # EleutherAI/pythia-160m
    "bloom": 559_214_592,  # bigscience/bloom-560m
    # facebook/sam-vit-base, and its position features, a buffer; a key set shows the tables of all layers as those of a window.
    "sam": 93_735_472 + 2 * 128 - 4 * 2 * (127 - 27) * 64,
    "swin": 28_288_354,  # microsoft/swin-tiny-patch4-window7-224
    "convnext": 28_589_128,  # facebook/convnext-tiny-224
    "encoder": 18_914_304,  # torch.nn.TransformerEncoder(TransformerEncoderLayer(512, 8), 6)
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_best_known_model_has_its_published_number_of_parameters(name: str) -> None:
    keys = schema(name).expand(family(name).sizes)
    assert PARAMETERS[name] == sum(prod(spec.shape) for spec in keys.values())


# ── what each layout is, written down a second time ──────────────────────────────────────────────────────────────────


def grouped(fused: Array, groups: int, heads: int) -> tuple[Array, Array, Array]:
    """q, k and v of a matrix (or bias) whose rows are groups of queries, one key and one value."""
    size = fused.shape[0] // (heads + 2 * groups)
    parts = fused.reshape(groups, heads // groups + 2, size, *fused.shape[1:])
    q, k, v = parts[:, :-2], parts[:, -2], parts[:, -1]
    return tuple(np.ascontiguousarray(part.reshape(-1, *fused.shape[1:])) for part in (q, k, v))


GROUPS = {"falcon_7b": (1, 6), "falcon_classes": (1, 6), "falcon_40b": (2, 6), "falcon_rw": (6, 6)}


def test_grouped_is_what_falcon_does(on_disk: Callable[[str], Arrays]) -> None:
    """The oracle itself is held to transformers: FalconAttention splits the columns of its own matrix so."""
    import torch

    for model, (groups, heads) in GROUPS.items():
        attention = made(model).transformer.h[1].self_attention
        fused = on_disk(model)["transformer.h.1.self_attention.query_key_value.weight"]
        q, k, v = attention._split_heads(torch.from_numpy(fused.T.copy())[None])
        own = [part[0].flatten(1).T.numpy() for part in (q, k, v)]
        ours = grouped(fused, groups, heads)
        repeats = q.shape[2] // groups if k.shape[2] == q.shape[2] else 1
        assert np.array_equal(own[0], ours[0])
        for theirs, mine in zip(own[1:], ours[1:], strict=True):
            assert np.array_equal(theirs, np.repeat(mine.reshape(groups, -1, 24), repeats, axis=0).reshape(-1, 24))


def heads_of(model: str) -> tuple[int, int]:
    return GROUPS.get(model, (3, 3))


def by_hand_split(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in hub.items():
        if "query_key_value" not in name:
            found[name] = array
            continue
        for part, rows in zip("qkv", grouped(array, *heads_of(model)), strict=True):
            found[name.replace("query_key_value", f"{part}_proj")] = rows
    return found


def ordered(model: str, hub: Arrays) -> Arrays:
    """All q, then all k, then all v in the one matrix."""
    return {
        name: np.concatenate(grouped(array, *heads_of(model))) if "query_key_value" in name else array
        for name, array in hub.items()
    }


def without(arrays: Arrays, *patterns: str) -> Arrays:
    return {name: array for name, array in arrays.items() if not any(re.match(one, name) for one in patterns)}


HEADS = (r"score\.", r"classifier\.", r"qa_outputs\.")


def by_hand_litgpt(model: str, hub: Arrays) -> Arrays:
    found = renamed(
        without(ordered(model, hub), *HEADS),
        (r"^gpt_neox\.embed_in|^transformer\.word_embeddings", "transformer.wte"),
        (r"^embed_out", "lm_head"),
        (r"^gpt_neox\.final_layer_norm", "transformer.ln_f"),
        (r"^gpt_neox\.layers", "transformer.h"),
        (r"(self_)?attention\.query_key_value", "attn.qkv"),
        (r"(self_)?attention\.dense", "attn.proj"),
        (r"input_layernorm|ln_attn", "norm_1"),
        (r"post_attention_layernorm|ln_mlp", "norm_2"),
        (r"dense_h_to_4h", "fc"),
        (r"dense_4h_to_h", "proj"),
    )
    if family_of(model) == "falcon":
        found["lm_head.weight"] = found["transformer.wte.weight"]
    return found


def by_hand_gguf(model: str, hub: Arrays) -> Arrays:
    two = "transformer.h.0.ln_attn.weight" in hub
    found = renamed(
        without(ordered(model, hub), *HEADS),
        (r"^gpt_neox\.embed_in\.|^transformer\.word_embeddings\.", "token_embd."),
        (r"^transformer\.word_embeddings_layernorm", "token_embd_norm"),
        (r"^embed_out", "output"),
        (r"^gpt_neox\.final_layer_norm|^transformer\.ln_f", "output_norm"),
        (r"^gpt_neox\.layers|^transformer\.h", "blk"),
        (r"(self_)?attention\.query_key_value", "attn_qkv"),
        (r"(self_)?attention\.dense", "attn_output"),
        (r"post_attention_layernorm", "ffn_norm"),
        (r"input_layernorm|ln_mlp", "attn_norm"),
        (r"ln_attn", "attn_norm_2"),
        (r"mlp\.dense_h_to_4h", "ffn_up"),
        (r"mlp\.dense_4h_to_h", "ffn_down"),
    )
    assert two == ("blk.0.attn_norm_2.weight" in found)
    if family_of(model) != "gpt_neox":
        found["output.weight"] = found["token_embd.weight"]
    return found


def by_hand_flax(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in without(hub, *HEADS).items():
        path, _, leaf = name.replace(".", "/").rpartition("/")
        if leaf == "weight" and array.ndim == 2:
            leaf, array = ("embedding", array) if "embeddings" in path else ("kernel", np.ascontiguousarray(array.T))
        elif leaf == "weight":
            leaf = "scale"
        found[f"{path}/{leaf}"] = array
    return found


def by_hand_flax_scanned(model: str, hub: Arrays) -> Arrays:
    flat = by_hand_flax(model, hub)
    found = {name: array for name, array in flat.items() if "/h/" not in name}
    for name in flat:
        if "/h/0/" in name:
            found[name.replace("/0/", "/FlaxBloomBlockLayers/")] = np.stack(
                [flat[name.replace("/0/", f"/{layer}/")] for layer in range(BLOOM["n_layer"])]
            )
    return found


def by_hand_head_beside(model: str, hub: Arrays) -> Arrays:
    return {**hub, "lm_head.weight": hub["transformer.word_embeddings.weight"]}


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


BY_HAND: dict[str, Callable[[str, Arrays], Arrays]] = {
    "falcon/split": by_hand_split,
    "falcon/litgpt": by_hand_litgpt,
    "falcon/gguf": by_hand_gguf,
    "falcon/hf_module": by_hand_head_beside,
    "gpt_neox/split": by_hand_split,
    "gpt_neox/litgpt": by_hand_litgpt,
    "gpt_neox/gguf": by_hand_gguf,
    "gpt_neox/hf_module": lambda _, hub: renamed(hub, (r"^embed_out", "lm_head")),
    "bloom/split": by_hand_split,
    "bloom/gguf": by_hand_gguf,
    "bloom/flax": by_hand_flax,
    "bloom/flax_scanned": by_hand_flax_scanned,
    "bloom/hf_module": by_hand_head_beside,
    "sam/facebook": by_hand_facebook_sam,
    "sam/hf_module": by_hand_shared,
    "swin/microsoft": by_hand_microsoft,
    "swin/simmim": by_hand_simmim,
    "swin/timm": by_hand_timm_swin,
    "swin/torchvision": by_hand_torchvision_swin,
    "swin/hf_module": by_hand_swin_module,
    "convnext/facebook": by_hand_facebook_convnext,
    "convnext/timm": by_hand_timm_convnext,
    "convnext/timm_conv": by_hand_timm_conv,
    "convnext/torchvision": by_hand_torchvision_convnext,
}
CASES = [
    (model, layout)
    for model in MODELS
    for layout in BY_HAND
    if layout.startswith(family_of(model) + "/") and (layout != "swin/simmim" or model == "swin_pixels")
]


@pytest.mark.parametrize("model, layout", CASES)
def test_a_layout_is_what_it_is_by_hand_and_goes_back(
    on_disk: Callable[[str], Arrays], model: str, layout: str
) -> None:
    """Bit for bit there; and back, bit for bit all that the layout carries."""
    hub = on_disk(model)
    found = convert(model, layout, hub)
    assert [] == differing(BY_HAND[layout](model, hub), found)
    returned = convert(model, layout, found, back=True)
    dropped = set(hub) - set(returned)
    assert [] == differing(without(hub, *map(re.escape, dropped)), returned)
    assert all(
        re.match(r"(score|classifier|qa_outputs|decoder)\.|swin\.embeddings\.(mask|pos)", one) for one in dropped
    )


def test_every_layout_of_these_families_is_tried() -> None:
    """A layout that is added is added here."""
    tried = {*BY_HAND, "encoder/paddle"}
    assert tried == {str(one) for name in FAMILIES for one in layouts(name) if not one.is_hub}


BUFFERS = r".*(relative_position_index|attn_mask)$"
OF = {"swin/microsoft": "swin_absolute", "swin/simmim": "swin_pixels"}


@pytest.mark.parametrize("fact", [one for one in FACTS if one != "from"])
def test_a_layout_has_the_names_and_shapes_of_its_own_library(on_disk: Callable[[str], Arrays], fact: str) -> None:
    """What state_dict() of the library's module has, no tensor more, none less, but for buffers that it makes by itself."""
    name, _, kind = fact.partition("/")
    model = OF.get(fact, name)
    found = convert(model, f"{family_of(model)}/{kind}", on_disk(model))
    expected = {key: shape for key, shape in FACTS[fact].items() if not re.match(BUFFERS, key)}
    assert expected == {key: " ".join(map(str, array.shape)) for key, array in found.items()}


@pytest.mark.parametrize("fact", ["swin/microsoft", "swin/simmim", "swin/torchvision"])
def test_buffers_that_follow_from_the_window_are_dropped_by_name(on_disk: Callable[[str], Arrays], fact: str) -> None:
    """A released file holds them; they make nothing, and nothing else is dropped."""
    model = OF.get(fact, "swin")
    arrays = convert(model, fact, on_disk(model))
    buffers = {
        key: np.zeros([int(size) for size in shape.split()], np.int64)
        for key, shape in FACTS[fact].items()
        if re.match(BUFFERS, key)
    }
    assert buffers
    plan = iso.morph(find(fact).path).plan({**arrays, **buffers})
    assert [] == differing(convert(model, fact, arrays, back=True), plan.state_dict("numpy"))


@pytest.mark.parametrize("layout", [one for one in BY_HAND if one.startswith("gpt_neox/")])
def test_masks_and_frequencies_of_older_files_are_dropped_by_name(
    on_disk: Callable[[str], Arrays], layout: str
) -> None:
    """transformers before 4.36 wrote the causal mask, what it fills with, and the rotary frequencies."""
    hub = on_disk("gpt_neox")
    older = {
        **hub,
        **{f"gpt_neox.layers.{n}.attention.bias": np.ones((1, 1, 7, 7), bool) for n in range(2)},
        **{f"gpt_neox.layers.{n}.attention.masked_bias": np.float32(-1e9).reshape(()) for n in range(2)},
        **{f"gpt_neox.layers.{n}.attention.rotary_emb.inv_freq": np.ones(2, np.float32) for n in range(2)},
    }
    found = schema("gpt_neox").read(ArrayCheckpoint(older).manifest)
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())
    assert [] == differing(convert("gpt_neox", layout, hub), convert("gpt_neox", layout, older))


def test_the_window_index_that_transformers_4_wrote_is_dropped_by_name(on_disk: Callable[[str], Arrays]) -> None:
    hub = on_disk("swin")
    index = {
        name.replace("bias_table", "index"): np.zeros((4, 4), np.int64) for name in hub if name.endswith("bias_table")
    }
    found = schema("swin").read(ArrayCheckpoint({**hub, **index}).manifest)
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())
    for layout in ("swin/microsoft", "swin/timm", "swin/torchvision", "swin/hf_module"):
        assert [] == differing(convert("swin", layout, hub), convert("swin", layout, {**hub, **index}))


@pytest.mark.parametrize(
    "model, layout",
    [
        ("falcon_7b", "falcon/hf_module"),
        ("falcon_40b", "falcon/hf_module"),
        ("gpt_neox", "gpt_neox/hf_module"),
        ("bloom", "bloom/hf_module"),
        ("sam", "sam/hf_module"),
        ("swin", "swin/hf_module"),
    ],
)
def test_a_module_takes_its_own_layout(on_disk: Callable[[str], Arrays], model: str, layout: str) -> None:
    """load_state_dict, strict: no key missing, none unexpected, and the values are those that were saved."""
    import torch

    found = convert(model, layout, on_disk(model))
    own = made(model).state_dict()
    assert [] == differing({name: tensor.numpy() for name, tensor in own.items()}, found)
    made(model).load_state_dict({name: torch.from_numpy(array.copy()) for name, array in found.items()}, strict=True)


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_falcon_without_a_config_says_what_it_asks(on_disk: Callable[[str], Arrays]) -> None:
    """Three orders have the same name and may have the same shape: nothing but the config tells them apart."""
    with pytest.raises(MorphError) as refused:
        iso.morph(find("falcon/split").path).inverse.plan(on_disk("falcon_7b"))
    message = str(refused.value)
    assert "config" in message and "new_decoder_architecture" in message and "--config FILE" in message


def test_heads_that_shapes_cannot_tell_are_asked_for(on_disk: Callable[[str], Arrays]) -> None:
    with pytest.raises(MorphError) as refused:
        iso.morph(find("bloom/gguf").path).inverse.plan(on_disk("bloom"))
    assert "heads" in str(refused.value) and "head_dim" in str(refused.value)


def test_a_head_that_is_not_tied_is_no_copy_of_the_embeddings(on_disk: Callable[[str], Arrays]) -> None:
    arrays = convert("bloom", "bloom/hf_module", on_disk("bloom"))
    arrays["lm_head.weight"] = arrays["lm_head.weight"] + 1
    plan = iso.morph(find("bloom/hf_module").path).plan(arrays)
    with pytest.raises(CheckError) as refused:
        plan.state_dict("numpy")
    assert "lm_head.weight" in str(refused.value)


# ── torch.nn and paddle.nn ───────────────────────────────────────────────────────────────────────────────────────────

WIDTH, HEADS_OF_STACK, FFN = 24, 3, 40


def stack(kind: str, *, norm: bool = True, bias: bool = True) -> Any:
    """A module of torch.nn of random numbers."""
    import torch
    from torch import nn

    layer = {"d_model": WIDTH, "nhead": HEADS_OF_STACK, "dim_feedforward": FFN, "batch_first": True, "bias": bias}
    last = nn.LayerNorm(WIDTH, bias=bias) if norm else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "encoder":
            found: Any = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, norm=last)
        elif kind == "decoder":
            found = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 3, norm=last)
        else:
            found = nn.Transformer(num_encoder_layers=2, num_decoder_layers=3, **layer)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return found.eval()


def state(module: Any) -> Arrays:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def by_hand_paddle(hub: Arrays) -> Arrays:
    found = {}
    for name, array in hub.items():
        name = name.replace("multihead_attn", "cross_attn")
        if "in_proj" in name:
            for part, rows in zip("qkv", np.split(array, 3), strict=True):
                found[name.replace("in_proj_", f"{part}_proj.")] = np.ascontiguousarray(rows.T)
        else:
            found[name] = np.ascontiguousarray(array.T) if array.ndim == 2 else array
    return found


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", ["encoder", "decoder", "transformer"])
def test_a_torch_stack_is_in_paddle_what_it_is_by_hand_and_goes_back(kind: str, norm: bool, bias: bool) -> None:
    hub = state(stack(kind, norm=norm, bias=bias))
    read = schema("encoder").read(ArrayCheckpoint(hub).manifest)
    assert (read.unknown, read.missing, read.clashes) == ((), (), ())
    morph = iso.morph(find("encoder/paddle").path)
    found = morph.inverse.plan(hub).state_dict("numpy")
    assert [] == differing(by_hand_paddle(hub), found)
    assert [] == differing(hub, morph.plan(found).state_dict("numpy"))


def test_a_layer_that_is_not_there_is_missed() -> None:
    hub = state(stack("transformer"))
    gone = "decoder.layers.1.multihead_attn.in_proj_bias"
    read = schema("encoder").read(ArrayCheckpoint({key: hub[key] for key in hub if key != gone}).manifest)
    assert read.missing == (gone,)


PADDLE_RUNS = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
from paddle import nn
kind, weights, inputs, out = sys.argv[1:]
with np.load(inputs) as given:
    source, target = paddle.to_tensor(given["source"]), paddle.to_tensor(given["target"])
layer = dict(d_model=24, nhead=3, dim_feedforward=40, dropout=0.0)
if kind == "encoder":
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, norm=nn.LayerNorm(24))
elif kind == "decoder":
    module = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 3, norm=nn.LayerNorm(24))
else:
    module = nn.Transformer(num_encoder_layers=2, num_decoder_layers=3, **layer)
missing, unexpected = module.set_state_dict(paddle.load(weights))
assert not missing and not unexpected, (missing, unexpected)
module.eval()
result = module(source) if kind == "encoder" else module(target, source) if kind == "decoder" else module(source, target)
np.save(out, result.numpy())
"""


@pytest.mark.parametrize("kind", ["encoder", "decoder", "transformer"])
def test_paddle_computes_what_torch_computes(tmp_path: Path, kind: str) -> None:
    """The converted file is loaded by paddle.nn's own module with no missing or unexpected key, and both answer the same."""
    import torch
    from safetensors.torch import save_file

    module = stack(kind)
    save_file(module.state_dict(), tmp_path / "torch.safetensors")
    plan = iso.morph(find("encoder/paddle").path).inverse.plan(tmp_path / "torch.safetensors")
    plan.write(tmp_path / "stack.pdparams")
    generator = torch.Generator().manual_seed(3)
    source, target = (torch.randn(2, n, WIDTH, generator=generator) for n in (5, 4))
    np.savez(tmp_path / "inputs.npz", source=source.numpy(), target=target.numpy())
    passed = [str(tmp_path / name) for name in ("stack.pdparams", "inputs.npz", "out.npy")]
    done = subprocess.run(
        [sys.executable, "-c", PADDLE_RUNS, kind, *passed], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {"encoder": lambda: module(source), "decoder": lambda: module(target, source)}.get(
            kind, lambda: module(source, target)
        )()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected.numpy(), rtol=1e-5, atol=1e-5)
