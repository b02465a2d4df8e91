"""Elements of 4 and 6 bits: carried whole, in whatever shape they have, in safetensors and in torch; and what cannot hold them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given
from hypothesis import strategies as st

from isomorph.cli.app import run
from isomorph.errors import FormatError
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.tensors import BLOCK_DTYPES, DTYPES, PACKED_DTYPES, dtype, packed, spec
from isomorph.testing.formats import random_bits, whole, write_checkpoint

CODES = {"F4": "f4", "F6_E2M3": "f6e2m3", "F6_E3M2": "f6e3m2"}
BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def raw_file(path: Path, entries: dict[str, tuple[str, list[int]]]) -> bytes:
    """A safetensors file of these dtypes and shapes in elements, filled with random bytes; the data."""
    header: dict[str, object] = {}
    end = 0
    for name, (code, shape) in entries.items():
        begin, end = end, end + math.prod(shape) * BITS[code] // 8
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    data = np.random.default_rng(1).integers(0, 256, end, "u1").tobytes()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return data


SHAPES = [[2, 3], [4, 6], [8], [3, 8], [4, 3], [2, 2, 3, 4], [8, 1], [4, 5, 3], [0, 3], [3, 0], [2, 2, 2], [1, 1, 8]]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_legal_shape_is_carried_and_written_back(tmp_path: Path, code: str, shape: list[int]) -> None:
    """The header has the shape in elements again, the bytes are the same, and the library reads both files alike."""
    while math.prod(shape) * BITS[code] % 8:
        shape = [2, *shape]
    path, target = tmp_path / "m.safetensors", tmp_path / "out.safetensors"
    data = raw_file(path, {"w": (code, shape), "other": ("F4", [2])})
    with open_checkpoint(path) as opened:
        kind = opened.manifest["w"]
        assert list(kind.element_shape) == shape
        assert (kind.dtype.kind, kind.nbytes) == ("opaque", len(data) - 1)
        assert whole(opened, "w").tobytes() == data[:-1]
    assert run(["convert", str(path), str(target), "-q"]) == 0
    with safetensors.safe_open(target, framework="numpy") as read:
        assert (read.get_slice("w").get_dtype(), read.get_slice("w").get_shape()) == (code, shape)
    assert target.read_bytes().endswith(data)


def test_rows_that_end_amid_a_byte_are_whole_over_several_axes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An item of a [4 3] of F4 is a box of 2 by 3; renaming and cutting pairs of rows works, parting them does not."""
    path, target, morph = tmp_path / "m.safetensors", tmp_path / "out.safetensors", tmp_path / "m.morph"
    data = raw_file(path, {"w": ("F4", [4, 3])})
    with open_checkpoint(path) as opened:
        assert str(opened.manifest["w"]) == "f4_2x3[2,1]"
    morph.write_text("w [(o + o) i] <-> a [o i], b [o i]\n")
    assert run(["convert", str(path), "-m", str(morph), str(target), "-q"]) == 0, capsys.readouterr().err
    with open_checkpoint(target) as opened:
        assert {name: kind.element_shape for name, kind in opened.manifest.items()} == {"a": (2, 3), "b": (2, 3)}
        assert whole(opened, "a").tobytes() + whole(opened, "b").tobytes() == data
    morph.write_text("w [o i] <-> w [i o]\n")
    assert run(["convert", str(path), "-m", str(morph), str(tmp_path / "no.safetensors")]) == 2
    said = capsys.readouterr().err
    assert "an item of f4_2x3 holds 6 elements in 3 bytes over its last 2 axes" in said
    assert "keep its last 2 axes last" in said
    assert run(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert "12 parameters" in said and "f4_2x3: 2 by 3 elements in 3 bytes; shapes count items" in said


@pytest.mark.parametrize(
    ("code", "shape", "said"),
    [
        ("F4", [3], "F4 [3] ends amid a byte: its elements have 4 bits"),
        ("F4", [], "F4 [] ends amid a byte"),
        ("F6_E2M3", [2, 3], "F6_E2M3 [2, 3] ends amid a byte: its elements have 6 bits"),
        ("F4", [2, 4_000_001], "its rows of 4,000,001 elements end amid a byte, and an item would be too large"),
        ("F4", [2**62, 2**62], "takes"),
        ("F4", [2**62, 16, 0], "beyond any memory"),
    ],
)
def test_what_is_no_whole_bytes_is_refused(tmp_path: Path, code: str, shape: list[int], said: str) -> None:
    """A tensor that ends amid a byte is none; rows so long that an item would fill the memory are left."""
    path = tmp_path / "m.safetensors"
    nbytes = 0 if math.prod(shape) > 1 << 60 else math.prod(shape) * BITS[code] // 8
    head = json.dumps({"w": {"dtype": code, "shape": shape, "data_offsets": [0, nbytes]}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(nbytes))
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    assert said in str(caught.value) and "tensor `w`" in str(caught.value)


@given(st.sampled_from(sorted(PACKED_DTYPES)), st.lists(st.integers(0, 12), max_size=5))
def test_packing_keeps_shape_bytes_and_rank(name: str, shape: list[int]) -> None:
    """Any shape: no items where it is no whole bytes, else as many axes, the same elements, the fewest bytes; by its name too."""
    base = dtype(name)
    bits = math.prod(shape) * 8 * base.nbytes // base.elements
    found = packed(base, shape)
    if found is None:
        assert bits % 8 or not shape
        return
    assert found.element_shape == tuple(shape)
    assert len(found.shape) == len(shape)
    assert found.nbytes * 8 == bits
    assert dtype(found.dtype.name) == found.dtype


@pytest.mark.parametrize("name", ["f4_3x3", "f4_0x2", "f4_", "f4_2x", "f4_9999999x9999999999", "q4_k_2x2", "f5_2"])
def test_a_name_of_no_items_is_no_dtype(name: str) -> None:
    """Boxes that are no whole bytes, or beyond all bounds, are not made because a name asks for them."""
    with pytest.raises(KeyError):
        dtype(name)


def test_torch_holds_float4_and_gives_it_back(tmp_path: Path) -> None:
    """torch counts pairs, as items do: the same shape, and the same file again by way of safetensors."""
    raw = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    torch.save({"w": raw.view(torch.float4_e2m1fn_x2)}, tmp_path / "m.pth")
    assert run(["convert", str(tmp_path / "m.pth"), str(tmp_path / "m.safetensors"), "-q"]) == 0
    assert run(["convert", str(tmp_path / "m.safetensors"), str(tmp_path / "b.pth"), "-q"]) == 0
    with safetensors.safe_open(tmp_path / "m.safetensors", framework="numpy") as read:
        assert (read.get_slice("w").get_dtype(), read.get_slice("w").get_shape()) == ("F4", [4, 12])
    found = torch.load(tmp_path / "b.pth", weights_only=True)["w"]
    assert found.dtype == torch.float4_e2m1fn_x2
    assert torch.equal(found.view(torch.uint8), raw)


@pytest.mark.parametrize("suffix", ["pth", "npz", "msgpack", "h5", "pdparams", "gguf"])
def test_formats_that_lack_them_name_them_all(tmp_path: Path, suffix: str) -> None:
    """Not one tensor is cast or left out in silence."""
    with pytest.raises(FormatError) as caught:
        lay_out({"a": spec("f6e2m3[2,2]"), "b": spec("f4_2x3[1,1]"), "c": spec("f32[1]")}, tmp_path / f"m.{suffix}")
    said = str(caught.value)
    assert "`a` f6e2m3[2,2], `b` f4_2x3[1,1]" in said and "`c`" not in said


def test_scales_and_blocks_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An mxfp4 checkpoint as it is published: packed elements and e8m0 scales, renamed and stacked, there and back."""
    made = {}
    for layer in range(2):
        made[f"layers.{layer}.w"] = (dtype("f4"), random_bits(dtype("f4"), (32, 16), layer))
        made[f"layers.{layer}.scale"] = (dtype("f8e8m0"), random_bits(dtype("f8e8m0"), (32, 1), layer + 9))
    path, target, back = (tmp_path / f"{name}.safetensors" for name in ("m", "out", "back"))
    write_checkpoint(path, made)
    (tmp_path / "m.morph").write_text("layers.{l}.{n=w|scale} [o i] <-> experts.{n} [l o i]\n")
    given = ["-m", str(tmp_path / "m.morph")]
    assert run(["convert", str(path), str(target), *given]) == 0
    assert run(["convert", str(target), str(back), *given, "--inverse", "-q"]) == 0
    assert run(["verify", str(path), str(target), *given]) == 0
    assert "1,088 of 1,088 elements, bit for bit" in capsys.readouterr().out
    with open_checkpoint(back) as opened:
        assert {name: whole(opened, name).tobytes() for name in opened.manifest} == {
            name: bits.tobytes() for name, (_, bits) in made.items()
        }


def test_no_block_is_among_the_dtypes_of_the_notation() -> None:
    """A morph cannot cast to what is only carried."""
    assert not set(BLOCK_DTYPES) & set(DTYPES)
