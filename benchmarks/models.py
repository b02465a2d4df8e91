"""Forward speed of the reference models beside transformers': same weights, same inputs, float32 on the CPU.

    python benchmarks/models.py [--small] [--rounds 30] [--threads 1] [--folder DIR] [--only clip,vit] [--json]

Each round runs transformers' model (its attention through scaled_dot_product_attention), ours with q, k and v separate, and ours
with them fused, one after the other in one process, so that what disturbs the machine disturbs all three. The outputs are compared
first. A ratio is that of the medians. Width 512, 6 layers; a batch of 4 with 128 tokens or 121 patches, and one input of 16.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

import isomorph as iso

WAYS = ("transformers", "separate", "fused")
LIMIT = 1e-5


@dataclass(frozen=True)
class Size:
    """What every family is measured at."""

    width: int
    layers: int
    batch: int
    tokens: int
    vocab: int
    image: int
    patch: int = 16

    @property
    def heads(self) -> int:
        return max(1, self.width // 64)

    @property
    def encoder(self) -> dict[str, int]:
        """What BERT, ViT and both towers of CLIP call by the same names."""
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
        }


SIZES = {
    "a batch of 4": Size(width=512, layers=6, batch=4, tokens=128, vocab=8000, image=176),
    "one short input": Size(width=512, layers=6, batch=1, tokens=16, vocab=8000, image=64),
}
SMALL = {"small": Size(width=64, layers=2, batch=2, tokens=16, vocab=100, image=64)}


@dataclass(frozen=True)
class Family:
    """A model of transformers, its config, and which of its outputs is compared. Ours is isomorph.models' of the family's name."""

    model: str
    config: Callable[[Size], Any]
    inputs: Callable[[Size], Mapping[str, torch.Tensor]]
    output: str


def tokens(size: Size) -> torch.Tensor:
    """Whole numbers that are no special token of any family."""
    return torch.randint(5, size.vocab - 1, (size.batch, size.tokens), generator=torch.Generator().manual_seed(1))


def padding(size: Size) -> torch.Tensor:
    """Every second text ends a quarter earlier."""
    mask = torch.ones(size.batch, size.tokens, dtype=torch.long)
    mask[1::2, -(size.tokens // 4) :] = 0
    return mask


def pixels(size: Size) -> torch.Tensor:
    shape = (size.batch, 3, size.image, size.image)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


FAMILIES = {
    "clip": Family(
        "CLIPModel",
        lambda size: transformers.CLIPConfig(
            vision_config={**size.encoder, "image_size": size.image, "patch_size": size.patch},
            text_config={
                **size.encoder,
                "vocab_size": size.vocab,
                "max_position_embeddings": size.tokens,
                "bos_token_id": 0,
                "eos_token_id": size.vocab - 1,
            },
            projection_dim=size.width,
        ),
        lambda size: {"input_ids": tokens(size), "attention_mask": padding(size), "pixel_values": pixels(size)},
        "logits_per_image",
    ),
    "vit": Family(
        "ViTForImageClassification",
        lambda size: transformers.ViTConfig(**size.encoder, image_size=size.image, patch_size=size.patch),
        lambda size: {"pixel_values": pixels(size)},
        "logits",
    ),
    "bert": Family(
        "BertForMaskedLM",
        lambda size: transformers.BertConfig(
            **size.encoder, vocab_size=size.vocab, max_position_embeddings=size.tokens
        ),
        lambda size: {"input_ids": tokens(size), "attention_mask": padding(size)},
        "logits",
    ),
    "t5": Family(
        "T5ForConditionalGeneration",
        lambda size: transformers.T5Config(
            d_model=size.width,
            d_ff=4 * size.width,
            d_kv=64,
            num_heads=size.heads,
            num_layers=size.layers,
            num_decoder_layers=size.layers,
            vocab_size=size.vocab,
        ),
        lambda size: {
            "input_ids": tokens(size),
            "attention_mask": padding(size),
            "decoder_input_ids": tokens(size).flip(1)[:, : size.tokens // 2],
        },
        "logits",
    ),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where the checkpoints are written; else a temporary folder")
    arguments.add_argument("--small", action="store_true", help="two narrow layers, to see that it runs")
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--only", default=",".join(FAMILIES), help="families, with commas")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    transformers.utils.logging.disable_progress_bar()
    found: dict[str, dict[str, Any]] = {}
    for kind, size in (SMALL if given.small else SIZES).items():
        for name in given.only.split(","):
            with tempfile.TemporaryDirectory(dir=given.folder, prefix="isomorph-benchmark-") as folder:
                found.setdefault(kind, {})[name] = measure(name, size, given.rounds, Path(folder))
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print("| | transformers | separate | fused |\n|---|---|---|---|")
    for kind, families in found.items():
        for name, one in families.items():
            base = one["milliseconds"]["transformers"]
            ratios = " | ".join(f"{one['milliseconds'][way] / base:.2f} ×" for way in WAYS[1:])
            print(f"| {FAMILIES[name].model}, {kind} | {base:.1f} ms | {ratios} |")


@torch.no_grad()
def measure(name: str, size: Size, rounds: int, folder: Path) -> dict[str, Any]:
    """Median milliseconds of each way, and the largest difference of the outputs by the largest output."""
    family = FAMILIES[name]
    models, inputs = three(name, family.config(size), folder), family.inputs(size)
    outputs = {way: getattr(model(**inputs), family.output) for way, model in models.items()}
    expected = outputs["transformers"]
    gaps = {way: float((outputs[way] - expected).abs().max() / expected.abs().max()) for way in WAYS[1:]}
    if max(gaps.values()) > LIMIT:
        raise SystemExit(f"{family.model}: the outputs are not equal, so there is nothing to time: {gaps}")
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in WAYS[number % 3 :] + WAYS[: number % 3]:
            began = time.perf_counter()
            models[way](**inputs)
            seconds[way].append(time.perf_counter() - began)
    return {"milliseconds": {way: 1e3 * statistics.median(runs) for way, runs in seconds.items()}, "gaps": gaps}


def three(name: str, config: Any, folder: Path) -> dict[str, torch.nn.Module]:
    """transformers' model with random weights, and ours filled from its file."""
    torch.manual_seed(0)
    theirs = getattr(transformers, FAMILIES[name].model)(config).eval()
    theirs.save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with safe_open(str(folder / "model.safetensors"), "np") as file:
        names = list(file.keys())
    models = {"transformers": theirs}
    for way, layout in (("separate", "hf"), ("fused", "fused_qkv")):
        with torch.device("meta"):
            ours = importlib.import_module(f"isomorph.models.{name}").build(told, names, fused=way == "fused")
        iso.torch.load_model(ours, folder, to=f"{name}/{layout}")
        models[way] = ours.eval()
    return models


if __name__ == "__main__":
    main()
