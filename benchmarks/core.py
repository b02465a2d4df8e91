"""What isomorph costs, next to copying the same bytes: the table of benchmarks/README.md.

    python benchmarks/core.py --folder DIR [--small | --big] [--rounds 5] [--cold] [--mergekit COMMAND]

Makes a CLIP checkpoint (the 592 tensors of clip-vit-large-patch14, 1.7 GB; with --small a few MB, with --big 6 GB), and runs every
job in a process of its own, interleaved with `cp` and the imports that the budget S is made of. Targets are synced; inputs are
read, not mapped. What is done today with torch, safetensors and transformers, where they are installed, is measured beside it, and
mergekit, on a Llama, where its `mergekit-yaml` is named or found. `--cold`: before each job its inputs are dropped from the page
cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from libraries import library_ways
from measure import IMPORTS, ISOMORPH, MARGIN_S, Job, copy, evict, interleaved, remover, settle, warm
from notebook_way import usual_ways

from isomorph.demo.checkpoint import LARGE, SMALL, Clip, specs, write_checkpoint

BIG = dataclasses.replace(LARGE, vision_layers=54, vision_width=1408, text_width=1024, projection=1024)
"""About 6 GB."""
TOWER = "isomorph:demo/clip_vision_fused.morph"
LINEARS = """\
# Every Linear of CLIP as Paddle keeps it: [in out]. Embeddings, norms, biases and the patch convolution stay as they are.
{m=text|vision}_model.encoder.layers.{l}. <-> {m=text|vision}_model.encoder.layers.{l}.:
  self_attn.{p}_proj.weight [o i] <-> self_attn.{p}_proj.weight [i o]
  mlp.{n}.weight [o i] <-> mlp.{n}.weight [i o]
{m=text|visual}_projection.weight [o i] <-> {m}_projection.weight [i o]
** <-> **
"""
MANY = """\
import sys, time, resource
from isomorph.language.morph import Morph
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest, spec
number = int(sys.argv[1])
shape = spec("bf16[64,64]")
words = ("w1", "w2", "w3", "norm")
names = [f"model.layers.{n // 1000}.mlp.experts.{n // 4 % 250}.{words[n % 4]}.weight" for n in range(number)]
source = Manifest(dict.fromkeys(names, shape))
text = "model.layers.{l}.mlp.experts.{e}.{w=w1|w3}.weight [f d] <-> layers.{l}.gate_up [e (w f) d]\\n** <-> **\\n"
began = time.perf_counter()
plan = make_plan(Morph.parse(text).programs(), source)
print(f"{len(plan.source)} in, {len(plan.targets)} out, {time.perf_counter() - began:.2f} s", file=sys.stderr)
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where the files are written; else a temporary folder")
    size = arguments.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="a checkpoint of a few MB and 2,000 tensors to plan")
    size.add_argument("--big", action="store_true", help="a checkpoint of 6 GB: needs 40 GB of disk")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--cold", action="store_true", help="drop the inputs from the page cache before each job")
    arguments.add_argument("--mergekit", help="the mergekit-yaml command, where it lives in an environment of its own")
    arguments.add_argument("--json", action="store_true")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="isomorph-benchmark-") as folder:
        clip = SMALL if given.small else BIG if given.big else LARGE
        measure(Path(folder), clip, rounds=given.rounds, cold=given.cold, mergekit=given.mergekit, as_json=given.json)


def measure(folder: Path, clip: Clip, *, rounds: int, cold: bool, mergekit: str | None, as_json: bool) -> None:
    """Make the checkpoint, run all jobs, print the table."""
    small = clip == SMALL
    source, tower, other = folder / "pytorch_model.bin", folder / "tower.safetensors", folder / "other.safetensors"
    out = {
        name: folder / name
        for name in ("out.safetensors", "out.pth", "out.pdparams", "half.safetensors", "v.safetensors")
    }
    write_checkpoint(clip, source)
    (folder / "linears.morph").write_text(LINEARS, encoding="utf-8")
    (folder / "many.py").write_text(MANY, encoding="utf-8")
    from isomorph.api import convert

    convert(source, tower, TOWER, verify=False)
    shutil.copyfile(tower, other)
    inputs: tuple[Path, ...] = (source, tower, other)
    os.sync()
    cp_tower, cp_whole = folder / "copy.tower", folder / "copy.whole"
    fast = ["--no-verify", "-q"]
    jobs = [
        Job("imports", IMPORTS),
        Job("copy of the tower", copy(tower, cp_tower), remover(cp_tower)),
        Job("copy of the whole", copy(source, cp_whole), remover(cp_whole)),
        Job("cmp of two towers", ["cmp", str(tower), str(other)]),
        Job("inspect", [*ISOMORPH, "inspect", str(source), "-q"]),
        Job(
            "tower to .safetensors",
            _convert(source, out["out.safetensors"], "-m", TOWER, *fast),
            remover(out["out.safetensors"]),
        ),
        Job("tower to .pth", _convert(source, out["out.pth"], "-m", TOWER, *fast), remover(out["out.pth"])),
        Job(
            "every Linear transposed to .pdparams",
            _convert(source, out["out.pdparams"], "-m", str(folder / "linears.morph"), *fast),
            remover(out["out.pdparams"]),
        ),
        Job(
            "whole CLIP f32 to bf16",
            _convert(source, out["half.safetensors"], "--dtype", "bf16", *fast),
            remover(out["half.safetensors"]),
        ),
        Job("verify the tower", [*ISOMORPH, "verify", str(source), str(tower), "-m", TOWER, "-q"]),
        Job(
            "convert and verify in one",
            _convert(source, out["v.safetensors"], "-m", TOWER, "-q"),
            remover(out["v.safetensors"]),
        ),
        Job("plan many tensors", [sys.executable, str(folder / "many.py"), "2000" if small else "100000"]),
    ]
    if all(find_spec(library) is not None for library in ("torch", "safetensors")):
        jobs += usual_ways(folder, source)  # what a user does today, in the same run; not synced, not verified
    more, read = library_ways(folder, clip, source, mergekit)
    jobs += more
    inputs += (*read,)
    prepare, nbytes = evict if cold else warm, source.stat().st_size
    jobs = [  # what a job wrote goes at once: there is no room on the disk, and in the cache, for all of it
        dataclasses.replace(
            job,
            before=steps(job.before, partial(settle, folder, nbytes), partial(prepare, *named(job, inputs))),
            after=job.before,
        )
        for job in jobs
    ]
    found = interleaved(jobs, rounds)
    start = found["imports"].median + MARGIN_S
    copied, whole, compared = (
        found[name].median for name in ("copy of the tower", "copy of the whole", "cmp of two towers")
    )
    limits = {
        "inspect": (start, 70),
        "tower to .safetensors": (start + 1.05 * copied, 120),
        "tower to .pth": (start + 1.2 * copied, 120),
        "every Linear transposed to .pdparams": (start + 1.5 * whole, 300),
        "whole CLIP f32 to bf16": (start + 1.25 * whole, None),
        "verify the tower": (start + 1.3 * compared, 300),
        "plan many tensors": (6.0, 500),
    }
    if as_json:
        rows = {
            name: {
                "median_s": runs.median,
                "least_s": runs.least,
                "peak_mb": runs.peak,
                "limit_s": limits.get(name, (None, None))[0],
                "runs_s": runs.seconds,
            }
            for name, runs in found.items()
        }
        print(json.dumps({"tensors": len(specs(clip)), "bytes": nbytes, "jobs": rows}, indent=2))
        return
    state = "cold" if cold else "warm"
    print(f"{len(specs(clip))} tensors, {nbytes / 1e9:.2f} GB, {state}, median of {rounds}, S = {start:.2f} s\n")
    print("| job | seconds | least | must reach | peak MB | must reach |\n|---|---|---|---|---|---|")
    for name, runs in found.items():
        seconds, megabytes = limits.get(name, (None, None))
        print(
            f"| {name} | {runs.median:.2f} | {runs.least:.2f} | {'' if seconds is None else f'{seconds:.2f}'} "
            f"| {runs.peak:.0f} | {'' if megabytes is None else megabytes} |"
        )


def named(job: Job, inputs: Sequence[Path]) -> list[Path]:
    """Of the inputs, those that the job's command names, or whose folder it names."""
    return [path for path in inputs if {str(path), str(path.parent)} & {str(word) for word in job.command}]


def steps(*each: Callable[[], None]) -> Callable[[], None]:
    """Calls one after the other."""

    def call() -> None:
        for step in each:
            step()

    return call


def _convert(source: Path, target: Path, *options: str) -> list[str]:
    return [*ISOMORPH, "convert", str(source), str(target), *options]


if __name__ == "__main__":
    main()
