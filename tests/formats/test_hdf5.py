"""HDF5 against h5py and Keras's files: plain, chunked, compressed, big-endian, compact; lists of layers; what leads out of the file."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import isomorph
from isomorph.errors import FormatError, MissingExtra, RefusedError, UnsafeError
from isomorph.formats.hdf5 import blocks as hdf5_blocks
from isomorph.formats.hdf5 import decode as hdf5_decode
from isomorph.formats.hdf5 import heap as hdf5_heap
from isomorph.formats.hdf5 import process as hdf5_process
from isomorph.formats.hdf5 import read as hdf5
from isomorph.formats.hdf5 import write as hdf5_write
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.tensors import TensorSpec, dtype, spec
from isomorph.testing.formats import FormatConformance, tensors_of, whole, write_checkpoint

DATA = Path(__file__).parent / "data"
"""Keras 3.15.1 wrote these: `save_weights` of a model with bfloat16 layers, and `save` of one in the old format."""


def datasets(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, each: found.update({name: each[()]}) if isinstance(each, h5py.Dataset) else None)
    return found


class TestHdf5(FormatConformance):
    format = "hdf5"
    file_name = "tf_model.h5"
    keeps_order = False  # tensors without elements lie nowhere
    dtypes = ("bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64", "c64", "c128")

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        return datasets(path)

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array


class TestNewestHdf5(TestHdf5):
    """Files of the newest version of HDF5's own layout: other superblocks, groups, headers, with checksums."""

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        with h5py.File(path, "w", libver="latest", track_order=True) as file:
            for name, array in arrays.items():
                file[name] = array


class TestPackedHdf5(TestHdf5):
    """Chunked, compressed, shuffled and summed datasets are decoded once, and then read like the rest."""

    tries = 30  # each starts processes

    def cuts(self, nbytes: int) -> Iterator[int]:
        yield from range(0, nbytes, nbytes // 40)

    def broken_base(self, folder: Path) -> Path:
        path = folder / self.file_name
        self.save_with_oracle(path, {"a": np.arange(12.0).reshape(3, 4)})
        return path

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                how = {"compression": "gzip", "shuffle": True, "fletcher32": True} if array.ndim else {}
                file.create_dataset(name, data=array, **how)


def layers() -> Iterator[tuple[str, Any]]:
    for number in range(30):
        for weight in ("kernel:0", "bias:0"):
            yield f"layer_{number}/model/layer_{number}/{weight}", np.full((number, 2), number, "f4")


# What Keras wrote


def test_keras_3_weights_are_read_bfloat16_among_them() -> None:
    """`…/vars/0` in the order of the layers; bfloat16, which Keras stores as bytes without a type and names beside them."""
    expected = datasets(DATA / "keras3.weights.h5")
    with open_checkpoint(DATA / "keras3.weights.h5") as checkpoint:
        assert list(checkpoint.manifest)[:3] == [
            "layers/dense/vars/0",
            "layers/dense/vars/1",
            "layers/layer_normalization/vars/0",
        ]
        assert set(expected) == set(checkpoint.manifest)
        for name, array in expected.items():
            assert array.tobytes() == np.ascontiguousarray(whole(checkpoint, name)).tobytes(), name
        assert str(checkpoint.manifest["layers/dense_1/vars/0"]) == "bf16[5,3]"
        assert checkpoint.manifest.notes == ()
    with open_checkpoint(f"{DATA}/keras3.weights.h5#layers/dense") as checkpoint:
        assert list(checkpoint.manifest) == ["vars/0", "vars/1"]


def test_the_weights_in_a_keras_archive_are_read_where_they_lie(tmp_path: Path) -> None:
    """A `.keras` file is a zip that holds the same HDF5 file, stored; packed ones are refused. Its config is not looked at."""
    raw = (DATA / "keras3.weights.h5").read_bytes()
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        file.create_dataset("layers/a/vars/0", data=np.arange(3000.0), compression="gzip")
    for data, names in (
        (raw, list(datasets(DATA / "keras3.weights.h5"))),
        ((tmp_path / "packed.h5").read_bytes(), ["layers/a/vars/0"]),
    ):
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", '{"class_name": "Lambda"')
            archive.writestr("model.weights.h5", data)
        (tmp_path / "m.h5").write_bytes(data)
        with open_checkpoint(tmp_path / "m.keras") as checkpoint:
            assert set(names) == set(checkpoint.manifest)
            checkpoint.keep_sums()
            for name, array in datasets(tmp_path / "m.h5").items():
                assert array.tobytes() == np.ascontiguousarray(whole(checkpoint, name)).tobytes()
            checkpoint.check_sums()
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", raw)
    with pytest.raises(FormatError, match=r"its model\.weights\.h5 is compressed"):
        open_checkpoint(tmp_path / "m.keras")


def test_the_old_format_keeps_the_order_of_its_lists(tmp_path: Path) -> None:
    """`layer_names` and `weight_names` say the order by which Keras loads; written again they say it again."""
    before = DATA / "keras_legacy.h5"
    isomorph.convert(f"{before}#model_weights", tmp_path / "out.h5")
    with h5py.File(before, "r") as old, h5py.File(tmp_path / "out.h5", "r") as new:
        names = [name for name in old["model_weights"].attrs["layer_names"] if len(old["model_weights"][name])]
        assert names == [raw.decode() for raw in new.attrs["layer_names"]] and names[0] == "first"
        assert (new.attrs["backend"], new.attrs["keras_version"]) == (b"jax", b"3.15.1")
        for name in names:
            weights = list(old["model_weights"][name].attrs["weight_names"])
            assert weights == [raw.decode() for raw in new[name].attrs["weight_names"]]
            for weight in weights:
                assert old["model_weights"][name][weight][()].tobytes() == new[name][weight][()].tobytes()


# What is written


def load_tf_weights(path: Path) -> dict[str, Any]:
    """How transformers 4 finds the weights of a `tf_model.h5`: by the lists, and each list whole or in numbered parts."""

    def listed(group: Any, key: str) -> list[str]:
        if key in group.attrs:
            return [raw.decode() for raw in group.attrs[key]]
        found: list[str] = []
        number = 0
        while f"{key}{number}" in group.attrs:
            found += [raw.decode() for raw in group.attrs[f"{key}{number}"]]
            number += 1
        return found

    with h5py.File(path, "r") as file:
        return {
            f"{layer}/{weight}": file[layer][weight][()]
            for layer in listed(file, "layer_names")
            for weight in listed(file[layer], "weight_names")
        }


@pytest.mark.parametrize("many", [1, 400])
def test_layers_are_listed_as_transformers_and_keras_look_for_them(many: int, tmp_path: Path) -> None:
    """Every weight is found by `layer_names` and `weight_names`, in the order given; long lists are cut at 64 KiB."""
    arrays = {
        f"{name}{'x' * 150}{number}": array
        for name, array in layers()
        for number in range(many if "_3/" in name else 1)
    }
    write_checkpoint(tmp_path / "m.h5", tensors_of(arrays))
    loaded = load_tf_weights(tmp_path / "m.h5")
    assert list(arrays) == list(loaded)
    assert all(np.array_equal(array, loaded[name]) for name, array in arrays.items())
    with h5py.File(tmp_path / "m.h5", "r") as file:
        assert file.attrs["backend"] == b"tensorflow"
        assert ("weight_names" in file["layer_3"].attrs) == (many == 1)
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert list(arrays) == list(checkpoint.manifest)


@pytest.mark.parametrize("names", [["layers/dense/vars/0", "layers/dense/vars/1"], ["w", "a/b"]])
def test_names_that_are_not_of_layers_get_no_lists(names: list[str], tmp_path: Path) -> None:
    """Keras 3's weights have none, and names without a group cannot have any."""
    write_checkpoint(tmp_path / "m.h5", tensors_of({name: np.ones(2, "f4") for name in names}))
    with h5py.File(tmp_path / "m.h5", "r") as file:
        assert list(file.attrs) == []


def test_bfloat16_is_a_number_to_every_reader(tmp_path: Path) -> None:
    """Written as the float of 16 bits that it is, h5py reads its values."""
    array = np.array([1.0, -2.5, 3.0e38, 1e-30], ml_dtypes.bfloat16)
    write_checkpoint(tmp_path / "m.h5", {"w": (dtype("bf16"), array.view("u2"))})
    with h5py.File(tmp_path / "m.h5", "r") as file:
        assert file["w"].dtype == np.float32
        assert np.array_equal(array.astype("f4"), file["w"][()])


def test_what_has_no_place_in_hdf5_is_named(tmp_path: Path) -> None:
    """Names are paths there: none may be empty, a dot, or lie in another; dtypes are numpy's and bfloat16."""
    wrong = {
        "cannot hold `w` f8e4m3[2]": {"w": spec("f8e4m3[2]")},
        "cannot hold both `a` and `a/b`": {"a": spec("f32[1]"), "a/b": spec("f32[1]")},
        "cannot hold a tensor called `a//b`": {"a//b": spec("f32[1]")},
        "cannot hold a tensor called `a/./b`": {"a/./b": spec("f32[1]")},
        "cannot hold a tensor called ``": {"": spec("f32[1]")},
        r"cannot hold a tensor called `a\x00`": {"a\0": spec("f32[1]")},
        "at most 32 dimensions": {"w": TensorSpec(dtype("f32"), (1,) * 33)},
        "no Unicode text": {"\ud800": spec("f32[1]")},
    }
    for expected, specs in wrong.items():
        with pytest.raises(FormatError) as caught:
            lay_out(specs, tmp_path / "m.h5")
        assert expected in str(caught.value), str(caught.value)


def test_a_layout_of_terabytes_takes_no_memory() -> None:
    """Room for the elements is set aside in a file of which only the written pages exist."""
    specs = {f"a/w{number}:0": spec("f32[100000,100000]") for number in range(100)}
    file = hdf5_write.Writer().lay_out(specs, name="m.h5", metadata={})
    assert file.nbytes > 4 * 10**12
    assert sum(len(literal.data) for literal in file.literals) < 1 << 20


def test_shards_are_read_with_transformers_index(tmp_path: Path) -> None:
    """`tf_model.h5.index.json` names weights with the model's name in front, which the shards' datasets do not have."""
    tensors = tensors_of({f"bert/layer_{number}/w:0": np.full((100,), number, "f4") for number in range(5)})
    write_checkpoint(tmp_path / "out", tensors, format="hdf5", max_shard_size=1000)
    index = tmp_path / "out/tf_model.h5.index.json"
    assert (tmp_path / "out/tf_model-00001-of-00003.h5").exists()
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert list(checkpoint.manifest) == list(tensors)
    index.write_text(index.read_text().replace('"bert/', '"tf_model/bert/'))
    with open_checkpoint(tmp_path / "out") as checkpoint:
        assert list(checkpoint.manifest) == list(tensors)
    index.write_text(index.read_text().replace('"tf_model/bert/layer_1', '"tf_model/bert/layer_9'))
    with pytest.raises(FormatError, match="its index and its shards disagree"):
        open_checkpoint(tmp_path / "out")
    index.unlink()
    with pytest.raises(FormatError, match=r"holds shards of tf_model\.h5, but not their index"):
        open_checkpoint(tmp_path / "out")


# How elements are stored


ARRAYS = {
    "wide": np.random.default_rng(0).standard_normal((7, 3000)).astype("f4"),
    "deep": np.random.default_rng(1).integers(-9, 9, (5, 1, 6, 40)).astype("i2"),
    "flags": np.arange(9000) % 3 == 0,
    "complex": np.arange(600).reshape(20, 30).astype("c8"),
    "big": np.arange(700).astype(">f8"),
    "half": np.arange(50).astype("f2"),
}
WAYS: dict[str, dict[str, Any]] = {
    "gzip": {"compression": "gzip"}, "lzf": {"compression": "lzf"}, "shuffle": {"shuffle": True, "compression": 9},
    "chunks": {"chunks": True}, "sums": {"fletcher32": True}, "resizable": {"maxshape": "any", "compression": "gzip"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("way", "libver", "slab"),
    [
        *((way, "earliest", hdf5_process.SLAB) for way in WAYS),
        ("gzip", "earliest", 500),
        ("gzip", "latest", 500),
        ("resizable", "latest", 500),
    ],
)
def test_packed_datasets_are_read_as_their_values(
    way: str, libver: Any, slab: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and in boxes; slabs smaller than a row of chunks give the same."""
    monkeypatch.setattr(hdf5_process, "SLAB", slab)
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        for name, array in ARRAYS.items():
            how = dict(WAYS[way])
            if "maxshape" in how:
                how["maxshape"] = (None,) * array.ndim
            file.create_dataset(name, data=array, **how)
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        for name, array in ARRAYS.items():
            found = whole(checkpoint, name).view(checkpoint.manifest[name].dtype.numpy)
            assert np.array_equal(array, found), name
            assert checkpoint.run(name) is None
        boxed = checkpoint.fetch("wide", 7000, (3,), (3000,)).copy().view("f4")
        assert np.array_equal(ARRAYS["wide"][2:5, 1000], boxed)


def test_a_packed_file_is_converted(tmp_path: Path) -> None:
    """And verified, by the second path."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("a/w", data=ARRAYS["wide"], compression="gzip")
        file["a/v"] = ARRAYS["half"]
    isomorph.convert(tmp_path / "m.h5", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as loaded:
        assert np.array_equal(ARRAYS["wide"], loaded["a/w"]) and np.array_equal(ARRAYS["half"], loaded["a/v"])


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 4), (3, 1, 4), (1, 6, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("most", [1, 7, 16, 40, 10_000])
def test_slabs_are_every_element_in_order(shape: tuple[int, ...], most: int) -> None:
    """Whatever the chunks: boxes that one after the other are the row-major elements, none larger than a row of the last axis."""
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    for chunk in (shape, tuple(min(2, size) for size in shape), tuple(min(3, size) for size in shape)):
        found = [
            array[tuple(slice(begin, begin + size) for begin, size in zip(start, count, strict=True))].reshape(-1)
            for start, count in hdf5_decode.slabs(shape, chunk, 1, most)
        ]
        assert np.concatenate(found).tolist() == list(range(array.size))


@pytest.mark.parametrize("kind", [">f4", ">i2", ">c8", ">c16", "<f8", "|u1", "|i1"])
def test_big_endian_is_read_as_values(kind: str, tmp_path: Path) -> None:
    """A contiguous dataset of any byte order is a range of the file."""
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["w"] = array
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert np.array_equal(array, whole(checkpoint, "w").view(checkpoint.manifest["w"].dtype.numpy))
        assert np.array_equal(
            array[1, :, 2], checkpoint.fetch("w", 14, (3,), (4,)).copy().view(checkpoint.manifest["w"].dtype.numpy)
        )
        assert checkpoint.manifest.encodings == ({"w": "big"} if kind[0] == ">" else {})


def test_a_dataset_in_its_own_header_is_read(tmp_path: Path) -> None:
    """Compact: a few bytes that lie beside their description."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    with h5py.File(tmp_path / "m.h5", "w") as file:
        made = h5py.h5d.create(file.id, b"w", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((5,)), plist)
        h5py.Dataset(made)[...] = np.arange(5)
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert whole(checkpoint, "w").view("f4").tolist() == [0, 1, 2, 3, 4]


def test_a_path_is_never_taken_for_a_wrapper(tmp_path: Path) -> None:
    """A model of one layer keeps its whole names, also in shards: none of its groups is a state dict around others."""
    arrays = {"layers/dense/vars/0": np.ones((3, 4), "f4"), "layers/dense/vars/1": np.ones(4, "f4")}
    for name, most in (("m.h5", None), ("out/", 50)):
        write_checkpoint(tmp_path / name, tensors_of(arrays), format="hdf5", max_shard_size=most)
        with open_checkpoint(tmp_path / name) as checkpoint:
            assert list(checkpoint.manifest) == list(arrays)


def test_partly_written_chunks_are_filled(tmp_path: Path) -> None:
    """What was not written has the fill value; what was never written at all is a leaf, since the file holds none of it."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", (100,), "f4", chunks=(10,), fillvalue=7)[20:30] = 1
        file.create_dataset("never", (3, 4), "f4")
        file.create_dataset("text", data="a model")
        file.create_dataset("texts", data=[b"a", b"b"])
        file["empty"] = h5py.Empty("f4")
        file["records"] = np.zeros(3, [("a", "f4"), ("b", "i8")])
        file["type"] = np.dtype("f8")
        file["ragged"] = h5py.Empty("f4")
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert list(checkpoint.manifest) == ["w"]
        assert whole(checkpoint, "w").view("f4").tolist() == [7] * 20 + [1] * 10 + [7] * 70
        assert checkpoint.manifest.leaves == {
            "never": "f32[3,4], never written", "text": "text []", "texts": "text [2]", "empty": "an empty dataset",
            "records": "records [3]", "type": "a named type", "ragged": "an empty dataset",
        }  # fmt: skip


def test_two_names_of_one_dataset_are_one_tensor(tmp_path: Path) -> None:
    """Hard links and soft links inside the file are ties; a soft link to nothing or to a group is a leaf."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a/w"] = np.arange(5.0)
        file["b/hard"] = file["a/w"]
        file["b/soft"] = h5py.SoftLink("/a/w")
        file["a/near"] = h5py.SoftLink("w")
        file["b/nothing"] = h5py.SoftLink("/no/such")
        file["b/group"] = h5py.SoftLink("/a")
        file["b/itself"] = h5py.SoftLink("/b/itself")
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert set(checkpoint.manifest) == {"a/w", "a/near", "b/hard", "b/soft"}
        assert [set(group) for group in checkpoint.manifest.shared] == [{"a/w", "a/near", "b/hard", "b/soft"}]
        assert checkpoint.manifest.leaves == {
            "b/nothing": "a link to /no/such", "b/group": "a link to /a", "b/itself": "a link to /b/itself",
        }  # fmt: skip


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain datasets are read without it; packed ones, and writing, say what to install."""
    with h5py.File(tmp_path / "packed.h5", "w") as file:
        file.create_dataset("w", data=np.arange(100), compression="gzip")
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "none").mkdir()
    (tmp_path / "none/h5py.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path / "none")
    with open_checkpoint(DATA / "keras3.weights.h5") as checkpoint:
        assert whole(checkpoint, "layers/dense/vars/1").tobytes() == bytes(20)
    with (
        open_checkpoint(tmp_path / "packed.h5") as checkpoint,
        pytest.raises(
            MissingExtra, match=r"`w` of packed\.h5 \(chunked HDF5\) needs .* pip install 'isomorph\[hdf5\]'"
        ),
    ):
        whole(checkpoint, "w")
    with pytest.raises(MissingExtra, match=r"writing HDF5 needs a library .* pip install 'isomorph\[hdf5\]'"):
        lay_out({"w": spec("f32[2]")}, tmp_path / "m.h5")


# What leads out of the file, or never ends


def external(file: Any) -> None:
    file["w"] = h5py.ExternalLink("/etc/passwd", "/secret")


def through_a_group(file: Any) -> None:
    file["a/b"] = np.zeros(2)
    file["a/evil"] = h5py.ExternalLink("../other.h5", "/")


def storage(file: Any) -> None:
    file.create_dataset("a/w", (8,), "u1", external=[("/etc/passwd", 0, 8)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((2, 4), "f4")
    layout[0] = h5py.VirtualSource("/tmp/other.h5", "w", (4,))
    file.create_virtual_dataset("v", layout)


def virtual_here(file: Any) -> None:
    file["w"] = np.zeros(4, "f4")
    layout = h5py.VirtualLayout((2, 4), "f4")
    layout[0] = h5py.VirtualSource(".", "w", (4,))
    file.create_virtual_dataset("v", layout)


def cycle(file: Any) -> None:
    file["a/b/c"] = file["/"] if "a" in file else file.create_group("a/b")["/"]


def twice(file: Any) -> None:
    file["a/w"] = np.zeros(2)
    file["b"] = file["a"]


def deep(file: Any) -> None:
    file["/".join("a" * 150)] = np.zeros(2)


def long_double(file: Any) -> None:
    file["w"] = np.zeros(3, np.longdouble)


def shape(file: Any) -> None:
    file.create_dataset("w", (1 << 40, 1 << 20, 0), "f4")


OUTSIDE: dict[str, tuple[Callable[[Any], None], type[Exception], str]] = {
    "external link": (external, UnsafeError, "`w` is an external link to `/secret` of the file /etc/passwd. Nothing was read from there"),
    "external link in a group": (through_a_group, UnsafeError, "`a/evil` is an external link to `/` of the file ../other.h5"),
    "external storage": (storage, UnsafeError, "dataset `a/w` keeps its elements in another file (external storage)"),
    "virtual dataset": (virtual, UnsafeError, "dataset `v` is virtual"),
    "virtual dataset of its own file": (virtual_here, UnsafeError, "dataset `v` is virtual"),
    "a group in itself": (cycle, FormatError, "the group `a/b/c` is the group `/` again"),
    "a group by two names": (twice, FormatError, "the group `b` is the group `a` again"),
    "groups in groups": (deep, FormatError, "groups nested deeper than 100"),
    "long doubles": (long_double, FormatError, "dataset `w`: its numbers have a type that is not read"),
    "a shape beyond any memory": (shape, FormatError, "dataset `w`: it claims the shape [1099511627776, 1048576, 0]"),
}  # fmt: skip


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("case", OUTSIDE)
def test_what_leads_out_or_never_ends_is_refused(case: str, libver: Any, tmp_path: Path) -> None:
    """Nothing is followed, opened or allocated for it."""
    make, kind, expected = OUTSIDE[case]
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        make(file)
    with pytest.raises(kind) as caught:
        open_checkpoint(tmp_path / "m.h5")
    assert expected in str(caught.value) and "m.h5" in str(caught.value)


def test_a_little_that_would_unfold_to_much_is_refused(tmp_path: Path) -> None:
    """Chunks that were never written cost nothing in the file: what they would decode to is bounded by what is stored."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", (1 << 40,), "f4", chunks=(1000,))[0] = 1
    with pytest.raises(FormatError, match=r"[\d,]+ bytes cannot decode to 4,398,046,511,104"):
        open_checkpoint(tmp_path / "m.h5")


def test_a_bomb_is_not_unpacked_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros that deflate a thousandfold go to a temporary file, whose room is looked at first; reading runs in slabs."""
    from isomorph.formats import decode

    class Free:
        f_bavail, f_frsize = 1 << 10, 4096

    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset(
            "w", data=np.zeros(4 << 20, "f4"), chunks=(1 << 20,), compression="gzip", compression_opts=9
        )
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert checkpoint.manifest.nbytes == 16 << 20
        monkeypatch.setattr(decode.os, "fstatvfs", lambda fd: Free)
        with pytest.raises(RefusedError, match="16,777,216 bytes are needed there"):
            whole(checkpoint, "w")


def test_chunks_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk is decoded as a whole, so that it must not be large."""
    monkeypatch.setattr(hdf5, "MAX_CHUNK", 1000)
    for libver in ("earliest", "latest"):
        with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
            file.create_dataset("w", data=np.zeros((30, 40)), chunks=(10, 13))
        with pytest.raises(
            FormatError, match=r"`w`: its chunks of \[10, 13, 8\] bytes are none, or larger than 1,000 bytes"
        ):
            open_checkpoint(tmp_path / "m.h5")


def test_what_h5py_cannot_decode_is_named(tmp_path: Path) -> None:
    """A chunk that was changed, a filter that is not there: what h5py says in its own process is the problem."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        made = file.create_dataset("a/w", data=np.arange(1000), compression="gzip", fletcher32=True)
        place = made.id.get_chunk_info(0).byte_offset
    raw = bytearray((tmp_path / "m.h5").read_bytes())
    raw[place + 20] ^= 1
    (tmp_path / "m.h5").write_bytes(raw)
    with (
        open_checkpoint(tmp_path / "m.h5") as checkpoint,
        pytest.raises(FormatError, match=r"dataset `a/w` cannot be decoded: OSError: Can't .*read data"),
    ):
        whole(checkpoint, "a/w")


@pytest.mark.parametrize(
    "end", ["os.kill(os.getpid(), 11)", "sys.exit(0)", "sys.stdout.buffer.write(bytes(9999))", "os.abort()"]
)
def test_a_library_that_dies_or_lies_costs_a_process(end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken files crash the HDF5 library now and then: it is an error that names the dataset, and this process goes on."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("a/w", data=np.arange(1000), compression="gzip")
    (tmp_path / "decode.py").write_text(
        f"import os, sys, resource\nresource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n{end}\n"
    )
    monkeypatch.setattr(hdf5_decode, "__file__", str(tmp_path / "decode.py"))
    with (
        open_checkpoint(tmp_path / "m.h5") as checkpoint,
        pytest.raises(FormatError, match=r"m\.h5: dataset `a/w` cannot be decoded: "),
    ):
        whole(checkpoint, "a/w")


def test_where_no_process_can_be_started_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python is part of another program, for instance; plain datasets do not need one."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.create_dataset("w", data=np.arange(100), compression="gzip")
        file["v"] = np.arange(3.0)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert whole(checkpoint, "v").view("f8").tolist() == [0, 1, 2]
        with pytest.raises(FormatError, match=r"`w` is packed, and no process could be started .*h5repack"):
            whole(checkpoint, "w")


def test_structures_without_end_are_given_up(tmp_path: Path) -> None:
    """Links are counted, and so are the bytes of the blocks that lead to them."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        for number in range(50):
            file[f"a/{number}"] = np.zeros(2)
    for where, name, most, expected in (
        (hdf5_blocks, "MAX_LINKS", 40, "more than 40 links"),
        (hdf5, "MAX_DEPTH", 1, "nested deeper than 1"),
        (hdf5, "MAX_NAME_CHARACTERS", 100, "more than 100 characters of names"),
        (hdf5_blocks, "MAX_MESSAGES", 1, "more than 1 messages"),
    ):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(FormatError, match=expected):
            patch.setattr(where, name, most)
            open_checkpoint(tmp_path / "m.h5")


def test_lists_of_names_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list may name one text a thousand times: no text is large, and all together are counted."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("a")
        group["w"] = np.zeros(2)
        group.attrs["weight_names"] = ["x" * 500_000] * 3
    with pytest.raises(FormatError, match="its lists of names take more than"):
        open_checkpoint(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("a")
        group["w"] = np.zeros(2)
        group.attrs["weight_names"] = ["x" * 100] * 300
    monkeypatch.setattr(hdf5_heap.Texts, "TOGETHER", 20_000)
    with pytest.raises(FormatError, match="its lists of names take more than 20,000 bytes"):
        open_checkpoint(tmp_path / "m.h5")


@pytest.mark.parametrize("many", [3, 9, 200, 3000])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("ordered", [False, True])
def test_groups_of_any_size_and_kind_are_walked(many: int, libver: Any, ordered: bool, tmp_path: Path) -> None:
    """Trees of one or more levels, links in headers and in heaps: every name, and where its elements are."""
    with h5py.File(tmp_path / "m.h5", "w", libver=libver, track_order=ordered) as file:
        group = file.create_group("layers", track_order=ordered)
        for number in range(many):
            group[f"{'long' * (number % 40)}_{number}"] = np.float32(number)
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert len(checkpoint.manifest) == many
        for name in checkpoint.manifest:
            assert whole(checkpoint, name).view("f4") == float(name.rpartition("_")[2])


@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "v112", "v114", "latest"])
def test_files_of_every_version_of_the_library_are_read(libver: Any, tmp_path: Path) -> None:
    """Attributes, named types, complex numbers and truth values as each version describes them."""
    with h5py.File(tmp_path / "m.h5", "w", libver=libver) as file:
        file["type"] = np.dtype("<f4")
        made = file.create_dataset("a/w", (3,), dtype=file["type"])
        made[...] = [1, 2, 3]
        file["a/z"] = np.arange(3).astype("c8")
        file["a/b"] = np.array([True, False])
        file["a/grown"] = np.arange(4.0)
        for number in range(30):
            file["a/grown"].attrs[f"note {number}"] = "x" * 100
        file.attrs["backend"] = "tensorflow"
        file.attrs["layer_names"] = ["a"]
        file["a"].attrs["weight_names"] = ["z", "w", "b"]
    with open_checkpoint(tmp_path / "m.h5") as checkpoint:
        assert [f"{name} {spec}" for name, spec in checkpoint.manifest.items()] == [
            "a/z c64[3]", "a/w f32[3]", "a/b bool[2]", "a/grown f64[4]",
        ]  # fmt: skip
        assert whole(checkpoint, "a/w").view("f4").tolist() == [1, 2, 3]
        assert checkpoint.manifest.metadata == {"backend": "tensorflow"}
        assert checkpoint.manifest.leaves == {"type": "a named type"}
