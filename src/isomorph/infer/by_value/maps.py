"""The maps of numbers that conversions apply, and which tensors may be one another's image: from sketches alone, many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isomorph.infer.by_value.sketches import Sketch
from isomorph.language.tree import Op
from isomorph.operators.numbers import FLOATS
from isomorph.tensors import DType

Array = np.ndarray[Any, np.dtype[Any]]

TINY = 1e-30
"""Numbers smaller than this may have been rounded by more than a step."""
STEPS = 2
"""A map and the casts about it round an element by fewer steps of the coarser dtype than this."""


@dataclass(frozen=True)
class Map:
    """A map of numbers: operators on one floating dtype, whether it turns their order, and its words."""

    operators: tuple[Op, ...]
    words: str
    turns: bool = False


NEG, EXP, LOG = Op("neg"), Op("exp"), Op("log")
FIXED = (
    Map((Op("add", number="1"),), "w + 1"),
    Map((Op("add", number="-1"),), "w - 1"),
    Map((NEG,), "-w", turns=True),
    Map((EXP,), "exp(w)"),
    Map((EXP, NEG), "-exp(w)", turns=True),
    Map((LOG,), "log(w)"),
    Map((NEG, LOG), "log(-w)", turns=True),
    Map((NEG, Op("add", number="1")), "1 - w", turns=True),
)


class Group:
    """Tensors with as many elements as each other, as arrays: to be compared with one sketch all at once."""

    def __init__(self, names: Sequence[str], sketches: Sequence[Sketch]) -> None:
        self.names = names
        self.bits = np.array([FLOATS[one.dtype.name].fraction_bits for one in sketches])
        self.lows = np.array([one.low for one in sketches])
        self.highs = np.array([one.high for one in sketches])
        self.forms = np.array([one.form for one in sketches])

    def alike(self, one: Sketch) -> list[str]:
        """The names of those that some map may make of `one`, by the least, the greatest and the form: cheap, never strict."""
        step = 0.5 ** np.minimum(self.bits, FLOATS[one.dtype.name].fraction_bits)
        fits = np.zeros(len(self.names), np.bool_)
        with np.errstate(all="ignore"):
            for each in FIXED:
                low, high, worth = _ends(each.operators, one)
                margin = STEPS * worth * step
                fits |= (np.abs(low - self.lows) <= margin) & (np.abs(high - self.highs) <= margin)
            for sign in (1.0, -1.0):
                fits |= self._scaled(one, sign, step)
        return [name for name, fit in zip(self.names, fits.tolist(), strict=True) if fit]

    def _scaled(self, one: Sketch, sign: float, step: Array) -> Array:
        """Which may be `one` times a number of that sign. Rounding averages out in the means; else the largest counts."""
        form = np.array(one.form) * [sign, 1, sign, 1]
        largest = max(abs(one.low), abs(one.high)) / one.rms if one.rms else 0.0
        averaged = step * (8 / math.sqrt(one.n_finite) + largest**2 / one.n_finite) + step**2 + 1e-9
        heavy = step * 8 * (1 + form[3])
        near = np.abs(self.forms - form) <= np.stack([averaged, averaged, heavy, heavy], axis=1)
        low, high = (one.low, one.high) if sign > 0 else (-one.high, -one.low)
        crossed = np.abs(self.highs * low - self.lows * high) <= 2 * STEPS * step * np.abs(self.highs * low)
        tiny = np.minimum(np.abs(self.lows), np.abs(self.highs)) < TINY
        return np.asarray(near.all(axis=1) & (crossed | tiny))


def _ends(operators: Sequence[Op], one: Sketch) -> tuple[float, float, float]:
    """Roughly the least and the greatest number that the operators make, and what one step of a dtype is at most worth there."""
    ends = [one.low, one.high]
    worth = max(abs(one.low), abs(one.high))
    for op in operators:
        if op.name == "add":
            ends = [end + float(op.number or 0) for end in ends]
        elif op.name == "neg":
            ends = [-end for end in ends]
        elif op.name == "exp":
            ends = [math.exp(end) if end < 700 else math.inf for end in ends]
            worth *= max(ends)
        elif op.name == "log":
            ends = [math.log(end) if end > 0 else math.nan for end in ends]
            worth = 1.0
        worth = max(worth, *map(abs, ends))
    return min(ends), max(ends), worth


def near_ends(operators: Sequence[Op], mine: Sketch, its: Sketch) -> bool:
    low, high, worth = _ends(operators, mine)
    margin = STEPS * worth * step_of(mine.dtype, its.dtype)
    return abs(low - its.low) <= margin and abs(high - its.high) <= margin


def step_of(source: DType, target: DType) -> float:
    """The relative distance of two numbers, in the coarser of the two dtypes."""
    return 2.0 ** -min(FLOATS[source.name].fraction_bits, FLOATS[target.name].fraction_bits)
