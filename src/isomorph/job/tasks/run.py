"""One task: its files written, each verified and hashed before it gets its name; what is done already is proved by its bytes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Different, FormatError, printable
from isomorph.formats.allowance import allowed, buffers_beside, looking
from isomorph.job.convert import WORKERS, Writing
from isomorph.job.plan_file import PlanFile
from isomorph.job.tasks.part import Part, Sources
from isomorph.job.tasks.shares import Share, balanced
from isomorph.job.tasks.workplaces import open_workplace

if TYPE_CHECKING:
    from isomorph.formats.base import OutputLayout
    from isomorph.job.progress import Stage
    from isomorph.job.tasks.workplaces import AnyWorkplace


@dataclass(frozen=True)
class TaskDone:
    """What a task did: names of files it wrote, of files that were there and proved, and the bytes of those it wrote."""

    task: str
    files: int
    """Of all tasks together."""
    written: tuple[str, ...]
    skipped: tuple[str, ...]
    nbytes: int
    elements: int | None
    seconds: float

    def lines(self) -> list[str]:
        from isomorph.describe.text import bytes_text, count, escaped, listed

        mine = len(self.written) + len(self.skipped)
        lines = [f"task      {escaped(self.task)} · {mine} of {count(self.files, 'file')}"]
        if not mine:
            lines.append("nothing   to do: there are more tasks than files")
        if self.written:
            compared = "not verified (--no-verify)" if self.elements is None else f"{self.elements:,} elements verified"
            names = listed([escaped(name) for name in self.written], 8)
            lines.append(f"wrote     {names} · {bytes_text(self.nbytes)} in {self.seconds:.1f} s · {compared}")
        if self.skipped:
            lines.append(
                f"skipped   {listed([escaped(name) for name in self.skipped], 8)}: done, and its bytes are the same"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "files": self.files,
            "written": list(self.written),
            "skipped": list(self.skipped),
            "nbytes": self.nbytes,
            "elements_compared": self.elements,
            "seconds": self.seconds,
        }


def files_of_task(plan: PlanFile, task: int, count: int) -> list[int]:
    """The numbers of the files that task `task` of `count` writes."""
    sizes = [file["nbytes"] for file in plan.files]
    return balanced(sizes, min(count, len(sizes)))[task] if task < len(sizes) else []


def run_files(
    plan: PlanFile, numbers: Sequence[int], writing: Writing, *, task: str, stage: Stage | None = None
) -> TaskDone:
    """Write these files of the plan's outputs, one after the other; those that are done are read once and left."""
    began = time.perf_counter()
    writing = plan.writing(writing)
    places: dict[int, AnyWorkplace] = {}
    written: list[str] = []
    skipped: list[str] = []
    nbytes = elements = 0
    with allowed(writing.max_memory), Sources(plan) as sources:
        for number in numbers:
            file = plan.files[number]
            output = file["output"]
            if output not in places:
                places[output] = open_workplace(plan, output, overwrite=writing.overwrite)
                places[output].make()
            workplace = places[output]
            with workplace.while_unfinished():
                if workplace.is_done(file["name"], verified=writing.verify, reread=True):
                    skipped.append(file["name"])
                    continue
                elements += _write_file(sources, plan.share(number), workplace, writing, task, stage) or 0
            written.append(file["name"])
            nbytes += file["nbytes"]
    seconds = time.perf_counter() - began
    compared = elements if writing.verify else None
    return TaskDone(task, len(plan.files), tuple(written), tuple(skipped), nbytes, compared, seconds)


def _write_file(
    sources: Sources, share: Share, workplace: AnyWorkplace, writing: Writing, task: str, stage: Stage | None
) -> int | None:
    """Write, verify and record one file; the number of elements that were compared."""
    with looking(sources.plan.path):
        part = sources.part(share)
    writing = replace(
        writing,
        max_memory=buffers_beside(
            writing.max_memory,
            part.source.manifest,
            printable(str(sources.plan.path)),
            [part.source.format, share.format],
            part.source.manifest.parts,
        ),
    )
    verified: list[int] = []
    with workplace.run() as folder:
        workplace.write(
            part.plan,
            part.source,
            _layout(sources.plan, share),
            folder / share.name,
            max_memory=writing.max_memory,
            workers=writing.workers if writing.workers is not None else WORKERS,
            verify=(lambda path: verified.append(_verify(sources.plan, part, share, path, writing)))
            if writing.verify
            else None,
            progress=stage("writing") if stage is not None else None,
            digest=share.digest,
        )
        workplace.put(folder / share.name, elements=sum(verified) if writing.verify else None, task=task)
    return sum(verified)


def _layout(plan: PlanFile, share: Share) -> OutputLayout:
    """The file, laid out again. FormatError when it is not as plan.json says."""
    from isomorph.formats.registry import lay_out

    metadata = {**plan.head["metadata"], "format": "pt"}
    layout = lay_out(share.specs, Path(share.name), format=share.format, metadata=metadata)
    file = layout.files[0]
    if (
        len(layout.files) != 1
        or (file.name, file.nbytes) != (share.name, share.nbytes)
        or file.tensors != share.offsets
    ):
        problem = f"the bytes of {share.name} would lie elsewhere than it says"
        raise FormatError(plan.path, problem, "It was made by another version: plan again")
    return layout


def _verify(plan: PlanFile, part: Part, share: Share, path: Path, writing: Writing) -> int:
    """Compare every element of a written file by the second path. The number of elements; raises Different."""
    from isomorph.formats.joined import Joined
    from isomorph.formats.registry import open_checkpoint
    from isomorph.verify.compare import verify

    port = plan.port
    with open_checkpoint(path, inner="") as opened:
        report = verify(
            port.programs,
            part.source,
            Joined({share.output: opened}) if share.output else opened,
            config=port.config,
            sizes=port.sizes or None,
            cast=port.cast,
            max_memory=writing.max_memory,
            only=frozenset(share.names),
            through=part.through,
        )
    if report.problems or report.wrong or report.elements != sum(spec.numel for spec in share.specs.values()):
        raise Different(report)
    return int(report.elements)
