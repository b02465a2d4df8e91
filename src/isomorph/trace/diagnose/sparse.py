"""One tensor as a linear combination of as few others as possible. Pure numpy, float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from isomorph.trace.diagnose.pointwise import gap_of, sample_of
from isomorph.trace.nouns import Array

MOST_TERMS = 4
MOST_SETS = 20_000


@dataclass(frozen=True)
class Combination:
    """Σ coefficients[i] · tensors[terms[i]]; `gap` is the largest difference over the largest value of what it explains."""

    terms: tuple[int, ...]
    coefficients: tuple[float, ...]
    gap: float


def combine(terms: Sequence[Array], coefficients: Sequence[float]) -> Array:
    """The sum itself."""
    total = np.zeros(np.broadcast_shapes(*(term.shape for term in terms)))
    for term, coefficient in zip(terms, coefficients, strict=True):
        total = total + coefficient * term
    return total


def solve(target: Array, terms: Sequence[Array]) -> Combination:
    """The coefficients of these terms that come closest to the target, and how close; all are of the target's shape."""
    places = sample_of(target.size)
    columns = np.stack([np.broadcast_to(term, target.shape).reshape(-1)[places] for term in terms], axis=1)
    found = np.linalg.lstsq(columns, target.reshape(-1)[places], rcond=None)[0]
    near: Array = np.asarray(np.round(found))
    for coefficients in (near, np.asarray(found)):
        numbers = tuple(float(number) for number in coefficients)
        gap = gap_of(np.broadcast_to(combine(terms, numbers), target.shape), target)
        if coefficients is near and np.abs(near - found).max() < 1e-3:
            other = gap_of(np.broadcast_to(combine(terms, tuple(map(float, found))), target.shape), target)
            if gap <= max(4 * other, 1e-13):
                break
    return Combination(tuple(range(len(terms))), numbers, gap)


def explain(
    target: Array, candidates: Sequence[Array], tolerance: float, *, most: int = MOST_TERMS, ones: bool = False
) -> list[Combination]:
    """The combinations of fewest terms that reach the target within `tolerance`; empty where none does.

    Sets are tried by size; all of the first size that succeeds are given, the closest first. With `ones`, coefficients other than
    whole numbers up to 2 are left out.
    """
    places = sample_of(target.size)
    aim = target.reshape(-1)[places]
    scale = float(np.abs(aim).max()) or 1.0
    columns = np.stack([np.broadcast_to(one, target.shape).reshape(-1)[places] for one in candidates], axis=1) / scale
    aim = aim / scale
    gram, toward, square = columns.T @ columns, columns.T @ aim, float(aim @ aim)
    for size in range(1, min(most, len(candidates)) + 1):
        sets = np.array(list(combinations(range(len(candidates)), size)))
        if len(sets) > MOST_SETS:
            return []
        left = _left_over(gram, toward, square, sets)
        likely = sets[left <= max(1e-7, (4 * tolerance) ** 2) * len(places)][:256]
        found = []
        for chosen in likely:
            solved = solve(target, [candidates[i] for i in chosen])
            if solved.gap > tolerance or any(abs(number) < 1e-6 for number in solved.coefficients):
                continue
            if ones and any(number not in (1.0, -1.0, 2.0) for number in solved.coefficients):
                continue
            found.append(Combination(tuple(int(i) for i in chosen), solved.coefficients, solved.gap))
        if found:
            return sorted(found, key=lambda one: one.gap)
    return []


def _left_over(gram: Array, toward: Array, square: float, sets: Array) -> Array:
    """The squared distance that each set's best combination leaves; to about 1e-8 of the target's."""
    matrices = gram[sets[:, :, None], sets[:, None, :]]
    ridge = 1e-12 * np.maximum(np.trace(matrices, axis1=1, axis2=2), 1e-30)
    matrices = matrices + ridge[:, None, None] * np.eye(sets.shape[1])
    sides = toward[sets]
    best = np.linalg.solve(matrices, sides[..., None])[..., 0]
    return np.asarray(square - (best * sides).sum(axis=1))
