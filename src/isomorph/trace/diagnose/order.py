"""Things run at another place: a norm before instead of after, a norm left out, halves side by side, layers in another order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose import norms
from isomorph.trace.diagnose.layers import layers
from isomorph.trace.diagnose.sparse import explain, solve
from isomorph.trace.diagnose.stretch import Goal, Stretch, name_of
from isomorph.trace.nouns import Array, Call, Cause
from isomorph.trace.timeline import places

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_BASES = 6


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Layers in another order first; then norms."""
    stretch = Stretch(scene)
    found = list(layers(stretch))
    yield from found
    if any(cause.residual <= stretch.limit for cause in found):
        return
    for goal in stretch.goals:
        if goal.finish is None and goal.reference.ndim >= 2:
            causes = list(moved_norms(stretch, goal))
            yield from causes
            if not causes:
                yield from late_terms(stretch, goal)


def moved_norms(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    """The candidate's tensor is a norm of a tensor of before, or what goes into a norm of the reference."""
    shape = goal.reference.shape
    bases = [
        (atom.name, atom.candidate, atom.reference)
        for atom in stretch.atoms
        if atom.reference.shape == shape and atom.moment < goal.moment
    ][:MOST_BASES]
    own = norms.norm_that_gives(stretch, goal.reference)
    if own is not None:
        for name, values, reference in bases:
            gap = stretch.gap(values, goal.candidate)
            if gap <= stretch.limit:
                yield _without(stretch, own, name, reference, gap)
                return
    sums = [
        (f"{one} + {two}", values + other, reference + right)
        for i, (one, values, reference) in enumerate(bases[:5])
        for two, other, right in bases[:i]
    ]
    for call in norms.near(stretch, shape[-1]):
        if not norms.may_be_output(stretch, call, goal.candidate):
            continue
        for name, values, _ in [("", goal.reference, goal.reference), *bases, *sums]:
            made = stretch.replay(call, values)
            gap = float("inf") if made is None or made.shape != shape else stretch.gap(made, goal.candidate)
            if gap <= stretch.limit:
                yield stretch.cause(*_said(stretch, call.module, name, own, shape), gap)
                return


def _without(stretch: Stretch, own: str, name: str, reference: Array, gap: float) -> Cause:
    """The norm is left out, or another one's output goes on in its place."""
    other = norms.norm_that_gives(stretch, reference)
    here = norms.short(own)
    if other is not None:
        words = f"what goes on is {norms.short(other)}'s output, {here} is passed by: the two halves of the block run side by side"
        return stretch.cause("parallel-block", words, gap)
    calls = norms.norm_calls(stretch, reference.shape[-1])
    is_last = bool(calls) and calls[-1].module == own
    kind = "final-norm-missing" if is_last else "norm-missing"
    words = "the final norm is missing" if is_last else f"the norm {here} is missing"
    return stretch.cause(kind, f"{words}: what is given on is {name}", gap)


def _said(stretch: Stretch, module: str, name: str, own: str | None, shape: tuple[int, ...]) -> tuple[str, str]:
    """(slug, words) where the candidate's tensor is this norm of a tensor."""
    norm = norms.short(module)
    if own == module and not name:
        return "norm-twice", f"{norm} is applied twice"
    if own == module:
        return "norm-order", f"{norm} is applied to {name}, in the reference to another tensor"
    style = norms.style_of(stretch, shape)
    if style == "post" and "+" not in name:
        return (
            "norm-order",
            f"{norm} runs before its sublayer (pre-LN), in the reference after the residual sum (post-LN)",
        )
    if own is not None:
        return "norm-swapped", f"{norm} is applied here, the reference applies {norms.short(own)}"
    if style == "pre":
        return (
            "norm-order",
            f"{norm} runs after the residual sum (post-LN), in the reference before its sublayer (pre-LN)",
        )
    return "norm-order", f"{norm} is applied to {name or 'this tensor'}, the reference does not apply it here"


def late_terms(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    """The candidate's tensor is made of one that the reference computes only later: the two run in another order."""
    shape = goal.candidate.shape
    if not np.isfinite(goal.candidate).all():
        return
    when = places(stretch.scene.seen_candidate)
    site = stretch.at.candidate
    mine = when.get((Call(site.module, site.call), site.border), len(when))
    late = [(site, values) for site, values, moment in norms.later(stretch, shape) if moment < mine]
    before = [atom for atom in stretch.atoms if atom.reference.shape == shape and atom.moment < goal.moment][
        :MOST_BASES
    ]
    if not late:
        return
    tensors = [atom.candidate for atom in before] + [values for _, values in late]
    names = [atom.name for atom in before] + [name_of(site) for site, _ in late]
    for found in explain(goal.candidate, tensors, stretch.limit, most=2, ones=True):
        used = [i for i in found.terms if i >= len(before)]
        if not used:
            continue
        norm = norms.norm_that_takes(stretch, goal.reference)
        made = " + ".join(names[i] for i in found.terms)
        if norm is None:
            words = f"it is {made}, which the reference computes only later"
            yield stretch.cause("run-order", words, found.gap)
        elif len(found.terms) > 1:
            style = norms.style_of(stretch, shape)
            where = "in the reference before its sublayer (pre-LN)" if style == "pre" else "in the reference earlier"
            words = f"{norms.short(norm)} runs after the residual sum (post-LN), {where}: its input is {made}"
            yield stretch.cause("norm-order", words, found.gap)
        else:
            yield stretch.cause(
                "norm-order", f"{norms.short(norm)} runs later than in the reference: its input is {made}", found.gap
            )
        return


def norm_before_sum(stretch: Stretch, goal: Goal, residual: Array) -> str | None:
    """The norm that the candidate applies to the sublayer's output alone, before it adds the residual; None where it does not.

    Seen in what the candidate makes of it: a later tensor is the residual and the norm's output.
    """
    norm = norms.norm_that_takes(stretch, goal.reference)
    if norm is None:
        return None
    found = norms.later(stretch, goal.candidate.shape)
    outs = [values for site, values, _ in found if site.border == "out" and site.module == stretch.at.candidate.module]
    for out in outs:
        for _, values, _ in found:
            solved = solve(values, [residual, out])
            if solved.gap <= stretch.limit and all(abs(number - 1) < 1e-6 for number in solved.coefficients):
                return norms.short(norm)
    return None
