"""What users hold in Python: few names, lazy values, and the same words as the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import isomorph as iso

MORPH = """\
layers.{l}.{p=q|k|v}.w [o i] <-> blocks.{l}.qkv.w [(p o) i]
heads [(h d)] <-> heads [h d]
"""


@pytest.fixture
def arrays() -> dict[str, Any]:
    numbers = np.random.default_rng(3)
    found = {f"layers.0.{part}.w": numbers.standard_normal((4, 6)).astype("f4") for part in "qkv"}
    return {**found, "heads": np.arange(12, dtype="f4")}


@pytest.fixture
def source(tmp_path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(tmp_path / "source.npz", **arrays)
    return tmp_path / "source.npz"


def test_the_public_names_are_few_and_all_there() -> None:
    """What `from isomorph import *` gives is what is listed, once."""
    assert sorted(iso.__all__) == iso.__all__
    assert [name for name in iso.__all__ if not hasattr(iso, name)] == []
    assert dir(iso) == sorted(iso.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        iso.nothing  # noqa: B018 # the access is the test


def test_open_is_lazy(source: Path, arrays: dict[str, Any]) -> None:
    """Shapes and dtypes come from the header; slices read only themselves; asarray reads all."""
    with iso.open(source) as sd:
        assert (list(sd), len(sd), "heads" in sd, "tails" in sd) == (list(arrays), 4, True, False)
        tensor = sd["layers.0.q.w"]
        assert (tensor.shape, str(tensor.dtype), tensor.nbytes, tensor.ndim, tensor.size, len(tensor)) == (
            (4, 6),
            "f32",
            96,
            2,
            24,
            4,
        )
        np.testing.assert_array_equal(arrays["layers.0.q.w"][1:3, ::-2], tensor[1:3, ::-2])
        np.testing.assert_array_equal(arrays["layers.0.q.w"], np.asarray(tensor))
        np.testing.assert_array_equal(arrays["layers.0.q.w"].astype("f8"), np.asarray(tensor, dtype="f8"))
        assert repr(tensor) == "LazyTensor('layers.0.q.w', f32[4,6])"
        with pytest.raises(KeyError, match=r"layers\.0\.q\.x \(did you mean layers\.0\.q\.w"):
            sd["layers.0.q.x"]
        with pytest.raises(TypeError, match=r"numpy\.asarray\(tensor\)\[\.\.\.\]"):
            tensor[[0, 1]]
        assert "4 tensors" in str(sd)
        assert "<pre" in sd._repr_html_()
        assert sd.keys_text().splitlines()[0] == "heads         [12]   f32"


def test_a_plan_is_proved_printed_and_carried_out(source: Path, arrays: dict[str, Any], tmp_path: Path) -> None:
    """plan → print → state_dict → write → verify."""
    sd = iso.open(source)
    morph = iso.morph(text=MORPH)
    plan = morph.plan(sd, h=3)
    assert "q 4 │ k 4 │ v 4" in str(plan)
    assert "<pre" in plan._repr_html_()
    state = plan.state_dict()
    np.testing.assert_array_equal(
        np.concatenate([arrays[f"layers.0.{part}.w"] for part in "qkv"]), state["blocks.0.qkv.w"]
    )
    assert state["heads"].shape == (3, 4)
    done = plan.write(tmp_path / "out.safetensors")
    assert "verified  84 of 84 elements" in str(done)
    assert iso.verify(sd, tmp_path / "out.safetensors", morph, h=3).equal
    back = morph.inverse.plan(iso.open(tmp_path / "out.safetensors"))
    for name, array in back.state_dict().items():
        np.testing.assert_array_equal(arrays[name], array)


def test_every_gap_is_in_one_error(source: Path) -> None:
    """MorphError holds them as data."""
    with pytest.raises(iso.MorphError) as caught:
        iso.morph(text="layers.{l}.q.w <-> q.{l}\nnothing <-> nothing\n").plan(source)
    assert {"unmatched", "idle"} <= caught.value.kinds


def test_verify_raises_or_reports(source: Path, tmp_path: Path, arrays: dict[str, Any]) -> None:
    """Different holds the report; check=False gives it."""
    changed = {**arrays, "heads": arrays["heads"] + 1}
    with pytest.raises(iso.Different, match="heads"):
        iso.verify(source, changed)
    assert not iso.verify(source, changed, check=False).equal
    assert iso.verify(source, arrays).equal


def test_convert_is_the_command(source: Path, tmp_path: Path) -> None:
    """The same names, the same words."""
    done = iso.convert(source, tmp_path / "half.safetensors", dtype="bf16")
    assert str(done).startswith(f"wrote     {tmp_path / 'half.safetensors'} · 4 tensors (4 cast or computed)")
    with pytest.raises(iso.RefusedError, match="exists"):
        iso.convert(source, tmp_path / "half.safetensors")
    assert str(iso.open(tmp_path / "half.safetensors")["heads"].dtype) == "bf16"


@pytest.mark.parametrize("workers", [0, -1, 257, "2", 1.5])
def test_a_number_of_threads_is_one(source: Path, tmp_path: Path, workers: Any) -> None:
    """As on the command line: 0 is not taken for the usual number."""
    with pytest.raises(ValueError, match=r"^workers=.*: a number of threads is from 1 to 256$"):
        iso.convert(source, tmp_path / "out.npz", workers=workers)
    assert not (tmp_path / "out.npz").exists()
    iso.convert(source, tmp_path / "out.npz", workers=1)


def test_a_chain_is_of_morphs() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        iso.morph(text="** <-> **\n") @ "other.morph"


def test_torch_tensors_come_in_and_go_out() -> None:
    """bf16, f8, views and integers, bit for bit; --like takes a module."""
    state = {
        "a": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "b": torch.arange(6).reshape(2, 3).t(),
        "c": torch.arange(4, dtype=torch.float32).to(torch.float8_e4m3fn),
        "d": torch.tensor(True),
    }
    plan = iso.morph(text="** <-> x.**\n").plan(state)
    made = plan.state_dict("torch")
    for name, tensor in state.items():
        assert (made[f"x.{name}"].dtype, made[f"x.{name}"].shape) == (tensor.dtype, tensor.shape)
        assert bool((made[f"x.{name}"].float() == tensor.float()).all())
    model = torch.nn.Linear(3, 2)
    assert iso.morph(text="x.** <-> **\n").plan(
        {"x.weight": np.zeros((2, 3), "f4"), "x.bias": np.zeros(2, "f4")}, like=model
    )
    with pytest.raises(iso.MorphError, match="bias"):
        iso.morph(text="x.** <-> **\n").plan({"x.weight": np.zeros((2, 3), "f4")}, like=model)


PADDLE = """
import ml_dtypes, paddle
import isomorph as iso
state = {"a": paddle.to_tensor([[1.0, 2.0]], dtype="bfloat16"), "b": paddle.to_tensor([1, 2])}
plan = iso.morph(text="** <-> x.**").plan(state)
made = plan.state_dict("paddle")
assert (made["x.a"].dtype, made["x.b"].dtype) == (paddle.bfloat16, paddle.int64)
assert made["x.a"].astype("float32").tolist() == [[1.0, 2.0]]
assert plan.state_dict()["x.a"].dtype == ml_dtypes.bfloat16
"""


def test_paddle_tensors_come_in_and_go_out() -> None:
    """bf16 too, which paddle hands out as uint16. (In an interpreter of its own: paddle warns when it is imported.)"""
    done = subprocess.run([sys.executable, "-c", PADDLE], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_no_source_is_said(tmp_path: Path) -> None:
    """UsageError names the kind; a library that is not known too."""
    with pytest.raises(iso.UsageError, match="not a int"):
        iso.convert(3, tmp_path / "x.npz")
    with pytest.raises(iso.UsageError, match="numpy, torch or paddle; not 'jax'"):
        iso.morph(text="** <-> **\n").plan({"a": np.zeros(1, "f4")}).state_dict("jax")
    with pytest.raises(iso.UsageError, match="`a` is no array that can be carried"):
        iso.morph(text="** <-> **\n").plan({"a": np.zeros(1, "f4")}, like={"a": np.array(["x"])})


def test_a_chain_in_python(source: Path) -> None:
    """first @ second."""
    first, second = iso.morph(text=MORPH), iso.morph(text="blocks.{l}.qkv.w [o i] <-> h.{l} [i o]\nheads <-> heads\n")
    assert (first @ second).plan(source, h=3).manifest["h.0"].shape == (6, 12)


def test_a_morph_from_a_package() -> None:
    """`package:path.morph` is found without importing the package."""
    morph = iso.morph("isomorph:demo/clip_vision_fused.morph")
    assert "qkv_proj" in str(morph)
    assert "<pre" in morph._repr_html_()


def test_nothing_is_not_converted(tmp_path: Path) -> None:
    """A checkpoint without elements proves nothing: it is refused before anything is written."""
    with pytest.raises(iso.UsageError, match="every tensor it makes is empty"):
        iso.convert({"w": np.zeros((0, 3), np.float32)}, tmp_path / "out.safetensors")
    with pytest.raises(iso.UsageError, match="it makes no tensor"):
        iso.convert({"w": np.zeros(3, np.float32)}, tmp_path / "out.safetensors", iso.morph(text="drop **"))
    assert [] == list(tmp_path.iterdir())


def test_a_size_is_a_whole_number(source: Path) -> None:
    """A float or a negative size is refused before anything is planned."""
    for size in (2.0, -1, True, "2"):
        with pytest.raises(iso.UsageError, match="a size is a whole number"):
            iso.morph(text="** <-> **").plan(source, heads=size)


def test_a_misspelt_option_is_no_axis(source: Path, tmp_path: Path) -> None:
    """Axes are given by name, so a slip in an option looks like one: its value tells."""
    with pytest.raises(iso.UsageError, match=r"dype='bf16': .*Did you mean the option dtype\?"):
        iso.convert(source, tmp_path / "out.safetensors", dype="bf16")


def test_sizes_are_written_as_on_the_command_line(source: Path, tmp_path: Path) -> None:
    """`5GB` and `256MB` are read; what is no size is refused before anything is opened."""
    done = iso.convert(source, f"{tmp_path}/out/", max_shard_size="200B", max_memory="8MiB")
    assert len(done.outputs[0].layout.files) > 2
    with pytest.raises(iso.UsageError, match="`5 apples` is no size"):
        iso.convert(source, f"{tmp_path}/other/", max_shard_size="5 apples")


def test_a_report_shows_itself_in_a_notebook(source: Path) -> None:
    """As its text, escaped, in a block that scrolls."""
    report = iso.verify(source, source)
    assert str(report).splitlines()[0] in report._repr_html_()
    assert report._repr_html_().startswith("<pre ")


def test_what_was_closed_or_has_no_values_is_said(source: Path) -> None:
    """Not `bad file descriptor`, not an error of torch."""
    with iso.open(source) as sd:
        tensor = next(iter(sd.values()))
    with pytest.raises(iso.FormatError, match="was closed, and cannot be read any more"):
        np.asarray(tensor)
    with pytest.raises(iso.UsageError, match="`w` is on the meta device"):
        iso.morph(text="** <-> **").plan({"w": torch.zeros(2, device="meta")})
