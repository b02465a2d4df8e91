"""Checkpoints of many ranks: the `.metadata` of torch.distributed, the index of TensorFlow."""

from __future__ import annotations

import random
import struct
from functools import cache
from pathlib import Path

from fuzz.archives import stored
from fuzz.folders import folder_of, names_in, read_beside
from fuzz.harness import Harness, Raw
from fuzz.harnesses.pickles import storage, tensor
from fuzz.messages import Node, encoded, tree_mutator, varint
from fuzz.mutators import name, opcodes, pickle_atoms, pieces, short_text
from isomorph.formats.dcp.read import RECORDS
from isomorph.formats.pickle.names import GLOBALS
from isomorph.formats.registry import FORMATS
from isomorph.formats.tf.crc32c import crc32c, masked
from isomorph.formats.tf.read import slice_key
from isomorph.formats.tf.table import FOOTER, MAGIC

# --- torch.distributed

HOME = "torch.distributed.checkpoint.metadata"
DISK = "torch.distributed.checkpoint.filesystem"


def item(values: bytes, shape: bytes) -> bytes:
    """What torch.save writes of one chunk of two numbers."""
    alone = b"\x80\2" + tensor(shape, b"K\1\x85", storage(numel=2)) + b"."
    return stored([("a/data.pkl", alone), ("a/data/0", values), ("a/version", b"3\n")])


ITEM = item(struct.pack("<2f", 1, 2), b"K\2\x85")


def record(module: str, kind: str, **state: bytes) -> bytes:
    filled = b"".join(short_text(key) + value for key, value in state.items())
    return name(module, kind) + b")\x81}(" + filled + b"ub"


def size(*dims: int) -> bytes:
    return name("torch", "Size") + b"(" + b"".join(b"K" + bytes([dim]) for dim in dims) + b"t\x85R"


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def chunk(start: int, length: int) -> bytes:
    return record(HOME, "ChunkStorageMetadata", offsets=size(start), sizes=size(length))


def entry(dim: int, *chunks: bytes) -> bytes:
    properties = name(HOME, "TensorProperties") + b")\x81(" + name("torch", "float32") + b"N\x89N\x89tb"
    return record(
        HOME, "TensorStorageMetadata", properties=properties, size=size(dim), chunks=b"](" + b"".join(chunks) + b"e"
    )


def index(fqn: str, start: bytes) -> bytes:
    return record(HOME, "MetadataIndex", fqn=short_text(fqn), offset=start, index=b"N")


def place(path: str, offset: int, nbytes: int) -> bytes:
    return record(DISK, "_StorageInfo", relative_path=short_text(path), offset=number(offset), length=number(nbytes))


def metadata(entries: dict[str, bytes], places: list[tuple[bytes, bytes]]) -> bytes:
    listed = b"}(" + b"".join(short_text(key) + value for key, value in entries.items()) + b"u"
    where = b"}(" + b"".join(key + value for key, value in places) + b"u"
    return (
        b"\x80\2" + record(HOME, "Metadata", state_dict_metadata=listed, storage_data=where, planner_data=b"N") + b"."
    )


@cache
def ranks() -> Path:
    return folder_of({"__0_0.distcp": ITEM + ITEM, "__1_0.distcp": ITEM}, ".distcp")


def dcp_seeds() -> dict[str, bytes]:
    many = len(ITEM)
    two = [(index("w", size(0)), place("__0_0.distcp", 0, many)), (index("w", size(2)), place("__1_0.distcp", 0, many))]
    one = [(index("w", size(0)), place("__0_0.distcp", many, many))]
    return {
        "one": metadata({"w": entry(2, chunk(0, 2))}, one),
        "two": metadata({"w": entry(4, chunk(0, 2), chunk(2, 2))}, two),
        "object": metadata({"w": entry(2, chunk(0, 2)), "s": record(HOME, "BytesStorageMetadata")}, one),
        "outside": metadata({"w": entry(2, chunk(0, 2))}, [(index("w", size(0)), place("../x.distcp", 0, many))]),
    }


def run_dcp(data: bytes) -> None:
    read_beside(FORMATS["torch_dcp"].read, data, ranks(), ".metadata")


def dcp_atoms() -> tuple[bytes, ...]:
    own = [
        entry(2, chunk(0, 2)),
        chunk(0, 2),
        chunk(2, 2),
        chunk(1, 2),
        chunk(0, 0),
        size(0),
        size(2),
        size(),
        index("w", size(0)),
    ]
    own += [place("__0_0.distcp", 0, len(ITEM)), place("__1_0.distcp", 0, len(ITEM)), place("__0_0.distcp", 7, 9)]
    own += [
        short_text(text)
        for text in (
            "__0_0.distcp",
            "__1_0.distcp",
            *names_in(".distcp"),
            "offsets",
            "sizes",
            "chunks",
            "size",
            "offset",
            "length",
        )
    ]
    return (*pickle_atoms([*GLOBALS, *RECORDS]), *own)


# --- TensorFlow


def table(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB table of one block, keys written out whole, its checksums right."""
    block = b"".join(varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in entries)
    data = _block(block)
    meta = _block(b"")
    handle = varint(0) + varint(len(data) - 5)
    index_at = len(data) + len(meta)
    index_block = _block(varint(0) + varint(1) + varint(len(handle)) + b"\xff" + handle)
    handles = varint(len(data)) + varint(len(meta) - 5) + varint(index_at) + varint(len(index_block) - 5)
    footer = handles + bytes(FOOTER - len(MAGIC) - len(handles)) + MAGIC
    return data + meta + index_block + footer


def _block(entries: bytes) -> bytes:
    whole = entries + struct.pack("<2I", 0, 1)
    return whole + b"\0" + struct.pack("<I", masked(crc32c([whole + b"\0"])))


def tf_entry(
    dtype: int, shape: tuple[int, ...], offset: int, nbytes: int, *slices: tuple[tuple[int, int], ...], shard: int = 0
) -> bytes:
    dims = [Node(2, 2, encoded([Node(1, 0, dim)])) for dim in shape]
    cut = [
        Node(7, 2, [Node(1, 2, [Node(1, 0, at), Node(2, 0, length)]) for at, length in extents]) for extents in slices
    ]
    return encoded(
        [Node(1, 0, dtype), Node(2, 2, encoded(dims)), Node(3, 0, shard), Node(4, 0, offset), Node(5, 0, nbytes), *cut]
    )


def header(shards: int, big: int = 0) -> tuple[bytes, bytes]:
    return b"", encoded([Node(1, 0, shards), Node(2, 0, big)])


def tf_seeds() -> dict[str, bytes]:
    halves = (((0, 2),), ((2, 2),))
    parts = [(slice_key(b"p", half), tf_entry(1, (2,), 8 * at, 8)) for at, half in enumerate(halves)]
    return {
        "one": table([header(1), (b"w", tf_entry(1, (3, 2), 0, 24))]),
        "two": table([header(2), (b"a", tf_entry(9, (2,), 0, 16)), (b"b", tf_entry(3, (1,), 4, 4, shard=1))]),
        "big": table([header(1, 1), (b"w", tf_entry(1, (2,), 0, 8))]),
        "text": table([header(1), (b"s", tf_entry(7, (1,), 0, 3)), (b"w", tf_entry(10, (), 0, 1))]),
        "slices": table([header(1), *sorted(parts), (b"p", tf_entry(1, (4,), 0, 0, *halves))]),
    }


@cache
def shards() -> Path:
    data = bytes(range(64))
    names = ("m.data-00000-of-00001", "m.data-00000-of-00002", "m.data-00001-of-00002")
    return folder_of(dict.fromkeys(names, data), ".data-00000-of-00001")


def run_tf(data: bytes) -> None:
    read_beside(FORMATS["tf_checkpoint"].read, data, shards(), "m.index")


def entries_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """The entries of a table that `table` made; what cannot be followed is left out."""
    found, at = [], 0
    while at + 3 < len(data):
        shared, own, length = data[at : at + 3]
        if shared or own > 0x7F or length > 0x7F or not (own or not at) or at + 3 + own + length > len(data):
            break
        begin = at + 3
        found.append((data[begin : begin + own], data[begin + own : begin + own + length]))
        at = begin + own + length
    return found


_value = tree_mutator((b"", b"\x08\1", b"a", bytes(8)))


def mutate_tf(data: bytes, most: int, rng: random.Random, raw: Raw) -> bytes:
    """Keys and values are changed and the table made anew, in order mostly; or the bytes are."""
    entries = entries_of(data) if rng.random() < 0.8 else []
    if not entries:
        return raw(data, most)
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(entries))
        key, value = entries[at]
        kind = rng.randrange(5)
        if kind == 0:
            entries.insert(rng.randint(0, len(entries)), (raw(key or b"a", 12), value))
        elif kind == 1 and len(entries) > 1:
            del entries[at]
        elif kind == 2:
            entries[at] = (rng.choice((b"", b"a", b"w", b"\0p", b"\xff", b"a/b", b"\x1b[31m")), value)
        else:
            entries[at] = (key, _value(value, 100, rng, raw))
    if rng.random() < 0.9:
        entries = sorted(dict(entries).items())
    made = table(entries)
    return made if len(made) <= most else data[:most]


HARNESSES = [
    Harness("dcp", run_dcp, dcp_seeds, pieces(opcodes, dcp_atoms()), max_nbytes=2048),
    Harness("tf_index", run_tf, tf_seeds, mutate_tf, max_nbytes=512),
]
