"""Faults of BERT's candidate."""

from __future__ import annotations

import functools

import numpy as np
from benchmarks.faults import taxonomy as t
from benchmarks.faults.planted import Fault
from benchmarks.faults.taxonomy import Tower, called_none, ends, spread
from benchmarks.faults.weights import changed, left_as_made, third

BERT = Tower(
    "bert", "", "bert.encoder.layers.{}", "mixer", ("mixer",), "mixer.out_proj", "mlp.fc1", "mlp.fc2", "mlp",
    ("norm1", "norm2"), fused="mixer.Wqkv", heads=3,
)  # fmt: skip


def bert() -> list[Fault]:
    """flash_attn's style."""
    f, words = functools.partial(ends, "bert"), "bert.embeddings"
    embeddings = (words, "bert", "bert.emb_ln")

    def mask(layer: int, how: str | float, kinds: str | tuple[str, ...]) -> Fault:
        return t.in_core(BERT, layer, f"mask {how}", kinds, "mask", how)

    found = [
        *spread([lambda at: t.attention_scale(BERT, at, "none")], (0, 3)),
        t.attention_scale(BERT, 2, "width"),
        mask(0, "missing", "mask-missing"),
        mask(2, "inverted", "mask-inverted"),
        mask(0, "times", "mask-constant"),
        mask(2, 10.0, "mask-constant"),
        mask(3, 5.0, "mask-constant"),
        mask(3, "missing", "mask-missing"),
        t.in_core(BERT, 2, "mask one place to the right", "mask-offset", "mask-shift", 1),
        t.softmax_axis(BERT, 3),
        t.merge(BERT, 2, "no transpose"),
        t.half_scores(BERT, 3),
        t.half_product(BERT, 2, "mlp.fc1"),
        t.attention_dropout(BERT, 0),
        t.parts_by_head(BERT, 2),
        t.starts(BERT, 3, (0, 2, 1), "k and v exchanged", "qkv-order"),
        t.starts(BERT, 0, (0, 1, 1.75), "v begins 12 rows too early", "qkv-split"),
        t.heads_number(BERT, 2, 4),
        t.residual(BERT, 0, "mlp", "dropped"),
        t.residual(BERT, 3, "attention", "dropped"),
        t.residual(BERT, 2, "attention", "doubled"),
        t.residual(BERT, 3, "mlp", "y twice"),
        t.of_block(BERT, 2, "pre-LN", "norm-order", "norms", "pre", "norm1", "mixer", "mixer.Wqkv"),
        t.of_block(BERT, 0, "norm before the sum", "norm-order", "norms", "before sum", "norm1"),
        t.of_block(
            BERT,
            3,
            "norms exchanged",
            ("norm-swapped", "layer-order", "norm-order", "other-tensor"),
            "norms",
            "swapped",
            "norm1",
            "norm2",
        ),
        *spread([lambda at: t.eps(BERT, at, 0, 1e-5)], (0, 2)),
        t.eps(BERT, 3, 1, 1e-6),
        t.plus_one(BERT, 3, 1),
        t.rms(BERT, 2, 0),
        t.activation(BERT, 0, "tanh"),
        t.activation(BERT, 2, "tanh"),
        t.activation(BERT, 3, "quick"),
        t.activation(BERT, 2, "relu"),
        t.bias(BERT, 0, "mlp.fc2", "ignored"),
        t.bias(BERT, 3, "mixer.out_proj", "absent"),
        t.bias(BERT, 2, "mixer.Wqkv", "doubled"),
        t.turned_by_morph(BERT, 2),
        t.turned_in_weights(BERT, 0),
        t.turned_in_code(BERT, 3),
        t.reshaped(BERT, 3, "mlp.fc2"),
        t.fused_by_morph(BERT, 2, "v + q + k"),
        t.fused_by_head(BERT, 0),
        t.heads_rolled(BERT, 2),
        t.key_value_swapped(BERT, 3),
        t.never_filled(BERT, 0, "mixer.out_proj"),
        t.bias_zero(BERT, 3, "mlp.fc1"),
        t.other_layer(BERT, 3, "mixer.out_proj", 2),
        t.through(BERT, 2, "mlp.fc2", "bf16"),
        f("token types missing", "token-type-missing", embeddings, code={f"{words}:types": "missing"}),
        f(
            "token types all 0",
            ("token-type-missing", "token-type"),
            (*embeddings, f"{words}.token_type_embeddings"),
            code={f"{words}:types": "zeros"},
        ),
        f(
            "token types turned",
            ("token-type", "token-type-missing"),
            (*embeddings, f"{words}.token_type_embeddings"),
            code={f"{words}:types": "turned"},
        ),
        f("positions missing", "position-missing", embeddings, code={f"{words}:positions": "missing"}),
        f(
            "positions from 1",
            "position-offset",
            (*embeddings, f"{words}.position_embeddings"),
            code={f"{words}:position-offset": 1},
        ),
        f(
            "positions from 2",
            "position-offset",
            (*embeddings, f"{words}.position_embeddings"),
            code={f"{words}:position-offset": 2},
        ),
        f("words times √d", "embedding-scale", embeddings, code={f"{words}:embedding-scale": 48**0.5}),
        f("eps in the embeddings' norm", "norm-eps", "bert.emb_ln", code={"bert.emb_ln:eps": 1e-6}),
        f("tanh of the pooler missing", "pooler-tanh", ("bert.pooler", ""), code={"bert.pooler:tanh": False}),
        f("pooler reads the mean", "pooling", ("bert.pooler", "bert"), code={"bert.pooler:token": "mean"}),
        f("pooler reads the last token", "pooling", ("bert.pooler", "bert"), code={"bert.pooler:token": "last"}),
        f(
            "pooler turned by the morph",
            "weight-transposed",
            "bert.pooler.dense",
            morph={"bert.pooler.dense.weight": t.turned(BERT.line("bert.pooler.dense.weight"))},
        ),
        f(
            "tied decoder left as made",
            ("tied-weight-stale", "parameter-missing"),
            "predictions.decoder",
            code={":untied": True},
            weights=left_as_made("predictions.decoder.weight"),
        ),
        f(
            "head's activation tanh",
            "activation",
            "predictions.transform",
            code={"predictions.transform:activation": "tanh"},
        ),
        f("head scaled", ("head-scale",), "predictions", code={"predictions:scale": 48**-0.5}),
        f("head's bias ignored", "bias-missing", "predictions.decoder", code={"predictions.decoder:bias": "ignored"}),
        f(
            "layer 1 left out",
            ("layer-skipped", "layer-order"),
            ("bert.encoder", "bert.encoder.layers", "bert.encoder.layers.1", "bert.encoder.layers.2"),
            "middle",
            code={"bert.encoder:order": (0, 2, 3)},
        ),
        f(
            "every layer from the one before",
            "layer-order",
            (
                "bert",
                "bert.encoder",
                "bert.encoder.layers",
                "bert.encoder.layers.0",
                "bert.encoder.layers.0.mixer.Wqkv",
                "bert.encoder.layers.3",
            ),
            "everywhere",
            morph=t.relayered("bert", "bert.encoder.layers.{}", "bert.encoder.layer.{}.", (3, 0, 1, 2), 4),
        ),
    ]
    none = [
        called_none(mask(1, 1e4, "mask-constant"), "exp(-10000) is 0 in every dtype, and no row is masked entirely"),
        f(
            "Wqkv's key bias left out",
            "bias-missing",
            "bert.encoder.layers.2.mixer.Wqkv",
            "middle",
            weights=changed("bert.encoder.layers.2.mixer.Wqkv.bias", third(1, np.zeros_like)),
            equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out",
        ),
    ]
    return found + none
