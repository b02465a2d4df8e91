"""The suspect module alone: what goes in and comes out on both sides, in the reference's layout, and trials with it altered.

Everything here is float64. A fused module of the candidate faces several of the reference's: their outputs are kept side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from isomorph.trace.nouns import Array, Call, Cause, Event, Link, ModuleFacts
from isomorph.trace.pairing import Unpaired, beside, into_candidate

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

PARTS = 16
"""A tolerance is this many times the floor that was measured."""


@dataclass(frozen=True)
class Result:
    """One output of the module: the reference's, and what the candidate's module gives when it is given the reference's input."""

    event: Event
    reference: Array
    candidate: Array


@dataclass(frozen=True)
class Leaf:
    """The suspect's candidate module at one call. `outs` are all events of its output, `ins` of its inputs, by index."""

    scene: Scene
    outs: tuple[Event, ...]
    ins: tuple[Event, ...]

    @property
    def call(self) -> Call:
        return Call(self.outs[0].candidate.module, self.outs[0].candidate.call)

    @property
    def reference_call(self) -> Call:
        """Of the first output."""
        return Call(self.outs[0].reference.module, self.outs[0].reference.call)

    @cached_property
    def facts(self) -> ModuleFacts:
        return self.scene.candidate.modules()[self.call.module]

    @cached_property
    def reference_facts(self) -> ModuleFacts:
        return self.scene.reference.modules()[self.reference_call.module]

    @property
    def tolerance(self) -> float:
        return self.scene.tolerance

    @cached_property
    def takes_reference(self) -> bool:
        """Whether the module can be given the reference's inputs: what goes in is aligned, and agrees already."""
        measures = [self.scene.measure_of(event) for event in self.ins]
        return bool(measures) and all(one is not None and one.is_within for one in measures)

    @cached_property
    def entered(self) -> tuple[Event, Array, Array] | None:
        """What goes in first: its event, the reference's whole tensor, and the candidate's."""
        for event in self.ins if self.takes_reference else ():
            one, two = self.scene.value_R(event.reference), self.scene.seen_candidate.values.get(event.candidate)
            if one is not None and two is not None:
                return event, one, two
        return None

    @cached_property
    def x(self) -> Array | None:
        """The reference's input, as it was captured; whole numbers stay whole."""
        return None if self.entered is None else self.entered[1]

    @cached_property
    def given(self) -> tuple[Result, ...]:
        """The outputs, the candidate's module as it is; () when it cannot be run alone."""
        return self.attempt() or ()

    @property
    def y_reference(self) -> Array:
        """The reference's first output."""
        return self.given[0].reference

    @property
    def y_candidate(self) -> Array:
        """What the candidate's module makes of the reference's input, laid beside the reference's first output."""
        return self.given[0].candidate

    def attempt(
        self, state: Mapping[str, Array] | None = None, attributes: Mapping[str, Any] | None = None
    ) -> tuple[Result, ...] | None:
        """All outputs, the candidate's module altered so; None when it cannot be run."""
        found = []
        for event in self.outs:
            both = self.scene.replayed(
                event, state=state, attributes=attributes, takes_reference=self.entered is not None
            )
            if both is None:
                return None
            found.append(Result(event, both[0].astype(np.float64), both[1].astype(np.float64)))
        return tuple(found)

    def error(self, results: tuple[Result, ...] | None) -> float:
        """The largest error of the outputs; infinite for None."""
        if not results:
            return float("inf")
        return max(self.scene.error(result.reference, result.candidate) for result in results)

    def trial(
        self,
        kind: str,
        says: str,
        state: Mapping[str, Array] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Cause:
        """What is left when the candidate's module is altered so, carried out."""
        return self.cause(kind, says, self.error(self.attempt(state, attributes)), repairs=True)

    def cause(self, kind: str, says: str, residual: float, *, repairs: bool = False) -> Cause:
        return Cause(kind, says, residual, self.tolerance / PARTS, repairs)

    def candidate_made_of(self, x: Array) -> list[Array] | None:
        """The outputs (in the order of `outs`) that the candidate's module gives for another input, in the reference's layout."""
        if self.entered is None:
            return None
        event, whole, held = self.entered
        try:
            kept, _ = beside(event.link, whole, held)
            if kept.shape != whole.shape:
                return None
            inputs = {event.candidate.index: into_candidate(event.link, x.astype(whole.dtype), whole, held)}
            given = self.scene.candidate.replay(self.scene.seen_candidate, self.call, inputs=inputs)
            return [self._beside(one, given[one.candidate.index]) for one in self.outs]
        except (ValueError, RuntimeError, LookupError, TypeError):
            return None

    def _beside(self, event: Event, given: Array) -> Array:
        reference = self.scene.value_R(event.reference)
        if reference is None:
            raise Unpaired(f"{event.reference} holds no tensor")
        return beside(event.link, reference, given)[1]

    def reference_made_of(self, x: Array) -> list[Array] | None:
        """The reference's outputs for another input, each cut to the channels that the candidate's module has."""
        if self.entered is None:
            return None
        event = self.entered[0]
        found = []
        try:
            for one in self.outs:
                call = Call(one.reference.module, one.reference.call)
                given = self.scene.reference.replay(self.scene.seen_reference, call, inputs={event.reference.index: x})
                found.append(cut(one.link, given[one.reference.index]))
        except (ValueError, RuntimeError, LookupError, TypeError):
            return None
        return found

    def own_of_reference(self, event: Event) -> dict[str, Array]:
        """The parameters of the reference module that makes this output, float64, by the last part of their names."""
        facts = self.scene.reference.modules()[event.reference.module]
        return {
            name.rpartition(".")[2]: np.asarray(self.scene.state_reference[name], np.float64)
            for name in facts.own
            if name in self.scene.state_reference
        }

    @cached_property
    def own(self) -> dict[str, Array]:
        """The candidate module's own floating parameters in this regime, float64, by their full names."""
        values = {name: np.asarray(self.scene.actual[name]) for name in self.facts.own if name in self.scene.actual}
        return {name: one.astype(np.float64) for name, one in values.items() if one.dtype.kind not in "iub"}


def cut(link: Link, values: Array) -> Array:
    """A reference tensor with only the channels that correspond."""
    if link.channels is None:
        return values
    return np.take(values, link.channels.reference, axis=link.channels.reference_axis)


def leaf_of(scene: Scene) -> Leaf | None:
    """The suspect as a module that can be run alone; None when the divergence is not seen at a module's output."""
    at = scene.suspect.at
    if at.candidate.border != "out" or not at.candidate.module or at.node is None:
        return None
    module, call = at.candidate.module, at.candidate.call
    events = [measure.event for measure in scene.measures if measure.event.node is at.node]
    mine = [event for event in events if (event.candidate.module, event.candidate.call) == (module, call)]
    outs = [event for event in mine if event.candidate.border == "out" and event.candidate.index == at.candidate.index]
    ins = sorted((event for event in mine if event.candidate.border == "in"), key=lambda event: event.candidate.index)
    return Leaf(scene, tuple(outs) or (at,), tuple(ins))
