"""`resize n -> m timm`: position embeddings on a grid of another size, by bicubic interpolation.

    resize n -> m        n and m are square grids, written as one axis
    resize h w -> y x    any two grids, row by row

A class token is no part of the grid: `[1 (1 + n) d] -> [1 (1 + m) d]` leaves the block `[d]` alone.

Two vintages, which differ where a grid becomes smaller or larger:

    timm            `resample_abs_pos_embed`: antialias, the kernel of a = -1/2, widened where the grid shrinks; weights sum to 1
    transformers    `interpolate_pos_encoding`: no antialias, the kernel of a = -3/4, the border repeated

What is computed, exactly. A position is (i + 1/2) * before/after - 1/2; weights are rational numbers, those of taps on the same
index are added, and each is rounded once to f64. Along the last axis first, then along the first: the sum, from 0 and by rising
index, of weight times value in f64, each product and each sum rounded once. The result is rounded once to the tensor's dtype. Two
programs that keep to this give the same bits. A grid of the same size is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import TYPE_CHECKING, Any

from isomorph.errors import Gap, MorphError
from isomorph.operators.base import AxisOperator, no_size, refuse
from isomorph.tensors import DType

if TYPE_CHECKING:
    import numpy as np

VINTAGES = ("timm", "transformers")
MOST = 1 << 15
"""A grid is no longer than this along an axis."""


@dataclass(frozen=True, slots=True)
class Resize(AxisOperator):
    """`axes` is 1 for square grids written as one axis, 2 for rows and columns."""

    antialias: bool
    axes: int
    text: str

    def result(self, dtype: DType) -> DType:
        if dtype.kind != "float":
            raise refuse(f"`resize` meets {dtype}; it acts on real floating dtypes only")
        return dtype

    def describe(self) -> str:
        return self.text

    def check(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        if before == after:
            return
        for sizes, what in ((before, "read"), (after, "made")):
            if self.axes == 1 and isqrt(sizes[0]) ** 2 != sizes[0]:
                raise no_size(
                    f"`{self.text}`: {sizes[0]} positions are no square grid ({what})",
                    "class tokens stand apart, [1 (1 + n) d]; a grid that is no square is two axes:  resize h w -> y x",
                )
            if 0 in sizes:
                raise no_size(f"`{self.text}`: a grid of {' × '.join(map(str, sizes))} positions ({what})")
            if max(grid(sizes)) > MOST:
                raise no_size(
                    f"`{self.text}`: a grid of {' × '.join(map(str, grid(sizes)))} is larger than any model's"
                )

    def copied(self, before: tuple[int, ...], after: tuple[int, ...]) -> int:
        return before[0] if before == after else 0

    def example(self, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        if self.axes == 2:
            return before, after
        one, other = (
            size if isqrt(size) ** 2 == size and size > 1 else min(size, 7) ** 2 for size in (*before, *after)
        )
        return (one,), (other,)

    def along(self, array: np.ndarray[Any, Any], dtype: DType, after: tuple[int, ...]) -> np.ndarray[Any, Any]:
        import numpy as np

        from isomorph.operators.rounding import from_f64, in_f64

        others = array.shape[0]
        rows, columns = grid(array.shape[1:])
        new_rows, new_columns = grid(after)
        flat = np.ascontiguousarray(
            array.reshape(others, rows, columns).transpose(2, 1, 0)
        )  # what is added lies together
        values = in_f64(flat, dtype, self.text)
        with np.errstate(over="ignore", invalid="ignore"):
            wide = np.zeros((rows, new_columns, others))
            for column, taps in enumerate(weights(columns, new_columns, self.antialias)):
                for index, weight in taps:
                    wide[:, column] += values[index] * weight
            made = np.zeros((new_rows, new_columns, others))
            for row, taps in enumerate(weights(rows, new_rows, self.antialias)):
                for index, weight in taps:
                    made[row] += wide[index] * weight
        bits = from_f64(made, dtype, self.text).reshape(-1, others)
        return np.ascontiguousarray(bits.T).reshape(others, *after)


def grid(sizes: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns)."""
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    side = isqrt(sizes[0])
    return side, side


def make_resize(arguments: tuple[str, ...], takes: tuple[str, ...], makes: tuple[str, ...]) -> Resize:
    """Raises MorphError (kind `syntax`) where the arguments are others than one of the two vintages."""
    written = f"resize {' '.join(takes)} -> {' '.join(makes)}"
    if len(arguments) != 1 or arguments[0] not in VINTAGES:
        found = f"not `{' '.join(arguments)}`" if arguments else "and does not say it"
        hint = (
            f"{written} timm (antialias) or  {written} transformers (none): they differ, so that the morph says which"
        )
        raise MorphError([Gap("syntax", f"`resize` interpolates as timm or as transformers, {found}", hint=hint)])
    if len(takes) > 2 or "1" in makes:
        hint = "resize n -> m  for square grids, or  resize h w -> y x"
        raise MorphError([Gap("syntax", f"`{written}`: a grid is one axis or two", hint=hint)])
    return Resize(arguments[0] == "timm", len(takes), f"{written} {arguments[0]}")


# ── weights ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@lru_cache(maxsize=256)
def weights(before: int, after: int, antialias: bool) -> tuple[tuple[tuple[int, float], ...], ...]:
    """For each index that is made: (index that is read, weight), by rising index; weights of 0 are left out."""
    return tuple(
        _widened(index, before, after) if antialias else _plain(index, before, after) for index in range(after)
    )


def _plain(index: int, before: int, after: int) -> tuple[tuple[int, float], ...]:
    """Four taps around ((2 index + 1) before - after) / (2 after), the border repeated. In whole numbers of 1/den."""
    num, den = (2 * index + 1) * before - after, 2 * after
    first, rest = divmod(num, den)
    found: dict[int, int] = {}
    for tap in range(-1, 3):
        at = min(max(first + tap, 0), before - 1)
        found[at] = found.get(at, 0) + _cubic(abs(tap * den - rest), den, 3)
    return tuple((at, weight / (4 * den**3)) for at, weight in sorted(found.items()) if weight)


def _widened(index: int, before: int, after: int) -> tuple[tuple[int, float], ...]:
    """The taps within 2 * max(1, before/after) of the middle, the kernel stretched over them; they are divided by their sum."""
    wide = max(before, after)
    # in units of 1 / (2 after): the middle lies at (2 index + 1) before, an index i at (2 i + 1) after, the reach is 4 wide
    middle, den = (2 * index + 1) * before, 2 * wide
    first = max(0, (middle - 4 * wide + after) // (2 * after))
    last = min(before, (middle + 4 * wide + after) // (2 * after))
    found = {at: _cubic(abs((2 * at + 1) * after - middle), den, 2) for at in range(first, last)}
    total = sum(found.values())
    return tuple((at, weight / total) for at, weight in found.items() if weight)


def _cubic(num: int, den: int, quarters: int) -> int:
    """4 den³ times the cubic convolution kernel of a = -quarters/4 at num/den >= 0."""
    a = -quarters
    if num < den:
        return (a + 8) * num**3 - (a + 12) * num**2 * den + 4 * den**3
    if num < 2 * den:
        return a * (num**3 - 5 * num**2 * den + 8 * num * den**2 - 4 * den**3)
    return 0
