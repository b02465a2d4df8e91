"""A server that does not do what it was asked: never wrong bytes, always one error that says what was wrong, or another attempt."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import servers
from servers import Fault, Files

from isomorph.cli.app import run
from isomorph.errors import FormatError, SourceChanged, UnsafeError
from isomorph.formats.registry import open_checkpoint
from isomorph.stores import http as http_client
from isomorph.stores.trying import ATTEMPTS

ARRAY = np.arange(60_000, dtype=np.float32)


@pytest.fixture(params=["http", "s3"])
def url(request: pytest.FixtureRequest, files: Files, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """One .npz of 240 kB on a server that speaks enough for both."""
    np.savez(tmp_path / "one.npz", a=ARRAY)
    files.files["/weights/one.npz"] = (tmp_path / "one.npz").read_bytes()
    monkeypatch.setenv("AWS_ENDPOINT_URL", files.url)
    return f"{files.url}/weights/one.npz" if request.param == "http" else "s3://weights/one.npz"


def read(url: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with open_checkpoint(url) as checkpoint:
        found = checkpoint.fetch("a", 0, (60_000,), (1,)).view(np.float32)
        checkpoint.check_unchanged()
        return found


def test_what_is_read_is_what_is_there(url: str) -> None:
    np.testing.assert_array_equal(ARRAY, read(url))


@pytest.mark.parametrize("fault", [servers.busy, servers.ends_early, servers.slow], ids=lambda fault: fault.__name__)
def test_what_passes_is_tried_again(url: str, files: Files, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """503, a body that ends early, and a server that says nothing for too long, twice; then all is well."""
    from isomorph.stores import s3

    monkeypatch.setattr(http_client, "READ_SECONDS", 0.3)
    monkeypatch.setattr(s3, "READ_SECONDS", 0.3)
    files.faults += [fault, fault]
    np.testing.assert_array_equal(ARRAY, read(url))
    assert [] == files.faults


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (servers.ignores_range, FormatError, "the server ignores Range, and sends the whole file for a part of it"),
        (servers.elsewhere, FormatError, "were asked for"),
        (servers.grown, SourceChanged, "999,999 now"),
        (servers.other_tag, SourceChanged, "changed while it was read: it is another version now"),
        (servers.precondition_failed, SourceChanged, "changed while it was read: it is another version now"),
        (servers.gone, SourceChanged, "was removed or replaced while it was read"),
        (servers.too_short_now, SourceChanged, "changed while it was read"),
        (servers.unsaid, FormatError, "does not say which bytes it sends"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_wrong_answer_is_an_error(url: str, files: Files, fault: Fault, kind: type[Exception], message: str) -> None:
    """Another range, another version, no range at all: what came is not used, and nobody asks again."""
    files.faults += [fault] * 8
    with pytest.raises(kind, match=message) as caught:
        read(url)
    assert "one.npz" in str(caught.value)
    assert len(files.faults) >= 4


@pytest.mark.parametrize(
    "fault", [servers.busy, servers.is_shorter, servers.is_longer], ids=lambda fault: fault.__name__
)
def test_what_does_not_pass_ends(url: str, files: Files, fault: Fault) -> None:
    """After a bounded number of attempts the last failure is said."""
    files.faults += [fault] * 40
    with pytest.raises(FormatError, match=f"cannot be read.*{ATTEMPTS} times"):
        read(url)


def test_a_file_replaced_between_two_reads_is_an_error(url: str, files: Files) -> None:
    """The tag of the first answer is asked for with every range; another file of the same length is not mixed in.

    What is asked lies far behind all that is read ahead when the file is opened.
    """
    large = io.BytesIO()
    np.savez(large, a=np.tile(ARRAY, 20))
    files.files["/weights/one.npz"] = large.getvalue()
    with open_checkpoint(url) as checkpoint:
        files.files["/weights/one.npz"] = files.files["/weights/one.npz"].replace(b"\x80?", b"\x80@")
        with pytest.raises(SourceChanged, match="another version now"):
            checkpoint.fetch("a", 600_000, (30_000,), (1,))
        with pytest.raises(SourceChanged, match="another version now"):
            checkpoint.check_unchanged()
        files.files.clear()
        with pytest.raises(SourceChanged, match="it was removed"):
            checkpoint.check_unchanged()


def test_missing_and_forbidden(url: str, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """404 and 403 say what to do, and end with code 2."""
    assert 2 == run(["inspect", url.replace("one", "two")])
    assert "two.npz: no such object" in capsys.readouterr().err
    files.denied.add("/weights/one.npz")
    assert 2 == run(["inspect", url])
    said = capsys.readouterr().err
    assert "403" in said and ("without a login" in said or "AWS_PROFILE" in said)


def test_a_server_that_is_not_there(url: str, files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: an error after a bounded number of attempts."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(FormatError, match=r"cannot be read: .*times"):
        open_checkpoint(url.replace(files.url, "http://127.0.0.1:9"))


@pytest.mark.parametrize(
    "name", ["../other/x.safetensors", "/x.safetensors", "s3://other/x.safetensors", "http://h/x.safetensors"]
)
def test_an_index_leads_nowhere_else(url: str, files: Files, name: str) -> None:
    """An index that names a shard in another folder, bucket or server: nothing is asked there."""
    index = '{"weight_map": {"a": "NAME"}}'.replace("NAME", name)
    files.files["/weights/model.safetensors.index.json"] = index.encode()
    with pytest.raises(UnsafeError, match="Nothing was read from there"):
        open_checkpoint(url.replace("one.npz", "model.safetensors.index.json"))
    assert {"/weights/model.safetensors.index.json"} == {request.path for request in files.asked}


def test_a_redirect_tells_no_other_host_who_we_are(files: Files) -> None:
    """Authorization is dropped where a redirect leads to another host."""
    other = files.url.replace("127.0.0.1", "localhost")
    files.files["/there"] = b"0123456789"
    answers = files.answer

    def answer(request: servers.Request) -> servers.Reply:
        return servers.Reply(302, b"", {"Location": f"{other}/there"}) if request.path == "/here" else answers(request)

    files.answer = answer  # type: ignore[method-assign]  # one path more
    into = bytearray(4)
    headers = {"Authorization": "Bearer secret", "Range": "bytes=2-5"}
    found = http_client.ask("GET", f"{files.url}/here", headers=headers, into=memoryview(into))
    assert (206, b"2345", f"{other}/there") == (found.status, bytes(into), found.url)
    assert ["Bearer secret", None] == [request.headers.get("Authorization") for request in files.asked]


def test_a_web_server_is_only_read(files: Files, tower: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == run(["convert", str(tower), f"{files.url}/weights/out.safetensors"])
    assert "cannot be written: http:// is only read" in capsys.readouterr().err
