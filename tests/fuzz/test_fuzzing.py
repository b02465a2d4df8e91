"""Ten seconds of fuzzing for every harness; and that a fault is found, written down and counted."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzz.harness import Finding, Harness, checked
from fuzz.harnesses import MODULES, load
from fuzz.seeds import CORPUS, kept, seeds_of
from fuzz.totals import executions, findings, table

from fuzz import harness as harness_module
from isomorph.errors import FormatError

ROOT = Path(__file__).parent.parent.parent
SECONDS = 10
LEAST_RUNS = 100
"""A machine that does nothing else runs thousands."""


def fuzz(name: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """`python -m fuzz` with what it writes in `folder`."""
    command = [sys.executable, "-m", "fuzz", name, f"-artifact_prefix={folder}/", *options]
    path = f"{ROOT}:{Path(__file__).parent}"
    return subprocess.run(
        command,
        cwd=ROOT,
        env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", MODULES)
def test_ten_seconds_find_nothing(name: str, tmp_path: Path) -> None:
    """Nothing but errors of isomorph comes out of a reader, whatever the bytes; and each harness does run."""
    done = fuzz(name, tmp_path, "-seed=6", f"-max_total_time={SECONDS}")
    assert done.returncode == 0, done.stderr[-3000:]
    runs = re.search(r"^Done (\d+) runs", done.stderr, re.MULTILINE)
    assert runs is not None and int(runs[1]) >= LEAST_RUNS, done.stderr[-1000:]


@pytest.mark.parametrize("name", MODULES)
def test_what_was_kept_is_read_or_refused(name: str) -> None:
    """Every seed and every distilled input of a campaign, one after the other; some are read, some are refused."""
    harness = load(name)
    results = [checked(harness, data) for data in seeds_of(harness).values()]
    assert any(error is None for error in results)
    assert any(error is not None and str(error) for error in results)


def test_the_corpus_is_small() -> None:
    """All that is kept takes less than a megabyte, and belongs to harnesses that there are."""
    files = list(CORPUS.glob("*"))
    assert {file.stem for file in files} <= set(MODULES)
    assert 0 < sum(file.stat().st_size for file in files) < 1 << 20
    assert all(len(data) <= load(file.stem).max_nbytes for file in files for data in kept(file.stem).values())


def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    """libFuzzer ends with the input that a fault needs; with --keep-going it is written down, once, and counted."""
    done = fuzz("planted:planted", tmp_path, "-max_total_time=60")
    assert done.returncode != 0 and "KeyError" in done.stderr + done.stdout
    (crash,) = tmp_path.glob("crash-*")
    assert crash.read_bytes()[:1] == b"\3"
    again = fuzz("planted:planted", tmp_path, str(crash))
    assert again.returncode != 0 and "KeyError" in again.stderr + again.stdout

    out = tmp_path / "out"
    out.mkdir()
    noted = fuzz("planted:planted", tmp_path, "--keep-going", str(out / "findings" / "planted"), "-runs=20000")
    assert noted.returncode == 0, noted.stderr[-2000:]
    (out / "planted.log").write_text(noted.stderr)
    (file,) = findings(out)
    assert file.suffix == ".input" and "KeyError" in file.with_suffix(".txt").read_text()
    assert executions(out)["planted"] >= 20000
    assert re.search(r"^in all +2\d,\d{3} executions +1 findings$", table(out), re.MULTILINE)


def one(run: object) -> Harness:
    return Harness("one", run, dict)  # type: ignore[arg-type]


def test_a_message_that_a_terminal_obeys_is_a_finding() -> None:
    """So is one that goes on and on; an honest error is handed back."""

    class Loud(FormatError):
        def __str__(self) -> str:
            return self.problem

    def loud(data: bytes) -> None:
        raise Loud("m.bin", data.decode())

    error = checked(one(loud), b"fine")
    assert error is not None and str(error) == "fine"
    with pytest.raises(Finding, match="a terminal would obey"):
        checked(one(loud), b"\x1b[31m")
    with pytest.raises(Finding, match="a message of 60,000 characters"):
        checked(one(loud), b"x" * 60_000)


def test_an_input_that_takes_long_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is the processor's, so that a busy machine is no fault."""
    monkeypatch.setattr(harness_module, "MOST_SECONDS", 0.01)

    def slow(data: bytes) -> None:
        end = time.process_time() + 0.02
        while time.process_time() < end:
            pass

    with pytest.raises(Finding, match=r"4 bytes took 0\.0 s"):
        checked(one(slow), b"long")


def test_other_errors_come_out() -> None:
    """A KeyError of a reader is a fault of it."""
    with pytest.raises(KeyError, match="7"):
        checked(one(lambda data: {}[data[0]]), b"\7")
