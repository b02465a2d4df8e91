"""TraceReport -> text, JSON, HTML. The verdict first; how much was compared, and against what, always."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from isomorph.errors import whole_line
from isomorph.trace.nouns import Event, Finding, Measure, TraceReport, WeightDifference
from isomorph.trace.svg import to_svg
from isomorph.trace.tree import tree_lines

MOST_SHOWN = 12
MOST_BEFORE = 3


def text(report: TraceReport) -> str:
    """What `isomorph trace` prints."""
    lines = [*_verdict(report), *_coverage(report), *_weights(report.weights)]
    lines += _unaligned(report)
    lines += [_row("note", note) for note in report.notes]
    title, _, written = report.morph.partition("\n")
    if title:
        lines.append(_row("morph", title.removeprefix("# ") + (" (below)" if written else "")))
    tree = tree_lines(report)
    if tree:
        lines += ["", *tree]
    if written:
        lines += [
            "",
            *(line for line in written.splitlines() if line and (line[0] != "#" or line.startswith("# stage "))),
        ]
    return "\n".join(
        whole_line(part) for line in lines for part in line.split("\n")
    )  # names of modules may speak to a terminal


def _row(word: str, said: str) -> str:
    return f"{word:<9} {said}"


def _verdict(report: TraceReport) -> list[str]:
    if report.findings:
        lines = []
        for number, finding in enumerate(report.findings):
            lines.append(_row("DIVERGED" if number == 0 else "and", finding.sentence))
            lines += [" " * 10 + line for line in _details(finding)]
        return lines
    if not report.compared:
        return [_row("FAILED", "nothing was compared: no tensor of the two models could be set side by side")]
    runs = "one run" if len(report.runs) == 1 else f"all {len(report.runs)} runs"
    both = f"{report.candidate} and {report.reference} agree"
    if report.diverged:
        return [_row("DIVERGED", f"{_measured(report.over[0])}; no aligned module is the first to diverge")]
    if report.over:
        worst = max(report.over, key=lambda measure: measure.error)
        return [_row("SAME", f"{both} to float32's precision in {runs}, and no further: {_measured(worst)}")]
    return [_row("SAME", f"{both} within tolerance in {runs}")]


def _measured(measure: Measure) -> str:
    name = _name(measure.event)
    if measure.problem is not None:
        return f"{name}: {measure.problem}"
    return f"{name}: error {measure.error:.1e}, tolerance {measure.tolerance:.1e}"


def _name(event: Event, *, is_reference: bool = False) -> str:
    """One side's name of what was compared."""
    if event.node is not None:
        return str(event.reference if is_reference else event.candidate)
    name = (event.link.names or ("", ""))[0 if is_reference else 1]
    return f"output {name}" if name else "the output"


def _details(finding: Finding) -> list[str]:
    suspect = finding.suspect
    over = f"error {suspect.error:.1e}, tolerance {suspect.tolerance:.1e}"
    if suspect.kind == "module":
        what = f"what goes in is within tolerance, what comes out is not: {over}"
    else:
        before = _last(dict.fromkeys(str(event.candidate) for event in suspect.before)) or "the inputs"
        what = f"between {before} (within) and {_name(suspect.at)}: {over}"
    lines = [what]
    if suspect.reference != suspect.candidate and suspect.reference:
        lines.append(f"in the reference: {suspect.reference}")
    more = len(finding.runs) - 1
    if finding.runs:
        lines.append(
            f"seen in: {finding.runs[0]}"
            + (f", and {more} more runs" if more > 1 else f", {finding.runs[1]}" if more else "")
        )
    return [*lines, *finding.shape]


def _last(names: Iterable[str]) -> str:
    """The last few of what leads to a stretch."""
    listed = list(names)
    return ("… " if len(listed) > MOST_BEFORE else "") + "; ".join(listed[-MOST_BEFORE:])


def _coverage(report: TraceReport) -> list[str]:
    measures = [measure for run in report.runs for measure in run.measures]
    outputs = sum(measure.event.node is None for measure in measures)
    leaves = sum(node.kind == "leaf" for node in report.nodes)
    runs = f"{len(report.runs)} {'run' if len(report.runs) == 1 else 'runs'}"
    lines = [
        _row(
            "compared",
            f"{len(measures):,} {'tensor' if len(measures) == 1 else 'tensors'} ({outputs:,} of them outputs) · "
            f"{report.compared:,} elements · {runs} in {report.dtype}",
        ),
        _row("runs", "; ".join(_by_regime(report))),
        _row(
            "aligned",
            f"{len(report.nodes):,} pairs of modules ({leaves:,} leaves, {len(report.nodes) - leaves:,} blocks)",
        ),
    ]
    tolerances = [measure.tolerance for measure in measures if math.isfinite(measure.tolerance)]
    if tolerances:
        own = [measure.tolerance for measure in measures if measure.event.node is None]
        outer = f"; of outputs {min(own):.0e} to {max(own):.0e}" if own else ""
        each = f"each tensor its own: {min(tolerances):.0e} to {max(tolerances):.0e}{outer}"
        lines.append(_row("tolerance", f"16 × the reference's own gap between dtypes, {each}"))
        worst = max(
            measures, key=lambda one: math.inf if one.problem is not None else one.error / max(one.tolerance, 1e-300)
        )
        if not report.diverged:
            lines.append(
                _row("nearest", f"{_name(worst.event)}: error {worst.error:.1e}, tolerance {worst.tolerance:.1e}")
            )
    return lines


def _by_regime(report: TraceReport) -> list[str]:
    probes: dict[str, list[str]] = {}
    for run in report.runs:
        probes.setdefault(run.regime, []).append(run.probe)
    groups: dict[tuple[str, ...], list[str]] = {}
    for regime, names in probes.items():
        groups.setdefault(tuple(names), []).append(regime)
    return [f"{' · '.join(regimes)} × {' · '.join(names)}" for names, regimes in groups.items()]


def _weights(weights: Sequence[WeightDifference]) -> list[str]:
    if not weights:
        return []
    lines = [
        _row("weights", f"{len(weights)} of the candidate's tensors are not what the morph makes of the reference's")
    ]
    for one in weights[:MOST_SHOWN]:
        cause = f": {one.cause}" if one.cause else ""
        lines.append(f"{'':<10}{one.name}, {one.differing:,} of {one.elements:,} elements{cause}")
    if len(weights) > MOST_SHOWN:
        lines.append(f"{'':<10}… and {len(weights) - MOST_SHOWN} more (--json lists them)")
    return lines


def _unaligned(report: TraceReport) -> list[str]:
    lines = []
    for side, names in zip(("reference", "candidate"), report.unaligned, strict=True):
        if names:
            shown = ", ".join(name or "the model itself" for name in names[:MOST_SHOWN])
            more = f" … and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
            lines.append(
                _row("unaligned", f"{len(names)} of the {side}, judged by what goes on from there: {shown}{more}")
            )
    return lines


def to_json(report: TraceReport) -> dict[str, Any]:
    """Plain data; numbers that are not finite are texts."""
    return {
        "diverged": report.diverged,
        "reference": report.reference,
        "candidate": report.candidate,
        "dtype": report.dtype,
        "compared": {
            "tensors": sum(len(run.measures) for run in report.runs),
            "elements": report.compared,
            "runs": len(report.runs),
            "modules": len(report.nodes),
        },
        "findings": [_finding(one) for one in report.findings],
        "weights": [
            {
                "name": one.name,
                "sources": list(one.sources),
                "elements": one.elements,
                "differing": one.differing,
                "cause": one.cause,
            }
            for one in report.weights
        ],
        "nodes": [
            {
                "kind": node.kind,
                "reference": list(node.reference),
                "candidate": list(node.candidate),
                "opaque": node.is_opaque,
            }
            for node in report.nodes
        ],
        "unaligned": {"reference": list(report.unaligned[0]), "candidate": list(report.unaligned[1])},
        "runs": [
            {"regime": run.regime, "probe": run.probe, "within": run.is_within, "tensors": _measures(run.measures)}
            for run in report.runs
        ],
        "notes": list(report.notes),
        "morph": report.morph,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    suspect = finding.suspect
    return {
        "sentence": finding.sentence,
        "kind": suspect.kind,
        "candidate": suspect.candidate,
        "reference": suspect.reference,
        "at": _name(suspect.at),
        "before": [_name(event) for event in suspect.before],
        "error": _number(suspect.error),
        "tolerance": _number(suspect.tolerance),
        "runs": list(finding.runs),
        "causes": [
            {
                "kind": cause.kind,
                "says": cause.says,
                "residual": _number(cause.residual),
                "floor": _number(cause.floor),
                "repairs": cause.repairs,
            }
            for cause in finding.causes
        ],
        "shape": list(finding.shape),
    }


def _measures(measures: Iterable[Measure]) -> list[dict[str, Any]]:
    return [
        {
            "candidate": _name(one.event),
            "reference": _name(one.event, is_reference=True),
            "error": _number(one.error),
            "tolerance": _number(one.tolerance),
            "elements": one.elements,
            "within": one.is_within,
            "problem": one.problem,
        }
        for one in measures
    ]


def _number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))


def to_html(report: TraceReport) -> str:
    """The chart, and the text below it."""
    style = "white-space: pre; overflow-x: auto; line-height: 1.3"
    return f'<div>{to_svg(report)}<pre style="{style}">{escape(text(report))}</pre></div>'
