"""`isomorph inspect PATH`."""

from __future__ import annotations

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.options import output_options


@click.command("inspect")
@click.argument("path")
@click.option("--keys", is_flag=True, help="The flat list, sorted: name  [shape]  dtype.")
@click.option(
    "--depth", type=click.IntRange(1), metavar="N", help="Count what lies deeper than N levels, do not show it."
)
@output_options
def command(path: str, keys: bool, depth: int | None, as_json: bool, quiet: bool) -> None:
    """The tree of tensors in PATH (a file, a folder that holds a checkpoint, PATH#inner), and its layout. Reads headers only.

    \b
    Example:  isomorph inspect pytorch_model.bin
              isomorph inspect pytorch_model.bin --keys
    """
    from isomorph.describe.recognised import layout_lines, recognised, to_json
    from isomorph.describe.summary import Summary, key_lines
    from isomorph.job.config import config_of
    from isomorph.job.inputs import open_place, place

    with open_place(place(path)) as checkpoint:
        summary = Summary(path, checkpoint.format, checkpoint.manifest)
        config = config_of(place(path).path, checkpoint.manifest.metadata)
        found = None if keys or quiet else recognised(checkpoint.manifest, config)
        if as_json:
            print_json({**summary.to_json(), "recognised": to_json(found)})
        elif quiet:
            return
        elif keys:
            print_lines(key_lines(checkpoint.manifest))
        else:
            print_lines([*summary.head(), *layout_lines(found), *summary.body(depth)])
