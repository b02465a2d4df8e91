"""One bundle of tensors and another -> the forms that shapes allow: kept, transposed, dims in another order, heads split, stacked.

The side with more axes is the fine one; each dim of the other is a product of some of them. What shapes allow is not yet what is
right: of a square matrix two forms are left, and of a coincidence (as many heads as each is wide) two as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from isomorph.infer.by_name.correspondence import Bundle
from isomorph.infer.nouns import Dim, Dropped, Filled, Part, Product, Relation
from isomorph.tensors import Manifest

Groups = tuple[tuple[int, ...], ...]
"""For each dim of the coarse side, the numbers of the fine axes that it is the product of."""

CONVOLUTIONS = {
    4: ("oiyx", "yxio", "oyxi", "yxoi", "ioyx", "iyxo"),
    5: ("oizyx", "zyxio", "ozyxi", "zyxoi", "iozyx", "izyxo"),
}
"""How convolutions are laid out: torch and Paddle; Flax, TF and Keras; MLX; transposed ones of each. Space keeps its order, and no
library with the channels first has them the other way round."""
MOST_AXES = 8


@dataclass(frozen=True)
class Form:
    """One way to lay out a link. `turn` says what becomes of its dims (`kept`, `transposed`, `dims 2 0 1`, "" for no dims
    to turn), `cut` which axes make which dims, `order` how parts lie in a fused tensor; all in words that siblings share."""

    relation: Relation
    turn: str = ""
    cut: str = ""
    order: str = ""

    @property
    def mirrored(self) -> Form:
        """The form read from the other side."""
        found = self.relation
        return replace(self, relation=replace(found, left=found.right, right=found.left))


@dataclass(frozen=True)
class Stack:
    """A bundle with its shape: its axes are those along its names, then its dims."""

    names: tuple[str, ...]
    extents: tuple[int, ...]
    shape: tuple[int, ...]
    role: str = ""

    @staticmethod
    def of(bundle: Bundle, manifest: Manifest) -> Stack | None:
        """A bundle as a stack; None where its tensors have several shapes."""
        shapes = {manifest[name].shape for name in bundle.names}
        if len(shapes) != 1 or math.prod(bundle.extents) != len(bundle.names):
            return None
        extents = bundle.extents if len(bundle.names) > 1 else ()
        return Stack(bundle.names, extents, shapes.pop(), bundle.role)

    @property
    def numel(self) -> int:
        """The elements of all its tensors."""
        return len(self.names) * math.prod(self.shape)

    @property
    def rank(self) -> int:
        """How many axes longer than 1 it has."""
        return len(self.extents) + sum(size != 1 for size in self.shape)

    def part(self, along: Sequence[str], dims: Iterable[Dim]) -> Part:
        """The part of a relation that it is."""
        return Part(self.names, tuple(dims), tuple(along))


def placements(fine: Sequence[int], coarse: Sequence[int]) -> list[Groups]:
    """Every way to make the coarse sizes of the fine ones, each used once; within a dim axes keep their order.

    >>> placements((48, 4, 12), (48, 48))
    [((0,), (1, 2)), ((1, 2), (0,))]
    """
    if len(fine) > MOST_AXES or math.prod(fine) != math.prod(coarse) or 0 in fine:
        return []
    found: list[Groups] = []
    pending: list[tuple[int, tuple[tuple[int, ...], ...], tuple[int, ...]]] = [(0, ((),) * len(coarse), tuple(coarse))]
    while pending:
        at, groups, left = pending.pop()
        if at == len(fine):
            found.append(groups)
            continue
        for place in reversed(range(len(coarse))):
            if left[place] % fine[at] == 0:
                taken = (*groups[:place], (*groups[place], at), *groups[place + 1 :])
                rest = (*left[:place], left[place] // fine[at], *left[place + 1 :])
                pending.append((at + 1, taken, rest))
    return found


def forms(source: Stack, target: Stack) -> list[Form]:
    """Every form of a link of one bundle on each side whose elements are as many."""
    if source.numel != target.numel:
        return []
    if source.shape == target.shape and (0 in source.shape or source.rank > MOST_AXES):
        return [] if source.extents or target.extents else [Form(_same(source, target), "kept")]
    if (
        not (source.extents or target.extents)
        and len(source.shape) == len(target.shape)
        and len(source.shape) in CONVOLUTIONS
    ):
        return list(_convolutions(source, target))
    if target.rank > source.rank:
        return [form.mirrored for form in forms(target, source)]
    return list(_placed(source, target))


def _same(source: Stack, target: Stack) -> Relation:
    axes = tuple(f"a{number}" for number in range(len(source.shape)))
    dims: tuple[Dim, ...] = tuple(((axis,),) for axis in axes)
    return Relation((source.part((), dims),), (target.part((), dims),), dict(zip(axes, source.shape, strict=True)))


def _convolutions(source: Stack, target: Stack) -> Iterator[Form]:
    orders = {
        tuple(one.index(letter) for letter in other)
        for one in _laid_out(source.shape)
        for other in _laid_out(target.shape)
        if one == other or {one[:2], other[:2]} != {"oi", "io"}
    }
    seen: set[tuple[int, ...]] = set()
    for order in sorted(orders):
        if tuple(source.shape[axis] for axis in order) != target.shape:
            continue
        moved = tuple(axis for axis in order if source.shape[axis] != 1)
        if moved in seen:
            continue
        seen.add(moved)
        dims = fine_dims(source.shape)
        sizes = {f"a{number}": size for number, size in enumerate(source.shape) if size != 1}
        relation = Relation((source.part((), dims),), (target.part((), (dims[axis] for axis in order)),), sizes)
        yield Form(
            relation, "kept" if list(moved) == sorted(moved) else "dims " + " ".join(map(str, order)), _text(moved)
        )


def _laid_out(shape: tuple[int, ...]) -> list[str]:
    """The layouts of a convolution in which its kernel is as long as it is wide; all, where it is not in any."""
    every = CONVOLUTIONS[len(shape)]
    space = [{size for letter, size in zip(layout, shape, strict=True) if letter in "xyz"} for layout in every]
    found = [layout for layout, sizes in zip(every, space, strict=True) if len(sizes - {1}) <= 1]
    return found or list(every)


def _text(axes: Iterable[int]) -> str:
    return " ".join(map(str, axes))


def fine_dims(shape: Sequence[int], letter: str = "a") -> list[Dim]:
    """One axis for each dim longer than 1."""
    return [((),) if size == 1 else ((f"{letter}{number}",),) for number, size in enumerate(shape)]


def _placed(fine: Stack, coarse: Stack) -> Iterator[Form]:
    """The forms where the source is the fine side."""
    along = [f"e{number}" for number in range(len(fine.extents))]
    dims = fine_dims(fine.shape)
    axes = [*along, *(f"a{number}" for number, size in enumerate(fine.shape) if size != 1)]
    sizes = [*fine.extents, *(size for size in fine.shape if size != 1)]
    for groups in placements(sizes, [*coarse.extents, *coarse.shape]):
        for cut in _flattened(groups, len(along), fine.shape):
            outer, inner = cut[: len(coarse.extents)], cut[len(coarse.extents) :]
            if any(len(group) != 1 for group in outer):
                continue
            right = coarse.part(
                [axes[group[0]] for group in outer], [(tuple(axes[axis] for axis in group),) for group in inner]
            )
            relation = Relation((fine.part(along, dims),), (right,), dict(zip(axes, sizes, strict=True)))
            yield Form(relation, turned(inner, len(along)), "|".join(_text(group) for group in cut))


def _flattened(groups: Groups, along: int, shape: Sequence[int]) -> Iterator[Groups]:
    """A convolution that is flattened into a matrix may have its channels before its space or behind: all rotations of a dim of
    three axes."""
    long = [place for place, group in enumerate(groups) if sum(axis >= along for axis in group) >= 3]
    if len(shape) not in CONVOLUTIONS or len(long) != 1:
        yield groups
        return
    place = long[0]
    group = groups[place]
    for at in range(len(group)):
        yield (*groups[:place], (*group[at:], *group[:at]), *groups[place + 1 :])


def turned(groups: Sequence[Sequence[int]], along: int) -> str:
    """What becomes of the dims, in words: the first of the fine axes of each dim, stacked ones aside."""
    firsts = [min(axis for axis in group if axis >= along) for group in groups if any(axis >= along for axis in group)]
    if len(firsts) < 2:
        return ""
    if firsts == sorted(firsts):
        return "kept"
    if len(firsts) == 2:
        return "transposed"
    order = sorted(range(len(firsts)), key=firsts.__getitem__)
    places = sorted(range(len(firsts)), key=order.__getitem__)
    return "dims " + _text(places)


def padded(source: Stack, target: Stack) -> list[Form]:
    """The forms of a link of which one side has more rows than the other: at the end, or at the start, of one dim. Rows that the
    source lacks are zeros."""
    if source.extents or target.extents or len(source.shape) != len(target.shape) or 1 in source.shape:
        return []
    found = []
    rank = len(source.shape)
    for order in [tuple(range(rank)), *([(1, 0)] if rank == 2 else [])]:
        shape = [source.shape[axis] for axis in order]
        differ = [place for place in range(rank) if shape[place] != target.shape[place]]
        if len(differ) != 1:
            continue
        place = differ[0]
        more = shape[place] - target.shape[place]
        for at_end in (True, False):
            found.append(_padded(source, target, order, place, more, at_end))
    return found


def _padded(source: Stack, target: Stack, order: Sequence[int], place: int, more: int, at_end: bool) -> Form:
    axes = [f"a{axis}" for axis in order]
    kept: Product = (axes[place],)
    both: Dim = (kept, ("pad",)) if at_end else (("pad",), kept)
    wide: list[Dim] = [both if number == place else ((axis,),) for number, axis in enumerate(axes)]
    narrow: list[Dim] = [((axis,),) for axis in axes]
    rest: list[Dim] = [(("pad",),) if number == place else ((axis,),) for number, axis in enumerate(axes)]
    sizes = {f"a{axis}": source.shape[axis] for axis in order}
    sizes[axes[place]] = min(source.shape[order[place]], target.shape[place])
    sizes["pad"] = abs(more)

    def of_source(dims: Sequence[Dim]) -> list[Dim]:
        return [dims[list(order).index(axis)] for axis in range(len(order))]

    where = "at the end" if at_end else "at the start"
    turn = "" if len(order) < 2 else ("kept" if list(order) == sorted(order) else "transposed")
    if more > 0:
        relation = Relation((source.part((), of_source(wide)),), (target.part((), narrow), Dropped(tuple(rest))), sizes)
        return Form(relation, turn, order=f"{more} rows left out {where}")
    zeros = Filled("0", tuple(of_source(rest)))
    relation = Relation((source.part((), of_source(narrow)), zeros), (target.part((), wide),), sizes)
    return Form(relation, turn, order=f"{-more} rows of zeros {where}")
