"""ONNX initialisers against the onnx library: raw, typed and external data, graphs inside nodes, packed elements; and lies."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.protobuf import packed_varints
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import ReadingConformance, whole

Array = np.ndarray[Any, Any]


def model_of(initialisers: Sequence[TensorProto], nodes: Sequence[Any] = (), **more: Any) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", [], [], initializer=list(initialisers), **more)
    return helper.make_model(graph, producer_name="tests")


def save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def bytes_of(path: Path, name: str) -> tuple[str, bytes]:
    """(spec, every byte) of one tensor, as isomorph reads it."""
    with open_checkpoint(path) as checkpoint:
        return str(checkpoint.manifest[name]), np.ascontiguousarray(whole(checkpoint, name)).tobytes()


class TestOnnx(ReadingConformance):
    format = "onnx"
    file_name = "model.onnx"
    tries = 300

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Array]) -> None:
        tensors = [
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for name, array in arrays.items()
        ]
        save(path, model_of(tensors))


class TestOnnxTyped(ReadingConformance):
    """The same, every number one of the wire's."""

    format = "onnx"
    file_name = "model.onnx"
    tries = 300

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Array]) -> None:
        tensors = [
            helper.make_tensor(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.reshape(-1))
            for name, array in arrays.items()
        ]
        save(path, model_of(tensors))


class TestOnnxExternal(ReadingConformance):
    """The same, in one file of external data."""

    format = "onnx"
    file_name = "model.onnx"
    tries = 200

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Array]) -> None:
        (path.parent / "model.data").unlink(missing_ok=True)
        tensors = [
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for name, array in arrays.items()
        ]
        onnx.save_model(
            model_of(tensors), str(path), save_as_external_data=True, location="model.data", size_threshold=0
        )

    def test_a_file_of_external_data_that_was_cut_is_refused(self, tmp_path: Path) -> None:
        """The tensor, the bytes that are needed and those that are there."""
        path = self.broken_base(tmp_path)
        data = tmp_path / "model.data"
        data.write_bytes(data.read_bytes()[:-1])
        with pytest.raises(
            FormatError,
            match=r"model\.onnx: initialiser `b`: bytes .* of model\.data are needed, which has .*truncated\?",
        ):
            open_checkpoint(path)


ALL_TYPES = [
    (TensorProto.FLOAT, "f32", "f4"), (TensorProto.UINT8, "u8", "u1"), (TensorProto.INT8, "i8", "i1"),
    (TensorProto.UINT16, "u16", "u2"), (TensorProto.INT16, "i16", "i2"), (TensorProto.INT32, "i32", "i4"),
    (TensorProto.INT64, "i64", "i8"), (TensorProto.BOOL, "bool", "?"), (TensorProto.FLOAT16, "f16", "f2"),
    (TensorProto.DOUBLE, "f64", "f8"), (TensorProto.UINT32, "u32", "u4"), (TensorProto.UINT64, "u64", "u8"),
    (TensorProto.COMPLEX64, "c64", "c8"), (TensorProto.COMPLEX128, "c128", "c16"),
    (TensorProto.BFLOAT16, "bf16", ml_dtypes.bfloat16), (TensorProto.FLOAT8E4M3FN, "f8e4m3", ml_dtypes.float8_e4m3fn),
    (TensorProto.FLOAT8E4M3FNUZ, "f8e4m3fnuz", ml_dtypes.float8_e4m3fnuz), (TensorProto.FLOAT8E5M2, "f8e5m2", ml_dtypes.float8_e5m2),
    (TensorProto.FLOAT8E5M2FNUZ, "f8e5m2fnuz", ml_dtypes.float8_e5m2fnuz),
    (TensorProto.FLOAT8E8M0, "f8e8m0", ml_dtypes.float8_e8m0fnu),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "ours", "numpy"), ALL_TYPES, ids=[ours for _, ours, _ in ALL_TYPES])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_every_dtype_is_read_as_the_library_reads_it(
    tmp_path: Path, kind: int, ours: str, numpy: Any, raw: bool
) -> None:
    """Both ways of storing it: the bytes are those of `onnx.numpy_helper`."""
    values = np.array([[0, 1, 2], [3, 1, 96]]).astype(numpy)
    if ours[0] in "if":
        values[0, 1] = -values[0, 1]
    tensor = helper.make_tensor("w", kind, (2, 3), values.tobytes() if raw else values.reshape(-1), raw=raw)
    path = save(tmp_path / "m.onnx", model_of([tensor]))
    assert bytes_of(path, "w") == (f"{ours}[2,3]", numpy_helper.to_array(tensor).astype(numpy).tobytes())


@pytest.mark.parametrize("kind", ["UINT4", "INT4", "FLOAT4E2M1", "UINT2", "INT2"])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_packed_elements_are_carried_in_their_bytes(tmp_path: Path, kind: str, raw: bool) -> None:
    """Four or two bits an element: both ways of storing them are the same bytes, with the shape in elements kept."""
    values = np.array([[0, 1, 1, 0], [1, 1, 0, 1], [0, 0, 0, 1]])
    plain = helper.make_tensor("w", getattr(TensorProto, kind), (3, 4), values.reshape(-1))
    data = bytes(plain.int32_data)
    tensor = helper.make_tensor("w", getattr(TensorProto, kind), (3, 4), data, raw=True) if raw else plain
    path = save(tmp_path / "m.onnx", model_of([tensor]))
    with open_checkpoint(path) as checkpoint:
        assert (3, 4) == checkpoint.manifest["w"].element_shape
        assert data == np.ascontiguousarray(whole(checkpoint, "w")).tobytes()


def test_elements_of_six_bits(tmp_path: Path) -> None:
    """Four in three bytes, as raw_data; as numbers of the wire, and where they end amid an item, they are refused."""
    kind, data = TensorProto.FLOAT6E2M3, bytes(range(9))
    tensor = helper.make_tensor("w", kind, (3, 4), data, raw=True)
    assert bytes_of(save(tmp_path / "m.onnx", model_of([tensor])), "w") == ("f6e2m3[3,1]", data)
    typed = save(tmp_path / "t.onnx", model_of([helper.make_tensor("w", kind, (3, 4), np.ones(12))]))
    with pytest.raises(FormatError, match="`w`: FLOAT6E2M3 as typed numbers, which are not read; save it as raw_data"):
        open_checkpoint(typed)
    odd = save(tmp_path / "o.onnx", model_of([helper.make_tensor("w", kind, (3, 2), data[:5], raw=True)]))
    with pytest.raises(FormatError, match="its 6 elements of 6 bits are no whole items of 4, which is not read"):
        open_checkpoint(odd)


def test_packed_elements_that_end_amid_a_byte_are_one_row(tmp_path: Path) -> None:
    """Three times three elements of four bits are five bytes."""
    tensor = helper.make_tensor("w", TensorProto.FLOAT4E2M1, (3, 3), np.ones(9))
    path = save(tmp_path / "m.onnx", model_of([tensor]))
    assert bytes_of(path, "w") == ("f4[5]", bytes(tensor.int32_data))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.manifest.notes == ("the elements of `w` end amid a byte: carried as one row of bytes",)


def test_numbers_that_were_not_packed_are_read(tmp_path: Path) -> None:
    """Each a field of its own, as older writers have it: floats, integers, dims."""
    floats = np.arange(6, dtype="f4")
    message = b"".join(b"\x25" + value.tobytes() for value in floats)  # field 4, four bytes
    message = b"\x0a\x02\x02\x03" + b"\x10\x01" + b"\x42\x01w" + message  # packed dims
    whole_model = (
        b"\x08\x08\x3a" + bytes([len(message) + 2]) + b"\x2a" + bytes([len(message)]) + message + b"\x42\x02\x10\x0d"
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(whole_model)
    assert np.array_equal(floats.reshape(2, 3), numpy_helper.to_array(onnx.load(str(path)).graph.initializer[0]))
    assert bytes_of(path, "w") == ("f32[2,3]", floats.tobytes())


def test_long_integers_are_decoded_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Varints of one to ten bytes, over the borders of chunks."""
    from isomorph.formats.onnx import typed as onnx_typed

    monkeypatch.setattr(onnx_typed, "CHUNK", 37)
    values = np.array([0, -1, 1 << 62, 127, 128, -(1 << 63), (1 << 63) - 1] * 40)
    tensor = TensorProto(name="w", data_type=TensorProto.INT64, dims=[280])
    tensor.int64_data.extend(int(value) for value in values)
    assert bytes_of(save(tmp_path / "m.onnx", model_of([tensor])), "w") == ("i64[280]", values.astype("<i8").tobytes())


def test_packed_varints() -> None:
    """The last one, when it is cut, is left for the next chunk; one without an end is an error."""
    values, taken = packed_varints(b"\x01\x96\x01\xff")
    assert ([1, 150], 3) == (values.tolist(), taken)
    with pytest.raises(ValueError, match="without an end"):
        packed_varints(b"\xff" * 11 + b"\x01")


def test_graphs_inside_nodes_and_functions(tmp_path: Path) -> None:
    """Their initialisers are named by node and attribute; constants are counted, sparse tensors and texts are leaves."""
    one = numpy_helper.from_array(np.ones(2, "f4"), "w")
    inner = helper.make_graph([], "then", [], [], initializer=[numpy_helper.from_array(np.zeros(3, "f4"), "w")])
    deeper = helper.make_graph(
        [helper.make_node("If", ["c"], [], name="", then_branch=inner)], "body", [], [], initializer=[one]
    )
    nodes = [
        helper.make_node("Constant", [], ["k"], value=one),
        helper.make_node("Loop", ["n"], [], name="loop", body=deeper),
    ]
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.ones(1, "f4"), "s"), numpy_helper.from_array(np.array([3])), [9]
    )
    text = TensorProto(name="labels", data_type=TensorProto.STRING, dims=[2], string_data=[b"cat", b"dog"])
    model = model_of([one, text], nodes, sparse_initializer=[sparse])
    model.functions.append(
        helper.make_function("dom", "fn", [], [], [helper.make_node("Loop", [], [], name="l", body=deeper)], [])
    )
    helper.set_model_props(model, {"author": "someone"})
    with open_checkpoint(save(tmp_path / "m.onnx", model)) as checkpoint:
        manifest = checkpoint.manifest
        assert [
            "w", "loop/body/w", "functions/fn/l/body/w", "loop/body/If_0/then_branch/w", "functions/fn/l/body/If_0/then_branch/w",
        ] == list(manifest)  # fmt: skip
        assert (3,) == manifest["loop/body/If_0/then_branch/w"].shape
        assert {"labels": "texts [2]", "s": "a sparse tensor [9]"} == manifest.leaves
        assert {"author": "someone"} == manifest.metadata
        assert ("1 constant tensor in a node of the graph is not read: initialisers are",) == manifest.notes


def test_external_data_in_many_files_and_below_the_folder(tmp_path: Path) -> None:
    """A file for each tensor, one of them in a folder beside the model; all are found by the model alone."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    arrays = {f"w{number}": np.full((4, 4), number, "f4") for number in range(3)}
    tensors = []
    for name, array in arrays.items():
        tensor = numpy_helper.from_array(array, name)
        onnx.external_data_helper.set_external_data(tensor, f"deep/er/{name}.bin", offset=0, length=64)
        (tmp_path / f"deep/er/{name}.bin").write_bytes(array.tobytes())
        tensor.ClearField("raw_data")
        tensors.append(tensor)
    path = save(tmp_path / "model.onnx", model_of(tensors))
    assert np.array_equal(numpy_helper.to_array(onnx.load(str(path)).graph.initializer[1]), arrays["w1"])
    with open_checkpoint(tmp_path) as checkpoint:  # the folder
        assert 4 == len(checkpoint.paths)
        for name, array in arrays.items():
            assert array.tobytes() == whole(checkpoint, name).tobytes()
        (tmp_path / "deep/er/w2.bin").write_bytes(bytes(64))
        with pytest.raises(OSError, match=r"w2\.bin: changed while it was read"):
            checkpoint.check_unchanged()


def test_more_files_than_may_be_open_is_a_message(tmp_path: Path) -> None:
    """torch writes a file for each tensor of a large model; the limit is said to be one, and nothing stays open."""
    tensors = []
    for number in range(40):
        made = TensorProto(name=f"w{number}", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        made.external_data.add(key="location", value=f"w{number}.bin")
        (tmp_path / f"w{number}.bin").write_bytes(bytes(4))
        tensors.append(made)
    path = save(tmp_path / "m.onnx", model_of(tensors))
    before = len(list(Path("/proc/self/fd").iterdir()))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 30, limits[1]))
    try:
        with pytest.raises(FormatError, match=r"too many files are open\. Raise the limit first: ulimit -n"):
            open_checkpoint(path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert before == len(list(Path("/proc/self/fd").iterdir()))
    with open_checkpoint(path) as checkpoint:
        assert 40 == len(checkpoint.manifest)


def external(path: Path, **said: Any) -> Path:
    """A model whose tensor `w`, f32 [4], lies where `said` says."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in said.items():
        tensor.external_data.add(key=key, value=str(value))
    return save(path, model_of([tensor]))


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret",
        "a/../../secret",
        "a//b",
        ".",
        "..",
        "C:\\x",
        "a\\..\\b",
        "x\x1b[31m",
        "a/" * 40 + "b",
        "\x00",
    ],
)
def test_external_data_outside_of_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    """By its words alone, whether it is there or not."""
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "in").mkdir()
    path = external(tmp_path / "in" / "m.onnx", location=location)
    with pytest.raises(
        UnsafeError, match=r"`w`: its data lie in .*, which is no file below the model's folder\. Nothing was read"
    ):
        open_checkpoint(path)


@pytest.mark.parametrize("link", ["/etc/passwd", "../secret", "sub/../../secret"])
def test_external_data_behind_a_link_are_refused(tmp_path: Path, link: str) -> None:
    """The file a link out of the folder, or a folder on the way a link."""
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "in" / "d.bin").symlink_to(link)
    with pytest.raises(UnsafeError, match=r"d\.bin: a link to .*, out of its folder"):
        open_checkpoint(external(tmp_path / "in" / "m.onnx", location="d.bin"))
    (tmp_path / "in" / "way").symlink_to("..")
    with pytest.raises(UnsafeError, match=r"in/way: a link to a folder, which is not followed"):
        open_checkpoint(external(tmp_path / "in" / "m.onnx", location="way/secret"))


def test_external_data_in_the_hubs_cache_are_read(tmp_path: Path) -> None:
    """`snapshots/x/onnx/model.onnx` and its data are links to blobs."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "x" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / ("a" * 40)).write_bytes(np.arange(4, dtype="f4").tobytes())
    external(blobs / ("b" * 64), location="model.onnx_data", offset=0, length=16)
    (snapshot / "model.onnx_data").symlink_to("../../../blobs/" + "a" * 40)
    (snapshot / "model.onnx").symlink_to("../../../blobs/" + "b" * 64)
    for path in (snapshot, snapshot / "model.onnx"):
        assert np.arange(4, dtype="f4").tobytes() == bytes_of(path, "w")[1]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "its data are external, and no file is named"),
        ({"location": "d.bin", "offset": -4}, "the offset '-4' of its data is no number of bytes"),
        ({"location": "d.bin", "offset": "1e3"}, "the offset '1e3' of its data is no number"),
        ({"location": "d.bin", "offset": "9" * 30}, "is no number of bytes"),
        ({"location": "d.bin", "offset": "٣"}, "is no number of bytes"),
        ({"location": "d.bin", "offset": 1 << 62, "length": 16}, "of d.bin are needed, which has 20: truncated?"),
        ({"location": "d.bin", "offset": 8, "length": 16}, "bytes 8 to 24 of d.bin are needed, which has 20"),
        ({"location": "d.bin", "offset": 4, "length": 12}, r"f32\[4\] takes 16 bytes, and 12 are given to it in d.bin"),
        ({"location": "d.bin"}, "takes 16 bytes, and 20 are given"),
        ({"location": "none.bin", "length": 16}, "none.bin: no such file"),
        ({"location": "folder", "length": 16}, "folder: a folder, not a file of weights"),
        ({"location": "pipe", "length": 16}, "pipe: a named pipe, not a file of weights"),
        ({"location": "d.bin/x", "length": 16}, "a part of the path is a file, not a folder"),
    ],
)  # fmt: skip
def test_external_data_that_lie_are_refused(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    """Offset and length are numbers that fit the tensor and the file; the file is a regular one."""
    (tmp_path / "d.bin").write_bytes(bytes(20))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match=message):
        open_checkpoint(external(tmp_path / "m.onnx", **said))


def test_a_checksum_is_said_not_to_be_compared(tmp_path: Path) -> None:
    """Nothing silent: it is of the whole file, which a header is not."""
    (tmp_path / "d.bin").write_bytes(bytes(20))
    path = external(tmp_path / "m.onnx", location="./d.bin", offset=4, length=16, checksum="0" * 40)
    with open_checkpoint(path) as checkpoint:
        assert "1 tensors in files of external data carry a checksum" in checkpoint.manifest.notes[0]


def tensor(**said: Any) -> TensorProto:
    made = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2])
    for key, value in said.items():
        if isinstance(value, list):
            made.ClearField(key)
            getattr(made, key).extend(value)
        elif key == "segment":
            made.segment.CopyFrom(value)
        else:
            setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([tensor(raw_data=bytes(7))], r"initialiser `w`: f32\[2\] takes 8 bytes, its raw_data are 7"),
        ([tensor(float_data=[1.0])], r"f32\[2\] takes 8 bytes, its float_data are 4"),
        ([tensor(data_type=6, int32_data=[1])], r"i32\[2\] has 2 elements, its int32_data take 1 bytes"),
        ([tensor(int32_data=[1, 2])], r"f32\[2\] is held in float_data, and it has int32_data"),
        ([tensor(raw_data=bytes(8), float_data=[1, 2])], "its elements are stored in two ways"),
        ([tensor()], "without elements: truncated"),
        ([tensor(raw_data=bytes(8), dims=[-2])], r"the shape \[-2\] has a negative size"),
        ([tensor(dims=[0, 1 << 62, 4])], "is beyond any memory"),
        ([tensor(dims=[1 << 62, 1 << 62])], "is beyond any memory"),
        ([tensor(dims=[1] * 65, raw_data=bytes(4))], "more than 64"),
        ([tensor(data_type=77)], "of the unknown data type 77, which is not read"),
        ([tensor(data_location=1)], "its data are external, and no file is named"),
        ([tensor(name="", raw_data=bytes(8))], "an initialiser without a name"),
        ([tensor(raw_data=bytes(8)), tensor(raw_data=bytes(8))], "two initialisers have the name `w`"),
        ([tensor(raw_data=bytes(8), segment=TensorProto.Segment(begin=0, end=2))], "only a segment of a tensor"),
    ],
)  # fmt: skip
def test_a_tensor_that_lies_is_refused_by_name(tmp_path: Path, made: list[TensorProto], message: str) -> None:
    """Bytes are as many as the shape says, stored in one way, under one name."""
    with pytest.raises(FormatError, match=message):
        open_checkpoint(save(tmp_path / "m.onnx", model_of(made)))


def test_typed_numbers_that_are_too_many_are_refused_when_read(tmp_path: Path) -> None:
    """How many there are is known once they are read: never more than the shape says."""
    path = save(tmp_path / "m.onnx", model_of([tensor(data_type=7, int64_data=[1, 2, 3, 4])]))
    with open_checkpoint(path) as checkpoint, pytest.raises(FormatError, match="holds more than the 16 bytes declared"):
        whole(checkpoint, "w")


def message(number: int, payload: bytes) -> bytes:
    """A field of bytes."""
    sizes, rest = [], len(payload)
    while rest > 0x7F:
        sizes.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([number << 3 | 2, *sizes, rest]) + payload


OPSET = b"\x42\x02\x10\x0d"


def test_graphs_in_graphs_without_end_are_given_up(tmp_path: Path) -> None:
    """A thousand levels, each a node with a graph."""
    graph = b""
    for _ in range(1000):
        graph = message(1, message(5, message(6, graph)))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08" + message(7, graph) + OPSET)
    with pytest.raises(FormatError, match="graphs in graphs, deeper than 64"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"\x08\x08\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "truncated: field 7 takes"),
        (b"\x08\x08\x3a\x00", "without its operator set"),
        (b"\x08\x08" + OPSET, "without a graph"),
        (b"\x08\x08\x3a\x00\x3a\x00" + OPSET, "a second graph"),
        (b"\x08" + b"\xff" * 20, "a number without an end"),
        (b"\x0b\x08", "unknown wire type 3"),
        (b"\x00\x00", "a field of the number 0"),
        (b"\x0a\x00", "field 1 of the model has wire type 2"),
        (b"\x08\x08\x3a\x02\x2a\x05" + OPSET, "truncated: field 5 takes 5 bytes, what it is in ends after 0"),
        (b"\x08\x08" + message(7, message(5, message(8, b"\xff\xfe"))) + OPSET, "a text that is not UTF-8"),
        (b"\x08\x08" + message(7, message(5, message(8, b"x" * 70_000))) + OPSET, "a text of 70,000 bytes"),
        (b"\x08\x08" + message(7, message(5, message(9, b"") * 2)) + OPSET, "two raw_data"),
    ],
)
def test_a_broken_message_is_one_clear_error(tmp_path: Path, raw: bytes, problem: str) -> None:
    """The suffix says that it should be one; the error says where it breaks."""
    path = tmp_path / "m.onnx"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=problem):
        open_checkpoint(path)


def test_two_colons_are_one(tmp_path: Path) -> None:
    """`onnx::MatMul_7` is what torch calls a product's weights; two colons mean an input in the notation. Names stay apart."""
    one, two = (numpy_helper.from_array(np.ones(2, "f4"), name) for name in ("onnx::MatMul_7", "onnx:MatMul_7"))
    with open_checkpoint(save(tmp_path / "m.onnx", model_of([one]))) as checkpoint:
        assert ["onnx:MatMul_7"] == list(checkpoint.manifest)
        assert ("`::` is read as `:` in 1 of the names: two colons are those of an input",) == checkpoint.manifest.notes
    with pytest.raises(FormatError, match="two initialisers have the name `onnx:MatMul_7`"):
        open_checkpoint(save(tmp_path / "m.onnx", model_of([one, two])))


def test_onnx_is_known_by_its_content(tmp_path: Path) -> None:
    """Under any name; and what only begins like it is not taken for it."""
    path = save(tmp_path / "weights.v2", model_of([numpy_helper.from_array(np.ones(2, "f4"), "w")]))
    assert ("f32[2]", np.ones(2, "f4").tobytes()) == bytes_of(path, "w")
    path.write_bytes(path.read_bytes() + b"\xff")
    with pytest.raises(FormatError, match="not a checkpoint of a known format"):
        open_checkpoint(path)
