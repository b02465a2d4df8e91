"""The candidate's weights are not what the morph makes of the reference's: which of them matter here, and what they are instead.

Carried out: the candidate is run with the weights that the morph makes, and must agree where it was off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.bridge import Bridge
from isomorph.trace.diagnose.leaf import PARTS, Leaf, leaf_of
from isomorph.trace.diagnose.orders import Part, short_names
from isomorph.trace.diagnose.stack import homes, stacks
from isomorph.trace.diagnose.weight_causes import Said, cause_of_values
from isomorph.trace.nouns import Array, Cause, WeightDifference
from isomorph.trace.pairing import paired

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_SAID = 3
MOST_TRIED = 24


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """The weights around the suspect that differ; the fewest that restore agreement are named."""
    differing = differing_names(scene.expected, scene.actual)
    if not differing:
        return
    leaf = leaf_of(scene)
    near = _near(scene, differing, leaf)
    for names, is_inside in ((near, True), (differing, False)):
        if not names or (not is_inside and names == near):
            continue
        residual = _left(scene, leaf if is_inside else None, names)
        if residual > scene.tolerance:
            if is_inside:
                yield _cause(scene, names, differing, residual)
            continue
        needed = _needed(scene, leaf if is_inside else None, names)
        yield _cause(scene, needed, differing, _left(scene, leaf if is_inside else None, needed))
        return


def differing_names(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> list[str]:
    """Names whose values are not what the morph makes (in the morph's order); another shape differs too."""
    return [name for name, value in expected.items() if name in actual and not _equal(value, actual[name])]


def _equal(one: Array, two: Array) -> bool:
    if one.shape != two.shape:
        return False
    if one.dtype == two.dtype and one.tobytes() == two.tobytes():
        return True
    left, right = one.astype(np.float64), two.astype(np.float64)
    return bool(np.array_equal(left, right, equal_nan=True))


def differences(
    bridge: Bridge, expected: Mapping[str, Array], actual: Mapping[str, Array]
) -> tuple[WeightDifference, ...]:
    """Every tensor of the candidate that is not what the morph makes, with its cause."""
    names = differing_names(expected, actual)
    said = causes_of(bridge, expected, actual, names, names)
    found = []
    for name in names:
        one, two = expected[name].astype(np.float64), actual[name].astype(np.float64)
        count = int(np.count_nonzero(one != two)) if one.shape == two.shape else two.size
        found.append(WeightDifference(name, bridge.sources(name), two.size, count, said[name].says))
    return tuple(found)


def last_of(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def causes_of(
    bridge: Bridge,
    expected: Mapping[str, Array],
    actual: Mapping[str, Array],
    names: Sequence[str],
    differing: Sequence[str],
    called: Callable[[str], str] = last_of,
) -> dict[str, Said]:
    """What each of `names` is instead; `differing` are all that differ, for what can only be seen of the whole.

    `called` is how a clause calls a tensor.
    """
    held = {name: actual[name].astype(np.float64) for name in differing}
    meant = {name: value.astype(np.float64) for name, value in expected.items() if value.dtype.kind not in "b"}
    whole = stacks(held, meant)
    others = homes({name: held[name] for name in names}, meant)
    found = {}
    for name in names:
        short = called(name)
        if name in whole:
            found[name] = whole[name]
        elif stale := _stale(bridge, name, meant, held, actual):
            found[name] = Said("tied-stale", f"{short} is stale: it should equal {stale}, to which it is tied")
        elif name in others:
            found[name] = _of_another(name, short, others[name].names, held, meant)
        else:
            order = _reference_order(bridge, name)
            found[name] = cause_of_values(
                short, held[name].transpose(order), meant[name].transpose(order), parts_of(bridge, name)
            )
    return found


def _reference_order(bridge: Bridge, name: str) -> tuple[int, ...]:
    """The axes of a kernel in the order in which its one source has them, so that causes name what they are; else as they are."""
    rank, sources = len(bridge.candidate[name].shape), bridge.sources(name)
    plain = tuple(range(rank))
    if rank < 3 or len(sources) != 1 or len(bridge.reference[sources[0]].shape) != rank:
        return plain
    order = [
        next((axis for axis in plain if bridge.entries(name, axis, sources[0], facing) is not None), -1)
        for facing in plain
    ]
    return tuple(order) if sorted(order) == list(plain) else plain


def _stale(
    bridge: Bridge, name: str, meant: Mapping[str, Array], held: Mapping[str, Array], actual: Mapping[str, Array]
) -> str | None:
    """Another name of the candidate that is made of the same tensors, should be equal, and holds what it should."""
    for other, value in meant.items():
        if other == name or other in held or other not in actual or value.shape != meant[name].shape:
            continue
        shares = set(bridge.sources(other)) & set(bridge.sources(name))
        is_table = value.ndim > 1 and np.array_equal(value, meant[name])
        if (shares or is_table) and value.size > 1 and np.array_equal(value, meant[name]) and is_table:
            return other
    return None


def _of_another(
    name: str, short: str, names: Sequence[str], held: Mapping[str, Array], meant: Mapping[str, Array]
) -> Said:
    other = names[0]
    if other in held and np.array_equal(held[other], meant[name]):
        return Said("weights-swapped", f"{short} and {other} are swapped")
    return Said("weight-of-another", f"{short} holds what {other} should")


def parts_of(bridge: Bridge, name: str) -> tuple[Part, ...]:
    """The parts along axis 0 of a candidate tensor that is made of several of the reference's; () where they are not whole runs."""
    sources = bridge.sources(name)
    target = bridge.plan.targets.get(name)
    if len(sources) < 2 or target is None or not target.spec.shape:
        return ()
    rows = target.spec.shape[0]
    inner = target.spec.numel // max(1, rows)
    owner = np.full(rows, -1)
    for held in bridge.trace(name, np.arange(rows) * inner):
        owner[held.at] = sources.index(held.name)
    if (owner < 0).any():
        return ()
    starts = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), rows]
    if len(starts) - 1 != len(sources):
        return ()
    order = [int(owner[start]) for start in starts[:-1]]
    labels = short_names(list(sources))
    return tuple(Part(labels[which], starts[at], starts[at + 1]) for at, which in enumerate(order))


def _near(scene: Scene, differing: Sequence[str], leaf: Leaf | None) -> list[str]:
    """Those of the suspect itself: of its node and below its module; of a stretch, of the modules around and before it."""
    node = scene.suspect.at.node
    own = {name for _, name in node.parameters} if node is not None and scene.suspect.kind == "module" else set()
    prefix = f"{leaf.call.module if leaf is not None else scene.suspect.candidate}."
    found = [name for name in differing if name in own or name.startswith(prefix)]
    return found or [name for name in differing if name in own]


def _left(scene: Scene, leaf: Leaf | None, names: Sequence[str]) -> float:
    """The error at the suspect with these weights as the morph makes them."""
    state = {name: scene.expected[name] for name in names if scene.expected[name].shape == scene.actual[name].shape}
    if leaf is not None and scene.suspect.kind == "module":
        return leaf.error(leaf.attempt(state))
    trial = scene.candidate.copy(scene.dtype)
    trial.fill(state)
    at = scene.suspect.at
    try:
        seen = trial.run(scene.probe.candidate, watch={at.candidate.module}, splice=dict(scene.splice))
        return scene.error(*paired(at, scene.seen_reference, seen))
    except ValueError:
        return float("inf")


def _needed(scene: Scene, leaf: Leaf | None, names: Sequence[str]) -> list[str]:
    """The fewest found by leaving one out after another."""
    kept = list(names)
    if len(kept) > MOST_TRIED:
        return kept
    for name in list(kept):
        less = [other for other in kept if other != name]
        if less and _left(scene, leaf, less) <= scene.tolerance:
            kept = less
    return kept


def relative(scene: Scene) -> Callable[[str], str]:
    """Names as they are below the suspect; whole where they are elsewhere."""
    prefix = f"{scene.suspect.candidate}." if scene.suspect.candidate else ""
    return lambda name: name.removeprefix(prefix)


def _cause(scene: Scene, names: Sequence[str], differing: Sequence[str], residual: float) -> Cause:
    said = causes_of(scene.bridge, scene.expected, scene.actual, names, differing, relative(scene))
    texts = list(dict.fromkeys(said[name].says for name in names))
    text = "; ".join(texts[:MOST_SAID]) + (f"; and {len(texts) - MOST_SAID} more" if len(texts) > MOST_SAID else "")
    sizes: dict[str, int] = {}
    for name in names:
        sizes[said[name].kind] = sizes.get(said[name].kind, 0) + scene.actual[name].size
    return Cause(max(sizes, key=lambda kind: sizes[kind]), text, residual, scene.tolerance / PARTS, repairs=True)
