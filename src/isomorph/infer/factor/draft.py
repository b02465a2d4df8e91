"""What was read off the blocks, on its way to become a relation: terms in order, axes that stay together joined."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from isomorph.infer.factor.blocks import Block, Names, NoLayout
from isomorph.infer.factor.parse import AxisOf, Chain, Same, Stack
from isomorph.plan.moves import Fill

Place = tuple[int, ...]
"""Which pattern is taken of each dim of a stack; -1: a gap."""


@dataclass(eq=False)
class Node:
    """A Chain whose axes are the ones that stand for all that are the same."""

    axes: list[AxisOf]
    inner: list[Node]
    key: int | None


@dataclass(eq=False)
class Term:
    """A stack of tensors on its way to become a Part."""

    names: Names
    along: list[AxisOf]
    dims: list[list[Node]]
    taken: dict[Place, int]
    number_key: int | None


@dataclass
class Draft:
    """Both sides, with the size of every axis. Axes are outermost first."""

    left: list[Term]
    right: list[Term]
    sizes: dict[AxisOf, int]
    constants: list[tuple[int, list[AxisOf]]] = field(default_factory=list)
    """(block, axes)."""
    dropped: list[tuple[Term, Place, list[AxisOf]]] = field(default_factory=list)
    """(a term of the left, where in it, axes)."""


def drafted(blocks: list[Block], left: list[Stack], right: list[Stack], same: Same) -> Draft:
    sizes = {
        same.find((number, axis)): size for number, block in enumerate(blocks) for axis, size in enumerate(block.shape)
    }
    gaps = itertools.count()

    def node(chain: Chain) -> Node:
        axes = [same.find(axis) for axis in chain.axes]
        if chain.gap > 1:
            gap = (-1, next(gaps))
            sizes[gap] = chain.gap
            axes.append(gap)
        return Node(axes, [node(each) for each in chain.inner], chain.key)

    def term(stack: Stack) -> Term:
        (first,) = stack.dims[0]
        dims = [[node(chain) for chain in chains] for chains in stack.dims[1:]]
        return Term(stack.names, [same.find(axis) for axis in first.axes], dims, dict(stack.taken), first.key)

    draft = Draft([term(stack) for stack in left], [term(stack) for stack in right], sizes)
    for each in draft.left:
        for place, axes in cells(each):
            if place not in each.taken:
                draft.dropped.append((each, place, axes))
    for each in draft.right:
        for place, axes in cells(each):
            number = each.taken.get(place)
            if number is None:
                raise NoLayout
            if isinstance(blocks[number].source, Fill):
                draft.constants.append((number, axes))
    return draft


def cells(term: Term) -> Iterator[tuple[Place, list[AxisOf]]]:
    """Every choice of a summand in each dim: its place among the patterns (-1: a gap), and its axes."""
    assert term.number_key is not None
    for choice in itertools.product(*(list(_leaves(nodes, [])) for nodes in term.dims)):
        place = (term.number_key, *(-1 if key is None else key for key, _ in choice))
        yield place, [*term.along, *(axis for _, axes in choice for axis in axes)]


def _leaves(nodes: Sequence[Node], above: list[AxisOf]) -> Iterator[tuple[int | None, list[AxisOf]]]:
    for node in nodes:
        if node.inner:
            yield from _leaves(node.inner, above + node.axes)
        else:
            yield node.key, above + node.axes


def order(draft: Draft) -> None:
    """Terms of either side in the order in which the other side reads them."""
    for side, other in ((draft.right, draft.left), (draft.left, draft.right)):
        if len(other) == 1 or side is draft.left:
            rank: dict[int, int] = {}
            for term in other:
                for place, _ in cells(term):
                    if place in term.taken:
                        rank.setdefault(term.taken[place], len(rank))
            last = len(rank)
            side.sort(key=lambda term: min((rank.get(number, last) for number in term.taken.values()), default=last))


def join(draft: Draft) -> None:
    """Neighbours that follow each other wherever one of them stands become one axis. Changes the draft."""
    chains: list[list[AxisOf]] = []

    def collect(nodes: Sequence[Node]) -> None:
        for node in nodes:
            chains.append(node.axes)
            collect(node.inner)

    for term in (*draft.left, *draft.right):
        chains.append(term.along)
        for nodes in term.dims:
            collect(nodes)
    after: dict[AxisOf, set[AxisOf | None]] = {}
    before: dict[AxisOf, set[AxisOf | None]] = {}
    for chain in chains:
        for first, second in itertools.pairwise((None, *chain, None)):
            if first is not None:
                after.setdefault(first, set()).add(second)
            if second is not None:
                before.setdefault(second, set()).add(first)
    follows = {
        axis: second
        for axis, seconds in after.items()
        if len(seconds) == 1 and (second := next(iter(seconds))) is not None and before[second] == {axis}
    }
    gone = set(follows.values())
    for axis in [axis for axis in follows if axis not in gone]:
        each = axis
        while each in follows:
            each = follows[each]
            draft.sizes[axis] *= draft.sizes[each]
    for chain in (*chains, *(axes for *_, axes in draft.dropped), *(axes for _, axes in draft.constants)):
        chain[:] = [axis for axis in chain if axis not in gone]


def alike(draft: Draft) -> Iterator[list[list[AxisOf]]]:
    """Summands of one sum that have the same sizes: they may be called alike."""

    def sums(nodes: list[Node]) -> Iterator[list[Node]]:
        yield nodes
        for node in nodes:
            yield from sums(node.inner)

    for term in (*draft.right, *draft.left):
        for dim in term.dims:
            for nodes in sums(dim):
                groups: dict[tuple[int, ...], list[list[AxisOf]]] = {}
                for node in nodes:
                    if node.key is not None and node.axes:
                        groups.setdefault(tuple(draft.sizes[axis] for axis in node.axes), []).append(node.axes)
                yield from (group for group in groups.values() if len(group) > 1)


def name_units(draft: Draft) -> None:
    """Give a summand `1` an axis of size 1 of its own, where blocks would else have the same axes and pair wrongly."""
    sets: dict[frozenset[AxisOf], set[object]] = {}
    for term in draft.left:
        for place, axes in cells(term):
            sets.setdefault(frozenset(axes), set()).add(term.taken.get(place, (id(term), place)))
    for number, axes in draft.constants:
        sets.setdefault(frozenset(axes), set()).add(number)
    alike_ = {block for blocks in sets.values() if len(blocks) > 1 for block in blocks}
    for number in sorted(block for block in alike_ if isinstance(block, int)):
        unit = (-2, number)
        draft.sizes[unit] = 1
        for term in (*draft.left, *draft.right):
            if number in term.taken.values():
                _own_leaf(term, number).axes.append(unit)
        for block, axes in draft.constants:
            if block == number:
                axes.append(unit)


def _own_leaf(term: Term, number: int) -> Node:
    """A leaf of the term that only this block has. Raises NoLayout."""
    (place,) = (place for place, block in term.taken.items() if block == number)
    for dim, nodes in enumerate(term.dims):
        if sum(each[1 + dim] == place[1 + dim] for each in term.taken) == 1:
            pending = list(nodes)
            while pending:
                node = pending.pop()
                pending.extend(node.inner)
                if not node.inner and node.key == place[1 + dim]:
                    return node
    raise NoLayout
