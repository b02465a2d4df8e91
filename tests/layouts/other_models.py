"""What the tests of the other families share: models of transformers of random numbers, and what a layout does with them."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import isomorph as iso
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.layouts.catalogue import find
from isomorph.layouts.hub import schema

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]
ByHand = Callable[[str, Arrays], Arrays]

FACTS: dict[str, dict[str, str]] = json.loads((Path(__file__).parent / "other_facts.json").read_text(encoding="utf-8"))
"""Names and shapes of the tensors of other libraries' own modules, of the sizes below."""

FAMILIES = ("falcon", "gpt_neox", "bloom", "sam", "swin", "convnext", "encoder")

FALCON = {"hidden_size": 24, "num_attention_heads": 6, "num_hidden_layers": 2, "vocab_size": 31, "ffn_hidden_size": 40}
NEOX = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40, "vocab_size": 31}
BLOOM = {"hidden_size": 24, "n_head": 3, "n_layer": 2, "vocab_size": 31}
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

DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
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
}  # fmt: skip
SEEING: dict[str, tuple[str, str, dict[str, Any]]] = {
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
MODELS = {**DECODERS, **SEEING}


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


def saved(model: str, folder: Path) -> Arrays:
    """What transformers writes of a model."""
    from safetensors.numpy import load_file

    made(model).save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def convert(model: str, layout: str, arrays: Mapping[str, Any], *, back: bool = False) -> Arrays:
    """The hub's tensors in a layout; `back`, a layout's in the hub. The heads are told where shapes cannot tell them."""
    told = family_of(model) in ("gpt_neox", "bloom") and layout.rpartition("/")[2] in ("split", "gguf", "litgpt")
    morph = iso.morph(find(layout).path)
    plan = (morph if back else morph.inverse).plan(
        arrays, config=made(model).config.to_dict(), sizes={"heads": 3} if told else {}
    )
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


def problems(family: str, arrays: Mapping[str, Any]) -> list[str]:
    """What the family's hub says of a key set: tensors it does not know, tensors it misses, sizes that contradict."""
    found = schema(family).read(ArrayCheckpoint(arrays).manifest)
    return [*found.unknown, *found.missing, *found.clashes]


def renamed(arrays: Mapping[str, Array], *pairs: tuple[str, str | Callable[[re.Match[str]], str]]) -> Arrays:
    """All names with what every pattern, one after another, puts for what it finds."""
    found = {}
    for name, array in arrays.items():
        for pattern, text in pairs:
            name = re.sub(pattern, text, name)
        found[name] = array
    return found


def without(arrays: Mapping[str, Array], *patterns: str) -> Arrays:
    return {name: array for name, array in arrays.items() if not any(re.match(one, name) for one in patterns)}


def turned(arrays: Mapping[str, Array], pattern: str) -> Arrays:
    """The matrices of such names written [in out]."""
    return {
        name: np.ascontiguousarray(array.T) if re.search(pattern, name) else array for name, array in arrays.items()
    }


def by_hand_and_back(model: str, layout: str, by_hand: ByHand, hub: Arrays, lost: str) -> list[str]:
    """What is not the same: the layout and what it is by hand; what returns and what was there but for the `lost`."""
    found = convert(model, layout, hub)
    wrong = differing(by_hand(model, hub), found)
    return wrong + differing(without(hub, lost), convert(model, layout, found, back=True))


def shapes(arrays: Mapping[str, Array]) -> dict[str, str]:
    return {name: " ".join(map(str, array.shape)) for name, array in arrays.items()}
