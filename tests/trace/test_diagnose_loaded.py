"""Weights that are not what the morph makes: found on running models, named, and shown to be what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from suspects import scene_of
from twins import FUSED, MULTIHEAD, Fused, Plain, SequenceFirst, bridge_of, filled, probe, seeded

from isomorph.trace.diagnose import diagnose
from isomorph.trace.diagnose.weights import differences

Values = np.ndarray[Any, np.dtype[Any]]
NAMED = dict[str, Values]
FRESH = np.random.default_rng(0)


def held(model: torch.nn.Module) -> NAMED:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def loaded(fault: Callable[[NAMED], NAMED], *, depth: int = 2, at: str | None = None, candidate: Any = Fused) -> Any:
    """The causes found where the candidate holds these values, and the differences of the two state dicts."""
    reference = seeded(Plain, depth=depth)
    bridge = bridge_of(reference, MULTIHEAD if candidate is SequenceFirst else FUSED)
    model = filled(seeded(candidate, 1, depth=depth), reference, bridge)
    state = held(model)
    state |= fault(state)
    model.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()})
    scene = scene_of(reference, model, bridge, probe(), at=at)
    return diagnose(scene), differences(bridge, scene.expected, scene.actual)


def one(name: str, done: Callable[[Values], Values]) -> Callable[[NAMED], NAMED]:
    return lambda state: {name: done(state[name])}


OUT, QKV, UP = "blocks.1.attn.out", "blocks.1.attn.qkv", "blocks.1.mlp.up"
CASES: list[tuple[str, Callable[[NAMED], NAMED], str, str]] = [
    (OUT, one(f"{OUT}.weight", lambda w: w.T), "weight-transposed", "weight is transposed"),
    (OUT, one(f"{OUT}.bias", lambda w: 0 * w), "bias-missing", "bias is missing (all zeros)"),
    (UP, one(f"{UP}.weight", lambda w: w.T.reshape(24, 16)), "weight-reshaped", "weight is reshaped where it should be transposed"),
    (UP, one(f"{UP}.weight", lambda w: w.astype(np.float16).astype(np.float32)), "weight-rounded", "weight is rounded to f16"),
    (UP, one(f"{UP}.weight", lambda w: FRESH.normal(size=w.shape).astype(np.float32)), "weight-not-loaded", "weight is not loaded"),
    (QKV, one(f"{QKV}.weight", lambda w: np.r_[w[16:32], w[:16], w[32:]]), "parts-permuted", "weight: rows of q and k are swapped (read as k q v)"),
    (QKV, one(f"{QKV}.bias", lambda w: np.r_[w[:32], 0 * w[32:]]), "bias-missing", "v: bias is missing"),
    (QKV, lambda state: {f"{QKV}.{t}": state[f"blocks.0.attn.qkv.{t}"] for t in ("weight", "bias")}, "weight-of-another", "weight holds what blocks.0.attn.qkv.weight should; bias holds what blocks.0.attn.qkv.bias should"),
    ("blocks.0.mlp.up", lambda state: {f"{UP}.weight": state["blocks.0.mlp.up.weight"], "blocks.0.mlp.up.weight": state[f"{UP}.weight"]}, "weights-swapped", "weight and blocks.1.mlp.up.weight are swapped"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "fault", "kind", "says"), CASES, ids=lambda one: one if isinstance(one, str) else "")
def test_the_weight_that_is_wrong_is_named(at: str, fault: Callable[[NAMED], NAMED], kind: str, says: str) -> None:
    """With the morph's values in its place the module agrees; the cause says what stood there."""
    (cause,), differing = loaded(fault, at=at)
    assert (kind, says, True) == (cause.kind, cause.says[: len(says)], cause.repairs)
    assert cause.residual < 1e-14
    assert {True} == {difference.cause is not None for difference in differing}


def test_only_what_matters_is_named() -> None:
    """Of several weights that differ in a module, one that nothing shows of is left out."""
    attention = {"blocks.1.attn.qkv.bias": lambda w: np.r_[w[:16], w[16:32] + 1, w[32:]]}
    name, done = next(iter(attention.items()))
    (cause,), differing = loaded(
        lambda state: {name: done(state[name]), f"{OUT}.bias": 0 * state[f"{OUT}.bias"]}, at=OUT
    )
    assert ("bias is missing (all zeros)", [f"{OUT}.bias", name]) == (
        cause.says,
        sorted((one.name for one in differing), key=lambda one: one != f"{OUT}.bias"),
    )


def test_layers_in_the_order_of_text() -> None:
    """A stack that was loaded with its numbers sorted as text is one cause, wherever it is met."""
    order = sorted(range(12), key=str)

    def fault(state: NAMED) -> NAMED:
        layers = [name for name in state if name.startswith("blocks.")]
        return {name: state[f"blocks.{order[int(name.split('.')[1])]}.{name.split('.', 2)[2]}"] for name in layers}

    (cause,), differing = loaded(fault, depth=12)
    assert "layers-lexicographic" == cause.kind
    assert {cause.says} == {one.cause for one in differing}
    assert "layers of blocks stand in the order of their numbers as text (0 1 10 11 2 3 4 5 6 7 8 9)" == cause.says


def test_a_difference_counts_its_elements() -> None:
    """What differs is told with its sources and its count."""
    _, (difference,) = loaded(one(f"{OUT}.bias", lambda w: np.r_[w[:3] + 1, w[3:]]), at=OUT)
    assert (f"{OUT}.bias", ("layers.1.o.bias",), 16, 3) == (
        difference.name,
        difference.sources,
        difference.elements,
        difference.differing,
    )


def test_a_stale_tie_is_named() -> None:
    """Of two copies of one table, the one that was not filled is said to be stale."""
    from isomorph.trace.diagnose.weights import causes_of

    table = FRESH.normal(size=(9, 4))
    reference = torch.nn.ModuleDict({"embed": torch.nn.Embedding(9, 4)})
    bridge = bridge_of(reference, "embed.weight <-> {=embed|head}.weight\n")
    expected = {"embed.weight": table, "head.weight": table}
    actual = {"embed.weight": table, "head.weight": FRESH.normal(size=(9, 4))}
    said = causes_of(bridge, expected, actual, ["head.weight"], ["head.weight"])
    assert ("tied-stale", "weight is stale: it should equal embed.weight, to which it is tied") == said["head.weight"]
