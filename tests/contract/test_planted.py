"""What somebody put where a conversion writes: links, pipes, second names of files, journals that lie. Nothing outside is written,
no byte of theirs is taken for ours, and nothing waits."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from watched import watched

from isomorph.cli.app import run
from isomorph.engine.journal import Journal
from isomorph.formats.registry import open_checkpoint
from isomorph.formats.source import Source
from isomorph.formats.zip.archive import read_members
from isomorph.testing.formats import tensors_of, whole, write_checkpoint

PRECIOUS = b"precious " * 4000
ARRAYS = {f"w{number}": np.arange(1500, dtype="f4") + number for number in range(4)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a.safetensors and, in other/, files of somebody else."""
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "a.safetensors", tensors_of(ARRAYS))
    (tmp_path / "other").mkdir()
    for name in ("precious", "model.safetensors", "out.safetensors"):
        (tmp_path / "other" / name).write_bytes(PRECIOUS)
    return tmp_path


def others_are_as_they_were(folder: Path) -> bool:
    return {path.name: path.read_bytes() for path in (folder / "other").iterdir()} == dict.fromkeys(
        ("precious", "model.safetensors", "out.safetensors"), PRECIOUS
    )


def link(path: Path) -> None:
    path.symlink_to("other/precious")


def dangling(path: Path) -> None:
    path.symlink_to("other/new")


def folder_link(path: Path) -> None:
    path.symlink_to("other")


def hard_link(path: Path) -> None:
    os.link("other/precious", path)


def full_folder(path: Path) -> None:
    path.mkdir()
    (path / "model.safetensors").symlink_to("../other/model.safetensors")


def large(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def deep(path: Path) -> None:
    path.write_text("[" * 200_000 + "\n")


PLANTED: dict[str, Callable[[Path], None]] = {
    "link": link, "dangling": dangling, "folder link": folder_link, "hard link": hard_link, "pipe": os.mkfifo, "folder": full_folder,
    "large": large, "deep": deep,
}  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED)
@pytest.mark.parametrize("kind", ["part", "journal"])
@pytest.mark.parametrize("target", ["out.safetensors", "out/"])
def test_what_lies_under_a_temporary_name_is_not_written_through(
    folder: Path, capsys: pytest.CaptureFixture[str], planted: str, kind: str, target: str
) -> None:
    """Removed where it is ours by its name, else refused by name; what it leads to stays as it is, with --resume as well."""
    place = folder / f".{target.rstrip('/')}.isomorph-{kind}"
    for extra in ([], ["--resume"]):
        PLANTED[planted](place)
        code = run(["convert", "a.safetensors", target, *extra])
        said = capsys.readouterr()
        assert others_are_as_they_were(folder)
        if code:
            assert (code, kind) == (2, "journal"), said.err
            assert f"{target.rstrip('/')} cannot be written: " in said.err and place.name in said.err
            assert said.err.count("\n") == 1 and not os.path.lexists(target)
            (full := place).is_dir() and not full.is_symlink() and (full / "model.safetensors").unlink()
            place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
            continue
        assert not os.path.lexists(place)
        with open_checkpoint(Path(target)) as made:
            assert {name: whole(made, name).view("f4").tolist() for name in made.manifest} == {
                name: array.tolist() for name, array in ARRAYS.items()
            }
        written = folder / target
        assert not written.is_symlink()
        if written.is_dir():
            assert ["model.safetensors"] == [path.name for path in written.iterdir()]
            (written / "model.safetensors").unlink()
            written.rmdir()
        else:
            written.unlink()


def test_a_pipe_in_the_place_of_a_journal_is_not_waited_for(folder: Path) -> None:
    """In a process of its own, so that waiting would be seen."""
    os.mkfifo(folder / ".out.pth.isomorph-journal")
    seen = watched("convert", "a.safetensors", "out.pth", folder=folder, timeout=60)
    assert (seen.code, seen.out) == (2, "")
    assert ".out.pth.isomorph-journal is not the journal of an earlier run. Look what it is, and remove it" in seen.err


def left_by_a_run(
    folder: Path, target: str, lines: list[dict[str, object]], change: Callable[[bytearray], object] | None = None
) -> Path:
    """Write the journal and the unfinished file of a run that stopped; what a journal's first line must say is no secret.

    The file is an honest one, changed by `change`. Returns its path.
    """
    heads: list[dict[str, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        begin = Journal.begin
        patch.setattr(Journal, "begin", lambda self, asked, *more: heads.append(asked) or begin(self, asked, *more))
        assert run(["convert", "a.safetensors", target, "-q"]) == 0
    name = target.rstrip("/")
    (folder / f".{name}.isomorph-journal").write_text("".join(json.dumps(line) + "\n" for line in (*heads, *lines)))
    place = (folder / name).rename(folder / f".{name}.isomorph-part")
    part = place / "model.safetensors" if place.is_dir() else place
    if change is not None:
        data = bytearray(part.read_bytes())
        change(data)
        part.write_bytes(data)
    return part


def line(file: object, offset: object, crcs: object = (), running: object = 0) -> dict[str, object]:
    return {"file": file, "offset": offset, "crcs": crcs, "running": running}


@pytest.mark.parametrize(
    "lie",
    [line(1, 0), line(10**30, 0), line(-1, 0), line(-(10**30), 5), line(0, -1), line(0, 10**30), line(0, 1 << 20), line(0, 100, [1]),
     line(0, 100, [-1]), line(0, 100, [1 << 40]), line(0, 100, [], 1 << 40), line(0, 100, [], -1), line(0, 100, "x"), line("x", 1),
     line(None, 1), line(0, [1]), line(0, 1e400), line(True, True, [0] * 1000)],
)  # fmt: skip
@pytest.mark.parametrize("target", ["out.safetensors", "out.pth", "out/"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_journal_that_lies_about_how_far_it_came_gives_no_wrong_file(
    folder: Path, capsys: pytest.CaptureFixture[str], lie: dict[str, object], target: str, verify: bool
) -> None:
    """File numbers, offsets and checksums that no run would have written: begun anew, and the target is right."""
    left_by_a_run(folder, target, [lie], lambda data: data.__setitem__(slice(200, 300), bytes(100)))
    code = run(["convert", "a.safetensors", target, "--resume", *([] if verify else ["--no-verify"])])
    said = capsys.readouterr()
    assert (code, said.err) == (0, ""), said.err
    assert "note      not resumed, begun anew: " in said.out
    with open_checkpoint(Path(target)) as made:
        for name, array in ARRAYS.items():
            assert array.tolist() == whole(made, name).view("f4").tolist()


@pytest.mark.parametrize("target", ["out.safetensors", "out.pth", "out/"])
def test_bytes_of_somebody_else_are_found_by_the_verification(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    """A journal that fits, beside a file of other bytes: no final name is given. What is known beforehand is written again."""
    assert run(["convert", "a.safetensors", "honest" + target, "-q"]) == 0
    honest = Path("honest" + target)
    honest = honest / "model.safetensors" if honest.is_dir() else honest
    data = honest.read_bytes()
    place = data.index(ARRAYS["w1"].tobytes())
    name = data.index(b"w3")

    def journal(change: Callable[[bytearray], object]) -> list[dict[str, object]]:
        changed = bytearray(data)
        change(changed)
        start, crcs = _finished(honest, place + 400)
        return [line(0, place + 400, crcs, zlib.crc32(changed[start : place + 400]) if start else 0)]

    def wrong_value(found: bytearray) -> None:
        found[place : place + 4] = b"\xff\xff\x7f\x7f"

    left_by_a_run(folder, target, journal(wrong_value), wrong_value)
    assert run(["convert", "a.safetensors", target, "--resume"]) == 2
    assert "w1" in capsys.readouterr().err
    assert not os.path.lexists(target)

    def wrong_name(found: bytearray) -> None:
        found[name : name + 2] = b"zz"

    left_by_a_run(folder, target, journal(wrong_name), wrong_name)
    assert run(["convert", "a.safetensors", target, "--resume", "--no-verify"]) == 0
    assert "not resumed" not in capsys.readouterr().out
    made = Path(target)
    assert data == (made / "model.safetensors" if made.is_dir() else made).read_bytes()


def _finished(path: Path, offset: int) -> tuple[int, list[int]]:
    """Where the record of a zip around `offset` begins (0 where there is none), and the checksums of those before it."""
    if path.suffix != ".pth":
        return 0, []
    with contextlib.closing(Source(path)) as source:
        members = [member for name, member in read_members(source).items() if "/data/" in name]
    started = max(member.offset for member in members if member.offset < offset)
    return started, [member.crc for member in members if member.offset < started]


def test_a_link_in_the_place_of_an_unfinished_folder_is_not_written_through(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--resume, with a journal that fits: the folder is a link to another one with a file of the same name, long enough."""
    part = left_by_a_run(folder, "out/", [line(0, 0), line(0, 64)])
    part.unlink()
    (place := part.parent).rmdir()
    place.symlink_to("other")
    assert run(["convert", "a.safetensors", "out/", "--resume"]) == 0
    assert others_are_as_they_were(folder)
    assert "not resumed, begun anew: the unfinished file is gone or was changed" in capsys.readouterr().out


@pytest.mark.parametrize("way", ["second name", "link", "pipe"])
def test_an_unfinished_file_that_is_another_file_is_not_written_into(
    folder: Path, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    part = left_by_a_run(folder, "out.safetensors", [line(0, 64)])
    part.unlink()
    {"second name": hard_link, "link": link, "pipe": os.mkfifo}[way](part)
    assert run(["convert", "a.safetensors", "out.safetensors", "--resume"]) == 0
    assert others_are_as_they_were(folder)
    assert "the unfinished file is gone or was changed" in capsys.readouterr().out
    assert not Path("out.safetensors").is_symlink() and Path("out.safetensors").stat().st_nlink == 1


@pytest.mark.parametrize("target", ["out.safetensors", "out.pth", "out/"])
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_who_may_read_a_target_is_what_the_umask_says(folder: Path, target: str, umask: int) -> None:
    """No file is readable or writable by more people than any other new file, at no time: it is created so."""
    modes: list[int] = []
    before = os.umask(umask)
    try:
        assert run(["convert", "a.safetensors", target, "-q"]) == 0
    finally:
        os.umask(before)
    path = Path(target)
    modes = [one.stat().st_mode & 0o777 for one in (path, *path.glob("*")) if one.is_file()]
    assert modes == [0o666 & ~umask]
    assert not path.is_dir() or path.stat().st_mode & 0o777 == 0o777 & ~umask


def test_links_in_a_folder_that_is_written_over_are_replaced(folder: Path) -> None:
    """With --overwrite: what they lead to stays, for weights and for what is copied beside them."""
    source = folder / "m"
    source.mkdir()
    (folder / "a.safetensors").rename(source / "model.safetensors")
    (source / "config.json").write_text('{"a": 1}')
    out = folder / "out"
    out.mkdir()
    (out / "model.safetensors").symlink_to("../other/model.safetensors")
    (out / "config.json").symlink_to("../other/precious")
    assert run(["convert", "m", "out/", "--overwrite", "-q"]) == 0
    assert others_are_as_they_were(folder)
    assert (out / "config.json").read_text() == '{"a": 1}'
    assert not any(path.is_symlink() for path in out.iterdir())
