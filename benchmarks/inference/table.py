"""The tables, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

Rows = Sequence[Mapping[str, Any]]
Table = Callable[[Rows, bool], Iterable[str]]


def line(*cells: object) -> str:
    """A row of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def header(*cells: str) -> Iterator[str]:
    """The first two rows."""
    yield line(*cells)
    yield line("---", *("---:" for _ in cells[1:]))


def by(rows: Rows, *keys: str) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The rows of each group, in their order."""
    for _, group in groupby(rows, key=lambda row: tuple(row[key] for key in keys)):
        found = list(group)
        yield str(found[0][keys[0]]), found


def about_values(rows: Rows, totals: bool) -> Iterable[str]:
    """By values: what is placed, and what the morph makes."""
    yield from header(
        "by values",
        "tensors",
        "right",
        "wrong",
        "asked",
        "unplaced",
        "bit for bit",
        "other weights",
        "lines",
        "by hand",
        "s",
        "MB/s",
    )
    for corpus, group in by(rows, "corpus"):
        if not totals:
            yield from (line(*value_cells(row)) for row in group)
        decidable = [row for row in group if row["whole"]]
        again = [row["again"] for row in group if row["again"] is not None]
        hand = [row for row in group if row["hand"]]
        yield line(
            f"**{corpus}**, {len(group)}",
            *(sum(row[key] for row in group) if row_judged(group) or key == "targets" else "" for key in COUNTS),
            f"{sum(row['exact'] for row in decidable)} of {len(decidable)}",
            f"{sum(again)} of {len(again)}",
            sum(row["lines"] for row in (hand or group)),
            sum(row["hand"] for row in hand) or "",
            f"{sum(row['seconds'] for row in group):.0f}",
            f"{sum(row['megabytes'] for row in group) / max(1e-9, sum(row['seconds'] for row in group)):.0f}",
        )
    yield ""
    for row in rows:
        if not row["honest"] or row["wrong"] or (row["whole"] and not row["exact"]):
            yield f"- {row['name']}: {row['notes'] or 'not everything is placed'}"


COUNTS = ("targets", "right", "wrong", "asked", "unplaced")


def row_judged(rows: Rows) -> bool:
    """Whether the elements were numbered: those of trained weights are not."""
    return any(row["right"] + row["wrong"] + row["asked"] + row["unplaced"] for row in rows)


def value_cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    """One example."""
    rate = row["megabytes"] / max(row["seconds"], 1e-9)
    return (
        row["name"], row["targets"], row["right"], row["wrong"], row["asked"], row["unplaced"], "yes" if row["exact"] else "no",
        {None: "", True: "yes", False: "no"}[row["again"]], row["lines"], row["hand"] or "", f"{row['seconds']:.1f}", f"{rate:.1f}",
    )  # fmt: skip


STATES = ("right", "wrong", "asked", "asked without the truth", "unplaced")


def about_names(rows: Rows, totals: bool) -> Iterable[str]:
    """By names: what is stated and what is asked; the orientation of matrices, the order of what is fused."""
    yield from header(
        "by names", "targets", "right", "wrong", "asked", "without the truth", "unplaced", "sources known", "orientation",
        "order", "questions", "s",
    )  # fmt: skip
    for catalogue in (True, False):
        chosen = sorted(
            (row for row in rows if row["catalogue"] is catalogue), key=lambda row: "mislead" in row["corpus"]
        )
        for corpus, group in by(chosen, "corpus"):
            if not totals:
                yield from (name_line(row["name"] + ("" if catalogue else ", no catalogue"), [row]) for row in group)
            yield name_line(f"**{corpus}**, {'with' if catalogue else 'without'} the catalogue", group)
    yield ""
    for row in rows:
        for state in ("wrong", "missed"):
            if row[state]:
                what = {"wrong": "stated wrongly", "missed": "asked without the truth"}[state]
                yield f"- {row['name']}{'' if row['catalogue'] else ', no catalogue'}: {len(row[state])} {what}: {row[state][0]}"
        if row["error"]:
            yield f"- {row['name']}: {row['error']}"


def name_line(name: str, rows: Rows) -> str:
    """The sum of these rows. Orientation and order: right / wrong / asked / unplaced."""
    states, sources, orientation, order = (
        sum((Counter(row[key]) for row in rows), Counter()) for key in ("states", "sources", "orientation", "order")
    )
    targets = sum(row["targets"] for row in rows)
    return line(
        name,
        targets,
        *(states[state] for state in STATES),
        f"{100 * sources['right'] / max(1, targets):.1f} %",
        in_short(orientation),
        in_short(order),
        sum(row["questions"] for row in rows),
        f"{sum(row['seconds'] for row in rows):.1f}",
    )


def in_short(counted: Mapping[str, int]) -> str:
    """right / wrong / asked / unplaced."""
    asked = counted.get("asked", 0) + counted.get("asked without the truth", 0)
    return f"{counted.get('right', 0)} / {counted.get('wrong', 0)} / {asked} / {counted.get('unplaced', 0)}"


def about_rivals(rows: Rows, totals: bool) -> Iterable[str]:
    """Other matchers on the same pairs: targets of which every element is right, wrong, or that were refused."""
    yield from header("rival", "targets", "right", "wrong", "refused", "why")
    ordered = sorted(rows, key=lambda row: (row["rival"], row["corpus"]))
    for rival, group in by(ordered, "rival", "corpus"):
        if not totals:
            for row in group:
                count = row["right"] + row["wrong"] + row["refused"]
                yield line(f"{rival}: {row['name']}", count, row["right"], row["wrong"], row["refused"], row["why"])
        sums = [sum(row[key] for row in group) for key in ("right", "wrong", "refused")]
        stopped = sum(row["refused"] == row["right"] + row["wrong"] + row["refused"] for row in group)
        yield line(f"**{rival}, {group[0]['corpus']}**", sum(sums), *sums, f"{stopped} of {len(group)} refused whole")


def about_scale(rows: Rows, totals: bool) -> Iterable[str]:
    """Names against names."""
    yield from header("by names alone", "source", "target", "s")
    yield from (line(row["case"], row["source"], row["target"], f"{row['seconds']:.1f}") for row in rows)
