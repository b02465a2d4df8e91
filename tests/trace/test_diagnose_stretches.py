"""What happens between modules is named without either side's code: real models, one fault planted in each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import twins
from torch import Tensor, nn
from twins import HEADS, D, Embed, Fused, FusedAttention, FusedBlock, Mlp

from isomorph.trace.diagnose.layers import order_words
from isomorph.trace.regimes import Regime
from isomorph.trace.run import trace
from isomorph.trace.sides import side_of


def with_attention(**methods: Callable[..., object]) -> type[Fused]:
    """A candidate whose attention does one thing otherwise."""
    attention = type("Attention", (FusedAttention,), methods)
    return type("Candidate", (Fused,), {"block": type("Block", (FusedBlock,), {"attention": attention})})


def with_block(**methods: Callable[..., object]) -> type[Fused]:
    return type("Candidate", (Fused,), {"block": type("Block", (FusedBlock,), methods)})


def with_activation(function: Callable[[Tensor], Tensor]) -> type[Fused]:
    mlp = type("Activated", (Mlp,), {"act": lambda self, x: function(x)})
    return type("Candidate", (Fused,), {"block": type("Block", (FusedBlock,), {"mlp_kind": mlp})})


def with_embedding(forward: Callable[..., Tensor]) -> type[Fused]:
    class Candidate(Fused):
        def __init__(self, depth: int = 2) -> None:
            super().__init__(depth)
            self.embed = type("Embedded", (Embed,), {"forward": forward})()

    return Candidate


def with_forward(forward: Callable[..., object]) -> type[Fused]:
    return type("Candidate", (Fused,), {"forward": forward})


def scored(
    scale: float = (D // HEADS) ** -0.5, fill: float = float("-inf"), axis: int = -1, half: bool = False
) -> Callable[..., Tensor]:
    """Attention's core, with one number of it changed."""

    def core(self: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = ((q * scale).bfloat16() @ k.transpose(-1, -2).bfloat16()).to(q.dtype) if half else q @ k.mT * scale
        if mask is not None and fill != 0:
            scores = scores + torch.where(mask[:, None, None].bool(), 0.0, fill).to(scores.dtype)
        return scores.softmax(axis) @ v

    return core


def swapped(self: FusedAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = FusedAttention.split(self, x)
    return q, v, k


def by_head(self: FusedAttention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = self.qkv(x).unflatten(-1, (HEADS, 3, -1)).permute(3, 0, 2, 1, 4)
    return q, k, v


def merged(self: FusedAttention, x: Tensor, mask: Tensor | None) -> Tensor:
    return self.out(self.core(*self.split(x), mask).reshape(x.shape))


def dropped(self: FusedAttention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    return F.dropout(FusedAttention.core(self, q, k, v, mask), 0.2, training=True)


def without_residual(self: FusedBlock, x: Tensor, mask: Tensor | None) -> Tensor:
    x = self.attn(self.n1(x), mask)
    return self.mlp(self.n2(x)) + x


def with_two_residuals(self: FusedBlock, x: Tensor, mask: Tensor | None) -> Tensor:
    x = self.attn(self.n1(x), mask) + x
    return self.mlp(self.n2(x)) + 2 * x


def from_the_norm(self: FusedBlock, x: Tensor, mask: Tensor | None) -> Tensor:
    x = self.n1(x)
    x = self.attn(x, mask) + x
    return self.mlp(self.n2(x)) + x


def after(self: FusedBlock, x: Tensor, mask: Tensor | None) -> Tensor:
    x = self.n1(self.attn(x, mask) + x)
    return self.n2(self.mlp(x) + x)


def run(
    self: Fused,
    ids: Tensor,
    mask: Tensor | None,
    *,
    order: tuple[int, ...] = (0, 1),
    last: bool = False,
    normed: bool = True,
) -> dict[str, Tensor]:
    x = self.embed(ids)
    for layer in order:
        x = self.blocks[layer](x, mask)
    x = self.final(x) if normed else x
    return {"hidden": x, "logits": self.classify(x[:, -1] if last else x[:, 0])}


CASES: dict[str, tuple[type[nn.Module], str, str]] = {
    "no scale": (with_attention(core=scored(1.0)), "attention-scale", "attention is not scaled (scale 1, the reference 0.353553)"),
    "a scale of its own": (with_attention(core=scored(0.3)), "attention-scale", "scale 0.3, the reference 0.353553"),
    "queries": (with_attention(core=scored(axis=-2, fill=-1e9)), "attention-softmax", "over the queries"),
    "no mask": (with_attention(core=scored(fill=0)), "mask-missing", "the padding mask is missing"),
    "mask of −3": (with_attention(core=scored(fill=-3.0)), "mask-constant", "the mask's value is -3 where"),
    "bfloat16": (with_attention(core=scored(half=True)), "half-accumulation", "bfloat16"),
    "k and v": (with_attention(split=swapped), "qkv-order", "k and v are swapped"),
    "by head": (with_attention(split=by_head), "qkv-interleaved", "cut as [h 3 d], its weights are laid out as [q, k, v]"),
    "merge": (with_attention(forward=merged), "head-merge", "without transposing"),
    "dropout": (with_attention(core=dropped), "dropout", "change from run to run"),
    "tanh": (with_activation(lambda x: F.gelu(x, approximate="tanh")), "activation", "GELU tanh, the reference has GELU erf"),
    "cubed": (with_activation(lambda x: 3 * F.relu(x)), "activation", "3 · ReLU, the reference has GELU erf"),
    "residual dropped": (with_block(forward=without_residual), "residual-dropped", "residual is missing: what is left is out's output alone"),
    "residual doubled": (with_block(forward=with_two_residuals), "residual-doubled", "residual is added twice"),
    "residual from": (with_block(forward=from_the_norm), "residual-source", "residual is taken from"),
    "post-LN": (with_block(forward=after), "norm-order", "(post-LN)"),
    "positions": (with_embedding(lambda self, ids: self.tokens(ids) + self.positions[2 : 2 + ids.shape[1]]), "position-offset", "positions are shifted by 2"),
    "no positions": (with_embedding(lambda self, ids: self.tokens(ids)), "position-missing", "missing"),
    "scaled words": (with_embedding(lambda self, ids: self.tokens(ids) * D**0.5 + self.positions[: ids.shape[1]]), "embedding-scale", "is multiplied by 4"),
    "last": (with_forward(lambda self, ids, mask=None: run(self, ids, mask, last=True)), "pooling", "pools the last position, the reference the first position"),
    "reverse": (with_forward(lambda self, ids, mask=None: run(self, ids, mask, order=(1, 0))), "layer-order", "layers run in reverse order"),
    "twice": (with_forward(lambda self, ids, mask=None: run(self, ids, mask, order=(0, 0, 1))), "layer-repeated", "layer 0 is run twice"),
    "unnormed": (with_forward(lambda self, ids, mask=None: run(self, ids, mask, normed=False)), "final-norm-missing", "the final norm is missing"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_fault_is_named(name: str) -> None:
    """The first finding's first cause is what was planted, and what is left is within the tolerance."""
    kind, slug, says = CASES[name]
    reference = twins.seeded(twins.Plain)
    bridge = twins.bridge_of(reference, twins.FUSED)
    candidate = twins.filled(twins.seeded(kind, 1), reference, bridge)
    report = trace(side_of(reference), side_of(candidate), bridge, [twins.probe(is_padded=True)], [Regime("hot")])
    finding = report.findings[0]
    assert slug == finding.causes[0].kind, finding.sentence
    assert says in finding.causes[0].says
    assert finding.causes[0].residual <= max(finding.suspect.tolerance, finding.causes[0].floor)


@pytest.mark.parametrize(
    ("reference", "candidate", "kind", "says"),
    [
        ([0, 1, 2], [2, 1, 0], "layer-order", "layers run in reverse order"),
        (list(range(11)), [0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9], "layer-order", "layers run in the order of their names as text (lexicographic): 0 1 10 2 3 4 5 6 7 8 9"),
        ([0, 1, 2, 3], [0, 2, 1, 3], "layer-order", "layers run in the order 0 2 1 3, the reference's 0 1 2 3"),
        ([0, 1, 2, 3], [0, 1, 3], "layer-skipped", "layer 2 is not run"),
        ([0, 1, 2], [0, 1, 1, 1, 2], "layer-repeated", "layer 1 is run 3 times"),
    ],
)  # fmt: skip
def test_an_order_of_layers_in_words(reference: list[int], candidate: list[int], kind: str, says: str) -> None:
    assert (kind, says) == order_words(reference, candidate)
