"""Rows of attention that see no key at all: a softmax of −inf alone gives NaN, where the reference gives numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from isomorph.trace.diagnose.attention_fit import Aim, Three
from isomorph.trace.diagnose.attention_formula import Attention, seen
from isomorph.trace.diagnose.attention_variants import Variant
from isomorph.trace.nouns import Array

SAYS = "rows whose keys are all hidden give NaN (a softmax of −inf alone), the reference gives numbers there"


def broken_rows(aim: Aim) -> Array | None:
    """[B T] True where the target has NaN; None where there is none."""
    bad = np.asarray(~np.isfinite(aim.target).all(axis=-1))
    return bad if bad.any() else None


def blind_rows(
    aim: Aim, rule: Attention, given: Three, others: Iterable[Variant], bad: Array, limit: float
) -> Iterator[tuple[Variant, float]]:
    """The rule, or a change of its mask, by which just those rows see nothing; all other rows must agree."""
    kept = ~bad if aim.kept is None else aim.kept & ~bad
    rest = replace(aim, target=np.where(bad[..., None], 0.0, aim.target), kept=kept)
    plain = Variant("mask-nan", SAYS, rule)
    changed = (replace(other, says=f"{other.says}; {SAYS}") for other in others if other.rule.mask != rule.mask)
    for variant in (plain, *changed):
        blind = _blind(variant.rule, given, aim.real, bad.shape)
        if blind is None or not np.array_equal(blind, bad):
            continue
        error = rest.error(variant.rule, given)
        if error <= limit:
            yield variant, error
            return


def _blind(rule: Attention, given: Three, real: Array | None, shape: tuple[int, ...]) -> Array | None:
    allowed = seen(rule.mask, np.arange(shape[1]), given[rule.roles[1]].shape[1], real)
    return None if allowed is None else np.broadcast_to(np.asarray(~allowed.any(axis=-1))[:, 0], shape)
