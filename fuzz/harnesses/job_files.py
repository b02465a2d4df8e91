"""What stands beside weights or is kept of a conversion: config.json, plan.json."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from fuzz.harness import Finding, Harness, source_of
from fuzz.mutators import JSON_ATOMS, JSON_SPLIT, pieces
from isomorph.infer.generalise.sizes import config_keys
from isomorph.job.companions import _set_dtype
from isomorph.job.config import config_text, read_config, with_settings
from isomorph.job.plan_file import read_plan_file
from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.layouts.catalogue import families, family, layouts
from isomorph.layouts.compose import sizes_of_config
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest, spec
from isomorph.trace.facts import facts_of

# --- configs


def run_config(data: bytes) -> None:
    """Whatever a config holds, everything that looks into one says a size, nothing, or what is wrong."""
    source = source_of(data)
    path = Path(f"/proc/self/fd/{source.fileno()}")
    try:
        config = read_config(path)
    finally:
        source.close()
    if json.loads(config_text(config)) != config and "NaN" not in config_text(config):
        raise Finding("a config that is another one once written and read")
    settings = {"vision_config.hidden_size": 3, "a": 1}
    with_settings(config, settings)
    _set_dtype(config, "float16")
    facts_of(config)
    config_keys(config, 3)
    for name in families():
        sizes_of_config(family(name), config)
        for layout in layouts(name):
            layout.header.stated(config)
    program = flatten(PORT, config=config)
    make_plan([program], MANIFEST, config=config)


PORT = parse(
    "w [(h d) i] <-> w [i h d] where h=config.num_attention_heads\nwhen config.bias:\n  b [o] <-> b [o]\ndrop? b\n"
)
MANIFEST = Manifest({"w": spec("f32[6,2]"), "b": spec("f32[6]")})


def config_seeds() -> dict[str, bytes]:
    clip = {
        "model_type": "clip", "torch_dtype": "float32",
        "vision_config": {"hidden_size": 6, "num_attention_heads": 2, "image_size": 30, "patch_size": [2, 2]},
        "text_config": {"vocab_size": 99, "eos_token_id": [1, 2]},
    }  # fmt: skip
    bert = {
        "model_type": "bert",
        "num_attention_heads": 3,
        "bias": True,
        "hidden_size": 12,
        "architectures": ["BertModel"],
        "dtype": None,
    }
    odd = {
        "num_attention_heads": -1,
        "bias": "yes",
        "vision_config": [],
        "text_config": 5,
        "rms_norm_eps": 1e-6,
        "num_layers": 2**70,
    }
    return {key: json.dumps(value).encode() for key, value in (("clip", clip), ("bert", bert), ("odd", odd))}


@cache
def config_atoms() -> tuple[bytes, ...]:
    """The keys that families look for."""
    keys = {
        part
        for name in families()
        for axis in family(name).axes.values()
        if axis.config
        for part in axis.config.split(".")
    }
    words = (
        "model_type",
        "torch_dtype",
        "dtype",
        "num_attention_heads",
        "bias",
        "architectures",
        "eos_token_id",
        "image_size",
        "patch_size",
        *families(),
    )
    return tuple(json.dumps(word).encode() for word in sorted({*keys, *words, "clip_vision_model"}))


# --- plan.json


def run_plan_file(data: bytes) -> None:
    source = source_of(data)
    try:
        read_plan_file(f"/proc/self/fd/{source.fileno()}")
    finally:
        source.close()


def plan_file_seeds() -> dict[str, bytes]:
    found = {}
    for key, text in (
        ("plain", "w <-> w"),
        ("transposed", "w [o i] <-> v [i o]\ndrop b"),
        ("fused", "q [o], k [o] <-> qk [(o + o)] | f32 -> f16"),
    ):
        specs = {
            "plain": {"w": "f32[2]"},
            "transposed": {"w": "f32[3,2]", "b": "f32[1]"},
            "fused": {"q": "f32[2]", "k": "f32[2]"},
        }[key]
        plan = make_plan([flatten(parse(text))], Manifest({name: spec(one) for name, one in specs.items()}))
        content = {
            "kind": "isomorph plan", "version": 1, "morph": text, "config": None, "sizes": {}, "route": None,
            "inputs": [{"name": "", "path": "/a.safetensors", "inner": None}], "files": {"/a.safetensors": {"size": 8, "mtime_ns": 1}},
            "header_digest": "0", "format": None, "max_shard_size": None,
            "outputs": [{"name": "", "path": "/b.safetensors", "format": "safetensors", "folder": False, "files": []}], "plan": plan.to_json(),
        }  # fmt: skip
        found[key] = json.dumps(content).encode()
    return found


HARNESSES = [
    Harness("config", run_config, config_seeds, pieces(JSON_SPLIT, (*JSON_ATOMS, *config_atoms())), max_nbytes=768),
    Harness("plan_file", run_plan_file, plan_file_seeds, pieces(JSON_SPLIT, JSON_ATOMS), max_nbytes=8192),
]
