"""The process in which h5py decodes: it has the opened file, and can get at nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from watched import watched

from isomorph.errors import FormatError
from isomorph.formats.hdf5 import decode as hdf5_decode
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import whole

TRYING = """
import sys, runpy
from isomorph.formats.hdf5 import decode as hdf5_decode
def decode(*given):
    import os, resource
    assert resource.getrlimit(resource.RLIMIT_AS)[1] == hdf5_decode.MOST_MEMORY
    assert resource.getrlimit(resource.RLIMIT_CPU)[1] == hdf5_decode.SECONDS + given[4] // hdf5_decode.BYTES_A_SECOND
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
    answered, answers = os.pipe()
    with (tmp_path / "a.h5").open("rb") as given:
        given_fds = (given.fileno(), answers)
        done = subprocess.run(
            [sys.executable, "-c", "import _socket\n" + TRYING.format(what=what), *map(str, given_fds)],
            input='["/w", 0, 100, 100, 24]\n', pass_fds=given_fds,
            capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
        )  # fmt: skip
        os.close(answers)
        assert os.read(answered, 100) == b"%d\n" % hdf5_decode.FAILED
        os.close(answered)
    assert (done.returncode, done.stdout) == (0, "")
    assert said in done.stderr or (said == "ended" and "not allowed" in done.stderr)
    assert {"a.h5"} == {path.name for path in tmp_path.iterdir()}


def test_it_is_the_only_process_that_reading_starts(tmp_path: Path) -> None:
    """Once for all packed datasets of a file; plain ones are read without h5py."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["plain"] = np.zeros((50, 40), "f4")
        for number in range(5):
            rows = np.arange(2000, dtype="f4").reshape(50, 40) + number
            file.create_dataset(f"packed{number}", data=rows, chunks=(10, 40), compression="gzip")
    seen = watched("convert", "a.h5", "out.safetensors", folder=tmp_path)
    assert seen.code == 0, seen.err
    assert [] == [
        event for event in seen.executed if not event.startswith("subprocess.Popen") or "hdf5/decode.py" not in event
    ]
    assert 1 <= len(seen.executed) <= 2
    assert seen.children_peak < 256 << 20


def test_after_a_dataset_that_is_broken_the_next_is_read(tmp_path: Path) -> None:
    """Each has a process of its own; what one says of itself is not said of another."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "abc":
            made = file.create_dataset(name, data=np.arange(3000) + ord(name), compression="gzip", fletcher32=True)
            if name == "b":
                place = made.id.get_chunk_info(0).byte_offset
    raw = bytearray((tmp_path / "a.h5").read_bytes())
    raw[place + 20] ^= 1
    (tmp_path / "a.h5").write_bytes(raw)
    with open_checkpoint(tmp_path / "a.h5") as checkpoint:
        for name in "abac":
            if name == "b":
                with pytest.raises(FormatError, match=r"dataset `b` cannot be decoded: OSError: Can't .*read data"):
                    whole(checkpoint, name)
            else:
                assert whole(checkpoint, name).view("i8").tolist() == (np.arange(3000) + ord(name)).tolist()


def test_it_works_where_the_standard_streams_are_closed(tmp_path: Path) -> None:
    """A file that is opened then gets the number of one of them."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("w", data=np.arange(100.0), compression="gzip")
    code = "import sys, isomorph; assert float(isomorph.open(sys.argv[1])['w'][7]) == 7"
    line = f'exec "{sys.executable}" -c "{code}" a.h5 <&- >&- 2>said'
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, timeout=60, check=False)
    assert (done.returncode, (tmp_path / "said").read_text()) == (0, "")
