"""The tasks of a plan.json on a Ray cluster: one file a task, so many at once; what a lost worker held is done again; then finish.

Only names and numbers go through Ray: each worker reads sources and writes files itself, in the folder that all machines see.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import IsomorphError, RefusedError, UsageError
from isomorph.job.convert import Writing
from isomorph.job.plan_file import PlanFile, read_plan_file
from isomorph.job.tasks.finish import Finished, finish
from isomorph.job.tasks.run import TaskDone, run_files

if TYPE_CHECKING:
    from isomorph.job.progress import Stage

OBJECT_STORE = 100 << 20
"""Bytes of shared memory of a cluster started here: nothing but reports goes through it."""
MOST_TRIES = 4
"""A file whose worker was lost so often is given up: the file system or the machine is at fault."""


@dataclass(frozen=True)
class RayDone:
    """What the tasks wrote, how many were lost with their workers and done again, and what lies under the final names."""

    finished: Finished
    written: int
    skipped: int
    lost: int
    workers: int
    seconds: float

    def lines(self) -> list[str]:
        from isomorph.describe.text import count

        again = f" · {count(self.lost, 'lost task')} done again" if self.lost else ""
        there = f" · {self.skipped} were done before" if self.skipped else ""
        at_once = f"at most {self.workers} at once"
        return [f"ray       {count(self.written, 'file')} written, {at_once}{there}{again}", *self.finished.lines()]

    def to_json(self) -> dict[str, Any]:
        told = {"written": self.written, "skipped": self.skipped, "lost": self.lost, "workers": self.workers}
        return {"ray": told, **self.finished.to_json(), "seconds": self.seconds}


def run_on_ray(plan: PlanFile, writing: Writing, *, stage: Stage | None = None) -> RayDone:
    """Run every file of the plan as a task of Ray, then finish. The cluster is the one of RAY_ADDRESS, else one started here.

    `writing.workers` is how many tasks run at once (all cores of the cluster where None); each keeps to `writing.max_memory`.
    """
    ray = _ray()
    began = time.perf_counter()
    plan.check_whole()
    started = not ray.is_initialized()
    with redirect_stdout(sys.stderr):  # where Ray says that a worker was lost; a report may be all that stdout is for
        if started:
            _start(ray, writing.workers)
        try:
            cores = int(ray.cluster_resources().get("CPU", 1))
            at_once = writing.workers if writing.workers is not None else max(1, cores)
            done, lost = _run_all(ray, plan, replace(writing, workers=None), at_once, stage)
        finally:
            if started:
                ray.shutdown()
    finished = finish(plan, writing)
    written, skipped = (sum(len(getattr(one, what)) for one in done) for what in ("written", "skipped"))
    return RayDone(finished, written, skipped, lost, at_once, time.perf_counter() - began)


def _ray() -> Any:
    try:
        return import_module("ray")
    except ImportError:
        raise UsageError('--executor ray needs Ray: pip install "isomorph[ray]"') from None


def _start(ray: Any, workers: int | None) -> None:
    """Join the cluster of RAY_ADDRESS, else start one here with as many cores as tasks are to run at once."""
    local: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        local = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # no accelerator is asked for, and none is hidden
    ray.init(logging_level="error", log_to_driver=False, **local)


def _run_all(
    ray: Any, plan: PlanFile, writing: Writing, at_once: int, stage: Stage | None
) -> tuple[list[TaskDone], int]:
    """Keep `at_once` tasks under way until all files are done, the largest first. A lost one goes to the end of the line."""
    report = stage("writing") if stage is not None else None
    sizes = [file["nbytes"] for file in plan.files]
    waiting = sorted(range(len(sizes)), key=lambda number: (-sizes[number], number))
    path = str(Path(plan.path).absolute())
    remote = ray.remote(num_cpus=1, max_retries=0)(run_one)
    under_way: dict[Any, int] = {}
    tries = dict.fromkeys(waiting, 0)
    done: list[TaskDone] = []
    lost = nbytes = 0
    try:
        while waiting or under_way:
            while waiting and len(under_way) < at_once:
                number = waiting.pop(0)
                tries[number] += 1
                under_way[remote.remote(path, plan.digest, number, writing)] = number
            ready, _ = ray.wait(list(under_way), num_returns=1)
            number = under_way.pop(ready[0])
            try:
                result = ray.get(ready[0])
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
                lost += 1
                if tries[number] >= MOST_TRIES:
                    name = plan.files[number]["name"]
                    problem = f"was not written: the workers that tried, {MOST_TRIES} of them, were all lost"
                    raise RefusedError(name, problem, "See the logs of Ray; a smaller --max-memory may help") from None
                waiting.append(number)
                continue
            if isinstance(result, BaseException):
                raise result
            done.append(result)
            nbytes += sizes[number]
            if report is not None:
                report(nbytes, sum(sizes))
    finally:
        for left in under_way:
            ray.cancel(left, force=True)
    return done, lost


def run_one(path: str, digest: str, number: int, writing: Writing) -> TaskDone | Exception:
    """What a worker does: one file. What goes wrong is returned, so that the driver tells it as if it had happened there."""
    try:
        plan = read_plan_file(path)
        if plan.digest != digest:
            raise RefusedError(path, "is another plan than the one that was begun", "Run all tasks with one plan")
        return run_files(plan, [number], writing, task=f"{number}/{len(plan.files)}")
    except (IsomorphError, OSError, MemoryError) as error:
        return error
