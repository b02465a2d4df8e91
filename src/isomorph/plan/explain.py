"""A plan in words: what is fused and from what, what is only renamed, what is dropped, what is general, what comes back.

The text is the proof, readable: every fused tensor as a bar of named parts, every square matrix with its orientation (no notation
can see those two, LANGUAGE.md 5), everything that a general rule took, and whether the way back is exact.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from isomorph.collector import uncollected
from isomorph.errors import whole_line
from isomorph.language.rules import FullName, PathHole, Rule
from isomorph.language.tree import Drop
from isomorph.plan.backward import backward
from isomorph.plan.bars import bar, window
from isomorph.plan.folding import fold_numbers, folded, last_pieces, template
from isomorph.plan.moves import Along, Box, Fill, Mix, Move, names_of
from isomorph.plan.plan import Plan
from isomorph.plan.sizes import dims_text
from isomorph.tensors import by_identity, total_nbytes

WIDEST = 90
"""A longer cell is no part of the alignment of its column."""


UNWRITTEN = "unchanged"
"""The file of the rule that keeps every tensor when no morph is given: nobody wrote it, so it has nothing to confess."""


@dataclass(frozen=True)
class Line:
    """One line about targets of one kind."""

    names: str
    shape: str
    how: str
    klass: str
    count: int


def explain(plan: Plan, *, title: str = "", show_all: bool = False, seconds: float | None = None) -> str:
    """The plan as text. `show_all` lists what general rules took, tensor by tensor; `seconds` is how long planning took."""
    with uncollected():
        return _explain(plan, title, show_all, seconds)


def _explain(plan: Plan, title: str, show_all: bool, seconds: float | None) -> str:
    lines = [_head(plan, title)]
    lines += _columns([f"  {line.names}", line.shape, line.how, line.klass] for line in made_lines(plan))
    if plan.dropped:
        lines.append(f"dropped   {' · '.join(folded(plan.dropped))}")
    lines += [f"lossy     a part of a tensor is dropped by  {text}" for text in plan.lossy]
    if plan.unmade:
        lines.append(f"not made  {' · '.join(folded(plan.unmade))}: they need a part that is dropped")
    lines += _square_lines(plan)
    lines += _general_lines(plan, show_all)
    lines += [f"idle      {text}" for text in plan.idle_later]
    lines += _check_lines(plan)
    lines += _shared_lines(plan)
    lines += [f"warning   {warning}" for warning in plan.warnings]
    lines.append(f"backward  {backward(plan)}")
    lines.append(f"work      {_work(plan, seconds)}")
    return "\n".join(map(whole_line, lines))


def _head(plan: Plan, title: str) -> str:
    specs = [target.spec for target in plan.targets.values()]
    kinds, counts = by_identity(specs), Counter(map(id, specs))
    numel = sum(kinds[identity].numel * count for identity, count in counts.items())
    used = len(plan.source) - len(plan.dropped)
    dropped = f" + {len(plan.dropped):,} dropped" if plan.dropped else ""
    return (
        f"{title}{'   ' if title else ''}{len(plan.source):,} in = {used:,} used{dropped} · {len(plan.targets):,} out · "
        f"{numel:,} elements · {_bytes(total_nbytes(specs))}"
    )


# ── what is made ─────────────────────────────────────────────────────────────────────────────────────────────────────


def made_lines(plan: Plan) -> list[Line]:
    """One line for each kind of target that is more than a copy, then one for all copies of each class."""
    special: dict[tuple[str, str, str, str], list[str]] = {}
    plain: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (name, target), (first, stop) in zip(plan.targets.items(), pairwise(plan.starts), strict=True):
        moves = plan.moves[first:stop]
        if len(moves) == 1 and _keeps_order(plan, moves[0]):
            operators = ", ".join(dict.fromkeys(_operators(moves[0]))) if moves[0].operators else ""
            plain[(target.klass, operators)].append(name)
            continue
        shape = f"[{' '.join(map(str, target.spec.shape))}]"
        key = (template(name), shape, _how(plan, name, moves), target.klass)
        special.setdefault(key, []).append(name)
    lines = [
        Line(fold_numbers(names), shape, how, klass, len(names)) for (_, shape, how, klass), names in special.items()
    ]
    for (klass, operators), names in plain.items():
        renamed = len(names) - sum(map(plan.source.tensors.__contains__, names))
        how = "renamed or unchanged" if 0 < renamed < len(names) else "renamed" if renamed else "unchanged"
        how += f"  | {operators}" if operators else ""
        lines.append(Line(" · ".join(folded(names, most=8)), "", how, klass, len(names)))
    return lines


def _keeps_order(plan: Plan, move: Move) -> bool:
    """True when a whole tensor goes to a target as it lies, its values changed or not."""
    if not move.operators:
        return move.is_range
    source = move.source
    return (
        isinstance(source, Box)
        and replace(move, operators=()).is_range
        and source.numel == plan.source[source.tensor].numel
    )


def by_target(plan: Plan) -> dict[str, list[Move]]:
    """The moves of each target, in the order of the targets."""
    found: dict[str, list[Move]] = {name: [] for name in plan.targets}
    for move in plan.moves:
        found[move.target.tensor].append(move)
    return found


def _how(plan: Plan, name: str, moves: Sequence[Move]) -> str:
    target = plan.targets[name]
    words: list[str] = []
    sources = list(dict.fromkeys(source for move in moves for source in names_of(move.source)))
    if not moves:
        words.append("empty")
    elif len(sources) > 1 or any(isinstance(move.source, Fill) for move in moves):
        words.append(bar(plan, name, moves))
    elif sources:
        whole = plan.source[sources[0]].numel
        taken = sum(move.target.numel for move in moves)
        if taken < whole:
            words.append(f"from {last_pieces(sources[0])}{window(plan, moves)}")
    if any(not _is_run(move) for move in moves):
        words.append(_axes(plan.rules[target.rule]))
    operators = list(dict.fromkeys(text for move in moves for text in _operators(move)))
    if operators:
        words.append("| " + ", ".join(operators))
    return "  ".join(word for word in words if word) or "cut and joined"


def _is_run(move: Move) -> bool:
    if isinstance(move.source, Along):
        return False
    return not isinstance(move.source, Box) or (move.source.is_run or move.source.strides == move.target.strides)


def _axes(rule: Rule) -> str:
    left = " ".join(dict.fromkeys(dims_text(term.dims) for term in rule.left if isinstance(term.head, FullName)))
    right = " ".join(dict.fromkeys(dims_text(term.dims) for term in rule.right if isinstance(term.head, FullName)))
    return f"{left} → {right}"


def _operators(move: Move) -> Iterator[str]:
    from isomorph.operators.registry import build

    source = move.source
    if isinstance(source, Mix):
        for inner in source.sources:
            if isinstance(inner, Mix):
                yield from (build(op).describe() for op in inner.operators)
        yield "sum"
    elif isinstance(source, Along):
        for part in source.parts:
            yield from _operators(part)
        yield build(source.operator).describe()
    for op in move.operators:
        yield build(op).describe()


# ── what to look at ──────────────────────────────────────────────────────────────────────────────────────────────────


def _square_lines(plan: Plan) -> list[str]:
    """Every square matrix: kept or transposed. Shapes cannot show which."""
    kept: Counter[str] = Counter()
    turned: Counter[str] = Counter()
    specs = plan.source.tensors
    for move in plan.moves:
        if not isinstance(move.source, Box):
            continue
        shape = specs[move.source.tensor].shape
        if len(shape) == 2 and shape[0] == shape[1] > 1 and move.source.numel == shape[0] * shape[1]:
            label = f"{_stem(move.source.tensor)} [{shape[0]} {shape[1]}]"
            (kept if _is_run(move) else turned)[label] += 1
    lines = []
    for what, found in (("kept", kept), ("transposed", turned)):
        if found:
            listed = ", ".join(f"{count} {label}" for label, count in found.most_common(6))
            more = f" and {len(found) - 6} more kinds" if len(found) > 6 else ""
            lines.append(f"square    {listed}{more}: {what} (shapes cannot show a transpose)")
    return lines


def _stem(name: str) -> str:
    """The piece that says what a matrix is: not its kind, not a number, not the checkpoint it lies in."""
    pieces = re.split(r"[./]", name.rpartition("::")[2])
    words = [piece for piece in pieces if not piece.isdigit()]
    return next((piece for piece in reversed(words) if piece not in ("weight", "kernel", "w", "bias")), name)


def _general_lines(plan: Plan, show_all: bool) -> list[str]:
    """What the rules that end in a path took, placed or dropped: legal, but nobody named it."""
    placed: dict[int, list[str]] = {}
    dropped: dict[int, list[str]] = {}
    for number, names in plan.taken_by_general.items():
        rule = plan.rules[len(plan.rules) - plan.last_stage + number] if plan.last_stage else plan.rules[number]
        if rule.origin.file == UNWRITTEN:
            continue
        if any(
            isinstance(term.head, FullName) and any(isinstance(piece, PathHole) for piece in term.head.pieces)
            for term in rule.left
        ):
            taken = dropped if all(isinstance(term.head, Drop) for term in rule.right) else placed
            taken.setdefault(rule.origin.line, []).extend(names)
    told: list[str] = []
    for taken, what in ((placed, "placed"), (dropped, "dropped")):
        if taken:
            count = sum(map(len, taken.values()))
            noun = "" if told else " tensor" if count == 1 else " tensors"
            lines = f"line{'s' * (len(taken) > 1)} {', '.join(map(str, sorted(taken)))}"
            told.append(f"{count:,}{noun} {what} by ** ({lines})")
    if not told:
        return []
    if not show_all:
        return [f"general   {', '.join(told)[:-1]}; --all lists them)"]
    by_line = sorted([*placed.items(), *dropped.items()], key=lambda each: each[0])
    return [
        f"general   {', '.join(told)}",
        *(f"          line {line}: {name}" for line, names in by_line for name in names),
    ]


def _check_lines(plan: Plan) -> list[str]:
    ties = sum(check.kind == "tie" for check in plan.checks)
    constants = sum(check.kind == "constant" for check in plan.checks)
    casts = sum(
        any(op.name == "cast" and not op.rounding for op in move.operators) for move in plan.moves if move.operators
    )
    parts = [
        text
        for count, text in (
            (ties, f"{ties:,} equal cop{'ies' if ties > 1 else 'y'}"),
            (constants, f"{constants:,} constant{'s' * (constants > 1)}"),
            (casts, f"{casts:,} exact cast{'s' * (casts > 1)}"),
        )
        if count
    ]
    return [f"checks    {' · '.join(parts)}: held against the values while converting"] if parts else []


def _shared_lines(plan: Plan) -> list[str]:
    """Names that share one storage are written each on its own; this says what that costs."""
    cost = 0
    groups = 0
    for names in plan.source.shared:
        alive = [name for name in names if name in plan.source and name not in plan.dropped]
        if len(alive) > 1:
            groups += 1
            cost += sum(plan.source[name].nbytes for name in alive[1:])
    if not groups:
        return []
    return [
        f"shared    {groups:,} group{'s' * (groups != 1)} of names on the same bytes in the source; each name is written out: "
        f"{_bytes(cost)} more"
    ]


def _work(plan: Plan, seconds: float | None) -> str:
    ranges = cast = fills = rest = 0
    for move in plan.moves:
        if move.is_range:
            ranges += 1
            continue
        cast += bool(move.operators) or isinstance(move.source, Mix | Along)
        fills += isinstance(move.source, Fill)
        rest += not move.operators and isinstance(move.source, Box)
    parts = [f"{ranges:,} byte range{'s' * (ranges != 1)}", f"{rest:,} rearranged", f"{cast:,} computed"]
    if fills:
        parts.append(f"{fills:,} constants")
    took = f", {seconds:.1f} s" if seconds is not None else ""
    return f"{', '.join(parts)} · total: each element written once · headers only{took} · plan {plan.digest[:8]}…"


def _bytes(nbytes: int) -> str:
    size = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{nbytes} B" if unit == "B" else f"{size:.3g} {unit}" if size < 100 else f"{size:.0f} {unit}"
        size /= 1000
    raise AssertionError


def _columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """The rows aligned; nothing is cut, and a row that is much wider than the others does not spread them."""
    table = [list(row) for row in rows]
    if not table:
        return []
    widths = [max((len(row[k]) for row in table if len(row[k]) <= WIDEST), default=0) for k in range(len(table[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def facts(plan: Plan) -> dict[str, object]:
    """The same as data, for `--json`: for each target its spec, its class, the source tensors it is made of, and its rule."""
    made_of = {
        name: list(dict.fromkeys(source for move in moves for source in names_of(move.source)))
        for name, moves in by_target(plan).items()
    }
    return {
        "total": True,
        "source_tensors": len(plan.source),
        "used": len(plan.source) - len(plan.dropped),
        "dropped": list(plan.dropped),
        "unmade": list(plan.unmade),
        "targets": {
            name: {
                "dtype": target.spec.dtype.name,
                "shape": list(target.spec.shape),
                "class": target.klass,
                "from": made_of[name],
                "file": plan.rules[target.rule].origin.file,
                "line": plan.rules[target.rule].origin.line,
            }
            for name, target in plan.targets.items()
        },
        "elements": sum(target.spec.numel for target in plan.targets.values()),
        "nbytes": sum(target.spec.nbytes for target in plan.targets.values()),
        "byte_ranges": sum(move.is_range for move in plan.moves),
        "moves": len(plan.moves),
        "checks": len(plan.checks),
        "warnings": list(plan.warnings),
        "lossy": list(plan.lossy),
        "idle": list(plan.idle_later),
        "sizes": dict(plan.sizes or {}),
        "backward": backward(plan),
        "digest": plan.digest,
    }
