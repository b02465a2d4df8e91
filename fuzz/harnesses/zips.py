"""Zip archives, beside Python's zipfile; and npz, beside numpy."""

from __future__ import annotations

import io
import random
import struct
import zipfile

import numpy as np

from fuzz.archives import Part, archive, parts_of, stored
from fuzz.harness import Finding, Harness, Raw, read_with, source_of
from fuzz.harnesses.pickles import FLOATS, named, tensor
from fuzz.mutators import by_pattern, pieces
from isomorph.formats import npz
from isomorph.formats.base import Contents
from isomorph.formats.registry import FORMATS, lay_out
from isomorph.formats.sniff import sniff
from isomorph.formats.source import Source
from isomorph.formats.zip.archive import read_member, read_members
from isomorph.tensors import spec
from isomorph.testing.formats import materialise, random_bits

SPECS = {"w": spec("f32[3,2]"), "b": spec("f16[4]"), "n": spec("i64[]")}
BITS = {key: (one.dtype, random_bits(one.dtype, one.shape, 1)) for key, one in SPECS.items()}
NAMES = (
    b"a/data.pkl",
    b"a/data/0",
    b"a/byteorder",
    b"w.npy",
    b"w",
    b"a/DATA.PKL",
    b"data.pkl",
    b"../w.npy",
    b"a\0b",
    b"",
    b"\xff.npy",
    b"a/version",
)
HUGE = (0, 1, 8, 0x800, 0x808, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 24, 48, 6)


# --- zip


def run_zip(data: bytes) -> None:
    """What we find in an archive, Python finds too, byte for byte; then the archive is read as whatever it is."""
    source = source_of(data, "fuzzed.pth")
    try:
        members = read_members(source)
        found = {}
        for name, member in members.items():
            if member.nbytes <= 1 << 16:
                found[name] = read_member(source, member, 1 << 16)
    finally:
        source.close()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as opened:
            theirs = {info.orig_filename: info for info in opened.infolist()}
            if theirs.keys() != members.keys():
                raise Finding(f"members {sorted(members)} here, {sorted(theirs)} in zipfile")
            for name, raw in found.items():
                if members[name].crc and opened.read(theirs[name]) != raw:
                    raise Finding(f"{name!r} holds other bytes in zipfile")
    except NotImplementedError as error:
        if "zip file version" not in str(error):  # what a reader must be able to do is said by the flags and the method
            raise Finding(f"read, although zipfile says {error}") from error
    except (zipfile.BadZipFile, RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise Finding(f"read, although zipfile says {type(error).__name__}: {error}") from error
    read_with(by_content, data, "fuzzed.pth")


def by_content(source: Source) -> Contents:
    contents, _ = FORMATS[sniff(source)].read(source)
    return contents


def zip_seeds() -> dict[str, bytes]:
    torch_parts = [Part(b"a/data.pkl", named(w=tensor())), Part(b"a/data/0", FLOATS), Part(b"a/version", b"3\n")]
    npy = npz.npy_header(spec("f32[6]")) + FLOATS
    deflated = [Part(b"w.npy", npy, deflated=True), Part(b"b.npy", npy)]
    wide = io.BytesIO()
    with zipfile.ZipFile(wide, "w") as opened, opened.open("w.npy", "w", force_zip64=True) as member:
        member.write(npy)
    return {
        "torch": archive(torch_parts),
        "packed pickle": archive([Part(b"a/data.pkl", named(w=tensor()), deflated=True), *torch_parts[1:]]),
        "descriptors": archive([Part(part.name, part.data, flags=8) for part in torch_parts]),
        "npz": archive(deflated),
        "zip64": wide.getvalue(),
        "written": materialise(lay_out(SPECS, "m.pth").files[0], BITS),
        "keras": stored([("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(40))]),
    }


def mutate_zip(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
    """The members are changed and put together again, checksums and offsets right but where a lie is put in."""
    parts = parts_of(data) if rng.random() < 0.7 else None
    if parts is None:
        return raw(data, most)
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.randrange(7)
        if kind == 0 or not parts:
            parts.insert(rng.randint(0, len(parts)), Part(rng.choice(NAMES), raw(b"abc", 16), rng.random() < 0.3))
            continue
        part = rng.choice(parts)
        if kind == 1:
            part.data = raw(part.data or b"0", len(part.data) + 16)
        elif kind == 2:
            part.name = rng.choice(NAMES) if rng.random() < 0.5 else raw(part.name or b"a", len(part.name) + 4)[:60000]
        elif kind == 3:
            part.deflated = not part.deflated
        elif kind == 4:
            part.flags = rng.choice((0, 8, 0x800, 0x808, 1, 0x20))
        elif kind == 5:
            part.extra = rng.choice(
                (b"", struct.pack("<2H", 1, 16) + bytes(16), b"FB\2\0ab", b"\1\0\1", struct.pack("<2H", 1, 0))
            )
        else:
            key = rng.choice("ld") + "." + rng.choice(("flags", "method", "crc", "stored", "nbytes", "offset"))
            part.lies[key] = rng.choice(HUGE) & (0xFFFF if key[2:] in ("flags", "method") else 0xFFFFFFFF)
        if rng.random() < 0.1:
            parts.remove(part)
    made = archive(parts)
    return made if len(made) <= most else data[:most]


# --- npz


def run_npz(data: bytes) -> None:
    """The input is one .npy file, put into an archive (its first byte says how); numpy must read the same array."""
    switch, npy = (data[0], data[1:]) if data else (0, b"")
    whole = archive(
        [Part(b"w.npy", npy, deflated=bool(switch & 1)), Part(b"b.npy", npz.npy_header(spec("u8[2]")) + b"ab")]
    )
    found = read_with(npz.read, whole, "fuzzed.npz")
    if "w" not in found:
        return
    try:
        with np.load(io.BytesIO(whole), allow_pickle=False) as opened:
            theirs = opened["w"]
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise Finding(f"read, although numpy says {type(error).__name__}: {error}") from error
    ours = found["w"]
    plain = theirs.astype(theirs.dtype.newbyteorder("<"), copy=False)
    if plain.shape != ours.shape or plain.tobytes() != ours.tobytes():
        raise Finding(f"{ours.dtype} {ours.shape} here, {theirs.dtype} {theirs.shape} in numpy")


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array(target, array, version=version)
    return target.getvalue()


def npz_seeds() -> dict[str, bytes]:
    arrays = {
        "f4": np.arange(6, dtype="<f4").reshape(3, 2),
        "fortran": np.asfortranarray(np.arange(6, dtype="<f8").reshape(3, 2)),
        "big": np.arange(3, dtype=">i4"),
        "scalar": np.array(1, "<i8"),
        "empty": np.zeros((0, 3), "<c8"),
        "text": np.array(["ab"]),
        "records": np.zeros(2, [("a", "<f4"), ("b", "<i2")]),
    }
    made = {f"{switch} {key}": bytes([switch]) + npy(array) for key, array in arrays.items() for switch in (0, 1)}
    made["version 2"] = b"\0" + npy(arrays["f4"], (2, 0))
    made["version 3"] = b"\0" + npy(arrays["f4"], (3, 0))
    return made


NPY_ATOMS = (
    b"'descr'", b"'fortran_order'", b"'shape'", b": ", b", ", b"(", b")", b"()", b"(2,)", b"(3, 2)", b"(2L,)", b"True",
    b"False", b"{", b"}", b"'<f4'", b"'>f8'", b"'|b1'", b"'|u1'", b"'<U2'", b"'|O'", b"'|V2'", b"'<c16'", b"'=f4'", b"'|i1'",
    b"'<M8[s]'", b"[('a', '<f4')]", b"0", b"1", b"99999999999", b"18446744073709551616", b"-1", b" ", b"\n", b"#", b"\\", b'"',
    b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"None", b"1_0", b"0x2",
)  # fmt: skip
_text = pieces(by_pattern(rb"'[^']*'|\"[^\"]*\"|[0-9L]+|[(){}\[\],:]|[A-Za-z]+"), NPY_ATOMS, raw_share=0.3)


def mutate_npy(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
    """The header is changed as text and its length set right; the data is made longer or shorter."""
    if len(data) < 13 or rng.random() < 0.15:
        return raw(data, most)
    begin, width = (13, 4) if data[7] in (2, 3) else (11, 2)
    length = int.from_bytes(data[9 : 9 + width], "little")
    header, body = data[begin : begin + length], data[begin + length :]
    if rng.random() < 0.9:
        header = _text(header, 400, rng, raw)
    if rng.random() < 0.3:
        body = bytes(range(rng.choice((0, 1, 2, 4, 8, 12, 16, 24, 48))))
    if rng.random() < 0.1:
        data = bytes([rng.randrange(4)]) + data[1:]
    return (data[:9] + (len(header) & (256**width - 1)).to_bytes(width, "little") + header + body)[:most]


HARNESSES = [
    Harness(
        "zip",
        run_zip,
        zip_seeds,
        mutate_zip,
        (b"PK\3\4", b"PK\1\2", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08"),
        2048,
    ),
    Harness("npz", run_npz, npz_seeds, mutate_npy, max_nbytes=512),
]
