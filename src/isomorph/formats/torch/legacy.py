"""Legacy torch files (`torch.save` before 1.6): five pickles back to back, then the storages one after another.

magic 0x1950a86a20f9469cfc6c · protocol 1001 · sys_info · the object · the list of storage keys
for each key in that order: number of elements (i64, little-endian), then the elements (little-endian on every machine)
"""

from __future__ import annotations

from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.containers import flatten
from isomorph.formats.pickle.interpreter import Interpreter
from isomorph.formats.pickle.machine import Memory
from isomorph.formats.pickle.objects import Payload, Storage, Tensor
from isomorph.formats.pickle.tensors import DTYPE_OF, Region, place_all, tensor_location
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read(source: Source) -> Contents:
    """What a legacy torch file holds. FormatError when it is not one, is cut, or its storages do not fit their tensors."""
    path = source.path
    end = 0

    def follow(what: str) -> Interpreter:
        return Interpreter(source, path, what, start=end, storages=True)

    header: list[Any] = []
    for what in ("magic number", "protocol version", "sys_info"):
        interpreter = follow(what)
        header.append(interpreter.run())
        end = interpreter.end
    if header[0] != MAGIC or type(header[0]) is not int:
        raise FormatError(path, "not a legacy torch file: its magic number is another")
    if header[1] != PROTOCOL:
        raise FormatError(
            path, f"a legacy torch file of protocol {printable(str(header[1])[:40])}; only {PROTOCOL} is known"
        )
    objects = follow("object")
    root = objects.run()
    end = objects.end
    listing = follow("storage keys")
    keys = listing.run()
    regions = _regions(source, keys, objects.storage_records, listing.end)

    flat = flatten(root, path, nodes=objects.nodes)

    def viewed(name: str, tensor: Tensor) -> tuple[TensorSpec, Location]:
        region = _viewed(path, name, tensor.storage, regions[tensor.storage.key])
        return tensor_location(path, name, tensor, region)

    placed = place_all(path, flat.tensors, flat.leaves, _place, viewed)
    notes = ["legacy torch file (before 1.6)"]
    if isinstance(header[2], dict) and header[2].get("little_endian") is False:
        notes.append(
            "written on a big-endian machine; its elements are little-endian, as torch always writes them here"
        )
    return Contents(
        (path,),
        placed.tensors,
        placed.locations,
        leaves=placed.leaves,
        notes=tuple(notes),
        format="torch_legacy",
        containers=flat.containers,
    )


HEAD = 4096
"""Bytes in which the pickles of one storage lie (they take some 400)."""


def saved_storage(source: Source, payload: Payload) -> tuple[Storage, Region]:
    """The one storage that a legacy torch file inside of another pickle holds, and where its bytes lie in `source`.

    FormatError when it is none, or does not fit into `payload`.
    """
    path, begin, end = source.path, payload.offset, payload.offset + payload.nbytes
    head, at = Memory(source.read(begin, min(payload.nbytes, HEAD))), 0
    said: list[Any] = []
    records: dict[str, Storage] = {}
    for what in ("magic number", "protocol version", "sys_info", "storage", "storage keys"):
        interpreter = Interpreter(head, path, f"{what} at byte {begin:,}", start=at, storages=True)
        said.append(interpreter.run())
        records |= interpreter.storage_records
        at = interpreter.end
    magic, protocol, _, storage, keys = said
    if type(magic) is not int or (magic, protocol) != (MAGIC, PROTOCOL) or type(storage) is not Storage:
        raise FormatError(path, f"what should be a storage of torch at byte {begin:,} is none")
    region = _regions(source, keys, records, begin + at)[storage.key]
    if region.byte_offset + region.nbytes > end:
        raise FormatError(
            path, f"truncated: the storage of torch at byte {begin:,} goes beyond its {payload.nbytes:,} bytes"
        )
    return storage, _viewed(path, "storage", storage, region)


def _place(payload: Payload) -> Region:
    encoded = payload.nbytes if payload.encoding else 0
    return Region(payload.offset, payload.nbytes, payload.encoding, encoded, 0, payload.nbytes)


def _regions(source: Source, keys: Any, records: dict[str, Storage], start: int) -> dict[str, Region]:
    path = source.path
    if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
        raise FormatError(path, "its list of storages is not a list of names")
    held = set(keys)
    if len(held) != len(keys):
        raise FormatError(path, "its list of storages names one twice")
    missing = [key for key in records if key not in held]
    if missing:
        raise FormatError(path, f"storage {printable(missing[0], 60)!r} is used, but the file does not hold it")
    regions: dict[str, Region] = {}
    for key in keys:
        if key not in records:
            raise FormatError(path, f"storage {printable(key, 60)!r} is held, but nothing says of what type it is")
        storage = records[key]
        if not storage.dtype:
            raise FormatError(
                path, f"storage {printable(key, 60)!r} is a torch.{storage.kind}, which holds quantised numbers"
            )
        if start + 8 > source.size:
            raise FormatError(path, f"truncated: storage {printable(key, 60)!r} should begin at byte {start:,}")
        numel = int.from_bytes(source.read(start, 8), "little", signed=True)
        if numel != storage.numel:
            raise FormatError(
                path,
                f"storage {printable(key, 60)!r} has {numel:,} elements at byte {start:,}, its pickle says {storage.numel:,}",
            )
        nbytes = numel * DTYPE_OF[storage.dtype].nbytes
        if start + 8 + nbytes > source.size:
            raise FormatError(
                path,
                f"truncated: storage {printable(key, 60)!r} takes bytes {start + 8:,} to {start + 8 + nbytes:,}, "
                f"the file has {source.size:,}",
            )
        regions[key] = Region(start + 8, nbytes)
        start += 8 + nbytes
    return regions


def _viewed(path: object, name: str, storage: Storage, region: Region) -> Region:
    """The part of a storage that a view of it (very old files) shows."""
    if storage.view is None:
        return region
    _, offset, numel = storage.view
    itemsize = DTYPE_OF[storage.dtype].nbytes
    if (offset + numel) * itemsize > region.nbytes:
        raise FormatError(
            path, f"tensor `{printable(name)}`: its view of storage {storage.key!r} goes beyond the end of it"
        )
    return region.part(offset * itemsize, numel * itemsize)
