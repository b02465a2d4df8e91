"""`isomorph verify` without the mapping that was meant; and a path that is a stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Isomorph

NOTE = "neither --morph nor --to was given, so every tensor was looked for under its own name"


def test_a_mapping_that_was_forgotten_is_named(isomorph: Isomorph, folder: Path) -> None:
    """Only where nothing at all was found, and no mapping was given."""
    assert isomorph("convert", "source.npz", "out.npz", "-m", "port.morph").code == 0
    said = isomorph("verify", "source.npz", "out.npz")
    assert (said.code, said.err) == (1, "")
    assert said.out.endswith(f"\nnote      {NOTE}\n")
    assert [NOTE] == json.loads(isomorph("verify", "source.npz", "out.npz", "--json").out)["notes"]
    for arguments, code in (
        (("out.npz", "-m", "port.morph"), 0),
        (("source.npz", "-m", "port.morph"), 1),
        (("source.npz",), 0),
    ):
        said = isomorph("verify", "source.npz", *arguments)
        assert (said.code, NOTE in said.out) == (code, False)


@pytest.mark.parametrize(
    "arguments",
    [("inspect", "-"), ("convert", "source.npz", "-"), ("convert", "-", "out.npz"), ("diff", "source.npz", "-")],
)
def test_a_stream_is_no_checkpoint(isomorph: Isomorph, folder: Path, arguments: tuple[str, ...]) -> None:
    before = sorted(path.name for path in folder.iterdir())
    said = isomorph(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err == (
        "-: a checkpoint is read and written by its parts, not as a stream: name a file (or ./- where that is its name)\n"
    )
    assert sorted(path.name for path in folder.iterdir()) == before
    assert isomorph("convert", "source.npz", "./-", "--format", "npz").code == 0
    assert isomorph("inspect", "./-", "-q").code == 0
