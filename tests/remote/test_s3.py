"""s3:// in and out, by a server of moto: every format, every command, the same bytes as on disk, and nothing left of what failed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, Bucket

import isomorph as iso
from isomorph.cli.app import run
from isomorph.describe.text import bytes_text
from isomorph.errors import Different, RefusedError, SourceChanged
from isomorph.formats.registry import open_checkpoint
from isomorph.stores.parts import LEAST
from isomorph.stores.table import store_of

NAMES = [
    "model.safetensors", "model.pth", "model.npz", "model.pdparams", "model.msgpack", "model.h5", "legacy.pt", "strided.pt",
    "deflated.npz",
]  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in every format."""
    import torch

    folder = tmp_path_factory.mktemp("originals")
    random = np.random.default_rng(1)
    arrays = {f"h.{number}.w": random.standard_normal((96, 64), np.float32) for number in range(6)}
    np.savez(folder / "source.npz", **arrays, ids=np.arange(5))
    for name in NAMES[:6]:
        iso.convert(folder / "source.npz", folder / name)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(tensors, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({name: tensor.T for name, tensor in tensors.items()}, folder / "strided.pt")
    np.savez_compressed(folder / "deflated.npz", **arrays)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_read_as_it_is_on_disk(originals: Path, bucket: Bucket, name: str) -> None:
    """Manifest and every element are those of the file, and a small file takes few requests."""
    url = bucket.put(f"in/{name}", originals / name)
    with open_checkpoint(originals / name) as local, open_checkpoint(url) as remote:
        assert replace(local.manifest, origin=url) == remote.manifest
        assert bucket.count("GetObject") <= 12
        for key, spec in local.manifest.items():
            strides = tuple(int(np.prod(spec.shape[axis + 1 :])) for axis in range(len(spec.shape)))
            expected = local.fetch(key, 0, spec.shape, strides)
            assert expected.tobytes() == remote.fetch(key, 0, spec.shape, strides).tobytes()
        remote.check_unchanged()


def test_commands_take_urls(
    originals: Path, bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """inspect, show, diff, plan, verify, infer and open read where a path is meant; a part of a file too."""
    npz = bucket.put("in/model.npz", originals / "model.npz")
    pth = bucket.put("in/model.pth", originals / "model.pth")
    assert 0 == run(["inspect", npz])
    assert f"{npz} · npz · 7 tensors" in capsys.readouterr().out
    assert 0 == run(["show", pth, "ids[1:3]"])
    assert "1" in capsys.readouterr().out
    assert 0 == run(["diff", "--values", npz, pth])
    assert 0 == run(["plan", npz])
    assert 0 == run(["verify", npz, pth])
    assert 0 == run(["verify", str(originals / "model.npz"), pth])
    assert 0 == run(["infer", npz, pth, "-o", str(tmp_path / "m.morph")])
    capsys.readouterr()
    assert (5,) == iso.open(npz)["ids"].shape
    assert 2 == run(["inspect", f"s3://{BUCKET}/in/model.npy"])
    assert "no such object. Did you mean model.npz?" in capsys.readouterr().err.replace(" or model.pth", "")
    assert 2 == run(["inspect", "s3://other-bucket/in/model.npy"])
    assert "there is no bucket other-bucket" in capsys.readouterr().err
    assert 2 == run(["inspect", "r2://weights/model.npz"])
    assert "r2:// is not known; known are s3://bucket/key, gs://bucket/key, hf://" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out.safetensors", "out.pth", "out.npz"])
def test_what_is_uploaded_is_what_is_written(tower: Path, bucket: Bucket, tmp_path: Path, name: str) -> None:
    """From disk to a bucket, from there to disk, from there to the bucket: the bytes of a conversion on disk; nothing else is left."""
    iso.convert(tower, tmp_path / name)
    expected = (tmp_path / name).read_bytes()
    first, second = f"s3://{BUCKET}/deep/first-{name}", f"s3://{BUCKET}/second-{name}"
    assert 0 == iso.convert(tower, first).by_store
    iso.convert(first, tmp_path / f"back-{name}")
    moved = iso.convert(first, second)
    assert [expected] * 3 == [
        bucket.get(f"deep/first-{name}"),
        (tmp_path / f"back-{name}").read_bytes(),
        bucket.get(f"second-{name}"),
    ]
    assert [f"deep/first-{name}", f"second-{name}"] == bucket.keys and [] == bucket.unfinished
    assert 0 == moved.by_store  # it is all shorter than a part


def test_long_ranges_are_copied_by_the_store(large: Path, bucket: Bucket, tmp_path: Path) -> None:
    """Renamed, the two large tensors never pass through the client; the same bytes as on disk; each copy asks for the same version."""
    (tmp_path / "port.morph").write_text(
        "blocks.{l}.w <-> layers.{l}.weight\nblocks.{l}.b <-> layers.{l}.bias\ndrop scale\n"
    )
    iso.convert(large, tmp_path / "source.safetensors")
    iso.convert(large, tmp_path / "target.safetensors", tmp_path / "port.morph")
    source = bucket.put("source.safetensors", tmp_path / "source.safetensors")
    bucket.calls.clear()
    done = iso.convert(source, f"s3://{BUCKET}/t.safetensors", tmp_path / "port.morph", verify=False)
    assert (tmp_path / "target.safetensors").read_bytes() == bucket.get("t.safetensors")
    assert done.by_store >= 2 * 1600 * 1024 * 4 - LEAST
    assert f"copied    {bytes_text(done.by_store)} by the store itself" in str(done)
    copies = [params for name, params in bucket.calls if name == "UploadPartCopy"]
    tag = bucket.client.head_object(Bucket=BUCKET, Key="source.safetensors")["ETag"]
    assert copies and {tag} == {one["CopySourceIfMatch"] for one in copies}
    sent = sum(len(params["Body"]) for name, params in bucket.calls if name == "UploadPart")
    assert (tmp_path / "target.safetensors").stat().st_size == sent + done.by_store
    assert done.to_json()["copied_by_store"] == done.by_store


def test_records_with_a_sum_are_copied_by_the_store(large: Path, bucket: Bucket, tmp_path: Path) -> None:
    """From one torch file to another, a whole record keeps its sum, and is copied; the archive is the one written on disk."""
    iso.convert(large, tmp_path / "a.pth")
    iso.convert(tmp_path / "a.pth", tmp_path / "b.pth")
    done = iso.convert(bucket.put("a.pth", tmp_path / "a.pth"), f"s3://{BUCKET}/b.pth")
    assert (tmp_path / "b.pth").read_bytes() == bucket.get("b.pth")
    assert 1600 * 1024 * 4 == done.by_store  # of the first record, too little is left behind the head of the archive


def test_folders(tower: Path, bucket: Bucket, tmp_path: Path) -> None:
    """Shards, index and companions: read from a prefix, written to one, the same as on disk; the index is named last."""
    folder = tmp_path / "model"
    iso.convert(tower, folder, max_shard_size="300kB")
    (folder / "config.json").write_text('{"torch_dtype": "float32", "width": 3}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "code.py").write_text("")
    for file in folder.iterdir():
        bucket.put(f"models/vit/{file.name}", file)
    local = iso.convert(folder, tmp_path / "half", dtype="bf16", max_shard_size="150kB")
    bucket.calls.clear()
    done = iso.convert(f"s3://{BUCKET}/models/vit", f"s3://{BUCKET}/half/", dtype="bf16", max_shard_size="150kB")
    assert (local.companions.copied, local.companions.left) == (done.companions.copied, done.companions.left)
    for file in (tmp_path / "half").iterdir():
        assert file.read_bytes() == bucket.get(f"half/{file.name}"), file.name
    assert len(list((tmp_path / "half").iterdir())) == sum(key.startswith("half/") for key in bucket.keys)
    finished = [params["Key"] for name, params in bucket.calls if name == "CompleteMultipartUpload"]
    assert "half/model.safetensors.index.json" == finished[-1]
    back = iso.convert(f"s3://{BUCKET}/models/vit/", tmp_path / "back", max_shard_size="300kB")
    assert ("config.json", "tokenizer.json") == back.companions.copied
    assert (folder / "model.safetensors.index.json").read_bytes() == (
        tmp_path / "back/model.safetensors.index.json"
    ).read_bytes()
    with pytest.raises(RefusedError, match=f"s3://{BUCKET}/half holds model.* already; not touched"):
        iso.convert(tower, f"s3://{BUCKET}/half/", max_shard_size="300kB")
    with pytest.raises(RefusedError, match="a folder of two checkpoints; not touched"):
        iso.convert(tower, f"s3://{BUCKET}/half/", overwrite=True)


def test_a_config_beside_is_found(bucket: Bucket, tmp_path: Path) -> None:
    """A morph that asks for the config gets the one beside the object."""
    np.savez(tmp_path / "m.npz", w=np.zeros((6, 4), np.float32))
    bucket.put("c/config.json", b'{"heads": 3}')
    (tmp_path / "m.morph").write_text("where h = config.heads\nw [(h d) i] <-> v [h d i]\n")
    iso.convert(bucket.put("c/m.npz", tmp_path / "m.npz"), tmp_path / "o.npz", tmp_path / "m.morph")
    assert (3, 2, 4) == iso.open(tmp_path / "o.npz")["v"].shape


def test_what_is_there_is_not_touched(tower: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    """An object of that name is kept, also one that appears meanwhile, with and without verification; --overwrite replaces it."""
    url = bucket.put("there.npz", b"kept")
    assert 2 == run(["convert", str(tower), url])
    assert f"{url} exists (4 bytes); not touched. Use --overwrite, or another name" in capsys.readouterr().err
    for verify in (True, False):
        late = f"s3://{BUCKET}/late-{verify}.npz"

        def appear(at: int, total: int, late: str = late) -> None:
            bucket.put(late.removeprefix(f"s3://{BUCKET}/"), b"kept")

        with pytest.raises(RefusedError, match="appeared while it was written; not touched"):
            convert_with_progress(tower, late, appear, verify=verify)
        assert b"kept" == bucket.get(f"late-{verify}.npz")
    assert b"kept" == bucket.get("there.npz")
    iso.convert(tower, url, overwrite=True)
    assert bucket.get("there.npz")[:2] == b"PK"
    assert ["late-False.npz", "late-True.npz", "there.npz"] == bucket.keys and [] == bucket.unfinished
    with pytest.raises(RefusedError, match="is the source; not touched"):
        iso.convert(url, url, overwrite=True)


def convert_with_progress(source: Any, target: str, progress: Any, *, verify: bool = True) -> None:
    from isomorph.job.convert import Writing
    from isomorph.job.port import make_port
    from isomorph.job.session import convert_places

    convert_places(make_port(), [str(source), target], Writing(verify=verify), stage=lambda _: progress)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError("a fault")], ids=["interrupt", "failure"])
def test_what_is_interrupted_leaves_nothing(tower: Path, bucket: Bucket, failure: BaseException, verify: bool) -> None:
    """Ctrl-C and any failure abort the upload: no object, no parts, no temporary key."""

    def stop(at: int, total: int) -> None:
        raise failure

    with pytest.raises(type(failure)):
        convert_with_progress(tower, f"s3://{BUCKET}/gone.pth", stop, verify=verify)
    assert bucket.count("CreateMultipartUpload") > 0
    assert ([], []) == (bucket.keys, bucket.unfinished)


def test_a_part_that_fails_aborts_the_upload(tower: Path, bucket: Bucket) -> None:
    """The store refuses a part: one error, and nothing is left."""

    def deny(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["x-amz-checksum-crc32"] = "AAAAAA=="

    events = bucket.client.meta.events
    events.register("before-call.s3.UploadPart", deny)
    bucket.client.meta.events.register("before-parse.s3.UploadPart", refuse)
    with pytest.raises(RefusedError, match=r"gone.pth.* may not be written \(403 AccessDenied\)"):
        iso.convert(tower, f"s3://{BUCKET}/gone.pth")
    assert ([], []) == (bucket.keys, bucket.unfinished)


def refuse(response_dict: dict[str, Any], **_: Any) -> None:
    response_dict["status_code"] = 403
    response_dict["body"] = b"<Error><Code>AccessDenied</Code></Error>"


def test_what_differs_gets_no_name(tower: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit is flipped on the way: the object read back is not what the morph says, and is removed."""
    from isomorph.stores import s3

    put = s3._Multipart.put

    def flip(self: Any, number: int, offset: int, data: bytearray) -> None:
        spoilt = bytearray(data)
        spoilt[len(spoilt) // 2] ^= 1
        put(self, number, offset, spoilt)

    monkeypatch.setattr(s3._Multipart, "put", flip)
    with pytest.raises(Different, match="DIFFERENT"):
        iso.convert(tower, f"s3://{BUCKET}/bad.safetensors")
    assert ([], []) == (bucket.keys, bucket.unfinished)


def test_a_source_replaced_meanwhile_is_an_error(tower: Path, bucket: Bucket, tmp_path: Path) -> None:
    """Another version of the source, before a range is copied by the store: nothing is written."""
    iso.convert(tower, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    url = bucket.put("a.safetensors", data)
    with open_checkpoint(url) as source:
        bucket.put("a.safetensors", data[:-1] + b"!")
        with pytest.raises(SourceChanged, match="another version now"):
            iso.convert(iso.StateDict(source, url), f"s3://{BUCKET}/b.safetensors", verify=False)
    assert (["a.safetensors"], []) == (bucket.keys, bucket.unfinished)


def test_a_plan_is_of_one_version(
    tower: Path, bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """plan.json records the object's size and version; it is carried out on that one only."""
    iso.convert(tower, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    url, target = bucket.put("a.safetensors", data), f"s3://{BUCKET}/b.safetensors"
    plan = str(tmp_path / "plan.json")
    assert 0 == run(["plan", url, "-o", plan, "--output", target, "-q"])
    tag = bucket.client.head_object(Bucket=BUCKET, Key="a.safetensors")["ETag"]
    assert json.dumps(tag) in Path(plan).read_text() and url in Path(plan).read_text()
    assert 0 == run(["convert", plan, "-q"])
    assert data == bucket.get("b.safetensors")
    bucket.put("a.safetensors", data[:-1] + b"!")
    assert 2 == run(["convert", plan, "-q", "--overwrite"])
    assert "is not what it was when" in capsys.readouterr().err


def test_what_an_upload_does_not_do_is_said(tower: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"s3://{BUCKET}/x.npz"
    assert 2 == run(["convert", str(tower), target, "--resume"])
    assert "an upload to an object store begins again" in capsys.readouterr().err
    assert 2 == run(["convert", str(tower), target, "--max-memory", "8MB"])
    assert "give --max-memory 40MiB" in capsys.readouterr().err
    assert 2 == run(["convert", str(tower), "s3://other-bucket/x.npz"])
    assert "there is no bucket other-bucket" in capsys.readouterr().err
    assert [] == bucket.keys


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.delitem(sys.modules, "isomorph.stores.s3", raising=False)
    assert 2 == run(["inspect", "s3://weights/model.npz"])
    assert "s3:// needs a library that is not installed: pip install 'isomorph[s3]'" in capsys.readouterr().err


def test_public_buckets_need_no_credentials(bucket: Bucket, tower: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credentials requests are not signed."""
    url = bucket.put("public.npz", tower)
    bucket.client.put_object_acl(Bucket=BUCKET, Key="public.npz", ACL="public-read")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store_of("s3")._client = None  # type: ignore[attr-defined]
    assert 7 == len(iso.open(url))
    assert store_of("s3").is_signed is False  # type: ignore[attr-defined]


def test_a_report_as_json(tower: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    target = f"s3://{BUCKET}/j.npz"
    assert 0 == run(["convert", str(tower), target, "--json"])
    assert target == json.loads(capsys.readouterr().out)["outputs"][0]["path"]


DATA = Path(__file__).parents[1] / "formats" / "data"


@pytest.mark.parametrize("name", ["dcp", "tf1", "tf2"])
def test_checkpoints_of_many_files(bucket: Bucket, name: str) -> None:
    """The file that names the others is found under a prefix, and what lies beside it is read there."""
    for file in (DATA / name).rglob("*"):
        if file.is_file():
            bucket.put(f"in/{file.relative_to(DATA)}", file)
    with open_checkpoint(DATA / name) as local, open_checkpoint(f"s3://{BUCKET}/in/{name}") as remote:
        assert dict(local.manifest) == dict(remote.manifest)
        for key, spec in local.manifest.items():
            strides = tuple(int(np.prod(spec.shape[axis + 1 :])) for axis in range(len(spec.shape)))
            expected = local.fetch(key, 0, spec.shape, strides)
            assert expected.tobytes() == remote.fetch(key, 0, spec.shape, strides).tobytes()


def test_external_data_lie_beside(bucket: Bucket, tmp_path: Path) -> None:
    """An ONNX model's data in a file below its prefix; not in another bucket."""
    import onnx
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((40, 50), np.float32), "w")
    model = helper.make_model(helper.make_graph([], "g", [], [], [weight]))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    url = bucket.put("onnx/m.onnx", tmp_path / "m.onnx")
    bucket.put("onnx/m.data", tmp_path / "m.data")
    assert 2000 == np.asarray(iso.open(url)["w"]).sum()
