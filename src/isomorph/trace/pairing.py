"""An event and two runs -> its two tensors, entry beside entry, in the reference's layout; and the way back, for splicing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from isomorph.trace.arrange import Arrangement, arrangements, chosen
from isomorph.trace.nouns import Array, Capture, Event, Link, Site

SAME = 1e-4
"""Values along an axis that differ by less than this are one, repeated."""
NEAR = 0.05
"""How near a position must be to be the one that was taken, relative to the largest value."""


class Unpaired(ValueError):
    """Two tensors that are not of one content; says why."""


def value(seen: Capture, site: Site) -> Array | None:
    """The tensor at a border; None where the run had none there. Outputs of the model are counted as its flattened outputs."""
    if not site.module and site.border == "out":
        outputs = list(seen.outputs.values())
        return outputs[site.index] if site.index < len(outputs) else None
    return seen.values.get(site)


def paired(event: Event, seen_reference: Capture, seen_candidate: Capture) -> tuple[Array, Array]:
    """Both tensors as float64, of one shape, in the reference's layout: entry by entry they should be equal. Raises Unpaired."""
    reference, candidate = value(seen_reference, event.reference), value(seen_candidate, event.candidate)
    if reference is None or candidate is None:
        missing = event.reference if reference is None else event.candidate
        raise Unpaired(f"{missing} holds no tensor in this run")
    return beside(event.link, reference, candidate)


def beside(link: Link, reference: Array, candidate: Array) -> tuple[Array, Array]:
    """`paired` for two tensors at hand."""
    link, reference = _pooled(link, reference)
    left, right, arrangement = _arranged(link, reference, candidate)
    made = arrangement.to_left(right.astype(np.float64, copy=False))
    kept = arrangement.shared(left.astype(np.float64, copy=False))
    front = 1 if arrangement.repeats_left else 0
    if link.channels is not None:
        axis = link.channels.reference_axis % reference.ndim + front
        kept, made = np.moveaxis(kept, front, axis), np.moveaxis(made, front, axis)
    if front and kept.shape[1] == 1:  # repeated along an axis that the reference has, of size 1
        kept, made = np.squeeze(kept, 1), np.squeeze(made, 1)
    return kept, made


def into_candidate(link: Link, reference: Array, reference_like: Array, candidate: Array) -> Array:
    """The candidate's tensor with the reference's entries in it: a copy; entries that no channel names stay.

    `reference` is in the layout that `paired` gives; `reference_like` is the reference's whole tensor. Raises Unpaired where it
    does not fit.
    """
    link, reference_like = _pooled(link, reference_like)
    _, right, arrangement = _arranged(link, reference_like, candidate)
    values = reference
    if arrangement.repeats_left:
        if not np.array_equal(np.broadcast_to(values[:1], values.shape), values):
            raise Unpaired("the candidate's tensor has an axis that the reference's lacks")
        shape = list(reference_like.shape)
        if link.channels is not None:
            shape[link.channels.reference_axis] = len(link.channels.reference)
        values = values[0].reshape(shape)
    found = np.array(candidate, copy=True)
    if link.channels is None:
        found[...] = _fitting(arrangement, values).reshape(candidate.shape)
        return found
    values = np.moveaxis(values, link.channels.reference_axis, 0)
    moved = np.moveaxis(found, link.channels.candidate_axis, 0)
    moved[link.channels.candidate] = _fitting(arrangement, values).reshape(right.shape)
    return found


def _fitting(arrangement: Arrangement, values: Array) -> Array:
    try:
        return arrangement.to_right(values)
    except ValueError as unfit:
        raise Unpaired(str(unfit)) from None


def _pooled(link: Link, reference: Array) -> tuple[Link, Array]:
    """The reference's tensor where the candidate holds one position of each row, and the link without `taken`."""
    if link.taken is None:
        return link, reference
    axis, positions = link.taken
    rows = np.moveaxis(reference, axis, 1) if reference.ndim > 1 and axis < reference.ndim else reference
    if rows.ndim < 2 or len(positions) != len(rows) or max(positions) >= rows.shape[1]:
        raise Unpaired("the candidate holds fewer positions than the reference, and none of the reference's are they")
    channels = link.channels
    if channels is not None:
        at = channels.reference_axis % reference.ndim - reference.ndim
        channels = replace(channels, reference_axis=at)
    return replace(link, taken=None, channels=channels), rows[np.arange(len(rows)), list(positions)]


@dataclass(frozen=True)
class _Sides:
    left: Array
    right: Array


def _cut(link: Link, reference: Array, candidate: Array) -> _Sides:
    """Both tensors with only the entries that correspond, channels first."""
    channels = link.channels
    if channels is None:
        return _Sides(reference, candidate)
    for array, axis, entries, whose in (
        (reference, channels.reference_axis, channels.reference, "reference"),
        (candidate, channels.candidate_axis, channels.candidate, "candidate"),
    ):
        if not -array.ndim <= axis < array.ndim or entries.max() >= array.shape[axis]:
            raise Unpaired(f"the {whose}'s tensor {list(array.shape)} has not the channels that its weights have")
    return _Sides(
        np.moveaxis(reference, channels.reference_axis, 0)[channels.reference],
        np.moveaxis(candidate, channels.candidate_axis, 0)[channels.candidate],
    )


def _arranged(link: Link, reference: Array, candidate: Array) -> tuple[Array, Array, Arrangement]:
    sides = _cut(link, reference, candidate)
    found = _candidates(link, sides.left, sides.right)
    one = chosen(found, link.order)
    if one is None:
        raise Unpaired(f"{list(reference.shape)} and {list(candidate.shape)} are not of one content")
    return sides.left, sides.right, one


def _candidates(link: Link, left: Array, right: Array) -> list[Arrangement]:
    """Ways to arrange what is beside the channels (which come first on both sides)."""
    if link.channels is None:
        is_index = left.dtype.kind in "iub" and right.dtype.kind in "iub"
        return arrangements(left.shape, right.shape, may_repeat=is_index)
    found = arrangements(left.shape[1:], right.shape[1:], may_repeat=True)
    return [_with_channels(one, left, right) for one in found]


def _with_channels(one: Arrangement, left: Array, right: Array) -> Arrangement:
    """An arrangement of the other axes, as one of all axes, channels first on both sides."""
    shift = 0 if left.shape[0] == 1 else 1
    groups = tuple(tuple(axis + shift for axis in group) for group in one.groups)
    groups = ((0,), *groups) if shift else groups
    repeated = None if one.repeated is None else one.repeated + shift
    return replace(one, left=left.shape, right=right.shape, groups=groups, repeated=repeated)


def settled(link: Link, reference: Array, candidate: Array) -> Link:
    """The link with the order of its other axes fixed, where sizes leave a choice and the values of a run make it clear."""
    try:
        sides = _cut(link, reference, candidate)
    except Unpaired:
        return link
    found = _candidates(link, sides.left, sides.right)
    if len(found) < 2:
        return replace(link, order=found[0].signature) if found else link
    errors = []
    for one in found:
        made = one.to_left(sides.right.astype(np.float64, copy=False))
        difference = np.abs(made - one.shared(sides.left.astype(np.float64, copy=False)))
        errors.append(float(np.nanmax(difference)) if difference.size else 0.0)
    best = int(np.argmin(errors))
    is_clear = best == 0 or errors[best] * 10 < errors[0]
    return replace(link, order=found[best if is_clear else 0].signature)


def is_one_for_many(link: Link, reference: Array, candidate: Array) -> bool:
    """Whether one side lacks an axis, along which the other's floating values differ: they are not one tensor."""
    sides = _cut(link, reference, candidate)
    one = chosen(_candidates(link, sides.left, sides.right), link.order)
    if one is None or one.repeated is None or reference.dtype.kind != "f":
        return False
    long = sides.right if one.repeats_left else sides.left
    squeezed = long.reshape([size for size in long.shape if size != 1])
    first = np.take(squeezed, [0], one.repeated)
    gap = np.abs(squeezed - first).max(initial=0.0)
    return bool(gap > SAME * np.abs(first).max(initial=0.0))


def pools(reference: Array, candidate: Array) -> int | None:
    """The axis (0 or 1) of the reference's three of which the candidate may hold one position for each row."""
    if reference.ndim != 3 or reference.dtype.kind != "f" or candidate.dtype.kind != "f" or 1 in reference.shape[:2]:
        return None
    shape = [size for size in candidate.shape if size != 1]
    rows = [size for size in reference.shape if size != 1]
    for axis in (1, 0):
        if [size for size in np.delete(reference.shape, axis) if size != 1] == shape != rows:
            return axis
    return None


def positions_taken(link: Link, reference: Array, candidate: Array) -> tuple[int, ...] | None:
    """Which positions of a link that has `taken` these inputs show: the nearest of each row; None where one is not near."""
    if link.taken is None or pools(reference, candidate) != link.taken[0]:
        return None
    rows = np.moveaxis(reference, link.taken[0], 1).astype(np.float64, copy=False)
    held = candidate.reshape(len(rows), 1, -1).astype(np.float64, copy=False)
    if link.channels is not None:
        rows, held = rows[..., link.channels.reference], held[..., link.channels.candidate]
    if rows.shape[-1] != held.shape[-1]:
        return None
    gaps = np.abs(rows - held).max(axis=-1)
    if not np.isfinite(gaps).all() or gaps.min(axis=1).max() > NEAR * np.abs(rows).max():
        return None
    return tuple(int(position) for position in gaps.argmin(axis=1))
