"""torch's zip files against torch itself: what it saves we read, what we write it loads, plain and mapped."""

from __future__ import annotations

import argparse
import collections
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import FormatError
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.formats.torch.zip import Writer, state_dict_pickle
from isomorph.tensors import DTYPES, OPAQUE_DTYPES, TensorSpec, dtype, spec
from isomorph.testing.formats import FormatConformance, random_bits, whole, write_checkpoint


class TestTorchZip(FormatConformance):
    format = "torch_zip"
    file_name = "model.pth"

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        return {name: value.numpy() for name, value in torch.load(path, weights_only=True).items()}

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        torch.save({name: torch.from_numpy(array.copy()) for name, array in arrays.items()}, path)


def raw(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().tobytes()) if flat.numel() else b""


def named(value: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a nested object, by its keys joined with `/`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in items:
        if isinstance(inner, torch.Tensor):
            yield f"{prefix}{key}", inner
        else:
            yield from named(inner, f"{prefix}{key}/")


def check(value: Any, path: Path) -> None:
    """Our names, dtypes, shapes and bits are those of the saved object, in its order."""
    expected = dict(named(value))
    with open_checkpoint(path, inner="") as checkpoint:
        assert list(expected) == list(checkpoint.manifest)
        for name, tensor in expected.items():
            found = checkpoint.manifest[name]
            assert (dtype(str(tensor.dtype)), tuple(tensor.shape)) == (found.dtype, found.shape), name
            assert raw(tensor) == whole(checkpoint, name).tobytes(), name


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nested_objects_with_views_are_read(zipped: bool, protocol: int, tmp_path: Path) -> None:
    """Dicts, lists, tuples, optimisers; transposed, sliced, strided, expanded and shared tensors; in every protocol."""
    base = torch.arange(24.0).reshape(4, 6)
    layer = torch.nn.Linear(3, 4)
    layer(torch.ones(1, 3)).sum().backward()
    adam = torch.optim.Adam(layer.parameters())
    adam.step()
    value = {
        "module": layer.state_dict(),
        "norm": torch.nn.BatchNorm2d(3).state_dict(),
        "optimizer": adam.state_dict(),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "transposed": base.t(),
        "row": base[1],
        "column": base[:, 2],
        "window": base[1:3, 2:5],
        "expanded": torch.ones(1, 3).expand(4, 3),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "list": [base, (base[0], {"empty": torch.zeros(0, 3)})],
        "default": collections.defaultdict(dict, {"inner": torch.ones(2)}),
        "scalar": torch.tensor(3.5),
        5: torch.ones(1),
        "bfloat16": base.bfloat16(),
        "complex": torch.randn(3, dtype=torch.complex64),
        "flags": torch.tensor([True, False]),
        "unsigned": torch.arange(3).to(torch.uint16),
        "float8": torch.randn(4).to(torch.float8_e4m3fn),
    }
    path = tmp_path / "nested.pt"
    torch.save(value, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    check(value, path)
    with open_checkpoint(path, inner="") as checkpoint:
        assert {"transposed", "column", "window", "expanded", "channels_last"} == checkpoint.manifest.strided
        assert ("transposed", "list/0") in checkpoint.manifest.shared
        assert {"module", "norm", "optimizer", "optimizer/state", "list", "list/1", "default"} <= set(
            checkpoint.contents.containers
        )
        assert checkpoint.manifest.leaves["optimizer/param_groups/0/lr"] == "0.001"


def test_numpy_and_plain_values_inside_are_read_or_shown(tmp_path: Path) -> None:
    """Arrays are tensors, whatever their order of bytes and axes; numbers, sizes, dtypes, namespaces and texts are leaves."""
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    value = {
        "big": array,
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "letters": np.frombuffer(b"a", "u1"),
        "again": np.frombuffer(b"a", "u1").copy(),
        "text": np.array(["x", "yy"]),
        "number": np.float32(2.5),
        "size": torch.Size([1, 2]),
        "dtype": torch.float32,
        "args": argparse.Namespace(lr=0.5, name="run", path=Path("a/b")),
        "a": 1,
    }
    path = tmp_path / "mixed.pt"
    for protocol in (2, 3, 4, 5):
        torch.save(value, path, pickle_protocol=protocol)
        with open_checkpoint(path, inner="") as checkpoint:
            assert list(checkpoint.manifest) == ["big", "fortran", "letters", "again"]
            assert array.astype("<f4").tobytes() == whole(checkpoint, "big").tobytes()
            assert np.arange(6.0).tobytes() == whole(checkpoint, "fortran").tobytes()
            assert b"a" == whole(checkpoint, "letters").tobytes() == whole(checkpoint, "again").tobytes()
            leaves = checkpoint.manifest.leaves
            assert tuple(leaves[key] for key in ("number", "size", "dtype", "a")) == (
                "2.5",
                "[1, 2]",
                "torch.float32",
                "1",
            )
            assert (leaves["args/lr"], leaves["args/name"]) == ("0.5", "'run'")
            assert leaves["text"] == "an array of text [2]"


def test_a_bare_tensor_and_a_list_have_names(tmp_path: Path) -> None:
    """A checkpoint that is one tensor calls it `tensor`; a list calls its items by their index."""
    path = tmp_path / "bare.pt"
    torch.save(torch.ones(3), path)
    with open_checkpoint(path) as checkpoint:
        assert {"tensor": spec("f32[3]")} == dict(checkpoint.manifest)
    torch.save([torch.ones(3), torch.zeros(2)], path)
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.manifest) == ["0", "1"]


def test_tied_weights_are_one_storage_under_two_names(tmp_path: Path) -> None:
    """Tied parameters are listed as shared, and both names read the same run of bytes."""
    weight = torch.nn.Parameter(torch.randn(4, 2))
    path = tmp_path / "tied.bin"
    torch.save({"embed.weight": weight, "head.weight": weight, "bias": torch.ones(2)}, path)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.manifest.shared == (("embed.weight", "head.weight"),)
        assert checkpoint.run("embed.weight") == checkpoint.run("head.weight") is not None


@pytest.mark.filterwarnings(
    "ignore:torch.quantize:UserWarning", "ignore:ComplexHalf:UserWarning", "ignore:.*TypedStorage:UserWarning"
)
def test_tensors_that_are_not_plain_are_named(tmp_path: Path) -> None:
    """Sparse, quantised and conjugate tensors cannot be carried: one error names them all, and says how to save them."""
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    value = {
        "fine": torch.ones(2),
        "edges": torch.ones(2, 2).to_sparse(),
        "q": quantised,
        "c": torch.ones(2, dtype=torch.complex64).conj(),
        "half": torch.zeros(2, dtype=torch.complex32),
    }
    path = tmp_path / "odd.pt"
    for key, what in (("edges", "sparse"), ("q", "quantised"), ("c", "conjugate"), ("half", "complex32|ComplexHalf")):
        torch.save({"fine": value["fine"], key: value[key]}, path)
        with pytest.raises(FormatError, match=rf"`?{key}`?.*{what}|{what}"):
            open_checkpoint(path)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_traced_module_gives_its_state_dict(tmp_path: Path) -> None:
    """A TorchScript archive reads as the state dict of its module."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(module, torch.ones(2, 3)), str(path))
    with open_checkpoint(path, inner="") as checkpoint:
        expected = module.state_dict()
        assert set(expected) <= set(checkpoint.manifest)
        for name, tensor in expected.items():
            assert raw(tensor) == whole(checkpoint, name).tobytes()
        assert any("TorchScript" in note for note in checkpoint.manifest.notes)


def test_every_dtype_loads_in_torch_plain_and_mapped(tmp_path: Path) -> None:
    """Every dtype, in ranks 0 to 5 and with no elements, under names of any script; `weights_only`, with and without mmap."""
    tensors = {}
    for index, kind in enumerate([*DTYPES.values(), *OPAQUE_DTYPES.values()]):
        for shape in ((), (0, 3), (5,), (2, 3), (1, 2, 1, 3, 2)):
            tensors[f"{kind}.{shape} 重み\n"] = (kind, random_bits(kind, shape, index))
    path = tmp_path / "all.pth"
    write_checkpoint(path, tensors)
    for mapped in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mapped)
        assert list(tensors) == list(loaded)
        for name, (kind, bits) in tensors.items():
            assert (kind, bits.shape) == (dtype(str(loaded[name].dtype).replace("e8m0fnu", "e8m0").replace("float8_e8m0", "f8e8m0")
                                                .replace("float8_e4m3fnuz", "f8e4m3fnuz").replace("float8_e5m2fnuz", "f8e5m2fnuz")),
                                          tuple(loaded[name].shape))  # fmt: skip
            assert bits.tobytes() == raw(loaded[name]), name


def test_the_archive_is_an_ordinary_zip_of_aligned_storages(tmp_path: Path) -> None:
    """Python's zipfile finds no fault in it; storages lie at multiples of 64; `.format_version` is absent."""
    tensors = {f"w{index}": (dtype("f32"), random_bits(dtype("f32"), (index,), index)) for index in range(5)}
    path = tmp_path / "plain.pt"
    layout = write_checkpoint(path, tensors).files[0]
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert [
            "archive/data.pkl",
            "archive/byteorder",
            *(f"archive/data/{k}" for k in range(5)),
            "archive/version",
        ] == opened.namelist()
    assert {0} == {offset % 64 for offset in layout.tensors.values()}
    assert sorted(layout.tensors.values()) == list(layout.tensors.values())


def test_files_beyond_4_gib_are_laid_out_in_zip64() -> None:
    """Sizes and offsets that 32 bits do not hold: every byte outside the tensors is laid out, without reading one."""
    specs = {"big": spec("f32[1200000000]"), "after": spec("f32[3]"), "empty": spec("f32[0]")}
    layout = lay_out(specs, "big.pt", format="torch_zip", metadata={}, max_shard_size=None).files[0]
    assert layout.trailer is not None
    parts = [(literal.offset, len(literal.data)) for literal in (*layout.literals, *layout.trailer([1, 2]))]
    parts += [(offset, specs[name].nbytes) for name, offset in layout.tensors.items() if specs[name].nbytes]
    reached = 0
    for offset, nbytes in sorted(parts):
        assert reached == offset
        reached += nbytes
    assert layout.nbytes == reached
    assert layout.tensors["after"] > 1 << 32


def test_names_that_no_reader_should_take_are_refused() -> None:
    """A name of more than 65,536 bytes is refused before anything is written."""
    with pytest.raises(FormatError, match="names longer than 65,536 bytes"):
        Writer().check({"x" * 70_000: spec("f32[1]")})


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=12).filter(lambda text: text.isascii() or text.isprintable()),
        st.tuples(st.sampled_from(sorted(DTYPES)), st.lists(st.integers(0, 300), max_size=5)),
        max_size=12,
    )
)
def test_the_pickle_that_is_written_says_the_specs(entries: dict[str, tuple[str, list[int]]]) -> None:
    """Names, dtypes and shapes survive our pickle and our interpreter, in order."""
    from isomorph.formats.containers import flatten
    from isomorph.formats.pickle.interpreter import Interpreter
    from isomorph.formats.pickle.machine import Memory
    from isomorph.formats.pickle.objects import Tensor

    specs = {name: TensorSpec(dtype(kind), tuple(shape)) for name, (kind, shape) in entries.items()}
    interpreter = Interpreter(Memory(state_dict_pickle(specs)), "file", storages=True)
    flat = flatten(interpreter.run(), "file", nodes=interpreter.nodes).tensors
    assert list(specs) == list(flat)
    for (name, expected), found in zip(specs.items(), flat.values(), strict=True):
        assert type(found) is Tensor, name
        assert (expected.dtype.name, expected.shape) == (found.dtype or found.storage.dtype, found.shape)
