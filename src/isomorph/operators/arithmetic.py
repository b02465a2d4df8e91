"""neg, add, mul, exp, log and sum. A NaN stays the NaN it was (neg turns its sign); an overflow is an error, as in a cast."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from isomorph.operators.base import Changes, Class, Operator, refuse
from isomorph.operators.numbers import PARTS, NumberOverflow, encode
from isomorph.tensors import DTYPES, DType

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Negate(Operator):
    """`neg`: turns the sign bit (of both parts of a complex number, of NaN too); of integers, an error where -x does not fit."""

    def result(self, dtype: DType) -> DType:
        if dtype.kind not in ("signed", "float", "complex"):
            raise refuse(f"`neg` meets {dtype}, which has no negative numbers")
        return dtype

    def klass(self, dtype: DType) -> Class:
        return "exact"

    def inverse(self) -> Operator:
        return self

    def describe(self) -> str:
        return "neg"

    def apply(
        self,
        array: np.ndarray[Any, Any],
        dtype: DType,
        *,
        out: np.ndarray[Any, Any] | None = None,
        changes: Changes | None = None,
    ) -> np.ndarray[Any, Any]:
        from isomorph.operators.computing import negate

        return negate(array, self.result(dtype), out)


@dataclass(frozen=True, slots=True)
class Arithmetic(Operator):
    """`add N`, `mul N` and, read backward, the subtraction and the division (`inverted`).

    N is first rounded to the tensor's dtype, then the result once. On complex dtypes `add` moves the real part, `mul` scales both.
    """

    name: str
    number: Fraction | float
    text: str
    inverted: bool = False

    def result(self, dtype: DType) -> DType:
        if dtype.kind not in ("float", "complex"):
            raise refuse(f"`{self.describe()}` meets {dtype}; `add` and `mul` act on floating dtypes only")
        bits = self.bits(dtype)
        if self.name == "mul" and self.inverted and bits & ~_sign(dtype) == 0:
            raise refuse(f"`mul {self.text}` cannot be read backward: {self.text} is 0 in {dtype}")
        return dtype

    def bits(self, dtype: DType) -> int:
        """The number in `dtype` (in the dtype of its parts, where complex)."""
        try:
            return encode(self.number, dtype)
        except NumberOverflow as error:
            raise refuse(f"`{self.describe()}`: {dtype} cannot hold {self.text}: {error}") from None

    def klass(self, dtype: DType) -> Class:
        return "rounding"

    def inverse(self) -> Operator:
        return Arithmetic(self.name, self.number, self.text, not self.inverted)

    def describe(self) -> str:
        return f"inverse of {self.name} {self.text}" if self.inverted else f"{self.name} {self.text}"

    def apply(
        self,
        array: np.ndarray[Any, Any],
        dtype: DType,
        *,
        out: np.ndarray[Any, Any] | None = None,
        changes: Changes | None = None,
    ) -> np.ndarray[Any, Any]:
        from isomorph.operators.computing import compute

        self.result(dtype)
        kind = {"add": "subtract" if self.inverted else "add", "mul": "divide" if self.inverted else "multiply"}[
            self.name
        ]
        return compute(kind, array, dtype, self.bits(dtype), self.describe(), out)


@dataclass(frozen=True, slots=True)
class Transcendental(Operator):
    """`exp` and `log`, inverse to each other: taken in f64 and rounded once. log 0 is -inf; of a negative number, an error."""

    name: str

    def result(self, dtype: DType) -> DType:
        if dtype.kind != "float":
            raise refuse(f"`{self.name}` meets {dtype}; `exp` and `log` act on real floating dtypes only")
        return dtype

    def klass(self, dtype: DType) -> Class:
        return "rounding"

    def inverse(self) -> Operator:
        return Transcendental("log" if self.name == "exp" else "exp")

    def describe(self) -> str:
        return self.name

    def apply(
        self,
        array: np.ndarray[Any, Any],
        dtype: DType,
        *,
        out: np.ndarray[Any, Any] | None = None,
        changes: Changes | None = None,
    ) -> np.ndarray[Any, Any]:
        from isomorph.operators.computing import compute

        return compute(self.name, array, self.result(dtype), None, self.name, out)


@dataclass(frozen=True, slots=True)
class Sum(Operator):
    """The marker `sum`: adds the blocks of its rule. On one array it does nothing; `computing.add_arrays` adds two."""

    def result(self, dtype: DType) -> DType:
        if dtype.kind in ("bool", "opaque"):
            raise refuse(f"`sum` meets {dtype}, which cannot be added")
        return dtype

    def klass(self, dtype: DType) -> Class:
        return "one-way"

    def inverse(self) -> Operator:
        raise refuse(
            "`sum` cannot be read backward: a sum does not say what its parts were", "write the rule with `->`"
        )

    def describe(self) -> str:
        return "sum"

    def is_identity(self, dtype: DType) -> bool:
        return True

    def apply(
        self,
        array: np.ndarray[Any, Any],
        dtype: DType,
        *,
        out: np.ndarray[Any, Any] | None = None,
        changes: Changes | None = None,
    ) -> np.ndarray[Any, Any]:
        import numpy as np

        bits = array.view(self.result(dtype).bits)
        if out is None:
            return np.array(bits, order="C", copy=True)
        out.reshape(-1)[...] = bits.reshape(-1)
        return out


def _sign(dtype: DType) -> int:
    part = DTYPES[PARTS[dtype.name]] if dtype.name in PARTS else dtype
    return 1 << (8 * part.nbytes - 1)
