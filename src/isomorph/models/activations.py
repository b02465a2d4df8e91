"""The activations by their names in config.json. All keep the dtype of what they are given.

source: transformers activations.py, ACT2FN (names); Hendrycks and Gimpel 2016, arxiv.org/abs/1606.08415 (GELU and what is near it)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Callable[[Tensor], Tensor]


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x): OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


def fast_gelu(x: Tensor) -> Tensor:
    """tanh_gelu with its constant rounded to ten digits, as it is written upstream."""
    return 0.5 * x * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x)))


def clipped_gelu(x: Tensor) -> Tensor:
    """GELU, at most 10."""
    return F.gelu(x).clamp(-10, 10)


def laplace(x: Tensor) -> Tensor:
    """The distribution function of a normal variable around sqrt(1/2), near relu2."""
    return 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2))))


def as_it_is(x: Tensor) -> Tensor:
    """None at all."""
    return x


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)²."""
    return F.relu(x).square()


tanh_gelu: Activation = partial(F.gelu, approximate="tanh")
"""0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x³))): Google's BERT, T5 v1.1."""

ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": tanh_gelu,
    "gelu_fast": fast_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "gelu_python_tanh": tanh_gelu,
    "gelu_accurate": tanh_gelu,
    "gelu_10": clipped_gelu,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": squared_relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "swish": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "laplace": laplace,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "linear": as_it_is,
}


def activation(name: str, key: str = "hidden_act") -> Activation:
    """The activation of that name. Raises ValueError, naming the config's `key`, for one that is not here."""
    if name not in ACTIVATIONS:
        raise ValueError(f"{key} is {name!r}, which is not implemented: known are {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
