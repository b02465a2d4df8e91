"""The names and shapes of `transformers`' CLIPModel, with both `position_ids` of older checkpoints, and weights for them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.tensors import DTYPES, TensorSpec

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

F32, I64 = DTYPES["f32"], DTYPES["i64"]


@dataclass(frozen=True)
class Clip:
    """The sizes of a CLIP model. `context` and `vocabulary` are of the text tower; `image` and `patch` in pixels."""

    text_layers: int
    text_width: int
    vision_layers: int
    vision_width: int
    projection: int
    vocabulary: int
    context: int
    image: int
    patch: int

    @property
    def positions(self) -> int:
        """Patches of an image, and the class token."""
        return (self.image // self.patch) ** 2 + 1


SMALL = Clip(2, 64, 3, 96, 48, 512, 77, 56, 14)
LARGE = Clip(12, 768, 24, 1024, 768, 49408, 77, 224, 14)
"""clip-vit-large-patch14: 592 tensors, 428 million parameters, 1.7 GB."""


def specs(clip: Clip) -> dict[str, TensorSpec]:
    """Every tensor, in the order in which the model lists them."""
    found: dict[str, TensorSpec] = {}

    def tensor(name: str, *shape: int) -> None:
        found[name] = TensorSpec(F32, shape)

    def affine(name: str, out: int, *rest: int) -> None:
        tensor(f"{name}.weight", out, *rest)
        tensor(f"{name}.bias", out)

    def layers(tower: str, number: int, width: int) -> None:
        for layer in range(number):
            at = f"{tower}.encoder.layers.{layer}"
            for projection in ("k_proj", "v_proj", "q_proj", "out_proj"):
                affine(f"{at}.self_attn.{projection}", width, width)
            affine(f"{at}.layer_norm1", width)
            affine(f"{at}.mlp.fc1", 4 * width, width)
            affine(f"{at}.mlp.fc2", width, 4 * width)
            affine(f"{at}.layer_norm2", width)

    tensor("logit_scale")
    found["text_model.embeddings.position_ids"] = TensorSpec(I64, (1, clip.context))
    tensor("text_model.embeddings.token_embedding.weight", clip.vocabulary, clip.text_width)
    tensor("text_model.embeddings.position_embedding.weight", clip.context, clip.text_width)
    layers("text_model", clip.text_layers, clip.text_width)
    affine("text_model.final_layer_norm", clip.text_width)
    tensor("vision_model.embeddings.class_embedding", clip.vision_width)
    found["vision_model.embeddings.position_ids"] = TensorSpec(I64, (1, clip.positions))
    tensor("vision_model.embeddings.patch_embedding.weight", clip.vision_width, 3, clip.patch, clip.patch)
    tensor("vision_model.embeddings.position_embedding.weight", clip.positions, clip.vision_width)
    affine("vision_model.pre_layrnorm", clip.vision_width)
    layers("vision_model", clip.vision_layers, clip.vision_width)
    affine("vision_model.post_layernorm", clip.vision_width)
    tensor("visual_projection.weight", clip.projection, clip.vision_width)
    tensor("text_projection.weight", clip.projection, clip.text_width)
    return found


def element(name: str, spec: TensorSpec, flat: Array) -> Array:
    """What stands at these flat indices: 0, 1, 2, … in integer tensors, else numbers like trained weights, the same every time."""
    import numpy as np

    if spec.dtype.is_integer:
        return flat
    mixed = flat.astype(np.uint32)
    mixed += np.uint32(zlib.crc32(name.encode()))
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed ^= mixed >> np.uint32(shift)
        mixed *= np.uint32(factor)
    mixed ^= mixed >> np.uint32(16)
    values = mixed.view(np.int32).astype(np.float32)
    values *= np.float32(0.05 / 2**31)
    if name.endswith(("norm1.weight", "norm2.weight", "layernorm.weight", "layrnorm.weight")):
        values += np.float32(1)
    return values


def write_checkpoint(clip: Clip, path: Path, progress: Any = None) -> None:
    """Write a `pytorch_model.bin` of these sizes, tile by tile."""
    from isomorph.job.convert import Writing, convert
    from isomorph.job.inputs import place
    from isomorph.job.port import Port
    from isomorph.testing.made import MadeCheckpoint

    source = MadeCheckpoint(specs(clip), element)
    convert(
        Port(), source, [place(path)], Writing(verify=False), stage=None if progress is None else lambda _: progress
    )
