"""Morphs from a stranger (threat 46): no code runs, no pattern takes long, no size is believed before there is room for it."""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forged_plans import forged

import isomorph
from isomorph.cli.app import run

WIDE = "".join(f"{{h{number}}}" for number in range(40))
MANY = ".".join(f"{{h{number}}}" for number in range(40))
KEEP = "layers.{l}.w <-> x.{l}\ndrop **\n"

REFUSED = {
    # code
    "call": ('** <-> ** where h=__import__("os").system("touch pwned")', "no function `__import__`"),
    "call in a test": ('assert open("pwned", "w")', "no function `open`"),
    "attribute": ("assert config.__class__.__mro__ == 1\n** <-> **", "config.__class__"),
    "other file": ("use ../../../../../../etc/passwd", "no morph `../../../../../../etc/passwd`"),
    "other text": ("use other", "other.morph"),
    # patterns that backtracking would never finish
    "holes side by side": (f"{WIDE} <-> {WIDE}z", "can be read in two ways by {h0}"),
    "holes between dots": (f"{{p*}}.{MANY}.z <-> {{p*}}.{MANY}.y", "no tensor fits this rule"),
    "labels of labels": ("{p=a|aa|aaa}{q=a|aa|aaa}{r=a|aa|aaa}z <-> {p=a|b|c}.{q=a|b|c}.{r=a|b|c}", "no tensor fits"),
    # sizes
    "huge constant": (f"{KEEP}0:f32 [n] <-> big [n] where n=99999999999999", "needs 400 TB"),
    "huger constant": (
        f"{KEEP}0:f32 [n m] <-> big [n m] where n=999999999999999999, m=999999999999999999",
        "more than a file can have (the largest is `big` ",
    ),
    "huge arange": (f"{KEEP}arange:i64 [n] <-> big [n] where n=99999999999999999", "needs 8e+05 TB"),
    "many instances": (f"{KEEP}0:f32 [k] <-> y.{{k}} [] where k=999999999999", "more than any checkpoint has"),
    "many slices": ("empty [k i] <-> y.{k} [i]\n** <->? **", "more than any checkpoint has"),
    "huge number": (f"{KEEP}0:f32 [n] <-> big [n] where n=" + "9" * 5000, "9"),
    "many axes": (f"layers.{{l}}.w [{' '.join(f'd{k}' for k in range(500))}] <-> drop", "more than 256 axes"),
    "many rules": ("** <-> **\n" * 3000, "problems in all"),
}

LIMITED = """
import contextlib, io, json, resource, sys
from isomorph.cli.app import run
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
found = {}
for morph in sys.argv[1:]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        codes = [run(["convert", "s.safetensors", "out" + suffix, "-m", morph]) for suffix in (".npz", ".pth", "/")]
    found[morph] = [codes, out.getvalue(), err.getvalue()]
print(json.dumps(found))
"""


def test_no_morph_runs_code_takes_long_or_is_believed_a_size(tmp_path: Path) -> None:
    """All in one process with a gigabyte and a minute; each is refused with exit code 2, by a message that says which rule."""
    tensors = {f"layers.{number}.w": [2, 3] for number in range(3)}
    tensors |= {name: [1] for name in ("a" * 3000 + "?", "1" * 3000, ".".join("x" * 1000), "_1" * 500)}
    header: dict[str, object] = {"empty": {"dtype": "F32", "shape": [1 << 40, 0], "data_offsets": [0, 0]}}
    end = 0
    for name, shape in tensors.items():
        begin, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(header).encode()
    (tmp_path / "s.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(end))
    (tmp_path / "other.morph").write_bytes(bytes(range(256)))
    for number, (text, _) in enumerate(REFUSED.values()):
        (tmp_path / f"{number}.morph").write_text(text + "\n")
    before = {path.name for path in tmp_path.iterdir()}
    morphs = [f"{number}.morph" for number in range(len(REFUSED))]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *morphs], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for morph, (case, (_, expected)) in zip(morphs, REFUSED.items(), strict=True):
        codes, out, err = found[morph]
        assert (codes, out) == ([2, 2, 2], ""), (case, err)
        assert expected in err, (case, err)
        assert morph in err or "needs" in err or "more than a file can have" in err, (case, err)
        assert "internal error" not in err and len(err) < 100_000, (case, err)
    assert before == {path.name for path in tmp_path.iterdir()}


def test_a_config_from_a_stranger_is_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a morph asks of it is a number or a text, whatever lies beside the checkpoint; deep or wide files are refused."""
    monkeypatch.chdir(tmp_path)
    np.savez("s.npz", w=np.zeros((4, 3), "f4"))
    (tmp_path / "m.morph").write_text("w [(h d) i] <-> v [h d i] where h=config.heads\n")
    for heads, expected in {
        '"__import__(\\"os\\")"': "config.heads is the text",
        "1e400": "config.heads is",
        "-2": "config.heads",
        "1" + "0" * 400: "config.heads",
        "[" * 100_000: "config.json: not JSON",
        "0": "(h d) is 0, but it is 4",
    }.items():
        (tmp_path / "config.json").write_text(f'{{"heads": {heads}}}')
        assert run(["convert", "s.npz", "out.npz", "-m", "m.morph"]) == 2, heads
        said = capsys.readouterr()
        assert expected in said.err and "internal error" not in said.err, said.err
        assert not (tmp_path / "out.npz").exists()


def changed(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The places of a JSON value, itself left out."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, held in inside for place in ((*path, key), *changed(held, (*path, key)))]


def test_a_plan_from_a_stranger_is_carried_out_as_it_is_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every value of a plan.json in turn replaced by another kind of value: a plan still, or one message; never an internal error."""
    monkeypatch.chdir(tmp_path)
    np.savez("s.npz", **{f"layers.{number}.w": np.ones((2, 3), "f4") for number in range(2)})
    (tmp_path / "m.morph").write_text("layers.{l}.w [o i] <-> x.{l} [i o]\n")
    assert run(["plan", "s.npz", "-m", "m.morph", "-o", "good.json", "--output", "out.npz"]) == 0
    capsys.readouterr()
    good = (tmp_path / "good.json").read_text()
    assert forged(json.loads(good)) == good
    before = {path.name for path in tmp_path.iterdir()} | {"plan.json"}
    for number, path in enumerate(changed(json.loads(good))):
        content = json.loads(good)
        at = content
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = (None, -1, "x", [], {}, 1.5, True, float("inf"), 1 << 70)[number % 9]
        (tmp_path / "plan.json").write_text(forged(content, path[0]))
        code = run(["convert", "plan.json"])
        said = capsys.readouterr()
        made = [entry for entry in tmp_path.iterdir() if entry.name not in before]
        assert "internal error" not in said.err and "Traceback" not in said.err, (path, said.err)
        assert code == (0 if made else 2), (path, code, made)
        for entry in made:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for text in ("[" * 100_000, '{"a":' * 100_000, "[]", "{}", "1e999"):
        digest = hashlib.sha256(text.encode()).hexdigest()
        said_first = json.dumps({"kind": "isomorph plan", "version": 2, "digest": digest})[:-1]
        (tmp_path / "plan.json").write_text(f'{said_first},\n"plan": {text},\n')
        assert run(["convert", "plan.json"]) == 2
        said = capsys.readouterr()
        assert "plan.json is no whole plan" in said.err.replace(":", "") and "internal" not in said.err, said.err


FORBIDDEN = {"eval", "exec", "compile", "__import__"}
LOADERS = {"pickle", "torch", "paddle", "numpy", "np", "marshal", "joblib", "dill", "shelve", "cloudpickle"}


def test_nothing_in_the_package_evaluates_or_unpickles() -> None:
    """Rows 4 and 46: no call of eval, exec or compile, nor of a `load` that runs what it reads, stands anywhere in the package."""
    assert set(dir(builtins)) >= FORBIDDEN
    found = []
    for path in sorted(Path(isomorph.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Name) and called.id in FORBIDDEN:
                found.append(f"{path.name}:{node.lineno} {called.id}")
            elif isinstance(called, ast.Attribute) and called.attr in ("load", "loads", "Unpickler"):
                owner = called.value.id if isinstance(called.value, ast.Name) else ""
                if owner in LOADERS:
                    found.append(f"{path.name}:{node.lineno} {owner}.{called.attr}")
    assert found == []
