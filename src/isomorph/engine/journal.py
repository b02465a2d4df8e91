"""The journal beside an unfinished target: what was asked for, and how much of it is safely on the disk.

    .model.pth.isomorph-journal     one line of JSON that says what is written from what, then one line after every sync

A run that was cut off leaves it, with the unfinished file; `--resume` goes on from its last line when everything still fits. The
journal is locked while a run is at work, so that two runs never write one target.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isomorph.engine.evaluate import source_text
from isomorph.errors import RefusedError
from isomorph.formats.base import Checkpoint, OutputLayout
from isomorph.plan.plan import Plan

VERSION = 1
sync_data = getattr(os, "fdatasync", os.fsync)
"""Send a file's bytes to the disk."""
MOST_READ = 64 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """Of target file number `file`, the bytes before `offset` are on the disk (all of those before it are whole).

    `crcs` are those of its finished records, `running` that of the unfinished one up to `offset`.
    """

    file: int
    offset: int
    crcs: tuple[int, ...] = ()
    running: int = 0


def fingerprint(plan: Plan, source: Checkpoint, layout: OutputLayout, digest: str | None = None) -> dict[str, Any]:
    """What must be the same for a run to go on where another stopped. `digest` stands for the plan; computed where None."""
    files = []
    for path in source.paths:
        found = path.stat()
        files.append([str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ino])
    return {
        "version": VERSION,
        "plan": plan_digest(plan) if digest is None else digest,
        "sources": files,
        "layout": layout_digest(layout),
    }


def plan_digest(plan: Plan) -> str:
    """A digest of all that is done to the bytes: targets and moves."""
    found = hashlib.blake2b(digest_size=16)
    for name, target in plan.targets.items():
        found.update(f"{name}\0{target.spec}\n".encode("utf-8", "surrogatepass"))
    for move in plan.moves:
        found.update(
            f"{source_text(move.target)} = {source_text(move.source)} {move.operators}\n".encode(
                "utf-8", "surrogatepass"
            )
        )
    return found.hexdigest()


def layout_digest(layout: OutputLayout) -> str:
    found = hashlib.blake2b(f"{layout.format} {layout.is_folder}".encode(), digest_size=16)
    for file in layout.files:
        text = f"{file.name}\0{file.nbytes}\0{list(file.tensors.items())}\0{file.records}"
        found.update(text.encode("utf-8", "surrogatepass"))
        for literal in file.literals:
            found.update(f"{literal.offset}:".encode() + literal.data)
    return found.hexdigest()


def is_own_file(found: os.stat_result) -> bool:
    """True for a regular file of this user that has no second name: what somebody planted is not written into."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()


def is_own_folder(found: os.stat_result) -> bool:
    """True for a folder of this user; a link to one would lead elsewhere."""
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


class Journal:
    """An open, locked journal. `previous` are the lines that it held when it was opened."""

    def __init__(self, path: Path, target: Path) -> None:
        """Open or create it. RefusedError while another run holds it, and where nothing can be written beside `target`."""
        self.path, self._target = path, target
        while True:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                self._fd = os.open(path, flags, 0o600)
            except OSError as error:
                raise RefusedError.by_system(target, error, path) from None
            found = os.fstat(self._fd)  # what has a second name is another's: it is not truncated
            if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
                os.close(self._fd)
                problem = f"cannot be written: {path} is not the journal of an earlier run"
                raise RefusedError(target, problem, "Look what it is, and remove it") from None
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._fd)
                raise RefusedError(
                    target, "is being written by another run", "Wait for it, or give another name"
                ) from None
            except OSError:
                break  # a file system without locks
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), path.lstat()):
                    break
            os.close(self._fd)  # the run that held it has just ended and removed it
        self.previous = tuple(self._lines())

    def _lines(self) -> Iterator[dict[str, Any]]:
        found = os.fstat(self._fd)
        if found.st_size > MOST_READ or found.st_uid != os.geteuid():
            return  # nobody else says what of a target is finished
        with os.fdopen(os.dup(self._fd), "rb") as file:
            for line in file:
                try:
                    found = json.loads(line)
                except (ValueError, RecursionError):
                    return  # the last line was being written when the run was cut off
                if not isinstance(found, dict) or not line.endswith(b"\n"):
                    return
                yield found

    def resumable(self, asked: dict[str, Any]) -> tuple[Progress | None, str]:
        """How far the run that left this journal came, and in words why not, where `asked` is another conversion."""
        if not self.previous:
            return None, "nothing was left by an earlier run"
        head = self.previous[0]
        for key, what in (
            ("version", "another version of isomorph wrote it"),
            ("plan", "the plan is another"),
            ("layout", "the target's layout is another"),
            ("sources", "a source is another file, or has changed since"),
        ):
            if head.get(key) != asked[key]:
                return None, what
        crcs: list[int] = []
        last: Progress | None = None
        for line in self.previous[1:]:
            try:
                file, offset, more, running = line["file"], line["offset"], line["crcs"], line["running"]
                if last is not None and file != last.file:
                    crcs = []
                crcs.extend(int(crc) for crc in more)
                last = Progress(int(file), int(offset), tuple(crcs), int(running))
            except (KeyError, TypeError, ValueError, OverflowError):
                return None, "the journal is damaged"
        return (last, "") if last is not None else (None, "the earlier run had not come far enough")

    def begin(self, asked: dict[str, Any], progress: Progress | None) -> None:
        """Start the journal anew, from `progress` where a run goes on."""
        os.ftruncate(self._fd, 0)
        self._crcs_noted = (-1, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._append(asked)
        if progress is not None:
            self.note(progress)

    def note(self, progress: Progress) -> None:
        """Record that so much is on the disk. Call it after the data were synced."""
        file, noted = self._crcs_noted
        if file != progress.file:
            noted = 0
        self._append(
            {
                "file": progress.file,
                "offset": progress.offset,
                "crcs": list(progress.crcs[noted:]),
                "running": progress.running,
            }
        )
        self._crcs_noted = (progress.file, len(progress.crcs))

    def _append(self, line: dict[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            sync_data(self._fd)
        except OSError as error:
            problem = f"cannot be written: {(error.strerror or 'failed').lower()} ({self.path.parent})"
            raise RefusedError(self._target, problem, "Free some space, or write elsewhere") from None

    def close(self, *, remove: bool) -> None:
        if remove:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        os.close(self._fd)
