"""Paddle's files against Paddle (in a process of its own: it is slow to start and prints), and pickles of numpy arrays."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isomorph.errors import FormatError
from isomorph.formats.paddle import Writer
from isomorph.formats.registry import open_checkpoint
from isomorph.tensors import dtype, spec
from isomorph.testing.formats import FormatConformance, random_bits, tensors_of, whole, write_checkpoint

DTYPES = ("bool", "u8", "u16", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64", "c64", "c128")


class TestPickledArrays(FormatConformance):
    """A pickle of a dict of arrays; Paddle adds nothing to it that matters here."""

    format = "paddle"
    file_name = "model_state.pdparams"
    dtypes = DTYPES
    aligns = False

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        loaded: Mapping[str, Any] = pickle.loads(path.read_bytes())
        return loaded

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        path.write_bytes(pickle.dumps(dict(arrays), protocol=4))


class TestProtocol2(TestPickledArrays):
    """Protocol 2 writes bytes as a text, which is decoded."""

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        path.write_bytes(pickle.dumps(dict(arrays), protocol=2))


class TestProtocol3(TestPickledArrays):
    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        path.write_bytes(pickle.dumps(dict(arrays), protocol=3))


class TestProtocol5(TestPickledArrays):
    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        path.write_bytes(pickle.dumps(dict(arrays), protocol=5))


ORACLE = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np, paddle
folder = sys.argv[1]
loaded = paddle.load(folder + "/ours.pdparams")
kinds = {name: str(value.dtype) for name, value in loaded.items()}
assert kinds["bf16"] == "paddle.bfloat16" and kinds["f32"] == "paddle.float32", kinds
np.savez(folder + "/loaded.npz", **paddle.load(folder + "/ours.pdparams", return_numpy=True))
layer = paddle.nn.Linear(3, 4)
state = layer.state_dict()
tensor = paddle.to_tensor([[1.0, 2.0], [3.0, 4.0]])
for protocol in (2, 3, 4):
    paddle.save(state, f"{folder}/state{protocol}.pdparams", protocol=protocol)
    nested = {"model": {"w": tensor}, "step": 3, "list": [tensor, tensor.astype("bfloat16")]}
    paddle.save(nested, f"{folder}/nested{protocol}.pdparams", protocol=protocol)
np.savez(folder + "/state.npz", **{name: value.numpy() for name, value in state.items()})
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our file as Paddle loaded it, and files that Paddle saved."""
    made = tmp_path_factory.mktemp("paddle")
    tensors = {name: (dtype(name), random_bits(dtype(name), (2, 3), index)) for index, name in enumerate(DTYPES)}
    tensors["scalar"] = (dtype("f32"), random_bits(dtype("f32"), (), 1))
    tensors["large"] = (dtype("f32"), random_bits(dtype("f32"), (300, 300), 2))
    write_checkpoint(made / "ours.pdparams", tensors)
    result = subprocess.run(
        [sys.executable, "-c", ORACLE, str(made)], capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return made


def test_paddle_loads_what_we_write(folder: Path) -> None:
    """Every dtype that it has, bit for bit; bfloat16 comes back as bfloat16."""
    with np.load(folder / "loaded.npz") as loaded, open_checkpoint(folder / "ours.pdparams") as ours:
        assert list(ours.manifest) == list(loaded)
        assert {name: str(ours.manifest[name].dtype) for name in ("bf16", "u16")} == {"bf16": "bf16", "u16": "u16"}
        for name in ours.manifest:
            assert loaded[name].shape == ours.manifest[name].shape
            assert loaded[name].tobytes() == whole(ours, name).tobytes()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_we_read_what_paddle_saves(folder: Path, protocol: int) -> None:
    """State dicts and nested objects, in each of its protocols; its own table of names is a leaf."""
    with np.load(folder / "state.npz") as expected, open_checkpoint(folder / f"state{protocol}.pdparams") as state:
        assert list(expected) == list(state.manifest)
        for name in expected:
            assert expected[name].tobytes() == whole(state, name).tobytes()
        assert state.manifest.leaves["StructuredToParameterName@@"] == "Paddle's own names of 2 parameters"
    with open_checkpoint(folder / f"nested{protocol}.pdparams", inner="") as nested:
        assert {key: str(value.dtype) for key, value in nested.manifest.items()} == {
            "model/w": "f32",
            "list/0": "f32",
            "list/1": "u16",
        }
        assert np.array([[1, 2], [3, 4]], "f4").tobytes() == whole(nested, "model/w").tobytes()
        assert dict(nested.manifest.leaves) == {"step": "3"}
        assert any("bfloat16 as uint16" in note for note in nested.manifest.notes)


def test_static_graph_tensors_are_matched(tmp_path: Path) -> None:
    """`eval('data', {'data': array})` is how a static graph writes an array."""

    class Static:
        def __reduce__(self) -> Any:
            return eval, ("data", {"data": np.arange(3, dtype="f4")})

    path = tmp_path / "static.pdparams"
    for protocol in (2, 3, 4):
        path.write_bytes(pickle.dumps({"w": Static()}, protocol=protocol))
        with open_checkpoint(path) as checkpoint:
            assert np.arange(3, dtype="f4").tobytes() == whole(checkpoint, "w").tobytes()


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_arrays_cut_into_pieces_are_read_as_one(protocol: int, tmp_path: Path) -> None:
    """Protocols 2 and 3 cut large arrays into `name@@.i`; they are one tensor again, at their place, whole and in part."""
    array = np.arange(60, dtype="i4").reshape(3, 4, 5)
    flat = array.flatten()
    value = {
        "before": np.ones(2, "f4"),
        "w@@.0": flat[:23],
        "w@@.1": flat[23:46],
        "w@@.2": flat[46:],
        "UnpackBigParamInfor@@": {"w": {"OriginShape": (3, 4, 5), "slices": ["w@@.0", "w@@.1", "w@@.2"]}},
    }
    path = tmp_path / "pieces.pdparams"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    with open_checkpoint(path) as checkpoint:
        assert {"before": spec("f32[2]"), "w": spec("i32[3,4,5]")} == dict(checkpoint.manifest)
        assert checkpoint.run("w") is None
        assert array.tobytes() == whole(checkpoint, "w").tobytes()
        assert array[:, 1, ::2].tobytes() == checkpoint.fetch("w", 5, (3, 3), (20, 2)).tobytes()


def test_pieces_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """A piece that is missing, of another dtype, or too short is an error that names the tensor."""
    path = tmp_path / "pieces.pdparams"
    pieces = {"w@@.0": np.ones(3, "f4"), "w@@.1": np.ones(3, "f4")}
    for shape, change, message in (
        ((2, 4), {}, "`w`.*6 elements"),
        ((2, 3), {"w@@.1": np.ones(3, "f8")}, "`w`.*dtype"),
        ((2, 3), {"w@@.1": "x"}, "`w`.*w@@.1"),
    ):
        info = {"w": {"OriginShape": shape, "slices": ["w@@.0", "w@@.1"]}}
        path.write_bytes(pickle.dumps({**pieces, **change, "UnpackBigParamInfor@@": info}, protocol=3))
        with pytest.raises(FormatError, match=message):
            open_checkpoint(path)


def test_dtypes_that_paddle_lacks_are_named() -> None:
    """float8 and wide unsigned integers are refused before anything is written, all together."""
    with pytest.raises(FormatError, match=r"`a` f8e4m3\[2\], `b` u32\[1\].*Cast them"):
        Writer().check({"a": spec("f8e4m3[2]"), "b": spec("u32[1]"), "c": spec("f32[1]")})


def test_large_arrays_are_not_read_to_list_them(tmp_path: Path) -> None:
    """Of a file with large arrays only the opcodes between them are read."""
    path = tmp_path / "large.pdparams"
    write_checkpoint(path, tensors_of({f"w{index}": np.zeros((600, 1000), "f4") for index in range(4)}))
    from isomorph.formats import paddle
    from isomorph.formats.source import Source

    class Counting(Source):
        total = 0

        def fill(self, offset: int, buffer: memoryview) -> None:
            Counting.total += len(buffer)
            super().fill(offset, buffer)

    source = Counting(path)
    assert len(paddle.read(source).tensors) == 4
    source.close()
    assert Counting.total < 200_000 < path.stat().st_size


def test_protocol_1_is_known_by_its_shape(tmp_path: Path) -> None:
    """Pickles of protocol 1 have no mark at their beginning; arrays in them are read like those of protocol 2."""
    path = tmp_path / "old.pdparams"
    array = np.arange(200, dtype="f4").reshape(4, 50)
    path.write_bytes(pickle.dumps({"w": array}, protocol=1))
    with open_checkpoint(path) as checkpoint:
        assert array.tobytes() == whole(checkpoint, "w").tobytes()


def test_a_tensor_by_itself_is_called_tensor(tmp_path: Path) -> None:
    """paddle.save of a tensor pickles its name and its array."""
    path = tmp_path / "alone.pdparams"
    array = np.arange(200, dtype="f4").reshape(4, 50)
    path.write_bytes(pickle.dumps(("generated_tensor_0", array), protocol=4))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.manifest) == ["tensor"]
        assert array.tobytes() == whole(checkpoint, "tensor").tobytes()
