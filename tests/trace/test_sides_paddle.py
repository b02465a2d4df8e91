"""A paddle layer as a Side: the laws of the torch one, in an interpreter that holds both libraries."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, about compilers that are not there
    import paddle
    from paddle import nn

from isomorph.errors import UsageError
from isomorph.trace.nouns import Call, Capture, Site
from isomorph.trace.sides import side_of

IDS = np.arange(1, 15).reshape(2, 7)


class Block(nn.Layer):
    """Called with a keyword and a nested list; adds in place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.first = nn.Linear(8, 12)
        self.second = nn.Linear(12, 8)
        self.scale = 1.0

    def forward(self, states: list[Any], *, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        inside = self.second(nn.functional.relu_(self.first(self.norm(states[0]))))
        if extra is not None:
            inside.add_(extra["shift"])
        return {"out": inside * self.scale, "kind": "block"}


class Toy(nn.Layer):
    """A shared block called three times, one layer under two names, one whose forward is bypassed, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.block = Block()
        self.again = self.block
        self.bypassed = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Embedding(20, 8)
        self.head.weight = self.embed.weight
        self.register_buffer("table", paddle.linspace(0, 1, 8), persistable=False)
        self.register_buffer("seen", paddle.zeros([]))

    def forward(self, input_ids: Any, shift: Any = None) -> dict[str, Any]:
        self.seen.add_(paddle.ones([], dtype=self.seen.dtype))
        x = self.embed(input_ids) + self.table
        shift = paddle.zeros([8], dtype=x.dtype) if shift is None else shift
        for block in (self.block, self.again, self.block):
            x = x + block([x], extra={"shift": shift})["out"]
        x = self.drop(nn.functional.linear(x, self.bypassed.weight, self.bypassed.bias))
        return {"logits": paddle.matmul(x, self.head.weight, transpose_y=True), "more": (x, 7, None)}


def toy() -> Toy:
    model = Toy()
    state = np.random.default_rng(0)
    for value in {id(one): one for one in model.parameters()}.values():
        value.set_value(state.normal(size=value.shape).astype("f4") * 0.4)
    model.eval()
    return model


def outputs_of(capture: Capture, call: Call) -> list[Any]:
    return [value for site, value in capture.values.items() if site[:3] == (*call, "out")]


@pytest.fixture(autouse=True)
def _globals() -> Iterator[None]:
    """No test leaves a trace in paddle."""
    yield
    assert "float32" == paddle.get_default_dtype()
    assert paddle.is_grad_enabled()


def test_outputs_are_the_layers_own_by_name() -> None:
    """Bit for bit what the layer gives, flattened."""
    model = toy()
    with paddle.no_grad():
        expected = model(paddle.to_tensor(IDS))["logits"].numpy()
    capture = side_of(model).run({"input_ids": IDS})
    assert ["logits", "more.0"] == list(capture.outputs)
    assert np.array_equal(expected, capture.outputs["logits"])
    assert "Toy (paddle)" == side_of(model).title


def test_tensors_are_copied_when_they_pass() -> None:
    """What is later written in place does not change what was seen before."""
    capture = side_of(toy()).run({"input_ids": IDS})
    first = capture.values[Site("block.first", 0, "out")]
    assert (first < 0).any()
    assert np.array_equal(np.maximum(first, 0), capture.values[Site("block.second", 0, "in")])
    shifted = side_of(toy()).run({"input_ids": IDS, "shift": np.ones(8)})
    assert np.array_equal(
        capture.values[Site("block.second", 0, "out")], shifted.values[Site("block.second", 0, "out")]
    )
    assert np.array_equal(np.ones(8, "f4"), shifted.values[Site("block", 2, "in", 1)])


def test_calls_layers_manifest_and_ties() -> None:
    """As of a torch module: first names, calls in order, a bypassed layer is not called, ties are found."""
    side = side_of(toy())
    capture = side.run({"input_ids": IDS})
    assert [0, 1, 2] == [call.call for call in capture.began if call.module == "block"]
    assert not [call for call in capture.began if call.module.startswith(("again", "bypassed"))]
    facts = side.modules()
    assert ("block.norm.weight", "block.norm.bias", "again.norm.weight", "again.norm.bias") == facts["block.norm"].own
    assert ("seen",) == facts[""].own == facts[""].buffers
    assert 1e-5 == facts["block.norm"].attributes["_epsilon"]
    assert ("embed.weight", "head.weight") in side.ties()
    assert "f32[8,12]" == str(side.manifest()["block.first.weight"])
    assert [("input_ids", True), ("shift", False)] == list(side.takes())


def test_every_call_is_replayed_bit_for_bit() -> None:
    """Alone, with what it was called with, a layer gives what it gave; in float64 all of it is float64."""
    for dtype in ("float32", "float64"):
        side = side_of(toy()).copy(dtype)
        capture = side.run({"input_ids": IDS, "shift": np.ones(8)})
        assert {dtype, "int64"} == set(capture.dtypes.values())
        for call in capture.began:
            found, expected = side.replay(capture, call), outputs_of(capture, call)
            assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True)), (dtype, call)


def test_a_splice_reaches_what_follows() -> None:
    """Put at an output, at a nested keyword, at the model's own input."""
    side = side_of(toy())
    plain = side.run({"input_ids": IDS})
    site = Site("block.second", 1, "out")
    put = np.full_like(plain.values[site], 0.5)
    seen = side.run({"input_ids": IDS}, splice={site: put})
    assert np.array_equal(put, seen.values[Site("block", 1, "out")])
    everywhere = side.run({"input_ids": IDS, "shift": np.ones(8)})
    once = side.run({"input_ids": IDS}, splice={Site("again", 0, "in", 1): np.ones(8)})
    assert np.array_equal(everywhere.values[Site("block", 0, "out")], once.values[Site("block", 0, "out")])
    assert not once.values[Site("block", 1, "in", 1)].any()
    other = side.run({"input_ids": IDS}, splice={Site("", 0, "in"): IDS[:, ::-1]})
    assert np.array_equal(other.outputs["logits"], side.run([IDS[:, ::-1]]).outputs["logits"])
    with pytest.raises(UsageError, match="nothing passed bypassed, output"):
        side.run({"input_ids": IDS}, splice={Site("bypassed", 0, "out"): put})


def test_replay_with_other_state_and_attributes_puts_all_back() -> None:
    """By any name, ties included; on errors too."""
    model = toy()
    side = side_of(model)
    before = side.state()
    capture = side.run({"input_ids": IDS})
    call = Call("block", 0)
    plain = outputs_of(capture, call)[0]
    assert np.array_equal(plain * 2, side.replay(capture, call, attributes={"scale": 2.0})[0])
    assert not np.array_equal(plain, side.replay(capture, call, attributes={"norm._epsilon": 1e-3})[0])
    found = side.replay(capture, call, state={"again.second.weight": np.zeros((12, 8))})
    assert np.allclose(found[0], before["block.second.bias"])
    whole = side.replay(capture, Call("", 0), state={"head.weight": np.zeros((20, 8))})
    assert not whole[0].any()
    with pytest.raises(UsageError, match=r"block of Toy \(paddle\) does not run alone on 0 float64\[2 7 5\]"):
        side.replay(capture, call, inputs={0: np.zeros((2, 7, 5))}, state={"block.norm.weight": np.zeros(8)})
    assert all(before[name].tobytes() == value.tobytes() for name, value in side.state().items())
    assert (1.0, 1e-5) == (model.block.scale, model.block.norm._epsilon)


def test_a_copy_is_its_own_and_all_of_one_dtype() -> None:
    """Buffers are cast whether they are persistable or not; ties, flags and the layer itself stay."""
    model = toy()
    model.drop.train()
    side = side_of(model)
    before = side.state()
    made = side.copy("float64")
    other = made.model  # type: ignore[attr-defined]
    assert ("float64", "float32") == (made.dtype, side.dtype)
    assert {paddle.float64} == {one.dtype for one in (*other.parameters(), other.table, other.seen)}
    assert other.head.weight is other.embed.weight and other.again is other.block
    assert (False, True) == (other.training, other.drop.training)
    made.fill({"embed.weight": np.full((20, 8), 0.1)})
    assert (0.1 == made.state()["head.weight"]).all()
    assert all(before[name].tobytes() == value.tobytes() for name, value in side.state().items())
    assert paddle.float32 == model.table.dtype == model.embed.weight.dtype


def test_values_of_half_precision() -> None:
    """state() gives ml_dtypes' bfloat16, fill rounds to it once, a capture widens it to float32."""
    made = side_of(through()).copy("bfloat16")
    given = np.random.default_rng(0).normal(size=(3, 4))
    made.fill({"line.weight": given})
    expected = torch.from_numpy(given).bfloat16().float().numpy()
    assert "bfloat16" == made.state()["line.weight"].dtype.name
    assert np.array_equal(expected, made.state()["line.weight"].astype("f4"))
    capture = made.run([given])
    assert np.array_equal(expected, capture.outputs[""])
    assert ("bfloat16", "float32") == (capture.dtypes[Site("", 0, "in")], capture.outputs[""].dtype.name)


class Through(nn.Layer):
    """Gives what it takes: few kernels of paddle's on a CPU know bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 4)

    def forward(self, x: Any) -> Any:
        return x


def through() -> Through:
    model = Through()
    model.eval()
    return model


class Islands(nn.Layer):
    """float32 here and there; with `dtype` None the same without."""

    def __init__(self, dtype: str | None) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8, epsilon=1e-5)
        self.small = dtype

    def forward(self, x: Any) -> dict[str, Any]:
        small = self.small or x.dtype
        y = self.line(x).astype(small)
        scores = nn.functional.softmax(paddle.matmul(y, y, transpose_y=True), dtype=small).astype(x.dtype)
        made = paddle.full([8], 0.1, dtype=small) + paddle.zeros([8], small) + paddle.arange(8, dtype=small) * 0.1
        made = made + paddle.full([8], 0.3) + paddle.linspace(0, 1, 8, dtype=small)
        return {"y": (y * y).pow(0.3) + made, "scores": scores, "norm": self.norm(y.cast(x.dtype))}


def islands(dtype: str | None) -> Islands:
    model = Islands(dtype)
    model.line.weight.set_value(np.random.default_rng(1).normal(size=(8, 8)).astype("f4"))
    model.eval()
    return model


def test_a_float64_run_is_float64_throughout() -> None:
    """float32 islands are lifted, numbers in kernels are not rounded to float32, and the operators are put back."""
    operator = paddle._C_ops.cast
    x = np.random.default_rng(0).normal(size=(2, 5, 8))
    with_islands, without = side_of(islands("float32")).copy("float64"), side_of(islands(None)).copy("float64")
    seen, expected = with_islands.run([x]), without.run([x])
    assert {"float64"} == set(seen.dtypes.values())
    assert all(np.array_equal(value, seen.outputs[name]) for name, value in expected.outputs.items())
    assert with_islands.lifted > without.lifted == 0  # type: ignore[attr-defined]
    inside = seen.values[Site("norm", 0, "in")]
    exact = (inside - inside.mean(-1, keepdims=True)) / np.sqrt(inside.var(-1, keepdims=True) + 1e-5)
    assert np.abs(exact - seen.outputs["norm"]).max() < 1e-14
    square = seen.values[Site("line", 0, "out")] ** 2
    made = 0.1 + np.arange(8) * 0.1 + 0.3 + np.linspace(0, 1, 8)
    assert np.abs(square**0.3 + made - seen.outputs["y"]).max() < 1e-13
    assert operator is paddle._C_ops.cast
    plain = side_of(islands("float32")).copy("float32")
    with paddle.no_grad():
        own = islands("float32")(paddle.to_tensor(x.astype("f4")))
    assert all(np.array_equal(value.numpy(), plain.run([x]).outputs[name]) for name, value in own.items())


def test_a_run_changes_nothing_and_dropout_left_on_is_seen() -> None:
    """Counters, statistics, hooks and the program's randomness are as before; two runs still differ, and repeat from the start."""
    model = toy()
    model.drop.train()
    before = side_of(model).state()
    paddle.seed(7)
    drawn = paddle.rand([4]).numpy()
    paddle.seed(7)
    states = np.random.get_state()[1].tolist(), random.getstate()
    side = side_of(model)
    one, two = side.run({"input_ids": IDS}), side.run({"input_ids": IDS})
    assert np.array_equal(drawn, paddle.rand([4]).numpy())
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states
    assert not np.array_equal(one.outputs["logits"], two.outputs["logits"])
    assert np.array_equal(one.outputs["logits"], side_of(model).run({"input_ids": IDS}).outputs["logits"])
    assert all(before[name].tobytes() == value.tobytes() for name, value in side.state().items())
    assert not any(one._forward_pre_hooks or one._forward_post_hooks for one in model.sublayers(include_self=True))


def test_a_method_of_a_layer_is_run_in_its_place() -> None:
    """Its outputs are compared, the layers are seen as ever."""

    class Two(Toy):
        def encode(self, words: Any) -> Any:
            return self.embed(words)

    model = Two()
    model.eval()
    side = side_of(model.encode).copy("float64")
    capture = side.run({"words": IDS})
    assert "Two.encode (paddle)" == side.title
    assert np.array_equal(capture.outputs[""], capture.values[Site("embed", 0, "out")])


def test_torch_and_paddle_meet_in_one_interpreter() -> None:
    """The same numbers in both give the same outputs, to float64."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.GELU(), torch.nn.LayerNorm(5)).eval()
    other = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.LayerNorm(5))
    other.eval()
    one, two = side_of(model).copy("float64"), side_of(other).copy("float64")
    state = one.state()
    two.fill(state | {"0.weight": state["0.weight"].T})
    x = np.random.default_rng(1).normal(size=(2, 3, 6))
    assert np.abs(one.run([x]).outputs[""] - two.run([x]).outputs[""]).max() < 1e-14


def wrapped(kind: str) -> Any:
    model = toy()
    if kind == "train":
        model.train()
        return model
    if kind == "static":
        return paddle.jit.to_static(model)
    with paddle.LazyGuard():
        lazy = nn.Linear(2, 2)
    lazy.eval()
    return lazy


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("train", r"Toy \(paddle\) is in training mode.*Call .eval\(\)"),
        ("static", "is a static program.*before to_static"),
        ("lazy", "has no values yet. Load the weights first"),
    ],
)
def test_layers_that_cannot_be_traced_as_they_are(kind: str, message: str) -> None:
    """Each with what to pass or do instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to_static's own
        model = wrapped(kind)
    with pytest.raises(UsageError, match=message):
        side_of(model)


def test_a_layer_that_does_not_run() -> None:
    """The library's own words, on one line."""
    with pytest.raises(UsageError, match=r"^Toy \(paddle\) does not run on input_ids float64\[2 7\]: [A-Z]\w+: .*"):
        side_of(toy()).run({"input_ids": IDS * 1.0})
    with pytest.raises(UsageError, match=r"It takes input_ids, shift \(optional\)"):
        side_of(toy()).run({"ids": IDS})
