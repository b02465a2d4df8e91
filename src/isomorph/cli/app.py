"""`isomorph COMMAND`: a table of commands whose modules are imported only when they run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

COMMANDS = {
    "inspect": "The tree of tensors: layers folded, shapes, dtypes, bytes, what is shared.",
    "show": "Look at a tensor or a slice of it: values, min, max, mean, NaN and Inf.",
    "diff": "What differs between two checkpoints; with --values, every element.",
    "check": "A morph alone: read it, pair it, run it both ways; --fmt rewrites it.",
    "layouts": "The catalogue: families, layouts, how exact each is, their key sets.",
    "infer": "Write the morph from an example, or from names and shapes; ask what is open.",
    "plan": "Prove a conversion and print it; reads headers only.",
    "convert": "Carry a conversion out, and verify it before the target gets its name.",
    "verify": "Compare a target with its source, bit for bit, by an independent path.",
    "trace": "Run two models on the same inputs: where they first diverge, and why.",
    "demo": "The whole story on a CLIP checkpoint made on the spot.",
}
"""Every command with its line of help; `isomorph.cli.NAME:command` carries it out."""

EPILOG = """\b
Exit codes:  0  done and true
             1  the check ran, and the answer is no: plan (not total),
                check (not right), verify and diff (not equal),
                trace (diverged), infer (not all placed, or asked)
             2  bad use, bad input, and every refusal of convert

\b
Try:  isomorph demo
      isomorph convert pytorch_model.bin model.safetensors
"""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"isomorph.cli.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from isomorph.errors import near_misses

            near = near_misses(args[0], COMMANDS)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"there is no command `{args[0]}`; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from isomorph import __version__

        click.echo(f"isomorph {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version."
)
def cli() -> None:
    """Port a model's weights from one implementation to another, and prove the port right."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; print what it says; give the exit code. Every failure is one block of text, never a traceback."""
    from isomorph.cli.failures import handled

    return handled(lambda: cli.main(args=list(arguments), prog_name="isomorph", standalone_mode=False), arguments)


def main() -> Any:
    """The entry point of the console script."""
    from isomorph.cli.streams import open_streams

    open_streams()
    sys.exit(run(sys.argv[1:]))
