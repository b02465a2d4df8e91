"""What form of mask does a side take? Asked of the side itself: what is masked away must not be seen at the other positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.nouns import Array
from isomorph.trace.protocol import Inputs, Side

HIDDEN = 1e-6
"""Of the change that a real token makes: what a hidden one may make."""

SEEN = 1e-3
"""Of the size of an output: a hidden token that changes as much is seen."""


@dataclass(frozen=True)
class MaskForm:
    """How a side's mask is written: dtype, whether true is a real position (or one to hide), whether axes for heads and queries are
    in it."""

    dtype: str = "int64"
    hides_true: bool = False
    is_wide: bool = False

    def write(self, real: Array) -> Array:
        """`real` [batch, position] as this side takes it."""
        made = (~real if self.hides_true else real).astype(self.dtype)
        return made[:, None, None, :] if self.is_wide else made

    def __str__(self) -> str:
        return f"{self.dtype}, {'1 hides' if self.hides_true else '1 is real'}{', [batch 1 1 position]' if self.is_wide else ''}"


FORMS = tuple(
    MaskForm(dtype, hides_true, is_wide)
    for is_wide in (False, True)
    for dtype in ("int64", "bool", "float32")
    for hides_true in (False, True)
)


def form_of(
    side: Side, build: Callable[[Array, Array], Inputs], real: Array, tokens: Array, other: Array
) -> MaskForm | None:
    """The form whose padding this side does not see; else the first that it runs with; None where it runs with none.

    `build(mask, tokens)` makes the side's inputs. `tokens` and `other` are two draws [batch, position]; `real` is no padding.
    """
    runs: MaskForm | None = None
    for form in FORMS:
        if form.is_wide and runs is not None:
            break  # whatever it means, this side takes [batch, position]
        mask = form.write(real)
        try:
            first = side.run(build(mask, tokens), watch=()).outputs
            hidden = side.run(build(mask, np.where(real, tokens, other)), watch=()).outputs
            runs = runs or form
            if _is_seen(first, hidden, real):
                continue
            shown = side.run(build(mask, np.where(real, other, tokens)), watch=()).outputs
        except UsageError:
            continue
        seen = [
            (_change(first[name], hidden[name], real), moved)
            for name in first
            if name in hidden and name in shown and (moved := _change(first[name], shown[name], real)) > 0
        ]
        if seen and max(leak / moved for leak, moved in seen) <= HIDDEN:
            return form
    return runs


def _is_seen(first: Mapping[str, Array], hidden: Mapping[str, Array], real: Array) -> bool:
    """Whether what should be hidden changes an output by so much that no change of a real token can be many times larger."""
    return any(
        _change(one, hidden[name], real) > SEEN * float(np.abs(one).max(initial=0.0))
        for name, one in first.items()
        if name in hidden and one.dtype.kind == "f" and one.size
    )


def _change(one: Array, two: Array, real: Array) -> float:
    """The largest difference at real positions, where the leading axes are batch and position; else anywhere."""
    if one.shape != two.shape or one.dtype.kind not in "fiu":
        return 0.0
    step = np.abs(np.asarray(one, dtype=np.float64) - np.asarray(two, dtype=np.float64))
    if step.shape[:2] == real.shape:
        step = step[real]
    return float(np.max(np.where(np.isnan(step), np.inf, step), initial=0.0))
