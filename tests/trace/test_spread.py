"""A module that shows nothing inside, against leaves that no module holds by themselves: BERT and torch's own encoder layer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import isomorph as iso
from isomorph.models.bert import from_config

SIZES = {
    "vocab_size": 41, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 44,
    "max_position_embeddings": 18, "architectures": ["BertModel"],
}  # fmt: skip

MORPH = """
embeddings.{e=word|position|token_type}_embeddings.weight <-> {e=tok|pos|typ}.weight
embeddings.LayerNorm.{t} <-> ln.{t}
encoder.layer.{l}. <-> enc.{l}.:
  attention.self.{p=query|key|value}.{t=weight|bias} [o ...] <-> self_attn.in_proj_{t=weight|bias} [(p o) ...]
  attention.output.dense.{t} <-> self_attn.out_proj.{t}
  attention.output.LayerNorm.{t} <-> norm1.{t}
  intermediate.dense.{t} <-> linear1.{t}
  output.dense.{t} <-> linear2.{t}
  output.LayerNorm.{t} <-> norm2.{t}
pooler.dense.{t} <-> pool.{t}
"""


class Torch(nn.Module):
    """BERT of torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tok, self.pos, self.typ = nn.Embedding(41, 24), nn.Embedding(18, 24), nn.Embedding(2, 24)
        self.ln = nn.LayerNorm(24, eps=1e-12)
        self.enc = nn.ModuleList(
            nn.TransformerEncoderLayer(24, 4, 44, 0.0, "gelu", 1e-12, batch_first=True) for _ in range(2)
        )
        self.pool = nn.Linear(24, 24)
        self.reads_mask = True

    def forward(self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> Any:
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        x = self.ln(self.tok(input_ids) + self.pos(torch.arange(input_ids.shape[1])) + self.typ(types))
        for layer in self.enc:
            x = layer(
                x, src_key_padding_mask=attention_mask == 0 if self.reads_mask and attention_mask is not None else None
            )
        return x, torch.tanh(self.pool(x[:, 0]))


@pytest.fixture(scope="module")
def both() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    reference, candidate = from_config(SIZES).eval(), Torch().eval()
    iso.torch.load_model(candidate, reference.state_dict(), iso.morph(text=MORPH))
    return reference, candidate


def test_all_is_aligned_and_agrees(both: tuple[nn.Module, nn.Module]) -> None:
    """Nothing is left unaligned: the opaque attention faces q, k, v and the projection after the heads."""
    found = iso.trace(*both, MORPH)
    assert (((), ()), False) == (found.unaligned, found.diverged)
    (one, *_) = [node for node in found.nodes if node.candidate == ("enc.0.self_attn",)]
    names = "encoder.layer.0.attention."
    assert {f"{names}self.query", f"{names}self.key", f"{names}self.value", f"{names}output.dense"} == set(
        one.reference
    )
    assert (True, {"in", "out"}) == (one.is_opaque, {link.border for link in one.links})


def transposed(model: Any) -> None:
    weight = model.enc[1].self_attn.in_proj_weight.data
    weight[:24] = weight[:24].T.clone()


def fewer_heads(model: Any) -> None:
    model.enc[0].self_attn.num_heads, model.enc[0].self_attn.head_dim = 2, 12


@pytest.mark.parametrize(
    ("plant", "where", "kind"),
    [
        (transposed, "enc.1.self_attn", "weight-transposed"),
        (fewer_heads, "enc.0.self_attn", "heads"),
        (lambda model: setattr(model, "reads_mask", False), "enc.0.self_attn", "mask"),
        (lambda model: setattr(model.enc[1], "norm_first", True), "enc.1", "norm-order"),
    ],
    ids=["weight transposed", "heads", "mask missing", "pre-LN"],
)
def test_what_goes_wrong_inside_is_found_there(
    both: tuple[nn.Module, nn.Module], plant: Callable[[Any], Any], where: str, kind: str
) -> None:
    """In the opaque module itself, or in the block around it; one finding, by its cause."""
    candidate = copy.deepcopy(both[1])
    plant(candidate)
    found = iso.trace(both[0], candidate, MORPH)
    assert [where] == [one.suspect.candidate for one in found.findings]
    assert kind in found.findings[0].causes[0].kind, found.findings[0].sentence
