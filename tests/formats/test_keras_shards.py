"""Keras's sharded weights: an index that maps groups of variables to files of HDF5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import whole

ARRAYS = {
    "layers/dense/vars/0": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layers/dense/vars/1": np.ones(4, np.float32),
    "layers/dense_1/vars/0": np.arange(8, dtype=np.float32).reshape(4, 2),
}


def save(folder: Path, weight_map: dict[str, Any], files: dict[str, list[str]]) -> Path:
    folder.mkdir(exist_ok=True)
    for file, names in files.items():
        with h5py.File(folder / file, "w") as opened:
            opened.create_group("layers/dense_1/vars")  # Keras leaves groups of what went to the next shard
            for name in names:
                opened[name] = ARRAYS[name]
    index = folder / "m.weights.json"
    index.write_text(json.dumps({"metadata": {"total_size": 96.0}, "weight_map": weight_map}))
    return index


TWO = ("m_00000.weights.h5", "m_00001.weights.h5")
MAP = {"/layers/dense/vars": [TWO[0], TWO[1]], "/layers/dense_1/vars": TWO[1]}
FILES = {TWO[0]: ["layers/dense/vars/0"], TWO[1]: ["layers/dense/vars/1", "layers/dense_1/vars/0"]}


def test_the_variables_of_a_group_may_lie_in_several_files(tmp_path: Path) -> None:
    """Index and folder open the same tensors, whichever file they are in."""
    index = save(tmp_path / "m", MAP, FILES)
    for path in (index, index.parent):
        with open_checkpoint(path) as checkpoint:
            assert set(ARRAYS) == set(checkpoint.manifest)
            assert all(array.tobytes() == whole(checkpoint, name).tobytes() for name, array in ARRAYS.items())


def test_what_index_and_files_disagree_on_is_said(tmp_path: Path) -> None:
    """A file that is missing, a group that is not in its file, and one that the index does not name."""
    index = save(tmp_path / "a", MAP, FILES)
    (index.parent / TWO[1]).unlink()
    with pytest.raises(FormatError, match=r"1 of its 2 shards is missing: m_00001\.weights\.h5\. Fetch them"):
        open_checkpoint(index)
    empty = save(tmp_path / "b", {**MAP, "/layers/dense_1/vars": [TWO[0]]}, FILES)
    with pytest.raises(FormatError, match=r"1 groups of variables are not where .*`layers/dense_1/vars` in m_00000"):
        open_checkpoint(empty)
    unnamed = save(tmp_path / "c", {"/layers/dense/vars": [TWO[0], TWO[1]]}, FILES)
    with pytest.raises(FormatError, match="1 tensor in a shard, and not in the index: layers/dense_1/vars/0"):
        open_checkpoint(unnamed)
    outside = save(tmp_path / "d", {**MAP, "/x": ["../x.h5"]}, FILES)
    with pytest.raises(UnsafeError, match=r"names the shard '\.\./x\.h5', which is not a file beside it"):
        open_checkpoint(outside)
