"""Attention of a reference that shows nothing of its inside (nn.MultiheadAttention): q, k and v made of its raw weights.

Its matrices are told by their shapes and the order in which they are defined: one three times as high as the others, or three
apart, and a last one that the heads' output goes through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from isomorph.trace.diagnose.attention_fit import Aim, Hints, fit
from isomorph.trace.diagnose.attention_formula import Attention
from isomorph.trace.diagnose.attention_readings import Reading, of_three
from isomorph.trace.diagnose.stretch import Atom, Goal, Stretch
from isomorph.trace.nouns import Array, Site


def raw_goals(stretch: Stretch, goal: Goal) -> Iterator[tuple[Goal, list[Atom]]]:
    """(the goal [B T W] behind the last matrix, q, k and v): with the batch first, then with the sequence first."""
    site = stretch.at.reference
    if site.border != "out" or goal.finish is not None or goal.reference.ndim != 3:
        return
    inputs = _inputs(stretch, site)
    projected = _projections(stretch, site.module, inputs)
    if projected is None:
        return
    three, (out, shift) = projected
    for is_turned in (False, True):
        laid = [x.swapaxes(0, 1) if is_turned else x for x in (*three, goal.reference, goal.candidate)]
        moment = goal.moment - 1
        atoms = [
            Atom(f"{letter} of {site.module.rpartition('.')[2]}", x, x, moment)
            for letter, x in zip("qkv", laid[:3], strict=True)
        ]
        yield replace(goal, reference=laid[3], candidate=laid[4], finish=lambda y: y @ out + shift), atoms


def explained_raw(
    stretch: Stretch, atoms: list[Atom], aim: Aim, hints: Hints
) -> tuple[Attention, list[Atom], Reading] | None:
    """The rule that makes the reference's output of them."""
    three = of_three(atoms, "reference")
    rule = fit(aim, three, hints, stretch.limit)
    if rule is None:
        return None
    stretch.noise = 4 * aim.error(rule, three)
    return rule, atoms, Reading(three)


def _inputs(stretch: Stretch, site: Site) -> list[Array]:
    """What goes in as query, key and value: those that are left out are the one before."""
    values = stretch.scene.seen_reference.values
    found = [values.get(Site(site.module, site.call, "in", index)) for index in range(3)]
    given = [x.astype(np.float64) for x in found if x is not None and x.ndim == 3 and x.dtype.kind == "f"]
    return (given + given[-1:] * 3)[:3]


def _projections(stretch: Stretch, module: str, inputs: list[Array]) -> tuple[list[Array], tuple[Array, Array]] | None:
    """([q, k, v], (the last matrix [in out], its bias)) of the weights of a module and of those below it that it does not call."""
    scene = stretch.scene
    called = {call.module for call in scene.seen_reference.began}
    names = [
        name
        for at, facts in stretch.modules.items()
        if at == module or (at.startswith(f"{module}.") and at not in called)
        for name in facts.own
    ]
    values = [np.asarray(scene.state_reference[name], np.float64) for name in names if name in scene.state_reference]
    matrices, vectors = [x for x in values if x.ndim == 2], [x for x in values if x.ndim == 1]
    if not inputs or len(matrices) not in (2, 4):
        return None
    last = matrices[-1]
    cut = _cut(matrices[:-1], inputs)
    if cut is None or last.shape[1] != cut[0].shape[1]:
        return None
    size = sum(len(part) for part in cut)
    fused = next((x for x in vectors if len(x) == size), None)
    single = [x for x in vectors if len(x) == len(cut[0])]
    if fused is not None:
        biases = np.split(fused, np.cumsum([len(part) for part in cut])[:-1])
    elif len(single) >= 3:
        biases = single[:3]
    else:
        biases = [np.zeros(len(part)) for part in cut]
    shift = vectors[-1] if vectors and len(vectors[-1]) == len(last) and len(vectors) in (2, 4) else np.zeros(len(last))
    return [x @ part.T + bias for x, part, bias in zip(inputs, cut, biases, strict=True)], (last.T, shift)


def _cut(matrices: list[Array], inputs: list[Array]) -> list[Array] | None:
    """The matrices [out in] of q, k and v."""
    if len(matrices) == 1:
        (whole,) = matrices
        if whole.shape[0] % 3:
            return None
        matrices = np.split(whole, 3)
    fits = all(part.shape[1] == x.shape[2] for part, x in zip(matrices, inputs, strict=True))
    return matrices if fits else None
