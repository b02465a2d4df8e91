"""Shards and their index: cut as the hub's library cuts, and refused where index and headers disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import split_state_dict_into_shards_factory
from hypothesis import given
from hypothesis import strategies as st

from isomorph.errors import FormatError, UnsafeError, UsageError
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.tensors import TensorSpec, dtype, spec
from isomorph.testing.formats import tensors_of, whole, write_checkpoint

TENSORS = tensors_of({f"layers.{k}.w": np.full((k + 1, 4), k, "f4") for k in range(5)})
INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "m", TENSORS, max_shard_size=100)
    return tmp_path / "m"


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_the_index_of_a_variant_is_known(variant: str, folder: Path) -> None:
    """`model.safetensors.index.fp16.json` and `model.fp16-00001-of-00003.safetensors`, as transformers and diffusers name them."""
    text = (folder / INDEX).read_text()
    for path in sorted(folder.iterdir()):
        path.rename(folder / path.name.replace("model-", f"model.{variant}-"))
    (folder / INDEX).rename(folder / f"model.safetensors.index.{variant}.json")
    index = folder / f"model.safetensors.index.{variant}.json"
    index.write_text(text.replace("model-", f"model.{variant}-"))
    for path in (folder, index):
        with open_checkpoint(path) as checkpoint:
            assert set(checkpoint.manifest) == set(TENSORS)
    index.write_text(text.replace("model-", f"model.{variant}-").replace("00003.safetensors", "00003.bin"))
    assert "is not a .safetensors file" in failure(folder)
    index.unlink()
    assert f"holds shards of model.{variant}.safetensors, but not their index" in failure(folder)


def edit(folder: Path, **changes: Any) -> None:
    index = json.loads((folder / INDEX).read_text())
    index.update(changes)
    (folder / INDEX).write_text(json.dumps(index))


def weight_map(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return found


def failure(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    return str(caught.value)


def test_shards_are_read_as_one_checkpoint(folder: Path) -> None:
    """Through the folder or its index, every tensor is there and knows its file."""
    for path in (folder, folder / INDEX):
        with open_checkpoint(path) as checkpoint:
            assert set(checkpoint.manifest) == set(TENSORS)
            assert len(checkpoint.paths) == 3
            assert checkpoint.format == "safetensors"
            assert checkpoint.manifest.notes == ()
            for name, (_, bits) in TENSORS.items():
                assert np.array_equal(whole(checkpoint, name), bits)
                run = checkpoint.run(name)
                assert run is not None and checkpoint.paths[run[0]].name == weight_map(folder)[name]
            checkpoint.check_unchanged()


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12), most=st.integers(1, 100))
def test_shards_are_cut_as_the_hub_cuts_them(sizes: list[int], most: int) -> None:
    """The same tensors in the same shards under the same names, and the same total, as huggingface_hub makes."""
    state = {f"t{k}": np.zeros(size, "u1") for k, size in enumerate(sizes)}
    theirs = split_state_dict_into_shards_factory(
        state,
        get_storage_size=lambda array: array.nbytes,
        max_shard_size=most,
        filename_pattern="model{suffix}.safetensors",
    )
    layout = lay_out(
        {name: TensorSpec(dtype("u8"), tuple(t.shape)) for name, t in state.items()}, "out", max_shard_size=most
    )
    ours = {file.name: list(file.tensors) for file in layout.files if not file.name.endswith(".json")}
    assert ours == theirs.filename_to_tensors
    if theirs.is_sharded:
        index = json.loads(layout.files[-1].literals[0].data)
        assert index["weight_map"] == theirs.tensor_to_filename
        assert index["metadata"]["total_size"] == theirs.metadata["total_size"]


def test_torch_shards_have_their_own_names() -> None:
    """pytorch_model-00001-of-00002.bin and pytorch_model.bin.index.json, the index last."""
    layout = lay_out({"a": spec("f32[4]"), "b": spec("f32[4]")}, "out", format="torch", max_shard_size=16)
    assert [file.name for file in layout.files] == [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
    ]


def test_torch_shards_are_read_as_one_checkpoint(tmp_path: Path) -> None:
    """A folder of .bin shards reads like one of safetensors, and both hold the same bits."""
    write_checkpoint(tmp_path / "m", TENSORS, format="torch", max_shard_size=100)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert (checkpoint.format, len(checkpoint.paths)) == ("torch_zip", 3)
        for name, (_, bits) in TENSORS.items():
            assert np.array_equal(whole(checkpoint, name), bits)


def test_one_file_cannot_hold_shards() -> None:
    """A target that names a file, and a format without shards, say what to do."""
    specs = {"a": spec("f32[4]"), "b": spec("f32[4]")}
    assert len(lay_out(specs, "m.safetensors", max_shard_size=32).files) == 1
    with pytest.raises(UsageError, match="2 shards need a folder"):
        lay_out(specs, "m.safetensors", max_shard_size=16)
    with pytest.raises(UsageError, match="npz has no shards"):
        lay_out(specs, "out", format="npz", max_shard_size=16)


# Where index and shards disagree


def test_missing_shards_are_all_named(folder: Path) -> None:
    """Every shard that is not there, in one error."""
    for number in (1, 3):
        (folder / f"model-0000{number}-of-00003.safetensors").unlink()
    assert "2 of its 3 shards are missing: model-00001-of-00003.safetensors, model-00003" in failure(folder)


def test_every_disagreement_is_in_one_report(folder: Path) -> None:
    """Tensors in no shard, in two, in another than said, and not named: all together."""
    mapped = weight_map(folder)
    write_checkpoint(folder / mapped["layers.4.w"], {**TENSORS, "extra": TENSORS["layers.0.w"]})
    write_checkpoint(folder / mapped["layers.0.w"], {"layers.0.w": TENSORS["layers.0.w"]})
    mapped["ghost"] = mapped.pop("layers.4.w")
    edit(folder, weight_map=mapped)
    text = failure(folder)
    assert ": 2 tensors in two shards: layers.0.w, layers.3.w; " in text
    assert "1 tensor that the index names, in no shard: ghost; " in text
    assert "2 tensors in another shard than the index says: layers.1.w, layers.2.w; " in text
    assert "2 tensors in a shard, and not in the index: layers.4.w, extra. " in text
    assert text.endswith("Fetch index and shards of one version")


def test_a_total_that_differs_is_a_note(folder: Path) -> None:
    """Libraries count shared tensors once, so that the sum of the headers may differ: said, not refused."""
    edit(folder, metadata={"total_size": 7, "mergekit_version": "0.1"})
    with open_checkpoint(folder) as checkpoint:
        assert checkpoint.manifest.notes == (f"{INDEX} says 7 bytes of tensors; the shards hold 240",)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../other.safetensors", "..\\other.safetensors", "C:x.safetensors", "", ".", "..", "a/b.safetensors",
     "x\0.safetensors", "weights.txt", "pytorch_model.bin", "x\n.safetensors"],
)  # fmt: skip
def test_a_shard_is_the_name_of_a_file_beside_its_index(name: str, folder: Path) -> None:
    """Paths, drive letters and other kinds of file are refused before anything is opened."""
    edit(folder, weight_map={**weight_map(folder), "layers.0.w": name})
    with pytest.raises(UnsafeError, match="its index names the shard"):
        open_checkpoint(folder)


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """A shard that links elsewhere would bring another's weights into the output."""
    shard = folder / "model-00001-of-00003.safetensors"
    shard.rename(tmp_path / "elsewhere.safetensors")
    for target in ("../elsewhere.safetensors", str(tmp_path / "elsewhere.safetensors")):
        shard.symlink_to(target)
        with pytest.raises(UnsafeError, match="out of its folder"):
            open_checkpoint(folder)
        shard.unlink()


def test_links_of_the_hubs_cache_and_inside_the_folder_are_followed(folder: Path, tmp_path: Path) -> None:
    """snapshots/<revision>/<file> -> ../../blobs/<hash> is how the hub's cache is built."""
    snapshot = tmp_path / "cache/snapshots/main"
    snapshot.mkdir(parents=True)
    (tmp_path / "cache/blobs").mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = f"{number:064x}"
        file.rename(tmp_path / "cache/blobs" / blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob}")
    shard = snapshot / "model-00002-of-00003.safetensors"
    shard.rename(snapshot / "same.safetensors.blob")
    target = (snapshot / "same.safetensors.blob").resolve()
    (snapshot / "same.safetensors.blob").unlink()
    (snapshot / "inside").write_bytes(target.read_bytes())
    shard.symlink_to("inside")
    with open_checkpoint(snapshot) as checkpoint:
        assert set(checkpoint.manifest) == set(TENSORS)
        assert np.array_equal(whole(checkpoint, "layers.3.w"), TENSORS["layers.3.w"][1])
        checkpoint.check_unchanged()


def test_a_blob_that_is_itself_a_link_is_refused(folder: Path, tmp_path: Path) -> None:
    """One link is followed, not a chain."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "x/snapshots").mkdir(parents=True)
    moved = folder.rename(tmp_path / "x/snapshots/m")
    shard = moved / "model-00001-of-00003.safetensors"
    shard.rename(tmp_path / "secret.safetensors")
    (tmp_path / "x/blobs").mkdir()
    (tmp_path / "x/blobs" / ("0" * 40)).symlink_to("../../secret.safetensors")
    shard.symlink_to("../../blobs/" + "0" * 40)
    with pytest.raises(FormatError, match="a symbolic link, which is not followed here"):
        open_checkpoint(moved)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "names `a` twice"),
        ('{"weight_map": []}', "does not map names of tensors"),
        ('{"weight_map": {}}', "does not map names of tensors"),
        ('{"weight_map": {"a": 1}}', "does not map names of tensors"),
        ('{"weight_map": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested deeper than 32 levels"),
        ('{"weight_map": ', "its index is not JSON"),
    ],
)
def test_an_index_that_is_none_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    """Duplicate keys, other types, bombs."""
    (tmp_path / INDEX).write_text(text)
    assert expected in failure(tmp_path / INDEX)


def test_a_pointer_in_place_of_a_shard_is_named(folder: Path) -> None:
    """The errors of single files hold for shards, and name the shard."""
    (folder / "model-00002-of-00003.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "model-00002-of-00003.safetensors: a Git LFS pointer" in failure(folder)


def test_a_suffix_that_is_nearly_one_is_asked_about(tmp_path: Path) -> None:
    """`model.safetensor` is a slip of the hand, not a folder; with a slash after it, it is a folder."""
    with pytest.raises(UsageError, match=r"did you mean .*model\.safetensors\?"):
        lay_out({"a": spec("f32[1]")}, tmp_path / "model.safetensor")
    assert lay_out({"a": spec("f32[1]")}, f"{tmp_path}/model.safetensor/").is_folder
    assert lay_out({"a": spec("f32[1]")}, tmp_path / "llama-3.1").is_folder
