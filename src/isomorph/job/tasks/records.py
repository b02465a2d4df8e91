"""The folder beside a target in which tasks work: finished files, a record of each, and what is being written.

    .out.isomorph-tasks-<plan>/files/model-00003-of-00008.safetensors       whole, verified, hashed
                               records/model-00003-of-00008.safetensors     JSON: plan, size, SHA-256, elements verified, task
                               work/<host>-<process>-<chance>/…             one run of one step; its own, so that runs never meet
    .out.isomorph-done-<plan>/                                              what is left of it, when all has its name

No task needs a lock that works between machines: a file and its record get their names in one step each, and two runs of one task
give them the same bytes. A record that was written by a run that was then overtaken still tells the truth. `--finish` is one at a
time where the file system has locks; what it writes itself gets its name in one step as well.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isomorph.engine.places import Place, sync_folder
from isomorph.engine.run import write
from isomorph.errors import IsomorphError, RefusedError
from isomorph.formats.base import Checkpoint, FileLayout, OutputLayout
from isomorph.job.plan_file import PlanFile
from isomorph.plan.plan import Plan
from isomorph.stores.url import path_of

CHUNK = 1 << 20
MOST_RECORD = 1 << 16
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@dataclass(frozen=True)
class Record:
    """What is known of a finished file. `elements` were compared by the verifier; None: it was told not to."""

    plan: str
    nbytes: int
    sha256: str
    mtime_ns: int
    elements: int | None
    task: str
    version: str = ""
    """Of an object in a store, in place of SHA-256 and mtime; and the run that made it, which is a part of its key."""
    run: str = ""


class Workplace:
    """Where the files of one output are put together."""

    def __init__(self, plan: PlanFile, output: int, *, overwrite: bool) -> None:
        """RefusedError where the target may not be written: it exists, is a source, has no folder to lie in."""
        told: Mapping[str, Any] = plan.head["outputs"][output]
        files = tuple(FileLayout(file["name"], file["nbytes"], {}, ()) for file in told["files"])
        layout = OutputLayout(told["format"], files, told["folder"])
        sources = [path_of(file["path"]) for file in plan.head["files"]]
        self.plan = plan
        self.target = plan.targets[output].path
        self.place = Place(self.target, layout, sources, overwrite=True)  # what is there may be ours: see below
        self.place.overwrite = overwrite
        beginning = self.place.temporary.name.removesuffix("part")
        self.folder = self.place.temporary.with_name(f"{beginning}tasks-{plan.digest[:12]}")
        self.left = self.folder.with_name(f"{beginning}done-{plan.digest[:12]}")
        self.place.temporary = self.folder / "files" if told["folder"] else self.folder / "files" / files[0].name
        self.place.journal = self.folder  # of a target that is a disk, it lies inside, and is no stranger there
        self.is_named = self._find_named()
        """True when --finish was cut off after it gave the target its name, before it removed this folder."""
        if not self.is_named:
            self.place.check()

    def _find_named(self) -> bool:
        if self.folder.is_dir():
            was_begun = (self.folder / "records").is_dir() and not os.path.lexists(self.place.temporary)
        else:
            was_begun = self.left.is_dir()
        return was_begun and self._is_whole()

    def _is_whole(self) -> bool:
        sizes = {final: file.nbytes for final, file in zip(self.place.finals, self.place.layout.files, strict=True)}
        return all(final.is_file() and final.stat().st_size == nbytes for final, nbytes in sizes.items())

    def make(self) -> None:
        """Make the folder. RefusedError where it cannot be, and where --finish has given the target its name meanwhile."""
        for name in ("files", "records", "work"):
            try:
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RefusedError.by_system(self.target, error, self.folder) from None
        self.is_named = False
        try:
            self.place.check()
        except RefusedError:
            self._remove_empty()
            raise

    def _remove_empty(self) -> None:
        for name in ("files", "records", "work", ""):
            with contextlib.suppress(OSError):
                (self.folder / name).rmdir()

    @contextmanager
    def while_unfinished(self) -> Iterator[None]:
        """RefusedError where --finish took the files away meanwhile, and where nothing more can be written."""
        try:
            yield
        except (OSError, IsomorphError) as error:
            if os.path.lexists(self.target) and not (self.folder / "files").is_dir():
                self._remove_empty()
                raise finished_meanwhile(self.target) from None
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise RefusedError.by_system(self.target, error, self.folder) from None
            raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """RefusedError where another run of --finish is at work here, as far as the file system has locks."""
        held = -1
        try:
            with contextlib.suppress(FileNotFoundError):  # nothing was done here yet, or all is
                held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                if held >= 0:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                problem = "is being finished by another run"
                raise RefusedError(self.target, problem, "Wait for it, and look at what it says") from None
            except OSError:
                pass  # a file system without locks
            self.is_named = self._find_named()
            if not self.is_named:
                self.place.check()
            yield
        finally:
            if held >= 0:
                os.close(held)

    def path(self, name: str) -> Path:
        return self.folder / "files" / name

    def written(self, name: str) -> Path:
        """Where a finished file lies: under its final name already, or not yet."""
        if not self.is_named:
            return self.path(name)
        return self.target / name if self.place.layout.is_folder else self.target

    def record(self, name: str) -> Record | None:
        """The record of a file, when it is one of this plan and the file has the size that it says."""
        try:
            path = self.folder / "records" / name
            if not path.is_file() or path.stat().st_size > MOST_RECORD:
                return None
            found = Record(**json.loads(path.read_bytes()))
            size = self.written(name).stat().st_size
        except (OSError, ValueError, TypeError):
            return None
        return found if found.plan == self.plan.digest and found.nbytes == size else None

    def is_done(self, name: str, *, verified: bool, reread: bool) -> bool:
        """True for a file whose record holds: its bytes are hashed again, with `reread` always, else where its mtime is another.

        Where the records are being removed, all was proved, and has its final name.
        """
        if self.is_named and not self.folder.is_dir():
            return True
        record = self.record(name)
        if record is None or (verified and record.elements is None):
            return False
        path = self.written(name)
        if not reread and path.stat().st_mtime_ns == record.mtime_ns:
            return True
        return sha256(path) == record.sha256

    @contextmanager
    def beside(self) -> Iterator[Path]:
        """A folder for what belongs to the output besides its tensors; at the end all of it goes to the finished files."""
        (self.folder / "work").mkdir(exist_ok=True)
        with self.run() as folder:
            yield folder
            for one in sorted(folder.iterdir()):
                one.replace(self.path(one.name))
            sync_folder(self.folder / "files")

    def write(self, plan: Plan, source: Checkpoint, layout: OutputLayout, target: Path, **how: Any) -> None:
        """Write one file in the folder of a run, and verify it there. Raises what `engine.run.write` does."""
        write(plan, source, layout, target, **how)

    def finish(self) -> None:
        """Give the target its name. RefusedError where another run did, on a file system without locks."""
        try:
            self.place.finish()
        except FileNotFoundError:
            raise finished_meanwhile(self.target) from None
        self.is_named = True

    def clear(self) -> None:
        """Remove what is left of the tasks: its name first, so that what is half removed is taken for nothing else."""
        with contextlib.suppress(OSError):
            if self.left.exists():
                shutil.rmtree(self.left, ignore_errors=True)
            self.folder.rename(self.left)
        shutil.rmtree(self.left, ignore_errors=True)

    def put(self, made: Path, *, elements: int | None, task: str) -> Record:
        """Give a finished file its name, then its record. What a run of the same task has put there meanwhile is the same."""
        digest, found = sha256(made), made.stat()
        made.replace(self.path(made.name))
        sync_folder(self.folder / "files")
        record = Record(self.plan.digest, found.st_size, digest, found.st_mtime_ns, elements, task)
        part = made.with_name(f"{made.name}.record")
        with part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / "records" / made.name)
        sync_folder(self.folder / "records")
        return record

    @contextmanager
    def run(self) -> Iterator[Path]:
        """A folder of one run's own. What earlier runs of this machine left and nobody holds any more is removed."""
        self._sweep()
        folder, lock = self._own_folder()
        try:
            yield folder
        finally:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)

    def _own_folder(self) -> tuple[Path, int]:
        """A new folder, and what holds its lock, where the file system has locks."""
        while True:
            folder = self.folder / "work" / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            folder.mkdir()
            try:
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # swept before it was locked
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists():
                return folder, lock
            os.close(lock)

    def _sweep(self) -> None:
        for left in (self.folder / "work").glob(f"{socket.gethostname()}-*"):
            with contextlib.suppress(OSError):
                held = os.open(left, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
                finally:
                    os.close(held)


def finished_meanwhile(target: Path) -> RefusedError:
    """In place of what goes wrong when another run of --finish was faster."""
    return RefusedError(target, "was finished by another run meanwhile", "There is nothing left to do")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
