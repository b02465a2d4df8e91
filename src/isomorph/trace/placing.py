"""An event that is over, and matters -> Suspect: the module that is to blame, or the stretch between modules that are not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.compare import error_of
from isomorph.trace.naming import common, holder, is_inside, left_out
from isomorph.trace.nouns import Call, Capture, Event, Measure, Node, Site, Suspect
from isomorph.trace.scene import replayed
from isomorph.trace.search import Search, key

BEFORE = 8
"""Events that lead to a stretch, told with it."""
NEAR = 0.25
"""A tensor within tolerance by less than this factor may be what a module behind it only makes larger."""


@dataclass(frozen=True)
class Placing:
    """The candidate's run in which all found before is mended (`seen`), its measures, and its run as it is (`plain`).

    `passed` are events that are dealt with.
    """

    search: Search
    plain: Capture
    seen: Capture
    measures: tuple[Measure, ...]
    passed: Collection[tuple[Site, Site]]

    def suspect(self, event: Event) -> Suspect:
        """Which module or stretch an event that is over speaks against."""
        kind, event = self._kind(event)
        measure = next(one for one in self.measures if one.event == event)
        before = self._before(event)
        pairs = self.pairs_out_of_order(event)
        if kind == "module":
            candidate, reference = event.link.candidate, event.link.reference
        elif pairs:
            candidate = common(name for node in pairs[0] for name in node.candidate)
            reference = common(name for node in pairs[0] for name in node.reference)
        else:
            candidate = holder(self.seen, self.search.modules[1], event.candidate, [one.candidate for one in before])
            reference = holder(
                self.search.seen_reference, self.search.modules[0], event.reference, [one.reference for one in before]
            )
            candidate = self._not_run(event, before) or candidate
        return Suspect(kind, candidate, reference, event, before, measure.error, measure.tolerance)

    def _not_run(self, event: Event, before: tuple[Event, ...]) -> str:
        """The candidate's module that stands for what the reference runs in a stretch, and that the candidate leaves out; or ""."""
        names = left_out(
            self.search.modules,
            self.search.pairs,
            (self.search.seen_reference, self.seen),
            (before[-1].place if before else -1, event.place),
        )
        unused = {
            name
            for name, facts in self.search.modules[1].items()
            if facts.own and any(is_inside(name, one) for one in names)
        }
        own = [one for name in unused for one in self.search.modules[1][name].own]
        return common(names) if names and self._is_unused(own) else ""

    def _is_unused(self, names: Iterable[str]) -> bool:
        """Whether the candidate gives the same with other values of these tensors."""
        state = self.search.candidate.state()
        other = {name: (state[name] * 0.5 + 0.25).astype(state[name].dtype) for name in names if name in state}
        try:
            given = self.search.candidate.replay(self.plain, Call("", 0), state=other)
        except (UsageError, KeyError, ValueError, RuntimeError):
            return False
        mine = list(self.plain.outputs.values())
        return len(given) == len(mine) and all(
            np.array_equal(one, two, equal_nan=one.dtype.kind == "f") for one, two in zip(mine, given, strict=True)
        )

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
        if error_of(*alone) > measure.tolerance:
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

    def pairs_out_of_order(self, event: Event) -> list[tuple[Node, Node]]:
        """Nodes that the candidate calls in another order, of which one is here: all between them is off for that."""
        if event.link.border == "out":
            return []
        here = event.link.candidate
        return [
            pair for pair in self.search.order if any(is_inside(name, here) for node in pair for name in node.candidate)
        ]
