"""Location: faults planted in a candidate of another style are found where they are; differences of structure are none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from twins import (
    FUSED,
    HEADS,
    D,
    Embed,
    Fused,
    FusedAttention,
    FusedBlock,
    Inward,
    Mlp,
    Plain,
    bridge_of,
    filled,
    probe,
    seeded,
)

from isomorph.trace.nouns import TraceReport
from isomorph.trace.regimes import regimes
from isomorph.trace.run import trace
from isomorph.trace.torch_side import TorchSide

pytestmark = pytest.mark.usefixtures("undiagnosed")


def traced(
    fault: Callable[[nn.Module], None],
    *,
    candidate: type[nn.Module] = Fused,
    regime: str = "hot",
    dtype: str | None = None,
) -> TraceReport:
    reference = seeded(Plain)
    bridge = bridge_of(reference, FUSED)
    other = filled(candidate(), reference, bridge)
    fault(other)
    chosen = [one for one in regimes() if one.name == regime]
    return trace(TorchSide(reference), TorchSide(other), bridge, [probe(batch=3, is_padded=True)], chosen, dtype=dtype)


def becomes(path: str, kind: type[nn.Module]) -> Callable[[nn.Module], None]:
    """A fault of code: a module of another class, with the weights that it has."""

    def fault(model: nn.Module) -> None:
        model.get_submodule(path).__class__ = kind

    return fault


class NoResidual(FusedBlock):
    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn(self.n1(x), mask)
        return self.mlp(self.n2(x)) + x


class NoLastResidual(FusedBlock):
    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn(self.n1(x), mask) + x
        return self.mlp(self.n2(x))


class NormsAfter(FusedBlock):
    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.n1(self.attn(x, mask) + x)
        return self.n2(self.mlp(x) + x)


class Unscaled(FusedAttention):
    def core(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return super().core(q * (D // HEADS) ** 0.5, k, v, mask)


class KeysForValues(FusedAttention):
    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().split(x)
        return q, v, k


class Unmasked(FusedAttention):
    def core(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return super().core(q, k, v, None)


class Moved(Embed):
    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids) + self.positions[2 : 2 + ids.shape[1]]


class TanhGelu(Mlp):
    def act(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")


class Dropping(Mlp):
    def act(self, x: Tensor) -> Tensor:
        return F.dropout(super().act(x), 0.2, True)


class Turned(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.T, self.bias)


class Reversed(Fused):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids)
        for block in reversed(list(self.blocks)):
            x = block(x, mask)
        x = self.final(x)
        return {"hidden": x, "logits": self.classify(x[:, 0])}


class SecondToken(Fused):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        found = super().forward(ids, mask)
        return found | {"logits": self.classify(found["hidden"][:, 1])}


def other_eps(model: nn.Module) -> None:
    model.blocks[1].n1.eps = 1e-3


CODE = {
    "a scale that is missing": (becomes("blocks.0.attn", Unscaled), "stretch", "blocks.0.attn"),
    "k and v exchanged": (becomes("blocks.1.attn", KeysForValues), "stretch", "blocks.1.attn"),
    "a mask that is ignored": (becomes("blocks.1.attn", Unmasked), "stretch", "blocks.1.attn"),
    "a residual that is dropped": (becomes("blocks.1", NoResidual), "stretch", "blocks.1"),
    "the last residual of a block": (becomes("blocks.0", NoLastResidual), "stretch", "blocks.0"),
    "another activation": (becomes("blocks.1.mlp", TanhGelu), "stretch", "blocks.1.mlp"),
    "dropout left on": (becomes("blocks.0.mlp", Dropping), "stretch", "blocks.0.mlp"),
    "positions moved": (becomes("embed", Moved), "stretch", "embed"),
    "a weight turned in the code": (becomes("blocks.1.attn.out", Turned), "module", "blocks.1.attn.out"),
    "another eps": (other_eps, "module", "blocks.1.n1"),
    "another order of layers": (becomes("", Reversed), "stretch", "blocks"),
    "another token": (becomes("", SecondToken), "stretch", ""),
}


@pytest.mark.parametrize("name", CODE)
def test_one_fault_of_code_is_one_finding_where_it_is(name: str) -> None:
    """Law: the first finding is the place of the fault, and there is no other."""
    fault, kind, where = CODE[name]
    found = traced(fault).findings
    assert [(kind, where)] == [(one.suspect.kind, one.suspect.candidate) for one in found]


@pytest.mark.parametrize("name", ["a scale that is missing", "a residual that is dropped", "another activation"])
def test_float32_finds_it_too(name: str) -> None:
    """What is larger than rounding is found in the same place."""
    fault, kind, where = CODE[name]
    found = traced(fault, dtype="float32").findings
    assert [(kind, where)] == [(one.suspect.kind, one.suspect.candidate) for one in found]


def test_two_faults_are_two_findings() -> None:
    """The first is mended, then the second is found, in the same block and in another."""

    def both(model: nn.Module) -> None:
        becomes("blocks.0.attn", Unscaled)(model)
        becomes("blocks.0", NoLastResidual)(model)
        becomes("blocks.1.mlp", TanhGelu)(model)

    assert ["blocks.0.attn", "blocks.0", "blocks.1.mlp"] == [one.suspect.candidate for one in traced(both).findings]


def test_the_same_in_every_layer_is_one_finding() -> None:
    """It lists its places."""

    def everywhere(model: nn.Module) -> None:
        for number in range(2):
            becomes(f"blocks.{number}.attn", Unscaled)(model)

    (found,) = traced(everywhere).findings
    assert ("blocks.0.attn", "blocks.1.attn") == found.places


def test_another_order_of_norms_is_one_finding() -> None:
    """Pre-LN against post-LN: everything inside is off; it is said once, of the blocks."""

    def after(model: nn.Module) -> None:
        for number in range(2):
            becomes(f"blocks.{number}", NormsAfter)(model)

    (found,) = traced(after).findings
    assert ("blocks.0", "blocks.1") == found.places


def transposed(model: nn.Module) -> None:
    weight = model.blocks[1].attn.out.weight
    weight.data = weight.data.T.clone()


def exchanged(model: nn.Module) -> None:
    weight = model.blocks[0].attn.qkv.weight
    q, k, v = weight.data.chunk(3)
    weight.data = torch.cat([q, v, k])


def not_a_number(model: nn.Module) -> None:
    model.blocks[1].mlp.up.bias.data[3] = float("nan")


@pytest.mark.parametrize(
    ("fault", "where"),
    [(transposed, "blocks.1.attn.out"), (exchanged, "blocks.0.attn.qkv"), (not_a_number, "blocks.1.mlp.up")],
)
def test_wrong_weights_are_found_in_own_weights_alone(fault: Callable[[nn.Module], None], where: str) -> None:
    """The synthetic regimes are written through the morph into both: they clear the code."""
    found = traced(fault, regime="own weights")
    assert [("module", where)] == [(one.suspect.kind, one.suspect.candidate) for one in found.findings]
    assert [where] == [one.name.rpartition(".")[0] for one in found.weights]
    assert () == traced(fault).findings


def sound(model: nn.Module) -> None:
    """No fault."""


def test_work_that_is_cut_otherwise_is_no_fault() -> None:
    """An activation inside a Linear, a residual inside a block: inner tensors differ, and nothing is found."""
    report = traced(sound, candidate=Inward)
    assert any(not one.is_within for run in report.runs for one in run.measures)
    assert () == report.findings
    assert all(run.is_within for run in report.runs)


def test_a_fault_behind_work_that_is_cut_otherwise_is_found() -> None:
    """The places that differ in structure are passed, in the layer of the fault too."""
    report = traced(becomes("blocks.1.attn", Unscaled), candidate=Inward)
    assert ["blocks.1.attn"] == [one.suspect.candidate for one in report.findings]
