"""Conversions for the tests of inference: a source made on the spot, a function from its arrays to the target's, and the truth.

The truth is the same function run on arrays whose elements are their own numbers (u64, from 1, counted through the whole source):
what stands in the target then says where each element comes from; 0 is a constant, `UNMADE` what the source does not hold.
Tensors that a source holds twice have the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

NUMBERED = np.dtype(np.uint64)
UNMADE = np.uint64(1 << 63)
BF16 = np.dtype(ml_dtypes.bfloat16)

Weights = Literal["trained", "fresh", "numbers"]
"""`fresh` as a library initialises: norms 1, biases 0. `numbers`: each element its own."""


class Maker:
    """Makes the tensors of a source, in order."""

    def __init__(self, weights: Weights, seed: int = 0, dtype: Any = np.float32) -> None:
        self.weights, self.dtype = weights, np.dtype(dtype)
        self.random = np.random.default_rng(seed)
        self.count = 1

    def w(self, *shape: int) -> Array:
        """A weight: normal, of standard deviation 0.02 … as it is initialised and nearly as it is trained."""
        return self._made(shape, lambda: 0.02 * self.random.standard_normal(shape))

    def norm(self, *shape: int) -> Array:
        """The scale of a norm: 1 as it is initialised."""
        return self._made(shape, lambda: 1 + 0.3 * self.random.standard_normal(shape), fresh=1)

    def b(self, *shape: int) -> Array:
        """A bias: 0 as it is initialised."""
        return self._made(shape, lambda: 0.1 * self.random.standard_normal(shape), fresh=0)

    def positive(self, *shape: int) -> Array:
        """A running variance: positive, 1 as it is initialised."""
        return self._made(shape, lambda: self.random.uniform(0.2, 2, shape), fresh=1)

    def given(self, array: Array) -> Array:
        """A buffer whose values are what they are."""
        return self._numbers(array.shape) if self.weights == "numbers" else array

    def _made(self, shape: tuple[int, ...], trained: Callable[[], Any], fresh: float | None = None) -> Array:
        if self.weights == "numbers":
            return self._numbers(shape)
        if self.weights == "fresh" and fresh is not None:
            return np.full(shape, fresh, self.dtype)
        return np.asarray(trained()).astype(self.dtype)

    def _numbers(self, shape: tuple[int, ...]) -> Array:
        size = int(np.prod(shape, dtype=np.int64))
        first, self.count = self.count, self.count + size
        return np.arange(first, first + size, dtype=NUMBERED).reshape(shape)


def is_numbers(array: Array) -> bool:
    """Whether these are numbers of elements and no values."""
    return bool(array.dtype == NUMBERED)


def changed(array: Array, change: Callable[[Array], Array]) -> Array:
    """A change of the values alone."""
    return array if is_numbers(array) else change(array)


def cast(array: Array, dtype: Any) -> Array:
    """The array in another dtype."""
    return changed(array, lambda values: values.astype(dtype))


def full(shape: Sequence[int], value: float, like: Array) -> Array:
    """A constant, of the dtype of `like`."""
    return np.full(tuple(shape), 0 if is_numbers(like) else value, like.dtype)


def unmade(shape: Sequence[int], like: Array, seed: int = 99) -> Array:
    """Values that no source holds."""
    if is_numbers(like):
        return np.full(tuple(shape), UNMADE, NUMBERED)
    return np.random.default_rng(seed).standard_normal(tuple(shape)).astype(like.dtype)


def buffer(array: Array, like: Array) -> Array:
    """A buffer that the target has by itself: what a program may well make as a constant."""
    return np.zeros(array.shape, NUMBERED) if is_numbers(like) else array


@dataclass(frozen=True)
class Example:
    """Two checkpoints that hold one model's weights, and where each element of the target comes from."""

    name: str
    source: Arrays
    target: Arrays
    numbers: Arrays
    truth: Arrays
    again: tuple[Arrays, Arrays] | None = None
    """Other weights through the same conversion: what was found must hold for them too."""
    configs: tuple[Mapping[str, object] | None, Mapping[str, object] | None] = (None, None)
    hand_lines: int | None = None
    whole: bool = True
    """Whether values decide everything: then what is written must give the target bit for bit."""
    telling: bool = True
    """Whether names say what was done. Where a script exchanged two layers, or the weights were trained further, none can."""

    @cached_property
    def unmade(self) -> frozenset[str]:
        """Targets of which some element is nowhere in the source."""
        return frozenset(name for name, numbers in self.truth.items() if (numbers == UNMADE).any())

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Conversion:
    """A conversion as a practitioner writes it: `convert` takes and gives arrays by name."""

    name: str
    make: Callable[[Maker], Arrays]
    convert: Callable[[Arrays], Arrays]
    dtype: Any = np.float32
    config: Mapping[str, object] | None = None
    whole: bool = True
    weights: Weights = "trained"
    telling: bool = True

    def __str__(self) -> str:
        return self.name

    def example(self, weights: Weights | None = None, seed: int = 0) -> Example:
        """The checkpoints, with these weights."""
        source = self.make(Maker(weights or self.weights, seed, self.dtype))
        other = self.make(Maker("trained", seed + 1, self.dtype))
        numbers = self.make(Maker("numbers"))
        return Example(
            self.name if weights is None or weights == self.weights else f"{self.name} ({weights})",
            source,
            self.convert(dict(source)),
            numbers,
            self.convert(dict(numbers)),
            (other, self.convert(dict(other))) if self.whole else None,
            (self.config, None),
            whole=self.whole,
            telling=self.telling,
        )


def layers(count: int, first: int = 0) -> range:
    """The numbers of so many layers."""
    return range(first, first + count)


__all__ = [
    "BF16",
    "NUMBERED",
    "UNMADE",
    "Array",
    "Arrays",
    "Conversion",
    "Example",
    "Maker",
    "Weights",
    "buffer",
    "cast",
    "changed",
    "full",
    "is_numbers",
    "layers",
    "unmade",
]
