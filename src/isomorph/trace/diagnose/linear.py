"""A linear map whose weights are what the morph makes, and that maps otherwise: the morph is wrong there, or the module's code.

Both sides' matrix and bias are found by running the modules; how they differ is undone in the candidate's weights, and run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.affine import Affine, affine_of
from isomorph.trace.diagnose.leaf import Leaf, leaf_of
from isomorph.trace.diagnose.matrices import Change, changes_of_bias, changes_of_matrix, number
from isomorph.trace.diagnose.norm_law import error_between
from isomorph.trace.diagnose.orders import Part, order_of_lines, say_order, short_names
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Changes of the matrix and of the bias that turn the reference's map into the candidate's."""
    leaf = leaf_of(scene)
    both = None if leaf is None else maps_of(leaf)
    if leaf is None or both is None:
        return
    reference, candidate = both
    for change in changes(leaf, reference, candidate):
        yield _carried_out(leaf, reference, candidate, change)


def maps_of(leaf: Leaf) -> tuple[Affine, Affine] | None:
    """The reference's map and the candidate's; None unless both modules are maps along the last axis."""
    if not leaf.given or leaf.x is None or leaf.x.dtype.kind != "f" or leaf.x.ndim < 2:
        return None
    if any(
        one.link.channels is not None and one.link.channels.reference_axis not in (-1, result.reference.ndim - 1)
        for one, result in zip(leaf.outs, leaf.given, strict=True)
    ):
        return None
    x = leaf.x.astype(np.float64)
    reference = affine_of(leaf.reference_made_of, x, [result.reference for result in leaf.given])
    candidate = affine_of(leaf.candidate_made_of, x, [result.candidate for result in leaf.given])
    if reference is None or candidate is None or max(reference.residual, candidate.residual) > 4 * leaf.tolerance:
        return None
    return reference, candidate


def parts_of_outputs(leaf: Leaf) -> tuple[Part, ...]:
    """The outputs that lie side by side, by the names that tell the reference's modules apart; thirds where q, k, v are likely."""
    sizes = [result.reference.shape[-1] for result in leaf.given]
    if len(sizes) > 1:
        ends = np.cumsum(sizes).tolist()
        names = short_names([event.reference.module for event in leaf.outs])
        return tuple(Part(name, end - size, end) for name, size, end in zip(names, sizes, ends, strict=True))
    x = leaf.x
    if x is not None and sizes and sizes[0] == 3 * x.shape[-1]:
        return tuple(Part(name, place * sizes[0] // 3, (place + 1) * sizes[0] // 3) for place, name in enumerate("qkv"))
    return ()


def changes(leaf: Leaf, reference: Affine, candidate: Affine) -> list[tuple[Change | None, Change | None]]:
    """(of the matrix, of the bias) that explain the candidate's map together; [] when nothing does."""
    parts = parts_of_outputs(leaf)
    grain = 64 * np.finfo(np.float32 if leaf.scene.dtype != "float64" else np.float64).eps
    high = [float(np.max(np.abs(one), initial=0.0)) for one in (reference.matrix, reference.bias)]
    tolerance = max(leaf.tolerance, float(grain) * (1 + high[1] / (high[0] or 1.0)))
    absolute = tolerance * max(high)
    is_matrix_equal = error_between(candidate.matrix, reference.matrix) <= tolerance
    is_bias_equal = bool(np.max(np.abs(candidate.bias - reference.bias), initial=0.0) <= absolute)
    of_bias: list[Change | None] = (
        [None] if is_bias_equal else list(changes_of_bias(candidate.bias, reference.bias, absolute, parts))
    )
    if is_matrix_equal:
        return [(None, change) for change in of_bias if change is not None]
    found = _scaled(reference, candidate, tolerance)
    for change in () if found else changes_of_matrix(candidate.matrix, reference.matrix, tolerance, parts):
        found += [(change, other) for other in of_bias] or _moved_together(change, reference, candidate, absolute)
    return found or _rows_with_bias(reference, candidate, tolerance, parts)


def _scaled(reference: Affine, candidate: Affine, tolerance: float) -> list[tuple[Change | None, Change | None]]:
    """Matrix and bias are both scaled: the output is."""
    if not reference.bias.any():
        return []
    one, two = (np.concatenate([side.matrix, side.bias[:, None]], axis=1) for side in (reference, candidate))
    factor = float(np.vdot(one, two) / np.vdot(one, one))
    if not factor or error_between(two, factor * one) > tolerance:
        return []
    says = (
        "output is negated"
        if abs(factor + 1) <= 4 * tolerance
        else f"output is scaled by {number(factor, max(tolerance, 1e-6))}"
    )
    change = Change("output-scaled", says, lambda values: values / factor)
    return [(change, replace(change, says=""))]


def _moved_together(
    change: Change, reference: Affine, candidate: Affine, absolute: float
) -> list[tuple[Change | None, Change | None]]:
    """Rows moved, and the bias's elements with them; the whole scaled or negated."""
    together = Change(change.kind, "", change.undo)
    probe = np.arange(len(reference.bias), dtype=np.float64)[:, None]
    try:
        order = np.argsort(change.undo(np.broadcast_to(probe, reference.matrix.shape).copy())[:, 0], kind="stable")
    except ValueError:
        return []
    if (
        sorted(order.tolist()) == list(range(len(order)))
        and np.abs(candidate.bias - reference.bias[order]).max() <= absolute
    ):
        return [(change, replace(together, undo=lambda bias: bias[np.argsort(order)]))]
    return []


def _rows_with_bias(
    reference: Affine, candidate: Affine, tolerance: float, parts: tuple[Part, ...]
) -> list[tuple[Change | None, Change | None]]:
    """Rows moved that only their bias tells apart."""
    scale = float(np.max(np.abs(reference.matrix), initial=0.0))
    one = np.concatenate([candidate.matrix, candidate.bias[:, None]], axis=1)
    two = np.concatenate([reference.matrix, reference.bias[:, None]], axis=1)
    order = order_of_lines(one, two, tolerance * max(scale, float(np.max(np.abs(two), initial=0.0))))
    if order is None:
        return []
    said, back = say_order(order, "rows", parts), np.argsort(order)
    return [(Change(said.kind, said.says, lambda rows: rows[back]), Change(said.kind, "", lambda rows: rows[back]))]


def _carried_out(
    leaf: Leaf, reference: Affine, candidate: Affine, change: tuple[Change | None, Change | None]
) -> Cause:
    """The candidate's weights altered so that, used as they are, they are used rightly; else what the maps leave."""
    of_matrix, of_bias = change
    first = of_matrix or of_bias
    assert first is not None
    says = "; ".join(one.says for one in change if one is not None and one.says)
    best: Cause | None = None
    for state in _altered(leaf, of_matrix, of_bias):
        trial = leaf.trial(first.kind, says, state=state)
        if best is None or trial.residual < best.residual:
            best = trial
        if best.residual <= leaf.tolerance:
            return best
    return leaf.cause(first.kind, says, _left_by_formula(leaf, reference, candidate))


def _left_by_formula(leaf: Leaf, reference: Affine, candidate: Affine) -> float:
    """What is left when the candidate's outputs are corrected by the difference of the two maps."""
    assert leaf.x is not None
    step = leaf.x.astype(np.float64) @ (reference.matrix - candidate.matrix).T + (reference.bias - candidate.bias)
    place, worst = 0, 0.0
    for result in leaf.given:
        size = result.reference.shape[-1]
        mended = result.candidate + step[..., place : place + size]
        worst = max(worst, leaf.scene.error(result.reference, mended))
        place += size
    return worst


def _altered(leaf: Leaf, of_matrix: Change | None, of_bias: Change | None) -> Iterator[dict[str, Array]]:
    """States of the candidate's module with the changes undone; its weight may be stored [out in] or [in out]."""
    rows, columns = _rows(leaf), _columns(leaf)
    if rows is None or columns is None:
        return
    matrices = [(name, one) for name, one in leaf.own.items() if one.ndim == 2]
    lines = [(name, one) for name, one in leaf.own.items() if one.ndim == 1]
    bias: dict[str, Array] = {}
    if of_bias is not None:
        for name, one in lines:
            if one.size > rows.max():
                altered = one.copy()
                altered[rows] = of_bias.undo(one[rows])
                bias[name] = altered
    if of_matrix is None:
        yield bias
        return
    for name, one in matrices:
        for is_turned in (False, True):
            stored = one.T if is_turned else one
            if stored.shape[0] <= rows.max() or stored.shape[1] <= columns.max():
                continue
            altered = stored.copy()
            altered[np.ix_(rows, columns)] = of_matrix.undo(stored[np.ix_(rows, columns)])
            yield {name: altered.T if is_turned else altered, **bias}


def _rows(leaf: Leaf) -> Array | None:
    """The candidate's channel of each row of the matrices."""
    found = []
    for event, result in zip(leaf.outs, leaf.given, strict=True):
        channels = event.link.channels
        found.append(np.arange(result.reference.shape[-1]) if channels is None else channels.candidate)
    rows = np.concatenate(found)
    return rows if len(np.unique(rows)) == len(rows) else None


def _columns(leaf: Leaf) -> Array | None:
    if leaf.entered is None:
        return None
    event, x, _ = leaf.entered
    channels = event.link.channels
    if channels is None:
        return np.arange(x.shape[-1])
    found: Array = channels.candidate[np.argsort(channels.reference)]
    return found
