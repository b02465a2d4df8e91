"""Legacy torch files, as torch still writes them on request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from isomorph.errors import FormatError
from isomorph.formats.registry import open_checkpoint
from isomorph.testing.formats import ReadingConformance, whole


class TestTorchLegacy(ReadingConformance):
    format = "torch_legacy"
    file_name = "pytorch_model.bin"

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Any]) -> None:
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=False)

    def cuts(self, nbytes: int) -> Iterator[int]:
        """A file cut before its object begins is another file, and refused as such all the same."""
        yield from super().cuts(nbytes)


def test_storages_are_runs_of_the_file(tmp_path: Path) -> None:
    """The elements of a plain tensor are read where they lie; tied tensors are one run."""
    path = tmp_path / "legacy.bin"
    weight = torch.randn(3, 4)
    torch.save({"a": weight, "b": weight, "c": weight[1:]}, path, _use_new_zipfile_serialization=False)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.manifest.shared == (("a", "b"),)
        first, second = checkpoint.run("a"), checkpoint.run("c")
        assert first is not None and second is not None
        assert second == (0, first[1] + 16)
        assert weight[1:].numpy().tobytes() == whole(checkpoint, "c").tobytes()
        assert any("legacy" in note for note in checkpoint.manifest.notes)


def test_another_protocol_is_known_by_its_content(tmp_path: Path) -> None:
    """With protocol 4 the magic number is framed; the file is the same."""
    path = tmp_path / "legacy.bin"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False, pickle_protocol=4)
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.format == "torch_legacy"
        assert torch.ones(2).numpy().tobytes() == whole(checkpoint, "a").tobytes()


def test_a_cut_storage_is_named(tmp_path: Path) -> None:
    """The error says which storage lacks how much."""
    path = tmp_path / "cut.bin"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"truncated: storage '\d+' takes bytes"):
        open_checkpoint(path)
