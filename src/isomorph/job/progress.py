"""Progress of long work, in bytes, rate and time left: on stderr when it is a terminal, or in a notebook; else nothing."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec

WIDE = 72
"""Characters in which the bar, bytes, rate and time left stand on one line."""

Stage = Callable[[str], "Callable[[int, int], None] | None"]
"""Called with `writing` or `verifying`; gives what is then called with (bytes done, bytes in all), from any thread."""


def terminal_stages(quiet: bool) -> Stage | None:
    """For a command: a bar on stderr, if that is a terminal that can draw one."""
    if quiet or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    return bar


def terminal_bar(label: str, quiet: bool) -> Callable[[int, int], None] | None:
    """For a command of one stage."""
    stages = terminal_stages(quiet)
    return None if stages is None else stages(label)


def notebook_stages() -> Stage | None:
    """For a call in a notebook: a bar under the cell. A script that calls the library is left alone."""
    if "ipykernel" not in sys.modules or find_spec("ipywidgets") is None:
        return None
    return bar


def bar(label: str) -> Callable[[int, int], None]:
    """One bar; it is gone when the work is done, or when the process ends."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        ProgressColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns: list[ProgressColumn] = [TextColumn("{task.description:9}"), BarColumn()]
    if console.width >= WIDE:
        columns += [DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()]
    else:  # one line, whatever its width
        columns.append(TaskProgressColumn())
    drawn = Progress(*columns, console=console, transient=True)
    task = drawn.add_task(label, total=None)
    atexit.register(drawn.stop)

    def show(done: int, total: int) -> None:
        drawn.start()
        drawn.update(task, completed=done, total=total)
        if done >= total:
            drawn.stop()
            atexit.unregister(drawn.stop)

    return show
