"""The hub of a family, read as a schema: key sets from sizes, sizes from key sets, and what is missing.

A hub file is an identity: every rule the same on both sides, every tensor with its axes. An index hole carries the axis that counts
it, so `layers.{layers}.` stands for `layers` tensors; `width_` is `width` once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product
from math import prod

from isomorph.language.axes import dim_size
from isomorph.language.expressions import whole_number
from isomorph.language.names import NamePattern, Sizes
from isomorph.language.resolve import dim_axes
from isomorph.language.rules import FullName, LabelHole, Literal, shown
from isomorph.language.tree import Axis as AxisDim
from isomorph.language.tree import Dim, Integer
from isomorph.layouts.catalogue import hub as hub_layout
from isomorph.layouts.family import AGAIN, Family, SizeClash, plain
from isomorph.tensors import DTYPES, Manifest, TensorSpec

F32 = DTYPES["f32"]
_NUMBER = re.compile(r"(?<![^./_:])[0-9]+(?![^./_:])")
"""A number that is a piece of a name, or what follows an underscore in one; `00` too."""


def folded(name: str) -> str:
    """A name with its numbers taken out: `layers.0.fc1.weight` -> `layers.#.fc1.weight`."""
    return _NUMBER.sub("#", name)


@dataclass(frozen=True)
class HubTensor:
    """One line of a schema with its labels chosen: a name pattern whose holes are indices, and the dims."""

    pattern: NamePattern
    text: str
    dims: tuple[Dim, ...]
    indices: tuple[str, ...]
    """The axes of its index holes, in reading order."""
    groups: tuple[str, ...]

    def read(self, name: str) -> tuple[int, ...] | None:
        """The values of its index holes, None when the name is another's."""
        values = self.pattern.read(name)
        if values is None or not all(isinstance(value, int) for value in values.values()):
            return None
        return tuple(int(str(values[axis])) for axis in self.pattern_axes)

    @cached_property
    def pattern_axes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(axis for piece in self.pattern.pieces for axis in _axes_of(piece)))

    def write(self, values: Sequence[int]) -> str:
        return self.pattern.write(dict(zip(self.pattern_axes, values, strict=True)))


def _axes_of(piece: object) -> tuple[str, ...]:
    axis = getattr(piece, "axis", None)
    return (axis,) if axis is not None else tuple(getattr(piece, "axes", ()))


MOST_CLASHES = 20
MOST_MISSING = 50_000
"""Tensors that are named as missing: a number in a name, or in a config, can ask for any number of them."""


@dataclass(frozen=True)
class Clash:
    """Sizes that contradict each other: what is wrong with the tensor, or, without one, with an axis. `more` tensors are alike."""

    said: str
    tensor: str | None = None
    shape: tuple[int, ...] = ()
    more: int = 0
    axis: str | None = None
    size: int | None = None
    """What the tensors say the axis is, where somebody states otherwise."""

    def __str__(self) -> str:
        if self.tensor is None:
            return self.said
        return f"{self.tensor} is {self.shapes}"

    @property
    def shapes(self) -> str:
        """`[3072 768], not [768 3072] (transposed)`."""
        alike = f" (and {self.more} more like it)" if self.more else ""
        return f"[{' '.join(map(str, self.shape))}]{self.said}{alike}"


@dataclass(frozen=True)
class Found:
    """What a key set says when it is read as a hub.

    `sizes` are all axes that shapes and indices tell. `clashes` are tensors whose shapes most others deny, and sizes said otherwise
    than tensors tell. `unknown` are names the hub does not have, `missing` those it must have and the key set lacks. `groups` are
    those present.
    """

    sizes: Mapping[str, int]
    clashes: tuple[Clash, ...] = ()
    unknown: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    groups: frozenset[str] = frozenset()
    missing_specs: Mapping[str, TensorSpec] = field(default_factory=dict)


class Schema:
    """A hub file, ready to expand and to read."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.tensors = tuple(_tensors(family))
        self._by_text: dict[str, list[HubTensor]] = {}
        for one in self.tensors:
            self._by_text.setdefault(folded(one.text), []).append(one)

    @cached_property
    def hidden(self) -> frozenset[str]:
        """The axes that no shape and no name of the hub tells by itself: heads, and what stands in products only."""
        told: set[str] = set()
        for one in self.tensors:
            told.update(map(plain, one.indices))
            told.update(plain(shown(dim.name)) for dim in one.dims if isinstance(dim, AxisDim))
        return frozenset(self.family.axes) - told

    # ── from sizes to key sets ───────────────────────────────────────────────────────────────────────────────────────

    def listed_groups(self) -> frozenset[str]:
        """The groups that a key set shows when nobody says which."""
        return frozenset(group.name for group in self.family.groups.values() if group.listed)

    def expand(self, sizes: Mapping[str, int], groups: Iterable[str] | None = None) -> Manifest:
        """Every tensor of a model of these sizes, f32. `groups` are those that are there (the listed ones unless said).

        Raises KeyError with the axis whose size is not known.
        """
        present = self.listed_groups() if groups is None else frozenset(groups)
        known = _with_again(self.family.complete(sizes))
        found: dict[str, TensorSpec] = {}
        for one in self.tensors:
            if not present.issuperset(one.groups):
                continue
            shape = tuple(dim_size(dim, known) for dim in one.dims)
            for values in product(*(range(known[plain(axis)]) for axis in one.indices)):
                found[one.write(values)] = TensorSpec(F32, shape)
        return Manifest(found, origin=f"{self.family.name} key set")

    def count(self, sizes: Mapping[str, int], groups: Iterable[str]) -> int:
        """How many tensors `expand` would list."""
        present, known = frozenset(groups), self.family.complete(sizes)
        return sum(
            prod(known[plain(axis)] for axis in one.indices) for one in self.tensors if present.issuperset(one.groups)
        )

    def axes_needed(self, groups: Iterable[str] | None = None) -> tuple[str, ...]:
        """The axes whose sizes a key set needs, in the order of the vocabulary."""
        present = self.listed_groups() if groups is None else frozenset(groups)
        used: set[str] = set()
        for one in self.tensors:
            if present.issuperset(one.groups):
                used.update(plain(axis) for axis in one.indices)
                used.update(plain(axis) for dim in one.dims for axis in _dim_axes(dim))
        return tuple(axis for axis in self.family.axes if axis in used)

    # ── from key sets to sizes ───────────────────────────────────────────────────────────────────────────────────────

    def which(self, name: str) -> tuple[HubTensor, tuple[int, ...]] | None:
        """The schema's tensor of that name, and its indices."""
        for one in self._by_text.get(folded(name), ()):
            values = one.read(name)
            if values is not None:
                return one, values
        return None

    def read(
        self,
        manifest: Mapping[str, TensorSpec],
        given: Mapping[str, int] | None = None,
        by: Mapping[str, str] | None = None,
    ) -> Found:
        """Read sizes off a key set, and find what it lacks. `given` are sizes that are known beforehand, `by` who says so where it
        is not the config."""
        seen: dict[HubTensor, set[tuple[int, ...]]] = {}
        unknown: list[str] = []
        sizes = _SizesRead(self.family)
        for name, tensor in manifest.items():
            found = self.which(name)
            if found is None:
                unknown.append(name)
                continue
            one, values = found
            seen.setdefault(one, set()).add(values)
            sizes.learn(one.dims, tensor.shape, name)
        counts = self._counts(seen)
        for axis, count in list(counts.items()):
            if isinstance(axis, str):
                counts[axis] = max(count, sizes.most(axis) or 0)
                sizes.say(axis, count, "the numbers in its names", is_stated=False)
        stated = dict(counts)
        for axis, size in (given or {}).items():
            if axis in self.family.axes and self.family.axes[axis].config is not None:
                sizes.say(axis, size, (by or {}).get(axis, "the config"))
                if axis in counts and size > counts[axis]:
                    stated[axis] = size
        known = sizes.solve()
        groups = frozenset(group for one in seen for group in one.groups)
        # What is missing is told by what others state, unless they state what no checkpoint has; else by the names alone.
        specs = self._missing(seen, stated, groups, known)
        if specs is None and stated != counts:
            specs = self._missing(seen, counts, groups, known)
        if specs is None:
            sizes.clashes.append(Clash(self._beyond(seen)))
        missing = {} if specs is None else {name: spec for name, spec in specs.items() if spec is not None}
        return Found(known, tuple(sizes.clashes), tuple(unknown), tuple(specs or ()), groups, missing)

    def _counts(self, seen: Mapping[HubTensor, set[tuple[int, ...]]]) -> dict[object, int]:
        """How many there are of each index: one number an axis, of a ragged one a number for each place above it."""
        counts: dict[object, int] = {}
        for one, places in seen.items():
            for values in places:
                for depth, (axis, value) in enumerate(zip(one.indices, values, strict=True)):
                    key = self._key(axis, values[:depth])
                    counts[key] = max(counts.get(key, 0), value + 1)
        return counts

    def _key(self, axis: str, above: Sequence[int]) -> object:
        """What an index is counted by: its axis; a ragged one for each place above it."""
        name = plain(axis)
        ragged = name in self.family.axes and self.family.axes[name].ragged
        return (name, tuple(above)) if ragged else name

    def _missing(
        self,
        seen: Mapping[HubTensor, set[tuple[int, ...]]],
        counts: Mapping[object, int],
        groups: frozenset[str],
        sizes: Mapping[str, int],
    ) -> dict[str, TensorSpec | None] | None:
        """What is not there, None for a tensor of which not all sizes are known; None for more than anyone can be asked for."""
        found: dict[str, TensorSpec | None] = {}
        known = _with_again(sizes)
        for one in self.tensors:
            if not groups.issuperset(one.groups):
                continue
            if any(self.family.groups[group].scattered for group in one.groups):
                continue
            places = seen.get(one, set())
            spec: TensorSpec | None
            try:
                spec = TensorSpec(F32, tuple(dim_size(dim, known) for dim in one.dims))
            except KeyError:
                spec = None
            for values in self._places(one, counts):
                if values not in places:
                    if len(found) >= MOST_MISSING:
                        return None
                    found[one.write(values)] = spec
        return found

    def _beyond(self, seen: Mapping[HubTensor, set[tuple[int, ...]]]) -> str:
        """What to say of numbers in names that leave more out than anyone can be asked for: the largest, and how many are there."""
        there: dict[str, set[int]] = {}
        for one, places in seen.items():
            for values in places:
                for axis, value in zip(one.indices, values, strict=True):
                    there.setdefault(plain(axis), set()).add(value)
        axis = max(there, key=lambda name: max(there[name]) / len(there[name]))
        return (
            f"its names number {axis} up to {max(there[axis]):,}, and {len(there[axis]):,} of them are there: "
            f"more than {MOST_MISSING:,} tensors are missing"
        )

    def _places(self, one: HubTensor, counts: Mapping[object, int]) -> Iterator[tuple[int, ...]]:
        def below(values: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
            if len(values) == len(one.indices):
                yield values
                return
            key = self._key(one.indices[len(values)], values)
            for value in range(counts.get(key, 1)):
                yield from below((*values, value))

        yield from below(())


class _SizesRead:
    """Equations between shapes and axes, solved as far as they go. Where tensors tell different sizes, most of them decide, so
    that the one that is wrong is named."""

    def __init__(self, family: Family) -> None:
        self.family = family
        self.votes: dict[str, dict[int, list[str]]] = {}
        self.seen: list[tuple[Sequence[Dim], Sequence[int], str]] = []
        self.clashes: list[Clash] = []

    def tell(self, axis: str, size: int, by: str) -> None:
        axis = plain(axis)
        if axis in self.family.axes and self.family.axes[axis].ragged:
            return
        self.votes.setdefault(axis, {}).setdefault(size, []).append(by)

    def learn(self, dims: Sequence[Dim], shape: Sequence[int], name: str) -> None:
        if len(dims) != len(shape):
            said = f": {len(shape)} axes, not {len(dims)}"
            self.clashes.append(Clash(said, name, tuple(shape)))
            return
        self.seen.append((dims, shape, name))
        for dim, size in zip(dims, shape, strict=True):
            if isinstance(dim, AxisDim):
                self.tell(shown(dim.name), size, name)

    def say(self, axis: str, size: int, by: str, *, is_stated: bool = True) -> None:
        """A size that no tensor's shape tells. What the shapes tell stands; another size is a clash."""
        most = self.most(axis)
        if most is not None and size not in self.votes[axis]:
            said = f"{axis} is {most} by {self.votes[axis][most][0]}, but {size} by {by}"
            self.clashes.append(Clash(said, axis=axis, size=most) if is_stated else Clash(said))
        self.tell(axis, size, by)

    def most(self, axis: str) -> int | None:
        """The size that most tensors tell."""
        votes = self.votes.get(axis)
        return None if votes is None else max(votes, key=lambda one: len(votes[one]))

    def solve(self) -> dict[str, int]:
        known = {axis: size for axis in self.votes if (size := self.most(axis)) is not None}
        products = {(dim, size) for dims, shape, _ in self.seen for dim, size in zip(dims, shape, strict=True)}
        open_ = [one for one in products if not isinstance(one[0], AxisDim | Integer)]
        for _ in range(len(open_) + 1):
            before = len(known)
            try:
                known = self.family.complete(known)
            except SizeClash as clash:
                said = f"{clash}: the sizes that it follows from contradict its own"
                if not any(one.said == said for one in self.clashes):
                    self.clashes.append(Clash(said))
            for dim, size in open_:
                unknown = [axis for axis in map(plain, _dim_axes(dim)) if axis not in known]
                if len(unknown) == 1:
                    at = [dim_size(dim, _with_again({**known, unknown[0]: n})) for n in (0, 1)]
                    if at[1] != at[0] and (size - at[0]) % (at[1] - at[0]) == 0:
                        known[unknown[0]] = (size - at[0]) // (at[1] - at[0])
            if len(known) == before:
                break
        self._compare(known)
        return known

    def _compare(self, known: Mapping[str, int]) -> None:
        """Every tensor whose shape is not what these sizes make it; those alike in all but their numbers are told once."""
        sizes = _with_again(known)
        like: dict[tuple[str, tuple[int, ...], tuple[int | None, ...]], list[str]] = {}
        shapes: dict[int, tuple[int | None, ...]] = {}
        for dims, shape, name in self.seen:
            wanted = shapes.get(id(dims))
            if wanted is None:
                wanted = shapes[id(dims)] = tuple(
                    dim_size(dim, sizes) if all(axis in sizes for axis in _dim_axes(dim)) else None for dim in dims
                )
            if any(one is not None and one != size for one, size in zip(wanted, shape, strict=True)):
                like.setdefault((folded(name), tuple(shape), wanted), []).append(name)
        for (_, shape, wanted), names in list(like.items())[:MOST_CLASHES]:
            whole = " ".join("?" if one is None else str(one) for one in wanted)
            said = f", not [{whole}]" + (" (transposed)" if shape == tuple(reversed(wanted)) else "")
            self.clashes.append(Clash(said, names[0], shape, more=len(names) - 1))


def _with_again(sizes: Mapping[str, int]) -> dict[str, int]:
    return {**sizes, **{axis + AGAIN: size for axis, size in sizes.items()}}


def _dim_axes(dim: Dim) -> Iterator[str]:
    return map(shown, dim_axes(dim))


def _tensors(family: Family) -> Iterator[HubTensor]:
    (program,) = hub_layout(family.name).morph.programs(dict(family.example))
    sizes = Sizes({}, lambda expression: whole_number(expression, {}, {}))
    patterns = {name: [matcher(text) for text in group.patterns] for name, group in family.groups.items()}
    for rule in program.rules:
        for term in rule.right:
            if not isinstance(term.head, FullName):
                continue
            for head in _label_choices(term.head):
                pattern = NamePattern(head, sizes)
                text = "".join(piece.value if isinstance(piece, Literal) else "0" for piece in pattern.pieces)
                groups = tuple(name for name, ones in patterns.items() if any(one.fullmatch(text) for one in ones))
                indices = tuple(dict.fromkeys(shown(axis) for axis in head.axes))
                yield HubTensor(pattern, text, term.dims, indices, groups)


def _label_choices(head: FullName) -> Iterator[FullName]:
    """The name with every choice of its labels, as names whose only holes are indices."""
    axes = {piece.axis: len(piece.labels) for piece in head.pieces if isinstance(piece, LabelHole)}
    for choice in product(*(range(count) for count in axes.values())):
        chosen = dict(zip(axes, choice, strict=True))
        pieces = [
            Literal(piece.labels[chosen[piece.axis]]) if isinstance(piece, LabelHole) else piece
            for piece in head.pieces
        ]
        yield FullName(tuple(pieces), head.text)


@cache
def matcher(pattern: str) -> re.Pattern[str]:
    """What a pattern of names fits: `*` is one piece, `**` any path."""
    text = re.escape(pattern).replace(r"\*\*", ".+").replace(r"\*", "[^./]+")
    return re.compile(text, re.DOTALL)


@cache
def schema(family_name: str) -> Schema:
    """The schema of a family's hub."""
    from isomorph.layouts.catalogue import family

    return Schema(family(family_name))
