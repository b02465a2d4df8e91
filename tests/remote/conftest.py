"""Stores of this machine: S3 by moto, started once; small files to put there; no pause between attempts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import BUCKET, Bucket, save_tower
from servers import FakeGoogle, FakeHub, Files

from isomorph.stores import trying
from isomorph.stores.table import forget_stores, store_of


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stores are made anew for each test, whose settings are its own."""
    monkeypatch.setattr(trying, "PAUSE", 0.001)
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "http_proxy",
        "https_proxy",
        "AWS_PROFILE",
        "HF_TOKEN",
        "STORAGE_EMULATOR_HOST",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    forget_stores()
    yield
    forget_stores()


@pytest.fixture(scope="session")
def moto_address() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_address)
    found = Bucket(store_of("s3").client)  # type: ignore[attr-defined]  # it is the one for S3
    found.client.create_bucket(Bucket=BUCKET)
    yield found
    for key in found.unfinished:
        for one in found.client.list_multipart_uploads(Bucket=BUCKET)["Uploads"]:
            found.client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=one["UploadId"])
    for key in found.keys:
        found.client.delete_object(Bucket=BUCKET, Key=key)
    found.client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    yield server
    server.close()


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGoogle]:
    server = FakeGoogle()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    yield server
    server.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    server = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    yield server
    server.close()


@pytest.fixture
def tower(tmp_path: Path) -> Path:
    """An .npz of 7 tensors, 140 kB."""
    return save_tower(tmp_path / "tower.npz", rows=60)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """The same of 13 MB: two of its tensors are longer than the shortest part of an upload."""
    return save_tower(tmp_path / "tower.npz", rows=1600)
