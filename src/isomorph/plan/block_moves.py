"""One pair of blocks -> the boxes that move between them, for every choice of stacked tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from isomorph.language.axes import FURTHER, TermBlock, place
from isomorph.language.rules import FlatTerm, FullName
from isomorph.language.tree import Constant, Drop, Op
from isomorph.plan.along import Side, View, after_axes
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
    before, summing, after = around_sum(operators)
    right_offset, right_strides = _placed(rule.rule.right, right, solution)
    stacked_right = rule.right[target_part].stacked if target_part is not None else ()
    views = tuple(_view(rule, parts, solution, left, part_of_left, read_dtypes) for left in lefts)
    origins = [_origin(rule, left, part_of_left, naming) for left in lefts]
    settled.reaches.update(part_of_left[left.term] for left in lefts if left.term in part_of_left)
    sides = [
        Side(
            _axis_sizes(right, solution),
            right_offset,
            right_strides,
            views,
            (before if summing else after,) * len(views),
        )
    ]
    if any(op.takes for op in operators):
        every = {axis: size for each in (*lefts, right) for axis, size in _axis_sizes(each, solution).items()}
        first = "" if target_part is None else _first_name(rule, naming, target_part, {}, sizes)
        sides = after_axes(sides[0], stacked_right, {**sizes, **every}, first)
    for side in sides:
        enumerated = [
            axis for axis in side.sizes if axis in stacked_right or any(axis in view.enumerated for view in side.views)
        ]
        free = sorted(
            (axis for axis in side.sizes if axis not in enumerated),
            key=lambda axis: (-side.strides[axis], side.sizes[axis]),
        )
        shape, (target_strides, *source_strides) = simplify(
            tuple(side.sizes[axis] for axis in free),
            [
                tuple(strides[axis] for axis in free)
                for strides in (side.strides, *(view.strides for view in side.views))
            ],
        )
        for numbers in itertools.product(*(range(side.sizes[axis]) for axis in enumerated)):
            at = dict(zip(enumerated, numbers, strict=True))
            target_offset = side.offset + sum(side.strides[axis] * n for axis, n in at.items() if axis in side.strides)
            boxes = [view.box(at, shape, strides) for view, strides in zip(side.views, source_strides, strict=True)]
            target_name = "" if target_part is None else _first_name(rule, naming, target_part, at, sizes)
            if summing:
                source, dtype, klass = _added(boxes, side, origins, target_name)
                moved = after
            else:
                ((source, dtype),) = boxes
                klass, (moved,) = side.views[0].klass, side.operators
            result, klass = through(moved, dtype, klass, target_name)
            moved = effective(moved, dtype)
            if summing:
                klass = "one-way"
            if target_part is None:
                assert isinstance(head, Constant)
                expected = expected_fill(head, result, shape, target_strides, target_offset, naming)
                settled.checks.append(CheckOf("constant", source, expected, moved))
                continue
            term = rule.right[target_part]
            stacked = tuple(at[axis] for axis in term.stacked)
            for copy in itertools.product(*(range(sizes[axis]) for axis in term.ties)):
                key = (target_part, (*stacked, *copy))
                dtypes.setdefault(key, {}).setdefault(result, origins[0](at))
                classes[key] = worst_of((classes.get(key, "exact"), klass))
                settled.moves.append(
                    MoveOf(
                        BoxOf(target_part, _number(key[1], term, sizes), target_offset, shape, target_strides),
                        source,
                        moved,
                    )
                )


Origin = Callable[[Mapping[str, int]], str]


def _added(
    boxes: Sequence[tuple[SourceOf, DType]], side: Side, origins: Sequence[Origin], target: str
) -> tuple[SourceOf, DType, Class]:
    """What `sum` makes of its blocks, each after its own operators. Raises Unsettled where they cannot be added."""
    results = [
        through(operators, dtype, view.klass, target)
        for (_, dtype), view, operators in zip(boxes, side.views, side.operators, strict=True)
    ]
    if len({dtype for dtype, _ in results}) > 1:
        mixture = " and ".join(f"{dtype} ({origin({})})" for (dtype, _), origin in zip(results, origins, strict=True))
        raise Unsettled(
            "cast",
            f"`{target}` would add {mixture}",
            hint="Cast first:  | float -> f32, sum",
            tensors=(target,),
        )
    through((Op("sum"),), results[0][0], "exact", target)  # refuses what cannot be added
    sources = tuple(acted_on(box, operators) for (box, _), operators in zip(boxes, side.operators, strict=True))
    source = MixOf(sources, ()) if len(sources) > 1 else sources[0]
    return source, results[0][0], worst_of(klass for _, klass in results)


def _view(
    rule: StageRule,
    parts: Sequence[Part],
    solution: Solution,
    left: TermBlock,
    part_of_left: Mapping[int, int],
    read_dtypes: Sequence[DType],
) -> View:
    """Where a block that is read lies: in the tensors of a named term, or nowhere, where it is a constant."""
    offset, strides = _placed(rule.rule.left, left, solution)

    def start(at: Mapping[str, int]) -> int:
        return offset + sum(strides[axis] * number for axis, number in at.items() if axis in strides)

    if left.term not in part_of_left:
        constant = rule.rule.left[left.term].head
        assert isinstance(constant, Constant)

        def fill(at: Mapping[str, int], shape: tuple[int, ...], free: tuple[int, ...]) -> tuple[SourceOf, DType]:
            made = made_fill(constant, read_dtypes, shape, free, start(at))
            return made, made.dtype

        return View(strides, (), fill)
    part = part_of_left[left.term]
    term = rule.left[part]

    def box(at: Mapping[str, int], shape: tuple[int, ...], free: tuple[int, ...]) -> tuple[SourceOf, DType]:
        slot = _reading_slot(parts[part], term, at)
        return BoxOf(part, slot, start(at), shape, free), parts[part].specs[slot].dtype

    return View(strides, term.stacked, box)


def _origin(rule: StageRule, left: TermBlock, part_of_left: Mapping[int, int], naming: Naming) -> Origin:
    """What a block is read from, for messages, at these values of the axes that are enumerated."""
    if left.term not in part_of_left:
        constant = rule.rule.left[left.term].head
        assert isinstance(constant, Constant)
        return lambda at: f"constant {constant.text}"
    part = part_of_left[left.term]

    def name(at: Mapping[str, int]) -> str:
        held, term = naming.left[part], rule.left[part]
        wanted = tuple(at.get(axis, 0) for axis in term.stacked)
        found = next((each for slot, each in held.items() if slot[: len(wanted)] == wanted), next(iter(held.values())))
        return f"`{found}`"

    return name


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
