"""Arrays in chunks: descriptions of zarr, and the manifests and nodes of OCDBT."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from pathlib import Path
from typing import cast

from fuzz.harness import Finding, Harness, read_tensors, source_of
from fuzz.mutators import JSON_ATOMS, JSON_SPLIT, pieces
from isomorph.formats.base import Contents
from isomorph.formats.source import Source
from isomorph.formats.tf.crc32c import crc32c
from isomorph.formats.zarr.ocdbt import MANIFEST_MAGIC, NODE_MAGIC, Reader
from isomorph.formats.zarr.read import Place, is_group, locate

# --- zarr: the description alone, over a store that has some of the chunks

RAW = struct.pack("<4f", 1, 2, 3, 4)
INDEX = struct.pack("<4Q", 0, 16, (1 << 64) - 1, (1 << 64) - 1)
SHARD = RAW + INDEX + struct.pack("<I", crc32c([INDEX]))
CHUNKS = (RAW, RAW[:8], zlib.compress(RAW), gzip.compress(RAW, mtime=0), SHARD)
HELD = b"".join(CHUNKS)
MOST_FOUND = 10_000


class Store:
    """What of the keys is stored follows from the key: nothing, or one of CHUNKS; a store of a few kilobytes holds MOST_FOUND."""

    def __init__(self, which: int) -> None:
        self.which = which % (len(CHUNKS) + 1)
        self.found = 0

    def find(self, key: str) -> Place | None:
        if self.which == len(CHUNKS) or key.endswith("9") or self.found >= MOST_FOUND:
            return None
        self.found += 1
        return Place(0, sum(map(len, CHUNKS[: self.which])), len(CHUNKS[self.which]))

    def read(self, place: Place) -> bytes:
        return HELD[place.offset : place.offset + place.nbytes]


def run_zarr(data: bytes) -> None:
    """The first byte chooses the version and the chunk that is stored."""
    switch, raw = (data[0], data[1:]) if data else (0, b"")
    version = 2 + (switch & 1)
    path = Path("fuzzed/zarr.json")
    if version == 3 and is_group(path, raw):
        return
    spec, where, missing = locate(path, "w", raw, version, Store(switch >> 1), "w")
    if not 0 <= missing <= 1_000_000:
        raise Finding(f"{missing:,} chunks are not there")
    read_tensors(Contents((path,), {"w": spec}, {"w": where}, format="orbax"), [source_of(HELD)])


def zarr_seeds() -> dict[str, bytes]:
    two = {
        "zarr_format": 2, "shape": [3, 4], "chunks": [2, 2], "dtype": "<f4", "fill_value": 1.5, "order": "C", "filters": None,
        "compressor": None,
    }  # fmt: skip
    grid = {"name": "regular", "configuration": {"chunk_shape": [2, 2]}}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    three = {
        "zarr_format": 3, "node_type": "array", "shape": [4, 3], "data_type": "float32", "chunk_grid": grid, "fill_value": "NaN",
        "chunk_key_encoding": {"name": "default"}, "codecs": [little],
    }  # fmt: skip
    sharding = {
        "name": "sharding_indexed",
        "configuration": {"chunk_shape": [2, 2], "codecs": [little], "index_codecs": [little, {"name": "crc32c"}]},
    }
    four = {"name": "regular", "configuration": {"chunk_shape": [4, 2]}}
    transposed = [{"name": "transpose", "configuration": {"order": [1, 0]}}, little]
    keys = {"name": "v2", "configuration": {"separator": "."}}
    made = {
        "2 raw": (0, two),
        "2 columns": (0, {**two, "order": "F", "dimension_separator": "/"}),
        "2 big": (0, {**two, "dtype": ">f4", "fill_value": None}),
        "2 zlib": (4, {**two, "compressor": {"id": "zlib", "level": 1}}),
        "2 gzip": (6, {**two, "compressor": {"id": "gzip"}}),
        "2 none": (10, {**two, "dtype": "<c8", "fill_value": [1, "NaN"]}),
        "3 raw": (1, three),
        "3 gzip": (7, {**three, "codecs": [little, {"name": "gzip", "configuration": {"level": 1}}]}),
        "3 shards": (9, {**three, "codecs": [sharding], "chunk_grid": four}),
        "3 transposed": (1, {**three, "codecs": transposed, "chunk_key_encoding": keys, "fill_value": "0x7fc00000"}),
        "3 summed": (9, {**three, "codecs": [little, {"name": "crc32c"}]}),
        "3 group": (1, {"zarr_format": 3, "node_type": "group"}),
    }
    return {key: bytes([switch]) + json.dumps(value).encode() for key, (switch, value) in made.items()}


WORDS = (
    "zarr_format", "node_type", "shape", "chunks", "dtype", "data_type", "compressor", "filters", "order", "fill_value",
    "codecs", "name", "configuration", "chunk_shape", "index_codecs", "index_location", "start", "end", "endian", "little",
    "big", "bytes", "crc32c", "gzip", "zlib", "zstd", "blosc", "sharding_indexed", "transpose", "regular", "default", "v2",
    "separator", ".", "/", "C", "F", "id", "array", "<f4", ">f8", "|b1", "<c8", "f4", "bfloat16", "float8_e4m3fn", "int4",
    "float64", "bool", "NaN", "-Infinity", "0x7fc00000", "dimension_separator",
)  # fmt: skip
ZARR_ATOMS = (
    *JSON_ATOMS,
    *(json.dumps(word).encode() for word in WORDS),
    b"[2,2]",
    b"[4,3]",
    b"[0,1152921504606846976]",
    b"[1,1]",
)


# --- OCDBT: bodies of a manifest and of nodes; their frames are put round them


def framed(magic: int, body: bytes) -> bytes:
    whole = struct.pack(">I", magic) + struct.pack("<Q", len(body) + 18) + b"\0\0" + body
    return whole + struct.pack("<I", crc32c([whole]))


class Nodes:
    """A file of data: node number n stands at byte n, whatever is said of its length."""

    path = Path("fuzzed/d/a")

    def __init__(self, bodies: list[bytes]) -> None:
        self.bodies = bodies

    def read(self, offset: int, nbytes: int) -> bytes:
        return framed(NODE_MAGIC, self.bodies[offset % len(self.bodies)])


MARK = b"\xff\xfe%%"


def run_ocdbt(data: bytes) -> None:
    """`manifest MARK node MARK node …`; what is read stays in proportion to what is there."""
    manifest, *bodies = data.split(MARK)
    opened = source_of(framed(MANIFEST_MAGIC, manifest), "manifest.ocdbt")
    try:
        reader = Reader(opened, lambda path: cast(Source, Nodes(bodies or [b""])))
        values = reader.read()
    finally:
        opened.close()
    for key, value in values.items():
        if value.path.startswith("/") or ".." in value.path.split("/"):
            raise Finding(f"{key!r} lies in {value.path!r}")
    if sum(map(len, values)) > 1 << 20:
        raise Finding(f"{sum(map(len, values)):,} characters of keys")


def varints(*numbers: int) -> bytes:
    made = bytearray()
    for number in numbers:
        while number > 0x7F:
            made.append(number & 0x7F | 0x80)
            number >>= 7
        made.append(number)
    return bytes(made)


def files_table(*paths: bytes) -> bytes:
    return varints(
        len(paths), *[0] * (len(paths) - 1), *map(len, paths), *[2 if path[1:2] == b"/" else 0 for path in paths]
    ) + b"".join(paths)


def manifest(height: int, *paths: bytes) -> bytes:
    head = bytes(16) + varints(0, 100, 8 << 20) + b"\4" + varints(0)
    return head + files_table(*paths) + varints(1, 1) + bytes([height]) + varints(0, 0, 50)


def leaf(keys: list[bytes], *paths: bytes, inline: bool = True) -> bytes:
    listed = varints(len(keys), *[0] * (len(keys) - 1), *map(len, keys)) + b"".join(keys)
    kinds = [0 if inline else 1] * len(keys)
    body = b"\0" + files_table(*paths) + listed + varints(*[3] * len(keys), *kinds)
    return body + (b"abc" * len(keys) if inline else varints(*[0] * len(keys), *range(len(keys))))


def inner(keys: list[bytes], *paths: bytes) -> bytes:
    listed = varints(len(keys), *[0] * (len(keys) - 1), *map(len, keys), *[1] * len(keys)) + b"".join(keys)
    return b"\1" + files_table(*paths) + listed + varints(*[0] * len(keys), *range(1, len(keys) + 1), *[50] * len(keys))


def ocdbt_seeds() -> dict[str, bytes]:
    two = [leaf([b"a/.zarray"]), leaf([b"a/0", b"b/.zarray"], b"d/x", inline=False)]
    return {
        "leaf": MARK.join([manifest(0, b"d/a"), leaf([b"w/.zarray", b"w/0.0"])]),
        "values": MARK.join([manifest(0, b"p/d/a"), leaf([b"w/0", b"x"], b"d/b", b"d/c", inline=False)]),
        "tree": MARK.join([manifest(1, b"d/a"), inner([b"a", b"b"], b"d/a"), *two]),
        "outside": MARK.join([manifest(0, b"../d"), leaf([b"w"])]),
        "empty": manifest(0, b"d/a"),
    }


HARNESSES = [
    Harness("zarr", run_zarr, zarr_seeds, pieces(JSON_SPLIT, ZARR_ATOMS), max_nbytes=768),
    Harness("ocdbt", run_ocdbt, ocdbt_seeds, tokens=(MARK, b"../", b"d/a", b".zarray"), max_nbytes=256),
]
