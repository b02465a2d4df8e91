"""A normalisation that computes something else: both sides are explained by a law, and the laws' difference is what is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.leaf import Leaf, leaf_of
from isomorph.trace.diagnose.norm_law import FittedLaw, NormData, NormLaw, fit_laws
from isomorph.trace.nouns import Array, Cause, Event

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

EPS_NAMES = ("eps", "epsilon", "_epsilon", "_eps", "variance_epsilon", "layer_norm_eps", "rms_norm_eps", "norm_eps")
BIAS_NAMES = ("bias", "beta", "b", "shift", "offset")
MEANS = ("running_mean", "_mean", "moving_mean")
VARIANCES = ("running_var", "_variance", "moving_variance", "running_variance")


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """One cause, when a law explains each side and the two laws differ."""
    leaf = leaf_of(scene)
    if leaf is None or len(leaf.outs) != 1 or not leaf.given or leaf.x is None:
        return
    x, wanted, found = leaf.x, leaf.y_reference, leaf.y_candidate
    if x.dtype.kind != "f" or x.shape != wanted.shape or x.ndim < 2:
        return
    known = [*eps_of(leaf.reference_facts.attributes).values(), *eps_of(leaf.facts.attributes).values()]
    for made in _readings(leaf, leaf.outs[0], x.astype(np.float64)):
        data, axis = made
        of_reference = fit_laws(_with(data, wanted, axis), leaf.tolerance, known)
        if not of_reference or of_reference[0].residual > leaf.tolerance:
            continue
        of_candidate = fit_laws(_with(data, found, axis), leaf.tolerance, known[::-1])
        if not of_candidate or of_candidate[0].residual > leaf.tolerance:
            return
        one, two = _closest(of_reference, of_candidate)
        said = say(two.law, one.law, has_bias=data.bias is not None)
        if said is not None:
            yield _carried_out(leaf, one, two, *said)
        return


def _with(data: NormData, y: Array, axis: int) -> NormData:
    return NormData(data.x, np.moveaxis(y, axis, -1), data.weight, data.bias, data.stored)


def _readings(leaf: Leaf, event: Event, x: Array) -> Iterator[tuple[NormData, int]]:
    """The reference's parameters as weight and bias (by name, then the other way round), and the axis that they lie along."""
    own = leaf.own_of_reference(event)
    lines = {name: one for name, one in own.items() if one.ndim == 1 and one.size > 1}
    stored = next(
        (
            (lines[mean], lines[variance])
            for mean in MEANS
            for variance in VARIANCES
            if mean in lines and variance in lines
        ),
        None,
    )
    lines = {name: one for name, one in lines.items() if name not in MEANS and name not in VARIANCES}
    biases = [one for name, one in lines.items() if name in BIAS_NAMES]
    weights = [one for name, one in lines.items() if name not in BIAS_NAMES]
    pairs: list[tuple[Array | None, Array | None]] = [(weights[0] if weights else None, biases[0] if biases else None)]
    if len(weights) == 2 and not biases:
        pairs = [(weights[0], weights[1]), (weights[1], weights[0])]
    size = next((one.size for one in lines.values()), stored[0].size if stored else x.shape[-1])
    for axis in (-1, 1):
        if x.shape[axis] == size and (axis == -1 or x.ndim > 2):
            for weight, bias in pairs:
                yield NormData(np.moveaxis(x, axis, -1), np.empty(0), weight, bias, stored), axis


def eps_of(attributes: object) -> dict[str, float]:
    """The attributes that are an eps, by name."""
    assert isinstance(attributes, dict) or hasattr(attributes, "items")
    return {
        name: float(value)
        for name, value in attributes.items()
        if name in EPS_NAMES and isinstance(value, float | int) and not isinstance(value, bool)
    }


def _closest(of_reference: Sequence[FittedLaw], of_candidate: Sequence[FittedLaw]) -> tuple[FittedLaw, FittedLaw]:
    """The plainest law of the reference, and of those that explain the candidate the one that differs least from it."""
    one = of_reference[0]
    return one, min(of_candidate, key=lambda other: len(other.law.differences(one.law)))


def say(candidate: NormLaw, reference: NormLaw, *, has_bias: bool = True) -> tuple[str, str] | None:
    """(kind, clause) of the difference of two laws; None when there is none.

    >>> say(NormLaw(eps=1e-6), NormLaw(eps=1e-5))
    ('norm-eps', 'eps is 1e-06, the reference has 1e-05')
    """
    differing = candidate.differences(reference)
    said: list[tuple[str, str]] = []
    if "over" in differing or "axis" in differing:
        kind = "norm-statistics" if "stored" in (candidate.over, reference.over) else "norm-axis"
        said.append(
            (kind, f"it takes mean and variance over {_over(candidate)}, the reference over {_over(reference)}")
        )
    centred = (candidate.numerator_is_centred, candidate.variance_is_centred)
    other = (reference.numerator_is_centred, reference.variance_is_centred)
    if centred != other:
        said.append(("norm-mean", _centred(centred, other)))
    if candidate.is_unbiased != reference.is_unbiased:
        divisors = ("n", "n - 1") if reference.is_unbiased else ("n - 1", "n")
        said.append(("norm-variance", f"variance is divided by {divisors[0]}, the reference divides by {divisors[1]}"))
    if candidate.gain == "none" and candidate.bias == 0 and reference.gain != "none" and reference.bias and has_bias:
        said.append(("norm-affine-missing", "weight and bias are missing"))
    else:
        if candidate.gain != reference.gain:
            said.append(_gain(candidate, reference))
        if candidate.bias != reference.bias:
            said.append(_bias(candidate.bias, reference.bias))
    if candidate.eps_place != reference.eps_place:
        places = {"variance": "to the variance", "deviation": "to the deviation, outside the root"}
        said.append(
            (
                "norm-eps-place",
                f"eps is added {places[candidate.eps_place]}, the reference adds it {places[reference.eps_place]}",
            )
        )
    elif candidate.eps != reference.eps:
        said.append(("norm-eps", f"eps is {_number(candidate.eps)}, the reference has {_number(reference.eps)}"))
    return (said[0][0], "; ".join(says for _, says in said)) if said else None


def _number(eps: float) -> str:
    return f"{eps:.3g}"


def _over(law: NormLaw) -> str:
    if law.over == "stored":
        return "nothing (it has stored ones)"
    return f"axis {law.axis}" if law.over == "another axis" else law.over


def _centred(candidate: tuple[bool, bool], reference: tuple[bool, bool]) -> str:
    if candidate == (False, False):
        return "the mean is not subtracted (it is an RMS norm, the reference a layer norm)"
    if candidate == (True, True) and reference == (False, False):
        return "the mean is subtracted (it is a layer norm, the reference an RMS norm)"
    if candidate[0] != reference[0]:
        return f"the mean is {'' if candidate[0] else 'not '}subtracted from what is divided"
    return f"the mean is {'' if candidate[1] else 'not '}subtracted in the variance"


def _gain(candidate: NormLaw, reference: NormLaw) -> tuple[str, str]:
    words = {"weight": "weight", "1 + weight": "1 + weight", "weight twice": "weight twice"}
    if candidate.gain == "none":
        return "norm-weight-missing", f"weight is missing (the reference multiplies by {words[reference.gain]})"
    if reference.gain == "none":
        return "norm-weight-extra", f"norm multiplies by {words[candidate.gain]}, the reference by nothing"
    kind = "norm-one-plus-weight" if "1 + weight" in (candidate.gain, reference.gain) else "norm-weight-twice"
    return kind, f"norm multiplies by {words[candidate.gain]}, the reference by {words[reference.gain]}"


def _bias(candidate: int, reference: int) -> tuple[str, str]:
    if candidate == 0:
        return "bias-missing", "bias is missing"
    if candidate == 2:
        return "bias-doubled", "bias is added twice"
    return "bias-extra", f"bias is added, the reference adds it {'not at all' if reference == 0 else 'twice'}"


def _carried_out(leaf: Leaf, reference: FittedLaw, candidate: FittedLaw, kind: str, says: str) -> Cause:
    """The module repaired where an attribute or its weight can do it; else what the two laws leave."""
    trials = []
    if kind == "norm-eps":
        for name in eps_of(leaf.facts.attributes):
            trials.append(leaf.trial(kind, says, attributes={name: reference.law.eps}))
    if kind == "norm-one-plus-weight" and len(leaf.own) <= 2:
        step = -1.0 if candidate.law.gain == "1 + weight" else 1.0
        for name, one in leaf.own.items():
            if name.rpartition(".")[2] not in BIAS_NAMES:
                trials.append(leaf.trial(kind, says, state={name: one + step}))
    best = min(trials, key=lambda one: one.residual, default=None)
    if best is not None and best.residual <= leaf.tolerance:
        return best
    return leaf.cause(kind, says, max(reference.residual, candidate.residual))
