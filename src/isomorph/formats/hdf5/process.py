"""The process that decodes packed datasets (`decode.py`), seen from here: started once a file, asked for one dataset at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from isomorph.errors import FormatError, MissingExtra, printable
from isomorph.formats.base import Location
from isomorph.formats.hdf5 import decode
from isomorph.formats.hdf5.read import part_of
from isomorph.formats.source import Source

SLAB = 32 << 20
"""Bytes decoded at a time, where chunks are not larger than that."""
PIECE = 1 << 20
REPACK = "h5repack -l CONTI -f NONE"


class Decoding:
    """h5py at work on one file. Not for two threads at once; what fails ends it, and the next dataset starts it anew."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._part = part_of(source)
        self._running: _Running | None = None

    def elements(self, where: Location) -> Iterator[bytes]:
        """The elements of a dataset, row-major and little-endian, in pieces.

        FormatError when h5py fails at what the file holds, dies of it, or gives more or fewer bytes; MissingExtra without h5py.
        """
        running = self._running = self._running or self._started(where)
        is_over = False
        try:
            request = [where.inside, *self._part, SLAB, where.decoded_nbytes]
            with contextlib.suppress(BrokenPipeError):  # it has ended already: how is read below
                running.requests.write(json.dumps(request).encode() + b"\n")
                running.requests.flush()
            left = where.decoded_nbytes
            for piece in running.pieces():
                left -= len(piece)
                if left < 0:
                    break
                yield piece
            if left or running.code:
                raise self._failed(where, running)
            is_over = True
        finally:
            if not is_over:
                self.close()

    def close(self) -> None:
        """End the process."""
        if self._running is not None:
            self._running.end()
            self._running = None

    def _started(self, where: Location) -> _Running:
        try:
            return _Running(self.source.fileno())
        except OSError as error:
            raise FormatError(
                self.source.path,
                f"dataset `{printable(where.inside, 120)}` is packed, and no process could be started to decode it "
                f"({error.strerror})",
                f"Unpack the file: {REPACK}",
            ) from None

    def _failed(self, where: Location, running: _Running) -> Exception:
        code = running.code
        if code == decode.NO_LIBRARY:
            where_from = f"`{printable(where.inside, 80)}` of {printable(self.source.path.name)}"
            return MissingExtra(f"reading {where_from} (chunked HDF5)", "hdf5")
        problem = "its length is another"
        if code == decode.FAILED:
            problem = printable(" ".join(running.said().split()), 200) or problem
        elif code:
            problem = f"h5py died of it ({code})"
        return FormatError(
            self.source.path,
            f"dataset `{printable(where.inside, 120)}` cannot be decoded: {problem}",
            f"Copy or download it again, or unpack it: {REPACK}",
        )


class _Running:
    """The process, and the pipes to it. `code` is how the last dataset, or the process itself, ended; None: it has not."""

    def __init__(self, file: int) -> None:
        self._said = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  (closed in `end`)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        environment["HDF5_PLUGIN_PRELOAD"] = "::"  # the library loads no filter from a folder of plugins
        self._answers, answers = os.pipe()
        given = [_above_standard(descriptor) for descriptor in (file, answers)]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(decode.__file__)), *map(str, given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                pass_fds=given,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._answers)
            self._said.close()
            raise
        finally:
            for descriptor in (answers, *given):
                os.close(descriptor)
        assert self._process.stdin is not None and self._process.stdout is not None
        self.requests, self._out = self._process.stdin, self._process.stdout
        self.code: int | None = None
        self.end = weakref.finalize(self, _end, self._process, self._answers, self._said)

    def pieces(self) -> Iterator[bytes]:
        """What it writes, until it says how the dataset ended: then whoever wrote has ended, and all of it is in the pipe."""
        self.code = None
        self._said.truncate(0)
        self._said.seek(0)
        poll = select.poll()
        out = self._out.fileno()
        poll.register(out, select.POLLIN)
        poll.register(self._answers, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            piece = os.read(out, PIECE) if out in ready else b""
            if piece:
                yield piece
            elif self._answers in ready:
                answer = os.read(self._answers, 100)
                if answer.endswith(b"\n"):
                    self.code = int(answer)
                else:
                    self.code = self._process.wait() or decode.FAILED
                yield from self._rest(poll, out)
                return
            else:
                poll.unregister(out)  # closed: how it ended comes next

    def _rest(self, poll: select.poll, out: int) -> Iterator[bytes]:
        """What was written between the look at the one pipe and at the other."""
        poll.unregister(self._answers)
        while any(descriptor == out for descriptor, _ in poll.poll(0)) and (piece := os.read(out, PIECE)):
            yield piece

    def said(self) -> str:
        """What went wrong, in its words."""
        return os.pread(self._said.fileno(), 2000, 0).decode("utf-8", "replace")


def _above_standard(descriptor: int) -> int:
    """The same file under a number that no standard stream has: where those were closed, files get their numbers."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


def _end(process: subprocess.Popen[bytes], answers: int, said: IO[bytes]) -> None:
    """Kill it, and what it started."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    for pipe in (process.stdin, process.stdout, said):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    os.close(answers)
    process.wait()
