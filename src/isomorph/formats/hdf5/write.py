"""HDF5 files for Keras, transformers' TensorFlow models and h5py: h5py describes them, and no element passes through it.

The file is made in memory with all room for the datasets set aside and nothing written into it, so that what h5py writes is the
structure alone; where each dataset's bytes belong is then known, and they are written there like any other format's.

Where every name is a path of at least two parts and none is Keras 3's (`…/vars/0`), the groups at the top are layers, as in
Keras 2: `layer_names` lists them, and each has the `weight_names` by which `load_weights` and transformers' `load_tf_weights` go.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from isomorph.errors import FormatError, MissingExtra, printable
from isomorph.formats.base import FileLayout, Literal
from isomorph.formats.flax.write import require_nesting
from isomorph.formats.hdf5.read import SAID
from isomorph.formats.hdf5.types import stored_type
from isomorph.formats.safetensors import require_unicode, unsupported
from isomorph.tensors import TensorSpec

DTYPES = frozenset(
    ["bool", "u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64", "c64", "c128"]
)
ALIGN = 16
LARGEST_ATTRIBUTE = 64_512
"""Bytes: an object's header holds 64 KiB at most; Keras cuts lists of names into `weight_names0`, `weight_names1`, …"""

KERAS = {"backend": "tensorflow", "keras_version": "2.15.0"}
"""What a file of layers says unless its source said something else; readers ask for the first digit of the version."""

MAX_DIMS = 32
LONGEST_PART = 4_000
"""Bytes between two slashes: the heap of a group of many members holds 4 KiB of each, and what is longer lies elsewhere."""


class Writer:
    """Lays out contiguous little-endian datasets at the paths that are the tensors' names."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """FormatError for dtypes and names that HDF5 does not hold; MissingExtra without h5py."""
        bad = {name: spec for name, spec in specs.items() if spec.dtype.name not in DTYPES}
        if bad:
            raise unsupported("hdf5", bad)
        require_unicode("hdf5", specs)
        require_nesting("hdf5", specs)
        for name, spec in specs.items():
            if "\0" in name or any(part in ("", ".") for part in name.split("/")):
                raise FormatError(
                    "hdf5", f"cannot hold a tensor called `{printable(name)}`: names are paths there", "Rename it"
                )
            if len(name) * 4 > LONGEST_PART and max(len(part.encode()) for part in name.split("/")) > LONGEST_PART:
                problem = (
                    f"cannot hold `{printable(name, 80)}`: a part of a name has at most {LONGEST_PART:,} bytes there"
                )
                raise FormatError("hdf5", problem, "Rename it")
            if len(spec.shape) > MAX_DIMS:
                raise FormatError("hdf5", f"cannot hold `{printable(name)}` {spec}: at most {MAX_DIMS} dimensions")
        try:
            import h5py  # noqa: F401
        except ImportError:
            raise MissingExtra("writing HDF5", "hdf5") from None

    def lay_out(self, specs: Mapping[str, TensorSpec], *, name: str, metadata: Mapping[str, str]) -> FileLayout:
        """The file. Of `metadata` the `backend` and the `keras_version` are kept, where there are layers."""
        self.check(specs)
        pages = _Pages()
        offsets = _describe(pages, specs, metadata)
        order = sorted(offsets, key=offsets.__getitem__)
        literals: list[Literal] = []
        tensors: dict[str, int] = {}
        reached = 0
        for tensor in order:
            literals += pages.literals(reached, offsets[tensor])
            tensors[tensor] = offsets[tensor]
            reached = offsets[tensor] + specs[tensor].nbytes
        literals += pages.literals(reached, pages.size)
        tensors.update({tensor: pages.size for tensor in specs if tensor not in tensors})  # those without elements
        return FileLayout(name, pages.size, tensors, tuple(literals))


def _describe(pages: _Pages, specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> dict[str, int]:
    """Write the structure of the file into `pages`; where each tensor that has elements begins."""
    import h5py
    import numpy as np
    from h5py import h5d, h5p, h5s, h5t

    offsets: dict[str, int] = {}
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_layout(h5d.CONTIGUOUS)
    plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5t.CSET_UTF8)
    types = {kind: stored_type(kind) for kind in {spec.dtype for spec in specs.values()}}
    with h5py.File(pages, "w", libver="earliest", alignment_threshold=1, alignment_interval=ALIGN) as file:
        for tensor, spec in specs.items():
            space = h5s.create_simple(spec.shape) if spec.shape else h5s.create(h5s.SCALAR)
            made = h5d.create(file.id, tensor.encode(), types[spec.dtype], space, plist, links)
            if spec.numel:
                offsets[tensor] = made.get_offset()
        layers = _layers(specs)
        if layers:
            said = {**KERAS, **{key: metadata[key] for key in SAID if key in metadata}}
            for key, text in said.items():
                file.attrs[key] = np.bytes_(text.encode("utf-8", "replace")[:100])
            _list_names(file, "layer_names", list(layers))
            for layer, weights in layers.items():
                _list_names(file[layer], "weight_names", weights)
    return offsets


def _layers(names: Mapping[str, object]) -> dict[str, list[str]]:
    """layer -> the paths of its weights below it; empty where the names are not those of layers."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, _, weight = name.partition("/")
        if not weight or "vars" in name.split("/"):
            return {}
        layers.setdefault(layer, []).append(weight)
    return layers


def _list_names(holder: Any, key: str, names: list[str]) -> None:
    import numpy as np

    raw = [name.encode() for name in names]
    width = max(map(len, raw))
    most = max(1, LARGEST_ATTRIBUTE // width)
    if len(raw) <= most:
        holder.attrs[key] = np.array(raw, f"S{width}")
        return
    for number, begin in enumerate(range(0, len(raw), most)):
        holder.attrs[f"{key}{number}"] = np.array(raw[begin : begin + most], f"S{width}")


class _Pages(io.RawIOBase):
    """A file in memory of which only the pages that were written exist; the rest are zeros."""

    PAGE = 1 << 12

    def __init__(self) -> None:
        self.size = 0
        self._at = 0
        self._pages: dict[int, bytearray] = {}

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for page, begin, count, done in self._parts(self._at, len(view)):
            self._pages.setdefault(page, bytearray(self.PAGE))[begin : begin + count] = view[done : done + count]
        self._at += len(view)
        self.size = max(self.size, self._at)
        return len(view)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view[:] = self._bytes(self._at, len(view))
        self._at += len(view)
        return len(view)

    def literals(self, begin: int, end: int) -> Iterator[Literal]:
        """What lies from `begin` to `end`, between tensors."""
        if end > begin:
            yield Literal(begin, self._bytes(begin, end - begin))

    def _bytes(self, offset: int, nbytes: int) -> bytes:
        made = bytearray(nbytes)
        for page, begin, count, done in self._parts(offset, nbytes):
            found = self._pages.get(page)
            if found is not None:
                made[done : done + count] = found[begin : begin + count]
        return bytes(made)

    def _parts(self, offset: int, nbytes: int) -> Iterator[tuple[int, int, int, int]]:
        """(page, where in it, how many bytes, how many before)."""
        done = 0
        while done < nbytes:
            page, begin = divmod(offset + done, self.PAGE)
            count = min(self.PAGE - begin, nbytes - done)
            yield page, begin, count, done
            done += count
