"""Plan + Checkpoint -> the target tensors as arrays, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from isomorph.engine.checks import carry_out
from isomorph.engine.complaints import refused_value
from isomorph.engine.evaluate import evaluate
from isomorph.engine.kernels import place
from isomorph.formats.base import Checkpoint
from isomorph.operators.base import Changes, ElementError
from isomorph.plan.moves import Move
from isomorph.plan.plan import Plan, Target

Array = np.ndarray[Any, Any]


def arrays(plan: Plan, source: Checkpoint, *, changes: dict[str, Changes] | None = None) -> Iterator[tuple[str, Array]]:
    """Every target tensor, in the order of `plan.targets`, as an array of `dtype.numpy` of its own.

    The plan's checks are carried out before the first one. Raises CheckError; SourceChanged at the end where a file changed.
    `changes` is filled with what rounding casts changed, by target.
    """
    carry_out(plan, source)
    groups = {name: list(moves) for name, moves in groupby(plan.moves, key=lambda move: move.target.tensor)}
    for name, target in plan.targets.items():
        counted = Changes()
        made = [make(plan, target, groups.get(name, ()), source, counted)]
        if changes is not None and counted.elements:
            changes[name] = counted
        yield (
            name,
            made.pop().view(target.spec.dtype.numpy),
        )  # nothing here holds it while it is used, or the next is made
    source.check_unchanged()


def make(plan: Plan, target: Target, moves: Sequence[Move], source: Checkpoint, changes: Changes) -> Array:
    """One whole target tensor, as bits."""
    flat = np.empty(target.spec.numel, target.spec.dtype.bits)
    for move in moves:
        fill_from(plan, move, source, flat, 0, changes)
    return flat.reshape(target.spec.shape)


def fill_from(plan: Plan, move: Move, source: Checkpoint, flat: Array, start: int, changes: Changes) -> None:
    """Carry out `move` into `flat`, which holds the target's flat elements from `start` on. Raises CheckError."""
    if 0 in move.target.shape:
        return
    box = move.target
    first = box.offset - start
    straight = flat[first : first + box.numel].reshape(box.shape) if move.operators and box.is_run else None
    try:
        made, _ = evaluate(move.source, move.operators, source, changes, out=straight)
    except ElementError as error:
        raise refused_value(plan, move.source, move.target, error) from None
    if made is not straight:
        place(made, flat, first, box.strides)
