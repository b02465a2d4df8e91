"""Nothing lies under the final name until it is whole; what was finished is not lost; what is there is not touched."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_plans import identity, transposed

from isomorph.engine import journal, places, run, sync
from isomorph.engine.journal import Journal
from isomorph.engine.run import Written, write
from isomorph.errors import CheckError, Different, RefusedError, SourceChanged
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.plan.moves import Check
from isomorph.plan.plan import Plan


def save(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    source = ArrayCheckpoint(arrays)
    plan = identity(source.manifest)
    write(plan, source, lay_out(dict(plan.manifest), path), path, overwrite=True)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    arrays = {f"w{number}": generator.standard_normal((300, 400), dtype="f4") for number in range(8)}
    return save(tmp_path / "source.safetensors", arrays)


def convert(source: Path, target: Path, make: Any = transposed, **options: Any) -> Written:
    with open_checkpoint(source) as opened:
        plan = make(opened.manifest)
        return write(plan, opened, lay_out(dict(plan.manifest), target), target, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_engine_safety import convert
from isomorph.engine import run, sync
sync.SYNC_EVERY = 1 << 17
run.Budget.chunk = property(lambda self: 1 << 16)
run.Budget.elements = lambda self, weight, streaming: 20_000
writes, last = 0, int(sys.argv[4])
plain = run._Run._pwrite
def pwrite(self, *given):
    global writes
    writes += 1
    if writes == last:
        os.kill(os.getpid(), getattr(signal, sys.argv[6]))
    plain(self, *given)
run._Run._pwrite = pwrite
def verify(path):
    if last < 0:
        os.kill(os.getpid(), getattr(signal, sys.argv[6]))
convert(Path(sys.argv[2]), Path(sys.argv[3]), workers=int(sys.argv[5]), verify=verify)
"""


def killed(
    source: Path, target: Path, at: int, *, workers: int = 1, by: str = "SIGKILL"
) -> subprocess.CompletedProcess[str]:
    """Convert in another process, which is killed at its `at`-th write (-1: while verifying)."""
    arguments = [str(Path(__file__).parent), str(source), str(target), str(at), str(workers), by]
    return subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("at", [1, 2, 7, 20, 33, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_killed_run_leaves_nothing_and_is_resumed(source: Path, tmp_path: Path, at: int, suffix: str):
    """Whenever it dies: no final name; `resume` ends in the same bytes as a run that was never cut off, and leaves nothing else."""
    target, expected = tmp_path / f"t{suffix}", tmp_path / f"u{suffix}"
    convert(source, expected)
    assert killed(source, target, at).returncode == -signal.SIGKILL
    assert not target.exists()
    convert(source, target, resume=True)
    assert expected.read_bytes() == target.read_bytes() or suffix == ".pth"
    with open_checkpoint(expected) as one, open_checkpoint(target) as other:
        for name, spec in one.manifest.items():
            boxes = [opened.fetch(name, 0, (spec.numel,), (1,)).tobytes() for opened in (one, other)]
            assert boxes[0] == boxes[1]
    assert {source.name, expected.name, target.name} == names(tmp_path)


def test_without_resume_what_a_killed_run_left_is_cleared_away(source: Path, tmp_path: Path):
    """Begun anew, and nothing stays behind."""
    target = tmp_path / "t.safetensors"
    killed(source, target, 20)
    assert len(names(tmp_path)) > 1
    assert convert(source, target).resumed_from == 0
    assert {source.name, target.name} == names(tmp_path)


def test_sigterm_is_like_ctrl_c(source: Path, tmp_path: Path):
    """A KeyboardInterrupt; nothing under the final name; what was finished is kept."""
    target = tmp_path / "t.safetensors"
    ended = killed(source, target, 30, by="SIGTERM")
    assert "KeyboardInterrupt" in ended.stderr and ended.returncode != 0
    assert not target.exists()
    assert "--resume goes on from there" in ended.stderr
    assert convert(source, target, resume=True).resumed_from > 0


def interrupt_at(monkeypatch: pytest.MonkeyPatch, last: int, error: BaseException) -> None:
    """Raise `error` in the last-th write; every sync before it is finished."""
    plain, begin, count = run._Run._pwrite, sync.Syncer.sync, 0

    def pwrite(self: Any, *given: Any) -> None:
        nonlocal count
        count += 1
        if count == last:
            raise error
        plain(self, *given)

    def joined(self: Any, progress: Any) -> None:
        begin(self, progress)
        self._thread.join()

    monkeypatch.setattr(run._Run, "_pwrite", pwrite)
    monkeypatch.setattr(sync.Syncer, "sync", joined)
    monkeypatch.setattr(sync, "SYNC_EVERY", 1 << 17)
    monkeypatch.setattr(run.Budget, "chunk", 1 << 16)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".npz"])
@pytest.mark.parametrize("make", [identity, transposed])
def test_resume_goes_on_from_what_was_synced(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, make: Any
):
    """In the middle of a tensor, of a record; the checksums too are those of the whole."""
    target = tmp_path / f"t{suffix}"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 35 if make is identity else 7, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as caught:
            convert(source, target, make)
        assert [note[:25] for note in caught.value.__notes__] == ["what was finished is kept"]
    assert not target.exists()
    written = convert(source, target, make, resume=True)
    assert 0 < written.resumed_from < written.nbytes
    convert(source, tmp_path / f"again{suffix}", make)
    with open_checkpoint(target) as one, open_checkpoint(tmp_path / f"again{suffix}") as other:
        for name, spec in other.manifest.items():
            assert (
                one.fetch(name, 0, (spec.numel,), (1,)).tobytes() == other.fetch(name, 0, (spec.numel,), (1,)).tobytes()
            )
    if suffix != ".safetensors":
        import zipfile

        with zipfile.ZipFile(target) as archive:
            assert archive.testzip() is None


def test_shards_are_resumed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Finished shards stay, later ones are written, the folder is named at the end."""
    target = tmp_path / "out"

    def sharded(**options: Any) -> Written:
        with open_checkpoint(source) as opened:
            plan = identity(opened.manifest)
            layout = lay_out(dict(plan.manifest), target, format="safetensors", max_shard_size=1_000_000)
            return write(plan, opened, layout, target, **options)

    with monkeypatch.context() as patch:
        interrupt_at(patch, 50, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            sharded()
    assert not target.exists()
    assert sharded(resume=True).resumed_from > 1_000_000
    with open_checkpoint(source) as one, open_checkpoint(target) as other:
        for name, spec in one.manifest.items():
            assert (
                one.fetch(name, 0, (spec.numel,), (1,)).tobytes() == other.fetch(name, 0, (spec.numel,), (1,)).tobytes()
            )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda source, target: save(source, {"w0": np.ones((300, 400), "f4")}), "the plan is another"),
        (lambda source, target: os.utime(source, ns=(1, 1)), "a source is another file, or has changed since"),
        (
            lambda source, target: (target.parent / ".t.safetensors.isomorph-part").unlink(),
            "the unfinished file is gone",
        ),
        (
            lambda source, target: (target.parent / ".t.safetensors.isomorph-journal").write_text("{}\n"),
            "another version",
        ),
        (
            lambda source, target: (target.parent / ".t.safetensors.isomorph-journal").unlink(),
            "nothing was left by an earlier run",
        ),
    ],
)
def test_a_run_that_cannot_be_resumed_says_why_and_begins_anew(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, why: str
):
    """Another plan, another source, nothing there."""
    target = tmp_path / "t.safetensors"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 30, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            convert(source, target, identity)
    change(source, target)
    written = convert(source, target, identity, resume=True)
    assert written.resumed_from == 0 and why in written.notes[0]
    assert {source.name, target.name} == names(tmp_path)


def test_a_half_written_last_line_of_the_journal_is_left_out(tmp_path: Path):
    """The run was cut off while it wrote it."""
    path = tmp_path / ".t.isomorph-journal"
    path.write_text('{"version": 1}\n{"file": 0, "offset": 9, "crcs": [], "running": 0}\n{"file": 0, "off')
    journal = Journal(path, tmp_path / "t")
    assert len(journal.previous) == 2
    journal.close(remove=True)
    assert not path.exists()


def test_two_runs_never_write_one_target(source: Path, tmp_path: Path):
    """The second is refused, and the first is not disturbed."""
    target = tmp_path / "t.safetensors"

    def second(path: Path) -> None:
        with pytest.raises(RefusedError, match="being written by another run"):
            convert(source, target)

    convert(source, target, verify=second)
    assert {source.name, target.name} == names(tmp_path)


# ── what is there is not touched ─────────────────────────────────────────────────────────────────────────────────────


def test_an_existing_file_is_not_overwritten_unasked(source: Path, tmp_path: Path):
    """The message names it, its size, and what to do."""
    target = tmp_path / "t.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(
        RefusedError, match=r"t.safetensors exists \(8 bytes\); not touched. Use --overwrite, or another name"
    ):
        convert(source, target)
    assert target.read_bytes() == b"precious"
    convert(source, target, overwrite=True)
    assert target.stat().st_size > 1000
    assert {source.name, target.name} == names(tmp_path)


@pytest.mark.parametrize("as_folder", [False, True])
def test_what_appears_while_writing_is_not_overwritten(source: Path, tmp_path: Path, as_folder: bool):
    """Even in the last moment."""
    target = tmp_path / ("out" if as_folder else "t.safetensors")

    def appear(path: Path) -> None:
        if as_folder:
            target.mkdir()
            (target / "mine").write_bytes(b"precious")
        else:
            target.write_bytes(b"precious")

    with pytest.raises(RefusedError, match="not touched"):
        convert(source, target, verify=appear)
    assert (target / "mine" if as_folder else target).read_bytes() == b"precious"
    assert {source.name, target.name} == names(tmp_path)


def test_a_file_that_appears_after_the_last_look_is_not_overwritten(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The name is given by a link, which fails where something is."""
    target = tmp_path / "t.safetensors"
    check = places.Place.check

    def late(self: Any) -> None:
        check(self)
        if self.temporary.exists():
            target.write_bytes(b"precious")

    monkeypatch.setattr(places.Place, "check", late)
    with pytest.raises(RefusedError, match="not touched"):
        convert(source, target)
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize("way", ["itself", "symlink", "hardlink"])
def test_a_source_is_never_its_own_target(source: Path, tmp_path: Path, way: str):
    """By whatever name, with overwrite too."""
    target = source
    if way == "symlink":
        target = tmp_path / "link.safetensors"
        target.symlink_to(source)
    elif way == "hardlink":
        target = tmp_path / "link.safetensors"
        target.hardlink_to(source)
    before = source.read_bytes()
    with pytest.raises(RefusedError, match=r"is the source.*not touched"):
        convert(source, target, overwrite=True)
    assert before == source.read_bytes()


def test_a_folder_that_holds_the_source_is_not_written_over(tmp_path: Path):
    """The file that would be replaced is the source."""
    folder = tmp_path / "m"
    folder.mkdir()
    source = save(folder / "model.safetensors", {"w": np.ones(3, "f4")})
    with pytest.raises(RefusedError, match="is the source"):
        convert(source, folder, overwrite=True)


def test_a_folder_with_files_is_refused_and_with_overwrite_keeps_what_is_not_ours(source: Path, tmp_path: Path):
    """Only files that are written are replaced; an empty folder is taken."""
    target = tmp_path / "out"
    target.mkdir()
    convert(source, target)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(RefusedError, match=r"holds model\.safetensors already; not touched"):
        convert(source, target)
    convert(source, target, identity, overwrite=True, verify=lambda part: (part / "config.json").write_text("{}"))
    assert {"model.safetensors", "notes.txt", "config.json"} == names(target)
    assert {source.name, "out"} == names(tmp_path)


def test_old_weights_are_not_left_beside_new_ones(source: Path, tmp_path: Path):
    """With overwrite too: a folder of two checkpoints is one that nobody can read rightly."""
    target = tmp_path / "out"
    target.mkdir()
    convert(source, target)
    (target / "model-00001-of-00002.safetensors").write_bytes(b"old")
    with pytest.raises(RefusedError, match=r"holds model-00001-of-00002\.safetensors, which would stay beside the new"):
        convert(source, target, overwrite=True)
    assert {"model.safetensors", "model-00001-of-00002.safetensors"} == names(target)


def test_a_folder_that_is_a_disk_of_its_own_is_written_inside_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It can be neither renamed nor replaced, and its temporary files must lie on the same disk as the final ones."""
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setattr(places.os.path, "ismount", lambda path: Path(path) == disk)
    seen: list[Path] = []
    before = disk.stat().st_ino
    convert(source, disk, verify=seen.append)
    assert seen == [disk / ".isomorph-part"]
    assert {"model.safetensors"} == names(disk) and disk.stat().st_ino == before
    with pytest.raises(RefusedError, match=r"holds model\.safetensors already; not touched"):
        convert(source, disk)
    with pytest.raises(RuntimeError):
        convert(source, disk, overwrite=True, verify=fail)
    assert {"model.safetensors"} == names(disk)


def fail(part: Path) -> None:
    raise RuntimeError(str(part))


def test_a_link_to_a_folder_stands_for_the_folder(source: Path, tmp_path: Path):
    """Also when the folder is empty, so that it could be replaced as a whole."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    convert(source, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert {"model.safetensors"} == names(tmp_path / "real")


def test_a_journal_that_cannot_be_written_is_a_refusal(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The disk is full before the first byte of the target."""

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.raises(RefusedError, match=r"t\.safetensors cannot be written: no space left on device \(.*\)\. Free"):
        convert(source, tmp_path / "t.safetensors")
    assert {source.name} == names(tmp_path)


def test_a_target_without_a_folder_or_that_is_one_is_refused(source: Path, tmp_path: Path):
    """What to do is said."""
    with pytest.raises(RefusedError, match="there is no folder"):
        convert(source, tmp_path / "no" / "t.safetensors")
    (tmp_path / "file").touch()
    for below in ("file/t.safetensors", "file/no/t.safetensors"):
        with pytest.raises(RefusedError, match=r"cannot be written: .*/file is a file, not a folder"):
            convert(source, tmp_path / below)
    (tmp_path / "dir.safetensors").mkdir()
    with open_checkpoint(source) as opened:
        plan = identity(opened.manifest)
        layout = lay_out(dict(plan.manifest), tmp_path / "other.safetensors")
        with pytest.raises(RefusedError, match="is a folder"):
            write(plan, opened, layout, tmp_path / "dir.safetensors", overwrite=True)


def test_a_planted_link_under_the_temporary_name_is_not_followed(source: Path, tmp_path: Path):
    """It is removed; what it points to stays as it is."""
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    (tmp_path / ".t.safetensors.isomorph-part").symlink_to(other)
    convert(source, tmp_path / "t.safetensors")
    assert other.read_bytes() == b"precious"
    (tmp_path / ".u.safetensors.isomorph-journal").symlink_to(other)
    with pytest.raises(RefusedError, match="cannot be written"):
        convert(source, tmp_path / "u.safetensors")
    assert other.read_bytes() == b"precious"


# ── failures on the way ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_full_disk_is_seen_before_anything_is_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is needed and what is free."""

    class Full:
        f_bavail, f_frsize = 10, 4096

    monkeypatch.setattr(places.os, "statvfs", lambda path: Full)
    with pytest.raises(RefusedError, match=r"needs 3.84 MB, and 41 kB are free in .*: the disk is full"):
        convert(source, tmp_path / "t.safetensors")
    assert {source.name} == names(tmp_path)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwritev"])
@pytest.mark.parametrize(
    ("code", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the quota is used up")]
)
def test_a_disk_that_fills_up_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, message: str
):
    """While space is reserved, or written to."""

    def fail(*given: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(run.os, call, fail)
    with pytest.raises(RefusedError, match=message):
        convert(source, tmp_path / "t.safetensors")
    assert {source.name} == names(tmp_path)


def test_a_file_size_limit_is_a_refusal(source: Path, tmp_path: Path):
    """The kernel's own refusal, in another process."""
    code = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_engine_safety import convert\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); convert(Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    arguments = [str(Path(__file__).parent), str(source), str(tmp_path / "t.safetensors")]
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert "RefusedError" in ended.stderr and "files may not grow that large here" in ended.stderr
    assert {source.name} == names(tmp_path)


def test_a_source_that_changes_meanwhile_gives_no_target(source: Path, tmp_path: Path):
    """Noticed before the final name is given, even after verifying."""
    with pytest.raises(SourceChanged, match=r"source\.safetensors"):
        convert(source, tmp_path / "t.safetensors", verify=lambda path: os.utime(source, ns=(1, 1)))
    assert {source.name} == names(tmp_path)


def test_a_source_that_is_cut_while_it_is_read_gives_no_target(source: Path, tmp_path: Path):
    """One clear error, not zeros."""
    with open_checkpoint(source) as opened:
        plan = identity(opened.manifest)
        layout = lay_out(dict(plan.manifest), tmp_path / "t.safetensors")
        os.truncate(source, 5000)
        with pytest.raises(SourceChanged, match="truncated"):
            write(plan, opened, layout, tmp_path / "t.safetensors")
    assert {source.name} == names(tmp_path)


def test_what_verify_refuses_gets_no_name(source: Path, tmp_path: Path):
    """Whether it raises or answers; it is given the finished file, whole, under another name."""

    class Report:
        equal = False

    seen: list[bytes] = []

    def verify(path: Path) -> Report:
        seen.append(path.read_bytes())
        return Report()

    with pytest.raises(Different):
        convert(source, tmp_path / "t.safetensors", verify=verify)
    assert {source.name} == names(tmp_path)
    convert(source, tmp_path / "t.safetensors", verify=lambda path: seen.append(path.read_bytes()))
    assert seen[0] == seen[1] == (tmp_path / "t.safetensors").read_bytes()


def test_a_check_that_does_not_hold_writes_nothing(source: Path, tmp_path: Path):
    """Found before the first byte."""
    with open_checkpoint(source) as opened:
        plain = identity(opened.manifest)
        checks = (Check("tie", plain.moves[0].target, plain.moves[1].target),)
        plan = Plan(plain.source, plain.targets, plain.moves, checks, (), ())
        with pytest.raises(CheckError, match="the copies w0 and w1 differ"):
            write(plan, opened, lay_out(dict(plan.manifest), tmp_path / "t.pth"), tmp_path / "t.pth")
    assert {source.name} == names(tmp_path)


def test_writing_works_outside_the_main_thread(source: Path, tmp_path: Path):
    """No signal handler is set there."""
    thread = threading.Thread(target=convert, args=(source, tmp_path / "t.safetensors"))
    thread.start()
    thread.join()
    assert (tmp_path / "t.safetensors").exists()
