"""Paddle's `.pdparams`, and other pickles of numpy arrays or torch's tensors: one pickle, followed without reading what they hold.

    {"linear.weight": ndarray, ..., "StructuredToParameterName@@": {...}}      a state dict
    {"model": {"w": ("linear_0.w_0", ndarray)}}                                nested objects: tensors as (name, array)
    {"w": eval("data", {"data": ndarray})}                                     static graphs; matched, never evaluated
    {"w": _rebuild_tensor_v2(_load_from_bytes(b"…"), …)}                       torch's, each storage a legacy file of its own

In protocols 3 and 4 an array's bytes lie in the file as they are; in protocol 2 they are a text (`utf8-latin1`). Protocols 2 and 3
cut arrays of more than 1 GiB into `name@@.0`, `name@@.1`, …, which are read as one. Paddle stores bfloat16 as uint16 and does not
say so; such arrays stay u16. What is written here says so, in the dtype's metadata, where numpy and Paddle do not look.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from isomorph.errors import FormatError, printable
from isomorph.formats.base import Contents, FileLayout, Literal, Location
from isomorph.formats.containers import flatten
from isomorph.formats.pickle.interpreter import MAX_TEXT, Interpreter
from isomorph.formats.pickle.names import SAVED
from isomorph.formats.pickle.objects import Payload, Storage, Tensor
from isomorph.formats.pickle.tensors import Region, place_all, sizes, tensor_location
from isomorph.formats.pickle.write import Memo, integers, text
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec

NAMES = "StructuredToParameterName@@"
PIECES = "UnpackBigParamInfor@@"


def read(source: Source) -> Contents:
    """What a pickle of arrays holds. FormatError when it is broken; UnsafeError when it would run or import something."""
    path = source.path
    interpreter = Interpreter(source, path, names=SAVED)
    root = interpreter.run()
    if type(root) is int:  # the magic number of a legacy torch file that was saved with another pickle protocol
        from isomorph.formats.torch import legacy as torch_legacy

        if root == torch_legacy.MAGIC:
            return torch_legacy.read(source)
    leaves: dict[str, str] = {}
    pieces: Any = None
    if isinstance(root, dict):
        if isinstance(root.get(NAMES), dict):
            leaves[NAMES] = f"Paddle's own names of {len(root[NAMES]):,} parameters"
        pieces = root.get(PIECES)
        root = {key: value for key, value in root.items() if key not in (NAMES, PIECES)}
    flat = flatten(root, path, nodes=interpreter.nodes, named_tuples=True)

    storages: dict[int, tuple[Storage, Region]] = {}

    def stored(name: str, tensor: Tensor) -> tuple[TensorSpec, Location]:
        from isomorph.formats.torch.legacy import saved_storage

        payload: Payload = tensor.storage.payload
        if payload.offset not in storages:
            storages[payload.offset] = saved_storage(source, payload)
        storage, region = storages[payload.offset]
        view = Tensor(storage, tensor.offset, tensor.shape, tensor.strides, tensor.dtype)
        return tensor_location(path, name, view, region)

    tensors, locations, leaves = place_all(path, flat.tensors, leaves | dict(flat.leaves), _place, stored)
    unsaid = [name for name, spec in tensors.items() if spec.dtype.name == "u16"]
    notes = []
    if pieces is not None:
        _join_pieces(path, pieces, tensors, locations)
    if unsaid:
        shown = ", ".join(f"`{printable(name, 80)}`" for name in unsaid[:3]) + (", …" if len(unsaid) > 3 else "")
        notes.append(
            f"{len(unsaid):,} tensors are u16 ({shown}): Paddle stores bfloat16 as uint16 and does not say which it was"
        )
    if interpreter.end != source.size:
        notes.append(f"{source.size - interpreter.end:,} bytes follow the end of its pickle; they are not read")
    return Contents(
        (path,), tensors, locations, leaves=leaves, notes=tuple(notes), format="paddle", containers=flat.containers
    )


def _join_pieces(path: object, said: Any, tensors: dict[str, TensorSpec], locations: dict[str, Location]) -> None:
    """Replace `name@@.0`, `name@@.1`, … by the one array they were cut from: `said` is {name: {OriginShape, slices}}."""

    def wrong(name: str, problem: str) -> FormatError:
        return FormatError(path, f"array `{printable(name)}`: {problem}")

    if not isinstance(said, dict) or not all(isinstance(name, str) for name in said):
        raise FormatError(path, f"its {PIECES}, which says how arrays were cut, is not a dict of names")
    for name, info in said.items():
        shape = sizes(info.get("OriginShape")) if isinstance(info, dict) else None
        slices = info.get("slices") if isinstance(info, dict) else None
        if shape is None or not isinstance(slices, list | tuple) or not slices:
            raise wrong(name, f"{PIECES} does not say its shape and its pieces")
        parts: list[Location] = []
        kinds = set()
        for piece in slices:
            if not isinstance(piece, str) or piece not in tensors or len(tensors[piece].shape) != 1:
                raise wrong(name, f"its piece {printable(str(piece)[:200])} is missing, or no flat array")
            where, part = locations.pop(piece), tensors.pop(piece)
            if where.encoding is not None and where.encoding.endswith("big"):
                raise wrong(name, "it was cut on a big-endian machine, which is not read")
            kinds.add(part.dtype)
            parts.append(where._replace(decoded_nbytes=part.nbytes))
        if len(kinds) != 1:
            raise wrong(name, "its pieces have more than one dtype")
        spec = TensorSpec(kinds.pop(), shape)
        if sum(part.decoded_nbytes for part in parts) != spec.nbytes:
            held = sum(part.decoded_nbytes for part in parts) // spec.dtype.nbytes
            raise wrong(name, f"{spec} has {spec.numel:,} elements, its pieces have {held:,} elements")
        if name in tensors:
            raise wrong(name, "it is there twice: whole and in pieces")
        tensors[name] = spec
        locations[name] = Location(0, parts[0].byte_offset, encoding="pieces", pieces=tuple(parts))


def _place(payload: Payload) -> Region:
    encoded = payload.nbytes if payload.encoding else 0
    return Region(payload.offset, payload.nbytes, payload.encoding, encoded, 0, payload.nbytes)


_CODES = {
    "bool": "b1", "u8": "u1", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8", "f16": "f2", "f32": "f4", "f64": "f8",
    "c64": "c8", "c128": "c16", "u16": "u2", "bf16": "u2",
}  # fmt: skip
"""numpy's codes of the dtypes that `paddle.load` takes. It takes u16 for bfloat16."""

IS_BFLOAT16 = "bfloat16"
"""The dtype's metadata `{"paddle": "bfloat16"}` says that its u16 are bfloat16."""


class Writer:
    """Lays out a pickle (protocol 4) of `{name: ndarray}` that `paddle.load` reads, under numpy 1 and 2 alike."""

    def check(self, specs: Mapping[str, TensorSpec]) -> None:
        """FormatError that names every tensor whose dtype Paddle's files do not hold."""
        wrong = [name for name, spec in specs.items() if spec.dtype.name not in _CODES]
        if wrong:
            shown = ", ".join(f"`{printable(name, 120)}` {specs[name]}" for name in wrong[:8])
            more = f" and {len(wrong) - 8} more" if len(wrong) > 8 else ""
            raise FormatError(
                "target",
                f"cannot hold {shown}{more}: paddle.load takes {', '.join(_CODES)}",
                "Cast them, or write safetensors.",
            )
        long = [name for name in specs if len(name.encode("utf-8", "surrogatepass")) > MAX_TEXT]
        if long:
            raise FormatError("target", f"cannot hold names longer than {MAX_TEXT:,} bytes: {printable(long[0], 60)}")
        marked = [name for name in specs if name in (NAMES, PIECES)]
        if marked:
            raise FormatError("target", f"cannot hold a tensor called {marked[0]}, which Paddle uses for itself")

    def lay_out(self, specs: Mapping[str, TensorSpec], *, name: str, metadata: Mapping[str, str]) -> FileLayout:
        """The file, the arrays in the order given. `metadata` has no place in it."""
        literals: list[Literal] = []
        tensors: dict[str, int] = {}
        memo = Memo()
        at, begin = 0, b"\x80\x04}"
        for tensor, spec in specs.items():
            head = begin + text(tensor) + _array_head(spec, memo)
            literals.append(Literal(at, head))
            tensors[tensor] = at + len(head)
            at += len(head) + spec.nbytes
            begin = b"tbs"  # the end of the state tuple, BUILD, SETITEM
        literals.append(Literal(at, begin + b"."))
        return FileLayout(name, at + len(begin) + 1, tensors, tuple(literals))


def _array_head(spec: TensorSpec, memo: Memo) -> bytes:
    """The opcodes of an array up to its bytes: `_reconstruct(ndarray, (0,), b"b")`, then its state `(1, shape, dtype, False, …`."""

    once = memo.once
    # numpy 1 has this module; numpy 2 keeps it for pickles.
    head = (
        once(b"cnumpy.core.multiarray\n_reconstruct\n")
        + once(b"cnumpy\nndarray\n")
        + b"K\0\x85"
        + once(b"C\x01b")
        + b"\x87R"
    )
    head += b"(K\x01" + integers(spec.shape) + once(_dtype(spec)) + b"\x89"
    if spec.nbytes < 1 << 8:
        return head + b"C" + bytes([spec.nbytes])
    if spec.nbytes < 1 << 32:
        return head + b"B" + struct.pack("<I", spec.nbytes)
    return head + b"\x8e" + struct.pack("<Q", spec.nbytes)


def _dtype(spec: TensorSpec) -> bytes:
    """`numpy.dtype(code, False, True)` and its state, as numpy writes them."""
    code = _CODES[spec.dtype.name]
    made = b"cnumpy\ndtype\n" + text(code) + b"\x89\x88\x87R"
    order = b"<" if code[1:] != "1" else b"|"
    flags = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0"
    if spec.dtype.name != "bf16":
        return made + b"(K\x03" + text(order.decode()) + b"NNN" + flags + b"tb"
    said = b"}" + text("paddle") + text(IS_BFLOAT16) + b"s"
    return made + b"(K\x04" + text("<") + b"NNN" + flags + said + b"tb"
