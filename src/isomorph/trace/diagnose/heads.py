"""What follows the last projection: normalised embeddings, logit scales, products of two towers, softmax; raw matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.pointwise import sigmoid
from isomorph.trace.diagnose.stretch import Atom, Goal, Stretch, own_parameters
from isomorph.trace.nouns import Array, Cause, Site

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_TENSORS = 10
MOST_MATRICES = 6
PLAIN = {"is not normalised", "is multiplied by no matrix", "gives plain values"}


@dataclass(frozen=True)
class Made:
    """A tensor made of those before: the values, and the parts of its rule that are compared between the sides."""

    values: Array
    parts: tuple[tuple[str, str], ...]

    def part(self, name: str) -> str:
        """What it says about one part; "" where nothing."""
        return dict(self.parts).get(name, "")


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """A norm, a scale or an orientation that differs in what the model gives out."""
    stretch = Stretch(scene)
    for goal in stretch.goals:
        if goal.finish is not None:
            return
        for find in (products, rows):
            causes = list(_differences(stretch, goal, find))
            if causes:
                yield from causes
                return


Finder = Callable[[Stretch, Goal, str], Iterator[Made]]


def _differences(stretch: Stretch, goal: Goal, find: Finder) -> Iterator[Cause]:
    right = next(
        (one for one in find(stretch, goal, "reference") if stretch.gap(one.values, goal.reference) <= stretch.limit),
        None,
    )
    if right is None:
        return
    best: float | None = None
    for wrong in find(stretch, goal, "candidate"):
        if wrong.parts == right.parts or wrong.part("of") != right.part("of"):
            continue
        if wrong.values.shape != goal.candidate.shape:
            continue
        gap = stretch.gap(wrong.values, goal.candidate)
        if gap > stretch.limit or (best is not None and gap > 4 * best):
            continue
        best = gap
        yield stretch.cause(*_says(wrong, right), gap)
    if best is None:
        yield from _multiple(stretch, goal, right, find)


def _says(wrong: Made, right: Made) -> tuple[str, str]:
    said, kinds = [], []
    for name, kind in (
        ("scale", "logit-scale"),
        ("factor", "head-scale"),
        ("normalised", "normalise-missing"),
        ("matrix", "projection-transposed"),
        ("turned", "logits-transposed"),
        ("after", "head-function"),
    ):
        one, two = wrong.part(name), right.part(name)
        if one != two and name == "factor":
            one, two = one or "is not scaled", two or "is not"
        if one != two:
            said.append(f"{one}, the reference {two}")
            kinds.append(kind)
    return kinds[0] if kinds else "head", "; ".join(said)


def _multiple(stretch: Stretch, goal: Goal, right: Made, find: Finder) -> Iterator[Cause]:
    """The reference's rule times a number."""
    if not right.part("scale") and PLAIN <= {words for _, words in right.parts}:
        return  # a factor of a tensor as it is: that is a sum's to say
    made = next((one for one in find(stretch, goal, "candidate") if one.parts == right.parts), None)
    if made is None or made.values.shape != goal.candidate.shape:
        return
    square = float((made.values**2).sum())
    if not square or not np.isfinite(goal.candidate).all():
        return
    times = float((made.values * goal.candidate).sum()) / square
    gap = stretch.gap(times * made.values, goal.candidate)
    if gap <= stretch.limit:
        yield stretch.cause("head-scale", f"is multiplied by {times:.6g}, not in the reference", gap)


def _values(atom: Atom, side: str) -> Array:
    return atom.reference if side == "reference" else atom.candidate


def unit(x: Array) -> Array:
    """x over its length along the last axis."""
    with np.errstate(all="ignore"):
        return np.asarray(x / np.sqrt((x * x).sum(-1, keepdims=True)))


def lengths(x: Array) -> Iterator[tuple[str, Array]]:
    """x, and x normalised in the ways that are met."""
    yield "is not normalised", x
    with np.errstate(all="ignore"):
        yield "is normalised to length 1", unit(x)
        yield "is divided by the sum of absolute values", x / np.abs(x).sum(-1, keepdims=True)
        yield "is normalised over the batch, not the width", x / np.sqrt((x * x).sum(0, keepdims=True))
        yield "is divided by its squared length", x / (x * x).sum(-1, keepdims=True)
        yield "is normalised as a whole", x / np.sqrt((x * x).sum())


def scales(stretch: Stretch) -> Iterator[tuple[str, float]]:
    """Factors: one, and what single numbers among the parameters may be taken for."""
    yield "has no logit scale", 1.0
    for name, values in own_parameters(stretch.scene).items():
        if values.size != 1:
            continue
        number = float(values.reshape(-1)[0])
        short = name.rsplit(".", 1)[-1]
        if abs(number) < 50:
            yield f"multiplies by exp({short})", math.exp(number)
        yield f"multiplies by {short} itself, without exp", number
        if abs(number) < 25:
            yield f"multiplies by exp({short}) twice", math.exp(number) ** 2
            yield f"divides by exp({short})", math.exp(-number)
        if number:
            yield f"divides by {short}", 1 / number


def _biases(stretch: Stretch) -> Iterator[tuple[str, float]]:
    yield "", 0.0
    for name, values in own_parameters(stretch.scene).items():
        if values.size == 1 and "bias" in name.lower():
            yield name.rsplit(".", 1)[-1], float(values.reshape(-1)[0])


def products(stretch: Stretch, goal: Goal, side: str) -> Iterator[Made]:
    """scale · a @ bᵀ of two tensors [B W], normalised or not; and the other way round."""
    target = goal.reference
    if target.ndim != 2:
        return
    flat = [atom for atom in stretch.atoms if atom.reference.ndim == 2 and atom.moment < goal.moment][:MOST_TENSORS]
    factors, shifts = list(scales(stretch)), list(_biases(stretch))
    for i, one in enumerate(flat):
        for two in flat[:i]:
            a, b = _values(one, side), _values(two, side)
            if a.shape[1] != b.shape[1] or {a.shape[0], b.shape[0]} != set(target.shape):
                continue
            for (norm, left), (other, right) in _both(a, b):
                for turned in (False, True):
                    plain = right @ left.T if turned else left @ right.T
                    for (scale, factor), (name, shift) in ((s, t) for s in factors for t in shifts):
                        values = plain * factor + shift
                        words = "gives [texts images]" if turned else "gives [images texts]"
                        said = norm if norm == other else f"{norm} on one side only"
                        parts = (
                            ("scale", scale + (f" and adds {name}" if name else "")),
                            ("normalised", said if norm == other else f"{said}: {norm} / {other}"),
                            ("turned", words),
                            ("of", f"{one.name} @ {two.name}"),
                        )
                        if values.shape == target.shape:
                            yield Made(values, parts)


def _both(a: Array, b: Array) -> Iterator[tuple[tuple[str, Array], tuple[str, Array]]]:
    left, right = list(lengths(a)), list(lengths(b))
    yield from ((one, two) for one, two in zip(left, right, strict=True))
    yield (left[0], right[1])
    yield (left[1], right[0])


FUNCTIONS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("gives plain values", lambda x: x),
    ("applies a softmax", lambda x: np.exp(_log_softmax(x))),
    ("applies a log-softmax", lambda x: _log_softmax(x)),
    ("applies a sigmoid", sigmoid),
    ("applies tanh", np.tanh),
)


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def rows(stretch: Stretch, goal: Goal, side: str) -> Iterator[Made]:
    """One tensor, through a raw matrix or none, normalised or not, scaled, and a function of it."""
    shape = goal.reference.shape
    atoms = [atom for atom in stretch.atoms if atom.moment < goal.moment and atom.reference.ndim == len(shape)]
    near = [atom for atom in atoms if atom.reference.shape[:-1] == shape[:-1]][:MOST_TENSORS]
    matrices = [
        (name, values)
        for name, values in {**own_parameters(stretch.scene), **looked_up(stretch)}.items()
        if values.ndim == 2 and shape[-1] in values.shape
    ][:MOST_MATRICES]
    factors = list(scales(stretch))
    for atom in near:
        for matrix, made in _through(_values(atom, side), matrices, shape[-1]):
            for norm, lengthened in lengths(made):
                for after, function in FUNCTIONS if stretch.at.node is None else FUNCTIONS[:1]:
                    parts = (
                        ("normalised", norm),
                        ("matrix", matrix),
                        ("after", after),
                        ("of", f"is made of {atom.name}"),
                    )
                    yield Made(function(lengthened), parts)
                width = atom.reference.shape[-1]
                for number, words in ((width**-0.5, f"1/sqrt({width})"), (width**0.5, f"sqrt({width})")):
                    if norm == "is not normalised" and matrix != "is multiplied by no matrix":
                        scaled = (
                            ("factor", f"is multiplied by {words}"),
                            ("normalised", norm),
                            ("matrix", matrix),
                            ("after", "gives plain values"),
                            ("of", f"is made of {atom.name}"),
                        )
                        yield Made(lengthened * number, scaled)
                for scale, factor in factors[1:]:
                    yield Made(
                        lengthened * factor,
                        (("scale", scale), ("normalised", norm), ("matrix", matrix), ("of", f"is made of {atom.name}")),
                    )


def looked_up(stretch: Stretch) -> dict[str, Array]:
    """Tables in which the reference looks whole numbers up: a head may use one again."""
    values = stretch.scene.seen_reference.values
    found: dict[str, Array] = {}
    for name, facts in stretch.modules.items():
        entered = values.get(Site(name, 0, "in", 0))
        if not facts.children and entered is not None and entered.dtype.kind in "iu":
            found |= {own: np.asarray(stretch.scene.state_reference[own], np.float64) for own in facts.own[:1]}
    return found


def _through(x: Array, matrices: list[tuple[str, Array]], width: int) -> Iterator[tuple[str, Array]]:
    if x.shape[-1] == width:
        yield "is multiplied by no matrix", x
    for name, matrix in matrices:
        if matrix.shape == (x.shape[-1], width):
            yield f"is multiplied by {name}", x @ matrix
        if matrix.shape == (width, x.shape[-1]):
            yield f"is multiplied by {name}, transposed", x @ matrix.T
