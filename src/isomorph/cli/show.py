"""`isomorph show PATH NAME[slice]`."""

from __future__ import annotations

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.options import output_options


@click.command("show")
@click.argument("path")
@click.argument("names", nargs=-1, required=True, metavar="NAME[slice]…")
@output_options
def command(path: str, names: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Look at tensors of PATH, or at slices of them: values, min, max, mean, NaN and Inf. Large tensors are streamed.

    \b
    Example:  isomorph show model.safetensors logit_scale
              isomorph show model.safetensors 'embed.weight[0:3, :5]'
    """
    from isomorph.describe.show import show
    from isomorph.job.inputs import open_place, place

    with open_place(place(path)) as checkpoint:
        found = [show(checkpoint, name) for name in names]
    if as_json:
        print_json([one.to_json() for one in found] if len(found) > 1 else found[0].to_json())
    elif not quiet:
        print_lines(str(one) for one in found)
