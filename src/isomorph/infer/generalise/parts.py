"""A relation as a rule: the names of each part anti-unified to one template (Plotkin 1970), plain copies recognised.

q_proj.weight, k_proj.weight, v_proj.weight along p   ->   {p=q|k|v}_proj.weight
experts.0.w1, experts.0.w3, experts.1.w1, … along a   ->   experts.{e}.{w=w1|w3}, and `a` is (e w) everywhere
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isomorph.infer.generalise.patterns import (
    Dim,
    Filling,
    Index,
    Labels,
    Rule,
    Template,
    Term,
    Token,
    canonical,
    dims_axes,
    is_number,
    map_axes,
    tokens,
)
from isomorph.infer.generalise.sizes import sensible_key, sized
from isomorph.infer.nouns import Dropped, Filled, Part, Relation
from isomorph.tensors import Manifest

MOST_TIED_LABELS = 4
"""So many copies are written as labels; more, where they are numbered, by their index."""
MOST_LABELS = 12
"""So many parts that are numbered 0, 1, 2 are never labels."""


def rule_of(
    relation: Relation,
    number: int,
    sides: tuple[Manifest, Manifest],
    config: Mapping[str, object] | None = None,
    shapes: dict[object, Rule] | None = None,
) -> Rule:
    """The rule of one relation, whose names hold no axes that count. `shapes` remembers what depends on no name."""
    key = _shape(relation)
    if shapes is None or key is None:
        return _rule(relation, number, sides, config)
    if key not in shapes:
        shapes[key] = _rule(relation, number, sides, config)
    left, right = (
        tuple(
            replace(term, head=tokens(part.names[0])) if isinstance(part, Part) else term
            for term, part in zip(terms, parts, strict=True)
        )
        for terms, parts in ((shapes[key].left, relation.left), (shapes[key].right, relation.right))
    )
    notes = (relation.note,) if relation.note else ()
    return replace(shapes[key], left=left, right=right, covers=(number,), notes=notes)


def _shape(relation: Relation) -> object | None:
    """All of a relation but its names; None where they matter to its rule."""
    parts = (*relation.left, *relation.right)
    if any(isinstance(part, Filled) or (isinstance(part, Part) and (part.along or part.copies)) for part in parts):
        return None
    dims = tuple((isinstance(part, Part), part.dims) for part in parts)
    sums = tuple(sorted(relation.sums.items()))
    return (len(relation.left), dims, tuple(sorted(relation.sizes.items())), relation.operators, relation.one_way, sums)


def _rule(
    relation: Relation, number: int, sides: tuple[Manifest, Manifest], config: Mapping[str, object] | None
) -> Rule:
    sizes = dict(relation.sizes)
    split = _split_axes(relation)
    names = {axis: f"t{k}" for k, axis in enumerate(sizes)}
    is_single = _is_single(relation)

    def factors(axis: str) -> Sequence[object]:
        if axis in relation.sums:
            return (
                tuple(tuple(found for each in product for found in factors(each)) for product in relation.sums[axis]),
            )
        if axis in split:
            return split[axis].axes
        return () if is_single and sizes.get(axis) == 1 else (names.get(axis, axis),)

    def dims_of(dims: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(map_axes(dim, factors) for dim in dims)

    copies = max((len(part.copies) for part in (*relation.left, *relation.right) if isinstance(part, Part)), default=0)
    counts = {"r": copies + 1, **{names[axis]: size for axis, size in sizes.items()}}
    for one in split.values():
        counts.update(zip(one.axes, one.sizes, strict=True))
    terms: list[list[Term]] = []
    for side, manifest in zip((relation.left, relation.right), sides, strict=True):
        terms.append([])
        for part in side:
            if isinstance(part, Dropped):
                terms[-1].append(Term(None, dims_of(part.dims)))
            elif isinstance(part, Filled):
                terms[-1].append(Term(_filling(part, side, manifest), dims_of(part.dims)))
            else:
                axes = [axis for each in part.along for axis in (split[each].axes if each in split else (names[each],))]
                head = template(part, axes, [counts[axis] for axis in axes])
                terms[-1].append(Term(head, dims_of(part.dims)))
    ranks = frozenset(len(part.dims) for part in relation.left[:1])
    left, right = (tuple(side) for side in terms)
    made = Rule(
        left,
        right,
        (number,),
        relation.operators,
        relation.one_way,
        ranks=ranks,
        notes=(relation.note,) if relation.note else (),
    )
    made, counts = _canonical(made, counts)
    preferred = {axis: 0 for axis, size in counts.items() if sensible_key(config, size) is not None}
    return plain(sized(made, counts, preferred))


def _is_single(relation: Relation) -> bool:
    """One tensor that is another, no sums: an axis of size 1 is a unit axis there, and pairs nothing."""
    parts = (*relation.left, *relation.right)
    return (
        len(relation.left) == len(relation.right) == 1
        and not relation.sums
        and all(len(dim) == 1 for part in parts for dim in part.dims)
        and all(isinstance(part, Part) and not part.along for part in parts)
    )


def _canonical(rule: Rule, sizes: Mapping[str, int]) -> tuple[Rule, dict[str, int]]:
    """The rule with canonical axes, and their sizes."""
    carried = canonical(replace(rule, sizes=tuple(sizes.items())))
    return replace(carried, sizes=()), dict(carried.sizes)


def plain(rule: Rule) -> Rule:
    """The rule without brackets, where it is a copy of one tensor as it is."""
    if len(rule.left) != 1 or len(rule.right) != 1 or rule.left[0].name is None or rule.right[0].name is None:
        return rule
    one, other = rule.left[0].dims, rule.right[0].dims
    if one is None or one != other or any(len(dim) != 1 or len(dim[0]) > 1 for dim in one):
        return rule
    axes = set(dims_axes(one))
    if any(
        axis in axes
        for name in rule.names
        for token in name
        if isinstance(token, Labels | Index)
        for axis in _axes(token)
    ):
        return rule
    stacked = any(axis.startswith("a") for name in rule.names for token in name for axis in _axes(token))
    return rule if stacked and len(one) == 0 else rule.with_dims((None, None))


def _axes(token: Token) -> tuple[str, ...]:
    if isinstance(token, Index):
        return () if token.tied else token.axes
    return (token.axis,) if isinstance(token, Labels) and not token.tied else ()


def _filling(part: Filled, side: Sequence[object], manifest: Manifest) -> Filling:
    """A constant; its dtype is said where no tensor beside it has it."""
    beside = {
        manifest[name].dtype for other in side if isinstance(other, Part) for name in other.names if name in manifest
    }
    if part.dtype is None or beside == {part.dtype}:
        return Filling(part.text)
    return Filling(part.text, str(part.dtype))


# ── axes that names count twice ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Split:
    axes: tuple[str, ...]
    sizes: tuple[int, ...]


def _split_axes(relation: Relation) -> Mapping[str, _Split]:
    """Axes of parts that the names show to be two: experts, and w1 or w3 of each."""
    found: dict[str, _Split] = {}
    refused: set[str] = set()
    held_by: dict[str, int] = {}
    for part in (*relation.left, *relation.right):
        if not isinstance(part, Part):
            continue
        for position, axis in enumerate(part.along):
            held_by[axis] = held_by.get(axis, 0) + 1
            split = _split(part, position, axis, relation.sizes)
            if (split is not None and found.setdefault(axis, split) != split) or (
                split is None and len(part.along) == 1
            ):
                refused.add(axis)
    return {axis: split for axis, split in found.items() if axis not in refused}


def _split(part: Part, position: int, axis: str, sizes: Mapping[str, int]) -> _Split | None:
    """How one axis falls in two by the pieces of the names, when exactly two of them change and each with one factor."""
    if len(part.along) != 1 or len(part.names) < 4:
        return None
    cut = [tokens(name) for name in part.names]
    if len({len(one) for one in cut}) != 1:
        return None
    columns = [column for column in zip(*cut, strict=True) if len(set(column)) > 1]
    size = len(part.names)
    classes = {tuple(column.index(text) for text in column) for column in columns}
    if len(classes) != 2:
        return None
    for outer, inner in itertools.permutations(classes):
        first, second = len(set(outer)), len(set(inner))
        if first * second != size:
            continue
        if all(outer[k] == outer[k // second * second] and inner[k] == inner[k % second] for k in range(size)):
            return _Split((f"{axis}'0", f"{axis}'1"), (first, second))
    return None


# ── one template for the names of a part ─────────────────────────────────────────────────────────────────────────────


def template(part: Part, axes: Sequence[str], sizes: Sequence[int]) -> Template:
    """The template of a part's names, copies too: a hole for each axis of `along`, a tie for the copies."""
    grids = [part.names, *part.copies]
    coordinates = list(itertools.product(*map(range, sizes)))
    if math.prod(sizes) != len(part.names):
        raise ValueError(f"{len(part.names)} names for axes of {tuple(sizes)}")
    made = [_grid(tuple(map(tokens, grid)), coordinates, axes) for grid in grids]
    return made[0] if len(made) == 1 else tied(made)


def tied(made: Sequence[Template]) -> Template:
    """One template for equal copies: what differs becomes `{=a|b}`, or `{=r}` where copies are numbered."""
    numbered = _numbered(made)
    if numbered is not None:
        return numbered
    prefix, suffix = common(made)
    middles = ["".join(map(str, one[prefix : len(one) - suffix])) for one in made]
    if all(isinstance(token, str) for one in made for token in one[prefix : len(one) - suffix]):
        return (*made[0][:prefix], Labels("", tuple(middles), tied=True), *made[0][len(made[0]) - suffix :])
    raise ValueError("copies whose names differ in more than one place")


def _numbered(made: Sequence[Template]) -> Template | None:
    if len(made) <= MOST_TIED_LABELS or len({len(one) for one in made}) != 1:
        return None
    differ = [k for k, column in enumerate(zip(*made, strict=True)) if len(set(column)) > 1]
    if len(differ) != 1 or [one[differ[0]] for one in made] != [str(k) for k in range(len(made))]:
        return None
    at = differ[0]
    return (*made[0][:at], Index(("r",), tied=True), *made[0][at + 1 :])


def common(made: Sequence[Sequence[Token]]) -> tuple[int, int]:
    """How many tokens all of them begin with, and how many of the rest they end with."""
    shortest = min(map(len, made))
    prefix = 0
    while prefix < shortest and all(one[prefix] == made[0][prefix] for one in made):
        prefix += 1
    suffix = 0
    while suffix < shortest - prefix and all(one[-1 - suffix] == made[0][-1 - suffix] for one in made):
        suffix += 1
    return prefix, suffix


def _grid(names: Sequence[tuple[str, ...]], coordinates: Sequence[tuple[int, ...]], axes: Sequence[str]) -> Template:
    if not axes:
        return names[0]
    if len({len(name) for name in names}) == 1:
        found = _by_columns(names, coordinates, axes)
        if found is not None:
            return found
    return _by_regions(names, coordinates, axes)


def _by_columns(
    names: Sequence[tuple[str, ...]], coordinates: Sequence[tuple[int, ...]], axes: Sequence[str]
) -> Template | None:
    """Each token that changes does so with one axis."""
    made: list[Token] = []
    seen: set[str] = set()
    for column in zip(*names, strict=True):
        if len(set(column)) == 1:
            made.append(column[0])
            continue
        for position, axis in enumerate(axes):
            values: dict[int, str] = {}
            if all(values.setdefault(at[position], text) == text for at, text in zip(coordinates, column, strict=True)):
                made.append(_hole(axis, [values[k] for k in sorted(values)]))
                seen.add(axis)
                break
        else:
            return None
    if seen != set(axes):
        return None
    together = _joined(made)
    labelled = [token.axis for token in together if isinstance(token, Labels)]
    return (
        tuple(together)
        if all(len({t for t in together if isinstance(t, Labels) and t.axis == a}) == 1 for a in labelled)
        else None
    )


def _hole(axis: str, texts: Sequence[str]) -> Token:
    """A number that counts up, or labels."""
    if all(is_number(text) for text in texts):
        offset = int(texts[0])
        if [int(text) for text in texts] == list(range(offset, offset + len(texts))) and (offset < 2):
            width = len(texts[0])
            if all(str(int(text)) == text for text in texts):
                if len(texts) > 3 or offset == 0:
                    return Index((axis,), offset)
            elif 1 < width < 10 and all(str(int(text)).zfill(width) == text for text in texts):
                return Index((axis,), offset, pad=f"{width:02}")
    return Labels(axis, tuple(texts))


def _joined(made: Sequence[Token]) -> list[Token]:
    """Labels of one axis with only marks between become one hole."""
    joined: list[Token] = []
    for token in made:
        if isinstance(token, Labels) and joined:
            before = joined[-1]
            if isinstance(before, Labels) and before.axis == token.axis:
                joined[-1] = replace(
                    before, labels=tuple(a + b for a, b in zip(before.labels, token.labels, strict=True))
                )
                continue
            if (
                len(joined) > 1
                and isinstance(before, str)
                and isinstance(joined[-2], Labels)
                and joined[-2].axis == token.axis
            ):
                first = joined[-2]
                joined[-2:] = [
                    replace(
                        first, labels=tuple(a + before + b for a, b in zip(first.labels, token.labels, strict=True))
                    )
                ]
                continue
        joined.append(token)
    return joined


def _by_regions(
    names: Sequence[tuple[str, ...]], coordinates: Sequence[tuple[int, ...]], axes: Sequence[str]
) -> Template:
    """Along one axis after the other, the innermost first, one region of the names changes."""
    if len(axes) == 1:
        prefix, suffix = common(names)
        texts = tuple("".join(name[prefix : len(name) - suffix]) for name in names)
        return (*names[0][:prefix], Labels(axes[0], texts), *names[0][len(names[0]) - suffix :])
    last = axes[-1]
    rows: dict[tuple[int, ...], list[tuple[str, ...]]] = {}
    for at, name in zip(coordinates, names, strict=True):
        rows.setdefault(at[:-1], []).append(name)
    made = [_grid(row, [(k,) for k in range(len(row))], (last,)) for row in rows.values()]
    outer = [tuple(token for token in row) for row in made]
    prefix, suffix = common(outer)
    middles = [row[prefix : len(row) - suffix] for row in outer]
    if not all(isinstance(token, str) for middle in middles for token in middle):
        raise ValueError("names of a part that no holes tell apart")
    inner = _grid([tuple(map(str, middle)) for middle in middles], list(rows), axes[:-1])
    return (*outer[0][:prefix], *inner, *outer[0][len(outer[0]) - suffix :])
