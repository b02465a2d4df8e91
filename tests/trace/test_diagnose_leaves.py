"""A module that computes something else is named for what it does, on running models; its repair is carried out."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from suspects import scene_of
from torch import Tensor, nn
from twins import FUSED, Fused, Plain, bridge_of, filled, probe, seeded

from isomorph.trace.diagnose import diagnose

Forward = Callable[[Any, Tensor], Tensor]


def pair(fault: Callable[[Fused], None], dtype: str = "float64", morph: str = FUSED, at: str | None = None) -> Any:
    """The causes found for a candidate with this fault."""
    reference = seeded(Plain)
    bridge = bridge_of(reference, morph)
    candidate = filled(seeded(Fused, 1), reference, bridge)
    fault(candidate)
    return diagnose(scene_of(reference, candidate, bridge, probe(), dtype=dtype, at=at))


def instead(path: str, forward: Forward) -> Callable[[Fused], None]:
    """One module of the candidate runs this in the place of its forward."""

    def fault(model: Fused) -> None:
        module = model.get_submodule(path)
        module.forward = MethodType(forward, module)  # type: ignore[method-assign]

    return fault


def rms(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias


def unbiased(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + self.eps).sqrt() * self.weight + self.bias


def plus_one(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], self.weight + 1, self.bias, self.eps)


def half(self: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x.bfloat16(), self.weight.bfloat16()).to(x.dtype) + self.bias


def hard_eps(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-3)


NORM, SQUARE, WIDE, QKV, TABLE = (
    "blocks.1.n2",
    "blocks.1.attn.out",
    "blocks.0.mlp.up",
    "blocks.1.attn.qkv",
    "embed.tokens",
)
SWAP = np.r_[16:32, 0:16, 32:48]

LEAVES: list[tuple[str, Forward, str, str]] = [
    (NORM, hard_eps, "norm-eps", "eps is 0.001, the reference has 1e-05"),
    (NORM, rms, "norm-mean", "the mean is not subtracted (it is an RMS norm, the reference a layer norm)"),
    (NORM, unbiased, "norm-variance", "variance is divided by n - 1, the reference divides by n"),
    (NORM, plus_one, "norm-one-plus-weight", "norm multiplies by 1 + weight, the reference by weight"),
    (NORM, lambda m, x: F.layer_norm(x, x.shape[-1:], m.weight, None, m.eps), "bias-missing", "bias is missing"),
    (NORM, lambda m, x: F.layer_norm(x, x.shape[-1:], None, m.bias, m.eps), "norm-weight-missing", "weight is missing (the reference multiplies by weight)"),
    (NORM, lambda m, x: F.layer_norm(x, x.shape[-1:], None, None, m.eps), "norm-affine-missing", "weight and bias are missing"),
    (NORM, lambda m, x: F.layer_norm(x.transpose(1, 2), x.shape[1:2]).transpose(1, 2) * m.weight + m.bias, "norm-axis", "it takes mean and variance over axis 1, the reference over the last axis"),
    (SQUARE, lambda m, x: F.linear(x, m.weight.T, m.bias), "weight-transposed", "weight is transposed"),
    (SQUARE, lambda m, x: F.linear(x, m.weight), "bias-missing", "bias is missing"),
    (SQUARE, lambda m, x: F.linear(x, m.weight, 2 * m.bias), "bias-doubled", "bias is added twice"),
    (SQUARE, lambda m, x: F.linear(x, m.weight, m.bias) + x, "residual-inside", "its input is added to its output (a residual inside)"),
    (SQUARE, lambda m, x: 0.5 * F.linear(x, m.weight) + m.bias, "weight-scaled", "weight is scaled by 0.5"),
    (SQUARE, lambda m, x: F.linear(x.flip(-1), m.weight, m.bias), "rows-permuted", "columns stand in reverse order"),
    (WIDE, lambda m, x: F.linear(x, m.weight.reshape(16, 24).T, m.bias), "weight-reshaped", "weight is reshaped where it should be transposed"),
    (WIDE, lambda m, x: F.gelu(F.linear(x, m.weight, m.bias)), "activation-inside", "its output goes through GELU erf"),
    (WIDE, lambda m, x: 3 * F.linear(x, m.weight, m.bias), "output-scaled", "output is scaled by 3"),
    (WIDE, lambda m, x: F.linear(x, torch.linspace(0, 1, 24 * 16).reshape(24, 16).to(x), m.bias), "weight-unused", "weight is not used"),
    (QKV, lambda m, x: F.linear(x, m.weight[SWAP], m.bias[SWAP]), "parts-permuted", "rows of q and k are swapped (read as k q v)"),
    (QKV, lambda m, x: F.linear(x, m.weight[SWAP], m.bias), "parts-permuted", "rows of q and k are swapped (read as k q v)"),
    (QKV, lambda m, x: F.linear(x, m.weight.unflatten(0, (3, 2, 8)).transpose(0, 1).flatten(0, 2), m.bias), "parts-interleaved", "rows of q k v are interleaved: they alternate 2 times, head by head"),
    (QKV, lambda m, x: F.linear(x, torch.cat([m.weight[:16], m.weight[16:32].T, m.weight[32:]]), m.bias), "weight-transposed", "k: weight is transposed"),
    (QKV, lambda m, x: F.linear(x, m.weight, m.bias * (torch.arange(48) >= 16)), "bias-missing", "q: bias is missing"),
    (TABLE, lambda m, x: F.embedding((x + 2).clamp(max=30), m.weight), "embedding-offset", "row id + 2 is read, the reference reads row id"),
    (TABLE, lambda m, x: 4 * F.embedding(x, m.weight), "embedding-scale", "it is multiplied by sqrt(16), the reference is not"),
    (TABLE, lambda m, x: F.embedding(x, m.weight) * (x != x[1, 3])[..., None], "embedding-padding-row", "the output for id "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "forward", "kind", "says"), LEAVES, ids=lambda one: one if isinstance(one, str) else ""
)
def test_what_a_module_does_otherwise_is_named(path: str, forward: Forward, kind: str, says: str) -> None:
    """One cause, its kind and clause, within the tolerance."""
    (cause,) = pair(instead(path, forward), at=path)
    assert (kind, says) == (cause.kind, cause.says[: len(says)])
    assert cause.residual < 1e-13


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_product_in_half_precision_is_named(dtype: str) -> None:
    """What is left of the output without its bias lies on bfloat16's grid; the floor is bfloat16's."""
    (cause,) = pair(instead(WIDE, half), dtype, at=WIDE)
    assert ("half-accumulation", "the product before its bias is computed in bfloat16") == (cause.kind, cause.says)
    assert cause.residual <= cause.floor == 2.0**-7


@pytest.mark.parametrize(("path", "forward", "kind", "says"), LEAVES[::4])
def test_the_same_is_named_in_float32(path: str, forward: Forward, kind: str, says: str) -> None:
    """In a float32 run as in float64."""
    (cause,) = pair(instead(path, forward), "float32", at=path)
    assert (kind, says) == (cause.kind, cause.says[: len(says)])
