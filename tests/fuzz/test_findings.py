"""What fuzzing found, kept: each input as bytes, with what is said of it now (fuzz/README.md tells the causes)."""

from __future__ import annotations

import json
import resource
import struct
import time
from pathlib import Path

import onnx
import pytest
from fuzz.harness import checked, read_with, source_of
from fuzz.harnesses import load
from fuzz.harnesses.distributed import _block, header, tf_entry
from fuzz.harnesses.stores import MARK, manifest, varints
from fuzz.messages import varint

from isomorph.errors import FormatError
from isomorph.formats import npz
from isomorph.formats.flax import read as flax_msgpack
from isomorph.formats.registry import open_checkpoint
from isomorph.formats.tf.read import read as read_tf
from isomorph.formats.tf.table import FOOTER, MAGIC
from isomorph.testing.formats import whole

ZARR = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<f4", "fill_value": 0, "compressor": None}


def zarr(switch: int, **more: object) -> bytes:
    """An input of the harness `zarr`: which chunks are stored, and a description."""
    return bytes([switch]) + json.dumps({**ZARR, **more}).encode()


def sharded(index_codecs: object) -> bytes:
    """One of version 3 whose shards have an index of these codecs."""
    inside = {"chunk_shape": [2], "codecs": [{"name": "bytes"}], "index_codecs": index_codecs}
    grid = {"name": "regular", "configuration": {"chunk_shape": [2]}}
    three = {"zarr_format": 3, "node_type": "array", "data_type": "float32", "chunk_grid": grid}
    codecs = [{"name": "sharding_indexed", "configuration": inside}]
    return zarr(1, **three, chunk_key_encoding={"name": "default"}, codecs=codecs)


NPY = b"{'descr': '<i8', 'fortran_order': False,\xa0'shape': ()}\n"


def npz_input(header_text: bytes) -> bytes:
    """An input of the harness `npz`: stored, version 1.0, eight bytes of data."""
    return b"\0\x93NUMPY\1\0" + struct.pack("<H", len(header_text)) + header_text + bytes(8)


FOUND = [
    ("morph", b":. <-> dec.:\n  | f32 -> f64\n\n  use inverse lin\n", "lin.morph is not there"),
    ("plan", b"\n%%\n\n%%\nl.w f32[2]\n%%\n{}", "1 tensor has no rule"),
    ("pickle", b"\0\x80\2I010\n.", "a number or length that cannot be (data.pkl, byte 2)"),
    ("pickle", b"\0\x80\2L1_0L\n.", "a number or length that cannot be (data.pkl, byte 2)"),
    ("pickle", b"\0\x80\2I5L\n.", "a number or length that cannot be (data.pkl, byte 2)"),
    ("pickle", b"\0\x80\2F1_0.5\n.", "a number or length that cannot be (data.pkl, byte 2)"),
    ("pickle", b"\0\x80\4\x8f(e.", "items are appended to something that is no list (data.pkl, byte 4)"),
    ("pickle", b"\0\x80\4](\x90.", "items are added to something that is no set (data.pkl, byte 4)"),
    ("pickle", b"\0\x80\4(\x91(\x90.", "items are added to something that is no set (data.pkl, byte 5)"),
    ("zarr", zarr(0, compressor={"id": [1]}), "its chunks are compressed with '[1]'; zstd, gzip, zlib are read"),
    ("zarr", zarr(0, dtype="f4"), "its dtype 'f4' is not one isomorph has"),
    ("zarr", zarr(0, shape=[0, 1 << 60], chunks=[1, 1]), None),
    ("zarr", zarr(0, shape=[1000, 3600], chunks=[1, 4]), "more than 50,000 of its 900,000 chunks are not there"),
    ("npz", npz_input(b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }  \n  \r \n"), "header"),
    ("zarr", sharded(5), "the index of its shards is encoded as none that is read"),
    (
        "npz",
        npz_input(NPY),
        "its member w.npy has a header that cannot be read at",
    ),
    ("npz", npz_input(NPY.replace(b"\xa0", b"").replace(b"()", b"(01,)")), "has a shape that is not a tuple of sizes"),
    (
        "gguf",
        b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 196617, 0),
        "`a` is of type 196,617, which is none, at byte 49 of the header",
    ),
]


@pytest.mark.parametrize(("name", "data", "said"), FOUND)
def test_a_finding_is_refused(name: str, data: bytes, said: str | None) -> None:
    """What once came out as something else than an error of isomorph, or was read otherwise than by the format's own library.

    None: it is honest, and read.
    """
    error = checked(load(name), data)
    assert (error is None) if said is None else (error is not None and said in str(error))


def test_packed_numbers_of_odd_rows_are_typed_data_too(tmp_path: Path) -> None:
    """ONNX: int4 of shape [2, 3] in int32_data, where one item of ours is both rows, and a number of the file is one byte."""
    tensor = onnx.helper.make_tensor("p", onnx.TensorProto.INT4, [2, 3], [1, -2, 3, -4, 5, -6])
    graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    with open_checkpoint(path) as checkpoint:
        assert whole(checkpoint, "p").tobytes() == bytes([0xE1, 0xC3, 0xA5])


def test_an_extension_of_msgpack_has_a_sign() -> None:
    """Type 196 is -60."""
    contents = flax_msgpack.read(source_of(b"\x81\xa1w\xc7\2\xc4ab"))
    assert contents.leaves == {"w": "msgpack extension -60 of 2 bytes"}


def test_plain_headers_of_npy_are_still_read() -> None:
    """Blanks, line ends and a form feed between the words, as Python's tokens have them."""
    header_text = b"{'descr':\t'<i2',\n'fortran_order': False,\f'shape': (1,)}"
    raw = b"\x93NUMPY\1\0" + struct.pack("<H", len(header_text)) + header_text + b"\5\0"
    from fuzz.archives import stored

    assert read_with(npz.read, stored([("w.npy", raw)]))["w"].tolist() == [5]


def test_an_array_that_says_group_is_an_array(tmp_path: Path) -> None:
    """Zarr: the word in an attribute does not make a group, which would be left out without a word."""
    said = json.loads(sharded(None)[1:])
    said |= {"codecs": [{"name": "bytes"}], "attributes": {"kind": "group"}}
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "zarr.json").write_text(json.dumps(said))
    (tmp_path / "w" / "c").mkdir()
    (tmp_path / "w" / "c" / "0").write_bytes(struct.pack("<2f", 1, 2))
    (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    with open_checkpoint(tmp_path) as checkpoint:
        assert {name: str(spec) for name, spec in checkpoint.manifest.items()} == {"w": "f32[2]"}


@pytest.mark.parametrize("what", ["keys", "paths"])
def test_names_of_ocdbt_that_begin_alike_are_bounded(what: str) -> None:
    """A node of a few hundred kilobytes whose keys (or paths) would be hundreds of megabytes."""
    count, long = 100_000, 4000
    if what == "keys":
        texts = varints(count, *[long] * (count - 1), long, *[3] * (count - 1)) + b"k" * long
        body = b"\0" + varints(0) + texts + b"".join(f"{number:03x}".encode()[:3] for number in range(count - 1))
    else:
        table = varints(count, *[long] * (count - 1), long, *[1] * (count - 1), *[0] * count) + b"k" * (
            long + count - 1
        )
        body = b"\0" + table + varints(0)
    error = checked(load("ocdbt"), MARK.join([manifest(0, b"d/a"), body]))
    assert error is not None and "more than 67,108,864 bytes in all" in str(error)
    assert len(body) < 1_500_000


def test_keys_that_begin_alike_are_bounded() -> None:
    """TensorFlow's index: 600 kB whose keys, each half a megabyte and a little more than the one before, would be 1.5 GB."""
    long, value = b"k" * (1 << 19), tf_entry(7, (1,), 0, 3)
    key, said = header(1)
    entries = [varint(0) + varint(len(key)) + varint(len(said)) + key + said]
    entries.append(varint(0) + varint(len(long)) + varint(len(value)) + long + value)
    for number in range(3000):
        entries.append(varint(len(long)) + varint(2) + varint(len(value)) + struct.pack(">H", number) + value)
    data, meta = _block(b"".join(entries)), _block(b"")
    handle = varint(0) + varint(len(data) - 5)
    index = _block(varint(0) + varint(1) + varint(len(handle)) + b"\xff" + handle)
    footer = varint(len(data)) + varint(len(meta) - 5) + varint(len(data) + len(meta)) + varint(len(index) - 5)
    whole = data + meta + index + footer + bytes(FOOTER - len(MAGIC) - len(footer)) + MAGIC
    assert len(whole) < 600_000
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(FormatError, match="more than 4,000,000 entries, or 67,108,864 bytes of keys"):
        read_tf(source_of(whole, "m.index"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    assert time.process_time() - began < 20
