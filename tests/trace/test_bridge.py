"""The bridge: values carried over, and which entries are which along axes, read off the plan."""

from __future__ import annotations

import numpy as np
import pytest
from twins import FUSED, INTERLEAVED, Fused, Plain, bridge_of, filled, seeded

from isomorph.language.morph import Morph
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest, spec
from isomorph.trace.bridge import Bridge


def bridge(morph: str, **specs: str) -> Bridge:
    manifest = Manifest({name: spec(text) for name, text in specs.items()})
    return Bridge(make_plan(Morph.parse(morph).programs(None), manifest))


def test_pairs_are_tensors_that_share_elements() -> None:
    """A fused tensor is paired with each of its parts, and with nothing else."""
    found = bridge("q [o i] , k [p i] <-> qk [(o + p) i]\nn <-> m\n", q="f32[4,3]", k="f32[2,3]", n="f32[5]")
    assert (("q", "qk"), ("k", "qk"), ("n", "m")) == found.pairs
    assert ("q", "k") == found.sources("qk")
    assert () == found.sources("absent")


def test_entries_of_a_part_are_its_rows_of_the_whole() -> None:
    """Rows of k lie behind those of q; the other axis is whole and in order."""
    found = bridge("q [o i] , k [p i] <-> qk [(o + p) i]\n", q="f32[4,3]", k="f32[2,3]")
    rows, columns = found.entries("qk", 0, "k", 0), found.entries("qk", 1, "k", 1)
    assert rows is not None and columns is not None
    assert ([0, 1], [4, 5]) == (rows.reference.tolist(), rows.candidate.tolist())
    assert columns.is_identity(3, 3)


def test_axes_that_are_not_one_have_no_entries() -> None:
    """An axis of one tensor is not another axis of the other, square or not, nor an axis that is cut in two there."""
    square = bridge("w [o i] <-> v [o i]\n", w="f32[4,4]")
    assert square.entries("v", 0, "w", 1) is None
    assert square.entries("v", 0, "w", 0) is not None
    turned = bridge("w [o i] <-> v [i o]\n", w="f32[4,4]")
    assert turned.entries("v", 0, "w", 0) is None
    assert turned.entries("v", 0, "w", 1) is not None
    cut = bridge("w [(h d) i] <-> v [h d i] where h=2\n", w="f32[4,3]")
    assert cut.entries("v", 0, "w", 0) is None


@pytest.mark.parametrize(("morph", "order"), [(FUSED, "(p h d)"), (INTERLEAVED, "(h p d)")])
def test_entries_follow_the_values(morph: str, order: str) -> None:
    """Law: what the entries say is what `forward` does, for every part of a fused weight in either order."""
    model = seeded(Plain, depth=1)
    held = bridge_of(model, morph)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    made = held.forward(state)
    for part in "qkv":
        name = f"layers.0.{part}.weight"
        rows = held.entries("blocks.0.attn.qkv.weight", 0, name, 0)
        assert rows is not None, order
        np.testing.assert_array_equal(state[name][rows.reference], made["blocks.0.attn.qkv.weight"][rows.candidate])


def test_operators_on_values_do_not_hide_entries() -> None:
    """`w -> 1 + w` and casts change values, not places."""
    found = bridge("w [d] -> v [d] | f32 -> f64, add 1\n", w="f32[5]")
    rows = found.entries("v", 0, "w", 0)
    assert rows is not None and rows.is_identity(5, 5)
    np.testing.assert_array_equal(np.arange(5) + 1.0, found.forward({"w": np.arange(5, dtype=np.float32)})["v"])


def test_kept_makes_copies_equal_and_constants_constant() -> None:
    """Drawn values that break a tie, a constant or a narrower dtype are changed so that both sides can hold them."""
    tied = bridge("{=a|b} <-> c\n", a="f32[3]", b="f32[3]")
    kept = tied.kept({"a": np.arange(3), "b": np.zeros(3)})
    np.testing.assert_array_equal(kept["a"], kept["b"])
    narrow = bridge("w -> v | f32 ~> bf16\n", w="f32[3]").kept({"w": np.array([1.0, 1.001, 3.0])})
    np.testing.assert_array_equal(np.array([1.0, 1.0, 3.0], np.float32), narrow["w"])


def test_filling_a_candidate_through_the_bridge_makes_it_the_reference() -> None:
    """The two styles are one function of the same weights: what every other test of the trace stands on."""
    import torch

    model = seeded(Plain)
    other = filled(Fused(), model, bridge_of(model, FUSED))
    ids = torch.arange(14).reshape(2, 7)
    with torch.no_grad():
        torch.testing.assert_close(model(ids)["hidden"], other(ids)["hidden"], rtol=1e-5, atol=1e-5)
