"""JSON from strangers: the strict reader, and indexes of shards."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

from fuzz.folders import folder_of, names_in, read_beside
from fuzz.harness import Finding, Harness
from fuzz.mutators import JSON_ATOMS, JSON_SPLIT, pieces
from isomorph.formats.sharded import read_index
from isomorph.formats.strict_json import load_strictly

# --- the strict reader


def run_json(data: bytes) -> None:
    """What is let pass is an object of one meaning: written again, it is read as the same; and every other reader takes it."""
    switch, raw = (data[0], data[1:]) if data else (0, b"")
    floats = bool(switch & 1)
    found = load_strictly(raw, Path("fuzzed.json"), "text", depth=8, floats=floats)
    if deepest(found) > 8:
        raise Finding("deeper than was allowed")
    if not floats and any(isinstance(leaf, float) for leaf in leaves(found)):
        raise Finding("a float where only whole numbers belong")
    again = load_strictly(
        json.dumps(found, ensure_ascii=False).encode(), Path("again.json"), "text", depth=8, floats=floats
    )
    if repr(again) != repr(found):
        raise Finding(f"read as {found!r}, then as {again!r}")


def deepest(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(deepest, inner), default=0)


def leaves(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return [value] if inner is None else [leaf for one in inner for leaf in leaves(one)]


# --- an index of shards


@cache
def shards() -> Path:
    """A folder of two shards."""
    files = {}
    for name in ("a", "b"):
        header = json.dumps({name: {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}).encode()
        files[f"{name}.safetensors"] = struct.pack("<Q", len(header)) + header + b"ab"
    return folder_of(files, ".safetensors")


def run_index(data: bytes) -> None:
    """Whatever an index says, only regular files of its folder are opened."""
    read_beside(read_index, data, shards(), "model.safetensors.index.json")


def index_seeds() -> dict[str, bytes]:
    both = {"a": "a.safetensors", "b": "b.safetensors"}
    made = {
        "both": {"metadata": {"total_size": 4}, "weight_map": both},
        "one": {"weight_map": {"a": "a.safetensors"}},
        "link": {"weight_map": {"a": "in.safetensors"}},
        "bad": {"weight_map": {"a": "../a.safetensors", "b": "/etc/passwd", "c": "out.safetensors"}},
        "pipe": {"weight_map": {"a": "pipe.safetensors"}},
        "config": {"model_type": "bert"},
    }
    return {key: json.dumps(value).encode() for key, value in made.items()}


WORDS = ("a", "b", "weight_map", "metadata", "total_size", "a.safetensors", "b.safetensors", "A.safetensors", "a.bin")
SHARD_ATOMS = tuple(
    json.dumps(word).encode() for word in (*WORDS, *names_in(".safetensors"), "model.safetensors.index.json")
)

HARNESSES = [
    Harness(
        "json",
        run_json,
        lambda: {"a": b'\0{"a": [1, {"b": null}]}', "b": b'\1{"a": 1.5, "\\u00e9": "x"}'},
        pieces(JSON_SPLIT, JSON_ATOMS),
        JSON_ATOMS,
        256,
    ),
    Harness("index", run_index, index_seeds, pieces(JSON_SPLIT, (*JSON_ATOMS, *SHARD_ATOMS)), max_nbytes=512),
]
