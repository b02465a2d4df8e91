"""Flax's msgpack, HDF5 and TorchScript from strangers: files changed at random, files made to cost, and random trees against the libraries."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import FormatError
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import tensors_of, whole, write_checkpoint

SECONDS = 3.0
"""For one small file. It takes milliseconds; without bounds, minutes."""


def opened(path: Path, data: bytes) -> str:
    """What is said of a file; empty when it is read, every plain tensor of it too. Any error but FormatError fails the test."""
    path.write_bytes(data)
    begin = time.monotonic()
    try:
        with open_checkpoint(path) as checkpoint:
            for name, spec in checkpoint.manifest.items():
                if checkpoint.manifest.encodings.get(name) != "hdf5" and spec.nbytes < 1 << 20:
                    whole(checkpoint, name)
        said = ""
    except FormatError as error:
        said = str(error)
        assert str(path) in said and said.isprintable() and len(said) < 3000, said
    assert time.monotonic() - begin < SECONDS
    return said


# ── files changed at random ──────────────────────────────────────────────────────────────────────────────────────────


def packed(value: Any) -> bytes:
    """What Flax packs: arrays are extension 1, numpy's scalars 3, complex numbers 2."""

    def default(one: Any) -> msgpack.ExtType:
        if isinstance(one, complex):
            return msgpack.ExtType(2, msgpack.packb((one.real, one.imag)))
        array = np.asarray(one)
        kind = 1 if isinstance(one, np.ndarray) else 3
        return msgpack.ExtType(kind, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    raw: bytes = msgpack.packb(value, default=default, strict_types=True)
    return raw


CHUNKED = "__msgpack_chunked_array__"
W = np.arange(4, dtype="f4")


def pieces(size: int, *chunks: Any) -> dict[str, Any]:
    return {CHUNKED: True, "shape": {"0": size}, "chunks": {str(number): one for number, one in enumerate(chunks)}}


def hdf5(make: Callable[[Any], None], libver: Any = "earliest") -> bytes:
    raw = io.BytesIO()
    with h5py.File(raw, "w", libver=libver) as file:
        make(file)
    return raw.getvalue()


def layers(file: Any) -> None:
    file.attrs["layer_names"] = np.array([b"l"])
    group = file.create_group("l")
    group.attrs["weight_names"] = ["l/k:0", "l/b:0"]
    group["l/k:0"], group["l/b:0"] = np.ones((2, 3), "f4"), np.ones(3, ">f8")
    file["soft"], file["again"] = h5py.SoftLink("/l/l/k:0"), group["l/b:0"]


def kinds(file: Any) -> None:
    file["c"], file["t"], file["text"], file["i"] = np.zeros(2, "c8"), np.zeros(2, "?"), "x", np.arange(3, dtype=">i2")
    file["named"] = np.dtype("f4")
    file.create_dataset("typed", (2,), dtype=file["named"])
    file.create_dataset("packed", data=np.arange(20.0), chunks=(4,), compression="gzip")


def many(file: Any) -> None:
    group = file.create_group("g", track_order=True)
    for number in range(20):
        group[f"n{number}"] = np.int8(number)


def script() -> bytes:
    raw = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))), raw)
    return raw.getvalue()


def repacked(archive: bytes, name: str, data: bytes) -> bytes:
    """An archive with another content of one of its members, and checksums that fit."""
    raw = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(raw, "w") as new:
        for one in old.infolist():
            new.writestr(zipfile.ZipInfo(one.filename), data if one.filename == name else old.read(one))
    return raw.getvalue()


SEEDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "msgpack": (
        ".msgpack",
        lambda: packed({"a": {"w": W, "b": np.float32(2)}, "step": 7, "x": [W, 3], "z": 1j, 5: np.zeros((0, 3), "i8")}),
    ),
    "msgpack in pieces": (".msgpack", lambda: packed({"w": pieces(8, W, W), "v": pieces(4, W), "t": "x" * 40})),
    "hdf5 layers": (".h5", lambda: hdf5(layers)),
    "hdf5 kinds": (".h5", lambda: hdf5(kinds)),
    "new hdf5 layers": (".h5", lambda: hdf5(layers, "latest")),
    "new hdf5 kinds": (".h5", lambda: hdf5(kinds, "latest")),
    "new hdf5 of many": (".h5", lambda: hdf5(many, "latest")),
}


def mutants(data: bytes, seed: int, count: int) -> Iterator[bytes]:
    """Cuts, flipped bits, lengths that are huge, bytes put in, taken out and moved."""
    rng = random.Random(seed)
    for at in range(0, len(data), max(1, len(data) // 100)):
        yield data[:at]
    for _ in range(count):
        made = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
            at, wide = rng.randrange(len(made)), rng.choice([1, 2, 4, 8])
            match rng.randrange(7):
                case 0:
                    made[at] ^= 1 << rng.randrange(8)
                case 1:
                    made[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
                case 2:
                    value = rng.choice([0, (1 << 8 * wide) - 1, 1 << 8 * wide - 1, len(data) % (1 << 8 * wide)])
                    made[at : at + wide] = value.to_bytes(wide, rng.choice(["little", "big"]))
                case 3 if len(made) > 64:
                    del made[at : at + wide]
                case 4:
                    made[at:at] = rng.randbytes(wide)
                case 5:
                    origin = rng.randrange(len(made))
                    made[at : at + wide] = made[origin : origin + wide]
                case _:
                    made[at : at + 8] = (rng.randrange(len(data)) & ~7).to_bytes(8, "little")
        yield bytes(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_that_was_changed_is_read_or_refused(seed: str, tmp_path: Path) -> None:
    suffix, make = SEEDS[seed]
    data = make()
    assert opened(tmp_path / f"m{suffix}", data) == ""
    outcomes = [opened(tmp_path / f"m{suffix}", one) != "" for one in mutants(data, len(seed), 200)]
    assert any(outcomes) and not all(outcomes)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("member", ["data.pkl", "constants.pkl", "version", "byteorder", ""])
def test_a_script_archive_that_was_changed_is_read_or_refused(member: str, tmp_path: Path) -> None:
    """Each of its own pickles under a checksum that fits; and the archive as it lies."""
    data = script()
    if not member:
        assert any(opened(tmp_path / "m.pt", one) for one in mutants(data, 1, 200))
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        name = next(one for one in archive.namelist() if one.endswith("/" + member))
        inner = archive.read(name)
    for one in mutants(inner, len(member), 100):
        opened(tmp_path / "m.pt", repacked(data, name, one))


# ── HDF5 made by hand: a little that would cost much ─────────────────────────────────────────────────────────────────

NOWHERE = b"\xff" * 8
SCALAR_F4 = struct.pack("<BBBBIHHBBBBI", 0x11, 0x20, 31, 0, 4, 0, 32, 23, 8, 0, 23, 127)


def message(kind: int, data: bytes) -> bytes:
    data += b"\0" * (-len(data) % 8)
    return struct.pack("<HH4x", kind, len(data)) + data


def object_of(*messages: bytes) -> bytes:
    body = b"".join(messages)
    return struct.pack("<BBHII4x", 1, 0, len(messages), 1, len(body)) + body


def link(name: bytes, address: int) -> bytes:
    return message(6, bytes([1, 0, len(name)]) + name + address.to_bytes(8, "little"))


def attribute(name: bytes, kind: bytes, count: int, *, is_shared: bool = False) -> bytes:
    """An attribute of `count` values whose bytes are not there."""
    name, shape = name + b"\0", struct.pack("<BBBBIQ", 1, 1, 0, 0, 0, count)
    sizes = struct.pack("<BBHHH", 3, is_shared, len(name), len(kind), len(shape))
    return message(0x0C, sizes + b"\0" + name + kind + shape + b"\0" * 8)


def file_of(objects: bytes) -> bytes:
    """A file of version 0 whose first object, at byte 96, is its first group."""
    head = b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", 4, 16, 0)
    head += bytes(8) + NOWHERE + (96 + len(objects)).to_bytes(8, "little") + NOWHERE
    return head + struct.pack("<QQII16x", 0, 96, 0, 0) + objects


def ends_of_one_name(count: int, nbytes: int, *, soft: bool) -> bytes:
    """An old group of `count` links whose names are each one character shorter than the one before: ends of one text."""
    group = object_of(message(0x11, bytes(16)))
    heap = 96 + len(group)
    names = b"a" * nbytes + b"\0" * (8 - nbytes % 8)
    tree = heap + 32 + len(names)
    node = tree + 24 + 24
    entries = b"".join(
        struct.pack("<QQIII12x", number, 96, 2 if soft else 0, 0, number // 2 if soft else 0) for number in range(count)
    )
    group = object_of(message(0x11, struct.pack("<QQ", tree, heap)))
    made = group + b"HEAP" + bytes(4) + struct.pack("<Q", len(names)) + NOWHERE + struct.pack("<Q", heap + 32) + names
    made += b"TREE" + struct.pack("<BBH", 0, 0, 1) + NOWHERE + NOWHERE + struct.pack("<QQQ", 0, node, 0)
    return file_of(made + b"SNOD" + struct.pack("<BBH", 1, 0, count) + entries)


def types_of_types(attributes: int, messages: int) -> bytes:
    """A group whose attributes all refer to one type, which lies behind `messages` empty messages."""

    def group(address: int) -> bytes:
        shared = struct.pack("<BBQ", 3, 2, address)
        return object_of(*(attribute(b"a%d" % number, shared, 1, is_shared=True) for number in range(attributes)))

    behind = object_of(*[message(0, b"")] * messages, message(3, struct.pack("<BBBBI", 0x13, 0, 0, 0, 1)))
    return file_of(group(96 + len(group(0))) + behind)


NO_TEXT = struct.pack("<BBBBI", 0x13, 0, 0, 0, 0)


@pytest.mark.parametrize("key", [b"weight_names", b"layer_names"])
def test_lists_of_texts_without_bytes_are_no_lists(key: bytes, tmp_path: Path) -> None:
    """Twenty kB that say eighty million names of no letters."""
    data = file_of(object_of(*(attribute(key + b"%d" % number, NO_TEXT, 200_000) for number in range(400))))
    assert opened(tmp_path / "m.h5", data) == ""


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("count", "nbytes"), [(2000, 100_000), (60_000, 1_000_000)])
def test_names_that_share_their_bytes_are_bounded(count: int, nbytes: int, soft: bool, tmp_path: Path) -> None:
    """Three MB that say sixty GB of names."""
    said = opened(tmp_path / "m.h5", ends_of_one_name(count, nbytes, soft=soft))
    assert "an HDF5 file of more than 200,000 links, or 67,108,864 bytes of them" in said


def test_a_few_names_that_share_their_bytes_are_names(tmp_path: Path) -> None:
    assert "is the group `/` again" in opened(tmp_path / "m.h5", ends_of_one_name(20, 40, soft=False))
    path = tmp_path / "m.h5"
    path.write_bytes(ends_of_one_name(20, 40, soft=True))
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.manifest.leaves["a" * 30] == f"a link to {'a' * 35}"


def test_a_type_that_many_refer_to_is_read_once(tmp_path: Path) -> None:
    """A hundred kB that say seven million messages."""
    assert opened(tmp_path / "m.h5", types_of_types(900, 8000)) == ""


def test_two_links_of_one_name_are_refused(tmp_path: Path) -> None:
    """One reader takes the first, another the last."""
    weight = object_of(
        message(1, struct.pack("<BBBBIQ", 1, 1, 0, 0, 0, 1)), message(3, SCALAR_F4), message(8, struct.pack("<BBQQ", 3, 1, 96, 4))
    )  # fmt: skip

    def group(second: bytes) -> bytes:
        size = len(object_of(link(b"w", 0), link(second, 0)))
        return file_of(object_of(link(b"w", 96 + size), link(second, 96 + size + len(weight))) + weight + weight)

    assert opened(tmp_path / "m.h5", group(b"v")) == ""
    assert "a broken HDF5 file: two links are called `w`" in opened(tmp_path / "m.h5", group(b"w"))


# ── msgpack made by hand ─────────────────────────────────────────────────────────────────────────────────────────────

LIES = {
    "pieces of pieces": ({"w": pieces(16, pieces(8, W, W), pieces(8, W, W))}, "of which one is no flat array"),
    "pieces of a matrix": ({"w": pieces(8, W.reshape(2, 2), W)}, "of which one is no flat array"),
    "pieces of two dtypes": ({"w": pieces(8, W, W.astype("i4"))}, "of more than one dtype"),
    "pieces of a number": ({"w": pieces(8, W, 3)}, "of which one is no flat array"),
    "pieces without end": ({"w": pieces(1 << 62, W, W)}, "whose pieces hold 32"),
    "pieces of less than nothing": ({"w": pieces(-8, W, W)}, "whose shape is not a list of sizes"),
    "a number and its text": ({"a": {5: W, "5": W}}, "two entries have the name `a/5`"),
    "a path and its parts": ({"a/b": W, "a": {"b": W}}, "two entries have the name `a/b`"),
    "a path and a leaf": ({"a": {"b": 3}, "a/b": W}, "two entries have the name `a/b`"),
}


@pytest.mark.parametrize("case", LIES)
def test_msgpack_of_two_meanings_is_refused(case: str, tmp_path: Path) -> None:
    tree, said = LIES[case]
    assert said in opened(tmp_path / "m.msgpack", packed(tree))


def test_keys_of_any_text_are_names(tmp_path: Path) -> None:
    """Paths, patterns and words to the terminal are names like others, and are written again as they were."""
    keys = ["..", ".", "a::b", "a\0b", "\x1b[31m", "\u202e", "a\nb", "*", "{l}", "é", "x" * 60_000]
    path = tmp_path / "m.msgpack"
    path.write_bytes(packed(dict.fromkeys(keys, W)))
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.manifest) == keys
        arrays = tensors_of({key: whole(checkpoint, key).view("f4") for key in keys})
    write_checkpoint(tmp_path / "again.msgpack", arrays)
    assert (tmp_path / "again.msgpack").read_bytes() == path.read_bytes()


def test_long_keys_in_long_keys_are_bounded(tmp_path: Path) -> None:
    """Six MB in which each of ten thousand names would be five MB long."""
    tree: dict[str, Any] = {f"w{number}": W for number in range(10_000)}
    for _ in range(90):
        tree = {"a" * 60_000: tree}
    assert "unfold to more than" in opened(tmp_path / "m.msgpack", packed(tree))


# ── random trees against the libraries ───────────────────────────────────────────────────────────────────────────────

NAMES = st.text("abc.:-_ é", min_size=1, max_size=4).filter(lambda text: text != ".")
DTYPES = st.sampled_from(["f4", "f2", "i8", "u1", "?", "f8", "i2"])


@st.composite
def arrays(draw: Any) -> Any:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = int(np.prod(shape))
    raw = draw(st.binary(min_size=count, max_size=count))
    return (np.frombuffer(raw, "u1") % 2).astype(draw(DTYPES)).reshape(shape)


TREES = st.dictionaries(
    NAMES, st.recursive(arrays(), lambda inner: st.dictionaries(NAMES, inner, min_size=1, max_size=3), max_leaves=6), max_size=4
)  # fmt: skip


def flat(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(flat(value, f"{before}{key}/") if isinstance(value, dict) else {before + key: value})
    return found


def same(path: Path, wanted: dict[str, Any]) -> None:
    with open_checkpoint(path, inner="") as checkpoint:
        assert {name: spec.shape for name, spec in checkpoint.manifest.items()} == {
            name: array.shape for name, array in wanted.items()
        }
        for name, array in wanted.items():
            assert whole(checkpoint, name).tobytes() == array.tobytes()


@settings(max_examples=60, deadline=None)
@given(tree=TREES)
def test_random_trees_of_msgpack_are_what_was_packed(tree: dict[str, Any], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("tree") / "m.msgpack"
    path.write_bytes(packed(tree) if tree else b"\x80")
    if tree:
        same(path, flat(tree))
        again = path.with_name("again.msgpack")
        write_checkpoint(again, tensors_of(flat(tree)))
        assert again.read_bytes() == path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(tree=TREES, libver=st.sampled_from(["earliest", "v108", "latest"]), ordered=st.booleans())
def test_random_trees_of_hdf5_are_what_h5py_has(
    tree: dict[str, Any], libver: str, ordered: bool, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.mktemp("tree") / "m.h5"
    wanted = flat(tree)
    with h5py.File(path, "w", libver=(libver, "latest"), track_order=ordered) as file:
        for name, array in wanted.items():
            file[name] = array
    same(path, wanted)
    again = path.with_name("again.h5")
    write_checkpoint(again, tensors_of(wanted))
    with h5py.File(again, "r") as file:
        for name, array in wanted.items():
            assert file[name][()].tobytes() == array.tobytes() and file[name].dtype == array.dtype


@pytest.mark.parametrize("suffix", [".msgpack", ".h5"])
def test_a_writer_that_is_killed_leaves_nothing_under_the_name(suffix: str, tmp_path: Path) -> None:
    """At its third write of bytes, with no chance to tidy up."""
    np.savez(tmp_path / "in.npz", **{f"w{number}": np.ones((64, 1024), "f4") for number in range(8)})
    code = f"""
import os
writes = 0
def dying(real):
    def write(*given):
        global writes
        writes += 1
        if writes > 3:
            os._exit(9)
        return real(*given)
    return write
for name in ("pwrite", "write", "pwritev", "copy_file_range", "sendfile"):
    setattr(os, name, dying(getattr(os, name)))
from isomorph.cli.app import run
run(["convert", "in.npz", "out{suffix}", "-q"])
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 9, ended
    assert not (tmp_path / f"out{suffix}").exists()
