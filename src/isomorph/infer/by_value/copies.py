"""Tensors of the same elements: which they are, and in which order of axes. By fingerprints alone; no tensor is read.

A tensor is looked at as it would be in the other side's dtype: rounded, where that dtype is narrower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from isomorph.infer.by_value.fibres import AxisDigest
from isomorph.infer.by_value.fingerprint import Print
from isomorph.infer.by_value.forms import Permutation
from isomorph.tensors import DType

MOST_PERMUTATIONS = 24
"""Of a tensor that looks the same along many axes, so many orders are thought of."""


class Look(NamedTuple):
    """A tensor as it is in another dtype."""

    total: int
    axes: tuple[AxisDigest, ...]
    exact: bool = True
    saturated: bool = False


def look(found: Print, dtype: DType) -> Look:
    """The fingerprint of a tensor cast to `dtype`."""
    cast = found.casts.get(dtype.name)
    if cast is None:
        return Look(found.total, found.axes)
    return Look(cast.total, cast.axes, cast.exact, cast.saturated)


def is_silent(found: Print) -> bool:
    """True when the values carry no identity: none at all, or one value throughout."""
    return found.numel == 0 or found.same or found.constant is not None


@dataclass(frozen=True, slots=True)
class Cluster:
    """Sources and targets (of one dtype) that hold the same elements."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


def clusters(
    sources: Mapping[str, Print], targets: Mapping[str, Print], *, of: Iterable[str], wanted: Iterable[str]
) -> list[Cluster]:
    """Equal multisets among the sources `of` and the targets `wanted`, in the order of the targets.

    Targets without an equal source are in none.
    """
    by_dtype: dict[str, dict[tuple[int, int], list[str]]] = {}
    names = tuple(of)
    groups: dict[tuple[str, int, int], list[str]] = {}
    for name in wanted:
        one = targets[name]
        groups.setdefault((one.dtype.name, one.total, one.numel), []).append(name)
    found = []
    for (dtype, total, numel), members in groups.items():
        if dtype not in by_dtype:
            table: dict[tuple[int, int], list[str]] = {}
            for name in names:
                seen = look(sources[name], targets[members[0]].dtype)
                table.setdefault((seen.total, sources[name].numel), []).append(name)
            by_dtype[dtype] = table
        equal = by_dtype[dtype].get((total, numel))
        if equal:
            found.append(Cluster(tuple(equal), tuple(members)))
    return found


def permutations(
    source_shape: Sequence[int],
    source_axes: Sequence[AxisDigest],
    target_shape: Sequence[int],
    target_axes: Sequence[AxisDigest],
) -> list[Permutation]:
    """The orders of axes that agree with the fibre sums along every axis; the one that keeps the order first.

    Empty where the elements lie otherwise (reshaped, cut, in another order within an axis).
    """
    have = [(size, axes.ordered) for size, axes in zip(source_shape, source_axes, strict=True) if size != 1]
    want = [(size, axes.ordered) for size, axes in zip(target_shape, target_axes, strict=True) if size != 1]
    if sorted(have) != sorted(want):
        return []
    found: list[Permutation] = []
    pending: list[Permutation] = [()]
    while pending and len(found) < MOST_PERMUTATIONS:
        chosen = pending.pop()
        if len(chosen) == len(want):
            found.append(chosen)
            continue
        options = [number for number, one in enumerate(have) if number not in chosen and one == want[len(chosen)]]
        pending.extend((*chosen, number) for number in reversed(options))
    return sorted(found, key=lambda order: (order != tuple(sorted(order)), order))


def layouts(names: Iterable[str], prints: Mapping[str, Print], dtype: DType) -> list[list[str]]:
    """Tensors of the same elements, in groups that are equal in dtype, shape and along every axis."""
    groups: dict[object, list[str]] = {}
    for name in names:
        axes = tuple(one.ordered for one in look(prints[name], dtype).axes)
        groups.setdefault((prints[name].dtype, prints[name].shape, axes), []).append(name)
    return list(groups.values())
