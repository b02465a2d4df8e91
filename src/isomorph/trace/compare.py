"""An event and two runs -> a Measure: elementwise, against a tolerance; what is not finite or not there never passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from isomorph.trace.nouns import Array, Capture, Event, Link, Measure, Site
from isomorph.trace.pairing import Unpaired, paired, value

_WHERE = frozenset(("border", "reference", "candidate", "reference_index", "candidate_index", "names", "channels"))
"""What a link says of where its tensors are; the rest says how they correspond."""
_USUAL = _WHERE | {"order"}


def error_of(reference: Array, candidate: Array, kept: Array | None = None) -> float:
    """The largest absolute difference over the largest absolute value of the reference, where that is finite and `kept`."""
    with np.errstate(invalid="ignore", over="ignore"):
        if kept is None and reference.size:
            scale, gap = _largest(reference), _largest(np.subtract(candidate, reference))
            if np.isfinite(scale) and np.isfinite(gap):
                return gap / scale if scale else gap
        counted = np.isfinite(reference)
        if kept is not None:
            counted = counted & kept
        if not counted.any():
            return 0.0
        left, right = reference[counted], candidate[counted]
        if not np.isfinite(right).all():
            return float("inf")
        scale = float(np.abs(left).max())
        gap = float(np.abs(left - right).max())
    return gap / scale if scale else gap


def _largest(array: Array) -> float:
    """The largest absolute value; NaN where there is one."""
    return float(max(array.max(), -array.min())) if array.dtype.kind == "f" else float(np.abs(array).max())


def real_positions(padding: Array | None, shape: tuple[int, ...]) -> Array | None:
    """Which elements of a tensor of that shape belong to real positions, as a mask that broadcasts to it; None: all.

    `padding` is [batch, position], true where a position is real. It is found as the leading axes (batch, position), (position,
    batch) or both in one, or as (batch, heads, position, …).
    """
    if padding is None:
        return None
    mask = np.asarray(padding).astype(bool)
    if mask.ndim != 2 or mask.all():
        return None
    batch, length = mask.shape
    if shape[:2] == (batch, length):
        return mask.reshape(batch, length, *[1] * (len(shape) - 2))
    if shape[:2] == (length, batch):
        return mask.T.reshape(length, batch, *[1] * (len(shape) - 2))
    if len(shape) > 1 and shape[0] == batch * length:
        return mask.reshape(batch * length, *[1] * (len(shape) - 1))
    if len(shape) > 3 and shape[0] == batch and shape[2] == length:
        return mask.reshape(batch, 1, length, *[1] * (len(shape) - 3))
    return None


def measured(
    event: Event, reference: Capture, candidate: Capture, tolerance: float, padding: Array | None = None
) -> Measure:
    """One event, compared."""
    try:
        left, right = _as_they_are(event, reference, candidate) or paired(event, reference, candidate)
    except Unpaired as unpaired:
        return Measure(event, float("inf"), tolerance, 0, str(unpaired))
    kept = real_positions(padding, left.shape)
    if kept is None and left.size:
        with np.errstate(invalid="ignore", over="ignore"):
            scale, gap = _largest(left), _largest(np.subtract(right, left))
        if np.isfinite(scale) and np.isfinite(gap):
            return Measure(event, gap / scale if scale else gap, tolerance, left.size)
    finite = np.isfinite(left)
    bad = finite & ~np.isfinite(right)
    if bad.any():
        return Measure(
            event, float("inf"), tolerance, int(finite.sum()), "NaN" if np.isnan(right[bad]).any() else "Inf"
        )
    counted = finite if kept is None else finite & kept
    elements = int(np.count_nonzero(counted))
    if not elements:
        return Measure(
            event, float("inf"), tolerance, 0, "nothing to compare" if finite.any() else "the reference is not finite"
        )
    return Measure(event, error_of(left, right, kept), tolerance, elements)


def _as_they_are(event: Event, reference: Capture, candidate: Capture) -> tuple[Array, Array] | None:
    """What `paired` gives where nothing has to be moved: quickly; None where it may have to be."""
    left, right = value(reference, event.reference), value(candidate, event.candidate)
    link, mine = event.link, event.link.channels
    if left is None or right is None or left.shape != right.shape or left.dtype.kind != "f" or right.dtype.kind != "f":
        return None
    if any(held is not None for name, held in vars(link).items() if name not in _USUAL):
        return None
    if link.order is not None and any(group != (number,) for number, group in enumerate(link.order)):
        return None
    if link.order is None and len(set(left.shape)) < left.ndim:
        return None
    if mine is not None:
        axes = {mine.reference_axis, mine.candidate_axis}
        axis = axes.pop()
        if axes or not -left.ndim <= axis < left.ndim:
            return None
        every = np.arange(left.shape[axis])
        if not (np.array_equal(mine.reference, every) and np.array_equal(mine.candidate, every)):
            return None
    return left.astype(np.float64, copy=False), right.astype(np.float64, copy=False)


def measures_of(
    events: Iterable[Event],
    reference: Capture,
    candidate: Capture,
    tolerances: Mapping[Site, float],
    padding: Array | None = None,
) -> tuple[Measure, ...]:
    """Every event, compared, in the order given. Two tensors that stand in several places are compared once."""
    made: dict[object, Measure] = {}
    found: list[Measure] = []
    for event in events:
        same = (
            id(value(reference, event.reference)),
            id(value(candidate, event.candidate)),
            _alike(event.link),
        )
        tolerance = tolerances[event.reference]
        one = made.get(same)
        if one is None or one.problem is not None:
            made[same] = one = measured(event, reference, candidate, tolerance, padding)
        else:
            one = replace(one, event=event, tolerance=tolerance)
        found.append(one)
    return tuple(found)


def _alike(link: Link) -> object:
    """Equal for links that arrange two tensors alike."""
    mine = link.channels
    how = tuple(held for name, held in vars(link).items() if name not in _WHERE)
    if mine is None:
        return how
    return how, mine.reference_axis, mine.candidate_axis, mine.reference.tobytes(), mine.candidate.tobytes()
