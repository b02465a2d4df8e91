"""Files that lie about their size (threats 17, 29, 35, 37, 41, 44): refused, or said, before memory or disk is spent."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import whole

LIMITED = """
import resource, sys
from isomorph.formats.registry import open_checkpoint
import numpy, isomorph.formats.gather, isomorph.formats.zip, isomorph.formats.npz
import isomorph.formats.safetensors, isomorph.formats.sharded
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20), used + (128 << 20)))
for path in sys.argv[1:]:
    try:
        open_checkpoint(path)
    except ValueError as error:
        print(type(error).__name__, error)
"""


def test_no_lie_about_a_size_reaches_an_allocation(tmp_path: Path) -> None:
    """With 128 MiB to spend, every file that claims more is refused with FormatError, none with MemoryError."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()
    files = {
        "length.safetensors": (1 << 62).to_bytes(8, "little") + b"{",
        "shape.safetensors": len(header).to_bytes(8, "little") + header,
        "index.json": b'{"weight_map": ' + b"[" * 1_000_000,
        "pages.html": b"<html>" + bytes(1000),
    }
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    np.savez(tmp_path / "bomb.npz", w=np.zeros(10))
    raw = (tmp_path / "bomb.npz").read_bytes()
    (tmp_path / "bomb.npz").write_bytes(raw.replace(b"(10,), }" + b" " * 10, b"(10000000000,), }  "[:18]))
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *paths], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["FormatError"] * len(paths)


def test_a_sparse_file_is_said_to_be_one(tmp_path: Path) -> None:
    """1 TiB of holes is opened from its header alone, one row costs one row, and the manifest says what is stored."""
    shape = [1 << 24, 1 << 14]
    nbytes = 4 << 38
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, nbytes]}}).encode()
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + nbytes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.manifest.nbytes == nbytes
        (note,) = checkpoint.manifest.notes
        assert note.startswith(f"m.safetensors is sparse: {8 + len(header) + nbytes:,} bytes long, ")
        assert not checkpoint.fetch("a", 7 << 20, (1 << 14,), (1,)).any()
        assert not checkpoint.fetch("a", 5, (64,), (1 << 14,)).any()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_names_never_become_paths(tmp_path: Path) -> None:
    """A tensor or member called ../../x is a name like any other; nothing is written or opened there."""
    folder = tmp_path / "in/here"
    folder.mkdir(parents=True)
    np.savez(folder / "m.npz", **{"../../escape": np.arange(3), "/etc/passwd": np.arange(2)})
    with open_checkpoint(folder / "m.npz") as checkpoint:
        assert list(checkpoint.manifest) == ["../../escape", "/etc/passwd"]
        assert whole(checkpoint, "/etc/passwd").tolist() == [0, 1]
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "here", "m.npz"]


def test_an_error_never_sends_control_characters_to_the_terminal(tmp_path: Path) -> None:
    """Names of files and of tensors are shown escaped."""
    path = tmp_path / "\x1b[2Jm.safetensors"
    header = json.dumps({"\x1b[31m\u202e": {"dtype": "F32", "shape": [3], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    try:
        open_checkpoint(path)
    except ValueError as error:
        assert str(error).isprintable()
        assert r"\x1b[2Jm.safetensors" in str(error) and r"\x1b[31m\u202e" in str(error)
    else:
        raise AssertionError("a shape that does not fit was accepted")
