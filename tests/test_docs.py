"""The README is true: its commands are run, what they print is compared, its Python is executed, its notation is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isomorph.cli.app import run
from isomorph.demo.checkpoint import LARGE, SMALL, specs, write_checkpoint
from isomorph.formats.registry import FORMATS, lay_out
from isomorph.job.port import morph_path
from isomorph.language.parse import parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MORPH = morph_path("isomorph:demo/clip_vision_fused.morph")
CHANGING = re.compile(r"\d+\.\d+ s\b|plan [0-9a-f]{8}…")
"""Times and digests, which are not compared."""


def blocks(language: str) -> list[str]:
    """The fenced blocks of the README in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def sparse_checkpoint(path: Path) -> None:
    """A `pytorch_model.bin` of clip-vit-large-patch14 whose weights are a hole in the file: headers are all that is read."""
    (file,) = lay_out(specs(LARGE), path, format=None, metadata={}, max_shard_size=None).files
    literals = [*file.literals, *(file.trailer([0] * len(file.records)) if file.trailer is not None else ())]
    with path.open("wb") as out:
        for literal in literals:
            out.seek(literal.offset)
            out.write(literal.data)
        out.truncate(file.nbytes)


def steady(text: str) -> str:
    return CHANGING.sub("…", text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the README's tower.morph."""
    (tmp_path / "tower.morph").write_text(blocks("morph")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sessions() -> list[tuple[str, str]]:
    """(command, what it prints) of every console block."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def test_commands_that_read_headers_print_what_the_readme_says(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """inspect and plan, at the size of the real checkpoint."""
    sparse_checkpoint(folder / "pytorch_model.bin")
    ran = [command.split()[1] for command, _ in sessions() if command.split()[1] in ("inspect", "plan")]
    assert ran == ["inspect", "plan", "plan"]
    for command, expected in sessions():
        name, verb, *arguments = command.split()
        assert name == "isomorph"
        if verb in ("inspect", "plan"):
            assert run([verb, *arguments]) == 0
            lines = [line for line in capsys.readouterr().out.splitlines() if " is sparse: " not in line]
            assert steady(expected).splitlines() == steady("\n".join(lines)).splitlines()


def test_commands_that_write_do_what_the_readme_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """convert and verify, on the small checkpoint: the same lines with other numbers."""
    write_checkpoint(SMALL, folder / "pytorch_model.bin")
    ran = []
    for command, expected in sessions():
        _, verb, *arguments = command.split()
        if verb in ("convert", "verify"):
            assert run([verb, *arguments]) == 0
            numbers = re.compile(r"[\d.,]+ ?([kMG]?B\b)?")
            assert numbers.sub("#", expected) == numbers.sub("#", capsys.readouterr().out)
            ran.append(verb)
    assert ran == ["convert", "verify"]


def test_the_morph_that_is_inferred_is_the_one_that_the_readme_shows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the small checkpoint and its tower, word for word but for what comments say beside rules."""
    write_checkpoint(SMALL, folder / "pytorch_model.bin")
    assert run(["convert", "pytorch_model.bin", "tower.safetensors", "-m", "tower.morph", "-q"]) == 0
    ((command, expected),) = [one for one in sessions() if one[0].split()[1] == "infer"]
    assert run(command.split()[1:]) == 0
    plain = [re.sub(r"(?<=\S)  # .*", "", text) for text in (expected, capsys.readouterr().out)]
    assert plain[0] == plain[1]


def test_the_python_of_the_readme_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, on the small checkpoint."""
    write_checkpoint(SMALL, folder / "pytorch_model.bin")
    (code,) = blocks("python")
    exec(compile(code, "README.md", "exec"), {})
    assert (folder / "tower.safetensors").exists()
    assert "used" in capsys.readouterr().out


def test_the_morph_of_the_readme_is_the_one_that_is_shipped() -> None:
    """The rules, without the comments."""
    (shown,) = blocks("morph")
    shipped = [line for line in MORPH.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert shown.splitlines() == shipped
    assert len(parse(shown).statements) == 2


def test_the_fifteen_lines_are_fifteen() -> None:
    """The notation fits on a page."""
    (notation,) = blocks("text")
    assert len(notation.splitlines()) == 15


def test_links_lead_somewhere() -> None:
    """Every file that a document names exists."""
    for document in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{document}: {target}"


def test_every_format_is_in_the_table() -> None:
    """docs/formats.md has a row for each format, and says truly which are written and with which suffixes."""
    rows = {
        line.split("`")[1]: [cell.strip() for cell in line.split("|")[1:-1]]
        for line in (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    }
    assert set(FORMATS) == set(rows)
    for name, row in FORMATS.items():
        assert [True, row.writer is not None] == [rows[name][2].startswith("yes"), rows[name][3].startswith("yes")], (
            name
        )
        assert [] == [suffix for suffix in row.suffixes if suffix not in "|".join(rows[name])], name
