"""An error of a worker is told by the driver as if it had happened there: it comes whole through pickle, and as it is from a task."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isomorph import errors
from isomorph.errors import Gap, IsomorphError, SourceChanged
from isomorph.job.convert import Writing
from isomorph.job.plan_file import read_plan_file
from isomorph.job.tasks.on_ray import run_one
from isomorph.verify.report import Report

Isomorph = Callable[..., tuple[int, str, str]]

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "MorphError": ([Gap("size", "h has no size", hint="Give it")],),
    "CheckError": ([Gap("tie", "two copies differ")],),
    "FormatError": ("a.npz", "is cut off", "Fetch it again"),
    "UnsafeError": ("a.bin", "asks for os.system", None),
    "RefusedError": ("out", "exists", "Use --overwrite"),
    "SourceChanged": ("a.npz", "is shorter now"),
    "MissingExtra": ("s3://", "s3"),
    "UsageError": ("--task x: write it as  i/n",),
    "Different": (Report(),),
    "IsomorphError": ("it went wrong",),
}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, IsomorphError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_goes_whole_from_process_to_process(kind: type[IsomorphError]) -> None:
    """Its type, its text, and its fields."""
    error = kind(*ARGUMENTS[kind.__name__])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args, vars(again)) == (kind, str(error), error.args, vars(error))


def test_what_goes_wrong_in_a_worker_is_returned(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours, and what the system says: never a trace of the worker's own."""
    assert isomorph("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", "out/")[0] == 0
    digest = read_plan_file("plan.json").digest
    shutil.move("src", "moved")
    gone = run_one("plan.json", digest, 0, Writing())
    assert isinstance(gone, SourceChanged) and "is no longer there" in str(gone)
    shutil.move("moved", "src")

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "src/x")

    monkeypatch.setattr("isomorph.job.tasks.on_ray.run_files", failing)
    failed = run_one("plan.json", digest, 0, Writing())
    assert isinstance(failed, OSError) and failed.errno == errno.EIO
