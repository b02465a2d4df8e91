"""What a MODEL and its libraries take is not what a file names: --max-memory is not held against it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph

LARGE = """
import numpy as np
held = bytearray(b"x") * (160 << 20)      # as importing a large library does
def build():
    sum(number * number for number in range(2_000_000))      # long enough for whoever looks at the memory
    return {"new": np.ones(3, "f4")}
def like():
    return {"x": np.ones((2, 3), "f4")}
"""


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of models that takes much, in the working folder."""
    (tmp_path / "large_library.py").write_text(LARGE)
    np.savez(tmp_path / "old.npz", w=np.zeros((2, 3), "f4"))
    (tmp_path / "join.morph").write_text("old::w <-> w\nfresh::new <-> new\n")
    (tmp_path / "name.morph").write_text("w <-> x\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "large_library", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ("old=old.npz", "fresh=large_library:build", "out.npz", "-m", "join.morph"),
        ("old.npz", "out.npz", "-m", "name.morph", "--like", "large_library:like"),
    ],
)
def test_a_model_that_is_large_is_no_file_of_many_names(
    isomorph: Isomorph, large: Path, arguments: tuple[str, ...]
) -> None:
    said = isomorph("convert", *arguments, "--max-memory", "32MB")
    sys.modules.pop("large_library", None)
    assert (said.code, said.err) == (0, "")
    assert (large / "out.npz").exists()
