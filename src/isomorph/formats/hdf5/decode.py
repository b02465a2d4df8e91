"""Decodes datasets of an HDF5 file with h5py, in processes of its own: `python decode.py FILE ANSWERS`, two descriptors.

A line of standard input is one dataset (JSON: path, base, nbytes, slab, expected); its elements, row-major and little-endian, go to
standard output, and then how it ended, as a line, to ANSWERS. This process only loads the library; a fork of it looks at the file,
one for each dataset. A broken file can make the HDF5 library loop, fill the memory or crash; here that costs a process with bounds,
and nothing else: by the time the file is looked at, it can open no other file and no connection. Imports nothing of isomorph.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

FAILED, NO_LIBRARY = 3, 4
"""How it ended: what went wrong is on standard error; h5py is not installed."""

MOST_MEMORY = 4 << 30
MOST_SAID = 1 << 16
"""Bytes of standard error, which is a file."""
SECONDS, BYTES_A_SECOND = 10, 4 << 20


class Window(io.RawIOBase):
    """The bytes of a part of an opened file, read-only."""

    def __init__(self, descriptor: int, base: int, nbytes: int) -> None:
        self.descriptor = descriptor
        self.base = base
        self.nbytes = nbytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.nbytes)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if self._at < 0 or self._at + len(view) > self.nbytes:
            raise OSError(f"bytes {self._at:,} to {self._at + len(view):,} are needed, the file has {self.nbytes:,}")
        done = 0
        while done < len(view):
            count = os.preadv(self.descriptor, [view[done:]], self.base + self._at + done)
            if not count:
                raise OSError("the file was cut")
            done += count
        self._at += done
        return done


def slabs(
    shape: tuple[int, ...], chunk: tuple[int, ...], width: int, most: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Boxes (start, count) in row-major order, of at most `most` bytes: whole rows of chunks where those are not larger."""
    if not shape:
        yield (), ()
        return
    axis = 0
    while axis < len(shape) - 1 and math.prod(shape[axis + 1 :]) * width * min(chunk[axis], shape[axis]) > most:
        axis += 1
    step = max(1, most // max(math.prod(shape[axis + 1 :]) * width, 1))
    if step > chunk[axis]:
        step -= step % chunk[axis]
    rest = len(shape) - axis - 1
    for outer in _counted(shape[:axis]):
        for begin in range(0, shape[axis], step):
            count = min(step, shape[axis] - begin)
            yield (*outer, begin, *(0,) * rest), (*(1,) * axis, count, *shape[axis + 1 :])


def _counted(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every index below `shape`, the last counting fastest."""
    if not shape:
        yield ()
        return
    for first in range(shape[0]):
        for rest in _counted(shape[1:]):
            yield first, *rest


def decode(path: str, base: int, nbytes: int, most: int, expected: int, out: Any) -> None:
    """Write the elements of the dataset at `path` to `out`. What h5py raises is raised; ValueError for what is another dataset."""
    import h5py
    import numpy as np
    from h5py import h5d, h5o, h5s, h5t

    with h5py.File(Window(0, base, nbytes), "r") as file:
        found = h5o.open(file.id, path.encode())
        plist = found.get_create_plist()
        if not isinstance(found, h5d.DatasetID) or plist.get_external_count() or plist.get_layout() != h5d.CHUNKED:
            raise ValueError("it is not what it was")
        memory = found.get_type().copy()
        if isinstance(memory, h5t.TypeAtomicID):
            memory.set_order(h5t.ORDER_LE)
        elif isinstance(memory, h5t.TypeCompoundID):  # a complex number
            memory = h5t.py_create(found.dtype.newbyteorder("<"))
        space = found.get_space()
        shape = space.get_simple_extent_dims()
        width = memory.get_size()
        if math.prod(shape) * width != expected:
            raise ValueError(f"it has {math.prod(shape) * width:,} bytes now")
        for start, count in slabs(shape, plist.get_chunk(), width, most):
            buffer = np.empty(math.prod(count) * width, np.uint8)
            space.select_hyperslab(start, count)
            found.read(h5s.create_simple(count), space, buffer, memory)
            out.write(buffer.data)


def open_nothing_more() -> None:
    """From here on no descriptor is given to this process (a file, a socket: EMFILE); what it says fits a page."""
    with contextlib.suppress(ImportError):
        import resource

        free = os.dup(0)  # the lowest number that is not taken
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
        resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_SAID, MOST_SAID))


def bounded(expected: int) -> None:
    """Bounds of memory, and of time for so many bytes of elements, for what this process does from here on."""
    seconds = SECONDS + expected // BYTES_A_SECOND
    with contextlib.suppress(ImportError):  # some systems have no such bounds
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def one(line: bytes, file: int, answers: int) -> int:
    """Decode what a line asks for. How it ended."""
    path, base, nbytes, most, expected = json.loads(line)
    os.dup2(file, 0)
    os.close(file)
    os.close(answers)
    bounded(expected)
    open_nothing_more()
    try:
        decode(path, base, nbytes, most, expected, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except Exception as error:  # what a broken file makes h5py raise is of every kind
        os.write(2, f"{type(error).__name__}: {error}"[:MOST_SAID].encode("utf-8", "replace"))
        return FAILED
    return 0


def main() -> int:
    """Decode what is asked for, until nobody asks any more."""
    try:
        import h5py  # noqa: F401
    except ImportError:
        return NO_LIBRARY
    file, answers = int(sys.argv[1]), int(sys.argv[2])
    for line in iter(sys.stdin.buffer.readline, b""):
        child = os.fork()
        if not child:
            code = FAILED
            try:
                code = one(line, file, answers)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))
    return 0


if __name__ == "__main__":
    sys.exit(main())
