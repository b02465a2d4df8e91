"""Moves and checks as lines of text, for digests: equal lines say equal things. Made for many: a plan may have a million moves."""

from __future__ import annotations

from collections.abc import Callable

from isomorph.plan.moves import Box, Check, Move
from isomorph.tensors import TensorSpec


def move_text(move: Move) -> str:
    """One line. Names cannot end it early: they are written as Python writes strings."""
    target, source = move.target, move.source
    if type(source) is Box and not move.operators:
        return (
            f"{target.tensor!r} {target.offset} {target.shape} {target.strides}"
            f" = {source.tensor!r} {source.offset} {source.shape} {source.strides}\n"
        )
    return f"{move}\n"


def check_text(check: Check) -> str:
    return f"{check}\n"


def spec_texts() -> Callable[[TensorSpec], str]:
    """`str` of specs, of which a checkpoint has few kinds."""
    known: dict[int, str] = {}  # by identity: readers give tensors of one kind one spec
    held: list[TensorSpec] = []  # so that an identity stays its own

    def text(spec: TensorSpec) -> str:
        found = known.get(id(spec))
        if found is None:
            found = known[id(spec)] = str(spec)
            held.append(spec)
        return found

    return text
