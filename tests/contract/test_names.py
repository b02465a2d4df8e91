"""Names that speak to a terminal, are paths, or are no text, wherever a stranger can write one, in every command: nothing but
printable characters and line ends is printed, and no file is made anywhere but under the name that was asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from watched import watched

from isomorph.cli.app import run
from isomorph.formats.registry import FORMATS, open_checkpoint, writable
from isomorph.testing.formats import tensors_of, write_checkpoint

SPOKEN = {
    "colour": "w\x1b[31mred",
    "cleared screen": "\x1b[2J\x1b[Hw",
    "title": "\x1b]0;owned\x07w",
    "a link": "\x1b]8;;http:x\x1b\\w",
    "C1": "\x9b31mw\x85",
    "line of its own": "w\nverified  everything",
    "line written over": "w\rwrote     all",
    "form feeds": "w\x0b\x0c\u2028\u2029w",
    "backspaces": "w\b\b\bok",
    "right to left": "\u202egnp.w\u2066\u2069",
    "not seen": "w\u200b\u200e\ufeff\u00ad\U000e0041",
    "NUL": "w\0w",
    "delete": "\x7fw",
}
PATHS = {
    "up": "../../up",
    "absolute": "/etc/passwd",
    "windows": "..\\..\\up",
    "drive": "C:\\w",
    "dots": "..",
    "dot": ".",
    "slashes": "a//b/",
    "home": "~/w",
    "option": "--overwrite",
    "pattern": "*",
    "format": "{0.__class__}%s%n${HOME}`id`$(id)",
    "markup": "<script>alert(1)</script>&amp;",
    "rich": "[red]w[/red]",
    "long": "n" * 10_000,
    "wide": "\u4e2d" * 300,
}
NAMES = {**SPOKEN, **PATHS}
LONE = "\ud800w\udfff"


def is_harmless(text: str) -> bool:
    """Printable characters and line ends, nothing else."""
    return all(character == "\n" or character.isprintable() for character in text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder two levels deep, so that what climbs out of it is seen."""
    inner = tmp_path / "two/levels"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    yield inner
    assert {"two"} == {path.name for path in tmp_path.iterdir()}
    assert {"levels"} == {path.name for path in inner.parent.iterdir()}


def tried(capsys: pytest.CaptureFixture[str], *commands: Sequence[str]) -> list[int]:
    """Run them; what each printed is harmless, with --json too, and is no internal error."""
    codes = []
    for command in commands:
        for words in (command, [*command, "--json"]):
            code = run(words)
            said = capsys.readouterr()
            for text in (said.out, said.err):
                assert is_harmless(text), (
                    words,
                    sorted({one for one in text if not one.isprintable()} - {"\n"}),
                    text[-500:],
                )
            assert "internal error" not in said.err and "Traceback" not in said.err, (words, said.err[-2000:])
            assert len(said.err) < 200_000, words
            if words is not command and code == 0 and said.out:
                json.loads(said.out)
        codes.append(code)
    return codes


def arrays(names: Sequence[str], shape: tuple[int, ...] = (2, 3)) -> dict[str, np.ndarray]:
    return {name: np.full(shape, number, "f4") for number, name in enumerate(names)}


def fits(format: str, name: str) -> bool:
    """False for names that the format has no way to hold: it says so, in one message, before anything is written."""
    probe = Path(f"probe{FORMATS[format].suffixes[0]}")
    try:
        write_checkpoint(probe, tensors_of(arrays([name])), format=format)
    except ValueError as error:
        assert str(error).isprintable(), str(error)
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


@pytest.mark.parametrize("format", writable())
def test_names_of_tensors_in_every_command(folder: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    """All of them in one file of each format: shown, compared, planned, inferred; carried whole to the other formats, or refused."""
    spared = {"flax": ("..", "."), "hdf5": ("..", ".", NAMES["long"])}.get(format, ())
    # (names are paths there, and one that another begins with is none; a link of 10,000 bytes among many is refused when it is read)
    held = [name for name in (*NAMES.values(), LONE) if name not in spared and fits(format, name)]
    assert set(SPOKEN.values()) - {SPOKEN["NUL"]} <= set(held) or format == "gguf"
    suffix = FORMATS[format].suffixes[0]
    write_checkpoint(folder / f"a{suffix}", tensors_of(arrays(held)), format=format)
    write_checkpoint(folder / f"b{suffix}", tensors_of(arrays([*held[1:], "other"], (3, 2))), format=format)
    write_checkpoint(folder / "plain.safetensors", tensors_of({"w": np.zeros(3, "f4")}))
    (folder / "m.morph").write_text("w <-> v\ndrop x.*\n")
    a, b, plain = f"a{suffix}", f"b{suffix}", "plain.safetensors"
    codes = tried(
        capsys,
        ["inspect", a], ["inspect", a, "--keys"], ["inspect", a, "--depth", "1"],
        ["diff", a, b], ["diff", a, a, "--values"], ["diff", plain, a],
        ["plan", a], ["plan", a, "--all"], ["plan", a, "-m", "m.morph"], ["plan", plain, "--like", a], ["plan", a, "--to", "clip/hf"],
        ["verify", a, a], ["verify", a, b], ["verify", plain, a],
        ["infer", a, b], ["infer", a, a], ["infer", a, b, "--names-only"],
        *(["show", a, name] for name in held[:8]), ["show", a, "x"], ["show", a, "w" * 5000],
    )  # fmt: skip
    assert {0} == {codes[0], codes[1], codes[6]}
    for other in writable():
        target = f"to-{other}{FORMATS[other].suffixes[0]}"
        (code,) = tried(capsys, ["convert", a, target, "--format", other, "--overwrite"])
        if code == 0:
            with open_checkpoint(Path(target)) as made:
                assert set(held) == set(made.manifest)
    assert tried(capsys, ["convert", a, "out/", "--overwrite", "--max-shard-size", "500"]) in ([0], [2])
    made = {path.name for path in folder.rglob("*")} - {a, b, plain, "m.morph", "out"}
    assert all(name.startswith(("to-", "model", "flax_model", "pytorch_model", "tf_model")) for name in made), made


@pytest.mark.parametrize(
    "kind", [kind for kind, name in NAMES.items() if not set("/\0") & set(name) and len(name) < 60 and name.strip(".")]
)
def test_names_of_files_in_every_command(folder: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A source, a target, a morph, a config, answers and a plan of such a name, there or not."""
    name = NAMES[kind]
    write_checkpoint(folder / "a.safetensors", tensors_of(arrays(["w"])))
    write_checkpoint(folder / f"{name}.safetensors", tensors_of(arrays(["w"])))
    (folder / f"{name}.morph").write_text("w [a b] <-> w [b a]\n")
    (folder / f"{name}.bad.morph").write_text("w [a b <-> w [b a]\n")
    (folder / f"{name}.json").write_text("{}")
    weights, morph, config = f"./{name}.safetensors", f"./{name}.morph", f"./{name}.json"
    tried(
        capsys,
        ["inspect", weights], ["inspect", f"./{name}"], ["inspect", morph], ["inspect", f"{weights}#{name}"], ["show", weights, "w"],
        ["diff", weights, "a.safetensors"], ["diff", "a.safetensors", f"./{name}.no"],
        ["plan", weights, "-m", morph, "--config", config], ["plan", weights, "-m", f"./{name}.bad.morph"], ["plan", weights, "--like", name],
        ["plan", weights, "-o", f"./{name}.plan.json", "--output", f"./{name}.out.safetensors", "--overwrite"],
        ["convert", f"./{name}.plan.json"], ["convert", f"./{name}.plan.json"], ["convert", config],
        ["convert", weights, f"./{name}.pth"], ["convert", weights, weights], ["convert", weights, f"./{name}/no/x.pth"],
        ["convert", weights, f"./{name}.d/"], ["convert", weights, "x.pth", "--format", name], ["convert", weights, "x.pth", "--dtype", name],
        ["verify", weights, "a.safetensors", "-m", morph], ["verify", f"{name}={weights}", f"{name}=a.safetensors"],
        ["infer", weights, "a.safetensors", "--answers", config], ["infer", weights, "a.safetensors", "-o", f"./{name}.made.morph"],
        ["check", morph], ["check", f"./{name}.bad.morph"], ["check", f"./{name}.no"], ["layouts", name], ["layouts", f"{name}/{name}"],
        ["trace", f"{name}:x", f"os:{name}"], ["trace", f"os.path:join@{weights}", f"no_such_module:{name}"],
        ["plan", weights, "--set", f"{name}=3"], ["plan", weights, "--set", f"a={name}"], ["plan", weights, "--to", name], [name], ["inspect", f"--{name}"],
    )  # fmt: skip


@pytest.mark.parametrize("kind", NAMES)
def test_words_of_a_stranger_in_headers_configs_morphs_and_plans(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Metadata, dtypes, shards of an index, values of a config, rules, comments and sizes of a morph, everything in a plan."""
    name = NAMES[kind]
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

    def header(file: str, content: object) -> str:
        raw = json.dumps(content).encode()
        (folder / file).write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(4))
        return file

    def text(file: str, content: str) -> str:
        (folder / file).write_text(content, encoding="utf-8", newline="")
        return file

    good = header("good.safetensors", {"__metadata__": {name: name, "format": name}, "w": entry})
    odd = [
        header("dtype.safetensors", {"w": {**entry, "dtype": name}}),
        header("key.safetensors", {"w": {**entry, name: 1}}),
        header("shape.safetensors", {name: {**entry, "shape": [2]}}),
        header("value.safetensors", {name: name}),
        text("map.index.json", json.dumps({"weight_map": {"w": name}})),
        text("name.index.json", json.dumps({"weight_map": {name: "good.safetensors"}, "metadata": {name: name}})),
        text("top.index.json", json.dumps({name: name})),
        text("page.html", f"<html>{name}"),
        text("a.pickle", f"c{name}\n{name}\n)R."),
    ]
    (folder / "m").mkdir()
    header("m/model.safetensors", {"w": entry})
    text(
        "m/config.json",
        json.dumps({name: name, "model_type": name, "architectures": [name], "hidden_size": name, "torch_dtype": name}),
    )
    if "/" not in name and "\0" not in name and len(name) < 200 and name not in (".", ".."):
        text(f"m/{name}.json", "{}")
        (folder / "m" / f"{name}.txt").symlink_to(f"../{name}")
    quoted = json.dumps(name, ensure_ascii=False)
    morphs = [
        text("rule.morph", f"{name} <-> {name}\n"),
        text("quoted.morph", f"{quoted} <-> {quoted}\n# {name}\n"),
        text("axis.morph", f"w [{name}] <-> w [{name}]\nwhere {name} = config.{name}\n"),
        text("use.morph", f"use {quoted}\nuse {name}\n"),
    ]
    plan = text("plan.json", "{}")
    assert run(["plan", good, "-o", plan, "--output", "out.pth", "-q"]) == 0
    capsys.readouterr()
    content = json.loads((folder / plan).read_text())
    plans = [text(f"{number}.plan.json", json.dumps({**content, key: name})) for number, key in enumerate(content)]
    plans.append(text("key.plan.json", json.dumps({**content, name: name})))
    tried(
        capsys,
        *(["inspect", file] for file in (good, *odd, "m")), *(["convert", file, "x.pth", "--overwrite"] for file in odd),
        ["convert", good, "out.npz"], ["convert", "m", "made/"], ["plan", "m", "--to", "vit/hf"], ["plan", "m", "--dtype", "bf16"],
        *(["plan", good, "-m", morph] for morph in morphs), *(["check", morph] for morph in morphs),
        ["plan", "m", "-m", "axis.morph"], ["infer", "m", good, "--names-only"], *(["convert", file, "--overwrite"] for file in plans),
    )  # fmt: skip
    assert all(not os.path.islink(folder / path) for path in ("out.npz", "made"))  # noqa: PTH114


def test_a_name_that_a_group_of_many_cannot_hold_is_refused(tmp_path: Path) -> None:
    """HDF5 keeps a long name of many outside of the heap that readers follow: it is refused by name before a byte is written."""
    arrays = {f"w{number}": np.zeros(2, "f4") for number in range(12)} | {"n" * 10_000: np.zeros(2, "f4")}
    write_checkpoint(tmp_path / "in.safetensors", tensors_of(arrays), format="safetensors")
    seen = watched("convert", "in.safetensors", "out.h5", folder=tmp_path)
    assert (2, "") == (seen.code, seen.out)
    assert "cannot hold `nnnn" in seen.err
    assert "a part of a name has at most 4,000 bytes there" in seen.err
    assert ["in.safetensors"] == [path.name for path in tmp_path.iterdir()]
