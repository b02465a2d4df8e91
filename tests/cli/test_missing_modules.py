"""A module that is not there: the extra that installs it, the name that was meant, or where modules are looked for."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from command_line import Isomorph

import isomorph as iso

with warnings.catch_warnings(action="ignore"):  # it looks for compilers when it is imported
    import paddle  # noqa: F401  (once, before a test asks for it)

EXTRA = "It needs a library that is not installed: pip install 'isomorph[{}]'\n"
LOOKED = (
    "Modules are looked for here, in PYTHONPATH and among what is installed: pip install {0}, or go where {0} lies\n"
)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("torch.nn:Identity", EXTRA.format("torch")),
        ("wants_torch:build", EXTRA.format("torch")),
        ("wants_paddle:build", EXTRA.format("paddle")),
        ("wants_torhc:build", "Did you mean wants_torch?\n"),
        ("pakage_of_models.vit:build", "Did you mean package_of_models?\n"),
        ("qqq.vit:build", LOOKED.format("qqq")),
        ("wants_other:build", LOOKED.format("zzz_not_there")),
    ],
)
def test_a_module_that_is_not_there(
    isomorph: Isomorph, folder: Path, monkeypatch: pytest.MonkeyPatch, model: str, text: str
) -> None:
    (folder / "package_of_models").mkdir()
    for name, wanted in (("torch", "torch"), ("paddle", "paddle.nn"), ("other", "zzz_not_there.deep")):
        (folder / f"wants_{name}.py").write_text(f"import {wanted}\nbuild = dict\n")
    for name in ("torch", "torch.nn", "paddle", "paddle.nn"):
        monkeypatch.setitem(sys.modules, name, None)
    said = isomorph("plan", "source.npz", "--like", model)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(f"{model}: importing {model.partition(':')[0]} failed: ModuleNotFoundError: ")
    assert said.err.endswith(text)


def test_what_is_filled_is_a_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", weight=np.zeros(2, "f4"))
    with pytest.raises(ValueError, match=r"^a torch\.nn\.Module is filled, not a dict: give the model, built$"):
        iso.torch.load_model({}, tmp_path / "w.npz")
    with pytest.raises(ValueError, match=r"^a paddle\.nn\.Layer is filled, not a NoneType: give the model, built$"):
        iso.paddle.load_model(None, tmp_path / "w.npz")


@pytest.mark.parametrize("library", ["torch", "paddle"])
def test_a_library_of_models_that_is_not_installed(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    needs = (
        rf"^isomorph\.{library}\.load_model needs a library that is not installed: pip install 'isomorph\[{library}\]'$"
    )
    with pytest.raises(ImportError, match=needs):
        getattr(iso, library).load_model(None, tmp_path / "w.npz")
