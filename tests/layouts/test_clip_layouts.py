"""CLIP's layouts against real models: transformers' own tensors, what open_clip and timm name theirs, and modules that run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
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
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {"hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 30,
        "max_position_embeddings": 10, "bos_token_id": 28, "eos_token_id": 29, "pad_token_id": 0}  # fmt: skip
PROJECTION = 6
FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "clip_facts.json").read_text(encoding="utf-8"))
TOWERS = ("vision", "text")


@pytest.fixture(scope="module")
def transformers() -> Any:
    return quiet_transformers()


def made(transformers: Any, cls: str = "CLIPModel", act: str = "quick_gelu") -> Any:
    """A model of that class of random numbers, the same whenever it is made."""
    vision, text = {**VISION, "hidden_act": act}, {**TEXT, "hidden_act": act}
    sizes = {"projection_dim": PROJECTION}
    if "Vision" in cls:
        config = transformers.CLIPVisionConfig(**vision, **sizes)
    elif "Text" in cls:
        config = transformers.CLIPTextConfig(**text, **sizes)
    else:
        config = transformers.CLIPConfig(vision_config=vision, text_config=text, **sizes)
    return randomised(getattr(transformers, cls)(config))


@pytest.fixture(scope="module")
def clip(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    return saved(made(transformers), tmp_path_factory.mktemp("clip"))


def to(layout: str, hub: Mapping[str, Any]) -> Arrays:
    return to_layout(f"clip/{layout}", hub)


def back(layout: str, arrays: Mapping[str, Any]) -> Arrays:
    return back_from(f"clip/{layout}", arrays)


def tower(arrays: Arrays, name: str) -> Arrays:
    return {
        key.removeprefix(f"{name}_model."): array for key, array in arrays.items() if key.startswith(f"{name}_model.")
    }


# ── what each layout is, written down a second time in plain numpy ──────────────────────────────────────────────────────


def blocks(arrays: Arrays, name: str) -> list[Arrays]:
    """The layers of a tower, each with its names inside the layer."""
    inside = tower(arrays, name)
    count = {"vision": VISION, "text": TEXT}[name]["num_hidden_layers"]
    return [
        {
            key.removeprefix(f"encoder.layers.{n}."): array
            for key, array in inside.items()
            if key.startswith(f"encoder.layers.{n}.")
        }
        for n in range(count)
    ]


def joined(block: Arrays, kind: str) -> np.ndarray[Any, Any]:
    return np.concatenate([block[f"self_attn.{part}_proj.{kind}"] for part in "qkv"])


def by_hand_openai(arrays: Arrays, text: str = "") -> Arrays:
    expected = {"logit_scale": arrays["logit_scale"]}
    for name, prefix in (("vision", "visual."), ("text", text)):
        for number, block in enumerate(blocks(arrays, name)):
            at = f"{prefix}transformer.resblocks.{number}."
            for kind in ("weight", "bias"):
                expected[f"{at}attn.in_proj_{kind}"] = joined(block, kind)
                expected[f"{at}attn.out_proj.{kind}"] = block[f"self_attn.out_proj.{kind}"]
                expected[f"{at}ln_1.{kind}"] = block[f"layer_norm1.{kind}"]
                expected[f"{at}ln_2.{kind}"] = block[f"layer_norm2.{kind}"]
                expected[f"{at}mlp.c_fc.{kind}"] = block[f"mlp.fc1.{kind}"]
                expected[f"{at}mlp.c_proj.{kind}"] = block[f"mlp.fc2.{kind}"]
    vision, words = tower(arrays, "vision"), tower(arrays, "text")
    for kind in ("weight", "bias"):
        expected[f"visual.ln_pre.{kind}"] = vision[f"pre_layrnorm.{kind}"]
        expected[f"visual.ln_post.{kind}"] = vision[f"post_layernorm.{kind}"]
        expected[f"{text}ln_final.{kind}"] = words[f"final_layer_norm.{kind}"]
    return expected | {
        "visual.class_embedding": vision["embeddings.class_embedding"],
        "visual.conv1.weight": vision["embeddings.patch_embedding.weight"],
        "visual.positional_embedding": vision["embeddings.position_embedding.weight"],
        "visual.proj": arrays["visual_projection.weight"].T,
        f"{text}token_embedding.weight": words["embeddings.token_embedding.weight"],
        f"{text}positional_embedding": words["embeddings.position_embedding.weight"],
        f"{text}text_projection": arrays["text_projection.weight"].T,
    }


def by_hand_timm(arrays: Arrays) -> Arrays:
    vision = tower(arrays, "vision")
    expected = {
        "cls_token": vision["embeddings.class_embedding"][None, None],
        "pos_embed": vision["embeddings.position_embedding.weight"][None],
        "patch_embed.proj.weight": vision["embeddings.patch_embedding.weight"],
        "head.weight": arrays["visual_projection.weight"],
        "head.bias": np.zeros(PROJECTION, np.float32),
    }
    for kind in ("weight", "bias"):
        expected[f"norm_pre.{kind}"] = vision[f"pre_layrnorm.{kind}"]
        expected[f"norm.{kind}"] = vision[f"post_layernorm.{kind}"]
        for number, block in enumerate(blocks(arrays, "vision")):
            expected[f"blocks.{number}.attn.qkv.{kind}"] = joined(block, kind)
            expected[f"blocks.{number}.attn.proj.{kind}"] = block[f"self_attn.out_proj.{kind}"]
            for half in "12":
                expected[f"blocks.{number}.norm{half}.{kind}"] = block[f"layer_norm{half}.{kind}"]
                expected[f"blocks.{number}.mlp.fc{half}.{kind}"] = block[f"mlp.fc{half}.{kind}"]
    return expected


def by_hand_flax(arrays: Arrays) -> Arrays:
    """Role by role: kernels [in out], patches HWIO, norms and embeddings under Flax's names."""
    expected = {}
    for name, array in arrays.items():
        path = name.replace(".", "/")
        *above, last = path.split("/")
        kind = above[-1] if above else ""
        if last != "weight":
            expected[path] = array
        elif "norm" in kind or "layrnorm" in kind:
            expected["/".join([*above, "scale"])] = array
        elif kind in ("token_embedding", "position_embedding"):
            expected["/".join([*above, "embedding"])] = array
        elif kind == "patch_embedding":
            expected["/".join([*above, "kernel"])] = array.transpose(2, 3, 1, 0)
        else:
            expected["/".join([*above, "kernel"])] = array.T
    return expected


def by_hand_paddle(arrays: Arrays) -> Arrays:
    expected = {
        "vision_projection": arrays["visual_projection.weight"].T,
        "text_projection": arrays["text_projection.weight"].T,
        "logit_scale": arrays["logit_scale"].reshape(1),
        "vision_model.class_embedding": arrays["vision_model.embeddings.class_embedding"],
        "vision_model.conv1.weight": arrays["vision_model.embeddings.patch_embedding.weight"],
        "vision_model.positional_embedding.weight": arrays["vision_model.embeddings.position_embedding.weight"],
        "text_model.token_embedding.weight": arrays["text_model.embeddings.token_embedding.weight"],
        "text_model.positional_embedding.weight": arrays["text_model.embeddings.position_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        expected[f"vision_model.ln_pre.{kind}"] = arrays[f"vision_model.pre_layrnorm.{kind}"]
        expected[f"vision_model.ln_post.{kind}"] = arrays[f"vision_model.post_layernorm.{kind}"]
        expected[f"text_model.ln_final.{kind}"] = arrays[f"text_model.final_layer_norm.{kind}"]
        for name in TOWERS:
            for number, block in enumerate(blocks(arrays, name)):
                at = f"{name}_model.transformer.layers.{number}."
                for part in ("q", "k", "v", "out"):
                    expected[f"{at}self_attn.{part}_proj.{kind}"] = block[f"self_attn.{part}_proj.{kind}"].T
                for half in "12":
                    expected[f"{at}norm{half}.{kind}"] = block[f"layer_norm{half}.{kind}"]
                    expected[f"{at}linear{half}.{kind}"] = block[f"mlp.fc{half}.{kind}"].T
    return expected


def by_hand_fused(arrays: Arrays) -> Arrays:
    expected = {
        name.replace("encoder.", "transformer."): array
        for name, array in tower(arrays, "vision").items()
        if not name.startswith("post_layernorm")
        and ".q_proj." not in name
        and ".k_proj." not in name
        and ".v_proj." not in name
    }
    for number, block in enumerate(blocks(arrays, "vision")):
        for kind in ("weight", "bias"):
            expected[f"transformer.layers.{number}.self_attn.qkv_proj.{kind}"] = joined(block, kind)
    return expected


def by_hand_fused_qkv(arrays: Arrays) -> Arrays:
    """Both towers with q, k and v of a layer as one matrix; nothing else has another name."""
    expected = {name: array for name, array in arrays.items() if ".self_attn." not in name or ".out_proj." in name}
    for name in TOWERS:
        for number, block in enumerate(blocks(arrays, name)):
            for kind in ("weight", "bias"):
                expected[f"{name}_model.encoder.layers.{number}.self_attn.qkv_proj.{kind}"] = joined(block, kind)
    return expected


BY_HAND = {
    "openai": by_hand_openai,
    "open_clip": by_hand_openai,
    "open_clip_custom_text": lambda arrays: by_hand_openai(arrays, text="text."),
    "timm": by_hand_timm,
    "flax": by_hand_flax,
    "paddle": by_hand_paddle,
    "fused_vision": by_hand_fused,
    "fused_qkv": by_hand_fused_qkv,
    "hf_vision": lambda arrays: tower(arrays, "vision"),
    "hf_text": lambda arrays: tower(arrays, "text"),
    "ldm_text": lambda arrays: {
        f"cond_stage_model.transformer.text_model.{name}": array for name, array in tower(arrays, "text").items()
    },
    "diffusers_text": lambda arrays: {name: array for name, array in arrays.items() if name.startswith("text_")},
}


@pytest.mark.parametrize("layout", BY_HAND)
def test_each_layout_is_what_plain_numpy_makes_of_a_real_model(clip: Arrays, layout: str) -> None:
    """Names, shapes and every bit; and back to what transformers wrote, as far as the layout carries it."""
    found = to(layout, clip)
    assert [] == differing(BY_HAND[layout](clip), found)
    again = back(layout, found)
    assert [] == differing({name: clip[name] for name in again}, again)
    parts = find(f"clip/{layout}").header.parts
    if not parts:
        assert set(clip) == set(again)


def test_every_layout_has_its_second_description() -> None:
    assert {one.name for one in layouts("clip") if not one.is_hub} == set(BY_HAND)


# ── the hub ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("cls", "groups"),
    [
        ("CLIPModel", ("vision", "text", "visual_projection", "text_projection", "logit_scale")),
        ("CLIPVisionModelWithProjection", ("vision", "visual_projection")),
        ("CLIPTextModelWithProjection", ("text", "text_projection")),
        ("CLIPForImageClassification", ("vision", "classifier")),
    ],
)
def test_the_hub_lists_what_transformers_writes(
    transformers: Any, tmp_path: Path, cls: str, groups: tuple[str, ...]
) -> None:
    disk = saved(made(transformers, cls), tmp_path)
    sizes = {
        "vision_layers": 3, "vision_heads": 2, "vision_head_dim": 12, "vision_ffn": 40, "channels": 3, "patch": 8, "image": 16,
        "text_layers": 2, "text_heads": 2, "text_head_dim": 8, "text_ffn": 28, "vocab": 30, "text_positions": 10, "proj": 6,
        "classes": 2,
    }  # fmt: skip
    found = schema("clip").expand(sizes, groups)
    assert {name: array.shape for name, array in disk.items()} == {name: spec.shape for name, spec in found.items()}


def test_the_listed_sizes_are_those_of_the_large_model() -> None:
    """590 tensors, 427,616,513 numbers: clip-vit-large-patch14."""
    found = schema("clip").expand(family("clip").sizes)
    assert (590, 427_616_513) == (len(found), sum(spec.numel for spec in found.values()))


@pytest.mark.parametrize(("cls", "layout"), [("CLIPVisionModel", "hf_vision"), ("CLIPTextModel", "hf_text")])
def test_a_bare_tower_loads_in_its_own_class(
    transformers: Any, tmp_path: Path, clip: Arrays, cls: str, layout: str
) -> None:
    """transformers 5 writes the towers without their prefix; ours, cut out of the whole model, has the same names and shapes."""
    model = made(transformers, cls)
    found = to(layout, clip)
    assert {name: array.shape for name, array in saved(model, tmp_path).items()} == {
        name: array.shape for name, array in found.items()
    }
    missing, unexpected = model.load_state_dict(as_torch(found), strict=False)
    assert ([], []) == (list(missing), list(unexpected))


# ── facts of the other libraries ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", ["open_clip", "open_clip_custom_text", "timm"])
def test_names_and_shapes_are_those_the_library_has(clip: Arrays, layout: str) -> None:
    """The state dicts of open_clip.CLIP, open_clip.CustomTextCLIP and timm's VisionTransformer(pre_norm=True, num_classes=6)."""
    assert {name: list(array.shape) for name, array in to(layout, clip).items()} == FACTS[layout]


def reference() -> Any:
    """OpenAI's model as its state dict tells it: torch's MultiheadAttention, pre-norm blocks, projections as x @ p."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width: int, hidden: int, heads: int) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.mlp = nn.Sequential(
                OrderedDict(c_fc=nn.Linear(width, hidden), act=QuickGelu(), c_proj=nn.Linear(hidden, width))
            )

        def forward(self, x: Any, mask: Any) -> Any:
            y = self.ln_1(x)
            x = x + self.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            return x + self.mlp(self.ln_2(x))

    class QuickGelu(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * torch.sigmoid(1.702 * x)

    class Transformer(nn.Module):
        def __init__(self, sizes: Mapping[str, int]) -> None:
            super().__init__()
            width, hidden, heads = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_attention_heads"]
            self.resblocks = nn.ModuleList(Block(width, hidden, heads) for _ in range(sizes["num_hidden_layers"]))

        def forward(self, x: Any, mask: Any = None) -> Any:
            for block in self.resblocks:
                x = block(x, mask)
            return x

    class Visual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = VISION["hidden_size"]
            self.conv1 = nn.Conv2d(3, width, 8, 8, bias=False)
            self.class_embedding = nn.Parameter(torch.zeros(width))
            self.positional_embedding = nn.Parameter(torch.zeros(5, width))
            self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
            self.transformer = Transformer(VISION)
            self.proj = nn.Parameter(torch.zeros(width, PROJECTION))

        def forward(self, image: Any) -> Any:
            x = self.conv1(image).flatten(2).mT
            x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
            return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = TEXT["hidden_size"]
            self.visual, self.transformer = Visual(), Transformer(TEXT)
            self.token_embedding = nn.Embedding(TEXT["vocab_size"], width)
            self.positional_embedding = nn.Parameter(torch.zeros(TEXT["max_position_embeddings"], width))
            self.ln_final = nn.LayerNorm(width)
            self.text_projection = nn.Parameter(torch.zeros(width, PROJECTION))
            self.logit_scale = nn.Parameter(torch.zeros([]))

        def encode_text(self, ids: Any) -> Any:
            length = ids.shape[1]
            mask = torch.full((length, length), float("-inf")).triu(1)
            x = self.ln_final(self.transformer(self.token_embedding(ids) + self.positional_embedding, mask))
            return x[torch.arange(len(x)), ids.argmax(-1)] @ self.text_projection

    return Clip().eval()


@pytest.mark.parametrize("layout", ["openai", "open_clip"])
def test_the_openai_model_computes_what_transformers_computes(transformers: Any, layout: str) -> None:
    """Square matrices cannot be told by shape, so the features are: q, k, v, both projections, every norm in its place."""
    import torch

    model, other = made(transformers), reference()
    state = {name: array.numpy() for name, array in model.state_dict().items()}
    other.load_state_dict(as_torch(to(layout, state)), strict=True)
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[28, 3, 4, 29, 0, 0, 0, 0, 0, 0], [28, 5, 6, 7, 8, 29, 0, 0, 0, 0]])
    with torch.no_grad():
        out = model(pixel_values=image, input_ids=ids)
        for expected, found in ((out.image_embeds, other.visual(image)), (out.text_embeds, other.encode_text(ids))):
            torch.testing.assert_close(expected, found / found.norm(dim=-1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_openais_file_becomes_a_folder_that_from_pretrained_loads(transformers: Any, tmp_path: Path) -> None:
    """Heads are 64 wide, the activation is quick_gelu, epsilon is 1e-05: the layout says so, and config.json asks nobody."""
    import torch

    vision = {**VISION, "hidden_size": 128, "hidden_act": "quick_gelu"}
    text = {**TEXT, "hidden_size": 64, "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    model = randomised(
        transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=6))
    )
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    torch.save(as_torch(to("openai", state)), tmp_path / "clip.pt")
    iso.convert(tmp_path / "clip.pt", tmp_path / "out", to="clip/hf", from_="clip/openai")
    again, said = transformers.CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    image, ids = torch.randn(1, 3, 16, 16), torch.tensor([[28, 3, 4, 5, 6, 7, 8, 9, 10, 29]])
    with torch.no_grad():
        torch.testing.assert_close(again.eval().get_image_features(image)[1], model.get_image_features(image)[1])
        torch.testing.assert_close(again.text_model(ids).last_hidden_state, model.text_model(ids).last_hidden_state)


PADDLE_RUNS = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
from paddle import nn

class Vision(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2D(3, 24, 8, 8, bias_attr=False)
        self.class_embedding = self.create_parameter([24])
        self.positional_embedding = nn.Embedding(5, 24)
        self.ln_pre, self.ln_post = nn.LayerNorm(24), nn.LayerNorm(24)
        layer = nn.TransformerEncoderLayer(24, 2, 40, dropout=0, activation="gelu", attn_dropout=0, act_dropout=0, normalize_before=True)
        self.transformer = nn.TransformerEncoder(layer, 3)
    def forward(self, image):
        x = self.conv1(image).flatten(2).transpose([0, 2, 1])
        x = paddle.concat([self.class_embedding.expand([len(x), 1, 24]), x], 1) + self.positional_embedding.weight
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0])

class Clip(nn.Layer):
    def __init__(self):
        super().__init__()
        self.vision_model = Vision()
        self.vision_projection = self.create_parameter([24, 6])

model = Clip()
model.eval()
given = paddle.load(sys.argv[1])
missing, unexpected = model.set_state_dict(given)
assert not missing, missing
assert all(name.startswith("text_") or name == "logit_scale" for name in unexpected), unexpected
image = paddle.to_tensor(np.load(sys.argv[2]))
np.save(sys.argv[3], (model.vision_model(image) @ model.vision_projection).numpy())
"""


def test_paddles_own_encoder_loads_the_paddle_layout_and_computes_the_same(transformers: Any, tmp_path: Path) -> None:
    """PaddleNLP's CLIP is made of paddle.nn.TransformerEncoder: the same modules, fed our file, give transformers' features."""
    import torch

    model = made(transformers, act="gelu")
    model.save_pretrained(tmp_path / "hf")
    morph("clip/paddle").inverse.plan(iso.open(tmp_path / "hf")).write(tmp_path / "clip.pdparams")
    image = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    np.save(tmp_path / "image.npy", image.numpy())
    passed = [str(tmp_path / name) for name in ("clip.pdparams", "image.npy", "features.npy")]
    done = subprocess.run(
        [sys.executable, "-c", PADDLE_RUNS, *passed], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixel_values=image).pooler_output)
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected.numpy(), rtol=1e-4, atol=1e-5)


# ── parts, vintages, and what is refused ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("layout", ["openai", "open_clip", "open_clip_custom_text", "flax", "paddle"])
@pytest.mark.parametrize("part", TOWERS)
def test_one_tower_alone_converts(clip: Arrays, layout: str, part: str) -> None:
    """What the other tower would make is not asked for, and nothing of it is made."""
    alone = {name: array for name, array in clip.items() if name.startswith({"vision": "vis", "text": "text"}[part])}
    found = to(layout, alone)
    whole = to(layout, clip)
    assert [] == differing({name: whole[name] for name in found}, found)
    assert [] == differing(alone, back(layout, found))


def test_buffers_of_older_files_are_dropped_by_name(clip: Arrays) -> None:
    """transformers before 4.31 wrote position_ids, and OpenAI's archives three numbers; neither makes a tensor elsewhere."""
    older = clip | {
        f"{name}_model.embeddings.position_ids": np.arange(count)[None] for name, count in (("vision", 5), ("text", 10))
    }
    for layout in BY_HAND:
        if layout not in ("hf_vision", "hf_text", "diffusers_text", "ldm_text", "fused_vision", "fused_qkv"):
            assert [] == differing(to(layout, clip), to(layout, older)), layout
    archive = to("openai", clip) | {name: np.array(7) for name in ("input_resolution", "context_length", "vocab_size")}
    assert [] == differing(clip, back("openai", archive))


def test_the_notebooks_tower_keeps_its_position_ids(clip: Arrays) -> None:
    older = clip | {"vision_model.embeddings.position_ids": np.arange(5)[None]}
    assert {"embeddings.position_ids"} == set(to("fused_vision", older)) - set(to("fused_vision", clip))


def test_a_whole_stable_diffusion_checkpoint_gives_its_text_encoder(clip: Arrays) -> None:
    """U-Net, its moving average, autoencoder and the twelve arrays of the schedule are dropped by name; another name is an error."""
    cumulative = ("", "log_one_minus_", "sqrt_", "sqrt_one_minus_", "sqrt_recip_", "sqrt_recipm1_")
    schedule = ["betas", "alphas_cumprod_prev", *(f"{kind}alphas_cumprod" for kind in cumulative)]
    schedule += [f"posterior_{kind}" for kind in ("variance", "log_variance_clipped", "mean_coef1", "mean_coef2")]
    rest = [
        "model.diffusion_model.out.2.weight",
        "model_ema.decay",
        "first_stage_model.decoder.conv_in.bias",
        *schedule,
    ]
    whole = to("ldm_text", clip) | {name: np.zeros(3, np.float32) for name in rest}
    text = {name: array for name, array in clip.items() if name.startswith("text_model.")}
    assert [] == differing(text, back("ldm_text", whole))
    with pytest.raises(iso.MorphError, match="control_model"):
        back("ldm_text", whole | {"control_model.zero": np.zeros(3)})


def test_a_logit_bias_is_dropped_and_said(clip: Arrays) -> None:
    """transformers' CLIP has no logit_bias: the plan lists it as lost."""
    plan = morph("clip/open_clip_custom_text").plan(to("open_clip_custom_text", clip) | {"logit_bias": np.float32(-10)})
    assert ["logit_bias"] == [str(name) for name in plan.plan.dropped]


def test_a_timm_classifier_is_no_projection(clip: Arrays) -> None:
    """A head with a bias was fine-tuned: its bias has no place in CLIP, and is not thrown away."""
    tuned = to("timm", clip)
    tuned["head.bias"] = tuned["head.bias"] + np.float32(0.5)
    with pytest.raises(iso.IsomorphError, match=r"head\.bias"):
        back("timm", tuned)


def test_a_timm_tower_without_a_head_is_a_vision_model(clip: Arrays) -> None:
    bare = {name: array for name, array in to("timm", clip).items() if not name.startswith("head.")}
    vision = {name: array for name, array in clip.items() if name.startswith("vision_model.")}
    assert [] == differing(vision, back("timm", bare))


def test_a_lost_part_of_a_layer_is_named(clip: Arrays) -> None:
    holed = {
        name: array for name, array in clip.items() if name != "vision_model.encoder.layers.1.self_attn.k_proj.weight"
    }
    with pytest.raises(iso.MorphError) as caught:
        to("openai", holed)
    assert "vision_model.encoder.layers.1.self_attn.k_proj.weight" in str(caught.value)


@pytest.mark.parametrize("layout", BY_HAND)
def test_prime_sizes_go_there_and_back(layout: str) -> None:
    """On a checkpoint whose sizes all differ and whose every element is another number."""
    groups = ("vision", "text", "visual_projection", "text_projection", "logit_scale")
    hub = hub_probe("clip", groups=groups)
    found = in_layout(find(f"clip/{layout}"), hub)
    again = dict(morph(f"clip/{layout}").plan(found).state_dict("numpy"))
    assert [] == differing({name: hub[name] for name in again}, again)
