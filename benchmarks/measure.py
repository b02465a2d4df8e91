"""Run a command in a process of its own: seconds and peak resident memory. Runs are interleaved, and medians are told."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MARGIN_S = 0.15
"""What a command may take besides importing: the budget S is the time of the imports below, and this."""
IMPORTS = [sys.executable, "-c", "import numpy, rich.table, click"]
ISOMORPH = [sys.executable, "-m", "isomorph"]


@dataclass
class Runs:
    """The runs of one job."""

    seconds: list[float] = field(default_factory=list)
    megabytes: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        """What the machine can do when nothing else runs on it."""
        return min(self.seconds)

    @property
    def peak(self) -> float:
        return max(self.megabytes)


@dataclass(frozen=True)
class Job:
    """A command to measure. `before` (it removes what the command will write) and `after` run unmeasured."""

    name: str
    command: Sequence[str]
    before: Callable[[], None] = lambda: None
    after: Callable[[], None] = lambda: None


LAUNCHER = """
import os, sys, time
began = time.perf_counter()
silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(process, 0)
print(time.perf_counter() - began, usage.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""A small process that starts the measured one: a child's peak begins with that of the process it is forked from."""


def run(command: Sequence[str]) -> tuple[float, float]:
    """(seconds, peak resident MB) of one run; raises when it fails. Bytecode is cached, as after an installation."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, *map(str, command)]
    done = subprocess.run(launcher, env=environment, capture_output=True, text=True, check=True)
    seconds, kibibytes, code = done.stdout.split()
    if code != "0":
        raise SystemExit(f"{' '.join(map(str, command))} failed with {code}:\n{done.stderr}")
    return float(seconds), int(kibibytes) * 1024 / 1e6


def interleaved(jobs: Sequence[Job], rounds: int) -> dict[str, Runs]:
    """Every job once, then every job again: what disturbs the machine disturbs all of them."""
    found = {job.name: Runs() for job in jobs}
    for job in jobs if rounds > 1 else ():  # once unmeasured: bytecode is written, files lie in the cache
        job.before()
        run(job.command)
        job.after()
    for number in range(rounds):
        for job in jobs:
            os.sync()  # else what a job left unsynced is waited for by the next one that syncs
            job.before()
            seconds, megabytes = run(job.command)
            job.after()
            found[job.name].seconds.append(seconds)
            found[job.name].megabytes.append(megabytes)
            print(f"  round {number + 1}/{rounds}  {job.name:44} {seconds:7.2f} s {megabytes:7.0f} MB", file=sys.stderr)
    return found


def copy(source: Path, target: Path) -> list[str]:
    """`cp`, then `sync -d` on the copy: what ours are measured against, which are synced too."""
    return ["sh", "-c", 'cp --reflink=never "$1" "$2" && sync -d "$2"', "sh", str(source), str(target)]


def remover(*paths: Path) -> Callable[[], None]:
    """Removes these files when called."""

    def remove() -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    return remove


def warm(*paths: Path) -> None:
    """Read the files once, so that they lie in the cache."""
    for path in paths:
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass


def settle(folder: Path, nbytes: int) -> None:
    """Write and remove a file of that size: the memory that the last job gave back is had again before the next one is measured.

    A virtual machine can be slow to have back the pages that a process of some gigabytes leaves, and what writes next, be it `cp`,
    pays for it.
    """
    chunk, path = bytes(1 << 18), folder / "settle"
    with path.open("wb") as file:
        for _ in range(-(-nbytes // len(chunk))):
            file.write(chunk)
    path.unlink()


def evict(*paths: Path) -> None:
    """Drop the files from the page cache: what is read next comes from the disk."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
