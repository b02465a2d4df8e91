"""Manifest -> classes: names that differ only in numbers that count instances (layers, experts, stages).

A number counts instances when its siblings hold the same things: `layers.0`, `layers.1`. It stays part of the name where they
differ: the submodules of a T5 block (`layer.0.SelfAttention`, `layer.1.DenseReluDense`), `mlp.0`, `mlp.2`, `fc1`, `fc2`,
stages of other widths. What is left is compared by its rank among its siblings, so `fc1`, `fc2` are as good as
`Dense_0`, `Dense_1`. The idea of Drain (He et al. 2017): a template is what stays, a variable what varies; here the
shapes have a say too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from isomorph.infer.by_name.tokens import Token, tokens
from isomorph.tensors import TensorSpec

CONTAINERS = frozenset({
    "layer", "layers", "block", "blocks", "h", "resblock", "resblocks", "blk", "encoderblock", "decoderblock", "transformerblock",
    "stage", "stages", "experts", "expert", "groups", "group", "resnets", "attentions", "units", "unit", "cell", "cells",
})  # fmt: skip
"""Words before a number that counts instances even where they are glued to it (`layer_0`, `encoderblock_3`)."""

LEAVES = frozenset({"weight", "bias"})
"""Words before a number that counts tensors: the experts of a grouped matrix (`weight0`, `weight1`)."""

Shape = tuple[int, ...]
HOLE = "{}"
FILE = "{::}"
"""The index of a file among those of one checkpoint (`consolidated.{:02}::`): not of a layer."""


@dataclass(frozen=True)
class TensorClass:
    """Tensors whose names differ only in indices. `template` has `{}` for each; `words` are its tokens, `{}` among them, a literal
    number as `#rank/count` among its siblings."""

    template: str
    words: tuple[str, ...]
    raw: tuple[str, ...]
    """The same with the digits of literal numbers."""
    pieces: tuple[int, ...]
    """The piece of the path in which each word stands."""
    members: Mapping[tuple[int, ...], str]
    """Index values -> name, in rising order."""
    shapes: Mapping[tuple[int, ...], Shape]

    @cached_property
    def shape(self) -> Shape:
        """The shape of the first member."""
        return next(iter(self.shapes.values()))

    @cached_property
    def extents(self) -> tuple[int, ...]:
        """How many values each index takes."""
        return tuple(len(set(column)) for column in zip(*self.members, strict=True))


def classes(tensors: Mapping[str, TensorSpec]) -> tuple[TensorClass, ...]:
    """The classes of a manifest, in the order of their first tensor."""
    spelled = _keras_numbered(tensors)
    cut = {name: tokens(name) for name in spelled}
    numbers = _Numbers({name: tensors[real] for name, real in spelled.items()}, cut)
    rows: dict[str, list[tuple[tuple[int, ...], str]]] = defaultdict(list)
    for name, found in cut.items():
        index = tuple(int(token.text) for at, token in enumerate(found) if numbers.counts(name, at))
        rows[numbers.template(name)].append((index, name))
    out = []
    for template, members in rows.items():
        members.sort()
        first = members[0][1]
        out.append(
            TensorClass(
                template,
                numbers.spelled(first),
                tuple(
                    numbers.hole(first, at) if numbers.counts(first, at) else token.text
                    for at, token in enumerate(cut[first])
                ),
                tuple(token.piece for token in cut[first]),
                {index: spelled[name] for index, name in members},
                {index: tensors[spelled[name]].shape for index, name in members},
            )
        )
    return tuple(out)


def _keras_numbered(tensors: Mapping[str, TensorSpec]) -> dict[str, str]:
    """Names with Keras's numbers made plain: of the pieces `block`, `block_1`, `block_2` of one parent the first is `block_0`.
    Those that are each in a parent of its own (`layer_0/moe`, `layer_1/moe_1`) are counted by their parents: all are `moe`. New
    name -> name."""
    numbered: set[tuple[str, str]] = set()
    for name in tensors:
        pieces = name.split("/")
        for at, piece in enumerate(pieces):
            if piece.endswith("_1"):
                numbered.add(("/".join(pieces[:at]), piece[:-2]))
    spread = _spread(tensors)
    out: dict[str, str] = {}
    for name in tensors:
        pieces = name.split("/")
        new = []
        for at, piece in enumerate(pieces):
            parent = "/".join(pieces[:at])
            if (parent, piece) in spread:
                new.append(spread[parent, piece])
            else:
                new.append(f"{piece}_0" if (parent, piece) in numbered else piece)
        out["/".join(new)] = name
    return out if len(out) == len(tensors) else {name: name for name in tensors}


def _spread(tensors: Mapping[str, TensorSpec]) -> dict[tuple[str, str], str]:
    """(Parent, piece) -> the piece without its number, for pieces `x`, `x_1`, `x_2`, … of which each parent of a kind has one."""
    held: dict[tuple[str, str], dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for name in tensors:
        pieces = name.split("/")
        for at in range(1, len(pieces) - 1):
            stem, number = _numbered(pieces[at])
            parent = "/".join(pieces[:at])
            kind = "/".join(piece.rstrip("0123456789") for piece in pieces[:at])
            held[kind, stem][parent].add(number)
    out: dict[tuple[str, str], str] = {}
    for (_, stem), parents in held.items():
        numbers = [number for found in parents.values() for number in found]
        if len(parents) > 1 and sorted(numbers) == list(range(len(parents))):
            for parent, number in zip(parents, numbers, strict=True):
                out[parent, f"{stem}_{number}" if number else stem] = stem
    return out


def _numbered(piece: str) -> tuple[str, int]:
    """A piece as Keras numbers it: `moe_2` is (`moe`, 2), `moe` is (`moe`, 0)."""
    stem, _, number = piece.rpartition("_")
    return (stem, int(number)) if stem and number.isdecimal() and number[0] != "0" else (piece, 0)


class _Numbers:
    """What the numbers of all names do: which count, and the rank of those that do not. Found from the outermost
    number inward: what stands before a number is its siblings' when the numbers in it count, and its own when they do not."""

    def __init__(self, tensors: Mapping[str, TensorSpec], cut: Mapping[str, tuple[Token, ...]]) -> None:
        self.cut = cut
        self.keys: dict[str, dict[int, str]] = {name: {} for name in cut}
        self.counted: dict[str, frozenset[int]] = {}
        self.ranks: dict[str, dict[int, int]] = {}
        places = {name: [at for at, token in enumerate(found) if token.is_number] for name, found in cut.items()}
        for depth in range(max(map(len, places.values()), default=0)):
            below: dict[str, dict[int, dict[str, set[Shape]]]] = defaultdict(lambda: defaultdict(dict))
            example: dict[str, tuple[str, int]] = {}
            for name, numbers in places.items():
                if len(numbers) > depth:
                    at = numbers[depth]
                    key = self.keys[name][at] = self._before(name, at)
                    rest = _after(name, cut[name], at)
                    below[key][int(cut[name][at].text)].setdefault(rest, set()).add(tensors[name].shape)
                    example.setdefault(key, (name, at))
            for key, values in below.items():
                name, at = example[key]
                self.counted[key] = _counted(values, *_setting(cut[name], at))
                self.ranks[key] = {value: rank for rank, value in enumerate(sorted(values))}

    def _before(self, name: str, until: int) -> str:
        out = []
        last = 0
        for at, token in enumerate(self.cut[name][:until]):
            if self.counts(name, at):
                out += [name[last : token.start], HOLE]
                last = token.end
        return "".join([*out, name[last : self.cut[name][until].start]])

    def counts(self, name: str, at: int) -> bool:
        """True when that token of the name is an index."""
        key = self.keys[name].get(at)
        return key is not None and int(self.cut[name][at].text) in self.counted[key]

    def hole(self, name: str, at: int) -> str:
        """What stands for an index: of a file, or of anything else."""
        return FILE if name.startswith("::", self.cut[name][at].end) else HOLE

    def template(self, name: str) -> str:
        """The name with `{}` in the place of its indices."""
        out = []
        last = 0
        for at, token in enumerate(self.cut[name]):
            if self.counts(name, at):
                out += [name[last : token.start], HOLE]
                last = token.end
        return "".join([*out, name[last:]])

    def spelled(self, name: str) -> tuple[str, ...]:
        """Its tokens: `{}` for an index, `#rank/count` for another number that has siblings."""
        out = []
        for at, token in enumerate(self.cut[name]):
            key = self.keys[name].get(at)
            if key is None:
                out.append(token.text)
            elif self.counts(name, at):
                out.append(self.hole(name, at))
            else:
                ranks = self.ranks[key]
                out.append(f"#{ranks[int(token.text)]}/{len(ranks)}" if len(ranks) > 1 else token.text)
        return tuple(out)


def _after(name: str, found: tuple[Token, ...], at: int) -> str:
    """The text after a number, later numbers left out."""
    out = []
    last = found[at].end
    for token in found[at + 1 :]:
        if token.is_number:
            out += [name[last : token.start], HOLE]
            last = token.end
    return "".join([*out, name[last:]])


def _setting(found: tuple[Token, ...], at: int) -> tuple[bool, str, bool]:
    """Whether a number is a piece of its own, the word before it, and whether that word is the rest of its piece."""
    beside = [place for place, token in enumerate(found) if token.piece == found[at].piece and place != at]
    return not beside, found[at - 1].text if at else "", beside == [at - 1]


def _counted(
    values: Mapping[int, Mapping[str, set[Shape]]], is_whole: bool, word: str, is_one_word: bool
) -> frozenset[int]:
    """The values of a number that hold the same things as a neighbour, so that the number counts them: all of them, or those of a
    run of layers in a longer list (`sequential.2` to `sequential.13`)."""
    order = sorted(values)
    is_container = word in CONTAINERS
    deep = any(_has_submodules(rest) for held in values.values() for rest in held)
    everything, nothing = frozenset(order), frozenset[int]()
    if len(values) == 1:
        return everything if is_container and deep and (is_whole or (is_one_word and 0 in values)) else nothing
    scores = _likeness([values[value] for value in order])
    alike, equal = _means(scores)
    if not deep:
        uniform = alike == 1 and equal == 1
        return everything if uniform and (word in LEAVES or (len(values) > 2 and is_whole)) else nothing
    if is_whole or is_container:
        kin = [at for at, score in enumerate(scores) if score[0] >= 0.2]
        alike, equal = _means([scores[at] for at in kin])
        if len(kin) > 1 and alike >= 0.34 and equal >= 0.5:
            return frozenset(order[at] for at in kin)
    elif len(values) > 3 and alike >= 0.5 and equal >= 0.5:
        return everything
    run = [value for value, score in zip(order, scores, strict=True) if score == (1, 1) and len(values[value]) > 5]
    return frozenset(run) if len(run) > 1 and len({frozenset(values[value]) for value in run}) == 1 else nothing


def _means(scores: list[tuple[float, float]]) -> tuple[float, float]:
    count = max(1, len(scores))
    return sum(score[0] for score in scores) / count, sum(score[1] for score in scores) / count


def _has_submodules(rest: str) -> bool:
    pieces = [piece for piece in _split(rest) if piece]
    return len(pieces) > 1 or (not rest.startswith((".", "/", ":")) and len(tokens(rest)) > 1)


def _split(rest: str) -> Iterable[str]:
    return rest.replace("/", ".").replace(":", ".").split(".")


def _likeness(held: list[Mapping[str, set[Shape]]]) -> list[tuple[float, float]]:
    """How much each has in common with a neighbour: of their suffixes, and of the shapes of those. Each is compared with the two
    before it and the two after it, and the likest counts (layers may alternate)."""
    out = []
    for at, one in enumerate(held):
        scores = []
        for other in (held[near] for near in range(max(0, at - 2), min(len(held), at + 3)) if near != at):
            both = one.keys() & other.keys()
            same = sum(one[rest] == other[rest] for rest in both)
            scores.append((len(both) / len(one.keys() | other.keys()), same / max(1, len(both))))
        out.append(max(scores))
    return out
