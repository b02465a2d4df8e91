"""What people do by the command line: real models of odd sizes, wrapped, sharded and in half precision, there and back by `--to`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import isomorph.torch as iso_torch
from isomorph.cli.app import run
from isomorph.errors import MorphError

VISION = {"hidden_size": 30, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 44, "image_size": 21,
          "patch_size": 7}  # fmt: skip
TEXT = {"hidden_size": 24, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 36, "vocab_size": 77,
        "max_position_embeddings": 13, "eos_token_id": 76, "bos_token_id": 75}  # fmt: skip
ENCODER = {"hidden_size": 24, "num_hidden_layers": 5, "num_attention_heads": 3, "intermediate_size": 52, "vocab_size": 101,
           "max_position_embeddings": 19}  # fmt: skip
DECODER = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "intermediate_size": 44,
           "vocab_size": 101, "max_position_embeddings": 32, "pad_token_id": 0}  # fmt: skip
T5 = {"d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4, "vocab_size": 61}
GPT2 = {"n_embd": 24, "n_layer": 3, "n_head": 6, "vocab_size": 61, "n_positions": 17}


def build(kind: str, config: str, seed: int = 0, **sizes: Any) -> Any:
    """A model of transformers with random values everywhere, in norms and biases too."""
    torch.manual_seed(seed)
    model = getattr(transformers, kind)(getattr(transformers, config)(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def clip() -> Any:
    return build("CLIPModel", "CLIPConfig", vision_config=VISION, text_config=TEXT, projection_dim=10)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(load_file(path))
    return found


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


WAYS = [
    ("CLIPModel", "CLIPConfig", {"vision_config": VISION, "text_config": TEXT, "projection_dim": 10}, "clip", "openai"),
    ("CLIPForImageClassification", "CLIPConfig", {"vision_config": VISION, "text_config": TEXT, "num_labels": 6}, "clip", "hf"),
    ("SiglipForImageClassification", "SiglipConfig",
     {"vision_config": VISION, "text_config": {**TEXT, "projection_size": 24}, "num_labels": 6}, "siglip", "hf"),
    ("ViTForMaskedImageModeling", "ViTConfig", {**VISION, "encoder_stride": 7}, "vit", "hf_module"),
    ("ViTForImageClassification", "ViTConfig", {**VISION, "num_labels": 9}, "vit", "google_npz"),
    ("BertForPreTraining", "BertConfig", ENCODER, "bert", "google_tf"),
    ("BertForQuestionAnswering", "BertConfig", ENCODER, "bert", "fused_qkv"),
    ("T5ForConditionalGeneration", "T5Config", {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "t5", "t5x"),
    ("T5EncoderModel", "T5Config", T5, "t5", "flax"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "config", "sizes", "family", "layout"), WAYS, ids=[f"{w[0]}-{w[4]}" for w in WAYS])
def test_a_model_comes_back_as_it_was_and_transformers_loads_it(
    kind: str, config: str, sizes: dict[str, Any], family: str, layout: str, tmp_path: Path
):
    """In bf16 and in shards, through a foreign layout: the same values, no key too many or too few, the same class."""
    model = build(kind, config, **sizes).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "source", max_shard_size="30KB")
    assert (
        run(["convert", str(tmp_path / "source"), str(tmp_path / "there.safetensors"), "--to", f"{family}/{layout}"])
        == 0
    )
    told = str(tmp_path / "source" / "config.json")
    back = ["--to", f"{family}/hf", "--from", layout, "--config", told]
    assert run(["convert", str(tmp_path / "there.safetensors"), str(tmp_path / "back"), *back]) == 0
    loaded, info = type(model).from_pretrained(tmp_path / "back", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert equal(dict(model.state_dict()), dict(loaded.state_dict()))
    assert type(model).__name__ in loaded.config.architectures


def test_wrappers_of_training_change_nothing(tmp_path: Path):
    """`state_dict`, DDP, Lightning beside optimizer slots, compile: the same file comes out."""
    model = build("LlamaForCausalLM", "LlamaConfig", **DECODER)
    model.save_pretrained(tmp_path / "source")
    state = weights(tmp_path / "source")
    told = ["--to", "llama/meta", "--config", str(tmp_path / "source" / "config.json")]
    assert run(["convert", str(tmp_path / "source"), str(tmp_path / "expected.safetensors"), *told]) == 0
    slots = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}}
    wrapped: dict[str, tuple[Any, str]] = {
        "plain": (state, ""),
        "state_dict": ({"state_dict": state, "epoch": 3}, ""),
        "ddp": ({"module." + name: value for name, value in state.items()}, ""),
        "compiled": ({"_orig_mod." + name: value for name, value in state.items()}, ""),
        "lightning": (
            {"state_dict": {"model." + name: value for name, value in state.items()}, "optimizer_states": [slots]},
            "#state_dict/model",
        ),
        "ema": ({"model": {name: value * 2 for name, value in state.items()}, "ema": state}, "#ema"),
    }
    for name, (value, inner) in wrapped.items():
        torch.save(value, tmp_path / f"{name}.pt")
        made = tmp_path / f"{name}.safetensors"
        assert run(["convert", f"{tmp_path / name}.pt{inner}", str(made), *told]) == 0
        assert made.read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def test_what_is_beside_the_weights_is_named_and_how_to_take_the_weights_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    model = build("BertModel", "BertConfig", **ENCODER)
    slots = {"state": {0: {"exp_avg": torch.zeros(3)}}}
    torch.save(
        {"model": {"module." + n: v for n, v in model.state_dict().items()}, "optimizer": slots}, tmp_path / "run.pt"
    )
    assert run(["convert", str(tmp_path / "run.pt"), str(tmp_path / "out.safetensors"), "--to", "fused_qkv"]) == 2
    said = capsys.readouterr().err
    assert "beside them 1 tensor more" in said and "optimizer/state/0/exp_avg" in said and "SRC#model/module" in said


@pytest.mark.parametrize(
    ("kind", "config", "sizes", "family", "layout"),
    [
        ("GPT2Model", "GPT2Config", GPT2, "gpt2", "linear"),
        ("BertModel", "BertConfig", ENCODER, "bert", "fused_qkv"),
    ],
)
def test_a_model_without_a_head_is_filled_from_a_foreign_layout(
    kind: str, config: str, sizes: dict[str, Any], family: str, layout: str, tmp_path: Path
):
    """`transformer.` and `model.` stand in the hub's names even where there is no head; the model's own names decide."""
    model = build(kind, config, **sizes)
    model.save_pretrained(tmp_path / "source")
    assert (
        run(["convert", str(tmp_path / "source"), str(tmp_path / "x.safetensors"), "--to", f"{family}/{layout}"]) == 0
    )
    other = build(kind, config, seed=1, **sizes)
    found = iso_torch.load_model(other, tmp_path / "x.safetensors", to=f"{family}/hf", from_=f"{family}/{layout}")
    assert not any(found)
    assert equal(dict(model.state_dict()), dict(other.state_dict()))


def test_an_encoder_alone_fills_a_model_with_a_head(tmp_path: Path):
    """The base prefix is put back; with strict=False the head is what is named as missing, and nothing else."""
    encoder = build("BertModel", "BertConfig", **ENCODER)
    encoder.save_pretrained(tmp_path / "source")
    whole = build("BertForSequenceClassification", "BertConfig", seed=1, **ENCODER)
    missing, unexpected = iso_torch.load_model(whole, tmp_path / "source", to="bert/hf", strict=False)
    assert sorted(missing) == ["classifier.bias", "classifier.weight"] and not unexpected
    assert equal(dict(encoder.state_dict()), dict(whole.bert.state_dict()))


def test_a_layout_with_another_kind_of_mlp_is_refused_from_wherever_one_comes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Its MLP would be left out: from the hub, without a head, and through the hub."""
    model = build("Dinov2Model", "Dinov2Config", **VISION)
    model.save_pretrained(tmp_path / "source")
    facebook = tmp_path / "facebook.safetensors"
    assert run(["convert", str(tmp_path / "source"), str(facebook), "--to", "dinov2/facebook"]) == 0
    for source in (tmp_path / "source", facebook):
        capsys.readouterr()
        assert run(["convert", str(source), str(tmp_path / "out.safetensors"), "--to", "dinov2/timm_swiglu"]) == 2
        said = capsys.readouterr().err
        assert "dinov2/timm_swiglu must have tensors that this dinov2/" in said and "weights_in" in said
        assert not (tmp_path / "out.safetensors").exists()


def test_a_tower_that_is_not_there_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    build("CLIPVisionModel", "CLIPVisionConfig", **VISION).save_pretrained(tmp_path / "source")
    assert run(["convert", str(tmp_path / "source"), str(tmp_path / "out.safetensors"), "--to", "clip/hf_text"]) == 2
    said = capsys.readouterr().err
    assert "clip/hf_text holds text alone, and of that this clip/hf_vision checkpoint has nothing" in said
    assert "it has vision" in said


def test_a_head_of_its_own_does_not_go_into_a_layout_that_ties_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It would be left out. Where no config tells whether it is a copy, that is asked."""
    build("LlamaForCausalLM", "LlamaConfig", **DECODER).save_pretrained(tmp_path / "source")
    weights_alone, made = str(tmp_path / "alone.safetensors"), str(tmp_path / "out.safetensors")
    save_file(weights(tmp_path / "source"), weights_alone)
    to_tied = [made, "--to", "llama/litgpt_tied", "--from", "llama/hf", "--set", "heads=6", "--set", "kv_heads=2"]
    assert run(["convert", str(tmp_path / "source"), *to_tied]) == 2
    said = capsys.readouterr().err
    assert "would leave out the head that this llama/hf checkpoint has" in said and "its config says tie_word" in said
    assert "--to llama/litgpt" in said
    assert run(["convert", weights_alone, *to_tied]) == 2
    assert "--set config.tie_word_embeddings=true" in capsys.readouterr().err
    assert run(["convert", weights_alone, *to_tied, "--set", "config.tie_word_embeddings=true"]) == 0


def test_facts_that_nobody_states_are_asked_for_and_then_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """OpenAI's names without a config: heads and, where the names are open_clip's too, the activation."""
    clip().save_pretrained(tmp_path / "source")
    (there, back) = (tmp_path / "there" / "openai.safetensors", tmp_path / "back")
    there.parent.mkdir()
    assert run(["convert", str(tmp_path / "source"), str(there), "--to", "clip/openai"]) == 0
    asked = ["convert", str(there), str(back), "--to", "clip/hf", "--from", "openai"]
    assert run(asked) == 2
    said = capsys.readouterr().err
    assert "vision_config.num_attention_heads" in said and "hidden_act" not in said
    assert (
        run([*asked, "--set", "vision_heads=3", "--set", "text_heads=4", "--set", "config.text_config.eos_token_id=76"])
        == 0
    )
    ids = torch.tensor([[75, 3, 9, 76]])
    pixels = torch.randn(1, 3, 21, 21)
    one, other = (transformers.CLIPModel.from_pretrained(at).eval() for at in (tmp_path / "source", back))
    with torch.no_grad():
        assert torch.equal(one(ids, pixels).logits_per_image, other(ids, pixels).logits_per_image)


def test_to_goes_with_a_cast_a_dry_run_a_plan_and_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """--dtype, --dry-run, plan.json, verify --to, a target that exists."""
    clip().save_pretrained(tmp_path / "source")
    source, made, half = (str(tmp_path / name) for name in ("source", "openai.pt", "half.safetensors"))
    assert run(["convert", source, made, "--to", "clip/openai", "--dry-run"]) == 0
    assert not Path(made).exists()
    assert run(["convert", source, made, "--to", "clip/openai"]) == 0
    assert run(["verify", source, made, "--to", "clip/openai"]) == 0
    assert run(["convert", source, made, "--to", "clip/openai"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(["convert", source, half, "--to", "clip/openai", "--dtype", "bf16"]) == 0
    expected = torch.load(made, weights_only=True)
    assert equal(load_file(half), {name: value.bfloat16() for name, value in expected.items()})


def test_what_fits_no_model_raises_before_anything_is_read(tmp_path: Path):
    """Loading into a model of another size."""
    build("BertModel", "BertConfig", **ENCODER).save_pretrained(tmp_path / "source")
    other = build("BertModel", "BertConfig", **{**ENCODER, "hidden_size": 36})
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(MorphError, match="24"):
        iso_torch.load_model(other, tmp_path / "source", to="bert/hf")
    assert equal(before, dict(other.state_dict()))


def test_a_plan_that_is_written_down_writes_the_config_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`plan --to … -o plan.json`, then `convert plan.json`: what `convert --to` would have made, and nothing else asked."""
    build("ViTModel", "ViTConfig", **VISION).save_pretrained(tmp_path / "source")
    timm, plan, made = tmp_path / "there" / "timm.safetensors", str(tmp_path / "plan.json"), tmp_path / "made"
    timm.parent.mkdir()
    assert run(["convert", str(tmp_path / "source"), str(timm), "--to", "vit/timm"]) == 0
    told = ["--to", "vit/hf", "--from", "vit/timm", "--set", "config.num_attention_heads=3"]
    assert run(["plan", str(timm), *told, "-o", plan, "--output", str(made) + "/"]) == 0
    capsys.readouterr()
    assert run(["convert", plan, str(tmp_path / "elsewhere")]) == 2
    assert "which says where its result goes" in capsys.readouterr().err
    assert run(["convert", plan]) == 0
    assert "vit/timm -> vit/hf" in capsys.readouterr().out
    assert run(["convert", str(timm), str(tmp_path / "direct"), *told]) == 0
    for name in ("config.json", "model.safetensors"):
        assert (made / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()


@pytest.mark.parametrize("layout", ["litgpt_interleaved", "litgpt", "gguf"])
def test_a_layout_that_asks_for_a_config_is_not_taken_for_another_that_asks_for_none(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Falcon's files without a config have GPT-NeoX's names: both are named; with Falcon's config it is Falcon."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "multi_query": False, "bias": True,
             "alibi": True, "vocab_size": 61, "parallel_attn": False}  # fmt: skip
    model = build("FalconForCausalLM", "FalconConfig", **sizes)
    model.save_pretrained(tmp_path / "source")
    there = tmp_path / "there" / "x.safetensors"
    there.parent.mkdir()
    assert run(["convert", str(tmp_path / "source"), str(there), "--to", f"falcon/{layout}"]) == 0
    capsys.readouterr()
    assert run(["convert", str(there), str(tmp_path / "back.safetensors"), "--to", "hf"]) == 2
    said = capsys.readouterr().err
    assert "its names fit 2 layouts" in said and f"falcon/{layout}" in said and f"gpt_neox/{layout}" in said
    told = ["--config", str(tmp_path / "source" / "config.json")]
    assert run(["convert", str(there), str(tmp_path / "back.safetensors"), "--to", "hf", *told]) == 0
    assert equal(load_file(tmp_path / "back.safetensors"), weights(tmp_path / "source"))


def test_slips_in_joining_models_say_how_it_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A splice by a name that it has not; two models given to --to."""
    build("ViTModel", "ViTConfig", **VISION).save_pretrained(tmp_path / "vit")
    clip().save_pretrained(tmp_path / "clip")
    both = [f"vit={tmp_path / 'vit'}", f"clip={tmp_path / 'clip'}", str(tmp_path / "out")]
    assert run(["convert", *both, "-m", "splice/vit_to_clip"]) == 2
    assert "splice/vit_into_clip" in capsys.readouterr().err
    assert run(["convert", *both, "--to", "clip/openai"]) == 2
    said = capsys.readouterr().err
    assert (
        "the 2 inputs (vit, clip) were taken for the files of one checkpoint" in said
        and "-m splice/vit_into_clip" in said
    )
    assert run(["convert", *both, "-m", "splice/vit_into_clip"]) == 0
    made, source = weights(tmp_path / "out"), weights(tmp_path / "vit")
    key = "encoder.layer.1.attention.attention.query.weight"
    assert torch.equal(made["vision_model.encoder.layers.1.self_attn.q_proj.weight"], source[key])


def test_the_config_that_the_nearest_layout_asks_for_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A new Falcon in LitGPT's names: GPT-NeoX, which fits less well, is not what is talked of."""
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 6, "num_kv_heads": 2, "vocab_size": 61,
             "new_decoder_architecture": True}  # fmt: skip
    build("FalconForCausalLM", "FalconConfig", **sizes).save_pretrained(tmp_path / "source")
    there = tmp_path / "there" / "x.safetensors"
    there.parent.mkdir()
    assert run(["convert", str(tmp_path / "source"), str(there), "--to", "falcon/litgpt"]) == 0
    assert run(["convert", str(there), str(tmp_path / "back.safetensors"), "--to", "hf"]) == 2
    said = capsys.readouterr().err
    assert "the nearest is falcon/litgpt" in said and "--set config.new_decoder_architecture" in said
