"""What a command writes beside checkpoints (a plan, a morph, a report) replaces nothing of another kind, and says which file failed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from command_line import Isomorph

from isomorph.errors import RefusedError, SourceChanged
from isomorph.job.small_file import check_free, named, write_text

PLAN = ("plan", "source.npz", "--output", "out.npz", "-o")


@pytest.mark.parametrize("taken", ["source.npz", "config.json", "port.morph", "link.json"])
def test_a_plan_replaces_no_other_file(isomorph: Isomorph, folder: Path, taken: str) -> None:
    (folder / "link.json").symlink_to("nowhere.json")
    before = (folder / taken).read_bytes() if taken != "link.json" else None
    said = isomorph(*PLAN, taken)
    assert (said.code, said.err) == (2, f"{taken} exists. It is no plan.json: give another name\n")
    assert not said.out
    assert before is None or (folder / taken).read_bytes() == before
    assert not (folder / "nowhere.json").exists()


@pytest.mark.parametrize("empty", ["", "{}", "{}\n"])
def test_a_plan_replaces_an_earlier_plan_and_what_is_empty(isomorph: Isomorph, folder: Path, empty: str) -> None:
    (folder / "p.json").write_text(empty)
    for _ in range(2):
        assert isomorph(*PLAN, "p.json").code == 0
    assert isomorph("convert", "p.json").code == 0
    assert (folder / "out.npz").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (".", ". is a folder. Name the plan.json in it\n"),
        ("no/p.json", "no/p.json cannot be written: the folder no does not exist. Make it first\n"),
    ],
)
def test_where_no_plan_can_lie_is_said_before_the_work(isomorph: Isomorph, folder: Path, path: str, text: str) -> None:
    said = isomorph(*PLAN, path)
    assert (said.code, said.out, said.err) == (2, "", text)


MODELS = """
import torch
def build():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 5)
"""


def test_a_report_of_a_trace_is_overwritten_when_asked(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "small_file_models.py").write_text(MODELS)
    (folder / "same.morph").write_text("** <-> **\n")
    monkeypatch.delitem(sys.modules, "small_file_models", raising=False)
    call = ("trace", "small_file_models:build", "small_file_models:build", "-m", "same.morph", "-q", "-o")
    kept = (folder / "config.json").read_text()
    said = isomorph(*call, "config.json")
    advice = "Give --overwrite (in Python overwrite=True) to replace it, or another name"
    assert (said.code, said.err) == (2, f"config.json exists. {advice}\n")
    assert (folder / "config.json").read_text() == kept
    said = isomorph(*call, "no/r.txt")
    assert (said.code, said.err) == (2, "no/r.txt cannot be written: the folder no does not exist. Make it first\n")
    assert isomorph(*call, "r.txt").code == 0
    assert (folder / "r.txt").read_text().startswith("SAME")
    assert isomorph(*call, "r.txt").code == 2
    assert isomorph(*call, "r.txt", "--overwrite").code == 0
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".r")]


def test_a_failure_names_the_file_and_not_what_it_is_written_as(tmp_path: Path) -> None:
    def full(one: Path, other: Path) -> None:
        raise PermissionError(13, os.strerror(13), str(one))

    with pytest.raises(RefusedError) as failed:
        write_text("x", tmp_path / "r.txt", replace=full)
    advice = "Check its permissions, and those of the folders above it"
    assert str(failed.value) == f"{tmp_path / 'r.txt'} cannot be written: permission denied. {advice}"
    assert not list(tmp_path.iterdir())


def test_what_is_said_of_another_file_stays_as_it_is(tmp_path: Path) -> None:
    for error in (FileNotFoundError(2, "gone", str(tmp_path / "source.bin")), SourceChanged("s.bin", "it changed")):
        with pytest.raises(type(error)) as failed, named(tmp_path / "p.json"):
            raise error
        assert failed.value is error
    with pytest.raises(RefusedError, match=r"p\.morph exists\. Give --overwrite"):
        (tmp_path / "p.morph").touch()
        check_free(tmp_path / "p.morph", "morph")
