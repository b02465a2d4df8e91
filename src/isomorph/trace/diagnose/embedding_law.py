"""What a table look-up computes, found from the ids that went in and the rows that came out. Pure numpy.

A law is y = scale · table[clip(id + offset)], with the rows of some ids zeroed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from isomorph.trace.diagnose.norm_law import error_between
from isomorph.trace.nouns import Array

MOST_IDS = 192
MOST_CELLS = 1 << 26


@dataclass(frozen=True)
class EmbeddingLaw:
    """`highest`, `lowest`: rows outside are never read, the nearest is taken instead. `zeroed`: ids whose output is zero."""

    offset: int = 0
    scale: float = 1.0
    lowest: int | None = None
    highest: int | None = None
    zeroed: tuple[int, ...] = ()

    def differences(self, other: EmbeddingLaw) -> list[str]:
        """The names of the fields that differ."""
        return [one.name for one in fields(self) if getattr(self, one.name) != getattr(other, one.name)]


def look_up(law: EmbeddingLaw, ids: Array, table: Array) -> Array:
    """What the law makes of ids: [*ids.shape, width]."""
    last = len(table) - 1
    lowest = 0 if law.lowest is None else law.lowest
    rows = np.clip(ids + law.offset, lowest, last if law.highest is None else law.highest)
    found: Array = law.scale * table[rows]
    if law.zeroed:
        found[np.isin(ids, law.zeroed)] = 0
    return found


def fit_embedding(ids: Array, y: Array, table: Array, tolerance: float) -> tuple[EmbeddingLaw, float] | None:
    """The law that explains y to `tolerance`, and the error that it leaves; None when none does.

    `ids` [...] whole numbers, `y` [..., width], `table` [rows, width].
    """
    if ids.dtype.kind not in "iu" or y.shape != (*ids.shape, table.shape[-1]) or table.ndim != 2 or not ids.size:
        return None
    size = float(np.max(np.abs(y)))
    if not math.isfinite(size) or not size:
        return None
    seen, first = np.unique(ids, return_index=True)
    rows = y.reshape(-1, y.shape[-1])[first]
    zero = np.max(np.abs(rows), axis=1) <= tolerance * size
    few = np.flatnonzero(~zero)
    few = few[:: max(1, len(few) // min(MOST_IDS, max(1, MOST_CELLS // table.size)))]
    if not len(few):
        return None
    nearest, factors = _nearest(rows[few], table)
    scale = _plain_scale(float(np.median(factors)), table.shape[1], tolerance)
    moves = nearest - seen[few]
    values, counts = np.unique(moves, return_counts=True)
    for offset in values[np.argsort(-counts, kind="stable")][:2].tolist():
        highest, lowest = _bounds(nearest, seen[few] + offset)
        zeroed = tuple(one for one in seen[zero].tolist() if _is_not_zero(table, one + offset, tolerance * size))
        law = EmbeddingLaw(offset, scale, lowest, highest, zeroed)
        error = error_between(look_up(law, ids, table), y)
        if error <= tolerance:
            return law, error
    return None


@np.errstate(all="ignore")
def _nearest(rows: Array, table: Array) -> tuple[Array, Array]:
    """For each row the one of the table that it is a multiple of, and the factor."""
    lengths = np.sqrt(np.square(table).sum(axis=1))
    units = table / np.where(lengths > 0, lengths, np.inf)[:, None]
    along = rows @ units.T
    nearest = np.argmax(np.abs(along), axis=1)
    factors = along[np.arange(len(rows)), nearest] / lengths[nearest]
    return nearest, factors


def _plain_scale(scale: float, width: int, tolerance: float) -> float:
    for plain in (1.0, math.sqrt(width), 1 / math.sqrt(width)):
        if abs(scale - plain) <= max(4 * tolerance, 1e-12) * plain:
            return plain
    return scale


def _bounds(nearest: Array, wanted: Array) -> tuple[int | None, int | None]:
    highest = int(nearest.max()) if (wanted > nearest.max()).any() else None
    lowest = int(nearest.min()) if (wanted < nearest.min()).any() else None
    return highest, lowest


def _is_not_zero(table: Array, row: int, tolerance: float) -> bool:
    return bool(np.max(np.abs(table[min(max(row, 0), len(table) - 1)])) > tolerance)
