"""ViT as timm builds it: one Linear for q, k and v."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.hook import SOUND, Faults
from benchmarks.faults.parts import ACTIVATIONS, Dense, Norm, attend, fresh, residual, split_heads
from torch import Tensor, nn

EPS = 1e-6


class Fused(nn.Module):
    """q, k and v in one Linear; a block of rows each."""

    def __init__(self, width: int, heads: int, faults: Faults) -> None:
        super().__init__()
        self.faults, self.num_heads = faults, faults("heads-number", heads)
        self.qkv = Dense(width, 3 * width, faults.below("qkv"))
        self.proj = Dense(width, width, faults.below("proj"))

    def forward(self, x_BTD: Tensor) -> Tensor:
        made, width = self.qkv(x_BTD), x_BTD.shape[-1]
        if self.faults("parts", "blocks") == "by head":
            q, k, v = made.unflatten(-1, (self.num_heads, 3, width // self.num_heads)).unbind(-2)
        elif self.faults("parts", "blocks") == "by entry":
            q, k, v = (
                split_heads(part, self.num_heads, self.faults) for part in made.unflatten(-1, (width, 3)).unbind(-1)
            )
        else:
            starts = self.faults("starts", (0, 1, 2))
            q, k, v = (
                split_heads(made[..., int(at * width) : int(at * width) + width], self.num_heads, self.faults)
                for at in starts
            )
        return self.proj(attend(q, k, v, self.faults))


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int, faults: Faults, activation: str = "erf") -> None:
        super().__init__()
        self.faults, self.act = faults, activation
        self.fc1, self.fc2 = Dense(width, inner, faults.below("fc1")), Dense(inner, width, faults.below("fc2"))
        self.drop = nn.Dropout(faults("dropout-module", 0.0))
        if faults("dropout-module", 0.0):
            self.drop.train()

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(ACTIVATIONS[self.faults("activation", self.act)](self.fc1(x))))


class Block(nn.Module):
    """Pre-LN."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        width, self.faults = config.hidden_size, faults
        self.norm1 = Norm(width, EPS, faults.below("norm1"))
        self.attn = Fused(width, config.num_attention_heads, faults.below("attn"))
        self.norm2 = Norm(width, EPS, faults.below("norm2"))
        self.mlp = Mlp(width, config.intermediate_size, faults.below("mlp"))

    def forward(self, x: Tensor) -> Tensor:
        if self.faults("norms", "pre") == "post":
            x = self.norm1(x + self.attn(x))
            return self.norm2(x + self.mlp(x))
        normed = self.norm1(x)
        from_here = normed if self.faults("residual-from", "x") == "normed" else x
        x = residual(from_here, self.attn(normed), self.faults, "attention-residual")
        if self.faults("parallel", False):  # both halves read the same input
            return x + self.mlp(normed)
        return residual(x, self.mlp(self.norm2(x)), self.faults, "mlp-residual")


class Embed(nn.Module):
    """The patches, by one matrix product on cut-out squares."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.faults, self.patch = faults, config.patch_size
        self.proj = nn.Conv2d(3, config.hidden_size, self.patch, stride=self.patch)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.faults("channels", "rgb") == "bgr":
            x_BCHW = x_BCHW.flip(1)
        grid = self.proj(x_BCHW)
        if self.faults("patches", "rows") == "columns":
            grid = grid.transpose(2, 3)
        return grid.flatten(2).transpose(1, 2)


class Vit(nn.Module):
    """timm's VisionTransformer."""

    def __init__(self, config: Any, faults: Faults = SOUND) -> None:
        super().__init__()
        self.faults, width = faults, config.hidden_size
        count = (config.image_size // config.patch_size) ** 2
        self.patch_embed = Embed(config, faults.below("patch_embed"))
        self.cls_token, self.pos_embed = fresh(1, 1, width), fresh(1, count + 1, width)
        self.blocks = nn.ModuleList(
            [Block(config, faults.below(f"blocks.{layer}")) for layer in range(config.num_hidden_layers)]
        )
        self.norm = Norm(width, EPS, faults.below("norm"))
        self.head = Dense(width, config.num_labels, faults.below("head"))

    def embedded(self, x: Tensor) -> Tensor:
        """Patches, class token and positions."""
        patches, first = self.patch_embed(x), self.cls_token.expand(x.shape[0], -1, -1)
        where, how = self.faults("class-token", "first"), self.faults("positions", "all")
        table = self.pos_embed.roll(self.faults("position-rows", 0), 1)
        if where == "missing":
            return patches + table[:, 1:]
        if where == "zero":
            first = first * 0
        if how == "patches only":
            return torch.cat((first, patches + table[:, 1:]), 1)
        x = torch.cat((patches, first) if where == "last" else (first, patches), 1)
        return x if how == "none" else x + table

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedded(x)
        for layer in self.faults("order", range(len(self.blocks))):
            x = self.blocks[layer](x)
        pooling = self.faults("pooling", "first")
        x = self.norm(x)
        return self.head({"first": lambda: x[:, 0], "mean": lambda: x.mean(1), "last": lambda: x[:, -1]}[pooling]())


def lines(config: Any) -> dict[str, str]:
    """The morph from vit/hf to timm's names, a line a tensor."""
    found = ends("cls_token", "pos_embed", "patch_embed.proj", "norm", "head")
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"blocks.{layer}", f"vit.encoder.layer.{layer}"
        parts = [f"{theirs}.attention.attention.{part}" for part in ("query", "key", "value")]
        weights = ", ".join(f"{part}.weight [{p} i]" for p, part in zip("qkv", parts, strict=True))
        biases = ", ".join(f"{part}.bias [{p}]" for p, part in zip("qkv", parts, strict=True))
        found[f"{ours}.attn.qkv.weight"] = f"{weights} <-> {ours}.attn.qkv.weight [(q + k + v) i]"
        found[f"{ours}.attn.qkv.bias"] = f"{biases} <-> {ours}.attn.qkv.bias [(q + k + v)]"
        for mine, other in (("attn.proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
                            ("mlp.fc2", "output.dense")):  # fmt: skip
            found[f"{ours}.{mine}.weight"] = f"{theirs}.{other}.weight [o i] <-> {ours}.{mine}.weight [o i]"
            found[f"{ours}.{mine}.bias"] = f"{theirs}.{other}.bias <-> {ours}.{mine}.bias"
        found[f"{ours}.norm1"] = f"{theirs}.layernorm_before.* <-> {ours}.norm1.*"
        found[f"{ours}.norm2"] = f"{theirs}.layernorm_after.* <-> {ours}.norm2.*"
    return found


def ends(cls: str, positions: str, patches: str, norm: str, head: str, *, kernel: bool = False) -> dict[str, str]:
    """What stands around the layers; `kernel`: the head's matrix is [in out]."""
    axes = "[i o]" if kernel else "[o i]"
    return {
        cls: f"vit.embeddings.cls_token <-> {cls}",
        positions: f"vit.embeddings.position_embeddings <-> {positions}",
        f"{patches}.weight": f"vit.embeddings.patch_embeddings.projection.weight [o c y x] <-> {patches}.weight [o c y x]",
        f"{patches}.bias": f"vit.embeddings.patch_embeddings.projection.bias <-> {patches}.bias",
        norm: f"vit.layernorm.* <-> {norm}.*",
        f"{head}.weight": f"classifier.weight [o i] <-> {head}.weight {axes}",
        f"{head}.bias": f"classifier.bias <-> {head}.bias",
    }
