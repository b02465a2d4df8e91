"""What a tensor is that is not what the morph makes of the reference's, and whole stacks that are out of order."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from isomorph.trace.diagnose.orders import even_parts
from isomorph.trace.diagnose.stack import stacks
from isomorph.trace.diagnose.weight_causes import cause_of_values

RNG = np.random.default_rng(4)
SQUARE, WIDE, FUSED = RNG.normal(size=(16, 16)), RNG.normal(size=(24, 16)), RNG.normal(size=(48, 16))
KERNEL, BIAS = RNG.normal(size=(8, 3, 4, 4)), RNG.normal(size=48)
HALVES = np.arange(16).reshape(2, 2, 4).transpose(0, 2, 1).reshape(-1)


def fresh(w: np.ndarray) -> np.ndarray:
    return np.random.default_rng(9).normal(size=w.shape) * 0.02


CASES: list[tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], str, str]] = [
    (SQUARE, lambda w: w.T, "weight-transposed", "w is transposed"),
    (WIDE, lambda w: w.T.reshape(24, 16), "weight-reshaped", "w is reshaped where it should be transposed"),
    (WIDE, lambda w: 0 * w, "weight-zero", "w is all zeros"),
    (BIAS, lambda w: 0 * w, "bias-missing", "w is missing (all zeros)"),
    (BIAS, lambda w: 0 * w + 1, "weight-not-loaded", "w is not loaded (all 1)"),
    (BIAS, lambda w: 2 * w, "bias-doubled", "w is doubled"),
    (FUSED, lambda w: np.r_[w[:16], w[32:], w[16:32]], "parts-permuted", "w: rows of k and v are swapped (read as q v k)"),
    (FUSED, lambda w: np.r_[w[:16][HALVES], w[16:32][HALVES], w[32:]], "rotary-order", "w: in q and k, rows are interleaved within each of 2 heads"),
    (FUSED, lambda w: w.reshape(3, 4, 4, 16).swapaxes(0, 1).reshape(48, 16), "parts-interleaved", "w: rows of q k v are interleaved"),
    (FUSED, lambda w: np.r_[w[:32], 0 * w[32:]], "weight-zero", "v: w is all zeros"),
    (BIAS, lambda w: np.r_[w[:16], 0 * w[16:32], w[32:]], "bias-missing", "k: w is missing"),
    (FUSED, lambda w: np.r_[w[:32], fresh(w[32:])], "weight-not-loaded", "v: w is not loaded"),
    (SQUARE, lambda w: w[np.r_[4:8, 0:4, 8:16]], "heads-permuted", "w: heads 0 and 1 (of 4 rows each) are swapped"),
    (SQUARE, lambda w: w.astype(ml_dtypes.bfloat16).astype(float), "weight-rounded", "w is rounded to bf16"),
    (SQUARE, lambda w: w.astype(np.float16).astype(float), "weight-rounded", "w is rounded to f16"),
    (KERNEL, lambda w: w.astype(np.float16).astype(ml_dtypes.bfloat16).astype(float), "weight-rounded", "w is rounded to f16, then to bf16"),
    (SQUARE, fresh, "weight-not-loaded", "w is not loaded: none of its values are the reference's"),
    (SQUARE, lambda w: np.where(np.eye(16) > 0, np.nan, w), "weight-not-finite", "w holds NaN or Inf (16 of 256)"),
    (SQUARE, lambda w: 3 * w, "weight-scaled", "w is scaled by 3"),
    (KERNEL, lambda w: w.swapaxes(2, 3), "kernel-transposed", "w has height and width exchanged"),
    (KERNEL, lambda w: w[:, ::-1], "channels-reversed", "w has its input channels in reverse order (BGR for RGB)"),
    (KERNEL, lambda w: w[:, :, ::-1, ::-1], "kernel-flipped", "w is flipped along its kernel"),
    (KERNEL, lambda w: w.transpose(2, 3, 1, 0).reshape(8, 3, 4, 4), "weight-reshaped", "w is reshaped where it should be transposed"),
    (KERNEL, lambda w: w[RNG.permutation(8)], "rows-permuted", "w: rows stand in another order"),
    (SQUARE, lambda w: np.where(np.arange(256).reshape(16, 16) == 7, 1.0, w), "weight-other", "w has other values (1 of 256 differ)"),
]  # fmt: skip


@pytest.mark.parametrize(("meant", "done", "kind", "says"), CASES)
def test_what_a_tensor_is_instead(
    meant: np.ndarray, done: Callable[[np.ndarray], np.ndarray], kind: str, says: str
) -> None:
    """Each is named for what was done to it."""
    parts = even_parts(["q", "k", "v"], 48) if len(meant) == 48 else ()
    said = cause_of_values("w", done(meant), meant, parts)
    assert (kind, says) == (said.kind, said.says[: len(says)])


def test_another_shape_is_said() -> None:
    """A tensor of another shape has no other cause."""
    assert "w has the shape [16, 16], the morph makes [24, 16]" == cause_of_values("w", SQUARE, WIDE).says


def layers(count: int) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(5)
    found = {"embed.weight": drawn.normal(size=(9, 4))}
    for layer in range(count):
        found |= {
            f"model.layers.{layer}.fc.weight": drawn.normal(size=(4, 4)),
            f"model.layers.{layer}.fc.bias": drawn.normal(size=4),
            f"model.layers.{layer}.experts.0.w": drawn.normal(size=(4, 2)),
            f"model.layers.{layer}.experts.1.w": drawn.normal(size=(4, 2)),
            f"model.layers.{layer}.norm.weight": np.ones(4),
        }
    return found


def ordered(expected: dict[str, np.ndarray], order: list[int]) -> dict[str, np.ndarray]:
    """The tensors that differ when layer i holds those of layer order[i]."""
    actual = {
        f"model.layers.{layer}.{name.split('.', 3)[3]}": value
        for layer, home in enumerate(order)
        for name, value in expected.items()
        if name.startswith(f"model.layers.{home}.")
    }
    return {name: value for name, value in actual.items() if not np.array_equal(value, expected[name])}


@pytest.mark.parametrize(
    ("order", "kind", "says"),
    [
        ([0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9], "layers-lexicographic", "layers of model.layers stand in the order of their numbers as text (0 1 10 11 2 3 4 5 6 7 8 9)"),
        ([1, 2, 3, 3], "layers-off-by-one", "layers of model.layers are off by one: layer i holds the weights of layer i + 1"),
        ([0, 0, 1, 2], "layers-off-by-one", "layers of model.layers are off by one: layer i holds the weights of layer i - 1"),
        ([3, 2, 1, 0], "layers-permuted", "layers of model.layers stand in reverse order"),
        ([0, 2, 1, 3], "layers-permuted", "layers 1 and 2 of model.layers are swapped"),
        ([1, 2, 0, 3], "layers-permuted", "layers of model.layers stand in another order (1 2 0 3)"),
    ],
)  # fmt: skip
def test_a_stack_out_of_order_is_one_thing(order: list[int], kind: str, says: str) -> None:
    """Every tensor of the stack that differs gets the same clause."""
    expected = layers(len(order))
    differing = ordered(expected, order)
    found = stacks(differing, expected)
    assert (set(differing), {(kind, says)}) == (set(found), {tuple(one) for one in found.values()})


def test_one_tensor_of_another_layer_is_no_stack() -> None:
    """A single tensor that holds another layer's values says nothing of the stack."""
    expected = layers(4)
    assert {} == stacks({"model.layers.1.fc.weight": expected["model.layers.2.fc.weight"]}, expected)


def test_experts_exchanged_are_not_layers_exchanged() -> None:
    """The number that changes is the one that is said."""
    expected = layers(3)
    names = [f"model.layers.{layer}.experts.{expert}.w" for layer in range(3) for expert in range(2)]
    differing = {name: expected[name[:-3] + ("1" if name[-3] == "0" else "0") + ".w"] for name in names}
    assert {"layers 0 and 1 of model.layers.0.experts are swapped"} == {
        said.says for name, said in stacks(differing, expected).items() if name.startswith("model.layers.0.")
    }


def test_two_tensors_with_numbers_are_no_stack_of_layers() -> None:
    """T5's wi_0 and wi_1 that changed places are not layers 0 and 1 of anything."""
    values = {f"mlp.wi_{n}.weight": np.random.default_rng(n).normal(size=(4, 3)) for n in (0, 1)}
    swapped = dict(zip(values, reversed(values.values()), strict=True))
    assert {} == stacks(swapped, values)
    layers = {
        f"layers.{n}.{t}": np.random.default_rng(n).normal(size=s)
        for n in (0, 1)
        for t, s in (("w", (4, 3)), ("b", (4,)))
    }
    turned = {name: layers[name.replace("0", "x").replace("1", "0").replace("x", "1")] for name in layers}
    assert {"layers 0 and 1 of layers are swapped"} == {said.says for said in stacks(turned, layers).values()}


def test_initial_values_are_told_though_a_few_are_the_same_by_chance() -> None:
    """Two large draws of float32 share some numbers."""
    one, other = (
        np.random.default_rng(seed).normal(size=(300, 300)).astype(np.float32).astype(np.float64) for seed in (1, 2)
    )
    other[0, :5] = one[1, :5]
    assert 0 < np.isin(one, other).mean() < 0.01
    assert "weight-not-loaded" == cause_of_values("w", one, other).kind
