"""What matrix and bias a module applies along its channels: found by giving it one channel at a time, on either side.

Nothing is assumed of the code or of how its weight is stored. What is no such function is found out on the captured input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isomorph.trace.diagnose.norm_law import error_between
from isomorph.trace.nouns import Array

MOST_ENTRIES = 1 << 26
MOST_RUNS = 64
Function = Callable[[Array], Sequence[Array] | None]
"""Inputs in the reference's layout -> outputs."""


@dataclass(frozen=True)
class Affine:
    """y = x matrixᵀ + bias, per output: matrix [out in], bias [out], all outputs below each other; `residual` on the real input."""

    matrix: Array
    bias: Array
    residual: float

    def __call__(self, x: Array) -> Array:
        """What it makes of x [... in]: [... out]."""
        found: Array = x @ self.matrix.T + self.bias
        return found


def affine_of(function: Function, x: Array, outputs: Sequence[Array]) -> Affine | None:
    """The affine map along the last axis that `function` is; None where it is too large, cannot be run, or mixes positions.

    `x` is the captured input [... in], `outputs` what the function gives for it, each [... out].
    """
    width = x.shape[-1]
    positions = x.size // width if width else 0
    out = sum(one.shape[-1] for one in outputs if one.ndim)
    if not positions or any(one.shape[:-1] != x.shape[:-1] for one in outputs) or out * width > MOST_ENTRIES:
        return None
    runs = -(-width // positions)
    if runs > MOST_RUNS:
        return None
    zero = _joined(function(np.zeros_like(x)), positions)
    if zero is None or zero.shape[1] != out:
        return None
    bias = zero[0]
    columns = []
    for first in range(0, width, positions):
        probe = np.zeros((positions, width))
        count = min(positions, width - first)
        probe[np.arange(count), first + np.arange(count)] = 1.0
        given = _joined(function(probe.reshape(x.shape)), positions)
        if given is None:
            return None
        columns.append(given[:count] - bias)
    matrix = np.concatenate(columns).T
    wanted = _joined(outputs, positions)
    assert wanted is not None
    with np.errstate(all="ignore"):
        residual = error_between(x.reshape(positions, width) @ matrix.T + bias, wanted)
    return Affine(matrix, bias, residual)


def _joined(outputs: Sequence[Array] | None, positions: int) -> Array | None:
    """[positions, all channels]."""
    if not outputs or any(not one.ndim or one.size != positions * one.shape[-1] for one in outputs):
        return None
    return np.concatenate([one.astype(np.float64).reshape(positions, one.shape[-1]) for one in outputs], axis=1)
