from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.engine import kernels
from isomorph.engine.kernels import copy_into
from isomorph.formats.zip.crc import combine_crc, zeros_crc


@settings(deadline=None)
@given(st.data())
def test_a_permuted_copy_is_the_array(data: st.DataObject):
    """Any axes in any order, any width, whatever way it takes through the scratch."""
    shape = data.draw(
        st.lists(st.integers(1, 40), min_size=1, max_size=4).filter(lambda sizes: np.prod(sizes) < 60_000)
    )
    order = data.draw(st.permutations(range(len(shape))))
    width = data.draw(st.sampled_from(["u1", "u2", "u4", "u8", "V16"]))
    raw = np.random.default_rng(0).integers(0, 256, int(np.prod(shape)) * np.dtype(width).itemsize, dtype=np.uint8)
    array = raw.view(width).reshape(shape).transpose(order)
    target = np.zeros(array.shape, width)
    copy_into(target, array)
    assert array.tobytes() == target.tobytes()


@pytest.mark.parametrize("width", ["u1", "u2", "u4", "u8", "V16"])
@pytest.mark.parametrize("shape", [(300, 517), (3, 5000), (5000, 3), (130, 20_000), (64, 33, 65)])
def test_large_transposes_are_right(width: str, shape: tuple[int, ...]):
    """Wider than the scratch, narrower than a strip, and in between."""
    raw = np.random.default_rng(0).integers(0, 256, int(np.prod(shape)) * np.dtype(width).itemsize, dtype=np.uint8)
    array = raw.view(width).reshape(shape).T
    target = np.zeros(array.shape, width)
    copy_into(target, array)
    assert array.tobytes() == target.tobytes()


def test_a_scratch_too_small_for_one_row_still_works(monkeypatch: pytest.MonkeyPatch):
    """Strips are cut along as many axes as it takes."""
    monkeypatch.setattr(kernels, "SCRATCH", 20_000)
    array = np.arange(200 * 30 * 40, dtype="u4").reshape(200, 30, 40).transpose(2, 1, 0)
    target = np.zeros(array.shape, "u4")
    copy_into(target, array)
    assert np.array_equal(array, target)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_crc_is_combined_from_those_of_the_parts(first: bytes, second: bytes):
    """As if the bytes had been read in one go."""
    import zlib

    assert zlib.crc32(first + second) == combine_crc(zlib.crc32(first), zlib.crc32(second), len(second))
    assert zlib.crc32(bytes(len(first))) == zeros_crc(len(first))
