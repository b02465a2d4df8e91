"""What other libraries make of transformers' ViT, worked out with numpy alone: names by table, arrays by transposing and joining."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from contrastive import Arrays

LAYERS, HEADS, WIDTH, FFN, CLASSES = 3, 2, 24, 40, 7
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": FFN,
    "image_size": 16,
    "patch_size": 8,
}
FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "vit_facts.json").read_text(encoding="utf-8"))

Change = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")


def same(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array


def turned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[out in] -> [in out]"""
    return array.T


def channels_last(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[out in y x] -> [y x in out]"""
    return array.transpose(2, 3, 1, 0)


def into_heads(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[out in] -> [in heads head_dim], or a bias [out] -> [heads head_dim]"""
    return array.T.reshape(*array.shape[1:], HEADS, -1)


def out_of_heads(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[out in] -> [heads head_dim out]"""
    return array.T.reshape(HEADS, -1, array.shape[0])


@dataclass(frozen=True)
class Hand:
    """One library's names for the hub's modules: `stem` the whole names, `layer` those below `block(i)`. Modules that get one name
    are joined in the order of the table. `weight` and `bias` are what they call those of a kind of module, `change` what they do
    to its arrays, `no_place_for` the tensors that they have not, of a module they have."""

    stem: Mapping[str, str]
    layer: Mapping[str, str]
    block: Callable[[int], str]
    weight: Mapping[str, str] = field(default_factory=dict)
    bias: Mapping[str, str] = field(default_factory=dict)
    change: Mapping[str, Change] = field(default_factory=dict)
    joined_on: int = 0
    no_place_for: frozenset[str] = frozenset()

    def __call__(self, hub: Mapping[str, Any]) -> Arrays:
        parts: dict[str, list[np.ndarray[Any, Any]]] = {}
        modules = dict(self.stem)
        for number in range(LAYERS):
            modules |= {
                f"vit.encoder.layer.{number}.{old}": self.block(number) + new for old, new in self.layer.items()
            }
        for old, new in modules.items():
            kind = _kind(old)
            if old in hub:
                parts.setdefault(new, []).append(self.change.get(old, self.change.get(kind, same))(hub[old]))
            for what, names, end in (("weight", self.weight, ".weight"), ("bias", self.bias, ".bias")):
                if f"{old}.{what}" in hub and f"{old}.{what}" not in self.no_place_for:
                    change = self.change.get(f"{kind}.{what}", same)
                    name = new + names.get(kind, names.get("", end))
                    parts.setdefault(name, []).append(change(hub[f"{old}.{what}"]))
        return {name: np.concatenate(arrays, self.joined_on) for name, arrays in parts.items()}


def _kind(module: str) -> str:
    if "projection" in module:
        return "patches"
    if "layernorm" in module:
        return "norm"
    if "attention.output" in module:
        return "out"
    return "qkv" if "attention.attention" in module else "linear"


def layer(q: str, k: str, v: str, out: str, norms: str, fc: str) -> dict[str, str]:
    """The modules of a layer; norms and fc with `{}` for which."""
    first, second = norms.split(), fc.split()
    return {
        **dict(zip(QKV, (q, k, v), strict=True)),
        "attention.output.dense": out,
        "layernorm_before": first[0],
        "layernorm_after": first[1],
        "intermediate.dense": second[0],
        "output.dense": second[1],
    }


def stem(cls: str, positions: str, patches: str, norm: str, head: str = "", pooler: str = "") -> dict[str, str]:
    found = {
        "vit.embeddings.cls_token": cls,
        "vit.embeddings.position_embeddings": positions,
        "vit.embeddings.patch_embeddings.projection": patches,
        "vit.layernorm": norm,
    }
    return found | ({"classifier": head} if head else {}) | ({"vit.pooler.dense": pooler} if pooler else {})


PADDLE: dict[str, Change] = {f"{kind}.weight": turned for kind in ("linear", "qkv", "out")}
DENSE: dict[str, Change] = {**PADDLE, "patches.weight": channels_last}
IN_HEADS: dict[str, Change] = {
    **DENSE,
    "qkv.weight": into_heads,
    "qkv.bias": into_heads,
    "out.weight": out_of_heads,
}
FLAX_WEIGHT, FLAX_BIAS = {"": "/kernel", "norm": "/scale"}, {"": "/bias"}
TF_WEIGHT, TF_BIAS = {"": "/kernel:0", "norm": "/gamma:0"}, {"": "/bias:0", "norm": "/beta:0"}

TIMM = Hand(
    stem("cls_token", "pos_embed", "patch_embed.proj", "norm", "head"),
    layer(*["attn.qkv"] * 3, "attn.proj", "norm1 norm2", "mlp.fc1 mlp.fc2"),
    "blocks.{}.".format,
)


def tensorflow(of: str) -> Hand:
    main = f"vit/{of}vit/"
    return Hand(
        stem(
            f"{main}embeddings/cls_token:0",
            f"{main}embeddings/position_embeddings:0",
            f"{main}embeddings/patch_embeddings/projection",
            f"{main}layernorm",
            "" if "model" in of else f"classifier/{of}classifier",
            f"{main}pooler/dense",
        ),
        {name: name.replace(".", "/") for name in layer(*"qkvo", "a b", "c d")},
        (main + "encoder/layer_._{}/").format,
        TF_WEIGHT,
        TF_BIAS,
        DENSE,
    )


def jax(before: str, positions: str, norms: str, attention: str, mlp: str) -> Hand:
    return Hand(
        stem(
            f"{before}cls",
            before + positions,
            f"{before}embedding",
            f"{before}Transformer/encoder_norm",
            f"{before}head",
            f"{before}pre_logits",
        ),
        layer(
            *(f"{attention}/{part}" for part in ("query", "key", "value", "out")),
            norms,
            f"{mlp}/Dense_0 {mlp}/Dense_1",
        ),
        (before + "Transformer/encoderblock_{}/").format,
        FLAX_WEIGHT,
        FLAX_BIAS,
        IN_HEADS,
    )


def torchvision(first: str, second: str) -> Hand:
    return Hand(
        stem("class_token", "encoder.pos_embedding", "conv_proj", "encoder.ln", "heads.head", "heads.pre_logits"),
        layer(*["self_attention.in_proj"] * 3, "self_attention.out_proj", "ln_1 ln_2", f"mlp.{first} mlp.{second}"),
        "encoder.layers.encoder_layer_{}.".format,
        {"qkv": "_weight"},
        {"qkv": "_bias"},
    )


def keras_hub(before: str, head: str = "") -> Hand:
    embeddings, encoder = f"{before}vi_t_patching_and_embedding/", f"{before}vi_t_encoder/"
    return Hand(
        stem(
            f"{embeddings}vars/0",
            f"{embeddings}position_embedding/vars/0",
            f"{embeddings}patch_embedding",
            f"{encoder}layer_norm",
            head,
        ),
        layer(
            *(f"mha/{part}_dense" for part in ("query", "key", "value", "output")),
            "layer_norm_1 layer_norm_2",
            "mlp/dense_1 mlp/dense_2",
        ),
        lambda number: f"{encoder}encoder_layers/vi_t_encoder_block{f'_{number}' if number else ''}/",
        {"": "/vars/0"},
        {"": "/vars/1"},
        {**IN_HEADS, "vit.embeddings.position_embeddings": lambda array: array[0]},
    )


def paddle_vit(cls: str, positions: str) -> Hand:
    return Hand(
        stem(cls, positions, "patch_embedding.patch_embedding", "encoder.encoder_norm", "classifier"),
        layer(*["attn.qkv"] * 3, "attn.out", "attn_norm mlp_norm", "mlp.fc1 mlp.fc2"),
        "encoder.layers.{}.".format,
        change=PADDLE,
        joined_on=-1,
    )


BIG_VISION = jax("params/", "pos_embedding", "LayerNorm_0 LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")


def scanned(hub: Mapping[str, Any]) -> Arrays:
    """big_vision's layers in one array each, the first axis counts them."""
    found: Arrays = {}
    layers: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, array in BIG_VISION(hub).items():
        before, block, after = name.partition("encoderblock_")
        if block:
            layers.setdefault(f"{before}encoderblock/{after.partition('/')[2]}", []).append(array)
        else:
            found[name] = array
    return found | {name: np.stack(arrays) for name, arrays in layers.items()}


HANDS: dict[str, Callable[[Mapping[str, Any]], Arrays]] = {
    "hf_module": Hand(
        stem(
            *(f"vit.embeddings.{name}" for name in ("cls_token", "position_embeddings", "patch_embeddings.projection")),
            "vit.layernorm",
            "classifier",
            "vit.pooler.dense",
        ),
        layer(*(f"attention.{part}_proj" for part in "qkvo"), "layernorm_before layernorm_after", "mlp.fc1 mlp.fc2"),
        "vit.layers.{}.".format,
    ),
    "fused_qkv": Hand(
        stem(
            *(f"vit.embeddings.{name}" for name in ("cls_token", "position_embeddings", "patch_embeddings.projection")),
            "vit.layernorm",
            "classifier",
            "vit.pooler.dense",
        ),
        {
            **layer(
                *["attention.attention.qkv_proj"] * 3,
                "attention.output.dense",
                "a b",
                "intermediate.dense output.dense",
            ),
            **{name: name for name in ("layernorm_before", "layernorm_after")},
        },
        "vit.encoder.layer.{}.".format,
    ),
    "timm": TIMM,
    "google_npz": jax(
        "",
        "Transformer/posembed_input/pos_embedding",
        "LayerNorm_0 LayerNorm_2",
        "MultiHeadDotProductAttention_1",
        "MlpBlock_3",
    ),
    "big_vision": BIG_VISION,
    "big_vision_scanned": scanned,
    "mmpretrain": Hand(
        stem(
            *(f"backbone.{name}" for name in ("cls_token", "pos_embed", "patch_embed.projection", "ln1")),
            "head.layers.head",
            "head.layers.pre_logits",
        ),
        layer(*["attn.qkv"] * 3, "attn.proj", "ln1 ln2", "ffn.layers.0.0 ffn.layers.1"),
        "backbone.layers.{}.".format,
    ),
    "jeonsworld": Hand(
        stem(
            "transformer.embeddings.cls_token",
            "transformer.embeddings.position_embeddings",
            "transformer.embeddings.patch_embeddings",
            "transformer.encoder.encoder_norm",
            "head",
        ),
        layer(
            *(f"attn.{part}" for part in ("query", "key", "value", "out")), "attention_norm ffn_norm", "ffn.fc1 ffn.fc2"
        ),
        "transformer.encoder.layer.{}.".format,
    ),
    "lukemelas": Hand(
        stem("class_token", "positional_embedding.pos_embedding", "patch_embedding", "norm", "fc"),
        layer(*(f"attn.proj_{part}" for part in "qkv"), "proj", "norm1 norm2", "pwff.fc1 pwff.fc2"),
        "transformer.blocks.{}.".format,
    ),
    "flax": Hand(
        stem(
            "vit/embeddings/cls_token",
            "vit/embeddings/position_embeddings",
            "vit/embeddings/patch_embeddings/projection",
            "vit/layernorm",
            "classifier",
            "vit/pooler/dense",
        ),
        {name: name.replace(".", "/") for name in layer(*"qkvo", "a b", "c d")},
        "vit/encoder/layer/{}/".format,
        FLAX_WEIGHT,
        FLAX_BIAS,
        DENSE,
    ),
    "tf": tensorflow("tf_vi_t_for_image_classification/"),
    "tf_model": tensorflow("tf_vi_t_model/"),
    "tf_built": tensorflow(""),
    "paddle": Hand(TIMM.stem, TIMM.layer, TIMM.block, change=PADDLE, joined_on=-1),
    "paddle_vit": paddle_vit("cls_token", "position_embedding"),
    "paddle_vit_v1": paddle_vit("patch_embedding.cls_token", "patch_embedding.position_embeddings"),
    "paddle_nn": Hand(
        stem("cls_token", "position_embeddings", "patch_embedding", "encoder.norm", "classifier"),
        layer(*(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "norm1 norm2", "linear1 linear2"),
        "encoder.layers.{}.".format,
        change=PADDLE,
    ),
    "torchvision": torchvision("0", "3"),
    "torchvision_v1": torchvision("linear_1", "linear_2"),
    "keras_hub": keras_hub("layers/"),
    "keras_hub_classifier": keras_hub("layers/vi_t_backbone/layers/", "layers/dense"),
    "clip_vision": Hand(
        stem(
            "vision_model.embeddings.class_embedding",
            "vision_model.embeddings.position_embedding.weight",
            "vision_model.embeddings.patch_embedding",
            "vision_model.post_layernorm",
        ),
        layer(
            *(f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")), "layer_norm1 layer_norm2", "mlp.fc1 mlp.fc2"
        ),
        "vision_model.encoder.layers.{}.".format,
        change={
            "vit.embeddings.cls_token": lambda array: array[0, 0],
            "vit.embeddings.position_embeddings": lambda array: array[0],
        },
        no_place_for=frozenset({"vit.embeddings.patch_embeddings.projection.bias"}),
    ),
}


def facts(layout: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the library's own model, the layers written out ({l}), and those of MAE's decoder ({m})."""
    found = {}
    for name, shape in FACTS[layout].items():
        for number in range(LAYERS if "{l" in name else 2 if "{m}" in name else 1):
            shown = name.replace("{l:_}", f"_{number}" if number else "")
            found[shown.replace("{l}", str(number)).replace("{m}", str(number))] = tuple(shape)
    return found
