"""Fingerprints: one value hashes alike in every dtype, sums are sums, and streaming gives what a plain reading of the whole gives."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.registry import open_checkpoint
from isomorph.infer.by_value import fibres, hashing
from isomorph.infer.by_value import fingerprint as printing
from isomorph.infer.by_value.fibres import NOTHING, FibreSums, digest, levels
from isomorph.infer.by_value.fingerprint import Print, fingerprint, fingerprints
from isomorph.infer.by_value.hashing import hash_elements, hash_of, mix, total
from isomorph.infer.texts import number_text
from isomorph.operators.casting import cast
from isomorph.operators.numbers import decode, encode
from isomorph.tensors import DTYPES, OPAQUE_DTYPES, DType

Array = np.ndarray[Any, np.dtype[Any]]

F16, BF16, F32, F64, I64 = (DTYPES[name] for name in ("f16", "bf16", "f32", "f64", "i64"))
FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_float]
INTEGERS = [dtype for dtype in DTYPES.values() if dtype.is_integer]


def chance(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some_bits(dtype: DType, count: int, seed: int = 0) -> Array:
    """Elements of any dtype: all kinds of numbers, NaN and infinities too."""
    raw = chance(seed).integers(0, 256, count * dtype.nbytes, dtype=np.uint8)
    return (raw % 2 if dtype.kind == "bool" else raw).view(dtype.bits)


def one(array: Array, dtype: DType | None = None, **more: Any) -> Print:
    dtypes = {"x": dtype} if dtype is not None else None
    return fingerprint(ArrayCheckpoint({"x": array}, dtypes=dtypes), "x", **more)


# ── hashes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("narrow", [dtype for dtype in FLOATS if dtype.nbytes <= 4], ids=str)
def test_a_value_hashes_alike_in_every_wider_dtype(narrow: DType) -> None:
    bits = some_bits(narrow, 3000)
    expected = hash_elements(bits, narrow)
    for wide in (F32, F64):
        assert np.array_equal(hash_elements(cast(bits, narrow, wide, rounding=False), wide), expected)


@given(st.integers(-(2**63), 2**64 - 1))
def test_integers_hash_by_value_and_apart_from_floats(value: int) -> None:
    held = [dtype for dtype in INTEGERS if _fits(value, dtype)]
    hashes = {hash_of(encode(value, dtype), dtype) for dtype in held}
    assert len(hashes) == 1
    if abs(value) < 2**24:
        assert hash_of(encode(value, F32), F32) not in hashes
    if value >= 2**63:
        assert hash_of(encode(value - 2**64, I64), I64) not in hashes


def _fits(value: int, dtype: DType) -> bool:
    info = np.iinfo(dtype.numpy)
    return info.min <= value <= info.max


def test_domains_differ() -> None:
    ones = {
        hash_of(encode(1, dtype), dtype)
        for dtype in (F32, I64, DTYPES["bool"], DTYPES["c64"], *OPAQUE_DTYPES.values())
        if dtype.kind != "opaque"
    }
    ones |= {hash_of(1, dtype) for dtype in OPAQUE_DTYPES.values()}
    assert len(ones) == 4 + len(OPAQUE_DTYPES)
    assert hash_of(encode(1, DTYPES["c64"]), DTYPES["c64"]) == hash_of(encode(1, DTYPES["c128"]), DTYPES["c128"])
    assert hash_of(encode(-0.0, F32), F32) != hash_of(0, F32) != 0


def test_an_f64_that_f32_does_not_hold_has_its_own_hash() -> None:
    values = np.array([0.1, np.float64(np.float32(0.1)), 1e300, np.inf, -0.0])
    hashes = hash_elements(values, F64)
    narrow = hash_elements(values[[1, 3, 4]].astype(np.float32), F32)
    assert np.array_equal(hashes[[1, 3, 4]], narrow)
    assert len(set(hashes.tolist())) == 5


@pytest.mark.parametrize("dtype", [BF16, F32, I64], ids=str)
def test_sums_of_two_neighbours_never_meet(dtype: DType) -> None:
    start = 0x3F80 if dtype == BF16 else 0x3F800000 if dtype == F32 else 0
    hashes = hash_elements(np.arange(start, start + 500).astype(dtype.bits), dtype)
    sums = np.add.outer(hashes, hashes)[np.triu_indices(500)]
    assert len(np.unique(sums)) == len(sums)


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64], ids=str)
def test_turning_signs_does_not_cancel(dtype: DType) -> None:
    values = np.abs(chance().standard_normal(4000)).astype(dtype.numpy)
    values = np.unique(values)
    gaps = hash_elements(values, dtype) - hash_elements((-values).astype(dtype.numpy), dtype)
    assert len(np.unique(gaps)) == len(values)


@pytest.mark.parametrize("dtype", [F32, F64, I64, BF16], ids=str)
def test_every_bit_of_an_element_turns_half_of_the_hash(dtype: DType) -> None:
    bits = some_bits(dtype, 4000)
    before = hash_elements(bits, dtype)
    for bit in range(8 * dtype.nbytes):
        turned = hash_elements(bits ^ bits.dtype.type(1 << bit), dtype) ^ before
        shares = [((turned >> np.uint64(place)) & np.uint64(1)).mean() for place in range(64)]
        assert 0.4 < min(shares) and max(shares) < 0.6


def test_hashing_takes_any_layout_and_fills_out() -> None:
    values = chance().standard_normal((70, 90)).astype(np.float32)
    out = np.empty((90, 70), np.uint64)
    assert hash_elements(values.T, F32, out=out) is out
    assert np.array_equal(out, hash_elements(values, F32).T)
    assert hash_elements(np.empty((0, 3), np.float32), F32).shape == (0, 3)


# ── sums along axes ──────────────────────────────────────────────────────────────────────────────────────────────────


def plain(hashes: Array) -> tuple[int, tuple[Any, ...]]:
    """The sum, and the digests of the axes, of a whole array of hashes."""
    if hashes.size == 0:
        return 0, (NOTHING,) * hashes.ndim
    others = [tuple(k for k in range(hashes.ndim) if k != axis) for axis in range(hashes.ndim)]
    return total(hashes), tuple(digest(np.atleast_1d(np.add.reduce(hashes, axis=each))) for each in others)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 9), max_size=5),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.sampled_from([1, 4, 16, 1 << 15]),
)
def test_streams_in_parts_of_any_length_give_the_same(shape: list[int], steps: list[int], together: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fibres, "TOGETHER", together)
        hashes = mix(np.arange(math.prod(shape), dtype=np.uint64), 0)
        sums = FibreSums(shape)
        start, turn = 0, 0
        while start < hashes.size:
            step = steps[turn % len(steps)]
            sums.feed(hashes[start : start + step])
            start, turn = start + step, turn + 1
        assert sums.finish() == plain(hashes.reshape(shape))


@pytest.mark.parametrize("shape", [(70000, 2), (3, 40000), (300, 7, 40), (5, 1, 40000, 2), (100_001,)])
def test_larger_than_a_tile(shape: tuple[int, ...]) -> None:
    values = chance().standard_normal(shape).astype(np.float32)
    found = one(values)
    assert (found.total, found.axes) == plain(hash_elements(values, F32))


def test_parts_of_a_digest_add_up() -> None:
    sums = mix(np.arange(100_000, dtype=np.uint64))
    whole, parts = digest(sums), [digest(sums[low : low + 33_333], low) for low in range(0, 100_000, 33_333)]
    assert whole.ordered == sum(part.ordered for part in parts) % 2**64
    assert whole.multiset == sum(part.multiset for part in parts) % 2**64
    swapped = sums.copy()
    swapped[[5, 40_005]] = swapped[[40_005, 5]]
    assert digest(swapped).multiset == whole.multiset and digest(swapped).ordered != whole.ordered


def test_levels() -> None:
    assert levels((64, 3, 16, 16)) == [(64,), (3, 16, 16)]
    assert levels((4096, 4096)) == [(4096,), (4096,)]
    assert levels((2, 3)) == [(2, 3)] and levels(()) == []


@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 99))
def test_transposes_permutations_and_parts(rows: int, columns: int, seed: int) -> None:
    values = chance(seed).standard_normal((rows, columns)).astype(np.float32)
    found, turned = one(values), one(values.T.copy())
    assert turned.total == found.total and turned.axes == found.axes[::-1]
    mixed = one(values[chance(seed).permutation(rows)])
    assert mixed.total == found.total and mixed.axes[1] == found.axes[1]
    assert mixed.axes[0].multiset == found.axes[0].multiset
    assert (one(values[:1]).total + one(values[1:]).total) % 2**64 == found.total
    assert one(values.reshape(-1)).total == found.total
    assert one(values[:, None]).axes[0::2] == found.axes


def test_a_square_matrix_is_told_from_its_transpose() -> None:
    values = chance().standard_normal((8, 8)).astype(ml_dtypes.bfloat16)
    assert one(values).axes[0] != one(values.T).axes[0] and one(values).total == one(values.T).total


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_files_of_all_kinds_give_the_prints_of_arrays(tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    values: dict[str, Array] = {
        "w": chance().standard_normal((300, 200)).astype(np.float32),
        "h": chance(1).standard_normal((5, 3, 2, 2)).astype(np.float16),
        "n": np.arange(9, dtype=np.int64),
        "none": np.empty((0, 4), np.float32),
        "one": np.array(2.5),
    }
    expected = fingerprints(ArrayCheckpoint(values), casts=[BF16])
    save_file(values, tmp_path / "a.safetensors")
    _savez(tmp_path / "b.npz", {name: np.array(array, order="F") for name, array in values.items()})
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in values.items()}
    _savez(tmp_path / "c.npz", swapped, packed=True)
    transposed = {
        name: torch.from_numpy(array.T.copy()).permute(*range(array.ndim)[::-1]) if array.ndim else torch.tensor(array)
        for name, array in values.items()
    }
    torch.save(transposed, tmp_path / "d.pt")
    for file in ("a.safetensors", "b.npz", "c.npz", "d.pt"):
        with open_checkpoint(tmp_path / file) as checkpoint:
            found = fingerprints(checkpoint, casts=[BF16], max_memory=1 << 20)
        assert found == {name: expected[name] for name in found} and len(found) == 5


def _savez(path: Path, arrays: dict[str, Any], packed: bool = False) -> None:
    (np.savez_compressed if packed else np.savez)(path, **arrays)


def test_memory_is_bounded_and_long_axes_are_read_in_stripes(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    values = {"w": chance().standard_normal((3, 1_500_000), dtype=np.float32)}
    expected = one(values["w"], casts=[BF16])
    save_file(values, tmp_path / "w.safetensors")
    with open_checkpoint(tmp_path / "w.safetensors") as checkpoint:
        fingerprints(checkpoint, casts=[BF16])  # tables are made once
        tracemalloc.start()
        found = fingerprints(checkpoint, casts=[BF16], max_memory=4 << 20)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found["w"] == expected
    assert peak < 6 << 20


@pytest.mark.parametrize("shape", [(2, 40_000, 3), (2, 3, 50_000), (40_000, 40)])
def test_stripes_of_any_axis(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    values = chance().standard_normal(shape).astype(np.float32)
    expected = one(values, casts=[F16, I64])
    monkeypatch.setattr(printing, "TOGETHER", 16)
    assert one(values, casts=[F16, I64], max_memory=1 << 12) == expected


def test_nothing_is_held_for_an_empty_tensor_of_any_shape() -> None:
    found = one(np.empty((0, 5, 10**12), np.float32), casts=[BF16])
    assert (found.total, found.axes, found.casts["bf16"].axes) == (0, (NOTHING,) * 3, (NOTHING,) * 3)


def test_progress_and_names() -> None:
    checkpoint = ArrayCheckpoint({name: np.zeros((4, 5), np.float32) for name in "abc"})
    seen: list[int] = []
    assert list(fingerprints(checkpoint, names=["c", "a"], progress=seen.append)) == ["a", "c"]
    assert sum(seen) == 2 * 80


# ── facts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_zeros_infinities_and_the_one_value() -> None:
    nan, inf = np.nan, np.inf
    cases: list[tuple[Any, DType | None, tuple[Any, ...]]] = [
        (np.array([0, -0.0, 1], np.float32), None, (None, 2, True, False)),
        (np.array([[0, 0]], np.float32), None, ("0", 2, True, True)),
        (np.array([-0.0], np.float16), None, ("-0", 1, True, True)),
        (np.array([0.1, 0.1], np.float32), None, ("0.1", 0, True, True)),
        (np.array([nan, nan], np.float32), None, (None, 0, False, True)),
        (np.array([1, inf], np.float64), None, (None, 0, False, False)),
        (np.array([-inf], np.float32), None, ("-inf", 0, False, True)),
        (np.array([3, 3], ml_dtypes.bfloat16), None, ("3", 0, True, True)),
        (np.array([448, -448], ml_dtypes.float8_e4m3fn), None, (None, 0, True, False)),
        (np.array([0x7F], np.uint8), DTYPES["f8e4m3"], (None, 0, False, True)),
        (np.array([True, True]), None, ("1", 0, True, True)),
        (np.array([-7, -7], np.int8), None, ("-7", 0, True, True)),
        (np.array([2**64 - 1], np.uint64), None, (str(2**64 - 1), 0, True, True)),
        (np.array([2, 2], np.complex64), None, ("2", 0, True, True)),
        (np.array([0, 2j], np.complex128), None, (None, 1, True, False)),
        (np.array([7, 7], np.uint8), OPAQUE_DTYPES["f8e8m0"], (None, 0, True, True)),
        (np.empty((0, 2), np.float32), None, (None, 0, True, False)),
        (np.array(1.5, np.float32), None, ("1.5", 0, True, True)),
    ]
    for array, dtype, expected in cases:
        found = one(array, dtype)
        assert (found.constant, found.n_zero, found.finite, found.same) == expected
        assert found.numel == array.size and found.shape == array.shape and len(found.axes) == array.ndim


def test_one_different_element_far_away_is_no_constant() -> None:
    values = np.ones(200_000, np.float32)
    assert one(values).constant == "1"
    values[-1] = 2
    assert one(values).constant is None and not one(values).same


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS], ids=str)
def test_texts_are_that_number(dtype: DType) -> None:
    for bits in some_bits(dtype, 200).tolist():
        text = number_text(bits, dtype)
        if text is None:
            assert math.isnan(decode(bits, dtype).real)
        elif text.endswith("inf"):
            assert encode(float(text), dtype) == bits
        else:
            assert "e" not in text
            assert encode(-0.0 if text == "-0" else Fraction(text), dtype) == bits


def test_texts_are_short() -> None:
    assert number_text(encode(Fraction(1, 10), BF16), BF16) == "0.1"
    assert number_text(encode(Fraction(1, 100_000), F32), F32) == "0.00001"
    assert number_text(encode(100_000, F32), F32) == "100000"
    assert number_text(encode(0.08838834764831845, F32), F32) == "0.088388346"


# ── casts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("target", FLOATS, ids=str)
@pytest.mark.parametrize("source", [*FLOATS, DTYPES["i8"], DTYPES["i32"], I64, DTYPES["bool"]], ids=str)
def test_rounded_prints_are_those_of_the_rounded_tensor(source: DType, target: DType) -> None:
    bits = some_bits(source, 600, seed=3).reshape(20, 30)
    found = one(bits, source, casts=[target])
    if target.name not in found.casts:
        assert found.total == one(cast(bits, source, target, rounding=True), target).total
        return
    made = cast(bits, source, target, rounding=True, saturate=True)
    casted, expected = found.casts[target.name], one(made, target)
    assert (casted.total, casted.axes) == (expected.total, expected.axes)
    back = cast(made, target, source, rounding=True, saturate=True)
    assert casted.exact == (np.array_equal(back, bits) and not casted.saturated)


def test_exact_and_saturated() -> None:
    exact = np.array([1, 0.5, -0.0, np.inf], np.float32)
    assert one(exact, casts=[BF16, F16]).casts["bf16"].exact and one(exact, casts=[F16]).casts["f16"].exact
    assert not one(np.array([0.1], np.float32), casts=[F16]).casts["f16"].exact
    large = one(np.array([1, 1e6], np.float32), casts=[F16]).casts["f16"]
    assert large.saturated and not large.exact
    assert not one(exact, casts=[F16]).casts["f16"].saturated


def test_to_integers_exactly_or_not_at_all() -> None:
    assert one(np.array([1, 2], np.float32), casts=[I64]).casts["i64"].total == one(np.array([1, 2])).total
    for values in ([1.5], [np.nan], [-0.0], [1e30]):
        assert "i64" not in one(np.array(values, np.float32), casts=[I64]).casts
    flags = one(np.array([True, False]), casts=[DTYPES["u8"]])
    assert flags.casts["u8"].total == one(np.array([1, 0], np.uint8)).total and flags.casts["u8"].exact
    assert one(np.array([3], np.uint8), DTYPES["bool"], casts=[F32]).casts == {}


def test_nothing_is_cast_where_the_hash_is_the_same() -> None:
    everything = [*DTYPES.values(), *OPAQUE_DTYPES.values()]
    assert "f32" not in one(np.array([1], np.float16), casts=everything).casts
    assert not {"i64", "u8"} & set(one(np.array([1], np.int32), casts=everything).casts)
    assert set(one(np.array([0.1], np.complex128), casts=everything).casts) == {"c64"}
    assert one(np.array([1], np.uint8), OPAQUE_DTYPES["f8e8m0"], casts=everything).casts == {}


def test_hashing_by_tiles_of_another_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bits = some_bits(F64, 1000)
    expected = hash_elements(bits, F64)
    monkeypatch.setattr(hashing, "TILE", 7)
    assert np.array_equal(hash_elements(bits, F64), expected)
