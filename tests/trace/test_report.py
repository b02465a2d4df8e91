"""A report in text, as a tree, as a chart, as data: the verdict first, and how much was compared, always."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from isomorph.trace.nouns import (
    Cause,
    Event,
    Finding,
    Link,
    Measure,
    Node,
    Run,
    Site,
    Suspect,
    TraceReport,
    WeightDifference,
)
from isomorph.trace.report import text, to_html, to_json
from isomorph.trace.svg import MOST_POINTS, thinned, to_svg
from isomorph.trace.tree import tree_lines

LAYERS = 6
SVG = "{http://www.w3.org/2000/svg}"


def event(node: Node | None, border: str, name: str, other: str, place: int) -> Event:
    link = Link(border, other, name, names=None if node is not None else ("logits", "0"))  # type: ignore[arg-type]
    return Event(node, link, Site(other, 0, border), Site(name, 0, border), place)  # type: ignore[arg-type]


def made(wrong: int | None = None, error: float = 0.5) -> TraceReport:
    """Six layers with a norm and a fused projection each; from layer `wrong` on everything is over."""
    nodes, measures, place = [], [], 0
    for layer in range(LAYERS):
        for name, others in (("norm", ("ln",)), ("qkv", ("q", "k", "v"))):
            mine, theirs = f"blocks.{layer}.{name}", tuple(f"h.{layer}.{one}" for one in others)
            node = Node("leaf", theirs, (mine,), (), tuple(Link("out", other, mine) for other in theirs))
            nodes.append(node)
            for other in theirs:
                place += 1
                over = wrong is not None and (layer > wrong or (layer == wrong and name == "qkv"))
                measures.append(Measure(event(node, "out", mine, other, place), error if over else 2e-16, 4e-15, 1000))
    measures.append(Measure(event(None, "out", "", "", 99), error if wrong is not None else 1e-16, 4e-15, 500))
    findings: tuple[Finding, ...] = ()
    if wrong is not None:
        first = next(one for one in measures if one.error == error)
        suspect = Suspect("module", f"blocks.{wrong}.qkv", f"h.{wrong}.q", first.event, (), error, 4e-15)
        findings = (
            Finding(
                suspect,
                ("hot, short", "hot, long"),
                (Cause("weight-transposed", "weight is transposed", 3e-16, 1e-15),),
            ),
        )
    runs = tuple(Run("hot", probe, tuple(measures)) for probe in ("short", "long"))
    return TraceReport("Ref (torch)", "Cand (paddle)", "float64", runs, findings, nodes=tuple(nodes), notes=("a note",))


def test_the_verdict_comes_first_and_coverage_is_always_said() -> None:
    """Clean or not: what was compared, in how many runs, against what tolerances."""
    for report, first in ((made(), "SAME"), (made(3), "DIVERGED")):
        lines = text(report).splitlines()
        assert lines[0].startswith(first)
        tensors = 2 * (4 * LAYERS + 1)
        compared = f"compared  {tensors} tensors (2 of them outputs) · {2 * (4000 * LAYERS + 500):,} elements · 2 runs in float64"
        assert compared in lines
        assert "runs      hot × short · long" in lines
        assert "aligned   12 pairs of modules (12 leaves, 0 blocks)" in lines
        assert any(line.startswith("tolerance 16 × the reference's own gap") and "4e-15" in line for line in lines)
        assert "note      a note" in lines
        assert str(report) == text(report)


def test_a_finding_is_a_sentence_with_numbers_and_a_place() -> None:
    """What, where, by how much, seen where; the reference's module where its name is another."""
    lines = text(made(3)).splitlines()
    assert lines[0] == (
        "DIVERGED  blocks.3.qkv: weight is transposed; with that undone the output agrees to 3e-16 (floor 1e-15)"
    )
    assert "what goes in is within tolerance, what comes out is not: error 5.0e-01, tolerance 4.0e-15" in lines[1]
    assert "in the reference: h.3.q" in lines[2]
    assert "seen in: hot, short, hot, long" in lines[3]


def test_nothing_compared_is_no_pass() -> None:
    """No run, no tensor, a NaN at an output: diverged, and the first line says why."""
    empty = replace(made(), runs=())
    assert empty.diverged
    assert text(empty).startswith("FAILED    nothing was compared")
    bad = made()
    last = replace(bad.runs[0].measures[-1], problem="NaN")
    bad = replace(bad, runs=(replace(bad.runs[0], measures=(*bad.runs[0].measures[:-1], last)),))
    assert bad.diverged
    assert text(bad).startswith("DIVERGED  output 0: NaN")
    assert not made().diverged


def test_the_tree_folds_layers_that_look_the_same_and_marks_the_first_divergence() -> None:
    """Layers before are one row each, so are those after; the arrow stands at the module; references are named beside."""
    lines = tree_lines(made(3))
    assert lines[0] == "in the run: hot, short"
    names = [line.split()[0] for line in lines[1:]]
    assert names == ["blocks", "{0..2}", "norm", "qkv", "3", "norm", "qkv", "{4..5}", "norm", "qkv", "→"]
    (arrow,) = [number for number, line in enumerate(lines) if line.endswith("◀ first divergence")]
    assert lines[arrow].split()[0] == "qkv"
    assert lines[arrow - 2].split()[0] == "3"
    assert "5.0e-01 / 4.0e-15   ✗" in lines[arrow]
    assert "= h.{0..2}.q, h.{0..2}.k, h.{0..2}.v" in lines[4]
    assert lines[-1].startswith("→ output 0")
    assert "= logits" in lines[-1]
    assert ["blocks", "{0..5}"] == [line.split()[0] for line in tree_lines(made())[1:3]]


def test_two_findings_have_an_arrow_each_and_a_stretch_says_that_it_comes_before() -> None:
    """The second is numbered; of a stretch the arrow stands where it was first seen."""
    report = made(3)
    at = report.runs[0].measures[0].event
    stretch = Finding(
        Suspect("stretch", "blocks", "h", at, (), 0.1, 1e-15),
        (),
        (Cause("unknown", "unknown", 0.1, 1e-15),),
        ("by head: 0.1",),
    )
    report = replace(report, findings=(*report.findings, stretch))
    lines = text(report).splitlines()
    assert "and       blocks: unknown" in lines
    assert "          by head: 0.1" in lines
    assert any("between the inputs (within) and blocks.0.norm, output" in line for line in lines)
    assert any(line.endswith("◀ divergence 2 (before it comes out)") and "norm" in line for line in lines)


def test_weights_that_differ_and_modules_that_nobody_faces_are_listed() -> None:
    """Each with how much of it differs, and its cause."""
    weight = WeightDifference("blocks.0.norm.weight", ("h.0.ln.weight",), 1000, 7, "rows 3 and 7 are swapped")
    report = replace(made(), weights=(weight,), unaligned=(("h.0.gate",), ()), morph="# a -> b\n# comment\n\na <-> b\n")
    lines = text(report).splitlines()
    assert "          blocks.0.norm.weight, 7 of 1,000 elements: rows 3 and 7 are swapped" in lines
    assert "unaligned 1 of the reference, judged by what goes on from there: h.0.gate" in lines
    assert "morph     a -> b (below)" in lines
    assert lines[-1] == "a <-> b"


def test_json_holds_it_all_and_is_json() -> None:
    """Numbers that are not finite are texts, so that any reader takes it."""
    data = json.loads(json.dumps(to_json(made(3, float("inf"))), allow_nan=False))
    assert data["diverged"] is True
    assert data["compared"]["tensors"] == 2 * (4 * LAYERS + 1)
    assert data["findings"][0]["causes"][0]["kind"] == "weight-transposed"
    assert data["findings"][0]["error"] == "inf"
    assert {one["within"] for one in data["runs"][0]["tensors"]} == {True, False}
    assert data["runs"][0]["tensors"][-1]["candidate"] == "output 0"


@pytest.mark.parametrize(
    "report",
    [made(), made(2), made(2, float("inf")), replace(made(), runs=())],
    ids=["clean", "diverged", "inf", "none"],
)
def test_the_chart_is_valid_svg_with_the_tolerance_in_it(report: TraceReport) -> None:
    """Error and tolerance as lines, a point a tensor, the first divergence marked, all inside the picture."""
    root = ElementTree.fromstring(to_svg(report))
    lines = {one.get("class"): one.get("points", "").split() for one in root.iter(f"{SVG}polyline")}
    count = 4 * LAYERS + 1 if report.runs else 0
    assert [count, count] == [len(lines.get(kind, [])) for kind in ("error", "tolerance")]
    assert len(list(root.iter(f"{SVG}circle"))) == count
    assert len([one for one in root.iter(f"{SVG}line") if one.get("class") == "mark"]) == len(report.findings)
    places = [tuple(map(float, point.split(","))) for points in lines.values() for point in points]
    assert all(0 <= x <= 960 and 0 <= y <= 380 for x, y in places)
    assert to_svg(report) in to_html(report)


def test_a_name_cannot_break_the_chart() -> None:
    """Names go in escaped."""
    hostile = replace(made(1), candidate='<script>"&')
    ElementTree.fromstring(to_svg(hostile))
    assert "<script>" not in to_html(hostile)


def test_very_many_points_are_thinned_to_the_worst() -> None:
    """Of neighbours the one that is nearest to its tolerance stays."""
    many = list(made(3).runs[0].measures) * 400
    few = thinned(many)
    assert len(few) <= MOST_POINTS
    assert max(one.error for one in few) == max(one.error for one in many)


def test_a_function_is_traced_in_float32_and_a_table_of_float32_is_no_divergence() -> None:
    """A function's weights cannot be made float64. A difference that float32 cannot see is said, and is none."""
    import numpy as np
    import torch
    from torch import nn

    import isomorph as iso

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 3)).eval()
    inputs = [np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)]
    found = iso.trace(model, lambda x: model(x), inputs=inputs)
    assert ("float32", False, 1) == (found.dtype, found.diverged, len(found.runs))

    class Scaled(nn.Module):
        """Its table is made in float32, and stays what it is when the model becomes float64."""

        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.lin = nn.Linear(6, 3)
            self.register_buffer("table", torch.full((3,), 0.1, dtype=dtype), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.lin(x) * self.table
            return out

    one, other = Scaled(torch.float64).eval(), Scaled(torch.float32).eval()
    one.lin, other.lin = one.lin.double(), other.lin.double()
    other.lin.load_state_dict(one.lin.state_dict())
    found = iso.trace(one, other, "** <-> **", inputs=inputs, dtype="float64")
    assert not found.diverged
    assert "agree to float32's precision in all 3 runs, and no further: the output: error" in str(found)
