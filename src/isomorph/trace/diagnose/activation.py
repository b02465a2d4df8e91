"""Pointwise functions between two modules: which one the reference applies, which one the candidate does; gated ones too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.pointwise import FUNCTIONS, Known, describe, gap_of, identify, is_function, sample_of
from isomorph.trace.diagnose.stretch import Atom, Goal, Stretch
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_INPUTS = 6


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Another activation than the reference's, or gates that are read in another way."""
    stretch = Stretch(scene)
    for goal in stretch.goals:
        for find in (plain, gated):
            causes = list(find(stretch, goal))
            if causes:
                yield from causes
                return


def plain(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    """y = f(x), entry by entry, of one tensor before."""
    for atom in _same(stretch, goal, goal.reference.shape):
        right = _matching(identify(atom.reference, goal.reference), stretch.limit, atom.reference, goal.reference)
        if right is None:
            continue
        stretch.noise = 4 * right.gap
        wrong = list(_candidates(stretch, goal, atom))
        for known, gap in wrong:
            if gap_of(known.function(atom.candidate), right.function(atom.candidate)) > stretch.limit:
                says = f"activation is {known.name}, the reference has {right.name}"
                if right.name == "no activation":
                    says = f"{known.name} is applied, the reference applies nothing here"
                elif known.name == "no activation":
                    says = f"activation is missing, the reference has {right.name}"
                pooled = goal.reference.ndim == 2 and "no activation" in (known.name, right.name)
                yield stretch.cause(
                    "pooler-tanh" if pooled and "tanh" in (known.name, right.name) else "activation", says, gap
                )
        if not wrong:
            yield from _unknown(stretch, goal, atom, right)
        return


def _candidates(stretch: Stretch, goal: Goal, atom: Atom) -> Iterator[tuple[Known, float]]:
    """What gives the candidate's tensor; the first, and those that tie with it."""
    if goal.finish is None:
        near = [known for known in identify(atom.candidate, goal.candidate) if known.gap <= stretch.limit]
    else:
        near = [Known(name, function, 0.0) for name, function in FUNCTIONS.items()]
    best = None
    for known in near:
        gap = stretch.gap(goal.carried(known.function(atom.candidate)), goal.candidate)
        if gap > stretch.limit or (best is not None and gap > 4 * best):
            continue
        best = gap if best is None else min(best, gap)
        yield known, gap
        if known.name in FUNCTIONS:
            return


def _unknown(stretch: Stretch, goal: Goal, atom: Atom, right: Known) -> Iterator[Cause]:
    """A multiple of a known function, or a function that the catalogue lacks."""
    if goal.finish is not None:
        return
    x, y = atom.candidate, goal.candidate
    places = sample_of(x.size)
    small, aim = x.reshape(-1)[places], y.reshape(-1)[places]
    for name, function in FUNCTIONS.items():
        if name == right.name == "no activation":
            continue  # a factor of a tensor is a sum's
        made = function(small)
        square = float((made * made).sum())
        times = float((made * aim).sum()) / square if square else 0.0
        if gap_of(times * made, aim) > 4 * stretch.limit:
            continue
        gap = stretch.gap(times * function(x), y)
        if gap <= stretch.limit and times != 0.0:
            yield stretch.cause(
                "activation", f"activation is {times:.6g} · {name}, the reference has {right.name}", gap
            )
            return
    if is_function(x, y):
        flat, values = x.reshape(-1), y.reshape(-1)
        order = np.argsort(flat)
        half = order[::2]
        made = np.interp(flat, flat[half], values[half]).reshape(y.shape)
        says = f"activation is another function ({describe(x, y)}), the reference has {right.name}"
        yield stretch.cause("activation", says, stretch.gap(made, y))


def _same(stretch: Stretch, goal: Goal, shape: tuple[int, ...]) -> list[Atom]:
    """The last tensors of that shape before the goal; those that both sides show first."""
    found = [atom for atom in stretch.atoms if atom.reference.shape == shape and atom.moment < goal.moment]
    return sorted(found[: 2 * MOST_INPUTS], key=lambda atom: not atom.is_paired)[:MOST_INPUTS]


def _matching(near: list[Known], limit: float, x: Array, y: Array) -> Known | None:
    for known in near[:4]:
        if known.gap <= limit and gap_of(known.function(x), y) <= limit:
            return known
    return None


@dataclass(frozen=True)
class Gate:
    """How two tensors make one: `makes(f, a, b)`; `says` is how a sentence calls it."""

    says: str
    order: tuple[int, int]
    form: str
    kind: str = "gate-form"

    def make(self, function: Known, pair: tuple[Array, Array]) -> Array:
        """The gated tensor."""
        gate, up = pair[self.order[0]], pair[self.order[1]]
        if self.form == "product":
            return np.asarray(function.function(gate) * up)
        if self.form == "both":
            return np.asarray(function.function(gate) * function.function(up))
        if self.form == "sum":
            return np.asarray(function.function(gate) + up)
        if self.form == "outside":
            return np.asarray(function.function(gate * up))
        return np.asarray(function.function(gate))


GATES = (
    Gate("gate and up are as in the reference", (0, 1), "product"),
    Gate("gate and up are swapped: the activation is on the wrong one of them", (1, 0), "product", "gate-swapped"),
    Gate("the product with the second projection is missing", (0, 1), "first", "gate-missing"),
    Gate("the gate is missing: only the second projection is used", (1, 0), "first", "gate-missing"),
    Gate("the activation is on both projections", (0, 1), "both"),
    Gate("the two projections are added, not multiplied", (0, 1), "sum"),
    Gate("the activation is on the product", (0, 1), "outside"),
)


def gated(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    """y = f(a)·b of two tensors before, or of two parts of one."""
    functions = [Known(name, function, 0.0) for name, function in FUNCTIONS.items()]
    for one, two in _pairs(stretch, goal):
        right = _gate_of(one, two, goal.reference, functions, stretch.limit)
        if right is None:
            continue
        gate, known = right
        a, b = (one, two) if gate.order == (0, 1) else (two, one)
        given = (a.candidate, b.candidate)
        best: float | None = None
        for form in GATES:
            for function in [known, *functions]:
                if form is GATES[0] and function.name == known.name:
                    continue
                gap = _gate_gap(stretch, goal, form, function, given)
                if gap > stretch.limit or (best is not None and gap > 4 * best):
                    continue
                best = gap
                says = [] if form is GATES[0] else [form.says]
                if function.name != known.name:
                    says.append(f"activation is {function.name}, the reference has {known.name}")
                kind = "activation" if form is GATES[0] else form.kind
                yield stretch.cause(kind, "; ".join(says), gap)
        yield from _other_halves(stretch, goal, a, known, functions)
        if best is None:
            yield from _shifted(stretch, goal, known, given)
        return


def _gate_gap(stretch: Stretch, goal: Goal, form: Gate, function: Known, given: tuple[Array, Array]) -> float:
    """The gap on a sample first."""
    if goal.finish is None:
        places = sample_of(goal.candidate.size)
        small = (given[0].reshape(-1)[places], given[1].reshape(-1)[places])
        target = goal.candidate.reshape(-1)[places]
        top = float(np.abs(goal.candidate).max()) or 1.0
        if stretch.padding is None and gap_of(form.make(function, small), target, top) > 4 * stretch.limit:
            return float("inf")
    return stretch.gap(goal.carried(form.make(function, given)), goal.candidate)


def _pairs(stretch: Stretch, goal: Goal) -> Iterator[tuple[Atom, Atom]]:
    shape = goal.reference.shape
    same = _same(stretch, goal, shape)
    yield from ((one, two) for i, one in enumerate(same) for two in same[:i])
    for atom in _same(stretch, goal, (*shape[:-1], 2 * shape[-1])):
        for how in ("halves", "interleaved"):
            yield half(atom, how, 0), half(atom, how, 1)


def half(atom: Atom, how: str, which: int) -> Atom:
    """One of the two parts of a tensor."""
    width = atom.reference.shape[-1] // 2
    part = slice(which, None, 2) if how == "interleaved" else slice(which * width, (which + 1) * width)
    return Atom(
        atom.name,
        atom.reference[..., part],
        atom.candidate[..., part],
        atom.moment,
        atom.site,
        atom.event,
        atom.is_paired,
    )


def _gate_of(one: Atom, two: Atom, target: Array, functions: list[Known], limit: float) -> tuple[Gate, Known] | None:
    places = sample_of(target.size)
    small = (one.reference.reshape(-1)[places], two.reference.reshape(-1)[places])
    aim, top = target.reshape(-1)[places], float(np.abs(target).max()) or 1.0
    for gate in GATES[:2]:
        for known in functions:
            if gap_of(gate.make(known, small), aim, top) > limit:
                continue
            if gap_of(gate.make(known, (one.reference, two.reference)), target) <= limit:
                return gate, known
    return None


def _other_halves(stretch: Stretch, goal: Goal, atom: Atom, known: Known, functions: list[Known]) -> Iterator[Cause]:
    """A fused projection of the candidate, cut into gate and up in another way."""
    if atom.event is None:
        return
    raw = stretch.scene.seen_candidate.values.get(atom.event.candidate)
    wanted = (*goal.candidate.shape[:-1], 2 * goal.candidate.shape[-1])
    if raw is None or raw.shape != wanted:
        return
    wide = np.asarray(raw, np.float64)
    whole = Atom("", wide, wide, 0)
    for how in ("halves", "interleaved"):
        for first in (0, 1):
            given = (half(whole, how, first).candidate, half(whole, how, 1 - first).candidate)
            gap = _gate_gap(stretch, goal, GATES[0], known, given)
            if gap <= stretch.limit:
                order = "gate first" if first == 0 else "up first"
                says = f"the fused projection is cut into {how}, {order}, which is not how its weights are laid out"
                yield stretch.cause("gate-swapped", says, gap)


def _shifted(stretch: Stretch, goal: Goal, known: Known, given: tuple[Array, Array]) -> Iterator[Cause]:
    """f(gate) · (up + c), with its c solved for."""
    if goal.finish is not None:
        return
    made = np.asarray(known.function(given[0]))
    square = float((made * made).sum())
    number = float((made * (goal.candidate - made * given[1])).sum()) / square if square else 0.0
    gap = stretch.gap(made * (given[1] + number), goal.candidate)
    if gap <= stretch.limit:
        yield stretch.cause("gate-form", f"{number:.6g} is added to the second projection before the product", gap)
