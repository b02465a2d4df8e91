"""max_memory -> how much is made at a time. What is held never depends on the checkpoint, only on the budget."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from isomorph.engine.evaluate import acting
from isomorph.errors import UsageError
from isomorph.plan.moves import Along, Box, Fill, Move, Source
from isomorph.tensors import DType

LEAST = 4 << 20
"""A budget below this is refused: buffers and tiles need it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """`nbytes` for everything that is held at a time: buffers being read, made and written."""

    nbytes: int = 256 << 20

    def __post_init__(self) -> None:
        if self.nbytes < LEAST:
            raise UsageError(f"the memory budget is {self.nbytes} bytes; give at least {LEAST} (4 MiB)")

    @property
    def chunk(self) -> int:
        """The bytes of an ordinary piece: a large copy is made of such."""
        return min(1 << 20, self.nbytes // 8)

    @property
    def least_elements(self) -> int:
        return 1 << 12

    def elements(self, weight: int, streaming: bool) -> int:
        """How many elements are made at a time, where each takes `weight` bytes.

        Streaming (the source is read in the order in which it is written): little suffices. Otherwise a larger band reads the
        source with fewer gaps; two bands fit the budget, so that one is made while the other is written.
        """
        share = min(self.nbytes // 3, 6 << 20) if streaming else self.nbytes // 3
        return max(self.least_elements, share // max(1, weight))

    def weight(self, move: Move, itemsize: int, dtype: DType) -> int:
        """Bytes held for each element while `move` is carried out; `dtype` is that of its source."""
        steps = sum(operator.result(met).nbytes for operator, met in acting(move.operators, dtype)[0])
        return itemsize + steps + _weight(move.source, dtype)

    def streams(self, move: Move) -> bool:
        """True when the source is read in the order in which the target is written."""
        return _in_order(move.target, move.source)


def _weight(source: Source, dtype: DType) -> int:
    if isinstance(source, Box):
        return 2 * dtype.nbytes  # a box is read with what lies in its gaps, at most as much again
    if isinstance(source, Fill):
        return 0 if source.arange_strides is None else 16 + dtype.nbytes
    if isinstance(source, Along):
        return 2 * dtype.nbytes  # what is worked on at a time is bounded by itself
    return 2 * dtype.nbytes + max(_weight(each, dtype) for each in source.sources)


def _in_order(target: Box, source: Source) -> bool:
    if isinstance(source, Fill):
        return True
    if isinstance(source, Along):
        return False  # the larger the band, the less often the operator is carried out
    if not isinstance(source, Box):
        return all(_in_order(target, each) for each in source.sources)
    axes = sorted(
        (axis for axis, size in enumerate(target.shape) if size > 1), key=lambda axis: -abs(target.strides[axis])
    )
    steps = [abs(source.strides[axis]) for axis in axes]
    return all(before >= after for before, after in pairwise(steps))
