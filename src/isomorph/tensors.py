"""DType, TensorSpec, Manifest: the shared vocabulary. No arrays, no I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: its name in the notation, its width in bytes, and its kind.

    `kind` is one of `bool`, `unsigned`, `signed`, `float`, `complex`, `opaque` (opaque elements are carried, never computed on).

    Elements that are no whole bytes, or that share a scale, are carried in items: `nbytes` is one item, which holds a box of
    `block` elements over as many last axes (`f4`: (2,) in 1 byte; `q4_k`: (256,) in 144; empty where an item is one element).
    Shapes count items on every axis, so a q4_k of [4096 4096] elements has the shape [4096 16].
    """

    name: str
    nbytes: int
    kind: str
    block: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)  # no two dtypes share one

    def __reduce__(self) -> tuple[Any, ...]:
        return (dtype, (self.name,))

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def elements(self) -> int:
        """How many elements an item holds; 1 for all dtypes but those of blocks."""
        return math.prod(self.block)

    @property
    def alignment(self) -> int:
        """The bytes of which offsets in files are multiples: the width of an element, 1 for blocks, which are strings of bytes."""
        return 1 if self.block else self.nbytes

    @property
    def is_integer(self) -> bool:
        return self.kind in ("signed", "unsigned")

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian numpy dtype of the values (bf16 and f8 through ml_dtypes, imported when first asked for)."""
        return _numpy_dtype(self.name)

    @property
    def bits(self) -> np.dtype[Any]:
        """A numpy dtype of the same width that moves bits and never looks at them (`u1 u2 u4 u8`, `V16` for c128, `V144`)."""
        import numpy as np

        return np.dtype(f"<u{self.nbytes}" if self.nbytes in (1, 2, 4, 8) else f"V{self.nbytes}")


DTYPES: Mapping[str, DType] = {
    name: DType(name, nbytes, kind)
    for name, nbytes, kind in [
        ("bool", 1, "bool"),
        ("u8", 1, "unsigned"),
        ("u16", 2, "unsigned"),
        ("u32", 4, "unsigned"),
        ("u64", 8, "unsigned"),
        ("i8", 1, "signed"),
        ("i16", 2, "signed"),
        ("i32", 4, "signed"),
        ("i64", 8, "signed"),
        ("f16", 2, "float"),
        ("bf16", 2, "float"),
        ("f32", 4, "float"),
        ("f64", 8, "float"),
        ("f8e4m3", 1, "float"),
        ("f8e5m2", 1, "float"),
        ("c64", 8, "complex"),
        ("c128", 16, "complex"),
    ]
}
"""The dtypes of the notation (LANGUAGE.md, section 2)."""

OPAQUE_DTYPES: Mapping[str, DType] = {
    name: DType(name, nbytes, "opaque") for name, nbytes in [("f8e4m3fnuz", 1), ("f8e5m2fnuz", 1), ("f8e8m0", 1)]
}
"""Dtypes that files carry but the notation does not name: moved bit for bit, never cast."""

PACKED_DTYPES: Mapping[str, DType] = {
    name: DType(name, nbytes, "opaque", (elements,))
    for name, nbytes, elements in [
        ("f4", 1, 2),
        ("f6e2m3", 3, 4),
        ("f6e3m2", 3, 4),
        ("u4", 1, 2),
        ("i4", 1, 2),
        ("u2", 1, 4),
        ("i2", 1, 4),
    ]
}
"""Elements of 2, 4 and 6 bits, in the fewest whole bytes. `packed` makes the dtypes of those whose rows are no whole bytes."""

GGML_BLOCKS: Mapping[str, DType] = {
    name: DType(name, nbytes, "opaque", (elements,))
    for name, elements, nbytes in [
        ("q4_0", 32, 18), ("q4_1", 32, 20), ("q5_0", 32, 22), ("q5_1", 32, 24), ("q8_0", 32, 34), ("q8_1", 32, 40),
        ("q2_k", 256, 84), ("q3_k", 256, 110), ("q4_k", 256, 144), ("q5_k", 256, 176), ("q6_k", 256, 210),
        ("q8_k", 256, 292), ("iq2_xxs", 256, 66), ("iq2_xs", 256, 74), ("iq3_xxs", 256, 98), ("iq1_s", 256, 50),
        ("iq4_nl", 32, 18), ("iq3_s", 256, 110), ("iq2_s", 256, 82), ("iq4_xs", 256, 136), ("iq1_m", 256, 56),
        ("tq1_0", 256, 54), ("tq2_0", 256, 66), ("mxfp4", 32, 17), ("nvfp4", 64, 36), ("q1_0", 128, 18),
    ]
}  # fmt: skip
"""The quantised types of ggml: numbers of some bits with the scales of their block. (Names and sizes as in ggml.h.)"""

BLOCK_DTYPES: Mapping[str, DType] = {**PACKED_DTYPES, **GGML_BLOCKS}

LARGEST_ITEM = 1 << 20
"""Bytes of one item: what is worked on at a time is a number of these."""

_PACKED_OVER = re.compile(r"(f4|f6e2m3|f6e3m2|[ui][24])_([1-9][0-9]{0,18}(?:x[1-9][0-9]{0,18}){0,63})")
"""`f4_2x3`: an item is a box of 2 by 3 elements, for rows of 3 elements end amid a byte."""

_ALIASES = {
    "half": "f16", "float16": "f16", "fp16": "f16",
    "bfloat16": "bf16",
    "float": "f32", "float32": "f32", "fp32": "f32",
    "double": "f64", "float64": "f64", "fp64": "f64",
    "float8_e4m3fn": "f8e4m3", "float8_e4m3": "f8e4m3", "f8_e4m3": "f8e4m3", "fp8": "f8e4m3", "fp8_e4m3": "f8e4m3",
    "float8_e5m2": "f8e5m2", "f8_e5m2": "f8e5m2", "fp8_e5m2": "f8e5m2",
    "int8": "i8", "int16": "i16", "short": "i16", "int32": "i32", "int": "i32", "int64": "i64", "long": "i64",
    "uint8": "u8", "byte": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64",
    "complex64": "c64", "cfloat": "c64", "complex128": "c128", "cdouble": "c128",
    "char": "i8", "boolean": "bool",
}  # fmt: skip


def dtype(name: str) -> DType:
    """The dtype of that name: the notation's own (`bf16`), torch's, numpy's or paddle's (`torch.bfloat16`, `half`, `float32`).

    Raises KeyError when no dtype has the name.
    """
    short = name.strip().lower()
    for prefix in ("torch.", "paddle.", "numpy.", "np.", "jnp.", "mx."):
        short = short.removeprefix(prefix)
    short = _ALIASES.get(short, short)
    found = DTYPES.get(short) or OPAQUE_DTYPES.get(short) or BLOCK_DTYPES.get(short) or _packed_over(short)
    if found is None:
        raise KeyError(name)
    return found


def _packed_over(name: str) -> DType | None:
    """The dtype of a name like `f4_2x3`; None where no such box is whole bytes."""
    match = _PACKED_OVER.fullmatch(name)
    if match is None:
        return None
    base, block = PACKED_DTYPES[match[1]], tuple(map(int, match[2].split("x")))
    items, rest = divmod(math.prod(block), base.elements)
    return None if rest or items * base.nbytes > LARGEST_ITEM else DType(name, items * base.nbytes, "opaque", block)


_NUMPY: dict[str, Any] = {}


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if not _NUMPY:
        import numpy as np

        _NUMPY.update(
            {
                "bool": np.dtype("?"), "u8": np.dtype("u1"), "u16": np.dtype("<u2"), "u32": np.dtype("<u4"), "u64": np.dtype("<u8"),
                "i8": np.dtype("i1"), "i16": np.dtype("<i2"), "i32": np.dtype("<i4"), "i64": np.dtype("<i8"),
                "f16": np.dtype("<f2"), "f32": np.dtype("<f4"), "f64": np.dtype("<f8"),
                "c64": np.dtype("<c8"), "c128": np.dtype("<c16"),
            }
        )  # fmt: skip
    if name not in _NUMPY and (name in BLOCK_DTYPES or "_" in name):
        return dtype(name).bits
    if name not in _NUMPY:
        import ml_dtypes
        import numpy as np

        _NUMPY.update(
            {
                "bf16": np.dtype(ml_dtypes.bfloat16),
                "f8e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
                "f8e5m2": np.dtype(ml_dtypes.float8_e5m2),
                "f8e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
                "f8e5m2fnuz": np.dtype(ml_dtypes.float8_e5m2fnuz),
                "f8e8m0": np.dtype("u1"),
            }
        )
    found: np.dtype[Any] = _NUMPY[name]
    return found


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a header says of a tensor: its dtype and its shape (row-major)."""

    dtype: DType
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.nbytes

    @property
    def element_shape(self) -> tuple[int, ...]:
        """The shape in elements, where `shape` counts items: `q4_k[4096,16]` has [4096 4096] elements."""
        block = self.dtype.block
        if not block:
            return self.shape
        outer = len(self.shape) - len(block)
        return (*self.shape[:outer], *(n * size for n, size in zip(self.shape[outer:], block, strict=True)))

    def __str__(self) -> str:
        """`f32[3,2]`."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def shown(self) -> str:
        """`[3 2] f32`, as the notation writes axes."""
        return f"[{' '.join(map(str, self.shape))}] {self.dtype}"


def by_identity(specs: Iterable[TensorSpec]) -> dict[int, TensorSpec]:
    """The specs by their `id`: readers give tensors of one kind one spec, so a checkpoint of very many has few.

    What is asked of each is asked of these once, and found by `id(spec)`, which is much quicker than hashing a spec.
    """
    return {id(spec): spec for spec in specs}


_MOST_KINDS = 1 << 12


def total_nbytes(specs: Collection[TensorSpec]) -> int:
    """The bytes of all together."""
    total = 0
    known: dict[int, int] = {}
    for spec in specs:
        nbytes = known.get(id(spec))
        if nbytes is None:
            if len(known) == _MOST_KINDS:  # as many as there are tensors: nothing is gained, and no room is to be taken
                known.clear()
            nbytes = known[id(spec)] = spec.nbytes
        total += nbytes
    return total


def spec(text: str) -> TensorSpec:
    """Read `f32[3,2]`.

    >>> spec("f32[3,2]").shape
    (3, 2)
    """
    name, _, dims = text.partition("[")
    inside = dims.rstrip("]").strip()
    return TensorSpec(dtype(name), tuple(int(dim) for dim in inside.split(",")) if inside else ())


def packed(base: DType, element_shape: Sequence[int]) -> TensorSpec | None:
    """The spec of a tensor of `element_shape` elements of a packed dtype; None where they are no whole bytes.

    Where the last axis is no whole number of items, an item spans the axes that it takes:

    >>> str(packed(dtype("f4"), (4, 6))), str(packed(dtype("f4"), (4, 3)))
    ('f4[4,3]', 'f4_2x3[2,1]')

    ValueError when such an item is larger than LARGEST_ITEM.
    """
    block: tuple[int, ...] = ()
    held = 1
    for size in reversed(element_shape):
        wanted = base.elements // math.gcd(base.elements, held)
        if size % wanted == 0:
            block = (wanted, *block)
            break
        block = (size, *block)
        held *= size
    else:
        return None
    made = base if block == base.block else _packed_over(f"{base.name}_{'x'.join(map(str, block))}")
    if made is None:
        raise ValueError(f"its rows of {element_shape[-1]:,} elements end amid a byte, and an item would be too large")
    outer = len(element_shape) - len(block)
    return TensorSpec(
        made, (*element_shape[:outer], *(n // size for n, size in zip(element_shape[outer:], block, strict=True)))
    )


@dataclass(frozen=True)
class Manifest(Mapping[str, TensorSpec]):
    """name -> TensorSpec, in the order of the file; read from headers alone.

    `origin` says in words where it comes from, `shared` lists groups of names that lie on the same bytes, `metadata` holds what
    the file says of itself (safetensors `__metadata__`), `leaves` what it carries that is no tensor (name -> a short text),
    `encodings` the tensors whose bytes are not plain (`deflate`, `latin-1`, `big-endian`), `strided` those whose elements do
    not lie in one row-major run. `parts` counts the tiles and pieces that tensors are put together from, and the files.
    """

    tensors: Mapping[str, TensorSpec]
    origin: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[tuple[str, ...], ...] = ()
    leaves: Mapping[str, str] = field(default_factory=dict)
    encodings: Mapping[str, str] = field(default_factory=dict)
    strided: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    parts: int = 0

    def __getitem__(self, name: str) -> TensorSpec:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def items(self) -> ItemsView[str, TensorSpec]:
        return self.tensors.items()

    def values(self) -> ValuesView[TensorSpec]:
        return self.tensors.values()

    def __hash__(self) -> int:
        return id(self)

    @property
    def nbytes(self) -> int:
        return total_nbytes(self.tensors.values())

    @property
    def numel(self) -> int:
        return sum(spec.numel for spec in self.tensors.values())
