"""Folders of arrays as Orbax and T5X write them: zarr arrays below one folder, in files of their own or in OCDBT.

    _METADATA            the tree: the array of the keys params, dense, kernel lies in `params.dense.kernel`
    params.dense.kernel/.zarray 0.0 …                 without OCDBT
    manifest.ocdbt  d/…  ocdbt.process_0/d/…          with it
    checkpoint           T5X's msgpack of what is no array (its tensors are read too), beside `target.encoder….kernel/`

That array is called `params/dense/kernel`; without `_METADATA` an array is called as its folder, with `/` for the dots. Nothing
outside the folder is opened, and no link in it but those of the hub's cache is followed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.containers import holders_of
from isomorph.formats.links import open_beside
from isomorph.formats.shelf import MOST_OPEN, Shelf, ShelvedSource
from isomorph.formats.source import Source
from isomorph.formats.strict_json import load_strictly
from isomorph.formats.zarr.ocdbt import MANIFEST, Reader, Value
from isomorph.formats.zarr.read import MOST_MISSING, Place, is_group, locate
from isomorph.stores.url import Url
from isomorph.tensors import TensorSpec

METADATA = "_METADATA"
LARGEST_METADATA = 64 << 20
LARGEST_ARRAY_METADATA = 1 << 20
MOST_FILES = 500_000
READ_TWICE, READ_BESIDES = 2, 1 << 20
"""What describes arrays (and where chunks lie in a shard) is at most so many times what the files hold, and so many bytes: each
part is read once, where no two keys of a database mean one place."""
DESCRIPTIONS = {".zarray": 2, "zarr.json": 3}
PLACEHOLDER = "PLACEHOLDER:"


class Inline(Source):
    """Small values that a node holds itself, put together as one file that is in memory."""

    def __init__(self, path: Path) -> None:
        self._begin(path)
        self.data = bytearray()
        self.size = self.stored = 0

    def put(self, value: bytes) -> int:
        """Where it begins."""
        self.data += value
        self.size = self.stored = len(self.data)
        return self.size - len(value)

    def read(self, offset: int, nbytes: int) -> bytes:
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise FormatError(self.path, f"truncated: bytes {offset} to {offset + nbytes} of a value of {self.size}")
        return bytes(self.data[offset : offset + nbytes])

    def fill(self, offset: int, buffer: memoryview) -> None:
        buffer.cast("B")[:] = self.read(offset, buffer.nbytes)

    def changed(self) -> str | None:
        return None

    def close(self) -> None:
        pass

    def fileno(self) -> int:
        return -1


class _Folder:
    """The files below a folder, opened when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shelf = Shelf()
        self.sources: list[Source] = []
        self.numbers: dict[str, int] = {}
        self.read_nbytes = self.held_nbytes = 0

    def open(self, path: str) -> int:
        """The number of the file at `path` (parts joined by `/`), which no link but one of the hub's cache leads to."""
        if path not in self.numbers:
            inner, _, name = path.rpartition("/")
            where = self.folder
            for part in inner.split("/") if inner else ():
                where = where / part
                if where.is_symlink():
                    raise UnsafeError(where, "a link where a folder of the checkpoint belongs", "Copy the folder here")
            shelved = len(self.sources) >= MOST_OPEN and not (where / name).is_symlink()
            source = ShelvedSource(where / name, self.shelf) if shelved else open_beside(where, name)
            self.numbers[path] = self.add(source)
        return self.numbers[path]

    def add(self, source: Source) -> int:
        self.sources.append(source)
        self.held_nbytes += source.size
        return len(self.sources) - 1

    def read(self, place: Place) -> bytes:
        """What describes something. FormatError when so much was read that keys must mean the same places."""
        self.read_nbytes += place.nbytes
        if self.read_nbytes > READ_TWICE * self.held_nbytes + READ_BESIDES:
            raise FormatError(
                self.folder,
                f"its arrays lie on each other: {self.held_nbytes:,} bytes of files describe more than there is",
                "Save it again, each array by itself",
            )
        return self.sources[place.file].read(place.offset, place.nbytes)


class _Files(_Folder):
    """A store whose keys are the files themselves."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if isinstance(folder, Url):
            raise FormatError(
                folder, "arrays that have a folder each are read from disk only", "Copy the folder here first"
            )
        self.keys: set[str] = set()
        for inner, _, names in os.walk(folder, followlinks=False):
            below = os.path.relpath(inner, folder)
            self.keys.update(name if below == "." else f"{below}/{name}" for name in names)
            if len(self.keys) > MOST_FILES:
                raise FormatError(folder, f"more than {MOST_FILES:,} files")

    def find(self, key: str) -> Place | None:
        if key not in self.keys:
            return None
        file = self.open(key)
        return Place(file, 0, self.sources[file].size)


class _Database(_Folder):
    """A store whose keys are those of an OCDBT database."""

    def __init__(self, folder: Path, manifest: Source) -> None:
        super().__init__(folder)
        self.inline = Inline(manifest.path)
        self.memory = self.add(self.inline)
        self.values: Mapping[str, Value] = Reader(manifest, lambda path: self.sources[self.open(path)]).read()
        self.keys = set(self.values)
        self.places: dict[str, Place] = {}

    def find(self, key: str) -> Place | None:
        value = self.values.get(key)
        if value is None:
            return None
        if key not in self.places:
            if value.inline is not None:
                self.places[key] = Place(self.memory, self.inline.put(value.inline), value.nbytes)
                self.held_nbytes += value.nbytes
            else:
                self.places[key] = Place(self.open(value.path), value.offset, value.nbytes)
        return self.places[key]


def read(source: Source) -> tuple[Contents, list[Source]]:
    """What the folder of this `_METADATA`, `manifest.ocdbt`, `checkpoint`, `.zarray` or `zarr.json` holds, and the opened files."""
    folder = source.path.parent
    opened: list[Source] = []
    manifest: Source | None = None
    try:
        if (folder / MANIFEST).exists():
            manifest = open_beside(folder, MANIFEST)
            opened.append(manifest)
            store: _Files | _Database = _Database(folder, manifest)
        else:
            store = _Files(folder)
        opened += store.sources
        contents = _contents(folder, source, store)
        for each in opened:
            if each is manifest:
                each.close()
        source.close()
        return contents, store.sources
    except BaseException:
        for each in opened:
            each.close()
        raise


def _contents(folder: Path, source: Source, store: _Files | _Database) -> Contents:
    names, leaves, is_whole = _names(source) if source.path.name == METADATA else ({}, {}, False)
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    absent: dict[str, int] = {}
    may_miss = MOST_MISSING
    if source.path.name == "checkpoint":
        _add_msgpack(source, store, tensors, locations, leaves)
    found = sorted(key for key in store.keys if key.rpartition("/")[2] in DESCRIPTIONS)
    for key in found:
        inside, _, kind = key.rpartition("/")
        name = names.get(inside, inside.replace(".", "/") if inside else "array")
        place = store.find(key)
        if place is None or place.nbytes > LARGEST_ARRAY_METADATA:
            raise FormatError(folder / key, "a description of an array that is larger than any")
        raw = store.read(place)
        if kind == "zarr.json" and b'"group"' in raw and is_group(folder / key, raw):
            continue
        spec, where, missing = locate(folder / key, name, raw, DESCRIPTIONS[kind], store, inside, may_miss)
        if name in tensors:
            raise FormatError(folder, f"two arrays are called `{printable(name)}`")
        tensors[name], locations[name] = spec, where
        if missing:
            absent[name] = missing
            may_miss -= missing
    lost = [name for name in names.values() if name not in tensors and name not in leaves]
    if lost:
        raise FormatError(
            source.path,
            f"{len(lost):,} arrays that it names are not there: {', '.join(f'`{printable(name)}`' for name in lost[:5])}",
            "Fetch the whole folder",
        )
    if not store.sources:
        raise FormatError(folder, "a checkpoint without an array")
    notes = []
    if absent:
        shown = ", ".join(f"`{printable(name)}`" for name in list(absent)[:5])
        if is_whole:
            raise FormatError(
                source.path,
                f"{sum(absent.values()):,} chunks are missing, and it says that all were stored: {shown}",
                "Fetch the whole folder",
            )
        notes.append(f"{sum(absent.values()):,} chunks are not stored, and read as the fill value: {shown}")
    return Contents(
        tuple(each.path for each in store.sources), tensors, locations, leaves=leaves, notes=tuple(notes), format="orbax",
        containers=holders_of(tensors, folder), is_tree=True,
    )  # fmt: skip


def _names(source: Source) -> tuple[dict[str, str], dict[str, str], bool]:
    """(folder of each array -> its name, leaves that are no arrays, whether every chunk was stored) by `_METADATA`."""
    if source.size > LARGEST_METADATA:
        raise FormatError(source.path, f"{source.size:,} bytes; at most {LARGEST_METADATA:,} are read")
    said = load_strictly(source.read(0, source.size), source.path, METADATA, depth=64, floats=True)
    tree = said.get("tree_metadata")
    if not isinstance(tree, dict):
        raise FormatError(source.path, "it has no tree_metadata")
    names: dict[str, str] = {}
    leaves: dict[str, str] = {}
    for entry in tree.values():
        told = entry.get("key_metadata") if isinstance(entry, dict) else None
        keys = [_text(part) for part in told] if isinstance(told, list) else []
        if not keys or None in keys:
            raise FormatError(source.path, "its tree_metadata has an entry without keys")
        parts = [key for key in keys if key is not None]
        value = entry.get("value_metadata")
        kind = value.get("value_type") if isinstance(value, dict) else None
        if kind in ("string", "None", "Dict", "List", "Tuple", "NamedTuple") or (
            isinstance(value, dict) and value.get("skip_deserialize")
        ):
            leaves["/".join(parts)] = f"{'a text' if kind == 'string' else printable(str(kind), 40)}"
            continue
        if ".".join(parts) in names:
            raise FormatError(source.path, f"two arrays lie in the same place: `{printable('.'.join(parts))}`")
        names[".".join(parts)] = "/".join(parts)
    return names, leaves, said.get("store_array_data_equal_to_fill_value") is True


def _text(part: Any) -> str | None:
    key = part.get("key") if isinstance(part, dict) else None
    return str(key) if isinstance(key, str | int) else None


def _add_msgpack(
    source: Source,
    store: _Files | _Database,
    tensors: dict[str, TensorSpec],
    locations: dict[str, Location],
    leaves: dict[str, str],
) -> None:
    """What T5X's msgpack holds itself; its placeholders stand for the arrays beside it."""
    from isomorph.formats.base import in_file
    from isomorph.formats.flax.read import read as read_flax

    inner = read_flax(source)
    if inner.tensors:
        number = store.add(open_beside(source.path.parent, source.path.name))
        tensors.update(inner.tensors)
        locations.update({name: in_file(where, number) for name, where in inner.locations.items()})
    leaves.update({name: text for name, text in inner.leaves.items() if PLACEHOLDER not in text})


__all__ = ["read"]
