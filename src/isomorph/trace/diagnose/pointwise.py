"""Activation functions by name, and what a function is when only its values are seen. Pure numpy, float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isomorph.trace.nouns import Array

Function = Callable[[Array], Array]
SAMPLE = 2048


def erf(x: Array) -> Array:
    """The error function, to the last bits of float64."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(np.asarray(x, np.float64)), np.float64)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * np.asarray(x, np.float64))))


def tanh_gelu(x: Array, inner: float = math.sqrt(2 / math.pi), cubic: float = 0.044715) -> Array:
    """0.5 x (1 + tanh(inner (x + cubic x³)))."""
    return np.asarray(0.5 * x * (1 + np.tanh(inner * (x + cubic * x**3))))


def leaky_relu(slope: float) -> Function:
    """x where positive, slope · x below."""
    return lambda x: np.where(x > 0, x, slope * x)


FUNCTIONS: dict[str, Function] = {
    "GELU erf": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "GELU tanh": tanh_gelu,
    "quick GELU (x·sigmoid(1.702x))": lambda x: x * sigmoid(1.702 * x),
    "ReLU": lambda x: np.maximum(x, 0.0),
    "SiLU (x·sigmoid(x))": lambda x: x * sigmoid(x),
    "no activation": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "squared ReLU": lambda x: np.maximum(x, 0.0) ** 2,
    "leaky ReLU (0.01)": leaky_relu(0.01),
    "leaky ReLU (0.1)": leaky_relu(0.1),
    "leaky ReLU (0.2)": leaky_relu(0.2),
    "ELU": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "SELU": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0.0))),
    "softplus": lambda x: np.logaddexp(x, 0.0),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
    "ReLU6": lambda x: np.clip(x, 0.0, 6.0),
    "hard swish": lambda x: x * np.clip(x + 3, 0.0, 6.0) / 6,
    "hard sigmoid": lambda x: np.clip(x / 6 + 0.5, 0.0, 1.0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sine": np.sin,
    "GELU tanh with 0.7978845608": lambda x: tanh_gelu(x, 0.7978845608),
    "GELU tanh with 0.797885": lambda x: tanh_gelu(x, 0.797885),
    "GELU tanh without its cubic term": lambda x: tanh_gelu(x, cubic=0.0),
    "GELU tanh without sqrt(2/pi)": lambda x: tanh_gelu(x, 1.0),
    "GELU erf without its sqrt(2)": lambda x: 0.5 * x * (1 + erf(x)),
    "the normal distribution's sum alone (GELU without x)": lambda x: 0.5 * (1 + erf(x / math.sqrt(2))),
    "GELU erf twice": lambda x: FUNCTIONS["GELU erf"](FUNCTIONS["GELU erf"](x)),
    "ReLU twice its value": lambda x: 2 * np.maximum(x, 0.0),
}
"""Names as sentences say them, the likely first."""

PLAIN_TWICE = ("GELU tanh", "quick GELU (x·sigmoid(1.702x))", "SiLU (x·sigmoid(x))", "tanh", "sigmoid")


@dataclass(frozen=True)
class Known:
    """A function of the catalogue, or one fitted to it; `gap` is the largest difference over the largest value."""

    name: str
    function: Function
    gap: float


def gap_of(found: Array, expected: Array, scale: float | None = None) -> float:
    """The largest absolute difference over the largest absolute value expected; inf where there is no number."""
    if found.shape != expected.shape or expected.size == 0:
        return math.inf
    top = scale if scale is not None else float(np.max(np.abs(expected)))
    with np.errstate(invalid="ignore", over="ignore"):
        gap = float(np.max(np.abs(found - expected)))
    if math.isnan(gap):
        return math.inf
    return gap / top if top > 0 else (0.0 if gap == 0 else math.inf)


def sample_of(size: int) -> Array:
    """Places of a flat array, spread evenly and the same each time."""
    if size <= SAMPLE:
        return np.arange(size)
    return np.unique(np.random.default_rng(size).integers(0, size, SAMPLE))


def identify(x: Array, y: Array) -> list[Known]:
    """The functions f of the catalogue with y = f(x), the closest first; also y = x·sigmoid(c·x) with its c solved for."""
    places = sample_of(x.size)
    xs, ys = x.reshape(-1)[places], y.reshape(-1)[places]
    scale = float(np.max(np.abs(y))) if y.size else 1.0
    if not is_function(xs, ys):
        return []
    found = [Known(name, function, gap_of(function(xs), ys, scale)) for name, function in FUNCTIONS.items()]
    found += [
        Known(f"{name}, twice", _twice(FUNCTIONS[name]), gap_of(_twice(FUNCTIONS[name])(xs), ys, scale))
        for name in PLAIN_TWICE
    ]
    slope = _sigmoid_slope(xs, ys)
    if slope is not None and abs(slope) > 1e-6:
        fitted = _swish(slope)
        found.append(Known(f"x·sigmoid({slope:.6g}x)", fitted, gap_of(fitted(xs), ys, scale)))
    leak = _leak(xs, ys)
    if leak is not None:
        found.append(Known(f"leaky ReLU ({leak:.6g})", leaky_relu(leak), gap_of(leaky_relu(leak)(xs), ys, scale)))
    cap = _cap(xs, ys)
    if cap is not None:
        found.append(Known(f"a soft cap at {cap:.6g} (c·tanh(x/c))", _capped(cap), gap_of(_capped(cap)(xs), ys, scale)))
    order = {name: rank for rank, name in enumerate(FUNCTIONS)}
    return sorted(found, key=lambda known: (known.gap, order.get(known.name, len(order))))


def _twice(function: Function) -> Function:
    return lambda x: function(function(x))


def _swish(slope: float) -> Function:
    return lambda x: x * sigmoid(slope * x)


@np.errstate(all="ignore")
def _sigmoid_slope(x: Array, y: Array) -> float | None:
    """c of y = x·sigmoid(c·x): the logit of y / x over x, where that is well conditioned."""
    share = y / x
    usable = (np.abs(x) > 0.1) & (share > 0.02) & (share < 0.98)
    if np.count_nonzero(usable) < 8:
        return None
    slopes = np.log(share[usable] / (1 - share[usable])) / x[usable]
    return float(np.median(slopes))


def _capped(cap: float) -> Function:
    return lambda x: cap * np.tanh(x / cap)


def _cap(x: Array, y: Array) -> float | None:
    """c of y = c·tanh(x / c), by halving, at the largest x."""
    at = int(np.argmax(np.abs(x)))
    wide, low = abs(float(x[at])), abs(float(y[at]))
    if not 0 < low < wide * (1 - 1e-12) or x[at] * y[at] < 0:
        return None
    small, large = math.log(low), math.log(wide) + 20
    for _ in range(100):
        middle = (small + large) / 2
        cap = math.exp(middle)
        small, large = (middle, large) if cap * math.tanh(wide / cap) < low else (small, middle)
    return math.exp((small + large) / 2)


@np.errstate(all="ignore")
def _leak(x: Array, y: Array) -> float | None:
    below = x < 0
    if np.count_nonzero(below) < 8:
        return None
    return float(np.median(y[below] / x[below]))


def is_function(x: Array, y: Array, tolerance: float = 1e-3) -> bool:
    """True when y looks like a smooth function of x, entry by entry: neighbours in x have neighbours in y.

    Compared with y in another order: the sum of steps along sorted x is far below that of unsorted ones.
    """
    places = sample_of(x.size)
    xs, ys = x.reshape(-1)[places], y.reshape(-1)[places]
    if len(xs) < 32 or not np.isfinite(ys).all():
        return False
    spread = float(np.ptp(ys))
    if spread == 0:
        return False
    order = np.argsort(xs, kind="stable")
    gaps = np.diff(xs[order])
    steps = np.abs(np.diff(ys[order]))
    allowed = 8 * gaps / max(float(np.ptp(xs)), 1e-300) + tolerance
    return bool((steps / spread <= allowed).mean() > 0.98)


def describe(x: Array, y: Array) -> str:
    """A few values of an unknown function: `f(-2) ≈ -0.04, f(-1) ≈ -0.16, …`."""
    places = sample_of(x.size)
    xs, ys = x.reshape(-1)[places], y.reshape(-1)[places]
    order = np.argsort(xs)
    points = [point for point in (-2.0, -1.0, 0.0, 1.0, 2.0) if xs.min() <= point <= xs.max()]
    if not points:
        points = [float(np.median(xs))]
    return ", ".join(f"f({point:g}) ≈ {np.interp(point, xs[order], ys[order]):.4g}" for point in points)
