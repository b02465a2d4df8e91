"""A module that the candidate passes by: done to the reference, which is run again and must then agree with the candidate.

It needs no formula, so it explains what is seen only much later: at the model's outputs. One run of the reference a module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from isomorph.errors import UsageError
from isomorph.trace.diagnose import norms
from isomorph.trace.diagnose.layers import gap_at
from isomorph.trace.diagnose.stretch import Stretch
from isomorph.trace.nouns import Array, Call, Cause, Site

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_RUNS = 6


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """Until one restores agreement: of norms and functions that the candidate does not show, norms and the last ones first."""
    stretch = Stretch(scene)
    hidden = sorted(_hidden(stretch), key=lambda one: not stretch.modules[one[0].module].own)
    for call, entered in hidden[:MOST_RUNS]:
        again = {Site(call.module, call.call, "out", 0): np.asarray(entered)}
        try:
            gap = gap_at(stretch, scene.reference.run(scene.probe.reference, splice=again))
        except UsageError:
            continue
        if gap is not None:
            yield stretch.cause(*_says(stretch, call, entered.shape[-1]), gap)
            if gap <= stretch.limit:
                return


def _hidden(stretch: Stretch) -> Iterator[tuple[Call, Array]]:
    """(call, what goes in) of leaves before the divergence whose output both sides do not show alike."""
    scene = stretch.scene
    values = scene.seen_reference.values
    shown = {measure.event.reference for measure in scene.measures if measure.is_within}
    for call in reversed(scene.seen_reference.ended):
        out = Site(call.module, call.call, "out", 0)
        one, two = values.get(Site(call.module, call.call, "in", 0)), values.get(out)
        if not call.module or one is None or two is None or out in shown or stretch.modules[call.module].children:
            continue
        if stretch.moments.get(out, stretch.moment) > stretch.moment or one.dtype.kind != "f" or one.dtype != two.dtype:
            continue
        if any(np.ndim(scene.state_reference.get(name, 0.0)) > 1 for name in stretch.modules[call.module].own):
            continue
        if one.shape == two.shape and not np.array_equal(one, two):
            yield call, one


def _says(stretch: Stretch, call: Call, width: int) -> tuple[str, str]:
    name = norms.short(call.module)
    of_width = [one.module for one in norms.norm_calls(stretch, width)]
    if call.module in of_width:
        if of_width[-1] == call.module:
            return "final-norm-missing", f"the final norm ({name}) is missing: what goes into it goes on"
        return "norm-missing", f"the norm {name} is missing: what goes into it goes on"
    return "activation-missing", f"{name} is passed by: what goes into it goes on"
