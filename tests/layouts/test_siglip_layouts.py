"""SigLIP's layouts against real models: transformers' own tensors, what open_clip and timm name theirs, and what big_vision computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, differing, morph, quiet_transformers, randomised, saved
from contrastive import back as back_from
from contrastive import to as to_layout

import isomorph as iso
from isomorph.layouts.catalogue import family, find, layouts
from isomorph.layouts.hub import schema
from isomorph.testing.layouts import hub_probe, in_layout

VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 30,
        "max_position_embeddings": 10, "projection_size": 24, "bos_token_id": 28, "eos_token_id": 29, "pad_token_id": 1}  # fmt: skip
HEADS = {"vision_heads": 3, "text_heads": 2}
SIZES = {
    "vision_layers": 3, "vision_heads": 3, "vision_head_dim": 8, "vision_ffn": 40, "channels": 3, "patch": 8, "image": 16,
    "text_layers": 2, "text_heads": 2, "text_head_dim": 8, "text_ffn": 28, "vocab": 30, "text_positions": 10, "proj": 24, "classes": 2,
}  # fmt: skip
FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "siglip_facts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def made(transformers: Any, cls: str = "SiglipModel", **vision: Any) -> Any:
    if cls == "SiglipVisionModel":
        config = transformers.SiglipVisionConfig(**VISION, **vision)
    elif cls == "SiglipTextModel":
        config = transformers.SiglipTextConfig(**TEXT)
    else:
        config = transformers.SiglipConfig(vision_config={**VISION, **vision}, text_config=TEXT)
    return randomised(getattr(transformers, cls)(config))


@pytest.fixture(scope="module")
def model(transformers: Any) -> Any:
    return made(transformers)


@pytest.fixture(scope="module")
def siglip(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return saved(model, tmp_path_factory.mktemp("siglip"))


def to(layout: str, hub: Arrays) -> Arrays:
    return to_layout(f"siglip/{layout}", hub, **(HEADS if "big_vision" in layout else {}))


def back(layout: str, arrays: Arrays) -> Arrays:
    return back_from(f"siglip/{layout}", arrays)


# ── what each layout is, written down a second time in plain numpy ──────────────────────────────────────────────────────


def inside(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def joined(block: Arrays, kind: str) -> np.ndarray[Any, Any]:
    return np.concatenate([block[f"self_attn.{part}_proj.{kind}"] for part in "qkv"])


def by_hand_timm(arrays: Arrays) -> Arrays:
    vision = inside(arrays, "vision_model.")
    head = inside(vision, "head.")
    expected = {"pos_embed": vision["embeddings.position_embedding.weight"][None], "attn_pool.latent": head["probe"]}
    for kind in ("weight", "bias"):
        expected[f"patch_embed.proj.{kind}"] = vision[f"embeddings.patch_embedding.{kind}"]
        expected[f"norm.{kind}"] = vision[f"post_layernorm.{kind}"]
        query, key, value = np.split(head[f"attention.in_proj_{kind}"], 3)
        expected[f"attn_pool.q.{kind}"] = query
        expected[f"attn_pool.kv.{kind}"] = np.concatenate([key, value])
        expected[f"attn_pool.proj.{kind}"] = head[f"attention.out_proj.{kind}"]
        expected[f"attn_pool.norm.{kind}"] = head[f"layernorm.{kind}"]
        for half in "12":
            expected[f"attn_pool.mlp.fc{half}.{kind}"] = head[f"mlp.fc{half}.{kind}"]
        for number in range(VISION["num_hidden_layers"]):
            block = inside(vision, f"encoder.layers.{number}.")
            expected[f"blocks.{number}.attn.qkv.{kind}"] = joined(block, kind)
            expected[f"blocks.{number}.attn.proj.{kind}"] = block[f"self_attn.out_proj.{kind}"]
            for half in "12":
                expected[f"blocks.{number}.norm{half}.{kind}"] = block[f"layer_norm{half}.{kind}"]
                expected[f"blocks.{number}.mlp.fc{half}.{kind}"] = block[f"mlp.fc{half}.{kind}"]
    return expected


def by_hand_open_clip(arrays: Arrays) -> Arrays:
    text = inside(arrays, "text_model.")
    expected = {f"visual.trunk.{name}": array for name, array in by_hand_timm(arrays).items()} | {
        "logit_scale": arrays["logit_scale"].reshape(()),
        "logit_bias": arrays["logit_bias"].reshape(()),
        "text.token_embedding.weight": text["embeddings.token_embedding.weight"],
        "text.positional_embedding": text["embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        expected[f"text.ln_final.{kind}"] = text[f"final_layer_norm.{kind}"]
        expected[f"text.text_projection.{kind}"] = text[f"head.{kind}"]
        for number in range(TEXT["num_hidden_layers"]):
            block = inside(text, f"encoder.layers.{number}.")
            at = f"text.transformer.resblocks.{number}."
            expected[f"{at}attn.in_proj_{kind}"] = joined(block, kind)
            expected[f"{at}attn.out_proj.{kind}"] = block[f"self_attn.out_proj.{kind}"]
            for half, name in (("1", "c_fc"), ("2", "c_proj")):
                expected[f"{at}ln_{half}.{kind}"] = block[f"layer_norm{half}.{kind}"]
                expected[f"{at}mlp.{name}.{kind}"] = block[f"mlp.fc{half}.{kind}"]
    return expected


def by_hand_big_vision(arrays: Arrays) -> Arrays:
    """Flax's names for the same modules: Dense kernels [in out], attention kernels [in heads dim] and [heads dim out]."""
    expected = {"params/t": arrays["logit_scale"], "params/b": arrays["logit_bias"]}

    def norm(at: str, block: Arrays, name: str) -> None:
        expected[f"{at}/scale"] = block[f"{name}.weight"]
        expected[f"{at}/bias"] = block[f"{name}.bias"]

    def dense(at: str, block: Arrays, name: str) -> None:
        expected[f"{at}/kernel"] = block[f"{name}.weight"].T
        expected[f"{at}/bias"] = block[f"{name}.bias"]

    def attention(at: str, weights: Any, biases: Any, out: tuple[Any, Any], heads: int) -> None:
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            expected[f"{at}/{name}/kernel"] = weight.T.reshape(weight.shape[1], heads, -1)
            expected[f"{at}/{name}/bias"] = bias.reshape(heads, -1)
        expected[f"{at}/out/kernel"] = out[0].T.reshape(heads, -1, out[0].shape[0])
        expected[f"{at}/out/bias"] = out[1]

    for name, at, sizes in (("vision", "params/img/Transformer", VISION), ("text", "params/txt/Encoder_0", TEXT)):
        for number in range(sizes["num_hidden_layers"]):
            block = inside(arrays, f"{name}_model.encoder.layers.{number}.")
            here = f"{at}/encoderblock_{number}"
            q, k, v, out = (
                (block[f"self_attn.{part}_proj.weight"], block[f"self_attn.{part}_proj.bias"])
                for part in ("q", "k", "v", "out")
            )
            mha = f"{here}/MultiHeadDotProductAttention_0"
            attention(mha, (q[0], k[0], v[0]), (q[1], k[1], v[1]), out, sizes["num_attention_heads"])
            for index in (0, 1):
                norm(f"{here}/LayerNorm_{index}", block, f"layer_norm{index + 1}")
                dense(f"{here}/MlpBlock_0/Dense_{index}", block, f"mlp.fc{index + 1}")
    vision, text = inside(arrays, "vision_model."), inside(arrays, "text_model.")
    head = inside(vision, "head.")
    norm("params/img/Transformer/encoder_norm", vision, "post_layernorm")
    norm("params/txt/Encoder_0/encoder_norm", text, "final_layer_norm")
    norm("params/img/MAPHead_0/LayerNorm_0", head, "layernorm")
    dense("params/txt/head", text, "head")
    for index in (0, 1):
        dense(f"params/img/MAPHead_0/MlpBlock_0/Dense_{index}", head, f"mlp.fc{index + 1}")
    attention(
        "params/img/MAPHead_0/MultiHeadDotProductAttention_0",
        np.split(head["attention.in_proj_weight"], 3),
        np.split(head["attention.in_proj_bias"], 3),
        (head["attention.out_proj.weight"], head["attention.out_proj.bias"]),
        VISION["num_attention_heads"],
    )
    return expected | {
        "params/img/MAPHead_0/probe": head["probe"],
        "params/img/embedding/kernel": vision["embeddings.patch_embedding.weight"].transpose(2, 3, 1, 0),
        "params/img/embedding/bias": vision["embeddings.patch_embedding.bias"],
        "params/img/pos_embedding": vision["embeddings.position_embedding.weight"][None],
        "params/txt/Embed_0/embedding": text["embeddings.token_embedding.weight"],
        "params/txt/pos_embedding": text["embeddings.position_embedding.weight"][None],
    }


def by_hand_scanned(arrays: Arrays) -> Arrays:
    """The same with the blocks of a tower stacked in front, as pyloop_to_scan does it."""
    loose = by_hand_big_vision(arrays)
    expected = {name: array for name, array in loose.items() if "encoderblock_" not in name}
    for name in loose:
        if "/encoderblock_0/" in name:
            count = (VISION if "/img/" in name else TEXT)["num_hidden_layers"]
            expected[name.replace("encoderblock_0", "encoderblock")] = np.stack(
                [loose[name.replace("encoderblock_0", f"encoderblock_{number}")] for number in range(count)]
            )
    return expected


BY_HAND = {
    "timm": by_hand_timm,
    "open_clip": by_hand_open_clip,
    "big_vision": by_hand_big_vision,
    "big_vision_scanned": by_hand_scanned,
    "hf_vision": lambda arrays: inside(arrays, "vision_model."),
    "hf_text": lambda arrays: inside(arrays, "text_model."),
}


@pytest.mark.parametrize("layout", BY_HAND)
def test_each_layout_is_what_plain_numpy_makes_of_a_real_model(siglip: Arrays, layout: str) -> None:
    """Names, shapes and every bit; and back to what transformers wrote, as far as the layout carries it."""
    found = to(layout, siglip)
    assert [] == differing(BY_HAND[layout](siglip), found)
    again = back(layout, found)
    assert [] == differing({name: siglip[name] for name in again}, again)
    if not find(f"siglip/{layout}").header.parts:
        assert set(siglip) == set(again)


def test_every_layout_has_its_second_description() -> None:
    assert {one.name for one in layouts("siglip") if not one.is_hub} == set(BY_HAND)


# ── the hub, and what the libraries have ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cls", "vision", "groups"),
    [
        ("SiglipModel", {}, ("vision", "vision_head", "text", "logit_scale", "logit_bias")),
        ("SiglipModel", {"vision_use_head": False}, ("vision", "text", "logit_scale", "logit_bias")),
        ("SiglipForImageClassification", {}, ("vision", "vision_head", "classifier")),
    ],
)
def test_the_hub_lists_what_transformers_writes(
    transformers: Any, tmp_path: Path, cls: str, vision: dict[str, Any], groups: tuple[str, ...]
) -> None:
    disk = saved(made(transformers, cls, **vision), tmp_path)
    found = schema("siglip").expand(SIZES, groups)
    assert {name: array.shape for name, array in disk.items()} == {name: spec.shape for name, spec in found.items()}


def test_the_listed_sizes_are_those_of_the_base_model() -> None:
    """408 tensors, 203,155,970 numbers: siglip-base-patch16-224."""
    found = schema("siglip").expand(family("siglip").sizes)
    assert (408, 203_155_970) == (len(found), sum(spec.numel for spec in found.values()))


@pytest.mark.parametrize(("cls", "layout"), [("SiglipVisionModel", "hf_vision"), ("SiglipTextModel", "hf_text")])
def test_a_bare_tower_loads_in_its_own_class(
    transformers: Any, tmp_path: Path, siglip: Arrays, cls: str, layout: str
) -> None:
    model = made(transformers, cls)
    found = to(layout, siglip)
    assert {name: array.shape for name, array in saved(model, tmp_path).items()} == {
        name: array.shape for name, array in found.items()
    }
    missing, unexpected = model.load_state_dict(as_torch(found), strict=False)
    assert ([], []) == (list(missing), list(unexpected))


@pytest.mark.parametrize("layout", ["open_clip", "timm"])
def test_names_and_shapes_are_those_the_library_has(siglip: Arrays, layout: str) -> None:
    """open_clip.CustomTextCLIP over timm's VisionTransformer(class_token=False, global_pool="map"), with a projection bias."""
    assert {name: list(array.shape) for name, array in to(layout, siglip).items()} == FACTS[layout]


def test_the_big_vision_arrays_compute_what_transformers_computes(model: Any, siglip: Arrays) -> None:
    """Flax's modules written out in numpy, fed our arrays: attention over heads, tanh gelu, the attention pooling."""
    import torch

    arrays = {name: array.astype(np.float64) for name, array in to("big_vision", siglip).items()}
    image = np.random.default_rng(5).normal(size=(2, 16, 16, 3)).astype(np.float32)
    ids = np.random.default_rng(6).integers(0, 30, (2, 10))

    def norm(x: Any, at: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * arrays[f"{at}/scale"]
            + arrays[f"{at}/bias"]
        )

    def attend(asked: Any, x: Any, at: str) -> Any:
        q, k, v = (
            np.einsum("bnd,dhk->bnhk", given, arrays[f"{at}/{name}/kernel"]) + arrays[f"{at}/{name}/bias"]
            for given, name in ((asked, "query"), (x, "key"), (x, "value"))
        )
        weights = np.exp(np.einsum("bnhk,bmhk->bhnm", q, k) / np.sqrt(q.shape[-1]))
        mixed = np.einsum("bhnm,bmhk->bnhk", weights / weights.sum(-1, keepdims=True), v)
        return np.einsum("bnhk,hkd->bnd", mixed, arrays[f"{at}/out/kernel"]) + arrays[f"{at}/out/bias"]

    def mlp(x: Any, at: str) -> Any:
        x = x @ arrays[f"{at}/Dense_0/kernel"] + arrays[f"{at}/Dense_0/bias"]
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x @ arrays[f"{at}/Dense_1/kernel"] + arrays[f"{at}/Dense_1/bias"]

    def encoder(x: Any, at: str, layers: int) -> Any:
        for number in range(layers):
            here = f"{at}/encoderblock_{number}"
            y = norm(x, f"{here}/LayerNorm_0")
            x = x + attend(y, y, f"{here}/MultiHeadDotProductAttention_0")
            x = x + mlp(norm(x, f"{here}/LayerNorm_1"), f"{here}/MlpBlock_0")
        return norm(x, f"{at}/encoder_norm")

    patches = image.reshape(2, 2, 8, 2, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 4, 8, 8, 3)
    x = (
        np.einsum("bnhwc,hwcd->bnd", patches, arrays["params/img/embedding/kernel"])
        + arrays["params/img/embedding/bias"]
    )
    x = encoder(x + arrays["params/img/pos_embedding"], "params/img/Transformer", 3)
    pooled = attend(
        np.tile(arrays["params/img/MAPHead_0/probe"], (2, 1, 1)),
        x,
        "params/img/MAPHead_0/MultiHeadDotProductAttention_0",
    )
    pooled = (pooled + mlp(norm(pooled, "params/img/MAPHead_0/LayerNorm_0"), "params/img/MAPHead_0/MlpBlock_0"))[:, 0]
    words = encoder(
        arrays["params/txt/Embed_0/embedding"][ids] + arrays["params/txt/pos_embedding"], "params/txt/Encoder_0", 2
    )
    said = words[:, -1] @ arrays["params/txt/head/kernel"] + arrays["params/txt/head/bias"]
    with torch.no_grad():
        out = model(pixel_values=torch.from_numpy(image.transpose(0, 3, 1, 2).copy()), input_ids=torch.from_numpy(ids))
    for expected, found in ((out.image_embeds, pooled), (out.text_embeds, said)):
        np.testing.assert_allclose(
            found / np.linalg.norm(found, axis=-1, keepdims=True), expected.numpy(), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("layout", ["big_vision", "big_vision_scanned"])
def test_a_released_file_becomes_a_folder_that_from_pretrained_loads(
    transformers: Any, model: Any, siglip: Arrays, tmp_path: Path, layout: str
) -> None:
    """The npz shows its heads, the layout states activation and epsilon: config.json is asked of nobody."""
    import torch

    np.savez(tmp_path / "siglip.npz", **to(layout, siglip))
    iso.convert(tmp_path / "siglip.npz", tmp_path / "out", to="siglip/hf")
    again, said = transformers.SiglipModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    expected, found = model.config.to_dict(), again.config.to_dict()
    for tower in ("vision_config", "text_config"):
        keys = [key for key in expected[tower] if not key.endswith(("token_id", "dtype")) and not key.startswith("_")]
        assert {key: expected[tower][key] for key in keys} == {key: found[tower][key] for key in keys}
    image, ids = torch.randn(1, 3, 16, 16), torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10, 11, 1]])
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(ids, image).logits_per_image, model(ids, image).logits_per_image)


# ── parts, sizes that are asked for, and what is refused ────────────────────────────────────────────────────────────────


def test_a_tower_without_its_attention_pooling_converts(transformers: Any, tmp_path: Path) -> None:
    """timm's `gap` variants, vision_use_head = false in transformers."""
    hub = saved(made(transformers, vision_use_head=False), tmp_path)
    found = to("timm", hub)
    assert not [name for name in found if "attn_pool" in name]
    again = back("timm", found)
    assert [] == differing({name: array for name, array in hub.items() if name.startswith("vision_model.")}, again)


@pytest.mark.parametrize("layout", ["open_clip", "big_vision", "big_vision_scanned"])
@pytest.mark.parametrize("part", ["vision", "text"])
def test_one_tower_alone_converts(siglip: Arrays, layout: str, part: str) -> None:
    alone = {name: array for name, array in siglip.items() if name.startswith(f"{part}_model.")}
    found = to(layout, alone)
    whole = to(layout, siglip)
    assert [] == differing({name: whole[name] for name in found}, found)
    assert [] == differing(alone, back(layout, found))


def test_heads_that_shapes_do_not_tell_are_asked_for(siglip: Arrays) -> None:
    with pytest.raises(iso.MorphError) as caught:
        to_layout("siglip/big_vision", siglip, text_heads=2)
    assert "vision_heads" in str(caught.value)
    assert "--set" in str(caught.value)


def test_what_training_keeps_besides_is_dropped_by_name(siglip: Arrays) -> None:
    """opt/ and chrono/ of a big_vision training checkpoint."""
    training = to("big_vision", siglip) | {"opt/0/mu/params/t": np.zeros(1), "chrono/accum_train_time": np.array(3.0)}
    assert [] == differing(siglip, back("big_vision", training))


def test_a_missing_layer_of_a_loose_checkpoint_is_named(siglip: Arrays) -> None:
    holed = to("big_vision", siglip)
    del holed["params/img/Transformer/encoderblock_1/MultiHeadDotProductAttention_0/query/kernel"]
    plan = morph("siglip/big_vision").plan(holed)
    found = schema("siglip").read(plan.manifest)
    assert ("vision_model.encoder.layers.1.self_attn.q_proj.weight",) == tuple(found.missing)


@pytest.mark.parametrize("layout", BY_HAND)
def test_prime_sizes_go_there_and_back(layout: str) -> None:
    """On a checkpoint whose sizes all differ and whose every element is another number."""
    hub = hub_probe("siglip", groups=("vision", "vision_head", "text", "logit_scale", "logit_bias"))
    found = in_layout(find(f"siglip/{layout}"), hub)
    again = dict(morph(f"siglip/{layout}").plan(found).state_dict("numpy"))
    assert [] == differing({name: hub[name] for name in again}, again)
