"""Names that would speak to the terminal, fake a line of ours or break an encoding: shown escaped, carried whole, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph

from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.tensors import TensorSpec, dtype
from isomorph.testing.formats import write_checkpoint

SPOOF = "w\nverified  everything\x1b[31m\u202e"
SHOWN = r"w\nverified  everything\x1b[31m\u202e"
LONE = "\ud800.w"


def one_tensor(path: Path, name: str) -> None:
    kind = dtype("f32")
    write_checkpoint(path, {name: (kind, np.arange(3, dtype="f4").view(kind.bits))}, format="torch_zip")


@pytest.fixture
def spoofed(folder: Path) -> Path:
    """A folder with spoof.pt, whose one tensor is called SPOOF, and plain.pt."""
    one_tensor(folder / "spoof.pt", SPOOF)
    one_tensor(folder / "plain.pt", "w.w")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "spoof.pt"],
        ["inspect", "spoof.pt", "--keys"],
        ["plan", "spoof.pt"],
        ["plan", "spoof.pt", "--all"],
        ["plan", "spoof.pt", "-m", "port.morph"],
        ["plan", "plain.pt", "--like", "spoof.pt"],
        ["verify", "spoof.pt", "plain.pt"],
        ["verify", "plain.pt", "spoof.pt"],
        ["diff", "spoof.pt", "plain.pt"],
        ["show", "spoof.pt", SPOOF],
        ["show", "spoof.pt", SPOOF[:-2]],
        ["convert", "spoof.pt", "spoof.npz", "-m", "port.morph"],
    ],
)
def test_a_name_of_a_tensor_never_makes_a_line_of_its_own(
    spoofed: Path, isomorph: Isomorph, arguments: list[str]
) -> None:
    said = isomorph(*arguments)
    text = said.out + said.err
    assert SHOWN in text
    assert "\x1b" not in text and "\u202e" not in text
    assert not any(line.strip().startswith("verified") for line in text.splitlines())


@pytest.mark.parametrize("name", ["new\nline\x1b[2J.safetensors", os.fsdecode(b"\xff\xfe.safetensors")])
def test_a_file_of_any_name_is_converted_and_shown_escaped(spoofed: Path, isomorph: Isomorph, name: str) -> None:
    shown = name.encode("unicode_escape").decode()
    said = isomorph("convert", "plain.pt", name)
    assert (said.code, said.err) == (0, "") and said.out.startswith(f"wrote     {shown} ")
    assert isomorph("verify", "plain.pt", name).code == 0
    assert isomorph("inspect", name).out.startswith(f"{shown} ·")
    assert isomorph("convert", "plain.pt", name).err == (
        f"{shown} exists ({Path(name).stat().st_size} bytes); not touched. Use --overwrite, or another name\n"
    )
    assert isomorph("convert", name, name).err == f"{shown} is the source; not touched. Give another name\n"


@pytest.mark.parametrize("suffix", [".pth", ".pdparams"])
def test_pickles_carry_names_that_are_no_unicode_text(folder: Path, isomorph: Isomorph, suffix: str) -> None:
    one_tensor(folder / "lone.pt", LONE)
    said = isomorph("convert", "lone.pt", f"out{suffix}")
    assert (said.code, said.err) == (0, "")
    with open_checkpoint(folder / f"out{suffix}") as checkpoint:
        assert list(checkpoint.manifest) == [LONE]


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_other_formats_say_that_they_cannot(folder: Path, isomorph: Isomorph, suffix: str) -> None:
    one_tensor(folder / "lone.pt", LONE)
    said = isomorph("convert", "lone.pt", f"out{suffix}")
    assert said.code == 2
    assert said.err == (
        f"out{suffix}: {suffix[1:]} cannot hold a tensor called '\\ud800.w', which is no Unicode text. Rename it\n"
    )
    assert sorted(path.name for path in folder.glob("*out*")) == []


def test_neither_does_an_index_of_shards(folder: Path) -> None:
    specs = {name: TensorSpec(dtype("f32"), (3,)) for name in (LONE, "w")}
    with pytest.raises(ValueError, match=r"an index cannot hold a tensor called '\\ud800.w', which is no Unicode text"):
        lay_out(specs, folder / "out", format="torch_zip", max_shard_size=12)
