"""A tensor of any size -> its minimum, maximum, mean, deviation, and how many NaN, Inf and zeros; one slab in memory at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from isomorph.describe.boxes import Reads, View, as_values, slabs


@dataclass(frozen=True)
class Stats:
    """`minimum`, `maximum`, `mean`, `deviation` are over the finite elements, in f64; None where there is none or no order."""

    numel: int
    minimum: float | int | None
    maximum: float | int | None
    mean: float | None
    deviation: float | None
    nans: int
    infinities: int
    zeros: int

    def __str__(self) -> str:
        facts = []
        if self.minimum is not None and self.maximum is not None:
            facts += [f"min {number(self.minimum)}", f"max {number(self.maximum)}"]
        if self.mean is not None and self.deviation is not None:
            facts += [f"mean {number(self.mean)}", f"std {number(self.deviation)}"]
        facts += [f"NaN {self.nans:,}", f"Inf {self.infinities:,}", f"zero {self.zeros:,}"]
        return " · ".join(facts)

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)


def number(value: float | int) -> str:
    """Seven significant digits; integers whole."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.7g}"


def stats(checkpoint: Reads, name: str, box: View) -> Stats:
    """The statistics of a view of one tensor; of items of several elements only their number."""
    import numpy as np

    dtype = checkpoint.manifest[name].dtype
    if dtype.block:
        return Stats(box.numel, None, None, None, None, 0, 0, 0)
    low: float | int | None = None
    high: float | int | None = None
    total, squares, finite_count, nans, infinities, zeros = 0.0, 0.0, 0, 0, 0, 0
    shift: float | None = None
    for slab in slabs(box, max(dtype.nbytes, 8)):
        array = as_values(checkpoint.fetch(name, slab.offset, slab.shape, slab.strides), dtype).reshape(-1)
        if dtype.kind == "complex":
            with np.errstate(all="ignore"):
                nans += int(np.isnan(array).sum())
                infinities += int(np.isinf(array).sum())
            zeros += int((array == 0).sum())
            continue
        if dtype.kind in ("float",):
            wide = array.astype(np.float64)
            is_finite = np.isfinite(wide)
            if not is_finite.all():
                nans += int(np.isnan(wide).sum())
                infinities += int(np.isinf(wide).sum())
                wide = wide[is_finite]
        else:
            wide = array.astype(np.float64)
        zeros += int((wide == 0).sum())
        if not wide.size:
            continue
        exact = array if dtype.kind != "float" else wide
        lowest, highest = exact.min(), exact.max()
        slab_low = float(lowest) if dtype.kind == "float" else int(lowest)
        slab_high = float(highest) if dtype.kind == "float" else int(highest)
        low = slab_low if low is None else min(low, slab_low)
        high = slab_high if high is None else max(high, slab_high)
        if shift is None:
            shift = float(wide.flat[0])
        with np.errstate(over="ignore", invalid="ignore"):
            centred = wide - shift
            total += float(centred.sum())
            squares += float(np.square(centred, out=centred).sum())
        finite_count += wide.size
    if not finite_count:
        return Stats(box.numel, low, high, None, None, nans, infinities, zeros)
    assert shift is not None
    mean = total / finite_count
    variance = max(0.0, squares / finite_count - mean * mean)
    return Stats(box.numel, low, high, mean + shift, math.sqrt(variance), nans, infinities, zeros)
