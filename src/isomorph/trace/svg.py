"""TraceReport -> error against depth as SVG: every compared tensor in the reference's order, its tolerance, where they diverge."""

from __future__ import annotations

import math
from html import escape

from isomorph.trace.nouns import Measure, Run, TraceReport
from isomorph.trace.tree import shown_run

WIDTH, HEIGHT = 960, 380
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 48, 60
LOWEST = 1e-18
MOST_POINTS = 3000

STYLE = (
    "text{font:12px sans-serif;fill:#222}.grid{stroke:#ddd}.error{stroke:#1f6fb4;fill:none;stroke-width:1.5}"
    ".tolerance{stroke:#c8781e;fill:none;stroke-dasharray:5 3}.within{fill:#1f6fb4}.over{fill:#c62828}"
    ".mark{stroke:#c62828;stroke-width:1.5}.said{fill:#c62828}"
)


def to_svg(report: TraceReport) -> str:
    """An SVG document. A tensor that could not be compared, or is not finite, stands at the top."""
    run = shown_run(report)
    measures = thinned(sorted(run.measures, key=lambda one: one.event.place)) if run is not None else []
    title = _title(report, run)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20">{escape(title)}</text>',
    ]
    if measures:
        lines += _drawing(report, measures)
    else:
        lines.append(f'<text x="{LEFT}" y="{HEIGHT // 2}">nothing was compared</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _title(report: TraceReport, run: Run | None) -> str:
    where = "" if run is None else f" · {run.name}"
    return f"{report.candidate} against {report.reference} · {report.dtype}{where}"


def thinned(measures: list[Measure]) -> list[Measure]:
    """At most so many points: of neighbours the one that is furthest towards its tolerance."""
    step = math.ceil(len(measures) / MOST_POINTS) if measures else 1
    groups = [measures[at : at + step] for at in range(0, len(measures), step)]
    return [
        max(group, key=lambda one: (one.problem is not None, one.error / max(one.tolerance, LOWEST)))
        for group in groups
    ]


def _drawing(report: TraceReport, measures: list[Measure]) -> list[str]:
    heights = [
        value for one in measures for value in (one.error, one.tolerance) if math.isfinite(value) and value > LOWEST
    ]
    low = math.floor(math.log10(min(heights, default=LOWEST)))
    high = max(low + 1, math.ceil(math.log10(max(heights, default=1.0))))

    def x(place: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (place + 0.5) / len(measures)

    def y(value: float) -> float:
        level = high if not math.isfinite(value) else low if value <= 0 else min(max(math.log10(value), low), high)
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - level) / (high - low)

    lines = []
    for power in range(low, high + 1, max(1, (high - low) // 8)):
        at = y(10.0**power)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">1e{power}</text>')
    first = _first(report, measures)
    if first is not None:
        said = escape(report.findings[0].suspect.candidate or "the model")
        anchor, step = ("end", -6) if first > len(measures) / 2 else ("start", 6)
        lines.append(f'<line class="mark" x1="{x(first):.1f}" x2="{x(first):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        lines.append(
            f'<text class="said" x="{x(first) + step:.1f}" y="{TOP - 8}" text-anchor="{anchor}">first divergence: {said}</text>'
        )
    for kind, values in (
        ("tolerance", [one.tolerance for one in measures]),
        ("error", [_height(one) for one in measures]),
    ):
        points = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in enumerate(values))
        lines.append(f'<polyline class="{kind}" points="{points}"/>')
    for place, one in enumerate(measures):
        kind = "within" if one.is_within else "over"
        says = f"{one.event}: " + (one.problem or f"{one.error:.1e}, tolerance {one.tolerance:.1e}")
        lines.append(
            f'<circle class="{kind}" cx="{x(place):.1f}" cy="{y(_height(one)):.1f}" r="2.5"><title>{escape(says)}</title></circle>'
        )
    foot = HEIGHT - BOTTOM + 22
    lines.append(f'<text x="{LEFT}" y="{foot}">{escape(str(measures[0].event.candidate))}</text>')
    lines.append(
        f'<text x="{WIDTH - RIGHT}" y="{foot}" text-anchor="end">{escape(str(measures[-1].event.candidate))}</text>'
    )
    lines.append(
        f'<text x="{LEFT}" y="{foot + 24}">error (largest difference over largest value) of {len(measures):,} tensors, '
        "in the order in which the reference makes them; dashed: tolerance</text>"
    )
    return lines


def _height(measure: Measure) -> float:
    return math.inf if measure.problem is not None else measure.error


def _first(report: TraceReport, measures: list[Measure]) -> int | None:
    """The place of the first finding among what is drawn."""
    if not report.findings:
        return None
    at = report.findings[0].suspect.at
    return next((place for place, one in enumerate(measures) if one.event.place >= at.place), len(measures) - 1)
