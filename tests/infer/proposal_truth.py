"""A Proposed held against the truth: for each target, whether its relation is right, wrong, asked (with the truth among the
alternatives or not) or missing. Element by element, by a reading of relations of its own: nothing of the planner is used for them.

    truth = Truth.of_plan(plan)             the moves of a plan known to be right, as numbers of source elements
    score = judge(proposed, truth, target)  a Verdict per target, and their counts
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from isomorph.infer.nouns import Dropped, Filled, Part, Product, Proposed, Relation
from isomorph.plan.moves import Box, Fill, Mix, Move
from isomorph.plan.plan import Plan
from isomorph.tensors import Manifest

Array = np.ndarray[Any, np.dtype[np.int64]]
State = Literal["right", "wrong", "asked", "asked without the truth", "unplaced"]
LOST = -1
"""An element that nothing makes."""


class Numbers:
    """A number for every element of every source, and for every constant. Sources that are equal copies have the same ones."""

    def __init__(self, source: Manifest, ties: Sequence[tuple[str, str]] = ()) -> None:
        self.source = source
        self.first: dict[str, str] = {}
        for one, other in ties:
            a, b = self.head(one), self.head(other)
            if a != b and source[a].shape == source[b].shape:
                self.first[max(a, b)] = min(a, b)
        self.base: dict[str, int] = {}
        at = 0
        for name, spec in source.items():
            self.base[name] = at
            at += max(1, math.prod(spec.shape))
        self.ends = at
        self.starts = np.array([*self.base.values(), at], np.int64)
        self.names = list(self.base)

    def head(self, name: str) -> str:
        """The first of the copies that a source belongs to."""
        while name in self.first:
            name = self.first[name]
        return name

    def of(self, name: str) -> Array:
        """The numbers of all elements of a source, in its shape."""
        shape = self.source[name].shape
        start = self.base[self.head(name)]
        return np.arange(start, start + math.prod(shape), dtype=np.int64).reshape(shape)

    @staticmethod
    def constant(value: float) -> int:
        """The number that stands for a constant."""
        return -2 - int(np.float64(value + 0.0).view(np.int64) & 0x7FFF_FFFF_FFFF) - (1 << 48) * (value < 0)

    def tensors(self, numbers: Array) -> frozenset[str]:
        """The sources that these elements are of; `=` for a constant."""
        flat = numbers.reshape(-1)
        places = np.bincount(np.searchsorted(self.starts, flat, side="right"), minlength=len(self.starts))
        found = {self.names[int(place) - 1] for place in np.flatnonzero(places) if place}
        return frozenset(found | ({"="} if places[0] else set()))


@dataclass(frozen=True)
class Truth:
    """What is right: for each target the source element of each of its elements."""

    numbers: Numbers
    targets: Mapping[str, Array]

    @staticmethod
    def of_plan(plan: Plan) -> Truth:
        """The truth that a plan says."""
        ties = [
            (check.source.tensor, check.expected.tensor)
            for check in plan.checks
            if check.kind == "tie" and isinstance(check.source, Box) and isinstance(check.expected, Box)
        ]
        numbers = Numbers(plan.source, [pair for pair in ties if all(name in plan.source for name in pair)])
        shapes = {name: target.spec.shape for name, target in plan.targets.items()}
        return Truth.of_moves(plan.moves, numbers, shapes)

    @staticmethod
    def of_moves(moves: Sequence[Move], numbers: Numbers, shapes: Mapping[str, tuple[int, ...]]) -> Truth:
        """The truth that moves say. Of sums of sources, the first is taken."""
        made = {name: np.full(math.prod(shape), LOST, np.int64) for name, shape in shapes.items()}
        for move in moves:
            source = move.source.sources[0] if isinstance(move.source, Mix) else move.source
            target = _strided(made[move.target.tensor], move.target)
            if isinstance(source, Box):
                target[...] = _strided(numbers.of(source.tensor).reshape(-1), source)
            elif isinstance(source, Fill):
                target[...] = Numbers.constant(float(source.value)) if source.arange_strides is None else -2
        return Truth(numbers, {name: made[name].reshape(shape) for name, shape in shapes.items()})


def _strided(flat: Array, box: Box) -> Array:
    start = flat[box.offset :]
    strides = tuple(step * flat.itemsize for step in box.strides)
    return np.lib.stride_tricks.as_strided(start, box.shape, strides)


def written_out(relation: Relation, numbers: Numbers) -> dict[str, Array]:
    """What a relation makes, for each of its targets the numbers of its elements.

    Raises ValueError where shapes, blocks or sizes do not agree, as a plan would.
    """
    sizes = relation.sizes
    waiting: dict[frozenset[str], list[tuple[tuple[str, ...], Array | int | None]]] = {}
    for part in relation.left:
        whole = None
        if isinstance(part, Part):
            for name in part.every:
                if numbers.source[name].shape != relation.shape(part):
                    raise ValueError(
                        f"{name} is {numbers.source[name].shape}, the relation says {relation.shape(part)}"
                    )
            whole = np.stack([numbers.of(name) for name in part.names])
            whole = whole.reshape(tuple(sizes[axis] for axis in part.along) + whole.shape[1:])
        for region in _blocks(part, relation):
            block: Array | int | None = None
            if whole is not None:
                block = region.view(whole, sizes)
            elif isinstance(part, Filled):
                block = -2 if part.text == "arange" else Numbers.constant(float(part.text))
            waiting.setdefault(frozenset(region.axes), []).append((region.axes, block))
    made: dict[str, Array] = {}
    for part in relation.right:
        if isinstance(part, Filled):
            raise ValueError("a constant on the right is a check, not a target")
        whole = None
        if isinstance(part, Part):
            along = tuple(sizes[axis] for axis in part.along)
            if math.prod(along) != len(part.names):
                raise ValueError(f"{len(part.names)} names along {along}")
            whole = np.full(along + relation.shape(part), LOST, np.int64)
        for region in _blocks(part, relation):
            if not waiting.get(frozenset(region.axes)):
                raise ValueError(f"nothing pairs with the block {region.axes}")
            order, block = waiting[frozenset(region.axes)].pop(0)
            if whole is None or block is None:
                continue
            if not isinstance(block, int):
                block = block.transpose([order.index(axis) for axis in region.axes])
            region.view(whole, sizes)[...] = block
        if whole is not None and isinstance(part, Part):
            grid = whole.reshape(len(part.names), *relation.shape(part))
            for names in (part.names, *part.copies):
                made.update(zip(names, grid, strict=True))
    if any(waiting.values()):
        raise ValueError("blocks of the left that nothing takes")
    return made


@dataclass(frozen=True)
class _Region:
    """One block of a part: for each dim the run of it that it lies in, the symbols that this run splits into, each with the run of
    a sum that is taken (None: the whole axis), and the axes in the end."""

    runs: tuple[slice, ...]
    symbols: tuple[tuple[int, slice | None], ...]
    axes: tuple[str, ...]

    def view(self, whole: Array, sizes: Mapping[str, int]) -> Array:
        """The block as a view of [along, dims], one dim an axis."""
        runs: Any = (*self.runs, ...)  # the ellipsis keeps an array of no dims an array
        found: Array = whole[runs].view()
        found.shape = tuple(size for size, _ in self.symbols)
        runs = (*(slice(None) if run is None else run for _, run in self.symbols), ...)
        found = found[runs].view()
        found.shape = tuple(sizes[axis] for axis in self.axes)
        return found


def _blocks(part: Part | Filled | Dropped, relation: Relation) -> Iterator[_Region]:
    """The blocks of a part in reading order."""
    sizes = relation.sizes
    along = part.along if isinstance(part, Part) else ()
    choices = []
    for dim in part.dims:
        at = 0
        summands = []
        for product in dim:
            size = math.prod(sizes[axis] for axis in product)
            summands += [(slice(at, at + size), *inner) for inner in _inner(product, relation)]
            at += size
        choices.append(summands)
    for chosen in itertools.product(*choices):
        symbols = tuple(symbol for _, inner, _ in chosen for symbol in inner)
        axes = (*along, *(axis for _, _, names in chosen for axis in names))
        if len(set(axes)) != len(axes):
            raise ValueError(f"an axis twice in one block: {axes}")
        before = tuple((sizes[axis], None) for axis in along)
        yield _Region((*(slice(None) for _ in along), *(run for run, _, _ in chosen)), (*before, *symbols), axes)


def _inner(product: Product, relation: Relation) -> Iterator[tuple[tuple[tuple[int, slice | None], ...], Product]]:
    """Each choice of summands in the sums inside a product: its symbols as a _Region has them, and the axes they come to."""
    choices: list[list[tuple[tuple[int, slice | None], Product]]] = []
    for symbol in product:
        size = relation.sizes[symbol]
        if symbol not in relation.sums:
            choices.append([((size, None), (symbol,))])
            continue
        at = 0
        choices.append([])
        for summand in relation.sums[symbol]:
            extent = math.prod(relation.sizes[axis] for axis in summand)
            choices[-1].append(((size, slice(at, at + extent)), summand))
            at += extent
    for chosen in itertools.product(*choices):
        yield tuple(symbol for symbol, _ in chosen), tuple(axis for _, axes in chosen for axis in axes)


@dataclass(frozen=True)
class Verdict:
    """One target: what became of it; the same of its sources alone; and what is wrong or asked (`source`, `orientation`, `order`,
    …; "" where nothing is)."""

    target: str
    state: State
    sources: State
    about: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Score:
    """The verdicts of all targets."""

    verdicts: tuple[Verdict, ...]

    def count(self, state: State, about: str | None = None) -> int:
        """How many targets are in a state (about something)."""
        return sum(one.state == state and about in (None, one.about) for one in self.verdicts)

    def of(self, state: State) -> list[str]:
        """The targets in a state."""
        return [one.target for one in self.verdicts if one.state == state]

    @property
    def states(self) -> dict[str, int]:
        """State -> how many targets."""
        return dict(Counter(one.state for one in self.verdicts))

    @property
    def sources_known(self) -> float:
        """The share of targets whose sources are certain and right."""
        return sum(one.sources == "right" for one in self.verdicts) / max(1, len(self.verdicts))

    def __str__(self) -> str:
        wrong = Counter(one.about for one in self.verdicts if one.state == "wrong")
        asked = Counter(one.about for one in self.verdicts if one.state.startswith("asked"))
        return (
            f"{len(self.verdicts):5} targets  {self.count('right'):5} right  {self.count('wrong'):3} wrong {dict(wrong) or ''}"
            f"  {self.count('asked'):4} asked {dict(asked) or ''}  {self.count('asked without the truth'):3} asked without the truth"
            f"  {self.count('unplaced'):3} unplaced  sources {100 * self.sources_known:.1f} %"
        )


def judge(proposed: Proposed, truth: Truth, targets: Sequence[str] | None = None) -> Score:
    """Hold a proposal against the truth. `targets` are those that count (all that the truth makes, unless said)."""
    found: dict[str, tuple[Array | None, Relation]] = {}
    for relation in proposed.relations:
        for name, array in _made(relation, truth.numbers).items():
            if name in found:
                raise AssertionError(f"{name} is in two relations")
            found[name] = (array, relation)
    asked: dict[str, Verdict] = {}
    for question in proposed.questions:
        made = [
            {name: array for relation in one.relations for name, array in _made(relation, truth.numbers).items()}
            for one in question.alternatives
        ]
        names = [name for name in question.targets if name in truth.targets]
        right = [all(_same(arrays.get(name), truth.targets[name]) for name in names) for arrays in made]
        for name in names:
            wanted = truth.numbers.tensors(truth.targets[name])
            sources = [
                arrays.get(name) is not None and truth.numbers.tensors(_array(arrays[name])) == wanted
                for arrays in made
            ]
            state: State = "asked" if any(right) else "asked without the truth"
            by: State = "right" if all(sources) else ("asked" if any(sources) else "asked without the truth")
            if name in found:
                raise AssertionError(f"{name} is in a relation and in a question")
            asked[name] = Verdict(name, state, by, question.kind)
    verdicts = []
    for name in targets if targets is not None else truth.targets:
        if name in found:
            array, relation = found[name]
            verdicts.append(_verdict(name, array, relation, truth))
        elif name in asked:
            verdicts.append(asked[name])
        else:
            nothing: State = "right" if (truth.targets[name] == LOST).all() else "unplaced"
            verdicts.append(Verdict(name, nothing, nothing))
    return Score(tuple(verdicts))


def _made(relation: Relation, numbers: Numbers) -> Mapping[str, Array | None]:
    """What a relation makes; None for each target of one that cannot be carried out."""
    try:
        return {**written_out(relation, numbers)}
    except ValueError:
        return dict.fromkeys(relation.targets)


def _array(found: Array | None) -> Array:
    assert found is not None
    return found


def _same(found: Array | None, wanted: Array) -> bool:
    return found is not None and found.shape == wanted.shape and bool((found == wanted).all())


def _verdict(name: str, array: Array | None, relation: Relation, truth: Truth) -> Verdict:
    wanted = truth.targets[name]
    if _same(array, wanted):
        return Verdict(name, "right", "right", evidence=relation.evidence)
    if array is None or array.shape != wanted.shape:
        return Verdict(name, "wrong", "wrong", "shape", relation.evidence)
    if truth.numbers.tensors(array) != truth.numbers.tensors(wanted):
        return Verdict(name, "wrong", "wrong", "source", relation.evidence)
    several = len(relation.sources) > 1 or len(relation.targets) > 1
    return Verdict(name, "wrong", "right", "order" if several else "orientation", relation.evidence)
