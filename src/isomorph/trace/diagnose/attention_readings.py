"""q, k and v, read out of a fused projection in another way, or without what the projection should have added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from isomorph.trace.diagnose.attention_fit import Three
from isomorph.trace.diagnose.attention_formula import FUSED, blocks, parts
from isomorph.trace.diagnose.stretch import Atom, Stretch
from isomorph.trace.nouns import Array

MOST_STARTS = 400


@dataclass(frozen=True)
class Reading:
    """q, k and v as they are read from what is before, of one side; `says` names how, where that is not the reference's way."""

    three: Three
    kind: str = ""
    says: str = ""
    heads: int | None = None


def of_three(atoms: list[Atom], side: str) -> Three:
    """Three tensors as they are."""
    q, k, v = (atom.reference if side == "reference" else atom.candidate for atom in atoms)
    return q, k, v


def fused_readings(fused: Array, width: int) -> Iterator[Reading]:
    """q, k and v out of one tensor, in all the ways in which it may be cut; [q, k, v] first, then those that need the heads."""
    if fused.ndim != 3 or fused.shape[2] <= width or (fused.shape[2] - width) % 2:
        return
    key_width = (fused.shape[2] - width) // 2
    if key_width > width:
        return
    yield Reading(blocks(fused, key_width), "qkv-split", "[q, k, v]")
    if key_width != width:
        return
    for heads in range(1, width + 1):
        if width % heads == 0:
            for layout in FUSED[1:]:
                yield Reading(parts(fused, layout, heads), "qkv-interleaved", f"[{layout}] with {heads} heads", heads)


def same_reading(fused: Array, width: int, read: Reading) -> Reading | None:
    """Another tensor, read in the same way."""
    for reading in fused_readings(fused, width):
        if (reading.says, reading.heads) == (read.says, read.heads):
            return reading
    return None


def other_readings(stretch: Stretch, atoms: list[Atom], read: Reading, right: Three, heads: int) -> Iterator[Reading]:
    """How else the candidate may have read its own q, k and v; `right` is how it should have."""
    width = right[0].shape[2]
    for raw, stored in _fused(stretch, atoms, right, heads):
        names = [reading for reading in fused_readings(raw, width) if reading.heads in (None, heads)]
        holds = stored or next((one.says for one in names if _same(one.three, right)), "in another order")
        for reading in names:
            if reading.says == holds:
                continue
            says = f"the fused projection is cut as {_plain(reading.says)}, its weights are laid out as {_plain(holds)}"
            yield Reading(reading.three, "qkv-interleaved", says)
            for order in permutations(range(3)):
                if order != (0, 1, 2):
                    q, k, v = (reading.three[i] for i in order)
                    yield Reading((q, k, v), "qkv-interleaved", f"{says}, and its parts are taken for each other")
        yield from _starts(raw, right, width, heads)
    yield from _biases(stretch, atoms, read)


def _plain(says: str) -> str:
    return says.split(" with ")[0]


def _fused(stretch: Stretch, atoms: list[Atom], right: Three, heads: int) -> Iterator[tuple[Array, str]]:
    """(the candidate's fused tensor, its layout where that is only supposed): as seen, or as it would be made of q, k and v."""
    sites = {atom.event.candidate for atom in atoms if atom.event is not None}
    if len(sites) == 1 and all(atom.is_paired for atom in atoms):
        values = stretch.scene.seen_candidate.values.get(next(iter(sites)))
        if values is not None and values.ndim == 3 and values.shape[:2] == right[0].shape[:2]:
            yield np.asarray(values, np.float64), ""
        return
    if any(atom.is_paired for atom in atoms) or any(x.shape != right[0].shape for x in right):
        return
    yield np.concatenate(right, axis=2), "[q, k, v]"
    batch, length, width = right[0].shape
    cut = np.stack([x.reshape(batch, length, heads, width // heads) for x in right])
    for layout in FUSED[1:]:
        axes = [{"3": 0, "h": 3, "d": 4}[axis] for axis in layout.split()]
        yield cut.transpose(1, 2, *axes).reshape(batch, length, 3 * width), f"[{layout}] with {heads} heads"


def _starts(raw: Array, right: Three, width: int, heads: int) -> Iterator[Reading]:
    """One part that begins at another column than it should."""
    if any(x.shape[2] != width for x in right):
        return
    last = raw.shape[2] - width
    step = 1 if raw.shape[2] <= MOST_STARTS else max(width // heads // 2, 1)
    for part, letter in enumerate("qkv"):
        begins = part * width
        if not np.array_equal(raw[..., begins : begins + width], right[part]):
            return
        for start in range(0, last + 1, step):
            if start % width == 0:
                continue  # another part: that is said better
            three = list(right)
            three[part] = raw[..., start : start + width]
            way = "early" if start < begins else "late"
            says = f"{letter} begins {abs(start - begins)} rows too {way} in the fused projection"
            yield Reading((three[0], three[1], three[2]), "qkv-split", says)


def _same(one: Three, two: Three) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(one, two, strict=True))


def _biases(stretch: Stretch, atoms: list[Atom], read: Reading) -> Iterator[Reading]:
    """The projections without their biases, or with them twice, where the candidate does not show its projections."""
    if any(atom.is_paired for atom in atoms):
        return
    modules, state = stretch.modules, stretch.scene.state_reference
    vectors: list[Array] = []
    for atom in atoms:
        own = modules[atom.site.module].own if atom.site is not None else ()
        width = atom.candidate.shape[-1]
        found = [
            np.asarray(state[name], np.float64) for name in own if name in state and np.shape(state[name]) == (width,)
        ]
        vectors.append(found[0] if found else np.zeros(width))
    if not any(vector.any() for vector in vectors):
        return
    for times, kind, words in ((-1.0, "bias-missing", "missing"), (1.0, "bias-doubled", "added twice")):
        tensors = [atom.candidate + times * vector for atom, vector in zip(atoms, vectors, strict=True)]
        if len(tensors) == 3:
            yield Reading((tensors[0], tensors[1], tensors[2]), kind, f"the biases of q, k and v are {words}")
            for part, letter in enumerate("qkv"):
                three = [atom.candidate for atom in atoms]
                three[part] = tensors[part]
                yield Reading((three[0], three[1], three[2]), kind, f"the bias of {letter} is {words}")
        else:
            made = same_reading(tensors[0], read.three[0].shape[2], read)
            if made is not None:
                yield Reading(made.three, kind, f"the bias of the fused projection is {words}")
                for part, letter in enumerate("qkv"):
                    whole = list(read.three)
                    whole[part] = made.three[part]
                    yield Reading((whole[0], whole[1], whole[2]), kind, f"the bias of {letter} is {words}")
