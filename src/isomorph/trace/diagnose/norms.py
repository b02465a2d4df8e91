"""The reference's norms: where they are called, as functions of any tensor, and how a block is built around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise, permutations

import numpy as np

from isomorph.trace.diagnose.sparse import solve
from isomorph.trace.diagnose.stretch import Stretch
from isomorph.trace.nouns import Array, Border, Call, Site
from isomorph.trace.timeline import places

Norm = Callable[[Array], Array | None]
MOST_NORMS = 6
MOST_LATER = 20


def normalisers(stretch: Stretch, width: int) -> Iterator[tuple[str, Norm]]:
    """(name, function) of the norms of that width that are called nearest to the divergence."""
    for call in near(stretch, width):
        yield short(call.module), partial(stretch.replay, call)


def near(stretch: Stretch, width: int) -> list[Call]:
    """Calls of norms, the nearest to the divergence first."""
    return sorted(norm_calls(stretch, width), key=lambda call: _distance(stretch, call))[:MOST_NORMS]


def short(module: str) -> str:
    """The last names of a module: enough to find it."""
    parts = module.split(".")
    return ".".join(parts[-2:]) if len(parts) > 1 and parts[-1].isdigit() else parts[-1]


def _distance(stretch: Stretch, call: Call) -> int:
    return abs(stretch.moments[Site(call.module, call.call, "out", 0)] - stretch.moment)


def norm_calls(stretch: Stretch, width: int) -> list[Call]:
    """The first calls of leaf modules that own vectors only and keep the shape: norms of the last axis, as they ended."""
    scene = stretch.scene
    modules, values, state = scene.reference.modules(), scene.seen_reference.values, scene.state_reference
    found: dict[str, Call] = {}
    for call in scene.seen_reference.ended:
        facts = modules[call.module]
        if facts.children or not facts.own or call.module in found:
            continue
        one, two = (values.get(Site(call.module, call.call, border, 0)) for border in _BORDERS)
        if {np.shape(state[name]) for name in facts.own if name in state} != {(width,)}:
            continue
        if one is not None and two is not None and one.shape == two.shape and one.shape[-1] == width:
            found[call.module] = call
    return list(found.values())


_BORDERS: tuple[Border, Border] = ("in", "out")


def may_be_output(stretch: Stretch, call: Call, values: Array) -> bool:
    """False where a tensor cannot be what this norm gives: without its weight and bias, its rows are not of length one."""
    facts = stretch.modules[call.module]
    vectors = [np.asarray(stretch.scene.state_reference[name], np.float64) for name in facts.own]
    kept = stretch.scene.kept(values.shape)
    for order in permutations(vectors):
        for plus in (0.0, 1.0):
            bias = order[1] if len(order) > 1 else 0.0
            with np.errstate(all="ignore"):
                plain = (values - bias) / (order[0] + plus)
                size = np.sqrt((plain**2).mean(-1, keepdims=True))
            size = size[np.broadcast_to(kept[..., :1], size.shape)] if kept is not None else size
            if np.isfinite(size).all() and size.max() < 1.02 and size.min() > 0.2:
                return True
    return False


def entered(stretch: Stretch, call: Call, border: Border) -> Array:
    """What goes into a call or comes out, in float64."""
    return np.asarray(stretch.scene.seen_reference.values[Site(call.module, call.call, border, 0)], np.float64)


def norm_that_gives(stretch: Stretch, values: Array) -> str | None:
    """The norm of the reference whose output a tensor is."""
    for call in norm_calls(stretch, values.shape[-1]):
        out = entered(stretch, call, "out")
        if out.shape == values.shape and np.array_equal(out, values):
            return call.module
    return None


def norm_that_takes(stretch: Stretch, values: Array) -> str | None:
    """The norm of the reference whose input a tensor is."""
    for call in norm_calls(stretch, values.shape[-1]):
        given = entered(stretch, call, "in")
        if given.shape == values.shape and np.array_equal(given, values):
            return call.module
    return None


def style_of(stretch: Stretch, shape: Sequence[int]) -> str:
    """ "post" where the residual stream of the reference goes on from a norm's output, "pre" from its input; else ""."""
    scene = stretch.scene
    calls = [call for call in norm_calls(stretch, shape[-1]) if entered(stretch, call, "in").shape == tuple(shape)]
    outs = [
        (stretch.moments[site], np.asarray(tensor, np.float64))
        for site, tensor in scene.seen_reference.values.items()
        if site.border == "out"
        and tensor.shape == tuple(shape)
        and site in stretch.moments
        and tensor.dtype.kind == "f"
    ]
    for one, two in pairwise(calls):
        target = entered(stretch, two, "in")
        first = stretch.moments[Site(one.module, one.call, "out", 0)]
        last = stretch.moments[Site(two.module, two.call, "in", 0)]
        for name, stream in (("post", entered(stretch, one, "out")), ("pre", entered(stretch, one, "in"))):
            for moment, tensor in outs:
                if not first < moment < last or np.array_equal(tensor, stream):
                    continue
                solved = solve(target, [stream, tensor])
                if solved.gap <= max(stretch.limit, 1e-5) and min(map(abs, solved.coefficients)) > 1e-6:
                    return name
    return ""


def later(stretch: Stretch, shape: Sequence[int]) -> list[tuple[Site, Array, int]]:
    """(candidate site, the candidate's own tensor, its moment in the candidate's run) of events after the divergence."""
    scene = stretch.scene
    when = places(scene.seen_candidate)
    found = []
    for measure in scene.measures:
        event = measure.event
        if event.node is None or event.place <= stretch.at.place or event.candidate == stretch.at.candidate:
            continue
        both = stretch.pair(event)
        moment = when.get((Call(event.candidate.module, event.candidate.call), event.candidate.border))
        if both is not None and moment is not None and both[1].shape == tuple(shape) and np.isfinite(both[1]).all():
            found.append((event.candidate, both[1], moment))
        if len(found) == MOST_LATER:
            break
    return found
