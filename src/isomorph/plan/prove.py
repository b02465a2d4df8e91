"""Programs + source Manifest (+ target Manifest) -> Plan, or one MorphError with every gap. Opens no file.

program ──stage──▶ ready rules ──match──▶ groups ──instances──▶ targets, moves, checks ──read back──▶ proved
each further program is applied to the manifest of the one before, and its moves are put through (chain.py)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isomorph.errors import Gap, MorphError, near_misses
from isomorph.language.names import TwoCuts, Unsized, Values
from isomorph.language.rules import Program, shown
from isomorph.language.tree import Op
from isomorph.plan.chain import substitute
from isomorph.plan.gaps import MOST_SHOWN, listed, rule_gap
from isomorph.plan.instances import Made, Maker, made_manifest
from isomorph.plan.like import unlike
from isomorph.plan.match import Group, Matcher, Matching, match_names
from isomorph.plan.plan import Plan, Target
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
) -> Plan:
    """Prove that the programs, one after the other, carry every tensor of `source`, and say how.

    `sizes` are axis sizes from outside (`--set`): they win over every `where`. `cast` is one operator that acts after everything
    else of the last program. `like` is a target's manifest: names, shapes and dtypes made must be its own.

    Raises MorphError with every gap that can be found (LANGUAGE.md 3, statement 19).
    """
    if not programs:
        raise ValueError("a plan needs at least one program")
    config, sizes = config or {}, sizes or {}
    manifest: Manifest = source
    before: Made | None = None
    warnings: list[str] = []
    idle_later: list[str] = []
    unmade: list[str] = []
    gaps: list[Gap] = []
    stages: list[Stage] = []
    taken: dict[int, tuple[str, ...]] = {}
    for number, program in enumerate(programs):
        is_last = number == len(programs) - 1
        stage = make_stage(program, config, sizes)
        stages.append(stage)
        gaps.extend(stage.gaps)
        if stage.gaps:
            break
        base = sum(len(done.rules) for done in stages[:-1])
        made, matching = _prove_stage(
            stage, manifest, frozenset(unmade), cast if is_last else None, number, base, idle_later
        )
        gaps.extend(made.gaps)
        unmade.extend(made.unmade)
        warnings.extend(_warnings(stage, made))
        taken = {rule: tuple(_keys(groups)) for rule, groups in matching.groups.items()}
        if gaps:
            break  # the next stage would only repeat what is wrong here
        before = made if before is None else substitute(before, made)
        manifest = made_manifest(made, origin=f"stage {number + 1}")
    unknown = sorted(set(sizes) - {shown(axis) for stage in stages for rule in stage.rules for axis in rule.axes})
    if unknown and len(stages) == len(programs):
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
    return _plan(source, before, stages, warnings, idle_later, unmade, taken)


def _did_you_mean(likely: Sequence[str], axes: Sequence[str]) -> str:
    if likely:
        return f"Did you mean {' or '.join(likely)}?"
    return f"The axes are: {', '.join(axes[:MOST_SHOWN])}"


def _prove_stage(
    stage: Stage,
    manifest: Manifest,
    lost: frozenset[str],
    cast: Op | None,
    number: int,
    base: int,
    idle_later: list[str],
) -> tuple[Made, Matching]:
    matching = match_names(stage, manifest)
    order = sorted(
        (group for groups in matching.groups.values() for group in groups),
        key=_first_place({n: k for k, n in enumerate(manifest)}),
    )
    made = Maker(stage, manifest, lost, cast, base).make(matching, order)
    front: list[Gap] = []
    front.extend(
        rule_gap(
            rule.rule,
            "open",
            "this alternative is open (`?`): the plan waits for a decision",
            details=(f"open: {rule.rule.origin.text}",),
            hint="Keep one of the alternatives without its `?`, and delete the others",
        )
        for rule in stage.rules
        if rule.rule.open
    )
    front.extend(matching.gaps)
    front.extend(_unmatched(stage, matching, manifest))
    for rule in stage.rules:
        if (
            rule.left
            and not rule.rule.maybe
            and not rule.is_against
            and not rule.rule.open
            and rule.number not in matching.groups
        ):
            if number == 0:
                front.append(_idle(stage, rule.number, manifest))
            else:
                idle_later.append(f"{rule.rule.origin.text}  (line {rule.rule.origin.line})")
    made.gaps[:0] = front
    if not any(rule.rule.open for rule in stage.rules):
        made.gaps.extend(_read_back(stage, made))
    return made, matching


def _first_place(places: Mapping[str, int]):  # type: ignore[no-untyped-def] # a sort key
    def key(group: Group) -> int:
        return min(places[name] for part in group.parts for name in part.values())

    return key


def _keys(groups: Sequence[Group]) -> list[str]:
    return [name for group in groups for part in group.parts for name in part.values()]


# ── what is left over ────────────────────────────────────────────────────────────────────────────────────────────────


def _unmatched(stage: Stage, matching: Matching, manifest: Manifest) -> list[Gap]:
    if not matching.unmatched:
        return []
    names = matching.unmatched
    details = [f"`{name}` {manifest[name].shown}{_nearest(stage, name)}" for name in names[:MOST_SHOWN]]
    if len(names) > MOST_SHOWN:
        details.append(f"… and {len(names) - MOST_SHOWN} more: {listed(names[MOST_SHOWN:], 60)}")
    hint = "To leave out what is not wanted, add:  drop " + ", ".join(_quoted(name) for name in names[:3])
    turned = _fits_the_other_way(stage, manifest) if not matching.groups else 0
    if turned:
        whole = "all" if turned == len(manifest) else f"{turned} of"
        hint = (
            f"No tensor fits a left side, {whole} {len(manifest)} fit a right side: this is already the target layout. "
            "Did you mean --inverse?"
        )
    count = "1 tensor has" if len(names) == 1 else f"{len(names)} tensors have"
    file = stage.program.file
    return [
        Gap(
            "unmatched",
            f"{count} no rule",
            file=None if file == "<morph>" else file,
            details=tuple(details),
            hint=hint,
            tensors=tuple(names),
        )
    ]


def _quoted(name: str) -> str:
    plain = name and not any(character in ' ,[]{}*"#' or not character.isprintable() for character in name)
    if plain and not name.endswith(":") and name not in ("drop", "arange"):
        return name
    return '"' + "".join("\\" + c if c in '"\\{*' else c for c in name) + '"'


def _nearest(stage: Stage, name: str) -> str:
    texts = {term.pattern.text: rule for rule in stage.rules for term in rule.left}
    generalised = ".".join("{l}" if piece.isdigit() else piece for piece in name.split("."))
    for shape in (name, generalised):
        likely = near_misses(shape, (text for text in texts if text not in ("**", "*")), 1)
        if likely:
            line = texts[likely[0]].rule.origin.line
            return f" (did you mean `{likely[0]}`, line {line}?)"
    return ""


def _fits_the_other_way(stage: Stage, manifest: Manifest) -> int:
    matcher = Matcher(stage.inverse)
    count = 0
    for name in manifest:
        try:
            count += matcher.take(name) is not None
        except (TwoCuts, Unsized, MorphError):
            continue
    return count


def _idle(stage: Stage, number: int, manifest: Manifest) -> Gap:
    rule = stage.rules[number]
    above = [other for other in stage.rules[:number] if other.left]
    details: list[str] = []
    for term in rule.left:
        for name in manifest:
            try:
                fits = term.pattern.read(name) is not None
            except (TwoCuts, Unsized):
                continue
            if fits:
                taker = _taker(above, name)
                if taker is not None:
                    details.append(f"`{name}` fits, but line {taker.origin.line} took it:  {taker.origin.text}")
                break
        else:
            likely = near_misses(term.pattern.text, manifest, 1) if len(manifest) <= 20000 else ()
            if likely:
                details.append(f"no tensor is called {term.pattern.text} (did you mean `{likely[0]}`?)")
    return rule_gap(
        rule.rule,
        "idle",
        f"no tensor fits this rule:  {rule.rule.origin.text}",
        details=details,
        hint="Mend its name, move it above the general rule that hides it, or let it be absent: `?` after the arrow or after drop",
    )


def _taker(above, name: str):  # type: ignore[no-untyped-def] # returns a Rule
    for rule in above:
        for term in rule.left:
            try:
                if term.pattern.read(name) is not None:
                    return rule.rule
            except (TwoCuts, Unsized):
                continue
    return None


# ── read-back ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_back(stage: Stage, made: Made) -> list[Gap]:
    """Statement 20: every name that is made goes back to its own rule, its own term and its own values."""
    gaps: list[Gap] = []
    matcher = Matcher(stage.inverse)
    twice = set(made.written_twice)
    for name, (rule, term, values) in made.made_by.items():
        if name in twice:
            continue
        try:
            taken = matcher.take(name)
        except TwoCuts as error:
            gaps.append(
                rule_gap(
                    rule.rule, "two-cuts", f"`{name}`, which this rule makes, can be read back in two ways by {error.pattern}",
                    tensors=(name,),
                )
            )  # fmt: skip
            continue
        except Unsized as error:
            axis = shown(error.axes[0])
            gaps.append(
                rule_gap(
                    rule.rule,
                    "size",
                    f"`{name}` cannot be read back while the size of {axis} is not known",
                    find=axis,
                    hint=f"Give it: --set {axis}=N, or  where {axis}=…",
                    tensors=(name,),
                )
            )
            continue
        if rule.rule.arrow == "->":
            if taken is None or taken.rule.rule.arrow != "<->":
                continue
        elif taken is not None and taken.rule.number == rule.number:
            back = taken.rule.left[taken.part]
            if back.index == term and _same(taken.values, values):
                continue
        gaps.append(_readback_gap(rule.rule, name, taken))
        if len(gaps) >= MOST_SHOWN:
            break
    return gaps


def _same(values: Values, expected: Mapping[str, object]) -> bool:
    return all(expected.get(axis) == value for axis, value in values.items())


def _readback_gap(rule, name: str, taken) -> Gap:  # type: ignore[no-untyped-def] # a Rule, a Taken or None
    if taken is None:
        back, hint = "by no rule", "Write its name so that this rule reads it back"
    elif taken.rule.rule.number == rule.number:
        back, hint = "by the same rule with other values", "Write the holes so that one name has one reading"
    else:
        other = taken.rule.rule.origin
        back = f"by line {other.line}:  {other.text}"
        hint = (
            "Make the two right sides disjoint, move the special rule above the general one, or make the rule one-way"
        )
    return rule_gap(
        rule,
        "readback",
        f"`{name}`, made by  {rule.origin.text}  would be read back {back}",
        hint=hint,
        tensors=(name,),
    )


# ── the plan ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    moves = tuple(move for name in targets for move in made.moves[name])
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
        lossy=tuple(stages[-1].program.rules[number].origin.text for number in sorted(made.lossy_rules)),
        idle_later=tuple(idle_later),
        taken_by_general=taken,
    )
