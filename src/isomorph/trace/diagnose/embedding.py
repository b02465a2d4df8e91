"""A table that is looked up otherwise: rows read at an offset, scaled, clamped, or zeroed for padding."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from isomorph.trace.diagnose.embedding_law import EmbeddingLaw, fit_embedding
from isomorph.trace.diagnose.leaf import Leaf, leaf_of
from isomorph.trace.diagnose.matrices import number
from isomorph.trace.nouns import Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """One cause, when a law explains each side and the two laws differ."""
    leaf = leaf_of(scene)
    if leaf is None or len(leaf.outs) != 1 or not leaf.given or leaf.x is None or leaf.x.dtype.kind not in "iu":
        return
    tables = [one for one in leaf.own_of_reference(leaf.outs[0]).values() if one.ndim == 2]
    if len(tables) != 1:
        return
    table = tables[0]
    of_reference = fit_embedding(leaf.x, leaf.y_reference, table, leaf.tolerance)
    of_candidate = fit_embedding(leaf.x, leaf.y_candidate, table, leaf.tolerance)
    if of_reference is None or of_candidate is None:
        return
    said = say(of_candidate[0], of_reference[0], table.shape[1])
    if said is not None:
        yield _carried_out(leaf, of_reference, of_candidate, *said)


def say(candidate: EmbeddingLaw, reference: EmbeddingLaw, width: int) -> tuple[str, str] | None:
    """(kind, clause) of the difference of two laws.

    >>> say(EmbeddingLaw(offset=2), EmbeddingLaw(), 64)
    ('embedding-offset', 'row id + 2 is read, the reference reads row id')
    """
    said: list[tuple[str, str]] = []
    if candidate.offset != reference.offset:
        said.append(
            (
                "embedding-offset",
                f"row {_row(candidate.offset)} is read, the reference reads row {_row(reference.offset)}",
            )
        )
    if candidate.scale != reference.scale:
        said.append(("embedding-scale", _scale(candidate.scale, reference.scale, width)))
    if candidate.zeroed != reference.zeroed:
        more = sorted(set(candidate.zeroed) - set(reference.zeroed))
        less = sorted(set(reference.zeroed) - set(candidate.zeroed))
        if more:
            said.append(
                (
                    "embedding-padding-row",
                    f"the output for id {_ids_said(more)} is zero (a padding row), the reference's is not",
                )
            )
        if less:
            said.append(
                (
                    "embedding-padding-row",
                    f"the output for id {_ids_said(less)} is not zero, the reference's is (a padding row)",
                )
            )
    if (candidate.highest, candidate.lowest) != (
        reference.highest,
        reference.lowest,
    ) and candidate.offset == reference.offset:
        said.append(
            ("embedding-clamped", f"{_clamped(candidate)}, the reference's {_clamped(reference).removeprefix('ids ')}")
        )
    return (said[0][0], "; ".join(says for _, says in said)) if said else None


def _row(offset: int) -> str:
    return "id" if not offset else f"id {'+' if offset > 0 else '-'} {abs(offset)}"


def _scale(candidate: float, reference: float, width: int) -> str:
    root = math.sqrt(width)
    if math.isclose(candidate * root, reference, rel_tol=1e-6):
        return f"the factor sqrt({width}) is missing"
    if math.isclose(candidate, reference * root, rel_tol=1e-6):
        return (
            f"it is multiplied by sqrt({width}), the reference is not"
            if math.isclose(reference, 1)
            else f"the factor sqrt({width}) is applied twice"
        )
    return f"it is scaled by {number(candidate)}, the reference by {number(reference)}"


def _ids_said(ids: list[int]) -> str:
    return " ".join(map(str, ids[:8])) + (" …" if len(ids) > 8 else "")


def _clamped(law: EmbeddingLaw) -> str:
    words = []
    if law.highest is not None:
        words.append(f"above row {law.highest}")
    if law.lowest is not None:
        words.append(f"below row {law.lowest}")
    return f"ids are clamped {' and '.join(words)}" if words else "ids are not clamped"


def _carried_out(
    leaf: Leaf, reference: tuple[EmbeddingLaw, float], candidate: tuple[EmbeddingLaw, float], kind: str, says: str
) -> Cause:
    """The module repaired where one of its numbers is the scale or the padding row; else what the two laws leave."""
    trials = []
    for name, value in leaf.facts.attributes.items():
        if (
            kind == "embedding-scale"
            and isinstance(value, float)
            and math.isclose(value, candidate[0].scale, rel_tol=1e-6)
        ):
            trials.append(leaf.trial(kind, says, attributes={name: reference[0].scale}))
    if kind == "embedding-scale" and len(leaf.own) == 1:
        ((name, table),) = leaf.own.items()
        trials.append(leaf.trial(kind, says, state={name: table * (reference[0].scale / candidate[0].scale)}))
    best = min(trials, key=lambda one: one.residual, default=None)
    if best is not None and best.residual <= leaf.tolerance:
        return best
    return leaf.cause(kind, says, max(reference[1], candidate[1]))
