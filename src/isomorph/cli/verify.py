"""`isomorph verify SRC… DST`."""

from __future__ import annotations

from typing import Any

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.failures import AnswerIsNo
from isomorph.cli.options import mapping_options, memory_option, output_options


@click.command("verify")
@click.argument("paths", nargs=-1, required=True, metavar="SRC… DST")
@mapping_options
@memory_option
@output_options
def command(paths: tuple[str, ...], max_memory: int, as_json: bool, quiet: bool, **mapping: Any) -> None:
    """Compare DST with SRC under the MAPPING of `convert`: every element, bit for bit, by code that plan and convert do not use.

    Exit 0 when every element of DST is what the morph says, 1 when not.

    \b
    Example:  isomorph verify pytorch_model.bin tower.safetensors -m tower.morph
    """
    from isomorph.cli.options import port_of
    from isomorph.job.progress import terminal_stages
    from isomorph.job.session import verify_places

    report = verify_places(port_of(mapping), paths, max_memory=max_memory, stage=terminal_stages(quiet))
    if as_json:
        print_json(report.to_json())
    elif not quiet:
        print_lines([str(report)])
        if report.finds_nothing:
            print_lines(f"note      {note}" for note in report.notes)
    if not report.equal:
        raise AnswerIsNo
