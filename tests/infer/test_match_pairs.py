"""Matching by values on the real conversions of tests/pairs and on layouts of the catalogue: nothing is left, everything holds."""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # where `peers` is

import matching
import ml_dtypes
import numpy as np
import pytest

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.registry import open_checkpoint
from isomorph.infer.by_value.match import match
from isomorph.layouts.catalogue import find
from isomorph.plan.boxes import row_major
from isomorph.testing.layouts import hub_probe, in_layout
from peers import NAMES, unpacked


@pytest.mark.parametrize("name", NAMES)
def test_every_target_of_a_pair_is_placed_and_holds(name: str, tmp_path: Path) -> None:
    pair = unpacked(name, tmp_path)
    with open_checkpoint(pair.source) as source, open_checkpoint(pair.target) as target:
        found = match(source, target)
        assert (found.unplaced, found.silent, found.outliers) == ((), (), ())
        assert matching.wrong(found, source, target) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_sources_of_a_pair_are_those_of_its_truth(name: str, tmp_path: Path) -> None:
    pair = unpacked(name, tmp_path)
    with open_checkpoint(pair.source) as source, open_checkpoint(pair.target) as target:
        made = {each: one.sources for one in match(source, target).relations for each in one.targets}
    for tensor, truth in pair.truth["tensors"].items():
        assert {part[0] for part in truth["parts"] if part[0]} <= set(made[tensor])


@pytest.mark.parametrize(
    "name", ["hf_llama_to_litgpt", "megatron_gpt2_v3_to_hf", "v4_mixtral_to_v5", "hf_gpt2_to_paddle"]
)
def test_names_that_say_nothing_do_not_matter(name: str, tmp_path: Path) -> None:
    pair = unpacked(name, tmp_path)
    sides = []
    with open_checkpoint(pair.source) as source, open_checkpoint(pair.target) as target:
        for seed, side in enumerate((source, target)):
            draw = random.Random(seed)
            names = draw.sample(list(side.manifest), len(side.manifest))
            new = {one: f"t{number}" for one, number in zip(names, draw.sample(range(9999), len(names)), strict=True)}
            specs = {new[one]: side.manifest[one] for one in names}
            arrays = {
                new[one]: np.array(side.fetch(one, 0, side.manifest[one].shape, row_major(side.manifest[one].shape)))
                for one in names
            }
            sides.append(ArrayCheckpoint(arrays, dtypes={one: spec.dtype for one, spec in specs.items()}))
    found = match(*sides)
    assert (found.unplaced, found.outliers) == ((), ())
    assert matching.wrong(found, *sides) == []


LAYOUTS = [
    "llama/meta_tp_llama3",
    "llama/gguf",
    "mixtral/mistral_stacked",
    "t5/t5x_scanned_params",
    "gpt2/megatron_v3",
    "bert/flash_attn",
    "clip/openai",
    "beit/timm",
    "qwen3_moe/megatron_core",
    "whisper/openai",
    "vit/google_npz",
    "phi3/split",
]


@pytest.mark.parametrize("kind", ["index", "f32", "bf16"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_the_catalogue_are_found(name: str, kind: str) -> None:
    layout = find(name)
    hub = hub_probe(layout.family.name)
    if kind != "index":
        draw = np.random.default_rng(5)
        dtype = np.dtype(np.float32 if kind == "f32" else ml_dtypes.bfloat16)
        hub = {one: (draw.standard_normal(array.shape) * array.any()).astype(dtype) for one, array in hub.items()}
    made = in_layout(layout, hub)
    found = matching.matched(hub, made)
    assert (found.unplaced, found.outliers) == ((), ())
