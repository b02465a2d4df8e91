"""Decoders by hand: small real models, and what each other library makes of their tensors, row by row, without a morph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from contrastive import Arrays, quiet_transformers, randomised

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB = 3, 24, 6, 2, 8, 28, 37
EXPERTS, EXPERT_FFN, SHARED_FFN = 4, 12, 20
SIZES = {
    "num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM, "intermediate_size": FFN, "vocab_size": VOCAB, "max_position_embeddings": 32,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "rms_norm_eps": 1e-5,
}  # fmt: skip
EXPERT_SIZES = {"moe_intermediate_size": EXPERT_FFN, "num_experts": EXPERTS, "num_experts_per_tok": 2}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mixtral": ("Mixtral", {"num_local_experts": EXPERTS}),
    "qwen2_moe": ("Qwen2Moe", {**EXPERT_SIZES, "shared_expert_intermediate_size": SHARED_FFN, "mlp_only_layers": [1]}),
    "qwen3_moe": ("Qwen3Moe", EXPERT_SIZES),
    "phi3": ("Phi3", {"sliding_window": None}),
}


def made(family: str, head: str = "ForCausalLM", **config: Any) -> Any:
    """A small model of that class; every parameter is random, the same whenever it is made."""
    transformers = quiet_transformers()
    prefix, own = FAMILIES[family]
    sized = getattr(transformers, prefix + "Config")(**{**SIZES, **own, **config})
    return randomised(getattr(transformers, prefix + head)(sized), seed=7)


def rotated(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """transformers' rows of q or k (first halves of the rotary pairs, then second halves) with each pair side by side."""
    size = len(rows) // heads
    half = size // 2
    order = [head * size + second * half + pair for head in range(heads) for pair in range(half) for second in (0, 1)]
    return np.stack([rows[row] for row in order])


def renamed(hub: Mapping[str, Any], *table: tuple[str, str]) -> Arrays:
    """Every name with the parts of it replaced, in order."""
    made: Arrays = {}
    for name, array in hub.items():
        for before, after in table:
            name = name.replace(before, after)
        assert name not in made
        made[name] = array
    return made


def turned(arrays: Mapping[str, Any], q: str, k: str, heads: int = HEADS, kv_heads: int = KV_HEADS) -> Arrays:
    """The tensors of q and of k, known by a part of their names, with rotary pairs side by side."""
    return {
        name: rotated(array, heads) if q in name else rotated(array, kv_heads) if k in name else array
        for name, array in arrays.items()
    }


OF_META = (
    ("model.embed_tokens", "tok_embeddings"), ("model.layers", "layers"), ("model.norm", "norm"), ("lm_head", "output"),
    ("self_attn.q_proj", "attention.wq"), ("self_attn.k_proj", "attention.wk"),
    ("self_attn.v_proj", "attention.wv"), ("self_attn.o_proj", "attention.wo"),
    ("input_layernorm", "attention_norm"), ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "feed_forward.w1"), ("mlp.down_proj", "feed_forward.w2"), ("mlp.up_proj", "feed_forward.w3"),
    ("block_sparse_moe", "feed_forward"),
)  # fmt: skip
OF_GGUF = (
    ("model.embed_tokens", "token_embd"), ("model.layers", "blk"), ("model.norm", "output_norm"), ("lm_head", "output"),
    ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"), ("self_attn.o_proj", "attn_output"), ("mlp.gate_up_proj", "ffn_up"),
    ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"), ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"), ("mlp.gate.", "ffn_gate_inp."),
    ("block_sparse_moe.gate.", "ffn_gate_inp."),
    ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"),
)  # fmt: skip
OF_LITGPT = (
    ("model.embed_tokens", "transformer.wte"), ("model.layers", "transformer.h"), ("model.norm", "transformer.ln_f"),
    ("self_attn.o_proj", "attn.proj"), ("self_attn.qkv_proj", "attn.qkv"), ("input_layernorm", "norm_1"),
    ("post_attention_layernorm", "norm_2"), ("self_attn.q_norm", "attn.norm_q"), ("self_attn.k_norm", "attn.norm_k"),
    ("gate_proj", "fc_1"), ("up_proj", "fc_2"), ("down_proj", "proj"), ("block_sparse_moe", "mlp"),
    (".w1.", ".fc_1."), (".w3.", ".fc_2."), (".w2.", ".proj."),
)  # fmt: skip
OF_TORCHTUNE = (
    ("model.embed_tokens", "tok_embeddings"), ("model.layers", "layers"), ("model.norm.weight", "norm.scale"),
    ("lm_head", "output"), ("self_attn.o_proj", "attn.output_proj"), ("self_attn", "attn"),
    ("q_norm.weight", "q_norm.scale"), ("k_norm.weight", "k_norm.scale"),
    ("input_layernorm.weight", "sa_norm.scale"), ("post_attention_layernorm.weight", "mlp_norm.scale"),
    ("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3"),
)  # fmt: skip


def meta(hub: Arrays, heads: int = HEADS, kv_heads: int = KV_HEADS) -> Arrays:
    return turned(renamed(hub, *OF_META), ".wq.", ".wk.", heads, kv_heads)


def meta_tied(hub: Arrays) -> Arrays:
    return {**meta(hub), "output.weight": hub["model.embed_tokens.weight"]}


def meta_ranks(hub: Arrays, ranks: int, cut_embedding_at: int, heads: int, kv_heads: int) -> Arrays:
    """Meta's one file, cut over several."""
    along = {
        "wo": 1,
        "w2": 1,
        "wq": 0,
        "wk": 0,
        "wv": 0,
        "w1": 0,
        "w3": 0,
        "output": 0,
        "tok_embeddings": cut_embedding_at,
    }
    found: Arrays = {}
    for name, array in meta(hub, heads, kv_heads).items():
        axis = along.get(name.split(".")[-2])
        for rank in range(ranks):
            size = 0 if axis is None else array.shape[axis] // ranks
            part = array if axis is None else array.take(range(rank * size, rank * size + size), axis)
            found[f"consolidated.{rank:02}::{name}"] = part
    return found


def gguf(hub: Arrays) -> Arrays:
    return turned(renamed(hub, *OF_GGUF), ".attn_q.", ".attn_k.")


def gguf_unturned(hub: Arrays) -> Arrays:
    return stacked(renamed(hub, *OF_GGUF), "mlp.experts", {p: f"ffn_{p.removesuffix('_proj')}_exps" for p in GATED})


GATED = ("gate_proj", "up_proj", "down_proj")


def stacked(arrays: Arrays, at: str, becomes: Mapping[str, str]) -> Arrays:
    """Experts called `….{at}.{e}.{p}.weight` put into one tensor `….{becomes[p]}.weight`."""
    found = {name: array for name, array in arrays.items() if f".{at}." not in name}
    for name, array in arrays.items():
        if f".{at}.0." in name:
            before, after = name.split(f".{at}.0.")
            part = after.removesuffix(".weight")
            each = [arrays[f"{before}.{at}.{expert}.{after}"] for expert in range(EXPERTS)]
            found[f"{before}.{becomes[part]}.weight"] = np.stack(each)
            assert array is each[0]
    return found


def gguf_mixtral(hub: Arrays) -> Arrays:
    return stacked(
        gguf(hub), "block_sparse_moe.experts", {"w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps"}
    )


def gguf_mixtral_per_expert(hub: Arrays) -> Arrays:
    found: Arrays = {}
    for name, array in gguf(hub).items():
        if ".experts." in name:
            layer, _, expert, part = (
                name.removeprefix("blk.").removesuffix(".weight").replace("block_sparse_moe.", "").split(".")
            )
            name = f"blk.{layer}.ffn_{ {'w1': 'gate', 'w3': 'up', 'w2': 'down'}[part] }.{expert}.weight"
        found[name] = array
    return found


def squeezed(hub: Arrays) -> Arrays:
    return {k: v[0] if "ffn_gate_inp_shexp" in k else v for k, v in gguf_unturned(hub).items()}


def litgpt(hub: Arrays) -> Arrays:
    """q above k above v."""
    found = renamed({k: v for k, v in hub.items() if not _is_qkv(k)}, *OF_LITGPT)
    for name, q, k, v in _qkv(hub):
        found[name.replace("model.layers", "transformer.h").replace("self_attn", "attn.qkv")] = np.concatenate(
            [q, k, v]
        )
    return found


def litgpt_tied(hub: Arrays) -> Arrays:
    return {**litgpt(hub), "lm_head.weight": hub["model.embed_tokens.weight"]}


def litgpt_interleaved(hub: Arrays) -> Arrays:
    """For every key/value head: its query heads, k, v."""
    found = renamed({k: v for k, v in hub.items() if not _is_qkv(k)}, *OF_LITGPT)
    for name, q, k, v in _qkv(hub):
        rows: list[Any] = []
        for group in range(KV_HEADS):
            many = HEADS // KV_HEADS * HEAD_DIM
            rows += [*q[group * many : (group + 1) * many]]
            rows += [*k[group * HEAD_DIM : (group + 1) * HEAD_DIM], *v[group * HEAD_DIM : (group + 1) * HEAD_DIM]]
        found[name.replace("model.layers", "transformer.h").replace("self_attn", "attn.attn")] = np.stack(rows)
    return found


def _is_qkv(name: str) -> bool:
    return any(f".{p}_proj." in name for p in "qkv")


def _qkv(hub: Arrays) -> list[tuple[str, Any, Any, Any]]:
    return [
        (
            name.replace(".q_proj", ""),
            array,
            hub[name.replace("q_proj", "k_proj")],
            hub[name.replace("q_proj", "v_proj")],
        )
        for name, array in hub.items()
        if ".q_proj." in name
    ]


def torchtune(hub: Arrays) -> Arrays:
    return turned(torchtune_unturned(hub), ".q_proj.", ".k_proj.")


def torchtune_unturned(hub: Arrays) -> Arrays:
    return renamed(hub, *OF_TORCHTUNE)


def flax(hub: Arrays) -> Arrays:
    found: Arrays = {}
    for name, array in hub.items():
        if name == "model.embed_tokens.weight":
            found["model/embed_tokens/embedding"] = array
        elif array.ndim == 2:
            found[name.replace(".", "/").removesuffix("weight") + "kernel"] = np.ascontiguousarray(array.T)
        else:
            found[name.replace(".", "/")] = array
    return found


def paddle(hub: Arrays, prefix: str) -> Arrays:
    """PaddleNLP's names: every Linear turned over, the embedding not."""
    return {
        name.replace("model.", f"{prefix}."): array
        if array.ndim < 2 or "embed_tokens" in name
        else np.ascontiguousarray(array.T)
        for name, array in hub.items()
    }


def paddle_tied(hub: Arrays, prefix: str) -> Arrays:
    return {**paddle(hub, prefix), "lm_head.weight": hub["model.embed_tokens.weight"]}


def hf_qa(hub: Arrays) -> Arrays:
    return renamed({k: v for k, v in hub.items() if k != "lm_head.weight"}, ("model.", "transformer."))


OF_MEGATRON = (
    ("model.embed_tokens", "embedding.word_embeddings"), ("model.layers", "decoder.layers"), ("lm_head", "output_layer"),
    ("model.norm", "decoder.final_layernorm"), ("self_attn.o_proj", "self_attention.linear_proj"),
    ("self_attn.q_norm", "self_attention.q_layernorm"), ("self_attn.k_norm", "self_attention.k_layernorm"),
    ("input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight"),
    ("mlp.down_proj", "mlp.linear_fc2"), ("mlp.gate.", "mlp.router."), ("block_sparse_moe.gate.", "mlp.router."),
)  # fmt: skip


def megatron_core(hub: Arrays) -> Arrays:
    """q, k, v by key/value head; gate above up; norms inside the layer that they feed, but not inside experts."""
    sparse = any("experts" in name for name in hub)
    norm = "pre_mlp_layernorm.weight" if sparse else "mlp.linear_fc1.layer_norm_weight"
    rest = {k: v for k, v in litgpt_interleaved(hub).items() if ".attn.attn." in k}
    found = renamed(rest, ("transformer.h", "decoder.layers"), ("attn.attn", "self_attention.linear_qkv"))
    for name, array in hub.items():
        if _is_qkv(name) or any(f".{part}." in name for part in ("up_proj", "w3")):
            continue
        if any(f".{part}." in name for part in ("gate_proj", "w1")):
            array = np.concatenate([array, hub[name.replace("gate_proj", "up_proj").replace(".w1.", ".w3.")]])
        if ".experts." in name:
            layer, expert, part = name.split(".")[2], name.split(".")[5], name.split(".")[6]
            number = 2 if part in ("down_proj", "w2") else 1
            name = f"decoder.layers.{layer}.mlp.experts.linear_fc{number}.weight{expert}"
        name = name.replace("post_attention_layernorm.weight", norm).replace("mlp.gate_proj", "mlp.linear_fc1")
        found |= renamed({name: array}, *OF_MEGATRON)
    return found


def fused(hub: Arrays) -> Arrays:
    """q above k above v, gate above up."""
    parts = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    found = {k: v for k, v in hub.items() if not any(f".{p}." in k for p in parts)}
    for name, q, k, v in _qkv(hub):
        found[name.replace("self_attn", "self_attn.qkv_proj")] = np.concatenate([q, k, v])
    for name, gate in hub.items():
        if ".gate_proj." in name:
            found[name.replace("gate_proj", "gate_up_proj")] = np.concatenate([gate, hub[name.replace("gate", "up")]])
    return found


def split_phi3(hub: Arrays) -> Arrays:
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    found: Arrays = {}
    for name, array in hub.items():
        if ".qkv_proj." in name:
            parts = {"q": array[:q], "k": array[q : q + kv], "v": array[q + kv :]}
            found.update({name.replace("qkv", part): rows for part, rows in parts.items()})
        elif ".gate_up_proj." in name:
            found[name.replace("gate_up", "gate")] = array[:FFN]
            found[name.replace("gate_up", "up")] = array[FFN:]
        else:
            found[name] = array
    return found


def litgpt_phi3(hub: Arrays) -> Arrays:
    whole = {k: v for k, v in hub.items() if ".gate_up_proj." not in k}
    parts = {k: v for k, v in split_phi3(hub).items() if ".gate_proj." in k or ".up_proj." in k}
    return renamed({**whole, **parts}, *OF_LITGPT)


def mistral_stacked(hub: Arrays) -> Arrays:
    """The experts one below the other, w2 turned over."""
    found: Arrays = {}
    for name, array in meta(hub).items():
        if ".experts." not in name:
            found[name.replace("feed_forward", "block_sparse_moe")] = array
        elif ".experts.0." in name:
            part = name.split(".")[-2]
            each = [meta(hub)[name.replace(".experts.0.", f".experts.{e}.")] for e in range(EXPERTS)]
            rows = [np.ascontiguousarray(one.T) if part == "w2" else one for one in each]
            found[name.split(".feed_forward")[0] + f".block_sparse_moe.{part}"] = np.concatenate(rows)
    return found


Hand = Callable[[Arrays], Arrays]
BY_HAND: dict[str, tuple[Hand, dict[str, int]]] = {
    "llama/meta": (meta, {"heads": HEADS}),
    "llama/litgpt": (litgpt, {}),
    "llama/litgpt_interleaved": (litgpt_interleaved, {"kv_heads": KV_HEADS, "group": HEADS // KV_HEADS}),
    "llama/gguf": (gguf, {"kv_heads": KV_HEADS}),
    "llama/torchtune": (torchtune, {"half": HEAD_DIM // 2}),
    "llama/flax": (flax, {}),
    "llama/paddle": (lambda hub: paddle(hub, "llama"), {}),
    "mistral/mistral": (meta, {"heads": HEADS}),
    "mistral/litgpt": (litgpt, {}),
    "mistral/litgpt_interleaved": (litgpt_interleaved, {"kv_heads": KV_HEADS, "group": HEADS // KV_HEADS}),
    "mistral/gguf": (gguf, {"heads": HEADS}),
    "mistral/torchtune": (torchtune, {"heads": HEADS}),
    "mistral/flax": (flax, {}),
    "qwen2/litgpt": (litgpt, {}),
    "qwen2/gguf": (gguf_unturned, {}),
    "qwen2/torchtune": (torchtune_unturned, {}),
    "qwen2/paddle": (lambda hub: paddle(hub, "qwen2"), {}),
    "mistral/paddle": (lambda hub: paddle(hub, "mistral"), {}),
    "qwen3/litgpt": (litgpt, {}),
    "qwen3/gguf": (gguf_unturned, {}),
    "qwen3/torchtune": (torchtune_unturned, {}),
    "llama/fused": (fused, {}),
    "mistral/fused": (fused, {}),
    "llama/megatron_core": (megatron_core, {"kv_heads": KV_HEADS, "group": HEADS // KV_HEADS}),
    "mistral/megatron_core": (megatron_core, {"kv_heads": KV_HEADS, "head_dim": HEAD_DIM}),
    "qwen2/megatron_core": (megatron_core, {"kv_heads": KV_HEADS, "head_dim": HEAD_DIM}),
    "qwen3/megatron_core": (megatron_core, {"kv_heads": KV_HEADS, "group": HEADS // KV_HEADS}),
    "mixtral/megatron_core": (megatron_core, {"kv_heads": KV_HEADS, "head_dim": HEAD_DIM}),
    "qwen3_moe/megatron_core": (megatron_core, {"kv_heads": KV_HEADS, "head_dim": HEAD_DIM}),
    "mixtral/mistral": (meta, {"heads": HEADS}),
    "mixtral/mistral_stacked": (mistral_stacked, {"heads": HEADS, "experts": EXPERTS}),
    "mixtral/litgpt": (litgpt, {}),
    "mixtral/gguf": (gguf_mixtral, {"heads": HEADS}),
    "mixtral/gguf_per_expert": (gguf_mixtral_per_expert, {"heads": HEADS}),
    "qwen2_moe/gguf": (gguf_unturned, {}),
    "qwen2_moe/gguf_squeezed": (squeezed, {}),
    "qwen3_moe/gguf": (gguf_unturned, {}),
    "qwen3_moe/litgpt": (litgpt, {}),
    "phi3/split": (split_phi3, {}),
    "phi3/litgpt": (litgpt_phi3, {}),
    "phi3/gguf": (gguf_unturned, {}),
    "phi3/torchtune": (lambda hub: torchtune_unturned(split_phi3(hub)), {}),
}
"""Each layout: its tensors by hand, and the sizes that shapes cannot tell and a person gives."""


def meta_logits(weights: Mapping[str, Any], tokens: Any) -> Any:
    """The forward pass of Meta's and Mistral's own code: pairs of neighbours are complex numbers, turned by their position."""
    import torch

    def normed(x: Any, name: str) -> Any:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + SIZES["rms_norm_eps"]) * weights[name]

    def heads(x: Any, name: str, number: int) -> Any:
        return (x @ weights[name].T).view(len(x), number, HEAD_DIM)

    def turn(x: Any) -> Any:
        angles = torch.outer(
            torch.arange(len(x)).float(), 10000.0 ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        )
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(-2)

    x = weights["tok_embeddings.weight"][tokens]
    hidden = torch.full((len(tokens), len(tokens)), float("-inf")).triu(1)
    for layer in range(LAYERS):
        at = f"layers.{layer}."
        y = normed(x, at + "attention_norm.weight")
        q = turn(heads(y, at + "attention.wq.weight", HEADS))
        k = turn(heads(y, at + "attention.wk.weight", KV_HEADS)).repeat_interleave(HEADS // KV_HEADS, 1)
        v = heads(y, at + "attention.wv.weight", KV_HEADS).repeat_interleave(HEADS // KV_HEADS, 1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / HEAD_DIM**0.5 + hidden
        mixed = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1)
        x = x + mixed @ weights[at + "attention.wo.weight"].T
        y = normed(x, at + "ffn_norm.weight")
        w1, w2, w3 = (weights[at + f"feed_forward.w{n}.weight"] for n in (1, 2, 3))
        x = x + (torch.nn.functional.silu(y @ w1.T) * (y @ w3.T)) @ w2.T
    return normed(x, "norm.weight") @ weights["output.weight"].T
