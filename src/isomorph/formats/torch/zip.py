"""torch's zip files (`torch.save` since 1.6): read from `data.pkl` and the zip directory alone, and written byte by byte.

    archive/data.pkl   a pickle (protocol 2) of the object; each storage in it is an id ('storage', type, key, 'cpu', numel)
    archive/byteorder  "little" or "big"; missing in older files, which are little-endian
    archive/data/0 …   the elements of each storage, stored (rarely deflated)
    archive/version    "3"

Tensors are strided views of storages; several may share one. A TorchScript archive (`torch.jit.save`) is read the same way: its
modules are records whose attributes are followed, its code is never looked at. Where a module was frozen, its weights are the
constants of that code (`constants.pkl`), which have numbers for names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, FileLayout, Location, Sharing
from isomorph.formats.containers import flatten
from isomorph.formats.pickle.interpreter import MAX_PICKLE_BYTES, MAX_TEXT, Interpreter
from isomorph.formats.pickle.machine import Memory
from isomorph.formats.pickle.objects import Payload, Storage, Tensor
from isomorph.formats.pickle.tensors import DTYPE_OF, Region, place_all, tensor_location
from isomorph.formats.pickle.write import Memo, integer, integers, text
from isomorph.formats.safetensors import unsupported
from isomorph.formats.source import Source
from isomorph.formats.zip.archive import Member, read_member, read_members
from isomorph.formats.zip.layout import Entry, lay_out_zip, placed_at
from isomorph.tensors import TensorSpec

MOST_RATIO = 200
"""A pickle that deflates better than this is a bomb."""

BOOKKEEPING = frozenset({"training", "_is_full_backward_hook"})
"""What every module of a TorchScript archive has besides its own attributes."""

ALIGN = 64
"""Storages are written at multiples of so many bytes, as torch does."""


def read(source: Source) -> Contents:
    """What a torch zip file holds. FormatError when it is broken or ambiguous; UnsafeError when its pickle would run something."""
    path = source.path
    members = read_members(source)
    top = _top(path, members)
    script = f"{top}/constants.pkl" in members or any(name.startswith(f"{top}/code/") for name in members)
    big = _is_big_endian(source, members.get(f"{top}/byteorder"))
    member = members[f"{top}/data.pkl"]
    contents = _Pickle(source, members, top, member, "data", script, big).read()
    constants = members.get(f"{top}/constants.pkl")
    if script and not contents.tensors and constants is not None:
        frozen = _Pickle(source, members, top, constants, "constants", script, big).read()
        contents = replace(frozen, leaves={**contents.leaves, **frozen.leaves})
    return contents


class _Pickle:
    """One pickle of an archive; the storages it names lie in `folder`."""

    def __init__(
        self,
        source: Source,
        members: Mapping[str, Member],
        top: str,
        member: Member,
        folder: str,
        script: bool,
        big: bool,
    ) -> None:
        self.source = source
        self.path = source.path
        self.members = members
        self.top = top
        self.member = member
        self.folder = folder
        self.script = script
        self.big = big

    def read(self) -> Contents:
        path, member = self.path, self.member
        if member.is_deflated and member.nbytes > max(1 << 20, MOST_RATIO * member.stored_nbytes):
            raise FormatError(
                path,
                f"its {printable(member.name.rpartition('/')[2])} claims to inflate from {member.stored_nbytes:,} to "
                f"{member.nbytes:,} bytes",
            )
        pickled = read_member(self.source, member, MAX_PICKLE_BYTES)
        label = printable(member.name, 80)
        interpreter = Interpreter(Memory(pickled), path, label, storages=True, script=self.script)
        root = interpreter.run()
        if self.folder == "constants" and isinstance(root, tuple):
            root = {f"CONSTANTS.c{number}": value for number, value in enumerate(root)}
        flat = flatten(root, path, nodes=interpreter.nodes)
        if interpreter.end != len(pickled):
            raise FormatError(path, f"{len(pickled) - interpreter.end:,} bytes follow the end of its pickle {label}")
        leaves = flat.leaves
        if self.script:
            leaves = {
                name: text
                for name, text in leaves.items()
                if text != "None" and name.rpartition(".")[2] not in BOOKKEEPING  # None: a bias that there is not
            }
        regions: dict[str, Region] = {}

        def stored(name: str, tensor: Tensor) -> tuple[TensorSpec, Location]:
            storage: Storage = tensor.storage
            region = regions.get(storage.key)
            if region is None:
                region = regions[storage.key] = self._region(name, storage)
            return tensor_location(path, name, tensor, region, self.big)

        tensors, locations, leaves = place_all(path, flat.tensors, leaves, self._place, stored)
        notes = self._notes(regions, bool(tensors))
        return Contents(
            (path,), tensors, locations, leaves=leaves, notes=notes, format="torch_zip", containers=flat.containers
        )

    def _place(self, payload: Payload) -> Region:
        member = self.member
        if not member.is_deflated:
            at, encoded = member.offset + payload.offset, payload.nbytes if payload.encoding else 0
            return Region(at, payload.nbytes, payload.encoding, encoded, 0, payload.nbytes)
        if payload.encoding is not None:
            label = printable(member.name, 80)
            raise FormatError(self.path, f"numpy arrays written as text in a compressed {label} are not read")
        return Region(member.offset, payload.nbytes, "deflate", member.stored_nbytes, payload.offset, member.nbytes)

    def _region(self, name: str, storage: Storage) -> Region:
        if storage.view is not None:
            raise FormatError(
                self.path, f"tensor `{printable(name)}`: its storage is a view, which zip files do not have"
            )
        member = self.members.get(f"{self.top}/{self.folder}/{storage.key}")
        if member is None:
            key = printable(storage.key, 80)
            raise FormatError(
                self.path, f"tensor `{printable(name)}`: the archive has no storage {key!r} ({self.folder}/{key})"
            )
        nbytes = storage.numel * DTYPE_OF[storage.dtype].nbytes if storage.dtype else member.nbytes
        if nbytes != member.nbytes:
            raise FormatError(
                self.path,
                f"tensor `{printable(name)}`: its storage has {storage.numel:,} elements of {storage.kind} ({nbytes:,} bytes), "
                f"{printable(member.name, 80)} has {member.nbytes:,} bytes",
            )
        if member.is_deflated:
            return Region(member.offset, nbytes, "deflate", member.stored_nbytes, 0, nbytes)
        return Region(member.offset, nbytes)

    def _notes(self, regions: Mapping[str, Region], found: bool) -> tuple[str, ...]:
        notes = []
        if self.script and self.folder == "constants" and found:
            notes.append("a frozen TorchScript module: its weights are constants of its code, with numbers for names")
        elif self.script:
            notes.append("a TorchScript archive: its weights are read, its code and constants are not")
        if self.big:
            notes.append("written on a big-endian machine; bytes are swapped while reading")
        prefix = f"{self.top}/{self.folder}/"
        members = self.members
        unused = [name for name in members if name.startswith(prefix) and name.removeprefix(prefix) not in regions]
        if unused:
            nbytes = sum(members[name].nbytes for name in unused)
            notes.append(f"{len(unused):,} storages ({nbytes:,} bytes) in the archive are used by no tensor")
        filled = [member for member in members.values() if member.nbytes]
        if filled and not any(member.crc for member in filled):
            notes.append("saved without checksums (every CRC-32 is 0), so damage to it cannot be noticed")
        return tuple(notes)


def _top(path: object, members: Mapping[str, Member]) -> str:
    """The one folder that everything in the archive lies in."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in members}
    if len(tops) != 1 or "" in tops:
        shown = ", ".join(sorted(printable(top, 40) or "(none)" for top in tops)[:4])
        raise FormatError(path, f"a torch file has one folder at its top, this zip has {len(tops)} ({shown})")
    top = tops.pop()
    if f"{top}/data.pkl" not in members:
        other = next((name for name in members if name.lower().endswith("data.pkl")), None)
        said = f"; {printable(other, 80)} is not it" if other else ""
        raise FormatError(path, f"a zip archive without {printable(top, 80)}/data.pkl, so not a torch file{said}")
    return top


def _is_big_endian(source: Source, member: Member | None) -> bool:
    if member is None:
        return False
    order = read_member(source, member, 64).strip()
    if order not in (b"little", b"big"):
        raise FormatError(source.path, f"its byteorder is {order[:20]!r}; only little and big are known")
    return order == b"big"


_TYPED = {
    "f32": "FloatStorage", "f64": "DoubleStorage", "f16": "HalfStorage", "bf16": "BFloat16Storage", "i64": "LongStorage",
    "i32": "IntStorage", "i16": "ShortStorage", "i8": "CharStorage", "u8": "ByteStorage", "bool": "BoolStorage",
    "c64": "ComplexFloatStorage", "c128": "ComplexDoubleStorage",
}  # fmt: skip
"""The others have no typed storage: they are written as torch does, with `_rebuild_tensor_v3`."""

_UNTYPED = {
    "u16": "uint16", "u32": "uint32", "u64": "uint64", "f8e4m3": "float8_e4m3fn", "f8e5m2": "float8_e5m2",
    "f8e4m3fnuz": "float8_e4m3fnuz", "f8e5m2fnuz": "float8_e5m2fnuz", "f8e8m0": "float8_e8m0fnu",
    "f4": "float4_e2m1fn_x2",
}  # fmt: skip


class Writer:
    """Lays out a file that `torch.load(weights_only=True)` reads, plain and with `mmap=True`: a flat dict, one storage a tensor."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """FormatError when a name is longer than torch files should have; every dtype can be held."""
        long = [name for name in specs if len(name.encode("utf-8", "surrogatepass")) > MAX_TEXT]
        if long:
            raise FormatError("target", f"cannot hold names longer than {MAX_TEXT:,} bytes: {printable(long[0], 60)}")
        unknown = {name: spec for name, spec in specs.items() if spec.dtype.name not in DTYPE_OF}
        if unknown:
            raise unsupported("target", unknown)

    def lay_out(
        self,
        specs: Mapping[str, TensorSpec],
        *,
        name: str,
        metadata: Mapping[str, str],
        sharing: Sharing | None = None,
    ) -> FileLayout:
        """The file, each storage padded to where it can be shared with the source. `metadata` has no place in it.
        `.format_version` is left out on purpose: with it torch may compute offsets of its own."""
        top = "archive"
        entries = [
            Entry(f"{top}/data.pkl", state_dict_pickle(specs), align=ALIGN),
            Entry(f"{top}/byteorder", b"little", align=ALIGN),
        ]
        for index, (tensor, spec) in enumerate(specs.items()):
            place = placed_at(tensor, spec, ALIGN, sharing)
            entries.append(Entry(f"{top}/data/{index}", b"", tensor, spec.nbytes, *place))
        entries.append(Entry(f"{top}/version", b"3\n", align=ALIGN))
        return lay_out_zip(name, entries)


BATCH = 1000


def state_dict_pickle(specs: Mapping[str, TensorSpec]) -> bytes:
    """A protocol 2 pickle of `{name: tensor}`, storage `"0"` the first tensor's and so on."""
    parts = [b"\x80\x02}"]
    once = Memo().once
    for index, (name, spec) in enumerate(specs.items()):
        if index % BATCH == 0:
            parts.append(b"u(" if index else b"(")
        typed = _TYPED.get(spec.dtype.name)
        parts.append(text(name))
        parts.append(once(b"ctorch._utils\n_rebuild_tensor_%s\n" % (b"v2" if typed else b"v3")) + b"((")
        parts.append(once(text("storage")))
        parts.append(once(f"ctorch\n{typed}\n".encode() if typed else b"ctorch.storage\nUntypedStorage\n"))
        parts.append(text(str(index)) + once(text("cpu")) + integer(spec.numel if typed else spec.nbytes) + b"tQK\0")
        strides, step = [], 1
        for size in reversed(spec.shape):
            strides.append(step)
            step *= max(size, 1)
        parts.append(integers(spec.shape) + integers(tuple(reversed(strides))))
        parts.append(b"\x89" + once(b"ccollections\nOrderedDict\n") + b")R")
        if not typed:
            parts.append(once(f"ctorch\n{_UNTYPED[spec.dtype.name]}\n".encode()))
        parts.append(b"tR")
    parts.append(b"u." if specs else b".")
    return b"".join(parts)
