"""Operators along axes: how they are written, which blocks they act on, what they are refused for; and their two readings agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

import isomorph as iso
from isomorph.errors import MorphError
from isomorph.language.tree import Op
from isomorph.operators.base import AxisOperator, ElementError
from isomorph.operators.reference import along
from isomorph.operators.registry import build
from isomorph.tensors import DTYPES

F32 = DTYPES["f32"]


def resize(vintage: str, *, axes: int = 2) -> Op:
    return Op("resize", arguments=(vintage,), takes=("h", "w")[:axes], makes=("y", "x")[:axes])


def operator(op: Op) -> AxisOperator:
    found = build(op)
    assert isinstance(found, AxisOperator)
    return found


def said(text: str, source: dict[str, np.ndarray] | None = None, **sizes: int) -> str:
    with pytest.raises(MorphError) as caught:
        iso.morph(text=text + "\n").plan(source or {"w": np.zeros((9, 2), "f4")}, **sizes)
    return str(caught.value)


# ── numbers ──────────────────────────────────────────────────────────────────────────────────────────────────────────

SIZES = st.integers(2, 20)  # torch's own antialias is wrong on a grid of width 1: its two passes do not commute there


@settings(deadline=None, max_examples=60)
@given(SIZES, SIZES, SIZES, SIZES, st.sampled_from(["timm", "transformers"]), st.integers(0, 2**32 - 1))
def test_resize_is_what_torch_interpolates(h: int, w: int, y: int, x: int, vintage: str, seed: int) -> None:
    """Up, down, and not square: within float rounding of what timm and transformers ask torch for."""
    values = np.random.default_rng(seed).normal(size=(3, h, w)).astype(np.float32)
    made = operator(resize(vintage)).along(values.view(F32.bits), F32, (y, x)).view(np.float32)
    meant = interpolate(torch.from_numpy(values)[None], size=(y, x), mode="bicubic", antialias=vintage == "timm")[0]
    assert np.abs(made - meant.numpy()).max() <= 2e-5


@settings(deadline=None, max_examples=80)
@given(
    st.tuples(*[st.integers(1, 12)] * 4),
    st.sampled_from(["f64", "f32", "bf16", "f16", "f8e5m2", "f8e4m3"]),
    st.sampled_from(["timm", "transformers"]),
    st.integers(0, 2**32 - 1),
)
def test_both_readings_of_resize_give_the_same_bits(
    sizes: tuple[int, ...], dtype: str, vintage: str, seed: int
) -> None:
    """The kernel's and the reference's, in every floating dtype: what is computed is laid down to the last rounding."""
    h, w, y, x = sizes
    kind = DTYPES[dtype]
    values = np.random.default_rng(seed).normal(size=(2, h, w)).astype(kind.numpy)
    plain, made = along(resize(vintage), values, kind, (y, x))
    assert made == kind
    if (h, w) != (y, x):
        found = operator(resize(vintage)).along(values.view(kind.bits), kind, (y, x))
        assert np.array_equal(found, np.ascontiguousarray(plain).view(kind.bits))
    else:
        assert plain is values


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 400), st.integers(1, 5), st.sampled_from(["f64", "f32", "bf16", "f16"]), st.integers(0, 2**32 - 1)
)
def test_both_readings_of_pad_give_the_same_bits(rows: int, more: int, dtype: str, seed: int) -> None:
    """And the mean is the mean."""
    kind = DTYPES[dtype]
    values = np.random.default_rng(seed).normal(size=(3, rows)).astype(kind.numpy)
    op = Op("pad", arguments=("mean",), takes=("v",), makes=("u",))
    found = operator(op).along(values.view(kind.bits), kind, (rows + more,))
    plain, _ = along(op, values, kind, (rows + more,))
    assert np.array_equal(found, np.ascontiguousarray(plain).view(kind.bits))
    assert np.array_equal(found[:, :rows], values.view(kind.bits))
    exact = np.repeat(values.astype(np.float64).mean(axis=1)[:, None], more, axis=1)
    assert np.allclose(found[:, rows:].view(kind.numpy).astype(np.float64), exact, rtol=0, atol=0.01)


def test_a_weight_of_a_row_sums_to_one() -> None:
    """A constant stays the constant, to the last bit where the weights are exact."""
    values = np.full((1, 4, 4), 3.0, np.float32)
    for vintage in ("timm", "transformers"):
        made = operator(resize(vintage)).along(values.view(F32.bits), F32, (8, 2)).view(np.float32)
        assert np.array_equal(made, np.full((1, 8, 2), 3.0, np.float32))


def test_what_is_no_number_or_overflows_is_an_error() -> None:
    """Neighbours of an infinity would be made up; beyond the largest number there is none."""
    values = np.ones((1, 2, 2), np.float32)
    values[0, 1, 1] = np.inf
    with pytest.raises(ElementError, match="`resize h w -> y x timm` meets inf, which is no number to compute with"):
        operator(resize("timm")).along(values.view(F32.bits), F32, (3, 3))
    half = DTYPES["f16"]
    steep = np.array([[[65504, 65504, -65504, -65504]]], np.float16)
    with pytest.raises(ElementError, match=r"`resize h w -> y x transformers` makes .* overflows f16"):
        operator(resize("transformers")).along(steep.view(half.bits), half, (1, 9))


# ── how they are written ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("w [v d] <-> e [u d] | pad v -> u mean", "`pad v -> u mean` cannot be undone: a rule with it goes one way, `->`, not `<->`"),
        ("w [v d] -> e [u d] | pad k -> u mean", "`pad k -> u mean`: no block that is read has the axis `k`"),
        ("w [v d] -> e [d] | pad v -> d mean", "`pad v -> d mean`: the block has an axis `d` already"),
        ("w [v d] -> e [u d] | pad v ->", "`pad` replaces axes one by one: 1 before the arrow, 0 after it"),
        ("w [v d] -> e [u d] | pad v v -> u x", "axis `v` stands twice"),
        ("w [v d] -> e [u d] | pad v ~> u mean", "axes are replaced by `->`: pad n -> m"),
        ("w [v d] -> e [u d] | pad 3 -> u mean", "`3` is no axis"),
        ("| pad v -> u mean\nw [v d] -> e [u d]", "`pad` acts along axes, which are those of one rule"),
        ("w [v d] -> e [u d] | sum, pad v -> u mean", "`pad v -> u mean` stands after `sum`"),
        ("w [v d] -> e [u d] | pad v u mean", "an operator that replaces an axis says so with an arrow:  | pad n -> m"),
        ("w [v d] -> e [d v] | resize timm", "`resize` acts along axes, and must say which"),
        ("w [v d] -> e [u d] | resize v -> u where u=4", "`resize` interpolates as timm or as transformers, and does not say it"),
        ("w [v d] -> e [u d] | resize v -> u cubic where u=4", "`resize` interpolates as timm or as transformers, not `cubic`"),
        ("w [v d] -> e [u d] | pad v -> u where u=12", "`pad` fills with the mean of the rows, and does not say so"),
        ("w [v d] -> e [u d] | pad v -> u 0 where u=12", "a constant needs no operator:  w [v d], 0 [pad d] <-> e [(v + pad) d]"),
        ("w [v d] -> e [u d] | pad v -> u mean where u=7", "`e`: `pad v -> u mean` makes 7 rows of 9: that is no padding"),
        ("w [v d] -> e [u d] | pad v -> u mean where u=7", "to cut rows off:  e [(v + cut) d] <-> w [v d], drop [cut d]"),
        ("w [v d] -> e [u d] | resize v -> u timm where u=7", "`e`: `resize v -> u timm`: 7 positions are no square grid (made)"),
        ("w [v d] -> e [u d] | resize v -> u timm where u=0", "a grid of 0 positions (made)"),
        ("w [v d] -> e [u d] | resize v -> u timm", "axis u has no size"),
        ("w [v d] -> e [u d] | resize v -> k timm, resize k -> u timm where u=4", "axis k has no size: it stands in no brackets"),
        ("w [v d] -> e [u d] | squeeze v -> u where u=4", "no operator is called `squeeze`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, message: str) -> None:
    """In the text alone where it can be seen there, else with the sizes."""
    assert message in said(text)


def test_an_integer_is_not_resized() -> None:
    """A position id is no position embedding."""
    message = said("w [v d] -> e [u d] | resize v -> u timm where u=4", {"w": np.zeros((9, 2), "i8")})
    assert "`resize` meets i64; it acts on real floating dtypes only" in message


def test_it_is_written_as_it_is_read() -> None:
    """Also inside a file that another uses, whose axes are its own."""
    text = "pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm, f32 ~> bf16 where m=9\n"
    assert iso.morph(text=text).text == text
    (rule,) = iso.morph(text=text).language.programs(None)[0].rules
    assert [op.takes for op in rule.operators] == [("n",), ()]
    back = rule.inverse
    assert back.arrow == "<-" and [op.inverted for op in back.operators] == [True, True]


def test_a_used_file_has_its_own_axes(tmp_path: object) -> None:
    """Two uses of one file, and a `where` of the reader."""
    folder = tmp_path
    (folder / "one.morph").write_text("pe [n d] -> pe [m d] | resize n -> m timm\n")  # type: ignore[operator]
    (folder / "all.morph").write_text("where m=4\na. <-> a.:\n  use one\nb. <-> b.:\n  where m=16\n  use one\n")  # type: ignore[operator]
    source = {"a.pe": np.ones((9, 2), "f4"), "b.pe": np.ones((9, 2), "f4")}
    plan = iso.morph(folder / "all.morph").plan(source)  # type: ignore[operator]
    assert {name: spec.shape for name, spec in plan.manifest.items()} == {"a.pe": (4, 2), "b.pe": (16, 2)}


def test_a_block_without_the_axes_is_left_alone() -> None:
    """The class token of `(1 + n)`, bit for bit; and the plan says that the tensor goes one way."""
    source = {"pe": np.random.default_rng(0).normal(size=(1, 10, 3)).astype(np.float32)}
    plan = iso.morph(text="pe [1 (1 + n) d] -> x [1 (1 + m) d] | resize n -> m timm\n").plan(source, m=16)
    assert np.array_equal(plan.state_dict()["x"][:, :1], source["pe"][:, :1])
    assert plan.plan.targets["x"].klass == "one-way"
    assert "[1 (1 + n) d] → [1 (1 + m) d]  | resize n -> m timm   one-way" in str(plan)
    assert "backward  1 that goes one way does not" in str(plan)
    assert type(plan.plan).from_json(plan.plan.to_json()).digest == plan.plan.digest


def test_a_grid_of_the_same_size_is_a_copy() -> None:
    """Every bit, of what is no number too."""
    values = np.array([[np.nan, -0.0], [np.inf, 1], [2, 3], [4, 5]], np.float32)
    plan = iso.morph(text="w [n d] -> e [m d] | resize n -> m timm\n").plan({"w": values}, m=4)
    assert plan.state_dict()["e"].tobytes() == values.tobytes()
    assert plan.plan.moves[0].is_range


def test_vocabularies_are_padded_and_cut_by_the_notation() -> None:
    """With a stated constant there and back; `pad` is for the mean alone."""
    rows = {"w": np.arange(6, dtype=np.float32).reshape(3, 2)}
    padded = iso.morph(text="w [v d], 0 [pad d] <-> e [(v + pad) d] where pad=2\n").plan(rows)
    assert padded.plan.targets["e"].klass == "exact"
    assert np.array_equal(padded.state_dict()["e"], [[0, 1], [2, 3], [4, 5], [0, 0], [0, 0]])
    cut = iso.morph(text="e [(v + pad) d] <-> w [v d], drop [pad d]\n").plan(padded.state_dict(), v=3)
    assert np.array_equal(cut.state_dict()["w"], rows["w"])
    mean = iso.morph(text="w [v d] -> e [u d] | pad v -> u mean\n").plan(rows, u=4)
    assert np.array_equal(mean.state_dict()["e"], [[0, 1], [2, 3], [4, 5], [2, 3]])
