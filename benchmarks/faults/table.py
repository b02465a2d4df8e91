"""The score as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.faults.gates import GATES

Row = Mapping[str, Any]


def told(found: Mapping[str, Any]) -> str:
    """Tables and misses, as Markdown."""
    parts = [sound(found["sound"]), gates(found["gates"]), excluded(found["gates"])]
    if found["fault"]:
        parts += [faults(found["fault"]), by_family(found["fault"]), alarms(found), misses(found)]
    spent = sum(row["seconds"] for kind in ("fault", "equivalent", "clean", "harness") for row in found[kind])
    parts.append(f"{found['seconds']:.0f} s; CPU seconds of all traces: {spent:.0f}")
    return "\n\n".join(part for part in parts if part)


def sound(rows: Sequence[Row]) -> str:
    """Candidates without a fault."""
    worst = {dtype: max(row["gap"] for row in rows if row["dtype"] == dtype) for dtype in ("float64", "float32")}
    return "Without a fault, the largest difference from a reference: " + ", ".join(
        f"{gap:.0e} in {dtype}" for dtype, gap in worst.items()
    )


def gates(rows: Sequence[Row]) -> str:
    """Faults that the usual gates pass."""
    counted = [row for row in rows if row["equivalent"] is None]
    lines = ["| usual gate, freshly made weights, float32 | faults called right | of |", "|---|---|---|"]
    lines += [f"| {gate} | {sum(row['passes'][gate] for row in counted)} | {len(counted)} |" for gate in GATES]
    together = sum(all(row["passes"].values()) for row in counted)
    return "\n".join([*lines, f"| all four | {together} | {len(counted)} |"])


def excluded(rows: Sequence[Row]) -> str:
    """Equivalent mutants."""
    none = [row for row in rows if row["equivalent"] is not None]
    lines = [f"- {row['id']}: {row['equivalent']} (changes the outputs by {row['change']:.0e})" for row in none]
    return "\n".join([f"Not counted, since nothing changes ({len(none)}):", *lines]) if none else ""


def faults(rows: Sequence[Row]) -> str:
    lines = [
        "| dtype | faults | detected | located | diagnosed | by that cause alone | mean CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for dtype in sorted({row["dtype"] for row in rows}):
        some = [row for row in rows if row["dtype"] == dtype]
        cells = [share(some, key) for key in ("detected", "located", "diagnosed", "named_alone")]
        mean = sum(row["seconds"] for row in some) / len(some)
        lines.append(f"| {dtype} | {len(some)} | {' | '.join(cells)} | {mean:.1f} |")
    return "\n".join(lines)


def share(rows: Sequence[Row], key: str) -> str:
    count = sum(row[key] for row in rows)
    return f"{count} ({100 * count / len(rows):.1f} %)"


def by_family(rows: Sequence[Row]) -> str:
    lines = ["| family, dtype | faults | detected | located | diagnosed |", "|---|---|---|---|---|"]
    for family, dtype in sorted({(row["id"].partition("/")[0], row["dtype"]) for row in rows}):
        some = [row for row in rows if row["dtype"] == dtype and row["id"].startswith(f"{family}/")]
        cells = " | ".join(str(sum(row[key] for row in some)) for key in ("detected", "located", "diagnosed"))
        lines.append(f"| {family}, {dtype} | {len(some)} | {cells} |")
    return "\n".join(lines)


def alarms(found: Mapping[str, Any]) -> str:
    """Clean ports, harness faults, equivalent mutants, findings too many."""
    lines = []
    clean = found["clean"]
    false = [row for row in clean if row["detected"] or row["error"]]
    lines.append(f"False alarms on sound ports: {len(false)} of {len(clean)}")
    lines += [f"- {row['id']}, {row['dtype']}: {row['place']}: {row['says']}" for row in false]
    harness = found["harness"]
    if harness:
        passed = [row for row in harness if not row["detected"]]
        lines.append(f"Faults of the comparison that passed: {len(passed)} of {len(harness)}")
        lines += [f"- {row['id']}, {row['dtype']}: {row['says']}" for row in passed]
    said = Counter("clean" if not row["detected"] and not row["error"] else "divergence" for row in found["equivalent"])
    lines.append("Equivalent mutants: " + ", ".join(f"{count} {what}" for what, count in sorted(said.items())))
    lines += [
        f"- {row['id']}: {row['place']}: {row['says']}"
        for row in found["equivalent"]
        if row["detected"] or row["error"]
    ]
    more = [row for row in found["fault"] if row["findings"] > 1]
    lines.append(f"More than one finding for one fault: {len(more)}")
    return "\n".join(lines)


def misses(found: Mapping[str, Any]) -> str:
    """Every fault that was not detected, or not where it is, or not named."""
    rows = [row for row in found["fault"] if not (row["detected"] and row["located"] and row["diagnosed"])]
    lines = ["Misses:"] if rows else []
    for row in rows:
        missed = next(what for what in ("detected", "located", "diagnosed") if not row[what])
        lines.append(
            f"- {row['id']}, {row['dtype']}: not {missed}: at `{row['place']}`, {', '.join(row['causes']) or '-'}: {row['says']}"
        )
        lines.append(f"  expected at {', '.join(row['where'])}: {', '.join(row['expected'])}")
    return "\n".join(lines)
