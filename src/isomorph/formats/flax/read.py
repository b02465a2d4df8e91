"""Flax's `.msgpack` (`flax.serialization`): nested maps in one msgpack value, followed without reading the arrays in it.

    {"bert": {"embeddings": {"kernel": ext 1 of ((99, 48), "float32", bytes)}}}     -> tensor `bert/embeddings/kernel`

Extension 1 is an array and 3 a numpy scalar, each a msgpack tuple (shape, dtype name, row-major bytes); 2 is a complex number.
Flax cuts arrays of more than 1 GiB into {"__msgpack_chunked_array__": true, "shape": {"0": …}, "chunks": {"0": …}}, read as one.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

from isomorph.collector import uncollected
from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, Location
from isomorph.formats.containers import flatten
from isomorph.formats.nested import SEPARATOR
from isomorph.formats.pickle.objects import Array, Object, Payload
from isomorph.formats.source import Source
from isomorph.tensors import DType, TensorSpec, dtype

ARRAY, COMPLEX, SCALAR = 1, 2, 3
"""Flax's extension types."""

CHUNKED = "__msgpack_chunked_array__"

MAX_DEPTH = 100
MAX_NODES = 4_000_000
MAX_TEXT = 1 << 16
MAX_TEXTS = 64 << 20
"""Longer texts, and those beyond so many bytes of them, are left in the file; a key may not be one of those."""

MAX_DIMS = 64
WINDOW = 1 << 12

NAMES: Mapping[str, DType] = {
    name: dtype(ours)
    for name, ours in [
        ("bool", "bool"), ("uint8", "u8"), ("uint16", "u16"), ("uint32", "u32"), ("uint64", "u64"), ("int8", "i8"),
        ("int16", "i16"), ("int32", "i32"), ("int64", "i64"),
        ("float16", "f16"), ("bfloat16", "bf16"), ("float32", "f32"), ("float64", "f64"),
        ("complex64", "c64"), ("complex128", "c128"), ("float8_e4m3fn", "f8e4m3"), ("float8_e5m2", "f8e5m2"),
        ("float8_e4m3fnuz", "f8e4m3fnuz"), ("float8_e5m2fnuz", "f8e5m2fnuz"), ("float8_e8m0fnu", "f8e8m0"),
    ]
}  # fmt: skip
"""numpy's and ml_dtypes' names of the dtypes."""

CODES = {ours.name: name for name, ours in NAMES.items()}


def looks_like(head: bytes) -> bool:
    """True for the first bytes of a map whose first key is text, or of an array that stands alone."""
    if len(head) < 2:
        return False
    first = {0xDE: 3, 0xDF: 5}.get(head[0], 1)  # where the first key begins
    if 0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF):
        return len(head) > first and (0xA0 <= head[first] <= 0xBF or head[first] in (0xD9, 0xDA, 0xDB))
    ahead = {0xC7: 2, 0xC8: 3, 0xC9: 5}.get(head[0])
    return ahead is not None and head[ahead : ahead + 2] == bytes([ARRAY, 0x93])


def read(source: Source) -> Contents:
    """What a msgpack file of arrays holds. FormatError when it is broken."""
    path = source.path
    walk = _Walk(source)
    with uncollected():
        root = walk.run()
        if type(root) is not Array and not isinstance(root, dict | list):
            raise FormatError(path, "a msgpack file of one value, which is neither a map nor an array")
        flat = flatten(root, path, nodes=walk.nodes)
    tensors: dict[str, TensorSpec] = {}
    locations: dict[str, Location] = {}
    for name, array in flat.tensors.items():
        assert type(array) is Array  # there are no torch tensors in msgpack
        tensors[name], locations[name] = array.dtype, array.payload
    return Contents((path,), tensors, locations, leaves=flat.leaves, format="flax", containers=flat.containers)


_NO_KEY = object()


class _Walk:
    """Follows one msgpack value. Containers become dicts and lists, arrays `Array(dtype=TensorSpec, payload=Location)`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = 0
        self.end = source.size
        self.nodes = 0
        self.texts = 0
        self.frames: list[list[Any]] = []
        """One an open container: itself, how many items are missing, the key that waits for its value (None in a list)."""
        self._base = 0
        self._window = b""

    def broken(self, problem: str, at: int | None = None) -> NoReturn:
        where = f"byte {self.at if at is None else at:,}"
        name = SEPARATOR.join(
            str(len(holder) if key is None else key) for holder, _, key in self.frames if key is not _NO_KEY
        )
        if name:
            where = f"`{printable(name, 120)}`, {where}"
        raise FormatError(self.source.path, f"broken msgpack: {problem} ({where})")

    def take(self, nbytes: int) -> bytes:
        """The next few bytes."""
        if self.at + nbytes > self.end:
            whole = self.end == self.source.size
            self.broken("it ends in the middle (truncated)" if whole else "an array longer than its own length says")
        begin = self.at - self._base
        if begin < 0 or begin + nbytes > len(self._window):
            self._base, begin = self.at, 0
            self._window = self.source.read(self.at, min(max(nbytes, WINDOW), self.source.size - self.at))
        self.at += nbytes
        return self._window[begin : begin + nbytes]

    def number(self, nbytes: int) -> int:
        return int.from_bytes(self.take(nbytes), "big")

    def run(self) -> Any:
        """The one value of the file. FormatError when it is truncated, malformed, too deep, or when bytes follow it."""
        frames = self.frames
        while True:
            begin = self.at
            value, count = self._value()
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise FormatError(self.source.path, f"its msgpack has more than {MAX_NODES:,} values")
            if frames and frames[-1][2] is _NO_KEY:
                frames[-1][2] = self._key(value, count, frames[-1][0], begin)
                continue
            if count:
                if len(frames) >= MAX_DEPTH:
                    raise FormatError(self.source.path, f"maps nested deeper than {MAX_DEPTH} (byte {begin:,})")
                if self.at + count > self.end:  # an item takes a byte at least
                    self.broken(
                        f"a map or list of {count:,} items, more than the file has bytes left (truncated?)", begin
                    )
                frames.append([value, count, _NO_KEY if type(value) is dict else None])
                continue
            while frames:
                holder, missing, key = frames[-1]
                if type(holder) is dict:
                    holder[key] = value
                else:
                    holder.append(value)
                if missing > 1:
                    frames[-1][1:] = [missing - 1, _NO_KEY if type(holder) is dict else None]
                    break
                frames.pop()
                value = self._chunked(holder, begin) if type(holder) is dict and CHUNKED in holder else holder
            else:
                if self.at != self.end:
                    self.broken(f"{self.end - self.at:,} bytes follow its end")
                return value

    def _key(self, value: Any, count: int, holder: dict[Any, Any], at: int) -> Any:
        if count or not isinstance(value, str | int):
            self.broken("a key that is neither text nor a number", at)
        if value in holder:
            self.broken(f"the key `{printable(str(value), 80)}` twice in one map", at)
        return value

    def _value(self) -> tuple[Any, int]:
        """The next value; for a container an empty one, and how many items follow."""
        code = self.take(1)[0]
        if code < 0x80:
            return code, 0
        if code < 0x90:
            return {}, code & 0x0F
        if code < 0xA0:
            return [], code & 0x0F
        if code < 0xC0:
            return self._text(code & 0x1F), 0
        if code >= 0xE0:
            return code - 256, 0
        if code in _CONSTANTS:
            return _CONSTANTS[code], 0
        if code in _NUMBERS:
            layout = _NUMBERS[code]
            return struct.unpack(layout, self.take(struct.calcsize(layout)))[0], 0
        if code in (0xD9, 0xDA, 0xDB):
            return self._text(self.number(1 << code - 0xD9)), 0
        if code in (0xC4, 0xC5, 0xC6):
            return self._skip(self.number(1 << code - 0xC4)), 0
        if code in (0xDC, 0xDD):
            return [], self.number(2 << code - 0xDC)
        if code in (0xDE, 0xDF):
            return {}, self.number(2 << code - 0xDE)
        if code in (0xC7, 0xC8, 0xC9):
            return self._extension(self.number(1 << code - 0xC7)), 0
        if 0xD4 <= code <= 0xD8:
            return self._extension(1 << code - 0xD4), 0
        return self.broken(f"the byte {code:#04x} begins no value", self.at - 1)

    def _text(self, nbytes: int) -> Any:
        at = self.at
        self.texts += nbytes
        if nbytes > MAX_TEXT or self.texts > MAX_TEXTS:
            return self._skip(nbytes)
        try:
            return self.take(nbytes).decode()
        except UnicodeDecodeError:
            self.broken("a text that is not UTF-8", at)

    def _skip(self, nbytes: int) -> Payload:
        if self.at + nbytes > self.end:
            self.broken(f"{nbytes:,} bytes that are not all in the file (truncated)")
        self.at += nbytes
        return Payload(self.at - nbytes, nbytes)

    def _extension(self, nbytes: int) -> Any:
        kind = int.from_bytes(self.take(1), "big", signed=True)
        begin = self.at
        skipped = self._skip(nbytes)
        if kind not in (ARRAY, SCALAR):
            name = "complex number" if kind == COMPLEX else f"msgpack extension {kind} of {nbytes:,} bytes"
            return Object(name, "value", ())
        outer, self.at, self.end = self.end, begin, begin + skipped.nbytes
        array = self._array(begin)
        self.at, self.end = self.end, outer
        return array

    def _array(self, begin: int) -> Array | Object:
        """(shape, dtype's name, bytes), which fill the extension that begins here."""
        value, count = self._value()
        if type(value) is not list or count != 3:
            self.broken("an array that is not (shape, dtype, bytes)", begin)
        dims, rank = self._value()
        if type(dims) is not list or rank > MAX_DIMS:
            self.broken(f"an array whose shape is not a list of at most {MAX_DIMS} sizes", begin)
        shape = tuple(self._plain(begin) for _ in range(rank))
        if not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):
            self.broken("an array whose shape is not a list of sizes", begin)
        name, data = self._plain(begin), self._plain(begin)
        if type(name) is Payload:
            name = self.source.read(name.offset, min(name.nbytes, 40)).decode(
                "latin-1"
            )  # flax packed names as bytes once
        if not isinstance(name, str) or type(data) is not Payload or self.at != self.end:
            self.broken("an array that is not (shape, dtype, bytes)", begin)
        kind = NAMES.get(name)
        if kind is None:
            if name.lstrip("<>|=")[:1] in ("U", "S", "M", "m") or name.startswith(
                ("str", "bytes", "datetime", "timedelta")
            ):
                return Object(f"array of {printable(name, 20)} {list(shape)}", "value", ())
            self.broken(f"an array of dtype {printable(name, 40)}, which is not read", begin)
        spec = TensorSpec(kind, shape)
        if spec.nbytes != data.nbytes:
            self.broken(f"an array {spec} of {spec.nbytes:,} bytes holds {data.nbytes:,}", begin)
        if math.prod(size or 1 for size in shape) * kind.nbytes >= 1 << 63:
            self.broken(f"an array of the shape {list(shape)}, beyond any memory", begin)
        return _made(spec, Location(0, data.offset))

    def _plain(self, begin: int) -> Any:
        value, count = self._value()
        if count:
            self.broken("an array that holds more than (shape, dtype, bytes)", begin)
        return value

    def _chunked(self, said: dict[Any, Any], at: int) -> Array:
        """The array whose pieces `said` holds."""
        sizes, pieces = (_in_order(said.get(key)) for key in ("shape", "chunks"))
        if sizes is None or pieces is None or len(sizes) > MAX_DIMS or len(said) != 3:
            self.broken("an array in pieces that does not say its shape and its chunks", at)
        if not all(type(size) is int and 0 <= size < 1 << 63 for size in sizes):
            self.broken("an array in pieces whose shape is not a list of sizes", at)
        if not pieces or not all(
            type(piece) is Array and len(piece.dtype.shape) == 1 and not piece.payload.pieces for piece in pieces
        ):
            self.broken("an array in pieces of which one is no flat array", at)
        kinds = {piece.dtype.dtype for piece in pieces}
        if len(kinds) > 1:
            self.broken("an array in pieces of more than one dtype", at)
        spec = TensorSpec(kinds.pop(), tuple(sizes))
        held = sum(piece.dtype.nbytes for piece in pieces)
        if held != spec.nbytes:
            self.broken(f"an array {spec} of {spec.nbytes:,} bytes whose pieces hold {held:,}", at)
        if len(pieces) == 1:
            return _made(spec, pieces[0].payload)
        parts = tuple(piece.payload._replace(decoded_nbytes=piece.dtype.nbytes) for piece in pieces)
        return _made(spec, Location(0, parts[0].byte_offset, encoding="pieces", pieces=parts))


_CONSTANTS: Mapping[int, Any] = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip


def _made(spec: TensorSpec, where: Location) -> Array:
    array = Array()
    array.dtype, array.payload = spec, where
    return array


def _in_order(said: Any) -> list[Any] | None:
    """The items of {"0": …, "1": …}, or of a list; None for anything else."""
    if isinstance(said, list):
        return said
    if not isinstance(said, dict) or any(str(number) not in said for number in range(len(said))):
        return None
    return [said[str(number)] for number in range(len(said))]
