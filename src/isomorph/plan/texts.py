"""Moves, checks and specs as texts, for digests: equal lines say equal things. Made for many: a plan may have a million moves."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from isomorph.plan.boxes import Shape
from isomorph.plan.moves import Box, Check, Move
from isomorph.tensors import TensorSpec, by_identity


def move_text(move: Move) -> str:
    """One line. Names cannot end it early: they are written as Python writes strings."""
    target, source = move.target, move.source
    if type(source) is Box and not move.operators:
        return (
            f"{target.tensor!r} {_place(target.offset, target.shape, target.strides)}"
            f" = {source.tensor!r} {_place(source.offset, source.shape, source.strides)}\n"
        )
    return f"{move}\n"


@lru_cache(maxsize=1 << 16)
def _place(offset: int, shape: Shape, strides: Shape) -> str:
    return f"{offset} {shape} {strides}"


def check_text(check: Check) -> str:
    return f"{check}\n"


def spec_texts(specs: Iterable[TensorSpec]) -> dict[int, str]:
    """`str` of specs by their `id`, as long as the specs are held."""
    return {identity: str(spec) for identity, spec in by_identity(specs).items()}
