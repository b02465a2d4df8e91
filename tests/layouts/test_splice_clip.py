"""A ViT in the vision tower of a CLIP: real transformers models in, a CLIPModel that loads whole and runs out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, differing, quiet_transformers, randomised, saved

import isomorph as iso
from isomorph.layouts.catalogue import FOLDER

VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 30,
        "max_position_embeddings": 10, "bos_token_id": 28, "eos_token_id": 29, "pad_token_id": 0}  # fmt: skip
LAYER = {
    "layernorm_before": "layer_norm1",
    "layernorm_after": "layer_norm2",
    "attention.attention.query": "self_attn.q_proj",
    "attention.attention.key": "self_attn.k_proj",
    "attention.attention.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def make_vit(transformers: Any, cls: str = "ViTForImageClassification", **changes: Any) -> Any:
    return randomised(getattr(transformers, cls)(transformers.ViTConfig(**{**VISION, **changes})))


def make_clip(transformers: Any, **changes: Any) -> Any:
    """Its tower has the activation and the epsilon of the ViT it is to take in."""
    vision = {**VISION, "hidden_act": "gelu", "layer_norm_eps": 1e-12, **changes}
    model = transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=TEXT, projection_dim=6))
    model.load_state_dict({name: tensor.detach() + 1 for name, tensor in randomised(model).state_dict().items()})
    return model.eval()


@pytest.fixture(scope="module")
def vit(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    make_vit(transformers).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    make_clip(transformers).save_pretrained(folder)
    return folder


def splice(name: str = "vit_into_clip") -> iso.Morph:
    return iso.morph(FOLDER / "splice" / f"{name}.morph")


def read(folder: Path) -> Arrays:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


def spliced(vit: Path, clip: Path, name: str = "vit_into_clip") -> Arrays:
    return dict(splice(name).plan(iso.open(f"vit={vit}", f"clip={clip}")).state_dict("numpy"))


def by_hand(vit: Arrays, clip: Arrays) -> Arrays:
    """CLIP's own tensors, those of the tower overwritten one by one by ViT's."""
    expected = dict(clip)
    vit = {name.removeprefix("vit."): array for name, array in vit.items()}
    expected["vision_model.embeddings.class_embedding"] = vit["embeddings.cls_token"][0, 0]
    expected["vision_model.embeddings.position_embedding.weight"] = vit["embeddings.position_embeddings"][0]
    expected["vision_model.embeddings.patch_embedding.weight"] = vit["embeddings.patch_embeddings.projection.weight"]
    for kind in ("weight", "bias"):
        expected[f"vision_model.post_layernorm.{kind}"] = vit[f"layernorm.{kind}"]
        for number in range(VISION["num_hidden_layers"]):
            for ours, theirs in LAYER.items():
                name = f"vision_model.encoder.layers.{number}.{theirs}.{kind}"
                expected[name] = vit[f"encoder.layer.{number}.{ours}.{kind}"]
    return expected


def test_the_tower_is_the_vits_and_all_else_is_clips(vit: Path, clip: Path) -> None:
    """Bit for bit, names as CLIPModel has them; pre_layrnorm, both projections, the text tower and logit_scale from the base."""
    assert [] == differing(by_hand(read(vit), read(clip)), spliced(vit, clip))


def test_the_result_loads_in_clipmodel_with_nothing_missing_and_runs(
    transformers: Any, vit: Path, clip: Path, tmp_path: Path
) -> None:
    import torch

    splice().plan(iso.open(f"vit={vit}", f"clip={clip}")).write(tmp_path / "out", format="safetensors")
    transformers.CLIPConfig.from_pretrained(clip).save_pretrained(tmp_path / "out")
    model, said = transformers.CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    ids = torch.tensor([[28, 3, 4, 29, 0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        out = model(pixel_values=torch.randn(2, 3, 16, 16), input_ids=ids)
    assert (2, 1) == tuple(out.logits_per_image.shape)
    assert torch.isfinite(out.logits_per_image).all()


@pytest.mark.parametrize("name", ["vit_into_clip", "vit_into_clip_neutral"])
def test_the_tower_computes_what_the_vit_computes(transformers: Any, clip: Path, tmp_path: Path, name: str) -> None:
    """ViT's encoder and last norm on its own embeddings, after CLIP's pre_layrnorm; without the patch bias, for which CLIP has no place."""
    import torch

    source = make_vit(transformers)
    with torch.no_grad():
        source.vit.embeddings.patch_embeddings.projection.bias.zero_()
    source.save_pretrained(tmp_path)
    found = spliced(tmp_path, clip, name)
    model = make_clip(transformers)
    model.load_state_dict(as_torch(found), strict=True)
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        x = source.vit.embeddings(image)
        if name.endswith("neutral"):
            x = torch.nn.functional.layer_norm(x, (24,), eps=1e-12)
        else:
            x = model.vision_model.pre_layrnorm(x)
        for layer in source.vit.layers:
            x = layer(x)
        expected = source.vit.layernorm(x)[:, 0]
        torch.testing.assert_close(model.vision_model(pixel_values=image).pooler_output, expected, rtol=1e-4, atol=1e-5)


def test_the_neutral_variant_states_pre_layrnorm_in_the_morph(vit: Path, clip: Path) -> None:
    """1 and 0 in the dtype of the tensors they replace; nothing else differs."""
    expected = by_hand(read(vit), read(clip))
    expected["vision_model.pre_layrnorm.weight"] = np.ones(24, np.float32)
    expected["vision_model.pre_layrnorm.bias"] = np.zeros(24, np.float32)
    assert [] == differing(expected, spliced(vit, clip, "vit_into_clip_neutral"))


@pytest.mark.parametrize("cls", ["ViTModel", "ViTForMaskedImageModeling"])
def test_any_vit_will_do(transformers: Any, clip: Path, tmp_path: Path, cls: str) -> None:
    """Without a head the names have no `vit.` before them; pooler, mask token and decoder have no place in CLIP."""
    arrays = saved(make_vit(transformers, cls, encoder_stride=8), tmp_path)
    assert [] == differing(by_hand(arrays, read(clip)), spliced(tmp_path, clip))


def test_what_has_no_place_in_clip_is_listed(vit: Path, clip: Path) -> None:
    """ViT's patch bias and classifier, and the tensors of CLIP's tower that were replaced."""
    plan = splice().plan(iso.open(f"vit={vit}", f"clip={clip}"))
    tower = {name for name in read(clip) if name.startswith("vision_model.") and "pre_layrnorm" not in name}
    of_vit = {"classifier.bias", "classifier.weight", "vit.embeddings.patch_embeddings.projection.bias"}
    expected = {f"vit::{name}" for name in of_vit} | {f"clip::{name}" for name in tower}
    assert expected == {str(name) for name in plan.plan.dropped}


def test_a_vision_tower_alone_takes_a_vit_too(transformers: Any, vit: Path, tmp_path: Path) -> None:
    """CLIPVisionModelWithProjection as the base: no text tower is asked for."""
    config = transformers.CLIPVisionConfig(**VISION, projection_dim=6)
    base = saved(randomised(transformers.CLIPVisionModelWithProjection(config)), tmp_path)
    assert [] == differing(by_hand(read(vit), base), spliced(vit, tmp_path))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 16}, ["embeddings.class_embedding", "16", "24"]),
        ({"num_hidden_layers": 4}, ["missing `clip::vision_model.encoder.layers.3.layer_norm1.weight`"]),
        ({"num_hidden_layers": 2}, ["missing `vit::vit.encoder.layer.2.layernorm_before.weight`"]),
        ({"image_size": 24}, ["position_embedding", "10", "5"]),
    ],
)
def test_towers_of_other_sizes_are_refused(
    transformers: Any, clip: Path, tmp_path: Path, changes: dict[str, int], words: list[str]
) -> None:
    """Each tensor of the ViT stands beside the one whose place it takes, so another width, depth or grid is an error before reading."""
    make_vit(transformers, **changes).save_pretrained(tmp_path)
    with pytest.raises(iso.MorphError) as caught:
        spliced(tmp_path, clip)
    for word in words:
        assert word in str(caught.value)


def test_a_vit_without_attention_biases_is_refused(transformers: Any, clip: Path, tmp_path: Path) -> None:
    """qkv_bias = false: CLIP's biases would have to be invented."""
    make_vit(transformers, qkv_bias=False).save_pretrained(tmp_path)
    with pytest.raises(iso.MorphError) as caught:
        spliced(tmp_path, clip)
    assert "attention.attention.query.bias" in str(caught.value)


def test_positions_of_another_grid_are_resized_by_name(transformers: Any, clip: Path, tmp_path: Path) -> None:
    """vit_into_clip_resized: as transformers interpolates its own position embeddings; all else as it was."""
    import torch

    source = make_vit(transformers, image_size=24)
    source.save_pretrained(tmp_path)
    found = spliced(tmp_path, clip, "vit_into_clip_resized")
    name = "vision_model.embeddings.position_embedding.weight"
    expected = by_hand(read(tmp_path), read(clip))
    with torch.no_grad():
        theirs = source.vit.embeddings.interpolate_pos_encoding(torch.zeros(1, 5, 24), 16, 16)[0].numpy()
    np.testing.assert_allclose(found[name], theirs, rtol=1e-5, atol=1e-6)
    expected[name] = found[name]
    assert [] == differing(expected, found)


def test_the_second_path_says_the_same(vit: Path, clip: Path, tmp_path: Path) -> None:
    """verify, which shares no code with plan and engine, agrees on the file."""
    source = iso.open(f"vit={vit}", f"clip={clip}")
    splice().plan(source).write(tmp_path / "clip.safetensors", verify=False)
    assert iso.verify(source, tmp_path / "clip.safetensors", splice()).equal
