"""Tensors made of tiles: any box of any grid is what numpy says, and only what covers every element exactly once is read."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.errors import FormatError
from isomorph.formats.base import Contents, Location, Run, Tile
from isomorph.formats.checkpoint import FileCheckpoint
from isomorph.formats.gather import row_major
from isomorph.formats.source import Source
from isomorph.formats.tiles import flaw
from isomorph.tensors import TensorSpec, dtype
from isomorph.testing.formats import whole

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""(start, shape)"""


def cut_up(shape: tuple[int, ...], rng: random.Random, most: int) -> list[Box]:
    """Boxes that cover `shape` once: cut at random places, each part on its own."""
    boxes: list[Box] = [(tuple(0 for _ in shape), shape)]
    for _ in range(rng.randrange(most)):
        number = rng.randrange(len(boxes))
        start, sizes = boxes[number]
        axes = [axis for axis, size in enumerate(sizes) if size > 1]
        if not axes:
            continue
        axis = rng.choice(axes)
        at = rng.randrange(1, sizes[axis])
        first = tuple(at if k == axis else size for k, size in enumerate(sizes))
        rest = tuple(size - at if k == axis else size for k, size in enumerate(sizes))
        begin = tuple(where + at if k == axis else where for k, where in enumerate(start))
        boxes[number : number + 1] = [(start, first), (begin, rest)]
    return boxes


def grid(shape: tuple[int, ...], tile: tuple[int, ...]) -> list[Box]:
    starts = [range(0, size, step) for size, step in zip(shape, tile, strict=True)]
    found: list[Box] = []
    for index in np.ndindex(*map(len, starts)):
        start = tuple(steps[k] for steps, k in zip(starts, index, strict=True))
        sizes = tuple(min(step, size - at) for step, size, at in zip(tile, shape, start, strict=True))
        found.append((start, sizes))
    return found


def saved(folder: Path, array: np.ndarray, boxes: list[Box], rng: random.Random) -> FileCheckpoint:  # type: ignore[type-arg]
    """`array` (u4) in two files, each box on its own: plain, big-endian, transposed or filled with one value."""
    files = [bytearray(b"head"), bytearray(b"x")]
    tiles = []
    for start, sizes in boxes:
        part = np.array(array[tuple(slice(at, at + size) for at, size in zip(start, sizes, strict=True))])
        file = rng.randrange(2)
        place = len(files[file])
        kind = rng.choice(["plain", "plain", "big", "columns", "fill"])
        if kind == "fill" and part.size and (part == part.reshape(-1)[0]).all():
            where = Location(0, 0, encoding="fill", inside=part.reshape(-1)[0].tobytes().hex())
        elif kind == "big":
            files[file] += part.astype(">u4").tobytes()
            where = Location(file, place, None, "big")
        elif kind == "columns":
            files[file] += part.tobytes("F")
            where = Location(file, place, tuple(math.prod(sizes[:axis]) for axis in range(len(sizes))))
        else:
            files[file] += part.tobytes()
            where = Location(file, place)
        tiles.append(Tile(start, sizes, where))
    rng.shuffle(tiles)
    paths = (folder / "a.bin", folder / "b.bin")
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    spec = TensorSpec(dtype("u32"), array.shape)
    contents = Contents(paths, {"w": spec}, {"w": Location(0, 0, tiles=tuple(tiles))}, format="tiled")
    return FileCheckpoint(contents, [Source(path) for path in paths])


@given(
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple),
    seed=st.integers(0, 1 << 30),
    is_grid=st.booleans(),
)
def test_any_box_of_any_tiles_is_what_numpy_says(
    shape: tuple[int, ...], seed: int, is_grid: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Random cuts, random encodings, random boxes of any strides (repeated, backward, across rows): equal to fancy indexing."""
    rng = random.Random(seed)
    array = np.random.default_rng(seed).integers(0, 3 if seed % 2 else 1 << 30, shape).astype("<u4")
    boxes = grid(shape, tuple(rng.randint(1, size) for size in shape)) if is_grid else cut_up(shape, rng, 9)
    boxes += [(tuple(size for size in shape), tuple(0 for _ in shape))] * (len(shape) > 0)  # a rank that holds nothing
    with saved(tmp_path_factory.mktemp("t"), array, boxes, rng) as checkpoint:
        assert array.tobytes() == np.ascontiguousarray(whole(checkpoint, "w")).tobytes()
        flat = array.reshape(-1)
        for _ in range(4):
            sizes, steps, low, high = [], [], 0, 0
            for _ in range(rng.randrange(4)):
                step = rng.choice([0, 1, -1, *row_major(shape), *(-each for each in row_major(shape)), 2, 3])
                room = (flat.size - 1 - (high - low)) // abs(step) if step else 3
                size = rng.randint(1, max(1, min(room + 1, 7)))
                sizes.append(size)
                steps.append(step)
                low, high = low + min(0, (size - 1) * step), high + max(0, (size - 1) * step)
            offset = rng.randint(-low, flat.size - 1 - high)
            index = np.full(sizes, offset)
            for axis, (size, step) in enumerate(zip(sizes, steps, strict=True)):
                index += (np.arange(size) * step).reshape([-1 if k == axis else 1 for k in range(len(sizes))])
            found = checkpoint.fetch("w", offset, sizes, steps)
            assert flat[index].tobytes() == np.ascontiguousarray(found).tobytes()
            assert tuple(sizes) == found.shape


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    boxes=st.data(),
    seed=st.integers(0, 1 << 30),
)
def test_the_proof_of_a_cover_says_what_counting_says(shape: tuple[int, ...], boxes: st.DataObject, seed: int) -> None:
    """Moved, grown, doubled and lost tiles: the corners tell exactly what counting every element does, and the element named is one."""
    rng = random.Random(seed)
    tiles = cut_up(shape, rng, 6)
    for _ in range(rng.randrange(3)):
        number = rng.randrange(len(tiles)) if tiles else 0
        kind = boxes.draw(st.sampled_from(["lose", "double", "other"]))
        if kind == "lose" and tiles:
            del tiles[number]
        elif kind == "double" and tiles:
            tiles.append(tiles[number])
        else:
            start = tuple(rng.randrange(size) for size in shape)
            tiles.append((start, tuple(rng.randint(0, size - at) for size, at in zip(shape, start, strict=True))))
    counts = np.zeros(shape, int)
    for start, sizes in tiles:
        counts[tuple(slice(at, at + size) for at, size in zip(start, sizes, strict=True))] += 1
    found = flaw(shape, [Tile(start, sizes, Location(0, 0)) for start, sizes in tiles])
    if (counts == 1).all():
        assert found is None
    else:
        first = tuple(int(at) for at in np.argwhere(counts != 1)[0])
        times = int(counts[first])
        assert found == f"its element {list(first)} lies in {'no tile' if times == 0 else f'{times} tiles'}"


def test_many_tiles_are_proved_in_time() -> None:
    """A grid of 400 by 500: in proportion to the tiles, and one that is missing is named."""
    where = Location(0, 0)
    tiles = [Tile((i * 7, j * 5), (7, 5), where) for i in range(400) for j in range(500)]
    begin = time.process_time()
    assert flaw((2800, 2500), tiles) is None
    del tiles[100_250]
    assert flaw((2800, 2500), tiles) == "its element [1400, 1250] lies in no tile"
    assert time.process_time() - begin < 10


HOSTILE = {
    "reaches out of the tensor": [Tile((-1, 0), (5, 4), Location(0, 0))],
    "a tile of [3, 4] at [2, 0] reaches out": [Tile((2, 0), (3, 4), Location(0, 0))],
    "a tile of [4, -4] at [0, 4] reaches out": [Tile((0, 4), (4, -4), Location(0, 0))],
    "a tile has 1 axes, the tensor 2": [Tile((0,), (16,), Location(0, 0))],
    "its element [1, 2] lies in 2 tiles": [Tile((0, 0), (4, 4), Location(0, 0)), Tile((1, 2), (1, 1), Location(0, 0))],
    "its element [0, 3] lies in no tile": [Tile((0, 0), (4, 3), Location(0, 0))],
    "its part at [0, 0] of [4, 4]: bytes 4,611,686,018,427,387,904 to 4,611,686,018,427,387,968 are needed": [
        Tile((0, 0), (4, 4), Location(0, 1 << 62))
    ],
    "its part at [0, 0] of [4, 4]: a tile of tiles": [
        Tile((0, 0), (4, 4), Location(0, 0, tiles=(Tile((0, 0), (4, 4), Location(0, 0)),)))
    ],
    "what it is filled with is no element of it": [Tile((0, 0), (4, 4), Location(0, 0, encoding="fill", inside="00"))],
}


@pytest.mark.parametrize("message", HOSTILE)
def test_tiles_that_lie_are_refused(message: str, tmp_path: Path) -> None:
    """Outside, overlapping, leaving gaps, beyond the file, nested: one error that names the tensor and the place."""
    (tmp_path / "a.bin").write_bytes(bytes(64))
    contents = Contents(
        (tmp_path / "a.bin",),
        {"w": TensorSpec(dtype("f32"), (4, 4))},
        {"w": Location(0, 0, tiles=tuple(HOSTILE[message]))},
    )
    with pytest.raises(FormatError) as caught:
        FileCheckpoint(contents, [Source(tmp_path / "a.bin")])
    assert "tensor `w` f32[4,4]: " in str(caught.value)
    assert message in str(caught.value)


def test_many_axes_are_refused_before_they_take_time() -> None:
    """A tile that is cut along 40 axes has 2**40 corners."""
    shape = (2,) * 40
    tiles = [Tile((k % 2,) * 40, (1,) * 40, Location(0, 0)) for k in range(2)]
    assert flaw(shape, tiles) == "2 tiles that are cut along 40 axes are more than are read"


def test_a_value_that_is_not_stored_expands_like_any_other(tmp_path: Path) -> None:
    """A tensor of 4 TB that is one value in the file is a trap."""
    (tmp_path / "a.bin").write_bytes(bytes(64))
    spec = TensorSpec(dtype("f32"), (1 << 20, 1 << 20))
    where = Location(0, 0, encoding="fill", inside="00000000")
    with pytest.raises(FormatError, match="expand 64 bytes of file to 4,398,046,511,104 bytes of tensors"):
        FileCheckpoint(Contents((tmp_path / "a.bin",), {"w": spec}, {"w": where}), [Source(tmp_path / "a.bin")])


def test_bands_are_runs_and_a_grid_is_none(tmp_path: Path) -> None:
    """Tiles along the first axis can be copied as bytes, in order, from whatever files; other tiles cannot."""
    (tmp_path / "a.bin").write_bytes(bytes(range(96)))
    paths = (tmp_path / "a.bin", tmp_path / "a.bin")
    bands = (Tile((3, 0), (1, 4), Location(1, 0)), Tile((0, 0), (3, 4), Location(0, 48)))
    halves = (Tile((0, 0), (4, 2), Location(0, 0)), Tile((0, 2), (4, 2), Location(0, 32)))
    swapped = (*bands[:1], Tile((0, 0), (3, 4), Location(0, 48, None, "big")))
    spec = TensorSpec(dtype("f32"), (4, 4))
    places = {"bands": bands, "halves": halves, "swapped": swapped}
    contents = Contents(
        paths, dict.fromkeys(places, spec), {name: Location(0, 0, tiles=tiles) for name, tiles in places.items()}
    )
    with FileCheckpoint(contents, [Source(path) for path in paths]) as checkpoint:
        assert checkpoint.runs("bands") == [Run(0, 12, 0, 48), Run(12, 4, 1, 0)]
        assert checkpoint.runs("halves") is None
        assert checkpoint.runs("swapped") is None
        assert checkpoint.run("bands") is None
        assert whole(checkpoint, "bands").tobytes() == bytes(range(48, 96)) + bytes(range(16))


def test_only_the_tiles_that_are_wanted_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One column of a grid of 16 tiles touches 4 of them, and a row of one tile reads no more than that row."""
    array = np.arange(64 * 64, dtype="<u4").reshape(64, 64)
    rng = random.Random(1)
    read: list[int] = []
    fill = Source.fill

    def counted(self: Source, offset: int, buffer: memoryview) -> None:
        read.append(len(buffer))
        fill(self, offset, buffer)

    boxes = grid((64, 64), (16, 16))
    monkeypatch.setattr(rng, "choice", lambda kinds: "plain")
    with saved(tmp_path, array, boxes, rng) as checkpoint:
        monkeypatch.setattr(Source, "fill", counted)
        assert checkpoint.fetch("w", 17, (16,), (1,)).tolist()[:15] == list(range(17, 32))
        assert sum(read) == 64
        read.clear()
        assert checkpoint.fetch("w", 20, (64,), (64,)).tolist() == array[:, 20].tolist()
        assert sum(read) <= 4 * 16 * 16 * 4
