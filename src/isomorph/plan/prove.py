"""Programs + source Manifest (+ target Manifest) -> Plan, or one MorphError with every gap. Opens no file.

program ──stage──▶ ready rules ──match──▶ groups ──instances──▶ targets, moves, checks ──read back──▶ proved
each further program is applied to the manifest of the one before, and its moves are put through (chain.py)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from isomorph.collector import uncollected
from isomorph.errors import Gap, MorphError, near_misses
from isomorph.language.rules import Program, shown
from isomorph.language.tree import Op
from isomorph.plan.chain import substitute
from isomorph.plan.direction import wrong_way
from isomorph.plan.gaps import MOST_SHOWN, rule_gap
from isomorph.plan.instances import Made, Maker, made_manifest
from isomorph.plan.leftovers import idle_gaps, unmatched_gaps
from isomorph.plan.like import unlike
from isomorph.plan.match import Group, Matching, match_names
from isomorph.plan.moves import names_of
from isomorph.plan.plan import Link, Plan, Target
from isomorph.plan.readback import read_back
from isomorph.plan.stage import Stage, make_stage
from isomorph.tensors import Manifest


def make_plan(
    programs: Sequence[Program],
    source: Manifest,
    *,
    config: Mapping[str, object] | None = None,
    sizes: Mapping[str, int] | None = None,
    cast: Op | None = None,
    like: Manifest | None = None,
    is_part: bool = False,
    through: Sequence[Collection[str] | None] = (),
) -> Plan:
    """Prove that the programs, one after the other, carry every tensor of `source`, and say how.

    `sizes` are axis sizes from outside (`--set`): they win over every `where`. `cast` is one operator that acts after everything
    else of the last program. `like` is a target's manifest: names, shapes and dtypes made must be its own. `is_part`: `source`
    holds the tensors of some instances of a plan that was proved whole, so that rules may be idle; of what stage k + 1 makes of
    them, `through[k]` go further (`needs.py`; None: all).

    Raises MorphError with every gap that can be found (LANGUAGE.md 3, statement 19).
    """
    if not programs:
        raise ValueError("a plan needs at least one program")
    with uncollected():
        return _make_plan(programs, source, config, sizes, cast, like, is_part, through)


def _make_plan(
    programs: Sequence[Program],
    source: Manifest,
    config: Mapping[str, object] | None,
    sizes: Mapping[str, int] | None,
    cast: Op | None,
    like: Manifest | None,
    is_part: bool,
    through: Sequence[Collection[str] | None],
) -> Plan:
    config, sizes = config or {}, sizes or {}
    manifest: Manifest = source
    before: Made | None = None
    warnings: list[str] = []
    idle_later: list[str] = []
    unmade: list[str] = []
    gaps: list[Gap] = []
    stages: list[Stage] = []
    is_chain_backward = len(programs) > 1 and all(program.is_inverse for program in programs)
    taken: dict[int, tuple[str, ...]] = {}
    links: list[tuple[Link, ...]] = []
    for number, program in enumerate(programs):
        is_last = number == len(programs) - 1
        stage = make_stage(program, config, sizes)
        stages.append(stage)
        gaps.extend(stage.gaps)
        if stage.gaps:
            break
        base = sum(len(done.rules) for done in stages[:-1])
        made, matching = _prove_stage(
            stage,
            manifest,
            frozenset(unmade),
            cast if is_last else None,
            number == 0 and not is_chain_backward and not is_part,
            base,
            idle_later,
        )
        if number == 0 and any(gap.kind in ("unmatched", "idle") for gap in made.gaps):
            turned = wrong_way(stage, matching, programs[-1].inverse, manifest, config, sizes)
            if turned is not None:
                raise MorphError([turned])
        gaps.extend(made.gaps)
        unmade.extend(made.unmade)
        warnings.extend(_warnings(stage, made))
        taken = {rule: tuple(_keys(groups)) for rule, groups in matching.groups.items()}
        if gaps:
            break  # the next stage would only repeat what is wrong here
        before = made if before is None else substitute(before, made)
        if not is_last:
            links.append(_links(made))
            only = through[number] if number < len(through) else None
            manifest = made_manifest(made, origin=f"stage {number + 1}", only=only)
    unknown = sorted(set(sizes) - {shown(axis) for stage in stages for rule in stage.rules for axis in rule.axes})
    if unknown and len(stages) == len(programs) and not any(stage.gaps for stage in stages):
        axes = sorted(
            {shown(axis) for stage in stages for rule in stage.rules for axis in rule.axes if axis[0].isalpha()}
        )
        gaps.extend(
            Gap(
                "size", f"--set {axis}: no rule has an axis `{axis}`", hint=_did_you_mean(near_misses(axis, axes), axes)
            )
            for axis in unknown
        )
    if like is not None and not gaps and before is not None:
        gaps.extend(unlike(before.targets, like))
    if gaps:
        raise MorphError(gaps)
    assert before is not None
    plan = _plan(source, before, stages, warnings, idle_later, unmade, taken)
    return replace(plan, programs=tuple(programs), config=config, sizes=sizes, cast=cast, before=tuple(links))


def _links(made: Made) -> tuple[Link, ...]:
    """The instances of a stage that another follows."""
    checked = {name for check in made.checks for side in (check.source, check.expected) for name in names_of(side)}
    return tuple(Link(one.sources, one.targets, not checked.isdisjoint(one.sources)) for one in made.instances)


def _did_you_mean(likely: Sequence[str], axes: Sequence[str]) -> str:
    if likely:
        return f"Did you mean {' or '.join(likely)}?"
    if not axes:
        return "No rule names an axis; a size is given to the axes of a morph (-m M.morph) or a layout (--to)"
    return f"The axes are: {', '.join(axes[:MOST_SHOWN])}"


def _prove_stage(
    stage: Stage,
    manifest: Manifest,
    lost: frozenset[str],
    cast: Op | None,
    idle_is_error: bool,
    base: int,
    idle_later: list[str],
) -> tuple[Made, Matching]:
    matching = match_names(stage, manifest)
    made = Maker(stage, manifest, lost, cast, base).make(matching)
    front: list[Gap] = []
    idle: list[int] = []
    front.extend(
        rule_gap(
            rule.rule,
            "open",
            "this alternative is open (`?`): the plan waits for a decision",
            hint="Keep one of the alternatives without its `?`, and delete the others",
        )
        for rule in stage.rules
        if rule.rule.open
    )
    front.extend(matching.gaps)
    front.extend(unmatched_gaps(stage, matching.unmatched, manifest))
    for rule in stage.rules:
        if (
            rule.left
            and not rule.rule.maybe
            and not rule.is_against
            and not rule.rule.open
            and rule.number not in matching.groups
            and rule.number not in matching.unread
        ):
            if idle_is_error:
                idle.append(rule.number)
            else:
                idle_later.append(f"{rule.rule.origin.text}  (line {rule.rule.origin.line})")
    made.gaps[:0] = [*front, *idle_gaps(stage, idle, manifest)]
    if not any(rule.rule.open for rule in stage.rules):
        made.gaps.extend(read_back(stage, made))
    return made, matching


def _keys(groups: Sequence[Group]) -> list[str]:
    found: list[str] = []
    for group in groups:
        if isinstance(group.held, str):
            found.append(group.held)
        else:
            found.extend(name for part in group.held for name in part.values())
    return found


def _warnings(stage: Stage, made: Made) -> list[str]:
    found = []
    for (number, axis), count in made.unbound.items():
        rule = stage.rules[number].rule
        name = shown(axis)
        found.append(
            f"line {rule.origin.line}: {name} counts {count} by what is there; a missing last one would not be seen "
            f"(bind it:  where {name}=config.… , or use --like)"
        )
    return found


def _plan(
    source: Manifest,
    made: Made,
    stages: Sequence[Stage],
    warnings: Sequence[str],
    idle_later: Sequence[str],
    unmade: Sequence[str],
    taken: Mapping[int, tuple[str, ...]],
) -> Plan:
    used = set(made.used)
    for check in made.checks:
        if check.kind == "tie":
            one, other = getattr(check.source, "tensor", None), getattr(check.expected, "tensor", None)
            if one in used or other in used:
                used.update(name for name in (one, other) if name is not None)
    dropped = tuple(name for name in source if name not in used)
    targets: dict[str, Target] = made.targets
    rules = tuple(rule for stage in stages for rule in stage.program.rules)
    moves = tuple(chain.from_iterable(map(made.moves.__getitem__, targets)))
    return Plan(
        source=source,
        targets=targets,
        moves=moves,
        checks=tuple(made.checks),
        rules=rules,
        instances=tuple(made.instances),
        dropped=dropped,
        unmade=tuple(dict.fromkeys(unmade)),
        warnings=tuple(warnings),
        lossy=tuple(rules[number].origin.text for number in sorted(made.lossy_rules)),
        idle_later=tuple(idle_later),
        last_stage=len(stages[-1].program.rules),
        taken_by_general=taken,
    )
