"""Zarr arrays, versions 2 and 3: a description in JSON, and chunks that each decode to a box of the array.

    v2   w/.zarray    {"shape": [5, 7], "chunks": [4, 4], "dtype": "<f4", "order": "C", "compressor": {"id": "zstd"}, …}
         w/0.0  w/0.1  w/1.0  w/1.1          whole chunks, those at the edges too; one that is missing is the fill value
    v3   w/zarr.json  {"shape": …, "chunk_grid": …, "data_type": "float32", "codecs": [bytes, zstd] or [sharding_indexed], …}
         w/c/0/0 …    with sharding, many inner chunks and, last, an index of where in the file each of them lies

Where a chunk lies is asked of `store` (a folder, or OCDBT); nothing of it is read here but the indexes of shards.

Source: the Zarr specifications, versions 2 and 3.0, and ZEP 2 (sharding).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple, Protocol

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Location, Tile
from isomorph.formats.pickle.dtypes import NUMPY_CODES
from isomorph.formats.pickle.tensors import DTYPE_OF, sizes
from isomorph.formats.strict_json import load_strictly
from isomorph.formats.tf.crc32c import crc32c
from isomorph.tensors import DType, TensorSpec, dtype

MOST_CHUNKS = 1_000_000
MOST_MISSING = 50_000
"""Chunks of all arrays together that may be missing: they take no byte of a file, and time all the same."""
EMPTY = (1 << 64) - 1
COMPRESSED = {"zstd": "zstd", "gzip": "gzip", "zlib": "zlib"}


class Place(NamedTuple):
    """`nbytes` bytes from `offset` of file number `file`."""

    file: int
    offset: int
    nbytes: int


class Store(Protocol):
    """Keys and where their bytes lie."""

    def find(self, key: str) -> Place | None: ...
    def read(self, place: Place) -> bytes: ...


class _Layout(NamedTuple):
    """What a description says. `inner` is the shape of what is encoded at a time; `tail` how long the index of a shard is."""

    spec: TensorSpec
    chunk: tuple[int, ...]
    inner: tuple[int, ...]
    is_sharded: bool
    encoding: str | None
    big: bool
    column_major: bool
    fill: str
    summed: bool
    index_first: bool
    index_summed: bool
    prefix: str
    separator: str


def locate(
    path: object, name: str, raw: bytes, version: int, store: Store, key: str, most_missing: int = MOST_MISSING
) -> tuple[TensorSpec, Location, int]:
    """(spec, where its elements lie, how many chunks are not stored) of the array at `key`.

    FormatError when more than `most_missing` are not, for a description that is broken, or says more than is read here.
    """
    layout = (_version_2 if version == 2 else _version_3)(path, name, raw)
    spec, chunk = layout.spec, layout.chunk
    grid = [-(-size // step) for size, step in zip(spec.shape, chunk, strict=True)]
    if math.prod(grid) * math.prod(_per_shard(layout)) > MOST_CHUNKS:
        raise _wrong(path, name, f"{math.prod(grid):,} chunks; at most {MOST_CHUNKS:,} are read")
    tiles: list[Tile] = []
    missing = 0
    for number in product(*map(range, grid)) if 0 not in grid else ():  # `product` makes lists of what it is given
        start = tuple(at * step for at, step in zip(number, chunk, strict=True))
        found = store.find((f"{key}/" if key else "") + _chunk_key(layout, number, version))
        if found is None:
            missing += 1
            if missing > most_missing:
                what = f"of its {math.prod(grid):,} chunks"
                if most_missing < MOST_MISSING:
                    what = f"of the chunks of all arrays so far, with those {what},"
                raise _wrong(path, name, f"more than {MOST_MISSING:,} {what} are not there")
            tiles.append(_tile(layout, start, chunk, Location(0, 0, encoding="fill", inside=layout.fill)))
        elif layout.is_sharded:
            tiles += _shard(path, name, layout, start, found, store)
        else:
            tiles.append(_tile(layout, start, chunk, _chunk(path, name, layout, found)))
    if len(tiles) == 1 and tiles[0].shape == spec.shape:
        return spec, tiles[0].location, missing
    return spec, Location(0, 0, tiles=tuple(tile for tile in tiles if 0 not in tile.shape)), missing


def _per_shard(layout: _Layout) -> list[int]:
    return [size // step for size, step in zip(layout.chunk, layout.inner, strict=True)]


def _chunk_key(layout: _Layout, number: Sequence[int], version: int) -> str:
    if version == 2 or layout.prefix == "":
        return layout.separator.join(map(str, number)) or "0"
    return layout.separator.join([layout.prefix, *map(str, number)])


def _tile(layout: _Layout, start: tuple[int, ...], whole: tuple[int, ...], where: Location) -> Tile:
    """The part of a chunk (of shape `whole`) that lies in the array; a chunk at an edge is stored whole."""
    shape = tuple(min(size, most - at) for size, most, at in zip(whole, layout.spec.shape, start, strict=True))
    shape = tuple(max(0, size) for size in shape)
    if where.encoding == "fill":
        return Tile(start, shape, where)
    axes = range(len(whole))
    if layout.column_major:
        strides: tuple[int, ...] | None = tuple(math.prod(whole[:axis]) for axis in axes)
    else:
        strides = None if shape == whole else tuple(math.prod(whole[axis + 1 :]) for axis in axes)
    return Tile(start, shape, where._replace(strides=strides))


def _chunk(path: object, name: str, layout: _Layout, place: Place) -> Location:
    nbytes = math.prod(layout.inner) * layout.spec.dtype.nbytes
    big = layout.big and layout.spec.dtype.nbytes > 1
    held = place.nbytes - (4 if layout.summed else 0)
    if layout.encoding is None:
        if held != nbytes:
            raise _wrong(path, name, f"a chunk of {nbytes:,} bytes is stored in {held:,}")
        return Location(place.file, place.offset, None, "big" if big else None)
    encoding = f"{layout.encoding}+big" if big else layout.encoding
    return Location(place.file, place.offset, None, encoding, held, 0, nbytes)


def _shard(path: object, name: str, layout: _Layout, start: tuple[int, ...], place: Place, store: Store) -> list[Tile]:
    """The inner chunks of a shard, by its index: (offset, nbytes) of each, and a checksum."""
    counts = _per_shard(layout)
    tail = 16 * math.prod(counts) + (4 if layout.index_summed else 0)
    if tail > place.nbytes:
        raise _wrong(path, name, f"a shard of {place.nbytes:,} bytes, shorter than its index")
    begin = place.offset if layout.index_first else place.offset + place.nbytes - tail
    raw = store.read(Place(place.file, begin, tail))
    if layout.index_summed:
        crc, said = crc32c([raw[:-4]]), int.from_bytes(raw[-4:], "little")
        if crc != said:
            raise _wrong(path, name, f"the index of a shard is damaged (checksum {crc:08x}, not {said:08x})")
    tiles = []
    for order, number in enumerate(product(*map(range, counts))):
        offset, nbytes = (int.from_bytes(raw[16 * order + at : 16 * order + at + 8], "little") for at in (0, 8))
        at = tuple(first + k * step for first, k, step in zip(start, number, layout.inner, strict=True))
        where = Location(0, 0, encoding="fill", inside=layout.fill)
        if (offset, nbytes) != (EMPTY, EMPTY):
            if offset + nbytes > place.nbytes:
                raise _wrong(path, name, f"bytes {offset:,} to {offset + nbytes:,} of a shard of {place.nbytes:,}")
            where = _chunk(path, name, layout, Place(place.file, place.offset + offset, nbytes))
        if all(first < size for first, size in zip(at, layout.spec.shape, strict=True)):
            tiles.append(_tile(layout, at, layout.inner, where))
    return tiles


def _wrong(path: object, name: str, problem: str) -> FormatError:
    return FormatError(path, f"array `{printable(name)}`: {problem}")


def _shapes(path: object, name: str, shape: Any, chunk: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    whole, part = sizes(shape), sizes(chunk)
    if whole is None or part is None or len(whole) != len(part) or 0 in part:
        raise _wrong(path, name, "its shape and the shape of its chunks are not sizes that go together")
    return whole, part


def _fill(path: object, name: str, value: Any, kind: DType) -> str:
    """The little-endian bytes of one element, in hexadecimal."""
    import numpy as np

    if value is None:
        return "00" * kind.nbytes
    words: dict[Any, Any] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    try:
        if isinstance(value, str) and value.startswith("0x"):
            return int(value, 16).to_bytes(kind.nbytes, "little").hex()
        if isinstance(value, list) and kind.kind == "complex" and len(value) == 2:
            value = complex(*[words[part] if part in words else float(part) for part in value])
        elif isinstance(value, str):
            value = words[value]
        if not isinstance(value, int | float | complex):
            raise TypeError
        with np.errstate(all="ignore"):
            return np.array([value]).astype(kind.numpy).tobytes().hex()
    except (KeyError, TypeError, ValueError, OverflowError):
        raise _wrong(path, name, f"its fill value {printable(repr(value), 40)} is no {kind}") from None


def _version_2(path: object, name: str, raw: bytes) -> _Layout:
    said = load_strictly(raw, path, f".zarray of `{printable(name)}`", depth=16, floats=True)
    whole, chunk = _shapes(path, name, said.get("shape"), said.get("chunks"))
    code = said.get("dtype")
    if said.get("zarr_format") != 2 or not isinstance(code, str):
        raise _wrong(path, name, "its .zarray is not that of a plain array of version 2")
    kind, big = _dtype_2(path, name, code)
    if said.get("filters"):
        raise _wrong(path, name, "it has filters, which are not read")
    compressor = said.get("compressor")
    encoding = None
    if compressor is not None:
        found = compressor.get("id") if isinstance(compressor, dict) else None
        encoding = _encoding(path, name, found)
    order, separator = said.get("order", "C"), said.get("dimension_separator", ".")
    if order not in ("C", "F") or separator not in (".", "/"):
        raise _wrong(path, name, "its order or its dimension_separator is not one of the specification's")
    fill = _fill(path, name, said.get("fill_value"), kind)
    return _Layout(
        TensorSpec(kind, whole), chunk, chunk, False, encoding, big, order == "F", fill, False, False, False, "", separator
    )  # fmt: skip


def _dtype_2(path: object, name: str, code: str) -> tuple[DType, bool]:
    if code[:1] in "<>|" and code[1:] in NUMPY_CODES:
        return DTYPE_OF[NUMPY_CODES[code[1:]]], code[0] == ">"
    return _named(path, name, code), False


def _named(path: object, name: str, code: Any) -> DType:
    try:
        found = dtype(code) if isinstance(code, str) else dtype("")
        if found.block:  # `f4` is numpy's float32, or four bits: neither is a name of the specification
            raise KeyError(code)
        return found
    except KeyError:
        raise _wrong(path, name, f"its dtype {printable(str(code), 40)!r} is not one isomorph has") from None


def _encoding(path: object, name: str, codec: Any) -> str:
    if not isinstance(codec, str) or codec not in COMPRESSED:
        raise FormatError(
            path,
            f"array `{printable(name)}`: its chunks are compressed with {printable(str(codec), 40)!r}; "
            f"{', '.join(COMPRESSED)} are read",
            "Save it again with zstd",
        )
    return COMPRESSED[codec]


def _version_3(path: object, name: str, raw: bytes) -> _Layout:
    said = load_strictly(raw, path, f"zarr.json of `{printable(name)}`", depth=32, floats=True)
    grid = said.get("chunk_grid")
    if said.get("zarr_format") != 3 or said.get("node_type") != "array" or _name_of(grid) != "regular":
        raise _wrong(path, name, "its zarr.json is not that of an array in regular chunks")
    whole, chunk = _shapes(path, name, said.get("shape"), _configuration(grid).get("chunk_shape"))
    kind = _named(path, name, said.get("data_type"))
    keys = said.get("chunk_key_encoding")
    if _name_of(keys) not in ("default", "v2"):
        raise _wrong(path, name, "its chunk_key_encoding is neither default nor v2")
    prefix = "c" if _name_of(keys) == "default" else ""
    separator = _configuration(keys).get("separator", "/" if prefix else ".")
    if separator not in (".", "/"):
        raise _wrong(path, name, "its chunk_key_encoding has an unknown separator")
    codecs, inner, is_sharded, index_first, index_summed = said.get("codecs"), chunk, False, False, False
    if isinstance(codecs, list) and len(codecs) == 1 and _name_of(codecs[0]) == "sharding_indexed":
        shard = _configuration(codecs[0])
        _, inner = _shapes(path, name, chunk, shard.get("chunk_shape"))
        if any(size % step for size, step in zip(chunk, inner, strict=True)):
            raise _wrong(path, name, "its shards are no whole number of chunks")
        told: Any = shard.get("index_codecs")
        index = [_name_of(codec) for codec in told] if isinstance(told, list) else []
        if index not in (["bytes"], ["bytes", "crc32c"]) or _configuration(told[0]).get("endian") != "little":
            raise _wrong(path, name, "the index of its shards is encoded as none that is read")
        codecs, is_sharded = shard.get("codecs"), True
        index_first, index_summed = shard.get("index_location", "end") == "start", len(index) == 2
    encoding, big, column_major, summed = _codecs(path, name, codecs, len(whole))
    fill = _fill(path, name, said.get("fill_value"), kind)
    return _Layout(
        TensorSpec(kind, whole), chunk, inner, is_sharded, encoding, big, column_major, fill, summed, index_first, index_summed,
        prefix, separator,
    )  # fmt: skip


def _codecs(path: object, name: str, codecs: Any, rank: int) -> tuple[str | None, bool, bool, bool]:
    """(compression, big-endian, column-major, ends in a checksum) of `[transpose?, bytes, compression?, crc32c?]`."""
    if not isinstance(codecs, list) or not codecs:
        raise _wrong(path, name, "it has no codecs")
    rest = list(codecs)
    column_major = False
    if _name_of(rest[0]) == "transpose":
        order = _configuration(rest.pop(0)).get("order")
        column_major = order == list(reversed(range(rank)))
        if not column_major and order != list(range(rank)):
            raise _wrong(
                path, name, f"its chunks are transposed by {printable(json.dumps(order), 80)}, which is not read"
            )
    if not rest or _name_of(rest[0]) != "bytes":
        raise _wrong(path, name, f"its codec {printable(str(_name_of(rest[0] if rest else None)), 40)!r} is not read")
    big = _configuration(rest.pop(0)).get("endian") == "big"
    encoding = None
    if rest and _name_of(rest[0]) != "crc32c":
        encoding = _encoding(path, name, _name_of(rest.pop(0)))
    summed = bool(rest) and _name_of(rest[0]) == "crc32c"
    if len(rest) > summed:
        raise _wrong(path, name, f"its codec {printable(str(_name_of(rest[-1])), 40)!r} is not read where it stands")
    return encoding, big, column_major, summed


def _name_of(part: Any) -> Any:
    return part.get("name") if isinstance(part, dict) else None


def _configuration(part: Any) -> Mapping[str, Any]:
    found = part.get("configuration") if isinstance(part, dict) else None
    return found if isinstance(found, dict) else {}


def is_group(path: object, raw: bytes) -> bool:
    """True for the zarr.json of a group, which holds arrays and is none."""
    return bool(load_strictly(raw, path, "zarr.json", depth=32, floats=True).get("node_type") == "group")


__all__ = ["Place", "Store", "is_group", "locate"]
