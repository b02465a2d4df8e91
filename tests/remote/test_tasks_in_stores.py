"""Tasks whose target is an object store: what any number of them makes, twice or cut off, is what one run makes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, Bucket
from safetensors.numpy import save_file
from servers import FakeGoogle

from isomorph.cli.app import run
from isomorph.errors import FormatError, RefusedError, SourceChanged
from isomorph.job.convert import Writing
from isomorph.job.plan_file import read_plan_file
from isomorph.job.tasks.finish import finish
from isomorph.job.tasks.in_store import StoreWorkplace
from isomorph.stores.s3 import S3
from isomorph.stores.url import Url

MORPH = "layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]\n** <-> **\n"
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """src/ (two shards, an index, a config), port.morph, and whole/: what one run makes of them; in the working folder."""
    numbers = np.random.default_rng(7)
    names = [f"layers.{layer}.{part}.w" for layer in range(4) for part in "qkv"] + [f"other.{k}" for k in range(4)]
    tensors = {name: numbers.standard_normal((8, 6)).astype("f4") for name in names}
    (tmp_path / "src").mkdir()
    weight_map = {}
    for number in (1, 2):
        shard = f"model-{number:05d}-of-00002.safetensors"
        mine = names[number - 1 :: 2]
        save_file({name: tensors[name] for name in mine}, tmp_path / "src" / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(mine, shard))
    (tmp_path / "src" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "src" / "config.json").write_text('{"hidden_size": 6}')
    (tmp_path / "port.morph").write_text(MORPH)
    monkeypatch.chdir(tmp_path)
    assert run(["convert", "src", "whole/", "-m", "port.morph", "--max-shard-size", "1000", "-q"]) == 0
    return tmp_path


def plan(isomorph: Call, source: str, target: str) -> None:
    shards = ("--max-shard-size", "1000") if target.endswith("/") else ()
    assert isomorph("plan", source, "-m", "port.morph", "-o", "plan.json", "--output", target, *shards)[::2] == (0, "")


def under(bucket: Bucket, key: str) -> dict[str, bytes]:
    return {one.removeprefix(key): bucket.get(one) for one in bucket.keys if one.startswith(key)}


def whole(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (folder / "whole").iterdir()}
    assert len(found) > 4 and {"config.json", "model.safetensors.index.json"} < found.keys()
    return found


def test_tasks_of_objects_make_what_one_run_makes(isomorph: Call, folder: Path, bucket: Bucket) -> None:
    """Sources in the bucket, too. What is done is skipped by its version; --finish says what is missing; nothing else is left."""
    for path in (folder / "src").iterdir():
        bucket.put(f"in/{path.name}", path)
    shutil.rmtree(folder / "src")
    plan(isomorph, f"s3://{BUCKET}/in", f"s3://{BUCKET}/out/")
    code, out, _ = isomorph("convert", "plan.json", "--task", "1/2", "--json")
    first = json.loads(out)
    assert code == 0 and first["written"] and first["elements_compared"] and first["skipped"] == []
    assert [one for one in bucket.keys if one.startswith("out/") and "/.isomorph-tasks-" not in one] == []
    code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and f"s3://{BUCKET}/out is not finished: " in err and "Run again --task 0/2" in err
    assert isomorph("convert", "plan.json", "--task", "0/2")[0] == 0
    sent = bucket.count("UploadPart") + bucket.count("UploadPartCopy")
    code, out, _ = isomorph("convert", "plan.json", "--task", "1/2", "--json")
    again = json.loads(out)
    assert (code, again["written"], again["skipped"]) == (0, [], first["written"])
    assert bucket.count("UploadPart") + bucket.count("UploadPartCopy") == sent
    code, out, _ = isomorph("convert", "plan.json", "--finish", "--json")
    assert (code, json.loads(out)["elements_compared"]) == (0, 16 * 48)
    assert under(bucket, "out/") == whole(folder) and bucket.unfinished == []
    code, _, err = isomorph("convert", "plan.json", "--task", "0/2")
    assert code == 2 and "not touched" in err


def test_an_object_that_changed_is_made_anew(isomorph: Call, folder: Path, bucket: Bucket) -> None:
    """A record is of one version of one object; of two runs of one task the later record holds, and both objects go at the end."""
    plan(isomorph, "src", f"s3://{BUCKET}/out/")
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    made = next(one for one in bucket.keys if "/files/" in one)
    data = bytearray(bucket.get(made))
    data[-1] ^= 1
    bucket.put(made, bytes(data))
    assert "1 of " in isomorph("convert", "plan.json", "--finish")[2]
    code, out, _ = isomorph("convert", "plan.json", "--task", "0/1", "--json")
    assert code == 0 and json.loads(out)["written"] == [made.rpartition("/")[2]]
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert under(bucket, "out/") == whole(folder)


def test_finish_goes_on_where_it_was_cut_off(
    isomorph: Call, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some names were given; and after all were, before the rest was removed. An object of another size is not touched."""
    plan(isomorph, "src", f"s3://{BUCKET}/out/")
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    copy = S3.copy

    class Killed(BaseException):
        """Nothing that follows a kill is carried out."""

    def killed(self: S3, url: object, stat: object, to: object, *, replace: bool) -> None:
        if str(to).endswith(".index.json"):
            raise Killed
        copy(self, url, stat, to, replace=replace)  # type: ignore[arg-type]  # passed on as they are

    with monkeypatch.context() as patch:
        patch.setattr(S3, "copy", killed)
        patch.setattr(S3, "remove", lambda self, url: None)
        with pytest.raises(Killed):
            finish(read_plan_file("plan.json"), Writing())
    given = [one for one in under(bucket, "out/") if not one.startswith(".")]
    assert len(given) > 3 and "model.safetensors.index.json" not in given
    name = next(one for one in given if one.startswith("model-"))
    data = bucket.get(f"out/{name}")
    bucket.put(f"out/{name}", b"another's")
    code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "appeared while names were given; not touched" in err
    bucket.put(f"out/{name}", data)
    with monkeypatch.context() as patch:
        patch.setattr(S3, "remove", lambda self, url: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            finish(read_plan_file("plan.json"), Writing())
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert under(bucket, "out/") == whole(folder)


def test_what_is_there_is_not_touched(isomorph: Call, folder: Path, bucket: Bucket) -> None:
    """By a task and by --finish; with --overwrite it is replaced."""
    plan(isomorph, "src", f"s3://{BUCKET}/one.safetensors")
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    bucket.put("one.safetensors", b"there")
    for step in (("--task", "0/1"), ("--finish",)):
        code, _, err = isomorph("convert", "plan.json", *step)
        assert code == 2 and "exists (5 bytes); not touched" in err
    assert isomorph("convert", "plan.json", "--finish", "--overwrite")[0] == 0
    assert bucket.keys == ["one.safetensors"] and len(bucket.get("one.safetensors")) > 16 * 48 * 4


def test_names_that_were_given_are_taken_back(
    isomorph: Call, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When --finish fails, nothing is under a final name, and it can be run again."""
    plan(isomorph, "src", f"s3://{BUCKET}/out/")
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    copy = S3.copy

    def failing(self: S3, url: object, stat: object, to: object, *, replace: bool) -> None:
        if str(to).endswith(".index.json"):
            raise RefusedError(to, "cannot be written: the store answered 503", "Try again later")
        copy(self, url, stat, to, replace=replace)  # type: ignore[arg-type]  # passed on as they are

    with monkeypatch.context() as patch:
        patch.setattr(S3, "copy", failing)
        code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "the store answered 503" in err
    assert [one for one in under(bucket, "out/") if not one.startswith(".")] == []
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert under(bucket, "out/") == whole(folder)


def test_google_takes_tasks_too(isomorph: Call, folder: Path, google: FakeGoogle) -> None:
    """Uploads in order, copies by rewriting, versions that are generations."""
    plan(isomorph, "src", f"gs://{BUCKET}/out/")
    for task in (1, 0, 1):
        assert isomorph("convert", "plan.json", "--task", f"{task}/2")[0] == 0
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert {name.removeprefix("out/"): data for (_, name), (data, _) in google.objects.items()} == whole(folder)


def test_a_store_that_takes_a_target_whole_says_so(isomorph: Call, folder: Path) -> None:
    """The Hub takes one commit."""
    plan(isomorph, "src", "hf://someone/model/out/")
    code, _, err = isomorph("convert", "plan.json", "--task", "0/1")
    assert code == 2 and "hf:// takes it whole; isomorph convert plan.json  writes it there in one run" in err


@pytest.mark.parametrize("at", ["write", "put"])
def test_a_task_that_finish_overtook_says_so_and_leaves_nothing(
    isomorph: Call, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Other runs did all files, and all names are given while a late run uploads: before it begins, and at its end."""
    plan(isomorph, "src", f"s3://{BUCKET}/out/")
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    kept = getattr(StoreWorkplace, at)

    def late(place: StoreWorkplace, *arguments: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(StoreWorkplace, at, kept)
            assert isomorph("convert", "plan.json", "--finish")[0] == 0
        return kept(place, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(StoreWorkplace, at, late)
        patch.setattr(StoreWorkplace, "is_done", lambda *_, reread, **__: not reread)
        code, _, err = isomorph("convert", "plan.json", "--task", "0/1")
    assert code == 2 and f"s3://{BUCKET}/out was finished by another run meanwhile. There is nothing left to do" in err
    assert under(bucket, "out/") == whole(folder) and bucket.unfinished == []


def test_a_store_that_does_not_answer_is_not_taken_for_missing_files(
    isomorph: Call, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No record can be read: --finish says so, and asks for no task to be run again."""
    plan(isomorph, "src", f"s3://{BUCKET}/out/")
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    kept = S3.fill

    def dead(self: S3, url: Url, *arguments: Any) -> None:
        if "/records/" in str(url):
            raise FormatError(url, "cannot be read: the connection failed, 5 times", "Try again later")
        kept(self, url, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(S3, "fill", dead)
        code, _, err = isomorph("convert", "plan.json", "--finish")
    assert code == 2 and "cannot be read: the connection failed" in err and "not finished" not in err
    assert isomorph("convert", "plan.json", "--finish")[0] == 0
    assert under(bucket, "out/") == whole(folder)


def test_a_record_that_another_run_replaces_meanwhile_is_read_again(
    isomorph: Call, folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one task at once: each finds a record, of whichever run it is."""
    plan(isomorph, "src", f"s3://{BUCKET}/out/")
    assert isomorph("convert", "plan.json", "--task", "0/1")[0] == 0
    kept, changed = S3.fill, set[str]()

    def replaced(self: S3, url: Url, *arguments: Any) -> None:
        if "/records/" in str(url) and str(url) not in changed:
            changed.add(str(url))
            raise SourceChanged(url, "changed while it was read")
        kept(self, url, *arguments)

    monkeypatch.setattr(S3, "fill", replaced)
    code, out, _ = isomorph("convert", "plan.json", "--task", "0/1", "--json")
    assert (code, json.loads(out)["written"]) == (0, []) and len(changed) > 3
