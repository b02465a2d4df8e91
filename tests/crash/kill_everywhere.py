"""Every system call of every conversion of `crash_worlds` is a place to die: `python tests/crash/kill_everywhere.py [--every N] [--real N]`.

Prints how many points were tried and what was found wrong. `--real N`: N runs of the real command, killed at random moments.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from crash_forks import Forks
from crash_worlds import WORLDS, Stage


def main() -> int:
    """Go through all worlds; the exit code is 1 when something was torn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="try every N-th call only")
    parser.add_argument(
        "--real", type=int, default=60, help="real processes killed at random moments, for each conversion"
    )
    parser.add_argument("--only", default="", help="one conversion")
    given = parser.parse_args()
    faults: list[str] = []
    total = 0
    with tempfile.TemporaryDirectory(prefix="crash-") as folder, Forks() as forks:
        for name, world in WORLDS.items():
            if given.only not in name:
                continue
            began = time.perf_counter()
            stage = Stage(world, Path(folder) / name.replace(" ", "-"), forks)
            tried = 0
            for at in range(1, stage.count + 3, given.every):
                for torn in (False, True):
                    for more in {world.again, ()}:
                        what = f"{name}, killed at call {at}{' amid it' if torn else ''}"
                        tried += 1
                        try:
                            stage.run(kill_at=at, torn=torn)
                            stage.finish(what, *more)
                        except AssertionError as error:
                            faults.append(f"{what}, then {more}: {error}")
                            stage.reset()
            tried += real(stage, name, given.real, faults)
            total += tried
            print(
                f"{name:28} {stage.count:4} calls  {tried:5} kills  {stage.kept:4} times gone on from  "
                f"{time.perf_counter() - began:5.0f} s",
                flush=True,
            )
    print(f"{total} kills in all, {len(faults)} faults")
    for fault in faults[:40]:
        print("  ", fault)
    return 1 if faults else 0


def real(stage: Stage, name: str, runs: int, faults: list[str]) -> int:
    """`python -m isomorph convert …`, killed at a random moment of its run."""
    rng = random.Random(name)
    command = [sys.executable, "-m", "isomorph", "convert", *stage.world.arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    began = time.perf_counter()
    subprocess.run(command, cwd=stage.folder, check=True, **quiet)  # type: ignore[call-overload]
    lasted = time.perf_counter() - began
    stage.reset()
    for number in range(runs):
        with subprocess.Popen(command, cwd=stage.folder, **quiet) as process:  # type: ignore[call-overload]
            time.sleep(rng.uniform(0.4, 1.05) * lasted)
            os.kill(process.pid, signal.SIGKILL)
        try:
            stage.finish(f"{name}, real run {number}", *(stage.world.again if number % 2 else ()))
        except AssertionError as error:
            faults.append(str(error))
            stage.reset()
    return runs


if __name__ == "__main__":
    sys.exit(main())
