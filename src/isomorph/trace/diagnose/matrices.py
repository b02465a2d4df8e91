"""How one matrix differs from another in words, and what undoes it. Pure numpy.

A matrix is [out in], a bias [out]: what an affine module was found to compute, or what its weight should make it compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from isomorph.tensors import dtype
from isomorph.trace.diagnose.norm_law import error_between
from isomorph.trace.diagnose.orders import Part, order_of_lines, say_order
from isomorph.trace.nouns import Array


@dataclass(frozen=True)
class Change:
    """One way in which a matrix (or a bias) differs. `undo` makes, of the weight that is used so, one that is used rightly."""

    kind: str
    says: str
    undo: Callable[[Array], Array]


def changes_of_matrix(found: Array, meant: Array, tolerance: float, parts: Sequence[Part] = ()) -> list[Change]:
    """What may have been done to `meant` to make `found`, each explaining every element to `tolerance` (of the largest).

    [] when they are equal, or nothing explains it. Of a fused tensor whose parts differ in different ways, each is said.
    """
    if found.shape != meant.shape or error_between(found, meant) <= tolerance:
        return []
    whole = [change for look in LOOKS if (change := look(found, meant, tolerance, parts)) is not None]
    if whole or len(parts) < 2:
        return whole
    done: list[tuple[Part, Change]] = []
    for part in parts:
        one, two = found[part.start : part.stop], meant[part.start : part.stop]
        scaled = tolerance * _size(meant) / (_size(two) or 1.0)
        if error_between(one, two) > scaled:
            inner = changes_of_matrix(one, two, scaled)
            if not inner:
                return []
            done.append((part, inner[0]))
    return [_joined(done)]


def _joined(done: Sequence[tuple[Part, Change]]) -> Change:
    """The changes of a fused tensor's parts as one."""
    words = dict.fromkeys(change.says for _, change in done)
    text = "; ".join(
        f"{' and '.join(part.name for part, change in done if change.says == says)}: {says}" for says in words
    )

    def undo(values: Array) -> Array:
        values = values.copy()
        for part, change in done:
            values[part.start : part.stop] = change.undo(values[part.start : part.stop])
        return values

    return Change(done[0][1].kind, text, undo)


def _size(values: Array) -> float:
    return float(np.max(np.abs(values), initial=0.0))


def _zero(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    if _size(found) <= tolerance * _size(meant):
        return Change("weight-zero", "weight is all zeros", lambda weight: weight)
    return None


def _transposed(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    if meant.shape[0] == meant.shape[1] and error_between(found, meant.T) <= tolerance:
        return Change("weight-transposed", "weight is transposed", lambda weight: weight.T)
    return None


def _reshaped(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    """[out in] read from the elements of [in out] without exchanging the axes."""
    out, into = meant.shape
    if out == into:
        return None
    says = "weight is reshaped where it should be transposed"
    if error_between(found, meant.T.reshape(out, into)) <= tolerance:
        return Change("weight-reshaped", says, lambda weight: weight.reshape(into, out).T)
    if error_between(found, meant.reshape(into, out).T) <= tolerance:
        return Change("weight-reshaped", says, lambda weight: weight.T.reshape(out, into))
    return None


def _scaled(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    factor = float(np.vdot(meant, found) / np.vdot(meant, meant))
    if not factor or error_between(found, factor * meant) > tolerance * max(1.0, abs(factor)):
        return None
    says = (
        "weight is negated"
        if abs(factor + 1) <= 4 * tolerance
        else f"weight is scaled by {number(factor, max(tolerance, 1e-6))}"
    )
    return Change("weight-scaled", says, lambda weight: weight / factor)


def number(value: float, tolerance: float = 1e-6) -> str:
    """A factor as a reader would write it: the fewest digits that say it to `tolerance`, six at most.

    >>> number(0.125), number(2.9998, 1e-3)
    ('0.125', '3')
    """
    for digits in range(1, 6):
        if abs(float(f"{value:.{digits}g}") - value) <= tolerance * abs(value):
            return f"{float(f'{value:.{digits}g}'):g}"
    return f"{value:.6g}"


def _residual(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    if found.shape[0] != found.shape[1]:
        return None
    eye = np.eye(len(meant))
    for sign, says in (
        (1, "its input is added to its output (a residual inside)"),
        (-1, "its input is taken from its output"),
    ):
        if error_between(found, meant + sign * eye) <= tolerance:
            return Change("residual-inside", says, lambda weight, sign=sign: weight - sign * np.eye(len(weight)))  # type: ignore[misc]
    return None


def _rows(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    order = order_of_lines(found, meant, tolerance * _size(meant))
    if order is None:
        return None
    said = say_order(order, "rows", parts)
    back = np.argsort(order)
    return Change(said.kind, said.says, lambda weight: weight[back])


def _columns(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    order = order_of_lines(found.T, meant.T, tolerance * _size(meant))
    if order is None:
        return None
    said = say_order(order, "columns")
    back = np.argsort(order)
    return Change(said.kind, said.says, lambda weight: weight[:, back])


def _rounded(found: Array, meant: Array, tolerance: float, parts: Sequence[Part]) -> Change | None:
    for name in ("bf16", "f16"):
        with np.errstate(all="ignore"):
            again = meant.astype(dtype(name).numpy).astype(np.float64)
        if error_between(found, again) <= tolerance:
            return Change("weight-rounded", f"weight is rounded to {name}", lambda weight: weight)
    return None


LOOKS: tuple[Callable[[Array, Array, float, Sequence[Part]], Change | None], ...] = (
    _zero,
    _transposed,
    _scaled,
    _residual,
    _rows,
    _columns,
    _reshaped,
    _rounded,
)
"""In the order in which they are tried."""


def changes_of_bias(found: Array, meant: Array, tolerance: float, parts: Sequence[Part] = ()) -> list[Change]:
    """What may have been done to a bias; `tolerance` is absolute. `undo` makes the bias that is used rightly, where one can."""

    def close(one: Array, two: Array) -> bool:
        return bool(np.isfinite(one).all() and np.max(np.abs(one - two), initial=0.0) <= tolerance)

    if found.shape != meant.shape or close(found, meant):
        return []
    if close(found, np.zeros_like(meant)):
        return [Change("bias-missing", "bias is missing", lambda bias: bias)]
    if close(found, 2 * meant):
        return [Change("bias-doubled", "bias is added twice", lambda bias: bias / 2)]
    if close(found, -meant):
        return [Change("bias-negated", "bias is subtracted", lambda bias: -bias)]
    size = float(np.vdot(meant, meant))
    factor = float(np.vdot(meant, found)) / size if size else 0.0
    if factor and close(found, factor * meant):
        return [Change("bias-scaled", f"bias is scaled by {number(factor)}", lambda bias: bias / factor)]
    order = order_of_lines(found[:, None], meant[:, None], tolerance)
    if order is not None:
        said = say_order(order, "elements of the bias", parts)
        back = np.argsort(order)
        return [Change("bias-permuted", said.says, lambda bias: bias[back])]
    done: list[tuple[Part, Change]] = []
    for part in parts if len(parts) > 1 else ():
        one, two = found[part.start : part.stop], meant[part.start : part.stop]
        if not close(one, two):
            inner = changes_of_bias(one, two, tolerance)
            if not inner:
                return []
            done.append((part, inner[0]))
    return [_joined(done)] if done else []
