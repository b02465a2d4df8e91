"""hf:// in and out, by a server of our own behind huggingface_hub: one commit is read by ranges, one commit is written."""

from __future__ import annotations

import base64
import hashlib
import sys
from pathlib import Path

import pytest
from servers import FakeHub

import isomorph as iso
from isomorph.cli.app import run
from isomorph.errors import RefusedError


@pytest.fixture
def repository(hub: FakeHub, tower: Path, tmp_path: Path) -> Path:
    """The files of `owner/model`, as they are on disk."""
    folder = tmp_path / "model"
    iso.convert(tower, folder, max_shard_size="300kB")
    (folder / "config.json").write_text('{"width": 3}')
    hub.files = {file.name: file.read_bytes() for file in folder.iterdir()}
    return folder


def test_a_repository_is_read_by_ranges(
    hub: FakeHub, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder, its config and one file of it; through the redirect, without our token there; pinned to the commit."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    iso.convert("hf://owner/model", tmp_path / "copy", max_shard_size="300kB")
    for file in repository.iterdir():
        assert file.read_bytes() == (tmp_path / "copy" / file.name).read_bytes()
    resolved = [request for request in hub.asked if "/resolve/" in request.path]
    assert {hub.head} == {request.path.split("/")[4] for request in resolved}
    assert {"Bearer secret"} == {request.headers["authorization"] for request in resolved}
    assert len(resolved) == hub.redirects < sum("/place/" in request.path for request in hub.asked)
    shard = next(name for name in hub.files if name.endswith(".safetensors"))
    assert len(iso.open(f"hf://owner/model@main/{shard}")) > 0


def test_what_is_not_there(hub: FakeHub, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for url, said in [
        ("hf://owner/other", "there is no repository owner/other, or it is private. Log in: hf auth login"),
        ("hf://owner/model@v9", "has no revision v9"),
        ("hf://owner/model/confg.json", "no such object. Did you mean config.json?"),
        ("hf://owner/mo--del", "names no repository"),
    ]:
        assert 2 == run(["inspect", url])
        assert said in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub, about itself
def test_what_is_written_is_one_commit(
    hub: FakeHub, tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written and verified here, then given to the hub at once, on the commit that was looked at."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    iso.convert(tower, tmp_path / "out", max_shard_size="300kB")
    done = iso.convert(tower, "hf://owner/model", max_shard_size="300kB")
    assert done.report.equal
    made = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    said = {one["key"]: one["value"] for one in hub.commits if one["key"] == "header"}
    assert "a" * 40 == said["header"]["parentCommit"]
    large = {one["value"]["path"]: one["value"]["oid"] for one in hub.commits if one["key"] == "lfsFile"}
    small = {one["value"]["path"]: one["value"]["content"] for one in hub.commits if one["key"] == "file"}
    assert made.keys() == large.keys() | small.keys()
    assert {name: hashlib.sha256(made[name]).hexdigest() for name in large} == large
    assert all(hub.uploaded[large[name]] == made[name] for name in large)
    assert {name: made[name] for name in small} == {name: base64.b64decode(text) for name, text in small.items()}


def test_what_is_there_is_not_touched(hub: FakeHub, repository: Path, tower: Path) -> None:
    with pytest.raises(RefusedError, match=r"hf://owner/model holds .* already; not touched"):
        iso.convert(tower, "hf://owner/model", max_shard_size="300kB")
    assert [] == hub.commits


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "isomorph.stores.hub", raising=False)
    assert 2 == run(["inspect", "hf://owner/model"])
    assert "hf:// needs a library that is not installed: pip install 'isomorph[hub]'" in capsys.readouterr().err
