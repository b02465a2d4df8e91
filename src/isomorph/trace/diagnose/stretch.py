"""What a hypothesis about a stretch works with: the tensor that diverges, and those before it that do not, in float64.

A formula is first fitted to the reference's tensor from the reference's own, then varied until it gives the candidate's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.nouns import Array, Call, Capture, Cause, Event, Site
from isomorph.trace.timeline import places

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_ATOMS = 40
MOST_POOLED = 12
"""Of pooled tensors [batch, width], so many more: what a tower gave is far back where another ran since."""
PARTS = 16
SLACK = 4.0
"""A formula may differ from the code by this many tolerances where it is fitted: it rounds in another order."""


@dataclass(frozen=True)
class Atom:
    """One tensor of both sides, in the reference's layout.

    `name` is how a sentence calls it. `moment` is when it existed in the reference's run. `is_paired`: the candidate's own values
    were seen; else `candidate` holds the reference's.
    """

    name: str
    reference: Array
    candidate: Array
    moment: int
    site: Site | None = None
    event: Event | None = None
    is_paired: bool = False


@dataclass(frozen=True)
class Goal:
    """A tensor to explain.

    `reference` is the reference's own. `finish` carries a tensor in its place on to what is compared with `candidate`: the
    identity, or the reference's last module, where the candidate does not show what goes into it. `is_rowwise`: `finish` can be
    given some rows (positions of axis 1) alone.
    """

    reference: Array
    candidate: Array
    moment: int
    finish: Callable[[Array], Array] | None = None
    is_rowwise: bool = True

    def carried(self, values: Array) -> Array:
        """What the candidate's tensor would be."""
        return values if self.finish is None else self.finish(values)


class Stretch:
    """A scene, read for formulas. Everything is made when first asked for.

    `noise` is what the formula that was fitted leaves of the reference's own tensor, four times: no more can be asked of it on the
    candidate's.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.at = scene.suspect.at
        self.tolerance = max(scene.suspect.tolerance, 1e-14)
        self.limit = SLACK * self.tolerance
        self.noise = 0.0
        self.modules = scene.reference.modules()
        self.moments = moments_of(scene.seen_reference)
        self.moment = self.moments.get(self.at.reference, self._end())
        self._atoms: list[Atom] | None = None
        self._pairs: dict[tuple[Site, Site], tuple[Array, Array] | None] = {}

    def _end(self) -> int:
        return 1 + max(self.moments.values(), default=0)

    def pair(self, event: Event) -> tuple[Array, Array] | None:
        """Both sides' tensors of an event; None where they cannot be laid beside each other."""
        key = (event.reference, event.candidate)
        if key not in self._pairs:
            try:
                self._pairs[key] = self.scene.pair(event)
            except ValueError:
                self._pairs[key] = None
        return self._pairs[key]

    @property
    def padding(self) -> Array | None:
        """[B T], True at real positions; None where nothing is padded."""
        padding = self.scene.probe.padding
        return None if padding is None or padding.all() else np.asarray(padding, bool)

    def gap(self, found: Array, expected: Array) -> float:
        """The error in the unit of a measure, where it is measured."""
        return self.scene.error(expected, np.broadcast_to(found, expected.shape))

    def cause(self, kind: str, says: str, residual: float, *, repairs: bool = False) -> Cause:
        """A hypothesis that was carried out here."""
        floor = max(self.tolerance / PARTS, self.noise if residual <= self.limit else 0.0)
        return Cause(kind, says, residual, floor, repairs)

    @property
    def goals(self) -> Iterator[Goal]:
        """The tensor that diverges; then what goes into the reference's last module, where that makes it."""
        both = self.pair(self.at)
        if both is None:
            return
        reference, candidate = both
        yield Goal(reference, candidate, self.moment)
        if self.at.reference.border == "out":
            yield from self._before_last(reference, candidate)

    def _before_last(self, reference: Array, candidate: Array) -> Iterator[Goal]:
        """The input of the reference's innermost call that returns the tensor."""
        raw = self.scene.seen_reference.values.get(self.at.reference)
        if raw is None or raw.shape != reference.shape:
            return
        for call in self.calls_that_return(raw):
            entered = self.scene.seen_reference.values.get(Site(call.module, call.call, "in", 0))
            if entered is None or entered.dtype.kind != "f" or entered.shape[:-1] != raw.shape[:-1]:
                continue
            event = self.scene.event_of(Site(call.module, call.call, "in", 0))
            measure = None if event is None else self.scene.measure_of(event)
            if measure is not None and measure.is_within:
                return  # the candidate shows it too, and it is right
            moment = self.moments[Site(call.module, call.call, "in", 0)]
            yield Goal(np.asarray(entered, np.float64), candidate, moment, self._replayer(call), is_rowwise=True)
            return

    def calls_that_return(self, raw: Array) -> Iterator[Call]:
        """The leaf calls of the reference inside the module that returns a tensor, whose output is that tensor; the last first."""
        modules = self.modules
        top = self.at.reference
        began = self.moments.get(Site(top.module, top.call, "in", 0), -1)
        for call in reversed(self.scene.seen_reference.ended):
            out = Site(call.module, call.call, "out", 0)
            if not began <= self.moments.get(out, -1) <= self.moment or modules[call.module].children:
                continue
            found = self.scene.seen_reference.values.get(out)
            if found is not None and modules[call.module].own and np.array_equal(found, raw):
                yield call

    def _replayer(self, call: Call) -> Callable[[Array], Array]:
        def finish(values: Array) -> Array:
            out = self.scene.reference.replay(self.scene.seen_reference, call, inputs={0: values})[0]
            return np.asarray(out, np.float64)

        return finish

    def replay(self, call: Call, values: Array) -> Array | None:
        """What the reference's module makes of other values; None where it does not take them."""
        try:
            return self._replayer(call)(values)
        except (UsageError, ValueError, RuntimeError, TypeError, IndexError):
            return None

    @property
    def atoms(self) -> list[Atom]:
        """The tensors before the divergence, latest first: events within tolerance, then what only the reference shows."""
        if self._atoms is None:
            self._atoms = list(self._gather())
        return self._atoms

    def _gather(self) -> Iterator[Atom]:
        seen: list[Array] = []
        found: list[Atom] = []
        for measure in self.scene.measures:
            event = measure.event
            moment = self.moments.get(event.reference)
            if moment is None or moment >= self.moment or not measure.is_within:
                continue
            both = self.pair(event)
            if both is not None:
                found.append(Atom(name_of(event.candidate), *both, moment, event.reference, event, True))
        aligned = {atom.site for atom in found}
        for site, values in self.scene.seen_reference.values.items():
            moment = self.moments.get(site, self.moment)
            if site in aligned or moment >= self.moment or values.dtype.kind != "f" or values.ndim < 2:
                continue
            wide = np.asarray(values, np.float64)
            found.append(Atom(name_of(site), wide, wide, moment, site))
        shown = [atom.reference for atom in found if atom.is_paired]
        for atom in sorted(found, key=lambda atom: (-atom.moment, not atom.is_paired)):
            if not atom.is_paired and any(is_same(one, atom.reference) for one in shown):
                continue  # the candidate's own values of it are known
            if any(is_same(other, atom.reference) for other in seen):
                continue
            if len(seen) < MOST_ATOMS or (atom.reference.ndim == 2 and len(seen) < MOST_ATOMS + MOST_POOLED):
                seen.append(atom.reference)
                yield atom


def is_same(one: Array, two: Array) -> bool:
    """Of one shape, and equal."""
    return one.shape == two.shape and np.array_equal(one, two)


def name_of(site: Site) -> str:
    """How a sentence calls a tensor: the last names of its module."""
    parts = [part for part in site.module.split(".") if part] or ["the model"]
    short = ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]
    return f"{short}'s {'input' if site.border == 'in' else 'output'}"


def moments_of(capture: Capture) -> dict[Site, int]:
    """When each tensor existed; those of modules that were seen."""
    when = places(capture)
    found: dict[Site, int] = {}
    for site in capture.values:
        moment = when.get((Call(site.module, site.call), site.border))
        if moment is not None:
            found[site] = moment
    return found


def facts_numbers(scene: Scene, *words: str) -> list[float]:
    """The reference's attributes whose names hold one of these words, each value once: hints for where to begin."""
    found: list[float] = []
    for facts in scene.reference.modules().values():
        for name, value in facts.attributes.items():
            wanted = any(word in name.lower() for word in words)
            if wanted and isinstance(value, int | float) and not isinstance(value, bool) and value not in found:
                found.append(value)
    return found


def own_parameters(scene: Scene) -> Mapping[str, Array]:
    """The reference's floating parameters and buffers that no called leaf holds: tables, class tokens, raw matrices."""
    modules = scene.reference.modules()
    called = {call.module for call in scene.seen_reference.began}
    taken = {
        name
        for facts in modules.values()
        if facts.own and not facts.children and facts.name in called
        for name in facts.own
    }
    return {
        name: np.asarray(values, np.float64)
        for name, values in scene.state_reference.items()
        if name not in taken and np.asarray(values).dtype.kind not in "iub"
    }
