"""NAME[0:3, :5] -> a strided box of one tensor, and its elements slab by slab within a budget of bytes."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from isomorph.errors import UsageError, near_misses, whole_line
from isomorph.tensors import DType, Manifest, TensorSpec

if TYPE_CHECKING:
    import numpy as np

SLAB_NBYTES = 4 << 20


class Reads(Protocol):
    """What is needed of a checkpoint here: its manifest, and elements by offset, shape and strides."""

    @property
    def manifest(self) -> Manifest: ...

    def fetch(
        self, name: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> np.ndarray[Any, Any]: ...


@dataclass(frozen=True)
class View:
    """Elements `offset + Σ ik * strides[k]` of one tensor (row-major, strides positive); `flipped` axes are then reversed."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    flipped: tuple[int, ...] = ()

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a row-major tensor of this shape."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def view(shape: tuple[int, ...], key: object = ()) -> View:
    """Basic indexing (integers, slices, `...`) of a tensor of this shape, as numpy means it.

    Raises IndexError for an index out of range or too many of them, TypeError for anything else than basic indexing.
    """
    keys = list(key) if isinstance(key, tuple) else [key]
    if any(
        one is None
        or isinstance(one, bool)
        or not (isinstance(one, slice) or one is Ellipsis or hasattr(one, "__index__"))
        for one in keys
    ):
        raise TypeError(
            "a lazy tensor takes integers, slices and `...`; for anything else read it first: numpy.asarray(tensor)[...]"
        )
    dots = [at for at, one in enumerate(keys) if one is Ellipsis]
    if len(dots) > 1:
        raise IndexError("`...` stands in an index more than once")
    if len(keys) - len(dots) > len(shape):
        given = len(keys) - len(dots)
        words = f"{given} {'index' if given == 1 else 'indices'} for a tensor of {len(shape)}"
        raise IndexError(f"{words} {'axis' if len(shape) == 1 else 'axes'}, [{' '.join(map(str, shape))}]")
    at = dots[0] if dots else len(keys)
    rest = len(shape) - (len(keys) - len(dots))
    keys[at : at + len(dots)] = [slice(None)] * rest
    offset = 0
    sizes: list[int] = []
    steps: list[int] = []
    flipped: list[int] = []
    for axis, (one, size, stride) in enumerate(zip(keys, shape, row_major(shape), strict=True)):
        if isinstance(one, slice):
            if one.step is not None and operator.index(one.step) == 0:
                raise IndexError("a step of 0 leads nowhere")
            start, stop, step = one.indices(size)
            number = len(range(start, stop, step))
            if step < 0:
                flipped.append(len(sizes))
                start, step = start + (number - 1) * step if number else 0, -step
            offset += start * stride if number else 0
            sizes.append(number)
            steps.append(step * stride)
        else:
            index = one.__index__()  # type: ignore[attr-defined] # checked above
            if not -size <= index < size:
                raise IndexError(f"index {index} is out of range for axis {axis} of size {size}")
            offset += (index % size) * stride
    return View(offset, tuple(sizes), tuple(steps), tuple(flipped))


def parse_slice(text: str) -> tuple[object, ...]:
    """`0:3, :5, -1, ...` -> the index that Python would make of it. Raises UsageError."""
    found: list[object] = []
    for part in text.split(",") if text.strip() else ():
        part = part.strip()
        if part == "...":
            found.append(Ellipsis)
            continue
        numbers = [number.strip() for number in part.split(":")]
        try:
            if len(numbers) == 1:
                found.append(int(part))
            elif len(numbers) <= 3:
                found.append(slice(*(int(number) if number else None for number in numbers)))
            else:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"`{part}` in [{text}] is no index; write numbers and ranges, for example  [0, 3:5, ::2, ...]"
            ) from None
    return tuple(found)


def find(manifest: Mapping[str, TensorSpec], text: str) -> tuple[str, View, str]:
    """`NAME` or `NAME[slice]` -> the tensor's name, the view of it, and the slice as written (empty without one).

    A name that is in the manifest wins over reading its end as a slice. Raises UsageError, with near misses.
    """
    name, inside = text, ""
    if name not in manifest and text.endswith("]") and "[" in text:
        name, _, inside = text[:-1].rpartition("[")
    spec = manifest.get(name)
    if spec is None:
        near = near_misses(name, manifest)
        hint = (
            f"did you mean {' or '.join(map(whole_line, near))}?"
            if near
            else f"`isomorph inspect --keys` lists its {len(manifest):,} tensors"
        )
        raise UsageError(f"there is no tensor `{whole_line(name)}` in this checkpoint; {hint}")
    try:
        return name, view(spec.shape, parse_slice(inside)), f"[{inside}]" if inside else ""
    except IndexError as error:
        raise UsageError(f"{name} {spec.shown}: {error}") from None


def values(checkpoint: Reads, name: str, box: View) -> np.ndarray[Any, Any]:
    """The elements of the view, whole, as values of the tensor's dtype (opaque dtypes as unsigned bytes)."""
    import numpy as np

    dtype = checkpoint.manifest[name].dtype
    found = as_values(checkpoint.fetch(name, box.offset, box.shape, box.strides), dtype)
    return np.flip(found, box.flipped) if box.flipped else found


def as_values(bits: np.ndarray[Any, Any], dtype: DType) -> np.ndarray[Any, Any]:
    """Bits as values of `dtype`; the shape stays."""
    import numpy as np

    shape = bits.shape
    return np.ascontiguousarray(bits).view(dtype.numpy).reshape(shape)


def slabs(box: View, nbytes_each: int, budget: int = SLAB_NBYTES) -> Iterator[View]:
    """Cut a view along its first axes into views of at most `budget` bytes, in row-major order (flips are left aside)."""
    most = max(1, budget // nbytes_each)
    if box.numel <= most:
        if box.numel:
            yield View(box.offset, box.shape, box.strides)
        return
    inner = math.prod(box.shape[1:])
    if inner >= most:
        for index in range(box.shape[0]):
            yield from slabs(
                View(box.offset + index * box.strides[0], box.shape[1:], box.strides[1:]), nbytes_each, budget
            )
        return
    step = max(1, most // inner)
    for start in range(0, box.shape[0], step):
        yield View(box.offset + start * box.strides[0], (min(step, box.shape[0] - start), *box.shape[1:]), box.strides)
