"""Casts: `A -> B` (exact, checked), `A ~> B` (rounds once, to nearest, ties to even), with `float` for any floating dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.operators.base import Changes, Class, Operator, refuse
from isomorph.tensors import DType

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Cast(Operator):
    """`source` None stands for `float`: any floating dtype; others are left alone."""

    source: DType | None
    target: DType
    rounding: bool = False
    saturate: bool = False
    undoes: Cast | None = None
    """The cast whose inverse this is: inverting again gives that cast as it was written."""

    def acts_on(self, dtype: DType) -> bool:
        return dtype.is_float if self.source is None else dtype == self.source

    def result(self, dtype: DType) -> DType:
        if self.source is None:
            if dtype.is_float and not self.target.is_float:
                _possible(dtype, self.target, self.rounding)
            return self.target if dtype.is_float else dtype
        if dtype != self.source:
            raise refuse(
                f"the cast `{self.describe()}` meets {dtype}, not {self.source}",
                f"write `{dtype} {self._arrow} {self.target}`, or `float {self._arrow} {self.target}` for every floating dtype"
                if dtype.is_float
                else f"write `{dtype} {self._arrow} {self.target}`, or leave this tensor out of the cast",
            )
        _possible(dtype, self.target, self.rounding)
        return self.target

    def klass(self, dtype: DType) -> Class:
        return "rounding" if self.rounding and self.acts_on(dtype) else "exact"

    def inverse(self) -> Operator:
        if self.undoes is not None:
            return self.undoes
        if self.source is None:
            return Unchanged(self)
        return Cast(self.target, self.source, undoes=self)

    @property
    def _arrow(self) -> str:
        return "~>" if self.rounding else "->"

    def describe(self) -> str:
        text = f"{self.source or 'float'} {self._arrow} {self.target}"
        return f"{text} saturate" if self.saturate else text

    def is_identity(self, dtype: DType) -> bool:
        return not self.acts_on(dtype) or dtype == self.target

    def apply(
        self,
        array: np.ndarray[Any, Any],
        dtype: DType,
        *,
        out: np.ndarray[Any, Any] | None = None,
        changes: Changes | None = None,
    ) -> np.ndarray[Any, Any]:
        from isomorph.operators.casting import cast

        made = self.result(dtype)
        return cast(array, dtype, made, rounding=self.rounding, saturate=self.saturate, out=out, changes=changes)


@dataclass(frozen=True, slots=True)
class Unchanged(Operator):
    """The inverse of `float -> T`: dtypes stay as they are, for nothing says what they were."""

    undoes: Cast

    def result(self, dtype: DType) -> DType:
        return dtype

    def klass(self, dtype: DType) -> Class:
        return "exact"

    def inverse(self) -> Operator:
        return self.undoes

    def describe(self) -> str:
        return f"inverse of {self.undoes.describe()}: unchanged"

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

        bits = array.view(dtype.bits)
        if out is None:
            return np.array(bits, order="C", copy=True)
        out.reshape(-1)[...] = bits.reshape(-1)
        return out


def _possible(source: DType, target: DType, rounding: bool) -> None:
    """Refuse the casts that have no meaning: of opaque elements, and of complex numbers to real ones by rounding."""
    for dtype in (source, target):
        if dtype.kind == "opaque":
            raise refuse(f"{dtype} elements are carried bit for bit and never cast (`{source} -> {target}`)")
    if source.kind == "complex" and target.kind != "complex" and rounding:
        raise refuse(
            f"`{source} ~> {target}` would lose the imaginary parts, which is no rounding",
            f"write `{source} -> {target}`: it is checked that every imaginary part is 0",
        )
