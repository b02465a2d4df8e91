"""Zip archives put together quickly, every field as given: what the mutators and the harnesses build files of."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class Part:
    """A member. `lies` replaces fields of the directory (`d.`) or of the local header (`l.`) by what is not so."""

    name: bytes
    data: bytes
    deflated: bool = False
    flags: int = 0
    extra: bytes = b""
    lies: dict[str, int] = field(default_factory=dict)


def archive(parts: Sequence[Part]) -> bytes:
    """The archive; what is not given as a lie is true."""
    out = bytearray()
    directory = bytearray()
    for part in parts:
        stored = part.data
        if part.deflated:
            packer = zlib.compressobj(1, zlib.DEFLATED, -15)
            stored = packer.compress(part.data) + packer.flush()
        true = {
            "flags": part.flags, "method": 8 * part.deflated, "crc": zlib.crc32(part.data), "stored": len(stored),
            "nbytes": len(part.data), "offset": len(out),
        }  # fmt: skip
        local = {**true, **{key[2:]: value for key, value in part.lies.items() if key.startswith("l.")}}
        said = {**true, **{key[2:]: value for key, value in part.lies.items() if key.startswith("d.")}}
        out += struct.pack(
            "<4s5H3I2H", b"PK\3\4", 20, local["flags"], local["method"], 0, 33, local["crc"], local["stored"],
            local["nbytes"], len(part.name), len(part.extra),
        ) + part.name + part.extra + stored  # fmt: skip
        if part.flags & 8:
            out += struct.pack("<4s3I", b"PK\7\x08", true["crc"], true["stored"], true["nbytes"])
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, said["flags"], said["method"], 0, 33, said["crc"], said["stored"],
            said["nbytes"], len(part.name), 0, 0, 0, 0, 0, said["offset"],
        ) + part.name  # fmt: skip
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(parts), len(parts), len(directory), len(out), 0)
    return bytes(out + directory + end)


def stored(members: Iterable[tuple[str, bytes]]) -> bytes:
    """An honest archive of members that are not deflated."""
    return archive([Part(name.encode(), data) for name, data in members])


def parts_of(data: bytes) -> list[Part] | None:
    """The members of an archive that Python's zipfile can open; None for any other."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            found = []
            for info in opened.infolist()[:50]:
                if info.file_size > 1 << 20:
                    return None
                raw = opened.read(info)
                found.append(
                    Part(
                        info.filename.encode("utf-8", "surrogateescape"),
                        raw,
                        info.compress_type == 8,
                        info.flag_bits & 0x808,
                    )
                )
            return found
    except Exception:  # whatever zipfile raises for what is no archive
        return None
