"""Values that change from run to run, and values that lie on the grid of a narrower dtype."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.attention_formula import round_to
from isomorph.trace.diagnose.sparse import combine
from isomorph.trace.diagnose.stretch import Stretch
from isomorph.trace.nouns import Array, Cause, Site

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

NARROWER = {
    "float64": ("bfloat16", "float16", "float32"),
    "float32": ("bfloat16", "float16"),
    "float16": ("bfloat16",),
    "bfloat16": (),
}
SHARE = 0.98


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Dropout and other randomness first; then rounding."""
    stretch = Stretch(scene)
    found = list(randomness(stretch))
    yield from found
    if not found:
        yield from rounding(stretch)


def randomness(stretch: Stretch) -> Iterator[Cause]:
    """The candidate, run again on the same inputs, gives other values here."""
    scene = stretch.scene
    if scene.is_repeatable:
        return
    again = scene.rerun()
    site = stretch.at.candidate
    one, two = scene.seen_candidate.values.get(site), again.values.get(site)
    if one is None or two is None:
        names = list(scene.seen_candidate.outputs)
        if site.module or site.index >= len(names):
            return
        one, two = scene.seen_candidate.outputs[names[site.index]], again.outputs[names[site.index]]
    if np.array_equal(one, two):
        return
    both = stretch.pair(stretch.at)
    share = _dropped(*both) if both is not None else None
    rate = "" if share is None else f" (about {share:.0%} of the values are zero: p ≈ {share:.2g})"
    modules = [
        name
        for name, facts in scene.candidate.modules().items()
        if facts.attributes.get("training") is True and "drop" in facts.kind.lower()
    ]
    any_training = any(facts.attributes.get("training") is True for facts in scene.candidate.modules().values())
    first = _first_random(stretch, again.values)
    where = f"; the first that changes is {first}" if first is not None else ""
    if modules:
        who = f"{modules[0]} is" if len(modules) == 1 else f"{modules[0]} and {len(modules) - 1} more are"
        says = f"dropout is left on: {who} in train mode{rate}"
    elif any_training:
        says = f"the model is in train mode: values change from run to run{rate}{where}"
    else:
        says = f"values change from run to run: dropout is applied whatever the mode{rate}{where}"
    yield stretch.cause("dropout", says, 0.0)


def _dropped(reference: Array, candidate: Array) -> float | None:
    """The share of zeros where the reference has none, when the others are the reference's times one factor."""
    zero = (candidate == 0) & (reference != 0)
    share = float(zero.mean()) if zero.size else 0.0
    return share if 0.005 < share < 0.995 else None


def _first_random(stretch: Stretch, again: dict[Site, Array]) -> Site | None:
    seen = stretch.scene.seen_candidate
    for call in seen.ended:
        site = Site(call.module, call.call, "out", 0)
        one, two = seen.values.get(site), again.get(site)
        if one is not None and two is not None and not np.array_equal(one, two, equal_nan=one.dtype.kind == "f"):
            return site
    return None


def rounding(stretch: Stretch) -> Iterator[Cause]:
    """The candidate's tensor is on the grid of a narrower dtype and the reference's is not: it was computed or stored in it."""
    both = stretch.pair(stretch.at)
    if both is None:
        return
    reference, candidate = both
    if not np.isfinite(candidate).all():
        return
    for dtype in NARROWER.get(stretch.scene.dtype, ()):
        if on_grid(candidate, dtype) < SHARE or on_grid(reference, dtype) > 0.5:
            continue
        near = stretch.gap(round_to(reference, dtype), candidate)
        step = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24}[dtype]
        if near <= stretch.limit:
            yield stretch.cause("half-accumulation", f"is rounded to {dtype} here", near)
        elif near <= 64 * step:
            yield stretch.cause(
                "half-accumulation", f"is computed in {dtype}: its values lie on the grid of {dtype}", near
            )
        return
    yield from _rounded_term(stretch, reference, candidate)


def on_grid(values: Array, dtype: str) -> float:
    """The share of values that a dtype holds exactly, zeros left out."""
    some = values[values != 0]
    return float((round_to(some, dtype) == some).mean()) if some.size else 0.0


def _rounded_term(stretch: Stretch, reference: Array, candidate: Array) -> Iterator[Cause]:
    """The tensor is a sum one of whose terms was rounded: what is left of the sum lies on the grid."""
    near = [atom for atom in stretch.atoms if atom.reference.shape == candidate.shape][:6]
    for atom in near:
        rest, right = combine([candidate, atom.candidate], (1.0, -1.0)), reference - atom.reference
        for dtype in NARROWER.get(stretch.scene.dtype, ())[:2]:
            if on_grid(np.asarray(np.float32(rest), np.float64), dtype) < SHARE or on_grid(right, dtype) > 0.5:
                continue
            gap = stretch.gap(round_to(right, dtype) + atom.candidate, candidate)
            if gap <= stretch.limit:
                yield stretch.cause("half-accumulation", f"what is added to {atom.name} is rounded to {dtype}", gap)
                return
