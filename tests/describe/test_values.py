"""show, stats and diff read only what they need, and say what is there."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.describe.boxes import find, parse_slice, slabs, values, view
from isomorph.describe.diff import diff
from isomorph.describe.show import show
from isomorph.describe.stats import stats
from isomorph.errors import UsageError
from isomorph.formats.memory import ArrayCheckpoint

Array = np.ndarray[Any, np.dtype[Any]]


def checkpoint(**arrays: Array) -> ArrayCheckpoint:
    return ArrayCheckpoint(arrays)


indices = st.one_of(
    st.integers(-3, 2),
    st.builds(slice, *[st.none() | st.integers(-5, 5)] * 2, st.none() | st.integers(-3, 3).filter(bool)),
    st.just(...),
)


@given(st.lists(indices, max_size=3).filter(lambda keys: sum(one is ... for one in keys) <= 1))
def test_a_view_is_numpys(keys: list[Any]) -> None:
    """Integers, slices and `...` mean what they mean in numpy."""
    array = np.arange(3 * 4 * 5, dtype="f4").reshape(3, 4, 5)
    np.testing.assert_array_equal(array[tuple(keys)], values(checkpoint(a=array), "a", view(array.shape, tuple(keys))))


@given(st.lists(st.integers(0, 5), max_size=4), st.integers(1, 40))
def test_slabs_cover_a_view_once_in_order(shape: list[int], budget: int) -> None:
    """Whatever the budget, the slabs joined are the view."""
    array = np.arange(int(np.prod(shape)), dtype="u1").reshape(shape)
    held = checkpoint(a=array)
    whole = view(tuple(shape), ...)
    parts = [values(held, "a", slab).reshape(-1) for slab in slabs(whole, 1, budget)]
    assert array.reshape(-1).tolist() == [int(one) for part in parts for one in part]
    assert all(part.size <= budget for part in parts)


def test_slices_as_written() -> None:
    """What stands between the brackets is Python's."""
    assert (slice(0, 3), slice(None, 5), -1, ..., slice(None, None, 2)) == parse_slice("0:3, :5, -1, ..., ::2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a[x]", "`x` in [x] is no index; write numbers and ranges, for example  [0, 3:5, ::2, ...]"),
        ("a[9]", "a [2 3] f32: index 9 is out of range for axis 0 of size 2"),
        ("a[0,0,0]", "a [2 3] f32: 3 indices for a tensor of 2 axes, [2 3]"),
        ("a[::0]", "a [2 3] f32: a step of 0 leads nowhere"),
        ("a.weight[0, 1]", "a.weight [1] f32: 2 indices for a tensor of 1 axis, [1]"),
        ("s[0]", "s [] f32: 1 index for a tensor of 0 axes, []"),
        ("a.weigth", "there is no tensor `a.weigth` in this checkpoint; did you mean a.weight?"),
        ("zzz", "there is no tensor `zzz` in this checkpoint; `isomorph inspect --keys` lists its 3 tensors"),
    ],
)
def test_a_slice_that_does_not_fit_is_explained(text: str, message: str) -> None:
    """Where, what, what next."""
    held = ArrayCheckpoint({"a": np.zeros((2, 3), "f4"), "a.weight": np.zeros(1, "f4"), "s": np.zeros((), "f4")})
    with pytest.raises(UsageError) as caught:
        find(held.manifest, text)
    assert message == str(caught.value)


def test_a_name_with_brackets_is_a_name_first() -> None:
    """`w[0]` may be a tensor."""
    held = ArrayCheckpoint({"w": np.zeros(2, "f4"), "w[0]": np.zeros(5, "f4")})
    assert (find(held.manifest, "w[0]")[0], find(held.manifest, "w[0]")[1].shape) == ("w[0]", (5,))


def test_statistics_leave_nan_and_infinities_aside() -> None:
    """They are counted, and the rest is summed."""
    found = stats(checkpoint(a=np.array([1, np.nan, 3, np.inf, -np.inf, 0], "f4")), "a", view((6,), ...))
    assert (found.minimum, found.maximum, found.nans, found.infinities, found.zeros) == (0.0, 3.0, 1, 2, 1)
    assert found.mean == pytest.approx(4 / 3)
    assert found.deviation == pytest.approx(np.std([1, 3, 0]))


@pytest.mark.parametrize(
    "kind", ["f2", "f4", "f8", "i1", "i8", "u2", "?", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, "c8"]
)
def test_every_dtype_has_statistics(kind: Any) -> None:
    """Also those that numpy does not know."""
    found = stats(checkpoint(a=np.array([0, 1, 1], dtype=kind)), "a", view((3,), ...))
    assert (found.numel, found.zeros, found.nans) == (3, 1, 0)


def test_large_integers_stay_whole() -> None:
    """No rounding through f64."""
    found = stats(checkpoint(a=np.array([2**63 - 1, 0], "i8")), "a", view((2,), ...))
    assert found.maximum == 2**63 - 1


def test_a_large_tensor_is_shown_by_its_edges() -> None:
    """As numpy shows it."""
    array = np.arange(40 * 50, dtype="i4").reshape(40, 50)
    with np.printoptions(threshold=10, edgeitems=3, linewidth=120):
        assert str(array) in str(show(checkpoint(a=array), "a"))


def test_a_slice_is_shown_whole() -> None:
    """Values, then what can be counted."""
    array = np.arange(40 * 50, dtype="f4").reshape(40, 50)
    assert str(show(checkpoint(a=array), "a[1, :3]")).splitlines() == [
        "a  [40 50] f32  8.00 kB   showing [1, :3]: [3]",
        "[50. 51. 52.]",
        "3 elements · min 50 · max 52 · mean 51 · std 0.8164966 · NaN 0 · Inf 0 · zero 0",
    ]


def test_nan_in_json_is_text() -> None:
    """JSON knows no NaN."""
    assert show(checkpoint(a=np.array([np.nan, 1], "f4")), "a").to_json()["values"] == ["nan", 1.0]


def test_diff_names_everything() -> None:
    """Names, shapes and values, each with its sign, and the count at the end."""
    left = ArrayCheckpoint(
        {"same": np.ones(2, "f4"), "gone": np.ones(2, "f4"), "s": np.ones((2, 3), "f4"), "v": np.ones((2, 2), "f4")}
    )
    changed = np.ones((2, 2), "f4")
    changed[1, 0] = 1.5
    right = ArrayCheckpoint(
        {"same": np.ones(2, "f4"), "new": np.ones(2, "f2"), "s": np.ones((3, 2), "f4"), "v": changed}
    )
    assert list(diff(left, right, with_values=True).lines()) == [
        "- gone  [2] f32",
        "+ new  [2] f16",
        "! s  [2 3] f32 and [3 2] f32",
        "~ v [2 2] f32: 1 of 4 elements differ, by at most 0.5; first at [1, 0]: 1.0 and 1.5",
        "different: 1 only in the first, 1 only in the second, 1 of another shape or dtype, 1 with other values; 1 the same"
        " · 6 elements compared, bit for bit",
    ]


def test_diff_is_bit_exact() -> None:
    """Another NaN and -0.0 for 0.0 are differences."""
    nan = np.array([0x7FC00000, 0], "u4").view("f4")
    other = np.array([0x7FC00001, 0x80000000], "u4").view("f4")
    (found,) = diff(checkpoint(a=nan), checkpoint(a=other), with_values=True).values
    assert (
        found.different,
        found.first,
        found.left,
        found.right,
    ) == (2, (0,), "nan (bits 0x7fc00000)", "nan (bits 0x7fc00001)")


def test_equal_checkpoints_say_how_much_was_compared() -> None:
    """Zero compared is visible."""
    held = checkpoint(a=np.ones(3, "f4"))
    assert list(diff(held, held, with_values=True).lines()) == [
        "equal: 1 tensor, names, shapes, dtypes and every element · 3 elements compared, bit for bit"
    ]
