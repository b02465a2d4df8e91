"""Which sources a target shares rows with: for slices, padded tensors, and what is cut and joined in ways that no sum shows.

A fibre (all elements along one axis) that goes over whole has the same multiset hash on both sides, whatever became of the other
axes. The fibres of the sources are kept, sorted, with the number of their tensor; the targets' are looked up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.fingerprint import Print
from isomorph.infer.by_value.hashing import hash_elements, hash_of
from isomorph.operators.casting import convert
from isomorph.plan.boxes import row_major
from isomorph.tensors import DType

Words = np.ndarray[Any, np.dtype[np.uint64]]

SHORTEST = 4
"""Fibres of fewer elements say little and are too many."""
MOST_FIBRES = 1 << 22
"""Of one axis length; the fibres of further sources are not kept, and axes with more of them are not looked at."""
BYTES_PER_FIBRE = 48
"""What a kept fibre takes while all are sorted; memory bounds them too."""
COMMON = 16
"""A fibre that more tensors than this hold says nothing of where one is from."""
FEWEST = 2
TELLING = 16
"""One fibre of so many elements is enough to tell where it is from."""
SHARE = 0.02
"""A target is linked with a source when so many of its fibres, at least, are there."""


@dataclass(frozen=True)
class Group:
    """Sources and targets that share rows, directly or through each other."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    links: Mapping[str, tuple[str, ...]]
    """For each target, the sources that it shares rows with itself."""


def fibres(
    checkpoint: Checkpoint, name: str, dtype: DType, axis: int | None, *, max_memory: int, cast: DType | None = None
) -> Words:
    """The multiset hash of every fibre along `axis`, in row-major order of the other axes; empty fibres of zeros are 0.

    `cast`: as they are in this dtype.
    """
    shape = checkpoint.manifest[name].shape
    outer, length, inner = _three(shape, axis)  # axis None: every element for itself
    strides = row_major((outer, length, inner))
    zero = np.uint64(hash_of(0, cast or dtype))
    found = np.zeros((outer, inner), np.uint64)
    step = max(1, max_memory // (16 * max(1, length * inner)))
    span = max(1, min(inner, max_memory // (16 * max(1, length))))
    for row in range(0, outer, step):
        rows = min(step, outer - row)
        for column in range(0, inner, span):
            columns = min(span, inner - column)
            part = checkpoint.fetch(name, row * strides[0] + column, (rows, length, columns), strides)
            bits = np.ascontiguousarray(part)
            if cast is not None and cast != dtype:
                made = np.empty(bits.shape, cast.bits)
                convert(bits, dtype, cast, made, False)
                bits = made
            hashes = hash_elements(bits, cast or dtype) - zero
            found[row : row + rows, column : column + columns] = np.add.reduce(hashes, axis=1)
    return found.reshape(-1)


def groups(
    source: Checkpoint,
    sources: Mapping[str, Print],
    target: Checkpoint,
    targets: Mapping[str, Print],
    *,
    max_memory: int,
) -> list[Group]:
    """Which of these sources and targets share rows, as connected groups, in the order of the targets.

    Every tensor is read once for each of its axes of SHORTEST elements or more.
    """
    found: list[Group] = []
    links: dict[str, list[str]] = {}
    for dtype in dict.fromkeys(one.dtype for one in targets.values()):
        wanted = {name: one for name, one in targets.items() if one.dtype == dtype}
        links.update(_links(source, sources, target, wanted, dtype, max_memory=max_memory))
    left = dict(links)
    while left:
        first = next(iter(left))
        chosen_targets, chosen_sources = [first], list(left.pop(first))
        grown = True
        while grown:
            more = [name for name, its in left.items() if set(its) & set(chosen_sources)]
            grown = bool(more)
            for name in more:
                chosen_targets.append(name)
                chosen_sources.extend(one for one in left.pop(name) if one not in chosen_sources)
        its = {name: tuple(links[name]) for name in sorted(chosen_targets)}
        found.append(Group(tuple(sorted(chosen_sources)), tuple(sorted(chosen_targets)), its))
    return found


def _links(
    source: Checkpoint,
    sources: Mapping[str, Print],
    target: Checkpoint,
    targets: Mapping[str, Print],
    dtype: DType,
    *,
    max_memory: int,
) -> dict[str, list[str]]:
    """target -> the sources it shares rows with."""
    lengths = {size for one in targets.values() for size in _lengths(one.shape)}
    names = list(sources)
    votes: dict[str, dict[int, int]] = {}
    counts: dict[str, int] = {}
    for length in sorted(lengths, reverse=True):
        table, owners = _table(source, sources, names, length, dtype, max_memory)
        if not len(table):
            continue
        for name, one in targets.items():
            for axis in _axes(one.shape, length):
                hashes = fibres(target, name, dtype, axis, max_memory=max_memory)
                hashes = np.unique(hashes[hashes != 0])
                low = np.searchsorted(table, hashes, "left")
                high = np.searchsorted(table, hashes, "right")
                counts[name] = max(counts.get(name, 0), len(hashes))
                its = votes.setdefault(name, {})
                for start, stop in zip(low[high > low], high[high > low], strict=True):
                    holders = set(owners[start:stop].tolist())
                    if len(holders) <= COMMON:
                        for holder in holders:
                            its[holder] = its.get(holder, 0) + (FEWEST if length >= TELLING else 1)
    return {
        name: [names[number] for number, count in sorted(its.items()) if count >= max(FEWEST, SHARE * counts[name])]
        for name, its in votes.items()
        if any(count >= max(FEWEST, SHARE * counts[name]) for count in its.values())
    }


def _table(
    source: Checkpoint, sources: Mapping[str, Print], names: Sequence[str], length: int, dtype: DType, max_memory: int
) -> tuple[Words, np.ndarray[Any, np.dtype[np.uint32]]]:
    """All fibres of that length, sorted, and the number of the tensor that each is of."""
    parts: list[Words] = []
    owners: list[np.ndarray[Any, np.dtype[np.uint32]]] = []
    total = 0
    most = min(MOST_FIBRES, max_memory // BYTES_PER_FIBRE)
    for number, name in enumerate(names):
        one = sources[name]
        for axis in _axes(one.shape, length):
            if total + math.prod(one.shape) // length > most:
                break
            cast = dtype if dtype.name in one.casts else None
            hashes = fibres(source, name, one.dtype, axis, max_memory=max_memory, cast=cast)
            hashes = np.unique(hashes[hashes != 0])
            parts.append(hashes)
            owners.append(np.full(len(hashes), number, np.uint32))
            total += len(hashes)
    if not parts:
        return np.empty(0, np.uint64), np.empty(0, np.uint32)
    table, its = np.concatenate(parts), np.concatenate(owners)
    order = np.argsort(table, kind="stable")
    return table[order], its[order]


def _lengths(shape: Sequence[int]) -> list[int]:
    kept = [size for size in shape if size != 1]
    return [size for size in kept if size >= SHORTEST] + ([1] if len(kept) == 1 else [])


def _axes(shape: Sequence[int], length: int) -> list[int | None]:
    """The axes of that length; for a vector and length 1, None: its elements, one by one."""
    kept = [axis for axis, size in enumerate(shape) if size != 1]
    if math.prod(shape) // max(1, length) > MOST_FIBRES:
        return []
    if len(kept) == 1 and length == 1:
        return [None]
    return [axis for axis in kept if shape[axis] == length and length >= SHORTEST]


def _three(shape: Sequence[int], axis: int | None) -> tuple[int, int, int]:
    """(outer, length, inner) around an axis."""
    if axis is None:
        return math.prod(shape), 1, 1
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])
