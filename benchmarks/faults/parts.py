"""What the torch candidates are made of: plain formulas, written out, none of torch's layers or fused kernels.

Sums are taken in two halves, the scale goes into q before the product, softmax and GELU are written with exp and erfc, so that a
sound candidate differs from the reference by rounding wherever it can. Every part asks its Faults what to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.faults.hook import Faults
from torch import Tensor, nn


def dense(x: Tensor, matrix_OI: Tensor, bias: Tensor | None) -> Tensor:
    """x @ matrix.T + bias, the sum over the inputs taken in two halves."""
    half = matrix_OI.shape[1] // 2
    y = x[..., half:] @ matrix_OI[:, half:].T + x[..., :half] @ matrix_OI[:, :half].T
    return y if bias is None else y + bias


class Dense(nn.Module):
    """A linear layer. `weight` is [out in]; with `kernel`, it is called kernel and is [in out]."""

    def __init__(self, inner: int, outer: int, faults: Faults, *, bias: bool = True, kernel: bool = False) -> None:
        super().__init__()
        self.faults, self.is_kernel = faults, kernel
        self.register_parameter(
            "kernel" if kernel else "weight", fresh(*((inner, outer) if kernel else (outer, inner)))
        )
        has_bias = bias and faults("bias", "used") != "absent"
        self.bias = nn.Parameter(torch.zeros(outer)) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.kernel.T if self.is_kernel else self.weight
        if self.faults("turned", False):  # a square matrix, multiplied from the wrong side
            matrix = matrix.T
        how, bias = self.faults("bias", "used"), self.bias
        if self.faults("accumulate", "full") == "half":
            return dense(x.bfloat16(), matrix.bfloat16(), None).to(x.dtype) + bias
        y = dense(x, matrix, bias if how in ("used", "doubled") else None)
        return y + bias if how == "doubled" else y


def fresh(*shape: int) -> nn.Parameter:
    """A parameter as modules make it when they are made: small and random."""
    return nn.Parameter(torch.randn(*shape) * 0.02)


class Norm(nn.Module):
    """LayerNorm, or RMS where there is no bias. `eps` is a plain attribute, as in everyone's code."""

    def __init__(self, width: int, eps: float, faults: Faults, *, bias: bool = True, weight: str = "weight") -> None:
        super().__init__()
        self.faults, self.eps, self.weight_name = faults, faults("eps", eps), weight
        self.register_parameter(weight, nn.Parameter(torch.ones(width)))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.faults("skipped", False):
            return x
        form = self.faults("form", "rms" if self.bias is None else "layer")
        centred = x - x.mean(-1, keepdim=True) if form == "layer" else x
        mean_of_squares = (centred * centred).mean(-1, keepdim=True)
        eps_place = self.faults("eps-place", "inside")
        if eps_place == "inside":
            y = centred / (mean_of_squares + self.eps).sqrt()
        else:
            y = centred / (mean_of_squares.sqrt() + self.eps)
        y = y * (getattr(self, self.weight_name) + self.faults("plus", 0.0))
        return y if self.bias is None or self.faults("bias", "used") == "ignored" else y + self.bias


class Table(nn.Module):
    """An embedding, by one-hot product."""

    def __init__(self, rows: int, width: int, name: str = "weight") -> None:
        super().__init__()
        self.name = name
        self.register_parameter(name, fresh(rows, width))

    def forward(self, ids: Tensor) -> Tensor:
        rows = getattr(self, self.name)
        return torch.nn.functional.one_hot(ids, rows.shape[0]).to(rows.dtype) @ rows


def erf_gelu(x: Tensor) -> Tensor:
    """x Φ(x)"""
    return 0.5 * x * torch.erfc(-x * math.sqrt(0.5))


def tanh_gelu(x: Tensor) -> Tensor:
    """x σ(2u) with u = √(2/π) (x + 0.044715 x³): the same as x (1 + tanh u) / 2."""
    return x / (1 + torch.exp(-2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "erf": erf_gelu,
    "tanh": tanh_gelu,
    "quick": quick_gelu,
    "relu": lambda x: x.clamp(min=0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


def attend(
    q_BTHD: Tensor,
    k_BSHD: Tensor,
    v_BSHD: Tensor,
    faults: Faults,
    *,
    allowed: Tensor | None = None,
    bias_HTS: Tensor | None = None,
    scaled: bool = True,
) -> Tensor:
    """[B T (H D)]. `allowed` broadcasts to [B H T S], True where a query may look."""
    batch, length, heads, width = q_BTHD.shape
    scale = {"head": width**-0.5, "none": 1.0, "width": (heads * width) ** -0.5, "twice": 1 / width}[
        faults("scale", "head" if scaled else "none")
    ]
    if faults("accumulate", "full") == "half":
        scores = torch.einsum("bthd,bshd->bhts", (q_BTHD * scale).bfloat16(), k_BSHD.bfloat16()).to(q_BTHD.dtype)
    else:
        scores = torch.einsum("bthd,bshd->bhts", q_BTHD * scale, k_BSHD)
    if bias_HTS is not None:
        scores = scores + bias_HTS
    scores = masked(scores, allowed, faults("mask", "infinite"))
    axis = faults("softmax-axis", -1)
    parts = torch.exp(scores - scores.amax(axis, keepdim=True))
    weights = parts / parts.sum(axis, keepdim=True)
    if faults("dropout", None) is not None:
        weights = nn.functional.dropout(weights, faults("dropout", None))
    out_BTHD = torch.einsum("bhts,bshd->bthd", weights, v_BSHD)
    merge = faults("merge", "heads first")
    if merge == "no transpose":
        return out_BTHD.transpose(1, 2).reshape(batch, length, heads * width)
    if merge == "width first":
        return out_BTHD.transpose(2, 3).reshape(batch, length, heads * width)
    return out_BTHD.reshape(batch, length, heads * width)


def masked(scores: Tensor, allowed: Tensor | None, how: Any) -> Tensor:
    """Scores that may not be looked at, out of the way; or, where `how` is a number, lowered by it."""
    if allowed is None or how == "missing":
        return scores
    if how == "infinite":
        return scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    if how == "inverted":
        return scores.masked_fill(allowed, torch.finfo(scores.dtype).min)
    if how == "times":  # multiplied, so that masked scores are 0, not minus infinity
        return scores * allowed.to(scores.dtype)
    return scores - how * (~allowed).to(scores.dtype)


def split_heads(x_BTC: Tensor, heads: int, faults: Faults, what: str = "heads") -> Tensor:
    """[B T H D]: the heads lie one after the other."""
    batch, length, width = x_BTC.shape
    if faults(what, "first") == "last":
        return x_BTC.reshape(batch, length, width // heads, heads).transpose(2, 3)
    return x_BTC.reshape(batch, length, heads, width // heads)


def residual(x: Tensor, y: Tensor, faults: Faults, what: str) -> Tensor:
    """y + x, the sum that a block is built around."""
    how = faults(what, "added")
    return {"added": y + x, "dropped": y, "doubled": x + y + x, "halved": (x + y) / 2, "y twice": x + y + y}[how]
