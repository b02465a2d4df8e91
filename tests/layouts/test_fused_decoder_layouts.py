"""Falcon, GPT-NeoX and BLOOM: their layouts against real models, other libraries' names, and numpy.

The fused matrix of queries, keys and values is the hard part: how it is cut is held to what transformers' own module does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from other_models import (
    BLOOM,
    DECODERS,
    FACTS,
    NEOX,
    Array,
    Arrays,
    ByHand,
    by_hand_and_back,
    convert,
    differing,
    family_of,
    made,
    problems,
    renamed,
    saved,
    shapes,
    without,
)

import isomorph as iso
from isomorph.errors import CheckError, MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.layouts.catalogue import find, layouts
from isomorph.layouts.hub import schema
from isomorph.layouts.recognise import recognise

OnDisk = Callable[[str], Arrays]
HEADS = (r"score\.", r"classifier\.", r"qa_outputs\.")


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    """What transformers writes of a model."""
    return cache(lambda model: saved(model, tmp_path_factory.mktemp(model)))


@pytest.mark.parametrize("model", DECODERS)
def test_the_hub_of_a_decoder_is_what_transformers_writes(on_disk: OnDisk, model: str) -> None:
    """Every tensor is known, none is missed, and no two tell different sizes of one axis."""
    assert [] == problems(family_of(model), on_disk(model))


@pytest.mark.parametrize(
    "model, axes",
    [
        ("falcon_40b", {"layers": 2, "width": 24, "ffn": 40, "vocab": 31, "qkv": 40}),
        ("gpt_neox", {"layers": 2, "width": 24, "qkv": 72, "ffn": 40, "vocab": 31}),
        ("bloom", {"layers": 2, "width": 24, "qkv": 72, "ffn": 96, "vocab": 31}),
    ],
)
def test_sizes_of_a_decoder_are_read_off_the_shapes(on_disk: OnDisk, model: str, axes: dict[str, int]) -> None:
    found = schema(family_of(model)).read(ArrayCheckpoint(on_disk(model)).manifest).sizes
    assert axes == {axis: found.get(axis) for axis in axes}


def test_the_groups_of_falcon_are_told_by_the_shapes_and_the_heads(on_disk: OnDisk) -> None:
    """The config's num_kv_heads is read where it is meant only; the rows of the matrix say it always."""
    for model, groups in (("falcon_7b", 1), ("falcon_40b", 2), ("falcon_rw", 6)):
        found = schema("falcon").read(ArrayCheckpoint(on_disk(model)).manifest, {"heads": 6})
        assert (found.clashes, found.sizes["kv_heads"]) == ((), groups)


# ── what each layout is, written down a second time ──────────────────────────────────────────────────────────────────


def grouped(fused: Array, groups: int, heads: int) -> tuple[Array, Array, Array]:
    """q, k and v of a matrix (or bias) whose rows are groups of queries, one key and one value."""
    size = fused.shape[0] // (heads + 2 * groups)
    parts = fused.reshape(groups, heads // groups + 2, size, *fused.shape[1:])
    q, k, v = parts[:, :-2], parts[:, -2], parts[:, -1]
    return tuple(np.ascontiguousarray(part.reshape(-1, *fused.shape[1:])) for part in (q, k, v))


GROUPS = {"falcon_7b": (1, 6), "falcon_classes": (1, 6), "falcon_40b": (2, 6), "falcon_rw": (6, 6)}
"""Of each Falcon, how many groups there are and how many queries."""


def test_grouped_is_what_falcon_does(on_disk: OnDisk) -> None:
    """The oracle itself is held to transformers: FalconAttention splits the columns of its own matrix so."""
    import torch

    for model, (groups, heads) in GROUPS.items():
        attention = made(model).transformer.h[1].self_attention
        fused = on_disk(model)["transformer.h.1.self_attention.query_key_value.weight"]
        q, k, v = attention._split_heads(torch.from_numpy(fused.T.copy())[None])
        own = [part[0].flatten(1).T.numpy() for part in (q, k, v)]
        ours = grouped(fused, groups, heads)
        repeats = q.shape[2] // groups if k.shape[2] == q.shape[2] else 1
        assert np.array_equal(own[0], ours[0])
        for theirs, mine in zip(own[1:], ours[1:], strict=True):
            assert np.array_equal(theirs, np.repeat(mine.reshape(groups, -1, 24), repeats, axis=0).reshape(-1, 24))


def heads_of(model: str) -> tuple[int, int]:
    return GROUPS.get(model, (3, 3))


def by_hand_split(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in hub.items():
        if "query_key_value" not in name:
            found[name] = array
            continue
        for part, rows in zip("qkv", grouped(array, *heads_of(model)), strict=True):
            found[name.replace("query_key_value", f"{part}_proj")] = rows
    return found


def ordered(model: str, hub: Arrays) -> Arrays:
    """All q, then all k, then all v in the one matrix."""
    return {
        name: np.concatenate(grouped(array, *heads_of(model))) if "query_key_value" in name else array
        for name, array in hub.items()
    }


def by_hand_litgpt(model: str, hub: Arrays) -> Arrays:
    found = renamed(
        without(ordered(model, hub), *HEADS),
        (r"^gpt_neox\.embed_in|^transformer\.word_embeddings", "transformer.wte"),
        (r"^embed_out", "lm_head"),
        (r"^gpt_neox\.final_layer_norm", "transformer.ln_f"),
        (r"^gpt_neox\.layers", "transformer.h"),
        (r"(self_)?attention\.query_key_value", "attn.qkv"),
        (r"(self_)?attention\.dense", "attn.proj"),
        (r"input_layernorm|ln_attn", "norm_1"),
        (r"post_attention_layernorm|ln_mlp", "norm_2"),
        (r"dense_h_to_4h", "fc"),
        (r"dense_4h_to_h", "proj"),
    )
    if family_of(model) == "falcon":
        found["lm_head.weight"] = found["transformer.wte.weight"]
    return found


def by_hand_litgpt_interleaved(model: str, hub: Arrays) -> Arrays:
    """The hub's own matrix, under another name."""
    own = [array for name, array in hub.items() if "query_key_value" in name]
    names = [name for name in by_hand_litgpt(model, hub) if ".qkv." in name]
    found = {**by_hand_litgpt(model, hub), **dict(zip(names, own, strict=True))}
    return renamed(found, (r"attn\.qkv", "attn.attn"))


def by_hand_gguf(model: str, hub: Arrays) -> Arrays:
    two = "transformer.h.0.ln_attn.weight" in hub
    found = renamed(
        without(ordered(model, hub), *HEADS),
        (r"^gpt_neox\.embed_in\.|^transformer\.word_embeddings\.", "token_embd."),
        (r"^transformer\.word_embeddings_layernorm", "token_embd_norm"),
        (r"^embed_out", "output"),
        (r"^gpt_neox\.final_layer_norm|^transformer\.ln_f", "output_norm"),
        (r"^gpt_neox\.layers|^transformer\.h", "blk"),
        (r"(self_)?attention\.query_key_value", "attn_qkv"),
        (r"(self_)?attention\.dense", "attn_output"),
        (r"post_attention_layernorm", "ffn_norm"),
        (r"input_layernorm|ln_mlp", "attn_norm"),
        (r"ln_attn", "attn_norm_2"),
        (r"mlp\.dense_h_to_4h", "ffn_up"),
        (r"mlp\.dense_4h_to_h", "ffn_down"),
    )
    assert two == ("blk.0.attn_norm_2.weight" in found)
    if family_of(model) != "gpt_neox":
        found["output.weight"] = found["token_embd.weight"]
    return found


def by_hand_flax(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in without(hub, *HEADS).items():
        path, _, leaf = name.replace(".", "/").rpartition("/")
        if leaf == "weight" and array.ndim == 2:
            leaf, array = ("embedding", array) if "embeddings" in path else ("kernel", np.ascontiguousarray(array.T))
        elif leaf == "weight":
            leaf = "scale"
        found[f"{path}/{leaf}"] = array
    return found


def by_hand_flax_scanned(model: str, hub: Arrays) -> Arrays:
    flat = by_hand_flax(model, hub)
    found = {name: array for name, array in flat.items() if "/h/" not in name}
    for name in flat:
        if "/h/0/" in name:
            found[name.replace("/0/", "/FlaxBloomBlockLayers/")] = np.stack(
                [flat[name.replace("/0/", f"/{layer}/")] for layer in range(BLOOM["n_layer"])]
            )
    return found


def by_hand_paddle_nlp(model: str, hub: Arrays) -> Arrays:
    found = {}
    for name, array in without(hub, r"qa_outputs\.").items():
        if array.ndim == 2 and "embeddings" not in name:
            array = np.ascontiguousarray(array.T)
        found[name.replace("transformer.", "bloom.")] = array
    return found


def by_hand_sequential(model: str, hub: Arrays) -> Arrays:
    last = NEOX["num_hidden_layers"] + 3
    return renamed(
        without(hub, *HEADS),
        (r"^gpt_neox\.embed_in", "sequential.0.word_embeddings"),
        (r"^gpt_neox\.layers\.(\d+)", lambda match: f"sequential.{int(match[1]) + 2}"),
        (r"^gpt_neox\.final_layer_norm", f"sequential.{last}.norm"),
        (r"^embed_out", f"sequential.{last + 1}.final_linear"),
    )


def by_hand_head_beside(model: str, hub: Arrays) -> Arrays:
    return {**hub, "lm_head.weight": hub["transformer.word_embeddings.weight"]}


BY_HAND: dict[str, ByHand] = {
    "falcon/split": by_hand_split,
    "falcon/litgpt": by_hand_litgpt,
    "falcon/litgpt_interleaved": by_hand_litgpt_interleaved,
    "falcon/gguf": by_hand_gguf,
    "falcon/hf_module": by_hand_head_beside,
    "gpt_neox/split": by_hand_split,
    "gpt_neox/litgpt": by_hand_litgpt,
    "gpt_neox/litgpt_interleaved": by_hand_litgpt_interleaved,
    "gpt_neox/gguf": by_hand_gguf,
    "gpt_neox/sequential": by_hand_sequential,
    "gpt_neox/hf_module": lambda _, hub: renamed(hub, (r"^embed_out", "lm_head")),
    "bloom/split": by_hand_split,
    "bloom/gguf": by_hand_gguf,
    "bloom/flax": by_hand_flax,
    "bloom/flax_scanned": by_hand_flax_scanned,
    "bloom/paddle": by_hand_paddle_nlp,
    "bloom/hf_module": by_hand_head_beside,
}
CASES = [(model, layout) for model in DECODERS for layout in BY_HAND if layout.startswith(family_of(model) + "/")]
KEEPING_HEADS = ("split", "hf_module")


@pytest.mark.parametrize("model, layout", CASES)
def test_a_decoder_layout_is_what_it_is_by_hand_and_goes_back(on_disk: OnDisk, model: str, layout: str) -> None:
    """Bit for bit there; and back, bit for bit all but the heads that the layout has no name for."""
    kept = layout.endswith(KEEPING_HEADS) or layout == "bloom/paddle"
    assert [] == by_hand_and_back(model, layout, BY_HAND[layout], on_disk(model), "-" if kept else "|".join(HEADS))


def test_every_layout_of_these_decoders_is_tried() -> None:
    """A layout that is added is added above."""
    families = ("falcon", "gpt_neox", "bloom")
    assert set(BY_HAND) == {str(one) for name in families for one in layouts(name) if not one.is_hub}


@pytest.mark.parametrize("fact", ["falcon_7b/litgpt", "falcon_40b/litgpt", "falcon_rw/litgpt", "gpt_neox/litgpt"])
def test_litgpt_has_these_names_and_shapes(on_disk: OnDisk, fact: str) -> None:
    """What state_dict() of LitGPT's own GPT has, no tensor more, none less."""
    model = fact.partition("/")[0]
    assert FACTS[fact] == shapes(convert(model, f"{family_of(model)}/litgpt", on_disk(model)))


@pytest.mark.parametrize("layout", [one for one in BY_HAND if one.startswith("gpt_neox/")])
def test_masks_and_frequencies_of_older_files_are_dropped_by_name(on_disk: OnDisk, layout: str) -> None:
    """transformers before 4.36 wrote the causal mask, what it fills with, and the rotary frequencies; only one layout has those."""
    hub = on_disk("gpt_neox")
    frequencies = np.ones(2, np.float32)
    older = dict(hub)
    for layer in range(2):
        at = f"gpt_neox.layers.{layer}.attention"
        older[f"{at}.bias"] = np.ones((1, 1, 7, 7), bool)
        older[f"{at}.masked_bias"] = np.array(-1e9, np.float32)
        older[f"{at}.rotary_emb.inv_freq"] = frequencies
    assert [] == problems("gpt_neox", older)
    kept = (
        [f"sequential.{n + 2}.attention.rotary_emb.inv_freq" for n in range(2)] if layout.endswith("sequential") else []
    )
    expected = {**convert("gpt_neox", layout, hub), **dict.fromkeys(kept, frequencies)}
    assert [] == differing(expected, convert("gpt_neox", layout, older))


@pytest.mark.parametrize("model", ["falcon_7b", "falcon_40b", "gpt_neox", "bloom"])
def test_a_decoder_takes_its_own_layout(on_disk: OnDisk, model: str) -> None:
    """load_state_dict, strict: no key missing, none unexpected, and the values are those that were saved."""
    import torch

    found = convert(model, f"{family_of(model)}/hf_module", on_disk(model))
    assert [] == differing({name: tensor.numpy() for name, tensor in made(model).state_dict().items()}, found)
    made(model).load_state_dict({name: torch.from_numpy(array.copy()) for name, array in found.items()}, strict=True)


def test_a_model_without_a_head_is_on_disk_what_it_is_in_memory(on_disk: OnDisk) -> None:
    """Then two layouts read the same, and nobody is asked which it is."""
    found = recognise(ArrayCheckpoint(on_disk("gpt_neox_answers")).manifest)
    assert (str(found.layout), found.ambiguous) == ("gpt_neox/hf", False)
    assert [str(other) for other, _ in found.others] == ["gpt_neox/hf_module"]


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_falcon_without_a_config_says_what_it_asks(on_disk: OnDisk) -> None:
    """Three orders have the same name and may have the same shape: nothing but the config tells them apart."""
    with pytest.raises(MorphError) as refused:
        iso.morph(find("falcon/split").path).inverse.plan(on_disk("falcon_7b"))
    message = str(refused.value)
    assert "config" in message and "new_decoder_architecture" in message and "--config FILE" in message


@pytest.mark.parametrize("layout", ["falcon/litgpt", "falcon/gguf"])
def test_norms_that_the_config_speaks_against_are_refused(on_disk: OnDisk, layout: str) -> None:
    """One norm before both branches of the new architecture (Falcon 2 11B) has no place there: it is missed, not dropped."""
    config = {**made("falcon_7b").config.to_dict(), "new_decoder_architecture": True, "num_kv_heads": 1}
    with pytest.raises(MorphError) as refused:
        iso.morph(find(layout).path).inverse.plan(on_disk("falcon_7b"), config=config)
    assert "ln_{n=attn|mlp}" in str(refused.value) and "no tensor fits this rule" in str(refused.value)


def test_heads_that_shapes_cannot_tell_are_asked_for(on_disk: OnDisk) -> None:
    with pytest.raises(MorphError) as refused:
        iso.morph(find("bloom/gguf").path).inverse.plan(on_disk("bloom"))
    assert "heads" in str(refused.value) and "head_dim" in str(refused.value)


def test_a_head_that_is_not_tied_is_no_copy_of_the_embeddings(on_disk: OnDisk) -> None:
    arrays = convert("bloom", "bloom/hf_module", on_disk("bloom"))
    arrays["lm_head.weight"] = arrays["lm_head.weight"] + 1
    plan = iso.morph(find("bloom/hf_module").path).plan(arrays)
    with pytest.raises(CheckError) as refused:
        plan.state_dict("numpy")
    assert "lm_head.weight" in str(refused.value)
