"""`isomorph demo`: inspect, plan, convert, verify, each as the command a person would type."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.options import output_options

MORPH = "isomorph:demo/clip_vision_fused.morph"


@click.command("demo")
@click.option("--full", is_flag=True, help="At full size: the 592 tensors of clip-vit-large-patch14, 1.7 GB.")
@click.option("--keep", metavar="DIR", help="Work in DIR (which must not exist) and leave everything there.")
@output_options
def command(full: bool, keep: str | None, as_json: bool, quiet: bool) -> None:
    """The whole story on a CLIP checkpoint made on the spot: inspect, plan, convert, verify. Needs no other library.

    A pytorch_model.bin is written with the names of transformers' CLIPModel; its vision tower is ported to a layout
    with fused q/k/v, and every element of the result is compared with the source. The temporary folder is removed.

    \b
    Example:  isomorph demo
              isomorph demo --full --keep clip-demo
    """
    from isomorph.errors import RefusedError

    if keep is not None and Path(keep).exists():
        raise RefusedError(keep, "exists; not touched", "Name a folder that does not exist")
    if keep is not None:
        folder = Path(keep)
        folder.mkdir()
    else:
        folder = Path(tempfile.mkdtemp(prefix="isomorph-demo-"))
    try:
        tell(folder, full=full, kept=keep is not None, as_json=as_json, quiet=quiet)
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def tell(folder: Path, *, full: bool, kept: bool, as_json: bool, quiet: bool) -> None:
    """The story, in this folder."""
    from isomorph.demo.checkpoint import LARGE, SMALL, write_checkpoint
    from isomorph.describe.recognised import layout_lines, recognised
    from isomorph.describe.summary import Summary
    from isomorph.describe.text import bytes_text
    from isomorph.job.convert import Writing
    from isomorph.job.inputs import open_place, place
    from isomorph.job.port import make_port, morph_path
    from isomorph.job.progress import terminal_bar, terminal_stages
    from isomorph.job.session import convert_places, plan_places, verify_places

    began = time.perf_counter()
    say = (lambda lines: None) if as_json or quiet else print_lines
    source, target = folder / "pytorch_model.bin", folder / "tower.safetensors"
    space = shutil.disk_usage(folder).free
    needed = 3_200_000_000 if full else 20_000_000
    if space < needed:
        raise click.ClickException(
            f"{folder}: {bytes_text(needed)} are needed there and {bytes_text(space)} are free; use --keep DIR"
        )
    say([f"# everything happens in {folder}" + ("" if kept else ", which is removed at the end")])
    write_checkpoint(LARGE if full else SMALL, source, terminal_bar("making", quiet))
    say(["", f"$ isomorph inspect {source.name} --depth 2"])
    with open_place(place(source)) as checkpoint:
        summary = Summary(source.name, checkpoint.format, checkpoint.manifest)
        say([*summary.head(), *layout_lines(recognised(checkpoint.manifest)), *summary.body(2)])
    morph = folder / "tower.morph"
    shutil.copyfile(morph_path(MORPH), morph)
    say(["", f"$ cat {morph.name}"])
    say(morph.read_text(encoding="utf-8").splitlines())
    port = make_port([morph])
    say(["", f"$ isomorph plan {source.name} -m {morph.name}"])
    with plan_places(port, [str(source)]) as planned:
        say(planned.lines())
    say(["", f"$ isomorph convert {source.name} {target.name} -m {morph.name}"])
    done = convert_places(port, [str(source), str(target)], Writing(), stage=terminal_stages(quiet))
    say(line.replace(str(target), target.name) for line in done.lines())
    say(["", f"$ isomorph verify {source.name} {target.name} -m {morph.name}"])
    report = verify_places(port, [str(source), str(target)], stage=terminal_stages(quiet))
    say(str(report).splitlines())
    plan, seconds = done.plan, time.perf_counter() - began
    if as_json:
        print_json(
            {
                "source_tensors": len(plan.source),
                "target_tensors": len(plan.targets),
                "dropped": len(plan.dropped),
                "elements_compared": report.elements,
                "equal": report.equal,
                "seconds": seconds,
                "folder": str(folder) if kept else None,
            }
        )
        return
    say(
        [
            "",
            f"proved    {len(plan.source):,} tensors read: {len(plan.source) - len(plan.dropped):,} used, {len(plan.dropped):,}"
            " dropped by name, none forgotten;",
            f"          {len(plan.targets):,} written, each element once;"
            f" {report.elements:,} of {report.expected_elements:,} elements compared with the source,",
            "          bit for bit, by code that neither planned nor wrote them.",
            f"          {seconds:.1f} s, no pickle executed, no torch."
            + (f" Everything is in {folder}" if kept else ""),
        ]
    )
