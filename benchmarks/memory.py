"""Peak memory at 0.4, 1.7 and 6 GB: it does not grow with the checkpoint.

    python benchmarks/memory.py --folder DIR [--small]

Needs 15 GB of disk. Every job is a process of its own; the figure is the kernel's peak resident set (VmHWM).
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from core import BIG, LINEARS, TOWER
from measure import ISOMORPH, run

from isomorph.demo.checkpoint import LARGE, SMALL, Clip, specs, write_checkpoint

JOBS = {
    "inspect": ["inspect", "{source}", "-q"],
    "tower to .safetensors": ["convert", "{source}", "{out}.safetensors", "-m", TOWER, "-q", "--no-verify"],
    "tower to .pth": ["convert", "{source}", "{out}.pth", "-m", TOWER, "-q", "--no-verify"],
    "every Linear transposed to .pdparams": ["convert", "{source}", "{out}.pdparams", "-m", "{linears}", "-q", "--no-verify"],
    "whole CLIP f32 to bf16": ["convert", "{source}", "{out}.half.safetensors", "--dtype", "bf16", "-q", "--no-verify"],
    "convert and verify the tower": ["convert", "{source}", "{out}.v.safetensors", "-m", TOWER, "-q"],
}  # fmt: skip


def sizes(small: bool) -> list[Clip]:
    """CLIP models of about 0.4, 1.7 and 6 GB (with --small: of a few MB)."""
    if small:
        return [SMALL, dataclasses.replace(SMALL, vision_layers=6)]
    return [
        dataclasses.replace(LARGE, text_layers=3, text_width=512, vision_layers=5, vocabulary=49408),
        LARGE,
        BIG,
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where the files are written; else a temporary folder")
    arguments.add_argument("--small", action="store_true", help="checkpoints of a few MB")
    given = arguments.parse_args()
    columns: list[dict[str, float]] = []
    heads: list[str] = []
    for clip in sizes(given.small):
        with tempfile.TemporaryDirectory(dir=given.folder, prefix="isomorph-memory-") as folder:
            source = Path(folder, "pytorch_model.bin")
            write_checkpoint(clip, source)
            linears = Path(folder, "linears.morph")
            linears.write_text(LINEARS, encoding="utf-8")
            nbytes = sum(spec.nbytes for spec in specs(clip).values())
            heads.append(f"{nbytes / 1e9:.2g} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.2g} MB")
            columns.append({})
            for name, words in JOBS.items():
                out = Path(folder, "out")
                command = [word.format(source=source, out=out, linears=linears) for word in words]
                columns[-1][name] = run([*ISOMORPH, *command])[1]
                for made in Path(folder).glob("out.*"):
                    made.unlink()
    print(f"| peak resident MB | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name in JOBS:
        print(f"| {name} | {' | '.join(f'{column[name]:.0f}' for column in columns)} |")


if __name__ == "__main__":
    main()
