"""config.json beside the weights: transformers builds the model from it, and computes with it what the source computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

import isomorph as iso
from isomorph.errors import MorphError

VISION = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 24,
          "patch_size": 6}  # fmt: skip
TEXT = {"hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 5, "intermediate_size": 28, "vocab_size": 50,
        "max_position_embeddings": 11, "eos_token_id": 49}  # fmt: skip
ENCODER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40, "vocab_size": 60,
           "max_position_embeddings": 20}  # fmt: skip


def clip() -> CLIPModel:
    return CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=14))


def bert() -> BertForMaskedLM:
    return BertForMaskedLM(BertConfig(**ENCODER))


def vit() -> ViTForImageClassification:
    return ViTForImageClassification(ViTConfig(**VISION, layer_norm_eps=1e-6, num_labels=7))


def t5() -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration(
        T5Config(
            d_model=24,
            d_kv=6,
            num_heads=3,
            d_ff=40,
            num_layers=2,
            num_decoder_layers=3,
            vocab_size=60,
            feed_forward_proj="relu",
        )
    )


def inputs(kind: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(2, 49, (2, 7), generator=generator)
    pixels = torch.randn(2, 3, 24, 24, generator=generator)
    return {
        "clip": {"input_ids": ids, "pixel_values": pixels},
        "bert": {"input_ids": ids},
        "vit": {"pixel_values": pixels},
        "t5": {"input_ids": ids, "decoder_input_ids": ids[:, :4]},
    }[kind]


MAKERS = {"clip": clip, "bert": bert, "vit": vit, "t5": t5}

THROUGH = [
    ("clip", "clip/openai", {"vision_config.num_attention_heads": 3, "text_config.num_attention_heads": 5, "text_config.eos_token_id": 49}),
    ("clip", "clip/flax", {"vision_config.num_attention_heads": 3, "text_config.num_attention_heads": 5,
                           "text_config.eos_token_id": 49, "vision_config.hidden_act": "quick_gelu", "text_config.hidden_act": "quick_gelu",
                           "vision_config.layer_norm_eps": 1e-5, "text_config.layer_norm_eps": 1e-5}),
    ("bert", "bert/google_tf", {"num_attention_heads": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12}),
    ("bert", "bert/paddle", {"num_attention_heads": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12}),
    ("vit", "vit/google_npz", {"hidden_act": "gelu"}),
    ("vit", "vit/timm", {"num_attention_heads": 3, "hidden_act": "gelu"}),
    ("t5", "t5/t5x", {"num_heads": 3, "d_kv": 6, "feed_forward_proj": "relu", "layer_norm_epsilon": 1e-6, "relative_attention_max_distance": 128}),
    ("t5", "t5/paddle", {"num_heads": 3, "d_kv": 6, "feed_forward_proj": "relu", "layer_norm_epsilon": 1e-6, "relative_attention_max_distance": 128}),
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, PreTrainedModel]]:
    found = {}
    for kind, make in MAKERS.items():
        torch.manual_seed(1)
        folder = tmp_path_factory.mktemp(kind)
        model = make().eval()
        model.save_pretrained(folder)
        found[kind] = (folder, model)
    return found


def nested(facts: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in facts.items():
        *above, last = key.split(".")
        at = made
        for part in above:
            at = at.setdefault(part, {})
        at[last] = value
    return made


def loaded(model_class: Any, folder: Path) -> PreTrainedModel:
    model, info = model_class.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    return model.eval()


@pytest.mark.parametrize(("kind", "layout", "facts"), THROUGH, ids=[layout for _, layout, _ in THROUGH])
def test_weights_from_another_layout_compute_the_same(
    saved: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path, kind: str, layout: str, facts: dict[str, Any]
):
    """transformers -> a layout without any config -> transformers with a config made from shapes and stated facts: equal outputs."""
    folder, model = saved[kind]
    iso.convert(folder, tmp_path / "between.npz", to=layout)
    iso.convert(tmp_path / "between.npz", f"{tmp_path}/back/", to=f"{kind}/hf", from_=layout, config=nested(facts))
    again = loaded(type(model), tmp_path / "back")
    with torch.no_grad():
        expected, found = model(**inputs(kind)), again(**inputs(kind))
    assert torch.equal(expected[0], found[0])
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]
    assert config["dtype"] == "float32"


def test_the_sources_config_goes_along(saved: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path):
    """What the source's config.json says beyond sizes and facts stays; its dtype follows a cast."""
    folder, _ = saved["bert"]
    iso.convert(folder, f"{tmp_path}/half/", to="bert/hf_v4", dtype="bf16")
    before, after = (json.loads((one / "config.json").read_text()) for one in (folder, tmp_path / "half"))
    assert after["attention_probs_dropout_prob"] == before["attention_probs_dropout_prob"]
    assert (before["dtype"], after["dtype"]) == ("float32", "bfloat16")


@pytest.mark.parametrize(
    ("layout", "model_class", "kind"),
    [("clip/hf_vision", CLIPVisionModel, "clip"), ("clip/hf_text", CLIPTextModel, "clip")],
)
def test_a_tower_by_itself_has_the_towers_config(
    saved: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path, layout: str, model_class: Any, kind: str
):
    """Its part of the whole config is the whole of its own; and read again, it is read in the hub's terms."""
    folder, model = saved[kind]
    iso.convert(folder, f"{tmp_path}/tower/", to=layout)
    tower = loaded(model_class, tmp_path / "tower")
    name = "vision_model" if "vision" in layout else "text_model"
    state = {key: value for key, value in getattr(model, name).state_dict().items() if "position_ids" not in key}
    for key, value in tower.state_dict().items():
        if "position_ids" not in key:
            assert torch.equal(value, state[key.removeprefix(f"{name}.")])
    again = iso.convert(tmp_path / "tower", f"{tmp_path}/whole/", to="clip/hf")
    assert again.report.equal
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["num_attention_heads"] in (3, 5)


def test_a_model_without_a_head_is_written_without_its_prefix(tmp_path: Path):
    """As transformers writes it: BertModel has no `bert.`; and loads with nothing missing."""
    torch.manual_seed(2)
    model = BertModel(BertConfig(**ENCODER)).eval()
    model.save_pretrained(tmp_path / "bare")
    iso.convert(tmp_path / "bare", tmp_path / "google.npz", to="bert/google_tf")
    assert "bert/encoder/layer_0/attention/self/query/kernel" in iso.open(tmp_path / "google.npz")
    facts = {"num_attention_heads": 3, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    iso.convert(tmp_path / "google.npz", f"{tmp_path}/back/", to="bert/hf", config=facts)
    assert "encoder.layer.0.attention.self.query.weight" in iso.open(tmp_path / "back")
    again = loaded(BertModel, tmp_path / "back")
    with torch.no_grad():
        assert torch.equal(model(**inputs("bert"))[0], again(**inputs("bert"))[0])


def test_facts_that_nobody_states_are_asked_for_together(
    saved: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path
):
    """No config is invented, and nothing is written."""
    iso.convert(saved["vit"][0], tmp_path / "vit.npz", to="vit/timm")
    with pytest.raises(MorphError) as refused:
        iso.convert(tmp_path / "vit.npz", f"{tmp_path}/out/", to="vit/hf")
    text = str(refused.value)
    assert "config.json of vit/hf needs" in text
    assert "num_attention_heads: heads; shapes do not tell" in text
    assert "--set config.num_attention_heads=…" in text
    assert not (tmp_path / "out").exists()


def test_the_end_of_a_text_is_the_last_token_unless_the_config_says_another(
    saved: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path
):
    """OpenAI's CLIP takes a text's features at its largest token; transformers' default, 49407, is right for its vocabulary only."""
    iso.convert(saved["clip"][0], tmp_path / "clip.pt", to="clip/openai")
    heads = {"vision_config.num_attention_heads": 3, "text_config.num_attention_heads": 5}
    iso.convert(tmp_path / "clip.pt", f"{tmp_path}/out/", to="clip/hf", from_="clip/openai", config=nested(heads))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]["eos_token_id"] == 49
    stated = nested({**heads, "text_config.eos_token_id": 2})
    iso.convert(tmp_path / "clip.pt", f"{tmp_path}/old/", to="clip/hf", from_="clip/openai", config=stated)
    assert json.loads((tmp_path / "old" / "config.json").read_text())["text_config"]["eos_token_id"] == 2


def test_a_config_that_the_weights_deny_is_an_error(saved: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path):
    folder, _ = saved["bert"]
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(
        MorphError, match=r"ffn is 40 by bert\.encoder\.layer\.0\.intermediate\.dense\.bias, but 41 by the config"
    ):
        iso.convert(folder, tmp_path / "out.npz", to="bert/google_tf", config={**config, "intermediate_size": 41})
    with pytest.raises(
        MorphError, match=r"16 tensors that it needs and that are not there, all below bert\.encoder\.layer\.3\."
    ):
        iso.convert(folder, tmp_path / "out.npz", to="bert/google_tf", config={**config, "num_hidden_layers": 4})


def test_a_fact_that_the_target_fixes_otherwise_is_said(tmp_path: Path):
    """open_clip's gelu under OpenAI's names: the weights go over, and the plan says what they must be loaded with."""
    torch.manual_seed(1)
    model = CLIPModel(
        CLIPConfig(
            vision_config={**VISION, "hidden_act": "gelu"},
            text_config={**TEXT, "hidden_act": "gelu"},
            projection_dim=14,
        )
    )
    model.save_pretrained(tmp_path / "clip")
    done = iso.convert(tmp_path / "clip", tmp_path / "clip.pt", to="clip/openai")
    assert "clip/openai has vision_config.hidden_act = 'quick_gelu', and the source's config 'gelu'" in str(done)


def test_what_the_tokenizer_needs_is_copied_or_named(saved: dict[str, tuple[Path, PreTrainedModel]], tmp_path: Path):
    folder, _ = saved["bert"]
    done = iso.convert(folder, f"{tmp_path}/one/", to="bert/hf_v4")
    assert "missing   tokenizer (tokenizer.json or vocab.txt)" in str(done)
    (folder / "vocab.txt").write_text("[PAD]\n")
    try:
        done = iso.convert(folder, f"{tmp_path}/two/", to="bert/hf_v4")
    finally:
        (folder / "vocab.txt").unlink()
    assert (tmp_path / "two" / "vocab.txt").exists()
    assert "missing" not in str(done)


def test_two_layouts_by_name_are_a_morph():
    """iso.morph(one, another): the chain through the hub; the same layout twice leaves every name."""
    there = iso.morph("clip/openai", "clip/hf")
    assert "in_proj" in there.text or "use" in there.text
    assert iso.morph("clip/hf", "hf").plan({"a": np.zeros(2, "f4")}).manifest["a"].shape == (2,)
