"""verify: Programs + source + target → Report. Streams; nothing is written; memory does not depend on the checkpoints' size."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence

from isomorph.collector import uncollected
from isomorph.errors import Gap, MorphError
from isomorph.formats.base import Checkpoint
from isomorph.language.rules import Program
from isomorph.language.tree import Op
from isomorph.tensors import Manifest, TensorSpec
from isomorph.verify.operators import classify
from isomorph.verify.regions import TARGET, Leaf, Region, part, trace
from isomorph.verify.report import Difference, Element, Report
from isomorph.verify.shown import element_text, place_of, source_text
from isomorph.verify.sizes import gap
from isomorph.verify.stage import Stage
from isomorph.verify.stream import Progress, Run, Tally, carry_out, first_leaf, tasks_of


def read_stages(
    programs: Sequence[Program],
    source: Manifest,
    *,
    config: Mapping[str, object] | None = None,
    sizes: Mapping[str, int] | None = None,
    cast: Op | None = None,
    through: Sequence[Collection[str] | None] | None = None,
) -> tuple[list[Stage], list[Gap], list[str]]:
    """The stages of a chain, one after the other; gaps where one does not apply (then the later ones are not read); notes.

    `through`: `source` holds what some tensors alone are made of; of what stage k + 1 makes of it, the next reads `through[k]`
    (None: all).
    """
    stages: list[Stage] = []
    notes: list[str] = []
    specs: Mapping[str, TensorSpec] = source
    ghosts: tuple[str, ...] = ()
    for number, program in enumerate(programs):
        last = cast if number == len(programs) - 1 else None
        stage = Stage(
            program, specs, level=number + 1, config=config or {}, given=sizes or {}, last=last, ghosts=ghosts
        )
        gaps = list(stage.gaps)
        for rule in stage.idle:
            if len(programs) == 1:
                gaps.append(gap("idle", rule, "no tensor of the source fits this rule"))
            else:
                notes.append(f"no name fits `{rule.origin.text}` ({rule.origin.file}:{rule.origin.line})")
        stages.append(stage)
        if gaps:
            return stages, gaps, notes
        if number + 1 < len(programs):
            if through is None:
                specs, ghosts = stage.specs, tuple(stage.unmade)
            else:  # what is made of these alone is made of nothing that could not be made
                kept = through[number] if number < len(through) else None
                specs = {name: spec for name, spec in stage.specs.items() if kept is None or name in kept}
    return stages, [], notes


def verify(
    programs: Sequence[Program],
    source: Checkpoint,
    target: Checkpoint,
    *,
    config: Mapping[str, object] | None = None,
    sizes: Mapping[str, int] | None = None,
    cast: Op | None = None,
    max_memory: int = 256 << 20,
    progress: Progress | None = None,
    only: Collection[str] | None = None,
    through: Sequence[Collection[str] | None] | None = None,
) -> Report:
    """Compare `target`, element by element and bit for bit, with what the programs make of `source`.

    A morph that does not apply is a failed Report (its `problems`), never a pass. Raises FormatError and SourceChanged for
    files that cannot be read, and FormatError where the source keeps checksums and its bytes are not those that were saved.
    `only`: the target holds these tensors of what is made and no others, and the source may hold what they are made of alone, so
    that rules may be idle. `through`, with such a source: see `read_stages`.
    """
    started = time.perf_counter()
    report = Report()
    with uncollected():
        _verify(programs, source, target, report, config or {}, sizes or {}, cast, max_memory, progress, only, through)
    report.seconds = time.perf_counter() - started
    return report


def _verify(
    programs: Sequence[Program],
    source: Checkpoint,
    target: Checkpoint,
    report: Report,
    config: Mapping[str, object],
    sizes: Mapping[str, int],
    cast: Op | None,
    max_memory: int,
    progress: Progress | None,
    only: Collection[str] | None,
    through: Sequence[Collection[str] | None] | None,
) -> None:
    try:
        stages, gaps, notes = read_stages(
            programs, source.manifest, config=config, sizes=sizes, cast=cast, through=through
        )
    except MorphError as error:
        report.problems.extend(error.gaps)
        return
    report.notes = tuple(notes)
    if not stages:
        report.problems.append(Gap("syntax", "no morph was given: nothing can be verified"))
        return
    gaps = [each for each in gaps if only is None or each.kind != "idle"]
    report.problems.extend(gaps)
    report.dropped = () if gaps else _dropped(stages, source.manifest)
    report.unmade = tuple(stages[-1].unmade)
    if not gaps:
        run = Run(stages, source, target, max(1 << 16, max_memory // 24), progress)
        source.keep_sums()
        _compare(run, report, only)
        source.check_sums()
        source.check_unchanged()
        target.check_unchanged()


def _dropped(stages: Sequence[Stage], source: Manifest) -> tuple[str, ...]:
    """The source names that nothing made is made of."""
    names: Collection[str] = stages[-1].tensors
    for stage in reversed(stages):
        names = stage.reaching(name for name in names if name in stage.tensors)
    return tuple(name for name in source if name not in names)


def _compare(run: Run, report: Report, only: Collection[str] | None) -> None:
    expected = {name: spec for name, spec in run.stages[-1].specs.items() if only is None or name in only}
    found = run.target.manifest
    report.specs = expected
    report.expected_tensors = len(expected)
    report.expected_elements = sum(spec.numel for spec in expected.values())
    report.expected_nbytes = sum(spec.nbytes for spec in expected.values())
    report.missing = [name for name in only or expected if name not in found or name not in expected]
    report.unexpected = [name for name in found if name not in expected]
    tallies: list[Tally] = []
    for name, spec in expected.items():
        if name not in found:
            continue
        if found[name] != spec:
            report.differences.append(Difference(name, spec.numel, problem=_spec_problem(found[name], spec)))
        else:
            tallies.append(Tally(name, spec))
    checks: list[Tally] = []
    carry_out(run, tasks_of(run, tallies, checks))
    for stage in run.stages:
        report.problems.extend(each for each in stage.gaps if each not in report.problems)
    report.checks = len(checks)
    for tally in checks:
        if tally.refused or tally.differing or tally.seen != tally.spec.numel:
            report.problems.append(_failed_check(run, tally))
    for tally in tallies:
        if tally.refused is not None:
            report.problems.append(_refusal(run, tally))
            continue
        if tally.disagrees:
            problem = "the verifier's two readings of the morph disagree here: a bug in isomorph, please report it"
            report.differences.append(Difference(tally.name, tally.spec.numel, problem=problem))
        elif tally.seen != tally.spec.numel:
            problem = f"only {tally.seen:,} of its {tally.spec.numel:,} elements could be compared"
            report.differences.append(Difference(tally.name, tally.spec.numel, problem=problem))
        elif tally.differing:
            report.differences.append(_difference(run, tally))
        kind = _class_of(run, tally.name)
        report.rounding += kind == "rounding"
        report.one_way += kind == "one-way"
        report.tensors += 1
        report.elements += tally.seen
        report.nbytes += tally.seen * tally.spec.dtype.nbytes
    if report.differences or report.missing or report.unexpected:
        from isomorph.verify.explain import explain

        explain(run, report)


def _refusal(run: Run, tally: Tally) -> Gap:
    """An element that cannot be what the morph says: an exact cast that would round, an overflow."""
    assert tally.refused is not None
    flat, why = tally.refused
    place = ", ".join(map(str, place_of(flat, tally.spec.shape)))
    return gap(
        "cast", run.stages[-1].tensors[tally.name].instance.rule, f"`{tally.name}`[{place}] = {why}", [tally.name]
    )


def _class_of(run: Run, name: str) -> str:
    stages = run.stages
    kinds = {"exact"}
    names = {name}
    for stage in reversed(stages):
        above: set[str] = set()
        for each in names:
            tensor = stage.tensors[each]
            kinds.add(classify(tensor.instance.rule, stage.last, tensor.spec.dtype))
            above.update(tensor.instance.names())
        names = {each for each in above if stage.level > 1 and each in stages[stage.level - 2].tensors}
    return "one-way" if "one-way" in kinds else "rounding" if "rounding" in kinds else "exact"


def _spec_problem(found: TensorSpec, expected: TensorSpec) -> str:
    if found.shape == expected.shape:
        return f"its dtype is {found.dtype}, expected {expected.dtype}"
    if found.dtype == expected.dtype:
        return f"its shape is {list(found.shape)}, expected {list(expected.shape)}"
    return f"it is {found}, expected {expected}"


def element_region(run: Run, name: str, flat: int) -> Region:
    """The region of one element of a target tensor."""
    kind = run.stages[-1].specs[name].dtype
    one = Region((), Leaf(TARGET, name, flat, (), kind), Leaf(len(run.stages), name, flat, (), kind))
    return next(trace(one, run.pieces))


def _element(run: Run, tally: Tally) -> Element:
    """The first element that differs, read once more by itself."""
    assert tally.region is not None and tally.first is not None
    region = tally.region
    bench = run.bench()
    one = region
    for axis, at in enumerate(tally.at):
        one = part(one, axis, at, at + 1)
    left, right = bench.sides(one.left, one.right, one.shape)
    kind = region.left.dtype
    found, expected = element_text(left.reshape(-1)[0], right.reshape(-1)[0], kind)
    return Element(
        place_of(tally.first, tally.spec.shape), found, expected, source_text(one.right, run.source.manifest)
    )


def _difference(run: Run, tally: Tally) -> Difference:
    return Difference(tally.name, tally.spec.numel, tally.differing, _element(run, tally))


def _failed_check(run: Run, tally: Tally) -> Gap:
    check = tally.check
    assert check is not None
    if tally.refused is not None:
        return gap(check.kind, check.rule, f"{check.what}: {tally.refused[1]}", [tally.name])
    if not tally.differing:
        return gap(check.kind, check.rule, f"{check.what}: it could not be read whole", [tally.name])
    assert tally.region is not None
    element = _element(run, tally)
    place = f"element {tally.first}"
    leaf = first_leaf(tally.region.left)
    if leaf is not None and leaf.level == 0 and tally.first is not None:
        place = f"{leaf.name}[{', '.join(map(str, place_of(tally.first, run.source.manifest[leaf.name].shape)))}]"
    count = "one element differs" if tally.differing == 1 else f"{tally.differing:,} elements differ"
    problem = f"{check.what}: {count}; {place} is {element.found}, not {element.expected} = {element.source}"
    return gap(check.kind, check.rule, problem, [tally.name])
