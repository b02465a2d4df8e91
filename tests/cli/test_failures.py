"""Every failure is one readable block, exit 2, no traceback, and nothing lost."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph

from isomorph.cli.failures import exit_code, message, os_message
from isomorph.errors import Different, FormatError, Gap, MorphError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["inspct", "x"], "there is no command `inspct`; did you mean inspect?\nSee:  isomorph --help\n"),
        (
            ["frobnicate"],
            "there is no command `frobnicate`; there are inspect, show, diff, check, layouts, infer, plan, convert, verify, trace, demo",
        ),
        (["inspect", "source.npz", "--kesy"], "--kesy"),
        (["inspect"], "missing argument 'PATH'"),
        (["inspect", "sorce.npz"], "sorce.npz: no such file or folder. Did you mean source.npz?"),
        (
            ["inspect", "no/such/place.bin"],
            "no/such/place.bin: no such file or folder. The folder no/such does not exist either",
        ),
        (["inspect", "empty.bin"], "empty.bin: "),
        (
            ["inspect", "lfs.safetensors"],
            "lfs.safetensors: a Git LFS pointer (67 bytes), not the weights. Fetch them: git lfs pull",
        ),
        (["inspect", "words.bin"], "words.bin: not a checkpoint of a known format"),
        (["inspect", "nothing"], "nothing"),
        (["inspect", "cut.npz"], "cut.npz"),
        (["plan", "source.npz", "-m", "prot.morph"], "prot.morph: no such morph file. Did you mean port.morph?"),
        (["plan", "source.npz", "-m", "."], ".: a folder, not a morph file. Name the .morph file in it"),
        (["plan", "source.npz", "-m", "bad.morph"], "bad.morph:1: "),
        (["plan", "source.npz", "-m", "source.npz"], "source.npz"),
        (["plan", "source.npz", "--inverse"], "--inverse needs a --morph: without one, every tensor stays as it is"),
        (["plan", "source.npz", "--set", "h"], "--set h: write  --set AXIS=NUMBER  or  --set config.KEY=VALUE"),
        (
            ["plan", "source.npz", "--set", "h=x"],
            "--set h=x: `x` is no size; a size is a whole number that is not negative",
        ),
        (["plan", "source.npz", "--set", "h=-1"], "--set h=-1: `-1` is no size"),
        (["plan", "source.npz", "--dtype", "bf61"], "--dtype bf61: no such dtype; floating ones are f32, f16, bf16"),
        (["plan", "source.npz", "--dtype", "i32"], "--dtype i32: i32 is not floating"),
        (["plan", "source.npz", "--exact"], "--exact goes with --dtype: it refuses a cast that would round"),
        (["plan", "source.npz", "--config", "nope.json", "-m", "port.morph"], "nope.json: no such config file"),
        (["plan", "source.npz", "--config", "words.bin", "-m", "port.morph"], "words.bin: not JSON ("),
        (
            ["plan", "source.npz", "--like", "nope.nope:build"],
            "nope.nope:build: importing nope.nope failed: ModuleNotFoundError",
        ),
        (["plan", "source.npz", "-o", "p.json"], "-o plan.json and --output DST go together"),
        (["convert", "source.npz"], "a source and a target are needed:  isomorph convert SRC… DST  (or a plan.json)"),
        (["convert", "gone.json"], "gone.json: no such file; made by  isomorph plan SRC… -o plan.json --output DST"),
        (
            ["convert", "source.npz", "out.npz", "--max-memory", "lots"],
            "`lots` is no size; write for example 5GB, 256MB or 1GiB",
        ),
        (["convert", "source.npz", "no/out.npz"], "no/out.npz cannot be written: the folder "),
        (["convert", "source.npz", "words.bin/out.npz"], "is a file, not a folder"),
        (["convert", "source.npz", "source.npz"], "source.npz"),
        (["convert", "source.npz", "taken.npz"], "taken.npz exists"),
        (["convert", "source.npz", "o.npz", "--resume", "--overwrite"], "give one of them"),
        (["convert", "source.npz", "o.npz", "--format", "safetensor"], "safetensors"),
        (["convert", "a=source.npz", "a=source.npz", "o.npz"], "two sources are named `a`"),
        (["convert", "source.npz", "source.npz", "o.npz"], "several sources need a name each"),
        (["verify", "source.npz", "nope.npz"], "nope.npz: no such file or folder"),
        (
            ["show", "source.npz", "layers.1.q.x"],
            "there is no tensor `layers.1.q.x` in this checkpoint; did you mean layers.1.q.w",
        ),
        (["show", "source.npz", "emb[99]"], "emb [10 6] f32: index 99 is out of range for axis 0 of size 10"),
        (["check", "bad.morph"], "bad.morph:1: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_use_and_bad_input(isomorph: Isomorph, folder: Path, arguments: list[str], text: str) -> None:
    """The message says where, what, and what next; stdout is empty; no file appears."""
    (folder / "empty.bin").touch()
    (folder / "lfs.safetensors").write_text(LFS)
    (folder / "words.bin").write_text("these are words, and no weights at all, whatever the suffix says\n" * 9)
    (folder / "nothing").mkdir()
    (folder / "bad.morph").write_text("a [o i <-> b\n")
    (folder / "taken.npz").write_bytes(b"mine")
    (folder / "cut.npz").write_bytes((folder / "source.npz").read_bytes()[:200])
    before = {path.name: path.stat().st_size for path in folder.iterdir()}
    said = isomorph(*arguments)
    assert (said.code, said.out) == (2, ""), said.err
    assert text in said.err
    assert "internal error" not in said.err
    assert before == {path.name: path.stat().st_size for path in folder.iterdir()}


def test_an_error_is_data_with_json(isomorph: Isomorph, folder: Path) -> None:
    """--json: the error on stdout as one document, with every gap."""
    (folder / "port.morph").write_text("nothing.like.it <-> x\n")
    said = isomorph("plan", "source.npz", "-m", "port.morph", "--json")
    found = json.loads(said.out)["error"]
    assert (said.code, found["kind"]) == (1, "MorphError")
    assert {"unmatched", "idle"} <= {gap["kind"] for gap in found["gaps"]}


def test_names_from_files_cannot_speak_to_the_terminal(isomorph: Isomorph, folder: Path) -> None:
    """ANSI, line breaks and bidirectional marks in names are spelled out everywhere."""
    np.savez("evil.npz", **{"a\x1b[31m\u202eb": np.zeros(2, "f4"), "plain": np.zeros(2, "f4")})
    for arguments in (
        ["inspect", "evil.npz"],
        ["inspect", "evil.npz", "--keys"],
        ["plan", "evil.npz"],
        ["show", "evil.npz", "x"],
    ):
        said = isomorph(*arguments)
        assert "\x1b" not in said.out + said.err
        assert "\u202e" not in said.out + said.err
    assert "\\x1b[31m\\u202e" in isomorph("inspect", "evil.npz").out


def run(folder: Path, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return] # options are passed through
        [sys.executable, "-m", "isomorph", *arguments], cwd=folder, text=True, timeout=120, check=False, **options
    )


def test_a_reader_that_stops_reading_is_no_error(folder: Path) -> None:
    """`isomorph inspect … | head -1` says nothing on stderr."""
    np.savez(folder / "many.npz", **{f"t{number}": np.zeros(1, "f4") for number in range(3000)})
    command = f"'{sys.executable}' -m isomorph inspect many.npz --keys | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("t0     [1]  f32\n", "")


def test_piped_output_is_never_cut(folder: Path) -> None:
    """A long name is whole, whatever the terminal's width was."""
    long = "x" * 400
    np.savez(folder / "long.npz", **{long: np.zeros(1, "f4")})
    done = run(folder, "inspect", "long.npz", capture_output=True, env={**os.environ, "COLUMNS": "40"})
    assert long in done.stdout


def test_output_that_is_not_unicode_still_comes(folder: Path) -> None:
    """A terminal without UTF-8 gets escapes, not a crash."""
    done = run(folder, "inspect", "source.npz", capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "source.npz \\xb7 npz" in done.stdout


def test_debug_shows_the_traceback(folder: Path) -> None:
    """ISOMORPH_DEBUG=1, for those who look for the fault."""
    done = run(folder, "inspect", "nope.npz", capture_output=True, env={**os.environ, "ISOMORPH_DEBUG": "1"})
    assert done.returncode == 2
    assert "Traceback" in done.stderr


AS_NOBODY = """
import os, sys
from isomorph.cli.app import run
assert run(["convert", "source.npz", "warm.npz", "-q"]) == run(["inspect", "warm.npz", "-q"]) == 0  # everything is imported while the interpreter can be read
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.exit(run(sys.argv[1:]))
"""


def as_nobody(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user who owns nothing; where the tests are not run by root, as the user who runs them."""
    command = [sys.executable, "-c", AS_NOBODY, *arguments]
    try:
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    finally:
        (folder / "warm.npz").unlink(missing_ok=True)


def test_a_file_that_may_not_be_read(folder: Path) -> None:
    """As another uid: who, what, what to check; and a folder that may not be written leaves nothing."""
    secret = folder / "secret.npz"
    secret.write_bytes((folder / "source.npz").read_bytes())
    secret.chmod(0)
    shut = folder / "shut"
    shut.mkdir(mode=0o555)
    folder.chmod(0o755)
    for above in folder.parents:
        if above.owner() == folder.owner() and above != Path(above.anchor) and "pytest" in above.name:
            above.chmod(0o755)
    unread = as_nobody(folder, "inspect", "secret.npz")
    assert unread.returncode == 2
    assert "secret.npz: " in unread.stderr
    assert "ermission" in unread.stderr
    unwritten = as_nobody(folder, "convert", "source.npz", "shut/out.npz")
    assert unwritten.returncode == 2
    assert "ermission" in unwritten.stderr
    assert "Traceback" not in unread.stderr + unwritten.stderr
    assert list(shut.iterdir()) == []


def test_a_full_disk_leaves_nothing(folder: Path) -> None:
    """A limit on file sizes stands in for the disk: refused, and nothing under the final name."""
    np.savez(folder / "big.npz", w=np.zeros((1 << 20,), "f4"))
    script = f"ulimit -f 100; '{sys.executable}' -m isomorph convert big.npz out.safetensors"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (folder / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.bin"),
            "out.bin: no space left on device. Nothing was left under",
        ),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "a"), "a: permission denied. Check its permissions"),
        (IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), "d"), "d: is a directory. Name a file in it"),
        (KeyboardInterrupt(), "stopped. Nothing half-written was left under the final name"),
        (MemoryError(), "out of memory. Nothing was left under the final name; try a smaller --max-memory"),
        (RecursionError(), "the input is nested too deeply"),
        (
            ZeroDivisionError("x"),
            "internal error: ZeroDivisionError: x\nThis is a fault of isomorph, not of your files",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_kind_of_error_has_words(error: BaseException, text: str) -> None:
    """Never only a class name."""
    assert message(error).startswith(text)


def test_exit_codes() -> None:
    """1 is the answer no, and only of plan and verify; every refusal is 2."""
    gap = MorphError([Gap("unmatched", "x")])
    syntax = MorphError([Gap("syntax", "x")])
    assert [
        exit_code(gap, ["plan", "a"]),
        exit_code(syntax, ["plan", "a"]),
        exit_code(gap, ["convert", "a", "b"]),
        exit_code(Different("report"), ["verify", "a", "b"]),
        exit_code(Different("report"), ["convert", "a", "b"]),
        exit_code(FormatError("a", "b"), ["plan", "a"]),
    ] == [1, 2, 2, 1, 2, 2]


def test_an_os_error_without_a_file_is_told_too() -> None:
    """`strerror` alone."""
    assert (
        os_message(OSError(errno.EMFILE, "Too many open files"))
        == "too many open files. Raise the limit of open files (ulimit -n)"
    )


def test_a_link_that_leads_back_to_itself_is_said(folder: Path, isomorph: Isomorph) -> None:
    (folder / "round.pt").symlink_to("round.pt")
    said = isomorph("inspect", "round.pt")
    assert (said.code, said.err) == (2, "round.pt: a link that leads back to itself\n")
