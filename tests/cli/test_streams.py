"""Standard streams that are closed, full or no longer read: the exit code stays true, and a file never takes their place."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from isomorph.cli.app import run
from isomorph.cli.console import print_json, print_lines
from isomorph.cli.failures import AnswerIsNo, handled
from isomorph.cli.streams import Output

CUT = "standard output: {}. What is printed there is cut short; files that were written are whole\n"


class Lost(Output):
    """A standard output that fails as the system says."""

    number = 0

    def put(self, data: object) -> int:
        raise OSError(self.number, os.strerror(self.number))


def prints_lines() -> None:
    print_lines(["line"] * 10_000)


def prints_json() -> None:
    print_json({str(number): number for number in range(5_000)})


def prints_little() -> None:
    print_lines(["line"])


def says_no() -> None:
    prints_little()
    raise AnswerIsNo


def fails() -> None:
    prints_little()
    raise ValueError("wrong")


@pytest.mark.parametrize("command", [prints_lines, prints_json, prints_little, says_no])
@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, CUT.format("no space left on device")), (errno.EPIPE, "")])
def test_what_cannot_be_printed_is_no_answer(
    command: Callable[[], None],
    number: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Never 0, which is yes, nor 1, which is no; said once; and the interpreter, which flushes again at its end, finds nothing wrong."""
    with Path(os.devnull).open("w") as nowhere:
        output = Lost(nowhere.fileno(), "w", closefd=False)
        output.number = number
        stream = io.TextIOWrapper(io.BufferedWriter(output), "utf-8")
        monkeypatch.setattr(sys, "stdout", stream)
        assert handled(command) == 2
        assert capsys.readouterr().err == said
        stream.flush()


def test_an_error_is_said_where_nothing_can_be_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path(os.devnull).open("w") as nowhere:
        output = Lost(nowhere.fileno(), "w", closefd=False)
        output.number = errno.ENOSPC
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(output), "utf-8"))
        assert handled(fails, ["--json"]) == 2
        assert "internal error: ValueError: wrong" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("closed", "code", "out", "err"),
    [
        (">&-", 0, "", ""),
        ("2>&-", 0, "wrote", ""),
        ("<&- >&- 2>&-", 0, "", ""),
        ("--ovrwrite >&-", 2, "", "--ovrwrite"),
    ],
)
def test_a_stream_that_is_closed_leads_nowhere(folder: Path, closed: str, code: int, out: str, err: str) -> None:
    """Else the target would be opened under its number, and what is said be written into it."""
    line = f"'{sys.executable}' -m isomorph convert source.npz out.safetensors {closed}"
    done = subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code
    assert out in done.stdout and bool(out) == bool(done.stdout)
    assert err in done.stderr and bool(err) == bool(done.stderr)
    assert (folder / "out.safetensors").exists() == (code == 0)
    if code == 0:
        assert run(["diff", "source.npz", "out.safetensors", "--values", "-q"]) == 0
