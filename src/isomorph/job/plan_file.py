"""plan.json: a conversion written down whole, so that it can be read, kept, and carried out later on the same inputs.

It holds the morphs' texts, config and sizes, every input with its size, mtime and header digest, every output with its files and
offsets, and the plan whole. `convert plan.json` proves the plan again, and goes on only when it is the same and its inputs are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import FormatError, IsomorphError, SourceChanged
from isomorph.job.inputs import Place
from isomorph.job.port import Port
from isomorph.plan.plan import Plan

if TYPE_CHECKING:
    from isomorph.formats.base import Checkpoint
    from isomorph.job.convert import Writing
    from isomorph.job.session import Planned
    from isomorph.tensors import Manifest

KIND = "isomorph plan"
VERSION = 1
MOST_BYTES = 1 << 30


@dataclass(frozen=True)
class PlanFile:
    """A plan.json, read."""

    path: str
    content: Mapping[str, Any]
    port: Port
    sources: list[Place]
    targets: list[Place]

    def writing(self, given: Writing) -> Writing:
        """The options of writing: those on the command line, and the plan's format and shards where none are given."""
        return replace(
            given,
            format=given.format if given.format is not None else self.content["format"],
            max_shard_size=given.max_shard_size if given.max_shard_size is not None else self.content["max_shard_size"],
        )

    def check_sources(self, source: Checkpoint) -> None:
        """SourceChanged when an input is not what it was when the plan was made."""
        files = {Path(path).name: state for path, state in self.content["files"].items()}
        for path in source.paths:
            found, expected = _state(path), files.get(path.name)
            if expected is None or found["size"] != expected["size"] or found["mtime_ns"] != expected["mtime_ns"]:
                raise SourceChanged(path, f"is not what it was when {self.path} was made (size or mtime differ)")
        if header_digest(source.manifest) != self.content["header_digest"]:
            raise SourceChanged(source.manifest.origin, f"its tensors are not those that {self.path} was made for")

    def check_plan(self, plan: Plan) -> None:
        """FormatError when the plan that was proved now is another one than the plan that was written down."""
        expected = str(self.content["plan"]["digest"])
        if plan.digest != expected:
            raise FormatError(
                self.path,
                f"its digest is {expected[:8]}…, and planning again gives {plan.digest[:8]}…",
                "It was edited, or made by another version: plan again",
            )


def header_digest(manifest: Manifest) -> str:
    """SHA-256 of all names and specs."""
    digest = hashlib.sha256()
    for name, spec in manifest.items():
        digest.update(f"{name}\0{spec}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _state(path: Path) -> dict[str, int]:
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def write_plan_file(
    path: str, planned: Planned, *, format: str | None = None, max_shard_size: int | None = None
) -> None:
    """Write a plan down, and every byte offset of its outputs. The file appears whole or not at all."""
    port = planned.port
    outputs = planned.lay_out(format=format, max_shard_size=max_shard_size)
    content = {
        "kind": KIND,
        "version": VERSION,
        "morph": None if port.morph is None else port.morph.text,
        "config": port.config,
        "sizes": dict(port.sizes),
        "route": None
        if port.route is None
        else {"to": str(port.route.target), "from": str(port.route.source.layout), **port.asked},
        "inputs": [{"name": one.name, "path": str(one.path.absolute()), "inner": one.inner} for one in planned.sources],
        "files": {str(file.absolute()): _state(file) for file in planned.source.paths},
        "header_digest": header_digest(planned.source.manifest),
        "format": format,
        "max_shard_size": max_shard_size,
        "outputs": [
            {
                "name": output.name,
                "path": str(output.path.absolute()),
                "format": output.layout.format,
                "folder": output.layout.is_folder,
                "files": [
                    {"name": file.name, "nbytes": file.nbytes, "tensors": dict(file.tensors)}
                    for file in output.layout.files
                ],
            }
            for output in outputs
        ],
        "plan": planned.plan.to_json(),
    }
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def is_plan_file(path: str) -> bool:
    """True for a file that begins as a plan.json does."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(200)
    except (OSError, ValueError):
        return False
    return head.lstrip().startswith(b"{") and KIND.encode() in head


def read_plan_file(path: str) -> PlanFile:
    """Read a plan.json. FormatError when it is broken or of another version."""
    file = Path(path)
    try:
        if file.stat().st_size > MOST_BYTES:
            raise FormatError(path, "is too large to be a plan")
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise FormatError(
                path, f"is a plan of version {content['version']}, and this isomorph reads {VERSION}", "Plan again"
            )
        _require_kinds(content)
        plan = Plan.from_json(content["plan"])
        way = content.get("route") or {}
        port = Port(
            recorded=plan.programs,
            sizes=plan.sizes,
            file_config=plan.config,
            cast=plan.cast,
            to=way.get("to"),
            from_=way.get("from"),
            asked=way,
        )
        return PlanFile(
            path,
            content,
            port,
            [Place(one["name"], one["path"], one["inner"]) for one in content["inputs"]],
            [Place(one["name"], one["path"] + ("/" if one["folder"] else "")) for one in content["outputs"]],
        )
    except IsomorphError:
        raise
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        RecursionError,
    ) as error:
        raise FormatError(path, f"is no whole plan ({type(error).__name__}: {error})", "Plan again") from error


def _require_kinds(content: Mapping[str, Any]) -> None:
    """TypeError when a field that is used later is not of its kind: a plan.json may come from anyone."""
    plan = content["plan"]
    fields: list[tuple[str, object, tuple[type, ...]]] = [
        ("config", plan["config"], (dict,)),
        ("sizes", plan["sizes"], (dict,)),
        ("digest", plan["digest"], (str,)),
        ("files", content["files"], (dict,)),
        ("header_digest", content["header_digest"], (str,)),
        ("format", content["format"], (str, type(None))),
        ("max_shard_size", content["max_shard_size"], (int, type(None))),
        ("inputs", content["inputs"], (list,)),
        ("outputs", content["outputs"], (list,)),
    ]
    way = content.get("route")
    if way is not None:
        fields += [("route", way, (dict,)), ("to", way["to"], (str,)), ("from", way["from"], (str,))]
        fields += [("config", way["config"], (dict, type(None))), ("sizes", way["sizes"], (dict,))]
        fields += [("size", size, (int,)) for size in way["sizes"].values()]
    for one in (*content["inputs"], *content["outputs"]):
        fields += [("name", one["name"], (str,)), ("path", one["path"], (str,))]
        fields += (
            [("inner", one["inner"], (str, type(None)))]
            if "folder" not in one
            else [("folder", one["folder"], (bool,))]
        )
    for state in content["files"].values():
        fields += [(key, state[key], (int,)) for key in ("size", "mtime_ns")]
    for name, value, kinds in fields:
        if type(value) not in kinds:
            raise TypeError(f"its {name} is a {type(value).__name__}")
