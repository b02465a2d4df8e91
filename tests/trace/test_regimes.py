"""Weights that show a fault: what is drawn, what stays, how large it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side
from isomorph.trace.regimes import HOT, LOW, Draw, Regime, kinds_of, regimes
from isomorph.trace.sides import side_of

WIDTH, WIDE = 48, 64


class Model(nn.Module):
    """One of each: an embedding that is tied to a head, a convolution, norms, a class token, a scalar, buffers, a small matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(90, WIDTH)
        self.patch = nn.Conv2d(3, WIDTH, 2, 2)
        self.norm, self.batch = nn.LayerNorm(WIDTH), nn.BatchNorm1d(WIDTH)
        self.up, self.down, self.more = nn.Linear(WIDTH, WIDE), nn.Linear(WIDE, WIDTH), nn.Linear(WIDTH, WIDE)
        self.query = nn.Linear(WIDTH, WIDE, bias=False)
        self.cls = nn.Parameter(torch.randn(WIDTH))
        self.logit_scale = nn.Parameter(torch.tensor(2.5))
        self.head = nn.Linear(WIDTH, 90, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("frequencies", torch.arange(5.0))
        with torch.no_grad():
            self.query.weight.mul_(0.1)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.words(input_ids)
        for _ in range(3):
            x = x + self.down(torch.sin(40 * self.up(self.norm(x))))
        return self.head(x)


@pytest.fixture(scope="module")
def side() -> Side:
    return side_of(Model().eval())


def drawn(side: Side, name: str, seed: int = 0) -> dict[str, np.ndarray]:
    (regime,) = [one for one in regimes() if one.name == name]
    state = regime.state(side, seed)
    assert state is not None
    return state


def test_own_weights_are_each_sides_own(side: Side) -> None:
    """They are run too, and never overwritten; the two others are drawn."""
    assert ["own weights", "hot", "low-scale"] == [one.name for one in regimes()]
    assert regimes()[0].state(side) is None


@pytest.mark.parametrize("name", ["hot", "low-scale"])
def test_parameters_are_drawn_and_buffers_stay(side: Side, name: str) -> None:
    """Every parameter is another; what is counted or looked up is not; float32 holds all of it."""
    own, state = side.state(), drawn(side, name)
    assert list(own) == list(state)
    stay = {"frequencies", "batch.num_batches_tracked"}
    assert stay == {key for key in own if np.array_equal(own[key], state[key])}
    assert all(own[key].shape == value.shape for key, value in state.items())
    floats = [value for key, value in state.items() if key not in stay]
    assert all(np.array_equal(value, value.astype(np.float32).astype(np.float64)) for value in floats)


def test_a_draw_depends_on_the_seed_and_nothing_else(side: Side) -> None:
    """The same seed gives the same values, another seed others; tied tensors are one."""
    one, again, other = drawn(side, "hot"), drawn(side, "hot"), drawn(side, "hot", 1)
    assert all(np.array_equal(one[key], again[key]) for key in one)
    assert not np.array_equal(one["up.weight"], other["up.weight"])
    assert np.array_equal(one["head.weight"], one["words.weight"])
    assert not np.array_equal(one["up.weight"], one["more.weight"])


def test_hot_weights_are_scaled_by_what_they_sum_over(side: Side) -> None:
    """Matrices by their fan-in, and smaller where the model means them to be; norms near one and positive; biases not zero."""
    state = drawn(side, "hot")
    assert state["up.weight"].std() == pytest.approx(HOT.gain / WIDTH**0.5, rel=0.1)
    assert state["down.weight"].std() == pytest.approx(HOT.gain / WIDE**0.5, rel=0.1)
    assert state["patch.weight"].std() == pytest.approx(HOT.gain / 12**0.5, rel=0.2)
    assert state["query.weight"].std() == pytest.approx(0.1 * HOT.gain / WIDTH**0.5, rel=0.15)
    assert state["norm.weight"].min() > 0
    assert 0.2 < state["norm.weight"].std() < 1
    assert state["norm.bias"].std() > 0.1 < state["up.bias"].std()
    assert state["cls"].std() > 0.5
    assert state["batch.running_var"].min() > 0
    assert state["logit_scale"] == pytest.approx(2.5, rel=0.3)
    assert state["logit_scale"] != 2.5


def test_low_scale_brings_what_goes_into_norms_down_to_an_eps(side: Side) -> None:
    """Embeddings, norms and kernels that face an image are small; biases are not zero; a variance is about 1e-5."""
    state = drawn(side, "low-scale")
    for name in ("words.weight", "norm.weight", "cls"):
        assert 1e-7 < np.mean(state[name] ** 2) < 5e-5
    assert np.mean(state["batch.running_var"]) == pytest.approx(LOW.variance, rel=0.5)
    assert state["patch.weight"].std() * 12**0.5 < 0.01
    assert np.abs(state["up.bias"]).min() > 0


def test_a_norm_weight_that_is_stored_around_zero_stays_so(side: Side) -> None:
    """`1 + weight` is what such a norm computes: the sum is what is drawn."""

    class ShiftedNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(WIDTH))

    model = nn.Sequential(ShiftedNorm(), nn.Linear(WIDTH, 2))
    shifted = side_of(model.eval())
    assert kinds_of(shifted)["0.weight"] is not None
    assert (drawn(shifted, "hot")["0.weight"] + 1).min() > 0
    assert np.mean((drawn(shifted, "low-scale")["0.weight"] + 1) ** 2) < 5e-5


def test_gains_are_lowered_until_rounding_does_not_decide() -> None:
    """A model that is chaotic when hot is drawn smaller: float32 and float64 then give nearly the same."""
    side = side_of(Model().eval())
    inputs = {"input_ids": np.arange(12).reshape(2, 6)}
    probe = Probe("short", inputs, inputs, inputs)
    wild = Regime("hot", Draw(gain=25.0, pixels=1.0, table=1.0, scale=1.0, spread=0.3, offset=0.3, variance=1.0))

    def gap(state: dict[str, np.ndarray] | None) -> float:
        assert state is not None
        outputs = []
        for dtype in ("float64", "float32"):
            copy = side.copy(dtype)
            copy.fill(state)
            outputs.append(copy.run(inputs, watch=()).outputs[""].astype(np.float64))
        return float(np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max())

    free, guarded = wild.state(side, 0), wild.state(side, 0, probe)
    assert gap(free) > 1e-3 >= gap(guarded)
    assert guarded is not None
    assert guarded["up.weight"].std() < 25.0 / WIDTH**0.5
