"""Ranges of objects that were read, kept a while; and what a reader that goes forward will ask next, fetched ahead.

An object is cut into pages. A read fetches the pages that are not there, in few requests; when reads follow one another, a window
ahead of them is fetched too, doubled each time, sixteen requests at once. All objects share one bound of memory.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

Fill = Callable[[int, memoryview], None]
"""fill(byte_offset, buffer): one request."""

PAGE = 16 << 10
PAGES_AT_ONCE = 64
"""1 MiB: the most that one request fetches of what is kept."""

DIRECT = 4 << 20
"""Bytes from which a read goes straight into its buffer, cut into requests of `DIRECT_AT_ONCE`."""
DIRECT_AT_ONCE = 2 << 20

REQUESTS = 16
"""Requests at once."""
MOST_KEPT = 32 << 20
MOST_AHEAD = 1024
"""Pages (16 MiB) that are fetched ahead of one reader at most."""
READERS = 8
"""Readers that go forward in one object, of which it is known where they are."""

_lock = threading.Lock()
_kept: OrderedDict[int, tuple[Blocks, int, int]] = (
    OrderedDict()
)  # run number -> (whose, first page, bytes); oldest first
_held = 0
_numbers = itertools.count()
_pool: ThreadPoolExecutor | None = None


def pool() -> ThreadPoolExecutor:
    """The threads that ask stores; made when first used."""
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(REQUESTS, "isomorph-store")
        return _pool


class _Run:
    """Pages that one request fetches."""

    __slots__ = ("first", "future", "number", "pages")

    def __init__(self, first: int, pages: int) -> None:
        self.first, self.pages = first, pages
        self.number = next(_numbers)
        self.future: Future[bytearray] = Future()


class Blocks:
    """One object of `size` bytes. Safe to read from several threads."""

    def __init__(self, size: int, fill: Fill) -> None:
        self._size, self._fill = size, fill
        self._pages: dict[int, _Run] = {}
        self._readers: OrderedDict[int, int] = (
            OrderedDict()
        )  # the page that a reader asks next -> how far ahead was fetched
        self._closed = False

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """The bytes from `offset`, all of which lie in the object."""
        if len(buffer) >= DIRECT:
            self._direct(offset, buffer)
            return
        if not buffer:
            return
        first, last = offset // PAGE, (offset + len(buffer) - 1) // PAGE
        with _lock:
            runs = self._wanted(first, last + 1)
            wanted = [self._pages[page] for page in range(first, last + 1)]
            runs += self._ahead(first, last + 1)
        self._start(runs)
        done = 0
        for run in dict.fromkeys(wanted):
            data = memoryview(self._result(run))
            low = offset + done - run.first * PAGE
            part = data[low : low + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """These (offset, nbytes) will be read soon: they are fetched at once, as far as there is room."""
        runs: list[_Run] = []
        with _lock:
            for offset, nbytes in ranges:
                if _held >= MOST_KEPT // 2:
                    break
                runs += self._wanted(offset // PAGE, -(-min(offset + nbytes, self._size) // PAGE))
        self._start(runs)

    def close(self) -> None:
        """Give the memory back."""
        with _lock:
            self._closed = True
            for run in dict.fromkeys(self._pages.values()):
                _forget(run.number)
            self._pages.clear()

    def _direct(self, offset: int, buffer: memoryview) -> None:
        parts = [
            pool().submit(self._fill, offset + at, buffer[at : at + DIRECT_AT_ONCE])
            for at in range(0, len(buffer), DIRECT_AT_ONCE)
        ]
        try:
            for part in parts:
                part.result()
        except BaseException:
            for part in parts:
                part.cancel()
            for part in parts:  # the buffer is not given back while somebody writes into it
                if not part.cancelled():
                    part.exception()
            raise

    def _wanted(self, first: int, stop: int) -> list[_Run]:
        """Runs for the pages that are not there. Called with the lock held."""
        runs: list[_Run] = []
        for page in range(first, stop):
            known = self._pages.get(page)
            if known is not None:
                if known.number in _kept:
                    _kept.move_to_end(known.number)
                continue
            if runs and runs[-1].first + runs[-1].pages == page and runs[-1].pages < PAGES_AT_ONCE:
                runs[-1].pages += 1
            else:
                runs.append(_Run(page, 1))
            self._pages[page] = runs[-1]
        for run in runs:
            _keep(self, run)
        return runs

    def _ahead(self, first: int, stop: int) -> list[_Run]:
        """Runs ahead of a reader that goes forward. Called with the lock held."""
        known = next((at for at in (first, first + 1) if at in self._readers), None)
        if known is None:
            self._readers[stop] = stop
            while len(self._readers) > READERS:
                self._readers.popitem(last=False)
            return []
        fetched = max(self._readers.pop(known), stop)
        window = min(MOST_AHEAD, max(4, 2 * (fetched - first)))
        runs: list[_Run] = []
        end = -(-self._size // PAGE)
        if fetched - stop < window // 2 and _held <= MOST_KEPT:
            goal = min(stop + window, end)
            runs = self._wanted(fetched, goal) if goal > fetched else []
            fetched = max(fetched, goal)
        self._readers[stop] = fetched
        return runs

    def _start(self, runs: Sequence[_Run]) -> None:
        if len(runs) == 1 and runs[0].pages * PAGE >= self._size:
            self._fetch(runs[0])  # a small object: no thread is needed
            return
        for run in runs:
            pool().submit(self._fetch, run)

    def _fetch(self, run: _Run) -> None:
        try:
            begin = run.first * PAGE
            data = bytearray(min(run.pages * PAGE, self._size - begin))
            if not self._closed:
                self._fill(begin, memoryview(data))
            run.future.set_result(data)
        except BaseException as error:
            with _lock:  # the next who asks tries again
                self._drop(run.first, run.pages, run.number)
            run.future.set_exception(error)

    def _result(self, run: _Run) -> bytearray:
        return run.future.result()

    def _drop(self, first: int, pages: int, number: int) -> None:
        for page in range(first, first + pages):
            found = self._pages.get(page)
            if found is not None and found.number == number:
                del self._pages[page]
        _forget(number)


def _keep(blocks: Blocks, run: _Run) -> None:
    """Count a run, and let go of the oldest where there is too much. Called with the lock held."""
    global _held
    _kept[run.number] = (blocks, run.first, run.pages * PAGE)
    _held += run.pages * PAGE
    while _held > MOST_KEPT and len(_kept) > 1:
        number, (whose, first, nbytes) = next(iter(_kept.items()))
        if number == run.number:
            return
        whose._drop(first, nbytes // PAGE, number)


def _forget(number: int) -> None:
    global _held
    found = _kept.pop(number, None)
    if found is not None:
        _held -= found[2]
