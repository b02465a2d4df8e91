"""Things run at another place: a norm before instead of after, a norm left out, layers in another order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.diagnose.norms import norm_calls, normalisers, short
from isomorph.trace.diagnose.sparse import solve
from isomorph.trace.diagnose.stretch import Atom, Goal, Stretch
from isomorph.trace.nouns import Array, Call, Capture, Cause, Node, Site

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_BASES = 8


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Layers in another order first; then norms."""
    stretch = Stretch(scene)
    found = list(layers(stretch))
    yield from found
    if any(cause.residual <= stretch.limit for cause in found):
        return
    for goal in stretch.goals:
        if goal.finish is None and goal.reference.ndim >= 2:
            yield from norms(stretch, goal)


def norms(stretch: Stretch, goal: Goal) -> Iterator[Cause]:
    """The candidate's tensor is a norm of a tensor of before, or what goes into a norm of the reference."""
    target = goal.candidate
    shape = goal.reference.shape
    bases = [atom for atom in stretch.atoms if atom.reference.shape == shape and atom.moment < goal.moment][:MOST_BASES]
    own = _norm_of(stretch, goal)
    style = style_of(stretch, shape)
    best: float | None = None
    tried: list[tuple[str, Array, str]] = [
        ("", goal.reference, "its own input"),
        *((atom.name, atom.candidate, "") for atom in bases),
    ]
    tried += [
        (f"{one.name} + {two.name}", one.candidate + two.candidate, "sum")
        for i, one in enumerate(bases[:5])
        for two in bases[:i]
    ]
    if own is not None:
        for name, values, _ in tried[1:]:
            gap = stretch.gap(values, target)
            if gap <= stretch.limit:
                yield stretch.cause("norm-missing", f"{own} is missing here: what is given on is {name}", gap)
                return
    for norm, apply in normalisers(stretch, shape[-1]):
        for name, values, how in tried:
            made = apply(values)
            if made is None or made.shape != shape:
                continue
            gap = stretch.gap(made, target)
            if gap > stretch.limit or (best is not None and gap > 4 * best):
                continue
            best = gap
            kind, says = _norm_says(norm, name, how, own, style)
            yield stretch.cause(kind, says, gap)


def _norm_says(norm: str, name: str, how: str, own: str | None, style: str) -> tuple[str, str]:
    if own == norm and not name:
        return "norm-twice", f"{norm} is applied twice"
    if own is not None and own != norm:
        return "norm-order", f"{norm} is applied here, the reference applies {own}"
    if own == norm:
        return "norm-order", f"{norm} is applied to {name}, in the reference to another tensor"
    if style == "post" and how != "sum":
        return (
            "norm-order",
            f"{norm} runs before its sublayer (pre-LN), in the reference after the residual sum (post-LN)",
        )
    if style == "pre":
        return (
            "norm-order",
            f"{norm} runs after the residual sum (post-LN), in the reference before its sublayer (pre-LN)",
        )
    return "norm-order", f"{norm} is applied to {name or 'this tensor'}, the reference does not apply it here"


def _norm_of(stretch: Stretch, goal: Goal) -> str | None:
    """The norm of the reference whose output the tensor is."""
    for call in norm_calls(stretch, goal.reference.shape[-1]):
        out = stretch.scene.seen_reference.values[Site(call.module, call.call, "out", 0)]
        if out.shape == goal.reference.shape and np.array_equal(out, goal.reference):
            return short(call.module)
    return None


def style_of(stretch: Stretch, shape: tuple[int, ...]) -> str:
    """ "post" where the residual stream of the reference goes on from a norm's output, "pre" from its input; else ""."""
    values = stretch.scene.seen_reference.values
    calls = [
        call for call in norm_calls(stretch, shape[-1]) if values[Site(call.module, call.call, "in", 0)].shape == shape
    ]
    outs = [
        (stretch.moments[site], np.asarray(tensor, np.float64))
        for site, tensor in values.items()
        if site.border == "out" and tensor.shape == shape and site in stretch.moments and tensor.dtype.kind == "f"
    ]
    for one, two in pairwise(calls):
        entered, left = (
            np.asarray(values[Site(one.module, one.call, border, 0)], np.float64) for border in ("in", "out")
        )
        target = np.asarray(values[Site(two.module, two.call, "in", 0)], np.float64)
        between = [
            tensor
            for moment, tensor in outs
            if stretch.moments[Site(one.module, one.call, "out", 0)]
            < moment
            < stretch.moments[Site(two.module, two.call, "in", 0)]
        ]
        for name, stream in (("post", left), ("pre", entered)):
            for tensor in between:
                if np.array_equal(tensor, stream):
                    continue
                solved = solve(target, [stream, tensor])
                if solved.gap <= max(stretch.limit, 1e-5) and min(map(abs, solved.coefficients)) > 1e-6:
                    return name
    return ""


def layers(stretch: Stretch) -> Iterator[Cause]:
    """The candidate calls aligned modules in another order, leaves one out, or calls one again."""
    chain = _chain(stretch)
    if chain is None:
        return
    reference, candidate, calls = chain
    if reference == candidate:
        return
    words = order_words(reference, candidate)
    made = _run_in_order(stretch, [calls[i] for i in candidate], calls[reference[0]])
    if made is None:
        return
    yield stretch.cause("layer-order", words, made)


def order_words(reference: Sequence[int], candidate: Sequence[int]) -> str:
    """`layers run in the order 0 2 1, the reference's 0 1 2`."""
    shown = " ".join(map(str, candidate[:16])) + (" …" if len(candidate) > 16 else "")
    if list(candidate) == list(reversed(reference)):
        return "layers run in reverse order"
    if sorted(candidate) == sorted(reference) and list(candidate) == sorted(reference, key=str):
        return f"layers run in the order of their names as text (lexicographic): {shown}"
    if set(candidate) < set(reference) and len(set(candidate)) == len(candidate):
        left = sorted(set(reference) - set(candidate))
        return f"layer {', '.join(map(str, left))} is not run"
    if len(candidate) > len(set(candidate)) and set(candidate) == set(reference):
        twice = sorted(i for i in set(candidate) if list(candidate).count(i) > 1)
        return f"layer {', '.join(map(str, twice))} is run {list(candidate).count(twice[0])} times"
    return f"layers run in the order {shown}, the reference's {' '.join(map(str, reference[:16]))}"


def _chain(stretch: Stretch) -> tuple[list[int], list[int], list[Call]] | None:
    """(the reference's order, the candidate's, the reference's calls) of the widest row of sibling blocks around the divergence."""
    scene = stretch.scene
    rows: dict[str, list[Node]] = {}
    for node in scene.alignment.nodes:
        if node.kind == "block" and len(node.reference) == 1 == len(node.candidate):
            parent, _, last = node.reference[0].rpartition(".")
            if last.isdigit():
                rows.setdefault(parent, []).append(node)
    for nodes in sorted(rows.values(), key=len, reverse=True):
        ordered = _called(scene.seen_reference, [node.reference[0] for node in nodes])
        other = _called(scene.seen_candidate, [node.candidate[0] for node in nodes])
        if len(ordered) < 2:
            continue
        numbers = [int(nodes[i].reference[0].rpartition(".")[2]) for i in range(len(nodes))]
        if [numbers[i] for i in ordered] == [numbers[i] for i in other]:
            continue
        calls = {numbers[i]: Call(nodes[i].reference[0], 0) for i in range(len(nodes))}
        most = max(calls) + 1
        listed = [calls.get(i, Call("", 0)) for i in range(most)]
        return [numbers[i] for i in ordered], [numbers[i] for i in other], listed
    return None


def _called(capture: Capture, names: Sequence[str]) -> list[int]:
    """Which of these modules were called, in the order of the calls."""
    place = {name: i for i, name in enumerate(names)}
    return [place[call.module] for call in capture.began if call.module in place]


def _run_in_order(stretch: Stretch, order: Sequence[Call], first: Call) -> float | None:
    """The reference's layers, run in the candidate's order: the gap that is left at the divergence.

    Each layer is run again on what the one before gave; the last result is spliced in as the output of the reference's last layer.
    """
    scene = stretch.scene
    entered = scene.seen_reference.values.get(Site(first.module, first.call, "in", 0))
    if entered is None:
        return None
    values = np.asarray(entered, np.float64)
    before: dict[str, Array] = {}
    for call in order:
        before[call.module] = values
        made = stretch.replay(call, values)
        if made is None or made.shape != values.shape:
            return None
        values = made
    blocks = [call.module for call in order]
    inside = next((name for name in blocks if stretch.at.reference.module.startswith(f"{name}.")), None)
    inside = stretch.at.reference.module if stretch.at.reference.module in blocks else inside
    if inside is not None:
        splice = {Site(inside, 0, "in", 0): before[inside]}
    else:
        last = [call for call in scene.seen_reference.ended if call.module in blocks][-1]
        splice = {Site(last.module, last.call, "out", 0): values}
    try:
        again = scene.reference.run(scene.probe.reference, splice=splice)
    except UsageError:
        return None
    return _gap_at(stretch, again)


def _gap_at(stretch: Stretch, again: Capture) -> float | None:
    """The gap at the divergence, of the reference's run with something spliced in."""
    from isomorph.trace.pairing import paired

    try:
        made, found = paired(stretch.at, again, stretch.scene.seen_candidate)
    except ValueError:
        return None
    return stretch.gap(made, found)


__all__ = ["Atom", "hypotheses", "layers", "norms", "order_words", "style_of"]
