"""verify: Programs + source + target → Report. Streams; nothing is written; memory does not depend on the checkpoints' size."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from isomorph.collector import uncollected
from isomorph.errors import Gap, MorphError
from isomorph.formats.base import Checkpoint
from isomorph.language.rules import Program
from isomorph.language.tree import Op
from isomorph.tensors import Manifest, TensorSpec
from isomorph.verify.evaluate import Bench
from isomorph.verify.operators import CannotCarryOut, classify
from isomorph.verify.regions import TARGET, Leaf, Made, Node, Region, coalesced, leaves, part, trace
from isomorph.verify.report import Difference, Element, Report
from isomorph.verify.shown import element_text, place_of, source_text
from isomorph.verify.sizes import gap
from isomorph.verify.stage import Check, Stage
from isomorph.verify.tiles import tiles
from isomorph.verify.values import BadConstant
from isomorph.verify.witness import agrees

RUN_NBYTES = 1 << 20
"""Both sides one run: so many bytes at a time, which the cache holds."""
THREADS = 2
MOST_AT_ONCE = 256
"""Tiles that a thread takes at a time."""
ALONE_NBYTES = 32 << 20
"""Less than this is compared in one thread: two would only wait for each other."""
MOST_WITNESSED = 5_000
"""Regions confirmed by the plain reading of their corners; of more, every so many-th."""

Progress = Callable[[int], object]
"""Called with the number of bytes of the target just compared; from any of the threads."""


@dataclass
class Tally:
    """What was seen of one tensor (or one check). Guarded by the lock of its run."""

    name: str
    spec: TensorSpec
    check: Check | None = None
    seen: int = 0
    differing: int = 0
    first: int | None = None
    region: Region | None = None
    at: tuple[int, ...] = ()
    refused: tuple[int, str] | None = None
    disagrees: bool = False


@dataclass
class Run:
    """One verification under way."""

    stages: list[Stage]
    source: Checkpoint
    target: Checkpoint
    most_nbytes: int
    progress: Progress | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: bool = False
    error: BaseException | None = None

    def bench(self) -> Bench:
        return Bench({0: self.source, TARGET: self.target})

    def pieces(self, level: int, name: str) -> list[Region]:
        return self.stages[level - 1].pieces(name)

    def regions(self, name: str) -> Iterator[Region]:
        """What tensor `name` of the target must be, back to the source."""
        for piece in self.stages[-1].pieces(name):
            under_test = piece.left
            assert isinstance(under_test, Leaf)
            left = Leaf(TARGET, name, under_test.offset, under_test.strides, under_test.dtype)
            yield from trace(Region(piece.shape, left, piece.right), self.pieces)


def read_stages(
    programs: Sequence[Program],
    source: Manifest,
    *,
    config: Mapping[str, object] | None = None,
    sizes: Mapping[str, int] | None = None,
    cast: Op | None = None,
) -> tuple[list[Stage], list[Gap], list[str]]:
    """The stages of a chain, one after the other; gaps where one does not apply (then the later ones are not read); notes."""
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
        specs, ghosts = stage.specs, tuple(stage.unmade)
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
) -> Report:
    """Compare `target`, element by element and bit for bit, with what the programs make of `source`.

    A morph that does not apply is a failed Report (its `problems`), never a pass. Raises FormatError and SourceChanged for
    files that cannot be read, and FormatError where the source keeps checksums and its bytes are not those that were saved.
    """
    started = time.perf_counter()
    report = Report()
    with uncollected():
        _verify(programs, source, target, report, config or {}, sizes or {}, cast, max_memory, progress)
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
) -> None:
    try:
        stages, gaps, notes = read_stages(programs, source.manifest, config=config, sizes=sizes, cast=cast)
    except MorphError as error:
        report.problems.extend(error.gaps)
        return
    report.notes = tuple(notes)
    if not stages:
        report.problems.append(Gap("syntax", "no morph was given: nothing can be verified"))
        return
    report.problems.extend(gaps)
    report.dropped = () if gaps else _dropped(stages, source.manifest)
    report.unmade = tuple(stages[-1].unmade)
    if not gaps:
        run = Run(stages, source, target, max(1 << 16, max_memory // 24), progress)
        source.keep_sums()
        _compare(run, report)
        source.check_sums()
        source.check_unchanged()
        target.check_unchanged()


def _dropped(stages: Sequence[Stage], source: Manifest) -> tuple[str, ...]:
    """The source names that nothing made is made of."""
    names: set[str] = set(stages[-1].specs)
    for stage in reversed(stages):
        names = stage.reaching(name for name in list(names) if name in stage.tensors)
    return tuple(name for name in source if name not in names)


def _compare(run: Run, report: Report) -> None:
    expected = run.stages[-1].specs
    found = run.target.manifest
    report.specs = expected
    report.expected_tensors = len(expected)
    report.expected_elements = sum(spec.numel for spec in expected.values())
    report.expected_nbytes = sum(spec.nbytes for spec in expected.values())
    report.missing = [name for name in expected if name not in found]
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
    _carry_out(run, _tasks(run, tallies, checks))
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


def _tasks(run: Run, tallies: list[Tally], checks: list[Tally]) -> Iterator[tuple[Tally, Region]]:
    """Every tile of every tensor and of every check. Adds the checks to `checks` as it comes to them."""
    chance = random.Random(0)
    witnessed = 0
    for tally in tallies:
        for region in run.regions(tally.name):
            witnessed += 1
            is_asked = witnessed <= MOST_WITNESSED or witnessed % 64 == 0
            if is_asked and not agrees(run.stages, tally.name, region, 1, chance):
                tally.disagrees = True
                break
            yield from ((tally, tile) for tile in _tiles(run, region))
    for stage in run.stages:
        for check in stage.checks():
            left = next(leaves(check.region.left), None)
            name = left.name if left is not None else check.what
            tally = Tally(name, TensorSpec(check.region.right.dtype, check.region.shape), check)
            checks.append(tally)
            for region in trace(check.region, run.pieces):
                if region.left == region.right:
                    tally.seen += region.numel
                else:
                    yield from ((tally, tile) for tile in _tiles(run, region))


def _tiles(run: Run, region: Region) -> Iterator[Region]:
    region = coalesced(region)
    widest = max([region.left.dtype.nbytes, *(leaf.dtype.nbytes for leaf in leaves(region.right))])
    if isinstance(region.left, Leaf) and isinstance(region.right, Leaf) and len(region.shape) <= 1:
        most = RUN_NBYTES // widest
    else:
        sources = sum(1 for _ in leaves(region.right)) + isinstance(region.right, Made)
        most = run.most_nbytes // widest // max(1, sources)
    return tiles(region, max(1, most))


def _batch(tasks: Iterator[tuple[Tally, Region]]) -> list[tuple[Tally, Region]]:
    """The next tile, or many when they are small."""
    batch: list[tuple[Tally, Region]] = []
    nbytes = 0
    while nbytes < RUN_NBYTES // 4 and len(batch) < MOST_AT_ONCE:
        task = next(tasks, None)
        if task is None:
            break
        batch.append(task)
        nbytes += task[1].numel * task[0].spec.dtype.nbytes
    return batch


def _carry_out(run: Run, tasks: Iterator[tuple[Tally, Region]]) -> None:
    """Compare all tiles, in a few threads that take them one after the other."""

    def work() -> None:
        bench = run.bench()
        try:
            while not run.stop:
                with run.lock:
                    batch = _batch(tasks)
                if not batch:
                    return
                for task in batch:
                    _compare_tile(run, bench, *task)
        except BaseException as error:  # carried to the thread that waits, where it is raised
            run.stop = True
            run.error = run.error or error

    threads = THREADS if run.target.manifest.nbytes >= ALONE_NBYTES else 1
    others = [threading.Thread(target=work, daemon=True) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    if run.error is not None:
        raise run.error


def _compare_tile(run: Run, bench: Bench, tally: Tally, tile: Region) -> None:
    try:
        left, right = bench.sides(tile.left, tile.right, tile.shape)
    except (CannotCarryOut, BadConstant):
        place, why = _first_refused(run, bench, tile)
        with run.lock:
            if tally.refused is None or place < tally.refused[0]:
                tally.refused = (place, why)
        return
    wrong = bench.differing(left, right)
    with run.lock:
        tally.seen += tile.numel
        if wrong is not None:
            _note(tally, tile, *wrong)
    if run.progress is not None and tally.check is None:
        run.progress(tile.numel * tally.spec.dtype.nbytes)


def _first_refused(run: Run, bench: Bench, tile: Region) -> tuple[int, str]:
    """(flat index on the left, why) of the first element of a tile whose value an operator refuses."""
    while True:
        axis = next((axis for axis, size in enumerate(tile.shape) if size > 1), None)
        if axis is not None:
            half = tile.shape[axis] // 2
            first = part(tile, axis, 0, half)
            try:
                bench.sides(first.left, first.right, first.shape)
            except (CannotCarryOut, BadConstant):
                tile = first
            else:
                tile = part(tile, axis, half, tile.shape[axis])
            continue
        try:
            bench.sides(tile.left, tile.right, tile.shape)
        except (CannotCarryOut, BadConstant) as failure:
            return _offset(tile.left), f"{source_text(tile.right, run.source.manifest)}: {failure}"
        raise AssertionError("a tile is refused whole and not in any of its elements")


def _note(tally: Tally, tile: Region, count: int, first: int) -> None:
    """Count the elements of a tile that differ, and keep the one that comes first in the tensor.

    The axes of a tile are sorted by the steps of its left side, so that the first of the tile is its first in the tensor.
    """
    tally.differing += count
    at = place_of(first, tile.shape)
    flat = _offset(tile.left) + sum(
        place * stride for place, stride in zip(at, _strides(tile.left, tile.shape), strict=True)
    )
    if tally.first is None or flat < tally.first:
        tally.first, tally.region, tally.at = flat, tile, at


def element_region(run: Run, name: str, flat: int) -> Region:
    """The region of one element of a target tensor."""
    kind = run.stages[-1].specs[name].dtype
    one = Region((), Leaf(TARGET, name, flat, (), kind), Leaf(len(run.stages), name, flat, (), kind))
    return next(trace(one, run.pieces))


def _first_leaf(node: Node) -> Leaf | None:
    return next(leaves(node), None)


def _offset(node: Node) -> int:
    leaf = _first_leaf(node)
    return leaf.offset if leaf is not None else 0


def _strides(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    leaf = _first_leaf(node)
    return leaf.strides if leaf is not None else (0,) * len(shape)


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
    leaf = _first_leaf(tally.region.left)
    if leaf is not None and leaf.level == 0 and tally.first is not None:
        place = f"{leaf.name}[{', '.join(map(str, place_of(tally.first, run.source.manifest[leaf.name].shape)))}]"
    count = "one element differs" if tally.differing == 1 else f"{tally.differing:,} elements differ"
    problem = f"{check.what}: {count}; {place} is {element.found}, not {element.expected} = {element.source}"
    return gap(check.kind, check.rule, problem, [tally.name])
