"""Errors that were found already, met again further on: a residual stream carries what a splice beside it does not mend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isomorph.trace.nouns import Array

LIKE = 1e-3
"""The share of an error that may be left when those known are taken off."""
MOST = 8


def is_carried(error: Array, known: Sequence[Array]) -> bool:
    """Whether an error (candidate minus reference) is made of errors that are known: a sum of multiples of them.

    Known ones may have an axis more, of which one position is taken (the first, the last, one for each row) or the mean, or be
    longer along an axis.
    """
    if not known or not np.isfinite(error).all() or not error.any():
        return False
    columns: list[Array] = []
    for one in known[-MOST:]:
        if not np.isfinite(one).all():
            continue
        for part in _parts(one, error):
            if _is_left_little(error, [part]):
                return True
            if one.shape == error.shape:
                columns.append(part)
    return len(columns) > 1 and _is_left_little(error, columns)


def _is_left_little(error: Array, parts: Sequence[Array]) -> bool:
    matrix = np.stack([part.reshape(-1) for part in parts], axis=1)
    scale = np.abs(matrix).max(axis=0)
    if not scale.all():
        return False
    matrix = matrix / scale
    flat = error.reshape(-1)
    weights, *_ = np.linalg.lstsq(matrix, flat, rcond=None)
    left = np.abs(flat - matrix @ weights).max()
    return bool(left <= LIKE * np.abs(flat).max())


def _parts(one: Array, like: Array) -> Iterator[Array]:
    """What of a known error has the shape of this one."""
    if one.shape == like.shape:
        yield one
        return
    if one.ndim == like.ndim + 1:
        for axis in range(one.ndim):
            if one.shape[:axis] + one.shape[axis + 1 :] != like.shape:
                continue
            moved = np.moveaxis(one, axis, 0)
            yield moved[0]
            yield moved[-1]
            yield moved.mean(axis=0)
            if like.ndim == 2 and axis == 1:
                gaps = np.abs(moved - like).sum(axis=-1)  # [position, row]
                yield moved[gaps.argmin(axis=0), np.arange(like.shape[0])]
    elif one.ndim == like.ndim:
        longer = [axis for axis in range(one.ndim) if one.shape[axis] != like.shape[axis]]
        if len(longer) == 1 and one.shape[longer[0]] > like.shape[longer[0]]:
            axis = longer[0]
            for start in (0, one.shape[axis] - like.shape[axis]):
                yield np.take(one, np.arange(start, start + like.shape[axis]), axis)
