"""What a normalisation computes, found from what went in and what came out. Pure numpy; nothing is known of the code.

A law is y = gain · (x − mean) / sqrt(variance + eps) + bias, or a near relative of it. `fit_laws` tries the relatives and solves
each for eps: in every group s = ⟨u, y − bias⟩ / ⟨u, u⟩ with u = gain · (x − mean) is 1 / sqrt(variance + eps).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Literal

import numpy as np

from isomorph.trace.nouns import Array

Gain = Literal["weight", "1 + weight", "none", "weight twice"]
Over = Literal["the last axis", "all axes but the first", "all axes but the last", "all axes", "another axis", "stored"]

MOST_GROUPS = 48
TIES_WITHIN = 4.0
MOST_ELEMENTS = 1 << 19


@dataclass(frozen=True)
class NormLaw:
    """One relative. `over`: which axes share a mean and a variance ("stored": neither is computed, the module's own are taken).

    `axis` counts the axis of "another axis". `eps_place` "variance": sqrt(variance + eps); "deviation": sqrt(variance) + eps.
    `bias` is how many times the bias is added.
    """

    over: Over = "the last axis"
    axis: int = -1
    numerator_is_centred: bool = True
    variance_is_centred: bool = True
    is_unbiased: bool = False
    gain: Gain = "weight"
    bias: int = 1
    eps_place: Literal["variance", "deviation"] = "variance"
    eps: float = 0.0

    def differences(self, other: NormLaw) -> list[str]:
        """The names of the fields that differ."""
        return [one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)]


@dataclass(frozen=True)
class FittedLaw:
    """A law and the error that it leaves: the largest absolute difference over the largest absolute value."""

    law: NormLaw
    residual: float


@dataclass(frozen=True)
class NormData:
    """What a normalisation is fitted to: `x` and `y` float64 with the channels last; `weight`, `bias` [channels] or None.

    `stored` are a batch norm's own mean and variance.
    """

    x: Array
    y: Array
    weight: Array | None = None
    bias: Array | None = None
    stored: tuple[Array, Array] | None = None


def carry_out(law: NormLaw, data: NormData) -> Array:
    """What the law makes of x."""
    numerator, variance, _ = _moments(law, data)
    return _finished(law, data, numerator, variance)


def error_between(found: Array, wanted: Array) -> float:
    """The largest absolute difference over the largest absolute value wanted; infinite where something is not finite."""
    if found.shape != wanted.shape or not wanted.size:
        return math.inf
    size = float(np.max(np.abs(wanted)))
    step = float(np.max(np.abs(found - wanted)))
    if not math.isfinite(size) or not math.isfinite(step):
        return math.inf
    return step / size if size else (0.0 if step == 0 else math.inf)


def fit_laws(data: NormData, tolerance: float, eps_known: Sequence[float] = ()) -> list[FittedLaw]:
    """The laws that leave no more than `tolerance` and about as little as the best, the plainest first; else the best of all.

    `eps_known` are tried before one is solved for: where the data cannot tell two values apart, the known one is meant.
    """
    best: FittedLaw | None = None
    for overs in OVERS:
        found: list[tuple[int, float, FittedLaw]] = []
        for over in overs:
            for law in _relatives(data, over):
                fitted = _solved(law, data, tolerance, eps_known)
                if fitted is None:
                    continue
                if best is None or fitted.residual < best.residual:
                    best = fitted
                if fitted.residual <= tolerance:
                    found.append((_plainness(fitted.law), fitted.residual, fitted))
        if found:
            enough = max(TIES_WITHIN * min(residual for _, residual, _ in found), tolerance / 16)
            return [fitted for _, left, fitted in sorted(found, key=lambda one: one[:2]) if left <= enough]
    return [] if best is None else [best]


OVERS: tuple[tuple[Over, ...], ...] = (
    ("stored",),
    ("the last axis",),
    ("another axis", "all axes but the first", "all axes but the last", "all axes"),
)
"""Tried in this order; what fits first is the answer."""


def _plainness(law: NormLaw) -> int:
    return len(law.differences(NormLaw(over=law.over, axis=law.axis, eps=law.eps)))


def _relatives(data: NormData, over: Over) -> Iterator[NormLaw]:
    if over == "stored":
        if data.stored is not None:
            yield from (NormLaw(over="stored", bias=bias) for bias in _biases(data))
        return
    axes = range(data.x.ndim - 1) if over == "another axis" else (-1,)
    if over != "the last axis" and data.x.size > MOST_ELEMENTS:
        return
    gains: tuple[Gain, ...] = ("none",) if data.weight is None else ("weight", "1 + weight", "none", "weight twice")
    centred = ((True, True), (False, False), (False, True), (True, False))
    for axis, (numerator, variance), gain, bias in product(axes, centred, gains, _biases(data)):
        for unbiased in (False, True) if variance else (False,):
            for place in ("variance", "deviation"):
                yield NormLaw(over, axis, numerator, variance, unbiased, gain, bias, place)


def _biases(data: NormData) -> tuple[int, ...]:
    return (0,) if data.bias is None else (1, 0, 2)


def _shared_axes(law: NormLaw, rank: int) -> tuple[int, ...]:
    every = tuple(range(rank))
    if law.over == "the last axis":
        return (rank - 1,)
    if law.over == "another axis":
        return (law.axis,)
    if law.over == "all axes but the first":
        return every[1:]
    return every[:-1] if law.over == "all axes but the last" else every


def _moments(law: NormLaw, data: NormData) -> tuple[Array, Array, tuple[int, ...]]:
    """The numerator, the variance, and the axes over which one value of eps is seen."""
    x = data.x
    if law.over == "stored":
        assert data.stored is not None
        mean, variance = data.stored
        return x - mean, np.broadcast_to(variance, (1,) * (x.ndim - 1) + variance.shape), tuple(range(x.ndim - 1))
    axes = _shared_axes(law, x.ndim)
    mean = x.mean(axis=axes, keepdims=True)
    about = x - mean if law.variance_is_centred else x
    count = math.prod(x.shape[axis] for axis in axes) - (1 if law.is_unbiased else 0)
    variance = np.square(about).sum(axis=axes, keepdims=True) / max(count, 1)
    return (x - mean if law.numerator_is_centred else x), variance, axes


def _gain(law: NormLaw, data: NormData) -> Array | float:
    if data.weight is None or law.gain == "none":
        return 1.0
    if law.gain == "1 + weight":
        return 1.0 + data.weight
    return data.weight * data.weight if law.gain == "weight twice" else data.weight


def _bias(law: NormLaw, data: NormData) -> Array | float:
    return 0.0 if data.bias is None else law.bias * data.bias


@np.errstate(all="ignore")
def _finished(law: NormLaw, data: NormData, numerator: Array, variance: Array) -> Array:
    below = np.sqrt(variance + law.eps) if law.eps_place == "variance" else np.sqrt(variance) + law.eps
    found: Array = numerator / below * _gain(law, data) + _bias(law, data)
    return found


@np.errstate(all="ignore")
def _solved(law: NormLaw, data: NormData, tolerance: float, eps_known: Sequence[float]) -> FittedLaw | None:
    """The law with the eps that fits best, and what it leaves; a plain number is taken where it fits as well."""
    part = _sampled(data) if law.over == "the last axis" else data
    numerator, variance, axes = _moments(law, part)
    u, t = numerator * _gain(law, part), part.y - _bias(law, part)
    slope = (u * t).sum(axis=axes, keepdims=True) / np.square(u).sum(axis=axes, keepdims=True)
    each = slope**-2 - variance if law.eps_place == "variance" else 1 / slope - np.sqrt(variance)
    weight = np.where(np.isfinite(each) & (slope > 0), slope**4, 0.0)
    if not float(weight.sum()) > 0:
        return None
    eps = max(0.0, float((np.where(weight > 0, each, 0.0) * weight).sum() / weight.sum()))
    first = error_between(_finished(replace(law, eps=eps), part, numerator, variance), part.y)
    if first > max(1e-2, 4 * tolerance):
        return FittedLaw(replace(law, eps=eps), first)
    enough = max(2 * first, tolerance / 16)
    for known in (*eps_known, *_plain_numbers(eps)):
        if error_between(_finished(replace(law, eps=known), part, numerator, variance), part.y) <= enough:
            eps = known
            break
    whole = replace(law, eps=eps)
    return FittedLaw(whole, error_between(carry_out(whole, data), data.y))


def _plain_numbers(eps: float) -> list[float]:
    if not eps > 0:
        return []
    return [float(f"{eps:.0e}"), float(f"{eps:.1e}"), 10.0 ** round(math.log10(eps))]


def _sampled(data: NormData) -> NormData:
    """Of many groups the most telling: those whose values are smallest (eps shows there), and some of the others."""
    width = data.x.shape[-1]
    x, y = data.x.reshape(-1, width), data.y.reshape(-1, width)
    if len(x) > MOST_GROUPS:
        order = np.argsort(np.square(x - x.mean(axis=1, keepdims=True)).sum(axis=1))
        step = max(1, len(order) // (MOST_GROUPS // 2))
        keep = np.unique(np.concatenate([order[: MOST_GROUPS // 2], order[::step]]))
        x, y = x[keep], y[keep]
    return replace(data, x=x, y=y)
