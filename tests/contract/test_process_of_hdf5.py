"""The process in which h5py decodes: it has the opened file, and can get at nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from watched import watched

from isomorph.formats.hdf5 import decode as hdf5_decode

TRYING = """
import sys, runpy
from isomorph.formats.hdf5 import decode as hdf5_decode
def decode(*given):
    import os, resource
    assert resource.getrlimit(resource.RLIMIT_AS)[1] == hdf5_decode.MOST_MEMORY
    assert resource.getrlimit(resource.RLIMIT_CPU)[1] == hdf5_decode.SECONDS + int(sys.argv[5]) // hdf5_decode.BYTES_A_SECOND
    {what}
hdf5_decode.decode = decode
sys.exit(hdf5_decode.main())
"""


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("open('/etc/passwd')", "OSError: [Errno 24] Too many open files: '/etc/passwd'"),
        ("open('new', 'w')", "OSError: [Errno 24] Too many open files: 'new'"),
        ("import _socket; _socket.socket()", "OSError: [Errno 24] Too many open files"),
        ("os.pipe()", "OSError: [Errno 24] Too many open files"),
        ("bytearray(5 << 30)", "MemoryError: "),
        ("resource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6 + 1)) if os.geteuid() else None; raise ValueError('ended')", "ended"),
    ],
)  # fmt: skip
def test_it_opens_no_file_no_connection_and_not_much_memory(tmp_path: Path, what: str, said: str) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["w"] = np.zeros(3)
    with (tmp_path / "a.h5").open("rb") as given:
        done = subprocess.run(
            [sys.executable, "-c", "import _socket\n" + TRYING.format(what=what), "/w", "0", "100", "100", "24"],
            stdin=given, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (hdf5_decode.FAILED, "")
    assert said in done.stderr or (said == "ended" and "not allowed" in done.stderr)
    assert {"a.h5"} == {path.name for path in tmp_path.iterdir()}


def test_it_is_the_only_process_that_reading_starts(tmp_path: Path) -> None:
    """Once for each packed dataset; a plain one is read without h5py."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["plain"] = np.zeros((50, 40), "f4")
        file.create_dataset(
            "packed", data=np.arange(2000, dtype="f4").reshape(50, 40), chunks=(10, 40), compression="gzip"
        )
    seen = watched("convert", "a.h5", "out.safetensors", folder=tmp_path)
    assert seen.code == 0, seen.err
    assert [] == [
        event for event in seen.executed if not event.startswith("subprocess.Popen") or "hdf5/decode.py" not in event
    ]
    assert 1 <= len(seen.executed) <= 2
    assert seen.children_peak < 256 << 20
