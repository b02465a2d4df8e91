"""What may have gone wrong with one tensor, tried in turn on the bits found and expected. Pure; each says its cause or None.

Both arrays hold `kind.bits` and have the tensor's shape. A cause is only said when it explains every element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any

import numpy as np

from isomorph.tensors import DTYPES, DType

Bits = np.ndarray[Any, np.dtype[Any]]

MOST_ROWS = 1 << 17
MOST_RANK = 5


@np.errstate(all="ignore")
def cause_of(found: Bits, expected: Bits, kind: DType) -> str | None:
    """The first cause that explains the whole tensor."""
    if found.dtype.itemsize > 8:
        return _order_cause(
            *(np.ascontiguousarray(side).view(np.uint64).reshape(*side.shape, 2) for side in (found, expected))
        )
    for cause in CAUSES:
        said = cause(found, expected, kind)
        if said is not None:
            return said
    return None


def _order_cause(found: Bits, expected: Bits) -> str | None:
    return "all zeros" if not found.any() else None


def elements_changed(found: Bits, expected: Bits, kind: DType) -> str | None:
    """A few bits of single elements: the sign of zeros, the bits of NaNs, the last place."""
    wrong = found != expected
    count = int(np.count_nonzero(wrong))
    who = "one element" if count == 1 else f"{count:,} elements"
    each = "" if count == 1 else "each "
    one, two = found[wrong], expected[wrong]
    if kind.is_float:
        sign = one.dtype.type(1 << (8 * kind.nbytes - 1))
        if not ((one | two) & ~sign).any():
            if count == 1:
                return "-0.0 for 0.0" if one[0] else "0.0 for -0.0"
            return f"{who}: zeros of the other sign (-0.0 and 0.0)"
        values = one.view(kind.numpy), two.view(kind.numpy)
        if np.isnan(values[0].astype(np.float64)).all() and np.isnan(values[1].astype(np.float64)).all():
            return f"NaN bits differ ({who})"
        if np.isnan(values[0].astype(np.float64)).all():
            return f"NaN for a number ({who})"
        if (_order(one, kind) - _order(two, kind) == 1).all() or (_order(two, kind) - _order(one, kind) == 1).all():
            return f"{who}, {each}by one ulp"
        if (np.abs(_order(one, kind) - _order(two, kind)) == 1).all():
            return f"{who}, {each}by one ulp"
    elif kind.is_integer and count <= max(1, found.size // 100):
        values = one.view(kind.numpy).astype(object), two.view(kind.numpy).astype(object)
        if all(abs(a - b) == 1 for a, b in zip(*values, strict=True)):
            return f"{who}, {each}by one"
    return None


def _order(bits: Bits, kind: DType) -> Bits:
    """Floating bits as integers that count in steps of one ulp (f64 modulo 2**64, which differences of one survive)."""
    nbits = 8 * kind.nbytes
    wide = bits.astype(np.int64) if nbits < 64 else bits.view(np.int64)
    if nbits < 64:
        return np.where(wide >= 1 << (nbits - 1), (1 << (nbits - 1)) - wide, wide)
    least = np.int64(-(2**63))
    with np.errstate(over="ignore"):
        turned: Bits = np.where(wide < 0, least - wide, wide)
    return turned


def all_one_value(found: Bits, expected: Bits, kind: DType) -> str | None:
    """A tensor that was never filled."""
    if not found.any():
        return "all zeros"
    flat = found.reshape(-1)
    if flat.size > 1 and (flat == flat[0]).all():
        return f"every element is {flat[:1].view(kind.numpy)[0]}"
    if found.ndim:
        filled = found.reshape(found.shape[0], -1).any(axis=1)
        last = int(np.flatnonzero(filled)[-1]) + 1
        if last < found.shape[0] and np.array_equal(found[:last], expected[:last]):
            return f"zeros from row {last} on, equal before"
    return None


def transposed(found: Bits, expected: Bits, kind: DType) -> str | None:
    """The axes in another order, with the same shape (a square) or only in the order of the elements."""
    if not 2 <= found.ndim <= MOST_RANK:
        return None
    for order in permutations(range(found.ndim)):
        if order == tuple(range(found.ndim)):
            continue
        turned = expected.transpose(order)
        if turned.shape == found.shape and np.array_equal(turned, found):
            if found.ndim == 2:
                return "transposed: equal to the expected tensor's transpose"
            return f"axes permuted: equal to the expected tensor with its axes in the order {' '.join(map(str, order))}"
    for order in permutations(range(found.ndim)):
        turned = expected.transpose(order)
        if order == tuple(range(found.ndim)) or turned.shape == found.shape:
            continue
        if turned.size and turned.reshape(-1)[1] != found.reshape(-1)[1]:
            continue
        if np.array_equal(turned.reshape(-1), found.reshape(-1)):
            return f"reshaped where it should be transposed: its elements lie in the order of the axes {' '.join(map(str, order))}"
    return None


def lines_moved(found: Bits, expected: Bits, kind: DType) -> str | None:
    """Rows (or columns, or slices along a later axis) in another order."""
    for axis in range(found.ndim):
        said = _moved_along(np.moveaxis(found, axis, 0), np.moveaxis(expected, axis, 0), _line_name(axis, found.ndim))
        if said is not None:
            return said
    return None


def _line_name(axis: int, rank: int) -> str:
    if rank == 1:
        return "elements"
    return ("rows", "columns")[axis] if rank == 2 else "rows" if axis == 0 else f"slices along axis {axis}"


def _moved_along(found: Bits, expected: Bits, lines: str) -> str | None:
    count = found.shape[0]
    if not 2 <= count <= MOST_ROWS:
        return None
    one, two = (np.ascontiguousarray(side).reshape(count, -1) for side in (found, expected))
    wrong = np.flatnonzero((one != two).any(axis=1))
    home: dict[bytes, list[int]] = {}
    for row in range(count):
        home.setdefault(two[row].tobytes(), []).append(row)
    order = np.arange(count)
    for row in wrong.tolist():
        rows = home.get(one[row].tobytes())
        if not rows:
            return None
        order[row] = rows[0] if len(rows) == 1 else rows.pop(0)
    if len(set(order.tolist())) < count:
        twice = int(wrong[0])
        return (
            f"{lines[:-1] if lines.endswith('s') else lines} {order[twice]} stands at {twice} too"
            if len(wrong) == 1
            else None
        )
    if len(wrong) == 2:
        return f"{lines} {wrong[0]} and {wrong[1]} are swapped"
    return _order_of(order, lines)


def _order_of(order: Bits, lines: str) -> str:
    """A permutation in words: a shift, blocks swapped, axes of a product exchanged, or none of these."""
    count = len(order)
    shift = int(order[0])
    if shift and np.array_equal(order, (np.arange(count) + shift) % count):
        return f"{lines} are rotated by {shift if shift <= count - shift else shift - count}"
    if np.array_equal(order, np.arange(count)[::-1]):
        return f"{lines} stand in reverse order"
    for outer, middle, inner in _triples(count):
        grid = np.arange(count).reshape(outer, middle, inner).transpose(0, 2, 1).reshape(-1)
        if np.array_equal(grid, order):
            if outer == 1:
                return f"{lines} are interleaved: read as ({middle} {inner}) where ({inner} {middle}) is meant"
            return (
                f"{lines} are interleaved within each of {outer} groups (heads): "
                f"({middle} {inner}) and ({inner} {middle}) are exchanged, as between the two rotary orders"
            )
    block = _block_size(order)
    if block > 1:
        blocks = (order[::block] // block).tolist()
        moved = [at for at, where in enumerate(blocks) if at != where]
        if len(moved) == 2:
            return f"blocks (heads) {moved[0]} and {moved[1]} of {block} {lines} each are swapped"
        for outer, middle, inner in _triples(len(blocks)):
            grid = np.arange(len(blocks)).reshape(outer, middle, inner).transpose(0, 2, 1).reshape(-1)
            if np.array_equal(grid, blocks):
                of = f"{outer} " if outer > 1 else ""
                return (
                    f"{lines} are interleaved in blocks of {block} (heads): read as ({of}{middle} {inner} {block}) where "
                    f"({of}{inner} {middle} {block}) is meant"
                )
        return f"blocks (heads) of {block} {lines} stand in another order: {_listed(blocks)}"
    return f"{lines} stand in another order: {_listed(order.tolist())}"


def _triples(count: int) -> Iterator[tuple[int, int, int]]:
    divisors = [number for number in range(1, count + 1) if count % number == 0]
    for outer in divisors:
        for middle in divisors:
            if count // outer % middle == 0 and middle > 1 and count // outer // middle > 1:
                yield outer, middle, count // outer // middle


def _block_size(order: Bits) -> int:
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    size = len(order)
    for place in (*breaks.tolist(), *order[[0, *breaks.tolist()]].tolist()):
        size = math.gcd(size, int(place))
    return size


def _listed(numbers: list[int]) -> str:
    return " ".join(map(str, numbers[:8])) + (" …" if len(numbers) > 8 else "")


def bytes_swapped(found: Bits, expected: Bits, kind: DType) -> str | None:
    if kind.nbytes > 1 and np.array_equal(found, expected.byteswap()):
        return "byte order: equal with the bytes of every element reversed"
    return None


def negated(found: Bits, expected: Bits, kind: DType) -> str | None:
    if kind.is_float and np.array_equal(found ^ found.dtype.type(1 << (8 * kind.nbytes - 1)), expected):
        return "negated: every sign is the other one"
    return None


def rounded(found: Bits, expected: Bits, kind: DType) -> str | None:
    """Values that went through a narrower dtype."""
    if not kind.is_float:
        return None
    values = expected.view(kind.numpy)
    with np.errstate(all="ignore"):
        for name in ("f32", "f16", "bf16", "f8e5m2", "f8e4m3"):
            narrow = DTYPES[name]
            if narrow.nbytes < kind.nbytes or (narrow.nbytes == kind.nbytes and narrow != kind):
                again = values.astype(narrow.numpy).astype(kind.numpy)
                if np.array_equal(again.view(kind.bits), found):
                    return f"equal after rounding to {name}"
        if kind.name == "f32" and np.array_equal(found, expected & np.uint32(0xFFFF0000)):
            return "cut to bf16, not rounded: the low half of every element is zero"
    return None


def reinterpreted(found: Bits, expected: Bits, kind: DType) -> str | None:
    """Bits of another dtype of the same width, taken as they are."""
    if kind.kind == "complex":
        return None
    for name in ("f16", "bf16", "f32", "f64", "i16", "i32", "i64"):
        other = DTYPES[name]
        if other == kind or other.nbytes != kind.nbytes or not (kind.is_float or other.is_float):
            continue
        with np.errstate(all="ignore"):
            bits = expected.view(kind.numpy).astype(other.numpy).view(kind.bits)
        if np.array_equal(found, bits):
            return f"its bits are those of {name}, read as {kind}: cast the values, not the bytes"
    return None


def shifted_or_scaled(found: Bits, expected: Bits, kind: DType) -> str | None:
    """One number added to every element (a norm's weight against 1 + weight), or multiplied with it (a scale folded in)."""
    if not kind.is_float or found.size < 2:
        return None
    one, two = found.view(kind.numpy), expected.view(kind.numpy)
    with np.errstate(all="ignore"):
        wide = one.astype(np.float64), two.astype(np.float64)
        for step in (1.0, -1.0):
            if np.array_equal((wide[1] + step).astype(kind.numpy).view(kind.bits), found):
                word = "more" if step > 0 else "less"
                return f"every element is one {word} than expected: weight and 1 + weight are taken for each other"
        top = int(np.argmax(np.where(np.isfinite(wide[1]), np.abs(wide[1]), -1.0)))
        factor = float(wide[0].reshape(-1)[top] / wide[1].reshape(-1)[top])
        if not math.isfinite(factor) or factor == 0 or abs(abs(factor) - 1) < 0.01:
            return None
        off = np.abs(wide[0] - factor * wide[1])
        fine = 4.0 * float(np.finfo(np.float32).eps if kind.nbytes >= 4 else 2.0**-7)
        if np.all(off <= fine * np.abs(factor * wide[1])):
            return f"every element is {factor:.6g} times what is expected: a scale is in it that is not in the other"
    return None


def displaced(found: Bits, expected: Bits, kind: DType) -> str | None:
    """The same run of elements, begun too early or too late."""
    one, two = np.ascontiguousarray(found).reshape(-1), np.ascontiguousarray(expected).reshape(-1)
    probe = min(16, len(one) // 2)
    if probe < 1:
        return None
    for early, late, word in ((one, two, "late"), (two, one, "early")):
        starts = np.flatnonzero(late[: len(late) // 2 + 1] == early[0])
        for start in starts[:64].tolist():
            if (
                start
                and np.array_equal(early[:probe], late[start : start + probe])
                and np.array_equal(early[:-start], late[start:])
            ):
                by = "one element" if start == 1 else f"{start:,} elements"
                return f"equal up to an offset of {by}: it begins {by} too {word}"
    return None


def close(found: Bits, expected: Bits, kind: DType) -> str | None:
    """Not another layout but another computation: every element is nearly right."""
    if not kind.is_float or kind.nbytes < 2:
        return None
    with np.errstate(all="ignore"):
        one, two = (side.view(kind.numpy).astype(np.float64) for side in (found, expected))
        step = np.abs(one - two)
        size = float(np.max(np.abs(two), initial=0.0))
        largest = float(np.max(step, initial=0.0))
    if not math.isfinite(largest) or size == 0 or largest > 0.01 * size:
        return None
    return f"nearly equal: the largest difference is {largest:.3g}, where values reach {size:.3g} (rounded or computed otherwise)"


CAUSES: tuple[Callable[[Bits, Bits, DType], str | None], ...] = (
    elements_changed,
    all_one_value,
    transposed,
    lines_moved,
    bytes_swapped,
    negated,
    rounded,
    reinterpreted,
    shifted_or_scaled,
    displaced,
    close,
)
"""In the order in which they are tried."""
