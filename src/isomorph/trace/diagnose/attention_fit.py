"""Which rule of attention gives a tensor: sought on a few queries' rows, then made sure of on all. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

import numpy as np

from isomorph.trace.diagnose.attention_formula import Attention, Buckets, Rotary, attend
from isomorph.trace.diagnose.attention_variants import THETAS, masks_of
from isomorph.trace.nouns import Array

Three = tuple[Array, Array, Array]
MOST_ROWS = 6


@dataclass(frozen=True)
class Hints:
    """Numbers from the modules' attributes, where to begin: any may be absent or wrong."""

    heads: tuple[int, ...] = ()
    scales: tuple[float, ...] = ()
    thetas: tuple[float, ...] = ()
    distances: tuple[int, ...] = ()
    windows: tuple[int, ...] = ()


@dataclass
class Aim:
    """The tensor that a rule should give, [B T W].

    `kept` [B T] is what is compared of it. `carried` takes rows of a tensor on to where `target` is (the out-projection).
    """

    target: Array
    real: Array | None = None
    kept: Array | None = None
    tables: Mapping[str, Array] = field(default_factory=dict)
    carried: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        length = self.target.shape[1]
        spread = np.linspace(0, length - 1, MOST_ROWS).astype(int)
        self.rows = np.unique(np.concatenate([[length - 1, length // 2, min(1, length - 1)], spread]))[-MOST_ROWS - 2 :]
        kept = self.target if self.kept is None else self.target[self.kept]
        kept = kept[np.isfinite(kept)]
        self.top = float(np.abs(kept).max()) if kept.size else 1.0

    def error(self, rule: Attention, given: Three, *, rows: Array | None = None) -> float:
        """The largest difference over the largest value of the target, on some rows where given; inf where it does not fit."""
        difference = self.difference(rule, given, rows=rows)
        if difference is None or difference.size == 0:
            return math.inf
        worst = float(np.max(np.abs(difference)))
        return math.inf if math.isnan(worst) else worst / (self.top or 1.0)

    def difference(self, rule: Attention, given: Three, *, rows: Array | None = None) -> Array | None:
        """Made − target where it is compared, flat; None where the rule does not fit the shapes."""
        if any(tensor.shape[-1] % heads for tensor, heads in self._cuts(rule, given)):
            return None
        try:
            with np.errstate(all="ignore"):
                made = attend(rule, given, real=self.real, tables=dict(self.tables), rows=rows)
        except (ValueError, IndexError):
            return None
        if self.carried is not None:
            made = self.carried(made)
        target = self.target if rows is None else self.target[:, rows]
        if made.shape != target.shape:
            return None
        if self.kept is not None:
            kept = self.kept if rows is None else self.kept[:, rows]
            made, target = made[kept], target[kept]
        with np.errstate(invalid="ignore"):
            return np.asarray(made - target)

    @staticmethod
    def _cuts(rule: Attention, given: Three) -> Iterator[tuple[Array, int]]:
        key_heads = rule.key_heads or rule.heads
        yield given[rule.roles[0]], rule.heads
        yield given[rule.roles[1]], key_heads
        yield given[rule.roles[2]], key_heads


def fit(aim: Aim, given: Three, hints: Hints, limit: float) -> Attention | None:
    """The rule by which q, k and v make the target; None where none does.

    Plain attention is tried first, then with a table of biases, then with rotary positions.
    """
    if not may_be_values(aim, given[2], limit):
        return None
    for extend in (_plain, _with_tables, _with_rotary):
        for rule in extend(aim, given, hints):
            if aim.error(rule, given, rows=aim.rows) <= limit and aim.error(rule, given) <= limit:
                return rule
    return None


def may_be_values(aim: Aim, v: Array, limit: float) -> bool:
    """False where the target cannot be weighted means of v's rows: an entry is beyond all of its channel. Cheap."""
    if aim.carried is not None:
        return True
    target = aim.target
    if v.ndim != 3 or v.shape[0] != target.shape[0] or target.shape[2] % v.shape[2]:
        return False
    low, high = v.min(axis=1, keepdims=True), v.max(axis=1, keepdims=True)
    slack = max(limit, 1e-9) * aim.top
    for ends in _shared(low, high, v.shape[2], target.shape[2]):
        beyond = (target < ends[0] - slack) | (target > ends[1] + slack)
        if not bool((beyond if aim.kept is None else beyond[aim.kept]).any()):
            return True
    return False


def _shared(low: Array, high: Array, narrow: int, width: int) -> Iterator[tuple[Array, Array]]:
    """The ends of v's channels as each channel of the output sees them: once, or for every head that shares a key head."""
    if narrow == width:
        yield low, high
        return
    for each in range(1, narrow + 1):
        if narrow % each:
            continue
        for how in ("repeat", "tile"):
            cut = [x.reshape(x.shape[0], 1, narrow // each, each) for x in (low, high)]
            times = width // narrow
            made = [np.repeat(x, times, axis=2) if how == "repeat" else np.tile(x, (1, 1, times, 1)) for x in cut]
            yield made[0].reshape(low.shape[0], 1, width), made[1].reshape(low.shape[0], 1, width)


def orders(given: Sequence[Array], target_shape: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """Which of the tensors may be q, k and v by their shapes: the first ones of the list first."""
    batch, length = target_shape[:2]
    for q, k, v in sorted(permutations(range(len(given)), 3), key=lambda order: (max(order), order)):
        if given[q].shape[:2] != (batch, length) or given[k].shape[0] != batch:
            continue
        if given[k].shape != given[v].shape or given[q].shape[2] % given[k].shape[2]:
            continue
        yield q, k, v


def _plain(aim: Aim, given: Three, hints: Hints) -> Iterator[Attention]:
    width, key_width = given[0].shape[2], given[1].shape[2]
    for heads in _head_counts(width, key_width, hints):
        each = width // heads
        key_heads = None if key_width == width else key_width // each
        for scale in dict.fromkeys((each**-0.5, 1.0, *hints.scales, width**-0.5, 1 / each)):
            windows = tuple(window for window in hints.windows if window < aim.target.shape[1])
            for mask in masks_of(aim.real is not None, windows):
                yield Attention(heads, scale, key_heads, mask)


def _head_counts(width: int, key_width: int, hints: Hints) -> list[int]:
    possible = [n for n in range(1, width + 1) if width % n == 0 and key_width % (width // n) == 0]
    return sorted(possible, key=lambda n: (n not in hints.heads, abs(width // n - 64)))


def _with_tables(aim: Aim, given: Three, hints: Hints) -> Iterator[Attention]:
    for base in _plain(aim, given, hints):
        for name, table in aim.tables.items():
            if base.heads not in table.shape or base.scale not in (1.0, (given[0].shape[2] // base.heads) ** -0.5):
                continue
            for is_bidirectional in (True, False):
                for distance in dict.fromkeys((*hints.distances, 128, 64, 256, 32, 16, 20, 40)):
                    yield replace(base, bias=Buckets(name, is_bidirectional, distance))


def _with_rotary(aim: Aim, given: Three, hints: Hints) -> Iterator[Attention]:
    for base in _plain(aim, given, hints):
        each = given[0].shape[2] // base.heads
        if each < 2 or base.scale not in (each**-0.5, *hints.scales):
            continue
        for theta in dict.fromkeys((*hints.thetas, *THETAS[:3])):
            for style in ("half", "pairs"):
                for width in dict.fromkeys((each, each // 2, each // 4)):
                    if width >= 2:
                        yield replace(base, rotary=Rotary(style, theta, width))


def solve_number(
    aim: Aim, given: Three, make: Callable[[float], Attention], grid: Sequence[float]
) -> tuple[Attention, float, float] | None:
    """(rule, number, error) of the number that comes closest: the best of a grid, then Gauss and Newton from it.

    The error is on all rows.
    """
    errors = [aim.error(make(number), given, rows=aim.rows) for number in grid]
    start = int(np.argmin(errors))
    if not math.isfinite(errors[start]):
        return None
    number = float(grid[start])
    for _ in range(30):
        step = max(abs(number), 1e-3) * 1e-6
        here = aim.difference(make(number), given, rows=aim.rows)
        ahead = aim.difference(make(number + step), given, rows=aim.rows)
        behind = aim.difference(make(number - step), given, rows=aim.rows)
        if here is None or ahead is None or behind is None:
            break
        slope = (ahead - behind) / (2 * step)
        square = float((slope * slope).sum())
        if square == 0 or not math.isfinite(square):
            break
        change = -float((slope * here).sum()) / square
        change = math.copysign(min(abs(change), 0.5 * max(abs(number), 1e-3)), change)
        number += change
        if abs(change) <= 1e-15 * max(abs(number), 1e-300):
            break
    rule = make(number)
    return rule, number, aim.error(rule, given)
