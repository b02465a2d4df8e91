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
from isomorph.infer.nouns import Draft, Question
from isomorph.infer.report import listed
from isomorph.infer.run import Decide, Decision
from isomorph.job.choice_search import FAILED, Choice, Runs, Score, Searched, climb, search
from isomorph.job.relation_plan import plan_of
from isomorph.job.shared_channels import shared
from isomorph.job.trace import read_inputs
from isomorph.job.traced_models import known_facts
from isomorph.tensors import Manifest
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


def decider(first: Given, second: Given, *, inputs: Any = None) -> Decide:
    """What decides the questions between these two models. Raises UsageError for what cannot be run."""
    sides = side_of(first.model), side_of(second.model)

    def decide(draft: Draft) -> Decision:
        probes = _probes(first, second, sides, inputs)
        supposed_places = supposed(draft)
        start = tuple(supposed_places[one.key] for one in draft.questions)
        matrices = [at for at, one in enumerate(draft.questions) if not _is_of_vectors(one, sides[0].manifest())]
        if 0 < len(matrices) < len(draft.questions):
            start = _matrices_first(draft, sides, probes, start, matrices)
        trial = Trial.of(draft, sides, probes)
        found = search([len(one.alternatives) for one in draft.questions], start, Runs(trial.score))
        return _decision(draft, found, trial)

    return decide


def _matrices_first(
    draft: Draft, sides: tuple[Side, Side], probes: tuple[Probe, ...], start: Choice, matrices: Sequence[int]
) -> Choice:
    """Where to start: with what matrices show by themselves, while biases and norms that are asked for too are all of one value.

    The fused weight of q, k and v and its bias are two questions, and neither shows anything while the other is answered wrongly.
    A vector of one value is the same in whatever order.
    """
    manifest = sides[0].manifest()
    asked = [one for at, one in enumerate(draft.questions) if at not in matrices]
    level = {name for one in asked for each in one.alternatives for it in each.relations for name in it.sources}
    trial = Trial.of(draft, sides, probes[:1], frozenset(name for name in level if name in manifest))

    def score(choice: Choice, is_inside: bool) -> Score:
        return trial.score(_with(start, matrices, choice), is_inside)

    sizes = [len(draft.questions[at].alternatives) for at in matrices]
    best = climb(sizes, tuple(start[at] for at in matrices), Runs(score))
    return _with(start, matrices, best)


def _with(choice: Choice, places: Sequence[int], new: Choice) -> Choice:
    changed = dict(zip(places, new, strict=True))
    return tuple(changed.get(at, one) for at, one in enumerate(choice))


def _is_of_vectors(question: Question, manifest: Manifest) -> bool:
    """Whether it is about tensors of one axis alone: biases, norms."""
    names = {name for one in question.alternatives for each in one.relations for name in each.sources}
    return all(sum(size > 1 for size in manifest[name].shape) <= 1 for name in names)


@dataclass(frozen=True)
class Levelled(Regime):
    """A regime in which some tensors have one value throughout, of the size that theirs were drawn with."""

    level: frozenset[str] = frozenset()

    def state(
        self, reference: Side, seed: int = 0, probe: Probe | None = None, copies: tuple[Side, Side] | None = None
    ) -> dict[str, Array] | None:
        made = super().state(reference, seed, probe, copies)
        for name in sorted(self.level) if made is not None else ():
            assert made is not None
            value = np.asarray(made[name], np.float64)
            size = float(np.float32(np.sqrt(np.mean(value * value)))) if value.size else 0.0
            made[name] = np.full(value.shape, size)
        return made


def _probes(first: Given, second: Given, sides: tuple[Side, Side], inputs: Any) -> tuple[Probe, ...]:
    if inputs is not None:
        return (given_probe(*sides, read_inputs(inputs)),)
    facts = known_facts((first.model, second.model), (first.manifest, second.manifest), first.config)
    made = make_probes(*sides, facts)
    if made.refused is not None:
        raise made.refused
    return made.probes


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
    def of(
        cls, draft: Draft, sides: tuple[Side, Side], probes: tuple[Probe, ...], level: frozenset[str] = frozenset()
    ) -> Trial:
        """`level`: reference tensors that get one value throughout.

        Raises UsageError where a model does not run, ValueError where the relations that stand make no map.
        """
        manifests = sides[0].manifest(), sides[1].manifest()
        start = supposed(draft)
        whole = decided(draft, start, "function", *manifests)
        bridge = Bridge(plan_of(whole.relations, manifests[0]))
        made, _ = prepared(*sides, bridge, probes[0], None)
        made.fill(Levelled("hot", HOT, level), sides[0], probes[0], SEED)
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
                own = {
                    name: self.made.own[1][name] for name in question.targets
                }  # of what this alternative does not make
                self.made.candidate.fill({**own, **Bridge(plan).forward(self.made.state)})
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


def _output_sites(capture: Capture) -> list[Any]:
    return [Site("", 0, "out", number) for number in range(len(capture.outputs))]


def _decision(draft: Draft, found: Searched, trial: Trial) -> Decision:
    """What was found out, in words."""
    questions = draft.questions
    ran = f"{found.runs} runs of {trial.titles[1]} with weights drawn anew, in {trial.made.dtype}"
    if not found.score.held:
        nearest = "; ".join(
            f"{one.key}: {one.alternatives[place].words}" for one, place in zip(questions, found.best, strict=True)
        )
        own = f"; {listed(draft.unplaced)} kept the values of DST, for nothing makes them" if draft.unplaced else ""
        return Decision(
            {},
            {},
            (
                f"in function nothing is decided: under no alternatives that were tried do the two agree ({ran}){own}",
                f"they are nearest with {nearest}; `isomorph trace` with that morph says where they differ",
            ),
        )
    places = {one.key: found.best[at] for at, one in enumerate(questions) if at not in found.undecided}
    why = {one.key: "the two agree in function" for one in questions}
    least = min((found.refuted[at] for at, one in enumerate(questions) if one.key in places), default=0.0)
    others = f"; under any other the outputs differ by {least:.0e} times what is allowed, or more" if places else ""
    notes = [f"in function: {len(places)} of {len(questions)} questions decided by {ran}{others}"]
    if found.score.held < len(trial.probes):
        ran_on = ", ".join(probe.name for probe in trial.probes)
        notes.append(
            f"the two agree on {found.score.held} of {len(trial.probes)} inputs ({ran_on}) whatever is chosen: "
            "`isomorph trace` with this morph says why"
        )
    notes += [
        f"{one.key}: several of its alternatives make the two agree on everything that was run; it stays open"
        for at, one in enumerate(questions)
        if at in found.undecided
    ]
    return Decision(places, why, tuple(notes))
