"""A leaf that does more, or less, than its own: an activation, a residual or a factor inside; or that does not use its weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.leaf import Leaf, leaf_of
from isomorph.trace.diagnose.matrices import number
from isomorph.trace.diagnose.pointwise import FUNCTIONS
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

SAMPLE = 512


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Of one output: what turns the reference's into the candidate's, or the other way round."""
    leaf = leaf_of(scene)
    if leaf is None or not leaf.given:
        return
    if len(leaf.outs) == 1:
        wanted, found = leaf.y_reference, leaf.y_candidate
        yield from _factor(leaf, wanted, found)
        yield from _residual(leaf, wanted, found)
        yield from _activation(leaf, wanted, found)
    yield from _unused(leaf)


def _factor(leaf: Leaf, wanted: Array, found: Array) -> Iterator[Cause]:
    size = float(np.vdot(wanted, wanted))
    factor = float(np.vdot(wanted, found)) / size if size else 0.0
    if np.isfinite(factor) and factor and abs(factor - 1) > leaf.tolerance:
        residual = leaf.scene.error(wanted, found / factor)
        yield leaf.cause("output-scaled", f"output is scaled by {number(factor, max(leaf.tolerance, 1e-6))}", residual)


def _residual(leaf: Leaf, wanted: Array, found: Array) -> Iterator[Cause]:
    x = leaf.x
    if x is None or x.shape != wanted.shape or x.dtype.kind != "f":
        return
    yield leaf.cause(
        "residual-inside", "its input is added to its output (a residual inside)", leaf.scene.error(wanted, found - x)
    )
    yield leaf.cause(
        "residual-missing",
        "the reference adds its input to its output, it does not",
        leaf.scene.error(wanted, found + x),
    )


def _activation(leaf: Leaf, wanted: Array, found: Array) -> Iterator[Cause]:
    step = max(1, wanted.size // SAMPLE)
    few = np.s_[::step]
    for one, other, kind, says in (
        (wanted, found, "activation-inside", "its output goes through {}, the reference's does not"),
        (found, wanted, "activation-missing", "the reference's output goes through {}, its does not"),
    ):
        for name, function in FUNCTIONS.items():
            if name == "no activation":
                continue
            with np.errstate(all="ignore"):
                part = function(one.reshape(-1)[few])
            gap = np.abs(part - other.reshape(-1)[few])
            if not np.isfinite(gap).all() or gap.max() > 1e-3 * np.abs(other).max():
                continue
            with np.errstate(all="ignore"):
                whole = function(one)
            yield leaf.cause(kind, says.format(name), leaf.scene.error(other, whole))


def _unused(leaf: Leaf) -> Iterator[Cause]:
    """With other values in its weight, the module gives the same."""
    for name, one in leaf.own.items():
        if one.ndim < 2:
            continue
        altered = leaf.attempt({name: one[::-1] + float(np.max(np.abs(one), initial=1.0))})
        if altered and all(np.array_equal(a.candidate, b.candidate) for a, b in zip(altered, leaf.given, strict=True)):
            last = name.rpartition(".")[2]
            yield leaf.cause("weight-unused", f"{last} is not used: its output does not change with it", 0.0)
