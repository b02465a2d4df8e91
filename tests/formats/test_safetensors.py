"""safetensors against its own library, and the headers that it takes and we do not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save_file

import isomorph
from isomorph.errors import FormatError
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.formats.safetensors import aligned_offsets
from isomorph.formats.sniff import sniff
from isomorph.formats.source import Source
from isomorph.tensors import spec
from isomorph.testing.formats import FormatConformance, tensors_of, write_checkpoint


class TestSafetensors(FormatConformance):
    format = "safetensors"
    file_name = "model.safetensors"
    dtypes = (
        "bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64", "f8e4m3", "f8e5m2", "c64",
        "f8e4m3fnuz", "f8e5m2fnuz", "f8e8m0", "f4", "f6e2m3", "f6e3m2",
    )  # fmt: skip

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        loaded: Mapping[str, Any] = load_file(path)
        return loaded

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        save_file(dict(arrays), path)

    def test_the_library_accepts_every_dtype_and_name_we_write(self, tmp_path: Path) -> None:
        """The library's own checks pass on a file of every dtype and every odd name."""
        sample = {**self.sample(), **{name: self.sample()["f32.weight"] for name in self.names}}
        with safetensors.safe_open(self.write(tmp_path, sample), framework="numpy") as opened:
            assert set(sample) == set(opened.keys())


def raw_file(header: object, data: bytes = b"", *, text: bytes | None = None) -> bytes:
    body = json.dumps(header).encode() if text is None else text
    return len(body).to_bytes(8, "little") + body + data


def entry(dtype: str = "F32", shape: object = (2,), begin: object = 0, end: object = 8) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


ONE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
REFUSED = {
    "two tensors of one name": (raw_file(None, bytes(8), text=ONE + b"," + ONE[1:] + b"}"), "names `a` twice"),
    "two keys of one name in the metadata": (
        raw_file(None, bytes(8), text=b'{"__metadata__":{"k":"1","k":"2"},' + ONE[1:] + b"}"),
        "names `k` twice",
    ),
    "an unknown field": (raw_file({"a": {**entry(), "extra": 1}}, bytes(8)), "the field `extra`"),
    "a missing field": (raw_file({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "lacks data_offsets"),
    "a leading space": (raw_file(None, bytes(8), text=b" " + ONE + b"}"), "begins with b' ' (byte 8)"),
    "an overlap": (raw_file({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)), "overlaps `a`"),
    "a hole": (raw_file({"a": entry(), "b": entry(begin=12, end=20)}, bytes(20)), "hole of 4 bytes after `a`"),
    "a hole at the start": (raw_file({"a": entry(begin=4, end=12)}, bytes(12)), "hole of 4 bytes after the header"),
    "bytes after the end": (raw_file({"a": entry()}, bytes(9)), "1 bytes follow the last tensor"),
    "a shape that does not fit": (raw_file({"a": entry(shape=[3])}, bytes(8)), "takes 12 bytes"),
    "a negative size": (raw_file({"a": entry(shape=[-2])}, bytes(8)), "shape is not a list"),
    "a size that is a float": (raw_file({"a": entry(shape=[2.0])}, bytes(8)), "where only whole numbers belong"),
    "a size that is true": (raw_file({"a": entry(shape=[True, 2])}, bytes(8)), "shape is not a list"),
    "a huge shape of nothing": (raw_file({"a": entry(shape=[2**62, 0], end=0)}), "beyond any memory"),
    "a product that wraps": (raw_file({"a": entry(shape=[2**33, 2**33, 2**33], end=0)}), "takes"),
    "many dimensions": (raw_file({"a": entry(shape=[1] * 1000, end=4)}, bytes(4)), "at most 64 sizes"),
    "offsets that run backward": (raw_file({"a": entry(shape=[0], begin=8, end=0)}, bytes(8)), "data_offsets 8 to 0"),
    "a number of many digits": (
        raw_file(None, text=b'{"a":{"dtype":"F32","shape":[' + b"9" * 9999 + b"]}}"),
        "9,999 digits",
    ),
    "a number beyond floats": (raw_file(None, text=b'{"a":{"dtype":"F32","shape":[1e400]}}'), "1e400"),
    "NaN": (raw_file(None, text=b'{"a":{"dtype":"F32","shape":[NaN]}}'), "NaN"),
    "deep nesting": (raw_file(None, text=b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested deeper"),
    "brackets hidden behind quotes": (
        raw_file(None, text=b'{"a\\"":' + b'["\\"",' * 9 + b"1" + b"]" * 9 + b"}"),
        "nested deeper",
    ),
    "half a surrogate pair": (
        raw_file(None, text=b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
        "surrogate",
    ),
    "text that is not UTF-8": (raw_file(None, text=b'{"\xff":1}'), "not UTF-8"),
    "an unfinished string": (raw_file(None, text=b'{"' + b'\\"' * 200_000), "not JSON"),
    "a list": (raw_file(None, text=b'{"a":[]}'), "its entry is not an object"),
    "metadata that is no text": (raw_file({"__metadata__": {"a": 1}}), "__metadata__ is not an object of strings"),
    "an unknown dtype": (raw_file({"a": entry("F33")}, bytes(8)), "unknown dtype F33; known are BOOL, "),
    "a tensor that ends amid a byte": (raw_file({"a": entry("F4", shape=[15])}, bytes(8)), "F4 [15] ends amid a byte"),
    "a header longer than the file": (
        (1000).to_bytes(8, "little") + b"{}",
        "header has 1,000 bytes, the file ends after 2",
    ),
    "a header beyond the limit": ((100_000_001).to_bytes(8, "little") + b"{}", "at most 100,000,000"),
    "no header": (bytes(8) + b"{}", "the shortest is {}"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_header_with_two_meanings_is_refused(case: str, tmp_path: Path) -> None:
    """Every way to say two things, or nothing, in a header is one FormatError that says which."""
    raw, expected = REFUSED[case]
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert expected in str(caught.value)


def test_a_size_of_2_to_the_63_never_reaches_an_allocation(tmp_path: Path) -> None:
    """A header length of 2**63 is refused before anything is read."""
    path = tmp_path / "m.safetensors"
    path.write_bytes((1 << 63).to_bytes(8, "little") + b"{}")
    with pytest.raises(FormatError, match="claims 9,223,372,036,854,775,808 bytes"):
        open_checkpoint(path)


def test_hostile_names_are_read_and_shown_escaped(tmp_path: Path) -> None:
    """A name may hold anything; a message shows it escaped."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw_file({"\x1b[31m\u202e../../x\n": entry(shape=[3])}, bytes(8)))
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert r"`\x1b[31m\u202e../../x\n`" in str(caught.value)


def test_metadata_is_kept_and_says_pt(tmp_path: Path) -> None:
    """What the source said of itself goes along; `format` is what other tools expect."""
    write_checkpoint(tmp_path / "m.safetensors", tensors_of({"a": np.zeros(2, "f4")}), metadata={"by": "me"})
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        assert checkpoint.manifest.metadata == {"by": "me", "format": "pt"}


def test_wider_elements_come_first_when_the_order_would_misalign() -> None:
    """The given order is kept when every offset is a multiple of its width, and otherwise wider elements come first."""
    assert aligned_offsets({"a": spec("f16[1]"), "b": spec("u8[2]"), "c": spec("f32[1]")}) == {"a": 0, "b": 2, "c": 4}
    assert aligned_offsets({"a": spec("f16[1]"), "b": spec("u8[1]"), "c": spec("f32[1]")}) == {"c": 0, "a": 4, "b": 6}


def test_the_header_is_padded_to_eight_bytes() -> None:
    """The data begins at a multiple of eight."""
    for length in range(1, 20):
        layout = lay_out({"n" * length: spec("f32[2]")}, "m.safetensors")
        assert layout.files[0].tensors["n" * length] % 8 == 0


def test_a_header_whose_length_begins_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    """A length of 640 is `80 02`, how a pickle of protocol 2 begins: the brace after the length decides."""
    path = tmp_path / "model.safetensors"
    for protocol in range(6):
        length = protocol * 256 + 0x80
        header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'.ljust(length)
        path.write_bytes(length.to_bytes(8, "little") + header + b"x")
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.format == "safetensors"
            assert list(checkpoint.manifest) == ["a"]


def test_a_dtype_it_cannot_hold_is_named(tmp_path: Path) -> None:
    """c128 has no name in the format: the error lists the tensors and says what to do."""
    with pytest.raises(FormatError) as caught:
        lay_out({"a": spec("c128[2]"), "b": spec("f32[2]")}, tmp_path / "m.safetensors")
    assert str(caught.value) == (
        f"{tmp_path}/m.safetensors: safetensors cannot hold `a` c128[2]. "
        "Cast them (in the morph: | c128 ~> c64), or choose another format"
    )
    morph = isomorph.morph(text="a [i] <-> a [i] | c128 ~> c64\n** <-> **\n")
    isomorph.convert({"a": np.array([0.5, 1j]), "b": np.ones(2, "f4")}, tmp_path / "m.safetensors", morph)


def test_what_is_said_of_dtypes_of_several_kinds(tmp_path: Path) -> None:
    """Each kind has its own way; what is only carried has none."""
    for dtypes, said in {
        "bf16 f8e5m2": "Cast them (--dtype f32), or",
        "f8e8m0 f8e5m2": "Cast them (--dtype f32) where that goes (`0` is carried whole, never cast), or",
        "f8e8m0": "They are carried whole and never cast: dequantize them first, or",
    }.items():
        specs = {str(number): spec(f"{name}[2]") for number, name in enumerate(dtypes.split())}
        with pytest.raises(FormatError, match=re.escape(said)):
            lay_out(specs, tmp_path / "m.npz")


@pytest.mark.parametrize("length", [0x80, 0x180, 0x280, 0x380, 0x480, 0x580, 0x10280])
def test_a_header_whose_length_looks_like_a_pickle_is_a_header(tmp_path: Path, length: int) -> None:
    """The length is the first thing in the file: 0x0280 is 80 02, as pickles of protocol 2 begin. Also when the file is cut."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).ljust(length).encode()
    path = tmp_path / "m.bin"
    path.write_bytes(raw_file(None, np.arange(2, dtype="f4").tobytes(), text=header))
    assert len(load_file(path)) == 1
    with open_checkpoint(path) as checkpoint:
        assert (checkpoint.format, list(checkpoint.manifest)) == ("safetensors", ["w"])
    path.write_bytes(path.read_bytes()[: length // 2])
    with pytest.raises(FormatError, match="truncated: its safetensors header has"):
        open_checkpoint(path)


def test_no_length_of_a_header_hides_a_safetensors_file() -> None:
    """Every length up to 64 KiB, and those around every other format's first bytes."""

    class Headed(Source):
        def __init__(self, length: int) -> None:
            self.path, self.size, self.head = Path("m.bin"), length + 8, length.to_bytes(8, "little") + b'{"w":{'

        def read(self, offset: int, nbytes: int) -> bytes:
            return self.head

    lengths = [
        *range(2, 1 << 16),
        *(int.from_bytes(magic, "little") for magic in (b"PK\3\4", b"GGUF", b"\x80\5\x95\1", b"}q\0")),
    ]
    assert {sniff(Headed(length)) for length in lengths} == {"safetensors"}
