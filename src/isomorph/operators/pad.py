"""`pad v -> u mean`: rows at the end of an embedding for tokens that are new, each the mean of the rows there were.

The notation pads with a constant by itself, `w [v d], 0 [pad d] <-> e [(v + pad) d]`, and cuts with `drop`; neither needs this.

What is computed, exactly: the sum, from 0 and by rising index, in f64, each sum rounded once; divided by how many there are in f64;
rounded once to the tensor's dtype. The rows that were there keep every bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.errors import Gap, MorphError
from isomorph.operators.base import AxisOperator, no_size, refuse
from isomorph.tensors import DType

if TYPE_CHECKING:
    import numpy as np

BLOCK = 1 << 18
"""Elements that are summed at a time."""


@dataclass(frozen=True, slots=True)
class Pad(AxisOperator):
    text: str

    def result(self, dtype: DType) -> DType:
        if dtype.kind != "float":
            raise refuse(f"`pad` meets {dtype}; a mean is taken of real floating dtypes only")
        return dtype

    def describe(self) -> str:
        return self.text

    def check(self, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        if after[0] < before[0]:
            hint = "to cut rows off:  e [(v + cut) d] <-> w [v d], drop [cut d]"
            raise no_size(f"`{self.text}` makes {after[0]} rows of {before[0]}: that is no padding", hint)
        if before[0] == 0 and after[0]:
            raise no_size(f"`{self.text}`: of no rows there is no mean")

    def copied(self, before: tuple[int, ...], after: tuple[int, ...]) -> int:
        return before[0]

    def example(self, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (max(1, min(before[0], after[0] - 1)),), after

    def along(self, array: np.ndarray[Any, Any], dtype: DType, after: tuple[int, ...]) -> np.ndarray[Any, Any]:
        import numpy as np

        from isomorph.operators.rounding import from_f64, in_f64

        others, count = array.shape
        total = np.zeros(others)
        step = max(1, BLOCK // max(1, others))
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, count, step):
                rows = in_f64(array[:, start : start + step].T, dtype, self.text)
                rows[0] += total  # 0 + x, or what there is so far + x: either way the order of the sum
                total = np.add.accumulate(rows, axis=0)[-1]
            mean = from_f64(total / count, dtype, self.text)
        made = np.empty((others, after[0]), dtype.bits)
        made[:, :count] = array.view(dtype.bits)
        made[:, count:] = mean[:, None]
        return made


def make_pad(arguments: tuple[str, ...], takes: tuple[str, ...], makes: tuple[str, ...]) -> Pad:
    """Raises MorphError (kind `syntax`) where the arguments are others than `mean`."""
    written = f"pad {' '.join(takes)} -> {' '.join(makes)}"
    if arguments != ("mean",):
        found = f"not `{' '.join(arguments)}`" if arguments else "and does not say so"
        hint = f"{written} mean;  a constant needs no operator:  w [v d], 0 [pad d] <-> e [(v + pad) d]"
        raise MorphError([Gap("syntax", f"`pad` fills with the mean of the rows, {found}", hint=hint)])
    if len(takes) != 1 or "1" in makes:
        raise MorphError([Gap("syntax", f"`{written}`: rows lie along one axis", hint="pad v -> u mean")])
    return Pad(f"{written} mean")
