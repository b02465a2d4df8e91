"""Questions + two models that run -> the alternatives under which they are one function.

Each combination of alternatives is a map between the two state dicts. Weights that show what the code does ("hot", drawn anew; see
trace/regimes.py) are put through it into a copy of the candidate, both are run on the probes of a trace, and outputs are compared
against the reference's own floor. The reference is run once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isomorph.errors import MorphError, UsageError
from isomorph.infer.draft import decided, supposed
from isomorph.infer.factor import moves_of
from isomorph.infer.nouns import Draft, Filled, Part, Question, Relation
from isomorph.infer.run import Decide, Decision
from isomorph.infer.subset import only
from isomorph.job.choice_search import FAILED, Choice, Score, Searched, search
from isomorph.job.trace import read_inputs
from isomorph.job.traced_models import known_facts
from isomorph.plan.moves import Move
from isomorph.plan.plan import Plan, Target
from isomorph.tensors import DType, Manifest, TensorSpec, dtype
from isomorph.trace.align import Alignment
from isomorph.trace.bridge import Bridge
from isomorph.trace.compare import measures_of
from isomorph.trace.given import given_probe
from isomorph.trace.nouns import SINGLE, Array, Capture, Site
from isomorph.trace.outputs import output_links
from isomorph.trace.prepared import Prepared, prepared
from isomorph.trace.probes import Probe, make_probes
from isomorph.trace.protocol import Side
from isomorph.trace.regimes import HOT, Regime
from isomorph.trace.sides import side_of

if TYPE_CHECKING:
    from isomorph.job.infer import Side as Given

SEED = 4
SAME = {"float64": 1e-9, "float32": 1e-4}
"""How near two sums over a channel must be to be one, relative to the sum of the absolute values."""
MOST_ALIKE = 4
"""Channels whose first sums are equal that are looked at."""


def decider(first: Given, second: Given, *, inputs: Any = None) -> Decide:
    """What decides the questions between these two models. Raises UsageError for what cannot be run."""
    sides = side_of(first.model), side_of(second.model)

    def decide(draft: Draft) -> Decision:
        trial = Trial.of(draft, sides, _probes(first, second, sides, inputs))
        questions = draft.questions
        start = supposed(draft)
        found = search(
            [len(one.alternatives) for one in questions], tuple(start[one.key] for one in questions), trial.score
        )
        return _decision(questions, found, trial)

    return decide


def _probes(first: Given, second: Given, sides: tuple[Side, Side], inputs: Any) -> tuple[Probe, ...]:
    if inputs is not None:
        return (given_probe(*sides, read_inputs(inputs)),)
    facts = known_facts((first.model, second.model), (first.manifest, second.manifest), first.config)
    return make_probes(*sides, facts).probes


@dataclass
class Trial:
    """Copies of both models with weights that show everything, and what the reference gives; candidates are filled and run."""

    questions: tuple[Question, ...]
    manifest: Manifest
    made: Prepared
    probes: tuple[Probe, ...]
    seen: tuple[Capture, ...]
    tolerances: tuple[Mapping[Any, float], ...]
    titles: tuple[str, str]
    filled: Choice

    @classmethod
    def of(cls, draft: Draft, sides: tuple[Side, Side], probes: tuple[Probe, ...]) -> Trial:
        """Raises UsageError where a model does not run, or the relations that stand make no map."""
        manifests = sides[0].manifest(), sides[1].manifest()
        start = supposed(draft)
        whole = decided(draft, start, "function", *manifests)
        bridge = Bridge(plan_of(whole.relations, manifests[0]))
        made, _ = prepared(*sides, bridge, probes[0], None)
        made.fill(Regime("hot", HOT), sides[0], probes[0], SEED)
        floors = [made.floor(probe) for probe in probes]
        seen = [made.reference.run(probe.reference, watch=None if not at else ()) for at, probe in enumerate(probes)]
        tolerances = [
            {site: floor.of(site) for site in _output_sites(capture)}
            for floor, capture in zip(floors, seen, strict=True)
        ]
        places = tuple(start[one.key] for one in draft.questions)
        titles = sides[0].title, sides[1].title
        return cls(draft.questions, manifests[0], made, probes, tuple(seen), tuple(tolerances), titles, places)

    def score(self, choice: Choice, is_inside: bool) -> Score:
        """Fill the candidate by these alternatives, and run it: on the first probe, and on the others where that agrees."""
        try:
            self.fill(choice)
            first = self.made.candidate.run(self.probes[0].candidate, watch=None if is_inside else ())
        except (UsageError, MorphError, ValueError):
            return FAILED
        error = self._error(0, first)
        shown = shared(self.seen[0], first, SAME.get(self.made.dtype, 1e-2)) if is_inside else 0.0
        held = int(error <= 1)
        for at in range(1, len(self.probes) if held else 0):
            held += self._error(at, self.made.candidate.run(self.probes[at].candidate, watch=())) <= 1
        return Score(held, shown, error)

    def fill(self, choice: Choice) -> None:
        """Put the weights of these alternatives into the candidate; what did not change stays."""
        for place, (question, new) in enumerate(zip(self.questions, choice, strict=True)):
            if new != self.filled[place]:
                plan = plan_of(question.alternatives[new].relations, self.manifest)
                self.made.candidate.fill(Bridge(plan).forward(self.made.state))
                self.filled = (*self.filled[:place], new, *self.filled[place + 1 :])

    def _error(self, at: int, right: Capture) -> float:
        """The largest error of an output over its tolerance; infinite where one cannot be compared."""
        left = self.seen[at]
        links, _ = output_links(left, right, None, self.titles)
        measures = measures_of(
            Alignment((), links).events(left, right), left, right, self.tolerances[at], self.probes[at].padding
        )
        if not measures or any(one.problem is not None for one in measures):
            return float("inf")
        allowed = SINGLE if self.made.dtype == "float64" else 1.0  # a table that one side computes in float32
        return max(one.error / (one.tolerance * allowed) for one in measures)


def plan_of(relations: Sequence[Relation], manifest: Manifest) -> Plan:
    """The plan that these relations are, on the tensors that they read. Raises ValueError for one that is no bijection.

    It holds moves and targets alone: what a bridge reads. Targets have the dtype of what they are made of; copies are not checked.
    """
    targets: dict[str, Target] = {}
    moves: list[Move] = []
    for one in relations:
        made = {name: TensorSpec(dtype_made(one, manifest), one.shape(part)) for part in one.right
                if isinstance(part, Part) for name in part.every}  # fmt: skip
        moves += moves_of(one, manifest, made)
        targets.update({name: Target(name, spec, "exact", 0, 0) for name, spec in made.items()})
    read = only(manifest, {name for one in relations for name in one.sources})
    return Plan(read, targets, tuple(moves), (), (), ())


def dtype_made(relation: Relation, manifest: Manifest) -> DType:
    """The dtype of what a relation makes: its constants' or its sources', after its casts."""
    kinds = [manifest[name].dtype for name in relation.sources]
    kinds += [one.dtype for one in relation.left if isinstance(one, Filled) and one.dtype is not None]
    found = kinds[0] if kinds else dtype("f32")
    for op in relation.operators:
        if op.name == "cast" and op.target is not None:
            found = dtype(op.target)
    return found


def shared(left: Capture, right: Capture, tolerance: float) -> float:
    """Of how many tensors that the reference computes the channels the candidate computes too, wherever and in whatever order.

    A channel is told by its sums (of x, x², x³) over all other axes, which do not see how these are laid out, and a fused tensor
    holds the channels of its parts. Each tensor counts by the part of its channels that is found.
    """
    there = {numel: _sorted(np.concatenate(rows)) for numel, rows in _channels(right).items()}
    count = 0.0
    for numel, tensors in _channels(left).items():
        if numel in there:
            count += sum(float(_is_in(rows, there[numel], tolerance).mean()) for rows in tensors)
    return count


def _channels(capture: Capture) -> dict[int, list[Array]]:
    """Elements in a channel -> of every floating tensor at a border, one row a channel: Σx, Σx², Σx³, and the same of |x|."""
    found: dict[int, list[Array]] = {}
    for value in {id(value): value for value in capture.values.values()}.values():
        if value.dtype.kind != "f" or value.ndim < 2 or value.size < 2:
            continue
        for axis in (value.ndim - 1, 1) if value.ndim == 4 else (value.ndim - 1,):
            x = np.moveaxis(value, axis, -1).astype(np.float64, copy=False).reshape(-1, value.shape[axis])
            with np.errstate(all="ignore"):
                square = x * x
                sums = [x.sum(0), square.sum(0), (square * x).sum(0), np.abs(x).sum(0), np.abs(square * x).sum(0)]
            rows = np.stack([*sums[:4], sums[1], sums[4]], axis=1)
            if np.isfinite(rows).all():
                found.setdefault(len(x), []).append(rows)
    return found


def _sorted(rows: Array) -> Array:
    return np.asarray(rows[np.argsort(rows[:, 0], kind="stable")])


def _is_in(rows: Array, known: Array, tolerance: float) -> Array:
    """Which rows are among those that are known (sorted by their first column)."""
    slack = tolerance * rows[:, 3:]
    first = np.searchsorted(known[:, 0], rows[:, 0] - slack[:, 0], side="left")
    found = np.zeros(len(rows), bool)
    for step in range(MOST_ALIKE):
        at = np.minimum(first + step, len(known) - 1)
        found |= (np.abs(known[at, :3] - rows[:, :3]) <= slack).all(axis=1)
    return found


def _output_sites(capture: Capture) -> list[Any]:
    return [Site("", 0, "out", number) for number in range(len(capture.outputs))]


def _decision(questions: Sequence[Question], found: Searched, trial: Trial) -> Decision:
    """What was found out, in words."""
    ran = f"{found.runs} runs of {trial.titles[1]} with weights drawn anew, in {trial.made.dtype}"
    if not found.score.held:
        nearest = "; ".join(
            f"{one.key}: {one.alternatives[place].words}" for one, place in zip(questions, found.best, strict=True)
        )
        return Decision(
            {},
            {},
            (
                f"in function nothing is decided: under no alternatives that were tried do the two agree ({ran})",
                f"they are nearest with {nearest}; `isomorph trace` with that morph says where they differ",
            ),
        )
    places = {one.key: found.best[at] for at, one in enumerate(questions) if at not in found.undecided}
    why = {
        one.key: f"in function: with it the outputs agree, else they differ by {found.refuted[at]:.0e} of what is allowed"
        for at, one in enumerate(questions)
    }
    notes = [f"in function: {len(places)} of {len(questions)} questions decided by {ran}"]
    if found.score.held < len(trial.probes):
        others = [probe.name for probe in trial.probes]
        notes.append(
            f"the two agree on {found.score.held} of {len(others)} inputs ({', '.join(others)}) whatever is chosen: "
            "`isomorph trace` with this morph says why"
        )
    notes += [
        f"{one.key}: several of its alternatives make the two agree on everything that was run; it stays open"
        for at, one in enumerate(questions)
        if at in found.undecided
    ]
    return Decision(places, why, tuple(notes))
