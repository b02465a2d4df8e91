"""Orbax, T5X and zarr: what Orbax 0.12 wrote (make_orbax.py) and what tensorstore writes here is read; the rest is refused."""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import tensorstore

from isomorph.cli.app import run
from isomorph.errors import FormatError, RefusedError, UnsafeError
from isomorph.formats.registry import open_checkpoint
from isomorph.formats.tf.crc32c import crc32c
from isomorph.testing.formats import whole

ORBAX = Path(__file__).parent / "data" / "orbax"
TREE = {
    "params/dense/kernel": ("f32", (5, 7)), "params/dense/bias": ("bf16", (7,)), "params/wide": ("f32", (40, 50)),
    "params/layers/0": ("f16", (2, 3)), "params/layers/1": ("i32", (4,)), "step": ("i32", ()),
}  # fmt: skip


def failure(path: Path) -> str:
    with pytest.raises(FormatError) as caught, open_checkpoint(path) as checkpoint:
        for name in checkpoint.manifest:
            whole(checkpoint, name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["ocdbt", "zarr2", "zarr3", "zarr3_files"])
def test_what_orbax_saved_is_read(name: str) -> None:
    """OCDBT and plain files, zarr 2 and 3 (sharded): names from the tree, every bit; texts are leaves."""
    with open_checkpoint(ORBAX / name) as checkpoint:
        assert checkpoint.format == "orbax"
        assert {*TREE, "flags", "rate"} == set(checkpoint.manifest)
        for key, (kind, shape) in TREE.items():
            spec = checkpoint.manifest[key]
            assert (str(spec.dtype), spec.shape) == (kind, shape)
            expected = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(spec.dtype.numpy)
            assert expected.tobytes() == np.ascontiguousarray(whole(checkpoint, key)).tobytes(), key
        assert whole(checkpoint, "flags").tobytes() == b"\1\0"
        assert whole(checkpoint, "rate").tobytes() == struct.pack("<d", 0.5)
        assert {"note": "a text"} == dict(checkpoint.manifest.leaves)
        checkpoint.check_unchanged()


def test_a_managers_folder_is_entered_where_it_holds_one_step(tmp_path: Path) -> None:
    """`managed/3/default`, by any of its folders; with two steps the one that is meant must be named."""
    for path in ("managed", "managed/3", "managed/3/default"):
        with open_checkpoint(ORBAX / path) as checkpoint:
            assert whole(checkpoint, "w").view("<f4").reshape(-1).tolist() == list(range(6))
    shutil.copytree(ORBAX / "managed", tmp_path / "m")
    shutil.copytree(ORBAX / "managed" / "3", tmp_path / "m" / "4")
    assert "holds several checkpoints of Orbax (steps or items): 3, 4. Name the one that is meant" in failure(
        tmp_path / "m"
    )


def test_a_conversion_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """convert and verify as anybody runs them, a part of the tree too."""
    target = str(tmp_path / "m.safetensors")
    assert run(["convert", f"{ORBAX / 'ocdbt'}#params", target]) == 0
    assert run(["verify", f"{ORBAX / 'zarr3'}#params", target]) == 0
    assert "2,052 of 2,052 elements" in capsys.readouterr().out


# What tensorstore writes


def put(store: Mapping[str, Any], array: np.ndarray[Any, Any], **more: Any) -> Any:
    opened = tensorstore.open({**store, **more}, create=True, delete_existing=True, shape=array.shape).result()
    opened.write(array.astype(opened.dtype.numpy_dtype)).result()
    return opened


def zarr(folder: Path, name: str) -> dict[str, Any]:
    """Where tensorstore writes an array into a group."""
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    return {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{folder}/{name}/"}}


METADATA: dict[str, dict[str, Any]] = {
    "plain": {"compressor": None, "chunks": [3, 4], "dtype": "<f4"},
    "zstd": {"compressor": {"id": "zstd", "level": 3}, "chunks": [3, 4], "dtype": "<f4"},
    "gzip": {"compressor": {"id": "gzip", "level": 3}, "chunks": [20, 1], "dtype": "<i8"},
    "zlib": {"compressor": {"id": "zlib", "level": 3}, "chunks": [1, 20], "dtype": "<u2"},
    "columns": {"compressor": None, "chunks": [3, 4], "dtype": "<f4", "order": "F"},
    "packed_columns": {"compressor": {"id": "zstd", "level": 1}, "chunks": [4, 3], "dtype": "<f8", "order": "F"},
    "big": {"compressor": None, "chunks": [3, 4], "dtype": ">f4"},
    "packed_big": {"compressor": {"id": "gzip", "level": 1}, "chunks": [3, 4], "dtype": ">i4"},
    "bfloat16": {"compressor": {"id": "zstd", "level": 1}, "chunks": [5, 5], "dtype": "bfloat16"},
    "slashes": {"compressor": None, "chunks": [3, 4], "dtype": "<f4", "dimension_separator": "/"},
}


@pytest.mark.parametrize("kind", METADATA)
def test_zarr_arrays_of_many_chunks_are_what_tensorstore_wrote(kind: str, tmp_path: Path) -> None:
    """Edge chunks, both orders, both byte orders, every compression: whole, a row, a column, a strided box."""
    array = np.arange(77).reshape(7, 11)
    written = put(zarr(tmp_path, "params.w"), array, metadata=METADATA[kind])
    expected = np.asarray(written.read().result())
    little = expected.astype(expected.dtype.newbyteorder("<")) if expected.dtype.kind != "V" else expected
    with open_checkpoint(tmp_path) as checkpoint:
        assert {"params/w": (7, 11)} == {name: spec.shape for name, spec in checkpoint.manifest.items()}
        found = whole(checkpoint, "params/w")
        assert little.tobytes() == np.ascontiguousarray(found).tobytes()
        flat = found.reshape(-1)
        for offset, shape, strides in [(11, (11,), (1,)), (5, (7,), (11,)), (0, (3, 4), (22, 3)), (0, (77,), (1,))]:
            box = checkpoint.fetch("params/w", offset, shape, strides)
            index = offset + sum(np.indices(shape)[axis] * step for axis, step in enumerate(strides))
            assert flat[index].tobytes() == np.ascontiguousarray(box).tobytes()


def test_chunks_that_are_not_stored_are_the_fill_value(tmp_path: Path) -> None:
    """Nothing is written for them, and the notes say how many."""
    store = {
        **zarr(tmp_path, "w"),
        "metadata": {"chunks": [2, 2], "dtype": "<f4", "fill_value": 7.5, "compressor": None},
    }
    opened = tensorstore.open(store, create=True, shape=[4, 4]).result()
    opened[0:2, 0:2] = np.ones((2, 2), "f4")
    with open_checkpoint(tmp_path) as checkpoint:
        assert opened.read().result().tobytes() == np.ascontiguousarray(whole(checkpoint, "w")).tobytes()
        assert "3 chunks are not stored, and read as the fill value: `w`" in checkpoint.manifest.notes


@pytest.mark.parametrize("inner", [[{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd", "configuration": {"level": 1}}],
                                   [{"name": "transpose", "configuration": {"order": [1, 0]}}, {"name": "bytes", "configuration": {"endian": "big"}}],
                                   [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 1}}, {"name": "crc32c"}]])  # fmt: skip
@pytest.mark.parametrize("location", ["start", "end"])
def test_shards_of_zarr_3_are_read_by_their_index(inner: list[dict[str, Any]], location: str, tmp_path: Path) -> None:
    """Many chunks in a file, at either end of it the index; missing inner chunks are the fill value."""
    shard = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [2, 3],
            "codecs": inner,
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": location,
        },
    }
    store = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{tmp_path}/w/"},
        "metadata": {
            "data_type": "float32", "shape": [7, 11], "codecs": [shard], "fill_value": -1.0,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6]}},
        },
    }  # fmt: skip
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    opened = tensorstore.open(store, create=True).result()
    opened[0:6, 1:11] = np.arange(60, dtype="f4").reshape(6, 10)
    with open_checkpoint(tmp_path) as checkpoint:
        assert opened.read().result().tobytes() == np.ascontiguousarray(whole(checkpoint, "w")).tobytes()


def test_a_database_with_inner_nodes_and_values_of_their_own_is_read(tmp_path: Path) -> None:
    """Small nodes make a tree of several levels; large values lie outside of the nodes; a second commit supersedes the first."""
    base = {
        "driver": "ocdbt",
        "base": f"file://{tmp_path}/",
        "config": {"max_decoded_node_bytes": 400, "max_inline_value_bytes": 64},
    }
    arrays = {f"layer_{n}.w": np.arange(n, n + 60, dtype="<i4").reshape(6, 10) for n in range(30)}
    metadata = {"chunks": [4, 4], "dtype": "<i4", "compressor": None}
    for name, array in arrays.items():
        put({"driver": "zarr", "kvstore": {**base, "path": f"{name}/"}}, array, metadata=metadata)
    put({"driver": "zarr", "kvstore": {**base, "path": "layer_7.w/"}}, arrays["layer_7.w"] + 1, metadata=metadata)
    with open_checkpoint(tmp_path) as checkpoint:
        assert {name.replace(".", "/") for name in arrays} == set(checkpoint.manifest)
        for name, array in arrays.items():
            expected = array + 1 if name == "layer_7.w" else array
            assert expected.tobytes() == np.ascontiguousarray(whole(checkpoint, name.replace(".", "/"))).tobytes(), name


def test_a_t5x_folder_is_read(tmp_path: Path) -> None:
    """Arrays in folders beside a msgpack that has placeholders for them, and small tensors of its own."""
    kernel = np.arange(12, dtype="f4").reshape(3, 4)
    put(
        zarr(tmp_path, "target.encoder.layers_0.kernel"),
        kernel,
        metadata={"chunks": [3, 2], "dtype": "<f4"} | {"compressor": {"id": "gzip", "level": 1}},
    )
    (tmp_path / ".zgroup").unlink()  # T5X writes none
    step = msgpack.ExtType(1, msgpack.packb(((), "int32", np.array(7, "i4").tobytes())))
    state = {
        "state": {"step": step},
        "target": {"encoder": {"layers_0": {"kernel": "PLACEHOLDER://target.encoder.layers_0.kernel"}}},
    }
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(state))
    with open_checkpoint(tmp_path) as checkpoint:
        assert {"target/encoder/layers_0/kernel", "state/step"} == set(checkpoint.manifest)
        assert kernel.tobytes() == np.ascontiguousarray(whole(checkpoint, "target/encoder/layers_0/kernel")).tobytes()
        assert whole(checkpoint, "state/step").tolist() == 7
        assert {} == dict(checkpoint.manifest.leaves)


# Hostile and broken


def described(folder: Path, **change: Any) -> Path:
    said = {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [2],
        "dtype": "<f4",
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (folder / "w").mkdir(exist_ok=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / "w" / ".zarray").write_text(json.dumps({**said, **change}))
    for number in range(2):
        (folder / "w" / str(number)).write_bytes(bytes(8))
    return folder


HOSTILE: dict[str, dict[str, Any]] = {
    "its views and shared storages expand": {"shape": [1 << 20, 1 << 20], "chunks": [1 << 20, 1 << 20]},
    "chunks; at most 1,000,000 are read": {"shape": [1 << 40], "chunks": [1]},
    "its shape and the shape of its chunks are not sizes that go together": {"chunks": [0]},
    "its shape and the shape of its chunks are not sizes": {"shape": [-4]},
    "its chunks are compressed with 'blosc'; zstd, gzip, zlib are read. Save it again with zstd": {
        "compressor": {"id": "blosc"}
    },
    "its dtype '|O' is not one isomorph has": {"dtype": "|O"},
    "it has filters, which are not read": {"filters": [{"id": "delta"}]},
    "its fill value 'nothing' is no f32": {"fill_value": "nothing"},
    "a chunk of 12 bytes is stored in 8": {"chunks": [3]},
    "its .zarray is not that of a plain array of version 2": {"zarr_format": 3},
    "one of the specification's": {"order": "K"},
    "corrupt zstd data": {"compressor": {"id": "zstd"}},
    "corrupt deflate data": {"compressor": {"id": "gzip"}},
}


@pytest.mark.parametrize("message", HOSTILE)
def test_arrays_that_lie_are_one_error(message: str, tmp_path: Path) -> None:
    """Shapes, chunks, dtypes, codecs: one message that names the array."""
    assert message in failure(described(tmp_path, **HOSTILE[message]))


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_chunk_that_holds_more_than_it_says_is_refused(codec: str, tmp_path: Path) -> None:
    """A bomb of 64 MB in a chunk of 8 bytes is not unpacked."""
    import gzip

    import zstandard

    bomb = bytes(64 << 20)
    described(tmp_path, compressor={"id": codec})
    packed = gzip.compress(bomb, 6) if codec == "gzip" else zstandard.ZstdCompressor().compress(bomb)
    (tmp_path / "w" / "0").write_bytes(packed)
    assert "holds more than the 8 bytes declared" in failure(tmp_path)


def test_what_expands_beyond_the_disk_is_refused_before_it_is_made(tmp_path: Path) -> None:
    """A chunk of a petabyte in a megabyte: more than zstd could do, or than there is room for."""
    described(tmp_path, shape=[1 << 48], chunks=[1 << 48], compressor={"id": "zstd"})
    (tmp_path / "w" / "0").write_bytes(bytes(1 << 20))
    with pytest.raises((FormatError, RefusedError), match=r"cannot decode to|expand|is full"):
        open_checkpoint(tmp_path)


def test_without_zstandard_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named; nothing else is wrong with the checkpoint."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for name in ("ocdbt", "zarr2"):
        assert 'zstandard is not installed. Run: pip install "isomorph[orbax]"' in failure(ORBAX / name)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    """A chunk, a description, a folder of an array: none may be a link elsewhere."""
    (tmp_path / "a").mkdir()
    described(tmp_path / "a")
    (tmp_path / "a" / "w" / "0").unlink()
    (tmp_path / "secret").write_bytes(b"8 bytes.")
    (tmp_path / "a" / "w" / "0").symlink_to("../../secret")
    with pytest.raises(UnsafeError, match=r"a link to \.\./\.\./secret, out of its folder"):
        open_checkpoint(tmp_path / "a")
    shutil.copytree(ORBAX / "ocdbt", tmp_path / "b")
    (tmp_path / "b" / "d").rename(tmp_path / "elsewhere")
    (tmp_path / "b" / "d").symlink_to("../elsewhere")
    with pytest.raises(UnsafeError, match="a link where a folder of the checkpoint belongs"):
        open_checkpoint(tmp_path / "b")


def node(magic: int, body: bytes) -> bytes:
    whole_node = magic.to_bytes(4, "big") + (12 + 2 + len(body) + 4).to_bytes(8, "little") + b"\0\0" + body
    return whole_node + crc32c([whole_node]).to_bytes(4, "little")


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def files(path: bytes) -> bytes:
    return b"\1" + varint(len(path)) + b"\0" + path


def database(folder: Path, path: bytes, root: bytes, height: int = 0, nbytes: int | None = None) -> Path:
    """A manifest whose root is `root`, in the file `path`."""
    config = bytes(16) + b"\0" + varint(1024) + varint(1 << 20) + b"\4\0"
    length = varint(len(root) if nbytes is None else nbytes)
    version = b"\1\1" + bytes([height]) + b"\0\0" + length + b"\1\1\0" + bytes(8)
    (folder / "d").mkdir(exist_ok=True)
    (folder / "d" / "a").write_bytes(root)
    (folder / "manifest.ocdbt").write_bytes(node(0x0CDB3A2A, config + files(path) + version + b"\0"))
    return folder


def leaf(path: bytes, *, nbytes: int = 8, offset: int = 0, height: int = 0) -> bytes:
    """A node with the keys `w/.zarray`, inline, and `w/0`, in the file `path`."""
    said = json.dumps({"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<f4", "compressor": None}).encode()
    keys = varint(2) + varint(9) + varint(1) + b"w/.zarray" + b"0"
    values = varint(len(said)) + varint(nbytes) + b"\0\1" + b"\0" + varint(offset) + said
    return node(0x0CDB20DE, bytes([height]) + files(path) + b"\2" + keys + values)


def test_a_database_made_by_hand_is_read(tmp_path: Path) -> None:
    """What the hostile ones below are made from."""
    (tmp_path / "values").write_bytes(struct.pack("<2f", 1, 2))
    with open_checkpoint(database(tmp_path, b"d/a", leaf(b"values"))) as checkpoint:
        assert whole(checkpoint, "w").view("<f4").tolist() == [1, 2]


@pytest.mark.parametrize(
    "path", [b"../secret", b"/etc/passwd", b"d/../../secret", b"d//a", b"..", b"", b"a\\b", b"x\0y", b"./a"]
)
def test_paths_out_of_the_folder_are_refused(path: bytes, tmp_path: Path) -> None:
    """In the manifest and in a node: no part of a path may be empty or dots, whatever tensorstore itself would follow."""
    (tmp_path / "c").mkdir()
    (tmp_path / "secret").write_bytes(b"8 bytes.")
    for folder in (database(tmp_path / "c", b"d/a", leaf(path)), database(tmp_path / "c", path, leaf(b"values"))):
        with pytest.raises(UnsafeError, match=r"which is not one below its folder\. Nothing was read from there"):
            open_checkpoint(folder)


def test_broken_databases_are_one_error(tmp_path: Path) -> None:
    """A tree that goes round in circles, of impossible height, truncated, with values beyond their file, with counts of 2**60."""
    (tmp_path / "values").write_bytes(bytes(8))
    again = b"\1" + files(b"d/a") + b"\1" + varint(1) + b"\0" + b"w" + b"\0\0"
    circle = node(0x0CDB20DE, again + varint(100) + b"\1\1\0")
    circle = node(0x0CDB20DE, again + varint(len(circle)) + b"\1\1\0")
    assert "it is reached twice" in failure(database(tmp_path, b"d/a", circle, height=1))
    assert "another height than its parent says" in failure(database(tmp_path, b"d/a", circle, height=2))
    assert "the tree is larger than any that is read" in failure(database(tmp_path, b"d/a", circle, height=200))
    assert "truncated" in failure(database(tmp_path, b"d/a", circle, nbytes=1 << 20))
    assert "the tree is larger" in failure(database(tmp_path, b"d/a", circle, nbytes=1 << 60))
    assert "bytes 4,096 to 4,104 are needed, the file has 8" in failure(
        database(tmp_path, b"d/a", leaf(b"values", offset=4096))
    )
    huge = node(0x0CDB20DE, b"\0" + files(b"values") + varint(1 << 60))
    assert "keys" in failure(database(tmp_path, b"d/a", huge))
    many = node(0x0CDB20DE, b"\0" + varint(1 << 60))
    assert "more entries than it has bytes" in failure(database(tmp_path, b"d/a", many))
    database(tmp_path, b"d/a", leaf(b"values"))
    (tmp_path / "d" / "a").write_bytes(leaf(b"values")[:-1] + b"\0")
    assert "damaged: checksum" in failure(tmp_path)


@pytest.mark.parametrize("name", ["ocdbt/manifest.ocdbt", "ocdbt/_METADATA", "zarr2/params.dense.kernel/.zarray", "zarr3_files/params.dense.kernel/zarr.json", "zarr3_files/params.dense.kernel/c/0/0"])  # fmt: skip
def test_changed_files_are_refused_or_harmless(name: str, tmp_path: Path) -> None:
    """Cut and changed anywhere: FormatError, or a checkpoint that reads within bounds."""
    shutil.copytree(ORBAX / name.partition("/")[0], tmp_path / "c")
    path = tmp_path / "c" / name.partition("/")[2]
    raw = path.read_bytes()
    rng = random.Random(5)
    for number in range(60):
        at = rng.randrange(len(raw))
        value = bytes([rng.choice([0, 1, 0x30, 0x39, 0x7F, 0x80, 0xFF])])
        path.write_bytes(raw[:at] if number % 4 == 0 else raw[:at] + value + raw[at + 1 :])
        try:
            with open_checkpoint(tmp_path / "c") as checkpoint:
                assert checkpoint.manifest.nbytes < 1 << 29
                for each in checkpoint.manifest:
                    if checkpoint.manifest[each].nbytes < 1 << 20:
                        whole(checkpoint, each)
        except (FormatError, RefusedError) as error:
            assert str(tmp_path / "c") in str(error) or "full" in str(error)


def test_an_array_that_the_tree_names_must_be_there(tmp_path: Path) -> None:
    """A folder that was not copied whole is not a smaller checkpoint."""
    shutil.copytree(ORBAX / "zarr2", tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "params.dense.bias")
    assert "1 arrays that it names are not there: `params/dense/bias`. Fetch the whole folder" in failure(
        tmp_path / "c"
    )


@pytest.mark.parametrize("more", [{"driver": "zarr", "metadata": {"compressor": None}}, {"driver": "zarr3"}])
def test_arrays_beside_each_other_need_no_group(tmp_path: Path, more: dict[str, Any]) -> None:
    """A folder of arrays alone is read as if a group held them; groups beside each other are several checkpoints."""
    for name in ("encoder.kernel", "bias"):
        place = {**more, "kvstore": {"driver": "file", "path": str(tmp_path / "m" / name)}}
        tensorstore.open(place, create=True, dtype="float32", shape=[3, 4]).result()[...] = float(len(name))
    with open_checkpoint(tmp_path / "m") as checkpoint:
        assert {"encoder/kernel": "f32[3,4]", "bias": "f32[3,4]"} == {
            name: str(spec) for name, spec in checkpoint.manifest.items()
        }
        assert whole(checkpoint, "encoder/kernel").tobytes() == np.full((3, 4), 14, np.float32).tobytes()
    shutil.copytree(tmp_path / "m", tmp_path / "two" / "a")
    shutil.copytree(tmp_path / "m", tmp_path / "two" / "b")
    for group in ("a", "b"):
        (tmp_path / "two" / group / ".zgroup").write_text('{"zarr_format": 2}')
    assert "holds several checkpoints of Orbax (steps or items): a, b. Name the one" in failure(tmp_path / "two")


def test_a_chunk_that_was_stored_must_be_there(tmp_path: Path) -> None:
    """Orbax says that it stores zeros too: a chunk that is missing was not fetched."""
    shutil.copytree(ORBAX / "zarr2", tmp_path / "m")
    next(each for each in (tmp_path / "m" / "params.wide").iterdir() if each.name != ".zarray").unlink()
    message = failure(tmp_path / "m")
    assert (
        "_METADATA: 1 chunks are missing, and it says that all were stored: `params/wide`. Fetch the whole" in message
    )
