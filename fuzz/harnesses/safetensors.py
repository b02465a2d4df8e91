"""safetensors beside its own library: what both read must be the same, and what we read it must read."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import safetensors

from fuzz.harness import Finding, Harness, Raw, read_with
from fuzz.mutators import JSON_ATOMS, JSON_SPLIT, pieces
from isomorph.errors import FormatError
from isomorph.formats import safetensors as ours
from isomorph.formats.registry import lay_out
from isomorph.tensors import spec
from isomorph.testing.formats import materialise, random_bits


def run(data: bytes) -> None:
    refused: FormatError | None = None
    found: dict[str, Any] = {}
    try:
        found = read_with(ours.read, data, "fuzzed.safetensors")
    except FormatError as error:
        refused = error
    try:
        theirs = dict(safetensors.deserialize(data))
    except Exception as error:
        if refused is None:
            raise Finding(f"read, although the library says {error}") from error
        raise refused from None
    if refused is not None:
        raise refused
    if not found.keys() <= theirs.keys():
        raise Finding(f"tensors that the library does not see: {sorted(found.keys() - theirs.keys())}")
    for name, array in found.items():
        said = theirs[name]
        same_shape = said["dtype"] in PACKED or tuple(said["shape"]) == array.shape
        if array.tobytes() != bytes(said["data"]) or not same_shape:
            raise Finding(
                f"{name!r} is {array.dtype} {array.shape} here, {said['dtype']} {said['shape']} in the library"
            )


PACKED = ("F4", "F6_E2M3", "F6_E3M2")
"""Several elements to an item: the shape here counts items."""


def file_of(header: object, data: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def seeds() -> dict[str, bytes]:
    specs = {"w": spec("f32[3,2]"), "b": spec("bf16[4]"), "n": spec("i64[]"), "e": spec("f8e4m3[0,2]")}
    bits = {key: (one.dtype, random_bits(one.dtype, one.shape, 1)) for key, one in specs.items()}
    one = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
    return {
        "written": materialise(lay_out(specs, "m.safetensors", metadata={"format": "pt"}).files[0], bits),
        "empty": file_of({}, b""),
        "metadata": file_of({"__metadata__": {"a": "b"}, "w": one}, b"ab"),
        "two": file_of({"w": one, "v": {**one, "data_offsets": [2, 4]}}, b"abcd"),
        "packed": file_of({"w": {"dtype": "F4", "shape": [2, 4], "data_offsets": [0, 4]}}, b"abcd"),
        "six": file_of({"w": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}, b"abc"),
        "blanks": file_of(json.dumps({"w": one}).encode() + b"   ", b"ab"),
        "escape": file_of({'\u00e9"\\': one}, b"ab"),
    }


ATOMS = (
    *JSON_ATOMS, b'"dtype"', b'"shape"', b'"data_offsets"', b'"w"', b"[2]", b"[0,2]", b"[2,4]", b"4", b"8", b'"__metadata__"',
    b'"F4"', b'"F6_E2M3"', b'"F8_E8M0"', b'"C64"', b'"BF16"', b'"F64"', b'"U8"', b'"BOOL"', b'"I64"',
    b'{"dtype":"U8","shape":[0],"data_offsets":[2,2]}', b'"v":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}',
)  # fmt: skip
_header = pieces(JSON_SPLIT, ATOMS, raw_share=0.2)


def mutate(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
    """The header is changed as JSON and its length set right; the data is made as long as wanted, or not."""
    if len(data) < 8 or rng.random() < 0.1:
        return raw(data, most)
    length = int.from_bytes(data[:8], "little")
    header, body = (data[8 : 8 + length], data[8 + length :]) if length <= len(data) else (data[8:], b"")
    if rng.random() < 0.9:
        header = _header(header, max(most - 8 - len(body), 1), rng, raw)
    if rng.random() < 0.2:
        body = bytes(rng.choice((0, 1, 2, 3, 4, 8, 24, len(body) + 1, max(len(body) - 1, 0))))
    return (struct.pack("<Q", len(header)) + header + body)[:most]


HARNESSES = [Harness("safetensors", run, seeds, mutate, ATOMS, 1024)]
