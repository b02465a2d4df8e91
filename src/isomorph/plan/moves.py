"""Box, Fill, Move, Check: what a plan is made of. Elements, not bytes; row-major; sorted by target offset.

A Box is a strided set of elements of one tensor: element (i0, i1, …) lies at flat row-major index `offset + Σ ik * strides[k]`.
A Move fills one target box from sources of the same shape, index by index: `target[i] = operators(source[i])`, or, with several
sources, `operators(sum of each source after its own operators, left to right)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from isomorph.language.tree import Op
from isomorph.plan.made_often import made_often
from isomorph.tensors import DType

_RUN = (1,)
"""The strides of a box that is one run."""


@made_often(frozen=True, slots=True)
class Box:
    """A strided set of elements of `tensor`, in its row-major flat order. `shape` may hold zeros; () is one element."""

    tensor: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def is_run(self) -> bool:
        """True when the elements are one row-major run: flat indices offset, offset+1, …, in this order."""
        if len(self.shape) == 1:
            return self.strides[0] == 1 or self.shape[0] == 1
        return _is_run(self.shape, self.strides)


@lru_cache(maxsize=1 << 14)
def _is_run(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != step:
            return False
        step *= size
    return True


@dataclass(frozen=True, slots=True)
class Fill:
    """A box of one value (`value` a number, exact, or ±inf), or of 0, 1, 2, … along axis `arange` of `shape`. Of dtype `dtype`.

    For arange with offset/step (after a chain cut a part of it out): element i is `start + i[arange] * step`.
    """

    value: Fraction | float
    dtype: DType
    shape: tuple[int, ...]
    arange_strides: tuple[int, ...] | None = None
    """None: every element is `value`. Else element i is value + Σ ik * arange_strides[k] (integers)."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Sources of one shape, each made by its own operators, added left to right, then operated on: what `| sum` means."""

    sources: tuple[Source, ...]
    operators: tuple[Op, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sources[0].shape


@dataclass(frozen=True, slots=True)
class Along:
    """A box of what an operator along axes makes.

    `parts` fill the dense array [outer, *before] (their targets lie in it; its name is ""); the operator makes [outer, *after] of
    it; element (i0, i1, …) of the box lies at `offset + Σ ik * strides[k]` there.
    """

    parts: tuple[Move, ...]
    operator: Op
    outer: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


Source = Box | Fill | Mix | Along


@made_often(frozen=True, slots=True)
class Move:
    """One target box, and what fills it: `target[i] = operators(source[i])`."""

    target: Box
    source: Source
    operators: tuple[Op, ...] = ()

    @property
    def is_range(self) -> bool:
        """True when both boxes are one run of elements in the same order and nothing is computed: bytes can be copied undecoded."""
        source, target = self.source, self.target
        if self.operators or type(source) is not Box:
            return False
        if source.strides == target.strides == _RUN:  # nearly all: boxes are simplified
            return True
        if not source.is_run:
            return False
        return (target.shape == source.shape and target.strides == source.strides) or target.is_run


@dataclass(frozen=True, slots=True)
class Check:
    """What must hold in the values while converting.

    `tie`: `operators(source)` equals `expected` (a Box; in a chain it may be computed too) bit for bit. `constant`: it equals
    `expected` (a Fill) bit for bit. (Exact casts are checked inside the moves that make them.) `rule` is the index into
    `Plan.rules`, `names` the tensors as that rule names them (in a chain, not the sources), for messages.
    """

    kind: str
    source: Source
    expected: Source
    operators: tuple[Op, ...] = ()
    rule: int = -1
    names: tuple[str, ...] = ()


def names_of(source: Source) -> Iterator[str]:
    """The tensors a source reads."""
    if isinstance(source, Box):
        yield source.tensor
    elif isinstance(source, Mix):
        for inner in source.sources:
            yield from names_of(inner)
    elif isinstance(source, Along):
        for part in source.parts:
            yield from names_of(part.source)
