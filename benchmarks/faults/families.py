"""The families: a reference, a candidate, the morph between them, and inputs."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from benchmarks.faults.hook import SOUND, Faults

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Family:
    """`reference` and `candidate` make models with random weights; `lines` is the morph, a line a tensor of the candidate.

    `inputs` gives both sides' inputs by name: everything that can be padded is.
    """

    name: str
    config: Callable[[int], Any]
    reference: Callable[[Any], Any]
    candidate: Callable[[Any, Faults], Any]
    lines: Callable[[Any], dict[str, str]]
    inputs: Callable[[Any, int], tuple[dict[str, Array], dict[str, Array]]]
    blocks: str
    library: str = "torch"


def clip_config(layers: int) -> Any:
    from isomorph.models.clip import Config, TextConfig, VisionConfig

    vision = VisionConfig(
        hidden_size=48, intermediate_size=104, num_hidden_layers=layers, num_attention_heads=4, image_size=24, patch_size=6,
        projection_dim=28,
    )  # fmt: skip
    text = TextConfig(
        hidden_size=40, intermediate_size=72, num_hidden_layers=layers, num_attention_heads=5, vocab_size=97,
        max_position_embeddings=22, eos_token_id=2, projection_dim=28,
    )  # fmt: skip
    return Config(vision_config=vision, text_config=text, projection_dim=28)


def vit_config(layers: int) -> Any:
    from isomorph.models.vit import Config

    return Config(
        hidden_size=40, intermediate_size=80, num_hidden_layers=layers, num_attention_heads=5, image_size=24, patch_size=6,
        num_labels=7, layer_norm_eps=1e-6,
    )  # fmt: skip


def bert_config(layers: int) -> Any:
    from isomorph.models.bert import Config

    return Config(
        vocab_size=101, hidden_size=48, num_hidden_layers=layers, num_attention_heads=3, intermediate_size=88,
        max_position_embeddings=40,
    )  # fmt: skip


def t5_config(layers: int) -> Any:
    from isomorph.models.t5 import Config

    return Config(
        vocab_size=89, d_model=36, d_kv=12, d_ff=72, num_layers=layers, num_decoder_layers=layers, num_heads=3,
        relative_attention_num_buckets=16, relative_attention_max_distance=30, dense_act_fn="gelu_new", is_gated_act=True,
    )  # fmt: skip


def clip_reference(config: Any) -> Any:
    from isomorph.models.clip import CLIPModel

    return CLIPModel(config)


def vit_reference(config: Any) -> Any:
    from isomorph.models.vit import ViTForImageClassification

    return ViTForImageClassification(config)


def bert_reference(config: Any) -> Any:
    from isomorph.models.bert import BertForPreTraining

    return BertForPreTraining(config)


def t5_reference(config: Any) -> Any:
    from isomorph.models.t5 import T5ForConditionalGeneration

    return T5ForConditionalGeneration(config)


def clip_candidate(config: Any, faults: Faults) -> Any:
    from benchmarks.faults.clip import Clip

    return Clip(config, faults)


def clip_library_candidate(config: Any, faults: Faults) -> Any:
    from benchmarks.faults.clip import Clip

    return Clip(config, faults, library=True)


def vit_candidate(config: Any, faults: Faults) -> Any:
    from benchmarks.faults.vit import Vit

    return Vit(config, faults)


def jax_candidate(config: Any, faults: Faults) -> Any:
    from benchmarks.faults.vit_kernels import Vit

    return Vit(config, faults)


def bert_candidate(config: Any, faults: Faults) -> Any:
    from benchmarks.faults.bert import Bert

    return Bert(config, faults)


def t5_candidate(config: Any, faults: Faults) -> Any:
    from benchmarks.faults.t5 import T5

    return T5(config, faults)


def paddle_candidate(config: Any, faults: Faults) -> Any:
    from benchmarks.faults.vit_paddle import Vit

    return Vit(config, faults)


def clip_lines(config: Any) -> dict[str, str]:
    from benchmarks.faults import clip

    return clip.lines(config)


def vit_lines(config: Any) -> dict[str, str]:
    from benchmarks.faults import vit

    return vit.lines(config)


def jax_lines(config: Any) -> dict[str, str]:
    from benchmarks.faults import vit_kernels

    return vit_kernels.lines(config)


def bert_lines(config: Any) -> dict[str, str]:
    from benchmarks.faults import bert

    return bert.lines(config)


def t5_lines(config: Any) -> dict[str, str]:
    from benchmarks.faults import t5

    return t5.lines(config)


def paddle_lines(config: Any) -> dict[str, str]:
    from benchmarks.faults import vit_paddle

    return vit_paddle.lines(config)


def clip_inputs(config: Any, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    random = np.random.default_rng(seed)
    text = random.integers(3, 90, (3, config.text_config.max_position_embeddings - 3))
    text[np.arange(3), (8, 13, 5)] = 96  # the end of each, as the largest token
    size = config.vision_config.image_size
    image = random.standard_normal((2, 3, size, size)).astype(np.float32)
    return {"input_ids": text, "pixel_values": image}, {"image": image, "text": text}


def vit_inputs(config: Any, seed: int, name: str = "x") -> tuple[dict[str, Array], dict[str, Array]]:
    image = np.random.default_rng(seed).standard_normal((3, 3, config.image_size, config.image_size)).astype(np.float32)
    return {"pixel_values": image}, {name: image}


def jax_inputs(config: Any, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    return vit_inputs(config, seed, "images")


def paddle_inputs(config: Any, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    return vit_inputs(config, seed, "pixel_values")


def bert_inputs(config: Any, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    random = np.random.default_rng(seed)
    length = config.max_position_embeddings - 7
    mask = (np.arange(length)[None] < np.array([length, length - 9, length // 2])[:, None]).astype(np.int64)
    both = {
        "input_ids": random.integers(1, config.vocab_size, (3, length)),
        "token_type_ids": random.integers(0, 2, (3, length)),
        "attention_mask": mask,
    }
    return both, both


def t5_inputs(config: Any, seed: int) -> tuple[dict[str, Array], dict[str, Array]]:
    random = np.random.default_rng(seed)
    mask = (np.arange(57)[None] < np.array([57, 40, 23])[:, None]).astype(np.int64)
    both = {
        "input_ids": random.integers(1, config.vocab_size, (3, 57)),
        "attention_mask": mask,
        "decoder_input_ids": random.integers(1, config.vocab_size, (3, 41)),
    }
    return both, both


CLIP = Family(
    "clip", clip_config, clip_reference, clip_candidate, clip_lines, clip_inputs, "visual.transformer.resblocks"
)
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        CLIP,
        dataclasses.replace(CLIP, name="clip library", candidate=clip_library_candidate),
        Family("vit", vit_config, vit_reference, vit_candidate, vit_lines, vit_inputs, "blocks"),
        Family("vit kernels", vit_config, vit_reference, jax_candidate, jax_lines, jax_inputs, "encoderblocks"),
        Family("bert", bert_config, bert_reference, bert_candidate, bert_lines, bert_inputs, "bert.encoder.layers"),
        Family("t5", t5_config, t5_reference, t5_candidate, t5_lines, t5_inputs, "encoder.layers_"),
        Family(
            "vit paddle", vit_config, vit_reference, paddle_candidate, paddle_lines, paddle_inputs, "encoder.layers",
            library="paddle",
        ),
    )
}  # fmt: skip


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Both libraries' generators, seeded; torch's is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def trained(names: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Weights as training leaves them: fan-in scaled matrices, norms near 1, biases that are not zero. Scalars stay."""
    random, found = np.random.default_rng(seed), {}
    for name, old in names.items():
        if old.dtype.kind != "f" or old.size == 1:
            found[name] = old
        elif old.ndim == 1 and name.endswith("weight"):
            found[name] = 1 + 0.3 * random.standard_normal(old.shape)
        elif old.ndim == 1:
            found[name] = 0.3 * random.standard_normal(old.shape)
        elif "embed" in name or "cls" in name or name == "shared.weight" or "relative" in name:
            is_patches = old.ndim == 4
            found[name] = random.standard_normal(old.shape) * (
                1 / math.sqrt(np.prod(old.shape[1:])) if is_patches else 1.0
            )
        else:
            sharp = 0.5 if name.endswith(".q.weight") else 1.3  # T5 does not scale its scores
            found[name] = random.standard_normal(old.shape) * sharp / math.sqrt(np.prod(old.shape[1:]))
        found[name] = np.asarray(found[name], old.dtype)
    return found


def sound(name: str, layers: int = 4) -> tuple[Any, Any, Any]:
    """(config, reference, candidate) without a fault, weights as they are made."""
    family = FAMILIES[name]
    config = family.config(layers)
    with seeded(0):
        return config, family.reference(config).eval(), family.candidate(config, SOUND)
