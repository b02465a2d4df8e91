"""Faults of ViT's candidate in Paddle."""

from __future__ import annotations

import functools

from benchmarks.faults import taxonomy as t
from benchmarks.faults.planted import Fault
from benchmarks.faults.taxonomy import Tower, ends

PADDLE = Tower(
    "vit paddle", "", "encoder.layers.{}", "self_attn", ("self_attn",), "self_attn.out_proj", "linear1", "linear2", "",
    ("norm1", "norm2"), heads=5, parts=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)  # fmt: skip


def paddle() -> list[Fault]:
    """ViT in Paddle."""
    f = functools.partial(ends, "vit paddle")
    found = [
        t.turned_by_morph(PADDLE, 0),
        t.turned_by_morph(PADDLE, 2, "self_attn.q_proj"),
        t.turned_by_morph(PADDLE, 3, "self_attn.v_proj"),
        t.turned_in_weights(PADDLE, 3),
        t.turned_in_code(PADDLE, 2),
        t.reshaped(PADDLE, 0, "linear1"),
        t.reshaped(PADDLE, 3, "linear2"),
        t.eps(PADDLE, 0, 0, 1e-5),
        t.eps(PADDLE, 3, 1, 1e-12),
        t.eps(PADDLE, 2, 0, 1e-12),
        t.plus_one(PADDLE, 2, 1),
        t.rms(PADDLE, 3, 0),
        t.activation(PADDLE, 0, "tanh"),
        t.activation(PADDLE, 2, "relu"),
        t.activation(PADDLE, 3, "tanh"),
        t.attention_scale(PADDLE, 0, "none"),
        t.attention_scale(PADDLE, 3, "width"),
        t.softmax_axis(PADDLE, 2),
        t.merge(PADDLE, 2, "no transpose"),
        t.heads_number(PADDLE, 0, 4),
        t.residual(PADDLE, 0, "mlp", "dropped"),
        t.residual(PADDLE, 3, "attention", "doubled"),
        t.of_block(PADDLE, 2, "post-LN", "norm-order", "norms", "post", "norm1", "self_attn", "self_attn.q_proj"),
        t.bias(PADDLE, 0, "self_attn.out_proj", "ignored"),
        t.bias(PADDLE, 2, "linear2", "doubled"),
        t.bias_zero(PADDLE, 3, "self_attn.v_proj"),
        t.never_filled(PADDLE, 2, "linear1"),
        t.other_layer(PADDLE, 2, "linear2", 1),
        t.through(PADDLE, 3, "linear1", "bf16"),
        f("channels BGR", "channel-order", ("patch_embedding", ""), code={":channels": "bgr"}),
        f("patches by columns", "patch-order", "", code={":patches": "columns"}),
        f("class token last", "class-token", "", code={":class-token": "last"}),
        f("positions missing", "position-missing", "", code={":positions": "none"}),
        f(
            "class token's position taken from the last row",
            ("position-rows", "position-offset", "position-order"),
            "",
            code={":position-rows": 1},
        ),
        f("mean pooling", "pooling", "", code={":pooling": "mean"}),
        f(
            "last norm missing",
            "final-norm-missing",
            ("", "encoder", "encoder.norm"),
            code={"encoder:last-norm": False},
        ),
        f(
            "layer 2 left out",
            ("layer-skipped", "layer-order"),
            ("encoder", "encoder.layers", "encoder.layers.2", "encoder.layers.3"),
            "middle",
            code={"encoder:order": (0, 1, 3)},
        ),
    ]
    none = [
        f(
            "key bias ignored",
            "bias-missing",
            "encoder.layers.1.self_attn.k_proj",
            "middle",
            code={"encoder.layers.1.self_attn.k_proj:bias": "ignored"},
            equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out",
        ),
    ]
    return found + none
