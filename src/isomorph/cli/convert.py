"""`isomorph convert SRC… DST`, `isomorph convert plan.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isomorph.cli.console import print_json, print_lines
from isomorph.cli.options import mapping_options, output_options, task_options, writing_options

if TYPE_CHECKING:
    from isomorph.job.convert import Writing
    from isomorph.job.plan_file import PlanFile
    from isomorph.job.tasks.finish import Finished
    from isomorph.job.tasks.on_ray import RayDone


@click.command("convert")
@click.argument("paths", nargs=-1, required=True, metavar="SRC… DST | plan.json")
@mapping_options
@click.option(
    "--like", metavar="TARGET", help="A checkpoint, or package.module:callable, whose names and shapes must come out."
)
@writing_options
@task_options
@click.option("--dry-run", is_flag=True, help="Prove and print; write nothing.")
@output_options
def command(
    paths: tuple[str, ...],
    like: str | None,
    task: str | None,
    finish: bool,
    executor: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Carry a conversion out. DST gets its name only when it is complete, synced and verified; SRC is never touched.

    Without --morph every tensor keeps its name, shape and dtype.

    \b
    Example:  isomorph convert pytorch_model.bin model.safetensors
              isomorph convert pytorch_model.bin tower.pth -m tower.morph
              isomorph convert plan.json --task 3/8
    """
    from isomorph.cli.options import port_of, writing_of
    from isomorph.job.plan_file import is_plan_file, read_plan_file
    from isomorph.job.progress import terminal_stages
    from isomorph.job.session import convert_places, plan_places

    port, writing = port_of(options), writing_of(options)
    arguments: list[Any] = list(paths)
    recorded = None
    if len(paths) > 1 and is_plan_file(paths[0]):
        raise click.UsageError(f"{paths[0]} is a plan, which says where its result goes:  isomorph convert {paths[0]}")
    if len(paths) == 1:
        if not is_plan_file(paths[0]):
            if paths[0].endswith(".json"):
                problem = "is no plan" if Path(paths[0]).exists() else "no such file"
                raise click.UsageError(f"{paths[0]}: {problem}; made by  isomorph plan SRC… -o plan.json --output DST")
            raise click.UsageError("a source and a target are needed:  isomorph convert SRC… DST  (or a plan.json)")
        if (
            port.morph is not None
            or port.to is not None
            or port.cast is not None
            or port.sizes
            or port.overrides
            or options["config"]
        ):
            raise click.UsageError("a plan.json holds its own mapping; plan again to change it")
        recorded = read_plan_file(paths[0])
        port, arguments = recorded.port, [*recorded.sources, *recorded.targets]
        writing = recorded.writing(writing)
    steps = (("--task", task is not None), ("--finish", finish), ("--executor", executor is not None))
    in_tasks = [option for option, given in steps if given]
    if in_tasks:
        _carry_out_in_tasks(recorded, writing, in_tasks, task, executor, like, dry_run, as_json, quiet)
        return
    if dry_run:
        with plan_places(port, arguments, like=like, with_targets=True, writing=writing) as planned:
            if as_json:
                print_json(planned.to_json())
            elif not quiet:
                print_lines(planned.lines())
                print_lines(["dry run   nothing was written"])
        return
    done = convert_places(port, arguments, writing, like=like, stage=terminal_stages(quiet), expected=recorded)
    if as_json:
        print_json(done.to_json())
    elif not quiet:
        print_lines(done.lines())


def _carry_out_in_tasks(
    recorded: PlanFile | None,
    writing: Writing,
    asked: list[str],
    task: str | None,
    executor: str | None,
    like: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """`--task`, `--finish` and `--executor`, of which one is given."""
    from isomorph.job.progress import terminal_stages
    from isomorph.job.tasks.finish import finish
    from isomorph.job.tasks.run import TaskDone, files_of_task, run_files
    from isomorph.job.tasks.shares import read_task

    if recorded is None:
        raise click.UsageError(
            f"{asked[0]} carries out a plan that was written down:  isomorph plan SRC… -o plan.json --output DST"
        )
    if len(asked) > 1:
        raise click.UsageError(f"{' and '.join(asked)} are different steps: give one of them")
    if like is not None or dry_run or writing.resume:
        which = "--like" if like is not None else "--dry-run" if dry_run else "--resume"
        raise click.UsageError(f"{which} does not go with {asked[0]}: a task proves its share, and skips what is done")
    stages = terminal_stages(quiet)
    done: TaskDone | Finished | RayDone
    if task is not None:
        number, count = read_task(task)
        done = run_files(recorded, files_of_task(recorded, number, count), writing, task=task, stage=stages)
    elif executor is not None:
        from isomorph.job.tasks.on_ray import run_on_ray

        done = run_on_ray(recorded, writing, stage=stages)
    else:
        done = finish(recorded, writing)
    if as_json:
        print_json(done.to_json())
    elif not quiet:
        print_lines(done.lines())
