"""Layers that the candidate runs in another order, leaves out, or runs again; carried out on the reference's own layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.diagnose.stretch import Stretch
from isomorph.trace.nouns import Array, Call, Capture, Cause, Site
from isomorph.trace.pairing import Unpaired, paired


def layers(stretch: Stretch) -> Iterator[Cause]:
    """The rows of numbered siblings that both sides call, and that the candidate does not call as the reference does."""
    for reference, candidate, parent in rows(stretch):
        if reference == candidate:
            continue
        gap = _gap_in_order(stretch, parent, reference, candidate)
        if gap is not None and gap <= stretch.limit:
            kind, words = order_words(reference, candidate)
            yield stretch.cause(kind, words, gap)


def order_words(reference: Sequence[int], candidate: Sequence[int]) -> tuple[str, str]:
    """(slug, words): `layers run in the order 0 2 1, the reference's 0 1 2`."""
    shown = " ".join(map(str, candidate[:16])) + (" …" if len(candidate) > 16 else "")
    right = " ".join(map(str, reference[:16])) + (" …" if len(reference) > 16 else "")
    if list(candidate) == list(reversed(reference)):
        return "layer-order", "layers run in reverse order"
    if sorted(candidate) == sorted(reference) and list(candidate) == sorted(reference, key=str):
        return "layer-order", f"layers run in the order of their names as text (lexicographic): {shown}"
    once = len(set(candidate)) == len(candidate)
    if set(candidate) < set(reference) and once:
        left = sorted(set(reference) - set(candidate))
        also = (
            "" if list(candidate) == [i for i in reference if i in candidate] else f", the others in the order {shown}"
        )
        return "layer-skipped", f"layer {', '.join(map(str, left))} is not run{also}"
    if not once and set(candidate) == set(reference):
        again = sorted(i for i in set(candidate) if list(candidate).count(i) > 1)
        times = {2: "twice"}.get(list(candidate).count(again[0]), f"{list(candidate).count(again[0])} times")
        return "layer-repeated", f"layer {', '.join(map(str, again))} is run {times}"
    return "layer-order", f"layers run in the order {shown}, the reference's {right}"


def rows(stretch: Stretch) -> Iterator[tuple[list[int], list[int], str]]:
    """(the reference's order, the candidate's, the reference's parent) of each row of numbered blocks, in the reference's numbers.

    A block of the reference that stands for none of the candidate's calls is one that the candidate does not run.
    """
    scene = stretch.scene
    parents: dict[str, dict[str, int]] = {}
    for node in scene.alignment.nodes:
        if node.kind != "block" or len(node.reference) != 1 or len(node.candidate) != 1:
            continue
        parent, _, last = node.reference[0].rpartition(".")
        if last.isdigit():
            parents.setdefault(parent, {})[node.candidate[0]] = int(last)
    for parent, numbers in parents.items():
        called = [_number(call.module, parent) for call in scene.seen_reference.began]
        reference = [number for number in called if number is not None]
        numbers |= _by_what_they_hold(stretch, parent, set(reference) - set(numbers.values()), list(numbers))
        candidate = [numbers[call.module] for call in scene.seen_candidate.began if call.module in numbers]
        unmatched = set(reference) - set(numbers.values())
        held = {module for node in scene.alignment.nodes for module in node.reference}
        if any(f"{module}.".startswith(f"{_module(parent, number)}.") for number in unmatched for module in held):
            continue  # the candidate runs what is in it, in blocks of another make
        if len(reference) > 1 and candidate:
            yield reference, candidate, parent


def _by_what_they_hold(stretch: Stretch, parent: str, missing: set[int], siblings: list[str]) -> dict[str, int]:
    """Candidate module -> number of blocks that are no node of their own, since they hold something that others do not.

    It is the candidate's module, as deep as its siblings, in which all that is aligned with what the block holds lies.
    """
    depths = {name.count(".") for name in siblings}
    modules = stretch.scene.candidate.modules()
    found: dict[str, int] = {}
    for number in missing if len(depths) == 1 else ():
        within = f"{_module(parent, number)}."
        held = {
            ".".join(other.split(".")[: min(depths) + 1])
            for node in stretch.scene.alignment.nodes
            if all(module.startswith(within) for module in node.reference)
            for other in node.candidate
        }
        if len(held) == 1 and not held & {*siblings} and held <= modules.keys():
            found[held.pop()] = number
    return found


def _number(module: str, parent: str) -> int | None:
    head, _, last = module.rpartition(".")
    return int(last) if head == parent and last.isdigit() else None


def _gap_in_order(stretch: Stretch, parent: str, reference: Sequence[int], candidate: Sequence[int]) -> float | None:
    """The gap at the divergence when the reference's layers run in the candidate's order.

    Each layer is run again on what the one before gave; what goes into the layer around the divergence, as the candidate came to
    it, is put into the reference's run.
    """
    scene = stretch.scene
    first = Site(_module(parent, reference[0]), 0, "in", 0)
    values = scene.seen_reference.values.get(first)
    if values is None:
        return None
    into: dict[int, Array] = {}
    for number in candidate:
        entered = np.asarray(values, np.float64)
        into.setdefault(number, entered)
        made = stretch.replay(Call(_module(parent, number), 0), entered)
        if made is None or made.shape != entered.shape:
            return None
        values = made
    inside = [n for n in reference if f"{stretch.at.reference.module}.".startswith(f"{_module(parent, n)}.")]
    if inside and inside[0] in into:
        splice = {Site(_module(parent, inside[0]), 0, "in", 0): into[inside[0]]}
    else:
        splice = {Site(_module(parent, reference[-1]), 0, "out", 0): np.asarray(values)}
    try:
        return gap_at(stretch, scene.reference.run(scene.probe.reference, splice=splice))
    except UsageError:
        return None


def _module(parent: str, number: int) -> str:
    return f"{parent}.{number}" if parent else str(number)


def gap_at(stretch: Stretch, again: Capture) -> float | None:
    """What is left at the divergence when this is the reference's run; None where the two cannot be laid beside each other."""
    try:
        made, found = paired(stretch.at, again, stretch.scene.seen_candidate)
    except Unpaired:
        return None
    return stretch.gap(made, found)
