"""Two sides, a bridge and a run of each -> Alignment: which tensors at borders should be equal. Derived from the morph only."""

from __future__ import annotations

from dataclasses import dataclass

from isomorph.trace.nouns import Capture, Event, Link, Node


@dataclass(frozen=True)
class Alignment:
    """Nodes, in the reference's order of calls; links of the models' outputs; modules with parameters that no node holds."""

    nodes: tuple[Node, ...]
    outputs: tuple[Link, ...] = ()
    unaligned: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def events(self, seen_reference: Capture, seen_candidate: Capture) -> list[Event]:
        """Every pair of tensors of these two runs that should be equal, in the reference's order."""
        return []
