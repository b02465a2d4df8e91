"""Settle one instance: its sizes, its targets' specs, and the boxes that move between its tensors.

    rule + the specs of its keys ──▶ Settled (targets, moves, checks by slot, no names)

Instances of one rule whose keys have the same specs settle in the same way; only names differ. So this runs once for every kind
of instance, and `instances.py` puts the names in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isomorph.language.axes import pair, tensor_shape
from isomorph.language.tree import Drop, Op
from isomorph.plan.block_moves import move_block
from isomorph.plan.instance_sizes import limit_names, need_sizes, slots_of, solve_instance
from isomorph.plan.kinds import Naming, Part, Settled, TargetOf, Unsettled
from isomorph.plan.match import Slot
from isomorph.plan.plan import Class
from isomorph.plan.stage import Stage, StageRule
from isomorph.plan.whole_blocks import one_type, require_whole
from isomorph.tensors import DType, TensorSpec


def settle(
    stage: Stage,
    rule: StageRule,
    parts: Sequence[Part],
    counted: Mapping[str, int],
    captures: Mapping[str, int],
    words: frozenset[str],
    naming: Naming,
    cast: Op | None,
) -> Settled:
    """Settle one kind of instance. `counted` are the counts of stacked axes and ties, `captures` the numbers of the counting axes.

    Raises Unsettled (or MorphError for a missing config key).
    """
    solution = solve_instance(stage, rule, parts, counted, captures, words, naming)
    sizes = solution.sizes
    limit_names(rule, sizes)
    settled = Settled(sizes)
    pairs = [(each.left, each.right[0]) for each in pair(rule.rule)]
    part_of_left = {term.index: part for part, term in enumerate(rule.left)}
    part_of_right = {term.index: part for part, term in enumerate(rule.right)}
    lost = {
        part_of_right[right.term]
        for lefts, right in pairs
        if right.term in part_of_right and any(isinstance(rule.rule.left[left.term].head, Drop) for left in lefts)
    }
    need_sizes(rule, solution, lost, parts, naming)
    read_dtypes = sorted({spec.dtype for part in parts for spec in part.specs}, key=str)
    for part, term in enumerate(rule.right):
        if part in lost:
            at_least = {axis: sizes.setdefault(axis, 1) for axis in term.slots}
            settled.unmade.extend((part, slot) for slot in slots_of(rule, term, at_least))

    dtypes: dict[tuple[int, Slot], dict[DType, str]] = {}
    classes: dict[tuple[int, Slot], Class] = {}
    for lefts, right in pairs:
        head = rule.rule.right[right.term].head
        if isinstance(head, Drop):
            settled.lossy = True
            continue
        target_part = part_of_right.get(right.term)
        if target_part is not None and target_part in lost:
            continue
        if any(isinstance(rule.rule.left[left.term].head, Drop) for left in lefts):
            continue  # a constant that a dropped block would have met: there is nothing to check
        for left in lefts:
            if left.term in part_of_left and target_part is not None:
                read = part_of_left[left.term]
                source = naming.source(read, parts[read].slots[0])
                names = source, naming.target(target_part, _first_slot(rule, target_part), sizes)
                require_whole(rule, parts[read], left, right, solution.further or (), *names)
        move_block(
            rule, parts, solution, settled, cast, lefts, right, head, part_of_left, target_part, read_dtypes, naming,
            dtypes, classes,
        )  # fmt: skip

    for part, term in enumerate(rule.right):
        if part in lost:
            continue
        shape = tensor_shape(term.term.dims, sizes, solution.further or ())
        for slot in slots_of(rule, term, sizes):
            found = dtypes.get((part, slot), {})
            name = naming.target(part, slot, sizes)
            if len(found) > 1:
                mixture = ", ".join(f"{dtype} (from {origin})" for dtype, origin in found.items())
                raise Unsettled(
                    "cast",
                    f"`{name}` would mix {mixture}",
                    details=(f"its parts have the dtypes {' and '.join(sorted(map(str, found)))}",),
                    hint=one_type(found),
                    tensors=(name,),
                )
            if not found:
                raise Unsettled("size", f"`{name}` has no block that fills it", tensors=(name,))
            klass: Class = "one-way" if rule.is_along else classes[(part, slot)]
            settled.targets.append(TargetOf(part, slot, TensorSpec(next(iter(found)), shape), klass))
    return settled


def _first_slot(rule: StageRule, part: int) -> Slot:
    return (0,) * len(rule.right[part].slots)
