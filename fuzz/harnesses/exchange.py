"""GGUF; and ONNX beside its own library."""

from __future__ import annotations

import random
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from fuzz.folders import folder_of, names_in, read_beside
from fuzz.harness import Finding, Harness, Raw
from fuzz.messages import tree_mutator
from isomorph.formats.registry import FORMATS, lay_out
from isomorph.tensors import spec
from isomorph.testing.formats import materialise, random_bits

# --- GGUF


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(key: str, kind: int, raw: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + raw


def tensor(name: str, dims: tuple[int, ...], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def gguf(values: list[bytes], tensors: list[bytes], data: bytes, *, align: int = 32, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)) + b"".join(values) + b"".join(tensors)
    return head + bytes(-len(head) % align) + data


VALUES = [
    value("general.architecture", 8, string("llama")),
    value("general.alignment", 4, struct.pack("<I", 8)),
    value("a", 9, struct.pack("<IQ", 8, 2) + string("x") + string("")),
    value("n", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 2) + b"ab"),
    value("f", 6, struct.pack("<f", 1.5)),
    value("b", 7, b"\1"),
    value("q", 10, struct.pack("<Q", 2**63)),
    value("split.count", 2, struct.pack("<H", 2)),
    value("split.no", 2, struct.pack("<H", 0)),
    value("split.tensors.count", 5, struct.pack("<i", 2)),
    value("\x1b[31m", 8, string("\x1b[31m\u202e")),
]
TENSORS = [
    tensor("w", (3, 2), 0, 0),
    tensor("w", (2,), 1, 32),
    tensor("b", (32,), 2, 32),
    tensor("k", (256, 2), 12, 64),
    tensor("z", (0, 2), 0, 0),
    tensor("big", (2**62, 4), 0, 0),
    tensor("odd", (31,), 2, 0),
    tensor("five", (1, 1, 1, 1, 1), 0, 0),
]


def gguf_seeds() -> dict[str, bytes]:
    specs = {"w": spec("f32[3,2]"), "b": spec("bf16[4]"), "n": spec("i64[1]")}
    bits = {key: (one.dtype, random_bits(one.dtype, one.shape, 1)) for key, one in specs.items()}
    return {
        "written": materialise(lay_out(specs, "m.gguf", metadata={"general.name": "x"}).files[0], bits),
        "values": gguf(VALUES[:7], TENSORS[:1], bytes(24)),
        "aligned": gguf(VALUES[:2], [tensor("w", (3, 2), 0, 0), tensor("b", (2,), 0, 24)], bytes(32), align=8),
        "blocks": gguf([], [TENSORS[0], TENSORS[2], tensor("k", (256, 2), 12, 64)], bytes(64 + 288)),
        "part": gguf(VALUES[7:10], TENSORS[:1], bytes(24)),
        "version 2": gguf([], TENSORS[:1], bytes(24), version=2),
        "none": gguf([], [], b""),
    }


def cut(data: bytes) -> tuple[list[bytes], list[bytes], bytes] | None:
    """(values, tensors, data) of a GGUF file that can be followed; None of any other."""
    try:
        count, many = struct.unpack_from("<QQ", data, 8)
        at, values, tensors = 24, [], []
        for _ in range(min(many, 50)):
            end = _past_string(data, at)
            end = _past_value(data, end + 4, struct.unpack_from("<I", data, end)[0])
            values.append(data[at:end])
            at = end
        for _ in range(min(count, 50)):
            end = _past_string(data, at)
            end += 4 + 8 * min(struct.unpack_from("<I", data, end)[0], 8) + 12
            tensors.append(data[at:end])
            at = end
        return (values, tensors, data[at:]) if at <= len(data) else None
    except (struct.error, RecursionError, OverflowError):
        return None


def _past_string(data: bytes, at: int) -> int:
    return at + 8 + int(struct.unpack_from("<Q", data, at)[0])


def _past_value(data: bytes, at: int, kind: int) -> int:
    if kind == 8:
        return _past_string(data, at)
    if kind != 9:
        return at + (1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8)[kind % 13]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(min(count, 100)):
        at = _past_value(data, at, inner)
    return at


def mutate_gguf(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
    """Values and tensors are changed, moved and put in, and the counts set right; or the bytes are."""
    parts = cut(data) if rng.random() < 0.7 else None
    if parts is None:
        return raw(data, most)
    values, tensors, rest = parts
    for _ in range(rng.choice((1, 1, 2, 3))):
        listed, atoms = rng.choice(((values, VALUES), (tensors, TENSORS)))
        kind = rng.randrange(4)
        if kind == 0 or not listed:
            listed.insert(rng.randint(0, len(listed)), rng.choice(atoms))
            continue
        at = rng.randrange(len(listed))
        if kind == 1:
            del listed[at]
        elif kind == 2:
            listed[at] = raw(listed[at], len(listed[at]) + 8)
        else:
            other = rng.randrange(len(listed))
            listed[at], listed[other] = listed[other], listed[at]
    padded = rest.lstrip(b"\0") if rng.random() < 0.2 else rest
    made = gguf(values, tensors, b"", align=1, version=rng.choice((2, 3, 3, 3))) + padded
    return made[:most]


def run_gguf(data: bytes) -> None:
    read_beside(FORMATS["gguf"].read, data, gguf_folder(), "m-00001-of-00002.gguf")


@cache
def gguf_folder() -> Path:
    """A file in two parts; the input takes the place of the first."""
    second = [value("split.count", 2, b"\2\0"), value("split.no", 2, b"\1\0"), VALUES[9]]
    parts = (gguf(VALUES[7:10], TENSORS[:1], bytes(24)), gguf(second, [tensor("second", (2,), 0, 0)], bytes(8)))
    return folder_of({f"m-0000{number}-of-00002.gguf": part for number, part in enumerate(parts, 1)}, ".gguf")


# --- ONNX


@cache
def onnx_folder() -> Path:
    return folder_of({"data.bin": bytes(range(64)), "deep/data.bin": bytes(8)}, ".bin")


def external(location: str, **more: str) -> Any:
    made = onnx.TensorProto(name="x", dims=[2], data_type=1, data_location=1)
    for key, said in {"location": location, **more}.items():
        made.external_data.add(key=key, value=said)
    return made


def model(tensors: list[Any], nodes: tuple[Any, ...] = ()) -> bytes:
    graph = helper.make_graph(list(nodes), "g", [], [], initializer=tensors)
    return bytes(helper.make_model(graph).SerializeToString())


def onnx_seeds() -> dict[str, bytes]:
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    typed = [
        helper.make_tensor("f", 1, [2], [1.0, 2.0]),
        helper.make_tensor("i", 7, [2], [1, -1]),
        helper.make_tensor("h", 10, [2], [1.0, 2.0]),
        helper.make_tensor("b", 9, [3], [True, False, True]),
        helper.make_tensor("d", 11, [1], [0.5]),
        helper.make_tensor("u", 13, [1], [2**63]),
        helper.make_tensor("c", 14, [1], [1 + 2j]),
    ]
    body = helper.make_graph([], "body", [], [], initializer=[numpy_helper.from_array(array, "w")])
    loop = helper.make_node("Loop", [], [], name="loop", body=body)
    text = onnx.TensorProto(name="s", dims=[1], data_type=8, string_data=[b"a"])
    found = {
        "raw": model([numpy_helper.from_array(array, "w")]),
        "typed": model(typed),
        "inside": model([], (loop,)),
        "external": model([external("data.bin", offset="8", length="8")]),
        "below": model([external("deep/data.bin")]),
        "out": model([external("../data.bin")]),
        "text": model([text]),
        "packed": model([helper.make_tensor("p", 22, [4], [1, 2, 3, 4])]),
    }
    return {key: data for key, data in found.items() if len(data) <= 512}


def run_onnx(data: bytes) -> None:
    """Where onnx's own library reads a model as well, the numbers are the same. (It parses what is stepped over here.)"""
    found = read_beside(FORMATS["onnx"].read, data, onnx_folder(), "model.onnx")
    try:
        theirs = onnx.ModelProto.FromString(data)
    except DecodeError:
        return
    for one in theirs.graph.initializer:
        if one.name not in found or one.data_location == 1 or one.data_type not in (1, 6, 7, 9, 10, 11, 12, 13):
            continue
        try:
            array = numpy_helper.to_array(one)
        except (ValueError, TypeError) as error:
            raise Finding(f"{one.name!r} is read, although onnx says {type(error).__name__}: {error}") from error
        ours = found[one.name]
        if array.dtype == bool:  # raw truth values are carried as the bytes they are
            array, ours = array.view(np.uint8) != 0, ours != 0
        if array.tobytes() != ours.tobytes() or array.shape != ours.shape:
            raise Finding(f"{one.name!r} is {ours.tolist()} here, {array.tolist()} in onnx")


ONNX_TEXTS = tuple(
    text.encode()
    for text in (
        "w",
        "x",
        "location",
        "offset",
        "length",
        "checksum",
        "data.bin",
        "deep/data.bin",
        "0",
        "8",
        "-1",
        "9" * 19,
        *names_in(".bin"),
    )
)

HARNESSES = [
    Harness("gguf", run_gguf, gguf_seeds, mutate_gguf, (b"GGUF", b"general.alignment", b"split.count"), 1024),
    Harness("onnx", run_onnx, onnx_seeds, tree_mutator(ONNX_TEXTS), max_nbytes=768),
]
