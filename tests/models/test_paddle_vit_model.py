"""The ViT in Paddle: torch's weights through isomorph, the same logits; and back to torch, the same bytes."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from parity import saved, stirred
from safetensors.torch import load_file

import isomorph as iso

with warnings.catch_warnings(action="ignore"):  # it looks for compilers when it is imported
    import paddle

from isomorph.models import paddle_vit, vit

TINY = {
    "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 35,
    "patch_size": 8, "layer_norm_eps": 1e-6,
}  # fmt: skip
SIZES = {
    "tiny": TINY,
    "no bias on q, k, v; tanh gelu": TINY | {"qkv_bias": False, "hidden_act": "gelu_new"},
    "one head, one channel, quick gelu": TINY
    | {"num_attention_heads": 1, "num_channels": 1, "hidden_act": "quick_gelu"},
    "heads of 2, wide, a large eps": TINY
    | {"num_attention_heads": 12, "intermediate_size": 96, "layer_norm_eps": 2**-10},
}
LIMITS = {"float32": 1e-5, "float64": 1e-12}


def written(sizes: dict[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    """transformers' classifier, saved into the folder, and its config."""
    theirs = stirred(transformers.ViTForImageClassification(transformers.ViTConfig(**sizes, num_labels=5)), seed=3)
    saved(theirs, folder)
    return theirs, json.loads((folder / "config.json").read_text())


def ported(config: dict[str, Any], source: Path, dtype: str = "float32") -> Any:
    model = paddle_vit.from_config(config)
    model.to(dtype=dtype)
    model.eval()
    assert tuple(iso.paddle.load_model(model, source, to="vit/paddle_nn")) == ([], [])
    return model


def images(sizes: dict[str, Any], dtype: str = "float32") -> np.ndarray[Any, Any]:
    shape = (3, sizes.get("num_channels", 3), sizes["image_size"], sizes["image_size"])
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


def gap(got: Any, expected: torch.Tensor) -> float:
    """The largest difference of the logits by the largest logit."""
    assert got.shape == list(expected.shape) and str(got.dtype).removeprefix("paddle.") == str(expected.dtype)[6:]
    return float(np.abs(got.numpy() - expected.numpy()).max() / np.abs(expected.numpy()).max())


@torch.no_grad()
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", LIMITS)
def test_the_same_weights_in_paddle_give_the_same_logits(dtype: str, sizes: dict[str, Any], tmp_path: Path) -> None:
    """As transformers, and as the reference ViT in torch: to 1e-5 in float32, to 1e-12 in float64.

    The large eps is one that float32 holds: in Paddle a LayerNorm's eps is a float32.
    """
    theirs, config = written(sizes, tmp_path)
    model, pixels = ported(config, tmp_path, dtype), images(sizes, dtype)
    got, in_torch = model(paddle.to_tensor(pixels)), torch.from_numpy(pixels)
    reference = vit.build(config, ["classifier.weight"])
    iso.torch.load_model(reference, tmp_path, to="vit/hf")
    for other in (theirs, reference):
        assert gap(got, other.to(in_torch.dtype).eval()(in_torch).logits) <= LIMITS[dtype]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_from_torch_to_paddle_and_back_every_bit_is_the_same(sizes: dict[str, Any], tmp_path: Path) -> None:
    """Straight from the live layer, and through the file that Paddle writes."""
    _, config = written(sizes, tmp_path)
    model = ported(config, tmp_path)
    paddle.save(model.state_dict(), str(tmp_path / "vit.pdparams"))
    iso.convert(tmp_path / "vit.pdparams", tmp_path / "file.safetensors", to="vit/hf")
    iso.convert(model.state_dict(), tmp_path / "live.safetensors", to="vit/hf")
    first = load_file(tmp_path / "model.safetensors")
    for name in ("file", "live"):
        back = load_file(tmp_path / f"{name}.safetensors")
        assert sorted(first) == sorted(back)
        assert [key for key in first if first[key].numpy().tobytes() != back[key].numpy().tobytes()] == []
    again = vit.build(config, first)
    assert tuple(iso.torch.load_model(again, tmp_path / "vit.pdparams", to="vit/hf")) == ([], [])
    assert all(torch.equal(again.state_dict()[key], first[key]) for key in first)


def test_a_converted_file_is_what_paddle_loads(tmp_path: Path) -> None:
    """`convert` to .pdparams, then set_state_dict, gives the layer that load_model gives."""
    _, config = written(TINY, tmp_path)
    iso.convert(tmp_path, tmp_path / "vit.pdparams", to="vit/paddle_nn")
    model = paddle_vit.from_config(config)
    assert model.set_state_dict(paddle.load(str(tmp_path / "vit.pdparams"))) == ([], [])
    pixels = paddle.to_tensor(images(TINY))
    assert bool((model(pixels) == ported(config, tmp_path)(pixels)).all())


def test_the_names_are_those_of_paddles_own_encoder() -> None:
    """Under `encoder.`; and with the same weights paddle.nn.TransformerEncoder gives the same numbers."""
    model = paddle_vit.from_config(TINY)
    model.eval()
    layer = paddle.nn.TransformerEncoderLayer(
        24, 3, 40, dropout=0.0, activation="gelu", normalize_before=True, layer_norm_eps=1e-6
    )
    encoder = paddle.nn.TransformerEncoder(layer, 3, paddle.nn.LayerNorm(24, epsilon=1e-6))
    state = {name.removeprefix("encoder."): value for name, value in model.state_dict().items() if "encoder." in name}
    assert sorted(encoder.state_dict()) == sorted(state)
    encoder.set_state_dict(state)
    encoder.eval()
    x_BTC = paddle.to_tensor(np.random.default_rng(1).standard_normal((2, 5, 24)).astype("float32"))
    np.testing.assert_allclose(model.encoder(x_BTC).numpy(), encoder(x_BTC).numpy(), rtol=0, atol=1e-5)


def test_it_has_layers_to_hook() -> None:
    """Each projection of the attention is a Linear whose output a hook sees."""
    model, seen = paddle_vit.from_config(TINY), []
    for name, module in model.named_sublayers():
        if name.endswith(("q_proj", "k_proj", "v_proj", "out_proj")):
            module.register_forward_post_hook(lambda layer, given, out, name=name: seen.append((name, out.shape)))
    model(paddle.to_tensor(images(TINY)))
    order = [f"encoder.layers.{n}.self_attn.{p}_proj" for n in range(3) for p in ("q", "k", "v", "out")]
    assert [(name, [3, 17, 24]) for name in order] == seen


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hidden_act": "xielu"}, "hidden_act is 'xielu': implemented are gelu,"),
        ({"num_attention_heads": 5}, r"5 heads \(num_attention_heads\) do not divide hidden_size 24"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0: it must be a whole number above 0"),
        ({"hidden_size": "24"}, "hidden_size is '24': it must be a whole number above 0"),
        ({"image_size": 4}, r"image_size 4 is smaller than patch_size"),
        ({"layer_norm_eps": 1e-2}, "layer_norm_eps is 0.01: Paddle's LayerNorm takes 0 to 0.001"),
    ],
    ids=str,
)
def test_a_config_that_this_vit_is_not_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paddle_vit.from_config(TINY | given)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="the images are 24 × 24 pixels, the model is for 35 × 35: resize them"):
        paddle_vit.from_config(TINY)(paddle.to_tensor(images(TINY | {"image_size": 24})))
