"""The whole checkpoint carried over by the libraries that are used for it today, next to isomorph.

safetensors, transformers and mergekit read and write the same tensors under the same names as isomorph does, from one safetensors
file to another. The libraries do not sync. mergekit knows language models only: it gets a Llama as wide and deep as the image
tower, and isomorph carries over the same one beside it.
"""

from __future__ import annotations

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from measure import ISOMORPH, Job, remover

from isomorph.demo.checkpoint import F32, Clip, element
from isomorph.tensors import TensorSpec

SAFETENSORS_TORCH = """\
import sys
from safetensors.torch import load_file, save_file
save_file(load_file(sys.argv[1]), sys.argv[2], metadata={"format": "pt"})
"""
SAFETENSORS_NUMPY = """\
import sys
from safetensors.numpy import load_file, save_file
save_file(load_file(sys.argv[1]), sys.argv[2], metadata={"format": "pt"})
"""
TRANSFORMERS = """\
import sys
from transformers import CLIPModel
CLIPModel.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])
"""
PASSTHROUGH = """\
merge_method: passthrough
models:
  - model: {folder}
dtype: float32
"""


def library_ways(folder: Path, clip: Clip, source: Path, mergekit: str | None) -> tuple[list[Job], list[Path]]:
    """The jobs of the libraries that are installed, isomorph's beside them; and the safetensors files that they read."""
    from isomorph.api import convert

    hub = folder / "hub"
    hub.mkdir()
    weights = hub / "model.safetensors"
    convert(source, weights, verify=False)
    (hub / "config.json").write_text(json.dumps(config(clip), indent=1), encoding="utf-8")
    out, out_folder = folder / "library.safetensors", folder / "library"

    def clean() -> None:
        remover(out)()
        shutil.rmtree(out_folder, ignore_errors=True)

    ours = [*ISOMORPH, "convert", str(weights), str(out), "-q"]
    jobs = [Job("whole safetensors, isomorph", [*ours, "--no-verify"], clean)]
    jobs.append(Job("whole safetensors, isomorph, verified", ours, clean))
    command = [str(weights), str(out)]
    if find_spec("safetensors") is not None:
        jobs.append(
            Job("whole safetensors, safetensors.numpy", [sys.executable, "-c", SAFETENSORS_NUMPY, *command], clean)
        )
        if find_spec("torch") is not None:
            jobs.append(
                Job("whole safetensors, safetensors.torch", [sys.executable, "-c", SAFETENSORS_TORCH, *command], clean)
            )
    if find_spec("transformers") is not None and find_spec("torch") is not None:
        away = [sys.executable, "-c", TRANSFORMERS, str(hub), str(out_folder)]
        jobs.append(Job("whole safetensors, transformers", away, clean))
    merge = mergekit or shutil.which("mergekit-yaml")
    if merge is None:
        print("mergekit is not installed: its rows are left out (--mergekit COMMAND names it)", file=sys.stderr)
        return jobs, [weights]
    more, llama = _merging(folder, clip, merge)
    return jobs + more, [weights, llama]


def _merging(folder: Path, clip: Clip, merge: str) -> tuple[list[Job], Path]:
    """A Llama carried over by mergekit and by isomorph: the jobs, and the safetensors file that they read."""
    hub = folder / "llama"
    hub.mkdir()
    weights, out, out_folder = hub / "model.safetensors", folder / "llama.safetensors", folder / "merged"
    write_llama(clip, weights)
    (hub / "config.json").write_text(json.dumps(llama_config(clip), indent=1), encoding="utf-8")
    recipe = folder / "passthrough.yml"
    recipe.write_text(PASSTHROUGH.format(folder=hub), encoding="utf-8")

    def clean() -> None:
        remover(out)()
        shutil.rmtree(out_folder, ignore_errors=True)

    ours = [*ISOMORPH, "convert", str(weights), str(out), "-q"]
    theirs = [merge, str(recipe), str(out_folder), "--no-copy-tokenizer"]  # there is none
    jobs = [
        Job("Llama safetensors, isomorph", [*ours, "--no-verify"], clean),
        Job("Llama safetensors, isomorph, verified", ours, clean),
        Job("Llama safetensors, mergekit passthrough", theirs, clean),
    ]
    return jobs, weights


def write_llama(clip: Clip, path: Path) -> None:
    """The tensors of a LlamaForCausalLM in f32, as wide and deep as the image tower of `clip`: 1.6 GB of the large one."""
    from isomorph.job.convert import Writing, convert
    from isomorph.job.inputs import place
    from isomorph.job.port import Port
    from isomorph.testing.made import MadeCheckpoint

    width, inner = clip.vision_width, 11 * clip.vision_width // 4
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (clip.vocabulary, width)}
    for layer in range(clip.vision_layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{each}_proj.weight": (width, width) for each in "qkvo"}
        shapes |= {f"{at}.mlp.{each}_proj.weight": (inner, width) for each in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = width, inner
        shapes |= {f"{at}.{each}_layernorm.weight": (width,) for each in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (clip.vocabulary, width)}
    source = MadeCheckpoint({name: TensorSpec(F32, shape) for name, shape in shapes.items()}, element)
    convert(Port(), source, [place(path)], Writing(verify=False))


def llama_config(clip: Clip) -> dict[str, object]:
    """What transformers builds that Llama from."""
    heads = max(1, clip.vision_width // 64)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": clip.vision_width,
        "intermediate_size": 11 * clip.vision_width // 4,
        "num_hidden_layers": clip.vision_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": clip.vocabulary,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }


def config(clip: Clip) -> dict[str, object]:
    """What transformers builds the same model from."""
    text = {
        "hidden_size": clip.text_width,
        "intermediate_size": 4 * clip.text_width,
        "num_hidden_layers": clip.text_layers,
        "num_attention_heads": max(1, clip.text_width // 64),
        "vocab_size": clip.vocabulary,
        "max_position_embeddings": clip.context,
        "projection_dim": clip.projection,
    }
    vision = {
        "hidden_size": clip.vision_width,
        "intermediate_size": 4 * clip.vision_width,
        "num_hidden_layers": clip.vision_layers,
        "num_attention_heads": max(1, clip.vision_width // 64),
        "image_size": clip.image,
        "patch_size": clip.patch,
        "projection_dim": clip.projection,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": clip.projection,
        "text_config": text,
        "vision_config": vision,
    }
