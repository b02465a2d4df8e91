"""Plan + Checkpoint + layout -> objects of a store: every byte sent once, in increasing order, or copied by the store itself.

pieces, made ahead by threads ──▶ parts of an upload, several at once ── verify, read back ── copied to the final name
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.engine.budget import Budget
from isomorph.engine.buffers import Buffers
from isomorph.engine.checks import carry_out
from isomorph.engine.checksums import Crcs, known_crcs, record_crcs
from isomorph.engine.copy import produce
from isomorph.engine.journal import Progress
from isomorph.engine.pieces import Bytes, Copy, Groups, Make, Piece, moves_by_target, parts_of, pieces_of
from isomorph.engine.pieces import Part as Stretch
from isomorph.engine.pipeline import Pipeline
from isomorph.engine.remote_place import RemotePlace
from isomorph.engine.run import Throttled, Written
from isomorph.engine.run import write as write_files
from isomorph.engine.signals import terminable
from isomorph.errors import RefusedError, SourceChanged, UsageError
from isomorph.formats.base import Checkpoint, FileLayout, Literal, OutputLayout
from isomorph.operators.base import Changes
from isomorph.plan.plan import Plan
from isomorph.stores.base import Stat, Upload
from isomorph.stores.parts import USUAL, Part, Range, plan_parts
from isomorph.stores.url import Url

Array = np.ndarray[Any, Any]

MOST_AT_ONCE = 8
"""Parts that are sent or copied at once."""
LEAST_MEMORY = 4 * USUAL


def write(
    plan: Plan,
    source: Checkpoint,
    layout: OutputLayout,
    target: Url,
    *,
    max_memory: int = 256 << 20,
    workers: int = 2,
    overwrite: bool = False,
    resume: bool = False,
    direct: bool = False,
    verify: Callable[[Path], Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Carry out `plan` into a store, as `run.write` does into files; what is raised is the same.

    `verify(url)` is given the temporary object or folder. `direct`: one object is completed under its own name at once, after
    `verify`, which then reads nothing. An upload that fails or is interrupted is aborted, and the temporary keys are removed.
    """
    if resume:
        raise UsageError(
            "--resume goes on with a file: an upload to an object store begins again. Run it without --resume"
        )
    if max_memory < LEAST_MEMORY:
        raise UsageError(
            f"an upload is made of parts of {USUAL:,} bytes, several at once: give --max-memory {LEAST_MEMORY >> 20}MiB"
        )
    began = time.perf_counter()
    budget = Budget(max_memory)
    place = RemotePlace(target, layout, source.paths, overwrite=overwrite)
    if place.store.is_staged:
        return _write_staged(
            plan, source, place, max_memory=max_memory, workers=workers, verify=verify, progress=progress
        )
    written = Written(target, files=place.finals, nbytes=sum(file.nbytes for file in layout.files))
    direct = direct and not layout.is_folder
    uploads: list[Upload] = []
    with terminable():
        try:
            carry_out(plan, source)
            run = _Run(plan, source, budget, workers, written, progress)
            for file, temporary in zip(layout.files, place.finals if direct else place.temporaries, strict=True):
                uploads.append(run.send(file, temporary, replace=overwrite or not direct))
                if not direct:
                    uploads.pop().finish()
                    place.uploaded(temporary)
            run.report(run.done, final=True)
            del run  # as in run.write
            place.layout = layout = layout.outline
            source.check_unchanged()
            if verify is not None:
                written.prove(verify, place.temporary)
                source.check_unchanged()
            if direct:
                uploads[0].finish()
            else:
                place.finish()
        except BaseException:
            for upload in uploads:
                upload.abort()
            if not direct:
                place.remove_temporary()
            raise
    written.seconds = time.perf_counter() - began
    return written


def _write_staged(plan: Plan, source: Checkpoint, place: RemotePlace, **how: Any) -> Written:
    """Write into a folder of this machine, verified there, and give what is finished to the store at once."""
    with tempfile.TemporaryDirectory(prefix="isomorph-") as folder:
        local = Path(folder) / place.target.name
        written = write_files(plan, source, place.layout, local, **how)
        place.check()
        made = sorted(local.iterdir()) if place.layout.is_folder else [local]
        pairs = [(file, place.target / file.name if place.layout.is_folder else place.target) for file in made]
        place.store.commit(place.target, pairs)
    return replace(written, path=place.target, files=place.finals)


class _Run:
    """One pass over all files of a target."""

    def __init__(
        self,
        plan: Plan,
        source: Checkpoint,
        budget: Budget,
        workers: int,
        written: Written,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.plan, self.source, self.budget, self.workers, self.written = plan, source, budget, workers, written
        self.report = Throttled(progress, written.nbytes)
        self.done = 0
        self._groups: Groups = moves_by_target(plan)
        self._buffers = Buffers(budget.nbytes // 8)
        self._versions: dict[str, Stat] = {}

    def send(self, layout: FileLayout, url: Url, *, replace: bool) -> Upload:
        """Send one file; the upload is complete but for `finish`. What is raised leaves nothing of it."""
        known = known_crcs(self.plan, self._groups, layout, self.source)
        ranges = list(self._copyable(layout, url, known))
        parts = plan_parts(layout.nbytes, ranges, usual=USUAL)
        largest = max((part.nbytes for part in parts or () if part.source is None), default=0)
        if parts is None or 3 * largest > self.budget.nbytes:
            raise RefusedError(
                url,
                f"takes {layout.nbytes:,} bytes, more than 10,000 parts that fit into the memory that may be used",
                "Write shards (--max-shard-size), or give more --max-memory",
            )
        upload = url.store.begin(url, layout.nbytes, replace=replace)
        try:
            at_once = (
                1 if upload.in_order else max(1, min(MOST_AT_ONCE, self.budget.nbytes // 2 // max(largest, 1) - 1))
            )
            with _Sender(upload, parts, lambda number, part: self._copy(upload, number, part), at_once) as sender:
                self._send_pieces(layout, parts, known, sender)
                sender.finish()
        except BaseException:
            upload.abort()
            raise
        return upload

    def _copyable(self, layout: FileLayout, url: Url, known: Mapping[int, int]) -> Iterator[Range]:
        """Ranges of the file that the store can copy: from an object of the same store, into no record that has to be summed."""
        if not url.store.copies_ranges:
            return
        files = self.source.paths
        summed = [record for number, record in enumerate(layout.records) if number not in known]
        for part in self._stretches(layout):
            if not isinstance(part, Copy):
                continue
            home = files[part.file]
            if not isinstance(home, Url) or home.store is not url.store:
                continue
            if _touches(summed, part.offset, part.offset + part.nbytes):
                continue
            yield Range(part.offset, part.nbytes, part.file, part.source_offset)

    def _stretches(self, layout: FileLayout) -> Iterator[Stretch]:
        return parts_of(self.plan, self._groups, layout, self.source, self.budget)

    def _copy(self, upload: Upload, number: int, part: Part) -> None:
        """Let the store copy a part, if its source still is the version that was opened (`check_unchanged` holds them together)."""
        origin = part.source
        if origin is None:
            return
        home = self.source.paths[origin.file]
        if isinstance(home, Url):
            upload.copy(number, home, self._version(home), origin.source_offset, part.nbytes)

    def _version(self, url: Url) -> Stat:
        found = url.store.look(url)
        if found is None:
            raise SourceChanged(url, "was removed while it was read")
        return self._versions.setdefault(str(url), found)

    def _send_pieces(
        self, layout: FileLayout, parts: Sequence[Part], known: Mapping[int, int], sender: _Sender
    ) -> None:
        crcs = Crcs(layout.records, Progress(0, 0), known)
        described = 0

        def describe(offset: int) -> None:
            """Send the descriptors of the records that end before `offset`."""
            nonlocal described
            if layout.descriptor is None:
                return
            finished, _ = crcs.state(offset)
            for number in range(described, len(finished)):
                sender.literal(layout.descriptor(number, finished[number]))
            described = len(finished)

        def make(piece: Piece) -> tuple[Array, list[tuple[int, int, int, int]], dict[str, Changes]]:
            buffer, changes = self._buffers.take(piece.nbytes), dict[str, Changes]()
            produce(self.plan, self.source, piece, buffer, changes)
            return buffer, record_crcs(piece, buffer, layout.records, known) if layout.records else [], changes

        sent = [part for part in parts if part.source is None]
        jobs = pieces_of(_within(self._stretches(layout), sent), self.budget.chunk)
        with Pipeline(
            jobs, make, lambda piece: piece.cost, workers=self.workers, most=self.budget.nbytes * 3 // 8
        ) as pipeline:
            for piece, (buffer, found, changes) in pipeline:
                if layout.records:
                    describe(piece.offset)
                sender.send(piece.offset, buffer.data)
                self._buffers.give_back(buffer)
                for stretch in found:
                    crcs.add(*stretch)
                self._count(piece, changes)
                self.done += piece.nbytes
                self.report(self.done)
        if layout.trailer is not None:
            describe(layout.nbytes)
            for literal in layout.trailer(crcs.finish()):
                if literal.offset >= sender.at:
                    sender.literal(literal)
        copied = sum(part.nbytes for part in parts if part.source is not None)
        self.written.copied += copied
        self.written.by_store += copied
        self.done += copied

    def _count(self, piece: Piece, changes: dict[str, Changes]) -> None:
        for part in piece.parts:
            if isinstance(part, Copy):
                self.written.copied += part.nbytes
            elif isinstance(part, Make):
                self.written.made += part.nbytes
        for name, counted in changes.items():
            self.written.changes.setdefault(name, Changes()).add(counted)


class _Sender:
    """Bytes in increasing order -> the parts of an upload, several sent at once; what nobody sends between them is zeros."""

    def __init__(self, upload: Upload, parts: Sequence[Part], copy: Callable[[int, Part], None], at_once: int) -> None:
        self._upload, self._parts, self._copy = upload, parts, copy
        self._pool = ThreadPoolExecutor(at_once, "isomorph-upload")
        self._room = threading.Semaphore(at_once)
        self._under_way: list[Future[None]] = []
        self._number = 0
        self._filling: bytearray | None = None
        self._filled = 0
        self.at = 0
        """All bytes before this one were taken."""

    def __enter__(self) -> _Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def literal(self, literal: Literal) -> None:
        self.send(literal.offset, memoryview(literal.data))

    def send(self, offset: int, data: memoryview) -> None:
        """Take the bytes of the file from `offset`, which is not before `at`."""
        self._skip_to(offset)
        while data:
            part = self._part()
            count = min(len(data), part.stop - self.at)
            self._put(data[:count])
            data = data[count:]

    def finish(self) -> None:
        """Send what is left, and wait for it all. Raises what a part raised."""
        self._skip_to(self._parts[-1].stop if self._parts else 0)
        for one in self._under_way:
            one.result()

    def _skip_to(self, offset: int) -> None:
        while self.at < offset:
            part = self._part()
            if part.source is not None:
                number = self._number
                self._number += 1
                self.at = part.stop
                self._submit(lambda number=number, part=part: self._copy(number, part))  # type: ignore[misc]
                continue
            zeros = min(offset, part.stop) - self.at
            self._put(memoryview(bytes(min(zeros, 1 << 20))))

    def _part(self) -> Part:
        return self._parts[self._number]

    def _put(self, data: memoryview) -> None:
        part = self._part()
        if self._filling is None:
            self._room.acquire()
            self._raise_failed(holds_room=True)
            self._filling = bytearray(part.nbytes)
        low = self.at - part.offset
        self._filling[low : low + len(data)] = data
        self.at += len(data)
        if self.at < part.stop:
            return
        number, whole = self._number, self._filling
        self._number, self._filling = number + 1, None
        self._start(lambda: self._upload.put(number, part.offset, whole))

    def _submit(self, act: Callable[[], None]) -> None:
        self._room.acquire()
        self._raise_failed(holds_room=True)
        self._start(act)

    def _start(self, act: Callable[[], None]) -> None:
        def run() -> None:
            try:
                act()
            finally:
                self._room.release()

        self._under_way.append(self._pool.submit(run))

    def _raise_failed(self, *, holds_room: bool) -> None:
        done = [one for one in self._under_way if one.done()]
        self._under_way = [one for one in self._under_way if not one.done()]
        for one in done:
            try:
                one.result()
            except BaseException:
                if holds_room:
                    self._room.release()
                raise


def _touches(records: Sequence[tuple[int, int]], low: int, high: int) -> bool:
    from bisect import bisect_right

    number = max(0, bisect_right(records, (low, 1 << 62)) - 1)
    return any(offset < high and low < offset + nbytes for offset, nbytes in records[number : number + 2])


def _within(stretches: Iterator[Stretch], sent: Sequence[Part]) -> Iterator[Stretch]:
    """What of the stretches lies in the parts that are sent. Only copies and literals are cut: nothing else is copied."""
    place = 0
    for one in stretches:
        low, stop = one.offset, one.offset + one.nbytes
        while place < len(sent) and sent[place].stop <= low:
            place += 1
        at = place
        while at < len(sent) and sent[at].offset < stop:
            first, last = max(low, sent[at].offset), min(stop, _reach(sent, at))
            if first < last:
                yield _clipped(one, first, last)
            while at < len(sent) and sent[at].offset < last:
                at += 1


def _reach(sent: Sequence[Part], at: int) -> int:
    """Where the parts that follow part number `at` without a gap end."""
    while at + 1 < len(sent) and sent[at + 1].offset == sent[at].stop:
        at += 1
    return sent[at].stop


def _clipped(one: Stretch, first: int, last: int) -> Stretch:
    if (first, last) == (one.offset, one.offset + one.nbytes):
        return one
    if isinstance(one, Bytes):
        return Bytes(first, one.data[first - one.offset : last - one.offset])
    if isinstance(one, Copy):
        return replace(one, offset=first, nbytes=last - first, source_offset=one.source_offset + first - one.offset)
    raise RefusedError("internal", "a part of an upload ends inside what is made")
