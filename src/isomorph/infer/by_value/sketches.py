"""What the numbers of a tensor are like, whatever their order: its extremes, exactly, and its moments. One pass, bounded memory.

A map that keeps or turns the order of numbers (w + 1, -w, w * c, exp) takes the extremes to the extremes, after rounding too: the
32 least and the 32 greatest elements are a sharp test of such a map, and cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.runs import runs
from isomorph.operators.casting import to_f64
from isomorph.tensors import DType

Array = np.ndarray[Any, np.dtype[Any]]

EXTREMES = 32
"""So many of the least and of the greatest elements are kept."""
AT_ONCE = 1 << 14


@dataclass(frozen=True, eq=False)
class Sketch:
    """The finite numbers of a floating tensor, and how many are not finite.

    `lows`, `highs`: the least and the greatest, ascending, f64, `EXTREMES` of each or all. `moments`: the means of x, x², |x|, x³
    and x⁴ (each may be infinite in f64, or 0 where there is no finite element).
    """

    dtype: DType
    numel: int
    n_nan: int
    n_up: int
    n_down: int
    lows: Array
    highs: Array
    moments: tuple[float, float, float, float, float]

    @property
    def n_finite(self) -> int:
        return self.numel - self.n_nan - self.n_up - self.n_down

    @property
    def n_distinct(self) -> int:
        """How many different numbers there are among the extremes."""
        return len(np.unique(np.concatenate([self.lows, self.highs])))

    @property
    def low(self) -> float:
        return float(self.lows[0])

    @property
    def high(self) -> float:
        return float(self.highs[-1])

    @property
    def rms(self) -> float:
        """The root of the mean square."""
        return float(np.sqrt(self.moments[1]))

    @property
    def form(self) -> tuple[float, float, float, float]:
        """What scaling by a positive number leaves as it is: mean, mean size, skewness and fourth moment, each over the rms."""
        first, second, size, third, fourth = self.moments
        rms = np.float64(second) ** 0.5
        with np.errstate(all="ignore"):
            return float(first / rms), float(size / rms), float(third / rms**3), float(fourth / rms**4)


def sketch(checkpoint: Checkpoint, name: str, *, max_memory: int = 64 << 20) -> Sketch:
    """The sketch of a tensor of a floating dtype, read once."""
    return sketch_of(runs(checkpoint, name, max_memory=max_memory), checkpoint.manifest[name].dtype)


def sketch_of(parts: Iterable[Array], dtype: DType) -> Sketch:
    """The sketch of arrays of `dtype.bits` taken together, in whatever order."""
    numel = n_nan = n_up = n_down = 0
    lows = highs = np.empty(0, np.float64)
    sums = np.zeros(5, np.float64)
    for part in parts:
        flat = np.ascontiguousarray(part).reshape(-1).view(dtype.bits)
        for start in range(0, flat.size, AT_ONCE):
            values = to_f64(flat[start : start + AT_ONCE], dtype)
            numel += values.size
            fits = np.isfinite(values)
            if not fits.all():
                n_nan += int(np.count_nonzero(np.isnan(values)))
                n_up += int(np.count_nonzero(values == np.inf))
                n_down += int(np.count_nonzero(values == -np.inf))
                values = values[fits]
            lows = _least(values, lows)
            highs = -_least(-values, -highs[::-1])[::-1]
            sums += _powers(values)
    count = numel - n_nan - n_up - n_down
    first, second, size, third, fourth = (float(each) for each in (sums / max(count, 1)))
    return Sketch(dtype, numel, n_nan, n_up, n_down, lows, highs, (first, second, size, third, fourth))


def _least(values: Array, known: Array) -> Array:
    """The least of `values` and of those `known` before, ascending. Once there are enough, few of a tile are less than any."""
    if len(known) == EXTREMES:
        values = values[values < known[-1]]
    if values.size > EXTREMES:
        values = np.partition(values, EXTREMES)[:EXTREMES]
    return np.sort(np.concatenate([known, values]))[:EXTREMES]


def _powers(values: Array) -> Array:
    """Σx, Σx², Σ|x|, Σx³, Σx⁴. (Without np.dot: the threads of a BLAS cost more than they bring here.)"""
    with np.errstate(all="ignore"):
        squares = values * values
        sums = (values, squares, np.abs(values), squares * values, squares * squares)
        return np.array([float(each.sum()) for each in sums])
