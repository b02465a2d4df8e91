"""The reference's norms as functions of any tensor: its own modules, run again on other values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from isomorph.trace.diagnose.stretch import Stretch
from isomorph.trace.nouns import Array, Call, Site

Norm = Callable[[Array], Array | None]
MOST_NORMS = 12


def normalisers(stretch: Stretch, width: int) -> Iterator[tuple[str, Norm]]:
    """(name, function) of the norms of that width, those that were called closest to the divergence last."""
    near = sorted(norm_calls(stretch, width), key=lambda call: -_distance(stretch, call))[-MOST_NORMS:]
    for call in near:
        yield short(call.module), partial(stretch.replay, call)


def short(module: str) -> str:
    """The last names of a module: enough to find it."""
    parts = module.split(".")
    return ".".join(parts[-2:]) if len(parts) > 1 and parts[-1].isdigit() else parts[-1]


def _distance(stretch: Stretch, call: Call) -> int:
    return abs(stretch.moments[Site(call.module, call.call, "out", 0)] - stretch.moment)


def norm_calls(stretch: Stretch, width: int) -> list[Call]:
    """Calls of leaf modules that own vectors only and keep the shape: norms of the last axis, in the order in which they ended."""
    modules = stretch.scene.reference.modules()
    values = stretch.scene.seen_reference.values
    found: dict[str, Call] = {}
    for call in stretch.scene.seen_reference.ended:
        facts = modules[call.module]
        if facts.children or not facts.own or call.module in found:
            continue
        shapes = {
            np.shape(stretch.scene.state_reference[name]) for name in facts.own if name in stretch.scene.state_reference
        }
        one = values.get(Site(call.module, call.call, "in", 0))
        two = values.get(Site(call.module, call.call, "out", 0))
        if shapes != {(width,)} or one is None or two is None or one.shape != two.shape or one.shape[-1] != width:
            continue
        found[call.module] = call
    return list(found.values())
