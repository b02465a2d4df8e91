"""A scene at the first module that is off, made by hand: what the tests of single hypotheses work on."""

from __future__ import annotations

from typing import Any

from isomorph.trace.align import align
from isomorph.trace.bridge import Bridge
from isomorph.trace.compare import measures_of
from isomorph.trace.floor import floor_of
from isomorph.trace.nouns import Measure, Suspect
from isomorph.trace.outputs import output_links
from isomorph.trace.probes import Probe
from isomorph.trace.scene import Scene
from isomorph.trace.sides import side_of


def scene_of(
    reference: Any, candidate: Any, bridge: Bridge, probe: Probe, *, dtype: str = "float64", at: str | None = None
) -> Scene:
    """The suspect is the candidate module `at`; None: of the modules whose output is off and whose inputs are not, the first.

    Both hold their own weights.
    """
    one, two = side_of(reference).copy(dtype), side_of(candidate).copy(dtype)
    seen = one.run(probe.reference), two.run(probe.candidate)
    links, _ = output_links(*seen, None, ("reference", "candidate"))
    alignment = align(one, two, bridge, *seen, links)
    coarse = "float32" if dtype == "float64" else dtype
    runs = (side_of(reference).copy(name).run(probe.others) for name in (coarse, "float64"))
    floor = floor_of(next(runs), next(runs), dtype, probe.padding)
    events = alignment.events(*seen)
    tolerances = {event.reference: floor.of(event.reference, event.node) for event in events}
    measures = tuple(measures_of(events, *seen, tolerances, probe.padding))
    first = _first(measures, at)
    where = first.event
    suspect = Suspect(
        "module", where.candidate.module, where.reference.module, where, (), first.error, tolerances[where.reference]
    )
    state = one.state()
    return Scene(
        one,
        two,
        *seen,
        alignment,
        measures,
        suspect,
        probe,
        bridge,
        state,
        bridge.forward(side_of(reference).state()),
        side_of(candidate).state(),
        tolerances,
        "own weights",
        dtype,
    )


def _first(measures: tuple[Measure, ...], at: str | None) -> Measure:
    outs = [one for one in measures if one.event.candidate.border == "out" and one.event.candidate.module]
    if at is not None:
        return next(one for one in outs if one.event.candidate.module == at and not one.is_within)
    for one in outs:
        call = one.event.candidate[:2]
        before = [other for other in measures if other.event.candidate[:3] == (*call, "in")]
        is_leaf = one.event.node is not None and (one.event.node.kind == "leaf" or one.event.node.is_opaque)
        if is_leaf and not one.is_within and all(other.is_within for other in before):
            return one
    raise AssertionError("no module is off: " + ", ".join(f"{one.event} {one.error:.1e}" for one in measures))
