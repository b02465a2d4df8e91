"""gs:// in and out, by a server of our own: ranges of one generation, resumable uploads in order, copies inside the store."""

from __future__ import annotations

import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from servers import FakeGoogle, busy

import isomorph as iso
from isomorph.cli.app import run
from isomorph.errors import FormatError, RefusedError, SourceChanged
from isomorph.stores import gcs
from isomorph.stores.table import store_of
from isomorph.stores.url import Url, path_of


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth"])
def test_the_same_bytes_as_on_disk(large: Path, google: FakeGoogle, tmp_path: Path, name: str) -> None:
    """Up, down, and from one object to another; a chunk that the store takes in half is finished, not repeated."""
    iso.convert(large, tmp_path / name)
    google.fail_chunks = 2
    iso.convert(large, f"gs://weights/deep/{name}")
    google.faults += [busy, busy]
    iso.convert(f"gs://weights/deep/{name}", tmp_path / f"back-{name}")
    iso.convert(f"gs://weights/deep/{name}", f"gs://weights/{name}", verify=False)
    found = [google.objects["weights", key][0] for key in (f"deep/{name}", name)]
    assert [(tmp_path / name).read_bytes()] * 3 == [*found, (tmp_path / f"back-{name}").read_bytes()]
    assert sorted([f"deep/{name}", name]) == google.names() and {} == google.sessions and 0 == google.fail_chunks


def test_folders(tower: Path, google: FakeGoogle, tmp_path: Path) -> None:
    """A prefix with shards is read by its index, and written; listings come in pages."""
    iso.convert(tower, "gs://weights/vit/", max_shard_size="100kB")
    iso.convert("gs://weights/vit", tmp_path / "vit", max_shard_size="100kB")
    for file in (tmp_path / "vit").iterdir():
        assert file.read_bytes() == google.objects["weights", f"vit/{file.name}"][0]
    assert len(google.objects) == len(list((tmp_path / "vit").iterdir())) > 3
    with pytest.raises(RefusedError, match=r"gs://weights/vit holds .* already; not touched"):
        iso.convert(tower, "gs://weights/vit/", max_shard_size="100kB")


def test_what_is_there_is_not_touched(tower: Path, google: FakeGoogle) -> None:
    """Also what appears meanwhile; what fails leaves no session and no key."""
    google.put("weights", "there.npz", b"kept")
    with pytest.raises(RefusedError, match=r"gs://weights/there.npz exists \(4 bytes\); not touched"):
        iso.convert(tower, "gs://weights/there.npz")
    answers = google.answer

    def appear(request: Any) -> Any:
        if request.method == "PUT":
            google.put("weights", "late.npz", b"kept")
        return answers(request)

    google.answer = appear  # type: ignore[method-assign]  # something happens meanwhile
    for verify in (True, False):
        with pytest.raises(RefusedError, match=r"late.npz appeared while it was written; not touched"):
            iso.convert(tower, "gs://weights/late.npz", verify=verify)
        assert b"kept" == google.objects.pop(("weights", "late.npz"))[0]
    assert ["there.npz"] == google.names() and {} == google.sessions


def test_another_generation_is_an_error(tower: Path, google: FakeGoogle) -> None:
    google.put("weights", "a.npz", tower.read_bytes())
    with iso.open("gs://weights/a.npz").checkpoint as checkpoint:
        google.put("weights", "a.npz", tower.read_bytes())
        with pytest.raises(SourceChanged, match="another version now"):
            checkpoint.check_unchanged()
        with pytest.raises(SourceChanged, match="was removed or replaced while it was read"):
            path = path_of("gs://weights/a.npz")
            assert isinstance(path, Url)
            from isomorph.stores.base import Stat

            store_of("gs").fill(path, Stat(google.generation, "1"), 0, memoryview(bytearray(9)))


def test_what_is_not_there(google: FakeGoogle, tower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    google.put("weights", "model.npz", b"x")
    assert 2 == run(["inspect", "gs://weights/modle.npz"])
    assert "gs://weights/modle.npz: no such object. Did you mean model.npz?" in capsys.readouterr().err
    assert 2 == run(["inspect", "gs://nowhere/model.npz"])
    assert "there is no bucket nowhere" in capsys.readouterr().err
    assert 2 == run(["convert", str(tower), "gs://nowhere/model.npz"])
    assert "there is no bucket nowhere" in capsys.readouterr().err


class Credentials:
    """As google-auth has them."""

    token, valid, expiry, refreshed = "", False, None, 0

    def refresh(self, request: object) -> None:
        self.refreshed += 1
        self.token, self.valid = f"token{self.refreshed}", True
        self.expiry = (datetime.now(UTC) + timedelta(seconds=3600 if self.refreshed > 1 else 30)).replace(tzinfo=UTC)


def test_requests_carry_a_token(google: FakeGoogle, tower: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token of google-auth is sent, and renewed before it ends; without the library its extra is named."""
    google.put("weights", "a.npz", tower.read_bytes())
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setattr(gcs, "SERVER", google.url)
    found = Credentials()
    names = [
        "google",
        "google.auth",
        "google.auth.exceptions",
        "google.auth.transport",
        "google.auth.transport.requests",
    ]
    fakes: dict[str, Any] = {name: types.ModuleType(name) for name in names}
    for name in names[1:]:
        above, _, below = name.rpartition(".")
        setattr(fakes[above], below, fakes[name])
    fakes["google.auth"].default = lambda scopes: (found, "project")
    fakes["google.auth.exceptions"].DefaultCredentialsError = type("DefaultCredentialsError", (Exception,), {})
    fakes["google.auth.exceptions"].TransportError = type("TransportError", (Exception,), {})
    fakes["google.auth.exceptions"].GoogleAuthError = type("GoogleAuthError", (Exception,), {})
    fakes["google.auth.transport.requests"].Request = object
    for name, module in fakes.items():
        monkeypatch.setitem(sys.modules, name, module)
    assert 7 == len(iso.open("gs://weights/a.npz"))
    sent = [request.headers["Authorization"] for request in google.asked]
    assert ["Bearer token1", "Bearer token2"] == sent[:2] and {"Bearer token2"} == set(sent[1:])


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "google", None)
    monkeypatch.setitem(sys.modules, "google.auth", None)
    assert 2 == run(["inspect", "gs://weights/model.npz"])
    assert "gs:// needs a library that is not installed: pip install 'isomorph[gcs]'" in capsys.readouterr().err


def test_a_forbidden_bucket(google: FakeGoogle) -> None:
    from servers import Reply

    google.answer = lambda request: Reply(403)  # type: ignore[method-assign]  # whatever is asked
    with pytest.raises(
        FormatError, match=r"may not be read \(403\). No credentials were found. Give credentials: gcloud"
    ):
        iso.open("gs://weights/a.npz")
