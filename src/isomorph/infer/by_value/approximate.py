"""What a tensor is nearest to, where its values are found nowhere: a fine-tuned copy, a map that was rounded otherwise, or nothing.

Evidence, never a placement. Tensors of the same sizes are compared on a few thousand elements each, in every order of their axes,
all with all in a few products of matrices; names play no part (but to choose between two that are equally near).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isomorph.errors import CheckError, MorphError
from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.changes import Change, apply
from isomorph.infer.by_value.maps import FIXED
from isomorph.infer.by_value.samples import orders, sample
from isomorph.tensors import DTYPES, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]

NEAR = 0.9
"""Correlated like this, a tensor may be a fine-tuned copy of the other."""
SOME = 0.3
"""Less correlated than this, nothing is said."""
DEVIATIONS = 6
"""Chance correlations of n numbers are about 1 / sqrt(n); what is said is so many times as much."""
ROUNDED = 1e-2
"""A map that leaves a smaller relative error than this is named."""
AT_ONCE = 1 << 22
"""Numbers of samples that are multiplied at a time."""


@dataclass(frozen=True)
class Near:
    """The source tensor that a target is most like, on `looked_at` of its elements.

    `cosine` of the two as vectors, `correlation` (with their means taken off), `equal` the fraction of elements with one value,
    `error` the relative error of taking the one for the other. `order` says how the source's axes (unit axes aside) are to be
    transposed. `change`: a map (`exp(w)`, `w * 0.125`) after which the error is only `changed_error`; "" where there is none.
    """

    source: str
    cosine: float
    correlation: float
    equal: float
    error: float
    order: tuple[int, ...]
    looked_at: int
    change: str = ""
    changed_error: float = 0.0

    @property
    def is_copy(self) -> bool:
        """Like a fine-tuned copy."""
        return self.correlation >= NEAR and not self.change

    @property
    def words(self) -> str:
        """`layers.0.w transposed: cosine 0.9998, no element equal: a fine-tuned copy?`"""
        text = self.source + ("" if list(self.order) == sorted(self.order) else ", transposed")
        if self.change:
            if self.changed_error == 0:
                return f"{text}: {self.change}, in all {self.looked_at:,} elements looked at"
            return f"{text}: about {self.change}, within {self.changed_error:.1g} (relative), rounded otherwise?"
        text += f": cosine {_digits(self.cosine)}, {_share(self.equal)} equal"
        return text + (": a fine-tuned copy?" if self.is_copy else ": related?")


def nearest(
    source: Checkpoint, target: Checkpoint, unplaced: Iterable[str], candidates: Iterable[str] | None = None
) -> Mapping[str, str]:
    """Unplaced target -> what it is nearest to, in words. Targets that are like nothing are left out."""
    return {name: near.words for name, near in nearest_tensors(source, target, unplaced, candidates).items()}


def nearest_tensors(
    source: Checkpoint, target: Checkpoint, unplaced: Iterable[str], candidates: Iterable[str] | None = None
) -> dict[str, Near]:
    """Unplaced target -> the source (of `candidates`; all, if not given) that it is nearest to. Like nothing: left out."""
    mine = _by_sizes(source, source.manifest if candidates is None else candidates)
    its = _by_sizes(target, unplaced)
    found: dict[str, Near] = {}
    for sizes, names in its.items():
        rivals = mine.get(sizes, [])
        most = max(1, AT_ONCE // 4096)
        for start in range(0, len(names) if rivals else 0, most):
            some = names[start : start + most]
            samples = [sample(target, name) for name in some]
            best: dict[str, tuple[float, float, str, tuple[int, ...], Array]] = {}
            for first in range(0, len(rivals), most):
                _compare(source, rivals[first : first + most], target, some, samples, best)
            for name, values in zip(some, samples, strict=True):
                if name in best:
                    near = _near(best[name], values)
                    if near is not None:
                        found[name] = near
    return {name: found[name] for name in target.manifest if name in found}


def summary(found: Mapping[str, Near], unplaced: int) -> str | None:
    """One sentence for people about all of them; None where few are near anything."""
    copies = [near for near in found.values() if near.is_copy]
    if not copies or 2 * len(copies) < unplaced:
        return None
    equal = sum(near.equal for near in copies) / len(copies)
    least = min(near.cosine for near in copies)
    return (
        f"{len(copies)} of the {unplaced} tensors without a place are near one of the source (cosine at least {_digits(least)}), "
        f"with {_share(equal)} equal: a fine-tuned copy, not the same weights"
    )


def _by_sizes(checkpoint: Checkpoint, names: Iterable[str]) -> dict[tuple[int, ...], list[str]]:
    """Names by the sizes of their axes, unit axes aside, in whatever order."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name in names:
        spec = checkpoint.manifest[name]
        if spec.numel > 1 and spec.dtype.kind not in ("opaque", "complex"):
            found.setdefault(tuple(sorted(_sizes(spec))), []).append(name)
    return found


def _sizes(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size for size in spec.shape if size != 1)


def _compare(
    source: Checkpoint,
    rivals: Sequence[str],
    target: Checkpoint,
    names: Sequence[str],
    samples: Sequence[Array],
    best: dict[str, tuple[float, float, str, tuple[int, ...], Array]],
) -> None:
    """Keep in `best` for each target the rival that it is most correlated with: (likeness, its name's, rival, order, values)."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for index, name in enumerate(names):
        by_shape.setdefault(_sizes(target.manifest[name]), []).append(index)
    taken: dict[tuple[int, ...], list[tuple[str, Array]]] = {}
    for name in rivals:
        taken.setdefault(_sizes(source.manifest[name]), []).append((name, sample(source, name)))
    for its, indices in by_shape.items():
        left = np.stack([_centred(samples[index]) for index in indices])
        for mine, pairs in taken.items():
            for order in orders(mine, its):
                right = np.stack([_centred(values.transpose(order)) for _, values in pairs])
                likeness = np.abs(left @ right.T)
                for row, index in enumerate(indices):
                    top = float(likeness[row].max())
                    for column in np.flatnonzero(likeness[row] >= top - 1e-9).tolist():
                        rival, values = pairs[column]
                        found = (round(top, 9), _shared(rival, names[index]), rival, order, values.transpose(order))
                        if names[index] not in best or found[:2] > best[names[index]][:2]:
                            best[names[index]] = found


def _centred(values: Array) -> Array:
    """As a vector of mean 0 and length 1; zeros where all elements are one number."""
    flat = values.reshape(-1) / (np.abs(values).max() or 1.0)
    flat = flat - flat.mean()
    length = math.sqrt(float(np.square(flat).sum()))
    return flat / length if length > 1e-12 * math.sqrt(flat.size) else np.zeros_like(flat)


def _shared(one: str, other: str) -> float:
    """How many pieces two names share, from the end."""
    count = 0
    for left, right in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if left != right:
            break
        count += 1
    return float(count)


def _near(found: tuple[float, float, str, tuple[int, ...], Array], values: Array) -> Near | None:
    likeness, _, name, order, its = found
    count = values.size
    if likeness < max(SOME, min(DEVIATIONS / math.sqrt(count), 0.99)):
        return None
    a, b = values.reshape(-1), its.reshape(-1)
    scale = max(float(np.abs(a).max()), float(np.abs(b).max()), 1e-300)
    a, b = a / scale, b / scale
    length, other = float(np.square(a).sum()) ** 0.5, float(np.square(b).sum()) ** 0.5
    cosine = float((a * b).sum()) / (length * other) if length * other else 0.0
    correlation = float((_centred(a) * _centred(b)).sum())
    error = _error(a, b)
    change, changed = _map(values.reshape(-1), its.reshape(-1), error)
    equal = float(np.count_nonzero(a == b)) / count
    return Near(name, cosine, correlation, equal, error, order, count, change, changed)


def _error(made: Array, wanted: Array) -> float:
    length = float(np.square(made).sum()) ** 0.5
    return float(np.square(made - wanted).sum()) ** 0.5 / length if length else math.inf


def _map(made: Array, given: Array, error: float) -> tuple[str, float]:
    """A map of `given` that is much nearer to `made` than `given` is: its words, and the relative error it leaves."""
    best = ("", min(ROUNDED, error / 10))
    with np.errstate(all="ignore"):
        square = float(np.square(given).sum())
        factor = float((made * given).sum()) / square if square else 0.0
        tries = [(f"w * {factor:.6g}", given * factor)]
        for each in FIXED:
            try:
                tries.append((each.words, np.asarray(apply(given, Change(each.operators, ""), DTYPES["f64"]))))
            except (CheckError, MorphError):
                continue
        for words, values in tries:
            left = _error(made, values)
            if left < best[1]:
                best = (words, left)
    return best if best[0] else ("", 0.0)


def _digits(value: float) -> str:
    """As many digits as tell it from 1: 0.93, 0.9998, 0.9999997."""
    gap = 1 - abs(value)
    digits = 2 if gap > 0.05 or gap <= 0 else min(12, 1 - math.floor(math.log10(gap)))
    return f"{value:.{digits}f}"


def _share(fraction: float) -> str:
    if fraction == 0:
        return "no element"
    return f"{100 * fraction:.3g} % of the elements"
