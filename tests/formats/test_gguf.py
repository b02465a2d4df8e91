"""GGUF against the gguf package: its types, typed metadata kept byte for byte, blocks carried whole, files in parts."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

import isomorph
from isomorph.cli.app import run
from isomorph.errors import FormatError
from isomorph.formats.gguf import read as ours
from isomorph.formats.gguf import split as gguf_split
from isomorph.formats.gguf.values import (
    ARRAY,
    NUMBERS,
    SCALARS,
    STRING,
    Value,
    as_metadata,
    as_values,
    from_text,
    string,
    to_text,
)
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.formats.source import Source
from isomorph.tensors import GGML_BLOCKS, dtype, spec
from isomorph.testing.formats import FormatConformance, random_bits, whole, write_checkpoint

PLAIN = ("f16", "bf16", "f32", "f64", "i8", "i16", "i32", "i64")


class TestGGUF(FormatConformance):
    format = "gguf"
    file_name = "model.gguf"
    dtypes = PLAIN
    names = (
        "w", "layers.0.attn.weight", "a/b/c", "ünï·côdé.重み", "with space", "..", "new\nline", "\x1b[31mred", 'quo"te\\', "0",
        "x" * 63,
    )  # fmt: skip

    def oracle_arrays(self) -> dict[str, Any]:
        arrays = super().oracle_arrays()
        return {name: array for name, array in arrays.items() if name not in ("bytes", "flags", "empty")}

    def cuts(self, nbytes: int) -> Iterator[int]:
        """All but those within the zeros that fill up the last tensor: nothing is lost with them."""
        yield from (length for length in super().cuts(nbytes) if length < nbytes - 24)

    def load_with_oracle(self, path: Path) -> Mapping[str, Any]:
        found = {}
        for tensor in gguf.GGUFReader(path).tensors:
            found[tensor.name] = tensor.data.reshape(tuple(reversed(tensor.shape.tolist())))
        return found

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        save(path, arrays)


def save(path: Path, arrays: Mapping[str, Any], blocks: Mapping[str, str] = {}, parts: int = 0) -> None:  # only read
    """What llama.cpp's own writer makes: values of every type, and these arrays (`blocks`: raw bytes of these types)."""
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=parts)
    writer.add_name("tiny\nllama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("llama.rms_epsilon", 1e-5)
    writer.add_float64("double", 3.141592653589793)
    writer.add_bool("a.bool", True)
    for kind, value in [
        ("int8", -3),
        ("uint8", 3),
        ("int16", -300),
        ("uint16", 300),
        ("int32", -7),
        ("int64", -(1 << 40)),
    ]:
        getattr(writer, f"add_{kind}")(f"a.{kind}", value)
    writer.add_uint64("a.uint64", (1 << 64) - 1)
    writer.add_float32("not.a.number", float("nan"))
    writer.add_array("tokens", [f"token {number} é" for number in range(300)])
    writer.add_array("scores", [0.1 * number for number in range(300)])
    writer.add_array("few", [1, -2, 3])
    writer.add_array("words", ["a", "", '"b" ] base64:'])
    writer.add_string("looks.like.base64", "base64:AAAA")
    for name, array in arrays.items():
        kind = GGMLQuantizationType[blocks[name].upper()] if name in blocks else None
        writer.add_tensor(name, np.asarray(array), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_every_type_is_that_of_ggml() -> None:
    """Numbers, elements and bytes of every type that the gguf package knows, and no others."""
    found = {}
    for kind in GGMLQuantizationType:
        elements, nbytes = GGML_QUANT_SIZES[kind]
        found[int(kind)] = (kind.name.lower(), elements, nbytes)
    assert {number: (one.name, one.elements, one.nbytes) for number, one in ours.TYPES.items()} == found


def test_blocks_of_every_type_are_carried_whole(tmp_path: Path) -> None:
    """Random blocks of every type, as the gguf package writes them: the same bytes, and its reader reads ours."""
    path, target = tmp_path / "m.gguf", tmp_path / "out.gguf"
    bits = {name: random_bits(kind, (4, 2), number) for number, (name, kind) in enumerate(GGML_BLOCKS.items())}
    rows = {name: array.view("u1").reshape(4, -1) for name, array in bits.items()}
    save(path, rows, {name: name for name in rows})
    with open_checkpoint(path) as opened:
        assert {name: spec(f"{name}[4,2]") for name in GGML_BLOCKS} == dict(opened.manifest)
        assert all(bits[name].tobytes() == whole(opened, name).tobytes() for name in bits)
        assert opened.manifest["q4_k"].element_shape == (4, 512)
    assert run(["convert", str(path), str(target), "-q"]) == 0
    assert path.read_bytes() == target.read_bytes()


def test_a_file_comes_back_byte_for_byte(tmp_path: Path) -> None:
    """Every value with its type and in its order, strings and floats that have no text among them; and through safetensors too."""
    path, through, back, again = (tmp_path / name for name in ("m.gguf", "m.safetensors", "back.gguf", "again.gguf"))
    arrays = {
        "blk.0.attn_q.weight": np.ones((4, 64), "f4"),
        "half": np.arange(7, dtype="f2"),
        "count": np.arange(3, dtype="i8"),
    }
    save(path, arrays)
    for source, target in ((path, again), (path, through), (through, back)):
        assert run(["convert", str(source), str(target), "-q"]) == 0
    assert path.read_bytes() == again.read_bytes()
    with contextlib.closing(Source(path)) as one, contextlib.closing(Source(back)) as other:
        assert list(ours.Header(one).values.items()) == list(ours.Header(other).values.items())
    assert run(["diff", "--values", str(path), str(back)]) == 0
    with open_checkpoint(through) as opened:
        said = opened.manifest.metadata
    assert said["gguf:llama.block_count"] == "u32 2"
    assert said["gguf:llama.rms_epsilon"] == "f32 1e-05"
    assert said["gguf:few"] == "[i32 3] [1, -2, 3]"
    assert said["gguf:general.name"] == "string tiny\nllama"
    assert said["gguf:tokens"].startswith("[string 300] base64:")


def test_a_plain_checkpoint_becomes_a_gguf(tmp_path: Path) -> None:
    """What a safetensors file says of itself is kept as strings, but for its `format`; the gguf package reads the result."""
    path, target = tmp_path / "m.safetensors", tmp_path / "m.gguf"
    kind = dtype("bf16")
    write_checkpoint(path, {"w": (kind, random_bits(kind, (3, 5), 1))}, metadata={"format": "pt", "author": "mé"})
    assert run(["convert", str(path), str(target), "-q"]) == 0
    read = gguf.GGUFReader(target)
    assert read.get_field("author").contents() == "mé"
    assert read.get_field("format") is None
    assert [(one.name, one.shape.tolist()) for one in read.tensors] == [("w", [5, 3])]


def test_the_alignment_is_that_of_the_file(tmp_path: Path) -> None:
    """Tensors lie at multiples of general.alignment, both ways."""
    metadata = {"gguf:general.alignment": "u32 256"}
    kind = dtype("i8")
    tensors = {name: (kind, random_bits(kind, (3,), 1)) for name in "abc"}
    write_checkpoint(tmp_path / "m.gguf", tensors, metadata=metadata)
    with open_checkpoint(tmp_path / "m.gguf") as opened:
        places = [opened.run(name) for name in "abc"]
        assert [place[1] % 256 for place in places if place] == [0, 0, 0]
        assert opened.manifest.metadata == metadata
    assert [one.data.tolist() for one in gguf.GGUFReader(tmp_path / "m.gguf").tensors] == [
        tensors["a"][1].view("i1").tolist()
    ] * 3


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (
            {"a": "bool[2]", "b": "u8[2]", "c": "c64[1]"},
            ("`a` bool[2], `b` u8[2], `c` c64[1]", "Cast them in the morph"),
        ),
        ({"a": "f32[1,1,1,1,1]"}, ("`a` f32[1,1,1,1,1]: at most 4 dims", "Merge axes")),
        (
            {"x" * 64: "f32[1]", "ok": "f32[1]", "é" * 32: "f32[1]"},
            ("more than 63 bytes", "x" * 64, "é" * 32, "Rename"),
        ),
        ({"f": "f4[2,2]"}, ("`f` f4[2,2]",)),
    ],
)
def test_what_gguf_cannot_hold_is_all_named(tmp_path: Path, tensors: dict[str, str], said: tuple[str, ...]) -> None:
    """Dtypes that ggml lacks, too many dims, names longer than it keeps: each of them, and what to do."""
    with pytest.raises(FormatError) as caught:
        lay_out({name: spec(text) for name, text in tensors.items()}, tmp_path / "m.gguf")
    assert all(part in str(caught.value) for part in said), caught.value


def test_shards_are_no_files_of_gguf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--max-shard-size says what to do instead."""
    save(tmp_path / "m.gguf", {"a": np.zeros(100, "f4"), "b": np.zeros(100, "f4")})
    assert (
        run(["convert", str(tmp_path / "m.gguf"), str(tmp_path / "out"), "--format", "gguf", "--max-shard-size", "200"])
        == 2
    )
    assert "gguf has no shards; write one file" in capsys.readouterr().err


def test_what_inspect_and_show_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Types of values are shown, long arrays are counted; parameters are counted by element; an item is shown as its bytes."""
    bits = random_bits(dtype("q8_0"), (2, 2), 5)
    save(tmp_path / "m.gguf", {"w": bits.view("u1").reshape(2, -1)}, {"w": "q8_0"})
    assert run(["inspect", str(tmp_path / "m.gguf")]) == 0
    said = capsys.readouterr().out
    assert "128 parameters" in said
    assert "items     q8_0: 32 elements in 34 bytes; shapes count items" in said
    assert "metadata  gguf:tokens = [string 300] (" in said
    assert max(map(len, said.splitlines())) < 220
    assert run(["show", str(tmp_path / "m.gguf"), "w", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["values"][1][0] == bits[1, 0].tobytes().hex()
    assert run(["show", str(tmp_path / "m.gguf"), "w"]) == 0
    said = capsys.readouterr().out
    assert "4 items of 32 elements in 34 bytes, as bytes in hexadecimal" in said
    assert f"{bits[0, 0].tobytes().hex()[:12]}…" in said


# ── blocks under a morph ─────────────────────────────────────────────────────────────────────────────────────────────


def quantised(path: Path) -> dict[str, Any]:
    made = {}
    for number, name in enumerate(("blk.0.q", "blk.1.q", "blk.0.k", "blk.1.k")):
        made[name] = random_bits(dtype("q4_k"), (6, 2), number)
    save(path, {name: bits.view("u1").reshape(6, -1) for name, bits in made.items()}, dict.fromkeys(made, "q4_k"))
    return made


def test_blocks_are_renamed_joined_cut_and_stacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rows of blocks move as rows do, heads are reordered, and the way back gives the same file."""
    path, target, back = tmp_path / "m.gguf", tmp_path / "out.gguf", tmp_path / "back.gguf"
    made = quantised(path)
    morph = tmp_path / "m.morph"
    morph.write_text("blk.{l}.q [(h two d) i], blk.{l}.k [o i] <-> qk [l (h d two + o) i] where two=2, d=1, o=6\n")
    for source, result, turned in ((path, target, []), (target, back, ["--inverse"])):
        code = run(["convert", str(source), "-m", str(morph), str(result), *turned])
        assert code == 0, capsys.readouterr().err
    with open_checkpoint(target) as opened:
        found = whole(opened, "qk")
        assert opened.manifest["qk"] == spec("q4_k[2,12,2]")
    rows = [
        np.concatenate([made[f"blk.{n}.q"].reshape(3, 2, 1, 2).swapaxes(1, 2).reshape(6, 2), made[f"blk.{n}.k"]])
        for n in (0, 1)
    ]
    assert found.tobytes() == np.stack(rows).tobytes()
    with open_checkpoint(back) as opened:
        assert all(whole(opened, name).tobytes() == bits.tobytes() for name, bits in made.items())


@pytest.mark.parametrize(
    "line",
    [
        "blk.{l}.{n=q|k} [o i] <-> w.{l}.{n} [i o]",
        "blk.{l}.{n=q|k} [o i] <-> w.{n} [o i l]",
        "blk.{l}.{n=q|k} [o (a b)] <-> w.{l}.{n} [o (b a)] where a=2",
    ],
)
def test_what_would_part_a_block_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str) -> None:
    """A transposed tensor of blocks would be another tensor: plan says so, and verify, which reads the morph by itself."""
    quantised(tmp_path / "m.gguf")
    (tmp_path / "m.morph").write_text(line + "\n")
    given = [str(tmp_path / "m.gguf"), "-m", str(tmp_path / "m.morph")]
    assert run(["convert", *given, str(tmp_path / "out.gguf")]) == 2
    said = capsys.readouterr().err
    which = "blk.{0..1}.q" if "{l}.{n} [" in line else "blk.0.q"
    assert (
        f"would part the items of `{which}`: an item of q4_k holds 256 elements in 144 bytes over its last axis" in said
    )
    assert "keep its last axis last, or dequantize it first" in said
    assert run(["verify", str(tmp_path / "m.gguf"), str(tmp_path / "m.gguf"), "-m", str(tmp_path / "m.morph")]) == 1
    assert "q4_k: its items of 256 elements would be parted" in capsys.readouterr().out
    assert not (tmp_path / "out.gguf").exists()


def test_blocks_are_not_cast(tmp_path: Path) -> None:
    """--dtype casts what is floating; blocks stay as they are."""
    made = quantised(tmp_path / "m.gguf")
    assert run(["convert", str(tmp_path / "m.gguf"), str(tmp_path / "o.gguf"), "--dtype", "f16", "-q"]) == 0
    with open_checkpoint(tmp_path / "o.gguf") as opened:
        assert {str(kind) for kind in opened.manifest.values()} == {"q4_k[6,2]"}
        assert whole(opened, "blk.0.q").tobytes() == made["blk.0.q"].tobytes()


def test_equal_blocks_are_found_and_different_ones_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """diff compares blocks byte by byte; infer finds renamed ones by their bytes."""
    made = quantised(tmp_path / "m.gguf")
    other = {f"x{number}": bits for number, bits in enumerate(reversed(list(made.values())))}
    save(
        tmp_path / "n.gguf",
        {name: bits.view("u1").reshape(6, -1) for name, bits in other.items()},
        dict.fromkeys(other, "q4_k"),
    )
    found = isomorph.infer(str(tmp_path / "m.gguf"), str(tmp_path / "n.gguf"))
    assert found.is_proved, str(found)
    (tmp_path / "found.morph").write_text(found.text)
    given = [str(tmp_path / "m.gguf"), str(tmp_path / "n.gguf"), "-m", str(tmp_path / "found.morph")]
    assert run(["verify", *given]) == 0
    assert "48 of 48 elements" in capsys.readouterr().out
    changed = {**made, "blk.1.k": made["blk.1.k"].copy()}
    changed["blk.1.k"].view("u1").reshape(-1)[145] ^= 1
    save(
        tmp_path / "c.gguf",
        {name: bits.view("u1").reshape(6, -1) for name, bits in changed.items()},
        dict.fromkeys(made, "q4_k"),
    )
    assert run(["diff", "--values", str(tmp_path / "m.gguf"), str(tmp_path / "c.gguf")]) == 1
    said = capsys.readouterr().out
    assert "blk.1.k [6 2] q4_k: 1 of 12 elements differ; first at [0, 1]: 0x" in said


# ── files in parts ───────────────────────────────────────────────────────────────────────────────────────────────────


def in_parts(folder: Path) -> dict[str, Any]:
    arrays = {f"w{number}": np.full((2, 3), number, "f4") for number in range(5)}
    save(folder / "m.gguf", arrays, parts=2)
    assert sorted(path.name for path in folder.iterdir()) == [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    return arrays


def test_a_file_in_parts_is_read_from_any_of_them(tmp_path: Path) -> None:
    """Every part opens the whole; so does their folder; the result is one file without the marks of a split."""
    arrays = in_parts(tmp_path)
    for path in (*sorted(tmp_path.iterdir()), tmp_path):
        with open_checkpoint(path) as opened:
            assert {name: whole(opened, name).view("f4").tolist() for name in opened.manifest} == {
                name: array.tolist() for name, array in arrays.items()
            }
            assert not [key for key in opened.manifest.metadata if "split" in key]
            assert opened.manifest.metadata["gguf:general.architecture"] == "string llama"


def test_a_missing_or_foreign_part_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, a part that is another, one under another name, and more parts than are opened."""
    in_parts(tmp_path)
    first, second, third = sorted(tmp_path.iterdir())
    raw = second.read_bytes()
    second.unlink()
    assert "part 1 of 3; missing beside it: m-00002-of-00003.gguf. Fetch all parts" in failure(first)
    second.write_bytes(third.read_bytes())
    assert "m-00002-of-00003.gguf: is not part 2 of 3, as its name says" in failure(first)
    second.write_bytes(raw)
    other = tmp_path / "alone.gguf"
    other.write_bytes(raw)
    assert "part 2 of 3, but its name does not say so. Name it NAME-00002-of-00003.gguf" in failure(other)
    monkeypatch.setattr(gguf_split, "MOST_PARTS", 2)
    assert "one of 3 parts; at most 2 are read" in failure(first)


def failure(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    return str(caught.value)


# ── values as texts ──────────────────────────────────────────────────────────────────────────────────────────────────


def scalar(kind: int) -> st.SearchStrategy[Value]:
    nbytes = struct.calcsize(SCALARS[kind][1])
    return st.binary(min_size=nbytes, max_size=nbytes).map(lambda raw: Value(kind, raw))


TEXTS = st.one_of(st.binary(max_size=12), st.text(max_size=6).map(str.encode)).map(
    lambda raw: Value(STRING, string(raw))
)
KINDS = st.sampled_from(sorted(SCALARS))


def arrays(elements: st.SearchStrategy[Value], inner: int) -> st.SearchStrategy[Value]:
    def made(found: list[Value]) -> Value:
        return Value(ARRAY, struct.pack("<IQ", inner, len(found)) + b"".join(each.raw for each in found))

    return st.lists(elements, max_size=80).map(made)


FLAT = st.one_of(KINDS.flatmap(lambda kind: arrays(scalar(kind), kind)), arrays(TEXTS, STRING))
VALUES = st.one_of(KINDS.flatmap(scalar), TEXTS, FLAT, arrays(FLAT, ARRAY))


@given(VALUES)
def test_every_value_has_a_text_that_is_it(value: Value) -> None:
    """Any bytes of any type: the text gives back the same bytes, and is text that JSON holds."""
    text = to_text(value)
    assert from_text(text) == value
    assert json.loads(json.dumps(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "begins with no type"), ("u32", "begins with no type"), ("llama 3", "begins with no type"),
        ("array 3", "begins with no type"), ("[u32] [1]", "begins with no type"), ("[u32 x] [1]", "begins with no type"),
        ("u32 -1", "-1 is beyond u32"), ("u8 256", "256 is beyond u8"), ("i8 true", "it is no i8"), ("u32 1.5", "it is no u32"),
        ("bool 1", "neither true nor false"), ("u32 base64:AAAA", "it is cut"), ("u32 base64:A", "base64 is broken"),
        ("string base64:AAAA", "it is cut"), ("[u32 2] [1]", "it is not 2 elements"), ("[string 1] [1]", "it is no text"),
        ("[u32 1] base64:AAAA", "its bytes are not such an array"), ("[array 1] [[1]]", "it is not 1 elements"),
        ("u32 " + "9" * 2000, "beyond u32"), ("u32 " + "9" * 9000, "Exceeds the limit"), ("u32 [", "Expecting value"),
        ("u32 " + "[" * 100_000, "nested too deeply"), ("[u32 1] " + " " * (1 << 20) + "[1]", "longer than such a text"),
    ],
)  # fmt: skip
def test_a_text_that_is_no_value_is_one_error(tmp_path: Path, text: str, problem: str) -> None:
    """An entry under `gguf:` that somebody wrote by hand is named with what is wrong."""
    with pytest.raises(FormatError) as caught:
        lay_out({"w": spec("f32[1]")}, tmp_path / "m.gguf", metadata={"gguf:a.key": text})
    assert "m.gguf: its metadata `gguf:a.key` stands for no value of GGUF: " in str(caught.value)
    assert problem in str(caught.value)


def test_entries_of_both_kinds_come_together() -> None:
    """Values keep their order and come first; a foreign entry is a string unless a value has its key."""

    def fail(problem: str) -> FormatError:
        return FormatError("m", problem)

    given = {"gguf:b": "u8 1", "format": "pt", "x": "y", "gguf:a": "u8 2", "a": "other"}
    found = as_values(given, fail)
    assert found == {
        "b": Value(NUMBERS["u8"], b"\1"),
        "a": Value(NUMBERS["u8"], b"\2"),
        "x": Value(STRING, string(b"y")),
    }
    assert as_metadata(found) == {"gguf:b": "u8 1", "gguf:a": "u8 2", "gguf:x": "string y"}
