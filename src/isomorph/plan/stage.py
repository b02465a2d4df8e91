"""What is known of a program's rules before any key is read: bound sizes, ready name patterns, the axes that count.

Program + config + --set ──▶ Stage(rules with patterns and sizes)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from isomorph.errors import Gap, MorphError
from isomorph.language.expressions import whole_number
from isomorph.language.names import NamePattern, Sizes
from isomorph.language.resolve import dim_axes, variables_of
from isomorph.language.rules import FlatTerm, FullName, IndexHole, LabelHole, PieceHole, Program, Rule, shown
from isomorph.language.tokens import gap_at
from isomorph.language.tree import Expression
from isomorph.plan.gaps import rule_gap

Config = Mapping[str, object]


@dataclass(slots=True)
class NamedTerm:
    """A term with a name: its place on its side, its pattern, and its axes by role.

    `stacked` are the name axes that are axes of the tensors (they lie before the brackets), `ties` those of equal copies.
    """

    index: int
    term: FlatTerm
    pattern: NamePattern
    stacked: tuple[str, ...]
    ties: tuple[str, ...]

    @property
    def slots(self) -> tuple[str, ...]:
        return (*self.stacked, *self.ties)


@dataclass(slots=True)
class StageRule:
    """A rule made ready to take keys (left) and to make names (right).

    `known` are the sizes that hold for every instance; `dynamic` the `where` expressions that need captures or solved axes.
    `labels` gives the label lists' length of every axis of labels. `counting` are the axes that count instances. `makes` is False
    for a rule that only takes keys away: `X <-> drop`, or a one-way rule met against its arrow. `takes_one`: each key is an
    instance by itself, since its name says the values of the counting axes and nothing else.
    """

    number: int
    rule: Rule
    counting: tuple[str, ...]
    left: tuple[NamedTerm, ...]
    right: tuple[NamedTerm, ...]
    known: dict[str, int]
    dynamic: dict[str, tuple[Expression, ...]]
    labels: dict[str, int]
    axes: tuple[str, ...]
    is_along: bool
    is_against: bool
    is_drop: bool
    makes: bool = field(init=False)
    takes_one: bool = field(init=False)

    def __post_init__(self) -> None:
        self.makes = not self.is_against and not self.is_drop
        self.takes_one = len(self.left) == 1 and not self.left[0].slots


@dataclass(slots=True)
class Stage:
    program: Program
    rules: list[StageRule]
    config: Config
    sizes: Mapping[str, int]
    gaps: list[Gap] = field(default_factory=list)

    @property
    def inverse(self) -> Stage:
        """The same rules read the other way: patterns and sizes are shared."""
        turned = [
            replace(
                rule,
                rule=rule.rule.inverse,
                left=rule.right,
                right=rule.left,
                is_along=rule.is_against,
                is_against=rule.is_along,
            )
            for rule in self.rules
        ]
        return Stage(self.program.inverse, turned, self.config, self.sizes)


def make_stage(program: Program, config: Config, sizes: Mapping[str, int]) -> Stage:
    """Ready every rule. Gaps (contradicting or unreadable sizes, missing config keys) are collected in `Stage.gaps`."""
    gaps: list[Gap] = []
    rules = []
    for number, rule in enumerate(program.rules):
        try:
            rules.append(_ready(number, rule, config, sizes, gaps))
        except MorphError as error:
            gaps.extend(_drawn(located(gap, rule), program) for gap in error.gaps)
    return Stage(program, rules, config, sizes, gaps)


def located(gap: Gap, rule: Rule) -> Gap:
    """The gap with the rule's place, where it has none of its own."""
    if gap.line is not None and gap.line != rule.origin.line:
        return gap if gap.file is not None or rule.origin.file == "<morph>" else replace(gap, file=rule.origin.file)
    return rule_gap(rule, gap.kind, gap.message, details=gap.details, hint=gap.hint, tensors=gap.tensors)


def _drawn(gap: Gap, program: Program) -> Gap:
    """The gap with its line of the program's own text, where a line above the rule (a `where`) is meant."""
    lines = program.text.split("\n")
    if gap.text is not None or gap.line is None or gap.line > len(lines) or gap.file not in (None, program.file):
        return gap
    drawn = gap_at(
        gap.kind, gap.message, program.file, gap.line, lines[gap.line - 1], gap.column or 0, gap.end or 0, gap.hint
    )
    return replace(drawn, details=gap.details, tensors=gap.tensors)


def _ready(number: int, rule: Rule, config: Config, given: Mapping[str, int], gaps: list[Gap]) -> StageRule:
    labels = _label_counts(rule)
    known: dict[str, int] = {}
    dynamic: dict[str, tuple[Expression, ...]] = {}
    for axis in dict.fromkeys([*_axes(rule), *rule.where]):
        name = shown(axis)
        if name in given:
            known[axis] = given[name]
        elif axis in rule.where:
            dynamic[axis] = rule.where[axis]
    known.update({axis: count for axis, count in labels.items() if axis not in known and axis not in dynamic})
    _settle(rule, known, dynamic, config)
    for axis, count in labels.items():
        if axis in known and known[axis] != count:
            gaps.append(
                rule_gap(
                    rule,
                    "size",
                    f"{shown(axis)} has {count} labels, but its size is given as {known[axis]}",
                    find=shown(axis),
                )
            )
            known[axis] = count

    def number_of(expression: Expression) -> int:
        return whole_number(expression, {}, config)

    context = Sizes(known, number_of)
    counting = rule.counting
    order = tuple(axis for term in rule.left if isinstance(term.head, FullName) for axis in term.head.axes)
    return StageRule(
        number=number,
        rule=rule,
        counting=tuple(dict.fromkeys(axis for axis in order if axis in counting)),
        left=_named(rule.left, counting, context),
        right=_named(rule.right, counting, context),
        known=known,
        dynamic=dynamic,
        labels=labels,
        axes=tuple(dict.fromkeys(_axes(rule))),
        is_along=rule.arrow == "->",
        is_against=rule.arrow == "<-",
        is_drop=rule.is_drop,
    )


def _settle(rule: Rule, known: dict[str, int], dynamic: dict[str, tuple[Expression, ...]], config: Config) -> None:
    """Evaluate the `where` expressions that need no capture, in whatever order they need each other."""
    progress = True
    while progress:
        progress = False
        for axis, expressions in list(dynamic.items()):
            needed = {name for expression in expressions for name in variables_of(expression)}
            if not needed <= known.keys() or needed & rule.counting:
                continue
            known[axis] = where_value(rule, axis, expressions, known, config)
            del dynamic[axis]
            progress = True


def where_value(
    rule: Rule, axis: str, expressions: tuple[Expression, ...], known: Mapping[str, int], config: Config
) -> int:
    """The size that `where` binds an axis to. Raises MorphError (kinds `size`, `config`)."""
    values = []
    for expression in expressions:
        try:
            values.append(whole_number(expression, known, config))
        except MorphError as error:
            raise MorphError([located(gap, rule) for gap in error.gaps]) from None
    first = values[0]
    name = shown(axis)
    if any(value != first for value in values):
        both = " and ".join(str(value) for value in dict.fromkeys(values))
        raise MorphError([rule_gap(rule, "size", f"{name} is bound to {both}: remove one of the two", find=name)])
    if first < 0:
        raise MorphError([rule_gap(rule, "size", f"{name} is bound to {first}: a size is not negative", find=name)])
    return first


def _named(side: Iterable[FlatTerm], counting: frozenset[str], sizes: Sizes) -> tuple[NamedTerm, ...]:
    return tuple(
        NamedTerm(
            index,
            term,
            NamePattern(term.head, sizes),
            tuple(axis for axis in term.head.axes if axis not in counting),
            term.head.ties,
        )
        for index, term in enumerate(side)
        if isinstance(term.head, FullName)
    )


def _label_counts(rule: Rule) -> dict[str, int]:
    return {
        piece.axis: len(piece.labels)
        for term in (*rule.left, *rule.right)
        if isinstance(term.head, FullName)
        for piece in term.head.pieces
        if isinstance(piece, LabelHole)
    }


def _axes(rule: Rule) -> Iterator[str]:
    for term in (*rule.left, *rule.right):
        if isinstance(term.head, FullName):
            for piece in term.head.pieces:
                if isinstance(piece, IndexHole):
                    yield from piece.axes
                elif isinstance(piece, PieceHole | LabelHole):
                    yield piece.axis
        for dim in term.dims:
            yield from dim_axes(dim)
