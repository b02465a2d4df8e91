"""The reference CLIP against transformers', on random models of several sizes, through the files that transformers writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import HALVES, OtherFloats, agree, gap, loaded, names_in, padding, saved, stirred

import isomorph as iso
from isomorph.models import clip

VISION = {
    "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 24,
    "patch_size": 8, "projection_dim": 20,
}  # fmt: skip
TEXT = {
    "hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "vocab_size": 50,
    "max_position_embeddings": 12, "eos_token_id": 49, "projection_dim": 20,
}  # fmt: skip
TINY = {"vision_config": VISION, "text_config": TEXT, "projection_dim": 20}


def sized(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {**TINY, "vision_config": VISION | (vision or {}), "text_config": TEXT | (text or {}), **more}


SIZES = {
    "tiny, quick gelu": TINY,
    "patches do not fill the image, gelu": sized({"image_size": 35, "hidden_act": "gelu"}, {"hidden_act": "gelu"}),
    "the largest token is the end": sized(text={"eos_token_id": 2}),
    "one head, heads of 2, deep and shallow": sized(
        {"num_attention_heads": 1, "num_hidden_layers": 4}, {"num_attention_heads": 12, "num_hidden_layers": 1}
    ),
    "other eps, one channel, another projection": sized(
        {"layer_norm_eps": 1e-3, "num_channels": 1}, {"layer_norm_eps": 1e-2}, projection_dim=7
    ),
}
FIELDS = {
    "CLIPModel": ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds"),
    "CLIPVisionModel": ("last_hidden_state", "pooler_output"),
    "CLIPVisionModelWithProjection": ("image_embeds", "last_hidden_state"),
    "CLIPTextModel": ("last_hidden_state", "pooler_output"),
    "CLIPTextModelWithProjection": ("text_embeds", "last_hidden_state"),
    "CLIPForImageClassification": ("logits",),
}
MASKS = {
    "no mask": None,
    "right": padding([[1] * 9, [1] * 6 + [0] * 3, [1] * 5 + [0] * 4]),
    "left": padding([[1] * 9, [0] * 3 + [1] * 6, [0] + [1] * 8]),
}
BOTH = pytest.mark.parametrize(
    ("dtype", "attention"),
    [(torch.float32, "sdpa"), (torch.float32, "eager"), (torch.float64, "sdpa")],
    ids=["float32-sdpa", "float32-eager", "float64-sdpa"],
)
"""Not eager in float64: there transformers takes the softmax in float32."""


def reference(
    kind: str, sizes: dict[str, Any], *, attention: str = "sdpa", dtype: torch.dtype = torch.float32, **more: Any
) -> Any:
    config: Any = transformers.CLIPConfig(**(sizes | more), bos_token_id=0, eos_token_id=1)
    config.text_config.bos_token_id = 0
    if "Vision" in kind or "Text" in kind:
        config = config.vision_config if "Vision" in kind else config.text_config
    model = getattr(transformers, kind)(config)
    model.set_attn_implementation(attention)
    return stirred(model, seed=3).to(dtype)


def on_disk(theirs: Any, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The config that transformers writes, and the names of the hub: those of a tower by itself lack its own."""
    saved(theirs, folder)
    tower = {"CLIPVisionModel": "vision_model.", "CLIPTextModel": "text_model."}.get(type(theirs).__name__, "")
    return json.loads((folder / "config.json").read_text()), [tower + name for name in sorted(names_in(folder))]


def ours(theirs: Any, folder: Path, *, fused: bool = False) -> Any:
    """The model that `build` makes of what transformers writes, on the meta device, filled through the catalogue."""
    config, names = on_disk(theirs, folder)
    with torch.device("meta"):
        model = clip.build(config, names, fused=fused)
    model = model.to(theirs.dtype)
    return loaded(model, folder, "clip/fused_qkv" if fused else "clip/hf")


def texts() -> torch.Tensor:
    """Three texts of nine tokens: the end token once, again as padding, and early."""
    ids = torch.randint(3, 48, (3, 9), generator=torch.Generator().manual_seed(7))
    ids[0, 8], ids[1, 5:], ids[2, 4] = 49, 49, 49
    return ids


def images(sizes: dict[str, Any], dtype: torch.dtype = torch.float32, more: int = 0) -> torch.Tensor:
    vision = sizes["vision_config"]
    shape = (2, vision.get("num_channels", 3), vision["image_size"] + more, vision["image_size"] + more)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5)).to(dtype)


def given(kind: str, sizes: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """What a model of that kind takes."""
    found = {}
    if "Text" in kind or kind == "CLIPModel":
        found["input_ids"] = texts()
    if "Text" not in kind:
        found["pixel_values"] = images(sizes, dtype)
    return found


@torch.no_grad()
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@BOTH
def test_logits_and_hidden_states_are_those_of_transformers(
    dtype: torch.dtype, attention: str, sizes: dict[str, Any], tmp_path: Path
) -> None:
    """Of both towers, in both precisions, whatever their sizes and activation."""
    theirs = reference("CLIPModel", sizes, attention=attention, dtype=dtype)
    inputs = given("CLIPModel", sizes, dtype)
    got, expected = ours(theirs, tmp_path)(**inputs), theirs(**inputs)
    agree(got, expected, FIELDS["CLIPModel"])
    for tower in ("vision_model_output", "text_model_output"):
        agree(getattr(got, tower), getattr(expected, tower), ("last_hidden_state",))


@torch.no_grad()
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("eos_token_id", [2, 49])
@BOTH
def test_texts_are_causal_padded_and_read_off_at_their_end(
    dtype: torch.dtype, attention: str, eos_token_id: int, mask: torch.Tensor | None, tmp_path: Path
) -> None:
    """Every token that is not padding, and the pooled one; with places of one's own too."""
    sizes = sized(text={"eos_token_id": eos_token_id})
    theirs = reference("CLIPTextModelWithProjection", sizes, attention=attention, dtype=dtype)
    model, rows = ours(theirs, tmp_path), ... if mask is None else mask > 0
    for places in (None, torch.arange(9).flip(0).expand(3, 9) + 2):
        inputs = {"input_ids": texts(), "attention_mask": mask, "position_ids": places}
        got, expected = model(**inputs), theirs(**inputs)
        agree(got, expected, ("last_hidden_state",), rows)
        agree(got, expected, ("text_embeds",))


@torch.no_grad()
@pytest.mark.parametrize("fused", [False, True], ids=["separate", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", FIELDS)
def test_every_class_is_filled_from_its_file_and_gives_what_transformers_gives(
    kind: str, dtype: torch.dtype, fused: bool, tmp_path: Path
) -> None:
    """Each by its own fields, images of other sizes too, with q, k and v separate or as one matrix."""
    theirs = reference(kind, TINY, dtype=dtype, num_labels=5)
    model, inputs = ours(theirs, tmp_path, fused=fused), given(kind, TINY, dtype)
    agree(model(**inputs), theirs(**inputs), FIELDS[kind])
    if "pixel_values" in inputs:
        inputs["pixel_values"] = images(TINY, dtype, more=19)[..., :-9]
        agree(
            model(**inputs, interpolate_pos_encoding=True),
            theirs(**inputs, interpolate_pos_encoding=True),
            FIELDS[kind],
        )
    assert fused == any(name.endswith("self_attn.qkv_proj.weight") for name in model.state_dict())
    assert fused or set(on_disk(theirs, tmp_path)[1]) == set(model.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", FIELDS)
def test_half_precision_is_half_throughout(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """No operation of a forward gives another floating dtype, padded texts too, and the numbers are float32's to half's precision."""
    theirs = reference(kind, TINY)
    model, inputs = ours(theirs, tmp_path).to(dtype), given(kind, TINY)
    if "input_ids" in inputs:
        inputs["attention_mask"] = MASKS["right"]
    expected = theirs(**inputs)
    half = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    with OtherFloats(dtype) as others:
        got = model(**half)
    assert others.found == []
    for field in FIELDS[kind]:
        rows = MASKS["right"] > 0 if field == "last_hidden_state" and "Text" in kind else ...
        assert gap(getattr(got, field)[rows].float(), getattr(expected, field)[rows]) < 24 * torch.finfo(dtype).eps


@torch.no_grad()
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64], ids=str)
def test_a_text_of_padding_alone_disturbs_nobody(dtype: torch.dtype, tmp_path: Path) -> None:
    """No NaN, not in that text either, and those beside it are what they are without it."""
    model = ours(reference("CLIPModel", TINY, dtype=dtype), tmp_path)
    mask = padding([[1] * 9, [0] * 9, [0] * 3 + [1] * 6])
    out = model(texts(), images(TINY, dtype), attention_mask=mask)
    parts = [out.text_model_output.last_hidden_state, *out[:4]]
    assert all(part.dtype == dtype and bool(part.isfinite().all()) for part in parts)
    others = torch.tensor([0, 2])
    alone = model(texts()[others], images(TINY, dtype), attention_mask=mask[others])
    torch.testing.assert_close(out.text_embeds[others], alone.text_embeds)


@torch.no_grad()
def test_openais_own_file_fills_it(tmp_path: Path) -> None:
    """Fused q, k, v in it, transposed projections: the same logits, with q, k and v separate or as one matrix."""
    sizes = sized(
        {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256},
        {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 256},
    )
    theirs = reference("CLIPModel", sizes)
    config, names = on_disk(theirs, tmp_path)
    iso.convert(tmp_path / "model.safetensors", tmp_path / "openai.safetensors", to="clip/openai")
    for fused, layout in ((False, "clip/hf"), (True, "clip/fused_qkv")):
        with torch.device("meta"):
            model = clip.build(config, names, fused=fused)
        loaded(model, tmp_path / "openai.safetensors", layout)
        agree(model(**given("CLIPModel", sizes)), theirs(**given("CLIPModel", sizes)), FIELDS["CLIPModel"])


def test_the_config_of_a_tower_by_itself_and_old_spellings_are_read() -> None:
    """A flat config is that tower's; `*_config_dict` say it instead of what stands beside them; else the projection is CLIP's."""
    alone = clip.Config.from_dict({"model_type": "clip_text_model", **TEXT})
    assert alone.text_config == clip.Config.from_dict(TINY).text_config
    old = clip.Config.from_dict({"text_config": {"hidden_size": 99}, "text_config_dict": TEXT, "projection_dim": 9})
    assert (old.text_config, old.vision_config.projection_dim) == (alone.text_config, 9)
    theirs = transformers.CLIPConfig(text_config={"hidden_size": 96, "num_attention_heads": 3}, text_config_dict=TEXT)
    assert clip.Config.from_dict(
        {"text_config": {"hidden_size": 96}, "text_config_dict": TEXT}
    ).text_config.vocab_size == (theirs.text_config.vocab_size)
    assert clip.Config.from_dict({}) == clip.Config.from_dict(transformers.CLIPConfig().to_dict())


def test_the_class_is_that_of_the_config_or_of_the_names() -> None:
    """`architectures`, else `model_type`, where there are no names; what the names hold where there are."""
    for kind in FIELDS:
        model = clip.from_config(TINY | {"architectures": [kind]})
        assert list(clip.build(TINY, list(model.state_dict())).state_dict()) == list(model.state_dict())
    assert isinstance(clip.from_config({"model_type": "clip_vision_model", **VISION}), clip.CLIPVisionModel)
    with pytest.raises(ValueError, match="no CLIP: of vision_model and text_model the weights hold neither, but bert"):
        clip.build(TINY, ["bert.pooler.dense.weight"])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sized({"hidden_act": "xielu"}), "hidden_act is 'xielu', which is not implemented: known are gelu,"),
        (sized(text={"num_attention_heads": 5}), "hidden_size 24 is no multiple of num_attention_heads 5"),
        (sized({"image_size": [24, 16]}), r"image_size is \[24, 16\]: CLIP's images and patches are square"),
        (sized({"image_size": 7}), "image_size 7 is smaller than patch_size 8"),
        (sized(text={"eos_token_id": [1, 2]}), r"eos_token_id is \[1, 2\]: a text is read off at one end token"),
        (TINY | {"model_type": "siglip"}, "model_type is 'siglip': this is CLIP, known are clip, clip_vision_model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_config_that_this_clip_is_not_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clip.from_config(config)


def test_inputs_that_do_not_fit_are_refused_with_the_way_out() -> None:
    model = clip.from_config(TINY)
    with pytest.raises(
        ValueError, match="are 43 × 43 pixels, the model is for 24 × 24: resize them, or ask for interp"
    ):
        model(texts(), images(TINY, more=19))
    with pytest.raises(ValueError, match="input_ids has 18 tokens, the model takes 12: cut the text"):
        model(texts().repeat(1, 2), images(TINY))
