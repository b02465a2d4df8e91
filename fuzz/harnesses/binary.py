"""Flax's msgpack, and HDF5's own part (what h5py decodes is decoded elsewhere)."""

from __future__ import annotations

import io
from typing import Any

import h5py
import msgpack
import numpy as np

from fuzz.harness import Finding, Harness, read_with
from fuzz.mutators import pieces
from isomorph.formats.flax import read as flax_msgpack
from isomorph.formats.hdf5 import read as hdf5
from isomorph.formats.registry import lay_out
from isomorph.tensors import spec
from isomorph.testing.formats import materialise, random_bits

SPECS = {"w": spec("f32[3,2]"), "a/b": spec("f16[4]"), "a/n": spec("i64[]")}
BITS = {key: (one.dtype, random_bits(one.dtype, one.shape, 1)) for key, one in SPECS.items()}


# --- msgpack


def _array(shape: list[int], dtype: str, data: bytes, code: int = 1) -> msgpack.ExtType:
    return msgpack.ExtType(code, msgpack.packb((shape, dtype, data)))


def flax_seeds() -> dict[str, bytes]:
    piece = _array([2], "float32", bytes(8))
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 2}, "chunks": {"0": piece, "1": piece}}
    return {
        "written": materialise(lay_out(SPECS, "m.msgpack").files[0], BITS),
        "tree": msgpack.packb({"a": {"w": _array([2, 1], "float32", bytes(8)), "n": [1, 2.5, None, True, b"x", -5]}}),
        "chunked": msgpack.packb({"w": chunked}),
        "kinds": msgpack.packb(
            {"s": _array([], "int64", bytes(8), 3), "c": msgpack.ExtType(2, b"\x92\x00\x00"), "i": 2**40, 5: "x"}
        ),
        "alone": msgpack.packb(_array([1], "bfloat16", b"ab")),
        "text": msgpack.packb({"t": _array([1], "<U3", bytes(12)), "e": _array([0, 2], "uint8", b"")}),
    }


def run_flax(data: bytes) -> None:
    """What we read, msgpack reads too, and the arrays are the bytes that it finds."""
    found = read_with(flax_msgpack.read, data, "fuzzed.msgpack")
    try:
        tree = msgpack.unpackb(data, strict_map_key=False, raw=False, ext_hook=lambda code, held: (code, held))
    except (msgpack.UnpackException, ValueError) as error:
        if "timestamp" in str(error) or "nanoseconds" in str(
            error
        ):  # extension -1, to which msgpack gives a meaning; here it is a leaf
            return
        raise Finding(f"read, although msgpack says {type(error).__name__}: {error}") from error
    held: list[bytes] = []
    pending = [tree]
    while pending:
        one: Any = pending.pop()
        if isinstance(one, dict):
            pending += one.values()
        elif isinstance(one, list):
            pending += one
        elif isinstance(one, tuple) and one[0] in (1, 3):
            held.append(bytes(msgpack.unpackb(one[1], raw=True, strict_map_key=False)[2]))
    whole = b"".join(sorted(held))
    for name, array in found.items():
        if array.tobytes() not in held and len(array.tobytes()) > len(whole):
            raise Finding(f"{name!r} holds bytes that msgpack does not find")


FLAX_ATOMS = tuple(
    [
        bytes([code])
        for code in (
            0,
            1,
            0x7F,
            0x80,
            0x81,
            0x82,
            0x83,
            0x90,
            0x91,
            0x92,
            0x93,
            0xA0,
            0xA1,
            0xC0,
            0xC1,
            0xC2,
            0xC3,
            0xE0,
            0xFF,
        )
    ]
    + [
        msgpack.packb(value)
        for value in (-1, 128, 2**15, 2**31, 2**63, 1.5, "a", b"a", "é", "0", "1", "shape", "chunks")
    ]
    + [
        msgpack.packb("__msgpack_chunked_array__"),
        msgpack.packb(_array([1], "float32", bytes(4))),
        msgpack.packb(_array([2], "int8", b"ab", 3)),
    ]
    + [msgpack.packb(kind) for kind in flax_msgpack.NAMES]
    + [
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\1",
        b"\xa1\xff",
    ]
)


def msgpack_items(data: bytes) -> list[bytes]:
    """The heads of msgpack values with what they hold, containers opened; arrays too."""
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        code, end = data[at], at + 1
        if 0xA0 <= code < 0xC0:
            end += code & 31
        elif 0xC4 <= code <= 0xC6 or 0xD9 <= code <= 0xDB:
            width = 1 << (code - (0xC4 if code <= 0xC6 else 0xD9))
            end += width + int.from_bytes(data[at + 1 : at + 1 + width], "big")
        elif 0xC7 <= code <= 0xC9:
            end += (1 << (code - 0xC7)) + 1
        elif 0xD4 <= code <= 0xD8:
            end += 1
        elif code in _WIDTHS:
            end += _WIDTHS[code]
        parts.append(data[at:end])
        at = end
    return parts


_WIDTHS = {
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
    0xDC: 2,
    0xDD: 4,
    0xDE: 2,
    0xDF: 4,
}


# --- HDF5


def hdf5_file(make: Any, libver: Any = "earliest") -> bytes:
    target = io.BytesIO()
    with h5py.File(target, "w", libver=libver) as file:
        make(file)
    return target.getvalue()


def _keras(file: Any) -> None:
    file.attrs["layer_names"] = np.array([b"dense"])
    file.attrs["backend"] = b"tensorflow"
    group = file.create_group("dense")
    group.attrs["weight_names"] = np.array([b"k:0", b"b:0"])
    group["k:0"] = np.arange(4, dtype="<f4")
    group["b:0"] = np.arange(2, dtype=">f4")


def _kinds(file: Any) -> None:
    file["s"] = "text"
    file["half"] = np.zeros(2, "<f2")
    file["soft"] = h5py.SoftLink("/half")
    file["hard"] = file["half"]
    file["empty"] = h5py.Empty("f")
    file.create_dataset("c", data=np.zeros((4, 4), "<i4"), chunks=(2, 2), compression="gzip")
    file["t"] = np.dtype("<f8")


def _many(file: Any) -> None:
    for number in range(12):
        file.create_group("g").create_dataset("w", data=np.zeros(1, "<i2")) if number == 0 else None
        file[f"w{number}"] = np.zeros(1, "<i2")


def hdf5_seeds() -> dict[str, bytes]:
    made = {"written": materialise(lay_out(SPECS, "m.h5").files[0], BITS)}
    for libver in ("earliest", "latest", "v110"):
        for make in (_keras, _kinds, _many):
            key = f"{libver} {make.__name__}"
            made[key] = hdf5_file(make, libver if libver != "v110" else ("v110", "v110"))
    return {key: value for key, value in made.items() if len(value) <= 16384}


def run_hdf5(data: bytes) -> None:
    read_with(hdf5.read, data, "fuzzed.h5")


HDF5_ATOMS = (
    b"TREE",
    b"HEAP",
    b"SNOD",
    b"OHDR",
    b"OCHK",
    b"FRHP",
    b"FHDB",
    b"FHIB",
    b"BTHD",
    b"BTLF",
    b"BTIN",
    b"GCOL",
    b"\x89HDF\r\n\x1a\n",
    b"\xff" * 8,
    bytes(8),
)

HARNESSES = [
    Harness("flax", run_flax, flax_seeds, pieces(msgpack_items, FLAX_ATOMS), max_nbytes=512),
    Harness("hdf5", run_hdf5, hdf5_seeds, tokens=HDF5_ATOMS, max_nbytes=16384),
]
