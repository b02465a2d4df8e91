"""Reference implementations of CLIP, ViT, BERT and T5 in torch, and of ViT in Paddle: one readable file a family.

Their state dicts have the names of a catalogue layout: `clip/hf`, `vit/hf`, `bert/hf`, `t5/hf`, with `fused=True` those of
`fused_qkv` in the same family; the Paddle ViT has those of `vit/paddle_nn`. So load_model fills them from any layout of the family.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def load(path: Any, **options: Any) -> torch.nn.Module:
    """The reference model of a checkpoint in any layout of its family, filled straight from the file; in eval mode.

    `load("clip.pt")`, `load("bert/", dtype=torch.bfloat16, fused=True)`, `load("vit.npz", config={"num_attention_heads": 12})`.
    Options and errors are those of `isomorph.job.reference_models.load_reference`.
    """
    from isomorph.api import load_reference

    model: torch.nn.Module = load_reference(path, **options)
    return model
