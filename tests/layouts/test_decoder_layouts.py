"""Llama, Qwen2, Qwen3, Mistral, Mixtral, Qwen-MoE and Phi-3: their layouts against transformers' own models and against hands."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, differing, saved
from decoder_hands import (
    BY_HAND,
    EXPERTS,
    FAMILIES,
    HEAD_DIM,
    HEADS,
    LAYERS,
    SIZES,
    hf_qa,
    litgpt_phi3,
    litgpt_tied,
    made,
    meta_logits,
    meta_ranks,
    meta_tied,
    paddle_tied,
)

import isomorph as iso
from isomorph.errors import CheckError, MorphError
from isomorph.layouts.catalogue import family, find, layouts
from isomorph.layouts.compose import sizes_of_config
from isomorph.layouts.hub import schema
from isomorph.testing.layouts import hub_probe, in_layout, probe_sizes

TIED: dict[str, Any] = {
    "qwen3/litgpt_tied": litgpt_tied,
    "llama/paddle_tied": lambda hub: paddle_tied(hub, "llama"),
    "qwen2/paddle_tied": lambda hub: paddle_tied(hub, "qwen2"),
    "llama/meta_tied": meta_tied, "llama/litgpt_tied": litgpt_tied, "qwen2/litgpt_tied": litgpt_tied,
        "phi3/litgpt_tied": lambda hub: {**litgpt_phi3(hub), "lm_head.weight": hub["model.embed_tokens.weight"]}}  # fmt: skip
IN_MEMORY = ("mixtral/hf_module", "qwen2_moe/hf_module", "qwen3_moe/hf_module")
OF_RANKS = {"llama/meta_tp_llama2": 1, "llama/meta_tp_llama3": 0}
CLASSES = ("ForCausalLM", "ForSequenceClassification", "ForTokenClassification")


def morph(layout: str) -> iso.Morph:
    return iso.morph(find(layout).path)


@cache
def hub(name: str, head: str = "ForCausalLM", **config: Any) -> Arrays:
    """What transformers writes of a small model of that family."""
    with TemporaryDirectory() as folder:
        return {k: v.copy() for k, v in saved(made(name, head, **config), Path(folder)).items()}


def manifest(arrays: Arrays) -> Any:
    from isomorph.formats.memory import ArrayCheckpoint

    return ArrayCheckpoint(arrays).manifest


# ── the hub ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("head", CLASSES)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_hub_lists_what_transformers_writes_with_every_shape_and_no_more(name: str, head: str) -> None:
    written = hub(name, head)
    of = schema(name)
    found = of.read(manifest(written))
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())
    listed = of.expand(found.sizes, found.groups)
    assert {k: v.shape for k, v in written.items()} == {k: v.shape for k, v in listed.items() if k in written}
    for absent in set(listed) - set(written):
        assert any(family(name).groups[group].scattered for group in of.which(absent)[0].groups), absent


@pytest.mark.parametrize("config", [{"attention_bias": True}, {"mlp_bias": True}, {"tie_word_embeddings": True}])
def test_a_llama_with_biases_or_a_tied_head_is_in_the_hub(config: dict[str, Any]) -> None:
    found = schema("llama").read(manifest(hub("llama", **config)))
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_config_and_the_shapes_tell_the_same_sizes(name: str) -> None:
    told = sizes_of_config(family(name), made(name).config.to_dict())
    assert told["heads"] == HEADS and told["layers"] == LAYERS
    found = schema(name).read(manifest(hub(name)), told)
    assert found.clashes == ()
    assert {axis: found.sizes[axis] for axis in told} == told
    assert found.sizes["half"] == HEAD_DIM // 2


@pytest.mark.parametrize("name", FAMILIES)
def test_head_dim_and_key_value_heads_follow_where_an_older_config_leaves_them_out(name: str) -> None:
    told = sizes_of_config(family(name), {**made(name).config.to_dict(), "head_dim": None, "num_key_value_heads": None})
    assert "head_dim" not in told and "kv_heads" not in told
    sizes = schema(name).read(manifest(hub(name)), told).sizes
    assert (sizes["head_dim"], sizes["kv_heads"]) == (HEAD_DIM, 2)


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", BY_HAND)
def test_a_real_model_in_the_layout_is_what_a_hand_makes_of_it_and_comes_back(layout: str) -> None:
    by_hand, told = BY_HAND[layout]
    written = hub(layout.split("/")[0])
    expected = by_hand(written)
    assert differing(expected, morph(layout).inverse.plan(written, **told).state_dict("numpy")) == []
    assert differing(written, morph(layout).plan(expected, **told).state_dict("numpy")) == []


@pytest.mark.parametrize("layout", ["llama/gguf", "llama/litgpt", "llama/litgpt_interleaved", "llama/torchtune"])
def test_biases_go_with_their_weights(layout: str) -> None:
    by_hand, _ = BY_HAND[layout]
    written = hub("llama", attention_bias=True, mlp_bias=True)
    told = {
        "llama/litgpt": {"q_width": 48, "kv_width": 16},
        "llama/litgpt_interleaved": {"kv_heads": 2, "group": 3},
    }.get(layout, {"heads": HEADS})
    expected = by_hand(written)
    assert sum(name.endswith("bias") for name in expected) >= 5 * LAYERS
    assert differing(expected, morph(layout).inverse.plan(written, **told).state_dict("numpy")) == []
    assert differing(written, morph(layout).plan(expected, **told).state_dict("numpy")) == []


@pytest.mark.parametrize("layout", TIED)
def test_a_tied_head_is_written_twice_and_read_once(layout: str) -> None:
    written = hub(layout.split("/")[0], tie_word_embeddings=True)
    assert "lm_head.weight" not in written
    told = {"heads": HEADS} if "meta" in layout else {}
    expected = TIED[layout](written)
    assert differing(expected, morph(layout).inverse.plan(written, **told).state_dict("numpy")) == []
    assert differing(written, morph(layout).plan(expected, **told).state_dict("numpy")) == []


@pytest.mark.parametrize("layout", [one for one in TIED if "litgpt" in one])
def test_a_head_that_is_not_the_embedding_is_refused_where_the_layout_ties_it(layout: str) -> None:
    untied = TIED[layout](hub(layout.split("/")[0], tie_word_embeddings=True))
    untied["lm_head.weight"] = untied["lm_head.weight"] + 1
    with pytest.raises(CheckError, match=r"lm_head\.weight"):
        morph(layout).plan(untied).state_dict("numpy")


@pytest.mark.parametrize("layout", ["llama/litgpt", "llama/meta", "qwen2/litgpt", "qwen3/litgpt", "phi3/litgpt"])
def test_a_tied_model_is_not_written_without_the_head_its_library_asks_for(layout: str) -> None:
    told = {"heads": HEADS} if "meta" in layout else {}
    with pytest.raises(MorphError, match=rf"lm_head\.weight  # a tied model has none: {layout}_tied"):
        morph(layout).inverse.plan(hub(layout.split("/")[0], tie_word_embeddings=True), **told)


@pytest.mark.parametrize("ranks", [1, 2, 8])
@pytest.mark.parametrize("layout", OF_RANKS)
def test_metas_files_of_several_ranks_are_put_together_and_cut_again(layout: str, ranks: int) -> None:
    big = {
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "hidden_size": 64,
        "head_dim": 6,
        "intermediate_size": 40,
        "vocab_size": 56,
    }
    written = hub("llama", **big)
    files = meta_ranks(written, ranks, OF_RANKS[layout], heads=16, kv_heads=8)
    assert len(files) == ranks * len(written)
    assert differing(written, morph(layout).plan(files, half=3).state_dict("numpy")) == []
    assert differing(files, morph(layout).inverse.plan(written, half=3, ranks=ranks).state_dict("numpy")) == []
    if ranks > 1:
        del files["consolidated.00::layers.1.feed_forward.w2.weight"]
        with pytest.raises(MorphError, match=r"consolidated\.00::layers\.1\.feed_forward\.w2\.weight"):
            morph(layout).plan(files, half=3)


def test_norms_that_differ_between_ranks_are_refused() -> None:
    big = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "head_dim": 6}
    files = meta_ranks(hub("llama", **big, vocab_size=38), 2, 0, heads=4, kv_heads=2)
    files["consolidated.01::norm.weight"] = files["consolidated.01::norm.weight"] + 1
    with pytest.raises(CheckError, match=r"consolidated\.01::norm\.weight"):
        morph("llama/meta_tp_llama3").plan(files, half=3).state_dict("numpy")


@pytest.mark.parametrize("layout", [str(one) for name in FAMILIES for one in layouts(name) if not one.is_hub])
def test_the_whole_hub_goes_into_every_layout_and_what_is_not_dropped_by_name_comes_back(layout: str) -> None:
    one = find(layout)
    probe = hub_probe(one.family.name)
    there = in_layout(one, probe)
    back = iso.morph(one.path).plan(there, sizes=_told(one)).state_dict("numpy")
    assert differing({name: probe[name] for name in back}, back) == []
    aside = ("score.", "qa_outputs.", "lm_head.weight", ".bias", ".inv_freq")
    for name in set(probe) - set(back):
        assert (
            name.endswith(aside) or name.startswith(aside) or (layout.startswith("qwen3_moe/") and ".mlp." in name)
        ), name


def _told(layout: Any) -> dict[str, int]:
    from isomorph.layouts.compose import axes_of

    used = axes_of(layout.morph.programs({}), {})
    return {axis: size for axis, size in probe_sizes(layout.family.name).items() if axis in used}


# ── vintages ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tables_of_rotary_angles_are_left_out_by_name() -> None:
    written = hub("llama")
    tables = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32) for layer in range(LAYERS)}
    old = schema("llama").read(manifest({**written, **tables}))
    assert (old.unknown, old.missing, old.clashes, old.sizes["heads"]) == ((), (), (), HEADS)
    for layout, by_hand, told in (("llama/meta", *BY_HAND["llama/meta"]), ("llama/litgpt", *BY_HAND["llama/litgpt"])):
        plan = morph(layout).inverse.plan({**written, **tables}, **told)
        assert differing(by_hand(written), plan.state_dict("numpy")) == []
        assert "dropped" in str(plan) and "inv_freq" in str(plan)
    by_hand, told = BY_HAND["llama/meta"]
    tables = {"rope.freqs": np.ones(4), "layers.0.attention.inner_attention.rope.freqs": np.ones(4)}
    assert (
        differing(written, morph("llama/meta").plan({**by_hand(written), **tables}, **told).state_dict("numpy")) == []
    )
    by_hand, told = BY_HAND["llama/gguf"]
    scaled = {"rope_freqs.weight": np.ones(4, np.float32)}
    assert (
        differing(written, morph("llama/gguf").plan({**by_hand(written), **scaled}, **told).state_dict("numpy")) == []
    )


def test_a_tied_model_in_an_old_torch_file_has_its_head_under_both_names() -> None:
    written = hub("llama", tie_word_embeddings=True)
    both = {**written, "lm_head.weight": written["model.embed_tokens.weight"]}
    expected = litgpt_tied(written)
    assert differing(expected, morph("llama/litgpt_tied").inverse.plan(both).state_dict("numpy")) == []
    assert differing(expected, morph("llama/litgpt").inverse.plan(both).state_dict("numpy")) == []


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "qwen3_moe"])
def test_question_answering_has_another_prefix(name: str) -> None:
    written = hub(name, "ForQuestionAnswering")
    back = morph(f"{name}/hf_qa").plan(written).state_dict("numpy")
    assert schema(name).read(manifest(back)).unknown == ()
    assert differing(written, hf_qa(back)) == []
    assert differing(written, morph(f"{name}/hf_qa").inverse.plan(back).state_dict("numpy")) == []


# ── other people's code ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", IN_MEMORY)
def test_the_experts_in_memory_are_what_transformers_has_there(layout: str) -> None:
    name = layout.split("/")[0]
    model = made(name)
    in_memory = {key: value.numpy() for key, value in model.state_dict().items()}
    assert differing(in_memory, morph(layout).inverse.plan(hub(name)).state_dict("numpy")) == []
    assert differing(hub(name), morph(layout).plan(in_memory).state_dict("numpy")) == []


@pytest.mark.parametrize("layout", ["llama/meta", "mistral/mistral"])
def test_metas_forward_pass_on_metas_names_gives_transformers_logits(layout: str) -> None:
    import torch

    name = layout.split("/")[0]
    tokens = torch.tensor([1, 30, 7, 7, 22])
    with torch.no_grad():
        expected = made(name)(tokens[None]).logits[0]
        weights = morph(layout).inverse.plan(hub(name), heads=HEADS).state_dict("torch")
        torch.testing.assert_close(meta_logits(weights, tokens), expected)
        unturned = morph(layout).inverse.plan(hub(name), half=1, heads=HEADS * HEAD_DIM // 2).state_dict("torch")
        assert not torch.allclose(meta_logits(unturned, tokens), expected, atol=1e-3)


@pytest.mark.parametrize("layout", ["llama/gguf", "mistral/gguf"])
def test_transformers_own_gguf_reader_turns_q_and_k_back(layout: str) -> None:
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    name = layout.split("/")[0]
    reader = LlamaTensorProcessor({"num_attention_heads": HEADS, "num_key_value_heads": 2})
    arrays = morph(layout).inverse.plan(hub(name), heads=HEADS).state_dict("numpy")
    for layer in range(LAYERS):
        for part in "qk":
            read = reader.process(arrays[f"blk.{layer}.attn_{part}.weight"], f"blk.{layer}.attn_{part}.weight").weights
            assert read.tobytes() == hub(name)[f"model.layers.{layer}.self_attn.{part}_proj.weight"].tobytes()


@pytest.mark.parametrize(
    "layout", ["llama/litgpt", "qwen2/gguf", "mixtral/litgpt", "qwen2_moe/hf_module", "phi3/split"]
)
def test_what_comes_back_loads_in_transformers_with_no_key_missing_or_unexpected(layout: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    name = layout.split("/")[0]
    model = made(name)
    there = morph(layout).inverse.plan(hub(name)).state_dict("numpy")
    save_file(as_torch(morph(layout).plan(there).state_dict("numpy")), tmp_path / "model.safetensors", {"format": "pt"})
    model.config.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    tokens = torch.tensor([[1, 30, 7, 7, 22]])
    with torch.no_grad():
        assert torch.equal(loaded.eval()(tokens).logits, model(tokens).logits)


def test_a_split_phi3_is_a_mistral(tmp_path: Path) -> None:
    import torch

    phi, mistral = made("phi3"), made("mistral")
    mistral.load_state_dict(as_torch(morph("phi3/split").inverse.plan(hub("phi3")).state_dict("numpy")), strict=True)
    tokens = torch.tensor([[1, 30, 7, 7, 22]])
    with torch.no_grad():
        torch.testing.assert_close(mistral(tokens).logits, phi(tokens).logits)


# ── what a person reads ──────────────────────────────────────────────────────────────────────────────────────────────


def test_without_heads_the_plan_names_the_axes_that_are_missing() -> None:
    with pytest.raises(MorphError, match="--set heads="):
        morph("llama/meta").inverse.plan(hub("llama"))


def test_without_the_number_of_ranks_the_plan_names_that_axis() -> None:
    with pytest.raises(MorphError, match="ranks"):
        morph("llama/meta_tp_llama3").inverse.plan(hub("llama"), half=HEAD_DIM // 2)


def test_an_expert_that_is_missing_is_named() -> None:
    lacking = {k: v for k, v in hub("mixtral").items() if k != "model.layers.1.block_sparse_moe.experts.2.w3.weight"}
    with pytest.raises(MorphError, match=r"model\.layers\.1\.block_sparse_moe\.experts\.2\.w3\.weight"):
        morph("mixtral/hf_module").inverse.plan(lacking, experts=EXPERTS)


@pytest.mark.parametrize("layout", ["llama/meta", "mistral/mistral", "mixtral/mistral", "llama/meta_tp_llama3"])
def test_the_sizes_of_params_json_are_read_under_the_hubs_names(layout: str) -> None:
    axes = find(layout).header.axes
    assert {"heads", "kv_heads", "head_dim"} <= set(axes) and SIZES["num_attention_heads"] == HEADS
