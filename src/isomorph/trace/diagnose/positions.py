"""Whole numbers that go into tables: ids of positions, types and tokens that are not the reference's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from isomorph.trace.diagnose.stretch import Goal, Stretch
from isomorph.trace.nouns import Array, Cause


def ids_differ(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    """The candidate's ids as a rule of the reference's, or of the padding."""
    right, wrong = goal.reference, goal.candidate
    if right.shape != wrong.shape or right.size == 0:
        return
    is_type = any(word in stretch.at.reference.module.rpartition(".")[2].lower() for word in ("type", "segment"))
    kept = stretch.scene.kept(right.shape)
    step = (wrong - right)[np.broadcast_to(kept, right.shape)] if kept is not None else (wrong - right).reshape(-1)
    if step.size and (step == step[0]).all() and not is_type:
        yield stretch.cause("position-offset", f"positions are shifted by {step[0]:.0f}", 0.0)
        return
    for says, kind, made in rules(right, stretch.padding):
        if stretch.gap(made, wrong) <= stretch.limit:
            yield stretch.cause("token-type" if is_type else kind, says, stretch.gap(made, wrong))
            return


def rules(right: Array, padding: Array | None) -> Iterator[tuple[str, str, Array]]:
    """(words, slug, ids) of what may stand in their place."""
    length = right.shape[-1]
    counted = np.broadcast_to(np.arange(length, dtype=np.float64), right.shape)
    yield "ids are all 0", "ids-constant", np.zeros_like(right)
    yield "ids are all 1", "ids-constant", np.ones_like(right)
    yield "ids are exchanged: 0 for 1 and 1 for 0", "token-type", 1.0 - right
    start = float(right.reshape(-1)[0]) if right.size else 0.0
    yield "ids are in reverse order", "position-order", right[..., ::-1]
    yield "ids are shifted right by one position", "ids-shifted", np.concatenate([right[..., :1], right[..., :-1]], -1)
    yield "ids are shifted left by one position", "ids-shifted", np.concatenate([right[..., 1:], right[..., -1:]], -1)
    offsets = (0, 1, 2, start)
    for offset in dict.fromkeys(offsets):
        yield (
            f"positions count padding too, from {offset:.0f} on; the reference counts real tokens",
            "position-padding",
            counted + offset,
        )
    if padding is not None and right.shape[-2:] == padding.shape:
        real = np.cumsum(padding, axis=1).astype(np.float64)
        for offset in (-1, 0, 1):
            for times in (padding.astype(np.float64), np.ones(padding.shape)):
                words = f"positions count real tokens only, from {offset + 1} on; the reference counts padding too"
                yield words, "position-padding", np.broadcast_to((real + offset) * times, right.shape)
