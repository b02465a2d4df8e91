"""Classes of both sides -> the links of their members: which indices count on both sides, and which are stacked on one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from isomorph.infer.by_name.classes import FILE, HOLE, Shape, TensorClass
from isomorph.infer.by_name.correspondence import Bundle, Link

Index = tuple[int, ...]
Ranks = Mapping[tuple[str, ...], Mapping[int, int]]
"""The words of a name up to an index -> its values on that side -> their rank, from 0."""


def ranks(found: Iterable[TensorClass]) -> Ranks:
    """Which values each index takes on a side, over all classes that have it."""
    values: dict[tuple[str, ...], set[int]] = {}
    for each in found:
        for slot, at in enumerate(_slots(each)):
            values.setdefault(each.raw[: at + 1], set()).update(index[slot] for index in each.members)
    return {prefix: {value: rank for rank, value in enumerate(sorted(those))} for prefix, those in values.items()}


def _slots(each: TensorClass) -> list[int]:
    return [at for at, word in enumerate(each.raw) if word in (HOLE, FILE)]


class Ranked:
    """A class with its indices as ranks within their containers, so that layers 0-based and 1-based are the same."""

    def __init__(self, of: TensorClass, known: Ranks) -> None:
        slots = _slots(of)
        tables = [known[of.raw[: at + 1]] for at in slots]
        self.of = of
        self.sizes = tuple(len(table) for table in tables)
        self.labels = tuple(
            "file"
            if of.raw[at] == FILE
            else "expert"
            if of.raw[at - 1].startswith(("expert", "weight", "bias"))
            else "layer"
            for at in slots
        )
        self.names = {
            tuple(table[value] for table, value in zip(tables, index, strict=True)): name
            for index, name in of.members.items()
        }
        self.shapes = {
            tuple(table[value] for table, value in zip(tables, index, strict=True)): shape
            for index, shape in of.shapes.items()
        }


def link(
    one: Ranked, parts: Sequence[Ranked], roles: Sequence[str], *, is_target: bool
) -> tuple[tuple[Link, ...], bool] | None:
    """The links of one class with one or several of the other side, and whether they cover all members of all of them; None where
    indices or shapes do not allow it. `is_target`: the one class is of the target. The one class has no more indices
    than the parts.
    """
    grids = [_grid(one, part) for part in parts]
    if any(grid is None for grid in grids):
        return None
    found = [grid for grid in grids if grid is not None]
    common = [at for at in one.names if all(at in grid for grid, _ in found)]
    whole = len(common) == len(one.names) and all(len(grid) == len(common) for grid, _ in found)
    if not common or (not whole and any(part.sizes != one.sizes for part in parts)):
        return None
    out = []
    for at in common:
        bundles = []
        shapes = []
        for part, (grid, extents), role in zip(parts, found, roles, strict=True):
            names = tuple(part.names[index] for index in grid[at])
            shape = part.shapes[grid[at][0]]
            if len(parts) == 1 and _is_replicated(part, one, names) and alike(one.shapes[at], shape):
                bundles.append(Bundle(names[:1], (), role, names[1:]))
                shapes.append((shape, 1))
            else:
                bundles.append(Bundle(names, extents, role))
                shapes.append((shape, math.prod(extents)))
        if not _fits(one.shapes[at], tuple(shapes)) or not all(map(_has_room, [one] * len(parts), parts, bundles)):
            return None
        alone = (Bundle((one.names[at],), (), roles[0] if len(roles) == 1 else ""),)
        out.append(Link(tuple(bundles), alone) if is_target else Link(alone, tuple(bundles)))
    return tuple(out), whole


def _has_room(one: Ranked, part: Ranked, bundle: Bundle) -> bool:
    """True when a stack of layers has a dim for them; experts and the pieces of ranks may lie in one dim with their rows."""
    if len(bundle.names) == 1 or part.labels[-1] != "layer":
        return True
    return all(extent in one.of.shape for extent in bundle.extents) and len(one.of.shape) > 1


def _is_replicated(part: Ranked, one: Ranked, names: tuple[str, ...]) -> bool:
    """True when the index that is left over is that of files: each rank may hold all of a tensor."""
    return (
        len(names) > 1 and "file" in part.labels and "file" not in one.labels and len(part.sizes) == len(one.sizes) + 1
    )


def _grid(one: Ranked, part: Ranked) -> tuple[dict[Index, list[Index]], Index] | None:
    """For each index of the one class: the indices of the part that belong to it, row-major, and their extents."""
    if len(part.sizes) == len(one.sizes) and part.sizes == one.sizes:
        return {at: [at] for at in part.names}, ()
    if len(part.names) == len(one.names) == 1:
        return {next(iter(one.names)): [next(iter(part.names))]}, ()
    kept = _kept(one.sizes, one.labels, part.sizes, part.labels)
    if kept is None:
        return None
    rest = [slot for slot in range(len(part.sizes)) if slot not in kept]
    out: dict[Index, list[Index]] = {}
    for index in sorted(part.names, key=lambda index: [index[slot] for slot in rest]):
        out.setdefault(tuple(index[slot] for slot in kept), []).append(index)
    extents = tuple(len({index[slot] for index in part.names}) for slot in rest)
    if any(len(grid) != math.prod(extents) for grid in out.values()):
        return None
    return out, extents


@lru_cache(maxsize=1 << 16)
def _kept(
    ones: tuple[int, ...], one_labels: tuple[str, ...], parts: tuple[int, ...], part_labels: tuple[str, ...]
) -> tuple[int, ...] | None:
    """The slots of the part that the one class has too: of the same size, in the same order, of the same kind where kinds tell."""
    choices = [
        kept
        for kept in itertools.combinations(range(len(parts)), len(ones))
        if tuple(parts[slot] for slot in kept) == ones and len(kept) < len(parts)
    ]
    alike_ = [kept for kept in choices if tuple(part_labels[slot] for slot in kept) == one_labels]
    return next(iter(alike_ or choices), None) if len(choices) == 1 or len(alike_) == 1 else None


def _fits(whole: Shape, parts: tuple[tuple[Shape, int], ...]) -> bool:
    if len(parts) == 1 and parts[0][1] == 1:
        return alike(whole, parts[0][0])
    if math.prod(whole) != sum(math.prod(shape) * count for shape, count in parts):
        return False
    return len(parts) == 1 or _shares_an_axis(whole, tuple(shape for shape, _ in parts))


def _shares_an_axis(whole: Shape, parts: tuple[Shape, ...]) -> bool:
    """Fused matrices have a side in common; vectors have nothing to share."""
    squeezed = [tuple(size for size in shape if size != 1) for shape in parts]
    if len([size for size in whole if size != 1]) == 1:
        return True
    if any(len(shape) < 2 for shape in squeezed):
        return all(len(shape) < 3 for shape in squeezed)
    common = set(squeezed[0]).intersection(*map(set, squeezed[1:]))
    return bool(common.intersection(whole)) or any(
        math.prod(chosen) in whole
        for length in (2, 3)
        for chosen in itertools.combinations(squeezed[0], length)
        if set(chosen) <= common
    )


@lru_cache(maxsize=1 << 16)
def alike(one: Shape, other: Shape) -> bool:
    """True when the shapes are equal up to unit dims, the order of dims, and dims that are split on one side.

    >>> alike((1, 17, 48), (17, 48)), alike((48, 4, 12), (48, 48)), alike((4, 36), (12, 12))
    (True, True, False)
    """
    a = sorted(size for size in one if size != 1)
    b = sorted(size for size in other if size != 1)
    if a == b:
        return True
    if math.prod(a) != math.prod(b) or len(a) == len(b) or not a or not b or max(len(a), len(b)) > 8:
        return False
    few, many = (a, b) if len(a) < len(b) else (b, a)
    return _partitions(tuple(few), tuple(many))


def _partitions(few: Shape, many: Shape) -> bool:
    """True when the dims of `many` can be dealt out so that each of `few` is the product of its own. At most 2**8 states a dim."""
    reachable = {many}
    for size in few:
        following = set()
        for left in reachable:
            for length in range(1, len(left) + 1):
                for chosen in itertools.combinations(range(len(left)), length):
                    if math.prod(left[at] for at in chosen) == size:
                        following.add(tuple(left[at] for at in range(len(left)) if at not in chosen))
        reachable = following
    return () in reachable


def padded(one: Shape, other: Shape) -> bool:
    """True when the shapes differ in the length of one dim, by less than half: a vocabulary with rows of padding."""
    a, b = [tuple(size for size in shape if size != 1) for shape in (one, other)]
    if len(a) != len(b) or not a:
        return False
    for turned in {b, b[::-1]}:
        differing = [(x, y) for x, y in zip(a, turned, strict=True) if x != y]
        if len(differing) == 1 and max(differing[0]) < 1.5 * min(differing[0]):
            return True
    return False
