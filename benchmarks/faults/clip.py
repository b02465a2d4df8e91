"""CLIP as OpenAI's code is built: sequence first, one in_proj for q, k and v, projections that are bare matrices.

With `library` the attention is torch's nn.MultiheadAttention, which calls none of the modules inside it.
"""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.faults.hook import SOUND, Faults
from benchmarks.faults.parts import ACTIVATIONS, Dense, Norm, Table, attend, fresh, residual
from torch import Tensor, nn

EPS = 1e-5


class Attention(nn.Module):
    """x_TBD over itself."""

    def __init__(self, width: int, heads: int, faults: Faults) -> None:
        super().__init__()
        self.faults, self.num_heads = faults, faults("heads-number", heads)
        self.in_proj_weight = fresh(3 * width, width)
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Dense(width, width, faults.below("out_proj"))

    def forward(self, x_TBD: Tensor, allowed: Tensor | None) -> Tensor:
        x_BTD = x_TBD.transpose(0, 1)
        width = x_BTD.shape[-1]
        bias = self.in_proj_bias * self.faults("bias", 1.0)
        made = torch.einsum("bti,oi->bto", x_BTD, self.in_proj_weight) + bias
        if self.faults("parts", "blocks") == "by head":  # the rows taken as [head, q k v, width of a head]
            q, k, v = made.unflatten(-1, (self.num_heads, 3, width // self.num_heads)).unbind(-2)
        else:
            starts = self.faults("starts", (0, 1, 2))
            q, k, v = (
                made[..., int(at * width) : int(at * width) + width].unflatten(-1, (self.num_heads, -1))
                for at in starts
            )
        return self.out_proj(attend(q, k, v, self.faults, allowed=allowed)).transpose(0, 1)


class Library(nn.MultiheadAttention):
    """torch's own."""

    def __init__(self, width: int, heads: int, faults: Faults) -> None:
        super().__init__(width, faults("heads-number", heads))

    def forward(self, x_TBD: Tensor, allowed: Tensor | None) -> Tensor:
        mask = None if allowed is None else ~allowed
        return super().forward(x_TBD, x_TBD, x_TBD, attn_mask=mask, need_weights=False)[0]


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.c_fc = Dense(width, inner, faults.below("c_fc"))
        self.c_proj = Dense(inner, width, faults.below("c_proj"))

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(ACTIVATIONS[self.faults("activation", "quick")](self.c_fc(x)))


class Block(nn.Module):
    """Pre-LN."""

    def __init__(self, width: int, heads: int, inner: int, faults: Faults, library: bool) -> None:
        super().__init__()
        self.faults = faults
        self.attn = (Library if library else Attention)(width, heads, faults.below("attn"))
        self.ln_1 = Norm(width, EPS, faults.below("ln_1"))
        self.mlp = Mlp(width, inner, faults.below("mlp"))
        self.ln_2 = Norm(width, EPS, faults.below("ln_2"))

    def forward(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        if self.faults("norms", "pre") == "post":
            x = self.ln_1(residual(x, self.attn(x, allowed), self.faults, "attention-residual"))
            return self.ln_2(residual(x, self.mlp(x), self.faults, "mlp-residual"))
        if self.faults("norms", "pre") == "swapped":
            x = x + self.attn(self.ln_2(x), allowed)
            return x + self.mlp(self.ln_1(x))
        normed = self.ln_1(x)
        from_here = normed if self.faults("residual-from", "x") == "normed" else x
        x = residual(from_here, self.attn(normed, allowed), self.faults, "attention-residual")
        return residual(x, self.mlp(self.ln_2(x)), self.faults, "mlp-residual")


class Transformer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, layers: int, faults: Faults, library: bool) -> None:
        super().__init__()
        self.faults = faults
        self.resblocks = nn.ModuleList(
            [Block(width, heads, inner, faults.below(f"resblocks.{layer}"), library) for layer in range(layers)]
        )

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        for layer in self.faults("order", range(len(self.resblocks))):
            x = self.resblocks[layer](x, allowed)
        return x


class Visual(nn.Module):
    """The image tower: [B P]."""

    def __init__(self, config: Any, faults: Faults, library: bool) -> None:
        super().__init__()
        self.faults, width, self.patch = faults, config.hidden_size, config.patch_size
        count = (config.image_size // self.patch) ** 2
        self.conv1 = nn.Conv2d(3, width, self.patch, stride=self.patch, bias=False)
        self.class_embedding = fresh(width)
        self.positional_embedding = fresh(count + 1, width)
        self.ln_pre = Norm(width, EPS, faults.below("ln_pre"))
        self.transformer = Transformer(
            width, config.num_attention_heads, config.intermediate_size, config.num_hidden_layers,
            faults.below("transformer"), library,
        )  # fmt: skip
        self.ln_post = Norm(width, EPS, faults.below("ln_post"))
        self.proj = fresh(width, config.projection_dim)

    def forward(self, image: Tensor) -> Tensor:
        if self.faults("channels", "rgb") == "bgr":
            image = image.flip(1)
        grid = self.conv1(image)
        patches = grid.flatten(2) if self.faults("patches", "rows") == "rows" else grid.transpose(2, 3).flatten(2)
        first = self.class_embedding.expand(1, image.shape[0], -1)
        tokens = patches.permute(2, 0, 1)
        where = self.faults("class-token", "first")
        x = torch.cat((tokens, first) if where == "last" else (first, tokens))
        if where == "zero":
            x = torch.cat((first * 0, tokens))
        table = self.positional_embedding.roll(self.faults("position-rows", 0), 0)
        how = self.faults("positions", "all")
        if how == "all":
            x = x + table[:, None]
        elif how == "patches only":
            x = torch.cat((x[:1], x[1:] + table[1:, None]))
        x = self.transformer(self.ln_pre(x))
        pooled = {"first": lambda: x[0], "mean": lambda: x.mean(0), "last": lambda: x[-1]}[
            self.faults("pooling", "first")
        ]()
        if self.faults("norm-before-pooling", True):
            pooled = self.ln_post(pooled)
        proj = self.proj
        return pooled @ (proj.T if self.faults("proj-turned", False) else proj)


class Clip(nn.Module):
    """Two towers and their product."""

    def __init__(self, config: Any, faults: Faults = SOUND, library: bool = False) -> None:
        super().__init__()
        text, self.faults = config.text_config, faults
        self.visual = Visual(config.vision_config, faults.below("visual"), library)
        self.token_embedding = Table(text.vocab_size, text.hidden_size)
        self.positional_embedding = fresh(text.max_position_embeddings, text.hidden_size)
        self.transformer = Transformer(
            text.hidden_size, text.num_attention_heads, text.intermediate_size, text.num_hidden_layers,
            faults.below("transformer"), library,
        )  # fmt: skip
        self.ln_final = Norm(text.hidden_size, EPS, faults.below("ln_final"))
        self.text_projection = fresh(text.hidden_size, config.projection_dim)
        self.logit_scale = nn.Parameter(torch.tensor(2.6592))

    def encode_text(self, text: Tensor) -> Tensor:
        length = text.shape[1]
        x = self.token_embedding(text) * self.faults("embedding-scale", 1.0)
        if self.faults("positions", "used") == "used":
            rows = torch.arange(length, device=text.device) + self.faults("position-offset", 0)
            x = x + self.positional_embedding[rows.clamp(max=len(self.positional_embedding) - 1)]
        places = torch.arange(length, device=text.device)
        allowed = places[None, :] <= places[:, None] + self.faults("causal-offset", 0)
        if self.faults("causal", True):
            x = self.transformer(x.transpose(0, 1), allowed).transpose(0, 1)
        else:
            x = self.transformer(x.transpose(0, 1)).transpose(0, 1)
        x = self.ln_final(x)
        rows = torch.arange(len(text), device=text.device)
        end = {
            "argmax": lambda: text.argmax(-1),
            "last": lambda: torch.full_like(rows, length - 1),
            "first": lambda: torch.zeros_like(rows),
            "before": lambda: (text.argmax(-1) - 1).clamp(min=0),
        }[self.faults("pooling", "argmax")]()
        return x[rows, end] @ self.text_projection

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        image_features, text_features = self.visual(image), self.encode_text(text)
        which = self.faults("normalised", "both")
        if which in ("both", "image"):
            image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        if which in ("both", "text"):
            text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        scale = self.logit_scale if self.faults("logit-scale", "exp") == "raw" else self.logit_scale.exp()
        if self.faults("logit-scale", "exp") == "missing":
            scale = 1.0
        logits = scale * image_features @ text_features.T
        return {
            "logits_per_image": logits,
            "logits_per_text": logits.T,
            "image_embeds": image_features,
            "text_embeds": text_features,
        }


def lines(config: Any) -> dict[str, str]:
    """The morph from clip/hf, a line a tensor of the candidate."""
    found = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding [d] <-> visual.class_embedding [d]",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight <-> visual.conv1.weight",
        "visual.positional_embedding":
            "vision_model.embeddings.position_embedding.weight [n d] <-> visual.positional_embedding [n d]",
        "visual.ln_pre": "vision_model.pre_layrnorm.* <-> visual.ln_pre.*",
        "visual.ln_post": "vision_model.post_layernorm.* <-> visual.ln_post.*",
        "visual.proj": "visual_projection.weight [p d] <-> visual.proj [d p]",
        "token_embedding": "text_model.embeddings.token_embedding.weight [v d] <-> token_embedding.weight [v d]",
        "positional_embedding": "text_model.embeddings.position_embedding.weight [n d] <-> positional_embedding [n d]",
        "ln_final": "text_model.final_layer_norm.* <-> ln_final.*",
        "text_projection": "text_projection.weight [p d] <-> text_projection [d p]",
        "logit_scale": "logit_scale [] <-> logit_scale []",
        "ids": "drop? text_model.embeddings.position_ids, vision_model.embeddings.position_ids",
    }  # fmt: skip
    for ours, theirs, layers in (
        ("visual.transformer", "vision_model.encoder", config.vision_config.num_hidden_layers),
        ("transformer", "text_model.encoder", config.text_config.num_hidden_layers),
    ):
        for layer in range(layers):
            found.update(block(f"{ours}.resblocks.{layer}", f"{theirs}.layers.{layer}"))
    return found


def block(ours: str, theirs: str) -> dict[str, str]:
    """One block's lines."""
    q, k, v = (f"{theirs}.self_attn.{part}_proj" for part in "qkv")
    return {
        f"{ours}.attn.in_proj_weight":
            f"{q}.weight [q i], {k}.weight [k i], {v}.weight [v i] <-> {ours}.attn.in_proj_weight [(q + k + v) i]",
        f"{ours}.attn.in_proj_bias": f"{q}.bias [q], {k}.bias [k], {v}.bias [v] <-> {ours}.attn.in_proj_bias [(q + k + v)]",
        f"{ours}.attn.out_proj.weight": f"{theirs}.self_attn.out_proj.weight [o i] <-> {ours}.attn.out_proj.weight [o i]",
        f"{ours}.attn.out_proj.bias": f"{theirs}.self_attn.out_proj.bias <-> {ours}.attn.out_proj.bias",
        f"{ours}.ln_1": f"{theirs}.layer_norm1.* <-> {ours}.ln_1.*",
        f"{ours}.ln_2": f"{theirs}.layer_norm2.* <-> {ours}.ln_2.*",
        f"{ours}.mlp.c_fc.weight": f"{theirs}.mlp.fc1.weight [o i] <-> {ours}.mlp.c_fc.weight [o i]",
        f"{ours}.mlp.c_fc.bias": f"{theirs}.mlp.fc1.bias <-> {ours}.mlp.c_fc.bias",
        f"{ours}.mlp.c_proj.weight": f"{theirs}.mlp.fc2.weight [o i] <-> {ours}.mlp.c_proj.weight [o i]",
        f"{ours}.mlp.c_proj.bias": f"{theirs}.mlp.fc2.bias <-> {ours}.mlp.c_proj.bias",
    }  # fmt: skip
