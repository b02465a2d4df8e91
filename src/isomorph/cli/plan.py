"""`isomorph plan SRC…`."""

from __future__ import annotations

from typing import Any

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.options import ByteSize, mapping_options, output_options


@click.command("plan")
@click.argument("paths", nargs=-1, required=True, metavar="SRC…")
@mapping_options
@click.option(
    "--like", metavar="TARGET", help="A checkpoint, or package.module:callable, whose names and shapes must come out."
)
@click.option("-o", "--out", metavar="plan.json", help="Write the plan down; `convert plan.json` carries it out.")
@click.option("--output", "outputs", multiple=True, metavar="DST", help="With -o: where the plan's result goes.")
@click.option("--format", metavar="F", help="With --output: the format of DST; else its suffix says it.")
@click.option(
    "--max-shard-size", type=ByteSize(), metavar="5GB", help="With --output: cut a folder's weights into files."
)
@click.option("--all", "show_all", is_flag=True, help="List every tensor, also those that general rules took.")
@output_options
def command(
    paths: tuple[str, ...],
    like: str | None,
    out: str | None,
    outputs: tuple[str, ...],
    format: str | None,
    max_shard_size: int | None,
    show_all: bool,
    as_json: bool,
    quiet: bool,
    **mapping: Any,
) -> None:
    """Prove that a conversion is total, and print the proof. Reads headers only; exit 1 when it is not total.

    \b
    Example:  isomorph plan pytorch_model.bin -m tower.morph
              isomorph plan pytorch_model.bin -m tower.morph -o plan.json --output tower.safetensors
    """
    from isomorph.cli.options import port_of
    from isomorph.collector import uncollected
    from isomorph.job.plan_file import check_plan_free, write_plan_file
    from isomorph.job.session import plan_places

    if bool(out) != bool(outputs):
        raise click.UsageError(
            "-o plan.json and --output DST go together: a plan that is written down says where its result goes"
        )
    if out is not None:
        check_plan_free(out)

    def prove_and_print() -> None:
        with plan_places(port_of(mapping), paths, outputs, like=like) as planned:
            if out is not None:
                write_plan_file(out, planned, format=format, max_shard_size=max_shard_size)
            if as_json:
                print_json(planned.to_json())
            elif not quiet:
                print_lines(planned.lines(show_all=show_all))
                if out is not None:
                    print_lines([f"written   {out}"])

    with uncollected():
        prove_and_print()  # and the plan is gone, so that the collector's next look does not go through it
