"""The best-known models of the other families are counted: their vocabularies, sizes and groups are right to a parameter."""

from __future__ import annotations

from math import prod

import pytest
from other_models import FAMILIES

from isomorph.layouts.catalogue import family
from isomorph.layouts.hub import schema

PARAMETERS = {
    "falcon": 6_921_720_704,  # tiiuae/falcon-7b
    "gpt_neox": 162_322_944,  # EleutherAI/pythia-160m
    "bloom": 559_214_592,  # bigscience/bloom-560m
    # facebook/sam-vit-base, and its position features, a buffer; a key set shows the tables of all layers as those of a window.
    "sam": 93_735_472 + 2 * 128 - 4 * 2 * (127 - 27) * 64,
    "swin": 28_288_354,  # microsoft/swin-tiny-patch4-window7-224
    "convnext": 28_589_128,  # facebook/convnext-tiny-224
    "encoder": 18_914_304,  # torch.nn.TransformerEncoder(TransformerEncoderLayer(512, 8), 6)
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_best_known_model_has_its_published_number_of_parameters(name: str) -> None:
    keys = schema(name).expand(family(name).sizes)
    assert PARAMETERS[name] == sum(prod(spec.shape) for spec in keys.values())
