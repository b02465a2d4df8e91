"""Real architectures, 12 to 48 layers deep and narrow, from one layout of the catalogue to another; and weights that were trained.

A family's hub is numbered element by element and led into both layouts; values are looked up by these numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from conversions import NUMBERED, Array, Arrays, Example

from isomorph.layouts.catalogue import Layout, find
from isomorph.layouts.compose import family_config, merged, plan_sized
from isomorph.layouts.hub import schema

SMALL = {
    "clip": {
        "vision_layers": 12, "text_layers": 12, "vision_heads": 4, "vision_head_dim": 16, "vision_ffn": 256, "channels": 3, "patch": 8,
        "image": 32, "text_heads": 4, "text_head_dim": 12, "text_ffn": 192, "vocab": 99, "text_positions": 20, "proj": 32,
    },
    "vit": {"layers": 12, "heads": 4, "head_dim": 16, "ffn": 256, "channels": 3, "patch": 8, "image": 32, "classes": 10},
    "bert": {"layers": 12, "heads": 4, "head_dim": 16, "ffn": 256, "vocab": 99, "positions": 40, "types": 2, "classes": 3},
    "t5": {"enc_layers": 12, "dec_layers": 12, "width": 64, "heads": 4, "head_dim": 16, "ffn": 96, "vocab": 99, "buckets": 32},
    "gpt2": {"layers": 12, "heads": 4, "head_dim": 16, "ffn": 256, "vocab": 99, "positions": 40},
    "llama": {"layers": 24, "width": 64, "kv_heads": 2, "group": 2, "half": 8, "ffn": 112, "vocab": 99},
    "mixtral": {"layers": 12, "experts": 8, "width": 48, "kv_heads": 2, "group": 2, "half": 6, "ffn": 40, "vocab": 99},
    "whisper": {
        "enc_layers": 12, "dec_layers": 12, "enc_heads": 4, "enc_head_dim": 16, "dec_heads": 4, "enc_ffn": 256, "dec_ffn": 256,
        "vocab": 99, "mels": 20, "enc_positions": 50, "dec_positions": 30,
    },
    "dinov2": {"layers": 24, "heads": 4, "head_dim": 16, "ratio": 4, "channels": 3, "patch": 8, "image": 32},
    "gpt_neox": {"layers": 12, "heads": 4, "head_dim": 16, "ffn": 256, "vocab": 99},
    "qwen2_moe": {},
    "swin": {
        "depth0": 2, "depth1": 2, "depth2": 6, "depth3": 2, "channels": 3, "patch": 4, "width0": 16, "heads0": 2, "ffn0": 64, "heads1": 4,
        "ffn1": 128, "heads2": 8, "ffn2": 256, "heads3": 16, "ffn3": 512, "window": 4, "classes": 10, "width": 128,
    },
    "bart": {},
}  # fmt: skip
"""Sizes as of real models, but narrow: squares, four heads, feed-forwards of four times the width."""


@dataclass(frozen=True)
class Architecture:
    """A model of a family, in two layouts of the catalogue."""

    source: str
    target: str
    sizes: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        deep = "".join(f" {axis}={size}" for axis, size in self.sizes.items())
        return f"{self.source} to {self.target}{deep}"

    def example(self, fresh: bool = False, seed: int = 0) -> Example:
        """The two checkpoints, of random weights: trained, or as a library initialises them."""
        source = find(self.source)
        family = source.family
        target = find(self.target, within=family.name)
        chosen = {axis.name: 3 + number for number, axis in enumerate(family.axes.values()) if axis.of is None}
        sizes = family.complete({**chosen, **family.probe, **SMALL.get(family.name, {}), **self.sizes})
        groups = [name for name, group in family.groups.items() if group.listed]
        specs = schema(family.name).expand(sizes, groups)
        hub: Arrays = {}
        at = 1
        for name, spec in specs.items():
            zero = name in family.zeros
            hub[name] = (
                np.zeros(spec.shape) if zero else np.arange(at, at + spec.numel, dtype=np.float64).reshape(spec.shape)
            )
            at += 0 if zero else spec.numel
        config = merged(family.example, family_config(family, sizes))
        numbers, truth = (in_layout(layout, hub, sizes, config) for layout in (source, target))
        tables = [values(hub, kind, number, at) for kind, number in ((fresh, seed), (False, seed + 1))]
        (mine, made), again = ((looked_up(numbers, table), looked_up(truth, table)) for table in tables)
        name = f"{self}{' (fresh)' if fresh else ''}"
        configs = (config if source.is_hub else None, config if target.is_hub else None)
        return Example(name, mine, made, numbers, truth, again, configs)


def in_layout(layout: Layout, hub: Mapping[str, Array], sizes: Mapping[str, int], config: Mapping[str, Any]) -> Arrays:
    """The numbers of the hub's elements as they stand in a layout."""
    from isomorph.engine.arrays import arrays
    from isomorph.formats.memory import ArrayCheckpoint

    made: Mapping[str, Array] = hub
    if not layout.is_hub:
        opened = ArrayCheckpoint(hub)
        plan = plan_sized(layout.morph.inverse.programs(config), opened.manifest, layout.family, sizes, config)[0]
        made = dict(arrays(plan, opened))
    return {name: np.asarray(array, np.float64).astype(NUMBERED) for name, array in made.items()}


def values(hub: Mapping[str, Array], fresh: bool, seed: int, count: int) -> Array:
    """A value for every number. Of fresh weights, norms are 1 and biases 0."""
    random = np.random.default_rng(seed)
    table = (0.02 * random.standard_normal(count)).astype(np.float32)
    table[0] = 0
    for name, numbers in hub.items():
        if not numbers.size or not numbers.flat[0]:
            continue
        part = slice(int(numbers.flat[0]), int(numbers.flat[0]) + numbers.size)
        if re.search(r"(norm\w*|ln_\w+|ln|LayerNorm)\.weight$|lambda\d?$|gamma", name):
            table[part] = 1 if fresh else 1 + 0.3 * random.standard_normal(numbers.size)
        elif name.endswith("bias"):
            table[part] = 0 if fresh else 0.1 * random.standard_normal(numbers.size)
    return table


def looked_up(numbers: Mapping[str, Array], table: Array) -> Arrays:
    """The values of these numbers."""
    return {name: table[array.astype(np.int64)] for name, array in numbers.items()}


ARCHITECTURES = (
    Architecture("clip/hf", "openai"),
    Architecture("clip/hf", "timm"),
    Architecture("vit/timm", "hf"),
    Architecture("vit/hf", "big_vision_scanned", {"layers": 24}),
    Architecture("vit/google_npz", "keras_hub", {"layers": 12}),
    Architecture("bert/hf", "paddle", {"layers": 24}),
    Architecture("bert/hf", "megatron", {"layers": 24}),
    Architecture("bert/tf_keras", "flash_attn"),
    Architecture("t5/hf", "t5x_scanned", {"enc_layers": 24, "dec_layers": 24}),
    Architecture("t5/t5x", "mesh_tf"),
    Architecture("gpt2/megatron_v2", "hf", {"layers": 48}),
    Architecture("gpt2/hf", "flax"),
    Architecture("llama/hf", "megatron_core", {"layers": 48}),
    Architecture("llama/meta", "litgpt_interleaved", {"layers": 48}),
    Architecture("llama/gguf", "flax"),
    Architecture("mixtral/hf", "gguf", {"layers": 24}),
    Architecture("mixtral/mistral", "megatron_core"),
    Architecture("whisper/openai", "hf", {"enc_layers": 24, "dec_layers": 24}),
    Architecture("dinov2/facebook", "hf", {"layers": 48}),
    Architecture("gpt_neox/hf", "litgpt", {"layers": 24}),
    Architecture("swin/hf", "timm"),
)
