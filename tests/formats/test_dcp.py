"""PyTorch's distributed checkpoints: what torch saved is read bit for bit, and nothing of `.metadata` runs or leads elsewhere."""

from __future__ import annotations

import os
import pickle
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from isomorph import api
from isomorph.cli.app import run
from isomorph.errors import FormatError, UnsafeError
from isomorph.formats.checkpoint import FileCheckpoint
from isomorph.formats.dcp.item import Items
from isomorph.formats.registry import open_checkpoint
from isomorph.formats.source import Source
from isomorph.testing.formats import Array, ReadingConformance, whole

RANKS = Path(__file__).parent / "data" / "dcp"
"""Four ranks on a 2-D mesh, two writing threads each (make_dcp.py)."""


def save(folder: Path, state: Mapping[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is one process only
        dcp.save(dict(state), checkpoint_id=folder, no_dist=True)


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """Name -> tensor, as torch puts a checkpoint together."""
    state: dict[str, Any] = {}
    planner = _EmptyStateDictLoadPlanner()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load_state_dict(state, storage_reader=dcp.FileSystemReader(folder), planner=planner, no_dist=True)
    found: dict[str, torch.Tensor] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            found[prefix] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), inner)

    walk("", state)
    return found


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


class TestDcp(ReadingConformance):
    format = "torch_dcp"
    file_name = ".metadata"
    tries = 200

    def save_with_oracle(self, path: Path, arrays: Mapping[str, Array]) -> None:
        save(path.parent, {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})

    def is_refused_or_reads(self, path: Path) -> bool:
        try:
            with open_checkpoint(path, inner="") as checkpoint:
                assert checkpoint.manifest.nbytes < 1 << 20
                for name in checkpoint.manifest:
                    whole(checkpoint, name)
        except FormatError as error:
            assert str(path.parent) in str(error)
            return True
        return False


class TestItems(TestDcp):
    """The same, with the file that holds the items changed."""

    file_name = "__0_0.distcp"

    def broken_base(self, folder: Path) -> Path:
        save(folder, {"a.weight": torch.randn(3, 4), "b": torch.arange(5)})
        return folder / "__0_0.distcp"

    def is_refused_or_reads(self, path: Path) -> bool:
        return super().is_refused_or_reads(path.parent / ".metadata")

    def test_we_read_what_the_reference_library_writes(self, tmp_path: Path) -> None:
        """Every byte of every item counts: one that is changed is found by its checksum when the checkpoint is verified."""
        path = self.broken_base(tmp_path)
        with open_checkpoint(tmp_path) as checkpoint:
            run = checkpoint.run("a.weight")
            assert run is not None
        raw = bytearray(path.read_bytes())
        raw[run[1] + 5] ^= 1
        path.write_bytes(raw)
        with open_checkpoint(tmp_path) as checkpoint:
            checkpoint.keep_sums()
            whole(checkpoint, "a.weight")
            whole(checkpoint, "b")
            with pytest.raises(FormatError, match=r"damaged: the bytes of `a.weight` are not those that were saved"):
                checkpoint.check_sums()


def test_shards_of_four_ranks_are_what_torch_puts_together() -> None:
    """Bands, uneven bands, columns, a grid, an axis cut twice, ranks without elements; fp8, bf16, a scalar, an empty tensor."""
    expected = loaded(RANKS)
    with open_checkpoint(RANKS) as checkpoint:
        assert checkpoint.format == "torch_dcp"
        assert set(expected) == set(checkpoint.manifest)
        for name, tensor in expected.items():
            assert tuple(tensor.shape) == checkpoint.manifest[name].shape
            assert bits(tensor) == np.ascontiguousarray(whole(checkpoint, name)).tobytes(), name
        runs = checkpoint.runs("model.bands")
        assert runs is not None and [run.numel for run in runs] == [6, 6, 3]
        assert checkpoint.runs("model.grid") is None
        assert {"step": "an object of 1,261 bytes"} == dict(checkpoint.manifest.leaves)
        assert "put together from the chunks of several ranks" in checkpoint.manifest.notes[0]


def test_a_conversion_of_shards_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """convert, verify and inspect as anybody runs them; `#model` enters what the state dict nests."""
    assert run(["convert", f"{RANKS}#model", str(tmp_path / "m.safetensors")]) == 0
    assert run(["verify", f"{RANKS}#model", str(tmp_path / "m.safetensors")]) == 0
    assert "119 of 119 elements" in capsys.readouterr().out
    with api.open(tmp_path / "m.safetensors") as found:
        assert list(range(48)) == [int(each) for each in np.asarray(found["grid"]).reshape(-1)]


def test_many_files_are_not_all_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two, twenty-three are read; one that is replaced meanwhile is an error, not other bytes."""
    monkeypatch.setattr("isomorph.formats.shelf.MOST_OPEN", 2)
    shutil.copytree(RANKS, tmp_path / "c")
    before = len(list(Path("/proc/self/fd").iterdir()))
    expected = loaded(RANKS)
    with open_checkpoint(tmp_path / "c") as checkpoint:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3
        for name, tensor in expected.items():
            assert bits(tensor) == np.ascontiguousarray(whole(checkpoint, name)).tobytes()
        checkpoint.check_unchanged()
        for path in (tmp_path / "c").glob("*.distcp"):
            raw = path.read_bytes()
            path.unlink()
            path.write_bytes(raw)
        with pytest.raises(OSError, match="changed while it was read"):
            for name in expected:
                whole(checkpoint, name)
        with pytest.raises(OSError, match="changed while it was read"):
            checkpoint.check_unchanged()


# Hostile and broken


def altered(folder: Path, change: Any) -> Path:
    """A copy of a small checkpoint whose Metadata went through `change`."""
    save(folder, {"w": torch.arange(12.0).reshape(3, 4), "b": torch.ones(4), "step": 3})
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))
    return folder


def failure(folder: Path) -> str:
    with pytest.raises(FormatError) as caught:
        open_checkpoint(folder)
    return str(caught.value)


def item(metadata: Any, name: str) -> Any:
    return next(info for index, info in metadata.storage_data.items() if index.fqn == name)


@pytest.mark.parametrize(
    "where",
    ["../other.distcp", "/etc/passwd", "a/b.distcp", "..\\x.distcp", "C:x.distcp", "", ".metadata", "x\0.distcp"],
)
def test_paths_out_of_the_folder_are_refused(where: str, tmp_path: Path) -> None:
    """`relative_path` is the name of a .distcp file beside `.metadata`, and nothing else."""

    def change(metadata: Any) -> None:
        item(metadata, "w").relative_path = where

    folder = altered(tmp_path, change)
    with pytest.raises(UnsafeError, match=r"is not a \.distcp file beside it\. Nothing was read from there"):
        open_checkpoint(folder)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    """A .distcp that is a link elsewhere is not followed."""
    save(tmp_path / "c", {"w": torch.ones(2)})
    (tmp_path / "c" / "__0_0.distcp").rename(tmp_path / "elsewhere")
    (tmp_path / "c" / "__0_0.distcp").symlink_to("../elsewhere")
    with pytest.raises(UnsafeError, match=r"a link to \.\./elsewhere, out of its folder"):
        open_checkpoint(tmp_path / "c")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os._exit, (1,))  # whoever runs it ends the tests


def test_code_in_the_metadata_is_not_run(tmp_path: Path) -> None:
    """The pickle is followed, not loaded."""

    def change(metadata: Any) -> None:
        metadata.planner_data = Evil()

    with pytest.raises(UnsafeError, match=r"its pickle would (call|import) posix._exit .*Nothing was executed"):
        open_checkpoint(altered(tmp_path, change))


def set_chunks(metadata: Any, chunks: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    metadata.state_dict_metadata["w"].chunks = [
        ChunkStorageMetadata(torch.Size(start), torch.Size(shape)) for start, shape in chunks
    ]


CHANGES: dict[str, Any] = {
    "the item of `w` at byte 99,999,999": lambda m: setattr(item(m, "w"), "offset", 99_999_999),
    "the item of `w` at byte 0 (4,611,686,018,427,387,904 bytes): truncated": lambda m: (
        setattr(item(m, "w"), "offset", 0), setattr(item(m, "w"), "length", 1 << 62)
    ),
    "`w`: its place is not a file, an offset and a length": lambda m: setattr(item(m, "w"), "offset", -5),
    "the item of `w` at byte": lambda m: setattr(item(m, "w"), "length", 100),
    "tensor `w`: its chunk at [0, 0] should be f32[4], and is f32[3,4]": lambda m: setattr(item(m, "b"), "length", 7) or set_chunks(m, [((0, 0), (4,))]),
    "tensor `w` f32[3,5]: its element [0, 4] lies in no tile": lambda m: setattr(m.state_dict_metadata["w"], "size", torch.Size([3, 5])),
    "1 chunks have no place in its storage_data: `w` [1, 0]": lambda m: set_chunks(m, [((0, 0), (1, 4)), ((1, 0), (2, 4))]),
    "tensor `w` f32[3,4]: it has no chunks": lambda m: set_chunks(m, []),
    "its chunk at [0, 0] should be f32[1099511627776,4], and is f32[3,4]": lambda m: set_chunks(m, [((0, 0), (1 << 40, 4))]),
    "should be bf16[3,4], and is f32[3,4]": lambda m: setattr(m.state_dict_metadata["w"].properties, "dtype", torch.bfloat16),
    "tensor `w`: its dtype torch.qint8 is not one isomorph has": lambda m: setattr(m.state_dict_metadata["w"].properties, "dtype", torch.qint8),
    "were compressed or encrypted by an extension of their writer: `w`": lambda m: setattr(item(m, "w"), "transform_descriptors", ["zstd"]),
    "1 of the 2 files it names is missing: __9_0.distcp": lambda m: setattr(item(m, "w"), "relative_path", "__9_0.distcp"),
    "its Metadata has no storage_data": lambda m: setattr(m, "storage_data", None),
    "its Metadata has no state_dict_metadata": lambda m: setattr(m, "state_dict_metadata", 3),
    "`w` is neither a tensor nor an object": lambda m: m.state_dict_metadata.update(w=None),
    "it has no size and chunks": lambda m: setattr(m.state_dict_metadata["w"], "size", (-1, 3)),
}  # fmt: skip


@pytest.mark.parametrize("message", CHANGES)
def test_metadata_that_lies_is_one_error(message: str, tmp_path: Path) -> None:
    """Offsets, lengths, shapes, dtypes, gaps and overlaps: one message with the tensor and the place."""
    assert message in failure(altered(tmp_path, CHANGES[message]))


def test_an_object_is_a_leaf_whatever_it_is(tmp_path: Path) -> None:
    """Items that are no tensors are pickles of any kind: counted, never opened."""
    save(tmp_path, {"w": torch.ones(2), "evil": Evil})
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    assert isinstance(metadata.state_dict_metadata["evil"], BytesStorageMetadata)
    assert isinstance(metadata.state_dict_metadata["w"], TensorStorageMetadata)
    with open_checkpoint(tmp_path) as checkpoint:
        assert ["w"] == list(checkpoint.manifest)
        assert ["evil"] == list(checkpoint.manifest.leaves)


def test_a_folder_without_its_metadata_says_so(tmp_path: Path) -> None:
    """The dot file is the one that copies leave out."""
    save(tmp_path, {"w": torch.ones(2)})
    (tmp_path / ".metadata").unlink()
    assert "a checkpoint of torch.distributed without its .metadata" in failure(tmp_path)


def test_bands_are_copied_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shards of ranks along the first axis are ranges of bytes, in the engine as well; only a grid passes through arrays."""
    fetched: set[str] = set()
    fetch = FileCheckpoint.fetch

    def counted(self: FileCheckpoint, name: str, *box: Any) -> Any:
        fetched.add(name)
        return fetch(self, name, *box)

    monkeypatch.setattr(FileCheckpoint, "fetch", counted)
    api.convert(f"{RANKS}#model", tmp_path / "m.safetensors", verify=False)
    assert fetched == {"grid", "columns"}
    monkeypatch.undo()
    assert api.verify(f"{RANKS}#model", tmp_path / "m.safetensors")


def test_items_of_a_kind_that_is_known_are_read_as_if_it_were_not(tmp_path: Path) -> None:
    """With a byte of an item flipped (every third by turns) or none: read after others of its shape it is what it is read first."""
    save(tmp_path / "m", {"a": torch.arange(12.0), "b": torch.ones(12), "c": torch.zeros(3, 4)})
    places = {
        index.fqn: info for index, info in dcp.FileSystemReader(tmp_path / "m").read_metadata().storage_data.items()
    }
    file = tmp_path / "m" / places["b"].relative_path
    whole_file, begin, nbytes = bytearray(file.read_bytes()), places["b"].offset, places["b"].length

    def outcome(items: Items) -> object:
        source = Source(file)
        try:
            return items.read(source, begin, nbytes, "`b`"), source.members
        except FormatError as error:
            return type(error), str(error)
        finally:
            source.close()

    primed = Items()
    first = Source(file)
    for name in ("a", "c"):
        primed.read(first, places[name].offset, places[name].length, f"`{name}`")
    first.close()
    kinds = {size: list(kept) for size, kept in primed._kinds.items()}
    assert kinds
    outcomes = set()
    for at in (None, *range(begin, begin + nbytes, 3)):
        flipped = bytearray(whole_file)
        if at is not None:
            flipped[at] ^= 0x41
        file.write_bytes(flipped)
        primed._kinds = {size: list(kept) for size, kept in kinds.items()}
        expected = outcome(Items())
        assert expected == outcome(primed), at
        outcomes.add(str(expected)[-60:])
    assert len(outcomes) > 5
