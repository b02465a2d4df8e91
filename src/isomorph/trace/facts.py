"""Configs -> the sizes and special tokens that inputs are made from. Keys are data; nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What inputs depend on; None where it is not known.

    `image` and `patch` are (height, width); `positions` is the most tokens, `decoder_positions` of a decoder that has its own.
    `width` is that of vectors, for models that take them in the place of tokens; `rank` 3 where these have an axis of positions,
    else 2.
    """

    vocab: int | None = None
    positions: int | None = None
    decoder_positions: int | None = None
    types: int | None = None
    eos: int | None = None
    pad: int | None = None
    start: int | None = None
    image: tuple[int, int] | None = None
    patch: tuple[int, int] | None = None
    channels: int | None = None
    width: int | None = None
    rank: int | None = None

    def over(self, other: Facts) -> Facts:
        """These facts, and the other's where these have none."""
        return replace(
            other, **{one.name: getattr(self, one.name) for one in fields(self) if getattr(self, one.name) is not None}
        )

    @property
    def sane(self) -> Facts:
        """Without special tokens that the vocabulary does not hold, as the defaults of configs for small models have."""
        if self.vocab is None:
            return self
        drop = {
            key: None
            for key in ("eos", "pad", "start")
            if (value := getattr(self, key)) is not None and not 0 <= value < self.vocab
        }
        return replace(self, **drop)


TEXT = ("", "text_config", "text_cfg", "text", "encoder", "config")
VISION = ("", "vision_config", "vision_cfg", "vision", "image_config", "encoder", "config")
KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vocab": (TEXT, ("vocab_size", "n_vocab", "vocabulary_size", "num_tokens", "vocab", "num_embeddings", "n_tokens")),
    "positions": (TEXT, ("max_position_embeddings", "n_positions", "n_ctx", "context_length", "max_seq_len", "max_sequence_length",
                         "max_seq_length", "block_size", "max_len", "seq_len", "num_positions", "max_positions")),
    "decoder_positions": (("",), ("max_target_positions", "max_decoder_position_embeddings")),
    "types": (TEXT, ("type_vocab_size", "num_segments", "n_segments", "num_types", "type_size")),
    "eos": (TEXT, ("eos_token_id", "eos_id", "eot_token_id", "eos")),
    "pad": (TEXT, ("pad_token_id", "pad_id", "padding_idx", "pad")),
    "start": (("", "decoder"), ("decoder_start_token_id", "decoder_start_id", "bos_token_id")),
    "image": (VISION, ("image_size", "img_size", "input_resolution", "image_resolution", "resolution", "input_size", "image")),
    "patch": (VISION, ("patch_size", "vision_patch_size", "patch")),
    "channels": (VISION, ("num_channels", "in_chans", "in_channels", "channels", "n_channels", "input_channels")),
    "width": (("",), ("hidden_size", "d_model", "n_embd", "embed_dim", "dim", "width")),
}  # fmt: skip
"""Field of Facts -> the sections of a config it is looked for in, and its keys."""


def facts_of(config: Mapping[str, Any] | None) -> Facts:
    """What a config says: transformers', one of isomorph.models, anything with the usual keys.

    >>> facts_of({"text_config": {"vocab_size": 99}, "vision_config": {"image_size": 30}}).image
    (30, 30)
    """
    found: dict[str, Any] = {}
    for field, (sections, keys) in KEYS.items():
        for section in sections:
            told = (config or {}).get(section) if section else config
            value = (
                next((told[key] for key in keys if told.get(key) is not None), None)
                if isinstance(told, Mapping)
                else None
            )
            value = _pair(value) if field in ("image", "patch") else _number(value)
            if value is not None:
                found[field] = value
                break
    # relative positions: the length that such a config states is not a limit, and rows of no table
    if (config or {}).get("relative_attention_num_buckets") is not None and (config or {}).get(
        "max_position_embeddings"
    ) is None:
        found.pop("positions", None)
    return Facts(**found).sane


def _number(value: Any) -> int | None:
    if isinstance(value, list | tuple) and value:
        value = value[0]  # several end tokens: the first
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, Mapping) and {"height", "width"} <= set(value):
        value = [value["height"], value["width"]]
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value, value]
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(one, int) and one > 0 for one in value):
        return int(value[0]), int(value[1])
    return None
