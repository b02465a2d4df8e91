"""Faults of CLIP's candidates: both towers in OpenAI's style, and torch's own attention."""

from __future__ import annotations

import functools

import numpy as np
from benchmarks.faults import taxonomy as t
from benchmarks.faults.planted import Fault
from benchmarks.faults.taxonomy import Tower, ends, placed, spread
from benchmarks.faults.weights import rounded

IMAGE = Tower(
    "clip", "image ", "visual.transformer.resblocks.{}", "attn", ("attn", ""), "attn.out_proj", "mlp.c_fc", "mlp.c_proj",
    "mlp", ("ln_1", "ln_2"), fused="attn.in_proj", activation="quick", heads=4,
)  # fmt: skip
TEXT = Tower(
    "clip", "text ", "transformer.resblocks.{}", "attn", ("attn", ""), "attn.out_proj", "mlp.c_fc", "mlp.c_proj",
    "mlp", ("ln_1", "ln_2"), fused="attn.in_proj", activation="quick", heads=5,
)  # fmt: skip
LIBRARY = Tower(
    "clip library", "image ", "visual.transformer.resblocks.{}", "attn", ("attn",), "attn.out_proj", "mlp.c_fc",
    "mlp.c_proj", "mlp", ("ln_1", "ln_2"), fused="attn.in_proj", activation="quick", heads=4,
)  # fmt: skip


def clip() -> list[Fault]:
    """OpenAI's style, both towers."""
    f = functools.partial(ends, "clip")
    text, image = ("", "token_embedding"), ("visual",)
    towers = ("transformer", "")
    found = [
        t.attention_scale(IMAGE, 0, "none"),
        t.attention_scale(TEXT, 2, "width"),
        t.attention_scale(TEXT, 3, "none"),
        t.softmax_axis(IMAGE, 2),
        t.softmax_axis(TEXT, 0),
        t.merge(TEXT, 3, "no transpose"),
        t.merge(IMAGE, 3, "width first"),
        t.half_scores(TEXT, 2),
        t.half_scores(IMAGE, 0),
        t.parts_by_head(TEXT, 0),
        t.parts_by_head(IMAGE, 2),
        t.starts(IMAGE, 3, (0, 0.75, 2), "k begins 12 rows too early", "qkv-split"),
        t.heads_number(TEXT, 2, 4),
        t.heads_number(IMAGE, 0, 6),
        t.residual(IMAGE, 2, "attention", "dropped"),
        t.residual(TEXT, 0, "mlp", "doubled"),
        t.residual(TEXT, 3, "attention", "dropped"),
        t.residual(IMAGE, 3, "mlp", "dropped"),
        t.of_block(TEXT, 2, "post-LN", "norm-order", "norms", "post", "ln_1", "attn"),
        t.of_block(
            IMAGE,
            0,
            "norms exchanged",
            ("norm-swapped", "layer-order", "norm-order", "other-tensor"),
            "norms",
            "swapped",
            "ln_1",
            "ln_2",
        ),
        t.of_block(
            IMAGE, 2, "residual from the norm", ("residual-source", "residual-dropped"), "residual-from", "normed"
        ),
        t.eps(IMAGE, 0, 0, 1e-6),
        t.eps(IMAGE, 3, 1, 1e-6),
        t.eps(TEXT, 2, 0, 1e-12),
        t.eps(TEXT, 0, 1, 1e-6),
        t.plus_one(TEXT, 0, 0),
        t.rms(IMAGE, 2, 0),
        *spread([lambda at: t.activation(IMAGE, at, "erf")], (0, 3)),
        *spread([lambda at: t.activation(TEXT, at, "tanh")], (0, 2)),
        t.activation(TEXT, 3, "relu"),
        t.bias(IMAGE, 0, "mlp.c_fc", "ignored"),
        t.bias(TEXT, 2, "mlp.c_proj", "doubled"),
        t.bias(TEXT, 3, "attn.out_proj", "absent"),
        t.in_core(IMAGE, 2, "in_proj bias ignored", "bias-missing", "bias", 0.0),
        t.in_core(TEXT, 0, "in_proj bias doubled", "bias-doubled", "bias", 2.0),
        t.turned_by_morph(IMAGE, 2),
        t.turned_by_morph(TEXT, 0),
        t.turned_in_weights(TEXT, 3),
        t.turned_in_code(IMAGE, 0),
        t.fused_by_morph(IMAGE, 0, "q + v + k"),
        t.fused_by_morph(TEXT, 3, "k + q + v"),
        t.fused_by_head(TEXT, 2),
        t.heads_rolled(IMAGE, 3),
        t.key_value_swapped(TEXT, 2),
        t.reshaped(IMAGE, 2, "mlp.c_fc"),
        t.never_filled(TEXT, 2, "mlp.c_fc"),
        t.bias_zero(IMAGE, 0, "attn.out_proj"),
        t.other_layer(TEXT, 3, "mlp.c_proj", 0),
        t.through(IMAGE, 2, "mlp.c_proj", "f16"),
        f("image channels BGR", "channel-order", (*image, "visual.conv1", ""), code={"visual:channels": "bgr"}),
        f("patches by columns", "patch-order", image, code={"visual:patches": "columns"}),
        f("class token last", "class-token", image, code={"visual:class-token": "last"}),
        f("class token zero", "class-token", image, code={"visual:class-token": "zero"}),
        f("image positions missing", "position-missing", image, code={"visual:positions": "none"}),
        f(
            "class token's position taken from the last row",
            ("position-rows", "position-offset", "position-order"),
            image,
            code={"visual:position-rows": 1},
        ),
        f("image pooled by the mean", "pooling", image, code={"visual:pooling": "mean"}),
        f(
            "image's last norm missing",
            "final-norm-missing",
            (*image, "visual.ln_post", ""),
            code={"visual:norm-before-pooling": False},
        ),
        f(
            "norm before the image's blocks skipped",
            ("final-norm-missing", "norm-missing"),
            ("visual.ln_pre", "visual"),
            code={"visual.ln_pre:skipped": True},
        ),
        f("text positions missing", "position-missing", text, code={":positions": "missing"}),
        f("text positions 2 too far", "position-offset", text, code={":position-offset": 2}),
        f("text embedding times √d", "embedding-scale", text, code={":embedding-scale": 40**0.5}),
        f(
            "causal mask missing",
            ("mask-causal", "mask-missing"),
            ("transformer.resblocks.0.attn", "transformer.resblocks.0"),
            "everywhere",
            code={":causal": False},
        ),
        f(
            "causal mask lets 1 too many through",
            ("mask-causal", "mask-offset"),
            ("transformer.resblocks.0.attn", "transformer.resblocks.0"),
            "everywhere",
            code={":causal-offset": 1},
        ),
        f("text read off at its last place", "pooling", (*text, "ln_final"), code={":pooling": "last"}),
        f("text read off at its first place", "pooling", (*text, "ln_final"), code={":pooling": "first"}),
        f("text read off before its end", "pooling", (*text, "ln_final"), code={":pooling": "before"}),
        f("nothing normalised", "normalise-missing", text, code={":normalised": "none"}),
        f("texts not normalised", "normalise-missing", text, code={":normalised": "image"}),
        f("logit_scale without exp", "logit-scale", text, code={":logit-scale": "raw"}),
        f("logit_scale missing", "logit-scale", text, code={":logit-scale": "missing"}),
        f("last text norm's eps", "norm-eps", "ln_final", code={"ln_final:eps": 1e-6}),
        f(
            "image layer 1 left out",
            ("layer-skipped", "layer-order"),
            (
                "visual.transformer",
                "visual.transformer.resblocks",
                "visual.transformer.resblocks.1",
                "visual.transformer.resblocks.2",
            ),
            "middle",
            code={"visual.transformer:order": (0, 2, 3)},
        ),
        f(
            "text layer 2 twice",
            ("layer-repeated", "layer-order"),
            (*towers, "transformer.resblocks", "transformer.resblocks.2", "transformer.resblocks.3"),
            "middle",
            code={"transformer:order": (0, 1, 2, 2, 3)},
        ),
        f("every weight through f16", "weight-rounded", "*", "everywhere", weights=rounded(np.float16)),
    ]
    library = [
        t.heads_number(LIBRARY, 0, 6),
        t.eps(LIBRARY, 2, 0, 1e-6),
        t.fused_by_morph(LIBRARY, 2, "k + q + v"),
        t.turned_in_weights(LIBRARY, 3),
        t.residual(LIBRARY, 3, "attention", "dropped"),
        t.activation(LIBRARY, 0, "erf"),
        t.heads_number(LIBRARY, 3, 2),
        t.key_value_swapped(LIBRARY, 0),
    ]
    opaque = [
        placed(fault, ("visual.transformer.resblocks.3.attn", "visual.transformer.resblocks.3.attn.out_proj"))
        if "square" in fault.id
        else fault
        for fault in library
    ]
    return found + opaque
