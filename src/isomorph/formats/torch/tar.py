"""The tar archives of the oldest torch (until 0.1.9): four members, read where they lie.

sys_info   a pickle: {"protocol_version": 1000, "little_endian": True, …}
pickle     the object; a persistent id is the number of a tensor or of a storage
storages   a pickled count; for each a pickled (number, device, class), i64 elements, the elements; then a pickled list of views
           (number, number of the whole, offset, elements)
tensors    a pickled count; for each a pickled (number, number of its storage, class), i32 dims, 4 bytes of padding, i64 sizes,
           i64 strides, i64 offset

(torch/serialization.py, `_legacy_load`.)
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.containers import flatten
from isomorph.formats.pickle.dtypes import STORAGE_DTYPES
from isomorph.formats.pickle.interpreter import Interpreter
from isomorph.formats.pickle.objects import Global, Payload, Storage, Tensor
from isomorph.formats.pickle.tensors import DTYPE_OF, Region, place_all, tensor_location
from isomorph.formats.source import Source
from isomorph.formats.tar import Member
from isomorph.formats.window import Window
from isomorph.tensors import TensorSpec

MEMBERS = frozenset(("sys_info", "pickle", "storages", "tensors"))
PROTOCOL = 1000
MOST_RECORDS = 100_000
"""Storages, or tensors: each is a pickle of its own."""

CLASSES = {
    (module, name.removesuffix("Storage") + "Tensor"): Global(
        module, name.removesuffix("Storage") + "Tensor", "tensor class"
    )
    for module in ("torch", "torch.cuda")
    for name in STORAGE_DTYPES
}
"""`torch.FloatTensor` and its like, which only say again what the class of the storage says."""


class _Reader:
    """Pickles and numbers that follow each other in a member."""

    def __init__(self, source: Source, member: Member) -> None:
        self.path = source.path
        self.name = member.name
        self.window = Window(source, member.offset, member.nbytes)
        self.offset = member.offset
        self.at = 0

    def pickle(self) -> Any:
        interpreter = Interpreter(self.window, self.path, self.name, start=self.at, names=CLASSES)
        found = interpreter.run()
        self.at = interpreter.end
        return found

    def count(self) -> int:
        found = self.pickle()
        if type(found) is not int or not 0 <= found <= MOST_RECORDS:
            raise self.wrong(f"claims {printable(str(found)[:40])} records; 0 to {MOST_RECORDS:,} are read")
        return found

    def numbers(self, code: str) -> tuple[int, ...]:
        nbytes = struct.calcsize(f"<{code}")
        if self.at + nbytes > self.window.size:
            raise self.wrong(f"is truncated at byte {self.at:,}")
        self.at += nbytes
        return struct.unpack(f"<{code}", self.window.read(self.at - nbytes, nbytes))

    def wrong(self, problem: str) -> FormatError:
        return FormatError(self.path, f"an archive of torch before 0.2: its {self.name} {problem}")


class _Objects(Interpreter):
    """The pickle of the object: persistent ids are numbers of tensors and storages."""

    def __init__(self, reader: _Reader, held: Mapping[int, Tensor | Storage]) -> None:
        super().__init__(reader.window, reader.path, reader.name)
        self.held = held

    def storage(self, pid: Any, byte: int) -> Any:
        if type(pid) is tuple and pid and type(pid[0]) is Global:
            self.unsafe("build", pid[0], byte)  # a whole module, with its source beside its class
        if isinstance(pid, str) and pid.removeprefix("-").isdecimal() and pid.isascii() and len(pid) < 40:
            pid = int(pid)
        if type(pid) is not int:
            self.refused("refers to something that is no number of a tensor (a persistent id)", byte)
        found = self.held.get(pid)
        if found is None:
            self.broken(f"tensor number {pid}, which the archive does not hold", byte)
        return found


def read_members(source: Source, members: Mapping[str, Member]) -> Contents:
    """What such an archive holds. FormatError when its members do not fit each other; UnsafeError for what would run code."""
    path = source.path
    info = _Reader(source, members["sys_info"]).pickle()
    if type(info) is not dict or info.get("protocol_version") != PROTOCOL:
        raise FormatError(path, "a tar archive like those of torch before 0.2, but of another protocol")
    if info.get("little_endian") is False:
        raise FormatError(path, "an archive of torch before 0.2 from a big-endian machine, which is not read")
    held: dict[int, Storage | Tensor] = {}
    regions: dict[str, Region] = {}
    _read_storages(_Reader(source, members["storages"]), held, regions)
    _read_tensors(_Reader(source, members["tensors"]), held)
    reader = _Reader(source, members["pickle"])
    objects = _Objects(reader, held)
    flat = flatten(objects.run(), path, nodes=objects.nodes)

    def place(payload: Payload) -> Region:
        encoded = payload.nbytes if payload.encoding else 0
        return Region(reader.offset + payload.offset, payload.nbytes, payload.encoding, encoded, 0, payload.nbytes)

    def stored(name: str, tensor: Tensor) -> tuple[TensorSpec, Location]:
        return tensor_location(path, name, tensor, regions[tensor.storage.key])

    tensors, locations, leaves = place_all(path, flat.tensors, flat.leaves, place, stored)
    notes = ("an archive of torch before 0.2",)
    return Contents(
        (path,), tensors, locations, leaves=leaves, notes=notes, format="torch_tar", containers=flat.containers
    )


def _read_storages(reader: _Reader, held: dict[int, Storage | Tensor], regions: dict[str, Region]) -> None:
    for _ in range(reader.count()):
        said = reader.pickle()
        number, location, kind = said if type(said) is tuple and len(said) == 3 else (None, None, None)
        if (
            type(number) is not int
            or not isinstance(location, str)
            or type(kind) is not Global
            or kind.kind != "storage"
        ):
            raise reader.wrong("do not say what their storages are")
        if number in held:
            raise reader.wrong(f"have two storages of number {number}")
        (numel,) = reader.numbers("q")
        nbytes = numel * DTYPE_OF[kind.value].nbytes if kind.value else 0
        if not kind.value:
            raise reader.wrong(f"hold a torch.{printable(kind.name, 40)}, quantised numbers")
        if numel < 0 or reader.at + nbytes > reader.window.size:
            raise reader.wrong(f"are truncated: storage {number} claims {numel:,} elements, {nbytes:,} bytes")
        regions[str(number)] = Region(reader.offset + reader.at, nbytes)
        held[number] = Storage(kind.value, kind.name, str(number), location, numel, None)
        reader.at += nbytes
    views = reader.pickle()
    if type(views) is not list or len(views) > MOST_RECORDS:
        raise reader.wrong("do not end in a list of views")
    for view in views:
        if type(view) is not tuple or len(view) != 4 or any(type(part) is not int for part in view):
            raise reader.wrong("have a view that is none")
        number, whole, offset, numel = view
        root = held.get(whole)
        if type(root) is not Storage or number in held:
            raise reader.wrong(f"have a view {number} of a storage {whole} that is not there, or twice")
        if offset < 0 or numel < 0 or offset + numel > root.numel:
            raise reader.wrong(f"have a view {number} that goes beyond its storage {whole}")
        width = DTYPE_OF[root.dtype].nbytes
        regions[str(number)] = regions[root.key].part(offset * width, numel * width)
        held[number] = Storage(root.dtype, root.kind, str(number), root.location, numel, None)


def _read_tensors(reader: _Reader, held: dict[int, Storage | Tensor]) -> None:
    for _ in range(reader.count()):
        said = reader.pickle()
        number, storage, _ = said if type(said) is tuple and len(said) == 3 else (None, None, None)
        root = held.get(storage) if type(storage) is int else None
        if type(number) is not int or type(root) is not Storage:
            raise reader.wrong("name a storage that is not there")
        if number in held:
            raise reader.wrong(f"have two tensors of number {number}")
        (rank, _) = reader.numbers("ii")
        if not 0 <= rank <= 64:
            raise reader.wrong(f"have one of {rank:,} dims")
        shape, strides, (offset,) = reader.numbers(f"{rank}q"), reader.numbers(f"{rank}q"), reader.numbers("q")
        held[number] = Tensor(root, offset, shape, strides)
