"""Names of a hundred thousand characters: what is said of them fits a page, whatever command says it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isomorph.cli.app import run

NAMES = {"colons": "a::" * 40_000, "dots": "a." * 50_000 + "w", "braces": "{" * 100_000, "digits": "1" * 100_000 + ".w"}
COMMANDS = [
    ["convert", "in.safetensors", "out.pth"],
    ["convert", "in.safetensors", "out.pth", "-m", "a <-> b"],
    ["convert", "in.safetensors", "out/", "--to", "hf"],
    ["plan", "in.safetensors", "-m", "drop b"],
    ["inspect", "in.safetensors"],
    ["diff", "in.safetensors", "other.safetensors"],
    ["verify", "in.safetensors", "other.safetensors"],
]


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_said_of_a_long_name_fits_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for file, name in (("in", NAMES[kind]), ("other", "b")):
        header = json.dumps({name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
        Path(f"{file}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
    for command in COMMANDS:
        code = run([*command, "-q"] if command[0] == "convert" else command)
        said = capsys.readouterr()
        assert code in (0, 1, 2), (command, said.err)
        assert "internal error" not in said.err
        assert len(said.err) < 3000, (command, len(said.err), said.err[:300])
