"""Folders that reach for what lies outside of them, or whose parts are no files (threats 7, 33 to 36)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch_files import name

from isomorph.cli.app import run
from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import tensors_of, whole, write_checkpoint

INDEX = "model.safetensors.index.json"
SECRET = tensors_of({"secret": np.arange(4, dtype="f4")})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """m/, empty; and beside it elsewhere.safetensors and secret.txt, which nobody named."""
    write_checkpoint(tmp_path / "elsewhere.safetensors", SECRET)
    (tmp_path / "secret.txt").write_text("a key")
    (tmp_path / "m").mkdir()
    return tmp_path / "m"


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", INDEX, "any.npz"])
@pytest.mark.parametrize("absolute", [True, False])
def test_the_weights_of_a_folder_are_not_taken_from_outside_of_it(folder: Path, file: str, absolute: bool) -> None:
    """Who is handed a folder and converts it does not publish another file of the machine."""
    target = folder.parent / "elsewhere.safetensors"
    (folder / file).symlink_to(target if absolute else "../elsewhere.safetensors")
    with pytest.raises(UnsafeError, match=r"a link to .*elsewhere\.safetensors, out of its folder") as caught:
        open_checkpoint(folder)
    assert str(folder / file) in str(caught.value)
    assert "name the file itself if it is meant" in str(caught.value)


def test_a_link_that_is_named_is_followed(folder: Path) -> None:
    """What the user types is what the user means."""
    (folder / "model.safetensors").symlink_to("../elsewhere.safetensors")
    with open_checkpoint(folder / "model.safetensors") as checkpoint:
        assert list(checkpoint.manifest) == ["secret"]


def test_a_hard_link_is_a_file_like_any_other(folder: Path) -> None:
    """It has no other place that it would lead to, and only who may read a file can make one."""
    os.link(folder.parent / "elsewhere.safetensors", folder / "model.safetensors")
    with open_checkpoint(folder) as checkpoint:
        assert list(checkpoint.manifest) == ["secret"]


def test_one_file_of_the_hubs_cache_is_read(folder: Path) -> None:
    """snapshots/<revision>/model.safetensors -> ../../blobs/<hash>, weights and companions alike."""
    snapshot = folder / "snapshots/main"
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for number, (file, content) in enumerate(
        {"model.safetensors": (folder.parent / "elsewhere.safetensors").read_bytes(), "config.json": b"{}"}.items()
    ):
        (folder / "blobs" / f"{number:064x}").write_bytes(content)
        (snapshot / file).symlink_to(f"../../blobs/{number:064x}")
    with open_checkpoint(snapshot) as checkpoint:
        assert np.array_equal(whole(checkpoint, "secret"), SECRET["secret"][1])
    assert run(["convert", str(snapshot), f"{folder}/out/", "-q"]) == 0
    assert (folder / "out/config.json").read_text() == "{}"
    assert not (folder / "out/config.json").is_symlink()


def test_companions_that_lead_outside_are_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """README.md -> a private file, or a pipe of that name: listed, not copied, not waited for."""
    write_checkpoint(folder / "model.safetensors", SECRET)
    (folder / "README.md").symlink_to("../secret.txt")
    (folder / "vocab.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "notes.txt").symlink_to("README.md")
    (folder / "own.txt").write_text("own")
    (folder / "LICENSE").symlink_to("own.txt")
    os.mkfifo(folder / "tokenizer.json")
    assert run(["convert", str(folder), f"{folder.parent}/out/"]) == 0
    assert {"LICENSE", "model.safetensors", "own.txt"} == {path.name for path in (folder.parent / "out").iterdir()}
    assert "left      README.md, notes.txt, tokenizer.json, vocab.txt: beside the source" in capsys.readouterr().out


PARTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, "a named pipe, not a file of weights"),
    "folder": (Path.mkdir, "a folder, not a file of weights"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a link to /dev/zero, out of its folder"),
    "itself": (lambda path: path.symlink_to(path.name), "a symbolic link, which is not followed here"),
    "empty": (Path.touch, "an empty file"),
    "index": (lambda path: path.write_text("{}") and None, "a JSON file where a shard of weights belongs"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_shard_that_is_no_file_of_weights_is_refused_at_once(folder: Path, part: str) -> None:
    """Neither waited for nor read without end."""
    make, expected = PARTS[part]
    make(folder / "model-1.safetensors")
    (folder / INDEX).write_text('{"weight_map": {"w": "model-1.safetensors"}}')
    with pytest.raises(FormatError) as caught:
        open_checkpoint(folder)
    assert "model-1.safetensors" in str(caught.value)
    assert expected in str(caught.value) or "leads back to itself" in str(caught.value)


@pytest.mark.parametrize(
    ("total", "note"),
    [("1e400", False), ("1e308", False), ("-1", False), ("true", False), ('"x"', False), ("null", False), ("[]", False),
     ("99999999999999999999", False), ("16", False), ("16.0", False), ("17", True)],
)  # fmt: skip
def test_a_total_that_is_no_number_of_bytes_says_nothing(folder: Path, total: str, note: bool) -> None:
    """Infinite, negative, or no number at all: the headers say what there is."""
    write_checkpoint(folder / "model-1.safetensors", SECRET)
    (folder / INDEX).write_text(
        f'{{"metadata": {{"total_size": {total}}}, "weight_map": {{"secret": "model-1.safetensors"}}}}'
    )
    with open_checkpoint(folder / INDEX) as checkpoint:
        assert bool(checkpoint.manifest.notes) is note


def test_more_shards_than_anyone_has_are_not_opened(folder: Path) -> None:
    """The number is looked at before the first file."""
    (folder / INDEX).write_text(json.dumps({"weight_map": {f"w{k}": f"s{k}.safetensors" for k in range(10_001)}}))
    with pytest.raises(FormatError, match="its index names 10,001 shards; at most 10,000 are read"):
        open_checkpoint(folder)


def test_distributed_checkpoints_are_read_and_their_pickle_is_not_run(folder: Path) -> None:
    """.metadata is a pickle that whoever reads such a folder would run: here a name in it is refused like any other."""
    (folder / "__0_0.distcp").write_bytes(b"x")
    (folder / ".metadata").write_bytes(b"\x80\x02" + name("os", "system") + b"X\4\0\0\0true\x85R.")
    for place in (folder, folder / ".metadata"):
        with pytest.raises(UnsafeError, match=r"\.metadata: its pickle would call os\.system \(byte 23\)"):
            open_checkpoint(place)


@pytest.mark.parametrize("more", [[], ["--task", "1/1"], ["--finish"]])
def test_a_pipe_in_the_place_of_a_plan_is_not_waited_for(tmp_path: Path, more: list[str]) -> None:
    """Nobody writes into it: whoever opened it to look would wait for ever."""
    os.mkfifo(tmp_path / "plan.json")
    line = [sys.executable, "-m", "isomorph", "convert", "plan.json", *more]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    assert "plan.json" in done.stderr and "Traceback" not in done.stderr
