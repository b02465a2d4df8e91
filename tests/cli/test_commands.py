"""Each command does what its help says, says it once, and gives the right exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph

from isomorph.cli.app import COMMANDS
from isomorph.formats.registry import open_checkpoint


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(isomorph: Isomorph, command: str) -> None:
    """`--help` shows how the command is typed, and that it knows --json and -q."""
    said = isomorph(command, "--help")
    assert said.code == 0
    assert f"isomorph {command}" in said.out.split("Example:")[1]
    assert "--json" in said.out
    assert "-q, --quiet" in said.out


def test_inspect_folds_and_counts(isomorph: Isomorph, folder: Path) -> None:
    """The tree, with one line for two equal layers."""
    said = isomorph("inspect", "source.npz")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0] == "source.npz · npz · 7 tensors · 204 parameters · 816 B · f32"
    assert "  layers.{0..1}.               576 B  6 tensors" in lines


def test_inspect_keys_is_the_flat_listing(isomorph: Isomorph, folder: Path) -> None:
    """Sorted naturally: `name  [shape]  dtype`."""
    said = isomorph("inspect", "source.npz", "--keys")
    assert said.out.splitlines()[:2] == ["emb           [10 6]  f32", "layers.0.k.w  [4 6]   f32"]


def test_show_and_its_json(isomorph: Isomorph, folder: Path) -> None:
    """A slice, as text and as data."""
    assert "1 element · min" in isomorph("show", "source.npz", "emb[0, 0]").out
    found = json.loads(isomorph("show", "source.npz", "emb[0:2, 3]", "--json").out)
    assert (found["name"], found["dtype"], found["tensor_shape"], found["shape"]) == ("emb", "f32", [10, 6], [2])


def test_diff_says_no_with_exit_1(isomorph: Isomorph, folder: Path) -> None:
    """Equal is 0, different is 1, and --values finds one changed bit."""
    arrays = dict(np.load("source.npz"))
    arrays["emb"] = arrays["emb"].copy()
    arrays["emb"].view("u4")[3, 1] ^= 1
    np.savez("other.npz", **arrays)
    assert isomorph("diff", "source.npz", "other.npz").code == 0
    said = isomorph("diff", "source.npz", "other.npz", "--values")
    assert said.code == 1
    assert "~ emb [10 6] f32: 1 of 60 elements differ" in said.out
    assert not json.loads(isomorph("diff", "source.npz", "other.npz", "--values", "--json").out)["equal"]


def test_plan_prints_the_proof_and_finds_the_config(isomorph: Isomorph, folder: Path) -> None:
    """The config beside the source is used, and named."""
    said = isomorph("plan", "source.npz", "-m", "port.morph")
    assert (said.code, said.err) == (0, "")
    assert "port.morph   7 in = 7 used · 3 out" in said.out
    assert "q 4 │ k 4 │ v 4" in said.out
    assert said.out.endswith("config    config.json\n")


def test_plan_that_is_not_total_exits_1(isomorph: Isomorph, folder: Path) -> None:
    """All gaps at once, on stderr; nothing on stdout."""
    (folder / "port.morph").write_text("layers.{l}.{p=q|k}.w [o i] <-> blocks.{l}.qk.w [(p o) i]\n")
    said = isomorph("plan", "source.npz", "-m", "port.morph")
    assert (said.code, said.out) == (1, "")
    assert "emb" in said.err
    assert "layers.0.v.w" in said.err


def test_plan_like_speaks_of_missing_keys(isomorph: Isomorph, folder: Path) -> None:
    """--like a checkpoint that has another tensor."""
    np.savez("target.npz", tokens=np.zeros((8, 6), "f4"))
    said = isomorph("plan", "source.npz", "-m", "port.morph", "--like", "target.npz")
    assert said.code == 1
    assert "blocks.0.qkv.w" in said.err


def test_a_model_whose_callable_needs_a_path_is_given_it(isomorph: Isomorph, folder: Path) -> None:
    """package.module:load@PATH: what cannot be called without its one argument is called with PATH."""
    (folder / "reading.py").write_text(
        "import numpy as np\ndef load(path, *, mode='r'):\n    with np.load(path) as found:\n        return dict(found)\n"
        "def two(path, other):\n    return {}\n"
    )
    said = isomorph("plan", "source.npz", "--like", "reading:load@source.npz")
    assert (said.code, said.err) == (0, "")
    said = isomorph("plan", "source.npz", "--like", "reading:two@source.npz")
    assert said.code == 2
    assert "calling it without arguments failed: TypeError" in said.err


def test_plan_like_a_model_of_the_users(isomorph: Isomorph, folder: Path) -> None:
    """package.module:callable is imported from the working folder and called without arguments."""
    (folder / "my_model.py").write_text(
        "import numpy as np\n"
        "def build():\n"
        "    return {'tokens': np.zeros((8, 6), 'f4'), **{f'blocks.{l}.qkv.w': np.zeros((12, 6), 'f4') for l in range(2)}}\n"
    )
    assert isomorph("plan", "source.npz", "-m", "port.morph", "--like", "my_model:build").code == 0
    said = isomorph("plan", "source.npz", "-m", "port.morph", "--like", "my_model:built")
    assert (said.code, said.err) == (2, "my_model:built: my_model has no `built`\n")


def test_convert_verifies_and_says_what_was_done(isomorph: Isomorph, folder: Path) -> None:
    """Two lines: wrote, verified; and the file is what the morph says."""
    said = isomorph("convert", "source.npz", "out.safetensors", "-m", "port.morph")
    assert (said.code, said.err) == (0, "")
    wrote, verified = said.out.splitlines()
    assert wrote.startswith("wrote     out.safetensors · 3 tensors (2 fused from 6, 1 cut")
    assert verified.startswith("verified  192 of 192 elements, bit for bit, by the second path")
    source = np.load("source.npz")
    with open_checkpoint("out.safetensors") as target:
        assert {"tokens", "blocks.0.qkv.w", "blocks.1.qkv.w"} == set(target.manifest)
        fused = target.fetch("blocks.1.qkv.w", 0, (12, 6), (6, 1)).view("f4")
        assert target.manifest.metadata["format"] == "pt"
    np.testing.assert_array_equal(np.concatenate([source[f"layers.1.{part}.w"] for part in "qkv"]), fused)


def test_convert_without_a_morph_keeps_everything(isomorph: Isomorph, folder: Path) -> None:
    """npz → safetensors → npz is the identity, bit for bit."""
    assert isomorph("convert", "source.npz", "a.safetensors").code == 0
    assert isomorph("convert", "a.safetensors", "b.npz").code == 0
    assert isomorph("diff", "source.npz", "b.npz", "--values").code == 0


def test_inverse_goes_back(isomorph: Isomorph, folder: Path) -> None:
    """A morph without drops is read backward to the same bytes; --inverse takes the chain as a whole."""
    (folder / "port.morph").write_text("layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]\nemb <-> tokens\n")
    assert isomorph("convert", "source.npz", "out.npz", "-m", "port.morph").code == 0
    assert isomorph("convert", "out.npz", "back.npz", "-m", "port.morph", "--inverse").code == 0
    assert isomorph("diff", "source.npz", "back.npz", "--values").code == 0


def test_a_chain_of_morphs(isomorph: Isomorph, folder: Path) -> None:
    """-m twice: first the one, then the other."""
    (folder / "second.morph").write_text("blocks.{l}.qkv.w [o i] <-> h.{l}.w [i o]\ntokens <-> tokens\n")
    said = isomorph("convert", "source.npz", "out.npz", "-m", "port.morph", "-m", "second.morph")
    assert (said.code, said.err) == (0, "")
    assert np.load("out.npz")["h.0.w"].shape == (6, 12)


def test_set_wins_and_config_keys_can_be_set(isomorph: Isomorph, folder: Path) -> None:
    """--set v=…, --set config.vocab=…."""
    for setting in ("v=5", "config.vocab=5"):
        said = isomorph("plan", "source.npz", "-m", "port.morph", "--set", setting, "--json")
        assert json.loads(said.out)["targets"]["tokens"]["shape"] == [5, 6]


def test_dtype_rounds_and_says_how_many(isomorph: Isomorph, folder: Path) -> None:
    """--dtype bf16 rounds; with --exact it refuses, naming an element; config.json is not touched."""
    said = isomorph("convert", "source.npz", "half.safetensors", "--dtype", "torch.bfloat16")
    assert said.code == 0
    assert "rounded   204 of 204 elements have another value now, by at most" in said.out
    refused = isomorph("convert", "source.npz", "exact.safetensors", "--dtype", "bf16", "--exact")
    assert (refused.code, Path("exact.safetensors").exists()) == (2, False)
    assert "bf16" in refused.err


def test_verify_says_no_with_exit_1(isomorph: Isomorph, folder: Path) -> None:
    """A swapped target is named, with its cause or its first element."""
    isomorph("convert", "source.npz", "out.npz", "-m", "port.morph")
    assert isomorph("verify", "source.npz", "out.npz", "-m", "port.morph").code == 0
    arrays = dict(np.load("out.npz"))
    arrays["blocks.1.qkv.w"] = np.roll(arrays["blocks.1.qkv.w"], 4, axis=0)
    np.savez("wrong.npz", **arrays)
    said = isomorph("verify", "source.npz", "wrong.npz", "-m", "port.morph")
    assert said.code == 1
    assert "blocks.1.qkv.w" in said.out
    assert not json.loads(isomorph("verify", "source.npz", "wrong.npz", "-m", "port.morph", "--json").out)["equal"]


def test_the_wrong_direction_is_one_answer_of_plan_convert_and_verify(isomorph: Isomorph, folder: Path) -> None:
    """A target given as the source: `Did you mean --inverse?`, and nothing else."""
    (folder / "tower.morph").write_text(
        "layers. <-> blocks.:\n  {l}.{p=q|k|v}.w [o i] <-> {l}.qkv.w [(p o) i]\ndrop **\n"
    )
    assert isomorph("convert", "source.npz", "tower.npz", "-m", "tower.morph").code == 0
    said = isomorph("plan", "tower.npz", "-m", "tower.morph")
    assert said.code == 1
    assert said.err.startswith("tower.morph: no tensor of SRC fits a left side, all 2 fit a right side: SRC is already")
    assert "problems in all" not in said.err
    assert "Did you mean --inverse?" in isomorph("convert", "tower.npz", "x.npz", "-m", "tower.morph").err
    said = isomorph("verify", "tower.npz", "source.npz", "-m", "tower.morph")
    assert (said.code, said.out.count("Did you mean --inverse?"), said.out.count("fits this rule")) == (1, 1, 0)
    assert isomorph("plan", "tower.npz", "-m", "tower.morph", "--inverse").code == 0


def test_check_runs_a_morph_both_ways(isomorph: Isomorph, folder: Path) -> None:
    """Prime sizes, both paths, and back."""
    said = isomorph("check", "port.morph", "--set", "config.vocab=11")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("port.morph: 2 rules · ")
    assert "equal by both paths" in said.out


def test_check_holds_the_right_sides_against_a_target(isomorph: Isomorph, folder: Path) -> None:
    """--like: every tensor of the target has a rule that makes it, whatever its names are; a source in its place is recognised."""
    assert isomorph("convert", "source.npz", "target.npz", "-m", "port.morph", "-q").code == 0
    said = isomorph("check", "port.morph", "--config", "config.json", "--set", "pad=2", "--like", "target.npz")
    assert (said.code, said.err) == (0, "")
    assert said.out.rstrip().endswith("makes all 3 tensors of target.npz")
    said = isomorph("check", "port.morph", "--config", "config.json", "--like", "source.npz")
    assert said.code == 1
    assert "source.npz fits the left sides, not the right" in said.out


def test_check_goes_on_after_a_file_that_is_not_there(isomorph: Isomorph, folder: Path) -> None:
    """The morphs that are there are told; the exit code says that something could not be read."""
    said = isomorph("check", "port.morph", "nothing.morph", "--config", "config.json")
    assert said.code == 2
    assert "port.morph: 2 rules" in said.out
    assert "nothing.morph: no such morph file" in said.err


def test_a_cast_that_the_command_line_asks_is_refused_in_its_words(isomorph: Isomorph, folder: Path) -> None:
    """--dtype and --exact are no lines of a morph: the message says what to change on the command line."""
    np.savez("large.npz", w=np.array([1e6, 0.1], "f4"))
    said = isomorph("convert", "large.npz", "large.safetensors", "--dtype", "f16")
    assert said.code == 2
    assert said.err.startswith("w[0]: 1000000.0 overflows f16")
    assert "--dtype refuses an overflow" in said.err
    said = isomorph("convert", "source.npz", "exact.safetensors", "--dtype", "bf16", "--exact")
    assert said.code == 2
    assert "--exact refuses to round. Leave it out" in said.err
    assert not Path("large.safetensors").exists() and not Path("exact.safetensors").exists()


def test_a_plan_as_json_says_what_each_target_is_made_of(isomorph: Isomorph, folder: Path) -> None:
    """Source tensors, class and line of the morph for every target; what was dropped, and from which file the config came."""
    found = json.loads(isomorph("plan", "source.npz", "-m", "port.morph", "--json").out)
    assert found["targets"]["blocks.1.qkv.w"] == {
        "dtype": "f32",
        "shape": [12, 6],
        "class": "exact",
        "from": ["layers.1.q.w", "layers.1.k.w", "layers.1.v.w"],
        "file": "port.morph",
        "line": 1,
    }
    assert (found["total"], found["format"], found["config"]) == (True, "npz", "config.json")
    assert found["sources"] == [{"name": "", "path": "source.npz", "inner": None}]


def test_the_bare_command_shows_its_help(isomorph: Isomorph) -> None:
    """The help as it is, not as a message about arguments."""
    said = isomorph()
    assert said.code == 2
    assert said.err.startswith("Usage: isomorph")
    assert "\\x08" not in said.err


def test_check_fmt_rewrites_canonically_and_keeps_comments(isomorph: Isomorph, folder: Path) -> None:
    """Once rewritten, a file stays as it is."""
    (folder / "ugly.morph").write_text("# why\na.{l}.w   [o i]   <->   b.{l}.w [ i  o ]\n")
    assert "ugly.morph: rewritten" in isomorph("check", "ugly.morph", "--fmt").out
    assert (folder / "ugly.morph").read_text() == "# why\na.{l}.w [o i] <-> b.{l}.w [i o]\n"
    assert "ugly.morph: already canonical" in isomorph("check", "ugly.morph", "--fmt").out


def test_dry_run_writes_nothing(isomorph: Isomorph, folder: Path) -> None:
    """It is plan, with the target's layout checked."""
    said = isomorph("convert", "source.npz", "out.npz", "-m", "port.morph", "--dry-run")
    assert (said.code, Path("out.npz").exists()) == (0, False)
    assert said.out.endswith("dry run   nothing was written\n")


def test_a_plan_file_is_carried_out_later(isomorph: Isomorph, folder: Path) -> None:
    """plan -o, then convert plan.json: on the same inputs only."""
    said = isomorph("plan", "source.npz", "-m", "port.morph", "-o", "plan.json", "--output", "out.npz")
    assert (said.code, said.err) == (0, "")
    assert isomorph("convert", "plan.json").code == 0
    assert isomorph("verify", "source.npz", "out.npz", "-m", "port.morph").code == 0
    written = json.loads((folder / "plan.json").read_text())
    assert {"tokens", "blocks.0.qkv.w", "blocks.1.qkv.w"} == set(written["files"][0]["tensors"])
    arrays = dict(np.load("source.npz"))
    np.savez("source.npz", **{name: array + 1 for name, array in arrays.items()})
    changed = isomorph("convert", "plan.json", "--overwrite")
    assert changed.code == 2
    assert "is not what it was when plan.json was made" in changed.err


def test_an_edited_plan_file_is_refused(isomorph: Isomorph, folder: Path) -> None:
    """A byte that was changed, wherever, is noticed; so is a plan that an editor has written anew."""
    isomorph("plan", "source.npz", "-m", "port.morph", "-o", "plan.json", "--output", "out.npz")
    text = (folder / "plan.json").read_text()
    for before, after in (('"blocks.1', '"blocks.7'), ('"exact"', '"lossy"'), ('"f32[10,6]"', '"f32[6,10]"')):
        assert before in text
        (folder / "plan.json").write_text(text.replace(before, after))
        for option in ([], ["--task", "0/1"], ["--finish"]):
            said = isomorph("convert", "plan.json", *option)
            if said.code or option != ["--task", "0/1"]:  # a task does not read what another one needs
                assert (said.code, Path("out.npz").exists()) == (2, False)
                assert ("plan.json" in said.err and "edited" in said.err) or "is not finished" in said.err
    (folder / "plan.json").write_text(json.dumps(json.loads(text), indent=1))
    said = isomorph("convert", "plan.json")
    assert (said.code, Path("out.npz").exists()) == (2, False)
    assert "is not written as isomorph writes plans" in said.err


def test_folder_to_folder_copies_what_belongs_to_the_weights(isomorph: Isomorph, folder: Path) -> None:
    """json, txt, README go along; code, pickles and old indexes stay and are listed; the config's dtype follows --dtype."""
    model = folder / "model"
    model.mkdir()
    isomorph("convert", "source.npz", "model/model.safetensors")
    for name in (
        "tokenizer.json",
        "vocab.txt",
        "README.md",
        "LICENSE",
        "modeling.py",
        "training_args.bin",
        "x.index.fp16.json",
        "x.index.json",
    ):
        (model / name).write_text("{}")
    (model / "config.json").write_text('{"vocab": 8, "torch_dtype": "float32", "text_config": {"dtype": "float32"}}')
    said = isomorph("convert", "model", "out/", "--dtype", "bf16")
    assert (said.code, said.err) == (0, "")
    assert {"model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "README.md", "LICENSE"} == {
        path.name for path in (folder / "out").iterdir()
    }
    assert (
        "left      modeling.py, training_args.bin, x.index.fp16.json, x.index.json: beside the source, not copied"
        in said.out
    )
    assert json.loads((folder / "out" / "config.json").read_text()) == {
        "vocab": 8,
        "torch_dtype": "bfloat16",
        "text_config": {"dtype": "bfloat16"},
    }


def test_several_sources_and_targets(isomorph: Isomorph, folder: Path) -> None:
    """name=PATH on both sides; the morph's `name::` says which is which; all are verified together."""
    np.savez("a.npz", w=np.arange(6, dtype="f4").reshape(2, 3))
    np.savez("b.npz", w=np.arange(6, 12, dtype="f4").reshape(2, 3))
    (folder / "split.morph").write_text("a::w [o i] <-> up::w [i o]\nb::w <-> down::w\n")
    said = isomorph("convert", "a=a.npz", "b=b.npz", "up=up.npz", "down=down.safetensors", "-m", "split.morph")
    assert (said.code, said.err) == (0, "")
    assert np.load("up.npz")["w"].tolist() == np.load("a.npz")["w"].T.tolist()
    assert isomorph("verify", "a=a.npz", "b=b.npz", "up=up.npz", "down=down.safetensors", "-m", "split.morph").code == 0
    wrong = isomorph("convert", "a=a.npz", "b=b.npz", "up=u2.npz", "dwon=d2.npz", "-m", "split.morph")
    assert wrong.code == 2


def test_shards_and_back(isomorph: Isomorph, folder: Path) -> None:
    """A folder takes --max-shard-size and an index, and is read again as one checkpoint."""
    said = isomorph("convert", "source.npz", "sharded/", "--max-shard-size", "400B")
    assert (said.code, said.err) == (0, "")
    assert "model.safetensors.index.json" in {path.name for path in (folder / "sharded").iterdir()}
    assert isomorph("diff", "source.npz", "sharded", "--values").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "source.npz"],
        ["show", "source.npz", "emb"],
        ["diff", "source.npz", "source.npz", "--values"],
        ["check", "port.morph", "--set", "config.vocab=7"],
        ["plan", "source.npz", "-m", "port.morph"],
        ["convert", "source.npz", "o.npz", "-m", "port.morph"],
        ["verify", "source.npz", "source.npz"],
        ["demo"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_json_is_all_there_is_on_stdout_and_quiet_says_nothing(
    isomorph: Isomorph, folder: Path, arguments: list[str]
) -> None:
    """--json: one document. -q: nothing."""
    said = isomorph(*arguments, "--json")
    assert (said.code, said.err) == (0, "")
    json.loads(said.out)
    Path("o.npz").unlink(missing_ok=True)
    assert (lambda said: (said.code, said.out, said.err))(isomorph(*arguments, "-q")) == (0, "", "")


def test_the_demo_ends_with_what_was_proved(isomorph: Isomorph, folder: Path) -> None:
    """inspect → plan → convert → verify; the folder it named is gone, or kept on request."""
    said = isomorph("demo")
    assert (said.code, said.err) == (0, "")
    first, *_, last = said.out.splitlines()
    named = Path(first.removeprefix("# everything happens in ").partition(",")[0])
    assert not named.exists()
    assert "no pickle executed, no torch." in last
    assert "bit for bit, by code that neither planned nor wrote them." in said.out
    assert isomorph("demo", "--keep", "kept").code == 0
    assert {"pytorch_model.bin", "tower.morph", "tower.safetensors"} == {path.name for path in Path("kept").iterdir()}
    refused = isomorph("demo", "--keep", "kept")
    assert (refused.code, refused.err) == (2, "kept exists; not touched. Name a folder that does not exist\n")


def test_what_the_demo_shows_is_what_the_commands_say(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who types its commands gets its lines, but for the seconds."""

    def timeless(text: str) -> str:
        return re.sub(r"\d+\.\d s\b", "… s", text)

    told = isomorph("demo", "--keep", "kept").out
    monkeypatch.chdir("kept")
    blocks = dict(re.findall(r"^\$ isomorph (\S.*)\n((?:.+\n)+)", told, re.MULTILINE))
    assert ["inspect", "plan", "convert", "verify"] == [command.split()[0] for command in blocks]
    for command, lines in blocks.items():
        again = ["--overwrite"] if command.startswith("convert") else []
        said = isomorph(*command.split(), *again)
        assert (said.code, said.err, timeless(said.out)) == (0, "", timeless(lines)), command
