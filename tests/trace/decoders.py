"""A small decoder (rotary positions, shared key heads, a gated MLP, RMS norms) in two styles, and what may be wrong with one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

D, HEADS, KEY_HEADS, EACH, WIDE, VOCABULARY, EPS, THETA = 24, 4, 2, 8, 40, 37, 1e-5, 10000.0


class Rms(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


class Plain(nn.Module):
    """One layer, everything apart; rotary turns halves."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = Rms(), Rms()
        self.q_proj, self.o_proj = nn.Linear(D, HEADS * EACH, False), nn.Linear(HEADS * EACH, D, False)
        self.k_proj, self.v_proj = (nn.Linear(D, KEY_HEADS * EACH, False) for _ in range(2))
        self.gate_proj, self.up_proj = (nn.Linear(D, WIDE, False) for _ in range(2))
        self.down_proj = nn.Linear(WIDE, D, False)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        length = x.shape[1]
        angle = torch.arange(length, dtype=x.dtype)[:, None] * THETA ** (
            -torch.arange(0, EACH, 2, dtype=x.dtype) / EACH
        )
        cos, sin = (torch.cat([part, part], -1) for part in (angle.cos(), angle.sin()))

        def turned(x_BHTD: Tensor) -> Tensor:
            one, two = x_BHTD.chunk(2, -1)
            return x_BHTD * cos + torch.cat([-two, one], -1) * sin

        q, k, v = (
            layer(x).unflatten(-1, (-1, EACH)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        k, v = (part.repeat_interleave(HEADS // KEY_HEADS, 1) for part in (turned(k), v))
        allowed = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
        if mask is not None:
            allowed = allowed & mask[:, None, None].bool()
        y = F.scaled_dot_product_attention(turned(q), k, v, attn_mask=allowed)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attend(self.ln1(x), mask)
        y = self.ln2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))


class Reference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, D)
        self.layers = nn.ModuleList([Plain() for _ in range(2)])
        self.norm, self.head = Rms(), nn.Linear(D, VOCABULARY, False)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, mask)
        return {"logits": self.head(self.norm(x))}


Faults = dict[str, Any]


class Norm(nn.Module):
    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(D))
        self.plus, self.eps, self.centred = (
            faults.get("plus", 0.0),
            faults.get("eps", EPS),
            faults.get("centred", False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * (self.plus + self.scale)


class Block(nn.Module):
    """q, k and v in one kernel, gate and up in another; rotary by complex numbers (pairs) where the morph brings the rows so."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.pre_attention, self.pre_mlp = Norm(faults.get("norm1", {})), Norm(faults.get("norm2", {}))
        self.wqkv, self.wo = nn.Linear(D, (HEADS + 2 * KEY_HEADS) * EACH, False), nn.Linear(HEADS * EACH, D, False)
        self.w13, self.w2 = nn.Linear(D, 2 * WIDE, False), nn.Linear(WIDE, D, False)

    def turned(self, x_BTHD: Tensor) -> Tensor:
        faults = self.faults
        width = faults.get("turned", EACH)
        places = torch.arange(x_BTHD.shape[1], dtype=x_BTHD.dtype) * faults.get("positions scaled", 1.0)
        over = faults.get("over", width)
        rates = faults.get("theta", THETA) ** (-torch.arange(0, width, 2, dtype=x_BTHD.dtype) / over)
        if "rates" in faults:
            rates = faults["rates"](rates)
        angle = (places[:, None] * rates)[:, None] * faults.get("sign", 1.0)
        x, rest = x_BTHD[..., :width], x_BTHD[..., width:]
        if faults.get("style", "half") == "pairs":
            z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(
                torch.ones_like(angle), angle
            )
            x = torch.view_as_real(z).flatten(-2)
        else:
            one, two = x[..., : width // 2], x[..., width // 2 :]
            x = torch.cat([one * angle.cos() - two * angle.sin(), two * angle.cos() + one * angle.sin()], -1)
        return torch.cat([x, rest], -1)

    def attend(self, x: Tensor, mask: Tensor | None) -> Tensor:
        faults, length = self.faults, x.shape[1]
        q, k, v = self.wqkv(x).unflatten(-1, (-1, EACH)).split([HEADS, KEY_HEADS, KEY_HEADS], 2)
        if faults.get("swapped"):
            k, v = v, k
        q, k = (self.turned(q), self.turned(k)) if not faults.get("keys only") else (q, self.turned(k))
        if faults.get("values too"):
            v = self.turned(v)
        if faults.get("groups") == "tile":
            k, v = (part.repeat(1, 1, HEADS // KEY_HEADS, 1) for part in (k, v))
        else:
            k, v = (part[:, :, :, None].expand(-1, -1, -1, HEADS // KEY_HEADS, -1).flatten(2, 3) for part in (k, v))
        scores = torch.einsum("bthd,bshd->bhts", q, k) * faults.get("scale", EACH**-0.5)
        if "cap" in faults:
            scores = (scores / faults["cap"]).tanh() * faults["cap"]
        behind = torch.arange(length)[:, None] - torch.arange(length)
        allowed = (behind >= -faults.get("ahead", 0)) & (behind < faults.get("window", length))
        if mask is not None and faults.get("padding", True):
            allowed = allowed & mask[:, None, None].bool()
        scores = scores.masked_fill(~allowed, faults.get("fill", float("-inf")))
        sink = faults.get("sink", 0.0)
        weights = scores.softmax(-1)
        if sink:
            weights = torch.cat([scores, torch.zeros_like(scores[..., :1])], -1).softmax(-1)[..., :-1]
        return self.wo(torch.einsum("bhts,bshd->bthd", weights, v).flatten(2))

    def act(self, x: Tensor) -> Tensor:
        made: Tensor = self.faults.get("act", F.silu)(x)
        return made

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        faults = self.faults
        normed = self.pre_attention(x)
        mid = x + self.attend(normed, mask) * faults.get("branch", 1.0)
        inner = self.pre_mlp(x if faults.get("parallel") else mid)
        both = self.w13(inner)
        gate, up = both.chunk(2, -1)
        if faults.get("gate swapped"):
            gate, up = up, gate
        if faults.get("gate interleaved"):
            gate, up = both.unflatten(-1, (-1, 2)).unbind(-1)
        return (normed if faults.get("from norm") else mid) * faults.get("residual", 1.0) + self.w2(
            self.act(gate) * (up + faults.get("up plus", 0.0))
        )


class Candidate(nn.Module):
    """`faults` are of layer 1; of the model where they begin with "model"."""

    def __init__(self, **faults: Any) -> None:
        super().__init__()
        self.faults = faults
        style = {name: faults[name] for name in ("style",) if name in faults and not faults.get("only 1")}
        self.embed = nn.Embedding(VOCABULARY, D)
        self.blocks = nn.ModuleList([Block(style), Block(faults)])
        self.norm, self.head = Norm(faults.get("final", {})), nn.Linear(D, VOCABULARY, False)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.embed(ids) * self.faults.get("model words", 1.0)
        for block in self.blocks:
            x = block(x, mask)
        x = x if self.faults.get("model unnormed") else self.norm(x)
        logits: Tensor = self.head(x) * self.faults.get("model head", 1.0)
        cap = self.faults.get("model cap")
        return logits if cap is None else cap * (logits / cap).tanh()


SOUND = """
embed.weight <-> embed.weight
norm.weight <-> norm.scale
head.weight <-> head.weight
layers.{l}.ln1.weight <-> blocks.{l}.pre_attention.scale
layers.{l}.ln2.weight <-> blocks.{l}.pre_mlp.scale
layers.{l}.o_proj.weight <-> blocks.{l}.wo.weight
layers.{l}.down_proj.weight <-> blocks.{l}.w2.weight
layers.{l}.gate_proj.weight [a i], layers.{l}.up_proj.weight [b i] <-> blocks.{l}.w13.weight [(a + b) i]
layers.{l}.q_proj.weight [q i], layers.{l}.k_proj.weight [k i], layers.{l}.v_proj.weight [v i] <-> blocks.{l}.wqkv.weight [(q + k + v) i]
"""
