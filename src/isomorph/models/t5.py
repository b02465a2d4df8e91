"""T5: one embedding for both stacks, pre-LN blocks with a norm that only scales, relative positions as a bias of the scores.

Every block is `x = x + sublayer(norm(x))`: self-attention, in the decoder attention over the encoder's output, and the MLP, plain
or gated. Scores are not divided by the square root of the head's width. The bias of the scores depends on the distance of the two
tokens alone; the first block of a stack holds it, and all blocks add it. There are no biases of linear layers.

Sources: Raffel et al. 2019, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (arXiv 1910.10683),
section 2.1; mesh_tensorflow/transformer/transformer_layers.py (buckets); Shazeer 2020, "GLU Variants Improve Transformer" (arXiv
2002.05202; v1.1); transformers models/t5/modeling_t5.py, whose outputs these are.

The names of the state dict are those of the layout t5/hf; with `fused=True` those of t5/fused_qkv, where a self-attention has one
matrix. The attention over the encoder's output keeps three: its queries read another input than its keys and values, which a cache
makes once for a whole generation. Shapes: B batch, T tokens, S tokens attended to, D width, H heads, K width of a head, V tokens of
the vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from isomorph.models.activations import activation
from isomorph.models.attention import Attention, Names, allowed_keys, masked_bias
from isomorph.models.settings import check_settings

NAMES = Names(query="q", key="k", value="v", fused="qkv", out="o")


@dataclass(frozen=True)
class Config:
    """The fields of a T5 config.json that decide what is computed, with the values of t5-small where a config says nothing."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    dense_act_fn: str = "relu"
    is_gated_act: bool = False
    scale_decoder_outputs: bool = True
    pad_token_id: int = 0
    eos_token_id: tuple[int, ...] = (1,)
    decoder_start_token_id: int = 0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Config:
        """From a config.json of T5, v1.0 or v1.1, or mT5. Raises ValueError for an activation that is not here.

        `feed_forward_proj` is read as transformers does: gated-X has two matrices, and gated-gelu means the tanh form. The
        decoder's output is scaled by d_model**-0.5 before the head where `tie_word_embeddings` is not false, never in mT5; a
        config that transformers 5 wrote says it as `scale_decoder_outputs`.
        """
        is_mt5 = config.get("model_type") == "mt5"
        found = {key: config[key] for key in cls.__dataclass_fields__ if config.get(key) is not None}
        for key, old in (("d_model", "hidden_size"), ("num_heads", "num_attention_heads"), ("d_kv", "head_dim")):
            if key not in found and config.get(old) is not None:
                found[key] = config[old]
        found.setdefault("num_decoder_layers", found.get("num_layers", cls.num_layers))
        given = str(config.get("feed_forward_proj") or ("gated-gelu" if is_mt5 else "relu"))
        gate, _, name = given.rpartition("-")
        if gate not in ("", "gated"):
            raise ValueError(
                f"feed_forward_proj = {given!r} is neither an activation nor gated-ACTIVATION, as gated-gelu is"
            )
        found.setdefault("dense_act_fn", "gelu_new" if given == "gated-gelu" else name)
        found.setdefault("is_gated_act", gate == "gated")
        if is_mt5:
            found["scale_decoder_outputs"] = False
        found.setdefault("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
        ends = found.get("eos_token_id", () if "eos_token_id" in config else 1)
        found["eos_token_id"] = tuple(ends) if isinstance(ends, list | tuple) else (ends,)
        found.setdefault("decoder_start_token_id", found.get("pad_token_id", 0))
        return cls(**found)

    def __post_init__(self) -> None:
        check_settings(self)
        activation(self.dense_act_fn, "feed_forward_proj")
        if not all(isinstance(end, int) for end in self.eos_token_id):
            raise ValueError(f"eos_token_id is {self.eos_token_id!r}: give a token's number, or several")
        buckets, far = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if buckets < 4 or far <= buckets // 2:
            raise ValueError(
                f"relative_attention_num_buckets is {buckets} and relative_attention_max_distance {far}: there must be 4 buckets, "
                "and the distance must be more than half of them"
            )


class LayerCache(NamedTuple):
    """What a decoder block keeps of the tokens so far: keys and values [B H S K] of its own tokens, and of the encoder's."""

    key_BHSK: Tensor
    value_BHSK: Tensor
    memory_key_BHSK: Tensor
    memory_value_BHSK: Tensor


Cache = tuple[LayerCache, ...]


class EncoderOutput(NamedTuple):
    """`last_hidden_state` [B T D]."""

    last_hidden_state: Tensor


class T5Output(NamedTuple):
    """`last_hidden_state` [B T D] of the decoder; `past_key_values` where a cache was asked for."""

    last_hidden_state: Tensor
    past_key_values: Cache | None
    encoder_last_hidden_state: Tensor


class LogitsOutput(NamedTuple):
    """`logits` [B T V]; `past_key_values` where a cache was asked for."""

    logits: Tensor
    past_key_values: Cache | None
    encoder_last_hidden_state: Tensor


def relative_buckets(relative: Tensor, *, bidirectional: bool, buckets: int, max_distance: int) -> Tensor:
    """The row of the bias table for each key's position minus its query's.

    Half of the rows (of a direction) are for one distance each, the others grow with its logarithm up to `max_distance`. The
    logarithm is taken in float32 whatever the model's dtype: at distances where it meets a whole number, rounding decides the row,
    and trained tables know float32's. Nothing else of the model sees these numbers.
    """
    if bidirectional:
        buckets //= 2
        first, distance = (relative > 0) * buckets, relative.abs()
    else:
        first, distance = torch.zeros_like(relative), (-relative).clamp(min=0)
    exact = buckets // 2
    octaves = torch.log(distance.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    far = (exact + (octaves * (buckets - exact)).long()).clamp(max=buckets - 1)
    return first + torch.where(distance < exact, distance, far)


def within_range(x: Tensor) -> Tensor:
    """float16 ends at 65504, which T5's residuals pass: infinities are taken back to the ends. Other dtypes stay."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(x.dtype).max
    return x.clamp(-limit, limit)


class T5LayerNorm(nn.Module):
    """weight * x / sqrt(mean(x²) + eps). In half precision torch takes the mean in float32: squares pass 65504 at 256."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        return functional.rms_norm(x_BTD, self.weight.shape, self.weight, self.eps)


class T5Attention(Attention):
    """Attention without scale; that of a stack's first block over its own tokens holds the bias table."""

    def __init__(self, config: Config, *, fused: bool = False, has_positions: bool = False) -> None:
        super().__init__(
            config.d_model,
            config.num_heads,
            NAMES,
            head_dim=config.d_kv,
            bias=False,
            out_bias=False,
            scale=1.0,
            fused=fused,
        )
        self.max_distance = config.relative_attention_max_distance
        if has_positions:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(  # type: ignore[override]  # the keys and values come out too, for a cache
        self,
        x_BTD: Tensor,
        bias: Tensor | None,
        memory_BSD: Tensor | None = None,
        past: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(output, keys, values). `past` holds keys and values: with a memory they are its, else those of the tokens before x."""
        if memory_BSD is not None:
            q_BHTK = self.queries(x_BTD)
            k_BHSK, v_BHSK = self.keys_values(memory_BSD) if past is None else past
        else:
            q_BHTK, k_BHSK, v_BHSK = self.queries_keys_values(x_BTD)
            if past is not None:
                k_BHSK, v_BHSK = torch.cat([past[0], k_BHSK], dim=2), torch.cat([past[1], v_BHSK], dim=2)
        return self.attend(q_BHTK, k_BHSK, v_BHSK, bias), k_BHSK, v_BHSK

    def position_bias(self, queries: int, keys: int, *, bidirectional: bool) -> Tensor:
        """[1 H queries keys]: what is added to the scores of the last `queries` of `keys` tokens."""
        table: nn.Embedding = self.relative_attention_bias
        relative_R = torch.arange(1 - keys, queries, device=table.weight.device)
        rows_R = relative_buckets(
            relative_R, bidirectional=bidirectional, buckets=table.num_embeddings, max_distance=self.max_distance
        )
        bias_HR: Tensor = table(rows_R).T
        bias_HTS = bias_HR.unfold(-1, keys, 1).flip(
            1
        )  # each query starts one distance further back than the one before it
        return bias_HTS.contiguous().unsqueeze(0)


class T5SelfAttentionLayer(nn.Module):
    """x + attention(norm(x))."""

    def __init__(self, config: Config, *, fused: bool, has_positions: bool) -> None:
        super().__init__()
        self.SelfAttention = T5Attention(config, fused=fused, has_positions=has_positions)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(
        self, x_BTD: Tensor, bias_BHTS: Tensor, past: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(x, keys, values), those of `past` before those of x."""
        own = None if past is None else (past.key_BHSK, past.value_BHSK)
        out_BTD, k_BHSK, v_BHSK = self.SelfAttention(self.layer_norm(x_BTD), bias_BHTS, past=own)
        return within_range(x_BTD + out_BTD), k_BHSK, v_BHSK


class T5CrossAttentionLayer(nn.Module):
    """x + attention(norm(x), memory)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.EncDecAttention = T5Attention(config)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(
        self, x_BTD: Tensor, memory_BSD: Tensor, mask: Tensor | None, past: LayerCache | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(x, keys, values of the memory)."""
        kept = None if past is None else (past.memory_key_BHSK, past.memory_value_BHSK)
        out_BTD, k_BHSK, v_BHSK = self.EncDecAttention(self.layer_norm(x_BTD), mask, memory_BSD, kept)
        return within_range(x_BTD + out_BTD), k_BHSK, v_BHSK


class T5Dense(nn.Module):
    """wo(activation(wi(x))); gated wo(activation(wi_0(x)) * wi_1(x))."""

    wi: nn.Linear
    wi_0: nn.Linear
    wi_1: nn.Linear

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.gated = config.is_gated_act
        for name in ("wi_0", "wi_1") if self.gated else ("wi",):
            self.add_module(name, nn.Linear(config.d_model, config.d_ff, bias=False))
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.activation = activation(config.dense_act_fn, "feed_forward_proj")

    def forward(self, x_BTD: Tensor) -> Tensor:
        if self.gated:
            inner = self.activation(self.wi_0(x_BTD)) * self.wi_1(x_BTD)
        else:
            inner = self.activation(self.wi(x_BTD))
        return self.wo(inner)  # type: ignore[no-any-return]  # torch


class T5DenseLayer(nn.Module):
    """x + dense(norm(x))."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.DenseReluDense = T5Dense(config)
        self.layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return within_range(x_BTD + self.DenseReluDense(self.layer_norm(x_BTD)))


class T5EncoderBlock(nn.Module):
    """Self-attention, MLP."""

    def __init__(self, config: Config, *, fused: bool, has_positions: bool) -> None:
        super().__init__()
        attention = T5SelfAttentionLayer(config, fused=fused, has_positions=has_positions)
        self.layer = nn.ModuleList([attention, T5DenseLayer(config)])

    def forward(self, x_BTD: Tensor, bias_BHTS: Tensor) -> Tensor:
        x_BTD = self.layer[0](x_BTD, bias_BHTS)[0]
        return self.layer[1](x_BTD)  # type: ignore[no-any-return]  # torch


class T5DecoderBlock(nn.Module):
    """Self-attention, attention over the encoder's output, MLP."""

    def __init__(self, config: Config, *, fused: bool, has_positions: bool) -> None:
        super().__init__()
        attention = T5SelfAttentionLayer(config, fused=fused, has_positions=has_positions)
        self.layer = nn.ModuleList([attention, T5CrossAttentionLayer(config), T5DenseLayer(config)])

    def forward(
        self,
        x_BTD: Tensor,
        bias_BHTS: Tensor,
        memory_BSD: Tensor,
        memory_mask: Tensor | None,
        past: LayerCache | None = None,
    ) -> tuple[Tensor, LayerCache]:
        x_BTD, *own = self.layer[0](x_BTD, bias_BHTS, past)
        x_BTD, *memory = self.layer[1](x_BTD, memory_BSD, memory_mask, past)
        return self.layer[2](x_BTD), LayerCache(*own, *memory)


class T5Encoder(nn.Module):
    """The blocks and the norm after them. Every token sees every token that is there."""

    def __init__(self, config: Config, fused: bool) -> None:
        super().__init__()
        blocks = [T5EncoderBlock(config, fused=fused, has_positions=at == 0) for at in range(config.num_layers)]
        self.block = nn.ModuleList(blocks)
        self.final_layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(self, x_BTD: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        if len(self.block):
            length = x_BTD.shape[1]
            mask = allowed_keys(attention_mask, length, length, causal=False, device=x_BTD.device)
            first: Any = self.block[0]
            bias_1HTT = first.layer[0].SelfAttention.position_bias(length, length, bidirectional=True)
            bias_BHTT = masked_bias(bias_1HTT, mask)
            for block in self.block:
                x_BTD = block(x_BTD, bias_BHTT)
        return EncoderOutput(self.final_layer_norm(x_BTD))


class T5Decoder(nn.Module):
    """The blocks and the norm after them. A token sees those before it, in the cache and beside it, and the whole memory."""

    def __init__(self, config: Config, fused: bool) -> None:
        super().__init__()
        blocks = [T5DecoderBlock(config, fused=fused, has_positions=at == 0) for at in range(config.num_decoder_layers)]
        self.block = nn.ModuleList(blocks)
        self.final_layer_norm = T5LayerNorm(config.d_model, config.layer_norm_epsilon)

    def forward(
        self,
        x_BTD: Tensor,
        memory_BSD: Tensor,
        attention_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        past: Cache | None = None,
    ) -> tuple[Tensor, Cache]:
        cache: list[LayerCache] = []
        if len(self.block):
            queries, device = x_BTD.shape[1], x_BTD.device
            keys = queries if past is None else queries + past[0].key_BHSK.shape[2]
            first: Any = self.block[0]
            bias = first.layer[0].SelfAttention.position_bias(queries, keys, bidirectional=False)
            bias = masked_bias(bias, allowed_keys(attention_mask, queries, keys, causal=False, device=device))
            if queries > 1:
                bias = masked_bias(
                    bias, torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
                )
            memory_mask = allowed_keys(memory_mask, queries, memory_BSD.shape[1], causal=False, device=device)
            for at, block in enumerate(self.block):
                x_BTD, kept = block(x_BTD, bias, memory_BSD, memory_mask, None if past is None else past[at])
                cache.append(kept)
        return self.final_layer_norm(x_BTD), tuple(cache)


class T5EncoderModel(nn.Module):
    """The embedding and the encoder alone."""

    def __init__(self, config: Config, *, fused: bool = False) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Encoder(config, fused)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> EncoderOutput:
        """`input_ids` and `attention_mask` [B T]."""
        return self.encoder(self.shared(input_ids), attention_mask)  # type: ignore[no-any-return]  # torch


class T5Model(nn.Module):
    """The embedding, the encoder and the decoder."""

    def __init__(self, config: Config, *, fused: bool = False) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = T5Encoder(config, fused)
        self.decoder = T5Decoder(config, fused)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Sequence[Tensor] | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool = False,
    ) -> Any:
        """Token ids and masks [B T], the decoder's too. `encoder_outputs`, where given, spares the encoder.

        With `past_key_values` the decoder's tokens are those that follow; `decoder_attention_mask` covers those before as well.
        """
        if decoder_input_ids is None or (input_ids is None and encoder_outputs is None):
            raise ValueError("give decoder_input_ids, and input_ids or the encoder_outputs that they lead to")
        if encoder_outputs is None:
            encoder_outputs = self.encoder(self.shared(input_ids), attention_mask)
        memory_BSD = encoder_outputs[0]
        x_BTD, cache = self.decoder(
            self.shared(decoder_input_ids), memory_BSD, decoder_attention_mask, attention_mask, past_key_values
        )
        return self.head(x_BTD, cache if use_cache else None, memory_BSD)

    def head(self, x_BTD: Tensor, cache: Cache | None, memory_BSD: Tensor) -> Any:
        """What comes out."""
        return T5Output(x_BTD, cache, memory_BSD)


class T5ForConditionalGeneration(T5Model):
    """The scores of the vocabulary: by the embedding's matrix, scaled (v1.0), or one of the head's own (v1.1)."""

    def __init__(self, config: Config, *, tied: bool = True, fused: bool = False) -> None:
        super().__init__(config, fused=fused)
        self.lm_head = None if tied else nn.Linear(config.d_model, config.vocab_size, bias=False)

    def head(self, x_BTD: Tensor, cache: Cache | None, memory_BSD: Tensor) -> LogitsOutput:
        if self.config.scale_decoder_outputs:
            x_BTD = x_BTD * self.config.d_model**-0.5
        logits_BTV = functional.linear(x_BTD, self.shared.weight) if self.lm_head is None else self.lm_head(x_BTD)
        return LogitsOutput(logits_BTV, cache, memory_BSD)

    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor | None = None, *, max_new_tokens: int = 20) -> Tensor:
        """The start token and the likeliest token after token [B, at most 1 + max_new_tokens]; the padding token after an end.

        Without a mask every token of the input is attended to, as in transformers.
        """
        ends = torch.tensor(self.config.eos_token_id, dtype=torch.long, device=input_ids.device)
        pad = self.config.pad_token_id
        memory = self.encoder(self.shared(input_ids), attention_mask)
        tokens_BT = input_ids.new_full((len(input_ids), 1), self.config.decoder_start_token_id)
        ended_B = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        past: Cache | None = None
        for _ in range(max_new_tokens):
            logits_BTV, past, _ = self(
                None, attention_mask, tokens_BT[:, -1:], encoder_outputs=memory, past_key_values=past, use_cache=True
            )
            next_B = logits_BTV[:, -1].argmax(-1).masked_fill(ended_B, pad)
            tokens_BT = torch.cat([tokens_BT, next_B[:, None]], dim=1)
            ended_B = ended_B | torch.isin(next_B, ends)
            if bool(ended_B.all()):
                break
        return tokens_BT


MODELS: dict[str, type[nn.Module]] = {
    f"{start}T5{end}": model
    for start in ("", "M")
    for end, model in (
        ("ForConditionalGeneration", T5ForConditionalGeneration),
        ("Model", T5Model),
        ("EncoderModel", T5EncoderModel),
    )
}


def from_config(config: Mapping[str, Any], *, fused: bool = False) -> nn.Module:
    """The model that a config.json is for, by its `architectures`, else T5ForConditionalGeneration; its head is tied. Weights are
    random."""
    named = next((name for name in config.get("architectures") or () if name in MODELS), "T5ForConditionalGeneration")
    return MODELS[named](Config.from_dict(config), fused=fused)


def build(config: Mapping[str, Any], names: Collection[str], *, fused: bool = False) -> nn.Module:
    """The model of a config.json that holds these tensors of t5/hf, and no others. Raises ValueError."""
    heads = {name.partition(".")[0] for name in names} & {"classification_head", "classifier", "qa_outputs"}
    if heads:
        raise ValueError(
            f"a T5 with {' and '.join(sorted(heads))} has no reference model; there are T5EncoderModel, T5Model and "
            "T5ForConditionalGeneration"
        )
    made = Config.from_dict(config)
    if not any(name.startswith("decoder.") for name in names):
        return T5EncoderModel(made, fused=fused)
    tied = "lm_head.weight" not in names
    if tied and any(MODELS.get(one) is T5Model for one in config.get("architectures") or ()):
        return T5Model(made, fused=fused)
    return T5ForConditionalGeneration(made, tied=tied, fused=fused)
