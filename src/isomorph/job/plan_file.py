"""plan.json: a conversion written down whole, so that it can be read, kept, and carried out later on the same inputs, in shares.

It is JSON of one line each for the plan (morph, programs, config, sizes, inputs, outputs), for every source file (its tensors) and
for every target file (its tensors, where they lie, what they are made of). The first line has the digest of the second, the second
those of all others: what was edited is refused, and a task of many reads the lines that it needs. Nothing of it is believed:
`convert plan.json` proves the plan again, a task its own share of it, and they go on only when it is the same and the inputs are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from isomorph.errors import FormatError, IsomorphError, SourceChanged, UsageError, printable
from isomorph.job.inputs import Place
from isomorph.job.port import Port
from isomorph.job.small_file import check_free, named
from isomorph.plan.serial import programs_from_json

if TYPE_CHECKING:
    from isomorph.formats.base import Checkpoint
    from isomorph.job.convert import Writing
    from isomorph.job.tasks.shares import Share
    from isomorph.plan.plan import Plan
from isomorph.stores.url import Url

KIND = "isomorph plan"
VERSION = 2
MOST_BYTES = 1 << 32
MOST_LINE = 1 << 30
STATES = {"size": "size", "mtime_ns": "mtime", "version": "version"}
OPENED, CLOSED = (b'"sources": [\n', b'"files": [\n'), b"]"


@dataclass(frozen=True)
class Line:
    """Where a line of a plan.json lies: from so many bytes after the head, so long, with this SHA-256."""

    offset: int
    nbytes: int
    digest: str


@dataclass(frozen=True)
class PlanFile:
    """A plan.json: its head, read; its other lines are read when they are asked for."""

    path: str
    head: Mapping[str, Any]
    digest: str
    """SHA-256 of the head, which holds those of all other lines."""
    begin: int
    """The byte after the head."""
    port: Port
    sources: list[Place]
    targets: list[Place]

    def writing(self, given: Writing) -> Writing:
        """The options of writing, with the plan's format and shards. UsageError for other ones: the plan says every file."""
        for option, key in (("--format", "format"), ("--max-shard-size", "max_shard_size")):
            asked = getattr(given, key)
            if asked is not None and asked != self.head[key]:
                raise UsageError(f"{option}: {self.path} says every file of its outputs; plan again to change them")
        return replace(given, format=self.head["format"], max_shard_size=self.head["max_shard_size"])

    @property
    def plan_digest(self) -> str:
        """The digest of the whole plan (`Plan.digest`)."""
        return str(self.head["digest"])

    @cached_property
    def files(self) -> tuple[Mapping[str, Any], ...]:
        """Every target file that holds tensors: its output's number, name and size, and its line."""
        return tuple(
            {"output": number, **file}
            for number, output in enumerate(self.head["outputs"])
            for file in output["files"]
            if file["line"] is not None
        )

    def share(self, number: int) -> Share:
        """What there is to do for target file `number`. FormatError when its line was edited."""
        from isomorph.job.tasks.shares import Share

        file = self.files[number]
        with _whole_or_refused(self.path):
            line, output = self._line(Line(*file["line"])), self.head["outputs"][file["output"]]
            return Share.from_json(line, file, output, len(self.head["files"]))

    def check_whole(self) -> None:
        """FormatError when any line was edited, or is missing, or is one too many."""
        reached = 0
        sources = [Line(*one["line"]) for one in self.head["files"]]
        targets = [Line(*one["line"]) for one in self.files]
        with Path(self.path).open("rb") as file:
            file.seek(self.begin)
            for opening, lines in zip(OPENED, (sources, targets), strict=True):
                reached += self._expect(file, opening)
                for number, line in enumerate(lines):
                    if line.offset != reached:
                        raise self._edited()
                    reached += line.nbytes
                    self._read(file, line)
                    reached += self._expect(file, b",\n" if number + 1 < len(lines) else b"\n")
                reached += self._expect(file, CLOSED + (b",\n" if opening == OPENED[0] else b"}\n"))
            if file.read(1):
                raise self._edited()

    def _expect(self, file: BinaryIO, text: bytes) -> int:
        if file.read(len(text)) != text:
            raise self._edited()
        return len(text)

    def _line(self, line: Line) -> Any:
        with Path(self.path).open("rb") as file:
            file.seek(self.begin + line.offset)
            return json.loads(self._read(file, line))

    def _read(self, file: BinaryIO, line: Line) -> bytes:
        if not 0 <= line.nbytes <= MOST_LINE:
            raise self._edited()
        raw = file.read(line.nbytes)
        if hashlib.sha256(raw).hexdigest() != line.digest:
            raise self._edited()
        return raw

    def _edited(self) -> FormatError:
        return FormatError(
            self.path, "was edited after it was written: its digests are those of another text", "Plan again"
        )

    def check_sources(self, source: Checkpoint) -> None:
        """SourceChanged when an input is not what it was when the plan was made."""
        files = {Path(file["path"]).name: file for file in self.head["files"]}
        for path in source.paths:
            check_state(path, files.get(path.name), self.path)
        if header_digest(source.manifest) != self.head["header_digest"]:
            raise SourceChanged(source.manifest.origin, f"its tensors are not those that {self.path} was made for")

    def check_plan(self, plan: Plan) -> None:
        """FormatError when the plan that was proved now is another one than the plan that was written down."""
        if plan.digest != self.plan_digest:
            raise FormatError(
                self.path,
                f"its digest is {printable(self.plan_digest[:8])}…, and planning again gives {plan.digest[:8]}…",
                "It was edited, or made by another version: plan again",
            )


def header_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of all names and specs."""
    from isomorph.plan.texts import spec_texts

    digest, texts = hashlib.sha256(), spec_texts(manifest.values())
    names = iter(manifest.items())
    while lines := "".join([f"{name}\0{texts[id(spec)]}\n" for name, spec in islice(names, 4096)]):
        digest.update(lines.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def state(path: Path) -> dict[str, Any]:
    """Size and mtime of a file; of an object in a store its version too (S3's ETag)."""
    if isinstance(path, Url):
        return path.state()
    found = path.stat()
    return {"size": found.st_size, "mtime_ns": found.st_mtime_ns}


def check_state(path: Path, expected: Mapping[str, Any] | None, plan: str) -> None:
    """SourceChanged when a source file has another size or mtime than when the plan was made, or is gone."""
    try:
        found = state(path)
    except (FileNotFoundError, NotADirectoryError):
        raise SourceChanged(path, f"is no longer there: it was when {plan} was made") from None
    other = [STATES[key] for key, value in found.items() if expected is None or expected.get(key) != value]
    if other:
        raise SourceChanged(path, f"is not what it was when {plan} was made (another {', '.join(other)})")


def is_plan_file(path: str) -> bool:
    """True for a file that begins as a plan.json does; a pipe, which would be waited for, is none."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            head = file.read(200)
    except (OSError, ValueError):
        return False
    return head.lstrip().startswith(b"{") and KIND.encode() in head


def read_plan_file(path: str) -> PlanFile:
    """Read the head of a plan.json. FormatError when it is broken, edited or of another version."""
    with _whole_or_refused(path):
        return _read_plan_file(path)


@contextmanager
def _whole_or_refused(path: str) -> Iterator[None]:
    """FormatError for whatever goes wrong in reading a text that may come from anyone."""
    try:
        yield
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


def _read_plan_file(path: str) -> PlanFile:
    file = Path(path)
    if file.stat().st_size > MOST_BYTES:
        raise FormatError(path, "is too large to be a plan")
    with file.open("rb") as opened:
        first = opened.readline(1 << 10)
        second = opened.readline(MOST_LINE)
        begin = opened.tell()
    said = json.loads(first.rstrip().rstrip(b",") + b"}") if first.endswith(b",\n") else None
    if said is None or said.get("kind") != KIND:
        raise FormatError(
            path, "is not written as isomorph writes plans: its first line is another, as after an editor", "Plan again"
        )
    if type(said["version"]) is not int or said["version"] != VERSION:
        raise FormatError(
            path, f"is a plan of version {said['version']!r}, and this isomorph reads {VERSION}", "Plan again"
        )
    raw = second.removeprefix(b'"plan": ').removesuffix(b",\n")
    digest = hashlib.sha256(raw).hexdigest()
    if digest != said["digest"]:
        raise FormatError(path, "was edited after it was written: its digest is that of another text", "Plan again")
    head = json.loads(raw)
    _require_kinds(head)
    programs, cast = programs_from_json(head)
    way = head["route"] or {}
    port = Port(
        recorded=programs,
        sizes=head["sizes"],
        file_config=head["config"],
        cast=cast,
        to=way.get("to"),
        from_=way.get("from"),
        asked=way,
    )
    return PlanFile(
        path,
        head,
        digest,
        begin,
        port,
        [Place(one["name"], one["path"], one["inner"]) for one in head["inputs"]],
        [Place(one["name"], one["path"] + ("/" if one["folder"] else "")) for one in head["outputs"]],
    )


def _require_kinds(head: Mapping[str, Any]) -> None:
    """TypeError when a field that is used later is not of its kind: a plan.json may come from anyone."""
    for name, value, kinds in _fields(head):
        if type(value) not in kinds:
            raise TypeError(f"its {name} is a {type(value).__name__}")


def _fields(head: Mapping[str, Any]) -> Iterator[tuple[str, object, tuple[type, ...]]]:
    yield "config", head["config"], (dict,)
    yield "sizes", head["sizes"], (dict,)
    yield from (("size", size, (int,)) for size in head["sizes"].values())
    yield "metadata", head["metadata"], (dict,)
    yield from (("metadata", value, (str,)) for value in head["metadata"].values())
    for name in ("digest", "header_digest"):
        yield name, head[name], (str,)
    yield "format", head["format"], (str, type(None))
    yield "max_shard_size", head["max_shard_size"], (int, type(None))
    yield "apart", head["apart"], (bool,)
    for name in ("files", "inputs", "outputs"):
        yield name, head[name], (list,)
    way = head["route"]
    if way is not None:
        yield from (("route", way, (dict,)), ("to", way["to"], (str,)), ("from", way["from"], (str,)))
        yield from (("config", way["config"], (dict, type(None))), ("sizes", way["sizes"], (dict,)))
        yield from (("size", size, (int,)) for size in way["sizes"].values())
    for one in (*head["inputs"], *head["outputs"]):
        yield from (("name", one["name"], (str,)), ("path", one["path"], (str,)))
    yield from (("inner", one["inner"], (str, type(None))) for one in head["inputs"])
    for one in head["files"]:
        yield from (("path", one["path"], (str,)), ("digest", one["digest"], (str, type(None))))
        yield from ((key, one[key], (int,)) for key in ("size", "mtime_ns"))
        yield "version", one.get("version"), (str, type(None))
        yield from _line_fields(one["line"])
    for output in head["outputs"]:
        yield from (("folder", output["folder"], (bool,)), ("format", output["format"], (str,)))
        yield "files", output["files"], (list,)
        for file in output["files"]:
            yield from (("name", file["name"], (str,)), ("nbytes", file["nbytes"], (int,)))
            if Path(file["name"]).name != file["name"] or file["name"] in ("", ".", "..") or file["nbytes"] < 0:
                raise ValueError("a target file has no name, or one that leads elsewhere")
            if file["line"] is not None:
                yield from _line_fields(file["line"])


def _line_fields(line: Any) -> Iterator[tuple[str, object, tuple[type, ...]]]:
    offset, nbytes, digest = line
    yield from (("offset", offset, (int,)), ("nbytes", nbytes, (int,)), ("digest", digest, (str,)))


def check_plan_free(path: str) -> None:
    """RefusedError where a plan would replace anything but an earlier plan (or an empty document), or has no folder to lie in."""
    check_free(path, "plan.json", replaces=_is_replaced, advice="It is no plan.json: give another name")


def _is_replaced(path: str) -> bool:
    file = Path(path)
    return is_plan_file(path) or (
        file.is_file() and file.stat().st_size < 9 and file.read_bytes().strip() in (b"", b"{}")
    )


def write_plan_file(path: str, planned: Any, *, format: str | None = None, max_shard_size: int | None = None) -> None:
    """Write a plan down, and every byte offset of its outputs. The file appears whole or not at all.

    RefusedError where anything but an earlier plan has its name.
    """
    from isomorph.job.plan_lines import write_lines

    check_plan_free(path)
    target = Path(path)
    temporary = target.with_name(f".{target.name[:64]}.{os.getpid()}")
    body = target.with_name(f".{target.name[:64]}.{os.getpid()}-lines")
    try:
        with named(path), body.open("w+b") as lines:
            raw = json.dumps(write_lines(lines, planned, format, max_shard_size)).encode()
            digest = hashlib.sha256(raw).hexdigest()
            said = json.dumps({"kind": KIND, "version": VERSION, "digest": digest})
            with temporary.open("wb") as file:
                file.write(f"{said[:-1]},\n".encode() + b'"plan": ' + raw + b",\n")
                lines.seek(0)
                while chunk := lines.read(1 << 20):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        with named(path):
            temporary.replace(target)
    finally:
        for left in (temporary, body):
            with suppress(OSError):  # as of a file that is not there, on a file system that is not written to
                left.unlink()
