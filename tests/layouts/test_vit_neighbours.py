"""DeiT, BEiT, DINOv2 (plain, SwiGLU, registers) and MAE against real models: transformers' own tensors, by hand, and timm's names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, back, differing, morph, quiet_transformers, randomised, saved, to
from vit_hands import CLASSES, HEADS, LAYERS, SIZES, facts

import isomorph as iso
from isomorph.layouts.catalogue import family, find, layouts
from isomorph.layouts.hub import schema
from isomorph.testing.layouts import hub_probe, in_layout

FAMILIES = ("deit", "beit", "dinov2", "dinov2_with_registers", "vit_mae")
TABLES = {"use_relative_position_bias": True, "layer_scale_init_value": 0.1}
SHARED = {
    "use_shared_relative_position_bias": True,
    "use_absolute_position_embeddings": True,
    "use_mean_pooling": False,
    "layer_scale_init_value": 0.1,
}
MASKED = {**SHARED, "use_mask_token": True, "vocab_size": 31, "use_mean_pooling": True}
RATIO = {"mlp_ratio": 2, "intermediate_size": None}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 28,
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "deit": ("deit", "DeiTForImageClassificationWithTeacher", {}),
    "deit one head": ("deit", "DeiTForImageClassification", {}),
    "deit base": ("deit", "DeiTModel", {}),
    "deit masked": ("deit", "DeiTForMaskedImageModeling", {"encoder_stride": 8}),
    "beit": ("beit", "BeitForImageClassification", TABLES),
    "beit shared": ("beit", "BeitForImageClassification", SHARED),
    "beit plain": ("beit", "BeitModel", {"layer_scale_init_value": 0.0}),
    "beit masked": ("beit", "BeitForMaskedImageModeling", MASKED),
    "dinov2": ("dinov2", "Dinov2ForImageClassification", RATIO),
    "dinov2 base": ("dinov2", "Dinov2Model", RATIO),
    "dinov2 swiglu": ("dinov2", "Dinov2Model", {**RATIO, "use_swiglu_ffn": True}),
    "registers": ("dinov2_with_registers", "Dinov2WithRegistersForImageClassification", RATIO),
    "registers swiglu": ("dinov2_with_registers", "Dinov2WithRegistersModel", {**RATIO, "use_swiglu_ffn": True}),
    "mae": ("vit_mae", "ViTMAEForPreTraining", DECODER),
    "mae base": ("vit_mae", "ViTMAEModel", DECODER),
}
CONFIGS = {
    "deit": "DeiTConfig",
    "beit": "BeitConfig",
    "dinov2": "Dinov2Config",
    "dinov2_with_registers": "Dinov2WithRegistersConfig",
    "vit_mae": "ViTMAEConfig",
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def model_of(transformers: Any, which: str) -> Any:
    """That model of random numbers, the same whenever it is made."""
    of, cls, config = MODELS[which]
    stated = {name: value for name, value in {**SIZES, **config}.items() if value is not None}
    return randomised(getattr(transformers, cls)(getattr(transformers, CONFIGS[of])(**stated, num_labels=CLASSES)))


def full(of: str, arrays: Mapping[str, Any]) -> Arrays:
    """The hub's names: a model without a head is saved without the prefix."""
    base = str(family(of).base)
    return dict(arrays) if any(name.startswith(base) for name in arrays) else {base + k: v for k, v in arrays.items()}


@pytest.fixture(scope="module")
def hubs(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Arrays]:
    """Each model's tensors as transformers writes them, made when they are first asked for."""
    found: dict[str, Arrays] = {}

    def made(which: str) -> Arrays:
        if which not in found:
            arrays = saved(model_of(transformers, which), tmp_path_factory.mktemp("model"))
            found[which] = full(MODELS[which][0], arrays)
        return found[which]

    return made


Hubs = Callable[[str], Arrays]


# ── the hubs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("which", MODELS)
def test_a_hub_is_what_transformers_writes(hubs: Hubs, which: str) -> None:
    """Names, shapes and sizes: read off a file they expand to the same file; nothing unknown, nothing missing."""
    of, arrays = MODELS[which][0], hubs(which)
    known = {"image": 16, "patch": 8, "heads": HEADS, "dec_heads": 2, "stride": 8, "ratio": 2}
    found = schema(of).read(iso.open(arrays).manifest, {k: v for k, v in known.items() if k in family(of).axes})
    assert (found.unknown, found.missing, found.clashes) == ((), (), ())
    expanded = schema(of).expand(found.sizes, found.groups)
    assert {name: spec.shape for name, spec in expanded.items()} == {name: a.shape for name, a in arrays.items()}


@pytest.mark.parametrize(
    ("of", "tensors", "parameters"),
    [
        ("deit", 203, 87_338_192),
        ("beit", 223, 86_530_984),
        ("dinov2", 223, 86_580_480),
        ("dinov2_with_registers", 224, 86_583_552),
        ("vit_mae", 334, 111_907_840),
    ],
)
def test_the_best_known_models_are_listed_as_they_were_published(of: str, tensors: int, parameters: int) -> None:
    """The base models of the papers: tensors and numbers of each."""
    keys = schema(of).expand(family(of).sizes)
    assert (len(keys), sum(spec.numel for spec in keys.values())) == (tensors, parameters)


@pytest.mark.parametrize("which", MODELS)
def test_hf_module_is_the_state_dict_of_the_model(transformers: Any, hubs: Hubs, which: str) -> None:
    """Every name, dtype, shape and bit, and it loads strictly."""
    of, model = MODELS[which][0], model_of(transformers, which)
    found = to(f"{of}/hf_module", hubs(which))
    own = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert differing(full(of, own), found) == []
    assert differing(hubs(which), back(f"{of}/hf_module", found)) == []


@pytest.mark.parametrize("layout", [str(one) for of in FAMILIES for one in layouts(of)])
def test_every_layout_takes_the_whole_hub_there_and_back(layout: str) -> None:
    """On a checkpoint whose elements are their own numbers: what comes back is as it was, but for positions that were added up."""
    of = layout.partition("/")[0]
    whole = hub_probe(of)
    returned = back(layout, in_layout(find(layout), whole))
    changed = differing({name: whole[name] for name in returned}, returned)
    added_up = "registers/timm" in layout
    assert changed == ([f"{of}.embeddings.cls_token", f"{of}.embeddings.position_embeddings"] if added_up else [])


# ── by hand ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def timm_layers(
    hub: Arrays, base: str, norms: tuple[str, str], fcs: tuple[str, str], to_blocks: str = "blocks"
) -> Arrays:
    """The layers of transformers' ViTs as timm's blocks: q over k over v, and other names."""
    found: Arrays = {}
    count = 1 + max(int(name[len(base) + 1 :].split(".")[0]) for name in hub if name.startswith(base))
    for number in range(count):
        old, new = f"{base}.{number}.", f"{to_blocks}.{number}."
        for t in ("weight", "bias"):
            three = [hub.get(f"{old}attention.attention.{p}.{t}") for p in ("query", "key", "value")]
            if all(part is not None for part in three):
                found[f"{new}attn.qkv.{t}"] = np.concatenate(three)
            found[f"{new}attn.proj.{t}"] = hub[f"{old}attention.output.dense.{t}"]
            for was, now in (
                *zip(norms, ("norm1", "norm2"), strict=True),
                *zip(fcs, ("mlp.fc1", "mlp.fc2"), strict=True),
            ):
                found[f"{new}{now}.{t}"] = hub[f"{old}{was}.{t}"]
    return found


def renamed(hub: Arrays, names: Mapping[str, str]) -> Arrays:
    """Tensors by whole name, modules by their weight and bias; those that are there."""
    found: Arrays = {}
    for old, new in names.items():
        found |= {new: hub[old]} if old in hub else {}
        found |= {f"{new}.{t}": hub[f"{old}.{t}"] for t in ("weight", "bias") if f"{old}.{t}" in hub}
    return found


def stem(base: str) -> dict[str, str]:
    return {
        f"{base}.embeddings.cls_token": "cls_token",
        f"{base}.embeddings.position_embeddings": "pos_embed",
        f"{base}.embeddings.patch_embeddings.projection": "patch_embed.proj",
        f"{base}.layernorm": "norm",
    }


NORMS, FCS = ("layernorm_before", "layernorm_after"), ("intermediate.dense", "output.dense")


def deit_by_hand(hub: Arrays) -> Arrays:
    names = stem("deit") | {
        "deit.embeddings.distillation_token": "dist_token",
        "cls_classifier": "head",
        "distillation_classifier": "head_dist",
    }
    return renamed(hub, names) | timm_layers(hub, "deit.encoder.layer", NORMS, FCS)


def deit_of_paddle_by_hand(hub: Arrays) -> Arrays:
    """timm's, with every matrix turned."""
    return {name: array.T if array.ndim == 2 else array for name, array in deit_by_hand(hub).items()}


def deit_of_mmpretrain_by_hand(hub: Arrays) -> Arrays:
    changed = {
        r"^(?!head)": "backbone.",
        r"^head": "head.layers.head",
        r"patch_embed\.proj": "patch_embed.projection",
        r"backbone\.norm\.": "backbone.ln1.",
        r"blocks\.(\d)\.norm": r"layers.\1.ln",
        r"blocks\.(\d)\.mlp\.fc1": r"layers.\1.ffn.layers.0.0",
        r"blocks\.(\d)\.mlp\.fc2": r"layers.\1.ffn.layers.1",
        r"blocks": "layers",
    }
    found: Arrays = {}
    for name, array in deit_by_hand(hub).items():
        for old, new in changed.items():
            name = re.sub(old, new, name)
        found[name] = array
    return found


def beit_by_hand(hub: Arrays) -> Arrays:
    names = stem("beit") | {
        "beit.pooler.layernorm": "fc_norm",
        "classifier": "head",
        "beit.encoder.relative_position_bias.relative_position_bias_table": "rel_pos_bias.relative_position_bias_table",
    }
    found = renamed(hub, names) | timm_layers(hub, "beit.encoder.layer", NORMS, FCS)
    for number in range(LAYERS):
        old, new = f"beit.encoder.layer.{number}.", f"blocks.{number}."
        table = "relative_position_bias_table"
        found |= renamed(
            hub,
            {
                f"{old}lambda_1": f"{new}gamma_1",
                f"{old}lambda_2": f"{new}gamma_2",
                f"{old}attention.attention.relative_position_bias.{table}": f"{new}attn.{table}",
                f"{old}attention.attention.query.bias": f"{new}attn.q_bias",
                f"{old}attention.attention.value.bias": f"{new}attn.v_bias",
            },
        )
    return found


def beit_pretrained_by_hand(hub: Arrays) -> Arrays:
    found = beit_by_hand(hub)
    return found | renamed(hub, {"beit.embeddings.mask_token": "mask_token", "layernorm": "norm", "lm_head": "lm_head"})


def dinov2_by_hand(
    hub: Arrays, base: str = "dinov2", mlp: tuple[str, str] = ("fc1", "fc2"), prefix: str = ""
) -> Arrays:
    """Facebook's: `mlp` are the two matrices' names here and there."""
    here = (
        ("mlp.weights_in", "mlp.weights_out")
        if f"{base}.encoder.layer.0.mlp.weights_in.weight" in hub
        else (
            "mlp.fc1",
            "mlp.fc2",
        )
    )
    found = renamed(
        hub,
        stem(base)
        | {f"{base}.embeddings.mask_token": "mask_token", f"{base}.embeddings.register_tokens": "register_tokens"},
    )
    for name, array in timm_layers(hub, f"{base}.encoder.layer", ("norm1", "norm2"), here).items():
        found[name.replace("mlp.fc1", f"mlp.{mlp[0]}").replace("mlp.fc2", f"mlp.{mlp[1]}")] = array
    for number in range(LAYERS):
        for n in (1, 2):
            found[f"blocks.{number}.ls{n}.gamma"] = hub[f"{base}.encoder.layer.{number}.layer_scale{n}.lambda1"]
    return {prefix + name: array for name, array in found.items()}


def timm_dinov2_by_hand(hub: Arrays, base: str = "dinov2") -> Arrays:
    found = dinov2_by_hand(hub, base)
    del found["mask_token"]
    if "register_tokens" in found:
        found["reg_token"] = found.pop("register_tokens")
        found["cls_token"] = found["cls_token"] + found["pos_embed"][:, :1]
        found["pos_embed"] = found["pos_embed"][:, 1:]
    return found


def lc_by_hand(hub: Arrays, base: str = "dinov2") -> Arrays:
    return dinov2_by_hand(hub, base, prefix="backbone.") | renamed(hub, {"classifier": "linear_head"})


def mae_by_hand(hub: Arrays) -> Arrays:
    decoder = {f"decoder.decoder_{part}": f"decoder_{part}" for part in ("embed", "norm", "pred", "pos_embed")}
    found = renamed(hub, stem("vit") | decoder | {"decoder.mask_token": "mask_token"})
    found |= timm_layers(hub, "vit.encoder.layer", NORMS, FCS)
    if "decoder.mask_token" in hub:
        found |= timm_layers(hub, "decoder.decoder_encoder.layer", NORMS, FCS, "decoder_blocks")
    return found


def flax_by_hand(hub: Arrays) -> Arrays:
    found: Arrays = {}
    for name, array in hub.items():
        module, _, last = name.rpartition(".")
        norm = "norm" in module
        if last == "weight":
            last = "scale" if norm else "kernel"
            array = array if norm else array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        found["/".join([*module.split("."), last])] = array
    return found


def tensorflow_by_hand(hub: Arrays, cls: str) -> Arrays:
    """The main layer's name, the class's, the main layer's again; layers are called layer_._0, or decoder_layers.0."""
    found: Arrays = {}
    for name, array in hub.items():
        main, _, rest = name.partition(".")
        module, _, last = rest.rpartition(".")
        if last in ("weight", "bias"):
            norm = "norm" in module
            array = array if norm else array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            words = {"weight": "gamma", "bias": "beta"} if norm else {"weight": "kernel", "bias": "bias"}
            last = words[last]
        inside = "/".join([*module.split("."), last] if module else [last])
        inside = re.sub(r"^decoder_encoder/layer/(\d+)", r"decoder_layers.\1", inside)
        found[f"{main}/{cls}/{main}/{re.sub(r'^encoder/layer/', 'encoder/layer_._', inside)}:0"] = array
    return found


REGISTERS = "dinov2_with_registers"
HANDS: dict[tuple[str, str], Callable[[Arrays], Arrays]] = {
    ("deit", "deit/timm"): deit_by_hand,
    ("deit", "deit/paddle"): deit_of_paddle_by_hand,
    ("deit", "deit/mmpretrain"): deit_of_mmpretrain_by_hand,
    ("beit", "beit/timm"): beit_by_hand,
    ("beit shared", "beit/timm"): beit_by_hand,
    ("beit masked", "beit/unilm_pretrained"): beit_pretrained_by_hand,
    ("beit", "beit/flax"): flax_by_hand,
    ("beit shared", "beit/flax"): flax_by_hand,
    ("beit masked", "beit/flax"): flax_by_hand,
    ("deit", "deit/tf"): lambda hub: tensorflow_by_hand(hub, "tf_dei_t_for_image_classification_with_teacher"),
    ("mae", "vit_mae/hf_v4"): lambda hub: {
        name.replace("decoder_encoder.layer.", "decoder_layers."): array for name, array in hub.items()
    },
    ("mae base", "vit_mae/hf_v4"): lambda hub: dict(hub),
    ("mae", "vit_mae/tf"): lambda hub: tensorflow_by_hand(hub, "tf_vi_tmae_for_pre_training"),
    ("dinov2 base", "dinov2/facebook"): dinov2_by_hand,
    ("dinov2 swiglu", "dinov2/facebook"): lambda hub: dinov2_by_hand(hub, mlp=("w12", "w3")),
    ("dinov2", "dinov2/facebook_lc"): lc_by_hand,
    ("dinov2", "dinov2/flax"): flax_by_hand,
    ("dinov2 base", "dinov2/timm"): timm_dinov2_by_hand,
    ("dinov2 swiglu", "dinov2/timm_swiglu"): timm_dinov2_by_hand,
    ("registers swiglu", f"{REGISTERS}/facebook"): lambda hub: dinov2_by_hand(hub, REGISTERS, ("w12", "w3")),
    ("registers swiglu", f"{REGISTERS}/timm_swiglu"): lambda hub: timm_dinov2_by_hand(hub, REGISTERS),
    ("registers", f"{REGISTERS}/facebook_lc"): lambda hub: lc_by_hand(hub, REGISTERS),
    ("registers", f"{REGISTERS}/timm"): lambda hub: timm_dinov2_by_hand(hub, REGISTERS),
    ("mae", "vit_mae/facebook"): mae_by_hand,
    ("mae base", "vit_mae/facebook"): mae_by_hand,
}


def test_every_layout_is_worked_out_by_hand() -> None:
    """But for those in memory, which are held against the models themselves, and the hubs."""
    every = {str(one) for of in FAMILIES for one in layouts(of) if not one.is_hub and one.name != "hf_module"}
    assert {layout for _, layout in HANDS} == every


@pytest.mark.parametrize(("which", "layout"), HANDS)
def test_a_layout_is_what_numpy_makes_of_the_hub(hubs: Hubs, which: str, layout: str) -> None:
    """Every name, dtype, shape and bit; and back, but for what the library has no place for, and positions that were added up."""
    hub = hubs(which)
    made = to(layout, hub)
    assert differing(HANDS[which, layout](hub), made) == []
    returned = back(layout, made)
    lost = {name.rpartition(".")[2] for name in set(hub) - set(returned)}
    assert lost <= ({"mask_token", "weight", "bias"} if "timm" in layout and "dinov2" in layout else set())
    added_up = [f"{REGISTERS}.embeddings.cls_token", f"{REGISTERS}.embeddings.position_embeddings"]
    changed = differing({name: hub[name] for name in hub if name in returned}, returned)
    assert changed == (added_up if f"{REGISTERS}/timm" in layout else [])


@pytest.mark.parametrize(
    ("which", "layout", "recorded"),
    [
        ("deit", "deit/timm", "deit/timm"),
        ("beit", "beit/timm", "beit/timm"),
        ("beit shared", "beit/timm", "beit/timm shared"),
        ("beit", "beit/flax", "beit/flax"),
        ("beit shared", "beit/flax", "beit/flax shared"),
        ("beit masked", "beit/flax", "beit/flax masked"),
        ("deit", "deit/tf", "deit/tf"),
        ("mae", "vit_mae/tf", "vit_mae/tf"),
        ("dinov2 base", "dinov2/timm", "dinov2/timm"),
        ("dinov2 swiglu", "dinov2/timm_swiglu", "dinov2/timm_swiglu"),
        ("dinov2", "dinov2/flax", "dinov2/flax"),
        ("registers", f"{REGISTERS}/timm", f"{REGISTERS}/timm"),
        ("registers swiglu", f"{REGISTERS}/timm_swiglu", f"{REGISTERS}/timm_swiglu"),
    ],
)
def test_names_and_shapes_are_those_of_the_library_itself(hubs: Hubs, which: str, layout: str, recorded: str) -> None:
    """Recorded from timm, Flax and TensorFlow models of these sizes."""
    assert {name: array.shape for name, array in to(layout, hubs(which)).items()} == facts(recorded)


# ── what each family has of its own ─────────────────────────────────────────────────────────────────────────────────────


def test_timms_registers_have_no_position_and_the_model_is_the_same(transformers: Any, hubs: Hubs) -> None:
    """Back from timm the class token's position is 0 and the token holds the sum: another checkpoint, the same function."""
    import torch

    returned = back(f"{REGISTERS}/timm", to(f"{REGISTERS}/timm", hubs("registers")))
    positions = returned[f"{REGISTERS}.embeddings.position_embeddings"]
    assert not positions[:, 0].any()
    model, other = model_of(transformers, "registers"), model_of(transformers, "registers")
    kept = {name: array for name, array in hubs("registers").items() if name not in returned}
    other.load_state_dict(as_torch(to(f"{REGISTERS}/hf_module", returned | kept)), strict=True)
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(model(image).logits, other(image).logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("which", "right", "wrong"),
    [
        ("dinov2 swiglu", "dinov2/timm_swiglu", "dinov2/timm"),
        ("dinov2 base", "dinov2/timm", "dinov2/timm_swiglu"),
        ("registers swiglu", f"{REGISTERS}/timm_swiglu", f"{REGISTERS}/timm"),
        ("registers", f"{REGISTERS}/timm", f"{REGISTERS}/timm_swiglu"),
    ],
)
def test_swiglu_and_mlp_of_timm_are_not_taken_for_each_other(hubs: Hubs, which: str, right: str, wrong: str) -> None:
    """Their names are equal; the sizes of the two matrices contradict the wrong one, which is said with both."""
    found = to(right, hubs(which))
    with pytest.raises(iso.MorphError) as refused:
        morph(wrong).plan(found)
    assert "fc1.weight" in str(refused.value) and "fc2.weight" in str(refused.value)


def test_the_buffers_of_beit_are_left_out_on_either_side(hubs: Hubs) -> None:
    """relative_position_index is computed from the size of the grid: never asked for, never made."""
    index = np.zeros((5, 5), np.int64)
    for which, old, new in (
        ("beit", "encoder.layer.1.attention.attention.relative_position_bias", "blocks.1.attn"),
        ("beit shared", "encoder.relative_position_bias", "rel_pos_bias"),
    ):
        hub = hubs(which)
        made = to("beit/timm", hub)
        assert differing(made, to("beit/timm", hub | {f"beit.{old}.relative_position_index": index})) == []
        assert differing(hub, back("beit/timm", made | {f"{new}.relative_position_index": index})) == []


def test_a_beit_has_no_bias_for_k(hubs: Hubs) -> None:
    """Nothing is invented for it: the names that come back are transformers' own."""
    returned = back("beit/timm", to("beit/timm", hubs("beit")))
    assert not any("key.bias" in name for name in returned)
    assert any("query.bias" in name for name in returned)


def test_a_deit_with_one_head_leaves_it_out_of_timm_by_name(hubs: Hubs) -> None:
    """timm's distilled model always has two heads."""
    plan = morph("deit/timm").inverse.plan(hubs("deit one head"))
    assert "classifier" in str(plan)
    assert not any("head" in name for name in plan.state_dict("numpy"))


def test_a_deit_without_its_token_is_refused(hubs: Hubs) -> None:
    """Without dist_token it is a ViT, and the message names what is not there."""
    found = to("deit/timm", hubs("deit"))
    del found["dist_token"]
    with pytest.raises(iso.MorphError, match="dist_token"):
        morph("deit/timm").plan(found)


def test_the_encoder_of_a_mae_is_a_vit_to_timm(hubs: Hubs) -> None:
    """The released encoder is read by vit_mae/facebook and by vit/timm alike, and equal in both."""
    found = to("vit_mae/facebook", hubs("mae base"))
    assert differing(back("vit_mae/facebook", found), back("vit/timm", found)) == []


@pytest.mark.parametrize("which", ["deit", "beit shared", "dinov2", "registers", "mae"])
def test_transformers_loads_what_came_from_the_authors_layout(
    transformers: Any, hubs: Hubs, tmp_path: Path, which: str
) -> None:
    """Nothing missing but what the layout has no place for, nothing unexpected."""
    of = MODELS[which][0]
    layout = {"deit": "timm", "beit": "timm"}.get(of, "facebook_lc" if "dinov2" in of else "facebook")
    model = model_of(transformers, which)
    model.config.save_pretrained(tmp_path)
    morph(f"{of}/{layout}").plan(to(f"{of}/{layout}", hubs(which))).write(tmp_path / "model.safetensors")
    loaded, notes = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(notes.values())
    expected = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert differing(expected, {name: tensor.numpy() for name, tensor in loaded.state_dict().items()}) == []
