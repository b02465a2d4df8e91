"""`--max-memory` holds for names as well: what follows headers stops before it has taken more than may be taken.

    with allowed(256 << 20):      # convert, verify, a task of a plan
        open_checkpoint(path)     # FormatError before its names take more than 256 + 64 MB, whatever it says

Three things together. What is expanded in one step (JSON, a directory, a pickle in an archive) is estimated before, by `require`.
What is followed step by step is stopped by looking at the memory of the process: every few milliseconds it computes, by a timer,
and every 64 KiB that are read. And once the names are known, `buffers_beside` says what planning, writing and verifying them will
take, and what is left for buffers.
Without `allowed` nothing is limited but by the formats' own bounds: looking at a file is for files of any size.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from isomorph.errors import FormatError

BESIDES = 64_000_000
"""Bytes of private memory that a command may take besides --max-memory: the interpreter, the libraries, a usual number of names."""
RESTING = 28_000_000
"""What of these the interpreter and the libraries take before anything is read (measured: 26 MB)."""
EACH_TENSOR = 3_150
"""Bytes for each tensor while a conversion is written and verified (measured: 2.6 to 2.9 kB from safetensors to safetensors)."""
MORE = {"torch_zip": 800, "npz": 1_900, "hdf5": 5_800, "tf_checkpoint": 1_300, "torch_dcp": 3_400}
"""So many more where a source or a target is of that format: their directories name every tensor once more, with headers."""
EACH_PART = 2_800
"""Bytes for each tile of a tensor and for each file (measured: 0.9 to 1.7 kB, 2.7 kB where a tile is an item of its own)."""
EACH_CHARACTER = 6
"""Bytes for each character of a name beyond NAME: source, target and their headers hold it."""
NAME = 32
LEAST_BUFFERS = 4 << 20
PART = 0.7
"""Of what names may take, the part at which the timer stops."""
READING_PART = 0.5
"""The same while a header is read: one large dict of small things takes 3/4 as much again when it grows, in one step."""
EVERY = 0.008
"""Seconds of computing between two looks."""

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Allowance:
    """`most`: bytes of private memory that the process may have in all; `max_memory` is what was given."""

    max_memory: int
    most: int
    resting: int


_allowance: ContextVar[Allowance | None] = ContextVar("allowance", default=None)
_looking: ContextVar[bool] = ContextVar("looking", default=False)


def private_nbytes() -> int:
    """The private memory of this process (RssAnon), in bytes; 0 where the system does not tell."""
    try:
        _, resident, shared = map(int, _STATM.read_bytes().split()[:3])
    except (OSError, ValueError):
        return 0
    return (resident - shared) * _PAGE


@contextmanager
def allowed(max_memory: int) -> Iterator[None]:
    """Within, what headers take is limited so that `max_memory` + 64 MB suffice."""
    outer = _allowance.get()
    if outer is not None and outer.max_memory == max_memory:
        yield
        return
    resting = max(private_nbytes(), RESTING)  # in a notebook much may be held before
    token = _allowance.set(Allowance(max_memory, resting - RESTING + max_memory + BESIDES, resting))
    try:
        yield
    finally:
        _allowance.reset(token)


@contextmanager
def beside() -> Iterator[None]:
    """Within, what is taken is no file's: a library that is imported, a model that is built. It comes on top of what is allowed."""
    if _allowance.get() is None:
        yield
        return
    before = private_nbytes()
    token = _looking.set(False)
    try:
        yield
    finally:
        allowance = _allowance.get()
        more = max(0, private_nbytes() - before)
        if allowance is not None:
            _allowance.set(replace(allowance, most=allowance.most + more, resting=allowance.resting + more))
        _looking.reset(token)  # last: the timer may look from here on


@contextmanager
def looking(path: object) -> Iterator[None]:
    """Within, the memory is looked at while the process computes. FormatError when too much is held.

    A timer does it in the main thread; in any thread, whoever reads a header piece by piece does (`look`).
    """
    allowance = _allowance.get()
    if allowance is None:
        yield
        return
    token = _looking.set(True)
    try:
        if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_PROF)[0]:
            yield
        else:
            with _timer(path):
                yield
    finally:
        _looking.reset(token)


@contextmanager
def _timer(path: object) -> Iterator[None]:
    is_over = False

    def tick(number: int, frame: FrameType | None) -> None:
        if (
            not is_over
        ):  # a tick that comes late starts no timer, which would find nobody to take it, and end the process
            signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
            look(path, PART)

    before = signal.signal(signal.SIGPROF, tick)
    try:
        try:
            signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
            yield
        finally:  # a tick may raise up to here
            is_over = True
    finally:
        is_over = True
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before if before is not None else signal.SIG_DFL)


def look(path: object, part: float = READING_PART) -> None:
    """FormatError when, within `looking`, more is held than this part of what names may take."""
    allowance = _allowance.get()
    if allowance is None or not _looking.get():
        return
    held = private_nbytes()
    if held > allowance.resting + part * (allowance.most - allowance.resting):
        raise _too_much(path, "what it names", held - allowance.resting, allowance, is_more=True)


def require(path: object, what: str, nbytes: int) -> None:
    """FormatError when `nbytes` more, about to be taken for `what`, are more than may be held."""
    allowance = _allowance.get()
    if allowance is None:
        return
    held = private_nbytes()
    if held + nbytes > allowance.most:
        raise _too_much(path, what, held + nbytes - allowance.resting, allowance)


def buffers_beside(
    max_memory: int, names: Collection[str], path: object, formats: Iterable[str] = (), parts: int = 0
) -> int:
    """What `max_memory` leaves for buffers beside the names of so many tensors, which lie in so many `parts`.

    FormatError when it is too little for both.
    """
    allowance = Allowance(max_memory, max_memory + BESIDES, RESTING)
    needed = names_nbytes(names, formats, parts)
    left = allowance.max_memory + BESIDES - RESTING - needed
    if left < min(LEAST_BUFFERS, allowance.max_memory):
        count = f"{len(names):,} {'tensor' if len(names) == 1 else 'tensors'}"
        count += f" in {parts:,} parts" if parts > len(names) else ""
        raise _too_much(path, f"{count}; holding and proving them", needed, allowance, verb="names")
    return min(allowance.max_memory, left)


def names_nbytes(names: Collection[str], formats: Iterable[str] = (), parts: int = 0) -> int:
    """About what the names of a checkpoint take while it is converted and verified: at least that, and not thrice as much.

    `formats` are those of sources and targets; of several sources read as one they are joined by `+`.
    """
    long = sum(map(len, names)) - NAME * len(names)
    each = EACH_TENSOR + max((MORE.get(one, 0) for format in formats for one in format.split("+")), default=0)
    return each * len(names) + EACH_CHARACTER * max(0, long) + EACH_PART * parts


def _too_much(
    path: object, what: str, nbytes: int, allowance: Allowance, *, verb: str = "", is_more: bool = False
) -> FormatError:
    wanted = nbytes + LEAST_BUFFERS + RESTING - BESIDES
    give = -(-max(2 * allowance.max_memory if is_more else 0, wanted) // 64_000_000) * 64
    text = f"{verb} {what} takes" if verb else f"{what} takes"
    return FormatError(
        path,
        f"{text} {'more than' if is_more else 'about'} {_human(nbytes)}, more than --max-memory "
        f"{_human(allowance.max_memory)} allows",
        f"Give --max-memory {give}MB" + (" or more" if is_more else ""),
    )


def _human(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
