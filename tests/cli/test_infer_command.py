"""`isomorph infer`: what it prints, writes, asks; its exit codes; and what it says of what does not go together."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph

from isomorph.cli import infer as command
from isomorph.infer.nouns import Alternative, Question, copy_of

FUSED = "layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]\n"


@pytest.fixture
def example(folder: Path) -> Path:
    """The folder with source.npz, and what its morph makes of it, as another program might have written it."""
    held = dict(np.load(folder / "source.npz"))
    made = {
        f"blocks.{layer}.qkv.w": np.concatenate([held[f"layers.{layer}.{part}.w"] for part in "qkv"])
        for layer in range(2)
    }
    np.savez(folder / "target.npz", **made, tokens=held["emb"])
    return folder


def test_the_morph_is_printed_and_then_what_it_rests_on(isomorph: Isomorph, example: Path) -> None:
    """Exit 0: all placed, nothing asked, every element compared."""
    said = isomorph("infer", "source.npz", "target.npz")
    assert (said.code, said.err) == (0, "")
    morph, _, report = said.out.partition("\n\n")
    assert "layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]" in morph
    assert morph.splitlines()[0] == "# source.npz -> target.npz"
    lines = report.splitlines()
    assert lines[0] == "placed    3 of 3 tensors, 204 of 204 elements: 3 by values"
    assert lines[-1] == "proved    plan total, read-back, 204 of 204 elements bit for bit"


def test_the_morph_in_a_file_is_what_the_other_commands_take(isomorph: Isomorph, example: Path) -> None:
    said = isomorph("infer", "source.npz", "target.npz", "-o", "found.morph")
    assert said.code == 0
    assert said.out.splitlines()[0].startswith("wrote     found.morph · ")
    assert "<->" not in said.out
    assert isomorph("verify", "source.npz", "target.npz", "-m", "found.morph").code == 0
    assert isomorph("check", "found.morph").code == 0
    assert stat.S_IMODE((example / "found.morph").stat().st_mode) == stat.S_IMODE(
        (example / "source.npz").stat().st_mode
    )
    again = isomorph("infer", "source.npz", "target.npz", "-o", "found.morph")
    assert (again.code, again.out) == (2, "")
    assert (
        again.err == "found.morph exists. Give --overwrite (in Python overwrite=True) to replace it, or another name\n"
    )
    assert isomorph("infer", "source.npz", "target.npz", "-o", "found.morph", "--overwrite", "-q").out == ""
    assert sorted(path.name for path in example.iterdir() if path.suffix == ".morph") == ["found.morph", "port.morph"]


def test_all_of_it_as_json(isomorph: Isomorph, example: Path) -> None:
    """The document's form is a promise."""
    said = isomorph("infer", "source.npz", "target.npz", "--json", "-o", "found.morph")
    found = json.loads(said.out)
    assert said.code == 0
    assert list(found) == [
        "schema", "by_values", "proved", "morph", "coverage", "questions", "evidence", "outliers", "approximate", "notes",
        "problems", "report",
    ]  # fmt: skip
    assert found["morph"] == (example / "found.morph").read_text()
    assert found["coverage"] == {
        "targets": 3,
        "elements": 204,
        "sources": 7,
        "placed": {"values": {"tensors": 3, "elements": 204}},
        "asked": {"tensors": 0, "elements": 0},
        "unplaced": [],
        "dropped": [],
        "verified": 204,
    }
    assert {tuple(one["targets"]) for one in found["evidence"]} >= {("tokens",)}
    assert found["report"]["equal"]


def test_by_names_the_open_questions_go_into_the_morph_and_are_answered_from_a_file(
    isomorph: Isomorph, example: Path
) -> None:
    """The round trip: --json, its answers filled in, --answers; exit 1 while something is asked, 0 then."""
    said = isomorph("infer", "source.npz", "target.npz", "--names-only", "--json", "-o", "open.morph")
    found = json.loads(said.out)
    assert said.code == 1
    assert found["questions"]
    assert "\n? " in (example / "open.morph").read_text()
    refused = isomorph("plan", "source.npz", "-m", "open.morph")
    assert refused.code == 1
    assert "open" in refused.err
    for one in found["questions"]:
        right = [each["number"] for each in one["alternatives"] if _is_true(each["rules"])]
        one["answer"] = right[0]
    (example / "answers.json").write_text(json.dumps(found))
    done = isomorph(
        "infer", "source.npz", "target.npz", "--names-only", "--answers", "answers.json", "-o", "done.morph"
    )
    assert (done.code, done.err) == (0, "")
    assert "by answers" in done.out
    assert isomorph("verify", "source.npz", "target.npz", "-m", "done.morph").code == 0
    (example / "wrong.toml").write_text(f'"{found["questions"][0]["key"]}x" = 1\n')
    wrong = isomorph("infer", "source.npz", "target.npz", "--names-only", "--answers", "wrong.toml")
    assert (wrong.code, wrong.out) == (2, "")
    assert "no question has the key" in wrong.err
    assert "did you mean" in wrong.err


def _is_true(rules: str) -> bool:
    """Whether these rules are among those of the port: q, k and v one after the other, the embedding as it is."""
    return rules.startswith(("layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]", "emb <-> tokens"))


def test_what_is_unrelated_exits_1_and_writes_nothing(isomorph: Isomorph, example: Path) -> None:
    np.savez(example / "other.npz", x=np.random.default_rng(1).standard_normal((5, 5)))
    said = isomorph("infer", "source.npz", "other.npz", "-o", "none.morph")
    assert (said.code, said.err) == (1, "")
    assert said.out.splitlines()[-1] == "nothing   of DST is in SRC by values: 0 of 1 tensor placed"
    assert not (example / "none.morph").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["source.npz"], "missing argument 'DST'"),
        (["source.npz", "tarqet.npz"], "tarqet.npz: no such file or folder. Did you mean target.npz?"),
        (["source.npz", "target.npz", "-o", "no/such.morph"], "cannot be written: the folder no does not exist"),
        (["source.npz", "target.npz", "-o", "."], ". is a folder. Name the .morph file"),
        (["source.npz", "target.npz", "--answers", "nope.toml"], "nope.toml: no such file of answers"),
        (["source.npz", "target.npz", "--config", "nope.json"], "nope.json: no such config file"),
        (["source.npz", "target.npz", "--resolve", "guess"], "'guess' is not 'trace'"),
        (["source.npz", "target.npz", "--resolve", "trace"], "--resolve trace runs both models, and this is none"),
        (["source.npz", "target.npz", "--inputs", "x.npz"], "--inputs are for --resolve trace"),
        (
            ["source.npz", "target.npz", "--ask"],
            "--ask asks in a terminal, and stdin is none: answer with  --answers FILE",
        ),
        (["source.npz", "cut.npz"], "cut.npz: truncated"),
        (["source.npz", "empty.npz"], "empty.npz: an empty zip archive: it holds no tensors"),
        (["source.npz", "nope.nope:build"], "nope.nope:build: importing nope.nope failed"),
        (["port.morph", "target.npz"], "port.morph is a morph, not a checkpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_go_together(
    isomorph: Isomorph, example: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    """Exit 2, one block, no file."""
    (example / "cut.npz").write_bytes((example / "source.npz").read_bytes()[:300])
    np.savez(example / "empty.npz")
    before = sorted(path.name for path in example.iterdir())
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    said = isomorph("infer", *arguments)
    assert (said.code, said.out) == (2, "")
    assert text in said.err
    assert before == sorted(path.name for path in example.iterdir())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_answers_in_the_terminal(isomorph: Isomorph, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers, `?` for more, what is no number again, Enter to leave it open. Questions go to stderr."""
    open_ones = json.loads(isomorph("infer", "source.npz", "target.npz", "--names-only", "--json").out)["questions"]
    monkeypatch.setattr(sys, "stdin", Terminal("?\n99\nx\n1\n" + "\n" * 20))
    said = isomorph("infer", "source.npz", "target.npz", "--names-only", "--ask", "--json")
    left = json.loads(said.out)["questions"]
    assert [one["key"] for one in left] == [one["key"] for one in open_ones[1:]]
    assert f"question 1 of {len(open_ones)}" in said.err
    assert "number, Enter = leave open, ? = more: " in said.err
    assert "99 is none of 1 to " in said.err
    assert "<->" in said.err, "? shows the rules of the alternatives"


def test_the_likely_alternative_stands_first_under_its_own_number(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the end of the input leaves the question open."""
    alternatives = tuple(Alternative((copy_of("a", "b", (2,)),), words) for words in ("as it is", "turned"))
    question = Question("b", "orientation", "is b turned?", alternatives, likely=1, why="its siblings are")
    monkeypatch.setattr(sys, "stdin", Terminal("2\n"))
    assert command.asked(question, 1, 1) == 2
    assert command.asked(question, 1, 1) is None
    lines = capsys.readouterr().err.splitlines()
    assert lines[:5] == [
        "question 1 of 1",
        "is b turned?",
        "  2  turned   likely: its siblings are",
        "  1  as it is",
        "  key  b",
    ]


def test_a_freshly_built_model_is_a_target(isomorph: Isomorph, example: Path) -> None:
    """Names and shapes alone; on the meta device where it has one."""
    (example / "fresh_port_model.py").write_text(
        "import torch\n"
        "class Model(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.emb = torch.nn.Parameter(torch.zeros(10, 6))\n"
        "        assert self.emb.is_meta\n"
    )
    np.savez(example / "emb.npz", emb=np.ones((10, 6), "f4"))
    said = isomorph("infer", "emb.npz", "fresh_port_model:Model")
    assert said.code == 0, said.out + said.err
    assert "freshly built" in said.out
    assert said.out.splitlines()[-1] == "proved    plan total, read-back; no values were compared"


def test_no_heavy_library_is_loaded(example: Path) -> None:
    """A fresh interpreter infers between files without torch, paddle, jax or tensorflow."""
    script = (
        "import sys\nfrom isomorph.cli.app import run\ncode = run(sys.argv[1:])\n"
        "assert not {'torch', 'jax', 'paddle', 'tensorflow', 'scipy'} & set(sys.modules)\nsys.exit(code)"
    )
    arguments = [sys.executable, "-c", script, "infer", "source.npz", "target.npz", "-q"]
    done = subprocess.run(arguments, cwd=example, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
