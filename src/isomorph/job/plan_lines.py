"""A Planned -> the lines of its plan.json: one for every source file, one for every target file; and the head that sums them up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from isomorph.collector import uncollected
from isomorph.formats.checkpoint import FileCheckpoint
from isomorph.job.outputs import SEPARATOR, Output
from isomorph.job.plan_file import CLOSED, OPENED, header_digest, state
from isomorph.job.tasks.shares import share_digest, whole_source
from isomorph.plan.needs import Needs
from isomorph.plan.serial import move_to_json, programs_to_json
from isomorph.plan.texts import spec_texts

if TYPE_CHECKING:
    from isomorph.job.session import Planned
    from isomorph.plan.moves import Move
    from isomorph.plan.plan import Plan
    from isomorph.tensors import TensorSpec


def write_lines(file: BinaryIO, planned: Planned, format: str | None, max_shard_size: int | None) -> dict[str, Any]:
    """Write all lines but the head; the head."""
    with uncollected():
        return _write_lines(file, planned, format, max_shard_size)


def _write_lines(file: BinaryIO, planned: Planned, format: str | None, max_shard_size: int | None) -> dict[str, Any]:
    port, plan, source = planned.port, planned.plan, planned.source
    outputs = planned.lay_out(format=format, max_shard_size=max_shard_size)
    parts = _by_file(planned)
    files: list[dict[str, Any]] = [
        {"path": str(path.absolute()), **state(path), "digest": header_digest(part) if part is not None else None}
        for path, part in zip(source.paths, parts, strict=True)
    ]
    texts = spec_texts(source.manifest.values())
    file.write(OPENED[0])
    for number, (one, part) in enumerate(zip(files, parts, strict=True)):
        held = part if part is not None else source.manifest if number == 0 else {}
        line = {"path": one["path"], "tensors": {name: texts[id(spec)] for name, spec in held.items()}}
        one["line"] = _write(file, line, is_last=number + 1 == len(files))
    file.write(CLOSED + b",\n" + OPENED[1])
    made = _Made(planned, parts)
    with_tensors = sum(1 for output in outputs for one in output.layout.files if one.tensors)
    described = []
    for output in outputs:
        written: list[dict[str, Any]] = []
        for laid in output.layout.files:
            where = None
            if laid.tensors:
                where = _write(file, made.line(output, laid.tensors), is_last=made.count == with_tensors)
            written.append({"name": laid.name, "nbytes": laid.nbytes, "line": where})
        described.append(
            {
                "name": output.name,
                "path": str(output.path.absolute()),
                "format": output.layout.format,
                "folder": output.layout.is_folder,
                "files": written,
            }
        )
    file.write(CLOSED + b"}\n")
    return {
        "morph": None if port.morph is None else port.morph.text,
        **programs_to_json(plan),
        "digest": plan.digest,
        "route": None
        if port.route is None
        else {"to": str(port.route.target), "from": str(port.route.source.layout), **port.asked},
        "inputs": [{"name": one.name, "path": str(one.path.absolute()), "inner": one.inner} for one in planned.sources],
        "header_digest": header_digest(source.manifest),
        "metadata": dict(source.manifest.metadata),
        "format": format,
        "max_shard_size": max_shard_size,
        "apart": parts[:1] not in ([], [None]),
        "files": files,
        "outputs": described,
        "dropped": list(plan.dropped),
        "unmade": list(plan.unmade),
        "warnings": list(plan.warnings),
    }


def _write(file: BinaryIO, content: Mapping[str, Any], *, is_last: bool) -> list[Any]:
    """Write one line; where it lies, how long it is, its digest."""
    raw = json.dumps(content, separators=(",", ":")).encode()
    offset = file.tell()
    file.write(raw + (b"\n" if is_last else b",\n"))
    return [offset, len(raw), hashlib.sha256(raw).hexdigest()]


def _by_file(planned: Planned) -> list[dict[str, TensorSpec] | None]:
    """The tensors of every source file, where each is a checkpoint of its own (safetensors shards); else None for each."""
    source, places = planned.source, planned.sources
    apart = isinstance(source, FileCheckpoint) and len(source.paths) > 1 and len(places) == 1 and not places[0].inner
    if not apart or source.format != "safetensors" or len({path.parent for path in source.paths}) > 1:
        return [None for _ in source.paths]
    assert isinstance(source, FileCheckpoint)
    parts: list[dict[str, TensorSpec]] = [{} for _ in source.paths]
    locations = source.contents.locations
    for name, spec in source.manifest.items():
        parts[locations[name].file][name] = spec
    return list(parts)


class _Made:
    """What every target file is made of."""

    def __init__(self, planned: Planned, parts: list[dict[str, TensorSpec] | None]) -> None:
        self.plan: Plan = planned.plan
        self.count = 0
        """Lines asked for so far."""
        self._targets = list(self.plan.targets.values())
        self._places = {name: number for number, name in enumerate(self.plan.targets)}
        self._texts = spec_texts(target.spec for target in self.plan.targets.values())
        self._home = {name: number for number, part in enumerate(parts) for name in part or ()}
        self._needs = Needs(self.plan)

    def line(self, output: Output, offsets: Mapping[str, int]) -> dict[str, Any]:
        """Tensors in the plan's order, each with its byte offset, spec, class and moves; and what a proof of them needs."""
        self.count += 1
        prefix = output.name + SEPARATOR if output.name else ""
        plan, starts = self.plan, self.plan.starts
        numbers = sorted([self._places[prefix + name] for name in offsets])
        tensors, whole = {}, set[str]()
        of: dict[str, Sequence[Move] | str] = {}
        for number in numbers:  # in the order of the plan: what lays them out again must begin with the same
            target, moves = self._targets[number], plan.moves[starts[number] : starts[number + 1]]
            made = whole_source(plan, target.spec, moves)
            told: str | list[Any]
            if made is not None:
                whole.add(made)
                told = of[target.name] = made
            else:
                of[target.name] = moves
                told = [move_to_json(move) for move in moves]
            name = target.name.removeprefix(prefix) if prefix else target.name
            tensors[name] = [offsets[name], self._texts[id(target.spec)], target.klass, told]
        line: dict[str, Any] = {"digest": share_digest(of, plan, of.__getitem__), "tensors": tensors}
        # what makes no target (a constant that is only checked) is the first file's to prove
        need = self._needs.of(of, and_checks=self.count == 1)
        reads = sorted({self._home[name] for name in need.sources}) if self._home else None
        also = [name for name in need.sources if name not in whole]
        return {"also": also, "through": need.through, "reads": reads, **line}
