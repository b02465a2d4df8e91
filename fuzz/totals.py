"""Add up what a campaign did: `python -m fuzz.totals FOLDER …` reads the logs and the findings that lie in each."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

EXECUTED = re.compile(rb"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
NEW_UNITS = re.compile(rb"^stat::new_units_added:\s*(\d+)", re.MULTILINE)


def executions(folder: Path) -> Counter[str]:
    """How many inputs each harness ran, by the last line of every finished process in its log."""
    found: Counter[str] = Counter()
    for log in sorted(folder.glob("*.log")):
        found[log.stem] += sum(map(int, EXECUTED.findall(log.read_bytes())))
    return found


def findings(folder: Path) -> list[Path]:
    """The inputs that were written down because something was wrong, and those on which libFuzzer gave up."""
    inside = folder / "findings"
    return sorted(
        [*inside.glob("*/*.input"), *inside.glob("*/crash-*"), *inside.glob("*/timeout-*"), *inside.glob("*/oom-*")]
    )


def table(*folders: Path) -> str:
    """Executions and findings by harness, and in all."""
    runs: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for folder in folders:
        runs += executions(folder)
        wrong += Counter(path.parent.name for path in findings(folder))
    lines = [_line(name, runs[name], wrong[name]) for name in sorted(runs.keys() | wrong.keys())]
    return "\n".join([*lines, _line("in all", runs.total(), wrong.total())])


def _line(name: str, runs: int, wrong: int) -> str:
    return f"{name:14} {runs:12,} executions {wrong:6,} findings"


def main(arguments: Iterable[str]) -> int:
    folders = [Path(one) for one in arguments] or [Path("fuzz-out")]
    print(table(*folders))
    for folder in folders:
        for path in findings(folder):
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
