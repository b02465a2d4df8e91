"""What one instance makes: the dtypes, and for every block of a right term the boxes and constants that fill it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from math import prod

from isomorph.language.rules import FlatTerm, Rule
from isomorph.language.tree import Constant as ConstantHead
from isomorph.language.tree import Dim, Op
from isomorph.operators import reference
from isomorph.tensors import DType, TensorSpec, dtype
from isomorph.verify.along import Carried, acting, applied, carry, sizes_of
from isomorph.verify.instances import Instance
from isomorph.verify.operators import result
from isomorph.verify.pairing import Block, Partners, pair
from isomorph.verify.regions import Constant, Leaf, Made, Node, Region, part
from isomorph.verify.shapes import Choices, blocks_of, further, locate, size_of, spread
from isomorph.verify.sizes import missing
from isomorph.verify.values import BadConstant, constant_bits

MOST_KEPT = 64
"""Blocks under operators along axes that are kept at hand."""


class Maker:
    """`source` are the specs that are read (None: an earlier stage could not make it), `last` an operator after all others."""

    def __init__(self, level: int, source: Mapping[str, TensorSpec | None], last: Op | None) -> None:
        self.level = level
        self.source = source
        self.last = last
        self._partners: dict[int, Partners] = {}
        self._blocks: dict[int, dict[Choices, tuple[str, ...]]] = {}
        self._carried: dict[tuple[int, Block], Carried] = {}

    def partners_of(self, rule: Rule) -> Partners:
        if id(rule) not in self._partners:
            self._partners[id(rule)] = pair(rule)
        return self._partners[id(rule)]

    def operators(self, instance: Instance, source: Block, *, last: bool) -> tuple[Op, ...]:
        """The operators that act on a block that is read."""
        rule = instance.rule
        operators = (*rule.operators, self.last) if last and self.last is not None else rule.operators
        if not any(op.reads for op in operators):
            return operators
        return acting(operators, self.axes(instance, rule.left[source[0]], source[1]))

    def after(self, instance: Instance, source: Block, kind: DType, *, last: bool) -> DType:
        for op in self.operators(instance, source, last=last):
            if op.takes:
                sizes_of(op, instance.sizes)
            kind = result(op, kind)
        return kind

    def kinds(self, instance: Instance, place: int) -> list[DType]:
        """The dtypes of the tensors of a left term; of a constant, its own."""
        head = instance.rule.left[place].head
        if isinstance(head, ConstantHead):
            kind = self.constant_kind(instance, head)
            dims = instance.rule.left[place].dims
            if not head.is_arange:
                constant_bits(head.value, kind)
            elif not missing(dims, instance.sizes, instance.rank):
                count = prod(size_of(dim, instance.sizes) for dim in dims)
                constant_bits(Fraction(max(0, count - 1)), kind)
            return [kind]
        return list(
            {
                spec.dtype: None
                for names in instance.keys[place].values()
                for name in names
                if (spec := self.source[name])
            }
        )

    def constant_kind(self, instance: Instance, head: ConstantHead) -> DType:
        if head.dtype is not None:
            return dtype(head.dtype)
        kinds = {spec.dtype for name in instance.names() if (spec := self.source[name])}
        if len(kinds) != 1:
            text = " and ".join(sorted(map(str, kinds))) or "no tensor"
            raise BadConstant(f"the constant {head.text} has no dtype of its own, and its rule reads {text}")
        return next(iter(kinds))

    def pieces_of(
        self, instance: Instance, place: int, at: Mapping[str, int], name: str, kind: DType
    ) -> Iterator[Region]:
        rule = instance.rule
        term = rule.right[place]
        for target, sources in self.partners_of(rule).of.items():
            if target[0] != place:
                continue
            axes = self.axes(instance, term, target[1])
            fixed_axes = self.fixed_axes(instance, sources, at)
            box = [axis for axis in axes if axis not in at and axis not in fixed_axes and instance.sizes[axis] != 1]
            for values in product(*(range(instance.sizes[axis]) for axis in fixed_axes)):
                fixed = {**at, **dict(zip(fixed_axes, values, strict=True))}
                left = Leaf(self.level, name, *self.walk(instance, term, target[1], box, fixed), kind)
                shape = tuple(instance.sizes[axis] for axis in box)
                copied = self.copied(instance, sources, box, fixed)
                if copied is not None:
                    place_of_axis, count, right = copied
                    whole = Region(shape, left, right)
                    yield part(whole, place_of_axis, 0, count)
                    if count < shape[place_of_axis]:
                        right = self.made(instance, sources, box, fixed, last=True)
                        yield part(Region(shape, left, right), place_of_axis, count, shape[place_of_axis])
                    continue
                yield Region(shape, left, self.made(instance, sources, box, fixed, last=True))

    def fixed_axes(self, instance: Instance, sources: Sequence[Block], at: Mapping[str, int]) -> dict[str, None]:
        """The axes that choose among tensors that are read; an operator along axes takes all of these tensors at once."""
        return {
            axis: None
            for source in sources
            for axis in instance.stacked(instance.rule.left[source[0]])
            if axis not in at and not any(op.reads for op in self.operators(instance, source, last=False))
        }

    def copied(
        self, instance: Instance, sources: Sequence[Block], box: Sequence[str], fixed: Mapping[str, int]
    ) -> tuple[int, int, Node] | None:
        """(place of an axis in the box, how many of its leading indices are copied, what they are), where some are."""
        if len(sources) != 1:
            return None
        operators = self.operators(instance, sources[0], last=True)
        along = [op for op in operators if op.takes]
        stacked = instance.stacked(instance.rule.left[sources[0][0]])
        if len(along) != 1 or "1" in along[0].gives or along[0].gives[0] not in box or {*along[0].reads} & {*stacked}:
            return None
        before, after = sizes_of(along[0], instance.sizes)
        count = reference.copied(along[0], before, after)
        if not count:
            return None
        came = dict(zip(along[0].gives, along[0].reads, strict=True))
        read = [came.get(axis, axis) for axis in box]
        axes = {*stacked} - {*box, *fixed}
        assert not axes, axes
        end = self.end(instance, sources[0], read, fixed)
        return box.index(along[0].gives[0]), count, applied(end, [op for op in operators if not op.takes])

    def axes(self, instance: Instance, term: FlatTerm, choices: Choices) -> tuple[str, ...]:
        """The axes of a block, further axes spread out."""
        blocks = self._blocks.get(id(term))
        if blocks is None:
            blocks = self._blocks[id(term)] = dict(blocks_of(term.dims))
        found = blocks[choices]
        named = (*instance.stacked(term), *found)
        at = next((place for place, axis in enumerate(named) if axis == "..."), None)
        for axis in named:
            if axis.startswith("#"):
                instance.sizes.setdefault(axis, int(axis[1:]))
        return named if at is None else (*named[:at], *further(instance.rank or 0), *named[at + 1 :])

    def walk(
        self, instance: Instance, term: FlatTerm, choices: Choices, box: Sequence[str], fixed: Mapping[str, int]
    ) -> tuple[int, tuple[int, ...]]:
        """(offset, strides) of a block in its tensor: read off from single elements, and confirmed at the far corner."""
        dims: tuple[Dim, ...] = spread(term.dims, instance.rank or 0)
        sizes = instance.sizes
        offset = locate(dims, sizes, choices, fixed)
        strides = tuple(locate(dims, sizes, choices, {**fixed, axis: 1}) - offset for axis in box)
        corner = {axis: max(0, sizes[axis] - 1) for axis in box}
        expected = offset + sum(corner[axis] * stride for axis, stride in zip(box, strides, strict=True))
        assert locate(dims, sizes, choices, {**fixed, **corner}) == expected, term
        return offset, strides

    def made(
        self, instance: Instance, sources: Sequence[Block], box: Sequence[str], fixed: Mapping[str, int], *, last: bool
    ) -> Node:
        if any(op.reads for op in instance.rule.operators):
            return self.made_along(instance, sources, box, fixed, last=last)
        parts: tuple[Node, ...] = tuple(self.end(instance, source, box, fixed) for source in sources)
        operators = self.operators(instance, sources[0], last=last)
        if not operators:
            return parts[0]
        kinds = [part.dtype for part in parts]
        cut = next((place for place, op in enumerate(operators) if op.name == "sum"), None)
        if cut is not None:
            before, operators = operators[:cut], operators[cut + 1 :]
            parts = tuple(self.applied((part,), before, kind) for part, kind in zip(parts, kinds, strict=True))
            kinds = [part.dtype for part in parts]
        return self.applied(parts, operators, kinds[0])

    def made_along(
        self, instance: Instance, sources: Sequence[Block], box: Sequence[str], fixed: Mapping[str, int], *, last: bool
    ) -> Node:
        """The same, where operators of the rule act along axes."""
        parts: list[Node] = []
        after: tuple[Op, ...] = ()
        for source in sources:
            operators = self.operators(instance, source, last=last)
            cut = next((place for place, op in enumerate(operators) if op.name == "sum"), None)
            if cut is not None:
                operators, after = operators[:cut], operators[cut + 1 :]
            along = max((place + 1 for place, op in enumerate(operators) if op.takes), default=0)
            end: Node
            if along:
                end = self.carried(instance, source, operators[:along]).box(box, fixed)
            else:
                end = self.end(instance, source, box, fixed)
            parts.append(applied(end, operators[along:]))
        return self.applied(tuple(parts), after, parts[0].dtype)

    def carried(self, instance: Instance, source: Block, operators: tuple[Op, ...]) -> Carried:
        """A block that is read, whole, after operators of which the last is one along axes."""
        key = (id(instance), source)
        if key not in self._carried:
            term = instance.rule.left[source[0]]
            if len(self._carried) >= MOST_KEPT:
                self._carried.clear()
            self._carried[key] = carry(
                self.axes(instance, term, source[1]),
                instance.stacked(term),
                instance.sizes,
                operators,
                self.level,
                lambda axes, values: self.end(instance, source, axes, values),
            )
        return self._carried[key]

    def applied(self, parts: tuple[Node, ...], operators: tuple[Op, ...], kind: DType) -> Node:
        if not operators and len(parts) == 1:
            return parts[0]
        for op in operators:
            kind = result(op, kind)
        return Made(parts, operators, kind)

    def end(self, instance: Instance, source: Block, box: Sequence[str], fixed: Mapping[str, int]) -> Leaf | Constant:
        place, choices = source
        term = instance.rule.left[place]
        if isinstance(term.head, ConstantHead):
            return self.constant(
                instance, term, term.head, choices, box, fixed, self.constant_kind(instance, term.head)
            )
        copies = instance.keys[place][tuple(fixed[axis] for axis in instance.stacked(term))]
        spec = self.source[copies[0]]
        assert spec is not None
        return Leaf(self.level - 1, copies[0], *self.walk(instance, term, choices, box, fixed), spec.dtype)

    def constant(
        self,
        instance: Instance,
        term: FlatTerm,
        head: ConstantHead,
        choices: Choices,
        box: Sequence[str],
        fixed: Mapping[str, int],
        kind: DType,
    ) -> Constant:
        if head.is_arange:
            return Constant(0.0, True, *self.walk(instance, term, choices, box, fixed), kind)
        return Constant(head.value, False, 0, (0,) * len(box), kind)
