"""What a user does today, with torch: load the whole checkpoint, cut and fuse the tower by hand, save. Not synced, not verified.

    python benchmarks/notebook_way.py --folder DIR [--small] [--rounds 5]

Three ways, each in a process of its own, next to `cp`: the notebook (torch.load → torch.save), the same to safetensors
(torch.load → safetensors.torch.save_file), and torch.load(mmap=True). Needs torch and safetensors.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from measure import Job, interleaved, remover, warm

from isomorph.demo.checkpoint import LARGE, SMALL, write_checkpoint

NOTEBOOK = """\
import sys
import torch
source, target, mapped = sys.argv[1:]
state = torch.load(source, weights_only=True, map_location="cpu", mmap=mapped == "mapped")
made = {}
for name, tensor in state.items():
    if not name.startswith("vision_model.") or "post_layernorm" in name:
        continue
    name = name.removeprefix("vision_model.").replace("encoder.layers", "transformer.layers")
    if "q_proj" in name:
        old = "vision_model." + name.replace("transformer.layers", "encoder.layers")
        parts = [state[old.replace("q_proj", part + "_proj")] for part in "qkv"]
        made[name.replace("q_proj", "qkv_proj")] = torch.cat(parts)
    elif "k_proj" not in name and "v_proj" not in name:
        made[name] = tensor
if target.endswith(".safetensors"):
    from safetensors.torch import save_file
    save_file({name: tensor.contiguous() for name, tensor in made.items()}, target, metadata={"format": "pt"})
else:
    torch.save(made, target)
"""
INSPECT = "import sys, torch; print(*sorted(torch.load(sys.argv[1], weights_only=True, map_location='cpu')), sep='\\n')"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where the files are written; else a temporary folder")
    arguments.add_argument("--small", action="store_true", help="a checkpoint of a few MB")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="isomorph-benchmark-") as name:
        folder = Path(name)
        source = folder / "pytorch_model.bin"
        write_checkpoint(SMALL if given.small else LARGE, source)
        warm(source)
        safe, target = folder / "usual.safetensors", folder / "copy"
        jobs = [
            *usual_ways(folder, source),
            Job("cp of the tower, not synced", ["cp", str(safe), str(target)], remover(target)),
        ]
        found = interleaved(jobs, given.rounds)
        print(f"{source.stat().st_size / 1e9:.2f} GB, median of {given.rounds}, not synced\n")
        print("| the usual way | seconds | times cp | peak MB |\n|---|---|---|---|")
        copied = found["cp of the tower, not synced"].median
        for name, runs in found.items():
            print(f"| {name} | {runs.median:.2f} | {runs.median / copied:.1f} | {runs.peak:.0f} |")


def usual_ways(folder: Path, source: Path) -> list[Job]:
    """What is done today, job by job; the targets are written into `folder`."""
    script = folder / "notebook.py"
    script.write_text(NOTEBOOK, encoding="utf-8")
    way = [sys.executable, str(script), str(source)]
    pth, safe = folder / "usual.pth", folder / "usual.safetensors"
    return [
        Job("list the keys (torch.load)", [sys.executable, "-c", INSPECT, str(source)]),
        Job("torch.load, torch.save", [*way, str(pth), "read"], remover(pth)),
        Job("torch.load, safetensors save_file", [*way, str(safe), "read"], remover(safe)),
        Job("torch.load(mmap=True), save_file", [*way, str(safe), "mapped"], remover(safe)),
    ]


if __name__ == "__main__":
    main()
