"""Files that lie about their size (threats 17, 29, 35, 37, 41, 44): refused, or said, before memory or disk is spent."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.npz import npy_header
from isomorph.formats.registry import open_checkpoint
from isomorph.tensors import spec
from isomorph.testing.formats import whole

LIMITED = """
import resource, sys
from isomorph.formats.registry import open_checkpoint
import numpy, isomorph.formats.gather, isomorph.formats.zip.archive, isomorph.formats.npz
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


ONE = '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
ODD_JSON = {
    **{f"size {size}": ONE.replace("[2]", f"[{size}]")
       for size in ("-0", "-2", "02", "+2", "0x2", "2.", "2.0", "2e0", "1e400", "-1e400", "2,", '"2"', "null", "NaN", "-Infinity",
                    "\u0662", "2/**/", "18446744073709551618", "[2]")},
    "text after": ONE + "x", "a second object": ONE * 2, "a zero byte after": ONE + "\0", "a comma after": ONE[:-1] + ",}",
    "a mark before": "\ufeff" + ONE, "a line before": "\n" + ONE, "apostrophes": ONE.replace('"a"', "'a'"),
    "no quotes": ONE.replace('"a"', "a"), "a control character": ONE.replace('"a"', '"a\n"'), "an escape": ONE.replace('"a"', r'"\x61"'),
    "half an escape": ONE.replace('"a"', r'"\u00"'), "a comment": ONE.replace('{"a"', '{//\n"a"'), "null": '{"a":null}',
    "metadata that is null": '{"__metadata__":null,' + ONE[1:], "an entry in an entry": '{"m":' + ONE + "}", "nothing": "{}",
    "names that are equal once read": ONE[:-1] + r',"\u0061":{"dtype":"F32","shape":[0],"data_offsets":[8,8]}}',
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_JSON)
def test_a_header_is_json_of_one_meaning(case: str, tmp_path: Path) -> None:
    """Row 32: what some parsers let pass and others do not is let pass nowhere."""
    raw = ODD_JSON[case].encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(8))
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "name", ['"a"', r'"\u0061"', r'"\ud83d\ude00"', '"\U0001f600"', '""', r'"\\\"\/\b"', '"__proto__"', '" "']
)
def test_a_header_in_other_words_is_read(name: str, tmp_path: Path) -> None:
    """Row 32: escapes and any characters are names as good as others; line ends and blanks between tokens mean nothing."""
    raw = ONE.replace('"a"', name).replace(",", " ,\n\t").encode() + b"  "
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + np.arange(2, dtype="f4").tobytes())
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.manifest) == [json.loads(name)]
        assert whole(checkpoint, json.loads(name)).view("f4").tolist() == [0, 1]


def test_a_header_of_very_many_tensors_is_bounded(tmp_path: Path) -> None:
    """Row 32: 100,000 empty tensors cost memory in proportion to their header."""
    entries = ",".join(f'"t{number}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for number in range(100_000))
    raw = f"{{{entries}}}".encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_checkpoint(path) as checkpoint:
        assert len(checkpoint.manifest) == 100_000
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 40 * len(raw)


@pytest.mark.parametrize("descr", ["|O", "O", "=O", "<O8", ">O", "|O8"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_object_arrays_are_known_in_every_spelling(tmp_path: Path, descr: str, version: int) -> None:
    """Row 8: an array of objects is a pickle; it is refused by its header, stored or deflated."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}\n".encode()
    start = b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(2 if version == 1 else 4, "little") + header
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "m.npz", "w", method) as archive:
            archive.writestr("good.npy", npy_header(spec("f32[2]")) + bytes(8))
            archive.writestr("evil.npy", start + b"cos\nsystem\n(S'true'\ntR.")
        with pytest.raises(
            UnsafeError, match=r"`evil` is an array of Python objects, which is a pickle\. Nothing was exec"
        ):
            open_checkpoint(tmp_path / "m.npz")


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    """Row 8: an .npz as a member of an .npz, whatever the member is called."""
    np.savez(tmp_path / "inner.npz", evil=np.array([{}], dtype=object))
    for name, expected in (
        ("inner.npy", "is not a .npy file"),
        ("inner.npz", "not a checkpoint"),
        ("x.pkl", "not a checkpoint"),
    ):
        with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
            archive.writestr("w.npy", npy_header(spec("f32[2]")) + bytes(8))
            archive.write(tmp_path / "inner.npz", name)
        with pytest.raises(FormatError, match=expected):
            open_checkpoint(tmp_path / "m.npz")


@pytest.mark.parametrize(
    "path", ["/proc/self/environ", "/proc/self/mem", "/proc/self/maps", "/dev/null", "/dev/zero", "/proc"]
)
def test_what_the_kernel_makes_up_is_no_file(path: str) -> None:
    """Row 35: without a size there is nothing to read; a device is never read."""
    with pytest.raises(FormatError, match=r"an empty file|a device, not a file|a folder without|several checkpoints"):
        open_checkpoint(path)


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
