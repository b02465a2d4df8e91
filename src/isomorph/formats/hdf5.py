"""HDF5 as Keras and TensorFlow write weights (`tf_model.h5`, `*.weights.h5`, the weights of a `.keras` archive), through h5py.

    bert/tf_bert_for_pre_training/bert/pooler/dense/bias:0     a dataset's path is its tensor's name

The library only follows the file's structure, through a window that hands it bytes of the opened file, a bounded number of
times: it opens no file itself, and no link is followed. A contiguous dataset is a range of the file and read like any other
format's. Chunked and compressed ones are decoded once, slab by slab. What leads out of the file (external links, external
storage, virtual datasets) is refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from isomorph.errors import FormatError, IsomorphError, MissingExtra, UnsafeError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.hdf5_types import dtype_of, kind_of
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec

MAGIC = b"\x89HDF\r\n\x1a\n"
KERAS_WEIGHTS = "model.weights.h5"

MAX_OBJECTS = 200_000
MAX_DEPTH = 100
MAX_DIMS = 64
FIRST_READS = 10_000
MAX_READS = 32
"""Reads that an object of the file may cost, besides those that any file costs."""

MAX_CHUNK = 256 << 20
SLAB = 32 << 20
"""Bytes decoded at a time, where chunks are not larger than that."""

MAX_LISTED = 5_000
MAX_LISTED_BYTES = 32 << 20
MAX_ATTRIBUTE_READ = 1 << 16

NOTHING_READ = "Nothing was read from there"
SAID = ("backend", "keras_version")
"""Attributes of the file that are kept."""


def read(source: Source) -> Contents:
    """What an HDF5 file holds. FormatError when it is broken, UnsafeError when it leads elsewhere, MissingExtra without h5py."""
    with opened(source) as (file, window):
        return _Walk(source, window, file).contents()


class Window(io.RawIOBase):
    """The bytes of an HDF5 file, which may be a part of a larger one, as h5py wants them: read-only, and not without end."""

    def __init__(self, source: Source, base: int, nbytes: int) -> None:
        self.source = source
        self.base = base
        self.nbytes = nbytes
        self.left = FIRST_READS
        self.bytes_left = 4 * nbytes + (64 << 20)
        self.most = nbytes
        """Bytes of one read."""
        self.problem: Exception | None = None
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.nbytes)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    @contextmanager
    def limited(self, most: int) -> Iterator[None]:
        """Within this no read is larger than `most` bytes, and so no text of an attribute, however often it is named."""
        self.most = most
        try:
            yield
        finally:
            self.most = self.nbytes

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`. An error here becomes h5py's, so it is kept."""
        view = memoryview(buffer).cast("B")
        self.left -= 1
        self.bytes_left -= len(view)
        try:
            if len(view) > self.most:
                raise FormatError(self.source.path, f"its attributes take {len(view):,} bytes at once")
            if self.left < 0 or self.bytes_left < 0:
                raise FormatError(self.source.path, "its structure leads through the same bytes again and again")
            if self._at < 0 or self._at + len(view) > self.nbytes:
                raise FormatError(
                    self.source.path,
                    f"truncated: bytes {self._at:,} to {self._at + len(view):,} are needed, the file has {self.nbytes:,}",
                )
            self.source.fill(self.base + self._at, view)
        except IsomorphError as error:
            self.problem = self.problem or error
            raise OSError(str(error)) from None
        self._at += len(view)
        return len(view)


def window_of(source: Source) -> Window:
    """The HDF5 file in `source`: all of it, or the weights of a Keras archive."""
    if source.read(0, min(source.size, len(MAGIC))) == MAGIC:
        return Window(source, 0, source.size)
    from isomorph.formats.zip import read_members

    member = next(member for name, member in read_members(source).items() if name.endswith(KERAS_WEIGHTS))
    if member.is_deflated:
        raise FormatError(
            source.path, f"its {KERAS_WEIGHTS} is compressed, and is not read", "Unpack the archive, and name that file"
        )
    return Window(source, member.offset, member.nbytes)


@contextmanager
def opened(source: Source) -> Iterator[tuple[Any, Window]]:
    """The file as h5py sees it, and the window it reads through. Every error of the library becomes a FormatError."""
    try:
        import h5py
    except ImportError:
        raise MissingExtra(f"reading {printable(source.path.name)} (HDF5)", "hdf5") from None
    window = window_of(source)
    try:
        with h5py.File(window, "r") as file:
            yield file, window
    except IsomorphError:
        raise
    except Exception as error:  # what a broken file makes h5py raise is of every kind
        if window.problem is not None:
            raise window.problem from None
        said = printable(" ".join(str(error).split()), 160) or type(error).__name__
        raise FormatError(
            source.path, f"a broken HDF5 file: {said}", "Copy or download it again; a truncated file gives this as well"
        ) from None


class _Walk:
    """Follows groups and hard links, breadth last, and says what every dataset is."""

    def __init__(self, source: Source, window: Window, file: Any) -> None:
        self.path = source.path
        self.window = window
        self.file = file
        self.tensors: dict[str, TensorSpec] = {}
        self.locations: dict[str, Location] = {}
        self.leaves: dict[str, str] = {}
        self.containers: dict[str, None] = {}
        self.soft: list[tuple[str, str, str]] = []
        self.seen: dict[int, str] = {}
        self.ranks: dict[str, int] = {}
        """The order in which Keras's lists name layers and weights, by path."""
        self.objects = 0
        self.listed = 0

    def contents(self) -> Contents:
        from h5py import h5o

        self.seen[h5o.get_info(self.file.id).addr] = ""
        frames = [("", self.file.id, self._children("", self.file.id))]
        while frames:
            prefix, group, names = frames[-1]
            for raw in names:
                inner = self._link(prefix, group, raw)
                if inner is None:
                    continue
                if len(frames) >= MAX_DEPTH:
                    raise FormatError(
                        self.path, f"groups nested deeper than {MAX_DEPTH} (at `{printable(inner[0], 80)}`)"
                    )
                frames.append((inner[0] + "/", inner[1], self._children(inner[0] + "/", inner[1])))
                break
            else:
                frames.pop()
        for name, folder, target in self.soft:
            self._soft(name, folder, target)
        order = self._order()
        holders = {name[:at]: None for name in self.tensors for at in range(len(name)) if name[at] == "/"}
        return Contents(
            (self.path,),
            {name: self.tensors[name] for name in order},
            {name: self.locations[name] for name in order},
            self._metadata(),
            self.leaves,
            format="hdf5",
            containers=tuple(sorted(holders, key=lambda name: name.count("/"))),
            is_tree=True,
        )

    def _order(self) -> list[str]:
        """The tensors as Keras's lists have them; without lists as they lie in the file."""
        last = 1 << 63

        def place(name: str) -> tuple[int, int]:
            if name in self.ranks:
                return self.ranks[name], 0
            return last, self.locations[name].byte_offset if self.tensors[name].numel else last

        return sorted(self.tensors, key=place)

    def _children(self, prefix: str, group: Any) -> Iterator[bytes]:
        """The names of a group's links, those that Keras lists first, in that order."""
        names = list(group)
        layers = (
            [raw for raw in self._listed(group, "layer_names") if raw in set(names)] if prefix.count("/") < 2 else []
        )
        for raw in self._listed(group, "weight_names") if prefix else ():
            self.ranks.setdefault(prefix + raw.decode("utf-8", "replace"), len(self.ranks))
        return iter(dict.fromkeys([*layers, *names]))

    def _listed(self, group: Any, key: str) -> list[bytes]:
        """A list of names that Keras keeps in an attribute, or cut into several."""
        from h5py import h5a

        if h5a.exists(group, key.encode()):
            return self._names(group, key)
        found: list[bytes] = []
        number = 0
        while h5a.exists(group, f"{key}{number}".encode()):
            found += self._names(group, f"{key}{number}")
            number += 1
        return found

    def _names(self, group: Any, key: str) -> list[bytes]:
        from h5py import AttributeManager, h5a, h5t

        attribute = h5a.open(group, key.encode())
        if (
            not isinstance(attribute.get_type(), h5t.TypeStringID)
            or len(attribute.shape) != 1
            or attribute.shape[0] > MAX_LISTED
        ):
            return []
        with self.window.limited(MAX_ATTRIBUTE_READ):
            names = AttributeManager(_Held(group))[key]
        found = [name if isinstance(name, bytes) else name.encode("utf-8", "replace") for name in names]
        self.listed += sum(map(len, found)) + len(found)
        if self.listed > MAX_LISTED_BYTES:
            raise FormatError(self.path, f"its lists of names take more than {MAX_LISTED_BYTES:,} bytes")
        return found

    def _link(self, prefix: str, group: Any, raw: bytes) -> tuple[str, Any] | None:
        """Take in what the link `raw` of a group leads to; (name, group) when that is a group to be walked."""
        from h5py import h5d, h5g, h5l, h5o

        self.objects += 1
        self.window.left += MAX_READS
        if self.objects > MAX_OBJECTS:
            raise FormatError(self.path, f"an HDF5 file of more than {MAX_OBJECTS:,} links")
        try:
            name = prefix + raw.decode()
        except UnicodeDecodeError:
            raise FormatError(self.path, f"a link in `{printable(prefix, 80)}` has a name that is not UTF-8") from None
        if b"/" in raw or raw in (b"", b"."):
            raise FormatError(self.path, f"the name of the link `{printable(name, 120)}` is none")
        link = group.links.get_info(raw)
        if link.type == h5l.TYPE_SOFT:
            target = group.links.get_val(raw)
            self.soft.append((name, prefix, target.decode("utf-8", "replace")))
            return None
        if link.type != h5l.TYPE_HARD:
            where = ""
            if link.type == h5l.TYPE_EXTERNAL:
                file, inside = (printable(part.decode("utf-8", "replace"), 80) for part in group.links.get_val(raw))
                where = f" to `{inside}` of the file {file}"
            raise UnsafeError(self.path, f"`{printable(name, 120)}` is an external link{where}", NOTHING_READ)
        found = h5o.open(group, raw)
        if isinstance(found, h5g.GroupID):
            address = h5o.get_info(found).addr
            if address in self.seen:
                raise FormatError(
                    self.path,
                    f"the group `{printable(name, 120)}` is the group `{printable(self.seen[address] or '/', 120)}` again",
                )
            self.seen[address] = name
            return name, found
        if isinstance(found, h5d.DatasetID):
            self._dataset(name, found)
        else:
            self.leaves[name] = "a named type"
        return None

    def _dataset(self, name: str, found: Any) -> None:
        from h5py import h5d, h5o, h5s

        def wrong(problem: str) -> FormatError:
            return FormatError(self.path, f"dataset `{printable(name, 200)}`: {problem}")

        plist = found.get_create_plist()
        layout = plist.get_layout()
        if plist.get_external_count():
            raise UnsafeError(
                self.path,
                f"dataset `{printable(name, 200)}` keeps its elements in another file (external storage)",
                NOTHING_READ,
            )
        if layout not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
            raise UnsafeError(
                self.path,
                f"dataset `{printable(name, 200)}` is virtual: its elements lie in other datasets, maybe of other files",
                NOTHING_READ,
            )
        space = found.get_space()
        if space.get_simple_extent_type() not in (h5s.SCALAR, h5s.SIMPLE):
            self.leaves[name] = "an empty dataset"
            return
        shape = tuple(int(size) for size in space.get_simple_extent_dims())
        if len(shape) > MAX_DIMS or math.prod(size for size in shape if size) >= 1 << 56:
            raise wrong(f"it claims the shape {list(shape)}")
        stored = found.get_type()
        kind, big = dtype_of(stored, lambda: _text(found, "dtype"))
        if kind is None:
            what = kind_of(stored)
            if what is None:
                raise wrong("its numbers have a type that is not read")
            self.leaves[name] = f"{what} {list(shape)}"
            return
        spec = TensorSpec(kind, shape)
        held = found.get_storage_size()
        if spec.numel and not held:
            self.leaves[name] = f"{spec}, never written"
            return
        self.tensors[name] = spec
        if not spec.numel:
            self.locations[name] = Location(0, 0)
        elif layout == h5d.CONTIGUOUS and not plist.get_nfilters():
            offset = found.get_offset()
            if offset is None or held < spec.nbytes:
                raise wrong(f"{spec} takes {spec.nbytes:,} bytes, {held:,} are stored")
            if offset + spec.nbytes > self.window.nbytes:
                raise wrong(f"truncated: it ends at byte {offset + spec.nbytes:,}, the file has {self.window.nbytes:,}")
            self.locations[name] = Location(
                0, self.window.base + offset, encoding="big" if big else None, encoded_nbytes=spec.nbytes if big else 0
            )
        else:
            self._require_small_chunks(wrong, plist, layout, spec)
            address = self.window.base + h5o.get_info(found).addr
            self.locations[name] = Location(
                0, address, encoding="hdf5", encoded_nbytes=held, decoded_nbytes=spec.nbytes, inside=name
            )

    def _require_small_chunks(
        self, wrong: Callable[[str], FormatError], plist: Any, layout: int, spec: TensorSpec
    ) -> None:
        from h5py import h5d, h5z

        if layout == h5d.CHUNKED and math.prod(plist.get_chunk()) * spec.dtype.nbytes > MAX_CHUNK:
            raise wrong(f"its chunks of {list(plist.get_chunk())} elements are larger than {MAX_CHUNK:,} bytes")
        for index in range(plist.get_nfilters()):
            code, _, _, said = plist.get_filter(index)
            if not h5z.filter_avail(code):
                raise wrong(f"it is packed with the filter {code} ({printable(str(said), 40)}), which h5py has not")

    def _soft(self, name: str, folder: str, target: str) -> None:
        """A soft link to a dataset of this file is that tensor under another name; any other is a leaf."""
        parts: list[str] = []
        for part in (target if target.startswith("/") else folder + target).split("/"):
            if part not in ("", "."):
                parts.append(part)
        whole = "/".join(parts)
        if whole in self.tensors and name not in self.tensors:
            self.tensors[name], self.locations[name] = self.tensors[whole], self.locations[whole]
        else:
            self.leaves[name] = f"a link to {printable(target, 80)}"

    def _metadata(self) -> dict[str, str]:
        with self.window.limited(MAX_ATTRIBUTE_READ):
            found = {key: _text(self.file.id, key) for key in SAID}
        return {key: text for key, text in found.items() if text is not None}


def _text(holder: Any, key: str) -> str | None:
    """A short text attribute of an object; None when there is none."""
    from h5py import AttributeManager, h5a, h5t

    if not h5a.exists(holder, key.encode()):
        return None
    attribute = h5a.open(holder, key.encode())
    if (
        not isinstance(attribute.get_type(), h5t.TypeStringID)
        or attribute.shape != ()
        or attribute.get_storage_size() > 1000
    ):
        return None
    value = AttributeManager(_Held(holder))[key]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return text if isinstance(text, str) and len(text) <= 100 else None


class _Held:
    """What h5py's AttributeManager wants: an object with an id."""

    def __init__(self, found: Any) -> None:
        self.id = found


# --- decoding


def decoded(source: Source, where: Location) -> Iterator[bytes]:
    """The elements of a chunked or compact dataset, row-major and little-endian, in slabs."""
    with opened(source) as (file, window):
        from h5py import h5d, h5o, h5s, h5t

        window.left, window.bytes_left = (
            1 << 40,
            1 << 62,
        )  # every byte of it is wanted, and h5py reads no chunk twice in a slab
        found = h5o.open(file.id, where.inside.encode())
        if window.base + h5o.get_info(found).addr != where.byte_offset:
            raise FormatError(source.path, f"changed while it was read: `{printable(where.inside)}` lies elsewhere now")
        memory = found.get_type().copy()
        if isinstance(memory, h5t.TypeAtomicID):
            memory.set_order(h5t.ORDER_LE)
        space = found.get_space()
        shape = space.get_simple_extent_dims()
        plist = found.get_create_plist()
        chunk = plist.get_chunk() if plist.get_layout() == h5d.CHUNKED else shape
        import numpy as np

        for start, count in slabs(shape, chunk, memory.get_size()):
            buffer = np.empty(math.prod(count) * memory.get_size(), np.uint8)
            inside = h5s.create_simple(count) if count else h5s.create(h5s.SCALAR)
            if count:
                space.select_hyperslab(start, count)
            found.read(inside, space, buffer, memory)
            yield buffer.tobytes()


def slabs(
    shape: tuple[int, ...], chunk: tuple[int, ...], width: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Boxes (start, count) that follow each other in row-major order: whole rows of chunks where those are not too large."""
    axis = 0
    while axis < len(shape) and math.prod(shape[axis + 1 :]) * width * min(chunk[axis], shape[axis]) > SLAB:
        axis += 1
    if axis == len(shape):
        axis = max(0, axis - 1)
    if not shape:
        yield (), ()
        return
    row = math.prod(shape[axis + 1 :]) * width
    step = max(1, SLAB // max(row, 1))
    if step > chunk[axis]:
        step -= step % chunk[axis]
    for outer in _counted(shape[:axis]):
        for begin in range(0, shape[axis], step):
            count = min(step, shape[axis] - begin)
            yield (*outer, begin, *(0,) * (len(shape) - axis - 1)), (*(1,) * axis, count, *shape[axis + 1 :])


def _counted(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if not shape:
        yield ()
        return
    for first in range(shape[0]):
        for rest in _counted(shape[1:]):
            yield first, *rest
