"""A bias lies as its weight lies: the relation of one tensor of a module, kept to the axes that another one of it has.

    q [(h r p) i] <-> wq [(h p r) i]        gives        q.bias [(h r p)] <-> wq.bias [(h p r)]

A bias of half precision, or one that is all zeros, does not say by its own values how it lies. What comes out is a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations, islice, product

from isomorph.errors import MorphError
from isomorph.infer.factor.relation import moves_of
from isomorph.infer.nouns import UNIT, Dim, Dropped, Filled, Part, Relation, Side
from isomorph.language.tree import Op
from isomorph.plan.moves import Move
from isomorph.tensors import TensorSpec

MOST = 8
_INNER = re.compile(r"(.*[._/]|)(weight|bias)_([^./]+)")
"""`weight` and `bias` within the last piece of a name."""


def word(name: str) -> str:
    """What a stem leaves out: what the tensor is in its module.

    >>> word("h.0.attn.in_proj_weight"), word("rnn.bias_ih_l0")
    ('weight', 'bias')
    """
    inner = _INNER.fullmatch(name)
    return inner[2] if inner else name[len(stem(name)) :].lstrip("._/")


def stem(name: str) -> str:
    """A name without its last word, or without the word that says weight or bias: the module that a tensor is of.

    >>> stem("h.0.attn.in_proj_weight"), stem("h/0/kernel"), stem("rnn.weight_ih_l0"), stem("rnn.bias_ih_l0")
    ('h.0.attn.in_proj', 'h/0', 'rnn.ih_l0', 'rnn.ih_l0')
    """
    inner = _INNER.fullmatch(name)
    if inner:
        return inner[1] + inner[3]
    cut = max(name.rfind(separator) for separator in "._/")
    return name[:cut] if cut > 0 else name


def partners(relation: Relation, sources: Sequence[str], targets: Sequence[str]) -> dict[str, str] | None:
    """Tensor of the relation -> that of these that is of the same module; None where they do not pair off."""
    names: dict[str, str] = {}
    for theirs, ours in ((relation.sources, sources), (relation.targets, targets)):
        of = {stem(name): name for name in ours}
        if len(of) != len(ours) or {stem(name) for name in theirs} != set(of) or len(theirs) != len(ours):
            return None
        names.update({name: of[stem(name)] for name in theirs})
    return names


def kept_to(
    relation: Relation,
    names: Mapping[str, str],
    sources: Mapping[str, TensorSpec],
    targets: Mapping[str, TensorSpec],
    operators: tuple[Op, ...],
) -> Iterator[tuple[Relation, tuple[Move, ...]]]:
    """The relation between other tensors of the same modules, which have fewer axes, and its moves. Mostly one, or none."""
    left = [_choices(relation, part, names, sources) for part in relation.left]
    right = [_choices(relation, part, names, targets) for part in relation.right]
    for chosen in islice(product(*left, *right), MOST):
        sides = chosen[: len(left)], chosen[len(left) :]
        made = _made(relation, sides, names, operators)
        try:
            moves = moves_of(
                made,
                {name: sources[name] for name in made.sources},
                {name: targets[name] for name in made.targets},
            )
        except (MorphError, ValueError):  # the axes that are left do not pair
            continue
        yield made, moves


def _choices(
    relation: Relation, part: Part | Filled | Dropped, names: Mapping[str, str], specs: Mapping[str, TensorSpec]
) -> list[tuple[Dim, ...]]:
    """The dims of the part that a tensor of that shape can have."""
    sizes = relation.shape(part)
    kept = [number for number, size in enumerate(sizes) if size != 1]
    if not isinstance(part, Part):
        return [tuple(part.dims[number] for number in some) for count in (1, 2) for some in combinations(kept, count)]
    shape = specs[names[part.names[0]]].shape
    if any(specs[names[name]].shape != shape for name in part.names):
        return []
    wanted = [size for size in shape if size != 1]
    found = []
    for some in combinations(kept, len(wanted)) if wanted else ():
        if [sizes[number] for number in some] == wanted:
            own = iter(some)
            found.append(tuple(part.dims[next(own)] if size != 1 else UNIT for size in shape))
    return found


def _made(
    relation: Relation, sides: Sequence[Sequence[tuple[Dim, ...]]], names: Mapping[str, str], operators: tuple[Op, ...]
) -> Relation:
    def side(terms: Side, dims: Sequence[tuple[Dim, ...]]) -> Side:
        found: list[Part | Filled | Dropped] = []
        for term, its in zip(terms, dims, strict=True):
            if isinstance(term, Part):
                copies = tuple(tuple(names[name] for name in copy) for copy in term.copies)
                found.append(Part(tuple(names[name] for name in term.names), its, term.along, copies))
            else:
                found.append(replace(term, dims=its))
        return tuple(found)

    made = Relation(
        side(relation.left, sides[0]),
        side(relation.right, sides[1]),
        relation.sizes,
        operators,
        sums=relation.sums,
    )
    used = {
        symbol
        for term in (*made.left, *made.right)
        for symbol in (*getattr(term, "along", ()), *(each for dim in term.dims for one in dim for each in one))
    }
    inner = {each for symbol in used & set(made.sums) for one in made.sums[symbol] for each in one}
    return replace(
        made,
        sizes={symbol: size for symbol, size in made.sizes.items() if symbol in used | inner},
        sums={symbol: dim for symbol, dim in made.sums.items() if symbol in used},
    )
