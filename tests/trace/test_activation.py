"""Activation functions are recognised from values alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from isomorph.trace.diagnose.pointwise import FUNCTIONS, describe, gap_of, identify, is_function

X = np.random.default_rng(0).normal(size=(2, 9, 40)) * 2

TORCH = {
    "GELU erf": functional.gelu,
    "GELU tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "ReLU": functional.relu,
    "SiLU (x·sigmoid(x))": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "ELU": functional.elu,
    "SELU": functional.selu,
    "softplus": functional.softplus,
    "Mish": functional.mish,
    "ReLU6": functional.relu6,
    "hard swish": functional.hardswish,
    "hard sigmoid": functional.hardsigmoid,
    "softsign": functional.softsign,
    "leaky ReLU (0.01)": functional.leaky_relu,
    "quick GELU (x·sigmoid(1.702x))": lambda x: x * torch.sigmoid(1.702 * x),
}


@pytest.mark.parametrize("name", TORCH)
def test_torchs_functions_are_recognised(name):
    """Each by its name, to the last bits, and no other as close."""
    best, second = identify(X, TORCH[name](torch.from_numpy(X)).numpy())[:2]
    assert name == best.name
    assert best.gap < 2e-14 or best.gap < second.gap


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_the_catalogue_are_told_apart(name):
    """The first of what is identified gives the values; whatever ties with it is the same function there."""
    y = FUNCTIONS[name](X)
    best = identify(X, y)[0]
    assert gap_of(best.function(X), y) < 1e-14
    assert is_function(X, y)


@pytest.mark.parametrize("slope", [1.5, 1.7, 2.25])
def test_a_slope_is_solved_for(slope):
    """x·sigmoid(c·x) with a c that is not in the catalogue."""
    best = identify(X, X / (1 + np.exp(-slope * X)))[0]
    assert f"x·sigmoid({slope:g}x)" == best.name
    assert best.gap < 1e-12


def test_what_is_no_function_is_not_taken_for_one():
    """The same values in another order, and a mixture of neighbours, are no function of x."""
    random = np.random.default_rng(1)
    assert not is_function(X, random.permutation(X.reshape(-1)).reshape(X.shape))
    assert not is_function(X, X @ random.normal(size=(40, 40)))


def test_an_unknown_function_is_described():
    """By its values at whole numbers."""
    y = X**3
    assert is_function(X, y)
    assert "f(1) ≈ 1" in describe(X, y)
