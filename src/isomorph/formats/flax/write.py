"""Writes what `flax.serialization.msgpack_serialize` writes of the same nested dict, byte for byte (up to 1 GiB an array).

Larger arrays are one extension as well, up to the 4 GiB that msgpack can say, where Flax cuts them; it restores both.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.base import FileLayout, Literal
from isomorph.formats.flax.read import ARRAY, CHUNKED, CODES, MAX_DEPTH, MAX_TEXT
from isomorph.formats.nested import SEPARATOR
from isomorph.formats.safetensors import require_unicode, unsupported
from isomorph.tensors import TensorSpec

LARGEST = (1 << 32) - 1 - 1024
"""Bytes of the largest array: msgpack has 32 bits for the length of an extension, which also says shape and dtype."""


class Writer:
    """Lays out nested maps: a tensor `a/b/w` is the entry `w` of the map `b` in the map `a`, each in the order given."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """FormatError that names what Flax's files cannot hold: a dtype, an array too large, names that are in each other."""
        bad = {name: spec for name, spec in specs.items() if spec.dtype.name not in CODES}
        if bad:
            raise unsupported("flax", bad)
        require_unicode("flax", specs)
        large = [name for name, spec in specs.items() if spec.nbytes > LARGEST]
        if large:
            raise FormatError(
                "flax",
                f"cannot hold `{printable(large[0])}` {specs[large[0]]}: an array of its files has at most {LARGEST:,} bytes",
                "Cast it, or write safetensors",
            )
        long = [name for name in specs if max(map(len, name.encode().split(SEPARATOR.encode()))) > MAX_TEXT]
        if long:
            raise FormatError("flax", f"cannot hold keys longer than {MAX_TEXT:,} bytes: {printable(long[0], 60)}")
        require_nesting("flax", specs)
        marked = [name for name in specs if CHUNKED in name.split(SEPARATOR)]
        if marked:
            raise FormatError(
                "flax", f"cannot hold a tensor called `{printable(marked[0])}`: Flax marks arrays in pieces so"
            )

    def lay_out(self, specs: Mapping[str, TensorSpec], *, name: str, metadata: Mapping[str, str]) -> FileLayout:
        """The file. `metadata` has no place in it."""
        tree: dict[str, Any] = {}
        for tensor in specs:
            *outer, last = tensor.split(SEPARATOR)
            inner = tree
            for key in outer:
                inner = inner.setdefault(key, {})
            inner[last] = tensor
        literals: list[Literal] = []
        tensors: dict[str, int] = {}
        at, head = 0, _map_head(len(tree))
        frames = [iter(tree.items())]
        while frames:
            for key, value in frames[-1]:
                head += _text_head(key)
                if isinstance(value, dict):
                    head += _map_head(len(value))
                    frames.append(iter(value.items()))
                    break
                head += _array_head(specs[value])
                literals.append(Literal(at, head))
                tensors[value] = at + len(head)
                at += len(head) + specs[value].nbytes
                head = b""
            else:
                frames.pop()
        if head:  # no tensor at all
            literals.append(Literal(at, head))
        return FileLayout(name, at + len(head), tensors, tuple(literals))


def require_nesting(where: str, names: Mapping[str, object]) -> None:
    """FormatError when a name is also the beginning of another one's path: `a` and `a/b` cannot both be in a nested file."""
    holders: dict[str, str] = {}
    for name in names:
        parts = name.split(SEPARATOR)
        if len(parts) > MAX_DEPTH:
            raise FormatError(where, f"cannot hold `{printable(name, 80)}`: its path is deeper than {MAX_DEPTH}")
        at = name.find(SEPARATOR)
        while at >= 0:
            holders.setdefault(name[:at], name)
            at = name.find(SEPARATOR, at + 1)
    both = next((name for name in names if name in holders), None)
    if both is not None:
        raise FormatError(
            where,
            f"cannot hold both `{printable(both)}` and `{printable(holders[both])}`: names are paths there, and the first "
            "would be an array and a map at once",
            "Rename one of them",
        )


def _map_head(count: int) -> bytes:
    if count < 16:
        return bytes([0x80 | count])
    return b"\xde" + struct.pack(">H", count) if count < 1 << 16 else b"\xdf" + struct.pack(">I", count)


def _text_head(text: str) -> bytes:
    raw = text.encode()
    if len(raw) < 32:
        return bytes([0xA0 | len(raw)]) + raw
    if len(raw) < 1 << 8:
        return b"\xd9" + bytes([len(raw)]) + raw
    return (
        b"\xda" + struct.pack(">H", len(raw)) if len(raw) < 1 << 16 else b"\xdb" + struct.pack(">I", len(raw))
    ) + raw


def _length(codes: tuple[int, int, int], nbytes: int) -> bytes:
    """A length with the shortest of three codes."""
    if nbytes < 1 << 8:
        return struct.pack(">BB", codes[0], nbytes)
    return struct.pack(">BH", codes[1], nbytes) if nbytes < 1 << 16 else struct.pack(">BI", codes[2], nbytes)


def _size(value: int) -> bytes:
    """The shortest code of a number of at least 0."""
    if value < 1 << 7:
        return bytes([value])
    for code, layout, bits in ((0xCC, ">BB", 8), (0xCD, ">BH", 16), (0xCE, ">BI", 32)):
        if value < 1 << bits:
            return struct.pack(layout, code, value)
    return struct.pack(">BQ", 0xCF, value)


def _array_head(spec: TensorSpec) -> bytes:
    """What stands before the bytes of an array: the extension's head, the shape, the dtype, the length of the bytes."""
    rank = len(spec.shape)
    inner = b"\x93" + (bytes([0x90 | rank]) if rank < 16 else b"\xdc" + struct.pack(">H", rank))
    inner += b"".join(map(_size, spec.shape)) + _text_head(CODES[spec.dtype.name])
    inner += _length((0xC4, 0xC5, 0xC6), spec.nbytes)
    nbytes = len(inner) + spec.nbytes
    fixed = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}.get(nbytes)
    head = bytes([fixed]) if fixed is not None else _length((0xC7, 0xC8, 0xC9), nbytes)
    return head + bytes([ARRAY]) + inner
