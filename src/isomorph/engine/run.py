"""Plan + Checkpoint + layout -> the finished target. Nothing lies under the final name until it is whole, synced and verified.

checks ── pieces, made ahead by threads ──▶ temporary file, in increasing order ── sync ── verify ── sources unchanged ── final name
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.engine.budget import Budget
from isomorph.engine.buffers import CACHE_LINE, Buffers
from isomorph.engine.checks import carry_out
from isomorph.engine.checksums import Crcs, known_crcs, record_crcs
from isomorph.engine.clone import Cloner
from isomorph.engine.copy import produce
from isomorph.engine.finished import take_finished
from isomorph.engine.journal import Journal, Progress, fingerprint, is_own_file, is_own_folder
from isomorph.engine.pieces import (
    Clone,
    Copy,
    Groups,
    Make,
    Piece,
    Sum,
    from_offset,
    moves_by_target,
    parts_of,
    pieces_of,
)
from isomorph.engine.pipeline import Pipeline
from isomorph.engine.places import Place
from isomorph.engine.sharing import cloned_nbytes, shared
from isomorph.engine.signals import terminable, undisturbed
from isomorph.engine.sync import Syncer
from isomorph.errors import Different, RefusedError
from isomorph.formats.base import Checkpoint, FileLayout, OutputLayout
from isomorph.operators.base import Changes
from isomorph.plan.plan import Plan

Array = np.ndarray[Any, Any]

AT_ONCE = 1 << 18
"""Bytes written by one call. For longer ones ext4 takes memory in pieces as long, and fills them at a fifth of the speed."""


@dataclass
class Written:
    """What a run did. `copied` and `made` are target bytes that were byte ranges, and that passed through the kernels."""

    path: Path
    files: tuple[Path, ...] = ()
    nbytes: int = 0
    copied: int = 0
    made: int = 0
    cloned: int = 0
    """Of the bytes copied, those that were not moved: blocks that the target shares with the source."""
    by_store: int = 0
    """Of the bytes copied, those that an object store copied itself."""
    seconds: float = 0.0
    verify_seconds: float = 0.0
    resumed_from: int = 0
    notes: tuple[str, ...] = ()
    changes: dict[str, Changes] = field(default_factory=dict)
    """What rounding casts changed, by target."""
    verified: Any = None
    """What the verify callback returned."""

    def prove(self, verify: Callable[[Path], Any], temporary: Path) -> None:
        """Note what `verify` says of the finished temporary. Different when it says that it is not equal."""
        before = time.perf_counter()
        self.verified = verify(temporary)
        self.verify_seconds = time.perf_counter() - before
        if getattr(self.verified, "equal", True) is False:
            raise Different(self.verified)


def write(
    plan: Plan,
    source: Checkpoint,
    layout: OutputLayout,
    target: str | Path,
    *,
    max_memory: int = 256 << 20,
    workers: int = 2,
    overwrite: bool = False,
    resume: bool = False,
    verify: Callable[[Path], Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    digest: str | None = None,
) -> Written:
    """Carry out `plan` into `target`, laid out as `layout` says.

    `workers` threads read and compute beside the one that writes (0: none). `verify(path)` is given the finished temporary file or
    folder; what it raises, or a result whose `equal` is False, keeps the final name from being given. `progress(done, total)` is
    called at most 20 times a second. `digest` identifies the plan for `resume`; it is computed where None.

    RefusedError where the target may not be written or the disk is full; CheckError where values do not keep a tie, a constant
    or an exact cast; SourceChanged; Different. In every case, and on Ctrl-C, SIGTERM or a crash, nothing lies under the final
    name that did not lie there before. After Ctrl-C, SIGTERM and a crash, `resume` goes on from what was finished.
    """
    began = time.perf_counter()
    budget = Budget(max_memory)
    place = Place(Path(target), layout, source.paths, overwrite=overwrite, resume=resume)
    written = Written(Path(target), files=place.finals, nbytes=sum(file.nbytes for file in layout.files))
    with terminable():
        journal = Journal(place.journal, place.shown)
        keep = False
        try:
            if place.is_there:
                keep = bool(journal.previous)  # where it is refused, nothing was done
                written.verified = take_finished(plan, source, place, budget, verify, written.changes)
                written.resumed_from = written.nbytes
                written.notes = ("finished by an earlier run: compared byte for byte, and left as it is",)
                keep = False
                return written
            asked = fingerprint(plan, source, layout, digest)
            start = _start(place, journal, asked, resume and bool(source.paths), written)
            run = _Run(plan, source, place, budget, workers, journal if source.paths else None, written, progress)
            run.noted = start != Progress(0, 0)
            try:
                carry_out(plan, source)
                run.write_all(start)
            except KeyboardInterrupt as interrupt:
                keep = run.noted
                if keep:
                    interrupt.add_note(f"what was finished is kept beside {target}: --resume goes on from there")
                raise
            del run  # what only the writing needs is not held while all is verified
            place.layout = layout = layout.outline
            source.check_unchanged()
            if verify is not None:
                written.prove(verify, place.temporary)
                source.check_unchanged()
            with undisturbed():
                place.finish()
        except BaseException:
            if not keep:
                with contextlib.suppress(OSError):
                    place.remove_temporary()
            raise
        finally:
            journal.close(remove=not keep)
    written.seconds = time.perf_counter() - began
    return written


def _start(place: Place, journal: Journal, asked: dict[str, Any], resume: bool, written: Written) -> Progress:
    """Where to begin: after what an earlier run finished, or, everything of it removed, with the first byte."""
    if resume:
        found, why = journal.resumable(asked)
        if found is not None and _fits(place, found):
            sizes = [file.nbytes for file in place.layout.files[: found.file]]
            written.resumed_from = sum(sizes) + found.offset
            journal.begin(asked, found)
            place.clear_after(found.file)
            return found
        written.notes = (
            *written.notes,
            f"not resumed, begun anew: {why or 'the unfinished file is gone or was changed'}",
        )
    place.remove_temporary()
    journal.begin(asked, None)
    return Progress(0, 0)


def _fits(place: Place, found: Progress) -> bool:
    """True when `found` is a place in this layout, and the unfinished files are there, regular, ours and long enough."""
    if not 0 <= found.file < len(place.layout.files):
        return False
    file = place.layout.files[found.file]
    finished = sum(sum(record) <= found.offset for record in file.records)
    if not 0 <= found.offset <= file.nbytes or len(found.crcs) != finished:
        return False
    if not all(0 <= crc < 1 << 32 for crc in (*found.crcs, found.running)):
        return False
    try:
        if place.layout.is_folder and not is_own_folder(os.lstat(place.temporary)):
            return False
        for number, (path, file) in enumerate(zip(place.temporaries, place.layout.files, strict=True)):
            if number > found.file:
                break
            status = os.lstat(path)
            if status.st_size < (file.nbytes if number < found.file else found.offset) or not is_own_file(status):
                return False
    except OSError:
        return False
    return True


class _Run:
    """One pass over all files of a target."""

    def __init__(
        self,
        plan: Plan,
        source: Checkpoint,
        place: Place,
        budget: Budget,
        workers: int,
        journal: Journal | None,
        written: Written,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.plan, self.source, self.place, self.budget, self.workers = plan, source, place, budget, workers
        self.journal, self.written = journal, written
        self.noted = False
        self._buffers = Buffers(budget.nbytes // 4)
        self._groups: Groups = moves_by_target(plan)
        self._cloner = Cloner(place.parent, source)
        self._shared: dict[int, int] = {}
        """Number of a target file -> how many of its bytes are expected to be shared with the source."""
        self._report = Throttled(progress, written.nbytes)
        self._done = 0

    def write_all(self, start: Progress) -> None:
        layout, place = self.place.layout, self.place
        if self._cloner.common_block() is not None:
            files = range(start.file, len(layout.files))
            self._shared = {number: self._cloned_nbytes(layout.files[number]) for number in files}
        needed = self.written.nbytes - sum(self._shared.values())
        place.check_room(needed - self.written.resumed_from if start.offset or start.file else needed)
        if layout.is_folder:
            try:
                place.temporary.mkdir()
            except FileExistsError:
                self._require(is_own_folder(os.lstat(place.temporary)), place.temporary)
        self._done = self.written.resumed_from
        for number in range(start.file, len(layout.files)):
            begin = start if number == start.file else Progress(number, 0)
            self._write_file(number, layout.files[number], place.temporaries[number], begin)
        self._report(self._done, final=True)

    def _cloned_nbytes(self, file: FileLayout) -> int:
        return cloned_nbytes(self._groups, self.plan, file, self.source, self._cloner)

    def _write_file(self, number: int, layout: FileLayout, path: Path, start: Progress) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if start.offset else os.O_EXCL)
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
        try:
            self._require(not start.offset or is_own_file(os.fstat(descriptor)), path)
            if not self._shared.get(number):  # blocks that will be shared need no room, and reserving others loses them
                self._reserve(descriptor, layout.nbytes)
            syncer = Syncer(descriptor, self.journal)
            try:
                crcs = self._write_pieces(descriptor, number, layout, start, syncer)
                if layout.trailer is not None:
                    for literal in layout.trailer(crcs):
                        self._pwrite(descriptor, memoryview(literal.data), literal.offset)
            finally:
                self.noted = syncer.finish() or self.noted
            self._send(descriptor, layout.nbytes, syncer)
        finally:
            os.close(descriptor)

    def _send(self, descriptor: int, nbytes: int, syncer: Syncer) -> None:
        """Wait until all `nbytes` bytes of the file are on the disk. RefusedError when one of them did not get there."""
        try:
            syncer.check()
            os.ftruncate(descriptor, nbytes)
            os.fsync(descriptor)
        except RefusedError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise self._full(error) from None
            problem = f"could not be sent to the disk: {(error.strerror or 'failed').lower()}"
            raise RefusedError(self.place.shown, problem, "Look after the disk, or write elsewhere") from None

    def _require(self, is_ours: bool, path: Path) -> None:
        """RefusedError where something was put in the place of an unfinished file since it was looked at."""
        if not is_ours:
            problem = f"cannot be written: something else lies at {path}"
            raise RefusedError(self.place.shown, problem, "Look what it is, and remove it")

    def _reserve(self, descriptor: int, nbytes: int) -> None:
        if not nbytes or not hasattr(os, "posix_fallocate"):
            return
        try:
            os.posix_fallocate(descriptor, 0, nbytes)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise self._full(error) from None

    def _full(self, error: OSError) -> RefusedError:
        if error.errno == errno.ENOSPC:
            return self.place.no_room(self.written.nbytes)
        reason = "the quota is used up" if error.errno == errno.EDQUOT else "files may not grow that large here"
        return RefusedError(self.place.shown, f"cannot hold {self.written.nbytes} bytes: {reason}", "Write elsewhere")

    def _pwrite(self, descriptor: int, data: memoryview, offset: int) -> None:
        try:
            while data:
                head = -offset % CACHE_LINE  # the rest then begins on a cache line of the file's page
                count = os.pwritev(descriptor, [data[:head], data[head:AT_ONCE]], offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise self._full(error) from None
            raise RefusedError.by_system(self.place.shown, error) from None

    def _write_pieces(
        self, descriptor: int, number: int, layout: FileLayout, start: Progress, syncer: Syncer
    ) -> Sequence[int]:
        """All bytes known beforehand, from `start` on. Returns the CRC-32 of every record."""
        parts = parts_of(self.plan, self._groups, layout, self.source, self.budget)
        if start.offset:
            parts = from_offset(parts, start.offset)
            for literal in layout.literals:  # what is known beforehand is not taken from a file that lay about
                if literal.offset < start.offset:
                    known = memoryview(literal.data)[: start.offset - literal.offset]
                    self._pwrite(descriptor, known, literal.offset)
        kept = known_crcs(self.plan, self._groups, layout, self.source)
        crcs = Crcs(layout.records, start, kept)
        if self._shared.get(number):
            summed = [record for place, record in enumerate(layout.records) if place not in kept]
            parts = shared(parts, self._cloner, summed, self.budget.chunk)

        def make(piece: Piece) -> tuple[Array, list[tuple[int, int, int, int]], dict[str, Changes]]:
            buffer, changes = self._buffers.take(piece.buffer_nbytes), dict[str, Changes]()
            produce(self.plan, self.source, piece, buffer, changes)
            found = record_crcs(piece, buffer, layout.records, kept) if buffer.size and layout.records else []
            return buffer, found, changes

        jobs = pieces_of(parts, self.budget.chunk)
        with Pipeline(
            jobs, make, lambda piece: piece.cost, workers=self.workers, most=self.budget.nbytes * 3 // 4
        ) as pipeline:
            for piece, (buffer, found, changes) in pipeline:
                self._put(descriptor, piece, buffer)
                self._buffers.give_back(buffer)
                for stretch in found:
                    crcs.add(*stretch)
                if isinstance(piece.parts[0], Sum):
                    continue
                self._count(piece, changes)
                self._done += piece.nbytes
                self._report(self._done)
                if syncer.wants(buffer.size):
                    syncer.sync(Progress(number, piece.offset + piece.nbytes, *crcs.state(piece.offset + piece.nbytes)))
        return crcs.finish()

    def _put(self, descriptor: int, piece: Piece, buffer: Array) -> None:
        """Write a piece; share what is a Clone, or copy it after all where that fails."""
        first = piece.parts[0]
        if isinstance(first, Sum):
            return
        if not isinstance(first, Clone):
            self._pwrite(descriptor, buffer.data, piece.offset)
            return
        if self._cloner.clone(first.file, first.source_offset, first.nbytes, descriptor, first.offset):
            self.written.cloned += first.nbytes
            return
        chunk = self._buffers.take(min(self.budget.chunk, first.nbytes))
        for at in range(0, first.nbytes, chunk.size):
            some = chunk[: first.nbytes - at]
            self.source.pread(first.file, first.source_offset + at, some.data)
            self._pwrite(descriptor, some.data, first.offset + at)
        self._buffers.give_back(chunk)

    def _count(self, piece: Piece, changes: dict[str, Changes]) -> None:
        for part in piece.parts:
            if isinstance(part, Copy | Clone):
                self.written.copied += part.nbytes
            elif isinstance(part, Make):
                self.written.made += part.nbytes
        for name, counted in changes.items():
            self.written.changes.setdefault(name, Changes()).add(counted)


class Throttled:
    """Calls `progress(done, total)` at most 20 times a second, and once at the end."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._next = progress, total, 0.0

    def __call__(self, done: int, *, final: bool = False) -> None:
        if self._progress is None:
            return
        now = time.monotonic()
        if final or now >= self._next:
            self._next = now + 0.05
            self._progress(self._total if final else done, self._total)
