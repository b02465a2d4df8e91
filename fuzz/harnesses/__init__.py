"""The harnesses by name; a module is imported when one of its harnesses is asked for."""

from __future__ import annotations

import importlib

from fuzz.harness import Harness

MODULES = {
    "safetensors": "safetensors",
    "pickle": "pickles",
    "torch_zip": "pickles",
    "torch_legacy": "pickles",
    "paddle": "pickles",
    "gguf": "exchange",
    "onnx": "exchange",
    "dcp": "distributed",
    "tf_index": "distributed",
    "zarr": "stores",
    "ocdbt": "stores",
    "tar": "tars",
    "url": "remote",
    "flax": "binary",
    "hdf5": "binary",
    "plan_file": "job_files",
    "config": "job_files",
    "index": "json_texts",
    "json": "json_texts",
    "plan": "morphs",
    "morph": "morphs",
    "npz": "zips",
    "zip": "zips",
}
"""harness -> the module of this package that makes it."""


def load(name: str) -> Harness:
    """The harness of that name; `module:name` is one of any module that can be imported. KeyError when there is none."""
    module, colon, inner = name.partition(":")
    made = importlib.import_module(module if colon else f"fuzz.harnesses.{MODULES[name]}")
    found: dict[str, Harness] = {one.name: one for one in made.HARNESSES}
    return found[inner or name]
