"""Plans made by hand for the engine's tests: no language, no planner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from isomorph.language.tree import Op
from isomorph.plan.moves import Box, Check, Move
from isomorph.plan.plan import Plan, Target
from isomorph.tensors import DTYPES, Manifest, TensorSpec, spec

Array = np.ndarray[Any, Any]
BF16 = Op("cast", source="float", target="bf16", rounding=True)


def strides_of(shape: Sequence[int]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))[: len(shape)]


def whole(name: str, shape: Sequence[int]) -> Box:
    return Box(name, 0, tuple(shape), strides_of(shape))


def plan_of(
    source: Manifest, targets: Mapping[str, str | TensorSpec], moves: Sequence[Move], checks: Sequence[Check] = ()
) -> Plan:
    specs = {name: spec(given) if isinstance(given, str) else given for name, given in targets.items()}
    made = {name: Target(name, found, "exact", -1, -1) for name, found in specs.items()}
    return Plan(source, made, tuple(moves), tuple(checks), (), ())


def identity(source: Manifest) -> Plan:
    moves = [Move(whole(name, found.shape), whole(name, found.shape)) for name, found in source.items()]
    return plan_of(source, dict(source), moves)


def transposed(source: Manifest) -> Plan:
    """Every matrix turned; the rest as it is."""
    targets: dict[str, TensorSpec] = {}
    moves = []
    for name, found in source.items():
        shape = found.shape
        if len(shape) == 2:
            rows, columns = shape
            targets[name] = replace(found, shape=(columns, rows))
            moves.append(Move(whole(name, (columns, rows)), Box(name, 0, (columns, rows), (1, columns))))
        else:
            targets[name] = found
            moves.append(Move(whole(name, shape), whole(name, shape)))
    return plan_of(source, targets, moves)


def rounded(source: Manifest) -> Plan:
    """Every floating tensor to bf16."""
    targets = {
        name: replace(found, dtype=DTYPES["bf16"]) if found.dtype.is_float else found for name, found in source.items()
    }
    moves = [Move(whole(name, found.shape), whole(name, found.shape), (BF16,)) for name, found in source.items()]
    return plan_of(source, targets, moves)


def naive(plan: Plan, arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """What a plan without operators makes, element by element."""
    made = {}
    for name, target in plan.targets.items():
        flat = np.zeros(target.spec.numel, target.spec.dtype.numpy)
        for move in plan.moves:
            if move.target.tensor != name:
                continue
            assert isinstance(move.source, Box)
            source = arrays[move.source.tensor].reshape(-1)
            for index in np.ndindex(*move.target.shape):
                at = move.target.offset + sum(i * step for i, step in zip(index, move.target.strides, strict=True))
                flat[at] = source[
                    move.source.offset + sum(i * step for i, step in zip(index, move.source.strides, strict=True))
                ]
        made[name] = flat.tobytes()
    return made
