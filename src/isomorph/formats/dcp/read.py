"""A checkpoint of torch.distributed (DCP): a folder with a pickle `.metadata`, and files in which each item is a torch zip.

    .metadata          Metadata(state_dict_metadata = {name: TensorStorageMetadata(properties, size, chunks) | Bytes…},
                                storage_data = {(name, offsets): (relative_path, offset, length)}, planner_data, …)
    __0_0.distcp …     one file for each rank and thread; bytes offset … offset+length are what torch.save wrote of one chunk

A chunk is a box of a tensor (`offsets`, `sizes`): what one rank held. Tensors of several chunks are tiles. Items that are no tensor
(steps, learning rates: pickles of any kind) are leaves, and not looked at. The pickle is followed as any other: nothing runs.

Source: torch/distributed/checkpoint/{metadata,filesystem,_nested_dict}.py of torch 2.13.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Contents, Location, Tile, in_file
from isomorph.formats.dcp.item import Items
from isomorph.formats.links import require_beside
from isomorph.formats.pickle.interpreter import MAX_PICKLE_BYTES, Interpreter
from isomorph.formats.pickle.names import record_class
from isomorph.formats.pickle.objects import Global, Object
from isomorph.formats.pickle.tensors import DTYPE_OF, sizes
from isomorph.formats.shelf import open_all
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec

MOST_FILES = 100_000
FILE_SUFFIX = ".distcp"
CHUNKS_BESIDES = 1000
"""Chunks that may be listed beyond two for each item: one list of chunks, in the pickle once, may be that of every tensor."""

_METADATA = "torch.distributed.checkpoint.metadata"
_OLD = "torch.distributed._shard.sharded_tensor.metadata"
RECORDS = {
    (module, name): record_class(module, name)
    for module, names in {
        _METADATA: (
            "Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties", "ChunkStorageMetadata",
            "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
        ),
        "torch.distributed.checkpoint.filesystem": ("_StorageInfo", "_StoragePrefix"),
        _OLD: ("TensorProperties", "MEM_FORMAT_ENCODING"),
    }.items()
    for name in names
}  # fmt: skip
"""The classes that `.metadata` is made of: inert records whose attributes are looked at."""


class _Item(NamedTuple):
    path: str
    offset: int
    nbytes: int


class _Chunk(NamedTuple):
    start: tuple[int, ...]
    shape: tuple[int, ...]


def looks_like(head: bytes) -> bool:
    """True for the first bytes of a `.metadata`: a pickle of torch.distributed.checkpoint's Metadata."""
    return head[:1] == b"\x80" and _METADATA.encode() in head[:128]


def read(source: Source) -> tuple[Contents, list[Source]]:
    """What the folder of this `.metadata` holds, and the opened files.

    FormatError when an item is missing, is not the chunk it should be, or the chunks do not make up their tensor; UnsafeError for
    a path out of the folder, and for a pickle that names anything else.
    """
    path = source.path
    state = _followed(source)
    entries = state.get("state_dict_metadata")
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise FormatError(path, "its Metadata has no state_dict_metadata of names")
    items = _items(path, state.get("storage_data"))
    wanted: dict[str, tuple[TensorSpec, list[_Chunk]]] = {}
    leaves: dict[str, str] = {}
    listed = 0
    for name, entry in entries.items():
        kind = entry.name.rpartition(".")[2] if type(entry) is Object else ""
        if kind == "TensorStorageMetadata":
            wanted[name] = _tensor(path, name, _attributes(entry), 2 * len(items) + CHUNKS_BESIDES - listed)
            listed += len(wanted[name][1])
        elif kind == "BytesStorageMetadata":
            found = items.get((name, None))
            leaves[name] = "an object" if found is None else f"an object of {found.nbytes:,} bytes"
        else:
            raise FormatError(path, f"`{printable(name)}` is neither a tensor nor an object")
    missing = [
        f"`{printable(name)}` {list(chunk.start)}"
        for name, (_, chunks) in wanted.items()
        for chunk in chunks
        if 0 not in chunk.shape and (name, chunk.start) not in items
    ]
    if missing:
        raise FormatError(path, f"{len(missing):,} chunks have no place in its storage_data: {', '.join(missing[:5])}")
    names = sorted({item.path for item in items.values()})
    sources = _open(source, names)
    try:
        source.close()
        return _contents(names, sources, wanted, items, leaves), sources
    except BaseException:
        for opened in sources:
            opened.close()
        raise


def _followed(source: Source) -> Mapping[str, Any]:
    if source.size > MAX_PICKLE_BYTES:
        raise FormatError(source.path, f"a pickle of {source.size:,} bytes; at most {MAX_PICKLE_BYTES:,} are read")
    interpreter = Interpreter(source, source.path, names=RECORDS)
    root = interpreter.run()
    if type(root) is not Object or root.name != f"{_METADATA}.Metadata" or interpreter.end != source.size:
        raise FormatError(source.path, "a pickle that is not one Metadata of torch.distributed.checkpoint")
    return _attributes(root)


def _attributes(record: Any) -> Mapping[str, Any]:
    """The attributes of a record; none when it is something else."""
    state = record.state if type(record) is Object else None
    return state if isinstance(state, dict) else {}


def _items(path: object, stored: Any) -> dict[tuple[str, tuple[int, ...] | None], _Item]:
    """(name, offsets of the chunk, None for what is no tensor) -> where the item lies."""
    if not isinstance(stored, dict):
        raise FormatError(path, "its Metadata has no storage_data: it was not written to a file system")
    found: dict[tuple[str, tuple[int, ...] | None], _Item] = {}
    packed: set[str] = set()
    for key, value in stored.items():
        index, info = _attributes(key), _attributes(value)
        name, at = index.get("fqn"), index.get("offset")
        start = None if at is None else sizes(at)
        where, offset, nbytes = info.get("relative_path"), info.get("offset"), info.get("length")
        if not isinstance(name, str) or (at is not None and start is None):
            raise FormatError(path, "its storage_data has a key that names no chunk")
        if not isinstance(where, str) or type(offset) is not int or type(nbytes) is not int or min(offset, nbytes) < 0:
            raise FormatError(path, f"`{printable(name)}`: its place is not a file, an offset and a length")
        if info.get("transform_descriptors"):
            packed.add(name)
        if (name, start) in found:
            raise FormatError(path, f"`{printable(name)}`: the chunk at {list(start or ())} has two places")
        found[name, start] = _Item(str(where), offset, nbytes)
    if packed:
        shown = ", ".join(f"`{printable(name)}`" for name in sorted(packed)[:5])
        raise FormatError(
            path,
            f"{len(packed):,} items were compressed or encrypted by an extension of their writer: {shown}",
            "Save it again without extensions",
        )
    return found


def _tensor(path: object, name: str, entry: Mapping[str, Any], most: int) -> tuple[TensorSpec, list[_Chunk]]:
    def wrong(problem: str) -> FormatError:
        return FormatError(path, f"tensor `{printable(name)}`: {problem}")

    properties = entry.get("properties")
    said = properties.state if type(properties) is Object else None
    if type(said) is tuple and said:
        element = said[0]
    else:
        element = said.get("dtype") if isinstance(said, dict) else None
    if type(element) is not Global or element.kind != "dtype":
        raise wrong("its properties have no dtype of torch")
    if element.value not in DTYPE_OF:
        raise wrong(f"its dtype torch.{printable(element.name, 40)} is not one isomorph has")
    shape = sizes(entry.get("size"))
    chunks = entry.get("chunks")
    if shape is None or type(chunks) is not list:
        raise wrong("it has no size and chunks")
    if len(chunks) > most:
        raise wrong(f"with its {len(chunks):,} chunks there are many more than items in the storage_data")
    found = []
    for chunk in chunks:
        state = _attributes(chunk)
        start, extent = sizes(state.get("offsets")), sizes(state.get("sizes"))
        if start is None or extent is None:
            raise wrong("a chunk of it has no offsets and sizes")
        found.append(_Chunk(start, extent))
    return TensorSpec(DTYPE_OF[element.value], shape), found


def _open(source: Source, names: list[str]) -> list[Source]:
    for name in names:
        if not name.endswith(FILE_SUFFIX) or any(letter in name for letter in "/\\:\0") or not name.isprintable():
            raise UnsafeError(
                source.path,
                f"it names the file {printable(name, 200)!r}, which is not a {FILE_SUFFIX} file beside it",
                "Nothing was read from there",
            )
    if len(names) > MOST_FILES:
        raise FormatError(source.path, f"it names {len(names):,} files; at most {MOST_FILES:,} are read")
    require_beside(source.path, names, f"the {len(names):,} files it names")
    return open_all(source.path.parent, names)


def _contents(
    names: list[str],
    sources: list[Source],
    wanted: Mapping[str, tuple[TensorSpec, list[_Chunk]]],
    items: Mapping[tuple[str, tuple[int, ...] | None], _Item],
    leaves: dict[str, str],
) -> Contents:
    number = {name: each for each, name in enumerate(names)}
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    sharded = 0
    reader = Items()
    for name, (spec, chunks) in wanted.items():
        tiles = []
        for chunk in chunks:
            if 0 in chunk.shape:
                continue
            item = items[name, chunk.start]
            file = number[item.path]
            held, where = reader.read(sources[file], item.offset, item.nbytes, f"`{printable(name)}`")
            if held != TensorSpec(spec.dtype, chunk.shape):
                raise FormatError(
                    sources[file].path,
                    f"tensor `{printable(name)}`: its chunk at {list(chunk.start)} should be "
                    f"{TensorSpec(spec.dtype, chunk.shape)}, and is {held}",
                )
            tiles.append(Tile(chunk.start, chunk.shape, in_file(where, file, item.offset)))
        tensors[name] = spec
        if len(tiles) == 1 and tiles[0].shape == spec.shape and not any(tiles[0].start):
            locations[name] = tiles[0].location
        elif spec.numel and not tiles:
            raise FormatError(sources[0].path, f"tensor `{printable(name)}` {spec}: it has no chunks")
        else:
            locations[name] = Location(0, 0, tiles=tuple(tiles))
            sharded += len(tiles) > 1
    notes = (f"{sharded:,} tensors are put together from the chunks of several ranks",) if sharded else ()
    return Contents(
        tuple(opened.path for opened in sources), tensors, locations, leaves=leaves, notes=notes, format="torch_dcp"
    )


__all__ = ["looks_like", "read"]
