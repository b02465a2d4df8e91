"""Sums: the residual stream, embeddings, class tokens and positions. What the reference adds, what the candidate adds instead."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.order import norm_before_sum
from isomorph.trace.diagnose.placements import layouts
from isomorph.trace.diagnose.positions import ids_differ
from isomorph.trace.diagnose.sparse import Combination, combine, explain, solve
from isomorph.trace.diagnose.stretch import Goal, Stretch
from isomorph.trace.diagnose.terms import LEVELS, Term, terms_of
from isomorph.trace.nouns import Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_READINGS = 4


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """What is missing from a sum, doubled, scaled, shifted, or taken from elsewhere."""
    stretch = Stretch(scene)
    for goal in stretch.goals:
        if goal.finish is not None:
            return
        raw = scene.value_R(scene.suspect.at.reference)
        if raw is not None and raw.dtype.kind in "iu":
            yield from ids_differ(stretch, goal)
            return
        yield from _explained(stretch, goal)


def _explained(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    """The first reading of the reference's sum, of which the candidate's is a change; else the closest that was met."""
    closest: list[Cause] = []
    for level in LEVELS:
        terms, readings = sum_of(stretch, goal, level)
        for reading in readings[:MOST_READINGS]:
            stretch.noise = 4 * reading.gap
            causes = list(differences(stretch, goal, terms, reading))
            if any(cause.residual <= stretch.limit for cause in causes):
                yield from causes
                return
            closest += causes
    yield from closest[:1]


def sum_of(stretch: Stretch, goal: Goal, level: str = "all") -> tuple[list[Term], list[Combination]]:
    """The reference's tensor as a sum of few terms: with whole coefficients if it can be."""
    terms = terms_of(stretch, goal, level)
    if not terms:
        return terms, []
    tensors = [term.reference for term in terms]
    found = explain(goal.reference, tensors, stretch.limit, ones=True)
    return terms, found or explain(goal.reference, tensors, stretch.limit, most=3)


def differences(stretch: Stretch, goal: Goal, terms: Sequence[Term], reading: Combination) -> Iterator[Cause]:
    """The candidate's sum: the same terms with other coefficients; else one laid elsewhere or replaced; else one more."""
    used = [terms[i] for i in reading.terms]
    shape = goal.reference.shape
    best: Cause | None = None
    solved = _solve(stretch, goal, used)
    if solved is not None:
        says = [_coefficient(used, i, number, right, shape) for i, (number, right) in _changed(solved, reading)]
        if says:
            kind = _kind(used, solved, reading)
            words = "; ".join(text for text in says if text)
            if kind == "residual-dropped" and solved.gap <= stretch.limit:
                kind, words = _or_norm(stretch, goal, used, words)
            cause = stretch.cause(kind, words, solved.gap)
            if solved.gap <= stretch.limit:
                yield cause
                return
            best = cause
    for find in (_placed_elsewhere, _replaced, _added):
        found = list(find(stretch, goal, terms, used, reading))
        within = [cause for cause in found if cause.residual <= stretch.limit]
        if within:
            yield from within
            return
    if best is not None and best.residual < 0.5 * stretch.scene.suspect.error:
        yield best


def _or_norm(stretch: Stretch, goal: Goal, used: Sequence[Term], words: str) -> tuple[str, str]:
    """A residual that is missing from a norm's input may be added after the norm."""
    residual = min(used, key=lambda term: term.moment)
    norm = norm_before_sum(stretch, goal, residual.candidate)
    if norm is None:
        return "residual-dropped", words
    return "norm-order", f"{norm} runs before the residual is added, in the reference after it (post-LN)"


def _solve(stretch: Stretch, goal: Goal, used: Sequence[Term]) -> Combination | None:
    """The candidate's coefficients of these terms, at the positions that are compared."""
    kept = stretch.scene.kept(goal.candidate.shape)
    target, tensors = goal.candidate, [np.broadcast_to(term.candidate, goal.candidate.shape) for term in used]
    if not np.isfinite(target).all():
        return None
    if kept is not None:
        where = np.broadcast_to(kept, target.shape)
        target, tensors = target[where], [tensor[where] for tensor in tensors]
    return solve(target, tensors)


def _changed(solved: Combination, reading: Combination) -> Iterator[tuple[int, tuple[float, float]]]:
    for i, (number, right) in enumerate(zip(solved.coefficients, reading.coefficients, strict=True)):
        if not math.isclose(number, right, rel_tol=1e-6, abs_tol=1e-9):
            yield i, (number, right)


def _is_residual(used: Sequence[Term], i: int) -> bool:
    """In a sum of two tensors, the earlier one that went round the sublayer."""
    tensors = [term for term in used if term.role == "tensor"]
    if len(used) != 2 or len(tensors) != 2 or any(term.is_embedding for term in tensors):
        return False
    return used[i].moment == min(term.moment for term in tensors)


def called(used: Sequence[Term], i: int) -> str:
    """How a sentence calls a term."""
    term = used[i]
    if term.role == "class token":
        return "the class token"
    if _is_residual(used, i):
        return "residual"
    name = term.name.removesuffix("'s output").removesuffix("'s input")
    words = name.lower()
    if term.is_position:
        return f"position embedding ({name})" if "pos" not in words else f"{name} (positions)"
    return term.name if term.name.endswith(("output", "input")) else name


def _coefficient(used: Sequence[Term], i: int, number: float, right: float, shape: tuple[int, ...]) -> str:
    """`residual is missing: the input is fc2's output alone`."""
    who = called(used, i)
    if abs(number) < 1e-9:
        others = [called(used, j) for j in range(len(used)) if j != i]
        alone = f": what is left is {others[0]} alone" if len(others) == 1 else ""
        return f"{who} is missing{alone}"
    ratio = number / right
    if math.isclose(ratio, 2.0, rel_tol=1e-6):
        return f"{who} is added twice" if len(used) > 1 else f"{who} is doubled"
    if math.isclose(ratio, -1.0, rel_tol=1e-6):
        return f"{who} is subtracted"
    return f"{who} is multiplied by {_number(ratio, shape[-1])}" + (
        "" if right == 1 else f", the reference's by {right:.6g}"
    )


def _number(ratio: float, width: int) -> str:
    for value, words in (
        (math.sqrt(width), f"sqrt({width})"),
        (1 / math.sqrt(width), f"1/sqrt({width})"),
        (1 / width, f"1/{width}"),
        (float(width), f"{width}, the width"),
        (math.sqrt(2), "sqrt(2)"),
        (1 / math.sqrt(2), "1/sqrt(2)"),
    ):
        if math.isclose(ratio, value, rel_tol=1e-6):
            return f"{ratio:.6g} = {words}" if "/" in words or "sqrt" in words else words
    return f"{ratio:.6g}"


def _kind(used: Sequence[Term], solved: Combination, reading: Combination) -> str:
    """The slug for what changed most: a missing term before a scaled one."""
    i, number = min(((i, number) for i, (number, _) in _changed(solved, reading)), key=lambda one: abs(one[1]))
    is_missing = abs(number) < 1e-9
    is_sum_of_two = len(used) == 2 and not any(term.is_embedding or term.role != "tensor" for term in used)
    if used[i].role == "class token":
        return "class-token"
    if used[i].is_position:
        return "position-missing" if is_missing else "position-scaled"
    if used[i].is_type:
        return "token-type-missing" if is_missing else "token-type"
    if used[i].is_embedding:
        return "embedding-missing" if is_missing else "embedding-scale"
    if is_sum_of_two:
        if is_missing:
            return "residual-dropped" if _is_residual(used, i) else "parallel-block"
        return "residual-doubled" if math.isclose(number, 2.0, rel_tol=1e-6) else "residual-scaled"
    if len(used) == 1:
        return "head-scale" if not is_missing else "input-missing"
    return "term-missing" if is_missing else "term-scaled"


def _placed_elsewhere(
    stretch: Stretch, goal: Goal, terms: Sequence[Term], used: Sequence[Term], reading: Combination
) -> Iterator[Cause]:
    """Tables shifted by rows; the class token at the end; positions laid over the patches only."""
    shape = goal.reference.shape
    for others, says, kind in layouts(stretch, used, shape):
        made = combine([term.candidate for term in others], reading.coefficients[: len(others)])
        gap = stretch.gap(made, goal.candidate)
        if gap <= stretch.limit:
            yield stretch.cause(kind, says, gap)


def _replaced(
    stretch: Stretch, goal: Goal, terms: Sequence[Term], used: Sequence[Term], reading: Combination
) -> Iterator[Cause]:
    """One term taken from elsewhere: `residual is norm1's output, the reference's is embeddings' output`."""
    if len(used) < 2:
        return
    shape = goal.candidate.shape
    for i in range(len(used)):
        for other in terms:
            if any(other is term for term in used):
                continue
            tensors = [*used[:i], other, *used[i + 1 :]]
            solved = _solve(stretch, goal, tensors)
            if solved is None or solved.gap > stretch.limit or abs(solved.coefficients[i]) < 1e-9:
                continue
            says = f"{called(used, i)} is taken from {other.name}, the reference's from {used[i].name}"
            extra = [_coefficient(tensors, j, number, right, shape) for j, (number, right) in _changed(solved, reading)]
            kind = "residual-source" if _is_residual(used, i) else "input-source"
            yield stretch.cause(kind, "; ".join([says, *extra]), solved.gap)


def _added(
    stretch: Stretch, goal: Goal, terms: Sequence[Term], used: Sequence[Term], reading: Combination
) -> Iterator[Cause]:
    """One term more than the reference adds."""
    shape = goal.candidate.shape
    for other in (*terms, *vectors(stretch, shape)):
        if any(other is term for term in used):
            continue
        solved = _solve(stretch, goal, [*used, other])
        if solved is None or solved.gap > stretch.limit or abs(solved.coefficients[-1]) < 1e-9:
            continue
        if len(used) == 1 and abs(solved.coefficients[0]) < 1e-9:
            continue  # another tensor altogether
        times = solved.coefficients[-1]
        often = "" if math.isclose(times, 1.0, rel_tol=1e-6) else f" {times:.6g} times"
        says = f"{other.name} is added{often}, the reference does not add it here"
        if math.isclose(times, -1.0, rel_tol=1e-6):
            says = f"{other.name} is missing: it is not in the sum"
        changed = Combination(reading.terms, solved.coefficients[:-1], solved.gap)
        extra = [_coefficient(used, j, number, right, shape) for j, (number, right) in _changed(changed, reading)]
        kind = "term-added"
        if other.role == "vector" and "bias" in other.name:
            kind = {-1.0: "bias-missing", 1.0: "bias-doubled"}.get(round(times, 6), kind)
            if (
                math.isclose(solved.coefficients[0] + times, 1.0, rel_tol=1e-6)
                and len(used) == 1
                and kind == "term-added"
            ):
                number = _number(solved.coefficients[0], shape[-1])
                kind, says, extra = "head-scale", f"what {other.name} is added to is multiplied by {number}", []
        elif math.isclose(times, -1.0, rel_tol=1e-6):
            kind = (
                "position-missing"
                if other.is_position
                else "class-token"
                if other.role == "class token"
                else "term-missing"
            )
        yield stretch.cause(kind, "; ".join([says, *extra]), solved.gap)
        return


def vectors(stretch: Stretch, shape: tuple[int, ...]) -> Iterator[Term]:
    """Biases and other vectors of modules that were called just before."""
    modules = stretch.modules
    near = {atom.site.module for atom in stretch.atoms[:16] if atom.site is not None}
    for module in near:
        for name in modules[module].own:
            values = np.asarray(stretch.scene.state_reference.get(name, 0.0))
            if values.shape == shape[-1:] and values.dtype.kind not in "iub":
                wide = values.astype(np.float64)
                yield Term(name, wide, wide, "vector")
