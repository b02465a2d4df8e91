"""CLIP: an image tower and a text tower, each a pre-LN transformer, and the cosine between what they project.

    image:  patches, class token first ─+ position─▶ LayerNorm ─▶ blocks ─▶ x[:, 0] ─LayerNorm─▶ visual_projection ─▶ image_embeds
    text:   tokens ─+ position─▶ causal blocks ─▶ LayerNorm ─▶ x[at the end token] ─▶ text_projection ─▶ text_embeds
    logits_per_text = exp(logit_scale) * cosine(text_embeds, image_embeds)

    source: Radford et al. 2021, arxiv.org/abs/2103.00020, section 2.4; github.com/openai/CLIP clip/model.py
    source: transformers models/clip/modeling_clip.py (names on disk, the end token, positions, defaults of the config)

Names of the state dict are those of the layout clip/hf, also for one tower alone; with `fused` those of clip/fused_qkv. Letters in
names are axes: B batch, K channels, H and W pixels, T tokens, C width, P projection. There is no dropout.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isomorph.models.activations import activation
from isomorph.models.attention import Attention, Names, allowed_keys
from isomorph.models.settings import check_settings

NAMES = Names(query="q_proj", key="k_proj", value="v_proj", fused="qkv_proj", out="out_proj")


@dataclass(frozen=True)
class Tower:
    """What both towers are told. Raises ValueError for what is not implemented."""

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    projection_dim: int = 512

    def __post_init__(self) -> None:
        check_settings(self, Tower)
        activation(self.hidden_act)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is no multiple of num_attention_heads {self.num_attention_heads}"
            )


@dataclass(frozen=True)
class VisionConfig(Tower):
    """The keys of `vision_config`."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, size in (("image_size", self.image_size), ("patch_size", self.patch_size)):
            if not isinstance(size, int):
                raise ValueError(f"{key} is {size!r}: CLIP's images and patches are square, give one number")
        check_settings(self)
        if self.grid == 0:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")

    @property
    def grid(self) -> int:
        """Rows and columns of patches; pixels that fill no patch are not read."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class TextConfig(Tower):
    """The keys of `text_config`. An `eos_token_id` of 2 is that of configs before 2023, and means: the largest token is the end."""

    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.eos_token_id, int):
            raise ValueError(
                f"eos_token_id is {self.eos_token_id!r}: a text is read off at one end token, give its number"
            )
        check_settings(self)


@dataclass(frozen=True)
class Config:
    """The keys of config.json that decide what is computed, with what holds where one is missing."""

    vision_config: VisionConfig = field(default_factory=VisionConfig)
    text_config: TextConfig = field(default_factory=TextConfig)
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    num_labels: int = 2

    def __post_init__(self) -> None:
        check_settings(self)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> Config:
        """Read a config.json: of CLIP, or of one tower by itself (`clip_vision_model`, `clip_text_model`); other keys are ignored.

        `vision_config_dict` and `text_config_dict`, of configs before 2023, say it instead of `vision_config` and `text_config`.
        Raises ValueError for what is not implemented.
        """
        kind, alone = config.get("model_type"), {"clip_vision_model": "vision_config", "clip_text_model": "text_config"}
        if kind in alone:
            config = {**config, alone[kind]: config}
        elif kind not in (None, "clip"):
            raise ValueError(f"model_type is {kind!r}: this is CLIP, known are clip, {', '.join(alone)}")
        given: dict[str, Any] = _known(cls, config)
        if config.get("id2label") is not None:
            given.setdefault("num_labels", len(config["id2label"]))
        projection = {key: given[key] for key in ("projection_dim",) if key in given}
        for key, part in (("vision_config", VisionConfig), ("text_config", TextConfig)):
            told = config.get(f"{key}_dict")
            told = config.get(key) if told is None else told
            if not isinstance(told, Mapping | None):
                raise ValueError(f"{key} is {told!r}: it must hold the settings of its tower")
            given[key] = part(**{**projection, **_known(part, told or {})})
        return cls(**given)


def _known(cls: type, config: Mapping[str, Any]) -> dict[str, Any]:
    known = {one.name for one in fields(cls)}
    return {key: value for key, value in config.items() if key in known and value is not None}


class TowerOutput(NamedTuple):
    """last_hidden_state: x_BTC (of text after the last norm, of an image before it). pooler_output: BC, after the last norm."""

    last_hidden_state: Tensor
    pooler_output: Tensor


class VisionOutput(NamedTuple):
    """What an image tower by itself gives; image_embeds: BP, where it has its projection."""

    image_embeds: Tensor | None
    last_hidden_state: Tensor
    pooler_output: Tensor


class TextOutput(NamedTuple):
    """What a text tower by itself gives; text_embeds: BP, where it has its projection."""

    text_embeds: Tensor | None
    last_hidden_state: Tensor
    pooler_output: Tensor


class CLIPOutput(NamedTuple):
    """logits_per_image: images × texts. The embeds have length 1. The outputs of the towers are those before the projections."""

    logits_per_image: Tensor
    logits_per_text: Tensor
    text_embeds: Tensor
    image_embeds: Tensor
    text_model_output: TowerOutput
    vision_model_output: TowerOutput


class ImageClassifierOutput(NamedTuple):
    """logits: B × num_labels. last_hidden_state: x_BTC."""

    logits: Tensor
    last_hidden_state: Tensor


class MLP(nn.Module):
    """Up, activation, down."""

    def __init__(self, config: Tower) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = activation(config.hidden_act)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x_BTC: Tensor) -> Tensor:
        out_BTC: Tensor = self.fc2(self.act(self.fc1(x_BTC)))
        return out_BTC


class Block(nn.Module):
    """Pre-LN: what is added to x is computed from its norm, and x itself is never normalised."""

    def __init__(self, config: Tower, *, fused: bool) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config.hidden_size, config.num_attention_heads, NAMES, fused=fused)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_BTC: Tensor, mask: Tensor | None, *, is_causal: bool) -> Tensor:
        x_BTC = x_BTC + self.self_attn(self.layer_norm1(x_BTC), mask, is_causal=is_causal)
        out_BTC: Tensor = x_BTC + self.mlp(self.layer_norm2(x_BTC))
        return out_BTC


class Encoder(nn.Module):
    """The blocks, one after the other."""

    def __init__(self, config: Tower, *, fused: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config, fused=fused) for _ in range(config.num_hidden_layers))

    def forward(self, x_BTC: Tensor, mask: Tensor | None = None, *, is_causal: bool = False) -> Tensor:
        for block in self.layers:
            x_BTC = block(x_BTC, mask, is_causal=is_causal)
        return x_BTC


class VisionEmbeddings(nn.Module):
    """x_BTC: the class token, then one vector for each patch, row by row, each with its position."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.class_embedding = nn.Parameter(0.02 * torch.randn(config.hidden_size))
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size, bias=False
        )
        self.position_embedding = nn.Embedding(1 + config.grid**2, config.hidden_size)

    def forward(self, pixels_BKHW: Tensor, *, interpolate: bool = False) -> Tensor:
        height, width = pixels_BKHW.shape[2:]
        if (height, width) != (self.config.image_size, self.config.image_size) and not interpolate:
            raise ValueError(
                f"the images are {height} × {width} pixels, the model is for {self.config.image_size} × {self.config.image_size}: "
                "resize them, or ask for interpolate_pos_encoding=True"
            )
        patches_BCHW = self.patch_embedding(pixels_BKHW.to(self.class_embedding.dtype))
        token_B1C = self.class_embedding.expand(len(patches_BCHW), 1, -1)
        x_BTC = torch.cat([token_B1C, patches_BCHW.flatten(2).transpose(1, 2)], dim=1)
        return x_BTC + self.positions(height // self.config.patch_size, width // self.config.patch_size)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Those of a grid of patches: where it is not the config's, bicubically, and that of the class token as it is."""
        positions_TC, grid = self.position_embedding.weight, self.config.grid
        if (rows, columns) == (grid, grid):
            return positions_TC
        patches_CHW = positions_TC[1:].T.reshape(-1, grid, grid)
        new_CHW = F.interpolate(patches_CHW[None], size=(rows, columns), mode="bicubic", align_corners=False)[0]
        return torch.cat([positions_TC[:1], new_CHW.flatten(1).T])


class VisionTower(nn.Module):
    """The image tower: a norm before the blocks (`pre_layrnorm`, as it is spelt) and one after them, on the class token alone."""

    def __init__(self, config: VisionConfig, *, fused: bool) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = Encoder(config, fused=fused)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> TowerOutput:
        x_BTC = self.embeddings(pixel_values, interpolate=interpolate_pos_encoding)
        x_BTC = self.encoder(self.pre_layrnorm(x_BTC))
        return TowerOutput(x_BTC, self.post_layernorm(x_BTC[:, 0]))


class TextEmbeddings(nn.Module):
    """x_BTC: one vector for each token, with its position."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None) -> Tensor:
        length, longest = input_ids.shape[1], self.position_embedding.num_embeddings
        if length > longest:
            raise ValueError(f"input_ids has {length} tokens, the model takes {longest}: cut the text")
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device)
        x_BTC: Tensor = self.token_embedding(input_ids) + self.position_embedding(position_ids)
        return x_BTC


class TextTower(nn.Module):
    """The text tower: a token sees those before it; a text is what its end token has seen."""

    def __init__(self, config: TextConfig, *, fused: bool) -> None:
        super().__init__()
        self.eos_token_id = config.eos_token_id
        self.embeddings = TextEmbeddings(config)
        self.encoder = Encoder(config, fused=fused)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> TowerOutput:
        x_BTC, length = self.embeddings(input_ids, position_ids), input_ids.shape[1]
        mask = allowed_keys(attention_mask, length, length, causal=True, device=x_BTC.device)
        x_BTC = self.final_layer_norm(self.encoder(x_BTC, mask, is_causal=mask is None))
        return TowerOutput(x_BTC, x_BTC[torch.arange(len(x_BTC), device=x_BTC.device), self.end(input_ids)])

    def end(self, input_ids: Tensor) -> Tensor:
        """The place of each text's first end token; 0 where it has none."""
        if self.eos_token_id == 2:
            return input_ids.argmax(dim=-1)
        return (input_ids == self.eos_token_id).int().argmax(dim=-1)


class CLIPModel(nn.Module):
    """Both towers, their projections, and the temperature (its logarithm) of the cosine."""

    def __init__(self, config: Config, *, fused: bool = False) -> None:
        super().__init__()
        self.vision_model = VisionTower(config.vision_config, fused=fused)
        self.text_model = TextTower(config.text_config, fused=fused)
        self.visual_projection = nn.Linear(config.vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(config.text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
    ) -> CLIPOutput:
        vision = self.vision_model(pixel_values, interpolate_pos_encoding)
        text = self.text_model(input_ids, attention_mask, position_ids)
        image_BP = unit(self.visual_projection(vision.pooler_output))
        text_BP = unit(self.text_projection(text.pooler_output))
        logits_per_text = (text_BP @ image_BP.T) * self.logit_scale.exp()
        return CLIPOutput(logits_per_text.T, logits_per_text, text_BP, image_BP, text, vision)


def unit(x_BP: Tensor) -> Tensor:
    """Each row divided by its length."""
    length_B1: Tensor = torch.linalg.vector_norm(x_BP, dim=-1, keepdim=True)
    return x_BP / length_B1


class CLIPVisionModel(nn.Module):
    """The image tower by itself, with its projection or without."""

    def __init__(self, config: Config, *, fused: bool = False, projection: bool = False) -> None:
        super().__init__()
        tower = config.vision_config
        self.vision_model = VisionTower(tower, fused=fused)
        self.visual_projection = nn.Linear(tower.hidden_size, tower.projection_dim, bias=False) if projection else None

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> VisionOutput:
        x_BTC, pooled_BC = self.vision_model(pixel_values, interpolate_pos_encoding)
        projected = None if self.visual_projection is None else self.visual_projection(pooled_BC)
        return VisionOutput(projected, x_BTC, pooled_BC)


class CLIPTextModel(nn.Module):
    """The text tower by itself, with its projection or without."""

    def __init__(self, config: Config, *, fused: bool = False, projection: bool = False) -> None:
        super().__init__()
        tower = config.text_config
        self.text_model = TextTower(tower, fused=fused)
        self.text_projection = nn.Linear(tower.hidden_size, tower.projection_dim, bias=False) if projection else None

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
    ) -> TextOutput:
        x_BTC, pooled_BC = self.text_model(input_ids, attention_mask, position_ids)
        projected = None if self.text_projection is None else self.text_projection(pooled_BC)
        return TextOutput(projected, x_BTC, pooled_BC)


class CLIPForImageClassification(nn.Module):
    """The image tower, and a Linear on the mean of its patches (before the last norm, which stands unused)."""

    def __init__(self, config: Config, *, fused: bool = False) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.vision_model = VisionTower(config.vision_config, fused=fused)
        self.classifier = nn.Linear(width, config.num_labels) if config.num_labels else nn.Identity()

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> ImageClassifierOutput:
        x_BTC, _ = self.vision_model(pixel_values, interpolate_pos_encoding)
        return ImageClassifierOutput(self.classifier(x_BTC[:, 1:].mean(dim=1)), x_BTC)


MODELS: dict[str, frozenset[str]] = {
    "CLIPModel": frozenset({"vision_model", "text_model", "visual_projection", "text_projection", "logit_scale"}),
    "CLIPForImageClassification": frozenset({"vision_model", "classifier"}),
    "CLIPVisionModelWithProjection": frozenset({"vision_model", "visual_projection"}),
    "CLIPTextModelWithProjection": frozenset({"text_model", "text_projection"}),
    "CLIPVisionModel": frozenset({"vision_model"}),
    "CLIPTextModel": frozenset({"text_model"}),
}
"""Name in config.json -> how the names of its tensors begin."""


def from_config(config: Mapping[str, Any], *, fused: bool = False) -> nn.Module:
    """The model that a config.json is for, by its `architectures`, else by its `model_type`. Weights are random."""
    alone = {"clip_vision_model": "CLIPVisionModel", "clip_text_model": "CLIPTextModel"}
    by_type = alone.get(str(config.get("model_type")), "CLIPModel")
    named = next((name for name in config.get("architectures") or () if name in MODELS), by_type)
    return _made(Config.from_dict(config), MODELS[named], fused=fused)


def build(config: Mapping[str, Any], names: Collection[str], *, fused: bool = False) -> nn.Module:
    """The largest model that these names of clip/hf are enough for. Weights are random.

    Raises ValueError where they hold neither tower.
    """
    there = {name.partition(".")[0] for name in names}
    parts = next((parts for parts in MODELS.values() if parts <= there), None)
    if parts is None:
        raise ValueError(
            f"no CLIP: of vision_model and text_model the weights hold neither, but {', '.join(sorted(there))}"
        )
    return _made(Config.from_dict(config), parts, fused=fused)


def _made(config: Config, parts: Collection[str], *, fused: bool) -> nn.Module:
    if "logit_scale" in parts:
        return CLIPModel(config, fused=fused)
    if "classifier" in parts:
        return CLIPForImageClassification(config, fused=fused)
    if "vision_model" in parts:
        return CLIPVisionModel(config, fused=fused, projection="visual_projection" in parts)
    return CLIPTextModel(config, fused=fused, projection="text_projection" in parts)
