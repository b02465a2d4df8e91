"""Small models in two styles, and the morphs between them: what the tests of the trace run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isomorph.job.arrays import manifest_of
from isomorph.language.morph import Morph
from isomorph.plan.prove import make_plan
from isomorph.trace.bridge import Bridge
from isomorph.trace.probes import Probe

D, HEADS, WIDE, VOCABULARY, POSITIONS = 16, 2, 24, 31, 40


class PlainBlock(nn.Module):
    """Pre-LN; q, k and v apart."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(D)
        self.q, self.k, self.v, self.o = (nn.Linear(D, D) for _ in range(4))
        self.ln2 = nn.LayerNorm(D)
        self.fc1, self.fc2 = nn.Linear(D, WIDE), nn.Linear(WIDE, D)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        bias = None if mask is None else mask[:, None, None].bool()
        return self.o(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attend(self.ln1(x), mask)
        return x + self.fc2(F.gelu(self.fc1(self.ln2(x))))


class Plain(nn.Module):
    """The reference of most tests."""

    block: type[nn.Module] = PlainBlock

    def __init__(self, depth: int = 2, shared: int = 1) -> None:
        super().__init__()
        self.word, self.pos = nn.Embedding(VOCABULARY, D), nn.Embedding(POSITIONS, D)
        self.layers = nn.ModuleList([self.block() for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, 7)
        self.shared = shared

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.word(ids) + self.pos(torch.arange(ids.shape[1]))
        for _ in range(self.shared):
            for layer in self.layers:
                x = layer(x, mask)
        x = self.norm(x)
        return {"hidden": x, "logits": self.head(x[:, 0])}


class FusedAttention(nn.Module):
    """`order` is how q, k and v lie in the fused weight: "3hd" or "h3d"."""

    order = "3hd"

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mixed = self.qkv(x)
        if self.order == "3hd":
            q, k, v = mixed.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = mixed.unflatten(-1, (HEADS, 3, -1)).permute(3, 0, 2, 1, 4)
        return q, k, v

    def core(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        scores = q @ k.transpose(-1, -2) / (D // HEADS) ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None].bool(), float("-inf"))
        return scores.softmax(-1) @ v

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.out(self.core(*self.split(x), mask).transpose(1, 2).flatten(2))


class InterleavedAttention(FusedAttention):
    order = "h3d"


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(D, WIDE), nn.Linear(WIDE, D)

    def act(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.erf(x / 2**0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.act(self.up(x)))


class FusedBlock(nn.Module):
    attention: type[nn.Module] = FusedAttention
    mlp_kind: type[nn.Module] = Mlp

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = self.attention(), self.mlp_kind()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn(self.n1(x), mask) + x
        return self.mlp(self.n2(x)) + x


class InterleavedBlock(FusedBlock):
    attention = InterleavedAttention


class Embed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, D)
        self.positions = nn.Parameter(torch.randn(POSITIONS, D))

    def forward(self, ids: Tensor) -> Tensor:
        return self.tokens(ids) + self.positions[: ids.shape[1]]


class Fused(nn.Module):
    """A candidate: another nesting, other names, positions a parameter."""

    block: type[nn.Module] = FusedBlock

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.embed = Embed()
        self.blocks = nn.ModuleList([self.block() for _ in range(depth)])
        self.final, self.classify = nn.LayerNorm(D), nn.Linear(D, 7)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, mask)
        x = self.final(x)
        return {"hidden": x, "logits": self.classify(x[:, 0])}


class Interleaved(Fused):
    block = InterleavedBlock


EMBEDDED = """
word.weight <-> embed.tokens.weight
pos.weight <-> embed.positions
norm.{t} <-> final.{t}
head.{t} <-> classify.{t}
"""
NORMS = """
layers.{l}.ln{n=1|2}.{t} <-> blocks.{l}.n{n}.{t}
layers.{l}.fc1.{t} <-> blocks.{l}.mlp.up.{t}
layers.{l}.fc2.{t} <-> blocks.{l}.mlp.down.{t}
"""
FUSED = (
    EMBEDDED
    + NORMS
    + """
layers.{l}.{p=q|k|v}.{t} [o ...] <-> blocks.{l}.attn.qkv.{t} [(p o) ...]
layers.{l}.o.{t} <-> blocks.{l}.attn.out.{t}
"""
)
INTERLEAVED = (
    EMBEDDED
    + NORMS
    + """
layers.{l}.{p=q|k|v}.{t} [(h d) ...] <-> blocks.{l}.attn.qkv.{t} [(h p d) ...] where h=2
layers.{l}.o.{t} <-> blocks.{l}.attn.out.{t}
"""
)
SAME = "** <-> **\n"


class Half(nn.Module):
    """nn.MultiheadAttention inside, which calls none of its own modules; sequence first throughout."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(D, HEADS)
        self.mlp = Mlp()
        self.n1, self.n2 = nn.LayerNorm(D), nn.LayerNorm(D)

    def forward(self, x_TBD: Tensor, mask: Tensor | None) -> Tensor:
        y_TBD = self.n1(x_TBD)
        away = None if mask is None else ~mask.bool()
        x_TBD = x_TBD + self.attn(y_TBD, y_TBD, y_TBD, key_padding_mask=away, need_weights=False)[0]
        return x_TBD + self.mlp(self.n2(x_TBD))


class SequenceFirst(Fused):
    block = Half

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids).transpose(0, 1)
        for block in self.blocks:
            x = block(x, mask)
        x = self.final(x)
        return {"hidden": x.transpose(0, 1), "logits": self.classify(x[0])}


MULTIHEAD = (
    EMBEDDED
    + NORMS
    + """
layers.{l}.{p=q|k|v}.{t=weight|bias} [o ...] <-> blocks.{l}.attn.in_proj_{t} [(p o) ...]
layers.{l}.o.{t} <-> blocks.{l}.attn.out_proj.{t}
"""
)


class Active(nn.Linear):
    """A Linear with its activation inside."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(super().forward(x))


class OwnWay(Mlp):
    """An MLP with the residual inside, and the activation in its first Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.up = Active(D, WIDE)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self.down(self.up(x))


class OwnWayBlock(FusedBlock):
    mlp_kind = OwnWay

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attn(self.n1(x), mask) + x
        return self.mlp(self.n2(x), x)


class Inward(Fused):
    block = OwnWayBlock


def seeded(kind: Callable[..., nn.Module], seed: int = 0, **options: Any) -> nn.Module:
    """A model in evaluation mode, its weights drawn wide enough that every part of it shows."""
    torch.manual_seed(seed)
    model = kind(**options).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(
                torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.2) + (1.0 if is_norm else 0.0)
            )
    return model


def bridge_of(reference: nn.Module, morph: str) -> Bridge:
    """The bridge that a morph's text makes on a model's state dict."""
    return Bridge(make_plan(Morph.parse(morph).programs(None), manifest_of(reference)))


def filled(candidate: nn.Module, reference: nn.Module, bridge: Bridge) -> nn.Module:
    """The candidate with the reference's weights, as the morph carries them."""
    made = bridge.forward({name: value.numpy() for name, value in reference.state_dict().items()})
    candidate.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in made.items()})
    return candidate.eval()


def probe(*, batch: int = 2, length: int = 7, is_padded: bool = False, seed: int = 0, name: str = "") -> Probe:
    """Token ids for both, by name."""
    drawn = np.random.default_rng(seed)
    ids, others = (drawn.integers(0, VOCABULARY, (batch, length)) for _ in range(2))
    if not is_padded:
        return Probe(name or "short", {"ids": ids}, {"ids": ids}, {"ids": others})
    mask = np.ones((batch, length), np.int64)
    mask[-1, length - 3 :] = 0
    given = {"ids": ids, "mask": mask}
    return Probe(name or "padded", given, given, {"ids": others, "mask": mask}, mask.astype(bool))
