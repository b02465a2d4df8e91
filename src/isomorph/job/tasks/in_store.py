"""The objects below a target in a store with which tasks work: finished files, a record of each; the last step copies and removes.

    s3://b/out/.isomorph-tasks-<plan>/files/<host>-<process>-<chance>/model-00003-of-00008.safetensors     verified where it lies
                                      records/model-00003-of-00008.safetensors     JSON: size, ETag, which object, elements, task
                                      beside/model.safetensors.index.json, …       put there by --finish, with what it copies
                                      state                                        how far --finish came

An object appears whole, and each run uploads under keys of its own, so that runs never meet: the record says whose is taken. What
is done is proved by size and version (S3's ETag): the store changes it with the bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from isomorph.engine.remote_place import RemotePlace
from isomorph.engine.stream import write
from isomorph.errors import IsomorphError, RefusedError, SourceChanged, UsageError
from isomorph.formats.base import Checkpoint, FileLayout, OutputLayout
from isomorph.job.plan_file import PlanFile
from isomorph.job.tasks.records import MOST_RECORD, Record, finished_meanwhile
from isomorph.plan.plan import Plan
from isomorph.stores.base import read_whole
from isomorph.stores.url import Url, path_of

NAMING, NAMED = b"naming\n", b"named\n"
"""What `state` says: final names are being given; all were, and what is left is to be removed."""
MOST_LISTED = 1 << 20
MOST_READ = 5
"""A record that was replaced so often while it was read is taken for none."""


class _Gathered(RemotePlace):
    """The place whose temporary objects are those that the tasks made, each under its own key."""

    def __init__(self, target: Url, layout: OutputLayout, sources: list[Path], *, overwrite: bool, folder: Url) -> None:
        self.where: dict[str, Url] = {}
        super().__init__(target, layout, sources, overwrite=overwrite, temporary=folder / "beside")

    @property
    def temporaries(self) -> tuple[Url, ...]:
        return tuple(self.where.get(file.name, self.temporary / file.name) for file in self.layout.files)

    def remove_temporary(self) -> None:
        """Nothing: it is removed with the records, when all names were given."""


class StoreWorkplace:
    """Where the files of one output in a store are put together."""

    def __init__(self, plan: PlanFile, output: int, *, overwrite: bool) -> None:
        """RefusedError where the target may not be written; UsageError for a store that takes no single objects."""
        told: Mapping[str, Any] = plan.head["outputs"][output]
        target = _in_store(plan.targets[output].path)
        if target.store.is_staged:
            raise UsageError(
                f"{target}: tasks put a target together object by object, and {target.scheme}:// takes it whole; "
                f"isomorph convert {plan.path}  writes it there in one run"
            )
        self.plan, self.target, self.overwrite = plan, target, overwrite
        before = "" if told["folder"] else f".{target.name}"
        below = target if told["folder"] else target.parent
        self.folder = below / f"{before}.isomorph-tasks-{plan.digest[:12]}"
        files = tuple(FileLayout(file["name"], file["nbytes"], {}, ()) for file in told["files"])
        self.layout = OutputLayout(told["format"], files, told["folder"])
        self.state = self._state()
        self.place = _Gathered(
            target,
            self.layout,
            [path_of(file["path"]) for file in plan.head["files"]],
            overwrite=overwrite or self.state != b"",  # names that were given are ours, see `finish`
            folder=self.folder,
        )

    @property
    def is_named(self) -> bool:
        """True when --finish was cut off after it gave all names, before it removed what lies below `folder`."""
        return self.state == NAMED

    @contextmanager
    def beside(self) -> Iterator[Url]:
        """Where --finish puts what belongs to the output besides its tensors: each object appears whole."""
        yield self.place.temporary

    @contextmanager
    def while_unfinished(self) -> Iterator[None]:
        """RefusedError in place of what goes wrong because --finish gave all names meanwhile, and removed what tasks uploaded."""
        try:
            yield
        except IsomorphError:
            if self._is_finished():
                raise finished_meanwhile(self.target) from None
            raise

    def _is_finished(self) -> bool:
        """True when all names were given since this run began, and --finish has cleared up."""
        store = self.target.store
        return not self.overwrite and not self._state() and all(store.stat(final) for final in self.place.finals)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing: a store has no locks."""
        yield

    def make(self) -> None:
        """Nothing: a store has no folders."""

    def _state(self) -> bytes:
        return _small(self.folder / "state") or b""

    def record(self, name: str) -> Record | None:
        """The record of a file, when it is one of this plan and the object is the version that it says.

        FormatError where the store does not say: what cannot be asked for is not missing.
        """
        raw = _small(self.folder / "records" / name)
        try:
            found = Record(**json.loads(raw or b""))
        except (ValueError, TypeError):
            return None
        if found.plan != self.plan.digest or found.run == "" or "/" in found.run:
            return None
        stat = self.target.store.stat(self._object(found, name))
        return found if stat is not None and (stat.nbytes, stat.version) == (found.nbytes, found.version) else None

    def _object(self, record: Record, name: str) -> Url:
        return self.folder / "files" / record.run / name

    def is_done(self, name: str, *, verified: bool, reread: bool) -> bool:
        """True for a file whose record holds. `reread` asks nothing more: a version changes with the bytes."""
        if self.is_named:
            return True
        record = self.record(name)
        return record is not None and not (verified and record.elements is None)

    @contextmanager
    def run(self) -> Iterator[Url]:
        """A beginning of keys of one run's own; what the run uploaded and did not record is removed."""
        folder = self.folder / "files" / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            yield folder
        except BaseException:
            with contextlib.suppress(IsomorphError):
                _remove_below(folder)
            raise

    def write(
        self,
        plan: Plan,
        source: Checkpoint,
        layout: OutputLayout,
        target: Path,
        *,
        verify: Callable[[Path], Any] | None,
        digest: str,
        **how: Any,
    ) -> None:
        """Upload one file, then verify it where it lies. Raises what `stream.write` does."""
        url = _in_store(target)
        write(plan, source, layout, url, direct=True, **how)
        url.store.forget()
        if verify is not None:
            verify(url)
            source.check_unchanged()

    def put(self, made: Path, *, elements: int | None, task: str) -> Record:
        """Record a finished object: from now on it is the one."""
        store = _in_store(made).store
        found = store.stat(_in_store(made))
        if self._is_finished():
            raise finished_meanwhile(self.target)
        if found is None:
            raise RefusedError(made, "was removed while it was written", "Run it again")
        record = Record(
            self.plan.digest, found.nbytes, "", 0, elements, task, version=found.version, run=made.parent.name
        )
        store.put(self.folder / "records" / made.name, (json.dumps(asdict(record)) + "\n").encode(), replace=True)
        return record

    def finish(self) -> None:
        """Copy every object to its final name, inside the store; an index last.

        Where it is cut off, the next one goes on: `state` says that names without --overwrite were free, so that what has one of
        them, and the size of the file that belongs there, is ours. RefusedError for anything else.
        """
        store = self.target.store
        for file, final in zip(self.layout.files, self.place.finals, strict=True):
            record = self.record(file.name)
            if record is not None:
                self.place.where[file.name] = self._object(record, file.name)
            there = store.stat(final) if self.state and not self.overwrite else None
            if there is not None and there.nbytes != file.nbytes:
                raise RefusedError(
                    final, "appeared while names were given; not touched", "Remove it, or use --overwrite"
                )
        store.put(self.folder / "state", NAMING, replace=True)
        for file in self.layout.files:
            made = self.place.where.get(file.name)
            if made is not None:
                self.place.uploaded(made)
        try:
            self.place.finish()
        except BaseException:
            with contextlib.suppress(IsomorphError):
                if not any(store.stat(final) for final in self.place.finals):  # the names were taken back
                    store.remove(self.folder / "state")
            raise
        store.put(self.folder / "state", NAMED, replace=True)

    def clear(self) -> None:
        """Remove all that the tasks put there; `state` last."""
        with contextlib.suppress(IsomorphError):
            _remove_below(self.folder, last="state")


def _small(url: Url) -> bytes | None:
    """The bytes of a record, None where there is none. One that another run replaces meanwhile is read again."""
    for _ in range(MOST_READ):
        try:
            return read_whole(url, MOST_RECORD)
        except FileNotFoundError:
            return None
        except SourceChanged:
            url.store.forget()
    return None


def _in_store(path: Path) -> Url:
    if not isinstance(path, Url):
        raise UsageError(f"{path} is no object of a store")
    return path


def _remove_below(folder: Url, last: str = "") -> None:
    store = folder.store
    store.forget()
    for entry in sorted(store.list(folder, MOST_LISTED), key=lambda one: one.name == last):
        if entry.is_folder:
            _remove_below(folder / entry.name)
        else:
            store.remove(folder / entry.name)
    store.forget()
