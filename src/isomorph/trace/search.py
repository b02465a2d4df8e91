"""What a search for divergences is told, and what it tells: plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from isomorph.trace.align import Alignment
from isomorph.trace.compare import measures_of
from isomorph.trace.naming import Fold
from isomorph.trace.nouns import Array, Capture, Event, Measure, ModuleFacts, Node, Site, Suspect
from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side


@dataclass
class Known:
    """What earlier runs taught: places that differ in structure only, by folded name; places found to diverge."""

    structural: set[Fold] = field(default_factory=set)
    found: dict[Fold, set[Site]] = field(default_factory=dict)
    equivalent: dict[Fold, list[str]] = field(default_factory=dict)

    def notes(self) -> Iterator[str]:
        """What is said of places that differ, and that nothing behind them shows."""
        for place, names in self.equivalent.items():
            if place not in self.found:
                yield f"{', '.join(names)}: differs inside, without effect on anything that follows"


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
    pairs: tuple[tuple[str, str], ...] = ()
    """Names of the two state dicts that the morph pairs."""

    def measures(self, seen: Capture) -> tuple[Measure, ...]:
        """Every event of the reference's run and this one."""
        events = self.alignment.events(self.seen_reference, seen)
        return measures_of(events, self.seen_reference, seen, self.tolerances, self.probe.padding)


def key(event: Event) -> tuple[Site, Site]:
    """One event of a run, among those that a fused tensor has."""
    return event.reference, event.candidate
