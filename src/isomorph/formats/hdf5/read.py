"""HDF5 as Keras and TensorFlow write weights: `tf_model.h5`, `*.weights.h5`, the weights in a `.keras` archive.

    bert/tf_bert_for_pre_training/bert/pooler/dense/bias:0     a dataset's path is its tensor's name

The structure is followed here, without the HDF5 library, which a broken file can crash. A contiguous dataset is a range of the file
and read like any other format's. Chunked and compressed ones are decoded once, by h5py in a process of its own (`process`).
What leads out of the file (external links, external storage, virtual datasets) is refused, and no link is followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.containers import holders_of
from isomorph.formats.hdf5 import messages as hdf5_messages
from isomorph.formats.hdf5.blocks import (
    ATTRIBUTE,
    DATASPACE,
    DATATYPE,
    EXTERNAL,
    LAYOUT,
    LINK,
    LINK_INFO,
    MAGIC,
    SYMBOLS,
    Blocks,
    Link,
    Message,
)
from isomorph.formats.hdf5.heap import Texts
from isomorph.formats.hdf5.messages import CHUNKED, COMPACT, CONTIGUOUS, Attribute, attributes_of, texts_of
from isomorph.formats.hdf5.types import dtype_of, kind_of
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec

KERAS_WEIGHTS = "model.weights.h5"

MAX_DEPTH = 100
MAX_DIMS = 64
MAX_NAME_CHARACTERS = 64 << 20
"""All names together: deep groups with long names multiply."""

MAX_CHUNK = 256 << 20
MAX_LISTED = 200_000
"""Names in Keras's lists, all together; lists beyond that order nothing."""
SAID = ("backend", "keras_version")
"""Attributes of the file that are kept."""

NOTHING_READ = "Nothing was read from there"


def read(source: Source) -> Contents:
    """What an HDF5 file holds. FormatError when it is broken, UnsafeError when it leads out of itself."""
    return _Walk(source).contents()


def part_of(source: Source) -> tuple[int, int]:
    """(first byte, bytes) of the HDF5 file in `source`: all of it, or the weights of a Keras archive."""
    if source.read(0, min(source.size, len(MAGIC))) == MAGIC:
        return 0, source.size
    from isomorph.formats.zip.archive import read_members

    found = [member for name, member in read_members(source).items() if name.rpartition("/")[2] == KERAS_WEIGHTS]
    if len(found) != 1:
        raise FormatError(source.path, f"a Keras archive with {len(found)} files called {KERAS_WEIGHTS}, not one")
    if found[0].is_deflated:
        raise FormatError(
            source.path, f"its {KERAS_WEIGHTS} is compressed, and is not read", "Unpack the archive, and name that file"
        )
    if source.read(found[0].offset, min(found[0].nbytes, len(MAGIC))) != MAGIC:
        raise FormatError(source.path, f"its {KERAS_WEIGHTS} is not an HDF5 file")
    return found[0].offset, found[0].nbytes


class _Walk:
    """Follows the groups along hard links, and says what every dataset is."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.path = source.path
        self.base, self.nbytes = part_of(source)
        self.file = Blocks(source, self.base, self.nbytes)
        self.texts = Texts(self.file)
        self.tensors: dict[str, TensorSpec] = {}
        self.locations: dict[str, Location] = {}
        self.leaves: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self.soft: list[tuple[str, str, str]] = []
        self.seen: dict[int, str] = {}
        """The names of the groups, by where they lie."""
        self.datasets: dict[int, str] = {}
        self.ranks: dict[str, int] = {}
        """The order in which Keras's lists name weights, by path."""
        self.characters = 0
        self.may_list = MAX_LISTED

    def contents(self) -> Contents:
        frames = [("", self._children("", self.file.root, self.file.messages(self.file.root)))]
        while frames:
            prefix, links = frames[-1]
            for link in links:
                inner = self._follow(prefix, link)
                if inner is None:
                    continue
                if len(frames) >= MAX_DEPTH:
                    raise FormatError(
                        self.path, f"groups nested deeper than {MAX_DEPTH} (at `{printable(prefix, 80)}`)"
                    )
                frames.append(inner)
                break
            else:
                frames.pop()
        for name, folder, target in self.soft:
            self._soft(name, folder, target)
        order = self._order()
        return Contents(
            (self.path,),
            {name: self.tensors[name] for name in order},
            {name: self.locations[name] for name in order},
            self.metadata,
            self.leaves,
            format="hdf5",
            containers=holders_of(self.tensors, self.path),
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

    def _children(self, prefix: str, address: int, messages: list[Message]) -> Iterator[Link]:
        """The links of a group, those that Keras lists first, in that order."""
        if address in self.seen:
            raise FormatError(
                self.path,
                f"the group `{printable(prefix[:-1], 120)}` is the group `{printable(self.seen[address][:-1] or '/', 120)}` again",
            )
        self.seen[address] = prefix
        links: dict[bytes, Link] = {}
        for link in self.file.links_of(messages):
            if link.name in links:
                raise FormatError(
                    self.path,
                    f"a broken HDF5 file: two links are called `{printable(prefix + link.name.decode('utf-8', 'replace'), 120)}`",
                )
            links[link.name] = link
        if not any(message.kind == ATTRIBUTE for message in messages):
            return iter(links.values())
        attributes = attributes_of(self.file, messages)
        for raw in self._listed(attributes, b"weight_names"):
            self.ranks.setdefault(prefix + raw.decode("utf-8", "replace"), len(self.ranks))
        if not prefix:
            self._say(attributes)
        first = dict.fromkeys(raw for raw in self._listed(attributes, b"layer_names") if raw in links)
        return iter([links[name] for name in {**first, **links}])

    def _listed(self, attributes: dict[bytes, Attribute], key: bytes) -> list[bytes]:
        """A list of names that Keras keeps in an attribute, or cut into several."""
        found: list[bytes] = []
        number = 0
        part = attributes.get(key)
        if part is None:
            part = attributes.get(key + b"0")
        while part is not None:
            texts = texts_of(self.file, self.texts, part, self.may_list) or []
            self.may_list -= len(texts)
            found += texts
            number += 1
            part = None if key in attributes else attributes.get(key + str(number).encode())
        return found

    def _say(self, attributes: dict[bytes, Attribute]) -> None:
        for key in SAID:
            attribute = attributes.get(key.encode())
            said = texts_of(self.file, self.texts, attribute, 1) if attribute is not None else None
            if said and len(said[0]) <= 100:
                self.metadata[key] = said[0].decode("utf-8", "replace")

    def _follow(self, prefix: str, link: Link) -> tuple[str, Iterator[Link]] | None:
        """Take in what a link leads to; when that is a group, its prefix and links."""
        try:
            name = prefix + link.name.decode()
        except UnicodeDecodeError:
            raise FormatError(self.path, f"a link in `{printable(prefix, 80)}` has a name that is not UTF-8") from None
        if b"/" in link.name or link.name in (b"", b".") or b"\0" in link.name:
            raise FormatError(self.path, f"a broken HDF5 file: the name of the link `{printable(name, 120)}` is none")
        self.characters += len(name)
        if self.characters > MAX_NAME_CHARACTERS:
            raise FormatError(self.path, f"an HDF5 file of more than {MAX_NAME_CHARACTERS:,} characters of names")
        if isinstance(link.target, bytes):
            self.soft.append((name, prefix, link.target.rstrip(b"\0").decode("utf-8", "replace")))
            return None
        if link.target is not None:
            file, inside = (printable(part.decode("utf-8", "replace"), 80) for part in link.target)
            raise UnsafeError(
                self.path,
                f"`{printable(name, 120)}` is an external link to `{inside}` of the file {file}",
                NOTHING_READ,
            )
        if link.address is None:
            raise FormatError(self.path, f"a broken HDF5 file: the link `{printable(name, 120)}` leads nowhere")
        if link.address in self.datasets:
            self._again(name, self.datasets[link.address])
            return None
        messages = self.file.messages(link.address)
        kinds = {message.kind for message in messages}
        if kinds & {SYMBOLS, LINK_INFO, LINK} or not kinds & {DATASPACE, DATATYPE}:
            return name + "/", self._children(name + "/", link.address, messages)
        self.datasets[link.address] = name
        if LAYOUT in kinds:
            self._dataset(name, link.address, messages)
        else:
            self.leaves[name] = "a named type"
        return None

    def _again(self, name: str, first: str) -> None:
        """A second name of a dataset."""
        if first in self.tensors:
            self.tensors[name], self.locations[name] = self.tensors[first], self.locations[first]
        else:
            self.leaves[name] = self.leaves[first]

    def _dataset(self, name: str, address: int, messages: list[Message]) -> None:
        def wrong(problem: str) -> FormatError:
            return FormatError(self.path, f"dataset `{printable(name, 200)}`: {problem}")

        said = {message.kind: message for message in reversed(messages)}
        if EXTERNAL in said:
            raise UnsafeError(
                self.path,
                f"dataset `{printable(name, 200)}` keeps its elements in another file (external storage)",
                NOTHING_READ,
            )
        if DATASPACE not in said or DATATYPE not in said or said[DATASPACE].is_shared or said[LAYOUT].is_shared:
            raise wrong("its shape or its type is missing, or kept elsewhere")
        layout = hdf5_messages.layout_of(self.file, said[LAYOUT].data)
        if layout.kind not in (COMPACT, CONTIGUOUS, CHUNKED):
            raise UnsafeError(
                self.path,
                f"dataset `{printable(name, 200)}` is virtual: its elements lie in other datasets, maybe of other files",
                NOTHING_READ,
            )
        shape = hdf5_messages.shape_of(self.file, said[DATASPACE].data)
        if shape is None:
            self.leaves[name] = "an empty dataset"
            return
        if len(shape) > MAX_DIMS or math.prod(size for size in shape if size) >= 1 << 56:
            raise wrong(f"it claims the shape {list(shape)[:MAX_DIMS]}")
        stored = hdf5_messages.type_of(self.file, said[DATATYPE])
        marked = None
        if stored.kind == hdf5_messages.OPAQUE and ATTRIBUTE in said:
            mark = attributes_of(self.file, messages).get(b"dtype")
            texts = texts_of(self.file, self.texts, mark, 1) if mark is not None else None
            marked = texts[0].decode("latin-1") if texts else None
        kind, big = dtype_of(stored, marked)
        if kind is None:
            what = kind_of(stored)
            if what is None:
                raise wrong("its numbers have a type that is not read")
            self.leaves[name] = f"{what} {list(shape)}"
            return
        spec = TensorSpec(kind, shape)
        if spec.numel and layout.address is None:
            self.leaves[name] = f"{spec}, never written"
            return
        self.tensors[name] = spec
        self.locations[name] = self._location(name, address, spec, layout, said[LAYOUT], big)

    def _location(
        self, name: str, address: int, spec: TensorSpec, layout: hdf5_messages.Layout, said: Message, big: bool
    ) -> Location:
        def wrong(problem: str) -> FormatError:
            return FormatError(self.path, f"dataset `{printable(name, 200)}`: {problem}")

        if not spec.numel:
            return Location(0, 0)
        encoding = "big" if big else None
        if layout.kind == CHUNKED:
            if math.prod(layout.chunk) > MAX_CHUNK or not all(layout.chunk):
                raise wrong(f"its chunks of {list(layout.chunk)} bytes are none, or larger than {MAX_CHUNK:,} bytes")
            return Location(
                0,
                self.base + address,
                encoding="hdf5",
                encoded_nbytes=self.nbytes,
                decoded_nbytes=spec.nbytes,
                inside=name,
            )
        if layout.kind == COMPACT:
            if len(said.data) - layout.data_at < spec.nbytes or layout.nbytes < spec.nbytes:
                raise wrong(f"{spec} takes {spec.nbytes:,} bytes, its header has {layout.nbytes:,}")
            where = self.base + said.at + layout.data_at
            return Location(0, where, encoding=encoding, encoded_nbytes=spec.nbytes if big else 0)
        assert layout.address is not None
        if layout.nbytes and layout.nbytes < spec.nbytes:
            raise wrong(f"{spec} takes {spec.nbytes:,} bytes, {layout.nbytes:,} are stored")
        if layout.address + spec.nbytes > self.nbytes:
            raise wrong(
                f"{spec} lies at bytes {layout.address:,} to {layout.address + spec.nbytes:,}, the file has {self.nbytes:,}: "
                "truncated or corrupt"
            )
        return Location(0, self.base + layout.address, encoding=encoding, encoded_nbytes=spec.nbytes if big else 0)

    def _soft(self, name: str, folder: str, target: str) -> None:
        """A soft link to a dataset of this file is that tensor under another name; any other is a leaf."""
        whole = "/".join(
            part for part in (target if target.startswith("/") else folder + target).split("/") if part not in ("", ".")
        )
        if whole in self.tensors and name not in self.tensors:
            self._again(name, whole)
        else:
            self.leaves[name] = f"a link to {printable(target, 80)}"


__all__ = ["MAGIC", "part_of", "read"]
