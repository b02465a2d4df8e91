"""Settle one instance: its sizes, its targets' specs, and the boxes that move between its tensors.

    rule + the specs of its keys ──▶ Settled (targets, moves, checks by slot, no names)

Instances of one rule whose keys have the same specs settle in the same way; only names differ. So this runs once for every kind
of instance, and `instances.py` puts the names in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from isomorph.errors import Gap, MorphError
from isomorph.language.axes import FURTHER, TermBlock, pair, place, tensor_shape
from isomorph.language.names import Value
from isomorph.language.rules import FlatTerm, FullName, shown
from isomorph.language.tree import Constant, Drop, Ellipsis, Expression, Op
from isomorph.operators.registry import build
from isomorph.plan.boxes import simplify
from isomorph.plan.constants import constant_dtype_problem, fill_value
from isomorph.plan.gaps import rule_gap
from isomorph.plan.match import Slot
from isomorph.plan.moves import Fill
from isomorph.plan.plan import CLASSES, Class
from isomorph.plan.sizes import Contradiction, Equation, Solution, dims_text, equations, solve
from isomorph.plan.stage import NamedTerm, Stage, StageRule, axes_of, variables, where_value
from isomorph.tensors import DType, TensorSpec


@dataclass(slots=True)
class Part:
    """The keys of one named term in an instance: slot -> spec, slots in order; `first` finds the first copy of a stacked slot."""

    slots: tuple[Slot, ...]
    specs: tuple[TensorSpec, ...]
    first: dict[Slot, int]


@dataclass(slots=True)
class BoxOf:
    """A box of a slot: `part` numbers the named term, `slot` its slot."""

    part: int
    slot: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(slots=True)
class MixOf:
    sources: tuple[SourceOf, ...]
    operators: tuple[Op, ...]


SourceOf = BoxOf | Fill | MixOf


@dataclass(slots=True)
class MoveOf:
    target: BoxOf
    source: SourceOf
    operators: tuple[Op, ...]


@dataclass(slots=True)
class CheckOf:
    kind: str
    source: SourceOf
    expected: BoxOf | Fill
    operators: tuple[Op, ...] = ()


@dataclass(slots=True)
class TargetOf:
    part: int
    slot: Slot
    spec: TensorSpec
    klass: Class


@dataclass(slots=True)
class Settled:
    """What one kind of instance does. `reaches[part]`: some element of that left term reaches a target or a constant."""

    sizes: Mapping[str, int]
    targets: list[TargetOf] = field(default_factory=list)
    moves: list[MoveOf] = field(default_factory=list)
    checks: list[CheckOf] = field(default_factory=list)
    reaches: set[int] = field(default_factory=set)
    unmade: list[tuple[int, Slot]] = field(default_factory=list)
    lossy: bool = False


class Unsettled(Exception):
    """What stands in the way, in words that name the tensors; `axis` is where the caret goes."""

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        find: str | None = None,
        details: Sequence[str] = (),
        hint: str | None = None,
        tensors: Sequence[str] = (),
    ) -> None:
        self.kind, self.message, self.find = kind, message, find
        self.details, self.hint, self.tensors = tuple(details), hint, tuple(tensors)
        super().__init__(message)

    def gap(self, rule: StageRule) -> Gap:
        return rule_gap(
            rule.rule,
            self.kind,
            self.message,
            find=self.find,
            details=self.details,
            hint=self.hint,
            tensors=self.tensors,
        )


class Naming:
    """Names for messages: which tensor a slot is. The first instance of a kind lends its names."""

    def __init__(
        self, left: Sequence[Mapping[Slot, str]], right: Sequence[NamedTerm], values: Mapping[str, Value]
    ) -> None:
        self.left, self.right, self.values = left, right, values

    def source(self, part: int, slot: Slot) -> str:
        return self.left[part][slot]

    def target(self, part: int, slot: Slot, sizes: Mapping[str, int]) -> str:
        term = self.right[part]
        return term.pattern.write({**self.values, **dict(zip(term.slots, slot, strict=True))}, sizes)


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
    solution = _solve(stage, rule, parts, counted, captures, words, naming)
    sizes = solution.sizes
    settled = Settled(sizes)
    operators = rule.rule.operators if cast is None else (*rule.rule.operators, cast)
    pairs = [(each.left, each.right[0]) for each in pair(rule.rule)]
    part_of_left = {term.index: part for part, term in enumerate(rule.left)}
    part_of_right = {term.index: part for part, term in enumerate(rule.right)}
    lost = {
        part_of_right[right.term]
        for lefts, right in pairs
        if right.term in part_of_right and any(isinstance(rule.rule.left[left.term].head, Drop) for left in lefts)
    }
    _need_sizes(rule, solution, lost, parts, naming)
    read_dtypes = sorted({spec.dtype for part in parts for spec in part.specs}, key=str)
    for part, term in enumerate(rule.right):
        if part in lost:
            settled.unmade.extend((part, slot) for slot in _slots(rule, term, sizes))

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
        _move_block(
            rule, parts, solution, settled, operators, lefts, right, head, part_of_left, target_part, read_dtypes, naming,
            dtypes, classes,
        )  # fmt: skip

    for part, term in enumerate(rule.right):
        if part in lost:
            continue
        shape = tensor_shape(term.term.dims, sizes, solution.further or ())
        for slot in _slots(rule, term, sizes):
            found = dtypes.get((part, slot), {})
            name = naming.target(part, slot, sizes)
            if len(found) > 1:
                mixture = ", ".join(f"{dtype} (from {origin})" for dtype, origin in found.items())
                raise Unsettled(
                    "cast",
                    f"`{name}` would mix {mixture}",
                    details=(f"its parts have the dtypes {' and '.join(sorted(map(str, found)))}",),
                    hint="A tensor has one dtype. Add a cast:  | float -> f32",
                    tensors=(name,),
                )
            if not found:
                raise Unsettled("size", f"`{name}` has no block that fills it", tensors=(name,))
            klass: Class = "one-way" if rule.is_along else classes[(part, slot)]
            settled.targets.append(TargetOf(part, slot, TensorSpec(next(iter(found)), shape), klass))
    return settled


# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _solve(
    stage: Stage,
    rule: StageRule,
    parts: Sequence[Part],
    counted: Mapping[str, int],
    captures: Mapping[str, int],
    words: frozenset[str],
    naming: Naming,
) -> Solution:
    sizes = dict(rule.known)
    solution = Solution(sizes)
    dynamic = dict(rule.dynamic)
    _bind(stage, rule, dynamic, sizes, captures, words)
    for axis, count in counted.items():
        if sizes.setdefault(axis, count) != count:
            raise Unsettled(
                "size",
                f"{shown(axis)} is {sizes[axis]}, but the names count {count}",
                find=shown(axis),
            )
    try:
        waiting = _equations(rule, parts, naming, solution)
        while True:
            waiting = solve(waiting, solution)
            before = len(dynamic)
            _bind(stage, rule, dynamic, sizes, captures, words)
            if len(dynamic) == before:
                break
            waiting += _equations(rule, parts, naming, solution)  # what was just bound is held against every tensor
    except Contradiction as error:
        names = tuple(name for held in naming.left for name in held.values())
        find = shown(error.axis) if error.axis else None
        raise Unsettled("size", error.message, find=find, tensors=names) from None
    return solution


def _equations(rule: StageRule, parts: Sequence[Part], naming: Naming, solution: Solution) -> list[Equation]:
    return [
        equation
        for part, term, held in zip(parts, rule.left, naming.left, strict=True)
        for slot, spec in zip(part.slots, part.specs, strict=True)
        for equation in equations(term.term, held[slot], spec.shape, solution)
    ]


def _bind(
    stage: Stage,
    rule: StageRule,
    dynamic: dict[str, tuple[Expression, ...]],
    sizes: dict[str, int],
    captures: Mapping[str, int],
    words: frozenset[str],
) -> None:
    """Evaluate the `where` expressions whose variables are known by now; a value that contradicts a solved size is an error."""
    progress = True
    while progress:
        progress = False
        for axis, expressions in list(dynamic.items()):
            needed = {name for expression in expressions for name in variables(expression)}
            word = next((name for name in needed if name in words), None)
            if word is not None:
                raise Unsettled(
                    "size",
                    f"the size of {shown(axis)} is computed from {shown(word)}, which is a word here, not a number",
                    find=shown(axis),
                )
            if not needed <= {*sizes, *captures}:
                continue
            value = where_value(rule.rule, axis, expressions, {**sizes, **captures}, stage.config)
            del dynamic[axis]
            progress = True
            if sizes.setdefault(axis, value) != value:
                raise Unsettled(
                    "size", f"{shown(axis)} is {value} (where), but the tensors give {sizes[axis]}", find=shown(axis)
                )


def _need_sizes(rule: StageRule, solution: Solution, lost: set[int], parts: Sequence[Part], naming: Naming) -> None:
    """Every axis of every tensor to be made, and of every tensor that is read in parts, has a size; so has `...`."""
    sizes = solution.sizes
    made = [term for part, term in enumerate(rule.right) if part not in lost]
    if rule.right and not made:
        return
    needed: dict[str, None] = {}
    for term in (*rule.rule.left, *(term for term in rule.rule.right)):
        if isinstance(term.head, FullName) and any(rule.right[part].term is term for part in lost):
            continue
        if isinstance(term.head, Drop) and term in rule.rule.left:
            continue
        for dim in term.dims:
            needed.update(dict.fromkeys(axes_of(dim)))
    for named in made:
        needed.update(dict.fromkeys(named.slots))
    unknown = [axis for axis in needed if axis not in sizes]
    if unknown:
        names = [shown(axis) for axis in unknown]
        several = len(names) > 1
        shapes = [
            f"`{name}` is [{' '.join(map(str, spec.shape))}], written {dims_text(term.term.dims)}"
            for part, term, held in zip(parts, rule.left, naming.left, strict=True)
            for (slot, spec), name in [
                ((slot, spec), held[slot]) for slot, spec in list(zip(part.slots, part.specs, strict=True))[:1]
            ]
        ]
        axes = f"{', '.join(names[:-1])} and {names[-1]}" if several else names[0]
        example = names[0]
        raise Unsettled(
            "size",
            f"{'axes' if several else 'axis'} {axes} {'have' if several else 'has'} no size",
            find=example,
            details=shapes[:3],
            hint=f"Give {'all but what follows from a shape' if several else 'it'}: --set {example}=N, "
            f"or  where {example}=N  (or  where {example}=config.…)",
            tensors=tuple(name for held in naming.left for name in held.values())[:3],
        )
    for named in made:
        for axis in named.slots:
            if sizes[axis] == 0:
                raise Unsettled(
                    "size", f"{shown(axis)} is 0, but it is written into names: there would be none", find=shown(axis)
                )
    if solution.further is None and any(isinstance(dim, Ellipsis) for named in made for dim in named.term.dims):
        raise Unsettled(
            "size",
            "`...` stands for unknown axes: no tensor that is read has it",
            find=None,
            hint="Write the axes out in [ ] and give their sizes with where",
        )


def _slots(rule: StageRule, term: NamedTerm, sizes: Mapping[str, int]) -> Iterator[Slot]:
    """All slots of a term that is written, stacked axes outermost."""
    return itertools.product(*(range(sizes[axis]) for axis in term.slots))


# ── boxes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _move_block(
    rule: StageRule,
    parts: Sequence[Part],
    solution: Solution,
    settled: Settled,
    operators: tuple[Op, ...],
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
    before, summing, after = _around_sum(operators)
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
                fill = _fill(constant, read_dtypes, shape, free_strides, source_offset)
                sources.append(fill)
                made.append((fill.dtype, "exact", f"constant {constant.text}"))
        target_name = "" if target_part is None else _first_name(rule, naming, target_part, at, sizes)
        results = [_through(before, dtype, klass, target_name) for dtype, klass, _ in made]
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
        dtype, klass = _through(after, results[0][0], _worst(k for _, k in results), target_name)
        if summing:
            klass = "one-way"
            source: SourceOf = (
                MixOf(tuple(_with(source, before) for source in sources), ())
                if len(sources) > 1
                else _with(sources[0], before)
            )
            moved = after
        else:
            source, moved = sources[0], operators
        moved = _effective(moved, results[0][0] if summing else made[0][0])
        if target_part is None:
            assert isinstance(head, Constant)
            expected = _expected(head, dtype, shape, target_strides, target_offset, naming)
            settled.checks.append(CheckOf("constant", source, expected, moved))
            continue
        term = rule.right[target_part]
        stacked = tuple(at[axis] for axis in term.stacked)
        for copy in itertools.product(*(range(sizes[axis]) for axis in term.ties)):
            key = (target_part, (*stacked, *copy))
            dtypes.setdefault(key, {}).setdefault(dtype, made[0][2])
            classes[key] = _worst((classes.get(key, "exact"), klass))
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


# ── operators and constants ──────────────────────────────────────────────────────────────────────────────────────────


def _around_sum(operators: tuple[Op, ...]) -> tuple[tuple[Op, ...], bool, tuple[Op, ...]]:
    for number, op in enumerate(operators):
        if op.name == "sum":
            return operators[:number], True, operators[number + 1 :]
    return (), False, operators


def _with(source: SourceOf, operators: tuple[Op, ...]) -> SourceOf:
    return MixOf((source,), operators) if operators else source


def _worst(classes: Iterator[Class] | tuple[Class, ...]) -> Class:
    return max(classes, key=CLASSES.index)


def _through(operators: Sequence[Op], dtype: DType, klass: Class, target: str) -> tuple[DType, Class]:
    """The dtype and the class after the operators. Raises Unsettled with the target's name."""
    for op in operators:
        try:
            operator = build(op)
            klass = _worst((klass, operator.klass(dtype)))
            dtype = operator.result(dtype)
        except MorphError as error:
            gap = error.gaps[0]
            raise Unsettled(
                gap.kind, f"`{target}`: {gap.message}", details=gap.details, hint=gap.hint, tensors=(target,)
            ) from None
    return dtype, klass


def _effective(operators: tuple[Op, ...], dtype: DType) -> tuple[Op, ...]:
    """The operators without those that leave this dtype alone (`float -> f32` on i64, or on f32)."""
    kept = []
    for op in operators:
        operator = build(op)
        if not operator.is_identity(dtype):
            kept.append(op)
        dtype = operator.result(dtype)
    return tuple(kept)


def _fill(
    constant: Constant, read_dtypes: Sequence[DType], shape: tuple[int, ...], strides: tuple[int, ...], start: int
) -> Fill:
    from isomorph.tensors import dtype as dtype_of

    if constant.dtype is not None:
        dtype = dtype_of(constant.dtype)
    elif len(read_dtypes) == 1:
        dtype = read_dtypes[0]
    else:
        found = " and ".join(map(str, read_dtypes)) if read_dtypes else "no tensor"
        raise Unsettled(
            "constant",
            f"the dtype of {constant.text} is not known: its instance reads {found}",
            find=constant.text,
            hint=f"Write it with its dtype: {constant.text}:f32",
        )
    problem = constant_dtype_problem(constant, dtype)
    if problem is not None:
        raise Unsettled("constant", problem, find=constant.text)
    if constant.is_arange:
        return Fill(Fraction(start), dtype, shape, strides)
    return Fill(fill_value(constant, dtype), dtype, shape)


def _expected(
    constant: Constant, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], start: int, naming: Naming
) -> Fill:
    names = tuple(name for held in naming.left for name in held.values())
    if constant.dtype is not None and constant.dtype != dtype.name:
        raise Unsettled(
            "constant",
            f"{constant.text}:{constant.dtype} must equal a block of {', '.join(f'`{name}`' for name in names)}, which is {dtype}",
            find=constant.text,
            tensors=names,
        )
    problem = constant_dtype_problem(constant, dtype)
    if problem is not None:
        raise Unsettled("constant", problem, find=constant.text, tensors=names)
    if constant.is_arange:
        return Fill(Fraction(start), dtype, shape, strides)
    return Fill(fill_value(constant, dtype), dtype, shape)
