"""What goes wrong in ports of decoders is named: rotary positions, shared key heads, masks, gates, norms and heads."""

from __future__ import annotations

from typing import Any

import decoders
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import twins

from isomorph.trace.diagnose.attention_rates import rates_words
from isomorph.trace.diagnose.pointwise import identify
from isomorph.trace.nouns import TraceReport
from isomorph.trace.probes import Probe
from isomorph.trace.regimes import Regime
from isomorph.trace.run import trace
from isomorph.trace.sides import side_of


def slow(rates: torch.Tensor) -> torch.Tensor:
    """Frequencies as models for long texts have them: the slow ones a quarter."""
    return torch.where(rates < 0.1, rates / 4, rates)


CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "pairs": ({"style": "pairs", "only 1": True}, "rotary-style", "rotary turns neighbours (2i, 2i+1)"),
    "theta": ({"theta": 500000.0}, "rotary-theta", "rotary's theta is 500000, the reference's 10000"),
    "an odd theta": ({"theta": 12345.0}, "rotary-theta", "rotary's theta is 12345"),
    "half of each head": ({"turned": 4}, "rotary-partial", "rotary turns 4 entries of each head, the reference 8"),
    "its own frequencies": ({"turned": 4, "over": 8}, "rotary-partial", "at the frequencies of 8"),
    "the other way": ({"sign": -1.0}, "rotary-sign", "the other way"),
    "half positions": ({"positions scaled": 0.5}, "rotary-positions", "rotary's positions are multiplied by 0.5"),
    "slow frequencies": ({"rates": slow}, "rotary-positions", "by 1 1 0.25 0.25"),
    "keys only": ({"keys only": True}, "rotary-missing", "rotary turns the keys only"),
    "values too": ({"values too": True}, "rotary-extra", "rotary turns the values too"),
    "tiled": ({"groups": "tile"}, "head-groups", "key heads are tiled (0 1 0 1 …)"),
    "scale": ({"scale": decoders.D**-0.5}, "attention-scale", "scale 0.204124, the reference 0.353553"),
    "soft cap": ({"cap": 5.0}, "attention-soft-cap", "capped at 5"),
    "sees ahead": ({"ahead": 1}, "mask-offset", "a query sees the next key too"),
    "window": ({"window": 3}, "mask-window", "a query sees 3 keys at most (its window)"),
    "sink": ({"sink": 1.0}, "attention-softmax", "off by one"),
    "k and v": ({"swapped": True}, "qkv-order", "k and v are swapped"),
    "GELU": ({"act": F.gelu}, "activation", "activation is GELU erf, the reference has SiLU"),
    "gate": ({"gate swapped": True}, "gate-swapped", "gate and up are swapped"),
    "gate by pairs": ({"gate interleaved": True}, "gate-swapped", "cut into interleaved"),
    "up + 1": ({"up plus": 1.0}, "gate-form", "1 is added to the second projection"),
    "1 + weight": ({"norm1": {"plus": 1.0}}, "norm-one-plus-weight", "multiplies by 1 + weight"),
    "eps": ({"norm2": {"eps": 1e-6}}, "norm-eps", "eps is 1e-06, the reference has 1e-05"),
    "layer norm": ({"final": {"centred": True}}, "norm-mean", "the mean is subtracted"),
    "parallel": ({"parallel": True}, "parallel-block", "wo's output is missing"),
    "branch": ({"branch": 0.5}, "residual-scaled", "wo's output is multiplied by 0.5"),
    "words": ({"model words": decoders.D**0.5}, "embedding-scale", "sqrt(24)"),
    "head": ({"model head": 0.5}, "head-scale", "multiplied by 0.5"),
    "last cap": ({"model cap": 30.0}, "activation", "a soft cap at 30 (c·tanh(x/c)) is applied"),
}


def traced(faults: dict[str, Any], probe: Probe | None = None) -> TraceReport:
    reference = twins.seeded(decoders.Reference)
    bridge = twins.bridge_of(reference, decoders.SOUND)
    candidate = twins.filled(decoders.Candidate(**faults), reference, bridge)
    probe = probe or twins.probe(length=9, is_padded=True)
    return trace(side_of(reference), side_of(candidate), bridge, [probe], [Regime("hot")])


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_named(name: str) -> None:
    """Alone, and what is left is within the tolerance."""
    faults, kind, says = CASES[name]
    finding = traced(faults).findings[0]
    assert [cause.kind for cause in finding.causes] == [kind], finding.sentence
    assert says in finding.causes[0].says
    assert finding.causes[0].residual <= max(finding.suspect.tolerance, finding.causes[0].floor)


def test_the_sound_port_is_one_function() -> None:
    report = traced({})
    assert not report.diverged
    assert not report.findings


def test_rows_that_see_nothing_and_give_nan_are_named() -> None:
    """Padding on the left, under a causal mask: the first rows have no key."""
    right = twins.probe(length=9, is_padded=True)
    mask = np.asarray(right.padding)[:, ::-1].astype(np.int64)
    given = {**dict(right.reference), "mask": mask}  # type: ignore[arg-type] # by name
    others = {**dict(right.others), "mask": mask}  # type: ignore[arg-type]
    finding = traced({}, Probe("left", given, given, others, mask.astype(bool))).findings[0]
    assert [cause.kind for cause in finding.causes] == ["mask-nan"], finding.sentence
    assert "rows whose keys are all hidden give NaN" in finding.causes[0].says


def test_frequencies_in_words() -> None:
    assert rates_words((0.5, 0.5, 0.5)) == "rotary's positions are multiplied by 0.5"
    assert rates_words((1.0, 0.25)).endswith("by 1 0.25")


def test_a_soft_cap_is_solved_for() -> None:
    x = torch.linspace(-70, 70, 401, dtype=torch.float64).numpy()
    capped = 12.5 * torch.tanh(torch.from_numpy(x) / 12.5).numpy()
    assert identify(x, capped)[0].name == "a soft cap at 12.5 (c·tanh(x/c))"
