"""DType, TensorSpec, Manifest: the shared vocabulary. No arrays, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: its name in the notation, its width in bytes, and its kind.

    `kind` is one of `bool`, `unsigned`, `signed`, `float`, `complex`, `opaque` (opaque elements are carried, never computed on).
    """

    name: str
    nbytes: int
    kind: str

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        return (dtype, (self.name,))

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("signed", "unsigned")

    @property
    def numpy(self) -> np.dtype[Any]:
        """The little-endian numpy dtype of the values (bf16 and f8 through ml_dtypes, imported when first asked for)."""
        return _numpy_dtype(self.name)

    @property
    def bits(self) -> np.dtype[Any]:
        """A numpy dtype of the same width that moves bits and never looks at them (`u1 u2 u4 u8`, `V16` for c128)."""
        import numpy as np

        return np.dtype("V16") if self.nbytes == 16 else np.dtype(f"<u{self.nbytes}")


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
    found = DTYPES.get(short) or OPAQUE_DTYPES.get(short)
    if found is None:
        raise KeyError(name)
    return found


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
        return self.numel * self.dtype.nbytes

    def __str__(self) -> str:
        """`f32[3,2]`."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def shown(self) -> str:
        """`[3 2] f32`, as the notation writes axes."""
        return f"[{' '.join(map(str, self.shape))}] {self.dtype}"


def spec(text: str) -> TensorSpec:
    """Read `f32[3,2]`.

    >>> spec("f32[3,2]").shape
    (3, 2)
    """
    name, _, dims = text.partition("[")
    inside = dims.rstrip("]").strip()
    return TensorSpec(dtype(name), tuple(int(dim) for dim in inside.split(",")) if inside else ())


@dataclass(frozen=True)
class Manifest(Mapping[str, TensorSpec]):
    """name -> TensorSpec, in the order of the file; read from headers alone.

    `origin` says in words where it comes from, `shared` lists groups of names that lie on the same bytes, `metadata` holds what
    the file says of itself (safetensors `__metadata__`), `leaves` what it carries that is no tensor (name -> a short text),
    `encodings` the tensors whose bytes are not plain (`deflate`, `latin-1`, `big-endian`), `strided` those whose elements do
    not lie in one row-major run.
    """

    tensors: Mapping[str, TensorSpec]
    origin: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[tuple[str, ...], ...] = ()
    leaves: Mapping[str, str] = field(default_factory=dict)
    encodings: Mapping[str, str] = field(default_factory=dict)
    strided: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> TensorSpec:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __hash__(self) -> int:
        return id(self)

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.tensors.values())

    @property
    def numel(self) -> int:
        return sum(spec.numel for spec in self.tensors.values())
