"""Stages of other widths: modules that the shapes of all their members tell from all others.

In a hierarchical network (ResNet, RegNet, ConvNeXt, Hiera) the width grows from stage to stage, so that the shapes of `conv2`
over all stages and blocks are a signature that no other module has. Here every number in a name is an index: `layer3.0.conv2`
and `encoder.stages.2.layers.0.layer.1.convolution` are members of two rows, which pair in rising order of the indices. Two
rows are one when their shapes agree member by member, take three values at least, and no other row of either side has them
(or one other, that a word tells apart). Where that leaves something open, numbers that are a part of a word (`norm1`, `norm2`)
are taken to be words, and then stages to be counted from the other end (a decoder's `up.3` is `up_blocks.0`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from isomorph.infer.by_name.candidates import Candidate
from isomorph.infer.by_name.classes import CONTAINERS, HOLE, Shape, TensorClass
from isomorph.infer.by_name.correspondence import Bundle, Link
from isomorph.infer.by_name.lexicon import Lexicon, lexicon
from isomorph.infer.by_name.modules import Module, leaf_of, reading_of
from isomorph.infer.by_name.scoring import CERTAIN, NOISE, Scorer
from isomorph.infer.by_name.tokens import tokens
from isomorph.tensors import Manifest

FEWEST_SHAPES = 3
"""Of so many shapes at least a signature is made: by fewer, two modules may look alike by chance."""

Index = tuple[int, ...]
Value = TypeVar("Value")
Signature = tuple[Shape, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """Modules whose names differ in numbers alone, and that hold the same leaves."""

    module: Module
    places: tuple[Index, ...]
    """The ranks of the numbers of each member, in rising order; numbers that all share left out."""

    def turned(self) -> Row:
        """The same row with the members of its last stage first."""
        order = sorted(range(len(self.places)), key=lambda at: (-self.places[at][0], self.places[at][1:]))
        last = max(place[0] for place in self.places)
        leaves = {
            leaf: replace(each, members=_picked(each.members, order), shapes=_picked(each.shapes, order))
            for leaf, each in self.module.leaves.items()
        }
        places = tuple((last - self.places[at][0], *self.places[at][1:]) for at in order)
        return Row(replace(self.module, leaves=leaves), places)

    @property
    def end(self) -> tuple[str, ...]:
        """The last words between indices."""
        words = self.module.words
        while words and words[-1] == HOLE:
            words = words[:-1]
        return words[max((at + 1 for at, word in enumerate(words) if word == HOLE), default=0) :]

    @property
    def telling(self) -> frozenset[str]:
        """Its words that are not everywhere."""
        return frozenset(self.module.words) - NOISE - {HOLE}

    @property
    def names(self) -> frozenset[str]:
        """All its tensors."""
        return frozenset(name for each in self.module.leaves.values() for name in each.members.values())

    @property
    def signature(self) -> Signature:
        """The sides of each member's main tensor, sorted, without those of 1."""
        return _signature(self.module.main)


def stages(scorer: Scorer, source: Manifest, target: Manifest) -> list[Candidate]:
    """The pairs of rows that shapes alone decide."""
    out: list[Candidate] = []
    done: set[str] = set()
    for is_turned, glued in ((False, True), (False, False), (True, True), (True, False)):
        left, right = rows(source, glued=glued), rows(target, glued=glued)
        if is_turned:
            right = turned(right)
        for signature, found in right.items():
            if len(set(signature)) < FEWEST_SHAPES:
                continue
            for one, other in _told_apart(left.get(signature, ()), found):
                made = _paired(scorer, one, other)
                names = one.names | other.names
                if made is not None and done.isdisjoint(names):
                    out.append(made)
                    done |= names
    return out


def turned(found: Mapping[Signature, Sequence[Row]]) -> Mapping[Signature, Sequence[Row]]:
    """The rows with their stages in falling order, by the signatures that they have then. Those of one stage are left out."""
    out: dict[Signature, list[Row]] = defaultdict(list)
    for each in (row for same in found.values() for row in same):
        if len({place[:1] for place in each.places}) > 1:
            other = each.turned()
            out[other.signature].append(other)
    return out


def _told_apart(left: Sequence[Row], right: Sequence[Row]) -> Sequence[tuple[Row, Row]]:
    """The pairs of rows of one signature: one on each side; those that end in the same words, which no other does; or two of which
    one pair shares a word and no pair across does."""
    if len(left) == len(right) == 1:
        return [(left[0], right[0])]
    ends = [Counter(each.end for each in those) for those in (left, right)]
    alike = [(one, other) for one in left for other in right if one.end == other.end and NOISE.isdisjoint(one.end[-1:])]
    alike = [(one, other) for one, other in alike if ends[0][one.end] == ends[1][other.end] == 1]
    if alike:
        return alike
    if len(left) == len(right) == 2:
        ways = [((left[0], right[0]), (left[1], right[1])), ((left[0], right[1]), (left[1], right[0]))]
        telling = [way for way in ways if any(one.telling & other.telling for one, other in way)]
        return telling[0] if len(telling) == 1 else ()
    return ()


def rows(manifest: Manifest, *, glued: bool) -> Mapping[Signature, Sequence[Row]]:
    """The rows of a manifest, by signature; with `glued`, numbers that are a part of a word are indices too."""
    book = lexicon()
    held: dict[tuple[str, ...], dict[str, TensorClass]] = defaultdict(dict)
    for name, spec in manifest.items():
        each = _alone(name, spec.shape, glued=glued)
        leaf, kept = leaf_of(each, book)
        stem = tuple(each.raw[at] if each.words[at] != HOLE else f"#{each.raw[at]}" for at in kept)
        held[stem][leaf] = each
    grouped: dict[object, list[tuple[Index, Mapping[str, TensorClass]]]] = defaultdict(list)
    for stem, leaves in held.items():
        plain = tuple(HOLE if word[0] == "#" else word for word in stem)
        ranks = frozenset((leaf, len(_sides(each.shape))) for leaf, each in leaves.items())
        grouped[plain, ranks].append((tuple(int(word[1:]) for word in stem if word[0] == "#"), leaves))
    out: dict[Signature, list[Row]] = defaultdict(list)
    for members in grouped.values():
        row = _row(sorted(members, key=lambda member: member[0]), book)
        out[row.signature].append(row)
    return out


def _alone(name: str, shape: Shape, *, glued: bool) -> TensorClass:
    """A tensor as a class of its own: `raw` has its numbers, `words` holes in the place of those that are indices."""
    found = tokens(name)
    pieces = tuple(token.piece for token in found)
    holes = [
        token.is_number and (glued or pieces.count(token.piece) == 1 or found[at - 1].text in CONTAINERS)
        for at, token in enumerate(found)
    ]
    template, last = "", 0
    for token, is_hole in zip(found, holes, strict=True):
        if is_hole:
            template += name[last : token.start] + HOLE
            last = token.end
    raw = tuple(token.text for token in found)
    words = tuple(HOLE if is_hole else word for word, is_hole in zip(raw, holes, strict=True))
    return TensorClass(template + name[last:], words, raw, pieces, {(): name}, {(): shape})


def _row(members: Sequence[tuple[Index, Mapping[str, TensorClass]]], book: Lexicon) -> Row:
    leaves: dict[str, TensorClass] = {}
    for leaf, first in members[0][1].items():
        leaves[leaf] = replace(
            first,
            raw=first.words,
            members={index: next(iter(held[leaf].members.values())) for index, held in members},
            shapes={index: held[leaf].shape for index, held in members},
        )
    some = next(iter(leaves.values()))
    kept = leaf_of(some, book)[1]
    words = tuple(some.words[at] for at in kept)
    module = Module(words, words, tuple(some.pieces[at] for at in kept), leaves)
    return Row(reading_of(module, book), _places([index for index, _ in members]))


def _places(members: Sequence[Index]) -> tuple[Index, ...]:
    columns = [sorted(set(column)) for column in zip(*members, strict=True)]
    telling = [at for at, values in enumerate(columns) if len(values) > 1]
    return tuple(tuple(columns[at].index(index[at]) for at in telling) for index in members)


def _picked(members: Mapping[Index, Value], order: Sequence[int]) -> dict[Index, Value]:
    entries = list(members.items())
    return dict(entries[at] for at in order)


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
        if not _in_one_turn(left, right):
            return None
        role = one.module.reading.role
        links[leaf] = tuple(
            Link((Bundle((source,), (), role),), (Bundle((target,), (), role),))
            for source, target in zip(left.members.values(), right.members.values(), strict=True)
        )
    return Candidate((one.module,), (other.module,), links, CERTAIN) if links else None


def _in_one_turn(left: TensorClass, right: TensorClass) -> bool:
    """Whether all matrices are kept, or all transposed: up and down in turns, begun with the other, would pair too."""
    several = [
        tuple(tuple(size for size in shape if size != 1) for shape in each.shapes.values()) for each in (left, right)
    ]
    pairs = [(a, b) for a, b in zip(*several, strict=True) if len(a) == len(b) == 2]
    return all(a == b for a, b in pairs) or all(a == b[::-1] for a, b in pairs)
