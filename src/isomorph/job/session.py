"""One job from its arguments to its end: paths told apart, sources opened, config found, planned, carried out or verified."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import MorphError, UsageError
from isomorph.formats.allowance import allowed, buffers_beside, looking
from isomorph.formats.hub_cache import within
from isomorph.job.arguments import sources_and_targets
from isomorph.job.convert import Converted, Writing, compare, convert, origin_of
from isomorph.job.inputs import Place, open_sources, place
from isomorph.job.likes import like as like_manifest
from isomorph.job.outputs import Output, lay_out_outputs
from isomorph.job.port import Port
from isomorph.job.progress import Stage

if TYPE_CHECKING:
    from isomorph.formats.base import Checkpoint
    from isomorph.job.plan_file import PlanFile
    from isomorph.plan.plan import Plan


@dataclass(frozen=True)
class Planned:
    """A plan that was proved on open sources; `targets` are where its result would go."""

    plan: Plan
    port: Port
    source: Checkpoint
    sources: tuple[Place, ...]
    targets: tuple[Place, ...]
    seconds: float

    def lines(self, *, show_all: bool = False) -> Iterator[str]:
        """The proof, as it is printed."""
        from isomorph.plan.explain import explain

        yield from explain(self.plan, title=self.port.title, show_all=show_all, seconds=self.seconds).splitlines()
        yield from (f"note      {note}" for note in self.port.notes)
        if self.port.config_from not in (None, "given"):
            yield f"config    {self.port.config_from}"

    def to_json(self) -> dict[str, Any]:
        """The proof as data, with what it was made from."""
        from isomorph.plan.explain import facts

        return {
            "sources": [{"name": one.name, "path": one.text, "inner": one.inner} for one in self.sources],
            "format": self.source.format,
            "morph": None if self.port.morph is None else self.port.morph.text,
            "config": self.port.config_from,
            "seconds": self.seconds,
            **facts(self.plan),
        }

    def lay_out(self, *, format: str | None, max_shard_size: int | None) -> list[Output]:
        """Where every byte of every target would go."""
        return lay_out_outputs(
            self.plan,
            self.targets,
            format=format,
            max_shard_size=max_shard_size,
            metadata=self.source.manifest.metadata,
        )


@contextmanager
def plan_places(
    port: Port,
    sources: Sequence[str | Place],
    targets: Sequence[str | Place] = (),
    *,
    like: Any = None,
    with_targets: bool = False,
    writing: Writing | None = None,
) -> Iterator[Planned]:
    """Open sources and prove the port on them. `with_targets`: the last of `sources` are targets, as `convert` takes them."""
    port = _with_config(port, sources, targets, with_targets)
    opened_from = [_place(one) for one in sources]
    opened_to = [_place(one) for one in targets]
    if with_targets:
        opened_from, opened_to = sources_and_targets(opened_from, port)
    began = time.perf_counter()
    with open_sources(opened_from) as source:
        port = port.settled(source.manifest)
        plan = port.plan(source.manifest, None if like is None else like_manifest(like))
        planned = Planned(plan, port, source, tuple(opened_from), tuple(opened_to), time.perf_counter() - began)
        if writing is not None and opened_to:
            planned.lay_out(format=writing.format, max_shard_size=writing.max_shard_size)
        yield planned


def convert_places(
    port: Port,
    paths: Sequence[str | Place],
    writing: Writing,
    *,
    like: Any = None,
    stage: Stage | None = None,
    expected: PlanFile | None = None,
) -> Converted:
    """SRC… DST: prove, write, verify. `expected` is a plan written down before; what it was made from must not have changed."""
    port = _with_config(port, paths, (), True)
    if expected is not None:
        sources, targets = expected.sources, expected.targets
    else:
        sources, targets = sources_and_targets([_place(one) for one in paths], port)
    manifest = None if like is None else like_manifest(like)
    with allowed(writing.max_memory), _open(sources) as source:
        plan = None
        port = port.settled(source.manifest)
        if expected is not None:
            expected.check_whole()
            expected.check_sources(source)
            with looking(expected.path):
                plan = port.plan(source.manifest, manifest)
            expected.check_plan(plan)
        folder = within(sources[0].path) if len(sources) == 1 and sources[0].path.is_dir() else None
        return convert(port, source, targets, writing, like=manifest, stage=stage, plan=plan, source_folder=folder)


UNMAPPED = "neither --morph nor --to was given, so every tensor was looked for under its own name"


def verify_places(
    port: Port, paths: Sequence[str | Place], *, max_memory: int = 256 << 20, stage: Stage | None = None
) -> Any:
    """SRC… DST: the verifier's report, whatever it says."""
    port = _with_config(port, paths, (), True)
    sources, targets = sources_and_targets([_place(one) for one in paths], port)
    with allowed(max_memory), _open(sources) as source, _open(targets) as target:
        max_memory = min(
            buffers_beside(max_memory, one.manifest, origin_of(one), [one.format], one.manifest.parts)
            for one in (source, target)
        )
        port = port.settled(source.manifest)
        report = compare_entered(port, source, target, targets, max_memory=max_memory, stage=stage)
        source.check_unchanged()
        target.check_unchanged()
        if any(problem.kind in ("idle", "unmatched") for problem in report.problems):
            _say_wrong_way(port, source, report)
        if report.finds_nothing and port.morph is None and port.to is None:
            report.notes = (*report.notes, UNMAPPED)
        return report


def compare_entered(
    port: Port,
    source: Checkpoint,
    target: Checkpoint,
    places: Sequence[Place],
    *,
    max_memory: int = 256 << 20,
    stage: Stage | None = None,
) -> Any:
    """The report on `target`, opened at `places`: with nothing entered by itself, where only then it has the names."""
    report = compare(port, source, target, max_memory=max_memory, stage=stage)
    if report.finds_nothing and any(one.inner is None for one in places):
        with _open([replace(one, inner=one.inner or "") for one in places]) as outside:
            again = compare(port, source, outside, max_memory=max_memory, stage=stage)
        return report if again.finds_nothing else again
    return report


def _open(places: Sequence[Place]) -> Checkpoint:
    """Open them, within what --max-memory allows."""
    with looking(places[0]):
        return open_sources(places)


def _say_wrong_way(port: Port, source: Checkpoint, report: Any) -> None:
    """A morph that does not apply because it is read in the wrong direction: that is the one problem, and the planner knows it."""
    try:
        port.plan(source.manifest)
    except MorphError as error:
        if any("--inverse" in gap.message for gap in error.gaps):
            report.problems[:] = error.gaps


def _place(one: str | Place) -> Place:
    return one if isinstance(one, Place) else place(one)


def _with_config(port: Port, paths: Sequence[str | Place], targets: Sequence[str | Place], with_targets: bool) -> Port:
    """Look for a config beside the sources first and beside the targets then; reading backward, the other way round."""
    places = [_place(one) for one in [*paths, *targets]]
    if with_targets and len(places) < 2:
        raise UsageError("a source and a target are needed:  SRC… DST")
    if port.to is not None:  # the target's config is of another layout, or of what it replaces
        places = [_place(one) for one in paths[: -1 if with_targets else None]]
    folders = [one.path for one in places]
    return port.with_config_beside(folders[::-1] if port.is_backward else folders)
