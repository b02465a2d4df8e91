"""Two sides, a bridge, probes and regimes -> TraceReport. The whole of a trace, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.align import Alignment, align, order_differs
from isomorph.trace.bridge import Bridge
from isomorph.trace.compare import measures_of
from isomorph.trace.diagnose.weights import differences
from isomorph.trace.findings import Findings
from isomorph.trace.floor import Floor
from isomorph.trace.locate import suspects
from isomorph.trace.naming import common
from isomorph.trace.nouns import Array, Capture, Node, Run, Site, TraceReport, WeightDifference
from isomorph.trace.outputs import output_links
from isomorph.trace.owners import owner_of
from isomorph.trace.prepared import Prepared, prepared
from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side
from isomorph.trace.regimes import Regime
from isomorph.trace.scene import Scene
from isomorph.trace.search import Known, Search

SEED = 4
OWN = "own weights"
MANY = 8
"""Times the smallest probe: a larger one is run with one draw of weights alone, if nothing is found."""


def trace(
    reference: Side,
    candidate: Side,
    bridge: Bridge,
    probes: Sequence[Probe],
    regimes: Sequence[Regime],
    *,
    dtype: str | None = None,
    outputs: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> TraceReport:
    """Run both on every probe with every regime's weights, find where they diverge, and why. Neither side is changed.

    `dtype` None is float64, or float32 where that does not run. `outputs` maps names of the reference's outputs to the candidate's.
    Synthetic regimes are run before the sides' own weights: they show what the code does, and what is left then is the weights'.

    Raises UsageError for models that do not run, have no output in common, no aligned module, or a reference that gives something
    else each time.
    """
    if not probes or not regimes:
        raise UsageError("a trace needs one probe and one regime at least")
    made, notes = prepared(reference, candidate, bridge, probes[0], dtype)
    return _Trace(reference, candidate, made, list(notes), outputs, progress or (lambda _: None)).traced(
        probes, regimes
    )


class _Trace:
    def __init__(
        self,
        reference: Side,
        candidate: Side,
        made: Prepared,
        notes: list[str],
        outputs: Mapping[str, str] | None,
        progress: Callable[[str], None],
    ) -> None:
        self.originals = (reference, candidate)
        self.made = made
        self.notes = notes
        self.named = outputs
        self.progress = progress
        self.alignment: Alignment | None = None
        self.known = Known()
        self.findings = Findings()
        self.runs: list[Run] = []
        self.modules = (made.reference.modules(), made.candidate.modules())
        self.is_steady = True
        self.floor = Floor({}, 0.0, 0.0, 0.0)

    def traced(self, probes: Sequence[Probe], regimes: Sequence[Regime]) -> TraceReport:
        """Every regime with every probe."""
        weights: tuple[WeightDifference, ...] = ()
        for regime in sorted(regimes, key=lambda regime: regime.name == OWN):
            self.made.fill(regime, self.originals[0], probes[0], SEED)
            if regime.name == OWN and self.made.expected:
                weights = differences(self.made.bridge, self.made.expected, self.made.actual)
            wanted = self._wanted(regime, probes)
            self.floor = self.made.floor(max(wanted, key=_size))
            for probe in wanted:
                self.progress(f"{regime.name}, {probe.name}")
                self._run(regime, probe, frozenset(one.name for one in weights) if regime.name == OWN else frozenset())
        alignment = self.alignment
        assert alignment is not None, "there was a run"
        return TraceReport(
            self.originals[0].title,
            self.originals[1].title,
            self.made.dtype,
            tuple(self.runs),
            self.findings.findings(),
            weights,
            alignment.nodes,
            alignment.unaligned,
            (*self.notes, *self.findings.notes(), *self.known.notes()),
        )

    def _wanted(self, regime: Regime, probes: Sequence[Probe]) -> Sequence[Probe]:
        """The probes of a regime: all of them, unless it can show nothing that another has not shown.

        Where all runs so far were within throughout, other weights are not drawn for a probe many times the smallest. And where the
        candidate's own weights are bit for bit what the morph makes of the reference's, and all that other weights showed is found
        or within, its own are run on one probe: a padded one where there is one, for it does the most.
        """
        if not self.runs:
            return probes
        is_clean = all(one.is_within for run in self.runs for one in run.measures)
        if regime.name == OWN and (is_clean or self.findings.findings()):
            padded = [probe for probe in probes if probe.padding is not None]
            return (padded or probes)[:1] if _is_all_equal(self.made.expected, self.made.actual) else probes
        if not is_clean:
            return probes
        least = min(map(_size, probes))
        return [probe for probe in probes if _size(probe) <= MANY * least]

    def _run(self, regime: Regime, probe: Probe, differing: frozenset[str]) -> None:
        made = self.made
        left = made.reference.run(probe.reference)
        right = made.candidate.run(probe.candidate)
        if self.alignment is None:
            self.alignment = self._aligned(left, right)
            self._check_steady(probe, left, right)
        events = self.alignment.events(left, right)
        tolerances: dict[Site, float] = {
            site: self.floor.of(site, node) for site, node in self.alignment.sites(left).items()
        }
        measures = measures_of(events, left, right, tolerances, probe.padding)
        run = Run(regime.name, probe.name, measures)
        self.runs.append(run)
        if all(one.is_within for one in measures):
            return
        owner = owner_of(self.modules[1])
        order = _order(self.alignment, left, right)
        search = Search(
            made.candidate,
            self.modules,
            self.alignment,
            probe,
            left,
            tolerances,
            self.known,
            frozenset(owner[name] for name in differing if name in owner),
            order,
            made.bridge.pairs,
        )
        again = None if self.is_steady else made.candidate.run(probe.candidate)
        for found in suspects(search, right, measures, again):
            scene = Scene(
                made.reference,
                made.candidate,
                left,
                found.seen,
                self.alignment,
                found.measures,
                found.suspect,
                probe,
                made.bridge,
                made.state,
                made.expected,
                made.actual,
                tolerances,
                regime.name,
                made.dtype,
                order,
                self.is_steady,
                found.splice,
            )
            self.findings.add(found.fold, scene, run.name, found.is_again)

    def _aligned(self, left: Capture, right: Capture) -> Alignment:
        made = self.made
        links, notes = output_links(left, right, self.named, (self.originals[0].title, self.originals[1].title))
        self.notes += notes
        if not made.own[0] or not made.own[1]:
            return Alignment((), links)
        found = align(made.reference, made.candidate, made.bridge, left, right, links)
        if not found.nodes:
            raise UsageError(
                f"no module of {self.originals[0].title} is aligned with one of {self.originals[1].title}: the morph pairs "
                f"{len(made.bridge.pairs)} tensors, and no two modules that hold them were called and give tensors of one content. "
                "See that the morph names the parameters that the two models use"
            )
        return found

    def _check_steady(self, probe: Probe, left: Capture, right: Capture) -> None:
        """Whether each side, run again, gives the same."""
        if not _same(left, self.made.reference.run(probe.reference, watch=())):
            raise UsageError(
                f"{self.originals[0].title} gives something else each time it is run on the same inputs: it is no reference. "
                "Put it into evaluation mode, and take random numbers out of its forward"
            )
        self.is_steady = _same(right, self.made.candidate.run(probe.candidate, watch=()))
        if not self.is_steady:
            self.notes.append(f"{self.originals[1].title} gives something else each time it is run on the same inputs")


def _is_all_equal(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
    """Whether every tensor that the morph makes is the very same; all others are the candidate's own in every regime."""
    return bool(expected) and all(
        one.dtype == actual[name].dtype and one.tobytes() == actual[name].tobytes() for name, one in expected.items()
    )


def _size(probe: Probe) -> int:
    """Elements that go in: the largest probe leaves the largest gap."""
    given = probe.others.values() if isinstance(probe.others, Mapping) else probe.others
    return sum(int(np.size(array)) for array in given)


def _same(one: Capture, other: Capture) -> bool:
    return all(
        name in other.outputs and np.array_equal(array, other.outputs[name], equal_nan=array.dtype.kind == "f")
        for name, array in one.outputs.items()
    )


def _order(alignment: Alignment, left: Capture, right: Capture) -> tuple[tuple[Node, Node], ...]:
    """Nodes that the candidate calls in another order; those that share no module around them may be called in any."""
    return tuple(
        (one, other)
        for one, other in order_differs(alignment, left, right)
        if common([*one.reference, *other.reference]) and common([*one.candidate, *other.candidate])
    )
