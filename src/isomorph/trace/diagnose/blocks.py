"""Weights used inside a module that shows nothing of itself (nn.MultiheadAttention, raw parameters): read otherwise, or left out.

Each reading is written into the candidate's weights and the candidate run again; what leaves something out is done to the
reference instead, and must then agree with the candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.leaf import PARTS
from isomorph.trace.diagnose.orders import Part, say_order
from isomorph.trace.diagnose.weights import parts_of, relative
from isomorph.trace.naming import is_inside
from isomorph.trace.nouns import Array, Cause
from isomorph.trace.pairing import paired
from isomorph.trace.protocol import Side

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_NAMES = 16
MOST_RUNS = 48
State = dict[str, Array]


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Until one restores agreement."""
    names = hidden(scene)
    if not names or len(names) > MOST_NAMES or not is_comparable(scene):
        return
    runs = 0
    trial = Trial(scene.candidate.copy(scene.dtype))
    for kind, says, state in readings(scene, names):
        runs += 1
        residual = with_candidate(scene, trial, state)
        yield Cause(kind, says, residual, scene.tolerance / PARTS, repairs=True)
        if residual <= scene.tolerance or runs >= MOST_RUNS:
            return
    trial = Trial(scene.reference.copy(scene.dtype))
    sources = list(dict.fromkeys(source for name in names for source in scene.bridge.sources(name)))
    for kind, says, state in omissions(scene, sources):
        runs += 1
        residual = with_reference(scene, trial, state)
        yield Cause(kind, says, residual, scene.tolerance / PARTS)
        if residual <= scene.tolerance or runs >= MOST_RUNS:
            return


def hidden(scene: Scene) -> list[str]:
    """The candidate's weights that no aligned module shows, in and below the suspect; all of an opaque block."""
    node = scene.suspect.at.node
    if node is not None and node.is_opaque:
        return list(dict.fromkeys(name for _, name in node.parameters if name in scene.actual))
    if scene.suspect.kind != "stretch":
        return []
    shown = {name for one in scene.alignment.nodes if one.kind == "leaf" for _, name in one.parameters}
    below = scene.suspect.candidate
    return [name for name in scene.expected if name in scene.actual and name not in shown and is_inside(name, below)]


def readings(scene: Scene, names: list[str]) -> Iterator[tuple[str, str, State]]:
    """Parts of fused weights in every other order; squares transposed, whole and part by part."""
    values = {name: np.asarray(scene.actual[name], np.float64) for name in names}
    parts = {name: parts_of(scene.bridge, name) for name in names}
    called = relative(scene)
    fused = {
        name: those for name, those in parts.items() if len({part.size for part in those}) == 1 and 1 < len(those) <= 3
    }
    if fused:
        first = next(iter(fused.values()))
        for order in permutations(range(len(first))):
            if order != tuple(range(len(first))):
                taken = {name: those for name, those in fused.items() if len(those) == len(first)}
                state = {name: _in_order(values[name], those, order) for name, those in taken.items()}
                rows = np.concatenate([np.arange(first[part].start, first[part].stop) for part in np.argsort(order)])
                yield (*_said(rows, first), state)
    for name, value in values.items():
        last = called(name)
        for part in parts[name] if value.ndim == 2 else ():
            if part.size == value.shape[1]:
                altered = value.copy()
                altered[part.start : part.stop] = value[part.start : part.stop].T
                yield "weight-transposed", f"{part.name}: {last} is transposed", {name: altered}
        if value.ndim == 2 and value.shape[0] == value.shape[1]:
            yield "weight-transposed", f"{last} is transposed", {name: value.T}


def _in_order(value: Array, parts: tuple[Part, ...], order: tuple[int, ...]) -> Array:
    return np.concatenate([value[parts[which].start : parts[which].stop] for which in order])


def _said(rows: Array, parts: tuple[Part, ...]) -> tuple[str, str]:
    said = say_order(rows, "rows", parts)
    return said.kind, said.says


def omissions(scene: Scene, names: list[str]) -> Iterator[tuple[str, str, State]]:
    """Vectors left out or added twice, by the reference's names; of those beside a matrix of three parts, each part too."""
    fused = {np.shape(scene.state_reference[name]) for name in names}
    for name in names:
        value = np.asarray(scene.state_reference[name], np.float64)
        if value.ndim == 1 and value.any():
            last = ".".join(name.split(".")[-2:])
            yield "bias-missing", f"{last} is missing", {name: np.zeros_like(value)}
            yield "bias-doubled", f"{last} is added twice", {name: 2 * value}
            if (value.size, value.size // 3) in fused:
                for part, letter in enumerate("qkv"):
                    without = value.copy().reshape(3, -1)
                    without[part] = 0
                    yield "bias-missing", f"the part of {letter} in {last} is missing", {name: without.reshape(-1)}


class Trial:
    """A copy of a side that is filled with one state after the other; what is not in a state is as it was."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.own = side.state()
        self.filled: set[str] = set()

    def with_(self, state: Mapping[str, Array]) -> Side:
        self.side.fill({**{name: self.own[name] for name in self.filled}, **state})
        self.filled = set(state)
        return self.side


def is_comparable(scene: Scene) -> bool:
    """False where the two tensors cannot be laid beside each other: other weights do not change that."""
    try:
        scene.pair(scene.suspect.at)
    except ValueError:
        return False
    return True


def with_candidate(scene: Scene, trial: Trial, state: Mapping[str, Array]) -> float:
    """The error at the suspect when the candidate holds these weights."""
    at = scene.suspect.at
    if at.candidate.border == "out" and scene.suspect.kind == "module":
        both = scene.replayed(state=state)
        return float("inf") if both is None else scene.error(*both)
    try:
        seen = trial.with_(state).run(scene.probe.candidate, watch={at.candidate.module}, splice=dict(scene.splice))
        return scene.error(*paired(at, scene.seen_reference, seen))
    except ValueError:
        return float("inf")


def with_reference(scene: Scene, trial: Trial, state: Mapping[str, Array]) -> float:
    """How far the candidate is from the reference when the reference holds these weights."""
    at = scene.suspect.at
    try:
        seen = trial.with_(state).run(scene.probe.reference, watch={at.reference.module})
        return scene.error(*paired(at, seen, scene.seen_candidate))
    except ValueError:
        return float("inf")
