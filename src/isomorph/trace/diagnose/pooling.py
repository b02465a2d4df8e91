"""One vector per example out of one per position: which positions the reference takes, which ones the candidate does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.norms import Norm, norm_that_gives, norm_that_takes, normalisers, short
from isomorph.trace.diagnose.pointwise import FUNCTIONS
from isomorph.trace.diagnose.stretch import Atom, Goal, Stretch
from isomorph.trace.nouns import Array, Cause

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

Pool = Callable[[Array], Array]
MOST_TENSORS = 6
AFTER = ("no activation", "tanh", "ReLU", "GELU erf")


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Another pooling, or the same one of another tensor."""
    stretch = Stretch(scene)
    for goal in stretch.goals:
        if goal.reference.ndim != 2:
            continue
        causes = list(_causes(stretch, goal))
        if causes:
            yield from causes
            return


def _causes(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    right = _first(stretch, goal)
    if right is None:
        return
    best: float | None = None
    for with_norms in (False, True):
        for pool, norm, after, atom, made in _ways(stretch, goal, "candidate", with_norms=with_norms):
            if goal.finish is not None and (norm != right[1] or after != right[2] or atom.name != right[3].name):
                continue
            gap = stretch.gap(goal.carried(made), goal.candidate)
            if gap > stretch.limit or (best is not None and gap > 4 * best):
                continue
            if (pool, norm, after, atom.name) == (right[0], right[1], right[2], right[3].name):
                continue
            best = gap
            passed_by = _norm_between(stretch, atom, right[3])
            if passed_by is not None and (pool, after) == (right[0], right[2]) and norm == right[1]:
                says = f"the final norm is missing: what is pooled has not gone through {passed_by}"
                yield stretch.cause("final-norm-missing", says, gap)
                continue
            kind = "pooler-tanh" if pool == right[0] and norm == right[1] and atom.name == right[3].name else "pooling"
            yield stretch.cause(kind, _says((pool, norm, after, atom.name), (*right[:3], right[3].name)), gap)
        if best is not None:
            return


def _norm_between(stretch: Stretch, entered: Atom, left: Atom) -> str | None:
    """The norm of the reference that makes one tensor of the other."""
    one = norm_that_takes(stretch, entered.reference)
    return short(one) if one is not None and one == norm_that_gives(stretch, left.reference) else None


def _first(stretch: Stretch, goal: Goal) -> tuple[str, str, str, Atom, Array] | None:
    """The reference's own way: without a norm, if it can be."""
    for with_norms in (False, True):
        for way in _ways(stretch, goal, "reference", with_norms=with_norms):
            gap = stretch.gap(way[4], goal.reference)
            if gap <= stretch.limit:
                stretch.noise = 4 * gap
                return way
    return None


def _says(wrong: tuple[str, str, str, str], right: tuple[str, str, str, str]) -> str:
    """`pools the mean over all positions, the reference the first position`."""
    said = []
    if wrong[0] != right[0]:
        said.append(f"pools {wrong[0]}, the reference {right[0]}")
    if wrong[1] != right[1]:
        if not wrong[1]:
            said.append(f"{right[1]} is missing after the pooling")
        elif not right[1]:
            said.append(f"{wrong[1]} is applied after the pooling, not in the reference")
        else:
            said.append(f"{wrong[1]} is applied after the pooling, in the reference {right[1]}")
    if wrong[2] != right[2]:
        if wrong[2] == "no activation":
            said.append(f"{right[2]} is missing after the pooling")
        else:
            said.append(
                f"{wrong[2]} follows the pooling, in the reference {right[2].replace('no activation', 'nothing')}"
            )
    if wrong[3] != right[3]:
        said.append(f"pools from {wrong[3]}, the reference from {right[3]}")
    return "; ".join(said)


def _ways(stretch: Stretch, goal: Goal, side: str, *, with_norms: bool) -> Iterator[tuple[str, str, str, Atom, Array]]:
    """(pooling, norm after it, function after it, tensor, what it gives), the likely first."""
    ids = token_ids(stretch)
    atoms = [
        atom
        for atom in stretch.atoms
        if atom.moment < goal.moment
        and atom.reference.ndim == 3
        and atom.reference.shape[0] == goal.reference.shape[0]
        and atom.reference.shape[2] == goal.reference.shape[1]
    ][:MOST_TENSORS]
    norms: Sequence[tuple[str, Norm | None]] = [("", None)]
    if with_norms:
        norms = list(normalisers(stretch, goal.reference.shape[-1]))[:3]
    for atom in atoms:
        values = atom.reference if side == "reference" else atom.candidate
        for pool, made in pools(values, stretch.padding, ids):
            for name, norm in norms:
                normed = made if norm is None else norm(made)
                if normed is None:
                    continue
                for after in AFTER:
                    yield pool, name, after, atom, FUNCTIONS[after](normed)


def pools(x: Array, padding: Array | None, ids: list[Array]) -> Iterator[tuple[str, Array]]:
    """(what is pooled, [B D]) of x [B T D]; `padding` [B T] is True at real positions, `ids` are token ids [B T]."""
    batch, length, _ = x.shape
    rows = np.arange(batch)
    yield "the first position", x[:, 0]
    yield "the last position", x[:, -1]
    for tokens in ids:
        if tokens.shape == (batch, length):
            yield "the position of the highest token id (end of text)", x[rows, tokens.argmax(1)]
            yield from _ends(x, tokens, rows)
    real = padding if padding is not None and padding.shape == (batch, length) else None
    if real is not None:
        last = length - 1 - real[:, ::-1].argmax(1)
        yield "the last real position", x[rows, last]
        yield "the first real position", x[rows, real.argmax(1)]
        yield "the mean over real positions", (x * real[..., None]).sum(1) / real.sum(1, keepdims=True)
        yield "the maximum over real positions", np.where(real[..., None], x, -np.inf).max(1)
        yield "the sum over real positions divided by all", (x * real[..., None]).sum(1) / length
    yield "the mean over all positions", x.mean(1)
    yield "the mean over all positions but the first", x[:, 1:].mean(1) if length > 1 else x.mean(1)
    yield "the maximum over all positions", x.max(1)
    yield "the sum over all positions", x.sum(1)
    if length > 1:
        yield "the second position", x[:, 1]
        yield "the position before the last", x[:, -2]


def _ends(x: Array, tokens: Array, rows: Array) -> Iterator[tuple[str, Array]]:
    """Places of one token id that all examples hold: the first match, and its neighbours."""
    shared = set(tokens[0].tolist())
    for row in tokens[1:]:
        shared &= set(row.tolist())
    for token in sorted(shared, reverse=True)[:4]:
        first = (tokens == token).argmax(1)
        yield f"the first position of token {token}", x[rows, first]
        last = tokens.shape[1] - 1 - (tokens == token)[:, ::-1].argmax(1)
        yield f"the last position of token {token}", x[rows, last]
        yield f"the position before token {token}", x[rows, np.maximum(first - 1, 0)]
    highest = tokens.argmax(1)
    yield "the position before the end of text", x[rows, np.maximum(highest - 1, 0)]
    yield "the position after the end of text", x[rows, np.minimum(highest + 1, tokens.shape[1] - 1)]
    yield "the position of the lowest token id", x[rows, tokens.argmin(1)]


def token_ids(stretch: Stretch) -> list[Array]:
    """The whole-numbered inputs [B T] of the run."""
    given = stretch.scene.probe.reference
    values = given.values() if hasattr(given, "values") else given
    found = [np.asarray(value) for value in values]
    return [value for value in found if value.ndim == 2 and value.dtype.kind in "iu" and value.max(initial=0) > 1]
