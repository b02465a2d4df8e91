"""Where the files of one output are put together: a folder that all machines see, or keys of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isomorph.job.tasks.records import Workplace
from isomorph.stores.url import is_remote

if TYPE_CHECKING:
    from isomorph.job.plan_file import PlanFile
    from isomorph.job.tasks.in_store import StoreWorkplace

    AnyWorkplace = Workplace | StoreWorkplace


def open_workplace(plan: PlanFile, output: int, *, overwrite: bool) -> AnyWorkplace:
    """The workplace of an output. RefusedError, UsageError where the target may not be written in tasks."""
    if not is_remote(plan.targets[output].path):
        return Workplace(plan, output, overwrite=overwrite)
    from isomorph.job.tasks.in_store import StoreWorkplace

    return StoreWorkplace(plan, output, overwrite=overwrite)
