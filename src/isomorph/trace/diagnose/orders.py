"""Rows (columns, channels, slices) that stand in another order: found by their values, and said in words. Pure numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from isomorph.tensors import dtype
from isomorph.trace.nouns import Array
from isomorph.verify.causes import lines_moved

MOST_LINES = 1 << 17


@dataclass(frozen=True)
class Part:
    """Consecutive lines of a fused tensor: `q` of `qkv`."""

    name: str
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class OrderSaid:
    """An order in words: a slug of the taxonomy and a clause."""

    kind: str
    says: str


def order_of_lines(found: Array, meant: Array, tolerance: float) -> Array | None:
    """`order` with found[i] ≈ meant[order[i]] for every i, a permutation that is not the identity; None when there is none.

    Lines lie along axis 0. `tolerance` is absolute, for every element. Lines are looked up by one random projection each, so that
    it costs a sort; equal lines may stand for each other.

    >>> order_of_lines(np.array([[3.0], [1.0], [2.0]]), np.array([[1.0], [2.0], [3.0]]), 1e-9).tolist()
    [2, 0, 1]
    """
    count = len(meant)
    if found.shape != meant.shape or not 2 <= count <= MOST_LINES:
        return None
    one, two = found.reshape(count, -1), meant.reshape(count, -1)
    if not np.isfinite(one).all() or not one.shape[1]:
        return None
    along = np.random.default_rng(0).normal(size=one.shape[1])
    by_one, by_two = np.argsort(one @ along, kind="stable"), np.argsort(two @ along, kind="stable")
    order = np.empty(count, dtype=np.int64)
    order[by_one] = by_two
    stays = np.abs(one - two).max(axis=1) <= tolerance
    order = _kept_in_place(order, stays)
    if (order == np.arange(count)).all() or np.abs(one - two[order]).max() > tolerance:
        return None
    return order


def _kept_in_place(order: Array, stays: Array) -> Array:
    """The same order, but with lines that are right where they are left there (equal lines are exchanged at will)."""
    order = order.copy()
    where = np.empty_like(order)
    where[order] = np.arange(len(order))
    for line in np.flatnonzero(stays & (order != np.arange(len(order)))).tolist():
        other, target = int(where[line]), int(order[line])
        order[line], order[other] = line, target
        where[line], where[target] = line, other
    return order


def say_order(order: Array, lines: str = "rows", parts: Sequence[Part] = ()) -> OrderSaid:
    """What a permutation is: parts or heads exchanged, interleaved, the two rotary orders, or lines one by one.

    `found[i] = meant[order[i]]`. `parts` name the parts of a fused tensor, if its lines are several tensors'.
    """
    order = np.asarray(order)
    return (
        _parts_exchanged(order, lines, parts)
        or _within_parts(order, lines, parts)
        or _reversed(order, lines)
        or _interleaved(order, lines, parts)
        or _blocks(order, lines)
        or OrderSaid("rows-permuted", _said_by_verify(order, lines))
    )


def _parts_exchanged(order: Array, lines: str, parts: Sequence[Part]) -> OrderSaid | None:
    if len(parts) < 2:
        return None
    read: list[Part] = []
    place = 0
    while place < len(order):
        part = next((one for one in parts if one.start == order[place]), None)
        if part is None or not np.array_equal(order[place : place + part.size], np.arange(part.start, part.stop)):
            return None
        read.append(part)
        place += part.size
    moved = [one for one, other in zip(parts, read, strict=False) if one != other]
    names = " ".join(part.name for part in read)
    if len(moved) == 2:
        return OrderSaid(
            "parts-permuted", f"{lines} of {moved[0].name} and {moved[1].name} are swapped (read as {names})"
        )
    return OrderSaid("parts-permuted", f"parts stand in another order (read as {names})")


def _within_parts(order: Array, lines: str, parts: Sequence[Part]) -> OrderSaid | None:
    """Each part keeps its place, and all those that change inside change in one way."""
    if len(parts) < 2:
        return None
    said: dict[str, OrderSaid] = {}
    for part in parts:
        inner = order[part.start : part.stop] - part.start
        if inner.min() < 0 or inner.max() >= part.size:
            return None
        if not np.array_equal(inner, np.arange(part.size)):
            said[part.name] = say_order(inner, lines)
    if not said or len({one.says for one in said.values()}) > 1:
        return None
    first = next(iter(said.values()))
    return OrderSaid(first.kind, f"in {_listed(list(said))}, {first.says}")


def _reversed(order: Array, lines: str) -> OrderSaid | None:
    """Within groups of one size: the colours of every pixel."""
    count = len(order)
    for size in (one for one in _divisors(count) if 2 < one < count):
        if np.array_equal(np.arange(count).reshape(-1, size)[:, ::-1].reshape(-1), order):
            says = f"{lines} are reversed within each group of {size}"
            return (
                OrderSaid("channels-reversed", f"{says} (BGR for RGB)")
                if size == 3
                else OrderSaid("rows-permuted", says)
            )
    return None


def _interleaved(order: Array, lines: str, parts: Sequence[Part]) -> OrderSaid | None:
    for outer, middle, inner, block in _grids(len(order)):
        grid = np.arange(len(order)).reshape(outer, middle, inner, block).transpose(0, 2, 1, 3).reshape(-1)
        if not np.array_equal(grid, order):
            continue
        if block == 1 and 2 in (middle, inner) and (outer > 1 or min(middle, inner) == 2):
            where = f" within each of {outer} heads" if outer > 1 else ""
            return OrderSaid(
                "rotary-order", f"{lines} are interleaved{where}, as between the two rotary orders (halves and pairs)"
            )
        if outer == 1 and len(parts) in (middle, inner):
            count = inner if len(parts) == middle else middle
            names = " ".join(part.name for part in parts)
            return OrderSaid(
                "parts-interleaved", f"{lines} of {names} are interleaved: they alternate {count} times, head by head"
            )
        where = f" within each of {outer} groups" if outer > 1 else ""
        of = "" if block == 1 else f" in blocks of {block}"
        return OrderSaid(
            "interleaved",
            f"{lines} are interleaved{where}{of}: read as ({middle} {inner}) where ({inner} {middle}) is meant",
        )
    return None


def _blocks(order: Array, lines: str) -> OrderSaid | None:
    """Blocks of equal size that stand in another order: heads."""
    count = len(order)
    for block in sorted((size for size in _divisors(count) if 1 < size < count), reverse=True):
        heads = order[::block] // block
        if np.array_equal(order, (heads[:, None] * block + np.arange(block)).reshape(-1)):
            moved = np.flatnonzero(heads != np.arange(len(heads)))
            if len(moved) == 2:
                return OrderSaid(
                    "heads-permuted", f"heads {moved[0]} and {moved[1]} (of {block} {lines} each) are swapped"
                )
            if np.array_equal(heads, np.arange(len(heads))[::-1]):
                return OrderSaid("heads-permuted", f"heads (of {block} {lines} each) stand in reverse order")
            names = " ".join(map(str, heads[:8].tolist())) + (" …" if len(heads) > 8 else "")
            return OrderSaid("heads-permuted", f"heads (of {block} {lines} each) stand in another order: {names}")
    return None


def _said_by_verify(order: Array, lines: str) -> str:
    kind = dtype("i64")
    where = order.astype(np.int64).view(np.uint64)
    said = lines_moved(where, np.arange(len(order), dtype=np.uint64), kind)
    return (said or "elements stand in another order").replace("elements", lines)


@lru_cache(maxsize=64)
def _divisors(count: int) -> tuple[int, ...]:
    return tuple(number for number in range(1, count + 1) if count % number == 0)


def _grids(count: int) -> Iterator[tuple[int, int, int, int]]:
    """(outer, middle, inner, block) with middle and inner > 1, the smallest blocks and the fewest groups first.

    One grid of 2 × 2 is left out: it is two blocks swapped.
    """
    for block in _divisors(count):
        rest = count // block
        for outer in _divisors(rest):
            for middle in _divisors(rest // outer):
                inner = rest // outer // middle
                if middle > 1 and inner > 1 and (outer, middle, inner) != (1, 2, 2):
                    yield outer, middle, inner, block


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def even_parts(names: Sequence[str], count: int) -> tuple[Part, ...]:
    """Parts of one size, in order."""
    size = count // len(names)
    return tuple(Part(name, place * size, (place + 1) * size) for place, name in enumerate(names))


def short_names(names: Sequence[str]) -> list[str]:
    """What tells dotted names apart: `layer.0.attn.q_proj`, `layer.0.attn.k_proj` -> `q_proj`, `k_proj`.

    >>> short_names(["h.0.q", "h.0.k"])
    ['q', 'k']
    """
    split = [name.split(".") for name in names]
    while (
        len({tuple(one) for one in split}) > 1
        and all(len(one) > 1 for one in split)
        and len({one[0] for one in split}) == 1
    ):
        split = [one[1:] for one in split]
    while all(len(one) > 1 for one in split) and len({one[-1] for one in split}) == 1:
        split = [one[:-1] for one in split]
    return [".".join(one) for one in split]
