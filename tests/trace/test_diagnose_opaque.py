"""A reference that shows nothing inside its attention (nn.MultiheadAttention, sequence first): its rule is read from its weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import twins
from torch import Tensor
from twins import HEADS, D

from isomorph.trace.nouns import TraceReport
from isomorph.trace.regimes import Regime
from isomorph.trace.run import trace
from isomorph.trace.sides import side_of

MORPH = """
embed.tokens.weight <-> word.weight
embed.positions <-> pos.weight
final.{t} <-> norm.{t}
classify.{t} <-> head.{t}
blocks.{l}.n{n=1|2}.{t} <-> layers.{l}.ln{n}.{t}
blocks.{l}.mlp.up.{t} <-> layers.{l}.fc1.{t}
blocks.{l}.mlp.down.{t} <-> layers.{l}.fc2.{t}
blocks.{l}.attn.in_proj_{t} [(p o) ...] <-> layers.{l}.{p=q|k|v}.{t=weight|bias} [o ...]
blocks.{l}.attn.out_proj.{t} <-> layers.{l}.o.{t}
"""


def candidate(**faults: Any) -> type[twins.Plain]:
    """With q, k and v apart, one thing otherwise."""

    def attend(self: twins.PlainBlock, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if faults.get("no bias of q"):
            q = q - self.q.bias.unflatten(0, (HEADS, -1))[None, :, None]
        if faults.get("swapped"):
            k, v = v, k
        scores = q @ k.mT * faults.get("scale", (D // HEADS) ** -0.5)
        if mask is not None and faults.get("masked", True):
            scores = scores.masked_fill(~mask[:, None, None].bool(), float("-inf"))
        y = scores.softmax(-1) @ v
        joined: Tensor = self.o(y.reshape(x.shape) if faults.get("merge") else y.transpose(1, 2).flatten(2))
        return joined

    block = type("Block", (twins.PlainBlock,), {"attend": attend})
    return type("Candidate", (twins.Plain,), {"block": block})


def traced(**faults: Any) -> TraceReport:
    reference = twins.seeded(twins.SequenceFirst)
    bridge = twins.bridge_of(reference, MORPH)
    made = twins.filled(candidate(**faults)(), reference, bridge)
    return trace(side_of(reference), side_of(made), bridge, [twins.probe(is_padded=True)], [Regime("hot")])


@pytest.mark.parametrize(
    ("faults", "kind", "says"),
    [
        ({"scale": 1.0}, "attention-scale", "attention is not scaled (scale 1, the reference 0.353553)"),
        ({"masked": False}, "mask-missing", "the padding mask is missing"),
        ({"swapped": True}, "qkv-order", "k and v are swapped"),
        ({"merge": True}, "head-merge", "without transposing"),
        ({"no bias of q": True}, "bias-missing", "the part of q in attn.in_proj_bias is missing"),
    ],
)
def test_what_differs_from_an_opaque_attention_is_named(faults: dict[str, Any], kind: str, says: str) -> None:
    with torch.no_grad():
        finding = traced(**faults).findings[0]
    assert finding.causes[0].kind == kind, finding.sentence
    assert says in finding.causes[0].says


def test_a_sound_port_of_an_opaque_attention_is_one_function() -> None:
    assert not traced().diverged
