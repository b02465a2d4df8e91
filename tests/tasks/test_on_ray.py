"""The tasks of a plan on a local Ray cluster: a worker is killed in its work, and the bytes are those of a local run."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Isomorph = Callable[..., tuple[int, str, str]]

KILLED_ONCE = '''
import os, signal

named = os.replace

def replace(source, target, **options):
    """Give a file its name; the first to name the second one is killed before it can."""
    folder, name = os.path.split(os.fspath(target))
    if os.path.basename(folder) == "files" and "-00002-of-" in name:
        try:
            os.close(os.open(os.environ["KILLED"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return named(source, target, **options)

os.replace = replace
'''


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_killed_worker_loses_nothing(isomorph: Isomorph, folder: Path) -> None:
    """Two workers, one of them killed when its file is whole and has no name yet: the task is done again, and all is as ever."""
    plan = ("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", "out/", "--max-shard-size", "3000")
    assert isomorph(*plan)[0] == 0
    assert isomorph("convert", "src", "whole/", "-m", "port.morph", "--max-shard-size", "3000")[0] == 0
    (folder / "hook").mkdir()
    (folder / "hook" / "sitecustomize.py").write_text(KILLED_ONCE)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {
        "PYTHONPATH": str(folder / "hook"),
        "KILLED": str(folder / "killed"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [sys.executable, "-W", "ignore", "-m", "isomorph", "convert", "plan.json", "--executor", "ray"]
    said = subprocess.run(
        [*command, "--workers", "2", "--max-memory", "64MB", "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    files = sum(1 for path in (folder / "out").iterdir() if path.name.startswith("model-"))
    assert found["ray"] == {"written": files, "skipped": 0, "lost": 1, "workers": 2}
    assert (folder / "killed").exists()
    assert contents(folder / "out") == contents(folder / "whole")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_without_ray_the_install_command_is_named(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The extra, as pip takes it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    assert isomorph("plan", "src", "-m", "port.morph", "-o", "plan.json", "--output", "out/")[0] == 0
    code, _, err = isomorph("convert", "plan.json", "--executor", "ray")
    assert code == 2 and 'pip install "isomorph[ray]"' in err and not (folder / "out").exists()
