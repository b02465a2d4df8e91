"""One Program read on one manifest: which tensors it makes, and of what. Nothing is planned; every question is answered when asked.

stage = Stage(program, specs, …)     stage.specs      name → TensorSpec of everything made
                                     stage.pieces(n)  what tensor n is made of, as Regions
                                     stage.checks()   what must hold besides (ties, written constants)
                                     stage.gaps       why the morph does not apply, when it does not
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from isomorph.errors import Gap, MorphError
from isomorph.language.rules import FlatTerm, FullName, Program, Rule
from isomorph.language.tree import Constant as ConstantHead
from isomorph.language.tree import Drop, Op
from isomorph.tensors import DType, Manifest, TensorSpec, dtype
from isomorph.verify.instances import (
    MOST_COPIES,
    Instance,
    complete,
    group,
    make_reader,
    shapes_of,
    take,
)
from isomorph.verify.making import Maker
from isomorph.verify.operators import Refused
from isomorph.verify.readback import Made, read_back
from isomorph.verify.reading import Pattern, UnknownFactor
from isomorph.verify.regions import Leaf, Region
from isomorph.verify.shapes import size_of, spread
from isomorph.verify.sizes import SizeProblem, gap, missing, solve
from isomorph.verify.values import BadConstant, constant_bits
from isomorph.verify.whole_blocks import parts_items

NO_AXES: Mapping[str, int] = {}
MOST_KEPT = 1024
"""Tensors whose pieces are kept at hand."""


@dataclass(slots=True)
class Tensor:
    """A tensor that is made: the right term of an instance, at these values of the axes in its name."""

    spec: TensorSpec
    instance: Instance
    term: int
    at: Mapping[str, int]
    ties: Mapping[str, int]


@dataclass(frozen=True)
class Check:
    """Both sides of the region must be equal, bit for bit. `what` says so in words."""

    kind: str
    what: str
    region: Region
    rule: Rule


class Stage:
    """`level` is 1 for the first program of a chain; `ghosts` are names that an earlier stage could not make."""

    def __init__(
        self,
        program: Program,
        source: Mapping[str, TensorSpec],
        *,
        level: int,
        config: Mapping[str, object],
        given: Mapping[str, int],
        last: Op | None = None,
        ghosts: Sequence[str] = (),
    ) -> None:
        self.level = level
        self.config = config
        self.last = last
        held = source.tensors if isinstance(source, Manifest) else source
        self.source: Mapping[str, TensorSpec | None] = {**held, **dict.fromkeys(ghosts)} if ghosts else held
        self.tensors: dict[str, Tensor] = {}
        self.gaps: list[Gap] = []
        self.unmade: list[str] = []
        self.idle: list[Rule] = []
        self.maker = Maker(level, self.source, last)
        self._patterns: dict[int, dict[int, Pattern]] = {}
        self._pieces: dict[str, list[Region]] = {}
        self._sizes: dict[tuple[object, ...], dict[str, int]] = {}
        self._specs: dict[TensorSpec, TensorSpec] = {}
        """What many instances have alike is held once: there may be as many instances as tensors."""
        self._read(program, given)

    @property
    def specs(self) -> dict[str, TensorSpec]:
        return {name: tensor.spec for name, tensor in self.tensors.items()}

    def reaching(self, names: Iterable[str]) -> set[str]:
        """What is read to make these tensors, or to check constants against."""
        wanted = {id(self.tensors[name].instance) << 16 | self.tensors[name].term for name in names}
        found: set[str] = set()
        for instance in self.instances:
            right = instance.rule.right
            for (place, _), sources in self.maker.partners_of(instance.rule).of.items():
                if id(instance) << 16 | place in wanted or isinstance(right[place].head, ConstantHead):
                    for source, _ in sources:
                        for copies in instance.keys.get(source, {}).values():
                            found.update(copies)
        return found

    # ── which instances there are ──────────────────────────────────────────────────────────────────────────────────

    def _read(self, program: Program, given: Mapping[str, int]) -> None:
        readers = []
        for rule in program.rules:
            if rule.open:
                self.gaps.append(gap("open", rule, "an open alternative is left"))
            try:
                readers.append(make_reader(rule, given, self.config))
            except MorphError as error:
                self.gaps += error.gaps
        gaps: list[Gap] = []
        self.instances = group(take(readers, self.source, given, self.config, gaps), readers)
        self.gaps += [each for each in gaps if not any(self.source[name] is None for name in each.tensors)]
        for reader in readers:
            if reader.patterns and not reader.taken and not reader.rule.maybe and not reader.against:
                self.idle.append(reader.rule)
        patterns = {id(reader.rule): reader.patterns for reader in readers}
        for instance in self.instances:
            gaps = complete(instance, patterns[id(instance.rule)], given, self.config)
            self.gaps += gaps
            if not gaps:
                self._make(instance)
                key = (id(instance.reader), *instance.sizes.items())
                instance.sizes = self._sizes.setdefault(key, instance.sizes)
        self.gaps += read_back(program, self.tensors, self._how, given, self.config)

    def _how(self, name: str) -> Made:
        tensor = self.tensors[name]
        return tensor.instance.rule, tensor.term, {**tensor.instance.values, **tensor.at}, tensor.ties

    def _make(self, instance: Instance) -> None:
        rule = instance.rule
        for first, other in self._copies(instance):
            one, two = self.source[first], self.source[other]
            if one is not None and two is not None and one != two:
                self.gaps.append(
                    gap("tie", rule, f"`{first}` {one} and `{other}` {two} must be equal copies", [first, other])
                )
                return
        try:
            instance.rank = solve(instance.sizes, shapes_of(instance, self.source))
        except SizeProblem as problem:
            self.gaps.append(gap("size", rule, str(problem), instance.names()))
            return
        partners = self.maker.partners_of(rule)
        if partners.problem:
            self.gaps.append(gap("unpaired", rule, partners.problem))
            return
        for place, term in enumerate(rule.right):
            if isinstance(term.head, FullName):
                self._make_term(instance, place, term)

    def _make_term(self, instance: Instance, place: int, term: FlatTerm) -> None:
        rule, sizes = instance.rule, instance.sizes
        blocks = [
            source
            for target, sources in self.maker.partners_of(rule).of.items()
            if target[0] == place
            for source in sources
        ]
        makeable = not any(self._is_lost(instance, source) for source, _ in blocks)
        lacking = [axis for axis in (*instance.stacked(term), *instance.tied(term)) if axis not in sizes]
        if makeable:
            lacking += missing(term.dims, sizes, instance.rank)
        else:  # not even their number is known: the first stands for all that cannot be made
            sizes.update(dict.fromkeys(lacking, 1))
            lacking = []
        if lacking:
            names = ", ".join(f"`{axis.partition(chr(39))[0]}`" for axis in dict.fromkeys(lacking))
            self.gaps.append(gap("size", rule, f"{names} has no size: give it with where or --set", instance.names()))
            return
        if any(sizes[axis] == 0 for axis in (*instance.stacked(term), *instance.tied(term))):
            self.gaps.append(gap("size", rule, "an axis written into names has size 0", instance.names()))
            return
        if prod(sizes[axis] for axis in (*instance.stacked(term), *instance.tied(term))) > MOST_COPIES:
            self.gaps.append(gap("size", rule, f"more than {MOST_COPIES} tensors of one instance", instance.names()))
            return
        spec: TensorSpec | None = None
        if makeable:
            made = self._dtype_of(instance, place)
            if made is None or self._parts_items(instance, place):
                return
            spec = TensorSpec(made, tuple(size_of(dim, sizes) for dim in spread(term.dims, instance.rank or 0)))
            spec = self._specs.setdefault(spec, spec)
        for name, at, copy in self._names(instance, place, term):
            if spec is None:
                self.unmade.append(name)
            elif name in self.tensors:
                self.gaps.append(gap("written-twice", rule, f"`{name}` is made twice", [name]))
            else:
                self.tensors[name] = Tensor(spec, instance, place, at, copy)

    def _names(
        self, instance: Instance, place: int, term: FlatTerm
    ) -> Iterator[tuple[str, Mapping[str, int], Mapping[str, int]]]:
        rule, sizes = instance.rule, instance.sizes
        patterns = self._patterns.setdefault(id(rule), {})
        assert isinstance(term.head, FullName)
        if place not in patterns:
            patterns[place] = Pattern(term.head, self.config)
        axes, ties = instance.stacked(term), instance.tied(term)
        for values in product(*(range(sizes[axis]) for axis in axes)):
            at = dict(zip(axes, values, strict=True)) if axes else NO_AXES
            for copies in product(*(range(sizes[axis]) for axis in ties)):
                copy = dict(zip(ties, copies, strict=True)) if ties else NO_AXES
                try:
                    name = patterns[place].write({**instance.values, **at}, copy, sizes)
                except UnknownFactor as unknown:
                    self.gaps.append(gap("size", rule, f"`{unknown.args[0]}` has no size"))
                    return
                if name is None:
                    self.gaps.append(gap("size", rule, f"no name can be written for `{term.head.text}` at {at}"))
                else:
                    yield name, at, copy

    def _is_lost(self, instance: Instance, place: int) -> bool:
        """True when a left term is `drop`, or an earlier stage could not make a tensor of the instance: then none of it is made."""
        return isinstance(instance.rule.left[place].head, Drop) or self._is_broken(instance)

    def _is_broken(self, instance: Instance) -> bool:
        if instance.is_broken is None:
            instance.is_broken = any(self.source[name] is None for name in instance.names())
        return instance.is_broken

    # ── dtypes ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _dtype_of(self, instance: Instance, place: int) -> DType | None:
        """The one dtype of the tensors of a right term, or None (and a gap)."""
        found: dict[DType, None] = {}
        for target, sources in self.maker.partners_of(instance.rule).of.items():
            if target[0] == place:
                for block in sources:
                    try:
                        found.update(
                            {
                                self.maker.after(instance, block, kind, last=True): None
                                for kind in self.maker.kinds(instance, block[0])
                            }
                        )
                    except Refused as refused:
                        self.gaps.append(gap("cast", instance.rule, str(refused), instance.names()))
                        return None
                    except BadConstant as bad:
                        self.gaps.append(gap("constant", instance.rule, str(bad), instance.names()))
                        return None
        if len(found) != 1:
            text = " and ".join(map(str, found)) or "no dtype"
            self.gaps.append(gap("cast", instance.rule, f"one tensor of {text}", instance.names()))
            return None
        return next(iter(found))

    def _parts_items(self, instance: Instance, place: int) -> bool:
        """True (and a gap) when an item of several elements would not stay whole."""
        rule, rank = instance.rule, instance.rank or 0
        for target, sources in self.maker.partners_of(rule).of.items():
            for source in sources if target[0] == place else ():
                names = [name for copies in instance.keys.get(source[0], {}).values() for name in copies]
                kinds = {spec.dtype for name in names if (spec := self.source[name])}
                read, made = (spread(term.dims, rank) for term in (rule.left[source[0]], rule.right[place]))
                for kind in kinds:
                    if parts_items(kind, read, source[1], made, target[1]):
                        said = f"`{names[0]}` {kind}: its items of {kind.elements} elements would be parted"
                        self.gaps.append(gap("block", rule, said, instance.names()))
                        return True
        return False

    # ── what a tensor is made of ───────────────────────────────────────────────────────────────────────────────────

    def pieces(self, name: str) -> list[Region]:
        """Regions whose left sides are all elements of the tensor, each once."""
        if name not in self._pieces:
            if len(self._pieces) >= MOST_KEPT:
                self._pieces.clear()
            tensor = self.tensors[name]
            self._pieces[name] = list(
                self.maker.pieces_of(tensor.instance, tensor.term, tensor.at, name, tensor.spec.dtype)
            )
        return self._pieces[name]

    # ── what must hold besides ─────────────────────────────────────────────────────────────────────────────────────

    def checks(self) -> Iterator[Check]:
        """Equal copies that were read, and constants that stand on the writing side."""
        for instance in self.instances:
            if not self._is_broken(instance):
                yield from self._tie_checks(instance)
                yield from self._constant_checks(instance)

    def _copies(self, instance: Instance) -> Iterator[tuple[str, str]]:
        """(first, other) for every copy that must equal the first."""
        for copies in instance.keys.values():
            for names in copies.values():
                yield from ((names[0], other) for other in names[1:])

    def _tie_checks(self, instance: Instance) -> Iterator[Check]:
        for first, other in self._copies(instance):
            spec = self.source[first]
            if spec is not None and self.source[other] is not None:
                left, right = (Leaf(self.level - 1, name, 0, (1,), spec.dtype) for name in (first, other))
                what = f"`{first}` and `{other}` must be equal copies"
                yield Check("tie", what, Region((spec.numel,), left, right), instance.rule)

    def _constant_checks(self, instance: Instance) -> Iterator[Check]:
        rule = instance.rule
        for target, sources in self.maker.partners_of(rule).of.items():
            term = rule.right[target[0]]
            if not isinstance(term.head, ConstantHead) or any(self._is_lost(instance, source) for source, _ in sources):
                continue
            lacking = missing(term.dims, instance.sizes, instance.rank)
            if lacking:
                self.gaps.append(gap("size", rule, f"{', '.join(lacking)} has no size", instance.names()))
                continue
            fixed_axes = self.maker.fixed_axes(instance, sources, {})
            axes = self.maker.axes(instance, term, target[1])
            box = [axis for axis in axes if axis not in fixed_axes and instance.sizes[axis] != 1]
            name = next(iter(instance.names()), rule.origin.text)
            what = f"`{name}`: a block must be {term.head.text}" + (f":{term.head.dtype}" if term.head.dtype else "")
            for values in product(*(range(instance.sizes[axis]) for axis in fixed_axes)):
                fixed = dict(zip(fixed_axes, values, strict=True))
                try:
                    made = self.maker.made(instance, sources, box, fixed, last=False)
                    wanted = dtype(term.head.dtype) if term.head.dtype is not None else made.dtype
                    if wanted != made.dtype:
                        raise BadConstant(f"it is {made.dtype}")
                    constant = self.maker.constant(instance, term, term.head, target[1], box, fixed, wanted)
                    if not constant.counts:
                        constant_bits(constant.value, wanted)
                except (BadConstant, Refused) as bad:
                    kind = "constant" if isinstance(bad, BadConstant) else "cast"
                    self.gaps.append(gap(kind, rule, f"{what}: {bad}", instance.names()))
                    continue
                yield Check("constant", what, Region(tuple(instance.sizes[axis] for axis in box), made, constant), rule)
