"""Two checkpoints -> what differs: names, dtypes, shapes, and, when asked, every element, bit for bit, streaming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from isomorph.describe.boxes import Reads, as_values, row_major, slabs, view
from isomorph.describe.folding import fold_lines
from isomorph.describe.stats import number
from isomorph.describe.text import count, escaped, natural
from isomorph.tensors import DType, Manifest, TensorSpec


@dataclass(frozen=True)
class ValueDifference:
    """How the elements of one tensor differ between two checkpoints.

    `first` is the row-major index of the first element whose bits differ; `largest` the largest absolute difference of two finite
    numbers (None where there is none, as between NaNs of different bits).
    """

    name: str
    spec: TensorSpec
    different: int
    first: tuple[int, ...]
    left: str
    right: str
    largest: float | None

    def __str__(self) -> str:
        largest = "" if self.largest is None else f", by at most {number(self.largest)}"
        return (
            f"{escaped(self.name)} {self.spec.shown}: {self.different:,} of {count(self.spec.numel, 'element')} differ{largest}"
            f"; first at {list(self.first)}: {self.left} and {self.right}"
        )


@dataclass(frozen=True)
class Difference:
    """What differs between checkpoints `left` and `right`. `compared` counts elements; it is 0 when values were not asked for."""

    only_left: tuple[str, ...]
    only_right: tuple[str, ...]
    specs: tuple[tuple[str, TensorSpec, TensorSpec], ...]
    values: tuple[ValueDifference, ...]
    same: int
    compared: int
    with_values: bool
    left: Manifest
    right: Manifest

    @property
    def is_empty(self) -> bool:
        return not (self.only_left or self.only_right or self.specs or self.values)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        said = {
            "-": [(name, self.left[name].shown) for name in self.only_left],
            "+": [(name, self.right[name].shown) for name in self.only_right],
            "!": [(name, f"{left.shown} and {right.shown}") for name, left, right in self.specs],
        }
        for mark, found in said.items():
            for name, what, times in fold_lines(found):
                yield f"{mark} {escaped(name)}  {what}" + (f"  × {times:,}" if times > 1 else "")
        for difference in self.values:
            yield f"~ {difference}"
        what = "names, shapes, dtypes and every element" if self.with_values else "names, shapes and dtypes"
        compared = f" · {count(self.compared, 'element')} compared, bit for bit" if self.with_values else ""
        if self.is_empty:
            yield f"equal: {count(self.same, 'tensor')}, {what}{compared}"
            return
        facts = [
            f"{len(self.only_left):,} only in the first" if self.only_left else "",
            f"{len(self.only_right):,} only in the second" if self.only_right else "",
            f"{len(self.specs):,} of another shape or dtype" if self.specs else "",
            f"{len(self.values):,} with other values" if self.values else "",
        ]
        yield f"different: {', '.join(filter(None, facts))}; {self.same:,} the same{compared}"

    def to_json(self) -> dict[str, Any]:
        return {
            "equal": self.is_empty,
            "only_in_first": list(self.only_left),
            "only_in_second": list(self.only_right),
            "specs": [{"name": name, "first": str(left), "second": str(right)} for name, left, right in self.specs],
            "values": [
                {
                    "name": one.name,
                    "different": one.different,
                    "elements": one.spec.numel,
                    "first": list(one.first),
                    "largest": one.largest,
                    "values": [one.left, one.right],
                }
                for one in self.values
            ],
            "same": self.same,
            "elements_compared": self.compared,
        }


def diff(
    left: Reads, right: Reads, *, with_values: bool = False, progress: Callable[[int, int], None] | None = None
) -> Difference:
    """Compare two checkpoints name by name. Elements are compared where dtype and shape agree."""
    both = [name for name in left.manifest if name in right.manifest]
    specs = [
        (name, left.manifest[name], right.manifest[name])
        for name in both
        if left.manifest[name] != right.manifest[name]
    ]
    agreeing = [name for name in both if left.manifest[name] == right.manifest[name]]
    found: list[ValueDifference] = []
    compared, done = 0, 0
    total = sum(left.manifest[name].nbytes for name in agreeing)
    if with_values:
        for name in agreeing:
            difference = _diff_values(left, right, name)
            if difference is not None:
                found.append(difference)
            compared += left.manifest[name].numel
            done += left.manifest[name].nbytes
            if progress is not None:
                progress(done, total)
    return Difference(
        only_left=tuple(sorted((name for name in left.manifest if name not in right.manifest), key=natural)),
        only_right=tuple(sorted((name for name in right.manifest if name not in left.manifest), key=natural)),
        specs=tuple(sorted(specs, key=lambda one: natural(one[0]))),
        values=tuple(sorted(found, key=lambda one: natural(one.name))),
        same=len(agreeing) - len(found),
        compared=compared,
        with_values=with_values,
        left=left.manifest,
        right=right.manifest,
    )


def _diff_values(left: Reads, right: Reads, name: str) -> ValueDifference | None:
    import numpy as np

    spec = left.manifest[name]
    different, largest, first, shown = 0, None, None, ("", "")
    for slab in slabs(view(spec.shape, ...), spec.dtype.nbytes):
        a = np.ascontiguousarray(left.fetch(name, slab.offset, slab.shape, slab.strides)).reshape(-1)
        b = np.ascontiguousarray(right.fetch(name, slab.offset, slab.shape, slab.strides)).reshape(-1)
        unequal = np.flatnonzero(a != b)
        if not unequal.size:
            continue
        x, y = as_values(a[unequal], spec.dtype), as_values(b[unequal], spec.dtype)
        if first is None:
            first = slab.offset + int(unequal[0])
            shown = (_element(x[0], a[unequal[0]], spec.dtype), _element(y[0], b[unequal[0]], spec.dtype))
        different += unequal.size
        here = _largest(x, y, spec.dtype)
        largest = here if largest is None else largest if here is None else max(largest, here)
    if first is None:
        return None
    index = []
    for stride in row_major(spec.shape):
        at, first = divmod(first, stride)
        index.append(at)
    return ValueDifference(name, spec, different, tuple(index), shown[0], shown[1], largest)


def _largest(x: Any, y: Any, dtype: DType) -> float | None:
    import numpy as np

    if dtype.kind in ("opaque",):
        return None
    kind = np.complex128 if dtype.kind == "complex" else np.float64
    with np.errstate(all="ignore"):
        distance = np.abs(x.astype(kind) - y.astype(kind))
    distance = distance[np.isfinite(distance)]
    return float(distance.max()) if distance.size else None


def _element(value: Any, bits: Any, dtype: DType) -> str:
    """The value, with its bits where the value alone does not tell two apart (NaN)."""
    if dtype.block:
        return f"0x{value.tobytes().hex()}"
    text = str(value)
    return f"{text} (bits 0x{int(bits):0{2 * dtype.nbytes}x})" if text == "nan" and bits.dtype.kind == "u" else text
