"""The options that several commands take: --json and -q, MAPPING, WRITING; and how arguments are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from isomorph.job.convert import Writing
    from isomorph.job.port import Port

F = TypeVar("F", bound=Callable[..., Any])


class ByteSize(click.ParamType[int]):
    """`5GB`, `256MB`, `1GiB`, `1048576`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from isomorph.errors import UsageError
        from isomorph.job.byte_sizes import byte_size

        try:
            return byte_size(value)
        except UsageError as error:
            self.fail(str(error), param, ctx)


def _together(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


output_options: Callable[[F], F] = _together(
    click.option(
        "--json", "as_json", is_flag=True, help="A machine-readable result on stdout, and nothing else there."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print no report and no progress; errors only."),
)

mapping_options: Callable[[F], F] = _together(
    click.option("-m", "--morph", "morphs", multiple=True, metavar="M.morph", help="The morph; several are a chain."),
    click.option("--to", "to", metavar="LAYOUT", help="Convert into a layout of the catalogue (`isomorph layouts`)."),
    click.option("--from", "from_", metavar="LAYOUT", help="With --to: the layout of SRC; else it is recognised."),
    click.option("--inverse", is_flag=True, help="Read the morph (or the whole chain) right to left."),
    click.option(
        "--set", "settings", multiple=True, metavar="AXIS=N", help="The size of an axis, or config.KEY=VALUE."
    ),
    click.option("--config", metavar="FILE", help="The config; else config.json or params.json beside SRC."),
    click.option("--dtype", metavar="T", help="Cast floating tensors: bf16, f16, f32, …; rounds to nearest even."),
    click.option("--exact", is_flag=True, help="With --dtype: refuse to round."),
)


def _memory_option(what: str) -> Callable[[F], F]:
    return click.option(
        "--max-memory",
        type=ByteSize(),
        default="256MB",
        show_default=True,
        metavar="256MB",
        help=f"Memory for {what}.",
    )


memory_option: Callable[[F], F] = _memory_option("buffers and names")
buffers_option: Callable[[F], F] = _memory_option("buffers")

writing_options: Callable[[F], F] = _together(
    click.option("--format", metavar="F", help="The format of DST; else its suffix says it."),
    click.option(
        "--max-shard-size", type=ByteSize(), metavar="5GB", help="Cut a folder's weights into files of this size."
    ),
    memory_option,
    click.option("--workers", type=click.IntRange(1, 256), metavar="N", help="Threads that read and write."),
    click.option("--resume", is_flag=True, help="Go on with what an interrupted run has finished."),
    click.option("--overwrite", is_flag=True, help="Replace a target that exists."),
    click.option("--no-verify", is_flag=True, help="Do not verify before the target gets its name."),
)

task_options: Callable[[F], F] = _together(
    click.option("--task", metavar="i/n", help="Of plan.json: write the files of task i of n, counted from 0."),
    click.option("--finish", is_flag=True, help="Of plan.json: check what all tasks wrote, and give DST its name."),
    click.option(
        "--executor", type=click.Choice(["ray"]), help="Of plan.json: run its tasks on a Ray cluster, then finish."
    ),
)


def port_of(options: dict[str, Any]) -> Port:
    """The MAPPING options, read."""
    from isomorph.job.port import make_port

    return make_port(
        options["morphs"],
        inverse=options["inverse"],
        settings=options["settings"],
        config=options["config"],
        dtype=options["dtype"],
        exact=options["exact"],
        to=options["to"],
        from_=options["from_"],
    )


def writing_of(options: dict[str, Any]) -> Writing:
    """The WRITING options, read."""
    from isomorph.job.convert import Writing

    return Writing(
        format=options["format"],
        max_shard_size=options["max_shard_size"],
        max_memory=options["max_memory"],
        workers=options["workers"],
        resume=options["resume"],
        overwrite=options["overwrite"],
        verify=not options["no_verify"],
    )
