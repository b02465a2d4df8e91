from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from engine_plans import identity, naive, plan_of, rounded, transposed, whole
from engine_strategies import SOURCE_NUMEL, plans
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isomorph.engine.budget import Budget
from isomorph.engine.run import Written, write
from isomorph.errors import CheckError, UsageError
from isomorph.formats.base import Checkpoint, FileLayout, Literal, OutputLayout
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.formats.registry import lay_out, open_checkpoint
from isomorph.language.tree import Op
from isomorph.plan.moves import Move
from isomorph.plan.plan import Plan

SUFFIXES = [".safetensors", ".pth", ".npz", ".pdparams"]


def convert(plan: Plan, source: Checkpoint, target: Path, **options: object) -> Written:
    layout = lay_out(dict(plan.manifest), target)
    return write(plan, source, layout, target, **options)  # type: ignore[arg-type]


def model(rows: int = 300) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    return {
        "up": generator.standard_normal((rows, 200), dtype="f4"),
        "bias": generator.standard_normal(7, dtype="f4"),
        "down": generator.standard_normal((200, rows), dtype="f4"),
        "empty": np.zeros((0, 3), "f4"),
        "ids": np.arange(5, dtype="i8"),
        "scale": np.array(2.5, "f4"),
    }


def saved(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    path = folder / "source.safetensors"
    source = ArrayCheckpoint(arrays)
    convert(identity(source.manifest), source, path)
    return path


def read(path: Path) -> dict[str, bytes]:
    with open_checkpoint(path) as found:
        return {name: found.fetch(name, 0, (spec.numel,), (1,)).tobytes() for name, spec in found.manifest.items()}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_format_gets_the_bytes_of_the_source(tmp_path: Path, suffix: str, workers: int):
    """Copied, turned and cast, with and without threads; nothing else is left in the folder."""
    arrays = model()
    with open_checkpoint(saved(tmp_path, arrays)) as source:
        same = convert(identity(source.manifest), source, tmp_path / f"same{suffix}", workers=workers)
        convert(transposed(source.manifest), source, tmp_path / f"turned{suffix}", workers=workers)
    assert {name: array.tobytes() for name, array in arrays.items()} == read(tmp_path / f"same{suffix}")
    turned = {name: np.ascontiguousarray(array.T).tobytes() for name, array in arrays.items()}
    assert turned == read(tmp_path / f"turned{suffix}")
    assert same.made == 0 and same.copied == sum(array.nbytes for array in arrays.values())
    assert {"source.safetensors", f"same{suffix}", f"turned{suffix}"} == {path.name for path in tmp_path.iterdir()}
    if suffix in (".pth", ".npz"):
        with zipfile.ZipFile(tmp_path / f"turned{suffix}") as archive:
            assert archive.testzip() is None


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=plans(), workers=st.integers(0, 2), least=st.sampled_from([1, 7, 64, 4096]))
def test_any_plan_in_any_bands_makes_the_same_file(tmp_path: Path, plan: Plan, workers: int, least: int):
    """However little is made at a time, the bytes are those of a plain loop."""
    generator = np.random.default_rng(3)
    arrays = {
        name: generator.integers(0, 256, SOURCE_NUMEL * spec.dtype.nbytes, dtype=np.uint8)
        .view(spec.dtype.numpy)
        .reshape(spec.shape)
        for name, spec in plan.source.items()
    }
    path = tmp_path / "source.safetensors"
    given_arrays = ArrayCheckpoint(arrays)
    layout = lay_out(dict(given_arrays.manifest), path)
    write(identity(given_arrays.manifest), given_arrays, layout, path, overwrite=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Budget, "elements", lambda self, weight, streaming: least)
        patch.setattr(Budget, "chunk", 500)
        target = tmp_path / "target.safetensors"
        with open_checkpoint(path) as source:
            layout = lay_out(dict(plan.manifest), target)
            write(plan, source, layout, target, workers=workers, overwrite=True)
    assert naive(plan, arrays) == read(target)


def test_a_small_budget_gives_the_same_bytes(tmp_path: Path):
    """Many bands of a large tensor, turned and rounded."""
    arrays = {"w": np.random.default_rng(0).standard_normal((3000, 1100), dtype="f4")}
    path = saved(tmp_path, arrays)
    for make in (transposed, rounded):
        with open_checkpoint(path) as source:
            for name, budget in (("small.pth", 4 << 20), ("large.pth", 256 << 20)):
                convert(make(source.manifest), source, tmp_path / name, max_memory=budget, overwrite=True)
        assert (tmp_path / "small.pth").read_bytes() == (tmp_path / "large.pth").read_bytes()


def test_rounding_is_counted_over_all_bands(tmp_path: Path):
    """All elements seen, by target."""
    arrays = {"w": np.full((1000, 1000), 0.1, "f4"), "ids": np.arange(3)}
    with open_checkpoint(saved(tmp_path, arrays)) as source:
        written = convert(rounded(source.manifest), source, tmp_path / "t.safetensors", max_memory=4 << 20)
    assert list(written.changes) == ["w"]
    assert (written.changes["w"].elements, written.changes["w"].changed) == (10**6, 10**6)


def test_a_value_that_is_refused_in_a_late_band_is_named_by_its_place_in_the_tensor(tmp_path: Path):
    """The element's index in the whole tensor, not in the band."""
    array = np.ones((3000, 700), "f4")
    array[2900, 13] = 0.1
    exact = Op("cast", source="f32", target="bf16")
    with open_checkpoint(saved(tmp_path, {"w": array})) as source:
        plan = plan_of(
            source.manifest, {"w": "bf16[3000,700]"}, [Move(whole("w", array.shape), whole("w", array.shape), (exact,))]
        )
        with pytest.raises(CheckError, match=r"w\[2900, 13\]: 0.1\d* is not exactly a bf16"):
            convert(plan, source, tmp_path / "t.safetensors", max_memory=4 << 20)
    assert [path.name for path in tmp_path.iterdir()] == ["source.safetensors"]


def test_shards_and_an_index_are_written_into_a_folder(tmp_path: Path):
    """Everything in order, the folder named at the end."""
    arrays = model()
    with open_checkpoint(saved(tmp_path, arrays)) as source:
        layout = lay_out(dict(source.manifest), tmp_path / "out", format="safetensors", max_shard_size=200_000)
        write(identity(source.manifest), source, layout, tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) > 2
    assert {name: array.tobytes() for name, array in arrays.items()} == read(tmp_path / "out")
    assert {"source.safetensors", "out"} == {path.name for path in tmp_path.iterdir()}


def test_bytes_that_no_part_covers_are_zero_and_count_in_checksums(tmp_path: Path):
    """A record with holes before, between and after its tensors."""
    import zlib

    source = ArrayCheckpoint({"w": np.arange(4, dtype="f4"), "v": np.arange(2, dtype="f4")})
    crcs: list[int] = []

    def trailer(found: object) -> tuple[Literal, ...]:
        crcs.extend(found)  # type: ignore[arg-type]
        return (Literal(95, b"end!!"),)

    layout = FileLayout("x", 100, {"w": 10, "v": 40}, (Literal(0, b"head"),), ((8, 60), (70, 20)), trailer)
    write(identity(source.manifest), source, OutputLayout("x", (layout,)), tmp_path / "x", workers=0)
    data = (tmp_path / "x").read_bytes()
    expected = bytearray(100)
    expected[:4], expected[95:] = b"head", b"end!!"
    expected[10:26], expected[40:48] = np.arange(4, dtype="f4").tobytes(), np.arange(2, dtype="f4").tobytes()
    assert bytes(expected) == data
    assert [zlib.crc32(data[8:68]), zlib.crc32(data[70:90])] == crcs


def test_progress_is_told_seldom_and_ends_at_the_total(tmp_path: Path):
    """Never back, never past the end."""
    told: list[tuple[int, int]] = []
    with open_checkpoint(saved(tmp_path, model())) as source:
        written = convert(identity(source.manifest), source, tmp_path / "t.pth", progress=lambda *at: told.append(at))
    assert sorted(told) == told and told[-1] == (written.nbytes, written.nbytes)


def test_a_budget_too_small_is_refused(tmp_path: Path):
    """With the least that is taken."""
    source = ArrayCheckpoint(model())
    with pytest.raises(UsageError, match="at least 4194304"):
        convert(identity(source.manifest), source, tmp_path / "t.pth", max_memory=1000)
