"""The shape of an error that nothing explains: where along positions, heads and channels it lies, in lines to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.nouns import Array

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_BARS = 32
BARS = " ▁▂▃▄▅▆▇█"
HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "heads", "nhead")


def shape_of(scene: Scene) -> tuple[str, ...]:
    """Lines that show the error of the suspect's tensor: by batch, position, head, channel; () when the two cannot be paired."""
    try:
        reference, candidate = scene.pair(scene.suspect.at)
    except ValueError:
        return ()
    kept = scene.kept(reference.shape)
    return lines_of(reference, candidate, scene.suspect.tolerance, heads=heads_of(scene), kept=kept)


def heads_of(scene: Scene) -> int | None:
    """The number of heads that a module around the suspect says it has."""
    for side, name in (
        (scene.candidate, scene.suspect.at.candidate.module),
        (scene.reference, scene.suspect.at.reference.module),
    ):
        modules = side.modules()
        while True:
            facts = modules.get(name)
            for word in HEADS if facts is not None else ():
                number = facts.attributes.get(word) if facts is not None else None
                if isinstance(number, int) and number > 1:
                    return number
            if not name:
                break
            name = name.rpartition(".")[0]
    return None


def lines_of(
    reference: Array, candidate: Array, tolerance: float, *, heads: int | None = None, kept: Array | None = None
) -> tuple[str, ...]:
    """The same for two tensors of one shape. An error is a part of the reference's largest absolute value; `kept` are counted."""
    if reference.shape != candidate.shape or not reference.size or not reference.ndim:
        return ()
    with np.errstate(all="ignore"):
        size = float(np.nanmax(np.abs(np.where(np.isfinite(reference), reference, np.nan)), initial=0.0)) or 1.0
        error = np.abs(candidate - reference) / size
    error = np.where(np.isfinite(error), error, np.inf)
    error = np.where(np.isfinite(reference), error, 0.0)
    if kept is not None:
        error = np.where(kept, error, 0.0)
    over = error > tolerance
    lines = [
        f"{int(over.sum()):,} of {error.size:,} elements are over {tolerance:.1e}; the largest error is {float(error.max()):.1e}"
    ]
    for axis, name in enumerate(_names(reference.ndim)):
        if reference.shape[axis] > 1:
            lines.append(_line(name, error, axis, tolerance))
    width = reference.shape[-1]
    if heads and width % heads == 0 and width > heads and reference.ndim > 1:
        split = error.reshape(*error.shape[:-1], heads, width // heads)
        lines.append(_line("head", split, split.ndim - 2, tolerance))
    ratio = _constant_ratio(reference, candidate, over)
    if ratio is not None:
        lines.append(f"where it is over, the candidate is {ratio:.6g} times the reference")
    step = _constant_step(reference, candidate, over)
    if step is not None:
        lines.append(f"where it is over, the candidate is the reference {'+' if step >= 0 else '-'} {abs(step):.6g}")
    return tuple(lines)


def _names(rank: int) -> Sequence[str]:
    return {1: ("channel",), 2: ("row", "channel"), 3: ("batch", "position", "channel")}.get(
        rank, ("batch", *(f"axis {axis}" for axis in range(1, rank - 1)), "channel" if rank != 4 else "axis 3")
    )


def _line(name: str, error: Array, axis: int, tolerance: float) -> str:
    """`by position   ▁▁▁█ …   3 to 17 of 0 to 17`: bars on a scale of powers of ten, from the tolerance to the largest."""
    along = np.moveaxis(error, axis, 0).reshape(error.shape[axis], -1).max(axis=1)
    wrong = np.flatnonzero(along > tolerance)
    if len(wrong) == 0:
        where = "none is over"
    elif len(wrong) == len(along):
        where = f"all {len(along)} are over"
    elif len(wrong) == wrong[-1] - wrong[0] + 1:
        where = (
            f"{wrong[0]} to {wrong[-1]} of {len(along)} are over"
            if len(wrong) > 1
            else f"only {wrong[0]} of {len(along)} is over"
        )
    else:
        first = " ".join(map(str, wrong[:8].tolist()))
        where = f"{len(wrong)} of {len(along)} are over: {first}{' …' if len(wrong) > 8 else ''}"
    return f"by {name:8} |{_bars(along, tolerance)}| {where}"


def _bars(along: Array, tolerance: float) -> str:
    groups = np.array_split(along, min(len(along), MOST_BARS))
    tops = np.array([float(group.max()) for group in groups])
    least = max(tolerance, 1e-300)
    most = max(float(tops[np.isfinite(tops)].max(initial=least)), 10 * least)
    with np.errstate(all="ignore"):
        heights = np.log(np.maximum(tops, least) / least) / np.log(most / least)
    heights = np.where(np.isfinite(heights), heights, 1.0)
    return "".join(
        BARS[0] if top <= tolerance else BARS[1 + round(7 * min(1.0, height))]
        for top, height in zip(tops.tolist(), heights.tolist(), strict=True)
    )


def _constant_ratio(reference: Array, candidate: Array, over: Array) -> float | None:
    big = over & (
        np.abs(reference) > 1e-3 * float(np.max(np.abs(reference), where=np.isfinite(reference), initial=0.0))
    )
    if np.count_nonzero(big) < 8:
        return None
    with np.errstate(all="ignore"):
        ratios = candidate[big] / reference[big]
    middle = float(np.median(ratios))
    spread = float(np.max(np.abs(ratios - middle)))
    return middle if np.isfinite(spread) and spread <= 1e-4 * abs(middle) else None


def _constant_step(reference: Array, candidate: Array, over: Array) -> float | None:
    if np.count_nonzero(over) < 8:
        return None
    steps = candidate[over] - reference[over]
    middle = float(np.median(steps))
    spread = float(np.max(np.abs(steps - middle)))
    return middle if np.isfinite(spread) and middle and spread <= 1e-4 * abs(middle) else None
