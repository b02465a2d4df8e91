"""Carry a port out: prove it, write every output under a temporary name, verify all, and only then give them their names."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Different, UsageError, printable
from isomorph.formats.allowance import allowed, buffers_beside, looking
from isomorph.job.companions import Companions, copy_companions, find_companions, for_route
from isomorph.job.companions import Written as Beside
from isomorph.job.inputs import Place
from isomorph.job.outputs import Output, lay_out_outputs
from isomorph.job.port import Port
from isomorph.job.progress import Stage
from isomorph.job.story import work_line
from isomorph.stores.url import Url
from isomorph.tensors import dtype

if TYPE_CHECKING:
    from isomorph.engine.run import Written
    from isomorph.formats.base import Checkpoint
    from isomorph.operators.base import Changes
    from isomorph.plan.plan import Plan
    from isomorph.tensors import Manifest

Progress = Callable[[int, int], None]

WORKERS = 2
"""Threads that read and compute beside the one that writes, unless told otherwise."""


@dataclass(frozen=True)
class Writing:
    """How outputs are written. Sizes in bytes; `max_memory` is for the buffers of a conversion, not for the interpreter."""

    format: str | None = None
    max_shard_size: int | None = None
    max_memory: int = 256 << 20
    workers: int | None = None
    resume: bool = False
    overwrite: bool = False
    verify: bool = True


@dataclass(frozen=True)
class Converted:
    """What a conversion did. `report` is the verifier's, None when it was not asked for."""

    plan: Plan
    outputs: tuple[Output, ...]
    writes: tuple[Written, ...]
    report: Any
    companions: Companions
    write_seconds: float
    verify_seconds: float
    layouts: str | None = None
    """From which layout to which, where the catalogue led."""
    notes: tuple[str, ...] = ()
    """What was decided on the way between two layouts; what of the source its targets have no place for."""
    load: str | None = None
    """The line that loads the result in its own library."""

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(output.path for output in self.outputs)

    @property
    def changes(self) -> Changes:
        """What casts that round did to the values."""
        from isomorph.operators.base import Changes

        found = Changes()
        for written in self.writes:
            for one in written.changes.values():
                found.add(one)
        return found

    @property
    def cloned(self) -> int:
        """Bytes that were not moved: blocks that targets share with the source."""
        return sum(written.cloned for written in self.writes)

    @property
    def by_store(self) -> int:
        """Bytes that an object store copied itself."""
        return sum(written.by_store for written in self.writes)

    @property
    def nbytes(self) -> int:
        return sum(file.nbytes for output in self.outputs for file in output.layout.files)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        from isomorph.describe.html import preformatted

        return preformatted(str(self))

    def lines(self) -> list[str]:
        from isomorph.describe.text import bytes_text, count, escaped, listed

        names = " ".join(escaped(str(path)) for path in self.paths)
        lines = [f"wrote     {names} · {work_line(self.plan, self.nbytes)} in {self.write_seconds:.1f} s"]
        if self.cloned:
            lines.append(f"cloned    {bytes_text(self.cloned)} (no bytes moved: the file system shares their blocks)")
        if self.by_store:
            lines.append(
                f"copied    {bytes_text(self.by_store)} by the store itself: these bytes never passed through here"
            )
        lines += [f"note      {escaped(note)}" for written in self.writes for note in written.notes]
        if self.changes.elements:
            lines.append(
                f"rounded   {self.changes.changed:,} of {count(self.changes.elements, 'element')} have another value now,"
                f" by at most {self.changes.largest:.3g}"
            )
        if self.layouts is not None:
            lines.insert(0, f"layout    {self.layouts}")
        lines += [f"note      {escaped(note)}" for note in self.notes]
        if self.companions.written:
            lines.append(f"written   {listed(self.companions.written, 8)} beside the weights")
        if self.companions.copied:
            lines.append(f"copied    {listed(self.companions.copied, 8)}")
        if self.companions.left:
            lines.append(f"left      {listed(self.companions.left, 8)}: beside the source, not copied")
        if self.companions.missing:
            lines.append(
                f"missing   {'; '.join(self.companions.missing)}: not beside the source, and the model asks for it"
            )
        if self.report is None:
            lines.append("verified  nothing: --no-verify was given")
        else:
            lines += str(self.report).splitlines()
        if self.load is not None:
            lines.append(f"load      {escaped(self.load)}")
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "outputs": [
                {
                    "name": output.name,
                    "path": str(output.path),
                    "format": output.layout.format,
                    "files": [{"name": file.name, "nbytes": file.nbytes} for file in output.layout.files],
                    "tensors": len(output.plan.targets),
                }
                for output in self.outputs
            ],
            "tensors": len(self.plan.targets),
            "dropped": list(self.plan.dropped),
            "nbytes": self.nbytes,
            "cloned": self.cloned,
            "copied_by_store": self.by_store,
            "rounded": {
                "elements": self.changes.elements,
                "changed": self.changes.changed,
                "largest": self.changes.largest,
            },
            "notes": [note for written in self.writes for note in written.notes],
            "copied": list(self.companions.copied),
            "left": list(self.companions.left),
            "written": list(self.companions.written),
            "missing": list(self.companions.missing),
            "load": self.load,
            "layouts": self.layouts,
            "decided": list(self.notes),
            "verified": self.report is not None,
            "elements_compared": getattr(self.report, "elements", None),
            "write_seconds": self.write_seconds,
            "verify_seconds": self.verify_seconds,
        }


def convert(
    port: Port,
    source: Checkpoint,
    targets: Sequence[Place],
    writing: Writing,
    *,
    like: Manifest | None = None,
    stage: Stage | None = None,
    plan: Plan | None = None,
    source_folder: Path | None = None,
) -> Converted:
    """Prove, write, verify, name. `plan` is one made before, else it is made here. What a step raises leaves nothing there.

    The verification of the last output covers all of them: each is written inside the other's temporary life, so that no output
    gets its final name before every element of every output has been compared.
    """
    if writing.resume and writing.overwrite:
        raise UsageError("--resume goes on with what is there, --overwrite begins again: give one of them")
    with allowed(writing.max_memory):
        return _convert(port, source, targets, writing, like, stage, plan, source_folder)


def _convert(
    port: Port,
    source: Checkpoint,
    targets: Sequence[Place],
    writing: Writing,
    like: Manifest | None,
    stage: Stage | None,
    plan: Plan | None,
    source_folder: Path | None,
) -> Converted:
    from isomorph.engine.run import write
    from isomorph.formats.registry import not_kept

    parts = source.manifest.parts
    most = buffers_beside(writing.max_memory, source.manifest, origin_of(source), [source.format], parts)
    free = plan is None  # offsets that a plan.json says are kept; others may go where blocks can be shared
    with looking(origin_of(source)):
        plan = plan if plan is not None else port.plan(source.manifest, like)
    if not any(target.spec.numel for target in plan.targets.values()):
        what = "every tensor it makes is empty" if plan.targets else "it makes no tensor"
        raise UsageError(f"this conversion would write nothing that can be compared: {what}")
    with looking(origin_of(source)):
        outputs = lay_out_outputs(
            plan,
            targets,
            format=writing.format,
            max_shard_size=writing.max_shard_size,
            metadata=source.manifest.metadata,
            source=source if free else None,
        )
    formats = [source.format, *(output.layout.format for output in outputs)]
    most = min(most, buffers_beside(writing.max_memory, plan.targets, origin_of(source), formats, parts))
    writing = replace(writing, max_memory=most)
    companions, beside = Companions(), Beside()
    if len(outputs) == 1 and outputs[0].layout.is_folder:
        beside = Beside.of(port, plan)
        if source_folder is not None:
            companions = find_companions(source_folder, source.paths)
        companions = for_route(companions, port, beside.names)
    report: Any = None
    seconds = {"verify": 0.0}
    done: dict[str, Path] = {}
    writes: list[Written] = []

    def finish(at: int, temporary: Path) -> None:
        nonlocal report, companions
        done[outputs[at].name] = temporary
        outputs[at] = replace(outputs[at], layout=outputs[at].layout.outline)
        if at + 1 < len(outputs):
            write_output(at + 1)
            return
        if writing.verify:
            began = time.perf_counter()
            report = verify_targets(port, source, done, writing.max_memory, stage)
            seconds["verify"] = time.perf_counter() - began
        if temporary == outputs[at].path.absolute():  # finished by an earlier run, which `resume` found
            companions = Companions(left=companions.left)
        elif beside.config is not None:
            companions = replace(companions, written=beside.into(temporary))
        if companions.copied and source_folder is not None:
            cast = dtype(port.cast.target) if port.cast is not None and port.cast.target is not None else None
            companions = copy_companions(companions, source_folder, temporary, cast)

    def write_output(at: int) -> None:
        into: Callable[..., Written] = write
        if isinstance(outputs[at].path, Url):
            from isomorph.engine import stream

            into = partial(stream.write, direct=True) if not writing.verify and len(outputs) == 1 else stream.write
        written = into(  # handed over, not held here: the layout is as large as the plan, and goes once all is written
            outputs[at].plan,
            source,
            outputs[at].layout,
            outputs[at].path,
            max_memory=writing.max_memory,
            workers=writing.workers if writing.workers is not None else WORKERS,
            overwrite=writing.overwrite,
            resume=writing.resume,
            verify=lambda temporary: finish(at, temporary),
            progress=stage("writing") if stage is not None else None,
        )
        writes.insert(0, written)

    said = dict.fromkeys(note for name in formats[1:] for note in not_kept(name, source.manifest.metadata))
    began = time.perf_counter()
    write_output(0)
    return Converted(
        plan=plan,
        outputs=tuple(outputs),
        writes=tuple(writes),
        report=report,
        companions=companions,
        write_seconds=time.perf_counter() - began - seconds["verify"],
        verify_seconds=seconds["verify"],
        layouts=None if port.route is None else port.route.title,
        notes=(*port.notes, *said),
        load=port.load_line(outputs[0].path, outputs[0].layout) if len(outputs) == 1 else None,
    )


def origin_of(source: Checkpoint) -> object:
    """What a message calls a checkpoint: its first file."""
    return printable(str(source.paths[0])) if source.paths else "the source"


def verify_targets(
    port: Port, source: Checkpoint, targets: Mapping[str, Path], max_memory: int, stage: Stage | None
) -> Any:
    """Compare every element of the targets with what the morph says. Raises Different."""
    from contextlib import ExitStack

    from isomorph.formats.checkpoint import FileCheckpoint
    from isomorph.formats.joined import Joined
    from isomorph.formats.registry import open_checkpoint

    with ExitStack() as stack:
        opened = {name: stack.enter_context(open_checkpoint(path, inner="")) for name, path in targets.items()}
        for one in opened.values():
            if isinstance(one, FileCheckpoint):
                one.forget_members()
        target = opened[""] if list(opened) == [""] else Joined(opened)
        report = compare(port, source, target, max_memory=max_memory, stage=stage)
    if not report.equal:
        raise Different(report)
    return report


def compare(
    port: Port, source: Checkpoint, target: Checkpoint, *, max_memory: int = 256 << 20, stage: Stage | None = None
) -> Any:
    """The verifier's report on a target, whatever it says."""
    from isomorph.verify.compare import verify

    report = stage("verifying") if stage is not None else None
    return verify(
        port.programs,
        source,
        target,
        config=port.config,
        sizes=port.sizes or None,
        cast=port.cast,
        max_memory=max_memory,
        progress=None if report is None else _counted(report, target.manifest.nbytes),
    )


def _counted(report: Progress, total: int) -> Callable[[int], None]:
    """From bytes just done to (bytes done, bytes in all); called from several threads."""
    from threading import Lock

    done, lock = 0, Lock()

    def add(nbytes: int) -> None:
        nonlocal done
        with lock:
            done += nbytes
            report(done, total)

    return add
