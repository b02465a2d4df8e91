"""What the catalogue costs: recognising a layout, and `--to` beside `-m` with a morph of the same result.

    python benchmarks/layouts.py --folder DIR [--small] [--rounds 5]

CLIP ViT-L/14 with weights (1.7 GB; with --small a few MB), and the 46,515 tensors of a mixture of experts (with --small 1,029) of
which only the headers are there. Commands run in processes of their own, interleaved; recognition alone within one process, timed
the first time, and as the median of others. Compare the ratios of one run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ISOMORPH, Job, interleaved, remover, warm

from isomorph.demo.checkpoint import LARGE, SMALL, specs, write_checkpoint
from isomorph.formats.registry import lay_out
from isomorph.tensors import Manifest, TensorSpec, spec

LAYERS, EXPERTS = 48, 320


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where the files are written; else a temporary folder")
    arguments.add_argument("--small", action="store_true", help="a few MB, and 6 layers of 54 experts")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="isomorph-benchmark-") as folder:
        found = measure(Path(folder), small=given.small, rounds=given.rounds)
    if given.json:
        print(json.dumps(found, indent=1))
        return
    print("| | CLIP ViT-L/14 | mixture of experts |\n|---|---|---|")
    for row in found["rows"]:
        print("| " + " | ".join(row) + " |")


def experts(layers: int, number: int) -> dict[str, TensorSpec]:
    """Qwen3-MoE as transformers writes it, every expert for itself, narrow."""
    found = {name: spec("bf16[1000,64]") for name in ("model.embed_tokens.weight", "lm_head.weight")}
    found["model.norm.weight"] = spec("bf16[64]")
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = spec("bf16[64]")
        for name, shape in (("q_norm", "16"), ("k_norm", "16"), ("q_proj", "128,64"), ("k_proj", "32,64"),
                            ("v_proj", "32,64"), ("o_proj", "64,128")):  # fmt: skip
            found[f"{at}self_attn.{name}.weight"] = spec(f"bf16[{shape}]")
        found[f"{at}mlp.gate.weight"] = spec(f"bf16[{number},64]")
        for expert in range(number):
            for name, shape in (("gate_proj", "24,64"), ("up_proj", "24,64"), ("down_proj", "64,24")):
                found[f"{at}mlp.experts.{expert}.{name}.weight"] = spec(f"bf16[{shape}]")
    return found


def write_headers(tensors: dict[str, TensorSpec], path: Path) -> None:
    """A checkpoint whose weights are a hole in the file."""
    (file,) = lay_out(tensors, path, format=None, metadata={}, max_shard_size=None).files
    with path.open("wb") as out:
        for literal in file.literals:
            out.seek(literal.offset)
            out.write(literal.data)
        out.truncate(file.nbytes)


def measure(folder: Path, *, small: bool, rounds: int) -> dict[str, Any]:
    """Make the checkpoints, run all jobs: the rows of the table, and the seconds."""
    clip, moe = folder / "pytorch_model.bin", folder / "moe.safetensors"
    shape = SMALL if small else LARGE
    write_checkpoint(shape, clip)
    tensors = experts(*((6, 54) if small else (LAYERS, EXPERTS)))
    write_headers(tensors, moe)
    (folder / "clip.morph").write_text("use inverse clip/openai\n", encoding="utf-8")
    (folder / "moe.morph").write_text("use inverse qwen3_moe/litgpt\n", encoding="utf-8")
    warm(clip)
    by_to, by_morph = folder / "to.safetensors", folder / "morph.safetensors"
    jobs = [
        Job("clip inspect --keys", [*ISOMORPH, "inspect", str(clip), "--keys"]),
        Job("clip inspect", [*ISOMORPH, "inspect", str(clip)]),
        Job("clip plan -m", [*ISOMORPH, "plan", str(clip), "-m", str(folder / "clip.morph")]),
        Job("clip plan --to", [*ISOMORPH, "plan", str(clip), "--to", "clip/openai"]),
        Job("clip convert -m", [*ISOMORPH, "convert", str(clip), str(by_morph), "-m", str(folder / "clip.morph"), "-q"],
            remover(by_morph)),
        Job("clip convert --to", [*ISOMORPH, "convert", str(clip), str(by_to), "--to", "clip/openai", "-q"],
            remover(by_to)),
        Job("moe inspect --keys", [*ISOMORPH, "inspect", str(moe), "--keys"]),
        Job("moe inspect", [*ISOMORPH, "inspect", str(moe)]),
        Job("moe plan -m", [*ISOMORPH, "plan", str(moe), "-m", str(folder / "moe.morph")]),
        Job("moe plan --to", [*ISOMORPH, "plan", str(moe), "--to", "qwen3_moe/litgpt"]),
    ]  # fmt: skip
    runs = interleaved(jobs, rounds)
    if by_to.read_bytes() != by_morph.read_bytes():
        raise SystemExit("convert --to and convert -m wrote different files")
    seconds = {name: found.median for name, found in runs.items()}
    alone = {"clip": recognition(Manifest(specs(shape))), "moe": recognition(Manifest(tensors))}
    return {"rows": rows(seconds, alone), "seconds": seconds, "alone": alone, "tensors": len(tensors)}


def recognition(manifest: Manifest) -> dict[str, float]:
    """Milliseconds within one process: the index lookup and the whole of recognition, the first time and the median of others."""
    from isomorph.layouts.index import scores
    from isomorph.layouts.recognise import recognise

    def timed(job: Callable[[], object]) -> float:
        began = time.perf_counter()
        job()
        return (time.perf_counter() - began) * 1e3

    looked = [timed(lambda: scores(manifest)) for _ in range(5)]
    whole = [timed(lambda: recognise(manifest)) for _ in range(5)]
    return {
        "index, first": looked[0],
        "index": statistics.median(looked[1:]),
        "recognition, first": whole[0],
        "recognition": statistics.median(whole[1:]),
    }


def rows(seconds: dict[str, float], alone: dict[str, dict[str, float]]) -> list[list[str]]:
    """The table: what, and for each checkpoint seconds or milliseconds and the ratio."""

    def pair(what: str, job: str, beside: str) -> list[str]:
        cells = []
        for model in ("clip", "moe"):
            one, other = seconds.get(f"{model} {job}"), seconds.get(f"{model} {beside}")
            told = one is not None and other is not None
            cells.append(f"{one:.2f} s, {one / other:.2f} × {other:.2f} s" if told else "–")
        return [what, *cells]

    return [
        ["index lookup, in a warm process", *(f"{alone[model]['index']:.0f} ms" for model in ("clip", "moe"))],
        [
            "recognition with sizes, in a warm process",
            *(f"{alone[model]['recognition']:.0f} ms" for model in ("clip", "moe")),
        ],
        ["the same, the first time", *(f"{alone[model]['recognition, first']:.0f} ms" for model in ("clip", "moe"))],
        pair("`inspect`, beside `inspect --keys` (recognises nothing)", "inspect", "inspect --keys"),
        pair("`plan --to`, beside `plan -m`", "plan --to", "plan -m"),
        pair("`convert --to`, beside `convert -m`: the same file", "convert --to", "convert -m"),
    ]


if __name__ == "__main__":
    main()
