"""A morph that was written -> what can be held against it: read again, planned, read back, and verified on the values.

Nothing here trusts what wrote the text: it is parsed anew, the plan must make the target's names, shapes and dtypes from the
source's headers, the inverse must lead back, and where there are values, `verify` compares every element
by its own reading.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from isomorph.errors import MorphError
from isomorph.formats.base import Checkpoint
from isomorph.infer.factor.relation import as_rule_text
from isomorph.infer.nouns import Draft, Relation
from isomorph.infer.report import listed
from isomorph.infer.subset import Subset
from isomorph.language.morph import Morph
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest
from isomorph.verify.compare import verify
from isomorph.verify.report import Report

FILE = "port.morph"
"""What messages call the text, which is in no file yet."""


@dataclass(frozen=True)
class Checked:
    """`problems` is empty when the morph holds. `verified` counts the elements that were compared and equal."""

    problems: tuple[str, ...] = ()
    plan: Plan | None = None
    report: Report | None = None
    verified: int | None = None


@dataclass(frozen=True)
class Expected:
    """What a morph must do: make these targets, use all sources but these; `differing` targets are not as the target has them."""

    made: Collection[str]
    dropped: Collection[str]
    differing: Collection[str] = ()

    @classmethod
    def of(cls, draft: Draft, target: Manifest, differing: Collection[str] = ()) -> Expected:
        unplaced = frozenset(draft.unplaced)
        return cls([name for name in target if name not in unplaced], draft.dropped, differing)


def check(
    text: str,
    source: Checkpoint | Manifest,
    target: Checkpoint | Manifest,
    expected: Expected,
    *,
    config: Mapping[str, object] | None = None,
    max_memory: int = 256 << 20,
    progress: Callable[[int], object] | None = None,
) -> Checked:
    """Hold the text of a morph against both sides. Values are compared where both sides have them."""
    sources, targets = manifest(source), manifest(target)
    try:
        morph = Morph.parse(text, file=FILE)
        programs = morph.programs(config)
        plan = make_plan(programs, sources, config=config)
    except MorphError as refused:
        return Checked(tuple(str(gap) for gap in refused.gaps))
    has_values = isinstance(source, Checkpoint) and isinstance(target, Checkpoint)
    problems = [*_unlike(plan, targets, expected, with_dtypes=has_values), *_lost(plan, expected)]
    problems += _way_back(morph, plan, sources, targets, config)
    if problems or not (isinstance(source, Checkpoint) and isinstance(target, Checkpoint)):
        return Checked(tuple(problems), plan)
    report = verify(
        programs,
        source,
        Subset(target, expected.made),
        config=config,
        max_memory=max_memory,
        progress=progress,
    )
    problems, verified = _differences(report, expected)
    return Checked(tuple(problems), plan, report, None if problems else verified)


def holds(relation: Relation, source: Checkpoint, target: Checkpoint, *, max_memory: int = 256 << 20) -> bool:
    """Whether the values of the target are what the relation makes of the source's, bit for bit."""
    text, sources, targets = as_rule_text(relation)
    try:
        programs = Morph.parse(text + "\n", file="relation").programs(None)
    except MorphError:
        return False
    read, made = (Subset(side, _turned(names)) for side, names in ((source, sources), (target, targets)))
    report = verify(programs, read, made, max_memory=max_memory)
    return _differences(report, Expected(made.manifest, ()))[0] == []


def _turned(names: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in names.items()}


def manifest(side: Checkpoint | Manifest) -> Manifest:
    """The names and specs of a side."""
    return side.manifest if isinstance(side, Checkpoint) else side


def _unlike(plan: Plan, target: Manifest, expected: Expected, *, with_dtypes: bool) -> list[str]:
    made, wanted = plan.manifest, list(expected.made)
    problems = []
    lacking = [name for name in wanted if name not in made]
    extra = [name for name in made if name not in target]
    if lacking:
        problems.append(f"the morph does not make {listed(lacking)}")
    if extra:
        problems.append(f"the morph makes what the target does not have: {listed(extra)}")
    for name in wanted:
        if name in made and made[name].shape != target[name].shape:
            problems.append(f"the morph makes {name} {made[name].shown}; it is {target[name].shown}")
        elif with_dtypes and name in made and made[name].dtype != target[name].dtype:
            problems.append(f"the morph makes {name} in {made[name].dtype}; it is {target[name].dtype}")
    return problems


def _lost(plan: Plan, expected: Expected) -> list[str]:
    known = frozenset(expected.dropped)
    lost = [name for name in plan.dropped if name not in known]
    return [f"the morph drops what has a place in the target: {listed(lost)}"] if lost else []


def _way_back(
    morph: Morph, plan: Plan, source: Manifest, target: Manifest, config: Mapping[str, object] | None
) -> list[str]:
    """What the inverse, planned on the target's own names, does not give back of the source."""
    if any(rule.arrow != "<->" for rule in plan.rules if rule.left and rule.right):
        return []  # one-way rules have no way back, and say so
    try:
        back = make_plan(morph.inverse.programs(config), target, config=config)
    except MorphError as refused:
        return ["the way back is not proved: " + str(gap) for gap in refused.gaps]
    gone = frozenset((*plan.dropped, *plan.unmade, *back.unmade))
    lacking = [name for name in source if name not in gone and name not in back.targets]
    unlike = [name for name, one in back.targets.items() if name not in source or source[name].shape != one.spec.shape]
    problems = []
    if lacking:
        problems.append(f"the way back does not make {listed(lacking)}")
    if unlike:
        problems.append(f"the way back makes what the source does not have: {listed(unlike)}")
    return problems


def _differences(report: Report, expected: Expected) -> tuple[list[str], int]:
    """What verify said against it, and how many elements are equal; differences that were chosen do not count."""
    meant = frozenset(expected.differing)
    problems = [str(gap) for gap in report.problems]
    problems += [str(one) for one in report.differences if one.tensor not in meant]
    problems += [f"{name} is not made" for name in report.missing]
    problems += [f"{name} is made by nothing" for name in report.unexpected]
    if not problems and report.elements != report.expected_elements:
        problems.append(f"only {report.elements:,} of {report.expected_elements:,} elements could be compared")
    left_out = sum(one.numel for one in report.differences if one.tensor in meant)
    return problems, report.elements - left_out
