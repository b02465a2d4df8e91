"""ViT's layouts against real models: transformers' own tensors, by hand; other libraries' names; modules that run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contrastive import Arrays, as_torch, back, differing, morph, quiet_transformers, randomised, saved, to
from vit_hands import CLASSES, HANDS, HEADS, SIZES, facts

import isomorph as iso
from isomorph.layouts.catalogue import family, find, layouts
from isomorph.layouts.hub import schema
from isomorph.testing.layouts import hub_probe, in_layout

WITH_HEADS = {"google_npz", "big_vision", "big_vision_scanned", "keras_hub", "keras_hub_classifier"}
"""Layouts with an axis of heads, which the hub's shapes do not show."""
CHECKED = ["timm", "torchvision", "keras_hub", "keras_hub_classifier", "tf", "tf_model", "tf_built", "flax"]
"""Layouts whose library's own names and shapes are recorded."""
LOST = {
    "clip_vision": {"vit.embeddings.patch_embeddings.projection", "vit.pooler.dense", "classifier"},
    "keras_hub": {"vit.pooler.dense", "classifier"},
    "tf_model": {"classifier"},
    **{
        name: {"vit.pooler.dense"}
        for name in (
            "keras_hub_classifier",
            "jeonsworld",
            "lukemelas",
            "paddle",
            "paddle_nn",
            "paddle_vit",
            "paddle_vit_v1",
            "timm",
        )
    },
}
"""What a library has no place for."""


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def made(transformers: Any, cls: str = "ViTForImageClassification", **config: Any) -> Any:
    """A model of that class of random numbers, the same whenever it is made."""
    return randomised(getattr(transformers, cls)(transformers.ViTConfig(**SIZES, num_labels=CLASSES, **config)))


def with_prefix(arrays: Mapping[str, Any]) -> Arrays:
    """A model without a head is saved without the prefix."""
    return {f"vit.{name}": array for name, array in arrays.items()}


@pytest.fixture(scope="module")
def classifier(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return saved(made(transformers), tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def hub(transformers: Any, classifier: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    """All that ViTModel and ViTForImageClassification have: the pooler too."""
    pooled = with_prefix(saved(made(transformers, "ViTModel"), tmp_path_factory.mktemp("base")))
    return classifier | {name: array for name, array in pooled.items() if "pooler" in name}


def written(layout: str, arrays: Mapping[str, Any]) -> Arrays:
    return to(f"vit/{layout}", arrays, **({"heads": HEADS} if layout in WITH_HEADS else {}))


def image() -> Any:
    import torch

    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


# ── the hub ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cls", "config", "groups"),
    [
        ("ViTForImageClassification", {}, {"qkv_bias", "classifier"}),
        ("ViTForImageClassification", {"qkv_bias": False}, {"classifier"}),
        ("ViTModel", {}, {"qkv_bias", "pooler"}),
        ("ViTModel", {"pooler_output_size": 9}, {"qkv_bias", "pooler"}),
        ("ViTForMaskedImageModeling", {"encoder_stride": 8}, {"qkv_bias", "mask_token", "decoder"}),
    ],
)
def test_the_hub_is_what_transformers_writes(
    transformers: Any, tmp_path: Path, cls: str, config: dict[str, Any], groups: set[str]
) -> None:
    """Names, shapes, groups and sizes: read off a file they expand to the same file."""
    arrays = saved(made(transformers, cls, **config), tmp_path)
    if cls == "ViTModel":
        arrays = with_prefix(arrays)
    known = {"image": 16, "patch": 8, "heads": HEADS, **({"stride": 8} if "Masked" in cls else {})}
    found = schema("vit").read(iso.open(arrays).manifest, known)
    assert (found.unknown, found.missing, found.clashes, set(found.groups)) == ((), (), (), groups)
    assert {name: spec.shape for name, spec in schema("vit").expand(found.sizes, groups).items()} == {
        name: array.shape for name, array in arrays.items()
    }


def test_the_best_known_model_is_vit_base() -> None:
    """google/vit-base-patch16-224: 200 tensors, 86,567,656 parameters."""
    keys = schema("vit").expand(family("vit").sizes)
    assert (len(keys), sum(spec.numel for spec in keys.values())) == (200, 86_567_656)


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_layout_is_worked_out_by_hand() -> None:
    assert set(HANDS) == {one.name for one in layouts("vit") if not one.is_hub}


@pytest.mark.parametrize("layout", sorted(HANDS))
def test_a_layout_is_what_numpy_makes_of_the_hub(hub: Arrays, layout: str) -> None:
    """Every name, dtype, shape and bit."""
    assert differing(HANDS[layout](hub), written(layout, hub)) == []


@pytest.mark.parametrize("layout", sorted(HANDS))
def test_back_in_the_hub_all_is_as_it_was(hub: Arrays, layout: str) -> None:
    """What comes back is equal in every bit; what does not is what the library has no place for."""
    returned = back(f"vit/{layout}", written(layout, hub))
    assert differing({name: array for name, array in hub.items() if name in returned}, returned) == []
    lost = {name.rpartition(".")[0] for name in set(hub) - set(returned)}
    assert lost == LOST.get(layout, set())


@pytest.mark.parametrize("layout", CHECKED)
def test_names_and_shapes_are_those_of_the_library_itself(hub: Arrays, classifier: Arrays, layout: str) -> None:
    """Recorded from timm, torchvision, KerasHub, TensorFlow and Flax models of these sizes."""
    bare = {name: array for name, array in hub.items() if not name.startswith("classifier")}
    source = bare if layout in {"tf_model", "tf_built"} else classifier
    assert {name: array.shape for name, array in written(layout, source).items()} == facts(f"vit/{layout}")


def test_flax_writes_a_base_model_as_recorded(hub: Arrays) -> None:
    bare = {name: array for name, array in hub.items() if not name.startswith("classifier")}
    assert {name: array.shape for name, array in written("flax", bare).items()} == facts("vit/flax base")


@pytest.mark.parametrize("layout", [one.name for one in layouts("vit")])
def test_every_layout_takes_the_whole_hub_there_and_back(layout: str) -> None:
    """On a checkpoint whose sizes are all different primes and whose elements are their own numbers."""
    whole = hub_probe("vit")
    returned = back(f"vit/{layout}", in_layout(find(f"vit/{layout}"), whole))
    assert returned
    assert differing({name: whole[name] for name in returned}, returned) == []


# ── modules ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("cls", ["ViTForImageClassification", "ViTModel", "ViTForMaskedImageModeling"])
def test_hf_module_is_the_state_dict_of_the_model(transformers: Any, tmp_path: Path, cls: str) -> None:
    model = made(transformers, cls)
    arrays = saved(model, tmp_path)
    if cls == "ViTModel":
        arrays = with_prefix(arrays)
    expected = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    found = written("hf_module", arrays)
    assert differing(with_prefix(expected) if cls == "ViTModel" else expected, found) == []


@pytest.mark.parametrize("layout", ["google_npz", "flax", "torchvision_v1", "paddle", "keras_hub_classifier"])
def test_transformers_loads_what_was_made_of_another_layout(
    transformers: Any, classifier: Arrays, tmp_path: Path, layout: str
) -> None:
    """Nothing missing, nothing unexpected, and the same logits."""
    import torch

    model = made(transformers)
    model.config.save_pretrained(tmp_path)
    plan = morph(f"vit/{layout}").plan(written(layout, classifier))
    plan.write(tmp_path / "model.safetensors")
    loaded, notes = transformers.ViTForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(notes.values())
    with torch.no_grad():
        assert torch.equal(model(image()).logits, loaded.eval()(image()).logits)


@pytest.mark.parametrize("layout", ["google_npz", "timm", "torchvision", "mmpretrain"])
def test_a_folder_made_of_another_layout_loads_by_itself(
    transformers: Any, classifier: Arrays, tmp_path: Path, layout: str
) -> None:
    """config.json is written beside the weights, the number of classes and the layout's facts in it; only the heads are asked for."""
    import torch

    arrays = written(layout, classifier)
    axes = {} if layout in WITH_HEADS else {"heads": HEADS}
    iso.convert(arrays, tmp_path / "vit", to="vit/hf", sizes=axes)
    config = json.loads((tmp_path / "vit" / "config.json").read_text(encoding="utf-8"))
    assert (config["num_labels"], config["layer_norm_eps"], config["hidden_act"]) == (CLASSES, 1e-6, "gelu")
    loaded, notes = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / "vit", output_loading_info=True
    )
    assert not any(notes.values())
    model = made(transformers, layer_norm_eps=1e-6)
    with torch.no_grad():
        assert torch.equal(model(image()).logits, loaded.eval()(image()).logits)


PADDLE_RUNS = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
from paddle import nn

class ViT(nn.Layer):
    def __init__(self):
        super().__init__()
        self.patch_embedding = nn.Conv2D(3, 24, 8, 8)
        self.cls_token = self.create_parameter([1, 1, 24])
        self.position_embeddings = self.create_parameter([1, 5, 24])
        layer = nn.TransformerEncoderLayer(24, 2, 40, dropout=0, activation="gelu", attn_dropout=0, act_dropout=0, normalize_before=True)
        self.encoder = nn.TransformerEncoder(layer, 3, nn.LayerNorm(24))
        self.classifier = nn.Linear(24, 7)
    def forward(self, image):
        x = self.patch_embedding(image).flatten(2).transpose([0, 2, 1])
        x = paddle.concat([self.cls_token.expand([len(x), 1, 24]), x], 1) + self.position_embeddings
        return self.classifier(self.encoder(x)[:, 0])

model = ViT()
model.eval()
missing, unexpected = model.set_state_dict(paddle.load(sys.argv[1]))
assert not missing and not unexpected, (missing, unexpected)
np.save(sys.argv[3], model(paddle.to_tensor(np.load(sys.argv[2]))).numpy())
"""


def test_a_plain_paddle_model_loads_paddle_nn_and_makes_the_same_logits(transformers: Any, tmp_path: Path) -> None:
    import torch

    model = made(transformers, layer_norm_eps=1e-5)
    model.save_pretrained(tmp_path / "hf")
    morph("vit/paddle_nn").inverse.plan(iso.open(tmp_path / "hf")).write(tmp_path / "vit.pdparams")
    np.save(tmp_path / "image.npy", image().numpy())
    passed = [str(tmp_path / name) for name in ("vit.pdparams", "image.npy", "logits.npy")]
    done = subprocess.run(
        [sys.executable, "-c", PADDLE_RUNS, *passed], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        expected = model(image()).logits.numpy()
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-4, atol=1e-5)


def test_clips_vision_tower_takes_a_vit_but_for_its_first_norm(transformers: Any, classifier: Arrays) -> None:
    """vit/clip_vision has the names, shapes and order of transformers' CLIPVisionModel; only pre_layrnorm is not a ViT's."""
    tower = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZES))
    own = {name.removeprefix("vision_model."): tensor.shape for name, tensor in tower.state_dict().items()}
    made_of_vit = {
        name.removeprefix("vision_model."): array for name, array in written("clip_vision", classifier).items()
    }
    assert {name for name in own if name not in made_of_vit} == {"pre_layrnorm.weight", "pre_layrnorm.bias"}
    assert all(own[name] == array.shape for name, array in made_of_vit.items())


# ── vintages, parts, and what is refused ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", sorted(HANDS))
def test_attention_may_have_no_biases(transformers: Any, tmp_path: Path, layout: str) -> None:
    """qkv_bias=False: nothing is made of nothing, in either direction."""
    arrays = saved(made(transformers, qkv_bias=False), tmp_path)
    found = written(layout, arrays)
    assert differing(HANDS[layout](arrays), found) == []
    returned = back(f"vit/{layout}", found)
    assert differing({name: arrays[name] for name in returned}, returned) == []


def test_timm_before_0_8_kept_pre_logits_and_its_pooler_comes_back(hub: Arrays) -> None:
    """An old file's pre_logits are ViTModel's pooler; a new file has none, and the plan names what is left out."""
    old = written("timm", hub)
    assert not any("pre_logits" in name for name in old)
    plan = morph("vit/timm").inverse.plan(hub)
    assert "vit.pooler.dense" in str(plan)
    old |= {f"pre_logits.fc.{t}": hub[f"vit.pooler.dense.{t}"] for t in ("weight", "bias")}
    assert differing(hub, back("vit/timm", old)) == []


@pytest.mark.parametrize("layout", sorted(set(HANDS) - {"hf_module", "fused_qkv"}))
def test_what_masked_image_modelling_adds_is_left_out_by_name(transformers: Any, tmp_path: Path, layout: str) -> None:
    arrays = saved(made(transformers, "ViTForMaskedImageModeling"), tmp_path)
    returned = back(f"vit/{layout}", written(layout, arrays))
    own = {"vit.embeddings.mask_token", "decoder.0.weight", "decoder.0.bias"}
    if layout == "clip_vision":
        own.add("vit.embeddings.patch_embeddings.projection.bias")
    assert set(arrays) - set(returned) == own


@pytest.mark.parametrize("name", ["fc_norm.weight", "reg_token", "blocks.0.ls1.gamma", "norm_pre.weight"])
def test_a_timm_model_that_is_another_function_is_refused_by_name(classifier: Arrays, name: str) -> None:
    """transformers' ViT cannot hold it; leaving it out would be another model."""
    other = written("timm", classifier) | {name: np.ones(24, np.float32)}
    with pytest.raises(iso.MorphError, match=r"no rule") as refused:
        morph("vit/timm").plan(other)
    assert name in str(refused.value)


def test_heads_that_nothing_shows_are_asked_for(classifier: Arrays) -> None:
    with pytest.raises(iso.MorphError) as refused:
        to("vit/google_npz", classifier)
    assert "--set heads=" in str(refused.value)


def test_kerashub_keeps_its_optimizer_beside_the_weights(classifier: Arrays) -> None:
    """compile() leaves optimizer/vars/0 in the file; it is left out by name."""
    kept = written("keras_hub_classifier", classifier) | {"optimizer/vars/0": np.zeros((), np.int32)}
    assert differing(classifier, back("vit/keras_hub_classifier", kept)) == []


def test_a_clip_is_no_vit(transformers: Any) -> None:
    """CLIP's own vision tower has a norm before its layers: it is not read as a ViT."""
    tower = randomised(transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SIZES)))
    names = {
        f"vision_model.{name.removeprefix('vision_model.')}": tensor.numpy()
        for name, tensor in tower.state_dict().items()
    }
    with pytest.raises(iso.MorphError) as refused:
        morph("vit/clip_vision").plan(names)
    assert "vision_model.pre_layrnorm" in str(refused.value)


def test_the_facts_name_their_library() -> None:
    stated = json.loads((Path(__file__).parent / "vit_facts.json").read_text(encoding="utf-8"))["made by"]
    assert all(library in stated for library in ("timm", "torchvision", "keras-hub", "TensorFlow", "flax"))


def test_a_module_of_torch_loads_its_layout(transformers: Any, classifier: Arrays) -> None:
    """hf_module goes straight into a model, strictly."""
    import torch

    model, empty = made(transformers), transformers.ViTForImageClassification(made(transformers).config).eval()
    empty.load_state_dict(as_torch(written("hf_module", classifier)), strict=True)
    with torch.no_grad():
        assert torch.equal(model(image()).logits, empty(image()).logits)
