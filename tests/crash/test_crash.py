"""Cut off anywhere: never a torn file under the final name, and run again it ends in the right bytes.

A sample of what `kill_everywhere.py` does at every system call. Failures of the disk, of reads and of the source beside it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_forks import Forks
from crash_worlds import WORLDS, Stage, files_of


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as served:
        yield served


@pytest.fixture
def stages(made: dict[str, Stage]) -> dict[str, Stage]:
    """Every world, with nothing of an earlier test in it."""
    for stage in made.values():
        if files_of(stage.folder / "out") != stage.before:
            stage.reset()
    return made


@pytest.fixture(scope="module")
def made(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """Every world, made once."""
    return {
        name: Stage(world, tmp_path_factory.mktemp("world") / name.replace(" ", "-"), forks)
        for name, world in WORLDS.items()
    }


@pytest.mark.parametrize("name", WORLDS)
def test_a_kill_anywhere_leaves_nothing_torn_and_is_made_good(stages: dict[str, Stage], name: str) -> None:
    """SIGKILL before and amid calls spread over the run, more of them where names are given; then --resume or a plain run."""
    stage = stages[name]
    last = stage.count
    points = sorted({*range(3, last, last // 4), *range(last - 3, last + 1)})
    for number, at in enumerate(points):
        torn = number % 3 == 1
        killed = stage.run(kill_at=at, torn=torn)
        assert killed["code"] in (0, -signal.SIGKILL)
        stage.finish(f"{name}, killed at call {at}", *(stage.world.again if number % 2 else ()))
    assert stage.kept or not stage.world.again, "--resume never went on from what was there"


FAILURES = [
    ("pwritev", "ENOSPC", "the disk is full"),
    ("pwritev", "EDQUOT", "the quota is used up"),
    ("pwritev", "EIO", "cannot be written: Input/output error"),
    ("posix_fallocate", "ENOSPC", "the disk is full"),
    ("ftruncate", "EIO", "put|output error"),
    ("fsync", "EIO", "could not be sent to the disk: input/output error"),
    ("fsync", "ENOSPC", "the disk is full|no space left on device"),
    ("fdatasync", "EIO", "input/output error"),
    ("write", "ENOSPC", "cannot be written: no space left on device"),
    ("preadv", "EIO", "cannot be read at byte [0-9]+: Input/output error"),
    ("link", "EIO", "input/output error"),
]
"""A call, the error it fails with, what the message says."""


@pytest.mark.parametrize(("call", "code", "message"), FAILURES, ids=[f"{call}-{code}" for call, code, _ in FAILURES])
def test_a_call_that_fails_is_one_message_and_no_target(
    stages: dict[str, Stage], call: str, code: str, message: str
) -> None:
    """At its first, its middle and its last call, from then on: exit code 2, no target, no debris; never `wrote`."""
    stage = stages["pth"]
    often = stage.calls[call]
    assert often, f"{call} is not called"
    refused = 0
    for at in sorted({1, often // 2 + 1, often}):
        done = stage.run(fail={"call": call, "at": at, "errno": code, "on": True})
        if (
            done["code"] == 0
        ):  # what failed was not needed: a hard link is made by renaming, a range is read in another way
            assert stage.after == files_of(stage.folder / "out")
        else:
            refused += 1
            assert 2 == done["code"], done["said"]
            assert re.search(message, done["said"], re.IGNORECASE), done["said"]
            assert "wrote" not in done["said"] and "Traceback" not in done["said"]
            if stage.after != files_of(stage.folder / "out"):
                stage.require_whole(f"{call} number {at} failed")
                assert not files_of(stage.folder / "out"), done["said"]
        stage.reset()
    assert refused or call == "link"


@pytest.mark.parametrize("call", ["rename", "replace", "mkdir", "fsync", "sendfile", "rmdir"])
def test_a_folder_whose_naming_fails_is_old_or_new(stages: dict[str, Stage], call: str) -> None:
    """Renaming, replacing, syncing and copying what lies beside fail at each of the last calls: whole folders, and one message."""
    for name in ("folder", "overwritten folder"):
        stage = stages[name]
        often = stage.calls.get(call, 0)
        for at in range(max(1, often - 3), often + 1):
            done = stage.run(fail={"call": call, "at": at, "errno": "EIO"})
            assert done["code"] in (0, 2) and "Traceback" not in done["said"], done["said"]
            stage.require_whole(f"{name}: {call} number {at} failed")
            stage.reset()


def test_a_sync_that_failed_beside_the_writing_is_not_forgotten(stages: dict[str, Stage]) -> None:
    """The kernel reports a lost write once: the last fsync may succeed all the same. No target, whichever sync it was."""
    stage = stages["safetensors"]
    for at in range(1, stage.calls["fdatasync"] + 1):
        done = stage.run(fail={"call": "fdatasync", "at": at, "errno": "EIO"})
        assert 2 == done["code"], f"sync {at}: {done['said']}"
        assert "input/output error" in done["said"].lower() or "failed" in done["said"], done["said"]
        assert {} == files_of(stage.folder / "out")
        stage.reset()


@pytest.mark.parametrize("name", ["pth", "made"])
def test_short_reads_and_writes_are_gone_on_with(stages: dict[str, Stage], name: str) -> None:
    """The kernel may move fewer bytes than it was asked to: the file is the same."""
    stage = stages[name]
    done = stage.run(short=1009)
    assert 0 == done["code"], done["said"]
    assert stage.after == files_of(stage.folder / "out")
    stage.reset()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (("truncate", 5000), "truncated while reading|changed while it was read"),
        (("rewrite",), "it was written to since it was opened"),
        (("replace",), "another file took its name"),
        (("remove",), "it was removed or renamed"),
    ],
    ids=["cut", "rewritten", "replaced", "removed"],
)
def test_a_source_that_changes_meanwhile_gives_no_target(
    stages: dict[str, Stage], tmp_path: Path, forks: Forks, act: tuple[Any, ...], message: str
) -> None:
    """Cut, rewritten, replaced or removed while it is read or verified: one message, no target, no debris."""
    for part in (0.3, 0.6, 0.9):
        stage = Stage(WORLDS["safetensors"], tmp_path / str(part), forks)
        at = int(stage.count * part)
        done = stage.run(act_at=at, act=[act[0], "src/model.safetensors", *act[1:]])
        if done["code"] == 0:  # after everything was read and compared
            assert stage.after == files_of(stage.folder / "out") and part == 0.9
            continue
        assert 2 == done["code"], done["said"]
        assert re.search(message, done["said"]), done["said"]
        assert {} == files_of(stage.folder / "out"), done["said"]


@pytest.mark.parametrize("by", ["SIGINT", "SIGTERM"])
def test_a_signal_anywhere_is_one_message_and_nothing_half_written(stages: dict[str, Stage], by: str) -> None:
    """Spread over the run: `stopped`, exit code 2, no traceback; what is kept is gone on from."""
    stage = stages["folder"]
    for at in range(stage.count // 4, stage.count + 1, max(1, stage.count // 6)):
        done = stage.run(signal_at=at, signal=by)
        assert done["code"] in (0, 2, -signal.SIGTERM if by == "SIGTERM" else 2), done["said"]
        assert "Traceback" not in done["said"], done["said"]
        if done["code"] == 2:
            assert "stopped. Nothing half-written was left under the final name" in done["said"]
        elif done["code"] == 0:
            assert stage.after == files_of(stage.folder / "out")
        stage.finish(f"{by} at call {at}", "--resume")


EARLY = """
import runpy, sys
at, module = sys.argv[1:]
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == at:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
sys.argv = ["isomorph", "--help"]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("module", ["isomorph", "isomorph.cli"])
@pytest.mark.parametrize("at", ["click", "isomorph.cli.app", "isomorph.cli.failures"])
def test_ctrl_c_while_importing_is_one_line(module: str, at: str) -> None:
    """Exit code 2 and no traceback, whichever import is under way."""
    done = subprocess.run([sys.executable, "-c", EARLY, at, module], capture_output=True, text=True, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    assert "stopped. Nothing half-written was left under the final name; the source is untouched\n" == done.stderr


def test_a_small_disk_that_is_full_is_said_to_be(stages: dict[str, Stage], tmp_path: Path) -> None:
    """A tmpfs of 64 kB, where one may be mounted; elsewhere a limit on the size of files, which the kernel keeps as well."""
    stage = stages["pth"]
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    command = [
        sys.executable,
        "-m",
        "isomorph",
        "convert",
        str(stage.folder / "src/model.safetensors"),
        str(disk / "t.pth"),
    ]
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash"] if mounted.returncode else []
    try:
        done = subprocess.run([*limited, *command], capture_output=True, text=True, check=False, timeout=60)
        assert 2 == done.returncode, done.stderr
        assert ("may not grow that large here" if limited else "the disk is full") in done.stderr
        assert not list(disk.iterdir())
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", str(disk)], check=True)


def test_of_two_runs_at_one_target_one_is_refused(stages: dict[str, Stage]) -> None:
    """Started at once, in processes of their own: the target is whole, and the loser says why."""
    stage = stages["safetensors"]
    command = [sys.executable, "-m", "isomorph", "convert", *stage.world.arguments]
    both = [
        subprocess.Popen(command, cwd=stage.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert [0, 2] == codes, said
    assert "being written by another run" in "".join(said) or "not touched" in "".join(said)
    assert stage.after == files_of(stage.folder / "out")
    stage.reset()


def test_what_is_finished_is_found_finished(stages: dict[str, Stage]) -> None:
    """--resume of a conversion that is done compares every byte, changes nothing and says so; of another file it is refused."""
    for name in ("pth", "folder", "two outputs", "unverified"):
        stage = stages[name]
        stage.run()
        again = stage.run("--resume", "--json")
        assert 0 == again["code"], again["said"]
        notes = json.loads(again["said"])["notes"]
        assert all("finished by an earlier run: compared byte for byte" in note for note in notes) and notes
        assert stage.after == files_of(stage.folder / "out")
        target = next(
            path for path in sorted((stage.folder / "out").rglob("*")) if path.is_file() and path.stat().st_size > 9000
        )
        changed = bytearray(target.read_bytes())
        changed[8000] ^= 1
        target.write_bytes(changed)
        refused = stage.run("--resume")
        assert 2 == refused["code"] and "not touched" in refused["said"], refused["said"]
        assert bytes(changed) == target.read_bytes()
        stage.reset()
