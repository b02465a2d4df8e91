"""The reference alone -> the tolerance of each of its tensors: 16 times its own gap between the run's dtype and a finer one.

The gap is taken on other inputs than those that are compared, of the same kind, with the same weights. A float64 run is held to
float32's gap, scaled by the ratio of their steps, 2^-29.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from isomorph.trace.compare import error_of, real_positions
from isomorph.trace.nouns import Array, Capture, Node, Site
from isomorph.trace.pairing import value
from isomorph.trace.protocol import Inputs, Side

MULTIPLE = 16.0
EPSILON: Mapping[str, float] = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
COARSE: Mapping[str, str] = {"float64": "float32", "float32": "float32", "float16": "float16", "bfloat16": "bfloat16"}
"""The run's dtype -> the one whose gap to float64 is taken."""
SMALL = 256
"""Elements: of a smaller tensor the gap may be small by luck, so it is at least the median of all tensors'."""


@dataclass(frozen=True)
class Floor:
    """Tolerances by reference site, in the unit of Measure.error. `outputs`: the largest gap at the outputs, not multiplied."""

    tolerances: Mapping[Site, float]
    median: float
    least: float
    outputs: float
    by_module: Mapping[str, float] = field(default_factory=dict)
    """Of any tensor at a module's borders."""

    def of(self, site: Site, node: Node | None = None) -> float:
        """The tolerance at a site; where the other run had no tensor there, the largest of the node's modules, else of all."""
        found = self.tolerances.get(site)
        if found is not None:
            return found
        mine = [self.by_module[name] for name in (node.reference if node else ()) if name in self.by_module]
        return float(max([*mine, self.least, *(() if mine else self.tolerances.values())]))


def floor_of(coarse: Capture, fine: Capture, dtype: str, padding: Array | None = None) -> Floor:
    """Tolerances from two runs of the reference on the same inputs, `coarse` in COARSE[dtype], `fine` in float64."""
    scale = EPSILON[dtype] / EPSILON[COARSE[dtype]]
    least = MULTIPLE * EPSILON[dtype] / 2
    sites = [site for site in coarse.values if site.module or site.border == "in"]
    sites += [Site("", 0, "out", number) for number in range(len(coarse.outputs))]
    gaps: dict[Site, tuple[float, int]] = {}
    for site in sites:
        one, other = value(coarse, site), value(fine, site)
        if one is None or other is None or one.shape != other.shape:
            continue
        if one.dtype.kind != "f":
            gaps[site] = (0.0, one.size)
            continue
        kept = real_positions(padding, one.shape)
        gap = error_of(other.astype(np.float64, copy=False), one.astype(np.float64, copy=False), kept)
        if np.isfinite(gap):
            gaps[site] = (gap * scale, one.size)
    positive = [gap for gap, _ in gaps.values() if gap > 0]
    median = float(np.median(positive)) if positive else least / MULTIPLE
    tolerances = {
        site: max(MULTIPLE * (max(gap, median) if size < SMALL and gap > 0 else gap), least)
        for site, (gap, size) in gaps.items()
    }
    by_module: dict[str, float] = {}
    for site, tolerance in tolerances.items():
        by_module[site.module] = max(tolerance, by_module.get(site.module, 0.0))
    outputs = [gap for site, (gap, _) in gaps.items() if not site.module and site.border == "out"]
    return Floor(tolerances, median, least, max(outputs, default=0.0), by_module)


def measured_floor(coarse: Side, fine: Side, inputs: Inputs, dtype: str, padding: Array | None = None) -> Floor:
    """The floor of one regime and one probe: both sides are copies of the reference with the same weights."""
    return floor_of(coarse.run(inputs), fine.run(inputs), dtype, padding)
