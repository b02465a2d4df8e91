"""ViT in paddle.nn, with the names of vit/paddle_nn: matrices [in out], Conv2D, attention written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle
from benchmarks.faults.hook import SOUND, Faults
from paddle import nn

EPS = 1e-6


def number(value: float, like: Any) -> Any:
    """A constant in the dtype of a tensor: Paddle rounds the numbers of Python to float32 on the way into a product."""
    return paddle.to_tensor(np.asarray(value, np.float64)).astype(like.dtype)


class Linear(nn.Layer):
    """x @ weight + bias, weight [in out]."""

    def __init__(self, inner: int, outer: int, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.weight = self.create_parameter([inner, outer])
        self.bias = self.create_parameter([outer], is_bias=True)

    def forward(self, x: Any) -> Any:
        weight = self.weight.t() if self.faults("turned", False) else self.weight
        y = paddle.matmul(x, weight)
        return {"used": y + self.bias, "ignored": y, "doubled": y + 2 * self.bias}[self.faults("bias", "used")]


class Norm(nn.Layer):
    def __init__(self, width: int, faults: Faults) -> None:
        super().__init__()
        self.faults, self.epsilon = faults, faults("eps", EPS)
        self.weight = self.create_parameter([width], default_initializer=nn.initializer.Constant(1.0))
        self.bias = self.create_parameter([width], is_bias=True)

    def forward(self, x: Any) -> Any:
        centred = x if self.faults("form", "layer") == "rms" else x - x.mean(-1, keepdim=True)
        y = centred * paddle.rsqrt((centred * centred).mean(-1, keepdim=True) + number(self.epsilon, x))
        return y * (self.weight + self.faults("plus", 0.0)) + self.bias


class Attention(nn.Layer):
    """q, k and v separate."""

    def __init__(self, width: int, heads: int, faults: Faults) -> None:
        super().__init__()
        self.faults, self.heads = faults, faults("heads-number", heads)
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            Linear(width, width, faults.below(name)) for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        )

    def forward(self, x: Any) -> Any:
        batch, length, width = x.shape
        split = [batch, length, self.heads, width // self.heads]
        q, k, v = (one(x).reshape(split).transpose([0, 2, 1, 3]) for one in (self.q_proj, self.k_proj, self.v_proj))
        scale = {"head": 1 / math.sqrt(split[-1]), "none": 1.0, "width": 1 / math.sqrt(width)}[
            self.faults("scale", "head")
        ]
        scores = paddle.matmul(q, k.transpose([0, 1, 3, 2])) * number(scale, q)
        axis = self.faults("softmax-axis", -1)
        parts = paddle.exp(scores - scores.max(axis, keepdim=True))
        out = paddle.matmul(parts / parts.sum(axis, keepdim=True), v)
        if self.faults("merge", "heads first") == "heads first":
            out = out.transpose([0, 2, 1, 3])
        return self.out_proj(out.reshape([batch, length, width]))


def gelu(x: Any) -> Any:
    return 0.5 * x * (1 + paddle.erf(x * number(math.sqrt(0.5), x)))


def tanh_gelu(x: Any) -> Any:
    inner = number(math.sqrt(2 / math.pi), x) * (x + number(0.044715, x) * x * x * x)
    return 0.5 * x * (1 + paddle.tanh(inner))


class Block(nn.Layer):
    """Pre-LN, as nn.TransformerEncoderLayer(normalize_before=True)."""

    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        width, self.faults = config.hidden_size, faults
        self.norm1, self.norm2 = Norm(width, faults.below("norm1")), Norm(width, faults.below("norm2"))
        self.self_attn = Attention(width, config.num_attention_heads, faults.below("self_attn"))
        self.linear1 = Linear(width, config.intermediate_size, faults.below("linear1"))
        self.linear2 = Linear(config.intermediate_size, width, faults.below("linear2"))

    def forward(self, x: Any) -> Any:
        if self.faults("norms", "pre") == "post":
            x = self.norm1(x + self.self_attn(x))
            return self.norm2(x + self.mlp(x))
        y = self.self_attn(self.norm1(x))
        x = {"added": x + y, "dropped": y, "doubled": x + y + x}[self.faults("attention-residual", "added")]
        y = self.mlp(self.norm2(x))
        return {"added": x + y, "dropped": y, "doubled": x + y + x}[self.faults("mlp-residual", "added")]

    def mlp(self, x: Any) -> Any:
        how = {"erf": gelu, "tanh": tanh_gelu, "relu": lambda x: x.clip(min=0)}[self.faults("activation", "erf")]
        return self.linear2(how(self.linear1(x)))


class Encoder(nn.Layer):
    def __init__(self, config: Any, faults: Faults) -> None:
        super().__init__()
        self.faults = faults
        self.layers = nn.LayerList(
            [Block(config, faults.below(f"layers.{layer}")) for layer in range(config.num_hidden_layers)]
        )
        self.norm = Norm(config.hidden_size, faults.below("norm"))

    def forward(self, x: Any) -> Any:
        for layer in self.faults("order", range(len(self.layers))):
            x = self.layers[layer](x)
        return self.norm(x) if self.faults("last-norm", True) else x


class Vit(nn.Layer):
    """logits of an image."""

    def __init__(self, config: Any, faults: Faults = SOUND) -> None:
        super().__init__()
        self.faults, width, patch = faults, config.hidden_size, config.patch_size
        count = (config.image_size // patch) ** 2
        small = nn.initializer.Normal(std=0.02)
        self.cls_token = self.create_parameter([1, 1, width], default_initializer=small)
        self.position_embeddings = self.create_parameter([1, count + 1, width], default_initializer=small)
        self.patch_embedding = nn.Conv2D(3, width, patch, stride=patch)
        self.encoder = Encoder(config, faults.below("encoder"))
        self.classifier = Linear(width, config.num_labels, faults.below("classifier"))

    def forward(self, pixel_values: Any) -> Any:
        image = pixel_values.flip([1]) if self.faults("channels", "rgb") == "bgr" else pixel_values
        grid = self.patch_embedding(image)
        grid = grid if self.faults("patches", "rows") == "rows" else grid.transpose([0, 1, 3, 2])
        patches, first = grid.flatten(2).transpose([0, 2, 1]), self.cls_token.expand([image.shape[0], -1, -1])
        last = self.faults("class-token", "first") == "last"
        x = paddle.concat([patches, first] if last else [first, patches], axis=1)
        if self.faults("positions", "all") == "all":
            x = x + paddle.roll(self.position_embeddings, self.faults("position-rows", 0), 1)
        x = self.encoder(x)
        return self.classifier(x[:, 0] if self.faults("pooling", "first") == "first" else x.mean(1))


def lines(config: Any) -> dict[str, str]:
    """The morph from vit/hf, a line a tensor."""
    found = {
        "cls_token": "vit.embeddings.cls_token <-> cls_token",
        "position_embeddings": "vit.embeddings.position_embeddings <-> position_embeddings",
        "patch_embedding.weight":
            "vit.embeddings.patch_embeddings.projection.weight [o c y x] <-> patch_embedding.weight [o c y x]",
        "patch_embedding.bias": "vit.embeddings.patch_embeddings.projection.bias <-> patch_embedding.bias",
        "encoder.norm": "vit.layernorm.* <-> encoder.norm.*",
        "classifier.weight": "classifier.weight [o i] <-> classifier.weight [i o]",
        "classifier.bias": "classifier.bias <-> classifier.bias",
    }  # fmt: skip
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{layer}", f"vit.encoder.layer.{layer}"
        for mine, other in (
            ("self_attn.q_proj", "attention.attention.query"), ("self_attn.k_proj", "attention.attention.key"),
            ("self_attn.v_proj", "attention.attention.value"), ("self_attn.out_proj", "attention.output.dense"),
            ("linear1", "intermediate.dense"), ("linear2", "output.dense"),
        ):  # fmt: skip
            found[f"{ours}.{mine}.weight"] = f"{theirs}.{other}.weight [o i] <-> {ours}.{mine}.weight [i o]"
            found[f"{ours}.{mine}.bias"] = f"{theirs}.{other}.bias <-> {ours}.{mine}.bias"
        found[f"{ours}.norm1"] = f"{theirs}.layernorm_before.* <-> {ours}.norm1.*"
        found[f"{ours}.norm2"] = f"{theirs}.layernorm_after.* <-> {ours}.norm2.*"
    return found
