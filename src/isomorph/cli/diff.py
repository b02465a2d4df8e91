"""`isomorph diff A B`."""

from __future__ import annotations

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.failures import AnswerIsNo
from isomorph.cli.options import output_options


@click.command("diff")
@click.argument("a")
@click.argument("b")
@click.option("--values", is_flag=True, help="Compare every element, bit for bit.")
@output_options
def command(a: str, b: str, values: bool, as_json: bool, quiet: bool) -> None:
    """What differs between checkpoints A and B: names, shapes, dtypes; with --values the elements. Exit 1 when they differ.

    \b
    Example:  isomorph diff old.safetensors new.safetensors --values
    """
    from isomorph.describe.diff import diff
    from isomorph.job.inputs import open_place, place
    from isomorph.job.progress import terminal_bar

    with open_place(place(a)) as left, open_place(place(b)) as right:
        found = diff(left, right, with_values=values, progress=terminal_bar("comparing", quiet))
        left.check_unchanged()
        right.check_unchanged()
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        print_lines(found.lines())
    if not found.is_empty:
        raise AnswerIsNo
