"""Two towers that meet at the end: what the first gave is far back in the run when the second is done."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import isomorph as iso
from isomorph.models.clip import from_config

TOWER = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 20}
CONFIG = {
    "architectures": ["CLIPModel"],
    "projection_dim": 12,
    "vision_config": {**TOWER, "image_size": 8, "patch_size": 4},
    "text_config": {**TOWER, "vocab_size": 31, "max_position_embeddings": 9, "eos_token_id": 30, "bos_token_id": 29},
}


class WithoutExp(nn.Module):
    """A CLIP that multiplies by its logit scale as it is stored."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, input_ids: Any = None, pixel_values: Any = None, attention_mask: Any = None) -> Any:
        found = self.clip(input_ids=input_ids, pixel_values=pixel_values, attention_mask=attention_mask)
        scale = self.clip.logit_scale
        return found._replace(
            logits_per_image=found.logits_per_image / scale.exp() * scale,
            logits_per_text=found.logits_per_text / scale.exp() * scale,
        )


def test_a_logit_scale_without_exp_is_named() -> None:
    """Of two deep towers."""
    torch.manual_seed(0)
    reference, candidate = from_config(CONFIG).eval(), WithoutExp(from_config(CONFIG)).eval()
    candidate.clip.load_state_dict(reference.state_dict())
    found = iso.trace(reference, candidate, "** <-> clip.**")
    assert ["logit-scale"] == [one.causes[0].kind for one in found.findings], str(found)
    assert "multiplies by logit_scale itself, without exp" in found.findings[0].sentence
