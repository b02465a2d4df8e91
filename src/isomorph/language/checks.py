"""What is wrong with a rule before any tensor is seen: names (2, 5, 6, 13, 22), blocks and their pairing (7, 8, 9), arange and sum.

The numbers are the statements of the notation's norm. Each check is a function Rule -> gaps, listed in CHECKS in the order it runs;
pairing comes last and only for a rule whose names are sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from isomorph.errors import Gap, MorphError
from isomorph.language.axes import FURTHER, after_operators, blocks, pair, side_blocks
from isomorph.language.resolve import dim_axes, rule_gap
from isomorph.language.rules import FlatTerm, FullName, IndexHole, LabelHole, Literal, PathHole, PieceHole, Rule, shown
from isomorph.language.tokens import snippet
from isomorph.language.tree import Constant, Drop, Ellipsis
from isomorph.language.unparse import operator_text


def check_rule(rule: Rule) -> list[Gap]:
    """Every gap of one rule; [] when it may be planned."""
    gaps = [gap for each in CHECKS for gap in each(rule)]
    if gaps:
        return gaps
    try:
        pair(rule)
    except MorphError as refused:
        gaps = [_of_rule(rule, gap) for gap in refused.gaps]
        op = next((op for op in rule.operators if op.arguments and not op.takes), None)
        if op is not None:
            hint = f"an operator that replaces an axis says so with an arrow:  | {op.name} n -> m"
            gaps = [replace(gap, hint=hint) if gap.kind == "unpaired" else gap for gap in gaps]
        return gaps
    return []


def _of_rule(rule: Rule, gap: Gap) -> Gap:
    """A gap of the block algebra, drawn in the rule's line."""
    drawn = rule_gap(rule.origin, gap.kind, gap.message, None, gap.hint, gap.details)
    if gap.line == rule.origin.line and gap.column:
        from isomorph.language.tree import Span

        drawn = rule_gap(
            rule.origin,
            gap.kind,
            gap.message,
            Span(gap.line, gap.column, gap.end or gap.column + 1),
            gap.hint,
            gap.details,
        )
    return replace(drawn, details=gap.details)


def _named(rule: Rule) -> Iterator[tuple[str, FlatTerm, FullName]]:
    for side, terms in (("left", rule.left), ("right", rule.right)):
        for term in terms:
            if isinstance(term.head, FullName):
                yield side, term, term.head


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def names_something(rule: Rule) -> Iterator[Gap]:
    """A rule names a tensor on one side at least, and no name is empty."""
    if not any(True for _ in _named(rule)):
        yield rule_gap(rule.origin, "syntax", "this rule names no tensor on either side")
    for _, term, name in _named(rule):
        if not name.pieces:
            yield rule_gap(rule.origin, "syntax", "an empty name", term.span)


def paths_once(rule: Rule) -> Iterator[Gap]:
    """(2) A path hole is not repeated in a name, and its axis is a path wherever it stands."""
    kinds: dict[str, str] = {}
    for _, _, name in _named(rule):
        seen: set[str] = set()
        for piece in name.pieces:
            if isinstance(piece, PathHole):
                if piece.axis in seen:
                    yield rule_gap(
                        rule.origin,
                        "syntax",
                        f"the path {{{shown(piece.axis)}*}} stands twice in `{snippet(name.text)}`",
                        piece.span,
                        "a path is cut in one way only: give the second a name of its own",
                    )
                seen.add(piece.axis)
            axes = piece.axes if isinstance(piece, IndexHole) else () if isinstance(piece, Literal) else (piece.axis,)
            kind = "a path" if isinstance(piece, PathHole) else "no path"
            for axis in axes:
                if kinds.setdefault(axis, kind) != kind and not axis.startswith("*"):
                    yield rule_gap(
                        rule.origin,
                        "syntax",
                        f"`{shown(axis)}` is a path {{{shown(axis)}*}} and no path {{{shown(axis)}}} in one rule",
                        getattr(piece, "span", None),
                        "write it the same way everywhere",
                    )
                    kinds[axis] = kind


def labels_alike(rule: Rule) -> Iterator[Gap]:
    """(2) The label lists of one axis have one length. A tie's labels are those of its side."""
    lengths: dict[tuple[str, str], tuple[int, LabelHole]] = {}
    for side, _, name in _named(rule):
        for piece in name.pieces:
            if not isinstance(piece, LabelHole):
                continue
            length, first = lengths.setdefault((piece.axis, side if piece.tied else ""), (len(piece.labels), piece))
            if length != len(piece.labels):
                yield rule_gap(
                    rule.origin,
                    "syntax",
                    f"axis `{shown(piece.axis)}` has {length} labels and {len(piece.labels)} labels",
                    piece.span,
                    f"{snippet('|'.join(first.labels))}  and  {snippet('|'.join(piece.labels))}  pair one by one",
                )


def wildcards_pair(rule: Rule) -> Iterator[Gap]:
    """(5) The wildcards of all names agree in number and kind; a rule with wildcards names tensors on both sides, or drops."""
    if rule.is_drop:
        return
    patterns: dict[tuple[bool, ...], tuple[str, FlatTerm, FullName]] = {}
    sides: set[str] = set()
    for side, term, name in _named(rule):
        sides.add(side)
        kinds = tuple(
            isinstance(piece, PathHole)
            for piece in name.pieces
            if isinstance(piece, PieceHole | PathHole) and piece.axis.startswith("*")
        )
        patterns.setdefault(kinds, (side, term, name))
    if len(patterns) > 1:
        (first_kinds, first), (second_kinds, second) = list(patterns.items())[:2]
        yield rule_gap(
            rule.origin,
            "syntax",
            f"`{snippet(first[2].text)}` has {_shown_wildcards(first_kinds)}, but `{snippet(second[2].text)}` has "
            f"{_shown_wildcards(second_kinds)}: wildcards pair one by one",
            second[1].span,
            "the first with the first, prefixes included; name what only one side has: {x} or {x*}",
        )
    elif len(sides) == 1 and any(patterns):
        _, term, name = next(iter(patterns.values()))
        yield rule_gap(
            rule.origin, "syntax", f"`{snippet(name.text)}` has wildcards, but the other side has no name", term.span
        )


def _shown_wildcards(kinds: tuple[bool, ...]) -> str:
    return " ".join("**" if kind else "*" for kind in kinds) or "none"


def counting_axes_everywhere(rule: Rule) -> Iterator[Gap]:
    """(6) What counts instances stands in every name, and in no brackets."""
    if rule.is_drop:
        return
    counting = {axis for axis in rule.counting if not axis.startswith("*")}
    if not counting:
        return
    for _, term, name in _named(rule):
        missing = sorted(counting.difference(name.axes))
        if missing:
            axes = ", ".join(f"`{shown(axis)}`" for axis in missing)
            yield rule_gap(
                rule.origin,
                "syntax",
                f"{axes} counts instances (it is in names of both sides), but `{snippet(name.text)}` does not carry it",
                term.span,
                "write a rule of its own for this tensor, or stack the axis on one side: [l ...]",
            )
    for term in (*rule.left, *rule.right):
        inside = {axis for dim in term.dims for axis in dim_axes(dim)} & counting
        for axis in sorted(inside):
            yield rule_gap(
                rule.origin,
                "syntax",
                f"`{shown(axis)}` counts instances (it is in names of both sides), so it is no axis in brackets",
                term.span,
                "give the axis in brackets another name",
            )


def tied_or_not(rule: Rule) -> Iterator[Gap]:
    """(13) An axis is not both tied and untied in one name."""
    for _, term, name in _named(rule):
        for axis in sorted(set(name.axes) & set(name.ties)):
            yield rule_gap(
                rule.origin,
                "tie",
                f"`{shown(axis)}` is tied {{={shown(axis)}}} and untied {{{shown(axis)}}} in `{snippet(name.text)}`",
                term.span,
                "give one of them another name",
            )


def one_input(rule: Rule) -> Iterator[Gap]:
    """(22) A full name holds at most one `::`."""
    for _, term, name in _named(rule):
        count = 0
        for piece in name.pieces:
            if isinstance(piece, Literal):
                count += piece.value.count("::")
            elif isinstance(piece, LabelHole):
                count += max((label.count("::") for label in piece.labels), default=0)
        if count > 1:
            yield rule_gap(
                rule.origin,
                "syntax",
                f"`::` stands twice in `{snippet(name.text)}`",
                term.span,
                "what stands before the one `::` names the input or output",
            )


# ── brackets and operators ───────────────────────────────────────────────────────────────────────────────────────────


def arange_has_one_axis(rule: Rule) -> Iterator[Gap]:
    """(14) `arange [n]` has one axis."""
    for term in (*rule.left, *rule.right):
        if not isinstance(term.head, Constant) or not term.head.is_arange:
            continue
        if any(isinstance(dim, Ellipsis) for dim in term.dims):
            yield rule_gap(
                rule.origin,
                "syntax",
                "`arange` has exactly one axis, not `...`",
                term.span,
                "write it:  arange:i64 [n]",
            )
            continue
        try:
            found = blocks(term.dims)
        except MorphError:
            continue  # found again, and told, when the blocks pair
        if len(found) != 1 or len(found[0].factors) != 1 or found[0].factors[0].key == FURTHER:
            shape = " and ".join(str(block) for block in found[:4])
            yield rule_gap(
                rule.origin,
                "syntax",
                f"`arange` has exactly one axis, not {shape}",
                term.span,
                "write it:  arange:i64 [n]",
            )


def sum_goes_one_way(rule: Rule) -> Iterator[Gap]:
    """(17) `sum` stands in a rule that goes one way, once."""
    sums = [op for op in rule.operators if op.name == "sum"]
    if not sums or rule.is_drop:
        return
    if len(sums) > 1:
        yield rule_gap(rule.origin, "syntax", "`sum` reaches this rule twice", sums[1].span)
    elif rule.arrow != ("<-" if sums[0].inverted else "->"):
        yield rule_gap(
            rule.origin,
            "syntax",
            f"`sum` cannot be undone: a rule with it goes one way, `->`, not `{rule.arrow}`",
            sums[0].span,
            "write  a [d], b [d] -> c [d] | sum",
        )


def axes_are_replaced(rule: Rule) -> Iterator[Gap]:
    """(7, 17) An operator along axes finds them in a block that is read, and stands in a rule that goes one way."""
    along = [op for op in rule.operators if op.takes]
    if not along or rule.is_drop:
        return
    is_inverse = any(op.inverted for op in rule.operators)
    written = tuple(reversed(rule.operators)) if is_inverse else rule.operators
    try:
        read = [each.block.keys for each in side_blocks(rule, "right" if is_inverse else "left")]
    except MorphError:
        return  # told when the blocks pair
    for number, op in enumerate(written):
        if not op.takes:
            continue
        text = operator_text(replace(op, inverted=False))
        if set(op.takes) != set(op.makes) and rule.arrow != ("<-" if is_inverse else "->"):
            message = f"`{text}` cannot be undone: a rule with it goes one way, `->`, not `{rule.arrow}`"
            yield rule_gap(rule.origin, "syntax", message, op.span, f"write  a [n d] -> b [m d] | {op.name} n -> m")
        if any(other.name == "sum" for other in written[:number]):
            message = f"`{text}` stands after `sum`: axes are replaced before blocks are added"
            yield rule_gap(rule.origin, "syntax", message, op.span)
        before = [after_operators(keys, written[:number]) for keys in read]
        touched = [keys for keys in before if keys.issuperset(op.takes)]
        if not touched:
            axes = " and ".join(f"`{shown(axis)}`" for axis in op.takes)
            message = f"`{text}`: no block that is read has the {'axis' if len(op.takes) == 1 else 'axes'} {axes}"
            yield rule_gap(rule.origin, "syntax", message, op.span, "name the axes as they stand in the brackets")
        for axis in op.makes:
            if axis != "1" and any(axis in keys.difference(op.takes) for keys in touched):
                message = f"`{text}`: the block has an axis `{shown(axis)}` already"
                yield rule_gap(rule.origin, "syntax", message, op.span, "give the axis that is made a name of its own")


def drop_blocks_are_sound(rule: Rule) -> Iterator[Gap]:
    """(8) The brackets of a rule against `drop` alone, which pairs nothing, hold no axis twice."""
    if not rule.is_drop:
        return
    for term in (*rule.left, *rule.right):
        if isinstance(term.head, Drop):
            continue
        try:
            blocks(term.dims, term.head.axes if isinstance(term.head, FullName) else ())
        except MorphError as refused:
            yield from (_of_rule(rule, gap) for gap in refused.gaps)


CHECKS: tuple[Callable[[Rule], Iterator[Gap]], ...] = (
    names_something,
    paths_once,
    labels_alike,
    wildcards_pair,
    counting_axes_everywhere,
    tied_or_not,
    one_input,
    arange_has_one_axis,
    sum_goes_one_way,
    axes_are_replaced,
    drop_blocks_are_sound,
)
