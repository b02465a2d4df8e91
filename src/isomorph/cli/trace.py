"""`isomorph trace REFERENCE CANDIDATE`."""

from __future__ import annotations

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.failures import AnswerIsNo
from isomorph.cli.options import output_options


@click.command("trace")
@click.argument("reference", metavar="REFERENCE")
@click.argument("candidate", metavar="CANDIDATE")
@click.option(
    "-m", "--morph", "morphs", multiple=True, metavar="M.morph",
    help="From REFERENCE's state dict to CANDIDATE's; several are a chain. Else both layouts are recognised.",
)  # fmt: skip
@click.option("--to", "to", metavar="LAYOUT", help="The layout of CANDIDATE (`isomorph layouts`), in place of a morph.")
@click.option("--from", "from_", metavar="LAYOUT", help="The layout of REFERENCE; else it is recognised.")
@click.option("--inverse", is_flag=True, help="Read the morph (or the whole chain) right to left.")
@click.option("--set", "settings", multiple=True, metavar="AXIS=N", help="The size of an axis, or config.KEY=VALUE.")
@click.option("--config", metavar="FILE", help="The config; else that of the models.")
@click.option("--inputs", metavar="F.npz", help="What both are run on, by the names of their forward; else it is made.")
@click.option("--dtype", metavar="T", help="Run in float64 (where both can), float32, bfloat16 or float16.")
@click.option(
    "--outputs", "outputs", multiple=True, metavar="NAME=NAME",
    help="Which output of REFERENCE is which of CANDIDATE, where names do not say.",
)  # fmt: skip
@click.option(
    "-o", "--out", metavar="FILE", help="Write the report too: .json, .svg (error against depth), .html, .txt."
)
@click.option("--overwrite", is_flag=True, help="With -o: replace a report that exists.")
@output_options
def command(
    reference: str,
    candidate: str,
    morphs: tuple[str, ...],
    to: str | None,
    from_: str | None,
    inverse: bool,
    settings: tuple[str, ...],
    config: str | None,
    inputs: str | None,
    dtype: str | None,
    outputs: tuple[str, ...],
    out: str | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Run two models on the same inputs; say where they first diverge, and why.

    REFERENCE and CANDIDATE are package.module:callable[@PATH]: a class with from_pretrained loads PATH, a callable that needs
    one argument is given PATH, any other is called and its model loads PATH by its own names. This runs that code. Which modules
    should agree follows from the morph.

    Exit 0 when they are the same function on everything that was run, 1 when they diverge.

    \b
    Example:  isomorph trace transformers:ViTModel@vit-base/ mypkg.model:build@vit.safetensors -m port.morph
              isomorph trace transformers:CLIPModel@clip/ mypkg.clip:build@port.pth -o trace.svg
    """
    from isomorph.job.trace import check_report_free, trace_models, write_report

    if out is not None:
        check_report_free(out, overwrite=overwrite)
    report = trace_models(
        reference,
        candidate,
        list(morphs) or None,
        inverse=inverse,
        to=to,
        from_=from_,
        settings=settings,
        config=config,
        inputs=inputs,
        dtype=dtype,
        outputs=_pairs(outputs),
    )
    if out is not None:
        write_report(report, out, overwrite=overwrite)
    if as_json:
        print_json(report.to_json())
    elif not quiet:
        print_lines(str(report).splitlines())
        if out is not None:
            print_lines([f"written   {out}"])
    if report.diverged:
        raise AnswerIsNo


def _pairs(written: tuple[str, ...]) -> dict[str, str] | None:
    """`NAME=NAME` as a mapping, reference -> candidate; `=` alone in a name's place is the only output."""
    found = {}
    for text in written:
        first, equals, second = text.partition("=")
        if not equals:
            raise click.UsageError(f"--outputs {text}: write it as REFERENCE_NAME=CANDIDATE_NAME, for example logits=0")
        found[first] = second
    return found or None
