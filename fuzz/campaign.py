"""Fuzz everything, again and again, a slice of time each: `python -m fuzz.campaign --seconds 3600 --out FOLDER [HARNESS …]`.

    FOLDER/corpus/HARNESS/     inputs that reach new code; they are where the next slice begins
    FOLDER/findings/HARNESS/   what must not be: an input and its traceback for each place in the code
    FOLDER/HARNESS.log         what libFuzzer says; `python -m fuzz.totals FOLDER` adds it up

Each slice is a process of its own, so that what is mended meanwhile counts at once. Ends with 1 when there are findings.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz.harnesses import MODULES
from fuzz.totals import findings, table

ROOT = Path(__file__).parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz.campaign", description="Fuzz everything, a slice of time each."
    )
    parser.add_argument("harness", nargs="*", help="default: all")
    parser.add_argument("--seconds", type=float, default=600, help="in all (600)")
    parser.add_argument("--slice", type=int, default=30, help="seconds for one harness at a time (30)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (1)")
    parser.add_argument(
        "--out", type=Path, default=Path("fuzz-out"), help="folder of corpus, findings and logs (fuzz-out)"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end - 1:
        names = options.harness or known()
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda name: one_slice(name, options.out, end, options.slice), names))
    print(table(options.out))
    return 1 if findings(options.out) else 0


def known() -> list[str]:
    """The harnesses there are now: a long campaign takes up those that are added."""
    said = subprocess.run([sys.executable, "-m", "fuzz"], cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.split() or list(MODULES)


def one_slice(name: str, out: Path, end: float, seconds: int) -> None:
    """Fuzz one harness for a while."""
    left = int(min(seconds, end - time.monotonic()))
    if left < 1:
        return
    corpus = (out / "corpus" / name).absolute()
    corpus.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz", name, "--keep-going", str((out / "findings" / name).absolute())]
    command += [
        str(corpus),
        f"-max_total_time={left}",
        f"-artifact_prefix={(out / 'findings' / name).absolute()}/",
        "-verbosity=0",
    ]
    with (out / f"{name}.log").open("ab") as log:
        log.write(f"\n=== {time.strftime('%H:%M:%S')} {name}, {left} s\n".encode())
        log.flush()
        subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False, timeout=left + 300)


if __name__ == "__main__":
    sys.exit(main())
