"""Small files that mean one of their parts many times over: looked at in little time and memory, whatever they would unfold to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from watched import watched_each

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
    "graphs of one long attribute": (lambda: onnx(node(b"", field(1, LONG) + 450_000 * EMPTY_GRAPH)), "64 MiB"),
    "graphs of one short attribute": (lambda: onnx(node(b"", field(1, b"a") + 450_000 * EMPTY_GRAPH)), ""),
    "attributes of one long node": (lambda: onnx(node(LONG, *80_000 * [field(6, b"")])), "64 MiB"),
    "sparse tensors of one long node": (lambda: onnx(node(LONG, field(6, 400_000 * EMPTY_SPARSE))), "64 MiB"),
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
