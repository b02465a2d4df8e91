"""What a GGUF file says of its model, in the words of a config.json: sizes and numbers, not what llama.cpp leaves unsaid."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError
from isomorph.formats.gguf.read import MAGIC, Header
from isomorph.formats.gguf.values import PREFIX, as_metadata
from isomorph.formats.source import open_source
from isomorph.stores.url import is_remote

ARCHITECTURE = "general.architecture"

OF_MODEL = {
    "block_count": "num_hidden_layers", "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim", "context_length": "max_position_embeddings", "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps", "attention.layer_norm_epsilon": "layer_norm_eps",
    "vocab_size": "vocab_size", "expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok",
}  # fmt: skip
"""`llama.block_count` -> `num_hidden_layers`: keys below the architecture's name. (Names: gguf-py/gguf/constants.py, Keys.)"""

OF_TOKENIZER = {"tokenizer.ggml.bos_token_id": "bos_token_id", "tokenizer.ggml.eos_token_id": "eos_token_id"}

MODEL_TYPES = {
    "qwen2": "qwen2", "qwen3": "qwen3", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "phi3": "phi3", "falcon": "falcon",
    "bloom": "bloom", "gpt2": "gpt2", "gptneox": "gpt_neox", "t5": "t5",
}  # fmt: skip
"""Architectures that are one model of transformers. `llama` is not: Mistral and Mixtral are filed under it as well."""


def config_inside(path: Path) -> dict[str, Any] | None:
    """The config that a GGUF file holds; None for other files, for one that cannot be read, and where it says nothing."""
    if is_remote(path) and path.suffix != ".gguf":
        return None  # a look at its first bytes would cost a request
    try:
        with contextlib.closing(open_source(path)) as source:
            if source.size < len(MAGIC) or source.read(0, len(MAGIC)) != MAGIC:
                return None
            return (
                config_of_values(as_metadata({k: v for k, v in Header(source).values.items() if len(v.raw) <= 64}))
                or None
            )
    except (FormatError, OSError):
        return None  # opening it says what is wrong


def config_of_values(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Typed values, as texts, in the words of a config."""
    kind, _, architecture = metadata.get(PREFIX + ARCHITECTURE, "").partition(" ")
    if kind != "string":
        return {}
    made: dict[str, Any] = {}
    if architecture in MODEL_TYPES:
        made["model_type"] = MODEL_TYPES[architecture]
    wanted = {f"{architecture}.{key}": name for key, name in OF_MODEL.items()}
    for key, name in {**wanted, **OF_TOKENIZER}.items():
        kind, _, text = metadata.get(PREFIX + key, "").partition(" ")
        if kind in ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64") and "base64" not in text:
            made[name] = json.loads(text)
    return made
