"""A folder with a small checkpoint, its morph and a config; and a command line that is called in-process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph, Said

from isomorph.cli.app import run

MORPH = """\
layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]
emb [(v + pad) d] <-> tokens [v d], drop [pad d] where v=config.vocab
"""


@pytest.fixture
def isomorph(capsys: pytest.CaptureFixture[str]) -> Isomorph:
    """Run one command line."""

    def call(*arguments: object) -> Said:
        code = run([str(one) for one in arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(code, said.out, said.err)

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """source.npz, port.morph and config.json, in the working folder."""
    numbers = np.random.default_rng(7)
    tensors = {
        f"layers.{layer}.{part}.w": numbers.standard_normal((4, 6)).astype("f4") for layer in range(2) for part in "qkv"
    }
    tensors["emb"] = numbers.standard_normal((10, 6)).astype("f4")
    np.savez(tmp_path / "source.npz", **tensors)
    (tmp_path / "port.morph").write_text(MORPH)
    (tmp_path / "config.json").write_text(json.dumps({"vocab": 8, "torch_dtype": "float32"}))
    monkeypatch.chdir(tmp_path)
    return tmp_path
