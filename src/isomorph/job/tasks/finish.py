"""The last step: every file of a plan is done and proved, so the rest is written (index, config, companions), and all named."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError, RefusedError
from isomorph.formats.hub_cache import within
from isomorph.job.companions import Companions, copy_companions, find_companions, for_route
from isomorph.job.companions import Written as Beside
from isomorph.job.convert import Writing
from isomorph.job.plan_file import PlanFile
from isomorph.job.tasks.part import Sources
from isomorph.job.tasks.shares import balanced
from isomorph.job.tasks.workplaces import open_workplace
from isomorph.stores.url import is_remote
from isomorph.tensors import dtype, total_nbytes

if TYPE_CHECKING:
    from isomorph.formats.base import Checkpoint, FileLayout
    from isomorph.job.tasks.workplaces import AnyWorkplace

MOST_NAMED = 8


@dataclass(frozen=True)
class Finished:
    """What lies under the final names now. `elements` were compared by the tasks; None where some were told not to, or where a run
    that was cut off has removed the records already (`is_counted`)."""

    paths: tuple[Path, ...]
    files: int
    nbytes: int
    elements: int | None
    companions: Companions
    seconds: float
    is_counted: bool = True

    def lines(self) -> list[str]:
        from isomorph.describe.text import bytes_text, count, escaped, listed

        names = " ".join(escaped(str(path)) for path in self.paths)
        lines = [f"finished  {names} · {count(self.files, 'file')} · {bytes_text(self.nbytes)} in {self.seconds:.1f} s"]
        for word, found in (("written", self.companions.written), ("copied", self.companions.copied)):
            if found:
                lines.append(f"{word:9} {listed(found, 8)}")
        if self.companions.left:
            lines.append(f"left      {listed(self.companions.left, 8)}: beside the source, not copied")
        compared = "some files were not: --no-verify" if self.is_counted else "before the names were given"
        if self.elements is not None:
            compared = f"{self.elements:,} elements, by the tasks"
        lines.append(f"verified  {compared}")
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "outputs": [str(path) for path in self.paths],
            "files": self.files,
            "nbytes": self.nbytes,
            "elements_compared": self.elements,
            "written": list(self.companions.written),
            "copied": list(self.companions.copied),
            "left": list(self.companions.left),
            "seconds": self.seconds,
        }


def finish(plan: PlanFile, writing: Writing) -> Finished:
    """Check every record, write what is left, give every output its name. RefusedError says what is missing, and whose it is.

    A file whose mtime is not the one of its record is hashed again. Sources must still be what they were.
    """
    began = time.perf_counter()
    writing = plan.writing(writing)
    plan.check_whole()
    outputs = range(len(plan.targets))
    places = [open_workplace(plan, output, overwrite=writing.overwrite) for output in outputs]
    with ExitStack() as held, Sources(plan) as sources:
        for place in places:
            held.enter_context(place.alone())
        elements, is_counted = _require_done(plan, places, writing)
        companions = Companions()
        for output in outputs:
            if places[output].is_named:
                continue
            with places[output].while_unfinished():
                companions = _complete(sources, output, places[output], companions)
        sources.whole.check_unchanged()
        for place in places:
            if not place.is_named:
                place.finish()
        for place in places:
            place.clear()
    nbytes = sum(file["nbytes"] for output in plan.head["outputs"] for file in output["files"])
    files = sum(len(output["files"]) for output in plan.head["outputs"])
    seconds = time.perf_counter() - began
    return Finished(tuple(place.target for place in places), files, nbytes, elements, companions, seconds, is_counted)


def _require_done(plan: PlanFile, places: Sequence[AnyWorkplace], writing: Writing) -> tuple[int | None, bool]:
    """How many elements the tasks compared, and whether all have a record still. RefusedError with every file that is not done."""
    missing: list[int] = []
    elements: int | None = 0
    is_counted = True
    for number, file in enumerate(plan.files):
        place = places[file["output"]]
        if not place.is_done(file["name"], verified=writing.verify, reread=False):
            missing.append(number)
            continue
        record = place.record(file["name"])
        is_counted = is_counted and record is not None
        counted = None if record is None else record.elements
        elements = None if counted is None or elements is None else elements + counted
    if missing:
        raise _unfinished(plan, places, missing)
    return elements, is_counted


def _unfinished(plan: PlanFile, places: Sequence[AnyWorkplace], missing: Sequence[int]) -> RefusedError:
    """What is missing, and which tasks of those that were begun would write it."""
    names = [plan.files[number]["name"] for number in missing]
    listed = ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
    counts: dict[int, int] = {}
    for file in plan.files:
        record = places[file["output"]].record(file["name"])
        count = record.task.partition("/")[2] if record is not None else ""
        if count.isascii() and count.isdigit() and 0 < int(count) <= 10_000_000:
            counts[int(count)] = counts.get(int(count), 0) + 1
    advice = f"Run  isomorph convert {plan.path} --task 0/1  or as many tasks as you like"
    if counts:
        most = max(counts, key=lambda count: (counts[count], count))
        sizes = [file["nbytes"] for file in plan.files]
        again = [task for task, its in enumerate(balanced(sizes, min(most, len(sizes)))) if set(its) & set(missing)]
        tasks = ", ".join(f"{task}/{most}" for task in again[:MOST_NAMED])
        more = f" and {len(again) - MOST_NAMED} more" if len(again) > MOST_NAMED else ""
        advice = f"Run again --task {tasks}{more}"
    problem = f"is not finished: {len(missing)} of {len(plan.files)} files are missing or not proved: {listed}"
    return RefusedError(places[plan.files[missing[0]]["output"]].target, problem, advice)


def _complete(sources: Sources, output: int, place: AnyWorkplace, companions: Companions) -> Companions:
    """Write what belongs to an output besides its tensors: the index, config.json, companions."""
    plan = sources.plan
    if not plan.head["outputs"][output]["folder"]:
        return companions
    with place.beside() as folder:
        return _written_beside(sources, output, folder, companions)


def _written_beside(sources: Sources, output: int, folder: Path, companions: Companions) -> Companions:
    plan = sources.plan
    index = _index(plan, output)
    if index is not None:
        _write(folder / index.name, b"".join(literal.data for literal in index.literals))
    if len(plan.targets) > 1:
        return companions
    source = sources.whole
    port = plan.port.settled(source.manifest)
    beside = Beside.of(port, sources.whole_plan) if port.route is not None else Beside()
    only = within(plan.sources[0].path) if len(plan.sources) == 1 and plan.sources[0].path.is_dir() else None
    found = for_route(_companions(only, source), port, beside.names)
    if beside.config is not None:
        found = replace(found, written=beside.into(folder))
    if found.copied and only is not None:
        cast = dtype(port.cast.target) if port.cast is not None and port.cast.target is not None else None
        found = replace(copy_companions(found, only, folder, cast), copied=found.copied)
    return found


def _companions(folder: Path | None, source: Checkpoint) -> Companions:
    return Companions() if folder is None else find_companions(folder, source.paths)


def _index(plan: PlanFile, output: int) -> FileLayout | None:
    """The index of an output, from the lines of its shards; None for one file. FormatError when plan.json says otherwise."""
    from isomorph.formats.registry import FORMATS, lay_out_index

    told = plan.head["outputs"][output]
    without = [(file["name"], file["nbytes"]) for file in told["files"] if file["line"] is None]
    if not without:
        return None
    index: FileLayout | None = None
    if told["format"] in FORMATS:
        weight_map: dict[str, str] = {}
        nbytes = 0
        for number, file in enumerate(plan.files):
            if file["output"] == output:
                specs = plan.share(number).specs
                weight_map.update(dict.fromkeys(specs, file["name"]))
                nbytes += total_nbytes(specs.values())
        index = lay_out_index(told["format"], weight_map, nbytes)
    if index is None or without != [(index.name, index.nbytes)]:
        problem = "the files it lists are not those that its tensors take"
        raise FormatError(plan.path, problem, "It was made by another version: plan again")
    return index


def _write(path: Path, data: bytes) -> None:
    """Write a small file, synced."""
    if is_remote(path):
        path.write_bytes(data)
        return
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
