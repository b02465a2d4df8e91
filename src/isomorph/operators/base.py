"""Operator: what every value operator is. Most act element by element, and the layout is none of their business.

operator.result(dtype)   the dtype it makes of `dtype`         raises MorphError, kind `cast`, where it makes nothing of it
operator.klass(dtype)    exact | rounding | one-way
operator.inverse()       the operator read backward
operator.apply(array, dtype)   the elements, as bits of `dtype` -> bits of `result(dtype)`

An AxisOperator (`resize n -> m`) takes whole axes instead, and makes others in their place: `along` in the place of `apply`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from isomorph.errors import CheckError, Gap, MorphError
from isomorph.tensors import DType

if TYPE_CHECKING:
    import numpy as np

Class = Literal["exact", "rounding", "one-way"]
TILE = 1 << 16
"""Elements that a kernel works on at a time: with their scratch they stay in the second-level cache."""


@runtime_checkable
class OpLike(Protocol):
    """What the language writes down of an operator (`language.tree.Op`): plain data."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str | None: ...
    @property
    def target(self) -> str | None: ...
    @property
    def rounding(self) -> bool: ...
    @property
    def saturate(self) -> bool: ...
    @property
    def number(self) -> str | None: ...
    @property
    def arguments(self) -> tuple[str, ...]: ...
    @property
    def takes(self) -> tuple[str, ...]: ...
    @property
    def makes(self) -> tuple[str, ...]: ...
    @property
    def inverted(self) -> bool: ...


@dataclass(slots=True)
class Changes:
    """What rounding casts did: of `elements` seen, `changed` have another value now, none by more than `largest` (absolute)."""

    elements: int = 0
    changed: int = 0
    largest: float = 0.0

    def add(self, other: Changes) -> None:
        self.elements += other.elements
        self.changed += other.changed
        self.largest = max(self.largest, other.largest)


class ElementError(CheckError):
    """A value that an operator refuses: an exact cast that would round, an overflow.

    `index` is the flat row-major index into the array that was given; who knows the tensor says which element that is.
    """

    def __init__(self, index: int, problem: str, hint: str | None = None) -> None:
        self.index = index
        self.problem = problem
        self.hint = hint
        super().__init__([Gap("cast", f"element {index}: {problem}", hint=hint)])


def refuse(problem: str, hint: str | None = None) -> MorphError:
    """The error of an operator that meets a dtype it makes nothing of. Who knows the tensor and the rule adds them."""
    return MorphError([Gap("cast", problem, hint=hint)])


class Operator(ABC):
    """One value operator. Immutable; equal when it does the same."""

    @abstractmethod
    def result(self, dtype: DType) -> DType:
        """The dtype of the result. Raises MorphError (one gap, kind `cast`, that names the dtypes) where there is none."""

    @abstractmethod
    def klass(self, dtype: DType) -> Class:
        """`exact`: the inverse gives back every bit, or it is an error. `rounding`: values may round. `one-way`: no inverse."""

    @abstractmethod
    def inverse(self) -> Operator:
        """The operator read backward. Raises MorphError where there is none."""

    @abstractmethod
    def describe(self) -> str:
        """As the notation writes it, or nearly."""

    @abstractmethod
    def apply(
        self,
        array: np.ndarray[Any, Any],
        dtype: DType,
        *,
        out: np.ndarray[Any, Any] | None = None,
        changes: Changes | None = None,
    ) -> np.ndarray[Any, Any]:
        """The result as `result(dtype).bits`, in the array's shape, contiguous.

        `array` holds elements of `dtype` under any numpy dtype of that width (their bits, or their values) and is left as it is.
        `out`: a contiguous array of `result(dtype).bits` and as many elements, which is filled and returned.
        `changes` counts what rounding casts change.
        Raises ElementError.
        """

    def is_identity(self, dtype: DType) -> bool:
        """True when every element of `dtype` keeps every bit, so that the operator may be left out."""
        return False

    def __str__(self) -> str:
        return self.describe()


class AxisOperator(Operator):
    """An operator along axes. It sees nothing but them: all other axes of a block are one, the first, and each index of that is
    worked on by itself.
    """

    @abstractmethod
    def along(self, array: np.ndarray[Any, Any], dtype: DType, after: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """[others, *before] bits of `dtype` -> [others, *after] bits of `result(dtype)`, contiguous.

        Raises ElementError; its index says nothing then, its words say what is wrong.
        """

    def check(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        """Raise MorphError (one gap, kind `size`) where these sizes have no meaning. Nothing is read yet."""

    def copied(self, before: tuple[int, ...], after: tuple[int, ...]) -> int:
        """How many leading indices of its first axis come out as they went in, every bit of them: those are never computed."""
        return 0

    def example(self, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes near these that have a meaning, for a checkpoint that is made up to try a morph on."""
        return before, after

    def klass(self, dtype: DType) -> Class:
        return "one-way"

    def inverse(self) -> Operator:
        raise refuse(f"`{self.describe()}` cannot be read backward", "write the rule with `->`")

    def apply(
        self,
        array: np.ndarray[Any, Any],
        dtype: DType,
        *,
        out: np.ndarray[Any, Any] | None = None,
        changes: Changes | None = None,
    ) -> np.ndarray[Any, Any]:
        raise TypeError(f"`{self.describe()}` acts along axes")


def no_size(problem: str, hint: str | None = None) -> MorphError:
    """The error of an operator whose axes have sizes it can do nothing with."""
    return MorphError([Gap("size", problem, hint=hint)])
