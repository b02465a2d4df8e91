"""Promise 2 where the names themselves are many: `--max-memory` + 64 MB hold, by counting before and by refusing in time."""

from __future__ import annotations

import io
import json
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from watched import watched, watched_each

sys.path.append(str(Path(__file__).parents[2]))
from fuzz.harnesses.distributed import header, table, tf_entry
from fuzz.harnesses.stores import MANIFEST_MAGIC, NODE_MAGIC, files_table, framed, varints

from isomorph.formats.allowance import names_nbytes
from isomorph.formats.registry import FORMATS
from isomorph.testing.formats import tensors_of, write_checkpoint

MB = 1_000_000
BESIDES = 64 * MB
MANY = 4_000


@pytest.mark.parametrize("format", ["safetensors", "torch_zip", "hdf5"])
def test_what_names_take_is_counted_before(tmp_path: Path, format: str) -> None:
    """The count is no less than what a conversion takes for its names, and no more than three times that."""
    suffix = FORMATS[format].suffixes[0]
    for number in (1, MANY):
        arrays = {f"model.layers.{layer}.weight": np.full((2, 2), layer, "f4") for layer in range(number)}
        write_checkpoint(tmp_path / f"{number}{suffix}", tensors_of(arrays), format=format)
    one, many = watched_each(
        [["convert", f"{number}{suffix}", f"out{number}{suffix}"] for number in (1, MANY)], folder=tmp_path
    )
    assert (0, 0) == (one.code, many.code), one.err + many.err
    took, counted = (
        many.anon_peak - one.anon_peak,
        names_nbytes([f"model.layers.{n}.weight" for n in range(MANY)], [format]),
    )
    assert took <= counted <= 3 * took, (took, counted)


def shard(folder: Path, parts: int) -> None:
    """A zarr array in one shard, whose chunks are an element each."""
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    inside = {"chunk_shape": [1], "codecs": [little], "index_codecs": [little]}
    said = {
        "zarr_format": 3, "node_type": "array", "shape": [parts], "data_type": "float32", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [parts]}},
        "chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "sharding_indexed", "configuration": inside}],
    }  # fmt: skip
    (folder / "cut/w/c").mkdir(parents=True)
    (folder / "cut/.zgroup").write_text('{"zarr_format": 2}')
    (folder / "cut/w/zarr.json").write_text(json.dumps(said))
    places = b"".join(struct.pack("<QQ", 4 * number, 4) for number in range(parts))
    (folder / "cut/w/c/0").write_bytes(bytes(4 * parts) + places)


def shards_of_ranks(folder: Path, parts: int) -> None:
    """Safetensors of 64 ranks, each of which has one element of every tensor."""
    (folder / "cut").mkdir()
    names = [f"w{number}" for number in range(parts // 64)]
    for rank in range(64):
        boxes = json.dumps({name: {"saved_offsets": [rank]} for name in names})
        header: dict[str, Any] = {"__metadata__": {"DCP_SHARDING_INFO": boxes}}
        for at, name in enumerate(names):
            header[name] = {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]}
        file = folder / f"cut/shard-{rank + 1:05d}-model-00001-of-00001.safetensors"
        file.write_bytes(headed(json.dumps(header).encode()) + bytes(len(names)))


@pytest.mark.parametrize("make", [shard, shards_of_ranks])
def test_what_tiles_take_is_counted_before(tmp_path: Path, make: Callable[[Path, int], None]) -> None:
    """A tensor may lie in very many places: those are counted as names are, and what is too much is refused."""
    make(tmp_path, 14_400)
    few, enough = watched_each(
        [["convert", "cut", "out.safetensors", "--max-memory", size] for size in ("4200kB", "24MB")], folder=tmp_path
    )
    assert 2 == few.code
    said = r"names (1 tensor|225 tensors) in 14,4\d\d parts; holding and proving them takes about 4\d MB, more than"
    assert re.search(said, few.err), few.err
    assert 0 == enough.code, enough.err
    assert few.anon_peak <= 4.2 * MB + BESIDES
    assert enough.anon_peak <= 24 * MB + BESIDES


def headed(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def short_names(nbytes: int) -> bytes:
    entry = b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return headed(b"{" + b",".join(entry % number for number in range(nbytes // len(entry % 0xFFFFF))) + b"}")


def lists(nbytes: int) -> bytes:
    return headed(b'{"a":[' + b",".join([b"[[]]"] * (nbytes // 5)) + b"]}")


def pickled(nbytes: int) -> bytes:
    """One dict of very many tiny tuples."""
    entry = b"X\x06\0\0\0%06xK\1\x85"
    batches = (
        b"(" + b"".join(entry % (1000 * batch + k) for k in range(1000)) + b"u" for batch in range(nbytes // 14_000)
    )
    return b"\x80\x02}" + b"".join(batches) + b"."


def index(nbytes: int) -> bytes:
    names = {f"{number:x}": f"model-{number % 10_000:05d}-of-10000.safetensors" for number in range(nbytes // 55)}
    return json.dumps({"weight_map": names}).encode()


def packed(nbytes: int) -> bytes:
    """One map of very many small numbers."""
    count = nbytes // 8
    return struct.pack(">BI", 0xDF, count) + b"".join(b"\xa6%06x\x01" % number for number in range(count))


def gguf(nbytes: int) -> bytes:
    """Tensors without elements."""
    count = nbytes // 38
    entries = (struct.pack("<Q6sIQIQ", 6, b"%06x" % number, 1, 0, 0, 0) for number in range(count))
    return struct.pack("<4sIQQ", b"GGUF", 3, count, 0) + b"".join(entries) + bytes(64)


def gguf_values(nbytes: int) -> bytes:
    count = nbytes // 19
    values = (struct.pack("<Q6sIB", 6, b"%06x" % number, 0, 1) for number in range(count))
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, count) + b"".join(values) + bytes(64)


def onnx(nbytes: int) -> bytes:
    """Initialisers without elements."""
    graph = b"".join(b"\x2a\x0c\x08\0\x10\1\x42\6%06x" % number for number in range(nbytes // 14))
    return b"\x08\x08\x42\x02\x10\x11\x3a" + varints(len(graph)) + graph


def hdf5(nbytes: int) -> bytes:
    """Links of one dataset."""
    raw = io.BytesIO()
    with h5py.File(raw, "w", libver="latest") as file:
        first = file.create_dataset("w", data=np.zeros(1, "u1"))
        for number in range(nbytes // 30):
            file[f"{number:x}"] = first
    return raw.getvalue()


def tf_index(nbytes: int) -> bytes:
    return table([header(1), *((b"%06x" % number, tf_entry(1, (0,), 0, 0)) for number in range(nbytes // 22))])


def ocdbt(nbytes: int) -> bytes:
    """A node of keys without values."""
    keys = [b"%06x" % number for number in range(nbytes // 11)]
    count = len(keys)
    listed = varints(count, *[0] * (count - 1), *map(len, keys)) + b"".join(keys) + varints(*[0] * 2 * count)
    return framed(NODE_MAGIC, b"\0" + files_table() + listed)


HOSTILE: dict[str, tuple[str, Callable[[int], bytes], int]] = {
    "names": ("names.safetensors", short_names, 95 * MB),
    "lists": ("lists.safetensors", lists, 99 * MB),
    "opcodes": ("opcodes.pdparams", pickled, 40 * MB),
    "shards": ("model.safetensors.index.json", index, 60 * MB),
    "msgpack": ("flax_model.msgpack", packed, 60 * MB),
    "tensors of gguf": ("names.gguf", gguf, 8 * MB),
    "values of gguf": ("values.gguf", gguf_values, 6 * MB),
    "initialisers": ("names.onnx", onnx, 6 * MB),
    "links": ("names.h5", hdf5, 2 * MB),
    "tensorflow": ("m.index", tf_index, 4 * MB),
    "ocdbt": ("d/a", ocdbt, 3 * MB),
}


def manifest_of(node: Path) -> str:
    """The folder of a database whose root is this node."""
    said = bytes(16) + varints(0, 100, 8 << 20) + b"\4" + varints(0) + files_table(b"d/a") + varints(1, 1)
    whole = framed(MANIFEST_MAGIC, said + b"\0" + varints(0, 0, node.stat().st_size))
    (node.parent.parent / "manifest.ocdbt").write_bytes(whole)
    return "."


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_would_take_more_is_refused_in_time(tmp_path: Path, kind: str) -> None:
    """Exit 2, one message that says what to give, and never more held than was allowed."""
    name, make, nbytes = HOSTILE[kind]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(make(nbytes))
    if kind == "ocdbt":
        name = manifest_of(tmp_path / name)
    for command in (["convert", name, "out.safetensors"], ["verify", name, name]):
        seen = watched(*command, "--max-memory", "32MB", folder=tmp_path)
        assert (2, "") == (seen.code, seen.out), seen
        assert "more than --max-memory 32 MB allows. Give --max-memory" in seen.err.replace("\n", " "), seen.err
        assert seen.anon_peak <= 32 * MB + BESIDES, seen.anon_peak
        assert not (tmp_path / "out.safetensors").exists()


def test_the_message_counts_the_tensors_and_says_what_suffices(tmp_path: Path) -> None:
    names = [f"layers.{number}" for number in range(14_000)]
    header = {name: {"dtype": "U8", "shape": [1], "data_offsets": [at, at + 1]} for at, name in enumerate(names)}
    (tmp_path / "in.safetensors").write_bytes(headed(json.dumps(header).encode()) + bytes(14_000))
    few, enough = (
        watched("convert", "in.safetensors", "out.npz", "--max-memory", size, folder=tmp_path)
        for size in ("4200kB", "64MB")
    )
    said = (
        "in.safetensors: names 14,000 tensors; holding and proving them takes about 44 MB, more than --max-memory 4 MB allows. "
        "Give --max-memory 64MB"
    )
    assert (2, said) == (few.code, few.err.strip())
    assert enough.code == 0, enough.err
    assert few.anon_peak <= 4.2 * MB + BESIDES
    assert enough.anon_peak <= 64 * MB + BESIDES
