"""A ViT as somebody might write it by hand: other names, matrices [in out], q, k and v of a head side by side in one matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isomorph.models.vit import Config, ViTModel

CONFIG = Config(
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    image_size=20,
    patch_size=4,
    num_channels=3,
)


def reference() -> ViTModel:
    """isomorph's own ViT, without a pooler."""
    torch.manual_seed(0)
    return ViTModel(CONFIG, pooler=False).eval()


class Affine(nn.Module):
    """x @ w + b, with w [in out]."""

    def __init__(self, width: int, to: int) -> None:
        super().__init__()
        self.w = nn.Parameter(0.1 * torch.randn(width, to))
        self.b = nn.Parameter(torch.zeros(to))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w + self.b


class Mixer(nn.Module):
    """Self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = Affine(width, 3 * width), Affine(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Pre-LN."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.mix, self.up, self.down = Mixer(width, heads), Affine(width, inner), Affine(inner, width)
        self.n_a, self.n_b = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.n_a(x))
        return x + self.down(F.gelu(self.up(self.n_b(x))))


class Tower(nn.Module):
    """The candidate."""

    def __init__(self, width: int = 24, heads: int = 3, inner: int = 40, depth: int = 2) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(width))
        self.pos = nn.Parameter(torch.zeros(26, width))
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.stack = nn.ModuleList(Layer(width, heads, inner) for _ in range(depth))
        self.last = nn.LayerNorm(width, eps=1e-12)

    def forward(self, pixel_values: Tensor) -> dict[str, Tensor]:
        x = self.patch(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], 1) + self.pos
        for layer in self.stack:
            x = layer(x)
        return {"last_hidden_state": self.last(x)}


def candidate() -> Tower:
    torch.manual_seed(1)
    return Tower().eval()
