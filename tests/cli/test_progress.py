"""Progress: on a terminal bytes, rate and time left; elsewhere nothing."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from isomorph.testing.formats import tensors_of, write_checkpoint

COMMAND = [sys.executable, "-m", "isomorph", "convert"]


def source(folder: Path) -> Path:
    path = folder / "model.safetensors"
    write_checkpoint(path, tensors_of({"w": np.zeros((256, 256), "f4"), "b": np.zeros(7, "f4")}))
    return path


@pytest.mark.parametrize(("columns", "unit"), [("120", b"kB"), ("30", b"100%"), ("16", b"")])
def test_a_terminal_sees_bytes_and_gets_its_cursor_back(tmp_path: Path, columns: str, unit: bytes) -> None:
    """stderr on a terminal: a bar for writing and one for verifying, removed at the end; stdout has the result alone.

    The bar is one line, however narrow the terminal is: the cursor goes up by no more than that one when it is removed.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, str(source(tmp_path)), str(tmp_path / "out.pth")],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": columns},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            block = os.read(ours, 1 << 16)
        except OSError:
            break
        if not block:
            break
        seen += block
    out = process.communicate(timeout=60)[0]
    os.close(ours)
    assert 0 == process.returncode
    assert b"writing" in seen and b"verifying" in seen
    assert unit in seen
    assert b"\x1b[1A\x1b[2K\x1b[1A" not in seen
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h")  # as often hidden as shown again
    assert out.startswith(b"wrote ") and b"\x1b" not in out


def test_no_terminal_sees_nothing(tmp_path: Path) -> None:
    """stderr in a pipe stays empty."""
    done = subprocess.run(
        [*COMMAND, str(source(tmp_path)), str(tmp_path / "out.pth")], capture_output=True, timeout=60, check=True
    )
    assert b"" == done.stderr
