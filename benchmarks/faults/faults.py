"""Every planted fault, family by family, and those that are none: equivalent mutants, with the reason."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.faults import taxonomy as t
from benchmarks.faults.planted import Depth, Fault, State
from benchmarks.faults.taxonomy import Tower, changed, left_as_made, spread

VIT = Tower(
    "vit", "", "blocks.{}", "attn", ("attn",), "attn.proj", "mlp.fc1", "mlp.fc2", "mlp", ("norm1", "norm2"),
    fused="attn.qkv", heads=5,
)  # fmt: skip
KERNELS = Tower(
    "vit kernels", "", "encoderblocks.{}", "attention", ("attention",), "attention.out", "MlpBlock_3.Dense_0",
    "MlpBlock_3.Dense_1", "MlpBlock_3", ("LayerNorm_0", "LayerNorm_2"), matrix="kernel", heads=5,
    parts=("attention.query", "attention.key", "attention.value"),
)  # fmt: skip
BERT = Tower(
    "bert", "", "bert.encoder.layers.{}", "mixer", ("mixer",), "mixer.out_proj", "mlp.fc1", "mlp.fc2", "mlp",
    ("norm1", "norm2"), fused="mixer.Wqkv", heads=3,
)  # fmt: skip
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
ENCODER = Tower(
    "t5", "encoder ", "encoder.layers_{}", "attention", ("attention",), "attention.out", "mlp.wi_0", "mlp.wo", "mlp",
    ("pre_attention_layer_norm", "pre_mlp_layer_norm"), activation="tanh", matrix="kernel", heads=3,
    parts=("attention.query", "attention.key", "attention.value"),
)  # fmt: skip
DECODER = Tower(
    "t5", "decoder ", "decoder.layers_{}", "self_attention", ("self_attention",), "self_attention.out", "mlp.wi_0",
    "mlp.wo", "mlp", ("pre_self_attention_layer_norm", "pre_mlp_layer_norm"), activation="tanh", matrix="kernel", heads=3,
    parts=("self_attention.query", "self_attention.key", "self_attention.value"),
)  # fmt: skip
CROSS = Tower(
    "t5", "cross ", "decoder.layers_{}", "cross_attention", ("cross_attention",), "cross_attention.out", "mlp.wi_0",
    "mlp.wo", "mlp", ("pre_cross_attention_layer_norm", "pre_mlp_layer_norm"), activation="tanh", matrix="kernel", heads=3,
    parts=("cross_attention.query", "cross_attention.key", "cross_attention.value"),
)  # fmt: skip
PADDLE = Tower(
    "vit paddle", "", "encoder.layers.{}", "self_attn", ("self_attn",), "self_attn.out_proj", "linear1", "linear2", "",
    ("norm1", "norm2"), heads=5, parts=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
)  # fmt: skip


def ends(
    family: str, what: str, kinds: str | tuple[str, ...], where: str | tuple[str, ...], depth: Depth = "ends", **how: Any
) -> Fault:
    """A fault outside the blocks, or in all of them."""
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    return Fault(f"{family}/{what}", family, depth, kinds, (where,) if isinstance(where, str) else where, **how)


def vit() -> list[Fault]:
    """timm's style."""
    f, where = functools.partial(ends, "vit"), ("",)
    found = [
        *spread([lambda at: t.attention_scale(VIT, at, "none"), lambda at: t.eps(VIT, at, 0, 1e-5)], (0, 2, 3)),
        t.attention_scale(VIT, 0, "width"), t.attention_scale(VIT, 3, "twice"),
        t.eps(VIT, 2, 1, 1e-12), t.eps(VIT, 3, 1, 1e-5),
        t.softmax_axis(VIT, 2), t.merge(VIT, 0, "no transpose"), t.merge(VIT, 3, "width first"),
        t.half_scores(VIT, 2), t.half_product(VIT, 0, "mlp.fc2"), t.attention_dropout(VIT, 2),
        t.parts_by_head(VIT, 0), t.parts_by_head(VIT, 3),
        t.in_core(VIT, 2, "fused q, k, v read by entry", ("qkv-interleaved", "qkv-layout"), "parts", "by entry"),
        t.starts(VIT, 2, (0, 0.8, 2), "k begins 8 rows too early", "qkv-split"),
        t.starts(VIT, 0, (1, 0, 2), "q and k exchanged", "qkv-order"),
        t.heads_number(VIT, 0, 4), t.heads_number(VIT, 3, 10), t.split_width_first(VIT, 2),
        t.residual(VIT, 0, "attention", "dropped"), t.residual(VIT, 2, "mlp", "doubled"), t.residual(VIT, 3, "mlp", "dropped"),
        t.residual(VIT, 2, "attention", "y twice"),
        t.of_block(VIT, 2, "post-LN", "norm-order", "norms", "post", "norm1", "attn", "attn.qkv"),
        t.of_block(VIT, 0, "residual from the norm", ("residual-source", "residual-dropped"), "residual-from", "normed"),
        t.of_block(VIT, 3, "parallel halves", ("parallel-block", "norm-order", "residual-source"), "parallel", True, "mlp.fc1"),
        t.plus_one(VIT, 2, 0), t.rms(VIT, 0, 1), t.norm(VIT, 3, 0, "eps outside the root", "norm-eps", "eps-place", "outside"),
        t.norm(VIT, 2, 1, "bias ignored", "bias-missing", "bias", "ignored"),
        t.activation(VIT, 0, "tanh"), t.activation(VIT, 2, "quick"), t.activation(VIT, 3, "relu"),
        t.activation(VIT, 3, "tanh"), t.activation(VIT, 0, "silu"),
        t.bias(VIT, 0, "attn.qkv", "ignored"), t.bias(VIT, 2, "mlp.fc1", "absent"), t.bias(VIT, 3, "attn.proj", "doubled"),
        t.bias(VIT, 2, "mlp.fc2", "ignored"),
        t.turned_in_code(VIT, 2), t.turned_by_morph(VIT, 0), t.turned_by_morph(VIT, 3), t.turned_in_weights(VIT, 2),
        t.reshaped(VIT, 2, "mlp.fc1"), t.fused_by_morph(VIT, 0, "k + q + v"), t.fused_by_morph(VIT, 3, "q + v + k"),
        t.fused_by_head(VIT, 2), t.heads_rolled(VIT, 3), t.key_value_swapped(VIT, 0),
        t.bias_zero(VIT, 2, "attn.proj"), t.never_filled(VIT, 3, "mlp.fc2"), t.other_layer(VIT, 2, "mlp.fc1", 1),
        t.through(VIT, 0, "mlp.fc1", "bf16"), t.through(VIT, 3, "attn.qkv", "f16"),
        f("every weight through bf16", "weight-rounded", "*", "everywhere", weights=t.rounded(ml_dtypes.bfloat16)),
        f("dropout module on", "dropout", ("blocks.1.mlp", "blocks.1.mlp.drop"), "middle",
          code={"blocks.1.mlp:dropout-module": 0.1}),
        f("channels BGR", "channel-order", ("patch_embed", "patch_embed.proj", ""), code={"patch_embed:channels": "bgr"}),
        f("patches by columns", "patch-order", ("patch_embed", ""), code={"patch_embed:patches": "columns"}),
        f("class token last", "class-token", where, code={":class-token": "last"}),
        f("class token zero", "class-token", where, code={":class-token": "zero"}),
        f("class token missing", "class-token", ("", "blocks.0", "blocks.0.norm1"), code={":class-token": "missing"}),
        f("positions missing", "position-missing", where, code={":positions": "none"}),
        f("no position for the class token", ("class-token", "position-missing"), where, code={":positions": "patches only"}),
        f("positions 1 too far", "position-offset", where, code={":position-offset": 1}),
        f("positions left as made", ("parameter-missing",), where, weights=left_as_made("pos_embed")),
        f("mean pooling", "pooling", where, code={":pooling": "mean"}),
        f("last token pooled", "pooling", where, code={":pooling": "last"}),
        f("last norm missing", "final-norm-missing", ("norm", ""), code={"norm:skipped": True}),
        f("head left as made", "parameter-missing", "head", weights=left_as_made("head.weight")),
        f("layer 2 left out", ("layer-skipped", "layer-order"), ("", "blocks", "blocks.3", "blocks.2"), "middle",
          code={":order": (0, 1, 3)}),
        f("layer 1 twice", ("layer-repeated", "layer-order"), ("", "blocks", "blocks.1", "blocks.2"), "middle",
          code={":order": (0, 1, 1, 2, 3)}),
        f("layers 1 and 2 exchanged in code", "layer-order", ("", "blocks", "blocks.1", "blocks.2"), "middle",
          code={":order": (0, 2, 1, 3)}),
        f("12 layers in the order of their names", "layer-order",
          ("", "blocks", "blocks.1", "blocks.2", "blocks.2.norm1", "blocks.10"), "everywhere", layers=12,
          morph=t.relayered("vit", "blocks.{}", "vit.encoder.layer.{}.", t.lexicographic(12), 12)),
        f("every layer from the next", "layer-order", ("", "blocks", "blocks.0", "blocks.0.norm1", "blocks.3"), "everywhere",
          morph=t.relayered("vit", "blocks.{}", "vit.encoder.layer.{}.", (1, 2, 3, 0), 4)),
    ]  # fmt: skip
    none = [
        f("qkv's key bias left out", "bias-missing", "blocks.1.attn.qkv", "middle",
          weights=changed("blocks.1.attn.qkv.bias", t.third(1, np.zeros_like)),
          equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out"),
        f("neurons of an MLP permuted in both matrices", "weight-rows-permuted", "blocks.1.mlp.fc1", "middle",
          weights=permuted_neurons, equivalent="a permutation that the next matrix undoes"),
    ]  # fmt: skip
    return found + none


def permuted_neurons(state: State, fresh: State) -> None:
    """Two consistent mistakes that cancel."""
    order = np.random.default_rng(0).permutation(len(state["blocks.1.mlp.fc1.bias"]))
    for name in ("blocks.1.mlp.fc1.weight", "blocks.1.mlp.fc1.bias"):
        state[name] = np.ascontiguousarray(state[name][order])
    state["blocks.1.mlp.fc2.weight"] = np.ascontiguousarray(state["blocks.1.mlp.fc2.weight"][:, order])


def kernels() -> list[Fault]:
    """Google's style: kernels of three axes."""
    f = functools.partial(ends, "vit kernels")

    def heads_last(layer: int, part: str) -> Fault:
        where = KERNELS.at(layer, f"attention.{part}")
        lines = {key: KERNELS.line(key).replace("[(h d)", "[(d h)") for key in (f"{where}.kernel", f"{where}.bias")}
        return KERNELS.fault(f"{part} heads of (d h)", layer, ("heads-permuted", "head-split"), where, morph=lines)

    def exchanged(layer: int, one: str, other: str) -> Fault:
        a, b = (KERNELS.at(layer, f"attention.{part}") for part in (one, other))
        lines = {}
        for end in (".kernel", ".bias"):
            for mine, theirs in ((a, b), (b, a)):
                lines[mine + end] = KERNELS.line(theirs + end).split(" <-> ")[0] + " <-> " + KERNELS.line(mine + end).split(" <-> ")[1]
        return KERNELS.fault(f"{one} and {other} exchanged", layer, ("qkv-order", "other-tensor"), (a, b, *t.core(KERNELS, layer)),
                             morph=lines)  # fmt: skip

    def out_heads(layer: int) -> Fault:
        where = KERNELS.at(layer, "attention.out")
        lines = {f"{where}.kernel": KERNELS.line(f"{where}.kernel").replace("[o (h d)]", "[o (d h)]")}
        return KERNELS.fault("out heads of (d h)", layer, ("heads-permuted", "head-merge"), where, morph=lines)

    found = [
        heads_last(0, "query"), heads_last(3, "value"), heads_last(2, "key"), out_heads(2),
        exchanged(0, "key", "value"), exchanged(2, "query", "key"), exchanged(3, "query", "key"),
        t.attention_scale(KERNELS, 2, "none"), t.merge(KERNELS, 3, "no transpose"), t.softmax_axis(KERNELS, 0),
        t.reshaped(KERNELS, 0, "MlpBlock_3.Dense_0"), t.reshaped(KERNELS, 3, "MlpBlock_3.Dense_1"),
        reshaped_by_morph(2), t.bias(KERNELS, 2, "attention.value", "ignored"), t.bias(KERNELS, 0, "attention.query", "doubled"),
        t.bias(KERNELS, 3, "attention.out", "ignored"), t.eps(KERNELS, 0, 0, 1e-12), t.eps(KERNELS, 3, 1, 1e-5),
        t.activation(KERNELS, 2, "tanh"), t.residual(KERNELS, 3, "mlp", "dropped"), t.residual(KERNELS, 0, "attention", "doubled"),
        f("patches by columns", "patch-order", ("embedding", ""), code={"embedding:patches": "columns"}),
        f("patch kernel of [x y]", ("weight-transposed", "weight-axes"), "embedding", morph={
            "embedding.kernel": "vit.embeddings.patch_embeddings.projection.weight [o c y x] <-> embedding.kernel [x y c o]"}),
        f("patch kernel with its channels turned", ("channel-order", "weight-rows-permuted"), "embedding",
          weights=changed("embedding.kernel", lambda rows: rows[:, :, ::-1])),
        f("layers 2 and 3 exchanged in code", "layer-order", ("", "encoderblocks", "encoderblocks.2", "encoderblocks.3"), "last",
          code={":order": (0, 1, 3, 2)}),
    ]  # fmt: skip
    none = [
        f("key bias left out", "bias-missing", "encoderblocks.1.attention.key", "middle",
          code={"encoderblocks.1.attention.key:bias": "ignored"},
          equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out"),
    ]  # fmt: skip
    return found + none


def reshaped_by_morph(layer: int) -> Fault:
    """[80 40] read in its own order as [40 80], by the morph."""
    where = KERNELS.at(layer, "MlpBlock_3.Dense_0")
    line = KERNELS.line(f"{where}.kernel").split(" [o i] <-> ")[0]
    lines = {f"{where}.kernel": f"{line} [(a b) c] <-> {where}.kernel [a (b c)] where b=2"}
    return KERNELS.fault("Dense_0 reshaped by the morph", layer, "weight-reshaped", where, morph=lines)


def bert() -> list[Fault]:
    """flash_attn's style."""
    f, words = functools.partial(ends, "bert"), "bert.embeddings"
    embeddings = (words, "bert", "bert.emb_ln")

    def mask(layer: int, how: str | float, kinds: str | tuple[str, ...] = "mask") -> Fault:
        return t.in_core(BERT, layer, f"mask {how}", kinds, "mask", how)

    found = [
        *spread([lambda at: t.attention_scale(BERT, at, "none")], (0, 3)), t.attention_scale(BERT, 2, "width"),
        mask(0, "missing", ("mask-missing", "mask")), mask(2, "inverted", ("mask-inverted", "mask")),
        mask(0, "times", ("mask-constant", "mask")), mask(2, 10.0, ("mask-constant", "mask")),
        mask(3, 5.0, ("mask-constant", "mask")), mask(3, "missing", ("mask-missing", "mask")),
        t.in_core(BERT, 2, "mask one place to the right", ("mask-offset", "mask"), "mask-shift", 1),
        t.softmax_axis(BERT, 3), t.merge(BERT, 2, "no transpose"), t.half_scores(BERT, 3), t.half_product(BERT, 2, "mlp.fc1"),
        t.attention_dropout(BERT, 0), t.parts_by_head(BERT, 2), t.starts(BERT, 3, (0, 2, 1), "k and v exchanged", "qkv-order"),
        t.starts(BERT, 0, (0, 1, 1.75), "v begins 12 rows too early", "qkv-split"), t.heads_number(BERT, 2, 4),
        t.residual(BERT, 0, "mlp", "dropped"), t.residual(BERT, 3, "attention", "dropped"),
        t.residual(BERT, 2, "attention", "doubled"), t.residual(BERT, 3, "mlp", "y twice"),
        t.of_block(BERT, 2, "pre-LN", "norm-order", "norms", "pre", "norm1", "mixer", "mixer.Wqkv"),
        t.of_block(BERT, 0, "norm before the sum", "norm-order", "norms", "before sum", "norm1"),
        t.of_block(BERT, 3, "norms exchanged", ("norm-swapped", "layer-order", "norm-order", "other-tensor"), "norms", "swapped",
                   "norm1", "norm2"),
        *spread([lambda at: t.eps(BERT, at, 0, 1e-5)], (0, 2)), t.eps(BERT, 3, 1, 1e-6),
        t.plus_one(BERT, 3, 1), t.rms(BERT, 2, 0), t.activation(BERT, 0, "tanh"), t.activation(BERT, 2, "tanh"),
        t.activation(BERT, 3, "quick"), t.activation(BERT, 2, "relu"),
        t.bias(BERT, 0, "mlp.fc2", "ignored"), t.bias(BERT, 3, "mixer.out_proj", "absent"), t.bias(BERT, 2, "mixer.Wqkv", "doubled"),
        t.turned_by_morph(BERT, 2), t.turned_in_weights(BERT, 0), t.turned_in_code(BERT, 3), t.reshaped(BERT, 3, "mlp.fc2"),
        t.fused_by_morph(BERT, 2, "v + q + k"), t.fused_by_head(BERT, 0), t.heads_rolled(BERT, 2), t.key_value_swapped(BERT, 3),
        t.never_filled(BERT, 0, "mixer.out_proj"), t.bias_zero(BERT, 3, "mlp.fc1"), t.other_layer(BERT, 3, "mixer.out_proj", 2),
        t.through(BERT, 2, "mlp.fc2", "bf16"),
        f("token types missing", "token-type-missing", embeddings, code={f"{words}:types": "missing"}),
        f("token types all 0", ("token-type-missing", "token-type"), (*embeddings, f"{words}.token_type_embeddings"),
          code={f"{words}:types": "zeros"}),
        f("token types turned", ("token-type", "token-type-missing"), (*embeddings, f"{words}.token_type_embeddings"),
          code={f"{words}:types": "turned"}),
        f("positions missing", "position-missing", embeddings, code={f"{words}:positions": "missing"}),
        f("positions from 1", "position-offset", (*embeddings, f"{words}.position_embeddings"),
          code={f"{words}:position-offset": 1}),
        f("positions from 2", "position-offset", (*embeddings, f"{words}.position_embeddings"),
          code={f"{words}:position-offset": 2}),
        f("words times √d", "embedding-scale", embeddings, code={f"{words}:embedding-scale": 48**0.5}),
        f("eps in the embeddings' norm", "norm-eps", "bert.emb_ln", code={"bert.emb_ln:eps": 1e-6}),
        f("tanh of the pooler missing", "pooler-tanh", ("bert.pooler", ""), code={"bert.pooler:tanh": False}),
        f("pooler reads the mean", "pooling", ("bert.pooler", "bert"), code={"bert.pooler:token": "mean"}),
        f("pooler reads the last token", "pooling", ("bert.pooler", "bert"), code={"bert.pooler:token": "last"}),
        f("pooler turned by the morph", "weight-transposed", "bert.pooler.dense", morph={"bert.pooler.dense.weight":
          t.turned(BERT.line("bert.pooler.dense.weight"))}),
        f("tied decoder left as made", ("tied-weight-stale", "parameter-missing"), "predictions.decoder",
          code={":untied": True}, weights=left_as_made("predictions.decoder.weight")),
        f("head's activation tanh", "activation", "predictions.transform", code={"predictions.transform:activation": "tanh"}),
        f("head scaled", ("head-scale",), "predictions", code={"predictions:scale": 48**-0.5}),
        f("head's bias ignored", "bias-missing", "predictions.decoder", code={"predictions.decoder:bias": "ignored"}),
        f("layer 1 left out", ("layer-skipped", "layer-order"),
          ("bert.encoder", "bert.encoder.layers", "bert.encoder.layers.1", "bert.encoder.layers.2"), "middle",
          code={"bert.encoder:order": (0, 2, 3)}),
        f("every layer from the one before", "layer-order",
          ("bert", "bert.encoder", "bert.encoder.layers", "bert.encoder.layers.0", "bert.encoder.layers.0.mixer.Wqkv",
           "bert.encoder.layers.3"), "everywhere",
          morph=t.relayered("bert", "bert.encoder.layers.{}", "bert.encoder.layer.{}.", (3, 0, 1, 2), 4)),
    ]  # fmt: skip
    none = [
        called_none(mask(1, 1e4, "mask-constant"),
                       "exp(-10000) is 0 in every dtype, and no row is masked entirely"),
        f("Wqkv's key bias left out", "bias-missing", "bert.encoder.layers.2.mixer.Wqkv", "middle",
          weights=changed("bert.encoder.layers.2.mixer.Wqkv.bias", t.third(1, np.zeros_like)),
          equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out"),
    ]  # fmt: skip
    return found + none


def called_none(fault: Fault, reason: str) -> Fault:
    return dataclasses.replace(fault, equivalent=reason)


def clip() -> list[Fault]:
    """OpenAI's style, both towers."""
    f = functools.partial(ends, "clip")
    text, image = ("", "token_embedding"), ("visual",)
    towers = ("transformer", "")
    found = [
        t.attention_scale(IMAGE, 0, "none"), t.attention_scale(TEXT, 2, "width"), t.attention_scale(TEXT, 3, "none"),
        t.softmax_axis(IMAGE, 2), t.softmax_axis(TEXT, 0), t.merge(TEXT, 3, "no transpose"), t.merge(IMAGE, 3, "width first"),
        t.half_scores(TEXT, 2), t.half_scores(IMAGE, 0), t.parts_by_head(TEXT, 0), t.parts_by_head(IMAGE, 2),
        t.starts(IMAGE, 3, (0, 0.75, 2), "k begins 12 rows too early", "qkv-split"), t.heads_number(TEXT, 2, 4),
        t.heads_number(IMAGE, 0, 6),
        t.residual(IMAGE, 2, "attention", "dropped"), t.residual(TEXT, 0, "mlp", "doubled"), t.residual(TEXT, 3, "attention", "dropped"),
        t.residual(IMAGE, 3, "mlp", "dropped"),
        t.of_block(TEXT, 2, "post-LN", "norm-order", "norms", "post", "ln_1", "attn"),
        t.of_block(IMAGE, 0, "norms exchanged", ("norm-swapped", "layer-order", "norm-order", "other-tensor"), "norms", "swapped",
                   "ln_1", "ln_2"),
        t.of_block(IMAGE, 2, "residual from the norm", ("residual-source", "residual-dropped"), "residual-from", "normed"),
        t.eps(IMAGE, 0, 0, 1e-6), t.eps(IMAGE, 3, 1, 1e-6), t.eps(TEXT, 2, 0, 1e-12), t.eps(TEXT, 0, 1, 1e-6),
        t.plus_one(TEXT, 0, 0), t.rms(IMAGE, 2, 0),
        *spread([lambda at: t.activation(IMAGE, at, "erf")], (0, 3)), *spread([lambda at: t.activation(TEXT, at, "tanh")], (0, 2)),
        t.activation(TEXT, 3, "relu"),
        t.bias(IMAGE, 0, "mlp.c_fc", "ignored"), t.bias(TEXT, 2, "mlp.c_proj", "doubled"), t.bias(TEXT, 3, "attn.out_proj", "absent"),
        t.in_core(IMAGE, 2, "in_proj bias ignored", "bias-missing", "bias", 0.0),
        t.in_core(TEXT, 0, "in_proj bias doubled", "bias-doubled", "bias", 2.0),
        t.turned_by_morph(IMAGE, 2), t.turned_by_morph(TEXT, 0), t.turned_in_weights(TEXT, 3), t.turned_in_code(IMAGE, 0),
        t.fused_by_morph(IMAGE, 0, "q + v + k"), t.fused_by_morph(TEXT, 3, "k + q + v"), t.fused_by_head(TEXT, 2),
        t.heads_rolled(IMAGE, 3), t.key_value_swapped(TEXT, 2), t.reshaped(IMAGE, 2, "mlp.c_fc"),
        t.never_filled(TEXT, 2, "mlp.c_fc"), t.bias_zero(IMAGE, 0, "attn.out_proj"), t.other_layer(TEXT, 3, "mlp.c_proj", 0),
        t.through(IMAGE, 2, "mlp.c_proj", "f16"),
        f("image channels BGR", "channel-order", (*image, "visual.conv1", ""), code={"visual:channels": "bgr"}),
        f("patches by columns", "patch-order", image, code={"visual:patches": "columns"}),
        f("class token last", "class-token", image, code={"visual:class-token": "last"}),
        f("class token zero", "class-token", image, code={"visual:class-token": "zero"}),
        f("image positions missing", "position-missing", image, code={"visual:positions": "none"}),
        f("image positions 1 too far", "position-offset", image, code={"visual:position-offset": 1}),
        f("image pooled by the mean", "pooling", image, code={"visual:pooling": "mean"}),
        f("image's last norm missing", "final-norm-missing", (*image, "visual.ln_post", ""),
          code={"visual:norm-before-pooling": False}),
        f("norm before the image's blocks skipped", ("final-norm-missing", "norm-missing"), ("visual.ln_pre", "visual"),
          code={"visual.ln_pre:skipped": True}),
        f("text positions missing", "position-missing", text, code={":positions": "missing"}),
        f("text positions 2 too far", "position-offset", text, code={":position-offset": 2}),
        f("text embedding times √d", "embedding-scale", text, code={":embedding-scale": 40**0.5}),
        f("causal mask missing", ("mask-causal", "mask-missing", "mask"), ("transformer.resblocks.0.attn", "transformer.resblocks.0"),
          "everywhere", code={":causal": False}),
        f("causal mask lets 1 too many through", ("mask-causal", "mask-offset", "mask"),
          ("transformer.resblocks.0.attn", "transformer.resblocks.0"), "everywhere", code={":causal-offset": 1}),
        f("text read off at its last place", "pooling", (*text, "ln_final"), code={":pooling": "last"}),
        f("text read off at its first place", "pooling", (*text, "ln_final"), code={":pooling": "first"}),
        f("text read off before its end", "pooling", (*text, "ln_final"), code={":pooling": "before"}),
        f("nothing normalised", "normalise-missing", text, code={":normalised": "none"}),
        f("texts not normalised", "normalise-missing", text, code={":normalised": "image"}),
        f("logit_scale without exp", "logit-scale", text, code={":logit-scale": "raw"}),
        f("logit_scale missing", "logit-scale", text, code={":logit-scale": "missing"}),
        f("last text norm's eps", "norm-eps", "ln_final", code={"ln_final:eps": 1e-6}),
        f("image layer 1 left out", ("layer-skipped", "layer-order"),
          ("visual.transformer", "visual.transformer.resblocks", "visual.transformer.resblocks.1", "visual.transformer.resblocks.2"),
          "middle", code={"visual.transformer:order": (0, 2, 3)}),
        f("text layer 2 twice", ("layer-repeated", "layer-order"), (*towers, "transformer.resblocks", "transformer.resblocks.2",
          "transformer.resblocks.3"), "middle", code={"transformer:order": (0, 1, 2, 2, 3)}),
        f("every weight through f16", "weight-rounded", "*", "everywhere", weights=t.rounded(np.float16)),
    ]  # fmt: skip
    library = [
        t.heads_number(LIBRARY, 0, 6), t.eps(LIBRARY, 2, 0, 1e-6), t.fused_by_morph(LIBRARY, 2, "k + q + v"),
        t.turned_in_weights(LIBRARY, 3), t.residual(LIBRARY, 3, "attention", "dropped"), t.activation(LIBRARY, 0, "erf"),
        t.heads_number(LIBRARY, 3, 2), t.key_value_swapped(LIBRARY, 0),
    ]  # fmt: skip
    opaque = [
        placed(fault, ("visual.transformer.resblocks.3.attn", "visual.transformer.resblocks.3.attn.out_proj"))
        if "square" in fault.id
        else fault
        for fault in library
    ]
    return found + opaque


def placed(fault: Fault, where: tuple[str, ...]) -> Fault:
    return dataclasses.replace(fault, where=where)


def t5() -> list[Fault]:
    """t5x's style."""
    f = functools.partial(ends, "t5")

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
        lines = {mine: tower.line(other).split(" <-> ")[0] + " <-> " + tower.line(mine).split(" <-> ")[1] for mine, other in ((a, b), (b, a))}
        where = tuple(tower.at(layer, name) for name in ("mlp", "mlp.wi_0", "mlp.wi_1"))
        return tower.fault("wi_0 and wi_1 exchanged by the morph", layer, ("gate-swapped", "other-tensor"), where, morph=lines)

    def kinds(side: str, what: str, key: str, value: Any, slugs: tuple[str, ...] = ("relative-bias",)) -> Fault:
        layer = f"{side}.layers_0.{'attention' if side == 'encoder' else 'self_attention'}"
        where = (layer, f"{side}.relpos_bias", side, f"{side}.layers_0")
        return f(f"{side}: {what}", slugs, where, "first", code={f"{side}.relpos_bias:{key}": value})

    found = [
        t.attention_scale(ENCODER, 0, "head"), t.attention_scale(DECODER, 2, "head"), t.attention_scale(CROSS, 3, "head"),
        t.softmax_axis(ENCODER, 2), t.softmax_axis(CROSS, 0), t.merge(DECODER, 0, "no transpose"), t.merge(CROSS, 2, "width first"),
        t.half_scores(ENCODER, 3), t.split_width_first(ENCODER, 0), t.split_width_first(CROSS, 3),
        t.in_core(DECODER, 3, "keys split, width first", ("head-split", "heads-permuted"), "key-heads", "last"),
        t.in_core(ENCODER, 0, "mask missing", ("mask-missing", "mask"), "mask", "missing"),
        t.in_core(ENCODER, 2, "mask 10", ("mask-constant", "mask"), "mask", 10.0),
        t.in_core(ENCODER, 3, "mask times", ("mask-constant", "mask"), "mask", "times"),
        t.in_core(CROSS, 2, "mask missing", ("mask-missing", "mask"), "mask", "missing"),
        f("decoder sees what is padded", ("mask-missing", "mask"), ("decoder.layers_0.cross_attention", "decoder.layers_0"),
          "everywhere", code={"decoder:memory-mask": False}),
        f("causal mask missing", ("mask-causal", "mask-missing", "mask"), ("decoder.layers_0.self_attention", "decoder.layers_0"),
          "everywhere", code={"decoder:causal": False}),
        f("causal mask lets 1 too many through", ("mask-causal", "mask-offset", "mask"),
          ("decoder.layers_0.self_attention", "decoder.layers_0"), "everywhere", code={"decoder:causal-offset": 1}),
        t.in_core(DECODER, 2, "mask inverted", ("mask-inverted", "mask"), "mask", "inverted"),
        kinds("encoder", "buckets of a decoder", "causal", True), kinds("decoder", "buckets of an encoder", "causal", False),
        kinds("encoder", "max distance 60", "max-distance", 60), kinds("decoder", "max distance 24", "max-distance", 24),
        kinds("encoder", "sign", "sign", "ahead"), kinds("decoder", "offset 1", "offset", 1),
        f("encoder: positions in its first layer only", ("relative-bias", "relative-bias-missing"),
          ("encoder.layers_1.attention", "encoder.layers_1"), "middle", code={"encoder:bias-layers": 1}),
        f("decoder: positions in its first layer only", ("relative-bias", "relative-bias-missing"),
          ("decoder.layers_1.self_attention", "decoder.layers_1"), "middle", code={"decoder:bias-layers": 1}),
        t.in_core(ENCODER, 3, "relative positions left out", ("relative-bias", "relative-bias-missing"), "relative", False),
        f("encoder's table turned by the morph", ("relative-bias", "weight-transposed", "weight-rows-permuted"),
          ("encoder.layers_0.attention", "encoder.relpos_bias", "encoder", "encoder.layers_0"), "first",
          weights=changed("encoder.relpos_bias.rel_embedding", lambda rows: rows[::-1])),
        t.residual(ENCODER, 0, "attention", "dropped"), t.residual(ENCODER, 3, "mlp", "doubled"),
        t.residual(DECODER, 2, "mlp", "dropped"), cross_residual(0, "dropped"), cross_residual(3, "doubled"),
        t.eps(ENCODER, 0, 0, 1e-5), t.eps(ENCODER, 3, 1, 1e-12), t.eps(DECODER, 2, 0, 1e-5), t.eps(CROSS, 0, 0, 1e-5),
        t.plus_one(ENCODER, 2, 0), t.plus_one(DECODER, 3, 1),
        t.norm(DECODER, 0, 0, "LayerNorm for RMS", "norm-kind", "form", "layer"),
        t.activation(ENCODER, 0, "erf"), t.activation(DECODER, 3, "relu"), t.activation(ENCODER, 2, "silu"),
        gate(0, ENCODER, "second"), gate(3, DECODER, "second"), gate(2, DECODER, "missing"), swapped(2, ENCODER),
        t.turned_by_morph(ENCODER, 0), t.turned_by_morph(CROSS, 2), t.turned_in_weights(DECODER, 3), t.turned_in_code(CROSS, 3),
        t.turned_by_morph(ENCODER, 3, "attention.key"),
        t.reshaped(ENCODER, 2, "mlp.wi_0"), t.reshaped(DECODER, 0, "mlp.wo"), t.never_filled(CROSS, 2, "cross_attention.key"),
        t.other_layer(DECODER, 2, "self_attention.query", 1), t.through(ENCODER, 3, "mlp.wo", "bf16"),
        f("encoder's last norm missing", "final-norm-missing", ("encoder.final_norm", "encoder", ""),
          code={"encoder.final_norm:skipped": True}),
        f("decoder's last norm 1 + weight", "norm-plus-one", "decoder.final_norm", code={"decoder.final_norm:plus": 1.0}),
        f("words times √d", "embedding-scale", ("", "token_embedder", "encoder"), code={":embedding-scale": "root"}),
        f("scores not scaled", "head-scale", ("",), code={":head-scale": "none"}),
        f("encoder layers 1 and 2 exchanged", "layer-order", ("encoder", "encoder.layers_1", "encoder.layers_2"), "middle",
          code={"encoder:order": (0, 2, 1, 3)}),
        f("decoder layer 2 left out", ("layer-skipped", "layer-order"), ("decoder", "decoder.layers_2", "decoder.layers_3"),
          "middle", code={"decoder:order": (0, 1, 3)}),
    ]  # fmt: skip
    none = [
        f("heads of the encoder permuted everywhere", ("heads-permuted", "weight-rows-permuted"), "encoder.layers_0", "everywhere",
          weights=permuted_heads, equivalent="a permutation of q, k, v, positions and projection that cancels"),
    ]  # fmt: skip
    return found + none


def permuted_heads(state: State, fresh: State) -> None:
    """Every encoder head one further on, its positions with it."""
    for name in state:
        if name.startswith("encoder.") and ".attention." in name:
            apart = (3, -1, 36) if ".out." in name else (36, 3, -1)
            rolled = np.roll(state[name].reshape(apart), 1, axis=0 if ".out." in name else 1)
            state[name] = np.ascontiguousarray(rolled.reshape(state[name].shape))
    state["encoder.relpos_bias.rel_embedding"] = np.roll(state["encoder.relpos_bias.rel_embedding"], 1, axis=0)


def paddle() -> list[Fault]:
    """ViT in Paddle."""
    f = functools.partial(ends, "vit paddle")
    found = [
        t.turned_by_morph(PADDLE, 0), t.turned_by_morph(PADDLE, 2, "self_attn.q_proj"), t.turned_by_morph(PADDLE, 3, "self_attn.v_proj"),
        t.turned_in_weights(PADDLE, 3), t.turned_in_code(PADDLE, 2), t.reshaped(PADDLE, 0, "linear1"), t.reshaped(PADDLE, 3, "linear2"),
        t.eps(PADDLE, 0, 0, 1e-5), t.eps(PADDLE, 3, 1, 1e-12), t.eps(PADDLE, 2, 0, 1e-12), t.plus_one(PADDLE, 2, 1), t.rms(PADDLE, 3, 0),
        t.activation(PADDLE, 0, "tanh"), t.activation(PADDLE, 2, "relu"), t.activation(PADDLE, 3, "tanh"),
        t.attention_scale(PADDLE, 0, "none"), t.attention_scale(PADDLE, 3, "width"), t.softmax_axis(PADDLE, 2),
        t.merge(PADDLE, 2, "no transpose"), t.heads_number(PADDLE, 0, 4),
        t.residual(PADDLE, 0, "mlp", "dropped"), t.residual(PADDLE, 3, "attention", "doubled"),
        t.of_block(PADDLE, 2, "post-LN", "norm-order", "norms", "post", "norm1", "self_attn", "self_attn.q_proj"),
        t.bias(PADDLE, 0, "self_attn.out_proj", "ignored"), t.bias(PADDLE, 2, "linear2", "doubled"),
        t.bias_zero(PADDLE, 3, "self_attn.v_proj"), t.never_filled(PADDLE, 2, "linear1"), t.other_layer(PADDLE, 2, "linear2", 1),
        t.through(PADDLE, 3, "linear1", "bf16"),
        f("channels BGR", "channel-order", ("patch_embedding", ""), code={":channels": "bgr"}),
        f("patches by columns", "patch-order", "", code={":patches": "columns"}),
        f("class token last", "class-token", "", code={":class-token": "last"}),
        f("positions missing", "position-missing", "", code={":positions": "none"}),
        f("positions 1 too far", "position-offset", "", code={":position-offset": 1}),
        f("mean pooling", "pooling", "", code={":pooling": "mean"}),
        f("last norm missing", "final-norm-missing", ("", "encoder", "encoder.norm"), code={"encoder:last-norm": False}),
        f("layer 2 left out", ("layer-skipped", "layer-order"), ("encoder", "encoder.layers", "encoder.layers.2", "encoder.layers.3"),
          "middle", code={"encoder:order": (0, 1, 3)}),
    ]  # fmt: skip
    none = [
        f("key bias ignored", "bias-missing", "encoder.layers.1.self_attn.k_proj", "middle",
          code={"encoder.layers.1.self_attn.k_proj:bias": "ignored"},
          equivalent="a key's bias adds the same to every score of a query, and the softmax takes it out"),
    ]  # fmt: skip
    return found + none


@functools.cache
def all_faults() -> tuple[Fault, ...]:
    """All of them, each under its own id."""
    found = tuple(fault for family in (clip, vit, kernels, bert, t5, paddle) for fault in family())
    if len({fault.id for fault in found}) != len(found):
        raise ValueError("two faults have one id")
    return found
