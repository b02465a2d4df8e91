"""npz against numpy: stored, deflated, big-endian, Fortran order; and headers that lie."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.tensors import spec
from isomorph.testing.formats import FormatConformance, whole


class TestNpz(FormatConformance):
    format = "npz"
    file_name = "model.npz"
    dtypes = ("bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "f32", "f64", "c64", "c128")

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        with np.load(path, allow_pickle=False) as opened:
            return dict(opened)

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        np.savez(path, **arrays)


class TestDeflatedNpz(TestNpz):
    """What numpy deflates is decoded once, and then read like the rest."""

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        np.savez_compressed(path, **arrays)

    def broken_base(self, folder: Path) -> Path:
        path = folder / self.file_name
        self.save_with_oracle(path, {"a": np.arange(12.0).reshape(3, 4), "b": np.zeros(100, "i2")})
        return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("kind", [">f4", ">i2", ">c8", ">c16", "<f8", "|u1"])
@pytest.mark.parametrize("fortran", [False, True])
def test_big_endian_and_fortran_order_are_read_as_values(save: Any, kind: str, fortran: bool, tmp_path: Path) -> None:
    """Byte order and memory order are the file's business; the elements are the array's."""
    array = np.arange(24).reshape(2, 3, 4).astype(kind)
    save(tmp_path / "m.npz", w=np.asfortranarray(array) if fortran else array)
    with open_checkpoint(tmp_path / "m.npz") as checkpoint:
        dtype = checkpoint.manifest["w"].dtype
        assert np.array_equal(array, whole(checkpoint, "w").view(dtype.numpy))
        assert np.array_equal(array[1, :, 2], checkpoint.fetch("w", 14, (3,), (4,)).copy().view(dtype.numpy))
        plain = save is np.savez and (kind[0] != ">") and not fortran
        assert plain == (checkpoint.run("w") is not None)


def npz(path: Path, member: bytes, *, name: str = "w.npy", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, member)
    return path


def npy(header: str, data: bytes = b"", *, version: int = 1) -> bytes:
    raw = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(raw).to_bytes(2 if version == 1 else 4, "little") + raw + data


PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    "header",
    [
        PLAIN,
        '{"shape": (2,), "descr": "<f4", "fortran_order": False}',
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L,)}   ",
        "{ 'fortran_order':False,'shape':( 2 , ),'descr':'<f4' , }",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_other_writers_are_read(header: str, version: int, tmp_path: Path) -> None:
    """The order of the keys, the quotes and the blanks are free; Python 2 wrote 2L."""
    npz(tmp_path / "m.npz", npy(header, np.array([1, 2], "<f4").tobytes(), version=version))
    with open_checkpoint(tmp_path / "m.npz") as checkpoint:
        assert whole(checkpoint, "w").view("f4").tolist() == [1.0, 2.0]


REFUSED = {
    "a shape larger than the member": (
        npy(PLAIN.replace("(2,)", "(100000, 100000)"), bytes(8)),
        "its member has 8 of data",
    ),
    "a product beyond all memory": (npy(PLAIN.replace("(2,)", "(9999999999, 9999999999)")), "claims the shape"),
    "a size of many digits": (npy(PLAIN.replace("(2,)", "(" + "9" * 30 + ",)")), "not a tuple of sizes"),
    "a negative size": (npy(PLAIN.replace("(2,)", "(-2,)"), bytes(8)), "cannot be read at"),
    "a shape that is a number": (npy(PLAIN.replace("(2,)", "(2)"), bytes(8)), "a number, not a tuple"),
    "code in the header": (npy("{'descr': __import__('os').system('true')}"), "cannot be read at"),
    "a key twice": (
        npy("{'descr': '<f4', 'descr': '<f8', 'fortran_order': False, 'shape': ()}", bytes(8)),
        "cannot be read",
    ),
    "a key missing": (npy("{'descr': '<f4', 'shape': (2,)}", bytes(8)), "the keys descr, shape"),
    "records": (npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,)}", bytes(8)), "records"),
    "void": (npy(PLAIN.replace("<f4", "|V2"), bytes(4)), "no type (|V2); numpy writes bf16 and f8 so"),
    "long doubles": (npy(PLAIN.replace("<f4", "<f16"), bytes(32)), "dtype <f16, which is not read"),
    "version 9": (b"\x93NUMPY\x09\x00" + npy(PLAIN, bytes(8))[8:], ".npy version 9.0"),
    "no magic": (b"hello world, this is text", "is not a .npy file"),
    "a header that is longer than the member": (b"\x93NUMPY\1\0\xff\xff{}", "claims a header of 65,535 bytes"),
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("case", REFUSED)
def test_a_header_that_lies_is_refused(case: str, method: int, tmp_path: Path) -> None:
    """The header's size must be the member's before anything is allocated, and it is parsed, never evaluated."""
    member, expected = REFUSED[case]
    with pytest.raises(FormatError) as caught:
        open_checkpoint(npz(tmp_path / "m.npz", member, method=method))
    assert expected in str(caught.value)


def test_object_arrays_are_refused_as_unsafe(tmp_path: Path) -> None:
    """An array of Python objects is a pickle: it is not opened, whatever else the file holds."""
    np.savez(tmp_path / "m.npz", good=np.zeros(2), bad=np.array([{}], dtype=object))
    with pytest.raises(UnsafeError, match="`bad` is an array of Python objects"):
        open_checkpoint(tmp_path / "m.npz")


def test_dates_are_leaves_and_folders_are_none(tmp_path: Path) -> None:
    """As in pickles; an archive that `zip -r` made of a folder of arrays lists the folder too."""
    np.savez(
        tmp_path / "m.npz",
        **{"a/w": np.ones(2), "a/when": np.array(["2020-01-02"], "M8[D]"), "a/long": np.array([1], "m8[s]")},
    )
    with zipfile.ZipFile(tmp_path / "m.npz", "a") as archive:
        archive.mkdir("a")
    with open_checkpoint(tmp_path / "m.npz") as checkpoint:
        assert list(checkpoint.manifest) == ["a/w"]
        assert {"a/when": "dates [1]", "a/long": "dates [1]"} == checkpoint.manifest.leaves


def test_text_is_a_leaf(tmp_path: Path) -> None:
    """Arrays of text are no tensors; they are listed, and not carried."""
    np.savez(tmp_path / "m.npz", w=np.zeros(2), config=np.array("{}"), labels=np.array([b"a", b"bc"]))
    with open_checkpoint(tmp_path / "m.npz") as checkpoint:
        assert list(checkpoint.manifest) == ["w"]
        assert checkpoint.manifest.leaves == {"config": "text []", "labels": "text [2]"}


def test_a_deflated_tensor_that_was_changed_is_noticed(tmp_path: Path) -> None:
    """The CRC of the archive is compared when a member is decoded."""
    archive = io.BytesIO()
    np.savez_compressed(archive, w=np.zeros(1000))
    raw = bytearray(archive.getvalue())
    for at in (raw.index(b"PK\1\2") + 16, 14):  # the CRC in the directory, and in the local header
        raw[at] ^= 1
    (tmp_path / "m.npz").write_bytes(raw)
    with open_checkpoint(tmp_path / "m.npz") as checkpoint, pytest.raises(FormatError, match="is corrupt"):
        whole(checkpoint, "w")


def test_bf16_has_no_place_in_npz(tmp_path: Path) -> None:
    """The error names the tensors and the dtype to cast to."""
    with pytest.raises(FormatError, match=r"npz cannot hold `a` bf16\[2\]\. Cast them \(--dtype f32\)"):
        lay_out({"a": spec("bf16[2]")}, tmp_path / "m.npz")


@pytest.mark.parametrize("name", ["a/", "a//b/", "/", ".npy/", "a.npy"])
def test_a_name_that_ends_as_a_folder_does_is_a_tensor(tmp_path: Path, name: str) -> None:
    """numpy writes it as `NAME.npy`: only a member that is itself a folder is left aside."""
    np.savez(tmp_path / "x.npz", **{name: np.arange(3, dtype="f4")})
    with open_checkpoint(tmp_path / "x.npz") as checkpoint:
        assert [name] == list(checkpoint.manifest)
        assert whole(checkpoint, name).view("f4").tolist() == [0.0, 1.0, 2.0]
