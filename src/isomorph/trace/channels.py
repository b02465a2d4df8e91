"""Modules, asked -> which axis of a parameter is which axis of what comes out or goes in. Never by the coincidence of sizes.

The module is run again, alone, with one slice of the parameter changed: when that changes one slice of the output and no other,
for several slices, the two axes are one. An input's axis is found by scaling: a channel doubled is a slice of the weight doubled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.nouns import Array, Call, Capture, ModuleFacts, Site
from isomorph.trace.protocol import Side

SLICES = 3
"""Slices that are tried, along each axis."""
LEAST = 0.1
"""The share of a slice of the output that must change when its weights do (an activation in the module hides some)."""


class Answer(NamedTuple):
    """A tensor at a border (Site.index), and one of its axes."""

    tensor: int
    axis: int


class Asker:
    """One side, a run of it, and what its modules answered; modules of one kind, shape and settings are asked once."""

    def __init__(
        self, side: Side, seen: Capture, state: Mapping[str, Array], modules: Mapping[str, ModuleFacts]
    ) -> None:
        self.side = side
        self.seen = seen
        self.state = state
        self.modules = modules
        self._outputs: dict[object, Answer | None] = {}
        self._inputs: dict[object, int | None] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor of the state dict."""
        return tuple(self.state[name].shape)

    def tensors(self, module: str, border: str) -> dict[int, Array]:
        """What went in or came out of the first call of a module, by index."""
        found: dict[int, Array] = {}
        index = 0
        while True:
            array = self.seen.values.get(Site(module, 0, "in" if border == "in" else "out", index))
            if array is None:
                return found
            found[index] = array
            index += 1

    def _key(self, module: str, name: str, axis: int) -> object:
        facts = self.modules[module]
        suffix = name.removeprefix(f"{module}.")
        shapes = tuple(
            sorted((one.rpartition(".")[2], self.state[one].shape) for one in facts.own if one in self.state)
        )
        seen = tuple(array.shape for border in ("in", "out") for array in self.tensors(module, border).values())
        return (
            facts.kind,
            suffix,
            axis,
            shapes,
            seen,
            tuple(sorted((key, str(held)) for key, held in facts.attributes.items())),
        )

    def output(self, module: str, name: str, axis: int) -> Answer | None:
        """Which axis of which output of the module is this axis of its parameter."""
        key = self._key(module, name, axis)
        if key not in self._outputs:
            self._outputs[key] = self._ask_output(module, name, axis)
        return self._outputs[key]

    def _ask_output(self, module: str, name: str, axis: int) -> Answer | None:
        weight = np.asarray(self.state[name])
        size = weight.shape[axis]
        before = self.tensors(module, "out")
        found: set[Answer] | None = None
        for number in _spread(size):
            changed = _with_slice(weight, axis, number)
            after = self._replayed(module, state={name: changed})
            if after is None:
                return None
            met = {
                Answer(index, at)
                for index, array in before.items()
                if index < len(after) and array.dtype.kind == "f" and after[index].shape == array.shape
                for at in range(array.ndim)
                if array.shape[at] == size and _only(np.abs(array - after[index]), at, number)
            }
            found = met if found is None else found & met
            if not found:
                return None
        return min(found) if found else None

    def input(self, module: str, name: str, axis: int, index: int = 0) -> int | None:
        """Which axis of an input of the module is this axis of its parameter."""
        key = (self._key(module, name, axis), index)
        if key not in self._inputs:
            self._inputs[key] = self._ask_input(module, name, axis, index)
        return self._inputs[key]

    def _ask_input(self, module: str, name: str, axis: int, index: int) -> int | None:
        given, before = self.tensors(module, "in").get(index), self.tensors(module, "out").get(0)
        if given is None or before is None or given.dtype.kind != "f":
            return None
        weight = np.asarray(self.state[name])
        size = weight.shape[axis]
        for at in reversed(range(given.ndim)):
            if given.shape[at] != size:
                continue
            if all(
                self._scales(module, name, weight, axis, given, at, index, number, before)
                for number in _spread(size)[:2]
            ):
                return at
        return None

    def _scales(
        self,
        module: str,
        name: str,
        weight: Array,
        axis: int,
        given: Array,
        at: int,
        index: int,
        number: int,
        before: Array,
    ) -> bool:
        by_weight = self._replayed(module, state={name: _doubled(weight, axis, number)})
        by_input = self._replayed(module, inputs={index: _doubled(given, at, number)})
        if not by_weight or not by_input or by_weight[0].shape != by_input[0].shape:
            return False
        moved = float(np.abs(by_weight[0] - before).max())
        return moved > 0 and float(np.abs(by_weight[0] - by_input[0]).max()) < 1e-3 * moved

    def _replayed(
        self, module: str, *, inputs: dict[int, Array] | None = None, state: dict[str, Array] | None = None
    ) -> list[Array] | None:
        try:
            return self.side.replay(self.seen, Call(module, 0), inputs=inputs, state=state)
        except UsageError:
            return None


def _spread(size: int) -> list[int]:
    """A few numbers below `size`, the last first: nothing is at the end by chance."""
    return list(dict.fromkeys([size - 1, size // 2, 0][:SLICES])) if size else []


def _with_slice(weight: Array, axis: int, number: int) -> Array:
    """The weight with one slice moved by much, each of its elements differently."""
    changed = np.array(weight, copy=True)
    part = np.moveaxis(changed, axis, 0)[number]
    wide = np.asarray(part, np.float64)
    scale = float(np.abs(np.asarray(weight, np.float64)).mean()) + 0.125
    noise = np.random.default_rng(number).uniform(0.5, 1.5, wide.shape) * scale
    np.moveaxis(changed, axis, 0)[number] = (wide + noise).astype(weight.dtype)
    return changed


def _doubled(array: Array, axis: int, number: int) -> Array:
    changed = np.array(array, copy=True)
    np.moveaxis(changed, axis, 0)[number] *= 2
    return changed


def _only(difference: Array, axis: int, number: int) -> bool:
    """True when what differs is in this slice along the axis alone, and enough of it."""
    moved = np.moveaxis(difference > 1e-6 * difference.max(initial=0.0), axis, 0)
    here = moved[number]
    return bool(here.mean() >= LEAST) and int(np.count_nonzero(moved)) == int(np.count_nonzero(here))
