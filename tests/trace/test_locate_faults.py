"""Location: parts of one tensor, whole stacks, modules left out, tensors of another length, and what no output shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from twins import (
    FUSED,
    HEADS,
    Active,
    D,
    Embed,
    Fused,
    FusedAttention,
    FusedBlock,
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
    reference: type[nn.Module] = Plain,
    candidate: type[nn.Module] = Fused,
    regime: str = "hot",
    depth: int = 2,
    is_padded: bool = True,
) -> TraceReport:
    one = seeded(reference, depth=depth)
    bridge = bridge_of(one, FUSED)
    other = filled(candidate(depth), one, bridge)
    fault(other)
    chosen = [found for found in regimes() if found.name == regime]
    return trace(TorchSide(one), TorchSide(other), bridge, [probe(batch=3, is_padded=is_padded)], chosen)


def places(report: TraceReport) -> list[str]:
    return [found.suspect.candidate for found in report.findings]


def sound(model: nn.Module) -> None:
    """No fault."""


def becomes(path: str, kind: type[nn.Module]) -> Callable[[nn.Module], None]:
    def fault(model: nn.Module) -> None:
        model.get_submodule(path).__class__ = kind

    return fault


# One tensor, several parts.


class WithoutBias(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T


def key_and_value_rows(model: nn.Module) -> None:
    weight = model.blocks[1].attn.qkv.weight
    q, k, v = weight.data.chunk(3)
    weight.data = torch.cat([q, v, k])


def test_rows_of_keys_and_values_are_one_finding() -> None:
    """Two parts of one tensor are off: they are mended together, and nothing else is found."""
    assert ["blocks.1.attn.qkv"] == places(traced(key_and_value_rows, regime="own weights"))


def test_the_bias_of_a_fused_linear_is_its_own() -> None:
    """No part alone mends what is behind; the three do: the module is named, not the block."""
    report = traced(becomes("blocks.0.attn.qkv", WithoutBias))
    assert ["blocks.0.attn.qkv"] == places(report)
    assert "module" == report.findings[0].suspect.kind


class Apart(nn.Module):
    """q, k and v in Linears of their own, without their biases."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(D, D) for _ in range(4))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out(FusedAttention.core(self, q, k, v, mask).transpose(1, 2).flatten(2))  # type: ignore[arg-type]


class ApartBlock(FusedBlock):
    attention = Apart


class ApartModel(Fused):
    block = ApartBlock


APART = FUSED.replace("layers.{l}.{p=q|k|v}.{t} [o ...] <-> blocks.{l}.attn.qkv.{t} [(p o) ...]",
                      "layers.{l}.{p=q|k|v}.{t} <-> blocks.{l}.attn.{p}.{t}")  # fmt: skip


def test_places_that_none_mends_alone_are_found_together() -> None:
    """Biases of q and of v are missing: each of the two is named, k is not, and nothing behind is."""
    one = seeded(Plain)
    bridge = bridge_of(one, APART)
    other = filled(ApartModel(), one, bridge)
    for part in ("q", "v"):
        becomes(f"blocks.1.attn.{part}", WithoutBias)(other)
    hot = [found for found in regimes() if found.name == "hot"]
    report = trace(TorchSide(one), TorchSide(other), bridge, [probe(batch=3, is_padded=True)], hot)
    assert ["blocks.1.attn.q", "blocks.1.attn.v"] == places(report)


class WithoutKeyBias(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        made = super().forward(x)
        return torch.cat([made[..., :D], made[..., D : 2 * D] - self.bias[D : 2 * D], made[..., 2 * D :]], -1)


def test_what_nothing_behind_shows_is_noted_and_no_fault() -> None:
    """Softmax does not see a bias of the keys: the two are one function, and it is said where they differ inside."""
    report = traced(becomes("blocks.0.attn.qkv", WithoutKeyBias))
    assert () == report.findings
    assert not report.diverged
    assert ["blocks.0.attn.qkv: differs inside, without effect on anything that follows"] == list(report.notes)


def test_what_nothing_shows_hides_no_fault_behind_it() -> None:
    """In the same block, and in another."""

    def both(model: nn.Module) -> None:
        becomes("blocks.0.attn.qkv", WithoutKeyBias)(model)
        becomes("blocks.1.attn.out", WithoutBias)(model)

    assert ["blocks.1.attn.out"] == places(traced(both))


# Whole layers.


class Numbered(nn.Module):
    """Layers whose numbers are no part of their names by themselves: blocks_0, blocks_1."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.final, self.classify = Embed(), nn.LayerNorm(D), nn.Linear(D, 7)
        self.blocks_0, self.blocks_1 = FusedBlock(), FusedBlock()

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.final(self.blocks_1(self.blocks_0(self.embed(ids), mask), mask))
        return {"hidden": x, "logits": self.classify(x[:, 0])}


def test_a_fault_of_every_layer_is_one_finding_however_they_are_numbered() -> None:
    """The reference's numbers tell the layers; the two norms of a block stay two places."""
    one = seeded(Plain)
    bridge = bridge_of(one, FUSED.replace("blocks.{l}", "blocks_{l}"))
    other = filled(Numbered(), one, bridge)
    for block in (other.blocks_0, other.blocks_1):
        block.n1.eps = block.n2.eps = 1e-2  # type: ignore[union-attr]
    hot = [found for found in regimes() if found.name == "hot"]
    found = trace(TorchSide(one), TorchSide(other), bridge, [probe(batch=3)], hot).findings
    assert [("blocks_0.n1", "blocks_1.n1"), ("blocks_0.n2", "blocks_1.n2")] == [finding.places for finding in found]


def rolled(model: nn.Module) -> None:
    """Every block holds the next one's weights."""
    states = [{name: value.clone() for name, value in block.state_dict().items()} for block in model.blocks]
    for number, block in enumerate(model.blocks):
        block.load_state_dict(states[(number + 1) % len(states)])


def test_a_permuted_stack_is_one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in a layer: its cause speaks of all of them."""
    monkeypatch.undo()  # this one is diagnosed
    report = traced(rolled, regime="own weights", depth=4)
    (found,) = report.findings
    assert found.causes[0].kind.startswith("layers-")
    assert {"0", "1"} < {name.split(".")[1] for name in found.places}
    assert len({name.split(".", 2)[2] for name in found.places}) > 3


class Skipping(Fused):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids)
        for number in (0, 1, 3):
            x = self.blocks[number](x, mask)
        x = self.final(x)
        return {"hidden": x, "logits": self.classify(x[:, 0])}


def test_a_layer_left_out_is_named_itself() -> None:
    """Not the one before the gap."""
    assert ["blocks.2"] == places(traced(becomes("", Skipping), depth=4))


class TurnedAttention(FusedAttention):
    """What comes out is turned twice, as where the sequence comes first."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().forward(x, mask).transpose(0, 1).contiguous().transpose(0, 1)


class TurnedBlock(FusedBlock):
    attention = TurnedAttention

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn(self.n1(x), mask)
        return self.mlp(self.n2(x)) + x


class BackwardBlock(FusedBlock):
    """Its attention gives the sequence first, and its residual is dropped."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn(self.n1(x), mask)
        return self.mlp(self.n2(x)) + x


@pytest.mark.parametrize("kind", [TurnedBlock, BackwardBlock])
def test_a_dropped_residual_is_the_blocks(kind: type[nn.Module]) -> None:
    """The module before it only hands on what it made: the sum is missing in the block around it."""
    assert ["blocks.1"] == places(traced(becomes("blocks.1", kind)))


# Tensors of another length.


class PoolsFirst(Fused):
    """Takes the first token, then normalises."""

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, mask)
        return {"logits": self.classify(self.final(x[:, 0]))}


class PoolsLast(Plain):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": super().forward(ids, mask)["logits"]}


def other_eps(model: nn.Module) -> None:
    model.final.eps = 1e-2


CASES: Sequence[tuple[Callable[[nn.Module], None], list[str]]] = [
    (sound, []),
    (other_eps, ["final"]),
    (becomes("blocks.1.attn.qkv", WithoutBias), ["blocks.1.attn.qkv"]),
]


@pytest.mark.parametrize(("fault", "where"), CASES)
def test_a_candidate_that_pools_before_it_normalises(fault: Callable[[nn.Module], None], where: list[str]) -> None:
    """It holds one position where the reference holds all: compared with that one, no false alarm and nothing hidden."""
    report = traced(fault, reference=PoolsLast, candidate=PoolsFirst)
    assert where == places(report)
    if fault is not CASES[2][0]:  # there, what is pooled is another tensor until the fault is mended
        assert any(
            one.event.candidate.module == "final" and one.elements for run in report.runs for one in run.measures
        )


def test_a_reference_that_pools_before_it_normalises() -> None:
    """The other way round there is nothing to compare there; the rest is compared."""

    class Reference(PoolsLast):
        def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
            x = self.word(ids) + self.pos(torch.arange(ids.shape[1]))
            for layer in self.layers:
                x = layer(x, mask)
            return {"logits": self.head(self.norm(x[:, 0]))}

    assert not traced(sound, reference=Reference).diverged
    assert ["blocks.1.attn.qkv"] == places(traced(becomes("blocks.1.attn.qkv", WithoutBias), reference=Reference))


class Short(Embed):
    """Leaves the first token out."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids)[:, 1:]


class LogitsOnly(Fused):
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": super().forward(ids, mask)["logits"]}


def test_a_missing_token_is_found_where_it_is_left_out() -> None:
    """Everything behind has another length: the first of it is the finding, and the only one, in every regime."""
    one = seeded(PoolsLast)
    bridge = bridge_of(one, FUSED)
    other = filled(LogitsOnly(), one, bridge)
    becomes("embed", Short)(other)
    report = trace(TorchSide(one), TorchSide(other), bridge, [probe(batch=3)], regimes())
    (found,) = report.findings
    assert "embed" == found.suspect.candidate
    assert 3 == len(found.runs)
    problem = next(one.problem for run in report.runs for one in run.measures if one.event == found.suspect.at)
    assert "[3, 7, 16] and [3, 6, 16] are not of one content" == problem


class NormsTheRest(LogitsOnly):
    """Normalises all tokens but the last, which nothing reads."""

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, mask)
        return {"logits": self.classify(self.final(x[:, :-1])[:, 0])}


def test_another_length_that_nothing_shows_is_no_fault() -> None:
    """What is behind it is within; a fault behind it is found."""
    assert not traced(sound, reference=PoolsLast, candidate=NormsTheRest).diverged
    found = traced(becomes("classify", WithoutBias), reference=PoolsLast, candidate=NormsTheRest)
    assert ["classify"] == places(found)


# What is no number.


class Infinite(Mlp):
    def act(self, x: Tensor) -> Tensor:
        return super().act(x) / (x - x)


class Poisoned(Active):
    def forward(self, x: Tensor) -> Tensor:
        return super(Active, self).forward(x).sub(1e9).sqrt()


def nan_position(model: nn.Module) -> None:
    model.embed.positions.data[4, 3] = float("nan")


@pytest.mark.parametrize(
    ("fault", "regime", "where"),
    [
        (becomes("blocks.0.mlp", Infinite), "hot", "blocks.0.mlp"),
        (becomes("blocks.1.mlp.up", Poisoned), "hot", "blocks.1.mlp.up"),
        (nan_position, "own weights", "embed"),
    ],
)
def test_the_first_module_that_makes_what_is_no_number_is_named(
    fault: Callable[[nn.Module], None], regime: str, where: str
) -> None:
    """Everything behind it is NaN too, and is no finding of its own."""
    report = traced(fault, regime=regime)
    assert [where] == places(report)
    assert report.diverged
