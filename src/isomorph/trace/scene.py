"""Scene: all that a hypothesis may look at and try, about one suspect in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isomorph.trace.align import Alignment
from isomorph.trace.bridge import Bridge
from isomorph.trace.compare import error_of, real_positions
from isomorph.trace.nouns import Array, Call, Capture, Event, Measure, Node, Site, Suspect
from isomorph.trace.pairing import Unpaired, beside, into_candidate, paired, value
from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side


@dataclass(frozen=True)
class Scene:
    """One suspect in one run.

    `reference` and `candidate` are copies that hold this regime's weights, in the run's dtype. `seen_candidate` is the run in which
    every divergence found before this one was spliced away (`splice`). `state_reference` is the reference's state in this regime,
    `expected` what the morph makes of it, `actual` what the candidate holds; by name, in their own dtypes. `measures` are of this
    run, in the reference's order; `tolerances` by reference site. `order_differs` lists aligned nodes that the candidate calls in
    another order: (the one that the reference calls first, the one that the candidate calls first). `is_repeatable` is False when
    the candidate, run again on the same inputs, gave other values.
    """

    reference: Side
    candidate: Side
    seen_reference: Capture
    seen_candidate: Capture
    alignment: Alignment
    measures: tuple[Measure, ...]
    suspect: Suspect
    probe: Probe
    bridge: Bridge
    state_reference: Mapping[str, Array]
    expected: Mapping[str, Array]
    actual: Mapping[str, Array]
    tolerances: Mapping[Site, float]
    regime: str = ""
    dtype: str = "float64"
    order_differs: tuple[tuple[Node, Node], ...] = ()
    is_repeatable: bool = True
    splice: Mapping[Site, Array] = field(default_factory=dict)

    @property
    def at(self) -> Event:
        """The event at which the suspect was found."""
        return self.suspect.at

    @property
    def tolerance(self) -> float:
        """Of the suspect's event, in the unit of Measure.error."""
        return self.tolerances[self.at.reference]

    def pair(self, event: Event) -> tuple[Array, Array]:
        """(reference, candidate), float64, of one shape, in the reference's layout. Raises Unpaired (a ValueError)."""
        return paired(event, self.seen_reference, self.seen_candidate)

    def value_R(self, site: Site) -> Array | None:
        """The reference's tensor at one of its borders, as it was captured; None where there is none."""
        return value(self.seen_reference, site)

    def event_of(self, site: Site) -> Event | None:
        """The event at a border of the reference."""
        return next((measure.event for measure in self.measures if measure.event.reference == site), None)

    def measure_of(self, event: Event) -> Measure | None:
        """How far this event was off."""
        return next((measure for measure in self.measures if measure.event == event), None)

    def kept(self, shape: tuple[int, ...]) -> Array | None:
        """Which elements of a tensor in the reference's layout count (padded positions do not); None: all."""
        return real_positions(self.probe.padding, shape)

    def error(self, reference: Array, candidate: Array) -> float:
        """How far two tensors in the reference's layout are apart, in the unit of Measure.error; padded positions do not count.

        Infinite where one is finite and the other is not: NaN explains nothing but NaN.
        """
        if reference.shape != candidate.shape:
            return float("inf")
        kept = self.kept(reference.shape)
        odd = np.isfinite(reference) != np.isfinite(candidate)
        if (odd if kept is None else odd & kept).any():
            return float("inf")
        return error_of(reference, candidate, kept)

    def replayed(
        self,
        event: Event | None = None,
        *,
        state: Mapping[str, Array] | None = None,
        attributes: Mapping[str, Any] | None = None,
        takes_reference: bool = True,
    ) -> tuple[Array, Array] | None:
        """(reference, candidate) at an output event (the suspect's), the candidate's module run again, alone.

        It is given the reference's inputs where they are aligned (unless `takes_reference` is False), and this state and these
        attributes. None when the module cannot be run again, or gives nothing that can be compared.
        """
        return replayed(
            self.candidate,
            self.seen_reference,
            self.seen_candidate,
            event or self.at,
            tuple(measure.event for measure in self.measures),
            state=state,
            attributes=attributes,
            takes_reference=takes_reference,
        )

    def rerun(self) -> Capture:
        """The candidate once more, on the same inputs and with the same splices."""
        return self.candidate.run(self.probe.candidate, splice=dict(self.splice))


def replayed(
    candidate: Side,
    seen_reference: Capture,
    seen_candidate: Capture,
    event: Event,
    events: tuple[Event, ...],
    *,
    state: Mapping[str, Array] | None = None,
    attributes: Mapping[str, Any] | None = None,
    takes_reference: bool = True,
) -> tuple[Array, Array] | None:
    """`Scene.replayed` before there is a scene."""
    site = event.candidate
    reference = value(seen_reference, event.reference)
    if site.border != "out" or not site.module or reference is None:
        return None
    inputs = reference_inputs(seen_reference, seen_candidate, event, events) if takes_reference else {}
    try:
        given = candidate.replay(
            seen_candidate, Call(site.module, site.call), inputs=inputs or None, state=state, attributes=attributes
        )
        return beside(event.link, reference, given[site.index])
    except (Unpaired, IndexError, KeyError, TypeError, ValueError, RuntimeError):
        return None  # a hypothesis that the module cannot even be run with is no explanation


def reference_inputs(
    seen_reference: Capture, seen_candidate: Capture, event: Event, events: tuple[Event, ...]
) -> dict[int, Array]:
    """The reference's tensors for the inputs of the event's candidate module at that call, in the candidate's layout, by index."""
    inputs: dict[int, Array] = {}
    for other in events:
        to = other.candidate
        if to.border != "in" or (to.module, to.call) != (event.candidate.module, event.candidate.call):
            continue
        whole, held = value(seen_reference, other.reference), value(seen_candidate, to)
        if whole is None or held is None:
            continue
        try:
            left, _ = beside(other.link, whole, held)
            inputs[to.index] = into_candidate(other.link, left, whole, inputs.get(to.index, held))
        except Unpaired:
            continue
    return inputs
