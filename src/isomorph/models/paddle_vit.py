"""ViT in Paddle: an image cut into patches, a class token before them, pre-LN blocks, a last norm, a classifier.

    pixels_BKHW ─Conv2D, stride = patch─▶ x_BTC ─class token first─▶ + position ─▶ blocks ─LayerNorm─▶ x_BTC ─x[:, 0]─▶ classifier
    a block:  x = x + attention(norm1(x));  x = x + linear2(gelu(linear1(norm2(x))))

    source: Dosovitskiy et al. 2020, arxiv.org/abs/2010.11929, section 3.1
    source: paddle.nn.TransformerEncoder(normalize_before=True), whose names the blocks have (checked with paddlepaddle 3.3.1)

Names of the state dict are those of the layout vit/paddle_nn; a Linear's weight is [in out], the transpose of torch's. Letters in
names are axes: B batch, K channels, H and W pixels (in the attention H heads), T tokens (the class token and the patches, row by
row), C width, D width of a head. Everything has the dtype of the parameters: float32, or float64 after model.to(dtype="float64").
There is no dropout. Paddle keeps the eps of a LayerNorm in float32: in float64, 1e-3 is taken 5e-8 of it off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from paddle import Tensor, concat, nn
from paddle.nn import functional as F

from isomorph.models.settings import check_settings

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(F.gelu, approximate=True),
    "quick_gelu": lambda x: x * F.sigmoid(1.702 * x),
    "relu": F.relu,
}
Size = tuple[int, int]


@dataclass(frozen=True)
class Config:
    """The keys of transformers' config.json that decide what is computed, with what holds where one is missing."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    image_size: int | Size = 224
    patch_size: int | Size = 16
    num_channels: int = 3
    qkv_bias: bool = True
    num_labels: int = 2

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Config:
        """Read a config.json; other keys are ignored. Raises ValueError for what is not implemented."""
        known = {field.name for field in fields(cls)}
        given: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in config.items()
            if key in known and value is not None
        }
        if config.get("id2label") is not None:
            given.setdefault("num_labels", len(config["id2label"]))
        return cls(**given)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.hidden_act not in ACTIVATIONS:
            raise ValueError(f"hidden_act is {self.hidden_act!r}: implemented are {', '.join(ACTIVATIONS)}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"{self.num_attention_heads} heads (num_attention_heads) do not divide hidden_size {self.hidden_size}"
            )
        image, patch = self.pair("image_size"), self.pair("patch_size")
        if image[0] < patch[0] or image[1] < patch[1]:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")
        if not 0 <= self.layer_norm_eps <= 1e-3:
            raise ValueError(f"layer_norm_eps is {self.layer_norm_eps}: Paddle's LayerNorm takes 0 to 0.001")

    def pair(self, key: str) -> Size:
        """Height and width of `image_size` or `patch_size`, in pixels."""
        size = getattr(self, key)
        return size if isinstance(size, tuple) else (size, size)


class Attention(nn.Layer):
    """Multi-head self-attention, written out: softmax(q k^T / sqrt(D)) v for each head, the heads side by side, projected."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, bias = config.hidden_size, None if config.qkv_bias else False
        self.heads, self.head_dim = config.num_attention_heads, width // config.num_attention_heads
        self.q_proj = nn.Linear(width, width, bias_attr=bias)
        self.k_proj = nn.Linear(width, width, bias_attr=bias)
        self.v_proj = nn.Linear(width, width, bias_attr=bias)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        q_BHTD, k_BHTD, v_BHTD = (self.split(proj(x_BTC)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        scores_BHTT = q_BHTD * self.head_dim**-0.5 @ k_BHTD.transpose([0, 1, 3, 2])
        heads_BHTD = F.softmax(scores_BHTT, axis=-1) @ v_BHTD
        out_BTC: Tensor = self.out_proj(heads_BHTD.transpose([0, 2, 1, 3]).flatten(2))
        return out_BTC

    def split(self, x_BTC: Tensor) -> Tensor:
        """x_BHTD: head h has the columns [h D, (h + 1) D)."""
        batch, length, _ = x_BTC.shape
        return x_BTC.reshape([batch, length, self.heads, self.head_dim]).transpose([0, 2, 1, 3])


class Block(nn.Layer):
    """Pre-LN: what is added to x is computed from its norm, and x itself is never normalised."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, ffn, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.norm1 = nn.LayerNorm(width, epsilon=eps)
        self.self_attn = Attention(config)
        self.norm2 = nn.LayerNorm(width, epsilon=eps)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.self_attn(self.norm1(x_BTC))
        out_BTC: Tensor = x_BTC + self.linear2(self.activation(self.linear1(self.norm2(x_BTC))))
        return out_BTC


class Encoder(nn.Layer):
    """The blocks, one after the other, and the last norm."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.LayerList([Block(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps)

    def forward(self, x_BTC: Tensor) -> Tensor:
        for block in self.layers:
            x_BTC = block(x_BTC)
        out_BTC: Tensor = self.norm(x_BTC)
        return out_BTC


class ViT(nn.Layer):
    """logits, B × num_labels, from pixels_BKHW; x_BTC after the last norm where `num_labels` is 0."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.image, patch = config.pair("image_size"), config.pair("patch_size")
        tokens = 1 + (self.image[0] // patch[0]) * (self.image[1] // patch[1])
        small = nn.initializer.TruncatedNormal(std=0.02)
        self.cls_token = self.create_parameter([1, 1, config.hidden_size], default_initializer=small)
        self.position_embeddings = self.create_parameter([1, tokens, config.hidden_size], default_initializer=small)
        self.patch_embedding = nn.Conv2D(config.num_channels, config.hidden_size, kernel_size=patch, stride=patch)
        self.encoder = Encoder(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else None

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Raises ValueError for images of another size than the config's."""
        batch, _, height, width = pixel_values.shape
        if (height, width) != self.image:
            raise ValueError(
                f"the images are {height} × {width} pixels, the model is for {self.image[0]} × {self.image[1]}: resize them"
            )
        patches_BCHW = self.patch_embedding(pixel_values)
        token_B1C = self.cls_token.expand([batch, -1, -1])
        x_BTC = concat([token_B1C, patches_BCHW.flatten(2).transpose([0, 2, 1])], axis=1)
        out_BTC: Tensor = self.encoder(x_BTC + self.position_embeddings)
        if self.classifier is None:
            return out_BTC
        logits: Tensor = self.classifier(out_BTC[:, 0])
        return logits


def from_config(config: Mapping[str, Any]) -> ViT:
    """The model that a config.json of ViT is for. Weights are random."""
    return ViT(Config.from_dict(config))
