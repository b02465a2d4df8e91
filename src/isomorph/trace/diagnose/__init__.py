"""Suspect -> Causes: hypotheses carried out; those that restore agreement are named. None does: "unknown", and the error's shape.

Each file holds one family of hypotheses, `hypotheses(scene) -> Iterator[Cause]`; `STEPS` lists them in the order they are tried,
the plainer first. A cause is accepted when what is left is within the suspect's tolerance. Weights that are not what the morph
makes, and whose right values restore agreement, are the whole answer. Of one step, causes that leave about as little are all named.

What a cause's `kind` means:

| kind | the candidate, against the reference |
|---|---|
| weight-transposed, weight-reshaped | the weight's axes are exchanged; or only its elements read in the other order |
| parts-permuted, parts-interleaved | the parts of a fused weight (q k v) in another order; or alternating head by head |
| rotary-order | rows of a head as pairs where halves are meant, or the other way round |
| heads-permuted, rows-permuted, interleaved | blocks of rows, single rows, or a product of axes in another order |
| weight-scaled, weight-zero, weight-rounded | a factor; all zeros; values that went through a narrower dtype |
| weight-not-loaded, weight-not-finite, weight-other | left at its initial values; NaN or Inf; values that nothing explains |
| weight-of-another, weights-swapped, weight-shape | another tensor's values; two exchanged; of another shape |
| weight-unused | the module's output does not change with its weight |
| tied-stale | a tied copy that was not updated |
| layers-lexicographic, layers-off-by-one, layers-shifted, layers-permuted | a stack of layers loaded in another order |
| bias-missing, bias-doubled, bias-negated, bias-scaled, bias-extra, bias-…-permuted | what was done to a bias |
| norm-eps, norm-eps-place | another eps; added outside the root |
| norm-one-plus-weight, norm-weight-missing, norm-weight-extra, norm-weight-twice, norm-affine-missing | the norm's gain |
| norm-mean, norm-variance, norm-axis, norm-statistics | mean (not) subtracted; n - 1; other axes; own or stored statistics |
| embedding-offset, embedding-scale, embedding-padding-row, embedding-clamped | a look-up |
| kernel-transposed, kernel-flipped, channels-reversed, patch-order | a convolution or patch embedding |
| image-flipped, image-transposed, image-scaled | what goes into one |
| residual-inside, residual-missing, activation-inside, activation-missing, output-scaled | a leaf that does more or less |
| unknown | nothing explains it |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from isomorph.trace.diagnose.leaf import PARTS
from isomorph.trace.diagnose.shape import shape_of
from isomorph.trace.nouns import Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

__all__ = ["STEPS", "diagnose", "shape_of"]

STEPS = (
    ("weights",),
    ("norm", "linear", "embedding", "conv", "images", "blocks"),
    ("inside",),
    ("activation", "attention", "sums", "pooling", "heads", "order", "precision"),
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
    for names in STEPS:
        step = [cause for name in names for cause in _carried_out(name, scene, broken)]
        accepted = [cause for cause in step if cause.residual <= max(scene.tolerance, cause.floor)]
        if accepted:
            return named(accepted)
        tried += step
    return (unknown(tried, scene.tolerance, broken),)


def _carried_out(name: str, scene: Scene, broken: list[str]) -> Iterator[Cause]:
    where = f"{__name__}.{name}"
    if find_spec(where) is None:
        return
    hypotheses: Callable[[Scene], Iterator[Cause]] = import_module(where).hypotheses
    try:
        yield from hypotheses(scene)
    except BROKEN as error:
        broken.append(f"{name} ({type(error).__name__}: {error})")


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


def unknown(tried: list[Cause], tolerance: float, broken: list[str]) -> Cause:
    """Nothing explains it: what comes closest is said, with what it leaves."""
    says = "unknown: none of the known causes explains it"
    best = min(tried, key=lambda cause: cause.residual, default=None)
    if best is not None and best.residual < float("inf"):
        says += f" (the closest: {best.says}; it leaves {best.residual:.0e}, {tolerance:.0e} is allowed)"
    if broken:
        says += f"; could not be tried: {', '.join(broken)}"
    return Cause("unknown", says, best.residual if best is not None else float("inf"), tolerance / PARTS)
