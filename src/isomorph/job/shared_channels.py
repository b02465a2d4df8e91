"""Runs of two models -> how much of what the one computes inside the other computes too, whatever the layout of its tensors."""

from __future__ import annotations

import numpy as np

from isomorph.trace.nouns import Array, Capture

MOST_ALIKE = 4
"""Channels whose first sums are equal that are looked at."""


def shared(left: Capture, right: Capture, tolerance: float) -> float:
    """Of how many tensors that the reference computes the channels the candidate computes too, wherever and in whatever order.

    A channel is told by its sums (of x, x², x³) over all other axes, which do not see how these are laid out, and a fused tensor
    holds the channels of its parts. Each tensor counts by the part of its channels that is found.
    """
    there = {numel: _sorted(np.concatenate(rows)) for numel, rows in _channels(right).items()}
    count = 0.0
    for numel, tensors in _channels(left).items():
        if numel in there:
            count += sum(float(_is_in(rows, there[numel], tolerance).mean()) for rows in tensors)
    return count


def _channels(capture: Capture) -> dict[int, list[Array]]:
    """Elements in a channel -> of every floating tensor at a border, one row a channel: Σx, Σx², Σx³, and the same of |x|."""
    found: dict[int, list[Array]] = {}
    for value in {id(value): value for value in capture.values.values()}.values():
        if value.dtype.kind != "f" or value.ndim < 2 or value.size < 2:
            continue
        for axis in (value.ndim - 1, 1) if value.ndim == 4 else (value.ndim - 1,):
            x = np.moveaxis(value, axis, -1).astype(np.float64, copy=False).reshape(-1, value.shape[axis])
            with np.errstate(all="ignore"):
                square = x * x
                sums = [x.sum(0), square.sum(0), (square * x).sum(0), np.abs(x).sum(0), np.abs(square * x).sum(0)]
            rows = np.stack([*sums[:4], sums[1], sums[4]], axis=1)
            if np.isfinite(rows).all():
                found.setdefault(len(x), []).append(rows)
    return found


def _sorted(rows: Array) -> Array:
    return np.asarray(rows[np.argsort(rows[:, 0], kind="stable")])


def _is_in(rows: Array, known: Array, tolerance: float) -> Array:
    """Which rows are among those that are known (sorted by their first column)."""
    slack = tolerance * rows[:, 3:]
    first = np.searchsorted(known[:, 0], rows[:, 0] - slack[:, 0], side="left")
    found = np.zeros(len(rows), bool)
    for step in range(MOST_ALIKE):
        at = np.minimum(first + step, len(known) - 1)
        found |= (np.abs(known[at, :3] - rows[:, :3]) <= slack).all(axis=1)
    return found
