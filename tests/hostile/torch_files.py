"""Hostile torch files, byte by byte: pickles put together from opcodes, zip archives whose every field can lie."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def name(module: str, attribute: str) -> bytes:
    return b"c" + f"{module}\n{attribute}\n".encode()


def storage(key: str = "0", numel: int = 6, kind: str = "FloatStorage", module: str = "torch") -> bytes:
    return b"(" + text("storage") + name(module, kind) + text(key) + text("cpu") + number(numel) + b"tQ"


HOOKS = name("collections", "OrderedDict") + b")R"


def tensor(
    shape: Sequence[int] = (2, 3),
    strides: Sequence[int] = (3, 1),
    offset: int = 0,
    *,
    stored: bytes = b"",
    metadata: bytes = b"",
) -> bytes:
    """`_rebuild_tensor_v2(storage, offset, shape, strides, False, OrderedDict()[, metadata])`."""
    head = name("torch._utils", "_rebuild_tensor_v2") + b"("
    return (
        head
        + (stored or storage())
        + number(offset)
        + numbers(shape)
        + numbers(strides)
        + b"\x89"
        + HOOKS
        + metadata
        + b"tR"
    )


def pickle_of(entries: Mapping[str, bytes]) -> bytes:
    """A protocol 2 pickle of a dict whose values are these opcodes."""
    return b"\x80\x02}" + b"".join(text(key) + value + b"s" for key, value in entries.items()) + b"."


FLOATS = struct.pack("<6f", *range(6))


@dataclass(frozen=True)
class Part:
    """A zip member; whatever is given as None follows from the data."""

    name: str
    data: bytes = b""
    local_name: str | None = None
    flags: int = 0
    local_flags: int | None = None
    deflated: bool = False
    crc: int | None = None
    claimed_nbytes: int | None = None
    header_offset: int | None = None
    extra: bytes = b""


def zip_of(parts: Sequence[Part], *, prefix: bytes = b"", suffix: bytes = b"", comment: bytes = b"") -> bytes:
    """The archive; local headers hold the true sizes, the directory what each part claims."""
    out = bytearray(prefix)
    directory = bytearray()
    for part in parts:
        raw = part.data
        if part.deflated:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            raw = packer.compress(part.data) + packer.flush()
        crc = zlib.crc32(part.data) if part.crc is None else part.crc
        nbytes = len(part.data) if part.claimed_nbytes is None else part.claimed_nbytes
        stored = len(raw) if part.deflated or part.claimed_nbytes is None else part.claimed_nbytes
        local = (part.name if part.local_name is None else part.local_name).encode()
        at = len(out)
        local_flags = part.flags if part.local_flags is None else part.local_flags
        method = 8 if part.deflated else 0
        out += struct.pack(
            "<4s5H3I2H", b"PK\3\4", 20, local_flags, method, 0, 33, crc, stored, nbytes, len(local), len(part.extra)
        )
        out += local + part.extra + raw
        central = part.name.encode()
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, part.flags, method, 0, 33, crc, stored, nbytes,
            len(central), 0, 0, 0, 0, 0, at if part.header_offset is None else part.header_offset,
        ) + central  # fmt: skip
    begin = len(out)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(parts), len(parts), len(directory), begin, len(comment))
    return bytes(out + directory + end + comment + suffix)


def torch_file(pickled: bytes, storages: Mapping[str, bytes] | None = None, *extra: Part, **options: bytes) -> bytes:
    """An honest archive around a pickle: `data/<key>` for each storage, and whatever is added."""
    parts = [Part("archive/data.pkl", pickled), *extra]
    parts += [Part(f"archive/data/{key}", data) for key, data in (storages or {"0": FLOATS}).items()]
    return zip_of([*parts, Part("archive/version", b"3\n")], **options)
