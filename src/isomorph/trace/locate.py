"""Measures of one run -> suspects: the first tensor that is over while what leads to it is within; mended, then the next.

Everything is decided by running the candidate again, with the reference's tensor put in the place of its own:

- what was over comes within: the divergence is real, and it is here;
- what was within goes over: the two only cut their work into modules differently (an activation inside a Linear, a residual
  inside a block). Such places are remembered, and passed in every layer;
- nothing changes: nothing reads this tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from isomorph.trace.carried import is_carried
from isomorph.trace.compare import error_of
from isomorph.trace.naming import cut, fold, producers
from isomorph.trace.nouns import Array, Capture, Event, Measure, Site
from isomorph.trace.pairing import Unpaired, into_candidate, paired, value
from isomorph.trace.placing import NEAR, Placing
from isomorph.trace.search import Found, Search, key

MOST_FOUND = 16
MOST_STEPS = 80
UNSEEN = 0.05
"""What a divergence without effect moves behind it, in tolerances, is less than this share of what it is itself."""
BETTER = 0.5
"""An error that a splice lowers by this factor, where it comes not within, is lowered by it."""

MOST_PENDING = 4
"""Places that none mends alone, and that are tried together."""

Verdict = Literal["real", "structural", "equivalent", "unread", "unclear"]


def suspects(search: Search, seen: Capture, measures: tuple[Measure, ...], again: Capture | None = None) -> list[Found]:
    """Every divergence of a run that matters, in the reference's order. Empty: the two are one function on it.

    `again` is the candidate's run on the same inputs once more, where that gave something else: then only the first place where it
    does is a suspect, for nothing behind it can be mended.
    """
    walk = _Walk(search, seen, measures)
    return walk.walk() if again is None else walk.unsteady(again)


class _Walk:
    def __init__(self, search: Search, seen: Capture, measures: tuple[Measure, ...]) -> None:
        self.search = search
        self.plain = seen
        self.seen = seen
        self.measures = measures
        self.splice: dict[Site, Array] = {}
        self.passed: set[tuple[Site, Site]] = set()
        self.unclear: list[tuple[Event, Capture, tuple[Measure, ...]]] = []
        self.pending: list[Event] = []
        self.errors: list[Array] = []
        self.found: list[Found] = []

    def _placing(self) -> Placing:
        return Placing(self.search, self.plain, self.seen, self.measures, self.passed)

    def unsteady(self, again: Capture) -> list[Found]:
        """The first event at which two runs of the candidate differ."""
        for one in self.measures:
            first, second = value(self.seen, one.event.candidate), value(again, one.event.candidate)
            if first is not None and second is not None and not np.array_equal(first, second, equal_nan=True):
                self._record(one.event)
                break
        return self.found

    def walk(self) -> list[Found]:
        for _ in range(MOST_STEPS if self._mend_known() else 0):
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

    def _mend_known(self) -> bool:
        """Splice every event of a place that is known to diverge; those that are over are found again.

        False where one of them cannot be spliced, for it has another shape: then nothing behind it can be told.
        """
        events = [
            one for one in self.measures if one.event.node is not None and fold(one.event) in self.search.known.found
        ]
        over = [one.event for one in events if not one.is_within]
        if not events or self.search.order or all(one.is_within for one in self.measures):
            return True
        unfit = next((one for one in over if self._put(one) is None and not self._is_bypassed(one)), None)
        if unfit is not None and unfit is self._first_over_event():
            self._record(unfit)
            return False
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
        return True

    def _first_over_event(self) -> Event | None:
        over = self._first_over()
        return None if over is None else over.event

    def _first_over(self) -> Measure | None:
        return next((one for one in self.measures if not one.is_within and key(one.event) not in self.passed), None)

    def _step(self, event: Event) -> bool:
        """Deal with one event that is over; False where nothing can be found behind it."""
        place = fold(event)
        if cut(event) in self.search.known.structural:
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
        put = self._put_all(event)
        if put is None:  # the reference's tensor does not fit: what is behind cannot be told apart
            if self._is_bypassed(event):
                self.passed |= {key(one.event) for one in self.measures if cut(one.event) == cut(event)}
                return True
            self._record(event)
            return False
        if place in self.search.known.found:
            self._record(event)
            if self._placing().pairs_out_of_order(event):
                return self._leave_block(event)
            self._mend(event, put)
            return True
        if self._is_carried(event):
            self._mend(event, put)
            return True
        seen, after = self._spliced(put)
        verdict = self._verdict(event, put, seen, after)
        if verdict == "structural" and len(self._beside(event)) > 1:  # of a fused tensor, perhaps this part alone
            put = self._put(event) or put
            seen, after = self._spliced(put)
            verdict = self._verdict(event, put, seen, after)
        if verdict == "structural":
            self.search.known.structural.add(cut(event))
            self.passed.add(key(event))
        elif verdict == "real":
            self._record(event)
            if self._placing().pairs_out_of_order(event):
                return self._leave_block(event)
            self._accept(event, put, seen, after)
        elif verdict == "equivalent":
            names = self.search.known.equivalent.setdefault(place, [])
            if event.candidate.module not in names:
                names.append(event.candidate.module)
            self.passed.add(key(event))
        elif not self._are_together(event):
            if verdict == "unclear":
                self.unclear.append((event, self.seen, self.measures))
            self.pending.append(event)
            self.passed |= {key(one) for one in self._beside(event)}
        return True

    def _spliced(self, put: Mapping[Site, Array]) -> tuple[Capture, tuple[Measure, ...]]:
        """The candidate run with this, and all that was put before, in place."""
        seen = self.search.candidate.run(self.search.probe.candidate, splice={**self.splice, **put})
        return seen, self.search.measures(seen)

    def _beside(self, event: Event) -> list[Event]:
        """This event, and others that are over of the same tensor of the candidate (parts of a fused one)."""
        return [event, *(one for one in self._parts(event) if one is not event and key(one) not in self.passed)]

    def _put_all(self, event: Event) -> dict[Site, Array] | None:
        """`_put`, with every part of the tensor that is over."""
        put = self._put(event)
        for other in self._beside(event)[1:]:
            put = None if put is None else put | (self._put(other, put) or {})
        return put

    def _are_together(self, event: Event) -> bool:
        """Whether this event and those before it that none mends alone (biases of q, k and v) mend what is behind together."""
        pending = [one for one in self.pending[-MOST_PENDING:] if one.place <= event.place]
        if not pending or not self._mends([*pending, event], event):
            return False
        for one in pending[:]:
            if self._mends([*(other for other in pending if other is not one), event], event):
                pending.remove(one)
        for one in (*pending, event):
            self._record(one)
        self.pending = []
        put = self._put_each([*pending, event])
        self._accept(event, put, *self._spliced(put))
        return True

    def _put_each(self, events: Iterable[Event]) -> dict[Site, Array]:
        put: dict[Site, Array] = {}
        for event in events:
            for one in (event, *(other for other in self._parts(event) if other is not event)):
                put |= self._put(one, put) or {}
        return put

    def _parts(self, event: Event) -> list[Event]:
        """All of a tensor of the candidate that is over, but what differs in structure."""
        return [
            one.event
            for one in self.measures
            if one.event.candidate == event.candidate
            and not one.is_within
            and cut(one.event) not in self.search.known.structural
        ]

    def _mends(self, events: Sequence[Event], last: Event) -> bool:
        put = self._put_each(events)
        seen, after = self._spliced(put)
        return self._verdict(last, put, seen, after) == "real"

    def _is_bypassed(self, event: Event) -> bool:
        """The next tensor that can be compared is within: what differs here, in shape, is how the work is cut."""
        behind = (
            one
            for one in self.measures
            if one.event.place > event.place and one.elements and key(one.event) not in self.passed
        )
        following = next(behind, None)
        return following is not None and following.is_within

    def _verdict(self, event: Event, put: Mapping[Site, Array], seen: Capture, after: tuple[Measure, ...]) -> Verdict:
        then = {key(one.event): one for one in after}
        later = [
            (one, then[key(one.event)])
            for one in self.measures
            if one.event.place > event.place
            and key(one.event) in then
            and key(one.event) not in self.passed
            and one.event.candidate not in put
        ]
        mended = [one for one, new in later if not one.is_within and new.is_within]
        broken = [one for one, new in later if one.is_within and not new.is_within]
        if len(broken) > len(mended):
            return "structural"
        if mended:
            return "real"
        still = [(one, new) for one, new in later if not one.is_within]
        if not still and later:
            if self._has_no_effect(event, seen, [one for one, _ in later]):
                return "equivalent"
            return "real"  # what reads it takes the reference's as well, and the candidate's only just
        if all(one.error == new.error and one.problem == new.problem for one, new in later):
            return "unread"
        if event.link.border == "out" and event.link.candidate in self.search.differing:
            return "real"
        one, new = still[0]
        return "real" if new.error < BETTER * one.error else "unclear"

    def _has_no_effect(self, event: Event, seen: Capture, later: Sequence[Measure]) -> bool:
        """Whether the splice moves nothing behind by more than rounding: softmax does not see a bias of the keys."""
        here = next((one for one in self.measures if one.event == event), None)
        moved = 0.0
        for one in later:
            before, after = value(self.seen, one.event.candidate), value(seen, one.event.candidate)
            if before is None or after is None or before.shape != after.shape:
                return False
            error = error_of(before.astype(np.float64), after.astype(np.float64))
            moved = max(moved, error / one.tolerance)
        return here is not None and moved <= min(NEAR, UNSEEN * here.error / here.tolerance)

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
        self._accept(end, put, *self._spliced(put))
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
        self._accept(event, put, *self._spliced(put))

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
        suspect = self._placing().suspect(event)
        self.search.known.found.setdefault(fold(event), set()).add(event.candidate)
        self.found.append(Found(suspect, fold(event), self.seen, self.measures, dict(self.splice), is_again))
