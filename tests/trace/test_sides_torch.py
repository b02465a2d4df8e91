"""A torch module as a Side: what is seen of a run, put into it, replayed from it; and that nothing of it stays."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from isomorph.errors import UsageError
from isomorph.trace.nouns import Call, Capture, Site
from isomorph.trace.protocol import Side
from isomorph.trace.sides import side_of

IDS = np.arange(1, 15).reshape(2, 7)


class Block(nn.Module):
    """Called with a keyword and a nested list; adds in place."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.first = nn.Linear(8, 12)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Linear(12, 8)
        self.scale = 1.0

    def forward(self, states: list[torch.Tensor], *, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        inside = self.second(self.act(self.first(self.norm(states[0]))))
        if extra is not None:
            inside += extra["shift"]
        return {"out": inside * self.scale, "kind": "block"}


class Toy(nn.Module):
    """A shared block called three times, one module under two names, one whose forward is bypassed, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.block = Block()
        self.again = self.block
        self.bypassed = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.linspace(0, 1, 8), persistent=False)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("turn", torch.polar(torch.ones(4), torch.arange(4.0)), persistent=False)
        self.plain = torch.full((8,), 0.25)

    def forward(self, input_ids: torch.Tensor, shift: torch.Tensor | None = None) -> dict[str, Any]:
        self.seen += 1
        x = self.embed(input_ids) + self.table + self.plain
        shift = torch.zeros(8, dtype=x.dtype) if shift is None else shift
        for block in (self.block, self.again, self.block):
            x = x + block([x], extra={"shift": shift})["out"]
        x = F.linear(x, self.bypassed.weight, self.bypassed.bias)
        x = self.drop(x)
        logits = self.head(x)
        x.mul_(0)
        return {"logits": logits, "more": (x, 7, None)}


def toy(seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    return Toy().eval()


def same(one: Capture, other: Capture) -> bool:
    return one.values.keys() == other.values.keys() and all(
        np.array_equal(value, other.values[site]) for site, value in one.values.items()
    )


def outputs_of(capture: Capture, call: Call) -> list[Any]:
    return [value for site, value in capture.values.items() if site[:3] == (*call, "out")]


@pytest.fixture(autouse=True)
def _globals() -> Iterator[None]:
    """No test, whatever it does, leaves a trace in torch, numpy or Python."""
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    yield
    assert torch.float32 == torch.get_default_dtype()
    assert torch.is_grad_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


# What is seen


def test_outputs_are_the_models_own_by_name() -> None:
    """Bit for bit what the model gives, flattened; what is no tensor is left out."""
    model = toy()
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS))["logits"].numpy()
    capture = side_of(model).run({"input_ids": IDS})
    assert ["logits", "more.0"] == list(capture.outputs)
    assert np.array_equal(expected, capture.outputs["logits"])
    assert np.array_equal(expected, side_of(model).run([IDS]).outputs["logits"])


def test_tensors_are_copied_when_they_pass() -> None:
    """What later writes in place (an inplace ReLU, `+=`, `mul_`) does not change what was seen before."""
    model = toy()
    capture = side_of(model).run({"input_ids": IDS})
    first = capture.values[Site("block.first", 0, "out")]
    assert (first < 0).any()
    assert np.array_equal(first, capture.values[Site("block.act", 0, "in")])
    assert np.array_equal(np.maximum(first, 0), capture.values[Site("block.act", 0, "out")])
    assert np.abs(capture.values[Site("head", 0, "in")]).max() > 0
    assert not capture.outputs["more.0"].any()


def test_calls_are_counted_and_in_order() -> None:
    """A shared module is one, under its first name, and called three times; a bypassed one is not called at all."""
    capture = side_of(toy()).run({"input_ids": IDS})
    assert [0, 1, 2] == [call.call for call in capture.began if call.module == "block"]
    assert [0, 1, 2] == [call.call for call in capture.ended if call.module == "block.norm"]
    assert not [call for call in capture.began if call.module.startswith(("again", "bypassed"))]
    assert Call("", 0) == capture.began[0] and Call("", 0) == capture.ended[-1]
    assert capture.began.index(Call("block", 0)) < capture.began.index(Call("block.first", 0))
    assert capture.ended.index(Call("block.first", 0)) < capture.ended.index(Call("block", 0))


def test_keywords_and_nested_tensors_are_inputs() -> None:
    """Positional ones first, then keywords; lists and dicts are entered."""
    shift = np.arange(8.0)
    capture = side_of(toy()).run({"input_ids": IDS, "shift": shift})
    assert np.array_equal(shift.astype("f4"), capture.values[Site("block", 1, "in", 1)])
    assert np.array_equal(capture.values[Site("block", 0, "in", 0)], capture.values[Site("block.norm", 0, "in")])


def test_only_what_is_watched_is_kept() -> None:
    """A module may be asked for under any of its names; an unknown one is refused, and the nearest named."""
    side = side_of(toy())
    capture = side.run({"input_ids": IDS}, watch=["again.norm"])
    assert {"block.norm"} == {site.module for site in capture.values}
    assert same(capture, side.run({"input_ids": IDS}, watch={"block.norm"}))
    with pytest.raises(
        UsageError, match=r"`blok.norm` is not in the modules of Toy \(torch\); did you mean block.norm"
    ):
        side.run({"input_ids": IDS}, watch=["blok.norm"])


def test_dtypes_of_a_capture() -> None:
    """Halves are seen as float32, whole numbers as int64, and what they were in the run is said."""
    capture = side_of(toy()).copy("bfloat16").run({"input_ids": IDS.astype("i4")})
    assert {"float32", "int64"} == {value.dtype.name for value in capture.values.values()}
    assert "bfloat16" == capture.dtypes[Site("head", 0, "out")]
    assert "int64" == capture.dtypes[Site("embed", 0, "in")]
    head = capture.values[Site("head", 0, "out")]
    assert np.array_equal(head, torch.from_numpy(head.copy()).bfloat16().float().numpy())


def test_modules_know_their_own_tensors() -> None:
    """Own names, of a module under two names both; buffers apart; children by first name; plain attributes."""
    facts = side_of(toy()).modules()
    assert "again" not in facts
    assert ("block.norm.weight", "block.norm.bias", "again.norm.weight", "again.norm.bias") == facts["block.norm"].own
    assert ("seen",) == facts[""].own == facts[""].buffers
    assert ("embed", "block", "bypassed", "drop", "head") == facts[""].children
    assert ("LayerNorm", 1e-5, True) == (
        facts["block.norm"].kind,
        facts["block.norm"].attributes["eps"],
        facts["block.norm"].attributes["elementwise_affine"],
    )
    assert facts["drop"].attributes["training"] is False


def test_manifest_and_ties() -> None:
    """The state dict's names and specs, those that are one tensor together; parameters of their own on one storage too."""
    model = toy()
    side = side_of(model)
    assert list(model.state_dict()) == list(side.manifest())
    assert "f32[20,8]" == str(side.manifest()["embed.weight"])
    assert ("embed.weight", "head.weight") in side.ties() and ("block.norm.bias", "again.norm.bias") in side.ties()
    model.head.weight = nn.Parameter(torch.zeros(20, 8))
    assert ("embed.weight", "head.weight") not in side_of(model).ties()
    model.head.weight.data = model.embed.weight.data
    assert ("embed.weight", "head.weight") in side_of(model).ties()
    assert ("embed.weight", "head.weight") in side_of(model).copy("float64").ties()


def test_what_the_forward_takes() -> None:
    """Names, and whether they must be given."""
    assert [("input_ids", True), ("shift", False)] == list(side_of(toy()).takes())


# What is put in place


def test_a_splice_reaches_what_follows_and_only_that() -> None:
    """Put at an output, everything after computes with it; put at an input, only that module does."""
    side = side_of(toy())
    plain = side.run({"input_ids": IDS})
    site = Site("block.second", 1, "out")
    put = np.full_like(plain.values[site], 0.5)
    seen = side.run({"input_ids": IDS}, splice={site: put})
    assert np.array_equal(put, seen.values[site])
    assert np.array_equal(put, seen.values[Site("block", 1, "out")])
    assert np.array_equal(plain.values[Site("block", 1, "in")], seen.values[Site("block", 1, "in")])
    into = Site("block", 2, "in", 0)
    other = side.run({"input_ids": IDS}, splice={into: np.zeros_like(plain.values[into])})
    expected = side.replay(plain, Call("block", 2), inputs={0: np.zeros_like(plain.values[into])})
    assert np.array_equal(expected[0], other.values[Site("block", 2, "out")])
    bypassed = plain.values[into] + expected[0]  # the residual beside the block goes on with what it was
    model = toy()
    weight, bias = model.bypassed.weight.detach().numpy(), model.bypassed.bias.detach().numpy()
    assert np.allclose(bypassed @ weight.T + bias, other.values[Site("drop", 0, "in")], atol=1e-6)


def test_a_splice_of_a_nested_keyword() -> None:
    """`extra={"shift": …}` of one call is replaced; the others keep theirs."""
    side = side_of(toy())
    shift = np.ones(8)
    everywhere = side.run({"input_ids": IDS, "shift": shift})
    plain = side.run({"input_ids": IDS})
    once = side.run({"input_ids": IDS}, splice={Site("again", 0, "in", 1): shift})
    assert np.array_equal(everywhere.values[Site("block", 0, "out")], once.values[Site("block", 0, "out")])
    assert np.array_equal(plain.values[Site("block", 1, "in", 1)], once.values[Site("block", 1, "in", 1)])


def test_a_splice_of_what_the_model_takes_and_returns() -> None:
    """The model's own borders are borders."""
    side = side_of(toy())
    plain = side.run({"input_ids": IDS})
    other = side.run({"input_ids": IDS}, splice={Site("", 0, "in"): IDS[:, ::-1]})
    assert same(other, side.run({"input_ids": IDS[:, ::-1]}))
    put = np.ones_like(plain.outputs["logits"])
    assert np.array_equal(put, side.run({"input_ids": IDS}, splice={Site("", 0, "out"): put}).outputs["logits"])


def test_a_splice_that_cannot_be_is_refused() -> None:
    """Never passed over: another shape, another number, a module that is not called."""
    side = side_of(toy())
    with pytest.raises(UsageError, match=r"head, input has the shape \[2, 7, 8\]; \[7, 8\] was to be put"):
        side.run({"input_ids": IDS}, splice={Site("head", 0, "in"): np.zeros((7, 8))})
    with pytest.raises(UsageError, match=r"nothing passed bypassed, output"):
        side.run({"input_ids": IDS}, splice={Site("bypassed", 0, "out"): np.zeros((2, 7, 8))})
    with pytest.raises(UsageError, match=r"head, output\[3\] is not there; 1 tensors pass"):
        side.run({"input_ids": IDS}, splice={Site("head", 0, "out", 3): np.zeros(1)})


# Replay


def test_every_call_is_replayed_bit_for_bit() -> None:
    """Alone, with what it was called with, a module gives what it gave."""
    for dtype in ("float32", "float64", "bfloat16"):
        side = side_of(toy()).copy(dtype)
        capture = side.run({"input_ids": IDS, "shift": np.ones(8)})
        for call in capture.began:
            found, expected = side.replay(capture, call), outputs_of(capture, call)
            assert len(expected) == len(found)
            assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True)), (dtype, call)


def test_transformers_decoder_with_its_cache_is_replayed() -> None:
    """A cache that grows while the model runs is, in each replay, what it was at that call."""
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    config = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=30, decoder_start_token_id=0)
    side = side_of(T5Model(config).eval()).copy("float64")
    capture = side.run({"input_ids": IDS, "decoder_input_ids": IDS[:, :3]})
    assert {"last_hidden_state", "encoder_last_hidden_state"} == set(capture.outputs)
    assert side.lifted > 0
    for call in capture.began:
        for _ in range(2):
            expected, found = outputs_of(capture, call), side.replay(capture, call)
            assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True)), call


def test_transformers_outputs_have_names_even_where_a_config_wants_tuples() -> None:
    """return_dict is asked for."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=30,
        return_dict=False,
    )
    capture = side_of(BertModel(config).eval()).run({"input_ids": IDS})
    assert ["last_hidden_state", "pooler_output"] == list(capture.outputs)


def test_replay_with_other_state_knows_ties_and_children() -> None:
    """Set by any name of the subtree; a tie is set with it; afterwards every bit is as before."""
    model = toy()
    side = side_of(model)
    before = side.state()
    capture = side.run({"input_ids": IDS})
    weight = np.ones((20, 8), "f4")
    found = side.replay(capture, Call("head", 0), state={"embed.weight": weight})
    assert np.allclose(found[0], capture.values[Site("head", 0, "in")].sum(-1, keepdims=True), atol=1e-5)
    second = side.replay(capture, Call("block", 0), state={"again.second.weight": np.zeros((8, 12))})
    assert np.allclose(second[0], before["block.second.bias"])
    assert all(before[name].tobytes() == value.tobytes() for name, value in side.state().items())


def test_replay_with_other_attributes() -> None:
    """Of the module and, dotted, of its children; put back afterwards."""
    model = toy()
    side = side_of(model)
    capture = side.run({"input_ids": IDS})
    plain = outputs_of(capture, Call("block", 0))[0]
    assert np.array_equal(plain * 2, side.replay(capture, Call("block", 0), attributes={"scale": 2.0})[0])
    assert not np.array_equal(plain, side.replay(capture, Call("block", 0), attributes={"norm.eps": 10.0})[0])
    assert (1.0, 1e-5) == (model.block.scale, model.block.norm.eps)
    with pytest.raises(UsageError, match="`scal` is not in the attributes of block; did you mean scale"):
        side.replay(capture, Call("block", 0), attributes={"scal": 1.0})


def test_replay_puts_back_what_it_replaced_when_it_fails() -> None:
    """A wrong shape, a wrong name, a module that raises: state and attributes are as before."""
    model = toy()
    side = side_of(model)
    before = side.state()
    capture = side.run({"input_ids": IDS})
    call = Call("block", 0)
    zeros = {"block.norm.weight": np.zeros(8)}
    with pytest.raises(UsageError, match=r"`block.norm.bias` of Toy \(torch\) has the shape \[8\]; values of \[3\]"):
        side.replay(capture, call, state=zeros | {"block.norm.bias": np.zeros(3)}, attributes={"scale": 2.0})
    with pytest.raises(
        UsageError, match=r"block of Toy \(torch\) does not run alone on 0 float64\[2 7 5\]: RuntimeError"
    ):
        side.replay(capture, call, inputs={0: np.zeros((2, 7, 5))}, state=zeros, attributes={"scale": 2.0})
    with pytest.raises(UsageError, match=r"block, input\[4\] is not there; 2 tensors go in"):
        side.replay(capture, call, inputs={4: np.zeros(3)})
    with pytest.raises(UsageError, match="head was not watched in a call 3"):
        side.replay(capture, Call("head", 3))
    assert all(before[name].tobytes() == value.tobytes() for name, value in side.state().items())
    assert 1.0 == model.block.scale
    assert same(capture, side.run({"input_ids": IDS}))


def test_one_tensor_passed_twice_stays_one() -> None:
    """torch's own attention asks `query is key`: replayed, it takes the same way, also with one array put for all three."""

    class Same(nn.Module):
        def forward(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            return query + (1 if query is key else 0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = Same()

        def forward(self, x: torch.Tensor) -> Any:
            return self.same(x, x)

    side = side_of(Model().eval())
    capture = side.run([np.zeros(3)])
    call = Call("same", 0)
    new = np.full(3, 5.0)
    assert [1, 1, 1] == side.replay(capture, call)[0].tolist()
    assert [6, 6, 6] == side.replay(capture, call, inputs={0: new, 1: new.copy()})[0].tolist()
    assert [5, 5, 5] == side.replay(capture, call, inputs={0: new})[0].tolist()


def test_the_users_own_hooks_are_part_of_the_model() -> None:
    """They run before ours, are copied with the model, and act once in a replay."""
    model = toy()
    model.head.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model.head.register_forward_hook(lambda module, args, output: output * 2)
    with torch.no_grad():
        expected = model(torch.from_numpy(IDS))["logits"].numpy()
    for side in (side_of(model), side_of(model).copy("float32")):
        capture = side.run({"input_ids": IDS})
        assert np.array_equal(expected, capture.outputs["logits"])
        assert np.array_equal(expected, capture.values[Site("head", 0, "out")])
        assert np.array_equal(expected, side.replay(capture, Call("head", 0))[0])
    assert 1 == len(model.head._forward_hooks) == len(model.head._forward_pre_hooks)


# Nothing stays


def test_a_run_changes_nothing() -> None:
    """Not the model: buffers that it counts in, running statistics, attributes that it sets, hooks; not the program's randomness."""

    class Counting(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(7)
            self.calls = 0
            self.kept: list[Any] = []
            self.cached: Any = None

        def forward(self, input_ids: torch.Tensor, shift: torch.Tensor | None = None) -> Any:
            self.calls += 1
            self.cached = self.embed(input_ids)
            self.kept.append(self.cached)
            self.new = 3
            return self.norm(self.cached) * random.random() * np.random.rand() * torch.rand(1)

    model = Counting().eval()
    model.norm.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    side = side_of(model)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    one, two = side.run({"input_ids": IDS}), side.run({"input_ids": IDS})
    side.replay(one, Call("", 0))
    assert torch.equal(states[0], torch.get_rng_state())
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert not np.array_equal(one.outputs[""], two.outputs[""])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (0, [], None, False) == (model.calls, model.kept, model.cached, hasattr(model, "new"))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_nothing_stays_after_a_run_that_failed() -> None:
    """Hooks, default dtype, gradients and randomness are put back."""

    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.rand(1)
            return self.line(x) @ torch.ones(5, 5)

    side = side_of(Failing().eval()).copy("float64")
    state = torch.get_rng_state()
    with pytest.raises(
        UsageError, match=r"Failing \(torch\) does not run on 0 float64\[2 3\]: RuntimeError: mat1 and mat2"
    ):
        side.run([np.ones((2, 3))])
    assert torch.equal(state, torch.get_rng_state())
    assert not side.model._modules["line"]._forward_hooks  # type: ignore[attr-defined]


def test_gradients_are_not_recorded() -> None:
    """Neither in a run nor for what it leaves behind."""

    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.line(x)
            assert not y.requires_grad
            return y

    assert (2, 3) == side_of(Asking().eval()).run([np.ones((2, 3))]).outputs[""].shape


def test_dropout_left_on_is_seen_and_repeats_from_the_start() -> None:
    """Two runs differ, whatever the program's seed; the same runs of another copy are the same again."""
    model = toy()
    model.drop.train()
    side = side_of(model)

    def logits(one: Side) -> list[Any]:
        torch.manual_seed(5)
        return [one.run({"input_ids": IDS}).outputs["logits"] for _ in range(2)]

    first = logits(side_of(model).copy("float32"))
    assert not np.array_equal(*first)
    torch.rand(17)
    assert all(np.array_equal(*pair) for pair in zip(first, logits(side_of(model).copy("float32")), strict=True))
    assert not np.array_equal(logits(side.copy("float32"))[0], logits(side.copy("float32"))[0])


def test_torchs_fused_shortcut_is_not_taken() -> None:
    """nn.TransformerEncoder gives the same, watched or not: its shortcut computes otherwise and calls no modules."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 2).eval()
    side = side_of(model)
    mask = np.zeros((2, 5), bool)
    mask[0, 3:] = True
    inputs = {"src": np.random.default_rng(0).normal(size=(2, 5, 16)), "src_key_padding_mask": mask}
    watched, unwatched = side.run(inputs), side.run(inputs, watch=())
    assert not unwatched.values
    assert np.array_equal(watched.outputs[""], unwatched.outputs[""])
    assert Call("layers.1.linear1", 0) in watched.began and Call("layers.0.self_attn.out_proj", 0) not in watched.began


# float64


class Islands(nn.Module):
    """float32 here and there, as many models have it; with `dtype` None the same without."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.line = nn.Linear(8, 8)
        self.dtype = dtype
        self.register_buffer("frequencies", 10000.0 ** -(torch.arange(4) / 4), persistent=False)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        small = self.dtype or x.dtype
        y = self.line(x)
        z = y.to(small) if self.dtype is None else y.float()
        norm = z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6)
        scores = F.softmax(y @ y.transpose(-1, -2), dim=-1, dtype=small).type_as(x)
        angles = torch.arange(y.shape[1], dtype=small)[:, None] * self.frequencies
        turn = torch.view_as_complex(torch.stack([angles.cos(), angles.sin()], -1).to(small))
        made = torch.full((8,), 0.1, dtype=small) + torch.zeros(8, dtype=small) + torch.tensor(0.3, dtype=small)
        made = made + torch.tensor([0.7]) + torch.as_tensor(0.1, dtype=small) + torch.linspace(0, 1, 8, dtype=small)
        length = torch.linalg.vector_norm(y, dtype=small) + y.sum(dtype=small) + y.new_full((1,), 0.2, dtype=small)
        half = torch.arange(8) / 3
        return {
            "y": (norm + made + half).to(x.dtype) + length.type(x.dtype),
            "scores": scores,
            "turn": turn.abs() + turn.real,
        }


def islands(dtype: torch.dtype | None) -> Islands:
    torch.manual_seed(3)
    return Islands(dtype).eval()


def test_a_float64_run_is_float64_throughout() -> None:
    """A model with float32 islands gives, bit for bit, what the same model without them gives; how many were lifted is said."""
    x = np.random.default_rng(0).normal(size=(2, 5, 8))
    with_islands, without = side_of(islands(torch.float32)).copy("float64"), side_of(islands(None)).copy("float64")
    seen, expected = with_islands.run([x]), without.run([x])
    assert {"float64"} == set(seen.dtypes.values())
    for name, value in expected.outputs.items():
        assert np.array_equal(value, seen.outputs[name]), name
    assert with_islands.lifted > without.lifted == 0  # type: ignore[attr-defined]


def test_other_runs_are_not_lifted() -> None:
    """In float32 and in halves a model computes as it is written, and the default dtype stays."""
    x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("f4")
    model = islands(torch.float32)
    side = side_of(model).copy("float32")
    with torch.no_grad():
        expected = model(torch.from_numpy(x))
    found = side.run([x])
    assert all(np.array_equal(value.numpy(), found.outputs[name]) for name, value in expected.items())
    assert 0 == side.lifted  # type: ignore[attr-defined]
    half = side_of(model).copy("bfloat16").run([x])
    assert "float32" == half.dtypes[Site("", 0, "out", 2)]


def test_halves_in_a_float64_run_stay_to_be_seen() -> None:
    """What is cast to float16 or bfloat16 is rounded so: a fault, and not lifted."""

    class Half(nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.line = nn.Linear(8, 8)
            self.dtype = dtype

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(x.to(self.dtype).float().to(x.dtype))

    x = np.random.default_rng(0).normal(size=(2, 8))
    for dtype in (torch.float16, torch.bfloat16):
        side = side_of(Half(dtype).eval()).copy("float64")
        rounded = torch.from_numpy(x).to(dtype).double().numpy()
        assert np.array_equal(rounded, side.run([x]).values[Site("line", 0, "in")])


# Copies


def test_a_copy_is_its_own_and_all_of_one_dtype() -> None:
    """Parameters, buffers persistent or not, complex tables and plain attributes are cast; ties, flags and the model stay."""
    model = toy()
    model.drop.train()
    side = side_of(model)
    before = side.state()
    made = side.copy("float64")
    other = made.model  # type: ignore[attr-defined]
    assert ("float64", "float32") == (made.dtype, side.dtype)
    assert {torch.float64} == {one.dtype for one in (*other.parameters(), other.table, other.seen, other.plain)}
    assert torch.complex128 == other.turn.dtype
    assert other.head.weight is other.embed.weight and other.again is other.block
    assert (False, True) == (other.training, other.drop.training)
    made.fill({"embed.weight": np.zeros((20, 8))})
    assert not made.state()["head.weight"].any()
    assert all(before[name].tobytes() == value.tobytes() for name, value in side.state().items())
    assert torch.float32 == model.table.dtype == model.plain.dtype


def test_values_round_once_and_come_back() -> None:
    """state() gives ml_dtypes' bfloat16; fill rounds float64 to it, to nearest even."""
    side = side_of(toy()).copy("bfloat16")
    assert "bfloat16" == side.state()["embed.weight"].dtype.name
    given = np.random.default_rng(0).normal(size=(8, 8))
    side.fill({"bypassed.weight": given})
    assert torch.equal(
        torch.from_numpy(given).bfloat16().float(), torch.from_numpy(side.state()["bypassed.weight"].astype("f4"))
    )
    state = side.state()
    side.fill(state)
    assert all(value.tobytes() == side.state()[name].tobytes() for name, value in state.items())
    with pytest.raises(
        UsageError, match=r"`embed.weigth` is not in the state dict of Toy \(torch\); did you mean embed.weight"
    ):
        side.fill({"embed.weigth": np.zeros((20, 8))})
    with pytest.raises(
        UsageError, match=r"`embed.weight` of Toy \(torch\) has the shape \[20, 8\]; values of \[8, 20\]"
    ):
        side.fill({"embed.weight": np.zeros((8, 20))})


def test_a_model_that_keeps_an_activation_is_copied() -> None:
    """deepcopy refuses tensors with a history; the copy has their values."""
    model = toy()
    model.kept = model.embed(torch.tensor([1]))
    made = side_of(model).copy("float64").model  # type: ignore[attr-defined]
    assert torch.equal(model.kept.double(), made.kept)


def test_a_model_that_cannot_be_copied_is_refused() -> None:
    """With what stood in the way; also where a copy would secretly run the original."""
    model = toy()
    model.handle = (one for one in ())
    with pytest.raises(
        UsageError, match=r"Toy \(torch\) cannot be copied.*cannot pickle 'generator' object.*__deepcopy__"
    ):
        side_of(model).copy("float32")
    model = toy()
    model.block.forward = patched(model.block)
    with pytest.raises(UsageError, match="block has a `forward` that holds the module itself"):
        side_of(model).copy("float32")


def patched(module: Any) -> Callable[..., Any]:
    forward = module.forward

    def again(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    return again


# Methods and bad input


def test_a_method_of_a_model_is_run_in_its_place() -> None:
    """Its parameters are what is taken, its outputs what is compared; the modules are seen as ever, in copies too."""

    class Two(Toy):
        def encode(self, words: torch.Tensor) -> torch.Tensor:
            return self.head(self.embed(words))

    torch.manual_seed(0)
    model = Two().eval()
    side = side_of(model.encode)
    assert "Two.encode (torch)" == side.title
    assert [("words", True)] == list(side.takes())
    capture = side.copy("float64").run({"words": IDS})
    assert [""] == list(capture.outputs)
    assert np.array_equal(capture.outputs[""], capture.values[Site("head", 0, "out")])
    assert np.array_equal(capture.outputs[""], capture.values[Site("", 0, "out")])
    assert np.array_equal(capture.outputs[""], side.copy("float64").replay(capture, Call("", 0))[0])
    assert side_of(model.forward).title == side_of(model).title


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"ids": IDS}, r"cannot be called with ids int64\[2 7\]: missing a required argument.*takes input_ids, shift \(optional\)"),
        ({}, "cannot be called with no inputs: missing a required argument: 'input_ids'"),
        ([IDS, IDS, IDS], "too many positional arguments"),
        ({"input_ids": IDS + 100}, r"does not run on input_ids int64\[2 7\]: IndexError: index out of range"),
        ({"input_ids": IDS * 1.5}, r"does not run on input_ids float64\[2 7\]: RuntimeError"),
    ],
)  # fmt: skip
def test_inputs_that_a_model_does_not_take(inputs: Any, message: str) -> None:
    """What was given, what the model says, what it takes."""
    with pytest.raises(UsageError, match=rf"^Toy \(torch\) .*{message}"):
        side_of(toy()).run(inputs)


def test_a_model_that_exits_or_returns_nothing() -> None:
    """SystemExit is a model that does not run; an output without tensors cannot be compared."""

    class Leaving(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            raise SystemExit("no GPU")

    class Empty(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"n": 3}

    with pytest.raises(UsageError, match=r"does not run on 0 int64\[2\]: SystemExit: no GPU"):
        side_of(Leaving().eval()).run([np.ones(2, "i8")])
    with pytest.raises(UsageError, match="returned no tensor but a dict"):
        side_of(Empty().eval()).run([np.ones(2, "i8")])


def wrapped(kind: str) -> Any:
    model = toy()
    if kind == "train":
        return model.train()
    if kind == "meta":
        return model.to("meta")
    if kind == "one meta":
        model.bypassed.to("meta")
        return model
    if kind == "lazy":
        return nn.Sequential(nn.LazyLinear(3)).eval()
    if kind == "compiled":
        return torch.compile(model)
    if kind == "compiled in place":
        model.block.compile()
        return model
    if kind == "parallel":
        return nn.DataParallel(model).eval()
    if kind == "scripted":
        return torch.jit.script(nn.Linear(3, 3).eval())
    return {"class": nn.Linear, "nothing": 3}[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("train", r"Toy \(torch\) is in training mode.*Call .eval\(\)"),
        ("meta", "`embed.weight` is on the meta device. Load the weights first"),
        ("one meta", "`bypassed.weight` is on the meta device"),
        ("lazy", "`0.weight` has no shape yet. Run a batch"),
        ("compiled", r"is compiled.*model._orig_mod"),
        ("compiled in place", r"Toy \(torch\): block is compiled"),
        ("parallel", "is wrapped in DataParallel. Pass what is inside it: model.module"),
        ("scripted", "is a ScriptModule.*Pass the Python module"),
        ("class", "Linear is a class. Make a model of it first"),
        ("nothing", "3 is no model"),
    ],
)
def test_models_that_cannot_be_traced_as_they_are(kind: str, message: str) -> None:
    """Each with what to pass or do instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit's own
        warnings.simplefilter("ignore", UserWarning)  # lazy modules' own
        model = wrapped(kind)
    with pytest.raises(UsageError, match=message):
        side_of(model)


def test_a_child_in_training_mode_is_no_error() -> None:
    """It may be the fault that is sought."""
    model = toy()
    model.drop.train()
    assert side_of(model).modules()["drop"].attributes["training"] is True
