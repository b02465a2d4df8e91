"""Pickles: the interpreter alone, beside Python's own where no name is used; torch's archives and legacy files; Paddle's."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fuzz.archives import stored
from fuzz.harness import Finding, Harness, read_with
from fuzz.mutators import name, opcodes, pickle_atoms, pieces, short_text
from isomorph.formats import paddle
from isomorph.formats.containers import flatten
from isomorph.formats.pickle.interpreter import Interpreter
from isomorph.formats.pickle.machine import Memory
from isomorph.formats.pickle.names import GLOBALS, SCRIPT_GLOBALS
from isomorph.formats.pickle.objects import Payload, Text
from isomorph.formats.registry import lay_out
from isomorph.formats.torch import legacy as torch_legacy
from isomorph.formats.torch import zip as torch_zip
from isomorph.tensors import spec
from isomorph.testing.formats import materialise, random_bits

ATOMS = pickle_atoms([*GLOBALS, *SCRIPT_GLOBALS, ("__torch__.m", "Net")])
FLOATS = struct.pack("<6f", *range(6))

SPECS = {"w": spec("f32[3,2]"), "b": spec("bf16[4]"), "n": spec("i64[]"), "e": spec("f8e4m3[0,2]")}
BITS = {key: (one.dtype, random_bits(one.dtype, one.shape, 1)) for key, one in SPECS.items()}


# --- pickles by hand


def storage(key: str = "0", numel: int = 6, kind: str = "FloatStorage") -> bytes:
    return (
        b"("
        + short_text("storage")
        + name("torch", kind)
        + short_text(key)
        + short_text("cpu")
        + b"K"
        + bytes([numel])
        + b"tQ"
    )


def tensor(shape: bytes = b"K\3K\2\x86", strides: bytes = b"K\2K\1\x86", of: bytes = b"", more: bytes = b"") -> bytes:
    hooks = b"\x89" + name("collections", "OrderedDict") + b")R"
    return (
        name("torch._utils", "_rebuild_tensor_v2")
        + b"("
        + (of or storage())
        + b"K\0"
        + shape
        + strides
        + hooks
        + more
        + b"tR"
    )


def named(**values: bytes) -> bytes:
    return b"\x80\2}" + b"".join(short_text(key) + value + b"s" for key, value in values.items()) + b"."


def parameter() -> bytes:
    return (
        name("torch._utils", "_rebuild_parameter")
        + b"("
        + tensor()
        + b"\x88"
        + name("collections", "OrderedDict")
        + b")RtR"
    )


def v3() -> bytes:
    hooks = b"\x89" + name("collections", "OrderedDict") + b")R"
    of = storage(numel=24, kind="UntypedStorage")
    return (
        name("torch._utils", "_rebuild_tensor_v3")
        + b"("
        + of
        + b"K\0K\3K\4\x86K\4K\1\x86"
        + hooks
        + name("torch", "uint16")
        + b"tR"
    )


def array() -> bytes:
    """A numpy array of protocol 2, whose bytes are a text."""
    made = (
        name("numpy.core.multiarray", "_reconstruct")
        + name("numpy", "ndarray")
        + b"K\0\x85"
        + short_text("b")
        + b"\x87R"
    )
    kind = (
        name("numpy", "dtype")
        + short_text("f4")
        + b"\x89\x88\x87R(K\3"
        + short_text("<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    data = name("_codecs", "encode") + short_text("abcdefgh") + short_text("latin1") + b"\x86R"
    return made + b"(K\1K\2\x85" + kind + b"\x89" + data + b"tb"


def evaluated() -> bytes:
    return name("builtins", "eval") + short_text("data") + b"}" + short_text("data") + array() + b"s\x86R"


def in_pieces() -> bytes:
    said = (
        b"}"
        + short_text("OriginShape")
        + b"(K\1K\2t"
        + b"s"
        + short_text("slices")
        + b"]"
        + short_text("w@@.0")
        + b"as"
    )
    return named(**{"w@@.0": array(), "UnpackBigParamInfor@@": b"}" + short_text("w") + said + b"s"})


def script() -> bytes:
    """An object of a TorchScript archive: attributes by BUILD."""
    return (
        b"\x80\2"
        + name("__torch__.m", "Net")
        + b")\x81}("
        + short_text("w")
        + tensor()
        + short_text("training")
        + b"\x88ub."
    )


PLAIN: Mapping[str, bytes] = {
    "dict": named(w=tensor(), b=tensor(b"K\6\x85", b"K\1\x85")),
    "parameter": named(w=parameter()),
    "v3": named(w=v3()),
    "array": named(w=array()),
    "nested": named(
        a=b"}" + short_text("w") + tensor() + b"s", n=b"](K\1K\2e", o=name("collections", "OrderedDict") + b")R"
    ),
    "views": named(a=tensor(), b=tensor(b"K\2\x85", b"K\3\x85")),
    "size": named(w=tensor(name("torch", "Size") + b"(K\3K\2t\x85R")),
    "metadata": named(w=tensor(more=b"}" + short_text("conj") + b"\x88s")),
    "namespace": named(a=name("argparse", "Namespace") + b")\x81}" + short_text("lr") + b"G" + bytes(8) + b"sb"),
    "protocol 0": pickle.dumps({"a": [1, 2.5, "x", None, True, (1, 2)], "b": b"ab", "c": 10**30}, 0),
    "protocol 1": pickle.dumps({"a": [1, 2.5, "x", None, True, (1, 2)], "b": b"ab"}, 1),
    "protocol 4": pickle.dumps({"a": [1, 2.5, "x", None, True, (1, 2)], "b": b"ab" * 40, "s": {1}, "c": "é" * 20}, 4),
    "protocol 5": pickle.dumps({"a": bytearray(b"abc"), "f": frozenset((1,))}, 5),
    "written": torch_zip.state_dict_pickle(SPECS),
}


# --- the interpreter alone


class _Refused(Exception):
    """A pickle that uses names, ids or extensions: Python's own reader is no oracle for it."""


class _Plain(pickle._Unpickler):  # type: ignore[misc,name-defined]
    """Python's reader, in Python (the one in C makes room for any number that a memo is given), which finds no name."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused

    def get_extension(self, code: int) -> NoReturn:
        raise _Refused


def run_pickle(data: bytes) -> None:
    """The first byte chooses what ids and scripts mean."""
    switch, pickled = (data[0], data[1:]) if data else (0, b"")
    interpreter = Interpreter(
        Memory(pickled), Path("fuzzed.pkl"), "data.pkl", storages=bool(switch & 1), script=bool(switch & 2)
    )
    root = interpreter.run()
    if not 0 <= interpreter.end <= len(pickled):
        raise Finding(f"the end of the pickle is byte {interpreter.end} of {len(pickled)}")
    compare_with_python(pickled, root)
    flatten(root, Path("fuzzed.pkl"), nodes=interpreter.nodes, named_tuples=bool(switch & 4))


def compare_with_python(pickled: bytes, root: Any) -> None:
    """Finding when Python's own reader makes another value of a pickle that uses no name."""
    try:
        expected = _Plain(io.BytesIO(pickled), encoding="latin-1").load()
    except _Refused:
        return
    except Exception as error:
        if "unhashable" in str(error):  # a bytearray is a key: nothing is hashed here by its bytes
            return
        raise Finding(f"read, although Python's own reader says {type(error).__name__}: {error}") from error
    try:
        found, wanted = canonical(root, pickled, 0, [2000]), canonical(expected, pickled, 0, [2000])
    except RecursionError:
        return
    if found != wanted:
        raise Finding(f"read as {str(found)[:300]}, by Python as {str(wanted)[:300]}")


def canonical(value: Any, pickled: bytes, depth: int, left: list[int]) -> Any:
    """A value as nested tuples that can be compared; RecursionError when it is large, or refers to itself."""
    left[0] -= 1
    if depth > 30 or left[0] < 0:
        raise RecursionError
    if isinstance(value, dict):
        items = [
            (canonical(key, pickled, depth + 1, left), canonical(one, pickled, depth + 1, left))
            for key, one in value.items()
        ]
        return "dict", tuple(items)
    if isinstance(value, set | frozenset):
        raise RecursionError  # in an order of its own
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(canonical(one, pickled, depth + 1, left) for one in value)
    if isinstance(value, Payload):
        raw = pickled[value.offset : value.offset + value.nbytes]
        if value.value is not None and value.value != raw:
            raise Finding(f"a byte string of {raw!r} is held as {value.value!r}")
        return ("str", raw.decode("utf-8", "surrogatepass")) if value.encoding else raw
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    if isinstance(value, Text):
        return "str", str(value)
    if isinstance(value, float):
        return "float", struct.pack(">d", value)
    return type(value).__name__, value if not isinstance(value, int) else str(value) if abs(value) < 1 << 64 else hex(
        value
    )


# --- files


def run_torch_zip(data: bytes) -> None:
    """The input is the pickle of an archive whose storages are there; the first byte chooses byte order and script."""
    switch, pickled = (data[0], data[1:]) if data else (0, b"")
    members = [("a/data.pkl", pickled)]
    if switch & 1:
        members.append(("a/byteorder", b"big" if switch & 2 else b"little"))
    if switch & 4:
        members += [("a/code/m.py", b""), ("a/constants.pkl", b"\x80\2" + tensor() + b"\x85.")]
        members.append(("a/constants/0", FLOATS))
    members += [
        ("a/data/0", FLOATS),
        ("a/data/1", bytes(8)),
        ("a/data/2", bytes(range(8))),
        ("a/data/3", b""),
        ("a/version", b"3\n"),
    ]
    read_with(torch_zip.read, stored(members), "fuzzed.pth")


def legacy_file(pickled: bytes, *, storages: bytes = b"") -> bytes:
    head = b"\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\2M\xe9\3." + pickle.dumps({"little_endian": True}, 2)
    return head + pickled + b"\x80\2]" + short_text("0") + b"a." + (storages or struct.pack("<q", 6) + FLOATS)


def run_torch_legacy(data: bytes) -> None:
    read_with(torch_legacy.read, data, "fuzzed.bin")


def run_paddle(data: bytes) -> None:
    read_with(paddle.read, data, "fuzzed.pdparams")


def legacy_seeds() -> dict[str, bytes]:
    view = b"(" + short_text("v") + b"K\1K\2t"
    of = (
        b"("
        + short_text("storage")
        + name("torch", "FloatStorage")
        + short_text("0")
        + short_text("cpu")
        + b"K\6"
        + view
        + b"tQ"
    )
    return {
        **{key: legacy_file(value) for key, value in PLAIN.items() if "written" not in key},
        "view": legacy_file(named(w=tensor(b"K\2\x85", b"K\1\x85", of))),
    }


def paddle_seeds() -> dict[str, bytes]:
    numbers = {key: one for key, one in SPECS.items() if key != "e"}
    written = materialise(lay_out(numbers, "m.pdparams").files[0], BITS)
    names = named(
        w=array(), **{"StructuredToParameterName@@": b"}" + short_text("w") + short_text("linear_0.w_0") + b"s"}
    )
    return {
        "written": written,
        "array": named(w=array()),
        "names": names,
        "eval": named(w=evaluated()),
        "pieces": in_pieces(),
        "pair": named(m=b"}" + short_text("w") + short_text("linear_0.w_0") + array() + b"\x86s"),
        "alone": b"\x80\2" + array() + b".",
        "legacy": legacy_file(PLAIN["dict"]),
        **{key: value for key, value in PLAIN.items() if key.startswith("protocol")},
    }


def with_switch(split: Any) -> Any:
    return lambda data: [data[:1], *split(data[1:])] if data else []


def legacy_split(data: bytes) -> list[bytes]:
    """The opcodes of several pickles back to back."""
    parts: list[bytes] = []
    while data and len(parts) < 1000:
        found = opcodes(data)
        parts += found
        used = sum(map(len, found))
        if used >= len(data) or found[-1] != b".":
            break
        data = data[used:]
    return parts


def all_pickles() -> dict[str, bytes]:
    return {f"{switch} {key}": bytes([switch]) + value for switch in (0, 1) for key, value in PLAIN.items()} | {
        "script": b"\7" + script(),
        "one": b"\1" + script(),
    }


HARNESSES = [
    Harness("pickle", run_pickle, all_pickles, pieces(with_switch(opcodes), ATOMS), max_nbytes=1024),
    Harness(
        "torch_zip",
        run_torch_zip,
        lambda: {**all_pickles(), "script 4": b"\4" + script()},
        pieces(with_switch(opcodes), ATOMS),
        max_nbytes=1024,
    ),
    Harness("torch_legacy", run_torch_legacy, legacy_seeds, pieces(legacy_split, ATOMS), max_nbytes=1500),
    Harness("paddle", run_paddle, paddle_seeds, pieces(opcodes, ATOMS), max_nbytes=1024),
]
