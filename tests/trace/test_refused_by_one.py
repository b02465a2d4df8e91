"""Inputs that the reference takes and the candidate does not: they hide no divergence that others show, and are never a pass."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isomorph as iso
from isomorph.errors import UsageError

POSITIONS = 37


class Plain(nn.Module):
    """Tokens and their positions, as many as there are rows for."""

    shift = 0
    most = POSITIONS

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.emb, self.pos = nn.Embedding(50, 12), nn.Embedding(POSITIONS, 12)
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 7)
        self.eval()

    def forward(self, input_ids: Tensor) -> Tensor:
        length = input_ids.shape[1]
        if length > self.most:
            raise ValueError(f"no more than {self.most} tokens")
        return self.head(self.norm(self.emb(input_ids) + self.pos(torch.arange(length) + self.shift)))  # type: ignore[no-any-return]


class Shifted(Plain):
    """Reads each position's successor: past the last row where the input is as long as the table."""

    shift = 1


class Short(Plain):
    """The same function, of short inputs."""

    most = 30


def test_what_the_short_inputs_show_is_found() -> None:
    report = iso.trace(Plain(), Shifted(), iso.morph(text="** <-> **\n"))
    assert report.diverged
    assert "positions are shifted by 1" in str(report)
    assert [
        f"not run: long, input_ids [2, {POSITIONS}], which the candidate alone refuses (IndexError: index out of range in self)"
    ] == [note for note in report.notes if "long" in note]
    assert {"short"} <= {run.probe for run in report.runs}


def test_without_a_divergence_it_is_the_error_and_no_pass() -> None:
    with pytest.raises(UsageError) as refused:
        iso.trace(Plain(), Short(), iso.morph(text="** <-> **\n"))
    assert str(refused.value).startswith(
        f"Short (torch) does not run on what Plain (torch) runs on (long: input_ids [2, {POSITIONS}]): "
    )
    assert "ValueError: no more than 30 tokens" in str(refused.value)


def test_two_models_of_one_class_are_told_apart() -> None:
    short = Plain()
    short.most = 30
    with pytest.raises(
        UsageError,
        match=r"^the candidate, Plain \(torch\), does not run on what the reference, Plain \(torch\), runs on",
    ):
        iso.trace(Plain(), short, iso.morph(text="** <-> **\n"))
