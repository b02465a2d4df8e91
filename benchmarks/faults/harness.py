"""Faults of the comparison itself: what must never be called equal, whatever the models do. And sound ports, which must be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from benchmarks.faults import taxonomy as t
from benchmarks.faults.families import FAMILIES
from benchmarks.faults.planted import Port, fill, port, state_of
from torch import Tensor, nn

import isomorph as iso


@dataclass(frozen=True)
class Harness:
    """`make` gives a port in which a trace must find a divergence; or refuse it, in words that hold `refuses`."""

    id: str
    make: Callable[[], Port]
    refuses: str | None = None


class Renamed(nn.Module):
    """A model whose outputs have other names and shapes than the reference's: nothing can be compared."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": self.inner(x).square().mean()}


def wrong_layers() -> Port:
    """Two models that are equal, and a morph that pairs layers 1 and 2 the wrong way round: the wrong tensors are compared."""
    made = port(None, FAMILIES["vit"])
    lines = {**t.sound_lines("vit"), **t.relayered("vit", "blocks.{}", "vit.encoder.layer.{}.", (0, 2, 1, 3), 4)}
    return dataclasses.replace(made, morph=iso.morph(text="\n".join(lines.values()) + "\n"))


def exchanged_norms() -> Port:
    """A morph that pairs each norm with the other one of its block."""
    made = port(None, FAMILIES["bert"])
    text = (
        made.morph.text.replace(".norm1.*", ".norm0.*").replace(".norm2.*", ".norm1.*").replace(".norm0.*", ".norm2.*")
    )
    return dataclasses.replace(made, morph=iso.morph(text=text))


def nothing_compared() -> Port:
    """No output of one faces an output of the other."""
    made = port(None, FAMILIES["vit"])
    lines = {key: line.replace(" <-> ", " <-> inner.", 1) for key, line in t.sound_lines("vit").items()}
    morph = iso.morph(text="\n".join(lines.values()) + "\n")
    return dataclasses.replace(made, candidate=Renamed(made.candidate).eval(), morph=morph)


def not_a_number(name: str, at: int) -> Port:
    """One NaN in the candidate's weights."""
    made = port(None, FAMILIES["vit"])
    state = state_of({key: value.numpy() for key, value in made.candidate.state_dict().items()})
    state[name].reshape(-1)[at] = np.nan
    fill(made.candidate, state)
    return made


class Spoiled(nn.Module):
    """A sound model, whose output is spoiled where a row is padded, or for one entry."""

    def __init__(self, inner: nn.Module, value: float) -> None:
        super().__init__()
        self.inner, self.value = inner, value

    def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        tokens, pooled = self.inner(input_ids, token_type_ids, attention_mask)
        tokens = tokens.clone()
        tokens[-1, -1, -1] = self.value
        return tokens, pooled


def spoiled(value: float) -> Port:
    made = port(None, FAMILIES["bert"])
    lines = {key: prefixed(line) for key, line in t.sound_lines("bert").items()}
    morph = iso.morph(text="\n".join(lines.values()) + "\n")
    return dataclasses.replace(made, candidate=Spoiled(made.candidate, value).eval(), morph=morph)


def prefixed(line: str) -> str:
    left, arrow, right = line.partition(" <-> ")
    if not arrow:
        return line
    return f"{left} <-> inner.{right}"


def other_inputs() -> Port:
    """A candidate that is given nothing of what the reference reads: it makes its own."""
    made = port(None, FAMILIES["vit"])
    lines = {key: line.replace(" <-> ", " <-> inner.", 1) for key, line in t.sound_lines("vit").items()}

    class Deaf(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(torch.zeros_like(x))  # type: ignore[no-any-return]

    morph = iso.morph(text="\n".join(lines.values()) + "\n")
    return dataclasses.replace(made, candidate=Deaf(made.candidate).eval(), morph=morph)


HARNESS: tuple[Harness, ...] = (
    Harness("the wrong tensors compared: layers", wrong_layers),
    Harness("the wrong tensors compared: norms", exchanged_norms),
    Harness("nothing compared", nothing_compared, refuses="can be compared"),
    Harness("NaN in a weight", lambda: not_a_number("blocks.2.mlp.fc1.weight", 7)),
    Harness("NaN in a position", lambda: not_a_number("pos_embed", 41)),
    Harness("NaN in one entry of the output", lambda: spoiled(float("nan"))),
    Harness("Inf in one entry of the output", lambda: spoiled(float("inf"))),
    Harness("the input is not read", other_inputs),
)


def clean(family: str, layers: int) -> Port:
    return port(None, FAMILIES[family], layers=layers)


CLEAN: tuple[tuple[str, int], ...] = (
    *((family, 4) for family in FAMILIES),
    *((family, 12) for family in ("clip", "vit", "bert", "t5", "vit paddle")),
    *((family, 24) for family in ("clip", "vit", "bert", "t5")),
)
