"""TorchScript archives against torch.jit: every parameter and buffer by its path, bit for bit; code is data that nobody reads."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isomorph
from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import whole

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(4)
        self.fc = torch.nn.Linear(4, 4)
        self.register_buffer("scratch", torch.ones(3), persistent=False)
        self.register_buffer("absent", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.norm(x))


class Visual(torch.nn.Module):
    """Every way in which a module holds weights, and attributes that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 2, 2, bias=False)
        self.class_embedding = torch.nn.Parameter(torch.randn(4))
        self.blocks = torch.nn.ModuleList([Block() for _ in range(3)])
        self.twice = self.blocks[1]
        self.seq = torch.nn.Sequential(Block(), torch.nn.ReLU(), Block())
        self.named = torch.nn.ModuleDict({"a": torch.nn.Linear(4, 4)})
        self.listed = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(2)) for _ in range(2)])
        self.bn = torch.nn.BatchNorm1d(4)
        self.input_resolution = 224
        self.sizes = [1, 2, 3]
        self.activation = "quick_gelu"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(x).flatten(2).mean(2) + self.class_embedding
        for block in self.blocks:
            y = block(y)
        return self.bn(self.named["a"](self.twice(self.seq(y))))


class Model(torch.nn.Module):
    """Tied, transposed, of rank 0 and empty parameters; buffers of several dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = Visual()
        self.token = torch.nn.Embedding(5, 4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.token.weight
        self.logit_scale = torch.nn.Parameter(torch.tensor(1.5))
        self.turned = torch.nn.Parameter(torch.randn(4, 6).t())
        self.empty = torch.nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("mask", torch.triu(torch.ones(3, 3)))
        self.register_buffer("brain", torch.randn(3).bfloat16())
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("complex", torch.randn(3, dtype=torch.complex64))
        self.register_buffer("part", torch.randn(6, 5)[1:4, ::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.visual(x)) * self.logit_scale + self.turned.sum()


def traced(model: torch.nn.Module) -> Any:
    return torch.jit.trace(model, torch.randn(2, 3, 4, 4, dtype=next(model.parameters()).dtype))


WAYS: dict[str, Callable[[], Any]] = {
    "scripted": lambda: torch.jit.script(Model().eval()),
    "traced": lambda: traced(Model().eval()),
    "scripted half": lambda: torch.jit.script(Model().eval().half()),
    "traced bfloat16": lambda: traced(Model().eval().bfloat16()),
    "training": lambda: torch.jit.script(Model()),
}


def bits(tensor: torch.Tensor) -> bytes:
    whole: bytes = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return whole


@pytest.mark.parametrize("way", WAYS)
def test_names_shapes_and_bits_are_those_of_the_loaded_module(way: str, tmp_path: Path) -> None:
    """What `torch.jit.load(path).state_dict()` gives, without running a line of the archive's code."""
    torch.manual_seed(0)
    path = tmp_path / "model.pt"
    WAYS[way]().save(str(path), _extra_files={"note.txt": "x", "a/b.json": "{}"})
    expected = torch.jit.load(str(path)).state_dict()
    with open_checkpoint(path) as checkpoint:
        assert list(expected) == list(checkpoint.manifest)
        for name, tensor in expected.items():
            found = checkpoint.manifest[name]
            assert (tuple(tensor.shape), str(tensor.dtype)) == (found.shape, f"torch.{found.dtype.numpy.name}"), name
            assert bits(tensor) == np.ascontiguousarray(whole(checkpoint, name)).tobytes(), name
        assert ("token.weight", "head.weight") in [group[:2] for group in checkpoint.manifest.shared]
        assert any("a TorchScript archive" in note for note in checkpoint.manifest.notes)
    isomorph.convert(path, tmp_path / "out.pth")
    loaded = torch.load(tmp_path / "out.pth", weights_only=True)
    assert {name: bits(tensor) for name, tensor in expected.items()} == {
        name: bits(tensor) for name, tensor in loaded.items()
    }


def test_scalars_of_modules_are_leaves(tmp_path: Path) -> None:
    """`input_resolution` and its like are listed; what torch keeps in every module for itself is not."""
    path = tmp_path / "model.pt"
    torch.jit.script(Model().eval()).save(str(path))
    with open_checkpoint(path) as checkpoint:
        leaves = checkpoint.manifest.leaves
    assert leaves["visual.input_resolution"] == "224"
    assert leaves["visual.sizes"] == "[1, 2, 3]"
    assert leaves["visual.activation"] == "'quick_gelu'"
    assert not [name for name in leaves if name.endswith(("training", "_is_full_backward_hook", "bias", "absent"))]


def test_the_weights_of_a_frozen_module_are_its_constants(tmp_path: Path) -> None:
    """`torch.jit.freeze` moves them into the code's constants, where they have numbers; it is said."""
    path = tmp_path / "model.pt"
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).eval()
    torch.jit.freeze(torch.jit.script(module)).save(str(path))
    with open_checkpoint(path) as checkpoint:
        assert sorted(bits(tensor) for tensor in module.state_dict().values()) == sorted(
            np.ascontiguousarray(whole(checkpoint, name)).tobytes() for name in checkpoint.manifest
        )
        assert all(name.startswith("CONSTANTS.c") for name in checkpoint.manifest)
        assert any("a frozen TorchScript module" in note for note in checkpoint.manifest.notes)


def test_its_code_is_never_looked_at(tmp_path: Path) -> None:
    """Code that could not even be parsed, constants that are no pickle: the weights are the same, and nothing runs."""
    module = torch.nn.Linear(3, 4)
    torch.jit.script(module).save(str(tmp_path / "model.pt"))
    with zipfile.ZipFile(tmp_path / "model.pt") as before, zipfile.ZipFile(tmp_path / "evil.pt", "w") as after:
        for info in before.infolist():
            data = before.read(info)
            if "/code/" in info.filename or info.filename.endswith("constants.pkl"):
                data = b"cos\nsystem\n(S'touch ran'\ntR. import os; os.system('touch ran') ((("
            after.writestr(zipfile.ZipInfo(info.filename), data)
    with open_checkpoint(tmp_path / "evil.pt") as checkpoint:
        assert list(checkpoint.manifest) == ["weight", "bias"]
        assert bits(module.weight) == whole(checkpoint, "weight").tobytes()
    assert not Path("ran").exists()


def remade(path: Path, change: Callable[[bytes], bytes], member: str) -> Path:
    made = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(made, "w") as after:
        for info in before.infolist():
            data = before.read(info)
            after.writestr(
                zipfile.ZipInfo(info.filename), change(data) if info.filename.endswith("/" + member) else data
            )
    return made


def test_a_pickle_of_an_archive_that_names_the_system_is_refused(tmp_path: Path) -> None:
    """Only classes below `__torch__` are records; every other name is on the list or refused, in constants as well."""
    path = tmp_path / "model.pt"
    torch.jit.script(torch.nn.Linear(3, 4)).save(str(path))
    evil = remade(path, lambda data: data.replace(b"c__torch__.torch.nn", b"cposix.system__.nn1", 1), "data.pkl")
    with pytest.raises(UnsafeError, match=r"posix\.system__"):
        open_checkpoint(evil)
    torch.jit.freeze(torch.jit.script(torch.nn.Linear(3, 4).eval())).save(str(path))
    evil = remade(path, lambda data: b"cposix\nsystem\n(S'touch ran'\ntR.", "constants.pkl")
    with pytest.raises(UnsafeError, match=r"its pickle would call posix\.system \(model/constants\.pkl, byte"):
        open_checkpoint(evil)
    assert not Path("ran").exists()


def test_a_storage_of_a_constant_that_is_missing_is_named(tmp_path: Path) -> None:
    """Constants lie in `constants/`, weights in `data/`; one is not taken for the other."""
    path = tmp_path / "model.pt"
    torch.jit.freeze(torch.jit.script(torch.nn.Linear(3, 4).eval())).save(str(path))
    made = tmp_path / "changed.pt"
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(made, "w") as after:
        for info in before.infolist():
            after.writestr(zipfile.ZipInfo(info.filename.replace("/constants/", "/data/")), before.read(info))
    with pytest.raises(FormatError, match=r"`CONSTANTS\.c\d`: the archive has no storage '\d' \(constants/\d\)"):
        open_checkpoint(made)
