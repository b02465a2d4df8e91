"""T5 as t5x builds it: kernels [in out] without biases, one table of relative positions a stack, buckets by thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from benchmarks.faults.hook import SOUND, Faults
from benchmarks.faults.parts import ACTIVATIONS, Dense, Norm, Table, attend, fresh, residual, split_heads
from torch import Tensor, nn

EPS = 1e-6


def thresholds(buckets: int, max_distance: int) -> Sequence[int]:
    """The distance at which each bucket begins: one a bucket for the first half, then in equal ratios."""
    exact = buckets // 2
    ratio = (max_distance / exact) ** (1 / (buckets - exact))
    return [*range(exact), *(math.ceil(exact * ratio**step - 1e-9) for step in range(buckets - exact))]


class RelativePositions(nn.Module):
    """A number for every head and bucket of distances; [H T S]."""

    def __init__(self, config: Any, faults: Faults, *, causal: bool) -> None:
        super().__init__()
        self.faults, self.causal = faults, faults("causal", causal)
        self.num_buckets = config.relative_attention_num_buckets
        self.max_distance = faults("max-distance", config.relative_attention_max_distance)
        self.rel_embedding = fresh(config.num_heads, self.num_buckets)

    def forward(self, queries: int, keys: int) -> Tensor:
        device = self.rel_embedding.device
        offset = self.faults("offset", 0)
        behind_TS = torch.arange(queries, device=device)[:, None] - torch.arange(keys, device=device)[None, :] + offset
        if self.faults("sign", "behind") == "ahead":
            behind_TS = -behind_TS
        count = self.num_buckets if self.causal else self.num_buckets // 2
        starts = torch.tensor(thresholds(count, self.max_distance), device=device)
        distance_TS = behind_TS.clamp(min=0) if self.causal else behind_TS.abs()
        buckets_TS = torch.bucketize(distance_TS, starts, right=True) - 1
        if not self.causal:
            buckets_TS = buckets_TS + count * (behind_TS < 0).long()
        return self.rel_embedding[:, buckets_TS]


class Attention(nn.Module):
    """Of x over itself or over memory; scores are not scaled."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.faults, self.heads = faults, config.num_heads
        width, inner = config.d_model, config.num_heads * config.d_kv
        self.query = Dense(width, inner, faults.below("query"), bias=False, kernel=True)
        self.key = Dense(width, inner, faults.below("key"), bias=False, kernel=True)
        self.value = Dense(width, inner, faults.below("value"), bias=False, kernel=True)
        self.out = Dense(inner, width, faults.below("out"), bias=False, kernel=True)

    def forward(self, x: Tensor, memory: Tensor, allowed: Tensor | None, bias_HTS: Tensor | None) -> Tensor:
        q = split_heads(self.query(x), self.heads, self.faults)
        k = split_heads(self.key(memory), self.heads, self.faults, "key-heads")
        v = split_heads(self.value(memory), self.heads, self.faults, "value-heads")
        if not self.faults("relative", True):
            bias_HTS = None
        return self.out(attend(q, k, v, self.faults, allowed=allowed, bias_HTS=bias_HTS, scaled=False))


class Mlp(nn.Module):
    """Gated."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.faults, width, inner = faults, config.d_model, config.d_ff
        self.wi_0, self.wi_1 = (
            Dense(width, inner, faults.below(at), bias=False, kernel=True) for at in ("wi_0", "wi_1")
        )
        self.wo = Dense(inner, width, faults.below("wo"), bias=False, kernel=True)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.wi_0(x), self.wi_1(x)
        if self.faults("gate", "first") == "second":
            gate, up = up, gate
        if self.faults("gate", "first") == "missing":
            return self.wo(ACTIVATIONS["tanh"](gate))
        return self.wo(ACTIVATIONS[self.faults("activation", "tanh")](gate) * up)


class Layer(nn.Module):
    """Pre-norm: attention, in a decoder attention over what was encoded, MLP."""

    def __init__(self, config: Any, faults: Faults, *, decodes: bool) -> None:
        super().__init__()
        self.faults, width = faults, config.d_model
        mine = "self_attention" if decodes else "attention"
        self.mine = mine
        self.add_module(f"pre_{mine}_layer_norm", self.norm(width, f"pre_{mine}_layer_norm"))
        self.add_module(mine, Attention(config, faults.below(mine)))
        if decodes:
            self.pre_cross_attention_layer_norm = self.norm(width, "pre_cross_attention_layer_norm")
            self.cross_attention = Attention(config, faults.below("cross_attention"))
        self.pre_mlp_layer_norm = self.norm(width, "pre_mlp_layer_norm")
        self.mlp = Mlp(config, faults.below("mlp"))

    def norm(self, width: int, at: str) -> Norm:
        return Norm(width, EPS, self.faults.below(at), bias=False, weight="scale")

    def forward(
        self, x: Tensor, allowed: Tensor | None, bias: Tensor | None, memory: Tensor | None, seen: Tensor | None
    ) -> Tensor:
        attention, norm = getattr(self, self.mine), getattr(self, f"pre_{self.mine}_layer_norm")
        normed = norm(x)
        x = residual(x, attention(normed, normed, allowed, bias), self.faults, "attention-residual")
        if memory is not None:
            normed = self.pre_cross_attention_layer_norm(x)
            x = residual(x, self.cross_attention(normed, memory, seen, None), self.faults, "cross-residual")
        return residual(x, self.mlp(self.pre_mlp_layer_norm(x)), self.faults, "mlp-residual")


class Stack(nn.Module):
    """The encoder or the decoder."""

    def __init__(self, config: Any, faults: Faults, *, decodes: bool) -> None:
        super().__init__()
        self.faults, self.decodes = faults, decodes
        self.count = config.num_decoder_layers if decodes else config.num_layers
        self.relpos_bias = RelativePositions(config, faults.below("relpos_bias"), causal=decodes)
        for layer in range(self.count):
            self.add_module(f"layers_{layer}", Layer(config, faults.below(f"layers_{layer}"), decodes=decodes))
        self.final_norm = Norm(config.d_model, EPS, faults.below("final_norm"), bias=False, weight="scale")

    def forward(
        self, x: Tensor, present: Tensor | None, memory: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        length = x.shape[1]
        allowed = None if present is None else present[:, None, None, :].bool()
        if self.decodes and self.faults("causal", True):
            places = torch.arange(length, device=x.device)
            allowed = (places[None, :] <= places[:, None] + self.faults("causal-offset", 0))[None, None]
        bias = self.relpos_bias(length, length)
        there = None if seen is None or not self.faults("memory-mask", True) else seen[:, None, None, :].bool()
        shared = self.faults("bias-layers", self.count)
        for layer in self.faults("order", range(self.count)):
            x = getattr(self, f"layers_{layer}")(x, allowed, bias if layer < shared else None, memory, there)
        return self.final_norm(x)


class T5(nn.Module):
    """Encoder, decoder, and scores by the embedding."""

    def __init__(self, config: Any, faults: Faults = SOUND) -> None:
        super().__init__()
        self.faults, self.width = faults, config.d_model
        self.token_embedder = Table(config.vocab_size, config.d_model, "embedding")
        self.encoder = Stack(config, faults.below("encoder"), decodes=False)
        self.decoder = Stack(config, faults.below("decoder"), decodes=True)

    def forward(
        self, input_ids: Tensor, decoder_input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        scale = self.width**0.5 if self.faults("embedding-scale", 1.0) == "root" else 1.0
        memory = self.encoder(self.token_embedder(input_ids) * scale, attention_mask)
        x = self.decoder(self.token_embedder(decoder_input_ids), None, memory, attention_mask)
        if self.faults("head-scale", "root") == "root":
            x = x / math.sqrt(self.width)
        return {"logits": torch.einsum("btd,vd->btv", x, self.token_embedder.embedding)}


def lines(config: Any) -> dict[str, str]:
    """The morph from t5/hf, a line a tensor."""
    found = {
        "token_embedder": "shared.weight [v d] <-> token_embedder.embedding [v d]",
        "copies": "drop? encoder.embed_tokens.weight, decoder.embed_tokens.weight, lm_head.weight",
    }
    for side, layers in (("encoder", config.num_layers), ("decoder", config.num_decoder_layers)):
        found[f"{side}.relpos_bias"] = (
            f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight [b h] <-> "
            f"{side}.relpos_bias.rel_embedding [h b]"
        )
        found[f"{side}.final_norm"] = f"{side}.final_layer_norm.weight <-> {side}.final_norm.scale"
        for layer in range(layers):
            found.update(
                layer_lines(f"{side}.layers_{layer}", f"{side}.block.{layer}.layer", decodes=side == "decoder")
            )
    return found


def layer_lines(ours: str, theirs: str, *, decodes: bool) -> dict[str, str]:
    """One layer's lines."""
    found: dict[str, str] = {}
    attentions = [("self_attention", "0.SelfAttention"), ("cross_attention", "1.EncDecAttention")]
    for mine, other in attentions if decodes else [("attention", "0.SelfAttention")]:
        for part, letter in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "o")):
            at = f"{ours}.{mine}.{part}.kernel"
            found[at] = f"{theirs}.{other}.{letter}.weight [o i] <-> {at} [i o]"
        at = f"{ours}.pre_{mine}_layer_norm.scale"
        found[at] = f"{theirs}.{other[0]}.layer_norm.weight <-> {at}"
    last = 2 if decodes else 1
    for part in ("wi_0", "wi_1", "wo"):
        at = f"{ours}.mlp.{part}.kernel"
        found[at] = f"{theirs}.{last}.DenseReluDense.{part}.weight [o i] <-> {at} [i o]"
    found[f"{ours}.pre_mlp_layer_norm.scale"] = f"{theirs}.{last}.layer_norm.weight <-> {ours}.pre_mlp_layer_norm.scale"
    return found
