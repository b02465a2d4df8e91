"""Several bundles and the one that they are fused into -> its forms: one after another, head by head, group by group, rotated.

Shapes say on which dim tensors are fused, hardly ever in which order. All orders of two or three parts are listed, and what the
field has besides: of each head q, k, v (Megatron, BLOOM, GPT-NeoX), of each group r queries, a key, a value (Megatron-Core,
Falcon), gate and up in turns, and the rows of q and k in halves or in pairs (rotary positions: transformers on one side, Meta or
GGUF on the other).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from isomorph.infer.by_name.axes import Form, Stack, fine_dims, placements, turned
from isomorph.infer.by_name.facts import Facts
from isomorph.infer.nouns import Dim, Filled, Part, Product, Relation

ROLES = ("query", "key", "value", "gate", "up")
"""The order in which parts are listed first."""
MOST_PERMUTED = 4
"""Of more parts, not all orders can be listed."""
TURNS = ("", "halves to pairs", "pairs to halves")
"""What becomes of the rows of q and k, from the separate tensors to the fused one."""
ROTATIONS: tuple[tuple[str, Product, Product], ...] = (
    (TURNS[1], ("two", "half"), ("half", "two")),
    (TURNS[2], ("half", "two"), ("two", "half")),
)
"""The same, with the axes of a head before and after."""


def fused(parts: Sequence[Stack], whole: Stack, facts: Facts) -> list[Form]:
    """The forms in which `parts` are the `whole`: the parts on the left. A bias that is missing among three is zeros."""
    if not 2 <= len(parts) <= MOST_PERMUTED:
        return []
    parts = sorted(parts, key=lambda part: ROLES.index(part.role) if part.role in ROLES else len(ROLES))
    if len({(part.shape, part.extents) for part in parts}) == 1 and sum(part.numel for part in parts) == whole.numel:
        return list(_equal(parts, whole, facts))
    return list(_unequal(parts, whole, facts))


def rotated(form: Form, widths: Sequence[int], *, rows: tuple[int | None, int | None] = (None, None)) -> list[Form]:
    """A form of one tensor of queries or keys, and the same with its rows rotated in heads of these widths: halves to pairs, pairs
    to halves. `rows`: the dim of the outputs, of the source and of the target; where neither is known it may be either."""
    found = [Form(form.relation, form.turn, form.cut, "rows in the same order")]
    left = form.relation.left[0]
    right = form.relation.right[0]
    if not (isinstance(left, Part) and isinstance(right, Part)) or left.along or right.along:
        return found
    here, there = ([dim[0] for dim in part.dims if dim[0]] for part in (left, right))
    if not here or any(len(dim) > 1 or len(dim[0]) > 1 for part in (left, right) for dim in part.dims):
        return found
    axes = [axis for (axis,) in here]
    if len(here) == len(there) == 2 and rows != (None, None):
        axes = [axes[rows[0]] if rows[0] is not None else there[rows[1] or 0][0]]
    for axis, width in itertools.product(axes[:2], widths):
        size = form.relation.sizes[axis]
        if size % width:
            continue
        where = "" if len(axes) == 1 else f", of dim {axes.index(axis)}"
        for words in TURNS[1:]:
            halves: Product = ("h", "two", "half")
            pairs: Product = ("h", "half", "two")
            into, out_of = (pairs, halves) if words == TURNS[1] else (halves, pairs)
            sizes = {**form.relation.sizes, "h": size // width, "two": 2, "half": width // 2}
            del sizes[axis]
            relation = Relation((_renamed(left, axis, out_of),), (_renamed(right, axis, into),), sizes)
            found.append(Form(relation, form.turn, form.cut, f"rows {words}, heads of {width}{where}"))
    return found


def _renamed(part: Part, axis: str, product: Product) -> Part:
    dims = tuple(tuple(tuple(_spread(each, axis, product)) for each in dim) for dim in part.dims)
    return Part(part.names, dims, part.along, part.copies)


def _spread(found: Product, axis: str, product: Product) -> Iterator[str]:
    for each in found:
        if each == axis:
            yield from product
        else:
            yield each


def _orders(parts: Sequence[Stack]) -> Iterator[tuple[int, ...]]:
    yield from itertools.permutations(range(len(parts)))


def _labels(parts: Sequence[Stack]) -> list[str]:
    """What parts are called, each otherwise: their roles, else the pieces of their names in which they differ."""
    roles = [part.role for part in parts]
    if all(roles) and len(set(roles)) == len(roles):
        return roles
    pieces = [part.names[0].replace("/", ".").split(".") for part in parts]
    if len({len(each) for each in pieces}) == 1:
        own = [
            ".".join(piece for piece, *others in zip(each, *pieces, strict=True) if len(set(others)) > 1)
            for each in pieces
        ]
        if all(own) and len(set(own)) == len(own):
            return own
    return [part.names[0] for part in parts]


def _equal(parts: Sequence[Stack], whole: Stack, facts: Facts) -> Iterator[Form]:
    """Parts of one shape: an axis `p` over them stands somewhere in the whole."""
    one = parts[0]
    along = [f"e{number}" for number in range(len(one.extents))]
    own = [f"a{number}" for number, size in enumerate(one.shape) if size != 1]
    sizes = {
        "p": len(parts),
        **dict(zip(along, one.extents, strict=True)),
        **{f"a{number}": size for number, size in enumerate(one.shape) if size != 1},
    }
    fine = ["p", *along, *own]
    labels = _labels(parts)
    for groups in placements([sizes[axis] for axis in fine], [*whole.extents, *whole.shape]):
        outer, inner = groups[: len(whole.extents)], groups[len(whole.extents) :]
        if any(len(group) != 1 for group in outer):
            continue
        place = next(number for number, group in enumerate(groups) if 0 in group)
        rest = [fine[axis] for axis in groups[place] if axis]
        turn = turned(inner, 1 + len(along))
        cut = "|".join(" ".join(map(str, group)) for group in groups)
        for product, split, words in _inserted(rest, sizes, len(one.extents), parts, facts):
            for order in _orders(parts):
                if words and len(parts) > 2 and order != tuple(range(len(parts))):
                    continue
                axes = [
                    product if number == place else tuple(fine[axis] for axis in group)
                    for number, group in enumerate(groups)
                ]
                names = tuple(name for number in order for name in parts[number].names)
                dims: list[Dim] = [(_split(dim[0], split),) if dim != ((),) else dim for dim in fine_dims(one.shape)]
                left = Part(names, tuple(dims), ("p", *along))
                right = Part(
                    whole.names,
                    tuple((axis,) for axis in axes[len(whole.extents) :]),
                    tuple(axis[0] for axis in axes[: len(whole.extents)]),
                )
                known = {**sizes, **{name: size for both in split.values() for name, size in both}}
                for axis in split:
                    del known[axis]
                said = ", ".join(labels[number] for number in order)
                yield Form(Relation((left,), (right,), known), turn, cut, f"{said}{words}")
    if _may_rotate(parts, facts) and not one.extents and not whole.extents:
        yield from _rotated_blocks(parts, whole, facts)
        for blocks in _sums(parts, whole):
            if len(parts) == 3 and not blocks.zeros and not blocks.inside:
                yield from blocks.by_rotated_heads(facts)


def _split(product: Product, split: Mapping[str, Sequence[tuple[str, int]]]) -> Product:
    return tuple(name for axis in product for name in ([each for each, _ in split[axis]] if axis in split else [axis]))


Inserted = tuple[Product, Mapping[str, Sequence[tuple[str, int]]], str]


def _inserted(
    rest: Sequence[str], sizes: Mapping[str, int], stacked: int, parts: Sequence[Stack], facts: Facts
) -> Iterator[Inserted]:
    """The dim that the parts share with other axes: before them, between them, behind them. Then what is split for it, in words."""
    yield ("p", *rest), {}, ""
    own = [axis for axis in rest if axis.startswith("a")]
    for at in range(1, len(own)):
        first = rest.index(own[at])
        yield (
            (*rest[:first], "p", *rest[first:]),
            {},
            f", for each of {math.prod(sizes[axis] for axis in own[:at])} in turn",
        )
    if len(own) == 1:
        (axis,) = own
        for width in facts.head_dims([sizes[axis]]):
            if width < sizes[axis] and width > 1:
                split = {axis: (("h", sizes[axis] // width), ("d", width))}
                spread = tuple(name for each in rest for name in (("h", "p", "d") if each == axis else (each,)))
                yield spread, split, f", of each head of {width}"
    if own:
        yield (*rest, "p"), {}, ", row by row in turns"


def _may_rotate(parts: Sequence[Stack], facts: Facts) -> bool:
    return facts.rotary and {"query", "key"} <= {part.role for part in parts}


def _unequal(parts: Sequence[Stack], whole: Stack, facts: Facts) -> Iterator[Form]:
    """Parts that differ in one dim: a sum there. What the whole has beside them is zeros."""
    for blocks in _sums(parts, whole):
        yield from blocks.one_after_another()
        yield from blocks.by_groups(facts)
    if _may_rotate(parts, facts):
        yield from _rotated_blocks(parts, whole, facts)


def _sums(parts: Sequence[Stack], whole: Stack) -> Iterator[Blocks]:
    shapes = [part.shape for part in parts]
    if any(part.extents for part in parts) or whole.extents or len({len(shape) for shape in shapes}) != 1:
        return
    dims = [number for number, several in enumerate(zip(*shapes, strict=True)) if len(set(several)) > 1]
    for dim in dims if len(dims) == 1 else (range(len(shapes[0])) if not dims else []):
        rest = [size for number, size in enumerate(shapes[0]) if number != dim]
        per_row = math.prod(rest)
        if not per_row or whole.numel % per_row:
            continue
        rows = whole.numel // per_row
        zeros = rows - sum(shape[dim] for shape in shapes)
        if zeros < 0 or (zeros and zeros not in {shape[dim] for shape in shapes}):
            continue
        fine = [rows if number == dim else size for number, size in enumerate(shapes[0])]
        kept = [number for number, size in enumerate(fine) if size != 1]
        for groups in placements([fine[number] for number in kept], whole.shape):
            own = tuple(tuple(kept[axis] for axis in group) for group in groups)
            place = next(number for number, group in enumerate(own) if dim in group)
            if own[place][0] == dim:
                yield Blocks(tuple(parts), whole, dim, own, place, zeros)


class Blocks:
    """Parts that are summands of dim `place` of the whole, by their dim `dim`; `groups` are the dims of each dim of the whole."""

    def __init__(
        self,
        parts: tuple[Stack, ...],
        whole: Stack,
        dim: int,
        groups: tuple[tuple[int, ...], ...],
        place: int,
        zeros: int,
    ) -> None:
        self.parts, self.whole, self.dim, self.groups, self.place, self.zeros = parts, whole, dim, groups, place, zeros
        self.turn = turned(groups, 0)
        self.cut = "|".join(" ".join(map(str, group)) for group in groups)
        self.rows = [part.shape[dim] for part in parts]
        self.sizes = {f"a{n}": size for n, size in enumerate(parts[0].shape) if n != dim and size != 1}
        self.inside: Product = tuple(f"a{n}" for n in groups[place][1:])

    def form(
        self, rows: Sequence[Product], dim: Dim, order: Sequence[int], sizes: Mapping[str, int], words: str
    ) -> Form:
        """The form whose parts have these products of rows, in this order, and the whole this dim."""
        left: list[Part | Filled] = []
        for number in order:
            if number == len(self.parts):
                left.append(Filled("0", tuple(self._dims(rows[number]))))
            else:
                left.append(self.parts[number].part((), self._dims(rows[number])))
        dims = [
            dim if place == self.place else (tuple(f"a{n}" for n in group),) for place, group in enumerate(self.groups)
        ]
        relation = Relation(tuple(left), (self.whole.part((), dims),), {**self.sizes, **sizes})
        return Form(relation, self.turn, self.cut, words)

    def _dims(self, rows: Product) -> list[Dim]:
        return [
            (rows,) if n == self.dim else (((),) if size == 1 else ((f"a{n}",),))
            for n, size in enumerate(self.parts[0].shape)
        ]

    @property
    def labels(self) -> list[str]:
        """What the parts are called; the last is what is made of zeros."""
        return [*_labels(self.parts), "zeros"]

    def one_after_another(self) -> Iterator[Form]:
        """Every order of the parts, and of the zeros where there are some."""
        rows = [*self.rows, *([self.zeros] if self.zeros else [])]
        letters = {size: f"r{number}" for number, size in enumerate(dict.fromkeys(rows))}
        products: list[Product] = [(letters[size],) for size in rows]
        sizes = {letter: size for size, letter in letters.items()}
        for order in itertools.permutations(range(len(rows))):
            dim: Dim = tuple((*products[number], *self.inside) for number in order)
            words = ", ".join(self.labels[number] for number in order)
            yield self.form(products, dim, order, sizes, words)

    def by_groups(self, facts: Facts) -> Iterator[Form]:
        """r queries, a key and a value of each group."""
        if len(self.rows) != 3 or self.zeros or self.rows[1] != self.rows[2] or self.rows[0] % self.rows[1]:
            return
        repeat = self.rows[0] // self.rows[1]
        words = "of each group its queries, its key, its value"
        if self.inside:
            groups, sizes = self.rows[1], {"g": self.rows[1], "r": repeat, "s": repeat + 2}
            found = self.form(
                [("g", "r"), ("g",), ("g",)], (("g", "s", *self.inside),), range(3), sizes, f"{words}, {groups} groups"
            )
            yield _summed(found)
            return
        for width in facts.head_dims(self.rows):
            groups = self.rows[1] // width
            sizes = {"g": groups, "r": repeat, "d": width, "s": repeat + 2}
            rows: list[Product] = [("g", "r", "d"), ("g", "d"), ("g", "d")]
            said = f"{words}, {groups} groups, heads of {width}"
            yield _summed(self.form(rows, (("g", "s", "d"),), range(3), sizes, said))
            if width % 2 == 0 and _may_rotate(self.parts, facts):
                yield from self._rotated_groups({**sizes, "two": 2, "half": width // 2}, said)

    def by_rotated_heads(self, facts: Facts) -> Iterator[Form]:
        """Of each head its queries, keys and values, with the rows of the first two rotated; all are as many."""
        for width in facts.head_dims(self.rows, even=True):
            sizes = {"g": self.rows[0] // width, "s": 3, "two": 2, "half": width // 2}
            for turn, here, there in ROTATIONS:
                rows: list[Product] = [("g", *here), ("g", *here), ("g", *there)]
                words = f"{', '.join(self.labels[:-1])}, of each head of {width}, rows of query and key {turn}"
                found = self.form(rows, (("g", "s", *there),), range(3), sizes, words)
                yield Form(replace(found.relation, sums={"s": ((), (), ())}), found.turn, found.cut, found.order)

    def _rotated_groups(self, sizes: dict[str, int], said: str) -> Iterator[Form]:
        del sizes["d"]
        for turn, here, there in ROTATIONS:
            rows: list[Product] = [("g", "r", *here), ("g", *here), ("g", *there)]
            found = self.form(rows, (("g", "s", *there),), range(3), sizes, f"{said}, rows of queries and keys {turn}")
            yield _summed(found)


def _summed(form: Form) -> Form:
    found = form.relation
    relation = Relation(found.left, found.right, found.sizes, sums={"s": (("r",), (), ())})
    return Form(relation, form.turn, form.cut, form.order)


def _rotated_blocks(parts: Sequence[Stack], whole: Stack, facts: Facts) -> Iterator[Form]:
    """One after another, with the rows of queries and keys rotated."""
    for blocks in _sums(parts, whole):
        if blocks.zeros or blocks.inside:
            continue
        for width in facts.head_dims(blocks.rows, even=True):
            for words in TURNS[1:]:
                sizes = {"two": 2, "half": width // 2}
                left: list[Product] = []
                right: list[Product] = []
                for number, part in enumerate(parts):
                    if part.role in ("query", "key"):
                        head = f"h{number}"
                        sizes[head] = blocks.rows[number] // width
                        halves: Product = (head, "two", "half")
                        pairs: Product = (head, "half", "two")
                        left.append(halves if words == TURNS[1] else pairs)
                        right.append(pairs if words == TURNS[1] else halves)
                    else:
                        sizes[f"r{number}"] = blocks.rows[number]
                        left.append((f"r{number}",))
                        right.append((f"r{number}",))
                said = f"{', '.join(blocks.labels[:-1])}; rows of query and key {words}, heads of {width}"
                yield blocks.form(left, tuple(right), range(len(parts)), sizes, said)
