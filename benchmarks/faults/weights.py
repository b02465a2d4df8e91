"""Faults in the weights: each changes one tensor of the state that was ported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from benchmarks.faults.families import Array
from benchmarks.faults.planted import State

Change = Callable[[State, State], None]


def changed(name: str, change: Callable[[Array], Array]) -> Change:
    """One tensor, replaced by what `change` makes of it, in its own dtype and shape."""

    def plant(state: State, fresh: State) -> None:
        state[name] = np.ascontiguousarray(change(state[name]).reshape(state[name].shape), state[name].dtype)

    return plant


def left_as_made(name: str) -> Change:
    """A parameter that the port did not fill."""

    def plant(state: State, fresh: State) -> None:
        state[name] = fresh[name]

    return plant


def taken_from(name: str, other: str) -> Change:
    """The values of another tensor of the same shape."""

    def plant(state: State, fresh: State) -> None:
        state[name] = state[other].copy()

    return plant


def rounded(dtype: Any, part: str = "") -> Change:
    """All tensors whose names hold `part`, through a narrower dtype and back."""

    def plant(state: State, fresh: State) -> None:
        for name in state:
            if part in name and state[name].dtype.kind == "f":
                state[name] = state[name].astype(dtype).astype(state[name].dtype)

    return plant


def rolled_heads(heads: int) -> Callable[[Array], Array]:
    """The rows of a projection into heads, the heads moved on by one."""
    return lambda rows: np.roll(rows.reshape(heads, -1), 1, axis=0)


def third(number: int, change: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Change the number-th of the three blocks of a fused matrix or bias."""

    def plant(rows: Array) -> Array:
        parts = np.split(rows, 3)
        parts[number] = change(parts[number]).reshape(parts[number].shape)
        return np.concatenate(parts)

    return plant
