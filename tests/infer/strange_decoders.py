"""Conversions of decoders, as scripts of the field make them: fused attention in every order, experts, ranks, rotary halves."""

from __future__ import annotations

import re

import numpy as np
from conversions import BF16, Array, Arrays, Conversion, Maker, cast, changed, full

D, HEADS, KV, HEAD, FFN, VOCABULARY = 24, 6, 2, 4, 40, 50


def renamed(arrays: Arrays, *pairs: tuple[str, str]) -> Arrays:
    """The same tensors; every regular expression replaced in turn, as scripts do."""
    found: Arrays = {}
    for name, array in arrays.items():
        for pattern, replacement in pairs:
            name = re.sub(pattern, replacement, name)
        found[name] = array
    return found


def llama(m: Maker, count: int = 3, prefix: str = "model.", tied: bool = False, bias: bool = False) -> Arrays:
    """A Llama as transformers has it; grouped queries."""
    a: Arrays = {f"{prefix}embed_tokens.weight": m.w(VOCABULARY, D)}
    for layer in range(count):
        at = f"{prefix}layers.{layer}."
        for part, wide in (("q", HEADS), ("k", KV), ("v", KV)):
            a[f"{at}self_attn.{part}_proj.weight"] = m.w(wide * HEAD, D)
            if bias:
                a[f"{at}self_attn.{part}_proj.bias"] = m.b(wide * HEAD)
        a[f"{at}self_attn.o_proj.weight"] = m.w(D, HEADS * HEAD)
        a[f"{at}mlp.gate_proj.weight"] = m.w(FFN, D)
        a[f"{at}mlp.up_proj.weight"] = m.w(FFN, D)
        a[f"{at}mlp.down_proj.weight"] = m.w(D, FFN)
        a[f"{at}input_layernorm.weight"] = m.norm(D)
        a[f"{at}post_attention_layernorm.weight"] = m.norm(D)
    a[f"{prefix}norm.weight"] = m.norm(D)
    a["lm_head.weight"] = a[f"{prefix}embed_tokens.weight"] if tied else m.w(VOCABULARY, D)
    return a


LLAMA = {
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": HEAD,
    "hidden_size": D,
    "num_hidden_layers": 3,
}


def neox(m: Maker) -> Arrays:
    """GPT-NeoX: q, k and v per head; rotary and mask buffers."""
    a: Arrays = {"gpt_neox.embed_in.weight": m.w(VOCABULARY, D)}
    for layer in range(3):
        at = f"gpt_neox.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            a[f"{at}{norm}.weight"], a[f"{at}{norm}.bias"] = m.norm(D), m.b(D)
        a[f"{at}attention.bias"] = m.given(np.tril(np.ones((1, 1, 12, 12), bool)))
        a[f"{at}attention.rotary_emb.inv_freq"] = m.given((10000.0 ** -np.linspace(0, 1, 2)).astype(np.float32))
        a[f"{at}attention.query_key_value.weight"] = m.w(HEADS * 3 * HEAD, D)
        a[f"{at}attention.query_key_value.bias"] = m.b(HEADS * 3 * HEAD)
        a[f"{at}attention.dense.weight"], a[f"{at}attention.dense.bias"] = m.w(D, D), m.b(D)
        a[f"{at}mlp.dense_h_to_4h.weight"], a[f"{at}mlp.dense_h_to_4h.bias"] = m.w(4 * D, D), m.b(4 * D)
        a[f"{at}mlp.dense_4h_to_h.weight"], a[f"{at}mlp.dense_4h_to_h.bias"] = m.w(D, 4 * D), m.b(D)
    a["gpt_neox.final_layer_norm.weight"], a["gpt_neox.final_layer_norm.bias"] = m.norm(D), m.b(D)
    a["embed_out.weight"] = m.w(VOCABULARY, D)
    return a


def neox_split(a: Arrays) -> Arrays:
    """q, k and v taken apart per head; buffers left behind."""
    made: Arrays = {}
    for name, array in a.items():
        if name.endswith(("attention.bias", "inv_freq")):
            continue
        if "query_key_value" in name:
            parts = array.reshape(HEADS, 3, HEAD, *array.shape[1:])
            for number, part in enumerate("qkv"):
                made[name.replace("query_key_value", f"{part}_proj")] = parts[:, number].reshape(-1, *array.shape[1:])
        else:
            made[name] = array
    return renamed(
        made, ("gpt_neox.layers", "transformer.h"), ("gpt_neox.", "transformer."), ("dense_h_to_4h", "fc_in")
    )


def to_megatron(a: Arrays) -> Arrays:
    """Megatron-Core: one matrix for q, k, v by groups of queries; gate over up; the first norm belongs to the matrix after it."""
    made: Arrays = {}
    for name, array in a.items():
        at, _, rest = name.partition("self_attn.")
        if rest == "q_proj.weight":
            q = array.reshape(KV, HEADS // KV, HEAD, D)
            k, v = (a[f"{at}self_attn.{part}_proj.weight"].reshape(KV, 1, HEAD, D) for part in "kv")
            made[f"{at}self_attention.linear_qkv.weight"] = np.concatenate([q, k, v], axis=1).reshape(-1, D)
        elif rest == "o_proj.weight":
            made[f"{at}self_attention.linear_proj.weight"] = array
        elif name.endswith("gate_proj.weight"):
            up = a[name.replace("gate", "up")]
            made[name.replace("gate_proj", "linear_fc1")] = np.concatenate([array, up])
        elif not rest and "up_proj" not in name:
            made[name] = array
    return renamed(
        made, ("^model.layers", "decoder.layers"), ("^model.embed_tokens", "embedding.word_embeddings"),
        ("^model.norm", "decoder.final_layernorm"), ("^lm_head", "output_layer"), ("down_proj", "linear_fc2"),
        (r"input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight"),
        (r"post_attention_layernorm.weight", "mlp.linear_fc1.layer_norm_weight"),
    )  # fmt: skip


def to_phi3(a: Arrays) -> Arrays:
    """Phi-3: q, k, v one after another, unequal; gate and up."""
    made: Arrays = {}
    for name, array in a.items():
        if "q_proj" in name:
            parts = [a[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            made[name.replace("q_proj", "qkv_proj")] = np.concatenate(parts)
        elif "gate_proj" in name:
            made[name.replace("gate_proj", "gate_up_proj")] = np.concatenate([array, a[name.replace("gate", "up")]])
        elif not re.search("[kv]_proj|up_proj", name):
            made[name] = array
    return made


def halves(array: Array) -> Array:
    """Rows of each head from pairs to halves, as Meta's q and k are brought to transformers."""
    return array.reshape(-1, HEAD // 2, 2, D).swapaxes(1, 2).reshape(array.shape)


def pairs(array: Array) -> Array:
    """The other way: what llama.cpp does."""
    return array.reshape(-1, 2, HEAD // 2, D).swapaxes(1, 2).reshape(array.shape)


GGUF = (
    ("^model.embed_tokens", "token_embd"), ("^model.norm", "output_norm"), ("^lm_head", "output"), ("^model.layers", "blk"),
    ("self_attn.o_proj", "attn_output"), (r"self_attn.(.)_proj", r"attn_\1"), (r"mlp.(\w+)_proj", r"ffn_\1"),
    ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"),
)  # fmt: skip


def to_gguf(a: Arrays) -> Arrays:
    """llama.cpp's names; q and k reordered; matrices in half precision, norms not."""
    made = {name: pairs(array) if re.search("[qk]_proj", name) else array for name, array in a.items()}
    return renamed({name: cast(array, np.float16) if array.ndim > 1 else array for name, array in made.items()}, *GGUF)


def to_ranks(a: Arrays) -> Arrays:
    """Meta's two ranks as one file: rows of some matrices cut, columns of others, norms in both."""
    names = (
        ("^model.layers", "layers"), ("^model.norm", "norm"), ("^model.embed_tokens", "tok_embeddings"), ("^lm_head", "output"),
        (r"self_attn.(.)_proj", r"attention.w\1"), ("gate_proj", "w1"), ("down_proj", "w2"), ("up_proj", "w3"),
        ("mlp", "feed_forward"), ("input_layernorm", "attention_norm"), ("post_attention_layernorm", "ffn_norm"),
    )  # fmt: skip
    made: Arrays = {}
    for name, array in renamed(a, *names).items():
        rows = pairs(array) if re.search("w[qk]", name) else array
        for rank in range(2):
            axis = 1 if re.search("wo|w2|tok_embeddings", name) else 0
            made[f"rank_{rank:02}.{name}"] = rows if rows.ndim == 1 else np.split(rows, 2, axis)[rank]
    return made


def falcon(m: Maker) -> Arrays:
    """Falcon 7b: one key and one value for all heads, fused after the queries; one norm; no biases."""
    a: Arrays = {"transformer.word_embeddings.weight": m.w(VOCABULARY, D)}
    for layer in range(3):
        at = f"transformer.h.{layer}."
        a[f"{at}input_layernorm.weight"], a[f"{at}input_layernorm.bias"] = m.norm(D), m.b(D)
        a[f"{at}self_attention.query_key_value.weight"] = m.w((HEADS + 2) * HEAD, D)
        a[f"{at}self_attention.dense.weight"] = m.w(D, D)
        a[f"{at}mlp.dense_h_to_4h.weight"], a[f"{at}mlp.dense_4h_to_h.weight"] = m.w(4 * D, D), m.w(D, 4 * D)
    a["transformer.ln_f.weight"], a["transformer.ln_f.bias"] = m.norm(D), m.b(D)
    return a


def falcon_split(a: Arrays) -> Arrays:
    """q, k, v apart; the head tied by copying."""
    made: Arrays = {}
    for name, array in a.items():
        if "query_key_value" in name:
            q, k, v = np.split(array, [HEADS * HEAD, (HEADS + 1) * HEAD])
            for part, rows in (("q", q), ("k", k), ("v", v)):
                made[name.replace("query_key_value", f"w{part}")] = rows.T
        else:
            made[name] = array.T if array.ndim == 2 and "embeddings" not in name else array
    made["lm_head.weight"] = a["transformer.word_embeddings.weight"]
    return renamed(made, ("self_attention", "attn"), ("dense_h_to_4h", "c_fc"), ("dense_4h_to_h", "c_proj"))


def bloom_blocked(a: Arrays) -> Arrays:
    """Bloom's q, k, v from per head to one after another, and the rest under other names."""
    made = {
        name: array.reshape(HEADS, 3, HEAD, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
        if "query_key_value" in name
        else array
        for name, array in a.items()
        if not name.endswith(("attention.bias", "inv_freq"))
    }
    return renamed(made, ("gpt_neox.", "bloom."), ("query_key_value", "in_proj"), (r"in_proj\.(\w+)", r"in_proj_\1"))


def codegen(m: Maker) -> Arrays:
    """CodeGen: q, v, k (in this order) in each of four slices."""
    a: Arrays = {"transformer.wte.weight": m.w(VOCABULARY, 32)}
    for layer in range(2):
        at = f"transformer.h.{layer}."
        a[f"{at}ln_1.weight"], a[f"{at}ln_1.bias"] = m.norm(32), m.b(32)
        a[f"{at}attn.qkv_proj.weight"], a[f"{at}attn.out_proj.weight"] = m.w(96, 32), m.w(32, 32)
        a[f"{at}mlp.fc_in.weight"], a[f"{at}mlp.fc_in.bias"] = m.w(64, 32), m.b(64)
        a[f"{at}mlp.fc_out.weight"], a[f"{at}mlp.fc_out.bias"] = m.w(32, 64), m.b(32)
    return a


def codegen_split(a: Arrays) -> Arrays:
    """q, k and v apart, transposed as GPT-2's Conv1D."""
    made: Arrays = {}
    for name, array in a.items():
        if "qkv_proj" in name:
            sliced = array.reshape(4, 3, 8, 32)
            for number, part in enumerate("qvk"):
                made[name.replace("qkv", part)] = sliced[:, number].reshape(32, 32)
        else:
            made[name] = array.T if ".fc_" in name else array
    return made


def mla(m: Maker) -> Arrays:
    """DeepSeek: compressed keys and values; a dense first layer, experts after it."""
    heads, nope, rope, value, rank, experts, wide = 3, 5, 2, 4, 7, 4, 6
    a: Arrays = {"model.embed_tokens.weight": m.w(VOCABULARY, D)}
    for layer in range(3):
        at = f"model.layers.{layer}."
        a[f"{at}input_layernorm.weight"], a[f"{at}post_attention_layernorm.weight"] = m.norm(D), m.norm(D)
        a[f"{at}self_attn.q_proj.weight"] = m.w(heads * (nope + rope), D)
        a[f"{at}self_attn.kv_a_proj_with_mqa.weight"] = m.w(rank + rope, D)
        a[f"{at}self_attn.kv_a_layernorm.weight"] = m.norm(rank)
        a[f"{at}self_attn.kv_b_proj.weight"] = m.w(heads * (nope + value), rank)
        a[f"{at}self_attn.o_proj.weight"] = m.w(D, heads * value)
        blocks = (
            {"": 11} if layer == 0 else {f"experts.{e}.": wide for e in range(experts)} | {"shared_experts.": 2 * wide}
        )
        for block, size in blocks.items():
            a[f"{at}mlp.{block}gate_proj.weight"], a[f"{at}mlp.{block}up_proj.weight"] = m.w(size, D), m.w(size, D)
            a[f"{at}mlp.{block}down_proj.weight"] = m.w(D, size)
        if layer:
            a[f"{at}mlp.gate.weight"], a[f"{at}mlp.gate.e_score_correction_bias"] = m.w(experts, D), m.b(experts)
    a["model.norm.weight"], a["lm_head.weight"] = m.norm(D), m.w(VOCABULARY, D)
    return a


def mla_absorbed(a: Arrays) -> Arrays:
    """llama.cpp's: kv_b cut into k_b (transposed within each head) and v_b, experts stacked."""
    made: Arrays = {}
    for name, array in a.items():
        if "kv_b_proj" in name:
            kv = array.reshape(3, 9, 7)
            made[name.replace("kv_b_proj", "k_b")] = kv[:, :5].transpose(0, 2, 1)
            made[name.replace("kv_b_proj", "v_b")] = kv[:, 5:]
        elif "experts.0." in name:
            each = [a[name.replace("experts.0.", f"experts.{e}.")] for e in range(4)]
            made[re.sub(r"experts\.0\.(\w+)_proj", r"\1_exps", name)] = np.stack(each)
        elif not re.search(r"experts\.\d", name):
            made[name] = array
    names = (
        ("shared_experts.(.*)_proj", r"\1_shexp"),
        ("gate.e_score_correction_bias", "exp_probs_b"),
        ("mlp.gate.w", "gate_inp.w"),
    )
    return renamed(made, ("model.layers", "blk"), *names)


def moe(m: Maker) -> Arrays:
    """Qwen's mixture: four experts a layer, a shared one with a gate of its own."""
    a = {name: array for name, array in llama(m, 2, bias=True).items() if "mlp" not in name}
    for layer in range(2):
        at = f"model.layers.{layer}.mlp."
        a[f"{at}gate.weight"], a[f"{at}shared_expert_gate.weight"] = m.w(4, D), m.w(1, D)
        for block, size in [(f"experts.{e}", 10) for e in range(4)] + [("shared_expert", 14)]:
            a[f"{at}{block}.gate_proj.weight"], a[f"{at}{block}.up_proj.weight"] = m.w(size, D), m.w(size, D)
            a[f"{at}{block}.down_proj.weight"] = m.w(D, size)
    return a


def moe_stacked(a: Arrays) -> Arrays:
    """Experts stacked and transposed, gate beside up; the shared gate a vector."""
    made: Arrays = {}
    for name, array in a.items():
        if "experts.0.gate_proj" in name:
            up = name.replace("gate_proj", "up_proj")
            each = [np.concatenate([a[n.replace(".0.gate", f".{e}.gate").replace(".0.up", f".{e}.up")] for n in (name, up)]).T for e in range(4)]  # fmt: skip
            made[name.replace("experts.0.gate_proj.weight", "experts.gate_up")] = np.stack(each)
        elif "experts.0.down_proj" in name:
            each = [a[name.replace(".0.down", f".{e}.down")].T for e in range(4)]
            made[name.replace("experts.0.down_proj.weight", "experts.down")] = np.stack(each)
        elif "shared_expert_gate" in name:
            made[name] = array[0]
        elif not re.search(r"experts\.\d", name):
            made[name] = array
    return renamed(made, ("mlp.gate.weight", "mlp.router.weight"), ("model.layers", "stack"))


def interleaved(a: Arrays) -> Arrays:
    """gate and up in turn, row by row."""
    made: Arrays = {}
    for name, array in a.items():
        if "gate_proj" in name:
            both = np.stack([array, a[name.replace("gate", "up")]], axis=1)
            made[name.replace("gate_proj", "gate_up_proj")] = both.reshape(-1, D)
        elif "up_proj" not in name:
            made[name] = array
    return made


def scaled_queries(a: Arrays) -> Arrays:
    """The attention's scale put into the queries (head size 4: an exact half)."""
    return {
        name: changed(array, lambda values: values * np.float32(HEAD**-0.5)) if "q_proj" in name else array
        for name, array in renamed(a, ("model.", "decoder.")).items()
    }


def scaled_inexactly(a: Arrays) -> Arrays:
    """The same for heads of 24: a factor that rounds."""
    factor = np.float32(24**-0.5)
    return {
        name: changed(array, lambda values: values * factor) if "q_proj" in name else array
        for name, array in renamed(a, ("model.", "decoder.")).items()
    }


def gemma(a: Arrays) -> Arrays:
    """Norms stored as 1 + w, where the source holds w."""
    made = {
        name: changed(array, lambda values: values + np.float32(1)) if "norm" in name else array
        for name, array in a.items()
    }
    return renamed(made, (r"layernorm.weight", "norm.scale"), ("norm.weight", "norm.scale"))


def padded(a: Arrays) -> Arrays:
    """The vocabulary padded with zeros to a multiple of 64."""
    made = dict(a)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        made[name] = np.concatenate([a[name], full((64 - VOCABULARY, D), 0, a[name])])
    return renamed(made, ("^model.", ""))


def to_bf16(a: Arrays) -> Arrays:
    """Every tensor rounded to bfloat16."""
    return {name: cast(array, BF16) for name, array in renamed(a, ("self_attn", "attention")).items()}


def to_f32(a: Arrays) -> Arrays:
    """Every tensor widened to float32, matrices transposed."""
    return {
        name.replace("weight", "kernel"): cast(array.T if "proj" in name else array, np.float32)
        for name, array in a.items()
    }


def opaque(a: Arrays) -> Arrays:
    """Names that say nothing, as old savers wrote them: in the order of the source, matrices transposed."""
    return {
        f"Variable_{number}" if number else "Variable": array.T if "proj" in name else array
        for number, (name, array) in enumerate(a.items())
    }


def reversed_layers(a: Arrays) -> Arrays:
    """The last layer first."""
    return {
        re.sub(r"layers\.(\d+)", lambda found: f"blocks.{11 - int(found[1])}", name): array for name, array in a.items()
    }


def counted_from_one(a: Arrays) -> Arrays:
    """Layers from 1, with two digits."""
    return {
        re.sub(r"model\.layers\.(\d+)\.", lambda found: f"layer_{int(found[1]) + 1:02}/", name).replace(".", "/"): array
        for name, array in a.items()
    }


def numbered(a: Arrays) -> Arrays:
    """`p0`, `p1`, … in the order of the names."""
    return {f"p{number}": a[name] for number, name in enumerate(sorted(a))}


def untied(a: Arrays) -> Arrays:
    """The head, equal to the embedding, is left out."""
    return {name: array for name, array in renamed(a, ("embed_tokens", "wte")).items() if name != "lm_head.weight"}


def tied_thrice(a: Arrays) -> Arrays:
    """The embedding written three times."""
    embedding = a["model.embed_tokens.weight"]
    return {**a, "encoder.embed_tokens.weight": embedding, "shared.weight": embedding}


DECODERS = (
    Conversion("neox to split", neox, neox_split),
    Conversion("llama to megatron", llama, to_megatron, config=LLAMA),
    Conversion("llama to phi3", lambda m: llama(m, bias=True), to_phi3, config=LLAMA),
    Conversion("llama to gguf", llama, to_gguf, config=LLAMA),
    Conversion("llama to ranks", llama, to_ranks, config=LLAMA),
    Conversion("falcon to split", falcon, falcon_split),
    Conversion("bloom to blocked", neox, bloom_blocked),
    Conversion("codegen to split", codegen, codegen_split),
    Conversion("deepseek to absorbed", mla, mla_absorbed),
    Conversion("moe to stacked", moe, moe_stacked),
    Conversion("gate and up interleaved", lambda m: llama(m, bias=True), interleaved),
    Conversion("queries scaled", llama, scaled_queries),
    Conversion("queries scaled inexactly", llama, scaled_inexactly),
    Conversion("norms one more", llama, gemma),
    Conversion("vocabulary padded", llama, padded),
    Conversion("f32 to bf16", llama, to_bf16),
    Conversion("bf16 to f32", llama, to_f32, dtype=BF16),
    Conversion("f64 to f32", llama, to_f32, dtype=np.float64),
    Conversion("opaque names", llama, opaque),
    Conversion("layers reversed", lambda m: llama(m, 12), reversed_layers, telling=False),
    Conversion("layers from one", lambda m: llama(m, 12), counted_from_one),
    Conversion("numbers for names", llama, numbered),
    Conversion("tied dropped", lambda m: llama(m, tied=True), untied),
    Conversion("tied thrice", llama, tied_thrice),
)
