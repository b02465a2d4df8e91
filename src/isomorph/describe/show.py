"""One tensor, or a slice of it, as `isomorph show` shows it: the values, then what can be counted."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from isomorph.describe.boxes import Reads, View, find, values
from isomorph.describe.stats import Stats, stats
from isomorph.describe.text import bytes_text, count, escaped
from isomorph.tensors import TensorSpec

EDGE = 3
"""How many elements are shown at each end of an axis that is not shown whole."""
WHOLE = 1000
"""A view of at most this many elements is shown whole."""


@dataclass(frozen=True)
class Shown:
    """A view of one tensor with its statistics. `text` holds the values, with `...` where some are left out."""

    name: str
    written: str
    spec: TensorSpec
    shape: tuple[int, ...]
    text: str
    stats: Stats
    elements: Any = None

    def __str__(self) -> str:
        head = f"{escaped(self.name)}  {self.spec.shown}  {bytes_text(self.spec.nbytes)}"
        if self.written:
            head += f"   showing {escaped(self.written)}: [{' '.join(map(str, self.shape))}]"
        kind = self.spec.dtype
        if kind.block:
            box = " by ".join(map(str, kind.block))
            foot = f"{count(self.stats.numel, 'item')} of {box} elements in {count(kind.nbytes, 'byte')}, as bytes in hexadecimal"
        else:
            foot = f"{count(self.stats.numel, 'element')} · {self.stats}"
        return "\n".join([head, self.text, foot])

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": str(self.spec.dtype),
            "tensor_shape": list(self.spec.shape),
            "slice": self.written,
            "shape": list(self.shape),
            "values": self.elements,
            "stats": self.stats.to_json(),
        }


def show(checkpoint: Reads, text: str) -> Shown:
    """Look at `NAME` or `NAME[slice]`. Raises UsageError when there is no such tensor or the slice does not fit."""

    name, box, written = find(checkpoint.manifest, text)
    spec = checkpoint.manifest[name]
    small = box.numel <= WHOLE
    found = values(checkpoint, name, box) if small else None
    if found is not None and spec.dtype.block:
        elements = _items(found)
    else:
        elements = None if found is None else _plain(found, spec.dtype.kind)
    return Shown(
        name, written, spec, box.shape, _printed(checkpoint, name, box), stats(checkpoint, name, box), elements
    )


def _printed(checkpoint: Reads, name: str, box: View) -> str:
    """The values as numpy prints them; of a large view only its edges are read."""
    import numpy as np

    spec = checkpoint.manifest[name]
    formats: Any = {"all": _short_hexadecimal} if spec.dtype.block else None
    with np.printoptions(threshold=WHOLE, edgeitems=EDGE, linewidth=120, precision=8, formatter=formats):
        if box.numel <= WHOLE:
            return str(values(checkpoint, name, box))
        shape, strides, picks = [], [], []
        for size, stride in zip(box.shape, box.strides, strict=True):
            cut = size > 2 * EDGE + 1
            shape.append(size)
            strides.append(stride)
            picks.append([*range(EDGE + 1), *range(size - EDGE, size)] if cut else list(range(size)))
        if math.prod(map(len, picks)) > 4 * WHOLE:
            return _printed(checkpoint, name, View(box.offset, (EDGE,), (1,)))[:-1] + " ...]"
        corner = np.empty([len(pick) for pick in picks], dtype=spec.dtype.numpy)
        for at in np.ndindex(*[len(pick) for pick in picks[:-1]]):
            base = box.offset + sum(picks[axis][one] * strides[axis] for axis, one in enumerate(at))
            for start, stop in _runs(picks[-1]):
                run = View(base + picks[-1][start] * strides[-1], (stop - start,), (strides[-1],))
                corner[at][start:stop] = values(checkpoint, name, run)
        corner = np.flip(corner, box.flipped) if box.flipped else corner
        with np.printoptions(threshold=0, formatter=formats):
            return str(corner)


def _items(array: Any) -> Any:
    """Nested lists of the items' bytes in hexadecimal."""
    return [_items(one) for one in array] if array.ndim else array.tobytes().hex()


def _short_hexadecimal(item: Any) -> str:
    text: str = item.tobytes().hex()
    return text if len(text) <= 16 else f"{text[:12]}…"


def _runs(picks: list[int]) -> list[tuple[int, int]]:
    cuts = [0, *(at for at in range(1, len(picks)) if picks[at] != picks[at - 1] + 1), len(picks)]
    return list(itertools.pairwise(cuts))


def _plain(array: Any, kind: str) -> Any:
    """Nested lists of numbers that JSON can hold: NaN and infinities, and complex numbers, as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(one) for one in value]
        if isinstance(value, complex):
            return str(value)
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value

    import numpy as np

    return plain(array.astype(np.float64).tolist() if kind == "float" else array.tolist())
