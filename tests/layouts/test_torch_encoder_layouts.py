"""torch.nn's transformer stacks and paddle.nn's: the same by hand, and the same when both libraries run them."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from other_models import Arrays, differing, problems

import isomorph as iso
from isomorph.layouts.catalogue import find, layouts

KINDS = ("encoder", "decoder", "transformer")
WIDTH, HEADS, FFN = 24, 3, 40


def stack(kind: str, *, norm: bool = True, bias: bool = True) -> Any:
    """A module of torch.nn of random numbers."""
    import torch
    from torch import nn

    layer = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": FFN, "batch_first": True, "bias": bias}
    last = nn.LayerNorm(WIDTH, bias=bias) if norm else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "encoder":
            found: Any = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, norm=last)
        elif kind == "decoder":
            found = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 3, norm=last)
        else:
            found = nn.Transformer(num_encoder_layers=2, num_decoder_layers=3, **layer)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return found.eval()


def state(module: Any) -> Arrays:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def by_hand_paddle(hub: Arrays) -> Arrays:
    found = {}
    for name, array in hub.items():
        name = name.replace("multihead_attn", "cross_attn")
        if "in_proj" in name:
            for part, rows in zip("qkv", np.split(array, 3), strict=True):
                found[name.replace("in_proj_", f"{part}_proj.")] = np.ascontiguousarray(rows.T)
        else:
            found[name] = np.ascontiguousarray(array.T) if array.ndim == 2 else array
    return found


def by_hand_split(hub: Arrays) -> Arrays:
    found: Arrays = {}
    for name, array in hub.items():
        names = [name.replace("in_proj_", f"{part}_proj.") for part in "qkv"] if "in_proj" in name else [name]
        found.update(zip(names, np.split(array, len(names)), strict=True))
    return found


BY_HAND = {"encoder/paddle": by_hand_paddle, "encoder/split": by_hand_split}


@pytest.mark.parametrize("layout", BY_HAND)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_is_what_it_is_by_hand_and_goes_back(kind: str, norm: bool, bias: bool, layout: str) -> None:
    """With and without biases, with and without a norm at the end; the hub knows every tensor and misses none."""
    hub = state(stack(kind, norm=norm, bias=bias))
    assert [] == problems("encoder", hub)
    morph = iso.morph(find(layout).path)
    found = morph.inverse.plan(hub).state_dict("numpy")
    assert [] == differing(BY_HAND[layout](hub), found)
    assert [] == differing(hub, morph.plan(found).state_dict("numpy"))


def test_a_layer_that_is_not_there_is_missed() -> None:
    hub = state(stack("transformer"))
    gone = "decoder.layers.1.multihead_attn.in_proj_bias"
    assert [gone] == problems("encoder", {name: array for name, array in hub.items() if name != gone})


def test_every_layout_of_the_torch_encoder_is_tried() -> None:
    """A layout that is added is added above."""
    assert set(BY_HAND) == {str(one) for one in layouts("encoder") if not one.is_hub}


PADDLE_RUNS = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
from paddle import nn
kind, weights, inputs, out = sys.argv[1:]
with np.load(inputs) as given:
    source, target = paddle.to_tensor(given["source"]), paddle.to_tensor(given["target"])
layer = dict(d_model=24, nhead=3, dim_feedforward=40, dropout=0.0)
if kind == "encoder":
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 2, norm=nn.LayerNorm(24))
elif kind == "decoder":
    module = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 3, norm=nn.LayerNorm(24))
else:
    module = nn.Transformer(num_encoder_layers=2, num_decoder_layers=3, **layer)
missing, unexpected = module.set_state_dict(paddle.load(weights))
assert not missing and not unexpected, (missing, unexpected)
module.eval()
result = module(source) if kind == "encoder" else module(target, source) if kind == "decoder" else module(source, target)
np.save(out, result.numpy())
"""


@pytest.mark.parametrize("kind", KINDS)
def test_paddle_computes_what_torch_computes(tmp_path: Path, kind: str) -> None:
    """The converted file is loaded by paddle.nn's own module with no missing or unexpected key, and both answer the same."""
    import torch
    from safetensors.torch import save_file

    module = stack(kind)
    save_file(module.state_dict(), tmp_path / "torch.safetensors")
    plan = iso.morph(find("encoder/paddle").path).inverse.plan(tmp_path / "torch.safetensors")
    plan.write(tmp_path / "stack.pdparams")
    generator = torch.Generator().manual_seed(3)
    source, target = (torch.randn(2, n, WIDTH, generator=generator) for n in (5, 4))
    np.savez(tmp_path / "inputs.npz", source=source.numpy(), target=target.numpy())
    passed = [str(tmp_path / name) for name in ("stack.pdparams", "inputs.npz", "out.npy")]
    done = subprocess.run(
        [sys.executable, "-c", PADDLE_RUNS, kind, *passed], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {"encoder": lambda: module(source), "decoder": lambda: module(target, source)}.get(
            kind, lambda: module(source, target)
        )()
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected.numpy(), rtol=1e-5, atol=1e-5)
