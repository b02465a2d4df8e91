"""ViT: an image cut into patches, a class token before them, pre-LN blocks; a classifier, a decoder of masked patches, or neither.

    pixels_BKHW ─Conv2d, stride = patch─▶ x_BTC ─class token first─▶ + position ─▶ blocks ─LayerNorm─▶ x_BTC ─x[:, 0]─▶ classifier
    a block:  x = x + attention(norm(x));  x = x + mlp(norm(x))      (BERT's post-LN is  x = norm(x + attention(x)), …)

    source: Dosovitskiy et al. 2020, arxiv.org/abs/2010.11929, section 3.1; github.com/google-research/vision_transformer
    source: Xie et al. 2021, arxiv.org/abs/2111.09886 (SimMIM: ViTForMaskedImageModeling)
    source: transformers models/vit/modeling_vit.py (names on disk, interpolation of positions, defaults of the config)

Names of the state dict are those of the layout vit/hf; with `fused` those of vit/fused_qkv. Letters in names are axes: B batch,
K channels, H and W pixels, T tokens (the class token and the patches, row by row), C width. There is no dropout.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isomorph.models.activations import Activation, activation
from isomorph.models.attention import Attention, Names
from isomorph.models.settings import check_settings

NAMES = Names(query="query", key="key", value="value", fused="qkv_proj")
Size = tuple[int, int]


@dataclass(frozen=True)
class Config:
    """The keys of config.json that decide what is computed, with what holds where one is missing."""

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
    head_dim: int | None = None
    encoder_stride: int = 16
    pooler_output_size: int | None = None
    pooler_act: str = "tanh"
    num_labels: int = 2

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Config:
        """Read a config.json; other keys are ignored. Raises ValueError for what is not implemented."""
        known = {field.name for field in fields(cls)}
        given = {key: value for key, value in config.items() if key in known and value is not None}
        if config.get("id2label") is not None:
            given.setdefault("num_labels", len(config["id2label"]))
        for key in ("image_size", "patch_size"):
            if isinstance(given.get(key), list):
                given[key] = tuple(given[key])
        return cls(**given)

    def __post_init__(self) -> None:
        check_settings(self)
        activation(self.hidden_act)
        activation(self.pooler_act, "pooler_act")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )
        if 0 in self.grid:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")

    @property
    def image(self) -> Size:
        """Height and width of an image in pixels."""
        return self.image_size if isinstance(self.image_size, tuple) else (self.image_size, self.image_size)

    @property
    def patch(self) -> Size:
        """Height and width of a patch in pixels."""
        return self.patch_size if isinstance(self.patch_size, tuple) else (self.patch_size, self.patch_size)

    @property
    def grid(self) -> Size:
        """Rows and columns of patches; pixels that fill no patch are not read."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]


class Output(NamedTuple):
    """What ViTModel gives: x_BTC after the last norm; the pooled class token, BC, where there is a pooler."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None


class ImageClassifierOutput(NamedTuple):
    """logits: B × num_labels. last_hidden_state: x_BTC after the last norm."""

    logits: Tensor
    last_hidden_state: Tensor


class MaskedImageModelingOutput(NamedTuple):
    """reconstruction: pixels_BKHW. last_hidden_state: x_BTC after the last norm."""

    reconstruction: Tensor
    last_hidden_state: Tensor


class PatchEmbeddings(nn.Module):
    """One vector for each patch: a convolution whose stride is its size."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch, stride=config.patch
        )

    def forward(self, pixels_BKHW: Tensor) -> Tensor:
        patches_BCHW: Tensor = self.projection(pixels_BKHW)
        return patches_BCHW.flatten(2).transpose(1, 2)


class Embeddings(nn.Module):
    """x_BTC: the class token, then the patches, each with its position. Masked patches are the mask token instead."""

    def __init__(self, config: Config, *, masked: bool = False) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.grid
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(0.02 * torch.randn(1, 1 + rows * columns, config.hidden_size))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if masked else None
        self.patch_embeddings = PatchEmbeddings(config)

    def forward(self, pixels_BKHW: Tensor, masked_BT: Tensor | None = None, *, interpolate: bool = False) -> Tensor:
        size = (pixels_BKHW.shape[2], pixels_BKHW.shape[3])
        if size != self.config.image and not interpolate:
            raise ValueError(
                f"the images are {size[0]} × {size[1]} pixels, the model is for {self.config.image[0]} × {self.config.image[1]}: "
                "resize them, or ask for interpolate_pos_encoding=True"
            )
        x_BTC = self.patch_embeddings(pixels_BKHW.to(self.cls_token.dtype))
        if masked_BT is not None:
            if self.mask_token is None:
                raise ValueError("bool_masked_pos is for ViTForMaskedImageModeling: this model has no mask token")
            x_BTC = torch.where(masked_BT.to(torch.bool)[:, :, None], self.mask_token, x_BTC)
        x_BTC = torch.cat([self.cls_token.expand(len(x_BTC), -1, -1), x_BTC], dim=1)
        return x_BTC + (self.interpolated(size) if interpolate else self.position_embeddings)

    def interpolated(self, image: Size) -> Tensor:
        """The positions of an image of another size: those of the patches bicubically, that of the class token as it is.

        The grid is the config's, also where it is not square (transformers takes any for square).
        """
        (rows, columns), (new_rows, new_columns) = self.config.grid, self.new_grid(image)
        if (rows, columns) == (new_rows, new_columns):
            return self.position_embeddings
        token_1C, patches_TC = self.position_embeddings[0, :1], self.position_embeddings[0, 1:]
        patches_CHW = patches_TC.T.reshape(-1, rows, columns)
        new_CHW = F.interpolate(patches_CHW[None], size=(new_rows, new_columns), mode="bicubic", align_corners=False)[0]
        return torch.cat([token_1C, new_CHW.flatten(1).T])[None]

    def new_grid(self, image: Size) -> Size:
        """Rows and columns of patches of an image of that size."""
        return image[0] // self.config.patch[0], image[1] // self.config.patch[1]


class Dense(nn.Module):
    """A Linear under the name `dense`, and the activation after it."""

    def __init__(self, width: int, to: int, act: Activation | None = None) -> None:
        super().__init__()
        self.dense = nn.Linear(width, to)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.dense(x)
        return x if self.act is None else self.act(x)


class SelfAttention(nn.Module):
    """The heads under `attention`, the projection after them under `output`."""

    def __init__(self, config: Config, *, fused: bool) -> None:
        super().__init__()
        self.attention = Attention(
            config.hidden_size, config.num_attention_heads, NAMES,
            head_dim=config.head_dim, bias=config.qkv_bias, fused=fused,
        )  # fmt: skip
        self.output = Dense(self.attention.heads * self.attention.head_dim, config.hidden_size)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.output(self.attention(x_BTC))
        return out_BTC


class Block(nn.Module):
    """Pre-LN: what is added to x is computed from its norm, and x itself is never normalised."""

    def __init__(self, config: Config, *, fused: bool) -> None:
        super().__init__()
        width, ffn, eps = config.hidden_size, config.intermediate_size, config.layer_norm_eps
        self.layernorm_before = nn.LayerNorm(width, eps=eps)
        self.attention = SelfAttention(config, fused=fused)
        self.layernorm_after = nn.LayerNorm(width, eps=eps)
        self.intermediate = Dense(width, ffn, activation(config.hidden_act))
        self.output = Dense(ffn, width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        x_BTC = x_BTC + self.attention(self.layernorm_before(x_BTC))
        out_BTC: Tensor = x_BTC + self.output(self.intermediate(self.layernorm_after(x_BTC)))
        return out_BTC


class Encoder(nn.Module):
    """The blocks, one after the other."""

    def __init__(self, config: Config, *, fused: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block(config, fused=fused) for _ in range(config.num_hidden_layers))

    def forward(self, x_BTC: Tensor) -> Tensor:
        for block in self.layer:
            x_BTC = block(x_BTC)
        return x_BTC


class ViTModel(nn.Module):
    """The encoder with its last norm, and the pooler where there is one: a Linear and its activation on the class token."""

    def __init__(self, config: Config, *, fused: bool = False, pooler: bool = True, masked: bool = False) -> None:
        super().__init__()
        self.embeddings = Embeddings(config, masked=masked)
        self.encoder = Encoder(config, fused=fused)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        pooled = config.pooler_output_size or config.hidden_size
        self.pooler = Dense(config.hidden_size, pooled, activation(config.pooler_act)) if pooler else None

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> Output:
        x_BTC = self.embeddings(pixel_values, bool_masked_pos, interpolate=interpolate_pos_encoding)
        x_BTC = self.layernorm(self.encoder(x_BTC))
        return Output(x_BTC, None if self.pooler is None else self.pooler(x_BTC[:, 0]))


class ViTForImageClassification(nn.Module):
    """A Linear on the class token; nothing where `num_labels` is 0."""

    def __init__(self, config: Config, *, fused: bool = False) -> None:
        super().__init__()
        self.vit = ViTModel(config, fused=fused, pooler=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels else nn.Identity()

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> ImageClassifierOutput:
        x_BTC = self.vit(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding).last_hidden_state
        return ImageClassifierOutput(self.classifier(x_BTC[:, 0]), x_BTC)


class ViTForMaskedImageModeling(nn.Module):
    """The pixels of every patch from its vector: a 1 × 1 convolution that makes encoder_stride² pixels, put into their square."""

    def __init__(self, config: Config, *, fused: bool = False) -> None:
        super().__init__()
        stride = config.encoder_stride
        self.vit = ViTModel(config, fused=fused, pooler=False, masked=True)
        self.decoder = nn.Sequential(
            nn.Conv2d(config.hidden_size, stride**2 * config.num_channels, kernel_size=1), nn.PixelShuffle(stride)
        )

    def forward(
        self, pixel_values: Tensor, bool_masked_pos: Tensor | None = None, interpolate_pos_encoding: bool = False
    ) -> MaskedImageModelingOutput:
        x_BTC = self.vit(pixel_values, bool_masked_pos, interpolate_pos_encoding).last_hidden_state
        grid = self.vit.embeddings.new_grid((pixel_values.shape[2], pixel_values.shape[3]))
        patches_BCHW = x_BTC[:, 1:].transpose(1, 2).reshape(len(x_BTC), -1, *grid)
        return MaskedImageModelingOutput(self.decoder(patches_BCHW), x_BTC)


MODELS: dict[str, type[nn.Module]] = {
    "ViTModel": ViTModel,
    "ViTForImageClassification": ViTForImageClassification,
    "ViTForMaskedImageModeling": ViTForMaskedImageModeling,
}


def from_config(config: Mapping[str, Any], *, fused: bool = False) -> nn.Module:
    """The model that a config.json is for, by its `architectures`; ViTModel where it names none of MODELS. Weights are random."""
    named = next((name for name in config.get("architectures") or () if name in MODELS), "ViTModel")
    return MODELS[named](Config.from_dict(config), fused=fused)


def build(config: Mapping[str, Any], names: Collection[str], *, fused: bool = False) -> nn.Module:
    """The model that has the heads which these names of vit/hf have, with or without their `vit.`. Weights are random."""
    settings, bare = Config.from_dict(config), {name.removeprefix("vit.").partition(".")[0] for name in names}
    if "classifier" in bare:
        return ViTForImageClassification(settings, fused=fused)
    if "decoder" in bare:
        return ViTForMaskedImageModeling(settings, fused=fused)
    return ViTModel(settings, fused=fused, pooler="pooler" in bare)
