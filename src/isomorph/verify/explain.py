"""Why tensors differ: the cause of each, found by looking at the whole tensor (of a very large one, at a part), never guessed.

Tried in turn: another target tensor's values, its own parts in another order, then what `causes` knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isomorph.errors import near_misses
from isomorph.tensors import TensorSpec
from isomorph.verify.causes import cause_of
from isomorph.verify.operators import CannotCarryOut
from isomorph.verify.regions import Leaf, Region, leaves
from isomorph.verify.tiles import tiles
from isomorph.verify.values import BadConstant

if TYPE_CHECKING:
    from isomorph.verify.report import Difference, Report
    from isomorph.verify.stream import Run

Bits = np.ndarray[Any, np.dtype[Any]]

MOST_EXPLAINED = 24
MOST_CANDIDATES = 4000
PROBES = 6


def explain(run: Run, report: Report) -> None:
    """Add a cause to the first differences, and hints to names that are missing."""
    others: dict[TensorSpec, list[str]] = {}
    for name, spec in report.specs.items():
        others.setdefault(spec, []).append(name)
    for place, difference in enumerate(report.differences[:MOST_EXPLAINED]):
        try:
            cause = _cause(run, difference, others)
        except (CannotCarryOut, BadConstant):
            cause = None
        report.differences[place] = replace(difference, cause=cause)
    for name in report.missing[:MOST_EXPLAINED]:
        near = near_misses(name, report.unexpected, 1)
        if near:
            report.hints[name] = f"the target has `{near[0]}`, which nothing makes"


def _cause(run: Run, difference: Difference, others: dict[TensorSpec, list[str]]) -> str | None:
    name = difference.tensor
    expected, found = run.stages[-1].specs[name], run.target.manifest[name]
    if difference.first is None:
        return _cause_of_spec(found, expected)
    if expected.nbytes > 4 * run.most_nbytes:
        return _cause_in_part(run, difference, expected)
    bits = whole(run, name, expected)
    wanted = wanted_bits(run, name, expected)
    return (
        _small(bits, wanted, expected)
        or _another_tensor(run, name, bits, expected, others.get(expected, []))
        or _parts_moved(run, name, bits, wanted, expected)
        or _parts_changed(run, name, bits, wanted, expected)
        or cause_of(bits, wanted, expected.dtype)
    )


def _small(bits: Bits, wanted: Bits, spec: TensorSpec) -> str | None:
    """A few elements only: no use to look at other tensors."""
    if bits.dtype.itemsize <= 8 and np.count_nonzero(bits != wanted) <= 2:
        return cause_of(bits, wanted, spec.dtype)
    return None


def _cause_of_spec(found: TensorSpec, expected: TensorSpec) -> str | None:
    if found.shape == expected.shape:
        return (
            f"a cast: the target holds {found.dtype}; if that is meant, say so (--dtype {found.dtype})"
            if found.dtype.is_float
            else None
        )
    if sorted(found.shape) == sorted(expected.shape):
        return "its axes stand in another order"
    if found.numel == expected.numel:
        return "the same number of elements in another shape"
    return None


def whole(run: Run, name: str, spec: TensorSpec) -> Bits:
    """The bits of a tensor of the target."""
    return np.array(run.target.fetch(name, 0, (spec.numel,), (1,))).reshape(spec.shape)


def wanted_bits(run: Run, name: str, spec: TensorSpec) -> Bits:
    """The bits that a tensor of the target should have."""
    flat = np.zeros(spec.numel, dtype=spec.dtype.bits)
    bench = run.bench()
    for region in run.regions(name):
        for tile in tiles(region, max(1, run.most_nbytes // spec.dtype.nbytes)):
            box_of(flat, tile)[...] = bench.sides(tile.left, tile.right, tile.shape)[1]
    return flat.reshape(spec.shape)


def box_of(flat: Bits, region: Region) -> Bits:
    """The box of a tensor's elements that a region is about, as a view."""
    leaf = region.left
    assert isinstance(leaf, Leaf)
    width = flat.dtype.itemsize
    strides = tuple(stride * width for stride in leaf.strides)
    return np.ndarray(region.shape, flat.dtype, flat, leaf.offset * width, strides)


def _cause_in_part(run: Run, difference: Difference, spec: TensorSpec) -> str | None:
    """Of a very large tensor: the leading rows that fit, if they differ."""
    rows = max(1, 4 * run.most_nbytes // (spec.nbytes // max(1, spec.shape[0])))
    inner = spec.numel // spec.shape[0]
    flat = np.zeros(rows * inner, dtype=spec.dtype.bits)
    bench = run.bench()
    for region in run.regions(difference.tensor):
        for tile in tiles(region, max(1, run.most_nbytes // spec.dtype.nbytes)):
            leaf = tile.left
            assert isinstance(leaf, Leaf)
            last = leaf.offset + sum((size - 1) * stride for size, stride in zip(tile.shape, leaf.strides, strict=True))
            if last < len(flat):
                box_of(flat, tile)[...] = bench.sides(tile.left, tile.right, tile.shape)[1]
            elif leaf.offset < len(flat):
                return None
    shape = (rows, *spec.shape[1:])
    found = np.array(run.target.fetch(difference.tensor, 0, (len(flat),), (1,))).reshape(shape)
    if np.array_equal(found, flat.reshape(shape)):
        return None
    said = cause_of(found, flat.reshape(shape), spec.dtype)
    return None if said is None else f"in its first {rows:,} rows: {said}"


def _another_tensor(run: Run, name: str, bits: Bits, spec: TensorSpec, candidates: Sequence[str]) -> str | None:
    """The values that another target tensor should have; swapped, when that one has these."""
    if spec.numel < 2:
        return None
    flat = bits.reshape(-1)
    probes = sorted({round(step * (spec.numel - 1) / (PROBES - 1)) for step in range(PROBES)})
    for other in candidates[:MOST_CANDIDATES]:
        if other == name or any(one_wanted(run, other, place) != flat[place] for place in probes):
            continue
        if not np.array_equal(wanted_bits(run, other, spec), bits):
            continue
        back = other in run.target.manifest and run.target.manifest[other] == spec
        if back and np.array_equal(whole(run, other, spec), wanted_bits(run, name, spec)):
            return f"equal to {other}: the two tensors are swapped"
        return f"equal to what {other} should be"
    return None


def one_wanted(run: Run, name: str, flat: int) -> Any:
    """The bits that one element of a target should have."""
    from isomorph.verify.compare import element_region

    region = element_region(run, name, flat)
    return run.bench().sides(region.left, region.right, region.shape)[1].reshape(-1)[0]


def _parts_moved(run: Run, name: str, bits: Bits, wanted: Bits, spec: TensorSpec) -> str | None:
    """The tensor's parts, one from each source tensor (or block), in another order."""
    regions = [region for region in run.regions(name) if next(leaves(region.right), None) is not None]
    if not 2 <= len(regions) <= 64:
        return None
    found, meant = bits.reshape(-1), wanted.reshape(-1)
    have = [box_of(found, region) for region in regions]
    want = [box_of(meant, region) for region in regions]
    order: list[int] = []
    for place, part in enumerate(have):
        choices = [place, *(other for other in range(len(want)) if other != place)]
        match = next(
            (other for other in choices if part.shape == want[other].shape and np.array_equal(part, want[other])), None
        )
        if match is None:
            return None
        order.append(match)
    if order == list(range(len(order))) or sorted(order) != list(range(len(order))):
        return None
    names = _part_names(regions)
    moved = [place for place, match in enumerate(order) if place != match]
    read = " ".join(names[match] for match in order) if len(order) <= 12 else f"{len(order)} parts in another order"
    if len(moved) == 2:
        return f"parts {names[moved[0]]} and {names[moved[1]]} are swapped; read as {read} the tensor is equal"
    return f"parts stand in another order; read as {read} the tensor is equal"


def _parts_changed(run: Run, name: str, bits: Bits, wanted: Bits, spec: TensorSpec) -> str | None:
    """Some of the tensor's parts changed in one way, each by itself, and the others as they should be."""
    regions = [region for region in run.regions(name) if next(leaves(region.right), None) is not None]
    if not 2 <= len(regions) <= 64 or bits.dtype.itemsize > 8:
        return None
    found, meant = bits.reshape(-1), wanted.reshape(-1)
    said: dict[int, str] = {}
    for place, region in enumerate(regions):
        one, two = (np.ascontiguousarray(box_of(side, region)) for side in (found, meant))
        if not np.array_equal(one, two):
            cause = cause_of(one, two, spec.dtype)
            if cause is None:
                return None
            said[place] = cause
    if not said or len(said) == len(regions) or len(set(said.values())) > 1:
        return None
    names = _part_names(regions)
    which = [names[place] for place in said]
    word = "part" if len(which) == 1 else "parts"
    listed = which[0] if len(which) == 1 else f"{', '.join(which[:-1])} and {which[-1]}"
    return f"{word} {listed}, {'by itself' if len(which) == 1 else 'each by itself'}: {next(iter(said.values()))}"


def _part_names(regions: Sequence[Region]) -> list[str]:
    """Short names for parts: what tells their source tensors apart, or their numbers."""
    names = [next(leaves(region.right)).name for region in regions]
    if len(set(names)) < len(names):
        return [str(place) for place in range(len(names))]
    first, last = min(names), max(names)
    start = 0
    while start < min(len(first), len(last)) and first[start] == last[start]:
        start += 1
    while start and first[start - 1] not in "./_:":
        start -= 1
    end = 0
    while end < min(map(len, names)) - start and len({name[len(name) - 1 - end] for name in names}) == 1:
        end += 1
    while end and names[0][len(names[0]) - end] not in "./_:":
        end -= 1
    return [name[start : len(name) - end] for name in names]
