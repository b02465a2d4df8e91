"""Flax's msgpack against the msgpack library and against files that flax wrote: nested maps, arrays in pieces, scalars; and lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import pytest

import isomorph
from isomorph.cli.app import run
from isomorph.errors import FormatError
from isomorph.formats.base import Literal
from isomorph.formats.flax import read as flax_msgpack
from isomorph.formats.flax import write as flax_write
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.tensors import DTYPES, OPAQUE_DTYPES, dtype, spec
from isomorph.testing.formats import FormatConformance, random_bits, tensors_of, whole, write_checkpoint

DATA = Path(__file__).parent / "data"
"""flax 0.12.8 wrote these: `to_bytes` of a train state with arrays in pieces (its limit set to 256 bytes), and of parameters."""

BY_NAME = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
}


def packed(array: Any) -> bytes:
    """An array as flax packs it."""
    whole: bytes = msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True)
    return whole


def default(value: Any) -> Any:
    """Flax's extension types."""
    if isinstance(value, np.ndarray):
        return msgpack.ExtType(1, packed(value))
    if isinstance(value, np.generic):
        return msgpack.ExtType(3, packed(np.asarray(value)))
    assert isinstance(value, complex)
    return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))


def unpacked(code: int, data: bytes) -> Any:
    assert code == 1
    shape, name, raw = msgpack.unpackb(data)
    return np.frombuffer(raw, BY_NAME.get(name, name)).reshape(shape)


def dump(tree: Any) -> bytes:
    raw: bytes = msgpack.packb(tree, default=default, strict_types=True)
    return raw


def nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *outer, last = name.split("/")
        inner = tree
        for key in outer:
            inner = inner.setdefault(key, {})
        inner[last] = array
    return tree


class TestFlax(FormatConformance):
    format = "flax"
    file_name = "flax_model.msgpack"
    aligns = False

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        loaded: dict[str, Any] = msgpack.unpackb(path.read_bytes(), ext_hook=unpacked)
        return loaded

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        path.write_bytes(dump(nested(arrays)))


def read(tmp_path: Path, raw: bytes) -> Any:
    (tmp_path / "m.msgpack").write_bytes(raw)
    return open_checkpoint(tmp_path / "m.msgpack", inner="")


def test_what_flax_wrote_is_read_as_flax_restores_it(tmp_path: Path) -> None:
    """bf16 and f8, numpy scalars, pieces, lists as numbered maps: every dtype, shape and bit as `msgpack_restore` gives them."""
    restored = json.loads((DATA / "flax_state.json").read_text())
    with open_checkpoint(DATA / "flax_state.msgpack", inner="") as checkpoint:
        assert set(restored) == set(checkpoint.manifest)
        for name, (kind, shape, bits) in restored.items():
            assert (dtype(kind), tuple(shape)) == (checkpoint.manifest[name].dtype, checkpoint.manifest[name].shape), (
                name
            )
            assert bits == np.ascontiguousarray(whole(checkpoint, name)).tobytes().hex(), name
        assert checkpoint.manifest.leaves == {"count": "7", "z": "complex number"}


def test_what_flax_wrote_is_written_again_byte_for_byte(tmp_path: Path) -> None:
    """From the tensors alone."""
    isomorph.convert(DATA / "flax_params.msgpack", tmp_path / "out.msgpack")
    assert (DATA / "flax_params.msgpack").read_bytes() == (tmp_path / "out.msgpack").read_bytes()


@pytest.mark.parametrize("name", [*DTYPES, *OPAQUE_DTYPES])
@pytest.mark.parametrize("nbytes", [0, 1, 3, 5, 31, 200, 250, 260, 65_500, 65_600])
def test_bytes_are_those_of_the_library(name: str, nbytes: int, tmp_path: Path) -> None:
    """Every width of a length, of a key and of a map is the one that the msgpack library chooses."""
    kind = dtype(name)
    bits = random_bits(kind, (nbytes // kind.nbytes,), nbytes)
    named = next(key for key, value in flax_msgpack.NAMES.items() if value == kind)
    array = bits.view(BY_NAME.get(named, named))
    key = "k" * (nbytes % 300 + 1)
    tensors = {f"{key}/w": array, **{f"{key}/{number}": array[:1] for number in range(nbytes % 40)}}
    write_checkpoint(tmp_path / "m.msgpack", {name: (kind, each.view(kind.bits)) for name, each in tensors.items()})
    assert dump(nested(tensors)) == (tmp_path / "m.msgpack").read_bytes()


def test_shapes_of_every_width_are_those_of_the_library(tmp_path: Path) -> None:
    """Sizes beyond 7, 8, 16 and 32 bits, and more than fifteen of them."""
    for shape in [(127,), (128,), (255, 1), (256,), (65_536, 0), (0, 1 << 32), (1,) * 16, (1 << 16, 0, 1 << 20)]:
        array = np.zeros(shape, "u1")
        write_checkpoint(tmp_path / "m.msgpack", tensors_of({"w": array}))
        assert dump({"w": array}) == (tmp_path / "m.msgpack").read_bytes()


def test_scalars_numbers_and_texts_are_known_apart(tmp_path: Path) -> None:
    """A numpy scalar is a tensor of rank 0; Python's numbers, texts, bytes and complex numbers are leaves."""
    tree = {
        "step": 7, "rate": -0.5, "name": "adam", "none": None, "raw": b"12", "z": 1 + 2j, "none_at_all": {}, "flags": [1, 3],
        "scale": np.float32(2.5), "rank0": np.array(3, "i8"), "long": "x" * 70_000,
    }  # fmt: skip
    with read(tmp_path, dump(tree)) as checkpoint:
        manifest = checkpoint.manifest
        assert {name: str(spec) for name, spec in manifest.items()} == {"scale": "f32[]", "rank0": "i64[]"}
        assert whole(checkpoint, "scale").view("f4") == 2.5
        assert dict(manifest.leaves) == {
            "step": "7", "rate": "-0.5", "name": "'adam'", "none": "None", "raw": "2 bytes", "z": "complex number",
            "none_at_all": "an empty dict", "flags": "[1, 3]", "long": "70000 bytes",
        }  # fmt: skip


def test_lists_and_numbered_keys_are_parts_of_names(tmp_path: Path) -> None:
    """A list counts its items; a key may be a number."""
    array = np.arange(3.0)
    with read(tmp_path, dump({"layers": [{"w": array}, {"w": array}], "by": {5: array, -1: array}})) as checkpoint:
        assert list(checkpoint.manifest) == ["layers/0/w", "layers/1/w", "by/5", "by/-1"]


def test_an_array_alone_and_a_list_of_arrays_are_read(tmp_path: Path) -> None:
    """What is serialised may be one array."""
    array = np.arange(6.0).reshape(2, 3)
    with read(tmp_path, dump(array)) as checkpoint:
        assert np.array_equal(array, whole(checkpoint, "tensor").view("f8"))


def test_a_wrapper_of_all_parameters_is_entered(tmp_path: Path) -> None:
    """`{"params": {…}}` is a container like any other: entered when it holds the tensors itself, or by `#params`."""
    array = np.arange(3.0)
    (tmp_path / "m.msgpack").write_bytes(dump({"params": {"w": array, "b": array}, "step": 3}))
    with open_checkpoint(tmp_path / "m.msgpack") as checkpoint:
        assert list(checkpoint.manifest) == ["w", "b"]
    (tmp_path / "m.msgpack").write_bytes(dump({"params": {"a": {"w": array}}, "opt": {"a": {"w": array}}}))
    with open_checkpoint(f"{tmp_path}/m.msgpack#params") as checkpoint:
        assert list(checkpoint.manifest) == ["a/w"]


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_an_array_in_pieces_is_one_tensor(cuts: int, tmp_path: Path) -> None:
    """How flax cuts arrays of more than 1 GiB: read as a whole, and any box of it."""
    array = np.random.default_rng(0).standard_normal((6, 35)).astype("f4")
    pieces = np.array_split(array.reshape(-1), cuts)
    said = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 6, "1": 35},
        "chunks": {str(number): piece for number, piece in enumerate(pieces)},
    }
    with read(tmp_path, dump({"a": {"big": said, "w": np.zeros(2)}})) as checkpoint:
        assert [str(spec) for spec in checkpoint.manifest.values()] == ["f32[6,35]", "f64[2]"]
        assert np.array_equal(array, whole(checkpoint, "a/big").view("f4"))
        assert np.array_equal(array[::2, 3], checkpoint.fetch("a/big", 3, (3,), (70,)).copy().view("f4"))
    isomorph.convert(tmp_path / "m.msgpack", tmp_path / "out.safetensors")
    with open_checkpoint(tmp_path / "out.safetensors") as checkpoint:
        assert np.array_equal(array, whole(checkpoint, "big").view("f4"))


def test_shards_are_written_and_read_with_their_index(tmp_path: Path) -> None:
    """`flax_model.msgpack.index.json` and its shards are named as transformers names them."""
    tensors = tensors_of({f"a/layer_{number}/w": np.full((100,), number, "f4") for number in range(5)})
    write_checkpoint(tmp_path / "out", tensors, format="flax", max_shard_size=1000)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "flax_model-00001-of-00003.msgpack", "flax_model-00002-of-00003.msgpack", "flax_model-00003-of-00003.msgpack",
        "flax_model.msgpack.index.json",
    ]  # fmt: skip
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert list(checkpoint.manifest) == list(tensors)


ONE = np.arange(2, dtype="f4")
EXT = msgpack.ExtType


def array(shape: Any = (2,), name: Any = "float32", raw: Any = bytes(8)) -> Any:
    return EXT(1, msgpack.packb((shape, name, raw)))


def chunked(**changes: Any) -> Any:
    said: dict[str, Any] = {
        "__msgpack_chunked_array__": True,
        "shape": {"0": 2, "1": 2},
        "chunks": {"0": ONE, "1": ONE},
    }
    return {**said, **changes}


REFUSED: dict[str, tuple[bytes, str]] = {
    "a shape larger than its bytes": (dump({"w": array((1 << 40,))}), "an array f32[1099511627776] of 4,398,046,511,104 bytes holds 8"),
    "a shape that wraps round": (dump({"w": array((1 << 62, 1 << 62, 16))}), "bytes holds 8 (`w`, byte 6)"),
    "a shape beyond any memory": (dump({"w": array((1 << 62, 1 << 62, 0), raw=b"")}), "beyond any memory"),
    "a negative size": (dump({"w": array((-2,))}), "shape is not a list of sizes"),
    "a size that is true": (dump({"w": array((True, 2))}), "shape is not a list of sizes"),
    "a shape that is a number": (dump({"w": array(2)}), "shape is not a list of at most 64 sizes"),
    "a shape of a thousand sizes": (dump({"w": array((1,) * 1000)}), "shape is not a list of at most 64 sizes"),
    "an unknown dtype": (dump({"w": array(name="float31")}), "dtype float31, which is not read"),
    "objects": (dump({"w": array(name="object")}), "dtype object, which is not read"),
    "half bytes": (dump({"w": array(name="int4")}), "dtype int4, which is not read"),
    "bytes that are text": (dump({"w": array(raw="12345678")}), "not (shape, dtype, bytes)"),
    "more than three parts": (dump({"w": EXT(1, msgpack.packb(((2,), "float32", b"12345678", 4)))}), "not (shape, dtype, bytes)"),
    "bytes after the three parts": (dump({"w": EXT(1, msgpack.packb(((2,), "float32", b"12345678")) + b"\0")}), "not (shape, dtype, bytes)"),
    "an array that leaves its extension": (
        dump({"w": EXT(1, msgpack.packb(((2,), "float32", ONE.tobytes()))[:-1]), "x": 1}), "bytes that are not all in the file"),
    "an extension in nothing": (dump({"w": EXT(1, b"")}), "it ends in the middle (truncated) (`w`, byte 6)"),
    "an extension in nothing, and more after it": (dump({"w": EXT(1, b""), "x": 1}), "longer than its own length says"),
    "a map in an array": (dump({"w": EXT(1, msgpack.packb(((2,), {"a": 1}, b"12345678")))}), "holds more than"),
    "a key twice": (b"\x82\xa1a\x01\xa1a\x02", "the key `a` twice in one map (byte 4)"),
    "a key that is a map": (b"\x82\xa1a\x01\x81\x01\x02\x03", "neither text nor a number"),
    "a key that is a list": (b"\x82\xa1a\x01\x90\x02", "neither text nor a number"),
    "one name by two ways": (dump({"a/b": ONE, "a": {"b": ONE}}), "two entries have the name `a/b`"),
    "text that is not UTF-8": (b"\x81\xa2\xff\xfe\x01", "a text that is not UTF-8"),
    "bytes after the end": (dump({"w": ONE}) + b"\xc0", "1 bytes follow its end"),
    "a second map": (dump({"w": ONE}) * 2, "bytes follow its end"),
    "a reserved byte": (b"\x81\xa1a\xc1", "the byte 0xc1 begins no value"),
    "a map of 2**32 entries": (b"\xdf\xff\xff\xff\xff\xa1a\x01", "a map or list of 4,294,967,295 items"),
    "a list of 2**32 items": (b"\x81\xa1a\xdd\xff\xff\xff\xff\x01", "a map or list of 4,294,967,295 items"),
    "a text of 2**32 bytes": (b"\x81\xa1a\xdb\xff\xff\xff\xff", "4,294,967,295 bytes that are not all in the file"),
    "bytes of 2**32 bytes": (b"\x81\xa1a\xc6\xff\xff\xff\xff", "4,294,967,295 bytes that are not all in the file"),
    "an extension of 2**32 bytes": (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "4,294,967,295 bytes that are not all in the file"),
    "maps in maps": (b"\x81\xa1a" * 200_000 + b"\x01", "maps nested deeper than 100"),
    "lists in lists": (b"\x81\xa1a" + b"\x91" * 200_000 + b"\x01", "maps nested deeper than 100"),
    "five million values": (b"\x81\xa1a\xdd" + (5_000_000).to_bytes(4, "big") + bytes(5_000_000), "more than 4,000,000 values"),
    "pieces without a shape": (dump({"w": {"__msgpack_chunked_array__": True, "chunks": {"0": ONE}}}), "its shape and its chunks"),
    "pieces that are too few": (dump({"w": chunked(chunks={"0": ONE})}), "f32[2,2] of 16 bytes whose pieces hold 8"),
    "pieces of a shape that wraps": (dump({"w": chunked(shape={"0": 1 << 62, "1": 1 << 62})}), "whose pieces hold 16"),
    "pieces that are numbers": (dump({"w": chunked(chunks={"0": 1, "1": 2})}), "of which one is no flat array"),
    "pieces of two dtypes": (dump({"w": chunked(chunks={"0": ONE, "1": ONE.astype("f8")})}), "of more than one dtype"),
    "pieces that are not counted": (dump({"w": chunked(chunks={"0": ONE, "2": ONE})}), "its shape and its chunks"),
    "pieces and more": (dump({"w": chunked(more=1)}), "its shape and its chunks"),
    "no piece": (dump({"w": chunked(chunks={})}), "of which one is no flat array"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_msgpack_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    """Lengths are compared with the file, shapes with their bytes, before anything of that size exists."""
    raw, expected = REFUSED[case]
    with pytest.raises(FormatError) as caught:
        read(tmp_path, raw)
    assert expected in str(caught.value) and "m.msgpack" in str(caught.value)


def test_texts_are_held_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of texts alone does not fill the memory: beyond the bound they stay in the file, and keys are refused."""
    monkeypatch.setattr(flax_msgpack, "MAX_TEXTS", 10)
    with read(tmp_path, dump({"a": "12345", "b": "67890"})) as checkpoint:
        assert checkpoint.manifest.leaves == {"a": "'12345'", "b": "5 bytes"}
    with pytest.raises(FormatError, match="a key that is neither text nor a number"):
        read(tmp_path, dump({"a": "1234567890", "b": ONE}))


def test_texts_and_dates_are_leaves(tmp_path: Path) -> None:
    """Arrays that are no numbers are listed, and not carried."""
    tree = {"w": ONE, "t": np.array(["ab"]), "s": np.array([b"x"]), "d": np.array(["2020-01-01"], "M8[D]")}
    with read(tmp_path, dump(tree)) as checkpoint:
        assert list(checkpoint.manifest) == ["w"]
        assert checkpoint.manifest.leaves == {
            "t": "array of str64 [1]", "s": "array of bytes8 [1]", "d": "array of datetime64[D] [1]",
        }  # fmt: skip


def test_names_that_are_in_each_other_are_refused(tmp_path: Path) -> None:
    """A map cannot hold `a` as an array and `a/b` below it; an array has at most 4 GiB; bits that numpy has no name for."""
    wrong = {
        "cannot hold both `a` and `a/b/c`": {"a/b/c": spec("f32[1]"), "a": spec("f32[1]")},
        "cannot hold both `a` and `a/`": {"a": spec("f32[1]"), "a/": spec("f32[1]")},
        "cannot hold `w` f32[40000,40000]": {"w": spec("f32[40000,40000]")},
        "cannot hold keys longer than": {"x" * 70_000: spec("f32[1]")},
        "Flax marks arrays in pieces so": {"a/__msgpack_chunked_array__": spec("f32[1]")},
        "deeper than 100": {"/".join("a" * 102): spec("f32[1]")},
        "no Unicode text": {"\ud800": spec("f32[1]")},
    }
    for expected, specs in wrong.items():
        with pytest.raises(FormatError) as caught:
            lay_out(specs, tmp_path / "m.msgpack")
        assert expected in str(caught.value)


def test_no_tensors_at_all_are_an_empty_map(tmp_path: Path) -> None:
    """Nothing is one map of nothing."""
    assert flax_write.Writer().lay_out({}, name="m", metadata={}).literals == (Literal(0, b"\x80"),)


def test_a_large_array_is_never_read_for_its_header(tmp_path: Path) -> None:
    """A file of 2 GiB, most of it holes, is opened by reading a few kilobytes."""
    specs = {"a/w": spec("f32[500000000]"), "a/b": spec("f32[3]")}
    (file,) = lay_out(specs, tmp_path / "m.msgpack").files
    with (tmp_path / "m.msgpack").open("wb") as out:
        for literal in file.literals:
            out.seek(literal.offset)
            out.write(literal.data)
        out.truncate(file.nbytes)
    with open_checkpoint(tmp_path / "m.msgpack", inner="") as checkpoint:
        assert {name: str(each) for name, each in checkpoint.manifest.items()} == {
            "a/w": "f32[500000000]",
            "a/b": "f32[3]",
        }
        assert file.tensors == {name: (checkpoint.run(name) or (0, 0))[1] for name in specs}


@pytest.mark.parametrize("names", [["params/w", "params/b"], ["a/b/w"], ["state/params/w", "state/step"], ["w", "a/w"]])
def test_what_one_container_holds_is_verified_by_its_whole_names(names: list[str], tmp_path: Path) -> None:
    """A reader enters the one container that holds all; a conversion that names it is equal, and so says `verify`."""
    source, target = tmp_path / "s.safetensors", tmp_path / "t.msgpack"
    isomorph.convert({name: np.arange(3, dtype="f4") for name in names}, source)
    assert isomorph.convert(source, target).report.equal
    assert isomorph.verify(source, target).equal
    assert isomorph.verify(source, f"{target}#").equal
    other = {name: np.arange(1, 4, dtype="f4") for name in names}
    report = isomorph.verify(other, target, check=False)
    assert (len(names), []) == (len(report.differences), report.missing)


def test_shards_of_one_container_are_verified_in_tasks(tmp_path: Path) -> None:
    """Each file by its whole names; the command says so of the folder too."""
    isomorph.convert({f"params/{name}": np.arange(30, dtype="f4") for name in "abc"}, tmp_path / "s.safetensors")
    steps = [
        f"plan {tmp_path}/s.safetensors -o {tmp_path}/plan.json --output {tmp_path}/out/ --format flax --max-shard-size 200",
        f"convert {tmp_path}/plan.json --task 0/1",
        f"convert {tmp_path}/plan.json --finish",
        f"verify {tmp_path}/s.safetensors {tmp_path}/out",
    ]
    assert [0] * 4 == [run(step.split()) for step in steps]
