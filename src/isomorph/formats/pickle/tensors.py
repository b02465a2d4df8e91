"""Tensor and Array records -> TensorSpec and Location: every number that the pickle gave is checked here, against real bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from isomorph.errors import FormatError, UnsafeError, printable
from isomorph.formats.base import Location
from isomorph.formats.pickle.dtypes import EXTENDED, NUMPY_CODES
from isomorph.formats.pickle.objects import Array, NumpyDType, Payload, Storage, Tensor, payload_of
from isomorph.tensors import BLOCK_DTYPES, DTYPES, OPAQUE_DTYPES, TensorSpec

DTYPE_OF = {**DTYPES, **OPAQUE_DTYPES, "f4": BLOCK_DTYPES["f4"]}

MAX_DIMS = 64
EXPAND = 64
EXPAND_FREE = 256 << 20
"""A view that repeats elements may be so many times its storage, plus so many bytes."""

ODD_ADVICE = "Re-save them as plain dense tensors in torch (to_dense(), dequantize(), resolve_conj()), or without them."


class Region(NamedTuple):
    """The bytes of one storage: plain at `byte_offset` of the file, or `nbytes` bytes at `decoded_offset` once decoded."""

    byte_offset: int
    nbytes: int
    encoding: str | None = None
    encoded_nbytes: int = 0
    decoded_offset: int = 0
    decoded_nbytes: int = 0

    def location(self, skip: int, strides: tuple[int, ...] | None, big: bool = False) -> Location:
        """The tensor that begins `skip` bytes into the region."""
        if self.encoding is None:
            return Location(0, self.byte_offset + skip, strides, "big" if big else None)
        encoding = f"{self.encoding}+big" if big else self.encoding
        decoded = self.decoded_offset + skip
        return Location(0, self.byte_offset, strides, encoding, self.encoded_nbytes, decoded, self.decoded_nbytes)

    def part(self, skip: int, nbytes: int) -> Region:
        """The bytes from `skip` on; the caller has checked that they are inside."""
        if self.encoding is None:
            return Region(self.byte_offset + skip, nbytes)
        decoded = self.decoded_offset + skip
        return Region(self.byte_offset, nbytes, self.encoding, self.encoded_nbytes, decoded, self.decoded_nbytes)


def _refuse_odd(path: object, tensors: Mapping[str, Tensor | Array]) -> None:
    """FormatError that names every tensor which is not a plain dense one."""
    odd = [
        (name, tensor.oddity)
        for name, tensor in tensors.items()
        if type(tensor) is Tensor and tensor.oddity is not None
    ]
    if odd:
        shown = "; ".join(f"`{printable(name, 120)}` is {oddity}" for name, oddity in odd[:8])
        more = f"; and {len(odd) - 8} more" if len(odd) > 8 else ""
        raise FormatError(path, f"holds tensors that are not plain numbers: {shown}{more}", ODD_ADVICE)


def sizes(value: Any) -> tuple[int, ...] | None:
    """A tuple of at most 64 numbers in 0 … 2**63-1, or None."""
    if type(value) not in (tuple, list) or len(value) > MAX_DIMS:
        return None
    for number in value:
        if type(number) is not int or not 0 <= number < 1 << 63:
            return None
    return tuple(value)


def _wrong(path: object, name: str, problem: str) -> FormatError:
    return FormatError(path, f"tensor `{printable(name)}`: {problem}")


def tensor_location(
    path: object, name: str, tensor: Tensor, region: Region, big: bool = False
) -> tuple[TensorSpec, Location]:
    """Where a strided view of a storage lies. FormatError when it leaves the storage; UnsafeError when it repeats it absurdly."""

    shape, strides, offset = sizes(tensor.shape), sizes(tensor.strides), tensor.offset
    if shape is None:
        raise _wrong(path, name, "its shape is not a tuple of sizes")
    if strides is None or len(strides) != len(shape):
        raise _wrong(path, name, f"its strides are not {len(shape)} numbers of at least 0")
    if type(offset) is not int or not 0 <= offset < 1 << 63:
        raise _wrong(path, name, "its offset is not a number of at least 0")
    storage: Storage = tensor.storage
    element = tensor.dtype or storage.dtype
    if not element:
        raise _wrong(path, name, f"its storage is a torch.{printable(storage.kind, 40)}, which holds quantised numbers")
    spec, numel = _spec(element, shape)
    itemsize = spec.dtype.nbytes
    if numel == 0:
        return spec, region.location(0, None)
    row_major, span, step = True, 1, 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            row_major = row_major and stride == step
            span += (size - 1) * stride
            step *= size
    if (offset + span) * itemsize > region.nbytes:
        raise _wrong(
            path,
            name,
            f"its last element is number {offset + span - 1:,}, but its storage has {region.nbytes // itemsize:,} elements "
            f"({printable(storage.key, 40)})",
        )
    if numel > span and numel * itemsize > EXPAND * region.nbytes + EXPAND_FREE:
        raise UnsafeError(
            path,
            f"tensor `{printable(name)}` {spec} repeats the {region.nbytes:,} bytes of its storage to {spec.nbytes:,} bytes",
            "That is a trap, not a checkpoint; nothing was written.",
        )
    return spec, region.location(offset * itemsize, None if row_major else strides, big and itemsize > 1)


@lru_cache(maxsize=4096)
def _spec(element: str, shape: tuple[int, ...]) -> tuple[TensorSpec, int]:
    """(the spec, its number of elements): most tensors of a checkpoint have one of few shapes."""
    spec = TensorSpec(DTYPE_OF[element], shape)
    return spec, spec.numel


def array_location(
    path: object, name: str, array: Array, place: Callable[[Payload], Region]
) -> tuple[TensorSpec, Location] | str:
    """Where a pickled numpy array lies, or in words what it is when it holds texts or dates.

    `place(payload)` is the region of some bytes of the pickle. FormatError for object and structured arrays, and when the array
    and its bytes do not fit each other.
    """

    def wrong(problem: str) -> FormatError:
        return FormatError(path, f"array `{printable(name)}`: {problem}")

    if type(array.dtype) is not NumpyDType:
        raise wrong("it has no dtype (its pickle never sets its state)")
    code = array.dtype.code
    order = array.dtype.order
    if code[:1] in "<>|=" and code[:1]:
        order, code = (code[0] if order == "|" else order), code[1:]
    if array.dtype.odd:
        raise wrong("it is structured, which no tensor is")
    if code[:1] == "O" or type(array.payload) is list:
        raise wrong("it holds Python objects, not numbers; isomorph does not read those")
    shape = sizes(array.shape)
    if shape is None:
        raise wrong("its shape is not a tuple of sizes")
    if code[:1] in ("S", "U", "a", "M", "m") and not code.startswith(EXTENDED):
        return f"an array of {'text' if code[:1] in 'SUa' else 'dates'} {list(shape)}"
    element = code.removeprefix(EXTENDED) if code.startswith(EXTENDED) else NUMPY_CODES.get(code)
    if element == "u16" and isinstance(array.dtype.metadata, dict) and array.dtype.metadata.get("paddle") == "bfloat16":
        element = "bf16"  # said by whoever wrote the file, never guessed
    if element not in DTYPE_OF:
        raise wrong(f"its dtype {printable(code, 40)!r} is not one isomorph has")
    spec = TensorSpec(DTYPE_OF[element], shape)
    if spec.numel == 0:
        return spec, Location(0, 0)
    payload = payload_of(array.payload)
    if payload is None:
        raise wrong("its bytes are not in the pickle")
    packed = payload.encoding is not None
    if not (spec.nbytes <= payload.nbytes <= 2 * spec.nbytes if packed else payload.nbytes == spec.nbytes):
        raise wrong(f"{spec} takes {spec.nbytes:,} bytes, the pickle holds {payload.nbytes:,}")
    strides = None
    if array.fortran and sum(size > 1 for size in shape) > 1:
        strides = tuple(math.prod(shape[:axis]) for axis in range(len(shape)))
    region = place(payload)
    if packed:
        region = Region(region.byte_offset, spec.nbytes, region.encoding, payload.nbytes, 0, spec.nbytes)
    return spec, region.location(0, strides, order == ">" and spec.dtype.nbytes > 1)


class Placed(NamedTuple):
    """The tensors of a pickle, where they lie, and its leaves: those that it had, and the arrays that hold no numbers."""

    tensors: dict[str, TensorSpec]
    locations: dict[str, Location]
    leaves: dict[str, str]


def place_all(
    path: object,
    named: Mapping[str, Tensor | Array],
    leaves: Mapping[str, str],
    place: Callable[[Payload], Region],
    place_tensor: Callable[[str, Tensor], tuple[TensorSpec, Location]],
) -> Placed:
    """Every array (`place` says where some bytes of the pickle lie) and every torch tensor that a pickle names.

    FormatError for what is not a plain dense tensor, all of those in one message, and for what its bytes do not bear out.
    """
    _refuse_odd(path, named)
    placed = Placed({}, {}, dict(leaves))
    for name, value in named.items():
        found = array_location(path, name, value, place) if isinstance(value, Array) else place_tensor(name, value)
        if isinstance(found, str):
            placed.leaves[name] = found
        else:
            placed.tensors[name], placed.locations[name] = found
    return placed
