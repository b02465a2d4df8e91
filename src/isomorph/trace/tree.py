"""TraceReport -> the tree of aligned modules, candidate beside reference, with an arrow where they first diverge; layers folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from isomorph.trace.nouns import Finding, Measure, Run, TraceReport

ARROW = "◀ first divergence"


@dataclass
class Branch:
    """One piece of a module's dotted name. `measure` is the worst of what comes out of it (of what goes in where nothing is seen to
    come out); `mark` says what was found here."""

    text: str
    measure: Measure | None = None
    references: tuple[str, ...] = ()
    mark: str = ""
    children: dict[str, Branch] = field(default_factory=dict)

    @property
    def signature(self) -> tuple[object, ...]:
        """Equal for branches that may be folded: the same below, all within or all over, nothing found."""
        state = None if self.measure is None else (self.measure.is_within, self.measure.problem)
        return (state, self.mark, tuple((piece, one.signature) for piece, one in self.children.items()))


def shown_run(report: TraceReport) -> Run | None:
    """The run in which the first finding was seen; else the one that came nearest to its tolerances."""
    named = {run.name: run for run in report.runs}
    for finding in report.findings:
        for name in finding.runs:
            if name in named:
                return named[name]
    return max(report.runs, key=lambda run: max(map(_strain, run.measures), default=0.0), default=None)


def _strain(measure: Measure) -> float:
    """How far a measure is towards its tolerance, or over it."""
    if measure.problem is not None or measure.error != measure.error:
        return float("inf")
    return measure.error / measure.tolerance if measure.tolerance > 0 else (0.0 if measure.error == 0 else float("inf"))


def tree_lines(report: TraceReport) -> list[str]:
    """The lines of the tree: name, error / tolerance, the reference's name where it is another, the mark."""
    run = shown_run(report)
    if run is None:
        return []
    rows = list(_rows(_branches(report, run).children, 0))
    outputs = [measure for measure in run.measures if measure.event.node is None]
    marks = _marks(report.findings)
    for measure in outputs:
        other, name = measure.event.link.names or ("", "")
        references: tuple[str, ...] = (other,) if other != name else ()
        rows.append((0, f"→ output {name}".rstrip(), measure, references, marks.get((None, name), "")))
    width = max((2 * depth + len(text) for depth, text, *_ in rows), default=0)
    lines = [f"in the run: {run.name}"]
    for depth, text, worst, references, mark in rows:
        name = "  " * depth + text
        numbers = _numbers(worst)
        other = f"  = {', '.join(references)}" if references else ""
        lines.append(f"{name.ljust(width)}  {numbers}{other}{f'  {mark}' if mark else ''}".rstrip())
    return lines


def _numbers(measure: Measure | None) -> str:
    if measure is None:
        return " " * 21
    if measure.problem is not None:
        return f"{measure.problem:>9}".ljust(21) + " ✗"
    return f"{measure.error:9.1e} / {measure.tolerance:7.1e}".ljust(21) + (" ·" if measure.is_within else " ✗")


def _marks(findings: Sequence[Finding]) -> dict[tuple[str | None, str], str]:
    """(module or None for an output, name) -> the arrow there."""
    marks: dict[tuple[str | None, str], str] = {}
    for number, finding in enumerate(findings):
        at = finding.suspect.at
        said = ARROW if number == 0 else f"◀ divergence {number + 1}"
        if finding.suspect.kind == "stretch":
            said += " (on the way to here)" if at.link.border == "in" or at.node is None else " (before it comes out)"
        key = (None, (at.link.names or ("", ""))[1]) if at.node is None else ("", at.candidate.module)
        marks.setdefault(key, said)
    return marks


def _branches(report: TraceReport, run: Run) -> Branch:
    root = Branch("")
    marks = _marks(report.findings)
    for node in report.nodes:
        for name in node.candidate:
            branch = _at(root, name)
            others = (
                tuple(dict.fromkeys(link.reference for link in node.links if link.candidate == name)) or node.reference
            )
            branch.references = tuple(one for one in others if one != name) if others != (name,) else ()
    for measure in run.measures:
        if measure.event.node is None:
            continue
        branch = _at(root, measure.event.candidate.module)
        is_out = measure.event.link.border == "out"
        held = branch.measure
        held_out = held is not None and held.event.link.border == "out"
        if held is None or (is_out and not held_out) or (is_out == held_out and _strain(measure) > _strain(held)):
            branch.measure = measure
    for (kind, name), said in marks.items():
        if kind is not None:
            _at(root, name).mark = said
    if root.measure is not None or root.mark:  # the model itself is a node: shown as one
        inner = Branch("(model)", root.measure, root.references, root.mark)
        root.children = {"(model)": inner, **root.children}
    return root


def _at(root: Branch, name: str) -> Branch:
    branch = root
    for piece in name.split(".") if name else ():
        branch = branch.children.setdefault(piece, Branch(piece))
    return branch


Row = tuple[int, str, Measure | None, tuple[str, ...], str]


Pieces = tuple[str, ...]


def _rows(children: dict[str, Branch], depth: int, name: Pieces = (), shown: Pieces = ()) -> Iterator[Row]:
    """Rows of these branches: numbered neighbours that look the same are one, chains without anything of their own too.

    `name` are the pieces of what holds them, `shown` the same with folded numbers written as ranges.
    """
    for first, last, branch in _folded(list(children.values())):
        begin, inner, seen = len(shown), (*name, branch.text), (*shown, _range(first, last))
        while branch.measure is None and not branch.mark and len(branch.children) == 1:
            ((first, last, branch),) = _folded(list(branch.children.values()))
            inner, seen = (*inner, branch.text), (*seen, _range(first, last))
        references = tuple(_beside(one, inner, seen) for one in branch.references)
        yield depth, ".".join(seen[begin:]), branch.measure, references, branch.mark
        yield from _rows(branch.children, depth + 1, inner, seen)


def _range(first: Branch, last: Branch) -> str:
    return first.text if last is first else f"{{{first.text}..{last.text}}}"


def _beside(reference: str, name: Pieces, shown: Pieces) -> str:
    """A reference's name in the row of a candidate's: its last piece where both lie in one place; folded numbers as ranges."""
    pieces = tuple(reference.split("."))
    if pieces[:-1] == name[:-1]:
        return pieces[-1]
    ranges = {piece: written for piece, written in zip(name, shown, strict=True) if piece != written}
    return ".".join(ranges.get(piece, piece) for piece in pieces)


def _folded(branches: list[Branch]) -> list[tuple[Branch, Branch, Branch]]:
    """(first, last, with the worst measures of all) of each run of numbered neighbours with one signature."""
    found: list[tuple[Branch, Branch, Branch]] = []
    for branch in branches:
        if found and branch.text.isdigit() and not branch.mark:
            first, last, worst = found[-1]
            if last.text.isdigit() and int(last.text) + 1 == int(branch.text) and last.signature == branch.signature:
                found[-1] = (first, branch, _worse(worst, branch))
                continue
        found.append((branch, branch, branch))
    return found


def _worse(one: Branch, two: Branch) -> Branch:
    """Two branches of one signature as one: at each place the measure that is nearer to its tolerance."""
    measures = [branch.measure for branch in (one, two) if branch.measure is not None]
    worst = max(measures, key=_strain, default=None)
    children = {piece: _worse(child, two.children[piece]) for piece, child in one.children.items()}
    return Branch(one.text, worst, one.references, one.mark, children)
