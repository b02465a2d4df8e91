"""Suspect -> Causes: hypotheses carried out; those that restore agreement are named. None does: "unknown", and the error's shape.

Each file holds one family of hypotheses, `hypotheses(scene) -> Iterator[Cause]`; `STEPS` lists them in the order they are tried,
the plainer first. A cause is accepted when what is left is within the suspect's tolerance. Weights that are not what the morph
makes, and whose right values restore agreement, are the whole answer. Of one step, causes that leave about as little are all named.

What the kinds mean: `kinds.KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from isomorph.trace.diagnose import (
    activation,
    attention,
    blocks,
    conv,
    embedding,
    halves,
    heads,
    images,
    inside,
    linear,
    norm,
    order,
    passed_by,
    pooling,
    precision,
    sums,
    tokens,
    weights,
)
from isomorph.trace.diagnose.kinds import KINDS
from isomorph.trace.diagnose.leaf import PARTS
from isomorph.trace.diagnose.shape import shape_of
from isomorph.trace.nouns import Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

__all__ = ["KINDS", "STEPS", "diagnose", "shape_of"]

STEPS: tuple[tuple[ModuleType, ...], ...] = (
    (weights,),
    (norm, linear, embedding, conv, images, blocks),
    (inside, halves),
    (activation, attention, sums, tokens, pooling, heads, order, precision),
    (passed_by,),
)
"""Files of this folder, in the order in which they are tried. What one step explains, the next is not asked about."""

TIES_WITHIN = 4.0
MOST_NAMED = 3
BROKEN = (ValueError, RuntimeError, LookupError, ArithmeticError)
"""What a hypothesis that does not fit the models may raise; it explains nothing then, and is told of when nothing else explains."""


def diagnose(scene: Scene) -> tuple[Cause, ...]:
    """What explains the suspect: the best cause and those that tie with it, or one of kind "unknown". Never empty."""
    tried: list[Cause] = []
    broken: list[str] = []
    for modules in STEPS:
        step = [cause for module in modules for cause in _carried_out(module, scene, broken)]
        accepted = [cause for cause in step if cause.residual <= max(scene.tolerance, cause.floor)]
        if accepted:
            return named(accepted)
        tried += step
    measure = scene.measure_of(scene.suspect.at)
    return (unknown(tried, scene.tolerance, broken, None if measure is None else measure.problem),)


def _carried_out(module: ModuleType, scene: Scene, broken: list[str]) -> Iterator[Cause]:
    hypotheses: Callable[[Scene], Iterator[Cause]] = module.hypotheses
    try:
        yield from hypotheses(scene)
    except BROKEN as error:
        broken.append(f"{module.__name__.rpartition('.')[2]} ({type(error).__name__}: {error})")


def named(accepted: list[Cause]) -> tuple[Cause, ...]:
    """The best of those that were accepted (in the order in which they were tried) and the others that leave as little.

    What is below the floor is as good as zero. Of one kind, only the best is named.
    """
    least = min(max(cause.residual, cause.floor) for cause in accepted)
    tied = [cause for cause in accepted if max(cause.residual, cause.floor) <= TIES_WITHIN * least]
    tied.sort(key=lambda cause: not cause.repairs)
    kinds: dict[str, Cause] = {}
    for cause in tied:
        kinds.setdefault(cause.kind, cause)
    return tuple(kinds.values())[:MOST_NAMED]


def unknown(tried: list[Cause], tolerance: float, broken: list[str], problem: str | None = None) -> Cause:
    """Nothing explains it: what comes closest is said, with what it leaves; and NaN or Inf, where that is the `problem`."""
    says = "unknown: none of the known causes explains it"
    if problem in ("NaN", "Inf"):
        says = f"gives {problem} where the reference gives numbers; why is {says}"
    best = min(tried, key=lambda cause: cause.residual, default=None)
    if best is not None and best.residual < float("inf"):
        says += f" (the closest: {best.says}; it leaves {best.residual:.0e}, {tolerance:.0e} is allowed)"
    if broken:
        says += f"; could not be tried: {', '.join(broken)}"
    return Cause("unknown", says, best.residual if best is not None else float("inf"), tolerance / PARTS)
