"""ONNX: the initialisers of a model, and of the graphs inside its nodes. The graph itself is stepped over, never built.

    ModelProto.graph.initializer: TensorProto{name: "fc.weight", dims: [3, 4], data_type: 1, raw_data: …}    -> tensor `fc.weight`
    …node[9] "loop", attribute "body", a graph with an initialiser "step"                                    -> `loop/body/step`

A tensor's bytes are `raw_data`, a range of a file beside the model (`onnx_external`), or typed numbers (`onnx_typed`). Constants
that nodes hold are no weights, and are counted; sparse tensors and texts are leaves. Source: onnx.proto3 of the onnx project.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from isomorph.collector import uncollected
from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.onnx.external import Beside
from isomorph.formats.onnx.typed import TYPED, where_typed
from isomorph.formats.protobuf import BYTES, VARINT, Field, Wire
from isomorph.formats.source import Source
from isomorph.tensors import DType, TensorSpec, dtype, packed

MAX_DEPTH = 64
MAX_DIMS = 64
MAX_TEXTS = 64 << 20
"""Bytes of names and metadata, all together."""

EXTERNAL = 1
"""data_location of a tensor whose bytes lie in another file."""

STRING = 8
NAMES: Mapping[int, tuple[str, str]] = {
    1: ("FLOAT", "f32"), 2: ("UINT8", "u8"), 3: ("INT8", "i8"), 4: ("UINT16", "u16"), 5: ("INT16", "i16"), 6: ("INT32", "i32"),
    7: ("INT64", "i64"), 9: ("BOOL", "bool"), 10: ("FLOAT16", "f16"), 11: ("DOUBLE", "f64"), 12: ("UINT32", "u32"),
    13: ("UINT64", "u64"), 14: ("COMPLEX64", "c64"), 15: ("COMPLEX128", "c128"), 16: ("BFLOAT16", "bf16"),
    17: ("FLOAT8E4M3FN", "f8e4m3"), 18: ("FLOAT8E4M3FNUZ", "f8e4m3fnuz"), 19: ("FLOAT8E5M2", "f8e5m2"),
    20: ("FLOAT8E5M2FNUZ", "f8e5m2fnuz"), 21: ("UINT4", "u4"), 22: ("INT4", "i4"), 23: ("FLOAT4E2M1", "f4"),
    24: ("FLOAT8E8M0", "f8e8m0"), 25: ("UINT2", "u2"), 26: ("INT2", "i2"), 27: ("FLOAT6E2M3", "f6e2m3"),
    28: ("FLOAT6E3M2", "f6e3m2"),
}  # fmt: skip
"""TensorProto.DataType: its name, and ours."""

MODEL_FIELDS: Mapping[int, int] = {
    1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES, 14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES,
}  # fmt: skip
"""The fields of a ModelProto and their wire types."""

GRAPH, OPSETS, METADATA, TRAINING, FUNCTION = 7, 8, 14, 20, 25


def looks_like(source: Source) -> bool:
    """True when the whole file is fields of a ModelProto, a graph among them: a message has no mark of its own.

    Only tags and lengths are read: as many as the model has fields, of which there are a dozen or so.
    """
    wire = Wire(source, "ONNX")
    graphs = 0
    try:
        for found in wire.fields(0, source.size):
            if MODEL_FIELDS.get(found.number) != found.wire or wire.seen > 10_000:
                return False
            graphs += found.number == GRAPH
    except FormatError:
        return False
    return graphs == 1


def read(source: Source) -> tuple[Contents, list[Source]]:
    """The initialisers, and the open files that they lie in: the model, and the files of external data beside it.

    FormatError when the model is broken, two tensors have one name, or a tensor's bytes are not as many as its shape says;
    UnsafeError for external data outside of the model's folder.
    """
    with uncollected():
        walk = _Walk(source)
        try:
            walk.model()
            notes = walk.notes()
            return (
                Contents(
                    (source.path, *walk.beside.paths),
                    walk.tensors,
                    walk.locations,
                    walk.metadata,
                    walk.leaves,
                    notes,
                    format="onnx",
                ),
                [source, *walk.beside.sources],
            )
        except BaseException:
            walk.beside.close()
            raise


@dataclass
class _Tensor:
    """What a TensorProto says. `chunks` are the fields of typed data, by field number."""

    name: str = ""
    data_type: int = 0
    dims: list[int] = field(default_factory=list)
    raw: tuple[int, int] | None = None
    external: dict[str, str] = field(default_factory=dict)
    location: int = 0
    chunks: dict[int, list[Field]] = field(default_factory=dict)
    is_segment: bool = False


class _Walk:
    """One pass over the messages of a model. Graphs wait in a list; none is entered from within another."""

    def __init__(self, source: Source) -> None:
        self.wire = Wire(source, "ONNX")
        self.source = source
        self.beside = Beside(source.path)
        self.tensors: dict[str, TensorSpec] = {}
        self.locations: dict[str, Location] = {}
        self.leaves: dict[str, str] = {}
        self.metadata: dict[str, str] = {}
        self.constants = 0
        self._graphs: deque[tuple[str, int, int, int, int]] = deque()
        """(what names begin with, first byte, last, how deep, the number of the field that holds nodes)."""
        self._texts = 0
        self._renamed = 0
        self._odd: list[str] = []

    def model(self) -> None:
        opsets = 0
        version = None
        graph: Field | None = None
        for found in self.wire.fields(0, self.source.size):
            if MODEL_FIELDS.get(found.number, found.wire) != found.wire:
                self.wire.broken(f"field {found.number} of the model has wire type {found.wire}", found.begin)
            if found.number == 1:
                version = found.value
            elif found.number == GRAPH:
                if graph is not None:
                    self.wire.broken("a second graph", found.begin)
                graph = found
            elif found.number == OPSETS:
                opsets += 1
            elif found.number == METADATA:
                key, value = self._pair(found)
                self.metadata[key] = value
            elif found.number in (TRAINING, FUNCTION):
                self._outside(found)
        if graph is None:
            raise FormatError(self.source.path, "an ONNX file without a graph: truncated, or something else")
        if not opsets and (version is None or version >= 3):
            raise FormatError(self.source.path, "an ONNX model without its operator set (opset_import): truncated?")
        self._graphs.appendleft(("", graph.begin, graph.end, 0, 1))
        while self._graphs:
            self._graph(*self._graphs.popleft())

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self.constants:
            notes.append(
                f"{self.constants:,} constant tensors in the nodes of the graph are not read: initialisers are"
                if self.constants > 1
                else "1 constant tensor in a node of the graph is not read: initialisers are"
            )
        if self._renamed:
            notes.append(f"`::` is read as `:` in {self._renamed:,} of the names: two colons are those of an input")
        if self.beside.checksums:
            notes.append(
                f"{self.beside.checksums:,} tensors in files of external data carry a checksum, which is not compared"
            )
        if self._odd:
            notes.append(
                f"the elements of {', '.join(self._odd[:3])}{' …' if len(self._odd) > 3 else ''} end amid a byte: "
                "carried as one row of bytes"
            )
        return tuple(notes)

    def _outside(self, found: Field) -> None:
        """Graphs beside the model's: those of training, the nodes of a function."""
        if found.number == FUNCTION:
            name = next((self._name(one) for one in self._fields(found) if one.number == 1), "")
            self._wait(f"functions/{name}/", found, 0, nodes=7)
            return
        for inner in self._fields(found):
            if inner.number in (1, 2):
                self._wait(f"training/{('initialization', 'algorithm')[inner.number - 1]}/", inner, 0)

    def _fields(self, found: Field) -> Iterator[Field]:
        self.wire.require(found, BYTES)
        return self.wire.fields(found.begin, found.end)

    def _wait(self, prefix: str, found: Field, depth: int, nodes: int = 1) -> None:
        self.wire.require(found, BYTES)
        if depth > MAX_DEPTH:
            self.wire.broken(f"graphs in graphs, deeper than {MAX_DEPTH}", found.begin)
        self._graphs.append((prefix, found.begin, found.end, depth, nodes))

    def _name(self, found: Field) -> str:
        text = self.wire.text(found)
        self._count(len(text))
        return text

    def _count(self, characters: int) -> None:
        """So many characters are kept: a prefix that a thousand names begin with is a thousand of them."""
        self._texts += characters
        if self._texts > MAX_TEXTS:
            raise FormatError(self.source.path, f"its names and metadata take more than {MAX_TEXTS >> 20} MiB")

    def _pair(self, found: Field) -> tuple[str, str]:
        """StringStringEntryProto."""
        self.wire.require(found, BYTES)
        key = value = ""
        for inner in self.wire.fields(found.begin, found.end):
            if inner.number == 1:
                key = self._name(inner)
            elif inner.number == 2:
                self._count(inner.end - inner.begin)
                value = self.wire.text(inner, 16 << 20)
        return key, value

    def _graph(self, prefix: str, begin: int, end: int, depth: int, nodes: int) -> None:
        number = 0
        for found in self.wire.fields(begin, end):
            if found.number == nodes:
                self._node(prefix, found, depth, number)
                number += 1
            elif nodes != 1:
                continue
            elif found.number == 5:
                self._initialiser(prefix, found)
            elif found.number == 15:
                self._sparse(prefix, found)

    def _node(self, prefix: str, node: Field, depth: int, number: int) -> None:
        """Look for graphs and constants among the attributes of a node."""
        self.wire.require(node, BYTES)
        said: dict[int, Field] = {}
        graphs: list[tuple[str, list[Field]]] = []
        for found in self.wire.fields(node.begin, node.end):
            if found.number in (3, 4):
                said[found.number] = found
            elif found.number == 5:
                attribute, inside = "", []
                self.wire.require(found, BYTES)
                for part in self.wire.fields(found.begin, found.end):
                    if part.number == 1:
                        attribute = self.wire.text(part)
                    elif part.number in (5, 10):
                        self.constants += 1
                    elif part.number in (6, 11):
                        inside.append(part)
                if inside:
                    graphs.append((attribute, inside))
        if not graphs:
            return
        name, operation = (self.wire.text(said[key]) if key in said else "" for key in (3, 4))
        for attribute, inside in graphs:
            whole = f"{prefix}{name or f'{operation}_{number}'}/{attribute}/"
            for k, graph in enumerate(inside):
                self._count(len(whole))
                self._wait(whole if len(inside) == 1 else f"{whole}{k}/", graph, depth + 1)

    def _initialiser(self, prefix: str, found: Field) -> None:
        tensor = self._tensor(found)
        if not tensor.name:
            self.wire.broken("an initialiser without a name", found.begin)
        self._count(len(prefix))
        name = self._whole_name(prefix + tensor.name)
        if name in self.tensors or name in self.leaves:
            raise FormatError(self.source.path, f"two initialisers have the name `{printable(name)}`")
        if tensor.data_type == STRING:
            self.leaves[name] = f"texts {tensor.dims}"
            return
        spec = self._spec(name, tensor)
        self.tensors[name] = spec
        self.locations[name] = self._where(name, spec, tensor, found)

    def _whole_name(self, name: str) -> str:
        """`onnx:MatMul_1` for `onnx::MatMul_1`: two colons end the name of an input in the notation, and torch writes them."""
        self._renamed += "::" in name
        return re.sub("::+", ":", name)

    def _sparse(self, prefix: str, found: Field) -> None:
        """A sparse tensor is no array of its shape: a leaf, under the name of its values."""
        name, dims = "", list[int]()
        for part in self._fields(found):
            if part.number == 1:
                name = self._tensor(part).name
            elif part.number == 3:
                dims += self.wire.numbers(part, MAX_DIMS)
        self._count(len(prefix))
        whole = self._whole_name(prefix + (name or f"sparse_{len(self.leaves)}"))
        if whole in self.tensors or whole in self.leaves:
            raise FormatError(self.source.path, f"two initialisers have the name `{printable(whole)}`")
        self.leaves[whole] = f"a sparse tensor {dims[:MAX_DIMS]}"

    def _tensor(self, found: Field) -> _Tensor:
        """TensorProto."""
        self.wire.require(found, BYTES)
        tensor = _Tensor()
        for part in self.wire.fields(found.begin, found.end):
            if part.number == 1:
                tensor.dims += self.wire.numbers(part, MAX_DIMS)
                if len(tensor.dims) > MAX_DIMS:
                    self.wire.broken(f"a tensor of more than {MAX_DIMS} axes", found.begin)
            elif part.number == 2:
                tensor.data_type = self.wire.signed(part)
            elif part.number == 3:
                tensor.is_segment = True
            elif part.number == 8:
                tensor.name = self._name(part)
            elif part.number == 9:
                self.wire.require(part, BYTES)
                if tensor.raw is not None:
                    self.wire.broken("two raw_data in one tensor", part.begin)
                tensor.raw = (part.begin, part.end)
            elif part.number == 13:
                key, value = self._pair(part)
                if key in tensor.external:
                    self.wire.broken(f"two {printable(key)!r} in one place of external data", part.begin)
                tensor.external[key] = value
            elif part.number == 14:
                tensor.location = part.value
            elif part.number in TYPED:
                tensor.chunks.setdefault(part.number, []).append(part)
        return tensor

    def _spec(self, name: str, tensor: _Tensor) -> TensorSpec:
        said, ours = NAMES.get(tensor.data_type, ("", ""))
        try:
            kind: DType = dtype(ours)
        except KeyError:
            what = f"of dtype {said}" if said else f"of the unknown data type {tensor.data_type}"
            raise self._wrong(name, f"{what}, which is not read") from None
        if any(size < 0 for size in tensor.dims):
            raise self._wrong(name, f"the shape {tensor.dims} has a negative size")
        if math.prod(size or 1 for size in tensor.dims) * kind.nbytes >= 1 << 63:
            raise self._wrong(name, f"the shape {tensor.dims} is beyond any memory")
        if not kind.block:
            return TensorSpec(kind, tuple(tensor.dims))
        try:
            spec = packed(kind, tensor.dims)
        except ValueError:
            spec = None
        if kind.nbytes > 1 and tensor.chunks:  # each number in one of int32_data, though four take three bytes
            raise self._wrong(name, f"{said} as typed numbers, which are not read; save it as raw_data")
        if spec is None and kind.nbytes > 1 and -(-math.prod(tensor.dims) * 6 // 8) % kind.nbytes:
            raise self._wrong(
                name, f"its {math.prod(tensor.dims):,} elements of 6 bits are no whole items of 4, which is not read"
            )
        if spec is None:  # ONNX fills up the last byte of the whole tensor
            self._odd.append(f"`{printable(name)}`")
            spec = TensorSpec(kind, (-(-math.prod(tensor.dims) // kind.elements),))
        return spec

    def _where(self, name: str, spec: TensorSpec, tensor: _Tensor, found: Field) -> Location:
        if tensor.is_segment:
            raise self._wrong(name, "only a segment of a tensor, which is not read")
        ways = (tensor.raw is not None) + bool(tensor.chunks) + (tensor.location == EXTERNAL)
        if tensor.location not in (0, EXTERNAL):
            raise self._wrong(name, f"its data_location is {tensor.location}, which is none")
        if ways > 1:
            raise self._wrong(name, "its elements are stored in two ways")
        if tensor.location == EXTERNAL:
            return self.beside.where(name, spec, tensor.external)
        if tensor.raw is not None:
            begin, end = tensor.raw
            if end - begin != spec.nbytes:
                raise self._wrong(name, f"{spec} takes {spec.nbytes:,} bytes, its raw_data are {end - begin:,}")
            return Location(0, begin)
        if not tensor.chunks:
            if spec.numel:
                raise self._wrong(name, f"{spec} without elements: truncated, or its data were taken out")
            return Location(0, 0)
        try:
            return where_typed(spec, tensor.chunks, found)
        except ValueError as error:
            raise self._wrong(name, str(error)) from None

    def _wrong(self, name: str, problem: str) -> FormatError:
        return FormatError(self.source.path, f"initialiser `{printable(name)}`: {problem}")
