"""Boxes read from files: as many reads as it takes, and the elements are those that `fetch` gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.formats.base import Checkpoint
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.tensors import Manifest
from isomorph.verify import gather as gathering
from isomorph.verify import verify
from isomorph.verify.evaluate import Bench
from isomorph.verify.regions import Leaf, Region, part
from isomorph.verify.tiles import tiles


class Bytes(Checkpoint):
    """Arrays one after the other in one run of bytes, which only `pread` reads. `reads` counts."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = ArrayCheckpoint(arrays)
        self._bytes = b"head" + b"".join(array.tobytes() for array in arrays.values())
        self._places = {}
        self.reads = 0
        at = 4
        for name, array in arrays.items():
            self._places[name] = at
            at += array.nbytes

    @property
    def manifest(self) -> Manifest:
        return self._arrays.manifest

    @property
    def paths(self) -> tuple[Path, ...]:
        return ()

    @property
    def format(self) -> str:
        return "bytes"

    def run(self, name: str) -> tuple[int, int] | None:
        return 0, self._places[name]

    def pread(self, file: int, offset: int, buffer: memoryview) -> None:
        assert 0 <= offset <= offset + len(buffer) <= len(self._bytes)
        buffer[:] = self._bytes[offset : offset + len(buffer)]
        self.reads += 1

    def fetch(self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
        return self._arrays.fetch(name, offset, shape, strides)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from(["u1", "<u2", "<f4", "<f8", "<c16"]),
    st.sampled_from([0, 16, 1 << 14]),
    st.randoms(use_true_random=False),
)
def test_a_box_is_gathered_as_it_is_fetched(shape: list[int], kind: str, cost: int, chance) -> None:
    """Any permuted, cut box; whatever a read is thought to cost, the elements are the same."""
    array = np.arange(np.prod(shape)).astype(kind).reshape(shape)
    memory, file = ArrayCheckpoint({"w": array}), Bytes({"a": array[:1], "w": array})
    spec = memory.manifest["w"]
    steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    starts = [chance.randrange(size) for size in shape]
    sizes = [chance.randint(1, size - start) for size, start in zip(shape, starts, strict=True)]
    order = chance.sample(range(len(shape)), len(shape))
    box = tuple(sizes[axis] for axis in order)
    offset = sum(start * step for start, step in zip(starts, steps, strict=True))
    leaf = Leaf(0, "w", offset, tuple(steps[axis] for axis in order), spec.dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "READ_COST", cost)
        found = gathering.gather(file, leaf, spec.dtype, box, gathering.Buffer())
    expected = memory.fetch("w", offset, box, leaf.strides)
    assert found.shape == box
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 40), st.randoms(use_true_random=False))
def test_tiles_are_the_whole_region_once(shape: list[int], most: int, chance) -> None:
    kind = ArrayCheckpoint({"w": np.zeros(1, np.float32)}).manifest["w"].dtype
    steps = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    turned = chance.sample(steps, len(steps))
    region = Region(tuple(shape), Leaf(0, "w", 0, tuple(steps), kind), Leaf(0, "w", 0, tuple(turned), kind))
    seen = np.zeros(int(np.prod(shape)), int)
    for tile in tiles(region, most):
        assert tile.numel <= most
        leaf = tile.left
        assert isinstance(leaf, Leaf)
        places = np.indices(tile.shape).reshape(len(shape), -1).T @ np.array(leaf.strides)
        seen[places + leaf.offset] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("width", [600, 1024])
@pytest.mark.parametrize("budget", [1 << 20, 256 << 20])
def test_a_transposed_file_is_compared_in_tiles(width: int, budget: int) -> None:
    """Rows of a power of two, and others; one element changed is found in the tile in which it lies."""
    weight = np.random.default_rng(0).standard_normal((512, width)).astype(np.float32)
    turned = np.ascontiguousarray(weight.T)
    program = flatten(parse("w [o i] <-> w [i o]"))
    source, target = Bytes({"w": weight}), Bytes({"w": turned})
    report = verify([program], source, target, max_memory=budget)
    assert report.equal, str(report)
    assert source.reads < 4096
    turned[width - 1, 511] += 1
    turned[3, 500] += 1
    (difference,) = verify([program], source, Bytes({"w": turned}), max_memory=budget).differences
    assert difference.count == 2
    assert difference.first is not None
    assert (difference.first.index, difference.first.source) == ((3, 500), "w[500, 3]")


def test_differences_are_counted_and_the_first_is_first() -> None:
    """Also where elements are 16 bytes wide, and where the sides lie in different orders."""
    bench = Bench({})
    left = np.arange(12, dtype=np.uint32).reshape(3, 4)
    right = np.asfortranarray(left)
    assert bench.differing(left, right) is None
    right[1, 2] = 0
    right[2, 0] = 0
    assert bench.differing(left, right) == (2, 6)
    wide = np.zeros((2, 3), "V16")
    other = wide.copy()
    assert bench.differing(wide, other) is None
    other.view(np.uint64)[1, 3] = 1
    assert bench.differing(wide, other) == (1, 4)


def test_a_part_of_a_region_moves_both_sides() -> None:
    kind = ArrayCheckpoint({"w": np.zeros(1, np.float32)}).manifest["w"].dtype
    region = Region((4, 6), Leaf(0, "a", 1, (6, 1), kind), Leaf(0, "b", 2, (1, 4), kind))
    cut = part(region, 1, 2, 5)
    assert cut == Region((4, 3), Leaf(0, "a", 3, (6, 1), kind), Leaf(0, "b", 10, (1, 4), kind))
