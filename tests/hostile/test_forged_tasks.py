"""A plan.json from a stranger who made its digests anew, carried out in tasks: as it says, or refused; never a fault of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forged_plans import forged
from safetensors.numpy import save_file

from isomorph.cli.app import run

KINDS: tuple[Any, ...] = (None, -1, 99, "x", [], {}, [[]], [None], 1.5, True, 1 << 70)
PLAN = "plan src -m a.morph -m b.morph -o good.json --output out/ --max-shard-size 60"


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The plan of a chain of two morphs from two shards to several, as data; in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    names = [[f"l.{layer}.{part}" for part in "qk"] for layer in range(2)]
    for number, held in enumerate(names, 1):
        tensors = {name: np.arange(6, dtype="f4").reshape(2, 3) for name in held}
        save_file(tensors, tmp_path / "src" / f"model-{number:05d}-of-00002.safetensors")
    weight_map = {
        name: f"model-{number:05d}-of-00002.safetensors" for number, held in enumerate(names, 1) for name in held
    }
    (tmp_path / "src" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "a.morph").write_text("l.{l}.{p=q|k} [o i] <-> m.{l} [(p o) i]\n")
    (tmp_path / "b.morph").write_text("m.{l} [(p o) i] <-> x.{l}.{p=q|k} [i o]\n")
    assert run(PLAN.split()) == 0
    capsys.readouterr()
    plan: dict[str, Any] = json.loads((tmp_path / "good.json").read_text())
    assert len(plan["files"]) == 2 and plan["files"][0]["through"] == [None]
    return plan


def changed(plan: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(where, what stands there now): fields of a line with every kind, the rest with one each."""
    line = plan["files"][1]
    for key in line:
        yield from ((("files", 1, key), kind) for kind in KINDS)
        if isinstance(line[key], list) and line[key]:
            yield from ((("files", 1, key, 0), kind) for kind in KINDS)
    for name in line["tensors"]:
        yield from ((("files", 1, "tensors", name, place), KINDS[place]) for place in range(4))
    for number, key in enumerate(plan["plan"]["files"][0]):
        yield ("plan", "files", 0, key), KINDS[number]


def test_a_forged_plan_is_carried_out_in_tasks_or_refused(
    good: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step ends well or in one message; nothing appears but the target."""
    before = {path.name for path in tmp_path.iterdir()} | {"plan.json", "out"}
    for path, value in changed(good):
        content = json.loads(json.dumps(good))
        at = content
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        (tmp_path / "plan.json").write_text(forged(content, path[0]))
        for step in (["--task", "0/1"], ["--finish"]):
            code = run(["convert", "plan.json", *step])
            err = capsys.readouterr().err
            assert code in (0, 2) and "internal error" not in err and bool(err) == (code == 2), (path, value, err)
            if code:
                break
        for one in tmp_path.iterdir():
            if one.name == "out" or one.name.startswith(".out.isomorph-tasks-"):
                shutil.rmtree(one)
        assert {path.name for path in tmp_path.iterdir()} <= before, (path, value)
