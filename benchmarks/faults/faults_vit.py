"""Faults of ViT's candidates in timm's style."""

from __future__ import annotations

import functools

import ml_dtypes
import numpy as np
from benchmarks.faults import taxonomy as t
from benchmarks.faults.planted import Fault, State
from benchmarks.faults.taxonomy import Tower, ends, spread
from benchmarks.faults.weights import changed, left_as_made, rounded, third

VIT = Tower(
    "vit", "", "blocks.{}", "attn", ("attn",), "attn.proj", "mlp.fc1", "mlp.fc2", "mlp", ("norm1", "norm2"),
    fused="attn.qkv", heads=5,
)  # fmt: skip


def vit() -> list[Fault]:
    """timm's style."""
    f, where = functools.partial(ends, "vit"), ("",)
    found = [
        *spread([lambda at: t.attention_scale(VIT, at, "none"), lambda at: t.eps(VIT, at, 0, 1e-5)], (0, 2, 3)),
        t.attention_scale(VIT, 0, "width"),
        t.attention_scale(VIT, 3, "twice"),
        t.eps(VIT, 2, 1, 1e-12),
        t.eps(VIT, 3, 1, 1e-5),
        t.softmax_axis(VIT, 2),
        t.merge(VIT, 0, "no transpose"),
        t.merge(VIT, 3, "width first"),
        t.half_scores(VIT, 2),
        t.half_product(VIT, 0, "mlp.fc2"),
        t.attention_dropout(VIT, 2),
        t.parts_by_head(VIT, 0),
        t.parts_by_head(VIT, 3),
        t.in_core(VIT, 2, "fused q, k, v read by entry", "qkv-interleaved", "parts", "by entry"),
        t.starts(VIT, 2, (0, 0.8, 2), "k begins 8 rows too early", "qkv-split"),
        t.starts(VIT, 0, (1, 0, 2), "q and k exchanged", "qkv-order"),
        t.heads_number(VIT, 0, 4),
        t.heads_number(VIT, 3, 10),
        t.split_width_first(VIT, 2),
        t.residual(VIT, 0, "attention", "dropped"),
        t.residual(VIT, 2, "mlp", "doubled"),
        t.residual(VIT, 3, "mlp", "dropped"),
        t.residual(VIT, 2, "attention", "y twice"),
        t.of_block(VIT, 2, "post-LN", "norm-order", "norms", "post", "norm1", "attn", "attn.qkv"),
        t.of_block(
            VIT, 0, "residual from the norm", ("residual-source", "residual-dropped"), "residual-from", "normed"
        ),
        t.of_block(
            VIT, 3, "parallel halves", ("parallel-block", "norm-order", "residual-source"), "parallel", True, "mlp.fc1"
        ),
        t.plus_one(VIT, 2, 0),
        t.rms(VIT, 0, 1),
        t.norm(VIT, 3, 0, "eps outside the root", "norm-eps-place", "eps-place", "outside"),
        t.norm(VIT, 2, 1, "bias ignored", "bias-missing", "bias", "ignored"),
        t.activation(VIT, 0, "tanh"),
        t.activation(VIT, 2, "quick"),
        t.activation(VIT, 3, "relu"),
        t.activation(VIT, 3, "tanh"),
        t.activation(VIT, 0, "silu"),
        t.bias(VIT, 0, "attn.qkv", "ignored"),
        t.bias(VIT, 2, "mlp.fc1", "absent"),
        t.bias(VIT, 3, "attn.proj", "doubled"),
        t.bias(VIT, 2, "mlp.fc2", "ignored"),
        t.turned_in_code(VIT, 2),
        t.turned_by_morph(VIT, 0),
        t.turned_by_morph(VIT, 3),
        t.turned_in_weights(VIT, 2),
        t.reshaped(VIT, 2, "mlp.fc1"),
        t.fused_by_morph(VIT, 0, "k + q + v"),
        t.fused_by_morph(VIT, 3, "q + v + k"),
        t.fused_by_head(VIT, 2),
        t.heads_rolled(VIT, 3),
        t.key_value_swapped(VIT, 0),
        t.bias_zero(VIT, 2, "attn.proj"),
        t.never_filled(VIT, 3, "mlp.fc2"),
        t.other_layer(VIT, 2, "mlp.fc1", 1),
        t.through(VIT, 0, "mlp.fc1", "bf16"),
        t.through(VIT, 3, "attn.qkv", "f16"),
        f("every weight through bf16", "weight-rounded", "*", "everywhere", weights=rounded(ml_dtypes.bfloat16)),
        f(
            "dropout module on",
            "dropout",
            ("blocks.1.mlp", "blocks.1.mlp.drop"),
            "middle",
            code={"blocks.1.mlp:dropout-module": 0.1},
        ),
        f(
            "channels BGR",
            "channel-order",
            ("patch_embed", "patch_embed.proj", ""),
            code={"patch_embed:channels": "bgr"},
        ),
        f("patches by columns", "patch-order", ("patch_embed", ""), code={"patch_embed:patches": "columns"}),
        f("class token last", "class-token", where, code={":class-token": "last"}),
        f("class token zero", "class-token", where, code={":class-token": "zero"}),
        f("class token missing", "class-token", ("", "blocks.0", "blocks.0.norm1"), code={":class-token": "missing"}),
        f("positions missing", "position-missing", where, code={":positions": "none"}),
        f(
            "no position for the class token",
            ("class-token", "position-missing"),
            where,
            code={":positions": "patches only"},
        ),
        f(
            "class token's position taken from the last row",
            ("position-rows", "position-offset", "position-order"),
            where,
            code={":position-rows": 1},
        ),
        f("positions left as made", ("parameter-missing",), where, weights=left_as_made("pos_embed")),
        f("mean pooling", "pooling", where, code={":pooling": "mean"}),
        f("last token pooled", "pooling", where, code={":pooling": "last"}),
        f("last norm missing", "final-norm-missing", ("norm", ""), code={"norm:skipped": True}),
        f("head left as made", "parameter-missing", "head", weights=left_as_made("head.weight")),
        f(
            "layer 2 left out",
            ("layer-skipped", "layer-order"),
            ("", "blocks", "blocks.3", "blocks.2"),
            "middle",
            code={":order": (0, 1, 3)},
        ),
        f(
            "layer 1 twice",
            ("layer-repeated", "layer-order"),
            ("", "blocks", "blocks.1", "blocks.2"),
            "middle",
            code={":order": (0, 1, 1, 2, 3)},
        ),
        f(
            "layers 1 and 2 exchanged in code",
            "layer-order",
            ("", "blocks", "blocks.1", "blocks.2"),
            "middle",
            code={":order": (0, 2, 1, 3)},
        ),
        f(
            "12 layers in the order of their names",
            "layer-order",
            ("", "blocks", "blocks.1", "blocks.2", "blocks.2.norm1", "blocks.10"),
            "everywhere",
            layers=12,
            morph=t.relayered("vit", "blocks.{}", "vit.encoder.layer.{}.", t.lexicographic(12), 12),
        ),
        f(
            "every layer from the next",
            "layer-order",
            ("", "blocks", "blocks.0", "blocks.0.norm1", "blocks.3"),
            "everywhere",
            morph=t.relayered("vit", "blocks.{}", "vit.encoder.layer.{}.", (1, 2, 3, 0), 4),
        ),
    ]
    none = [
        f(
            "qkv's key bias left out",
            "bias-missing",
            "blocks.1.attn.qkv",
            "middle",
            weights=changed("blocks.1.attn.qkv.bias", third(1, np.zeros_like)),
            equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out",
        ),
        f(
            "neurons of an MLP permuted in both matrices",
            "weight-rows-permuted",
            "blocks.1.mlp.fc1",
            "middle",
            weights=permuted_neurons,
            equivalent="a permutation that the next matrix undoes",
        ),
    ]
    return found + none


def permuted_neurons(state: State, fresh: State) -> None:
    """Two consistent mistakes that cancel."""
    order = np.random.default_rng(0).permutation(len(state["blocks.1.mlp.fc1.bias"]))
    for name in ("blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc1.bias"):
        state[name] = np.ascontiguousarray(state[name][order])
    state["blocks.1.mlp.fc2.weight"] = np.ascontiguousarray(state["blocks.1.mlp.fc2.weight"][:, order])
