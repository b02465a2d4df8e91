"""Faults of T5's candidate."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from benchmarks.faults import taxonomy as t
from benchmarks.faults.planted import Fault, State
from benchmarks.faults.taxonomy import Tower, ends
from benchmarks.faults.weights import changed

ENCODER = Tower(
    "t5", "encoder ", "encoder.layers_{}", "attention", ("attention",), "attention.out", "mlp.wi_0", "mlp.wo", "mlp",
    ("pre_attention_layer_norm", "pre_mlp_layer_norm"), activation="tanh", matrix="kernel", heads=3,
    shallow=2, parts=("attention.query", "attention.key", "attention.value"),
)  # fmt: skip
DECODER = Tower(
    "t5", "decoder ", "decoder.layers_{}", "self_attention", ("self_attention",), "self_attention.out", "mlp.wi_0",
    "mlp.wo", "mlp", ("pre_self_attention_layer_norm", "pre_mlp_layer_norm"), activation="tanh", matrix="kernel", heads=3,
    shallow=2, parts=("self_attention.query", "self_attention.key", "self_attention.value"),
)  # fmt: skip
CROSS = Tower(
    "t5", "cross ", "decoder.layers_{}", "cross_attention", ("cross_attention",), "cross_attention.out", "mlp.wi_0",
    "mlp.wo", "mlp", ("pre_cross_attention_layer_norm", "pre_mlp_layer_norm"), activation="tanh", matrix="kernel", heads=3,
    shallow=2, parts=("cross_attention.query", "cross_attention.key", "cross_attention.value"),
)  # fmt: skip


def t5() -> list[Fault]:
    """t5x's style."""
    f = functools.partial(ends, "t5", layers=2)

    def cross_residual(layer: int, how: str) -> Fault:
        where = CROSS.at(layer)
        kind = "residual-dropped" if how == "dropped" else "residual-doubled"
        return CROSS.fault(f"cross residual {how}", layer, kind, where, code={f"{where}:cross-residual": how})

    def gate(layer: int, tower: Tower, how: str) -> Fault:
        where = tower.at(layer, "mlp")
        kinds = ("gate-swapped",) if how == "second" else ("gate-missing",)
        return tower.fault(f"gate {how}", layer, kinds, where, code={f"{where}:gate": how})

    def swapped(layer: int, tower: Tower) -> Fault:
        a, b = (f"{tower.at(layer, 'mlp')}.{part}.kernel" for part in ("wi_0", "wi_1"))
        lines = {
            mine: tower.line(other).split(" <-> ")[0] + " <-> " + tower.line(mine).split(" <-> ")[1]
            for mine, other in ((a, b), (b, a))
        }
        where = tuple(tower.at(layer, name) for name in ("mlp", "mlp.wi_0", "mlp.wi_1"))
        return tower.fault(
            "wi_0 and wi_1 exchanged by the morph", layer, ("gate-swapped", "other-tensor"), where, morph=lines
        )

    def kinds(side: str, what: str, key: str, value: Any, slugs: tuple[str, ...] = ("relative-bias",)) -> Fault:
        layer = f"{side}.layers_0.{'attention' if side == 'encoder' else 'self_attention'}"
        where = (layer, f"{side}.relpos_bias", side, f"{side}.layers_0")
        return f(f"{side}: {what}", slugs, where, "first", code={f"{side}.relpos_bias:{key}": value})

    found = [
        t.attention_scale(ENCODER, 0, "head"),
        t.attention_scale(DECODER, 2, "head"),
        t.attention_scale(CROSS, 3, "head"),
        t.softmax_axis(ENCODER, 2),
        t.softmax_axis(CROSS, 0),
        t.merge(DECODER, 0, "no transpose"),
        t.merge(CROSS, 2, "width first"),
        t.half_scores(ENCODER, 3),
        t.split_width_first(ENCODER, 0),
        t.split_width_first(CROSS, 3),
        t.in_core(DECODER, 3, "keys split, width first", ("head-split", "heads-permuted"), "key-heads", "last"),
        t.in_core(ENCODER, 0, "mask missing", "mask-missing", "mask", "missing"),
        t.in_core(ENCODER, 2, "mask 10", "mask-constant", "mask", 10.0),
        t.in_core(ENCODER, 3, "mask times", "mask-constant", "mask", "times"),
        t.in_core(CROSS, 2, "mask missing", "mask-missing", "mask", "missing"),
        f(
            "decoder sees what is padded",
            "mask-missing",
            ("decoder.layers_0.cross_attention", "decoder.layers_0"),
            "everywhere",
            code={"decoder:memory-mask": False},
        ),
        f(
            "causal mask missing",
            ("mask-causal", "mask-missing"),
            ("decoder.layers_0.self_attention", "decoder.layers_0"),
            "everywhere",
            code={"decoder:causal": False},
        ),
        f(
            "causal mask lets 1 too many through",
            ("mask-causal", "mask-offset"),
            ("decoder.layers_0.self_attention", "decoder.layers_0"),
            "everywhere",
            code={"decoder:causal-offset": 1},
        ),
        t.in_core(DECODER, 2, "mask inverted", "mask-inverted", "mask", "inverted"),
        kinds("encoder", "buckets of a decoder", "causal", True),
        kinds("decoder", "buckets of an encoder", "causal", False),
        kinds("encoder", "max distance 60", "max-distance", 60),
        kinds("decoder", "max distance 24", "max-distance", 24),
        kinds("encoder", "sign", "sign", "ahead"),
        kinds("decoder", "offset 1", "offset", 1),
        f(
            "encoder: positions in its first layer only",
            ("relative-bias", "relative-bias-missing"),
            ("encoder.layers_1.attention", "encoder.layers_1"),
            "last",
            code={"encoder:bias-layers": 1},
        ),
        f(
            "decoder: positions in its first layer only",
            ("relative-bias", "relative-bias-missing"),
            ("decoder.layers_1.self_attention", "decoder.layers_1"),
            "last",
            code={"decoder:bias-layers": 1},
        ),
        t.in_core(
            ENCODER, 3, "relative positions left out", ("relative-bias", "relative-bias-missing"), "relative", False
        ),
        f(
            "encoder's table turned by the morph",
            ("relative-bias", "weight-transposed", "weight-rows-permuted"),
            ("encoder.layers_0.attention", "encoder.relpos_bias", "encoder", "encoder.layers_0"),
            "first",
            weights=changed("encoder.relpos_bias.rel_embedding", lambda rows: rows[::-1]),
        ),
        t.residual(ENCODER, 0, "attention", "dropped"),
        t.residual(ENCODER, 3, "mlp", "doubled"),
        t.residual(DECODER, 2, "mlp", "dropped"),
        cross_residual(0, "dropped"),
        cross_residual(3, "doubled"),
        t.eps(ENCODER, 0, 0, 1e-5),
        t.eps(ENCODER, 3, 1, 1e-12),
        t.eps(DECODER, 2, 0, 1e-5),
        t.eps(CROSS, 0, 0, 1e-5),
        t.plus_one(ENCODER, 2, 0),
        t.plus_one(DECODER, 3, 1),
        t.norm(DECODER, 0, 0, "LayerNorm for RMS", "norm-kind", "form", "layer"),
        t.activation(ENCODER, 0, "erf"),
        t.activation(DECODER, 3, "relu"),
        t.activation(ENCODER, 2, "silu"),
        gate(0, ENCODER, "second"),
        gate(3, DECODER, "second"),
        gate(2, DECODER, "missing"),
        swapped(2, ENCODER),
        t.turned_by_morph(ENCODER, 0),
        t.turned_by_morph(CROSS, 2),
        t.turned_in_weights(DECODER, 3),
        t.turned_in_code(CROSS, 3),
        t.turned_by_morph(ENCODER, 3, "attention.key"),
        t.reshaped(ENCODER, 2, "mlp.wi_0"),
        t.reshaped(DECODER, 0, "mlp.wo"),
        t.never_filled(CROSS, 2, "cross_attention.key"),
        t.other_layer(DECODER, 2, "self_attention.query", 1),
        t.through(ENCODER, 3, "mlp.wo", "bf16"),
        f(
            "encoder's last norm missing",
            "final-norm-missing",
            ("encoder.final_norm", "encoder", ""),
            code={"encoder.final_norm:skipped": True},
        ),
        f(
            "decoder's last norm 1 + weight",
            "norm-plus-one",
            "decoder.final_norm",
            code={"decoder.final_norm:plus": 1.0},
        ),
        f("words times √d", "embedding-scale", ("", "token_embedder", "encoder"), code={":embedding-scale": "root"}),
        f("scores not scaled", "head-scale", ("",), code={":head-scale": "none"}),
        f(
            "encoder layers 1 and 2 exchanged",
            "layer-order",
            ("encoder", "encoder.layers_1", "encoder.layers_2"),
            "middle",
            code={"encoder:order": (0, 2, 1, 3)},
            layers=4,
        ),
        f(
            "decoder layer 2 left out",
            ("layer-skipped", "layer-order"),
            ("decoder", "decoder.layers_2", "decoder.layers_3"),
            "middle",
            code={"decoder:order": (0, 1, 3)},
            layers=4,
        ),
    ]
    none = [
        f(
            "heads of the encoder permuted everywhere",
            ("heads-permuted", "weight-rows-permuted"),
            "encoder.layers_0",
            "everywhere",
            weights=permuted_heads,
            equivalent="a permutation of q, k, v, positions and projection that cancels",
        ),
    ]
    return found + none


def permuted_heads(state: State, fresh: State) -> None:
    """Every encoder head one further on, its positions with it."""
    for name in state:
        if name.startswith("encoder.") and ".attention." in name:
            apart = (3, -1, 36) if ".out." in name else (36, 3, -1)
            rolled = np.roll(state[name].reshape(apart), 1, axis=0 if ".out." in name else 1)
            state[name] = np.ascontiguousarray(rolled.reshape(state[name].shape))
    state["encoder.relpos_bias.rel_embedding"] = np.roll(state["encoder.relpos_bias.rel_embedding"], 1, axis=0)
