"""plan.json in tasks: what any number of them makes, in any order, twice, at once or killed, is what one run makes."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isomorph.engine.places import Place
from isomorph.job.tasks import part, records
from isomorph.job.tasks.records import Workplace

Isomorph = Callable[..., tuple[int, str, str]]

PLAN = ("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", "out/", "--max-shard-size", "600")


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture
def expected(isomorph: Isomorph, folder: Path) -> dict[str, str]:
    """plan.json is written; and what one run makes of the same."""
    assert isomorph(*PLAN)[::2] == (0, "")
    assert isomorph("convert", "src", "whole/", "-m", "port.morph", "--max-shard-size", "600")[0] == 0
    found = contents(folder / "whole")
    assert len(found) > 8 and {"config.json", "model.safetensors.index.json"} < found.keys()
    return found


def left_beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("count", [1, 3, 40])
def test_all_tasks_in_any_order_make_what_one_run_makes(
    isomorph: Isomorph, folder: Path, expected: dict[str, str], count: int
) -> None:
    """Each does its share and says so; --finish adds the index and the companions; nothing else is left."""
    order = list(range(count))
    random.Random(count).shuffle(order)
    written = []
    for task in order:
        code, out, _ = isomorph("convert", "plan.json", "--task", f"{task}/{count}", "--json")
        assert code == 0
        written += json.loads(out)["written"]
    assert sorted(written) == [name for name in expected if name.startswith("model-")]
    code, out, _ = isomorph("convert", "plan.json", "--finish", "--json")
    assert (code, contents(folder / "out"), left_beside(folder)) == (0, expected, [])
    assert json.loads(out)["elements_compared"] == 4 * 8 * 6 * 6 + 60 + 200
    assert isomorph("verify", "src", "out", "-m", "port.morph")[0] == 0


def test_finish_says_what_is_missing_and_which_tasks_to_run_again(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """Nothing is named before all is there."""
    code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "out is not finished: " in err and "--task 0/1" in err
    for task in (0, 1, 3):
        assert isomorph("convert", "plan.json", "--task", f"{task}/5")[0] == 0
    code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "Run again --task 2/5, 4/5" in err and not (folder / "out").exists()
    for task in (4, 2):
        assert isomorph("convert", "plan.json", "--task", f"{task}/5")[0] == 0
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert contents(folder / "out") == expected
    code, _, err = isomorph("convert", "plan.json", "--task", "0/5")
    assert code == 2 and "not touched" in err


def test_a_task_that_is_run_again_skips_what_holds_and_redoes_what_does_not(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """A file is believed for its bytes alone: same size, same mtime, one byte other is done again."""
    assert isomorph("convert", "plan.json", "--task", "0/2")[0] == 0
    code, out, _ = isomorph("convert", "plan.json", "--task", "0/2", "--json")
    first = json.loads(out)
    assert (code, first["written"]) == (0, []) and len(first["skipped"]) > 2
    (files,) = folder.glob(".out.isomorph-tasks-*/files")
    spoilt, gone, unsaid = (files / name for name in first["skipped"][:3])
    state = spoilt.stat()
    data = bytearray(spoilt.read_bytes())
    data[-1] ^= 1
    spoilt.write_bytes(data)
    os.utime(spoilt, ns=(state.st_atime_ns, state.st_mtime_ns))
    gone.unlink()
    (files.parent / "records" / unsaid.name).write_text("{")
    code, out, _ = isomorph("convert", "plan.json", "--task", "0/2", "--json")
    assert (code, set(json.loads(out)["written"])) == (0, {spoilt.name, gone.name, unsaid.name})
    assert isomorph("convert", "plan.json", "--task", "1/2")[0] == 0
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert contents(folder / "out") == expected


def test_finish_hashes_a_file_that_was_touched_since_its_record(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """A file that was copied back is fine; one with other bytes is missing."""
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    (files,) = folder.glob(".out.isomorph-tasks-*/files")
    one, other = sorted(files.iterdir())[:2]
    os.utime(one, ns=(1, 1))
    other.write_bytes(bytes(other.stat().st_size))
    code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and f"1 of {len(list(files.iterdir()))} files are missing or not proved: {other.name}" in err


def test_what_was_not_verified_is_not_finished_as_if_it_were(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """--no-verify of a task needs --no-verify of --finish."""
    assert "not verified" in isomorph("convert", "plan.json", "--task", "0/1", "--no-verify")[1]
    assert isomorph("convert", "plan.json", "--finish")[0] == 2
    code, out, _ = isomorph("convert", "plan.json", "--finish", "--no-verify")
    assert code == 0 and "some files were not" in out
    assert contents(folder / "out") == expected


def test_a_changed_source_is_an_error_of_every_step(isomorph: Isomorph, folder: Path, expected: dict[str, str]) -> None:
    """Size, mtime and headers of what a task reads are those of the plan."""
    assert isomorph("convert", "plan.json", "--task", "0/2")[0] == 0
    for shard in (folder / "src").glob("*.safetensors"):
        os.utime(shard, ns=(1, 1))
    for step in (("--task", "1/2"), ()):
        code, _, err = isomorph("convert", "plan.json", *step)
        assert code == 2 and "is not what it was when plan.json was made (another mtime)" in err


def test_a_source_that_is_gone_is_an_error_of_every_step(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """What was there is named, and when; nothing of it lies under the final name."""
    assert isomorph("convert", "plan.json", "--task", "0/2")[0] == 0
    shutil.move("src", "moved")
    for step in (("--task", "1/2"), ("--task", "0/1")):
        code, _, err = isomorph("convert", "plan.json", *step)
        assert code == 2 and "is no longer there: it was when plan.json was made" in err
    shutil.move("moved", "src")
    assert isomorph("convert", "plan.json", "--task", "1/2")[0] == 0
    shutil.move("src", "moved")
    code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "no such file or folder" in err and not (folder / "out").exists()


def test_a_source_of_the_same_state_and_another_header_is_an_error(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """Two tensors that changed names in a file of the same size and mtime."""
    for shard in (folder / "src").glob("*.safetensors"):
        state = shard.stat()
        shard.write_bytes(shard.read_bytes().replace(b'"other.', b'"Other.'))
        os.utime(shard, ns=(state.st_atime_ns, state.st_mtime_ns))
    code, _, err = isomorph("convert", "plan.json", "--task", "0/1")
    assert code == 2 and "its tensors are not those that plan.json was made for" in err


def test_a_violated_constant_fails_the_task_that_has_it(isomorph: Isomorph, folder: Path) -> None:
    """A check that belongs to no target is carried out by one of the tasks all the same."""
    for shard in (folder / "src").glob("*.safetensors"):
        data = shard.read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        for name, entry in header.items():
            if name == "scale":
                at = 8 + int.from_bytes(data[:8], "little") + entry["data_offsets"][0]
                shard.write_bytes(data[:at] + b"\0\0\0\0" + data[at + 4 :])
    assert isomorph(*PLAN)[::2] == (0, "")
    said = [isomorph("convert", "plan.json", "--task", f"{task}/4") for task in range(4)]
    assert sorted(code for code, _, _ in said) == [0, 0, 0, 2]
    assert any("scale" in err for _, _, err in said)


def test_one_file_is_the_work_of_one_task(isomorph: Isomorph, folder: Path) -> None:
    """The others say that there is nothing to do; a task that does not exist is refused."""
    plan = ("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", "model.pth")
    assert isomorph(*plan)[0] == 0
    assert "nothing   to do" in isomorph("convert", "plan.json", "--task", "1/3")[1]
    assert "wrote     model.pth" in isomorph("convert", "plan.json", "--task", "0/3")[1]
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert isomorph("convert", "src", "whole.pth", "-m", "port.morph")[0] == 0
    assert isomorph("verify", "src", "model.pth", "-m", "port.morph")[0] == 0
    assert (folder / "model.pth").stat().st_size == (folder / "whole.pth").stat().st_size
    for task, problem in (
        ("3/3", "numbered from 0 to 2"),
        ("x", "write it as  i/n"),
        ("", "write it as  i/n"),
        ("0/0", "write it as  i/n"),
    ):
        code, _, err = isomorph("convert", "plan.json", "--task", task)
        assert code == 2 and problem in err


@pytest.mark.parametrize("morphs", [("port.morph", "second.morph"), ("prefixed.morph",)])
def test_chains_and_several_outputs_go_in_tasks_too(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch, morphs: tuple[str, ...]
) -> None:
    """No task opens the whole of the inputs: it reads, proves and verifies its share alone."""
    (folder / "second.morph").write_text("blocks.{l}.qkv.w [o i] <-> b.{l}.w [i o]\n** <-> **\n")
    (folder / "prefixed.morph").write_text("other.{n} <-> rest::other.{n}\n** <-> main::**\n")
    targets = ["main=one/", "rest=two.npz"] if len(morphs) == 1 else ["out/"]
    options = [text for morph in morphs for text in ("-m", morph)]
    outputs = [text for target in targets for text in ("--output", target)]
    assert isomorph("plan", "src", *options, "-o", "plan.json", *outputs, "--max-shard-size", "2000")[0] == 0
    with monkeypatch.context() as patch:
        patch.delattr(part, "open_sources")
        for task in (2, 0, 1):
            assert isomorph("convert", "plan.json", "--task", f"{task}/3")[0] == 0
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert isomorph("verify", "src", *targets, *options)[0] == 0
    assert left_beside(folder) == []


def test_options_that_do_not_go_together(isomorph: Isomorph, folder: Path, expected: dict[str, str]) -> None:
    """One message each, and what to do."""
    for arguments, problem in (
        (("convert", "src", "out/", "--task", "0/2"), "--task carries out a plan that was written down"),
        (("convert", "plan.json", "--task", "0/2", "--finish"), "--task and --finish are different steps"),
        (("convert", "plan.json", "--task", "0/2", "--resume"), "--resume does not go with --task"),
        (("convert", "plan.json", "--task", "0/2", "--max-shard-size", "1MB"), "says every file of its outputs"),
        (("convert", "plan.json", "--finish", "--dry-run"), "--dry-run does not go with --finish"),
    ):
        code, _, err = isomorph(*arguments)
        assert code == 2 and problem in err, err


def test_the_same_task_killed_and_run_several_times_at_once(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """Runs of one task meet nowhere; what a killed one left is swept by the next, and never has a final name."""
    command = [sys.executable, "-m", "isomorph", "convert", "plan.json", "--task", "0/1", "-q"]
    killed = subprocess.Popen(command, cwd=folder, start_new_session=True)
    for _ in range(2000):
        if any(folder.glob(".out.isomorph-tasks-*/work/*/*")):
            break
        time.sleep(0.005)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    runs = [subprocess.Popen(command, cwd=folder) for _ in range(3)]
    assert [0, 0, 0] == [run.wait(timeout=120) for run in runs]
    (work,) = folder.glob(".out.isomorph-tasks-*/work")
    assert list(work.iterdir()) == []
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert contents(folder / "out") == expected


def test_finish_replaces_an_older_folder_only_when_told(
    isomorph: Isomorph, folder: Path, expected: dict[str, str]
) -> None:
    """As convert does: tasks and --finish refuse a target that is there, without --overwrite."""
    shutil.copytree(folder / "whole", folder / "out")
    code, _, err = isomorph("convert", "plan.json", "--task", "0/1")
    assert code == 2 and "Use --overwrite" in err
    (folder / "out" / "config.json").unlink()
    for step in ("--task", "0/1"), ("--finish",):
        assert isomorph("convert", "plan.json", *step, "--overwrite")[0] == 0
    assert contents(folder / "out") == expected


@pytest.mark.parametrize("calls", [1, 2])
def test_finish_that_was_cut_off_goes_on(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    """Between the names of two outputs, and after both: what has its name keeps it, the rest gets its own."""
    (folder / "prefixed.morph").write_text("other.{n} <-> rest::other.{n}\n** <-> main::**\n")
    outputs = ["--output", "main=one/", "--output", "rest=two.npz", "--max-shard-size", "2000"]
    assert isomorph("plan", "src", "-m", "prefixed.morph", "-o", "plan.json", *outputs)[0] == 0
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    kept, done = Place.finish, []

    def cut_off(place: Place) -> None:
        kept(place)
        done.append(place.target.name)
        if len(done) == calls:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Place, "finish", cut_off)
        code, _, err = isomorph("convert", "plan.json", "--finish")
        assert code == 2 and "stopped" in err
    assert done == ["one", "two.npz"][:calls]
    assert isomorph("convert", "plan.json", "--finish")[::2] == (0, "")
    assert left_beside(folder) == []
    assert isomorph("verify", "src", "main=one", "rest=two.npz", "-m", "prefixed.morph")[0] == 0


def test_one_finish_at_a_time(isomorph: Isomorph, folder: Path, expected: dict[str, str]) -> None:
    """A second one is refused while the first is at work; what is beside the tensors appears whole, whoever was killed before."""
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    (work,) = folder.glob(".out.isomorph-tasks-*")
    (work / "files" / "config.json").write_text('{"hidd')  # as a run that was killed while it copied would leave it
    held = os.open(work, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "out is being finished by another run. Wait for it" in err and not (folder / "out").exists()
    os.close(held)
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert (contents(folder / "out"), left_beside(folder)) == (expected, [])


def test_a_finish_that_another_one_overtook_says_so(
    isomorph: Isomorph, folder: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without locks: all is there, once, and nothing is left."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    kept = Place.finish

    def overtaken(place: Place) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Place, "finish", kept)
            assert isomorph("convert", "plan.json", "--finish")[0] == 0
        kept(place)

    with monkeypatch.context() as patch:
        patch.setattr(Place, "finish", overtaken)
        code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and ("was finished by another run meanwhile" in err or "not touched" in err), err
    assert (contents(folder / "out"), left_beside(folder)) == (expected, [])


@pytest.mark.parametrize("at", ["make", "_own_folder", "put"])
def test_a_task_that_finish_overtook_says_so_and_leaves_nothing(
    isomorph: Isomorph, folder: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """All files are done by other runs, and named while a late run of a task is at work: before it begins, and at its end."""
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    kept = getattr(Workplace, at)

    def late(place: Workplace, *arguments: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(Workplace, at, kept)
            assert isomorph("convert", "plan.json", "--finish")[0] == 0
        return kept(place, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Workplace, at, late)
        patch.setattr(
            Workplace, "is_done", lambda *_, reread, **__: not reread
        )  # the late run sees nothing done, --finish all
        code, _, err = isomorph("convert", "plan.json", "--task", "0/1")
    assert code == 2 and ("was finished by another run meanwhile" in err or "not touched" in err), err
    assert (contents(folder / "out"), left_beside(folder)) == (expected, [])


@pytest.mark.parametrize("target", ["out/", "out.npz"])
def test_finish_that_was_cut_off_while_it_cleared_goes_on(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Half of the records are gone: all has its name, and the rest is removed."""
    assert isomorph("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", target)[0] == 0
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    kept = shutil.rmtree

    def cut_off(path: Path, **options: Any) -> None:
        if "isomorph-done-" not in path.name:
            kept(path, **options)
            return
        for one in sorted((path / "records").iterdir())[:3]:
            one.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records.shutil, "rmtree", cut_off)
        assert isomorph("convert", "plan.json", "--finish")[0] == 2
    assert left_beside(folder)
    code, out, _ = isomorph("convert", "plan.json", "--finish")
    assert code == 0 and "before the names were given" in out and left_beside(folder) == []
    assert isomorph("verify", "src", target, "-m", "port.morph")[0] == 0


def test_an_older_target_of_the_same_size_is_not_taken_for_the_new_one(isomorph: Isomorph, folder: Path) -> None:
    """A task that was begun with --overwrite and cut off: --finish says what is missing."""
    plan = ("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", "out.npz")
    assert isomorph(*plan)[0] == 0
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    written = folder / "out.npz"
    written.write_bytes(bytes(written.stat().st_size))
    assert isomorph("convert", "plan.json", "--task", "1/2", "--overwrite")[0] == 0
    digest = json.loads((folder / "plan.json").read_text())["digest"]
    (folder / f".out.npz.isomorph-tasks-{digest[:12]}" / "records").mkdir(parents=True)
    code, _, err = isomorph("convert", "plan.json", "--finish", "--overwrite")
    assert code == 2 and "out.npz is not finished: 1 of 1 files" in err and not any(written.read_bytes())


def test_a_disk_that_is_full_at_the_end_is_said_of_the_target(
    isomorph: Isomorph, folder: Path, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index has no room: nothing is named, and --finish goes on when there is."""
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "out cannot be written: no space left on device (" in err and not (folder / "out").exists()
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert (contents(folder / "out"), left_beside(folder)) == (expected, [])


def test_a_plan_for_a_folder_that_is_not_written_to_names_the_plan(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system mounted read-only refuses to remove what is not there, too."""
    kept = Path.open

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name.startswith(".plan.json."):
            refuse(path)
        return kept(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        patch.setattr(Path, "unlink", lambda path, **_: refuse(path))
        code, _, err = isomorph(*PLAN)
    assert (code, err) == (2, "plan.json cannot be written: read-only file system. Write elsewhere\n")


@pytest.mark.parametrize("nbytes", [100, 180, 200, 700])
def test_tensors_larger_than_a_shard_are_shards_of_their_own(isomorph: Isomorph, folder: Path, nbytes: int) -> None:
    """They come before the smaller ones that began a shard before them: --finish writes the index that one run writes."""
    options = ("-m", "port.morph", "--max-shard-size", str(nbytes))
    assert isomorph("convert", "src", "whole/", *options)[0] == 0
    assert isomorph("plan", "src", *options, "-o", "plan.json", "--output", "out/")[0] == 0
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    assert isomorph("convert", "plan.json", "--finish")[::2] == (0, "")
    assert contents(folder / "out") == contents(folder / "whole")
