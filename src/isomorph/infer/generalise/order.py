"""Which rule must stand above which: the one that a name is meant for, above every other that would take it too.

Names are read by the language's own patterns, so what fits is what a plan would find.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from isomorph.infer.generalise.patterns import Index, Labels, Rule, Star, Template
from isomorph.language.names import NamePattern, Sizes, TwoCuts, Unsized
from isomorph.language.rules import FullName, IndexHole, LabelHole, Literal, NamePiece, PathHole, PieceHole
from isomorph.language.tree import Expression, Number

Separators = tuple[str | None, str | None]
Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of a relation on the left and on the right."""


def _number(expression: Expression) -> int:
    assert isinstance(expression, Number)
    return expression.value


def pattern(rule: Rule, name: Template, separator: str | None = None) -> NamePattern:
    """The template as the language reads it; `separator` is that of `paths` on its side."""
    numeric = {
        axis
        for one in rule.names
        for token in one
        if isinstance(token, Index) and (token.offset or token.pad or token.sign < 0 or len(token.axes) > 1)
        for axis in token.axes
    }
    pieces: list[NamePiece] = []
    stars = 0
    for token in name:
        if isinstance(token, str):
            if pieces and isinstance(pieces[-1], Literal):
                pieces[-1] = Literal(pieces[-1].value + token)
            else:
                pieces.append(Literal(token))
        elif isinstance(token, Star):
            stars += 1
            pieces.append(PathHole(f"*{stars}", separator) if token.path else PieceHole(f"*{stars}"))
        elif isinstance(token, Labels):
            pieces.append(LabelHole(token.axis or f"={len(pieces)}", token.labels, token.tied))
        elif len(token.axes) == 1 and not token.offset and not token.pad and token.sign > 0:
            pieces.append(PieceHole(token.axes[0], token.axes[0] in numeric, token.tied))
        else:
            pieces.append(IndexHole(token.axes, Number(token.offset), token.sign, token.pad, token.tied))
    return NamePattern(FullName(tuple(pieces), "".join(map(str, pieces))), Sizes(dict(rule.sizes), _number))


def reads(made: NamePattern, name: str) -> bool:
    """True when the pattern takes the name, or stumbles over it."""
    first = made.pieces[0] if made.pieces else None
    if isinstance(first, Literal) and not name.startswith(first.value):
        return False  # most do not: a quick look
    try:
        return made.read(name) is not None
    except (TwoCuts, Unsized):
        return True


def patterns(rule: Rule, separators: Separators) -> tuple[list[NamePattern], list[NamePattern]]:
    """The patterns of a rule, left and right."""
    sides = (rule.names[: rule.n_left], rule.names[rule.n_left :])
    left, right = (
        [pattern(rule, name, separator) for name in names] for names, separator in zip(sides, separators, strict=True)
    )
    return left, right


def _is_same_question(one: Rule, other: Rule) -> bool:
    return one.group is not None and other.group is not None and one.group[0] == other.group[0]


NONE: Names = ((), ())

Starts = dict[str, list[tuple[int, NamePattern]]]
"""What names begin with -> the patterns that begin so, each with the number of its rule."""


def _by_start(rules: Sequence[Rule], separators: Separators) -> tuple[Starts, Starts]:
    """The patterns that take more than one name, of either side."""
    found: tuple[Starts, Starts] = ({}, {})
    for number, rule in enumerate(rules):
        for starts, both in zip(found, patterns(rule, separators), strict=True):
            for one in both:
                if rule.maybe or not one.is_literal:
                    first = one.pieces[0] if one.pieces else None
                    start = first.value if isinstance(first, Literal) else ""
                    starts.setdefault(start, []).append((number, one))
    return found


def _starting(starts: Starts, lengths: Sequence[int], name: str) -> Iterator[tuple[int, NamePattern]]:
    """The patterns that a name begins like: of thousands, few. `lengths` are those of the starts."""
    for length in lengths:
        yield from starts.get(name[:length], ())


def above(rules: Sequence[Rule], names: Mapping[int, Names], separators: Separators) -> dict[int, frozenset[int]]:
    """For each rule the numbers of those it must stand above. `names` are those of (some of) the relations."""
    by_start = _by_start(rules, separators)
    lengths = [sorted({len(start) for start in starts}) for starts in by_start]
    found: dict[int, set[int]] = {}
    for number, rule in enumerate(rules):
        for relation in rule.covers:
            for at, name in ((side, name) for side in (0, 1) for name in names.get(relation, NONE)[side]):
                for other, made in _starting(by_start[at], lengths[at], name):
                    if (
                        other == number
                        or other in found.get(number, ())
                        or relation in rules[other].also
                        or (rule.maybe and rules[other].group is not None)
                        or _is_same_question(rule, rules[other])
                    ):
                        continue
                    if reads(made, name):
                        found.setdefault(number, set()).add(other)
    return {number: frozenset(below) for number, below in found.items()}
