"""Stages of other widths: modules that the shapes of all their members tell from all others.

In a hierarchical network (ResNet, RegNet, ConvNeXt, Hiera) the width grows from stage to stage, so that the shapes of `conv2`
over all stages and blocks are a signature that no other module has. Here every number in a name is an index: `layer3.0.conv2`
and `encoder.stages.2.layers.0.layer.1.convolution` are members of two rows, which pair in rising order of the indices. Two
rows are one when their shapes agree member by member, take three values at least, and no other row of either side has them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isomorph.infer.by_name.candidates import Candidate
from isomorph.infer.by_name.classes import HOLE, Shape, TensorClass
from isomorph.infer.by_name.correspondence import Bundle, Link
from isomorph.infer.by_name.lexicon import Lexicon, lexicon
from isomorph.infer.by_name.modules import Module, leaf_of, reading_of
from isomorph.infer.by_name.scoring import CERTAIN, Scorer
from isomorph.infer.by_name.tokens import Token, tokens
from isomorph.tensors import Manifest

FEWEST_SHAPES = 3
"""Of so many shapes at least a signature is made: by fewer, two modules may look alike by chance."""

Index = tuple[int, ...]
Signature = tuple[Shape, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """Modules whose names differ in numbers alone, and that hold the same leaves."""

    module: Module
    places: tuple[Index, ...]
    """The ranks of the numbers of each member, in rising order; numbers that all share left out."""

    @property
    def signature(self) -> Signature:
        """The sides of each member's main tensor, sorted, without those of 1."""
        return _signature(self.module.main)


def stages(scorer: Scorer, source: Manifest, target: Manifest) -> list[Candidate]:
    """The pairs of rows that shapes alone decide."""
    left, right = rows(source), rows(target)
    out = []
    for signature, found in right.items():
        others = left.get(signature, ())
        if len(found) != 1 or len(others) != 1 or len(set(signature)) < FEWEST_SHAPES:
            continue
        made = _paired(scorer, others[0], found[0])
        if made is not None:
            out.append(made)
    return out


def rows(manifest: Manifest) -> Mapping[Signature, Sequence[Row]]:
    """The rows of a manifest, by signature."""
    book = lexicon()
    cut = {name: tokens(name) for name in manifest}
    held: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name, found in cut.items():
        leaf, kept = _leaf(name, found, manifest[name].shape, book)
        held[tuple(found[at].text for at in kept)][leaf] = name
    grouped: dict[tuple[tuple[str, ...], frozenset[tuple[str, int]]], list[tuple[Index, Mapping[str, str]]]] = (
        defaultdict(list)
    )
    for words, leaves in held.items():
        ranks = frozenset((leaf, len(_sides(manifest[name].shape))) for leaf, name in leaves.items())
        plain = tuple(HOLE if word.isdigit() else word for word in words)
        grouped[plain, ranks].append((tuple(int(word) for word in words if word.isdigit()), leaves))
    out: dict[Signature, list[Row]] = defaultdict(list)
    for (plain, _), members in grouped.items():
        members.sort(key=lambda member: member[0])
        row = _row(plain, members, manifest, cut, book)
        out[row.signature].append(row)
    return out


def _leaf(name: str, found: tuple[Token, ...], shape: Shape, book: Lexicon) -> tuple[str, tuple[int, ...]]:
    words = tuple(token.text for token in found)
    pieces = tuple(token.piece for token in found)
    return leaf_of(TensorClass(name, words, words, pieces, {(): name}, {(): shape}), book)


def _row(
    plain: tuple[str, ...],
    members: Sequence[tuple[Index, Mapping[str, str]]],
    manifest: Manifest,
    cut: Mapping[str, tuple[Token, ...]],
    book: Lexicon,
) -> Row:
    leaves: dict[str, TensorClass] = {}
    for leaf, first in members[0][1].items():
        spelled = tuple(HOLE if token.is_number else token.text for token in cut[first])
        leaves[leaf] = TensorClass(
            _template(first, cut[first]),
            spelled,
            spelled,
            tuple(token.piece for token in cut[first]),
            {index: held[leaf] for index, held in members},
            {index: manifest[held[leaf]].shape for index, held in members},
        )
    some = next(iter(members[0][1].values()))
    kept = _leaf(some, cut[some], manifest[some].shape, book)[1]
    module = Module(plain, plain, tuple(cut[some][at].piece for at in kept), leaves)
    return Row(reading_of(module, book), _places([index for index, _ in members]))


def _template(name: str, found: tuple[Token, ...]) -> str:
    out = []
    last = 0
    for token in found:
        if token.is_number:
            out += [name[last : token.start], HOLE]
            last = token.end
    return "".join([*out, name[last:]])


def _places(members: Sequence[Index]) -> tuple[Index, ...]:
    columns = [sorted(set(column)) for column in zip(*members, strict=True)]
    telling = [at for at, values in enumerate(columns) if len(values) > 1]
    return tuple(tuple(columns[at].index(index[at]) for at in telling) for index in members)


def _sides(shape: Shape) -> Shape:
    return tuple(sorted(size for size in shape if size != 1))


def _signature(each: TensorClass) -> Signature:
    return tuple(_sides(shape) for shape in each.shapes.values())


def _paired(scorer: Scorer, one: Row, other: Row) -> Candidate | None:
    """Two rows of one signature as a candidate, leaf by leaf; None where numbers or the words for where they are deny it."""
    if one.places and other.places and len(one.places[0]) == len(other.places[0]) and one.places != other.places:
        return None
    if scorer.place(one.module, other.module) is None:
        return None
    links = {}
    for leaf, right in other.module.leaves.items():
        left = one.module.leaves.get(leaf)
        if left is None or _signature(left) != _signature(right):
            continue
        role = one.module.reading.role
        links[leaf] = tuple(
            Link((Bundle((source,), (), role),), (Bundle((target,), (), role),))
            for source, target in zip(left.members.values(), right.members.values(), strict=True)
        )
    return Candidate((one.module,), (other.module,), links, CERTAIN) if links else None
