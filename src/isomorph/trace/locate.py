"""Measures of one run -> suspects: the first tensor that is over while what leads to it is within; mended, then the next.

Everything is decided by running the candidate again, with the reference's tensor put in the place of its own:

- what was over comes within: the divergence is real, and it is here;
- what was within goes over: the two only cut their work into modules differently (an activation inside a Linear, a residual
  inside a block). Such places are remembered, and passed in every layer;
- nothing changes: nothing reads this tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from isomorph.trace.align import Alignment
from isomorph.trace.carried import is_carried
from isomorph.trace.compare import measures_of
from isomorph.trace.naming import Fold, common, fold, holder, producers
from isomorph.trace.nouns import Array, Capture, Event, Measure, ModuleFacts, Node, Site, Suspect
from isomorph.trace.pairing import Unpaired, into_candidate, paired, value
from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side
from isomorph.trace.scene import replayed

MOST_FOUND = 16
MOST_STEPS = 80
BEFORE = 8
"""Events that lead to a stretch, told with it."""
NEAR = 0.25
"""A tensor within tolerance by less than this factor may be what a module behind it only makes larger."""
BETTER = 0.5
"""An error that a splice lowers by this factor, where it comes not within, is lowered by it."""

Verdict = Literal["real", "structural", "unread", "unclear"]


@dataclass
class Known:
    """What earlier runs taught: places that differ in structure only, by folded name; places found to diverge."""

    structural: set[Fold] = field(default_factory=set)
    found: dict[Fold, set[Site]] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """One divergence in one run: the suspect, and the run in which all found before it were mended."""

    suspect: Suspect
    fold: Fold
    seen: Capture
    measures: tuple[Measure, ...]
    splice: Mapping[Site, Array]
    is_again: bool = False
    """The place is known, and what leads there was not mended first: the suspect says less than the one that was found first."""


@dataclass
class Search:
    """One run of both sides. `reference` and `candidate` hold the same weights, or each its own."""

    candidate: Side
    modules: tuple[Mapping[str, ModuleFacts], Mapping[str, ModuleFacts]]
    alignment: Alignment
    probe: Probe
    seen_reference: Capture
    tolerances: Mapping[Site, float]
    known: Known
    differing: frozenset[str] = frozenset()
    """Candidate modules whose weights are not what the morph makes."""
    order: tuple[tuple[Node, Node], ...] = ()
    """Nodes that the candidate calls in another order."""

    def measures(self, seen: Capture) -> tuple[Measure, ...]:
        """Every event of the reference's run and this one."""
        events = self.alignment.events(self.seen_reference, seen)
        return measures_of(events, self.seen_reference, seen, self.tolerances, self.probe.padding)

    def suspects(self, seen: Capture, measures: tuple[Measure, ...], again: Capture | None = None) -> list[Found]:
        """Every divergence of a run that matters, in the reference's order. Empty: the two are one function on it.

        `again` is the candidate's run on the same inputs once more, where that gave something else: then only the first place
        where it does is a suspect, for nothing behind it can be mended.
        """
        walk = _Walk(self, seen, measures)
        return walk.walk() if again is None else walk.unsteady(again)


def key(event: Event) -> tuple[Site, Site]:
    """One event of a run, among those that a fused tensor has."""
    return event.reference, event.candidate


class _Walk:
    def __init__(self, search: Search, seen: Capture, measures: tuple[Measure, ...]) -> None:
        self.search = search
        self.seen = seen
        self.measures = measures
        self.splice: dict[Site, Array] = {}
        self.passed: set[tuple[Site, Site]] = set()
        self.unclear: list[tuple[Event, Capture, tuple[Measure, ...]]] = []
        self.errors: list[Array] = []
        self.found: list[Found] = []

    def unsteady(self, again: Capture) -> list[Found]:
        """The first event at which two runs of the candidate differ."""
        for one in self.measures:
            first, second = value(self.seen, one.event.candidate), value(again, one.event.candidate)
            if first is not None and second is not None and not np.array_equal(first, second, equal_nan=True):
                self._record(one.event)
                break
        return self.found

    def walk(self) -> list[Found]:
        self._mend_known()
        for _ in range(MOST_STEPS):
            over = self._first_over()
            if over is None or len(self.found) >= MOST_FOUND:
                break
            if not self._step(over.event):
                break
        if not self.found and self.unclear:
            event, seen, measures = self.unclear[0]
            if any(not one.is_within for one in measures if one.event.node is None):
                self.seen, self.measures = seen, measures
                self._record(event)
        return self.found

    def _mend_known(self) -> None:
        """Splice every event of a place that is known to diverge; those that are over are found again."""
        events = [
            one for one in self.measures if one.event.node is not None and fold(one.event) in self.search.known.found
        ]
        over = [one.event for one in events if not one.is_within]
        if not events or self.search.order or all(one.is_within for one in self.measures):
            return
        for event in over:
            if event.candidate in self.search.known.found[fold(event)]:  # others may only be reached by its error
                self._record(event, is_again=event is not over[0])
        put: dict[Site, Array] = {}
        for one in events:
            put |= self._put(one.event, put) or {}
            error = self._error_at(one.event)
            if not one.is_within and error is not None and np.isfinite(error).all():
                self.errors.append(error)
        self._mend(over[0] if over else events[0].event, put)
        self.passed |= {key(one.event) for one in events}

    def _first_over(self) -> Measure | None:
        return next((one for one in self.measures if not one.is_within and key(one.event) not in self.passed), None)

    def _step(self, event: Event) -> bool:
        """Deal with one event that is over; False where nothing can be found behind it."""
        place = fold(event)
        if place in self.search.known.structural:
            self.passed.add(key(event))
            return True
        if event.node is None:
            if not self._is_carried(event):
                self._record(event)
            self.passed.add(key(event))
            return True
        if event.link.border == "in" and self._own_outputs_within(event):
            self.passed.add(key(event))
            return True
        put = self._put(event)
        if put is None:  # the reference's tensor does not fit: what is behind cannot be told apart
            self._record(event)
            return False
        if place in self.search.known.found:
            self._record(event)
            if self._pairs_out_of_order(event):
                return self._leave_block(event)
            self._mend(event, put)
            return True
        if self._is_carried(event):
            self._mend(event, put)
            return True
        seen = self.search.candidate.run(self.search.probe.candidate, splice=self.splice | put)
        after = self.search.measures(seen)
        verdict = self._verdict(event, after)
        if verdict == "structural":
            self.search.known.structural.add(place)
            self.passed.add(key(event))
        elif verdict == "real":
            self._record(event)
            if self._pairs_out_of_order(event):
                return self._leave_block(event)
            self._accept(event, put, seen, after)
        else:
            if verdict == "unclear":
                self.unclear.append((event, self.seen, self.measures))
            self.passed.add(key(event))
        return True

    def _verdict(self, event: Event, after: tuple[Measure, ...]) -> Verdict:
        then = {key(one.event): one for one in after}
        later = [
            (one, then[key(one.event)])
            for one in self.measures
            if one.event.place > event.place and key(one.event) in then and key(one.event) not in self.passed
        ]
        mended = [one for one, new in later if not one.is_within and new.is_within]
        broken = [one for one, new in later if one.is_within and not new.is_within]
        if len(broken) > len(mended):
            return "structural"
        if mended:
            return "real"
        if all(one.error == new.error and one.problem == new.problem for one, new in later):
            return "unread"
        still = [(one, new) for one, new in later if not one.is_within]
        if not still:
            return "real"  # what reads it takes the reference's as well, and the candidate's only just
        if event.link.border == "out" and event.link.candidate in self.search.differing:
            return "real"
        one, new = still[0]
        return "real" if new.error < BETTER * one.error else "unclear"

    def _pairs_out_of_order(self, event: Event) -> list[tuple[Node, Node]]:
        """Nodes that the candidate calls in another order, of which one is here: all between them is off for that."""
        if event.link.border == "out":
            return []
        here = event.link.candidate
        return [
            pair
            for pair in self.search.order
            if any(name == here or name.startswith(f"{here}.") for node in pair for name in node.candidate)
        ]

    def _leave_block(self, event: Event) -> bool:
        """Go on behind the innermost aligned block around an event; False where there is none."""
        around = [
            one
            for one in self.measures
            if one.event.node is not None
            and one.event.node.kind == "block"
            and one.event.link.border == "out"
            and one.event.place > event.place
            and event.reference.module.startswith(f"{one.event.reference.module}.")
        ]
        put = self._put(around[0].event) if around else None
        if put is None:
            return False
        end = around[0].event
        self.passed |= {key(one.event) for one in self.measures if one.event.place <= end.place}
        seen = self.search.candidate.run(self.search.probe.candidate, splice=self.splice | put)
        self._accept(end, put, seen, self.search.measures(seen))
        return True

    def _is_whole(self, event: Event) -> bool:
        """Whether the event speaks of all of the candidate's tensor."""
        held = value(self.seen, event.candidate)
        mine = event.link.channels
        return mine is None or held is None or len(mine.candidate) == held.shape[mine.candidate_axis]

    def _own_outputs_within(self, event: Event) -> bool:
        """The module is given something else, and gives the same: it takes other arguments."""
        outputs = [
            one
            for one in self.measures
            if one.event.link.border == "out"
            and (one.event.candidate.module, one.event.candidate.call) == (event.candidate.module, event.candidate.call)
        ]
        return bool(outputs) and all(one.is_within for one in outputs)

    def _put(self, event: Event, onto: Mapping[Site, Array] | None = None) -> dict[Site, Array] | None:
        """The reference's tensor where the candidate's is, and where the very same tensor came out of a module before.

        `onto` holds what is put there already, of other channels.
        """
        whole, held = value(self.search.seen_reference, event.reference), value(self.seen, event.candidate)
        if whole is None or held is None:
            return None
        try:
            left, _ = paired(event, self.search.seen_reference, self.seen)
            made = into_candidate(event.link, left, whole, (onto or {}).get(event.candidate, held))
        except Unpaired:
            return None
        found = {event.candidate: made}
        if event.link.border == "in":
            fine = {one.event.candidate for one in self.measures if one.is_within}
            earlier = [site for site in producers(self.seen, held) if site not in fine]
            if earlier:
                found[earlier[-1]] = made
        return found

    def _error_at(self, event: Event) -> Array | None:
        try:
            left, right = paired(event, self.search.seen_reference, self.seen)
        except Unpaired:
            return None
        return right - left

    def _is_carried(self, event: Event) -> bool:
        error = self._error_at(event)
        return error is not None and is_carried(error, self.errors)

    def _mend(self, event: Event, put: dict[Site, Array]) -> None:
        """Splice this event, and all others that carry errors which are known; run again."""
        for one in self.measures:
            other = one.event
            if one.is_within or other is event or other.node is None or key(other) in self.passed:
                continue
            if other.place > event.place and self._is_carried(other):
                put = put | (self._put(other, put) or {})
        seen = self.search.candidate.run(self.search.probe.candidate, splice=self.splice | put)
        self._accept(event, put, seen, self.search.measures(seen))

    def _accept(self, event: Event, put: dict[Site, Array], seen: Capture, after: tuple[Measure, ...]) -> None:
        error = self._error_at(event)
        is_over = any(one.event == event and not one.is_within for one in self.measures)
        if is_over and error is not None and np.isfinite(error).all():
            self.errors.append(error)
        self.splice |= put
        self.passed |= {
            key(one.event) for one in self.measures if one.event.candidate in put and self._is_whole(one.event)
        }
        self.passed.add(key(event))
        self.seen, self.measures = seen, after

    def _record(self, event: Event, is_again: bool = False) -> None:
        suspect = self._suspect(event)
        self.search.known.found.setdefault(fold(event), set()).add(event.candidate)
        self.found.append(Found(suspect, fold(event), self.seen, self.measures, dict(self.splice), is_again))

    def _suspect(self, event: Event) -> Suspect:
        kind, event = self._kind(event)
        measure = next(one for one in self.measures if one.event == event)
        before = self._before(event)
        last = before[-1] if before else None
        pairs = self._pairs_out_of_order(event)
        if kind == "module":
            candidate, reference = event.link.candidate, event.link.reference
        elif pairs:
            candidate = common(name for node in pairs[0] for name in node.candidate)
            reference = common(name for node in pairs[0] for name in node.reference)
        else:
            candidate = holder(self.seen, self.search.modules[1], event.candidate, last.candidate if last else None)
            reference = holder(
                self.search.seen_reference, self.search.modules[0], event.reference, last.reference if last else None
            )
        return Suspect(kind, candidate, reference, event, before, measure.error, measure.tolerance)

    def _kind(self, event: Event) -> tuple[Literal["module", "stretch"], Event]:
        """Whether the module is to blame, and the event to say. Given the reference's input, an innocent one gives its output."""
        node = event.node
        if node is None or event.link.border == "in" or (node.kind == "block" and not node.is_opaque):
            return "stretch", event
        alone = replayed(
            self.search.candidate,
            self.search.seen_reference,
            self.seen,
            event,
            tuple(one.event for one in self.measures),
        )
        inputs = [
            one
            for one in self.measures
            if one.event.link.border == "in"
            and (one.event.candidate.module, one.event.candidate.call) == (event.candidate.module, event.candidate.call)
        ]
        if alone is None or not inputs:
            return "module", event
        measure = next(one for one in self.measures if one.event == event)
        left, right = alone
        size = float(np.abs(left[np.isfinite(left)]).max(initial=0.0)) or 1.0
        gap = np.abs(right - left)[np.isfinite(left)]
        if not np.isfinite(gap).all() or float(gap.max(initial=0.0)) / size > measure.tolerance:
            return "module", event
        nearly = [
            one
            for one in self.measures
            if one.event.place < event.place
            and key(one.event) not in self.passed
            and one.error > NEAR * one.tolerance
            and one.event.link.border == "in"
        ]
        return "stretch", nearly[0].event if nearly else inputs[0].event

    def _before(self, event: Event) -> tuple[Event, ...]:
        """The last events that are within before this one, outputs of leaves and opaque blocks, and what went into the first."""
        leading = [
            one.event
            for one in self.measures
            if one.event.place < event.place
            and one.is_within
            and one.event.node is not None
            and (one.event.link.border == "out")
            and (one.event.node.kind == "leaf" or one.event.node.is_opaque)
        ]
        return tuple(leading[-BEFORE:])
