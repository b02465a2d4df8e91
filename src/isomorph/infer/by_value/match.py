"""Two checkpoints of the same weights -> relations. The whole of it, in order; every step takes what those before left.

    fingerprints    of both sides, one pass                     (fingerprint.py)
    equal           copies, transposed or not; ties             (equal.py)
    sums            fused, split, stacked, many to many          (parts.py, sums.py)
    overlaps        slices, padding, what shares rows            (overlaps.py)
    changes         w + 1, scaled, negated, exp, log             (changed.py)
    silent          constants: only names can place them         (silent.py)
    outliers        members unlike their siblings                (outliers.py)

Names are used to look in likely places first, never as evidence: whatever is booked was read off the values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.changed import place_changed
from isomorph.infer.by_value.equal import place_equal
from isomorph.infer.by_value.fingerprint import fingerprints
from isomorph.infer.by_value.laying import Laying
from isomorph.infer.by_value.ledger import Ledger, Scene
from isomorph.infer.by_value.outliers import outliers
from isomorph.infer.by_value.overlapping import place_overlaps
from isomorph.infer.by_value.parts import place_sums
from isomorph.infer.by_value.silent import place_arange, place_silent
from isomorph.infer.nouns import Matched, Outlier, Part, Relation, Silent
from isomorph.tensors import Manifest


def match(
    source: Checkpoint,
    target: Checkpoint,
    *,
    max_memory: int = 256 << 20,
    progress: Callable[[int], None] | None = None,
) -> Matched:
    """What the values of both sides say of each other.

    Memory stays within a few `max_memory`, whatever the size of the checkpoints; `progress` is called with the number of bytes
    just read in the first pass. Raises what reading the files raises; that nothing matches is no error.
    """
    scene = _scene(source, target, max_memory, progress)
    ledger = Ledger(scene)
    laying = Laying(ledger)
    silent = place_equal(ledger, laying)
    for one in silent:
        ledger.placed.add(one.target)
        ledger.used.update(one.candidates)
    place_sums(ledger, laying)
    place_overlaps(ledger, laying)
    place_changed(ledger, laying)
    laying.settle()
    place_arange(ledger)
    silent += place_silent(ledger)
    relations = alike_casts(ledger.relations)
    unlike = [_checked(one, source.manifest) for one in outliers(relations, tuple(source.manifest))]
    apart = {id(one.found) for one in unlike}
    made = {name for one in relations for name in one.targets} | {one.target for one in silent}
    used = {name for one in relations for name in one.sources} | {name for one in silent for name in one.candidates}
    unplaced = tuple(name for name in target.manifest if name not in made)
    return Matched(
        relations=tuple(one for one in relations if id(one) not in apart),
        silent=tuple(sorted(silent, key=_by_place(target.manifest))),
        outliers=tuple(unlike),
        unused=tuple(name for name in source.manifest if name not in used),
        unplaced=unplaced,
        approximate=_approximate(source, target, unplaced),
        notes=tuple(dict.fromkeys(ledger.notes)),
    )


def _approximate(source: Checkpoint, target: Checkpoint, unplaced: Sequence[str]) -> dict[str, str]:
    from isomorph.infer.by_value.approximate import nearest  # it needs what no other step does

    return dict(nearest(source, target, unplaced)) if unplaced else {}


def _scene(source: Checkpoint, target: Checkpoint, max_memory: int, progress: Callable[[int], None] | None) -> Scene:
    wanted = {spec.dtype.name: spec.dtype for spec in target.manifest.values()}
    return Scene(
        source,
        target,
        fingerprints(source, casts=wanted.values(), max_memory=max_memory, progress=progress),
        fingerprints(target, max_memory=max_memory, progress=progress),
        max_memory,
    )


def alike_casts(relations: Sequence[Relation]) -> list[Relation]:
    """The same cast in all relations between the same two dtypes: rounding, if it rounds in one of them."""
    rounding: set[tuple[str | None, str | None]] = set()
    saturating: set[tuple[str | None, str | None]] = set()
    for op in (op for relation in relations for op in relation.operators if op.name == "cast"):
        if op.rounding:
            rounding.add((op.source, op.target))
        if op.saturate:
            saturating.add((op.source, op.target))
    return [
        replace(
            relation,
            operators=tuple(
                replace(
                    op,
                    rounding=(op.source, op.target) in rounding,
                    saturate=(op.source, op.target) in saturating,
                )
                if op.name == "cast"
                else op
                for op in relation.operators
            ),
        )
        if relation.operators
        else relation
        for relation in relations
    ]


def _checked(outlier: Outlier, source: Manifest) -> Outlier:
    """Without the expectation, where the tensor that was expected is of another shape."""
    expected = outlier.expected
    if expected is None or all(
        source[name].shape == expected.shape(part)
        for part in expected.left
        if isinstance(part, Part)
        for name in part.every
    ):
        return outlier
    return replace(outlier, expected=None)


def _by_place(manifest: Manifest) -> Callable[[Silent], int]:
    places = {name: number for number, name in enumerate(manifest)}
    return lambda one: places[one.target]
