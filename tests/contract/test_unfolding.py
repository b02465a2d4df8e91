"""Small files that mean one of their parts many times over: looked at in little time and memory, whatever they would unfold to."""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import zstandard
from watched import watched_each

sys.path.append(str(Path(__file__).parents[2]))
from fuzz.harnesses.distributed import HOME, ITEM, header, index, metadata, place, record, size, table, tf_entry
from fuzz.harnesses.stores import MANIFEST_MAGIC, NODE_MAGIC, files_table, framed, varints

from isomorph.formats.tf.crc32c import crc32c
from isomorph.formats.tf.read import slice_key

MB = 1_000_000
MOST_MEMORY = 350 * MB
MOST_SECONDS = 10.0
"""Of processor time for a file of a megabyte at most. What is mended took minutes, or all the memory there is."""


def varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*made, number])


def field(number: int, content: bytes | int) -> bytes:
    """A field of a protobuf message: bytes with their length, or a number."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


# ── ONNX ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def tensor(name: bytes) -> bytes:
    return field(1, 4) + field(2, 1) + field(8, name) + field(9, bytes(16))


def onnx(graph: bytes) -> bytes:
    """A model whose graph has these fields and one initialiser."""
    return field(1, 8) + field(8, field(2, 17)) + field(7, graph + field(5, tensor(b"w")))


def node(name: bytes, *attributes: bytes) -> bytes:
    return field(1, field(3, name) + b"".join(field(5, each) for each in attributes))


LONG = b"n" * 60_000
EMPTY_GRAPH, EMPTY_SPARSE = field(11, b""), field(15, b"")
TENSORS = b"".join(field(5, tensor(b"%d" % number)) for number in range(20_000))
MODELS: dict[str, tuple[Callable[[], bytes], str]] = {
    "graphs of one long attribute": (lambda: onnx(node(b"", field(1, LONG) + 300_000 * EMPTY_GRAPH)), "64 MiB"),
    "graphs of one short attribute": (lambda: onnx(node(b"", field(1, b"a") + 300_000 * EMPTY_GRAPH)), ""),
    "attributes of one long node": (lambda: onnx(node(LONG, *80_000 * [field(6, b"")])), "64 MiB"),
    "sparse tensors of one long node": (lambda: onnx(node(LONG, field(6, 200_000 * EMPTY_SPARSE))), "64 MiB"),
    "tensors of one long node": (lambda: onnx(node(LONG, field(6, TENSORS))), "64 MiB"),
}


def look_at(folder: Path, cases: Mapping[str, tuple[str, str]]) -> None:
    """`inspect` each: (what is named, what is said of it; nothing where it is read)."""
    seen = watched_each([["inspect", name] for name, _ in cases.values()], folder=folder, limit=4 << 30)
    for (kind, (_, said)), one in zip(cases.items(), seen, strict=True):
        assert (2 if said else 0, True) == (one.code, said in one.err), (kind, one.err)
        assert one.anon_peak <= MOST_MEMORY and one.seconds <= MOST_SECONDS, (kind, one.anon_peak, one.seconds)


def test_graphs_and_names_of_onnx(tmp_path: Path) -> None:
    for kind, (make, _) in MODELS.items():
        (tmp_path / f"{kind}.onnx").write_bytes(make())
    look_at(tmp_path, {kind: (f"{kind}.onnx", said) for kind, (_, said) in MODELS.items()})


# ── zarr and OCDBT ───────────────────────────────────────────────────────────────────────────────────────────────────

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
CHUNKS = 40_000


def described(version: int) -> bytes:
    """An array of CHUNKS chunks, each an element; in version 3 they lie in one shard."""
    fields = {"zarr_format": version, "shape": [CHUNKS], "fill_value": 0}
    if version == 2:
        return json.dumps({**fields, "chunks": [1], "dtype": "|u1", "compressor": None, "filters": None}).encode()
    inside = {"chunk_shape": [1], "codecs": [LITTLE], "index_codecs": [LITTLE]}
    grid = {"name": "regular", "configuration": {"chunk_shape": [CHUNKS]}}
    more = {"node_type": "array", "data_type": "uint8", "chunk_grid": grid, "chunk_key_encoding": {"name": "default"}}
    return json.dumps({**fields, **more, "codecs": [{"name": "sharding_indexed", "configuration": inside}]}).encode()


def database(folder: Path, height: int, node: bytes, more: bytes) -> None:
    """An OCDBT database: its root is `node`, and `more` is another file of data, `d/b`."""
    root = framed(NODE_MAGIC, node)
    said = bytes(16) + varints(0, 100, 8 << 20) + b"\4" + varints(0) + files_table(b"d/a") + varints(1, 1)
    manifest = framed(MANIFEST_MAGIC, said + bytes([height]) + varints(0, 0, len(root)))
    (folder / "d").mkdir(parents=True)
    for name, data in (("manifest.ocdbt", manifest), ("d/a", root), ("d/b", more)):
        (folder / name).write_bytes(data)


def arrays_of_one_shard(folder: Path, shard: bytes) -> None:
    """Four hundred arrays; the shard of each is the same bytes of `d/b`."""
    whole = described(3)
    keys = [f"w{number:03}/{name}".encode() for number in range(400) for name in ("c/0", "zarr.json")]
    count = len(keys)
    node = b"\0" + files_table(b"b") + varints(count, *[0] * (count - 1), *map(len, keys)) + b"".join(keys)
    node += varints(*[len(shard), len(whole)] * 400, *[1, 0] * 400, *[0] * 400, *[0] * 400) + whole * 400
    database(folder, 0, node, shard)


def nodes_of_zeros(folder: Path) -> None:
    """Six hundred nodes that are a kilobyte each, and thirty megabytes."""
    body = zstandard.ZstdCompressor().compress(b"\0" + files_table() + varints(0) + bytes(30 << 20))
    whole = struct.pack(">I", NODE_MAGIC) + struct.pack("<Q", len(body) + 18) + b"\0\1" + body
    node = whole + struct.pack("<I", crc32c([whole]))
    keys = [b"%03d" % number for number in range(600)]
    count, nbytes = len(keys), len(node)
    root = b"\1" + files_table(b"b") + varints(count, *[0] * (count - 1), *[3] * count, *[3] * count) + b"".join(keys)
    root += varints(*[0] * count, *range(0, count * nbytes, nbytes), *[nbytes] * count)
    database(folder, 1, root, node * count)


def test_chunks_and_nodes_of_arrays(tmp_path: Path) -> None:
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing/.zgroup").write_text('{"zarr_format": 2}')
    for number in range(300):
        (tmp_path / f"missing/w{number}").mkdir()
        (tmp_path / f"missing/w{number}/.zarray").write_bytes(described(2))
    arrays_of_one_shard(tmp_path / "shards", b"x" + struct.pack("<QQ", 0, 1) * CHUNKS)
    arrays_of_one_shard(tmp_path / "empty", b"\xff" * 16 * CHUNKS)
    nodes_of_zeros(tmp_path / "nodes")
    cases = {
        "missing": "more than 50,000 of the chunks of all arrays so far, with those of its 40,000 chunks, are not there",
        "shards": "its arrays lie on each other",
        "empty": "its arrays lie on each other",
        "nodes": "bytes of nodes unfold to more than",
    }
    look_at(tmp_path, {kind: (kind, said) for kind, said in cases.items()})


# ── checkpoints of many ranks ────────────────────────────────────────────────────────────────────────────────────────


def of_one_list(tensors: int, chunks: int) -> bytes:
    """The `.metadata` of tensors that have one list of chunks, which is in the pickle once."""
    number = b"r" + struct.pack("<I", 77_777)
    listed = b"".join(
        record(HOME, "ChunkStorageMetadata", offsets=size(at % 256), sizes=size(1)) for at in range(chunks)
    )
    properties = record(HOME, "TensorProperties", dtype=b"ctorch\nfloat32\n")
    first, other = b"](" + listed + b"e" + number, number.replace(b"r", b"j", 1)
    return metadata(
        {
            f"w{at}": record(
                HOME, "TensorStorageMetadata", properties=properties, size=size(200), chunks=other if at else first
            )
            for at in range(tensors)
        },
        [(index("w0", size(0)), place("__0_0.distcp", 0, len(ITEM)))],
    )


def test_chunks_and_slices_of_ranks(tmp_path: Path) -> None:
    """One list of chunks that all tensors have; one slice of a long name that a variable lists a hundred thousand times."""
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp/.metadata").write_bytes(of_one_list(3000, 3000))
    (tmp_path / "dcp/__0_0.distcp").write_bytes(ITEM)
    whole = ((0, -1),)
    part = (slice_key(LONG, whole), tf_entry(1, (4,), 0, 16))
    listed = (LONG, tf_entry(1, (4,), 0, 0) + 100_000 * field(7, field(1, b"")))
    (tmp_path / "m.index").write_bytes(table([header(1), part, listed]))
    (tmp_path / "m.data-00000-of-00001").write_bytes(bytes(16))
    cases = {"dcp": "with its 3,000 chunks there are many more than items", "m.index": "lists one slice of it twice"}
    look_at(tmp_path, {kind: (kind, said) for kind, said in cases.items()})


# ── HDF5 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def message(kind: int, data: bytes) -> bytes:
    filled = data + bytes(-len(data) % 8)
    return struct.pack("<HHB3x", kind, len(filled), 0) + filled


def groups_that_go_on_in(block: bytes) -> bytes:
    """An HDF5 file of five thousand groups, each of whose headers goes on in one and the same block of messages."""
    made = bytearray(96) + block
    links = []
    for number in range(5000):
        name = b"%04d" % number
        links.append(message(6, struct.pack("<BBB", 1, 0, len(name)) + name + struct.pack("<Q", len(made))))
        made += struct.pack("<BxHII4x", 1, 1, 1, 24) + message(16, struct.pack("<QQ", 96, len(block)))
    root, listed = len(made), b"".join(links)
    made += struct.pack("<BxHII4x", 1, len(links), 1, len(listed)) + listed
    made[:96] = b"\x89HDF\r\n\x1a\n" + struct.pack(
        "<8BHHI6QII16x", 0, 0, 0, 0, 0, 8, 8, 0, 4, 16, 0, 0, (1 << 64) - 1, len(made), (1 << 64) - 1, 0, root, 0, 0
    )
    return bytes(made)


def attribute(name: bytes, count: int) -> bytes:
    """An attribute of so many texts of one character."""
    text = struct.pack("<B3sI", 0x13, bytes(3), 1)
    shape = struct.pack("<BBB5xQ", 1, 1, 0, count)
    padded = name + bytes(-len(name) % 8)
    return message(
        12, struct.pack("<BxHHH", 1, len(padded), len(text), len(shape)) + padded + text + shape + b"x" * count
    )


def packed_zeros() -> bytes:
    raw = io.BytesIO()
    with h5py.File(raw, "w") as file:
        for number in range(60):
            made = file.create_dataset(f"d{number}", (200_000_000,), "u1", chunks=(1 << 20,), compression="gzip")
            made[:8] = 1
    return raw.getvalue()


def test_headers_and_datasets_of_hdf5(tmp_path: Path) -> None:
    cases = {
        "messages": (groups_that_go_on_in(message(0, b"") * 7000), "messages, or"),
        "attributes": (
            groups_that_go_on_in(b"".join(attribute(b"a%d\0" % number, 1) for number in range(800))),
            "leads through the same bytes again and again",
        ),
        "lists": (
            groups_that_go_on_in(attribute(b"weight_names\0", 60_000)),
            "leads through the same bytes again and again",
        ),
        "packed": (packed_zeros(), "That is a trap, not a checkpoint"),
    }
    for kind, (data, _) in cases.items():
        (tmp_path / f"{kind}.h5").write_bytes(data)
    look_at(tmp_path, {kind: (f"{kind}.h5", said) for kind, (_, said) in cases.items()})
