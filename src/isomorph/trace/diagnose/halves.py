"""A leaf that computes in half precision inside a finer run: what it adds up lies on the grid of the narrower dtype.

The product is rounded as the narrower dtype would, and compared. Sums in another order differ by steps of that dtype, which is the
floor of this cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from isomorph.tensors import dtype
from isomorph.trace.diagnose.leaf import Leaf, Result, leaf_of
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

STEPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
SHARE = 0.98
"""Of the elements that must lie on the grid; of the reference's at most half may."""


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """The output, or what is left of it without its bias, is rounded to half precision."""
    leaf = leaf_of(scene)
    if leaf is None or not leaf.given or scene.dtype not in ("float64", "float32"):
        return
    grain = 8 * float(np.finfo(scene.dtype).eps)
    for name, step in STEPS.items():
        worst, where = 0.0, ""
        for result in leaf.given:
            found = _rounded(leaf, result, name, grain)
            if found is None:
                break
            gap, where = found
            worst = max(worst, gap)
        else:
            says = f"{where} is computed in {name}"
            yield Cause("half-accumulation", says, worst, max(step, leaf.tolerance))


def _rounded(leaf: Leaf, result: Result, name: str, grain: float) -> tuple[float, str] | None:
    """(the error that is left, what lies on the grid); None when nothing does."""
    for where, added in _added(leaf, result):
        wanted, found = result.reference - added, result.candidate - added
        near = grain * max(
            float(np.max(np.abs(result.candidate), initial=0.0)), float(np.max(np.abs(added), initial=0.0))
        )
        if _on_grid(found, name, near) >= SHARE and _on_grid(wanted, name, near) <= 0.5:
            return leaf.scene.error(narrowed(wanted, name) + added, result.candidate), where
    return None


def _added(leaf: Leaf, result: Result) -> Iterator[tuple[str, Array]]:
    """Nothing, then every vector of the reference's module along the last axis."""
    yield "its output", np.zeros(1)
    channels = result.event.link.channels
    for value in leaf.own_of_reference(result.event).values():
        if value.ndim == 1:
            line = value if channels is None else value[channels.reference % value.size]
            if line.size == result.reference.shape[-1]:
                yield "the product before its bias", line


def narrowed(values: Array, name: str) -> Array:
    """Rounded to a narrower dtype, as float64."""
    with np.errstate(all="ignore"):
        found: Array = values.astype(dtype(name).numpy).astype(np.float64)
    return found


def _on_grid(values: Array, name: str, near: float) -> float:
    some = values[np.abs(values) > 64 * near]
    return float((np.abs(narrowed(some, name) - some) <= near).mean()) if some.size else 0.0
