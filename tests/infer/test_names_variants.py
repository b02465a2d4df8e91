"""Layouts of the catalogue at sizes that coincide, each in one variant of its model: by names alone nothing certain is wrong and every
question holds the truth; with layers left out, words made unhelpful and names that are only numbers too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from proposal_truth import LOST, Numbers, Score, Truth, judge

from isomorph.infer.by_name.propose import propose
from isomorph.infer.nouns import Proposed
from isomorph.layouts.catalogue import family, find
from isomorph.tensors import Manifest, TensorSpec, dtype
from isomorph.testing.layouts import hub_probe, in_layout, probe_sizes

F32 = dtype("f32")
Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]
SIZES = {
    "layers": 3, "heads": 4, "head_dim": 8, "width": 32, "ffn": 128, "vocab": 50, "positions": 20, "types": 2, "classes": 7, "answers": 2,
    "kv_heads": 2, "group": 2, "half": 4, "channels": 3, "patch": 4, "image": 16, "experts": 4, "enc_layers": 3, "dec_layers": 3,
    "buckets": 8, "ranks": 2, "frequencies": 4, "pooled": 32, "stride": 2,
}  # fmt: skip


GROUPS = {
    "bert": ("pooler",), "megatron_bert": ("pooler",), "gpt_neox": ("head", "attention_biases"), "llama": ("head",), "mistral": ("head",),
    "mixtral": ("head",), "t5": ("encoder", "decoder", "gated", "head"), "vit": ("qkv_bias", "classifier"), "gpt2": ("head",),
}  # fmt: skip
"""The parts of a model that its file holds."""


def sizes_of(name: str) -> dict[str, int]:
    """Sizes as models have them: square matrices, as many keys as half the queries, four times as wide inside."""
    of = family(name)
    known = probe_sizes(name)
    return of.complete({axis: SIZES.get(axis, known[axis]) for axis, facts in of.axes.items() if facts.of is None})


def hub_of(name: str) -> Arrays:
    """The model with one head: what a file holds, not all that any variant may hold."""
    return hub_probe(name, sizes_of(name), GROUPS.get(name, ()))


def made_in(name: str, layout: str, hub: Arrays) -> Arrays:
    return in_layout(find(layout, name), hub, sizes_of(name))


def manifest_of(arrays: Arrays) -> Manifest:
    return Manifest({name: TensorSpec(F32, array.shape) for name, array in arrays.items()})


def judged(source: Arrays, target: Arrays, *, use_catalogue: bool = False) -> Score:
    proposed = propose(manifest_of(source), manifest_of(target), use_catalogue=use_catalogue)
    return score_of(proposed, source, target)


def score_of(proposed: Proposed, source: Arrays, target: Arrays) -> Score:
    """Every element of the hub is another number, so that each element of the target says where it is in the source."""
    counted = Numbers(manifest_of(source))
    largest = int(max(array.max() for array in (*source.values(), *target.values())))
    table = np.full(largest + 1, LOST, np.int64)
    for name, array in source.items():
        table[array.astype(np.int64).reshape(-1)] = counted.of(name).reshape(-1)
    table[0] = Numbers.constant(0.0)
    made = {name: table[array.astype(np.int64)] for name, array in target.items() if array.any()}
    return judge(proposed, Truth(counted, made))


def wrong(score: Score) -> list[str]:
    return [*score.of("wrong"), *score.of("asked without the truth")]


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("bert", "hf", "paddle_base"),
        ("megatron_bert", "megatron_v0", "megatron_v2"),
        ("gpt_neox", "litgpt_interleaved", "gguf"),
        ("llama", "paddle", "meta"),
        ("llama", "gguf", "litgpt_interleaved"),
        ("mistral", "litgpt", "fused"),
        ("mixtral", "hf", "megatron_core"),
        ("t5", "hf", "t5x"),
        ("vit", "big_vision", "timm"),
        ("gpt2", "hf", "megatron_v3"),
        ("bloom", "hf", "split"),
    ],
)
def test_between_layouts_nothing_certain_is_wrong(name: str, one: str, other: str) -> None:
    hub = hub_of(name)
    source, target = made_in(name, one, hub), made_in(name, other, hub)
    for left, right in ((source, target), (target, source)):
        known = {number for array in left.values() for number in np.unique(array).tolist()}
        score = judged(
            left, {key: array for key, array in right.items() if not known.isdisjoint(np.unique(array).tolist())}
        )
        assert wrong(score) == []
        assert score.count("right") + score.count("asked") > len(score.verdicts) / 2


def layer_of(name: str) -> int | None:
    found = re.match(r"[^0-9]*([0-9]+)[./]", name)
    return int(found[1]) if found else None


@pytest.mark.parametrize("kept", [(1, 2), (0, 2), (0, 1)])
@pytest.mark.parametrize(("name", "other"), [("llama", "gguf"), ("bert", "paddle_base"), ("gpt_neox", "litgpt")])
def test_the_catalogue_does_not_say_which_layers_were_kept(name: str, other: str, kept: tuple[int, ...]) -> None:
    """A target of two layers from a source of three: which two, no name says."""
    hub = hub_of(name)
    target = {}
    for key, array in made_in(name, other, hub).items():
        layer = layer_of(key)
        if layer is None:
            target[key] = array
        elif layer in kept:
            target[key.replace(str(layer), str(kept.index(layer)), 1)] = array
    score = judged(hub, target, use_catalogue=True)
    assert wrong(score) == []
    assert {layer_of(each.target) for each in score.verdicts if each.state == "right"} <= {None}


def renamed(arrays: Arrays, old: str, new: str) -> Arrays:
    """One word of all names made another."""
    return {re.sub(rf"(?<![A-Za-z0-9]){old}(?![A-Za-z0-9])", new, key): array for key, array in arrays.items()}


@pytest.mark.parametrize(
    ("name", "other", "old"),
    [
        ("bert", "paddle_base", "q_proj"),
        ("bert", "paddle_base", "layers"),
        ("bert", "paddle_base", "norm1"),
        ("llama", "meta", "wv"),
        ("llama", "meta", "w1"),
        ("llama", "meta", "attention"),
        ("vit", "torchvision", "out_proj"),
        ("vit", "paddle_nn", "self_attn"),
    ],
)
def test_a_word_that_says_nothing_makes_no_mistake(name: str, other: str, old: str) -> None:
    hub = hub_of(name)
    score = judged(hub, renamed(made_in(name, other, hub), old, "zorp"))
    assert wrong(score) == []
    assert score.count("right") > 0


@pytest.mark.parametrize("name", ["bert", "llama", "vit"])
def test_an_output_by_its_ending_alone(name: str) -> None:
    """`zorp_proj` beside `out_proj` is no second output."""
    hub = hub_of(name)
    target = {key.replace("q_proj", "zorp_proj").replace("query", "zorp_proj"): array for key, array in hub.items()}
    assert wrong(judged(hub, target)) == []


@pytest.mark.parametrize("pattern", ["{}.weight", "Variable_{}"])
def test_names_that_are_numbers_are_not_stated(pattern: str) -> None:
    hub = hub_of("llama")
    target = {pattern.format(number): array for number, array in enumerate(hub.values())}
    score = judged(hub, target)
    assert wrong(score) == []
    assert score.count("unplaced") > len(target) / 2
