"""The frequencies of rotary positions, solved for one by one: scaled positions, and the rules that stretch the slow ones.

With a causal mask the first queries see small angles only, so that the search begins where no angle has gone round.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from isomorph.trace.diagnose.attention_fit import Aim, Three
from isomorph.trace.diagnose.attention_formula import Attention
from isomorph.trace.nouns import Array

FIRST_ROWS = (4, 8, 16, 64)
STEPS = 12
MOST_PAIRS = 64


def solve_rates(aim: Aim, given: Three, rule: Attention) -> tuple[Attention, float] | None:
    """(rule, error on all rows) with a factor for the frequency of each pair, from ever more rows; None where there is none."""
    if rule.rotary is None:
        return None
    rotary = rule.rotary
    pairs = (rotary.width or given[0].shape[2] // rule.heads) // 2
    length = aim.target.shape[1]
    if not 1 <= pairs <= MOST_PAIRS:
        return None

    def made(factors: Array) -> Attention:
        return replace(rule, rotary=replace(rotary, times=tuple(factors.tolist())))

    factors: Array = np.ones(pairs)
    for last in (*(rows for rows in FIRST_ROWS if rows < length), length):
        rows = np.unique(np.linspace(0, last - 1, 8).astype(int))
        found = _descend(aim, given, made, factors, rows)
        if found is None:
            return None
        factors = found
    return made(factors), aim.error(made(factors), given)


def _descend(aim: Aim, given: Three, made: Callable[[Array], Attention], factors: Array, rows: Array) -> Array | None:
    """Gauss and Newton, damped, on some rows."""

    def off(factors: Array) -> Array | None:
        difference = aim.difference(made(factors), given, rows=rows)
        return None if difference is None else difference.reshape(-1)

    here = off(factors)
    if here is None or not np.isfinite(here).all():
        return None
    damping = 1e-6
    for _ in range(STEPS):
        columns = []
        for pair in range(len(factors)):
            ahead = factors.copy()
            ahead[pair] += 1e-6
            moved = off(ahead)
            if moved is None:
                return None
            columns.append((moved - here) / 1e-6)
        slopes = np.stack(columns, axis=1)
        square, side = slopes.T @ slopes, slopes.T @ here
        for _ in range(8):
            change = -np.linalg.solve(square + damping * (np.trace(square) + 1e-300) * np.eye(len(square)), side)
            after = off(factors + change)
            if after is not None and float(after @ after) <= float(here @ here):
                break
            damping *= 10
        else:
            return factors
        factors, here, damping = factors + change, after, damping / 10
        if float(np.abs(change).max()) < 1e-14 or float(np.abs(here).max()) < 1e-15 * aim.top:
            break
    return factors


def rates_words(factors: tuple[float, ...]) -> str:
    """`rotary's positions are multiplied by 0.5`, or what each frequency is multiplied by."""
    if all(math.isclose(factor, factors[0], rel_tol=1e-4) for factor in factors):
        return f"rotary's positions are multiplied by {factors[0]:.6g}"
    shown = " ".join(f"{factor:.4g}" for factor in factors[:8]) + (" …" if len(factors) > 8 else "")
    return f"rotary's frequencies are scaled one by one, the reference's are not: by {shown}"
