"""`isomorph infer SRC DST`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.failures import AnswerIsNo
from isomorph.cli.options import buffers_option, output_options

if TYPE_CHECKING:
    from isomorph.infer.nouns import Question


@click.command("infer")
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("-o", "--out", metavar="port.morph", help="Write the morph there; else it is printed.")
@click.option(
    "--names-only", is_flag=True, help="Look at names, shapes and the config alone; open questions stay asked."
)
@click.option("--ask", "is_asking", is_flag=True, help="Ask what the evidence leaves open, here in the terminal.")
@click.option(
    "--answers", metavar="FILE", help="Answers: KEY = NUMBER in TOML or JSON, or what --json printed, filled in."
)
@click.option("--resolve", type=click.Choice(["trace"]), help="Run both models, which decides what names cannot.")
@click.option("--inputs", metavar="F.npz", help="With --resolve: what both are run on; else it is made.")
@click.option("--config", metavar="FILE", help="The config of SRC; else config.json or params.json beside it.")
@click.option("--no-catalogue", is_flag=True, help="Do not look up SRC and DST among the known layouts.")
@buffers_option
@click.option("--overwrite", is_flag=True, help="With -o: replace a morph that exists.")
@output_options
def command(
    source: str,
    target: str,
    out: str | None,
    names_only: bool,
    is_asking: bool,
    answers: str | None,
    resolve: str | None,
    inputs: str | None,
    config: str | None,
    no_catalogue: bool,
    max_memory: int,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the morph that leads from SRC to DST.

    Where both hold the same weights (one conversion that somebody made), their values say what is what, and every element is
    compared. With --names-only, or where DST is a model (package.module:callable), names, shapes and the catalogue of layouts do;
    what they cannot decide is asked: a question with its alternatives, written into the morph as open alternatives, `? rule`.

    Exit 0 when all of DST is placed, nothing is asked and the morph is proved, 1 when not.

    \b
    Example:  isomorph infer pytorch_model.bin converted.safetensors -o port.morph
              isomorph infer bert/ mypkg.model:build -o port.morph --ask
    """
    from isomorph.infer.report import text
    from isomorph.job.infer import infer_places
    from isomorph.job.morph_file import check_free, write_morph
    from isomorph.job.progress import terminal_stages

    if out is not None:
        check_free(out, overwrite=overwrite)
    if is_asking and not sys.stdin.isatty():
        raise click.UsageError("--ask asks in a terminal, and stdin is none: answer with  --answers FILE")
    if inputs is not None and resolve is None:
        raise click.UsageError("--inputs are for --resolve trace, which runs both models")
    found = infer_places(
        source,
        target,
        names_only=names_only,
        config=config,
        answers=answers,
        ask=asked if is_asking else None,
        resolve="trace" if resolve else None,
        inputs=inputs,
        use_catalogue=not no_catalogue,
        max_memory=max_memory,
        stage=terminal_stages(quiet),
    )
    written = out if out is not None and found.text else None
    if written is not None:
        write_morph(found.text, written, overwrite=overwrite)
    if as_json:
        print_json(found.to_json())
    elif not quiet:
        print_lines(text(found, written=written).split("\n"))
    if not found.is_proved:
        raise AnswerIsNo


def asked(question: Question, number: int, many: int) -> int | None:
    """Put one question on the terminal; the number of the alternative that was chosen, or None: it stays open."""
    from isomorph.cli.failures import say
    from isomorph.infer.report import alternative_lines, question_lines

    say("\n".join([f"question {number} of {many}", *question_lines(question)]))
    while True:
        click.echo("  number, Enter = leave open, ? = more: ", nl=False, err=True)
        line = sys.stdin.readline()
        answer = line.strip()
        if not answer:
            return None
        if answer == "?":
            say("\n".join(alternative_lines(question)))
        elif answer.isascii() and answer.isdigit() and 1 <= int(answer[:9]) <= len(question.alternatives):
            return int(answer)
        else:
            say(f"  {answer} is none of 1 to {len(question.alternatives)}")
