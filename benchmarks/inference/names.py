"""By names only: what is stated, rightly and wrongly, and what is asked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conversions import UNMADE, Example
from judged import truth_of
from proposal_truth import LOST, Truth, Verdict, judge

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.nouns import Proposed

STATES = ("right", "wrong", "asked", "asked without the truth", "unplaced")


@dataclass
class Row:
    """One example. `orientation` and `order` count the same states, of matrices, and of what is fused, split or stacked."""

    name: str
    targets: int
    states: Counter[str]
    sources: Counter[str]
    orientation: Counter[str] = field(default_factory=Counter)
    order: Counter[str] = field(default_factory=Counter)
    questions: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    """Targets asked about without the truth among the alternatives."""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return {key: dict(one) if isinstance(one, Counter) else one for key, one in vars(self).items()}


def row(example: Example, *, catalogue: bool) -> Row:
    """What names say of an example."""
    from isomorph.infer.by_name.propose import propose

    began = time.perf_counter()
    source, target = (ArrayCheckpoint(arrays).manifest for arrays in (example.source, example.target))
    try:
        proposed = propose(source, target, configs=example.configs, use_catalogue=catalogue)
    except Exception as error:  # a benchmark lists what fails, and goes on
        return Row(str(example), len(target), Counter(), Counter(), error=f"{type(error).__name__}: {error}"[:300])
    return scored(example, proposed, time.perf_counter() - began)


def scored(example: Example, proposed: Proposed, seconds: float) -> Row:
    """A proposal held against the truth."""
    truth = truth_of(example)
    made = [name for name, numbers in example.truth.items() if not (numbers == UNMADE).any()]
    score = judge(proposed, truth, made)
    kinds = kinds_of(truth)
    by_kind: Mapping[str, Counter[str]] = {kind: Counter() for kind in ("orientation", "order", "plain")}
    for one in score.verdicts:
        by_kind[kinds[one.target]][one.state] += 1
    invented = [
        name
        for relation in proposed.relations
        for name in relation.targets
        if name in example.truth and name not in made
    ]
    states = Counter(one.state for one in score.verdicts)
    states["wrong"] += len(invented)
    return Row(
        str(example),
        len(made),
        states,
        Counter(one.sources for one in score.verdicts),
        by_kind["orientation"],
        by_kind["order"],
        len(proposed.questions),
        seconds,
        [said(one) for one in score.verdicts if one.state == "wrong"]
        + [f"{name}: nothing makes it" for name in invented],
        [said(one) for one in score.verdicts if one.state == "asked without the truth"],
    )


def said(verdict: Verdict) -> str:
    """A verdict in a line."""
    return f"{verdict.target}: {verdict.about} ({verdict.evidence})"


def kinds_of(truth: Truth) -> dict[str, str]:
    """What there is to decide of each target: how a matrix lies, in what order parts stand, or nothing but its source."""
    sources = {name: truth.numbers.tensors(numbers) - {"="} for name, numbers in truth.targets.items()}
    users = Counter(one for name, found in sources.items() for one in found if not (truth.targets[name] == LOST).all())
    found: dict[str, str] = {}
    for name, numbers in truth.targets.items():
        shared = len(sources[name]) == 1 and any(
            users[one] > 1 and truth.numbers.source[one].shape != numbers.shape for one in sources[name]
        )
        if len(sources[name]) > 1 or shared:
            found[name] = "order"
        else:
            found[name] = "orientation" if sum(size > 1 for size in numbers.shape) > 1 else "plain"
    return found
