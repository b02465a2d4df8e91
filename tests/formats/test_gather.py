"""Boxes: whatever the shape, the strides and the file's own strides, what is fetched is what numpy would index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.formats.base import Contents, Location
from isomorph.formats.checkpoint import FileCheckpoint
from isomorph.formats.gather import compose, read_box, row_major
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.source import Source
from isomorph.tensors import TensorSpec, dtype


def boxes(numel: int) -> st.SearchStrategy[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """(offset, shape, strides) of boxes inside a flat tensor of `numel` elements; strides of any sign, zero among them."""

    @st.composite
    def draw(draw: Any) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
        low = high = draw(st.integers(0, numel - 1))
        offset, shape, strides = low, [], []
        for _ in range(draw(st.integers(0, 4))):
            step = draw(st.integers(-numel, numel))
            room = (numel - 1 - high) // step if step > 0 else low // -step if step < 0 else 3
            size = draw(st.integers(0 if draw(st.integers(0, 20)) == 0 else 1, min(room, 12) + 1))
            shape.append(size)
            strides.append(step)
            reach = max(0, size - 1) * step
            low, high = (low + reach, high) if step < 0 else (low, high + reach)
        order = draw(st.permutations(range(len(shape))))
        return offset, tuple(shape[k] for k in order), tuple(strides[k] for k in order)

    return draw()


def expected(flat: np.ndarray[Any, Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    index = np.full(shape, offset)
    for axis, (size, step) in enumerate(zip(shape, strides, strict=True)):
        index = index + (np.arange(size) * step).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return flat[index] if index.size else np.empty(shape, flat.dtype)


class Held:
    """A file in memory that counts what is asked of it."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.raw = array.tobytes()
        self.calls = self.nbytes = self.largest = 0

    def fill(self, offset: int, buffer: memoryview) -> None:
        assert offset >= 0 and offset + len(buffer) <= len(self.raw), "read outside the tensor"
        buffer[:] = self.raw[offset : offset + len(buffer)]
        self.calls += 1
        self.nbytes += len(buffer)
        self.largest = max(self.largest, len(buffer))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_box_of_a_plain_tensor(data: Any) -> None:
    """A box is the elements `offset + Σ i_k*strides_k`, and nothing outside the tensor is read for it."""
    flat = np.arange(data.draw(st.integers(1, 500)), dtype="<u4")
    offset, shape, strides = data.draw(boxes(flat.size))
    held = Held(flat)
    found = read_box(held.fill, 4 * offset, flat.dtype, shape, strides)
    assert found.shape == shape
    assert np.array_equal(found, expected(flat, offset, shape, strides))
    with ArrayCheckpoint({"w": flat}) as checkpoint:
        assert np.array_equal(checkpoint.fetch("w", offset, shape, strides), found)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_box_of_a_strided_tensor(data: Any, tmp_path_factory: Any) -> None:
    """The file's own strides (a transposed, sliced or repeated view) change nothing of what a box means."""
    rank = data.draw(st.integers(0, 4))
    shape = tuple(data.draw(st.integers(1, 7)) for _ in range(rank))
    if data.draw(st.booleans()):
        order = data.draw(st.permutations(range(rank)))
        inner = row_major([shape[k] for k in order])
        own = tuple(inner[order.index(k)] * data.draw(st.sampled_from([1, 1, 2])) for k in range(rank))
    else:
        own = tuple(data.draw(st.integers(0, 40)) for _ in range(rank))
    reach = 1 + sum((size - 1) * step for size, step in zip(shape, own, strict=True))
    storage = np.random.default_rng(reach).integers(0, 1 << 16, reach, dtype="<u2")
    tensor = np.lib.stride_tricks.as_strided(storage, shape, [2 * step for step in own]).reshape(-1)
    path = tmp_path_factory.getbasetemp() / "strided.raw"
    path.write_bytes(b"head" + storage.tobytes())
    contents = Contents((path,), {"w": TensorSpec(dtype("u16"), shape)}, {"w": Location(0, 4, own)})
    offset, box, strides = data.draw(boxes(tensor.size))
    with FileCheckpoint(contents, [Source(path)]) as checkpoint:
        assert np.array_equal(checkpoint.fetch("w", offset, box, strides), expected(tensor, offset, box, strides))


def test_runs_of_a_transposed_tensor_are_cut_at_its_rows(tmp_path: Path) -> None:
    """A flat run over a transposed tensor, from anywhere to anywhere, in few reads of bounded size."""
    storage = np.arange(300 * 200, dtype="<u4")
    tensor = storage.reshape(300, 200).T.reshape(-1)
    (tmp_path / "w.raw").write_bytes(storage.tobytes())
    contents = Contents(
        (tmp_path / "w.raw",), {"w": TensorSpec(dtype("u32"), (200, 300))}, {"w": Location(0, 0, (1, 200))}
    )
    with FileCheckpoint(contents, [Source(tmp_path / "w.raw")]) as checkpoint:
        assert checkpoint.run("w") is None
        assert checkpoint.manifest.strided == {"w"}
        for low, high in [(0, 60000), (17, 59000), (299, 301), (0, 299), (300, 600), (31, 32), (59999, 60000)]:
            assert np.array_equal(checkpoint.fetch("w", low, (high - low,), (1,)), tensor[low:high])


def test_a_column_is_read_without_the_rest() -> None:
    """One column of a wide matrix takes memory for the column, and no read is larger than the scratch."""
    matrix = np.zeros((256, 65536), "<u2")
    matrix[:, 5] = np.arange(256)
    held = Held(matrix)
    assert np.array_equal(read_box(held.fill, 10, matrix.dtype, (256,), (65536,)), np.arange(256))
    assert (held.calls, held.nbytes) == (256, 512)
    held = Held(matrix)
    read_box(held.fill, 0, matrix.dtype, (256, 1024), (65536, 64))
    assert held.largest <= 1 << 20


def test_compose_says_where_a_box_lies_and_when_it_has_no_single_place() -> None:
    """Boxes inside the axes of a transposed view map to strides; one over an edge does not."""
    assert compose((3, 4), (1, 3), 4, (2,), (4,)) == (1, (1,))
    assert compose((3, 4), (1, 3), 0, (3, 4), (4, 1)) == (0, (1, 3))
    assert compose((3, 4), (1, 3), 2, (4,), (1,)) is None
