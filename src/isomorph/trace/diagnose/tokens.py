"""A sequence that is one or two tokens shorter than the reference's: a class token that is not put before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.compare import error_of
from isomorph.trace.diagnose.stretch import Stretch, own_parameters
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST = 2
ORDINALS = ("none", "one", "two")


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """The candidate's tokens are the reference's without the first, or the last, ones; perhaps at other positions."""
    right, wrong = scene.value_R(scene.at.reference), scene.seen_candidate.values.get(scene.at.candidate)
    if right is None or wrong is None or right.ndim != 3 or wrong.ndim != 3 or scene.at.link.channels is not None:
        return
    short = right.shape[1] - wrong.shape[1]
    if not 1 <= short <= MOST or (right.shape[0], right.shape[2]) != (wrong.shape[0], wrong.shape[2]):
        return
    stretch = Stretch(scene)
    reference, candidate = right.astype(np.float64), wrong.astype(np.float64)
    if not np.isfinite(candidate).all():
        return
    for first, where in ((short, "first"), (0, "last")):
        kept = reference[:, first : first + candidate.shape[1]]
        count = "the class token is missing" if (first, short) == (1, 1) else f"the {where} {ORDINALS[short]} missing"
        says = count if short == 1 and first else f"{short} token{'s' if short > 1 else ''} fewer: {count}"
        yield stretch.cause("class-token", says, error_of(kept, candidate, None))
        for name, row, moved in _elsewhere(scene, kept, first):
            words = f"{says}; positions ({name}) begin with row {row}, the reference's there with row {first}"
            yield stretch.cause("class-token", words, error_of(moved, candidate, None))


def _elsewhere(scene: Scene, kept: Array, first: int) -> Iterator[tuple[str, int, Array]]:
    """The same tokens with other rows of a table of positions."""
    length = kept.shape[1]
    for name, values in own_parameters(scene).items():
        table = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values[:, None]
        if table.shape[1] != kept.shape[2] or len(table) <= length:
            continue
        for row in range(min(len(table) - length + 1, MOST + 1)):
            if row != first and first + length <= len(table):
                yield name.rpartition(".")[2], row, kept - table[first : first + length] + table[row : row + length]
