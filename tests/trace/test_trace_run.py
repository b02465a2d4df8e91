"""A whole trace: clean ports never diverge, what cannot be traced is refused, and every number is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from twins import FUSED, MULTIHEAD, SAME, Fused, Plain, SequenceFirst, bridge_of, filled, probe, seeded

from isomorph.errors import UsageError
from isomorph.trace.nouns import TraceReport
from isomorph.trace.regimes import regimes
from isomorph.trace.run import trace
from isomorph.trace.torch_side import TorchSide


def traced(reference: nn.Module, candidate: nn.Module, morph: str, **options: object) -> TraceReport:
    bridge = bridge_of(reference, morph)
    return trace(
        TorchSide(reference),
        TorchSide(filled(candidate, reference, bridge)),
        bridge,
        [probe(batch=3, length=11, is_padded=True)],
        regimes(),
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("depth", [2, 4, 12])
def test_a_clean_port_never_diverges(depth: int, dtype: str) -> None:
    """No false alarm at any depth, in both dtypes, in all regimes."""
    report = traced(seeded(Plain, depth=depth), Fused(depth), FUSED, dtype=dtype)
    assert () == report.findings
    assert all(run.is_within for run in report.runs)
    assert ("hot", "low-scale", "own weights") == tuple(dict.fromkeys(run.regime for run in report.runs))
    assert 0 < min(measure.elements for run in report.runs for measure in run.measures)


def test_sequence_first_and_fused_attention_are_no_fault() -> None:
    """nn.MultiheadAttention in a model of another layout."""
    assert not traced(seeded(Plain), SequenceFirst(), MULTIHEAD).diverged


def test_neither_model_is_changed() -> None:
    """Copies are run; the models keep every bit."""
    reference, candidate = seeded(Plain), seeded(Plain, seed=1)
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in (reference, candidate)]
    trace(TorchSide(reference), TorchSide(candidate), bridge_of(reference, SAME), [probe()], regimes()[:2])
    for model, state in zip((reference, candidate), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_transposed_weight_is_found_and_named() -> None:
    """The practitioner's hunt, as one call."""
    reference = seeded(Plain)
    bridge = bridge_of(reference, FUSED)
    candidate = filled(Fused(), reference, bridge)
    candidate.blocks[1].attn.out.weight.data = candidate.blocks[1].attn.out.weight.data.T.clone()
    report = trace(TorchSide(reference), TorchSide(candidate), bridge, [probe()], regimes())
    assert report.findings[0].sentence.startswith(
        "blocks.1.attn.out: weight is transposed; with that undone the output agrees to"
    )
    assert ("own weights, short",) == report.findings[0].runs
    assert ["blocks.1.attn.out.weight"] == [one.name for one in report.weights]


class Alien(nn.Module):
    """The reference's parameters, in modules that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = seeded(Plain)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        return {"hidden": torch.zeros(*ids.shape, 16), "logits": torch.zeros(ids.shape[0], 7)}


def test_models_without_an_aligned_module_are_refused() -> None:
    """Nothing aligned is no agreement."""
    with pytest.raises(UsageError, match="is aligned with one of"):
        traced(seeded(Plain), Alien(), "{t*} <-> inner.{t*}\n")


def test_a_reference_that_is_never_the_same_is_refused() -> None:
    """A divergence from it would say nothing."""

    class Noisy(Plain):
        def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
            return {"logits": super().forward(ids, mask)["logits"] + torch.rand(7)}

    with pytest.raises(UsageError, match="it is no reference"):
        traced(seeded(Noisy), Noisy(), SAME)


def test_a_morph_that_does_not_fit_is_refused() -> None:
    """Shapes are held against the candidate's before anything is run."""
    reference = seeded(Plain, depth=1)
    with pytest.raises(UsageError, match=r"the morph makes \[48, 16\]"):
        bridge = bridge_of(reference, FUSED)
        other = Fused(1).eval()
        other.blocks[0].attn.qkv = nn.Linear(16, 32)
        other.forward = lambda ids, mask=None: {"logits": torch.zeros(ids.shape[0], 7)}
        trace(TorchSide(reference), TorchSide(other), bridge, [probe()], regimes())


def test_tolerances_are_the_references_own_gaps() -> None:
    """In float64 they are of float64's size, in float32 of float32's; each tensor has its own."""
    fine, coarse = (traced(seeded(Plain), Fused(), FUSED, dtype=dtype) for dtype in ("float64", "float32"))
    for report, step in ((fine, 2.0**-53), (coarse, 2.0**-24)):
        found = {measure.tolerance for run in report.runs for measure in run.measures}
        assert len(found) > 10
        assert min(found) >= 16 * step
        assert float(np.median(list(found))) < 1e4 * step
