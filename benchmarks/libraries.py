"""The whole checkpoint carried over by the libraries that are used for it today, next to isomorph.

safetensors, transformers and mergekit read and write the same tensors under the same names as isomorph does, from one safetensors
file to another. The libraries do not sync.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from measure import ISOMORPH, Job, remover

from isomorph.demo.checkpoint import Clip

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


def library_ways(folder: Path, clip: Clip, source: Path, mergekit: str | None) -> tuple[list[Job], Path]:
    """The jobs of the libraries that are installed, isomorph's beside them; and the safetensors file that they read."""
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
        print("mergekit is not installed: its row is left out (--mergekit COMMAND names it)", file=sys.stderr)
    else:
        recipe = folder / "passthrough.yml"
        recipe.write_text(PASSTHROUGH.format(folder=hub), encoding="utf-8")
        command = [merge, str(recipe), str(out_folder)]
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
        clean()
        if tried.returncode == 0:
            jobs.append(Job("whole safetensors, mergekit passthrough", command, clean))
        else:
            why = (tried.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"mergekit refuses this model, its row is left out: {why}", file=sys.stderr)
    return jobs, weights


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
