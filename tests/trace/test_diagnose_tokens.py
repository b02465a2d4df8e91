"""A class token that is not there, or stands at the end, and positions that begin elsewhere for it."""

from __future__ import annotations

import pytest
import torch
import twins
from torch import Tensor, nn
from twins import POSITIONS, VOCABULARY, D

from isomorph.trace.regimes import Regime
from isomorph.trace.run import trace
from isomorph.trace.sides import side_of

MORPH = "words.weight <-> words.weight\ncls <-> cls\npos <-> pos\nnorm.{t} <-> norm.{t}\nhead.{t} <-> head.{t}\n"


class Tokens(nn.Module):
    """A class token before the words, then positions."""

    def __init__(self, how: str = "first") -> None:
        super().__init__()
        self.how = how
        self.words, self.cls = nn.Embedding(VOCABULARY, D), nn.Parameter(torch.randn(1, 1, D))
        self.pos = nn.Parameter(torch.randn(1, POSITIONS, D))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, 7)

    def forward(self, ids: Tensor) -> Tensor:
        words, token = self.words(ids), self.cls.expand(len(ids), -1, -1)
        length = ids.shape[1] + 1
        if self.how == "missing":
            x = words + self.pos[:, 1:length]
        elif self.how == "missing, rows from 0":
            x = words + self.pos[:, : length - 1]
        elif self.how == "last":
            x = torch.cat([words, token], 1) + self.pos[:, :length]
        elif self.how == "rows moved":
            x = torch.cat([token, words], 1) + self.pos[:, :length].roll(1, 1)
        else:
            x = torch.cat([token, words], 1) + self.pos[:, :length]
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ("missing", "class-token", "the class token is missing"),
        ("missing, rows from 0", "class-token", "begin with row 0, the reference's there with row 1"),
        ("last", "class-token", "the class token is at the end"),
        ("rows moved", "position-order", "the first position gets the last row"),
    ],
)
def test_the_class_token_s_place_is_named(how: str, kind: str, says: str) -> None:
    reference = twins.seeded(Tokens)
    bridge = twins.bridge_of(reference, MORPH)
    candidate = twins.filled(Tokens(how), reference, bridge)
    report = trace(side_of(reference), side_of(candidate), bridge, [twins.probe()], [Regime("hot")])
    finding = report.findings[0]
    assert finding.causes[0].kind == kind, finding.sentence
    assert says in finding.causes[0].says
