"""The looks at the memory, at any moment at which a timer may come."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from isomorph.errors import FormatError
from isomorph.formats import allowance
from isomorph.formats.allowance import allowed, beside, look, looking


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[int, FrameType | None], None]]:
    """The handlers that were given to the timer, each once."""
    found: list[Callable[[int, FrameType | None], None]] = []
    plain = signal.signal

    def kept(number: int, handler: Any) -> Any:
        if callable(handler):
            found.append(handler)
        return plain(number, handler)

    monkeypatch.setattr(allowance.signal, "signal", kept)
    return found


def test_a_tick_that_comes_late_starts_no_timer(ticks: list[Callable[[int, FrameType | None], None]]) -> None:
    """A signal may have come before the timer was stopped, and be handled after: nothing may end the process then."""
    before = signal.getsignal(signal.SIGPROF)
    with allowed(32 << 20), looking("a.npz"):
        ticks[0](signal.SIGPROF, None)
        assert signal.getitimer(signal.ITIMER_PROF)[1] > 0
    ticks[0](signal.SIGPROF, None)
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    assert signal.getsignal(signal.SIGPROF) == before


def test_a_tick_that_raises_leaves_no_timer(ticks: list[Callable[[int, FrameType | None], None]]) -> None:
    """Wherever it stops what is done, the timer is stopped too, and the handler is what it was."""
    before = signal.getsignal(signal.SIGPROF)
    held = []
    with (
        allowed(1 << 20),
        pytest.raises(FormatError, match=r"a\.npz: what it names takes more than .* MB, more than --max-memory 1 MB allows"),
        looking("a.npz"),
    ):  # fmt: skip
        held.append(bytearray(b"x") * (100 << 20))
        ticks[0](signal.SIGPROF, None)
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    assert signal.getsignal(signal.SIGPROF) == before


def test_what_is_beside_is_never_held_against_names() -> None:
    """The memory is looked at after every line of `beside`, as a timer may; afterwards names have what they had."""
    held = []

    def each_line(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            look("a.npz", allowance.PART)
        return each_line

    def calls(frame: FrameType, event: str, argument: object) -> Any:
        return each_line if frame.f_code.co_name == "beside" else None

    traced = sys.gettrace()
    with allowed(1 << 20), looking("a.npz"):
        sys.settrace(calls)
        try:
            with beside():
                held.append(bytearray(b"x") * (160 << 20))
        finally:
            sys.settrace(traced)
        look("a.npz")
        with pytest.raises(FormatError, match="what it names takes more than"):
            held.append(bytearray(b"x") * (100 << 20))
            look("a.npz")
