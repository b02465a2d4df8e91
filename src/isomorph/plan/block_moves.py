"""One pair of blocks -> the boxes that move between them, for every choice of stacked tensors."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from isomorph.language.axes import FURTHER, TermBlock, place
from isomorph.language.rules import FlatTerm, FullName
from isomorph.language.tree import Constant, Drop, Op
from isomorph.plan.boxes import simplify
from isomorph.plan.kinds import BoxOf, CheckOf, MixOf, MoveOf, Naming, Part, Settled, SourceOf, Unsettled
from isomorph.plan.match import Slot
from isomorph.plan.plan import Class
from isomorph.plan.sizes import Solution
from isomorph.plan.stage import NamedTerm, StageRule
from isomorph.plan.values import acted_on, around_sum, effective, expected_fill, made_fill, through, worst_of
from isomorph.tensors import DType


def move_block(
    rule: StageRule,
    parts: Sequence[Part],
    solution: Solution,
    settled: Settled,
    cast: Op | None,
    lefts: Sequence[TermBlock],
    right: TermBlock,
    head: FullName | Constant | Drop,
    part_of_left: Mapping[int, int],
    target_part: int | None,
    read_dtypes: Sequence[DType],
    naming: Naming,
    dtypes: dict[tuple[int, Slot], dict[DType, str]],
    classes: dict[tuple[int, Slot], Class],
) -> None:
    sizes = solution.sizes
    operators = rule.rule.operators
    if cast is not None and target_part is not None:  # what is held against a constant is the rule's own business
        operators = (*operators, cast)
    axis_sizes = _axis_sizes(right, solution)
    right_offset, right_strides = _placed(rule.rule.right, right, solution)
    stacked_right = rule.right[target_part].stacked if target_part is not None else ()
    placed = [(left, *_placed(rule.rule.left, left, solution)) for left in lefts]
    stacked_left = {
        axis for left in lefts if left.term in part_of_left for axis in rule.left[part_of_left[left.term]].stacked
    }
    enumerated = [axis for axis in axis_sizes if axis in stacked_right or axis in stacked_left]
    free = sorted(
        (axis for axis in axis_sizes if axis not in enumerated),
        key=lambda axis: (-right_strides[axis], axis_sizes[axis]),
    )
    shape, (target_strides, *source_strides) = simplify(
        tuple(axis_sizes[axis] for axis in free),
        [tuple(strides[axis] for axis in free) for strides in (right_strides, *(strides for _, _, strides in placed))],
    )
    before, summing, after = around_sum(operators)
    for numbers in itertools.product(*(range(axis_sizes[axis]) for axis in enumerated)):
        at = dict(zip(enumerated, numbers, strict=True))
        target_offset = right_offset + sum(right_strides[axis] * n for axis, n in at.items() if axis in right_strides)
        sources: list[SourceOf] = []
        made: list[tuple[DType, Class, str]] = []
        for (left, offset, strides), free_strides in zip(placed, source_strides, strict=True):
            source_offset = offset + sum(strides[axis] * n for axis, n in at.items() if axis in strides)
            if left.term in part_of_left:
                part = part_of_left[left.term]
                slot = _reading_slot(parts[part], rule.left[part], at)
                spec = parts[part].specs[slot]
                sources.append(BoxOf(part, slot, source_offset, shape, free_strides))
                made.append((spec.dtype, "exact", f"`{naming.source(part, parts[part].slots[slot])}`"))
                settled.reaches.add(part)
            else:
                constant = rule.rule.left[left.term].head
                assert isinstance(constant, Constant)
                fill = made_fill(constant, read_dtypes, shape, free_strides, source_offset)
                sources.append(fill)
                made.append((fill.dtype, "exact", f"constant {constant.text}"))
        target_name = "" if target_part is None else _first_name(rule, naming, target_part, at, sizes)
        results = [through(before, dtype, klass, target_name) for dtype, klass, _ in made]
        if len({dtype for dtype, _ in results}) > 1:
            mixture = " and ".join(
                f"{dtype} ({origin})" for (dtype, _), (_, _, origin) in zip(results, made, strict=True)
            )
            raise Unsettled(
                "cast",
                f"`{target_name}` would add {mixture}",
                hint="Cast first:  | float -> f32, sum",
                tensors=(target_name,),
            )
        if summing:
            through((Op("sum"),), results[0][0], "exact", target_name)  # refuses what cannot be added
        dtype, klass = through(after, results[0][0], worst_of(k for _, k in results), target_name)
        if summing:
            klass = "one-way"
            source: SourceOf = (
                MixOf(tuple(acted_on(source, before) for source in sources), ())
                if len(sources) > 1
                else acted_on(sources[0], before)
            )
            moved = after
        else:
            source, moved = sources[0], operators
        moved = effective(moved, results[0][0] if summing else made[0][0])
        if target_part is None:
            assert isinstance(head, Constant)
            expected = expected_fill(head, dtype, shape, target_strides, target_offset, naming)
            settled.checks.append(CheckOf("constant", source, expected, moved))
            continue
        term = rule.right[target_part]
        stacked = tuple(at[axis] for axis in term.stacked)
        for copy in itertools.product(*(range(sizes[axis]) for axis in term.ties)):
            key = (target_part, (*stacked, *copy))
            dtypes.setdefault(key, {}).setdefault(dtype, made[0][2])
            classes[key] = worst_of((classes.get(key, "exact"), klass))
            settled.moves.append(
                MoveOf(
                    BoxOf(target_part, _number(key[1], term, sizes), target_offset, shape, target_strides),
                    source,
                    moved,
                )
            )


def _number(slot: Slot, term: NamedTerm, sizes: Mapping[str, int]) -> int:
    number = 0
    for axis, value in zip(term.slots, slot, strict=True):
        assert isinstance(value, int)
        number = number * sizes[axis] + value
    return number


def _first_name(rule: StageRule, naming: Naming, part: int, at: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    term = rule.right[part]
    return naming.target(part, tuple(at.get(axis, 0) for axis in term.slots), sizes)


def _reading_slot(part: Part, term: NamedTerm, at: Mapping[str, int]) -> int:
    """The slot of a term that is read: its stacked axes at these values, the first copy of its ties."""
    return part.first[tuple(at[axis] for axis in term.stacked)] if term.slots else 0


def _axis_sizes(block: TermBlock, solution: Solution) -> dict[str, int]:
    """The axes of a block with their sizes; `...` stands as `...0`, `...1` and so on."""
    found: dict[str, int] = {}
    for factor in block.block.factors:
        if factor.key == FURTHER:
            found.update({f"{FURTHER}{number}": size for number, size in enumerate(solution.further or ())})
        else:
            found[factor.key] = int(factor.key) if factor.key.isdigit() else solution.sizes[factor.key]
    return found


def _placed(side: Sequence[FlatTerm], block: TermBlock, solution: Solution) -> tuple[int, dict[str, int]]:
    """(offset, stride of every axis that lies in the tensor), with `...` written out."""
    placement = place(side[block.term].dims, block.block, solution.sizes, solution.further or ())
    strides = dict(placement.strides)
    strides.update({f"{FURTHER}{number}": stride for number, stride in enumerate(placement.further)})
    return placement.offset, strides
