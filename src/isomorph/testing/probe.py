"""A morph alone, tried out: a checkpoint made from its own rules, whose free axes have different prime sizes, run both ways.

Every element is its own index, so that a wrong rule cannot hide behind sizes or values that coincide (LANGUAGE.md 5).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isomorph.errors import MorphError
from isomorph.language.names import TwoCuts, Unsized, Value
from isomorph.language.resolve import variables_of
from isomorph.language.rules import IndexHole, LabelHole, PathHole, PieceHole, Program, shown
from isomorph.language.tree import Constant
from isomorph.plan.match import Matcher
from isomorph.plan.stage import NamedTerm, Stage, StageRule, make_stage, where_value
from isomorph.tensors import DTYPES, DType, Manifest, TensorSpec
from isomorph.testing.shapes import REST, prime_sizes, shape_of

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

WORDS = ("weight", "bias", "alpha", "beta", "gamma_x")
PATHS = (("alpha", "beta"), ("weight",), ("bias",), ("gamma", "delta", "epsilon"))
MOST_INSTANCES = 24
MOST_ELEMENTS = 1 << 24
DEFAULT = "f32"


@dataclass(frozen=True)
class Made:
    """The made-up source of a morph. `unreached` are the rules for which no made-up name was found that an earlier rule leaves."""

    specs: Mapping[str, TensorSpec]
    sizes: Mapping[str, int]
    unreached: tuple[StageRule, ...]


@dataclass(frozen=True)
class Probe:
    """What running a morph both ways on its made-up checkpoint showed. `problems` is empty when it is right."""

    file: str
    rules: int
    sources: int = 0
    targets: int = 0
    elements: int = 0
    returned: int = 0
    lost: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    like: str = ""
    held: int = 0
    """Which target the right sides were held against, and how many tensors it has."""

    @property
    def is_right(self) -> bool:
        return not self.problems

    def lines(self) -> Iterator[str]:
        """What `isomorph check` prints."""
        from isomorph.errors import printable

        if self.is_right:
            yield (
                f"{self.file}: {self.rules:,} rules · {self.sources:,} tensors made up, {self.targets:,} out"
                f" · {self.elements:,} elements equal by both paths · backward {self.returned:,} tensors return exactly"
                + (f", {len(self.lost):,} do not (dropped, rounded or one-way)" if self.lost else "")
                + (f" · makes all {self.held:,} tensors of {self.like}" if self.like else "")
            )
        else:
            yield f"{self.file}: not right"
        yield from self.problems
        for note in self.notes:
            yield f"  note: {printable(note, 400)}"

    def to_json(self) -> dict[str, Any]:
        return {"right": self.is_right, **self.__dict__}


def make_source(program: Program, config: Mapping[str, object], given: Mapping[str, int]) -> Made:
    """Names, shapes and dtypes that a program can read whole. Raises MorphError when its sizes contradict each other."""
    stage = make_stage(program, config, given)
    if stage.gaps:
        raise MorphError(stage.gaps)
    chosen = {**prime_sizes(stage), **given}
    matcher = Matcher(stage)
    specs: dict[str, TensorSpec] = {}
    unreached: list[StageRule] = []
    for rule in stage.rules:
        if not rule.left or rule.is_against:
            continue
        found = 0
        for values in _instances(rule, chosen):
            made = _instance(stage, matcher, rule, values, chosen)
            if made is None or any(name in specs for name in made):
                continue
            specs.update(made)
            found += 1
            if found >= MOST_INSTANCES:
                break
        if not found:
            unreached.append(rule)
    return Made(specs, {axis: size for axis, size in chosen.items() if axis in free_axes(stage)}, tuple(unreached))


def free_axes(stage: Stage) -> set[str]:
    """Axes, as written, whose size may be given from outside: bound, labelled and counting nowhere in the program."""
    every, taken = set(), set()
    for rule in stage.rules:
        every |= {shown(axis) for axis in rule.axes if axis[0].isalpha()}
        taken |= {shown(axis) for axis in (*rule.known, *rule.dynamic, *rule.labels, *rule.counting)}
        taken |= {
            shown(piece.axis)
            for term in (*rule.left, *rule.right)
            for piece in term.pattern.pieces
            if isinstance(piece, PathHole)
        }
    return every - taken


def _instances(rule: StageRule, sizes: Mapping[str, int]) -> Iterator[dict[str, Value]]:
    """Values for the axes that count instances: all labels; a few indices, words and paths."""
    choices = [_choices(rule, axis, sizes) for axis in rule.counting]
    labels = [axis in rule.labels for axis in rule.counting]
    longest = max((len(one) for one, is_label in zip(choices, labels, strict=True) if not is_label), default=1)
    for at in range(longest):
        row = [one if is_label else [one[at % len(one)]] for one, is_label in zip(choices, labels, strict=True)]
        for values in itertools.product(*row):
            yield dict(zip(rule.counting, values, strict=True))


def _choices(rule: StageRule, axis: str, sizes: Mapping[str, int]) -> list[Value]:
    if axis in rule.labels:
        return list(range(rule.labels[axis]))
    pieces = [
        piece
        for term in (*rule.left, *rule.right)
        for piece in term.pattern.pieces
        if (isinstance(piece, IndexHole) and axis in piece.axes) or getattr(piece, "axis", None) == axis
    ]
    bound = rule.known.get(axis)
    asked = {name for expressions in rule.dynamic.values() for one in expressions for name in variables_of(one)}
    if (
        bound is not None
        or axis in asked
        or any(
            isinstance(piece, IndexHole | LabelHole) or (isinstance(piece, PieceHole) and piece.numeric)
            for piece in pieces
        )
    ):
        return list(range(min(2 if bound is None else bound, 3)))
    if any(isinstance(piece, PathHole) for piece in pieces):
        has_separator = any(isinstance(piece, PathHole) and piece.separator is not None for piece in pieces)
        return [path if has_separator else (".".join(path),) for path in PATHS]
    return list(WORDS)


def _instance(
    stage: Stage, matcher: Matcher, rule: StageRule, values: dict[str, Value], chosen: Mapping[str, int]
) -> dict[str, TensorSpec] | None:
    """All tensors of one instance, or None when an earlier rule takes one of their names (or they cannot be written)."""
    sizes = dict(chosen_for(rule, chosen))
    numbers = {axis: value for axis, value in values.items() if isinstance(value, int)}
    for axis, expressions in rule.dynamic.items():
        try:
            sizes[axis] = where_value(rule.rule, axis, expressions, {**sizes, **numbers}, stage.config)
        except MorphError:
            continue
    kind = dtype_of(rule)
    made: dict[str, TensorSpec] = {}
    for part, term in enumerate(rule.left):
        shape = shape_of(term.term.dims, sizes)
        for slot in _slots(rule, term, sizes):
            try:
                name = term.pattern.write({**values, **slot}, sizes)
                taken = matcher.take(name)
            except (KeyError, ValueError, Unsized, TwoCuts, MorphError):
                return None
            if taken is None or taken[0] is not rule or taken[1] != part:
                return None
            made[name] = TensorSpec(kind, shape)
    return made


def chosen_for(rule: StageRule, chosen: Mapping[str, int]) -> dict[str, int]:
    """The size of every axis of a rule: bound, counted from labels, or chosen."""
    sizes = {axis: chosen[shown(axis)] for axis in rule.axes if shown(axis) in chosen}
    return {**sizes, **rule.labels, **rule.known}


def _slots(rule: StageRule, term: NamedTerm, sizes: Mapping[str, int]) -> Iterator[dict[str, Value]]:
    """Every tensor of a term: all values of its stacked axes and ties."""
    ranges: list[Sequence[int]] = []
    for axis in term.slots:
        labels = next(
            (len(piece.labels) for piece in term.pattern.pieces if isinstance(piece, LabelHole) and piece.axis == axis),
            None,
        )
        ranges.append(range(labels if labels is not None else sizes.get(axis, 2)))
    for row in itertools.product(*ranges):
        yield dict(zip(term.slots, row, strict=True))


def dtype_of(rule: StageRule) -> DType:
    """The dtype that a rule's operators and typed constants ask of what it reads; f32 where they ask nothing."""
    for op in rule.rule.operators:
        if op.name == "cast":
            name = op.target if op.inverted else op.source
            return DTYPES[DEFAULT if name in (None, "float") else str(name)]
    for term in (*rule.rule.left, *rule.rule.right):
        if isinstance(term.head, Constant) and term.head.dtype is not None:
            return DTYPES[term.head.dtype]
    return DTYPES[DEFAULT]


def index_arrays(specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Arrays in which every element is its own index, counted through all tensors; modulo what the dtype can tell apart."""
    import numpy as np

    exact = {
        "f16": 2**11,
        "bf16": 2**8,
        "f8e4m3": 2**4,
        "f8e5m2": 2**3,
        "f32": 2**24,
        "bool": 2,
        "u8": 2**8,
        "i8": 2**7,
    }
    start, arrays = 1, {}
    for name, spec in specs.items():
        index = np.arange(start, start + spec.numel, dtype=np.int64) % exact.get(spec.dtype.name, 2**62)
        arrays[name] = index.astype(spec.dtype.numpy).reshape(spec.shape)
        start += spec.numel
    return arrays


def keep_checks(plan: Any, arrays: Mapping[str, Array]) -> None:
    """Write into the arrays what the plan's checks ask: equal copies equal, constants constant."""
    import numpy as np

    from isomorph.plan.moves import Box, Fill

    copies = [check for check in plan.checks if isinstance(check.source, Box) and isinstance(check.expected, Box)]
    for _ in copies:  # copies take the least of each element, in rounds enough for the longest chain of them
        for check in copies:
            one, other = box_of(arrays, check.source), box_of(arrays, check.expected)
            one[...] = other[...] = np.minimum(one, other)
    for check in plan.checks:
        if not isinstance(check.source, Box):
            continue
        place = box_of(arrays, check.source)
        if isinstance(check.expected, Fill):
            fill = check.expected
            if fill.arange_strides is None:
                place[...] = _before(float(fill.value), check.operators, place.dtype)
            else:
                ramp = np.full(fill.shape, int(fill.value), dtype=np.int64)
                for axis, (size, step) in enumerate(zip(fill.shape, fill.arange_strides, strict=True)):
                    ramp += (np.arange(size) * step).reshape([-1 if at == axis else 1 for at in range(len(fill.shape))])
                place[...] = ramp


def _before(value: float, operators: Sequence[Any], kind: Any) -> Any:
    """The value from which these operators make `value`, where they have an inverse."""
    import numpy as np

    from isomorph.operators.registry import build
    from isomorph.tensors import dtype

    array = np.array([value], dtype=kind)
    for op in reversed(operators):
        if op.name != "cast":
            array = build(op).inverse().apply(array, dtype(array.dtype.name))
    return array.astype(kind)[0]


def box_of(arrays: Mapping[str, Array], box: Any) -> Array:
    """A writable view of a box of one array."""
    import numpy as np

    flat = arrays[box.tensor].reshape(-1)
    step = flat.dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat[box.offset :], box.shape, tuple(one * step for one in box.strides))


def held_against(
    programs: Sequence[Program],
    like: Manifest,
    config: Mapping[str, object] | None,
    sizes: Mapping[str, int] | None,
) -> list[str]:
    """What keeps the right sides from making exactly the tensors of `like`: read backward, they must take each one of them."""
    from isomorph.plan.prove import make_plan

    try:
        make_plan([program.inverse for program in reversed(programs)], like, config=config, sizes=sizes)
    except MorphError as error:
        where = like.origin or "the target"
        if any("Leave out --inverse" in gap.message for gap in error.gaps):
            return [f"  {where} fits the left sides, not the right: it is what the morph reads, not what it makes"]
        return [f"  {where}, read backward:", *(f"    {line}" for line in str(error).splitlines())]
    return []


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def probe(
    programs: Sequence[Program],
    *,
    file: str,
    config: Mapping[str, object] | None = None,
    sizes: Mapping[str, int] | None = None,
    like: Manifest | None = None,
) -> Probe:
    """Make a checkpoint for the first program, carry it through all of them and back, and compare every element by verify.

    With `like`, the right sides must also name and fit every tensor of that manifest. Raises MorphError when the programs cannot
    be planned on a checkpoint made for them.
    """
    from isomorph.engine.arrays import arrays as make_arrays
    from isomorph.formats.memory import ArrayCheckpoint
    from isomorph.plan.prove import make_plan
    from isomorph.verify.compare import verify

    rules = sum(len(program.rules) for program in programs)
    made = make_source(programs[0], config or {}, sizes or {})
    elements = sum(spec.numel for spec in made.specs.values())
    found = _Findings()
    if elements > MOST_ELEMENTS:
        found.problems.append(
            f"  its made-up checkpoint would have {elements:,} elements; give smaller sizes with --set"
        )
        return Probe(file, rules, len(made.specs), problems=tuple(found.problems))
    found.notes += [
        f"line {rule.rule.origin.line}: no made-up name reaches this rule (rules above take them, or it needs --set):"
        f" {rule.rule.origin.text}"
        for rule in made.unreached
        if not rule.rule.maybe
    ]
    unreached = {rule.number for rule in made.unreached}
    forward = [
        replace(
            programs[0],
            rules=tuple(
                replace(rule, maybe=rule.maybe or at in unreached) for at, rule in enumerate(programs[0].rules)
            ),
        ),
        *programs[1:],
    ]
    given = {**made.sizes, **(sizes or {})}
    plan = make_plan(forward, Manifest(made.specs, origin="made up"), config=config, sizes=given)
    if like is not None:
        found.problems += held_against(programs, like, config, sizes)
    arrays = index_arrays(made.specs)
    keep_checks(plan, arrays)
    source = ArrayCheckpoint(arrays)
    target = ArrayCheckpoint(dict(make_arrays(plan, source)))
    report = verify(forward, source, target, config=config, sizes=given)
    if plan.targets and not report.equal:
        found.problems += [f"  {line}" for line in str(report).splitlines()]
    found.notes += list(plan.warnings)
    returned, lost = (
        _there_and_back(forward, plan, arrays, target, config, given, found) if plan.targets else (0, tuple(arrays))
    )
    return Probe(
        file,
        rules,
        len(arrays),
        len(plan.targets),
        report.elements,
        returned,
        lost,
        tuple(found.problems),
        tuple(found.notes),
        "" if like is None else like.origin or "the target",
        0 if like is None else len(like),
    )


def _there_and_back(
    forward: Sequence[Program],
    plan: Any,
    arrays: Mapping[str, Array],
    target: Any,
    config: Mapping[str, object] | None,
    sizes: Mapping[str, int],
    found: _Findings,
) -> tuple[int, tuple[str, ...]]:
    """Read the result backward: how many source tensors return exactly, and which do not come back or are not exact."""
    from isomorph.engine.arrays import arrays as make_arrays
    from isomorph.plan.prove import make_plan

    backward = [
        replace(program.inverse, rules=tuple(replace(rule, maybe=True) for rule in program.inverse.rules))
        for program in reversed(forward)
    ]
    try:
        back = make_plan(backward, target.manifest, config=config, sizes=sizes)
        again = dict(make_arrays(back, target))
    except MorphError as error:
        found.problems.append("  read backward:")
        found.problems += [f"  {line}" for line in str(error).splitlines()]
        return 0, tuple(arrays)
    inexact = {name for name, made in plan.targets.items() if made.klass != "exact"}
    returned, lost = 0, []
    for name, array in arrays.items():
        if name not in again or back.targets[name].klass != "exact":
            lost.append(name)
        elif array.dtype == again[name].dtype and array.tobytes() == again[name].tobytes():
            returned += 1
        elif inexact or any(name in text for text in plan.lossy):
            lost.append(name)
        else:
            found.problems.append(f"  `{name}` does not return: reading backward gives other elements")
    return returned, tuple(lost)


__all__ = ["REST", "Made", "Probe", "index_arrays", "make_source", "probe"]
