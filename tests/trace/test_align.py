"""Alignment: which tensors at borders should be equal, from the morph and the modules alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from twins import (
    FUSED,
    INTERLEAVED,
    MULTIHEAD,
    SAME,
    D,
    Fused,
    Interleaved,
    Plain,
    SequenceFirst,
    bridge_of,
    filled,
    probe,
    seeded,
)

from isomorph.errors import UsageError
from isomorph.trace.align import Alignment, align
from isomorph.trace.compare import measured
from isomorph.trace.nouns import Capture
from isomorph.trace.outputs import output_links
from isomorph.trace.torch_side import TorchSide


def aligned(reference: nn.Module, candidate: nn.Module, morph: str) -> tuple[Alignment, Capture, Capture]:
    bridge = bridge_of(reference, morph)
    left, right = TorchSide(reference).copy("float64"), TorchSide(filled(candidate, reference, bridge)).copy("float64")
    inputs = probe()
    seen = left.run(inputs.reference), right.run(inputs.candidate)
    links, _ = output_links(*seen, None, ("R", "C"))
    return align(left, right, bridge, *seen, links), *seen


@pytest.mark.parametrize(
    ("candidate", "morph"), [(Fused, FUSED), (Interleaved, INTERLEAVED), (SequenceFirst, MULTIHEAD), (Plain, SAME)]
)
def test_every_event_of_a_clean_port_is_equal(candidate: type[nn.Module], morph: str) -> None:
    """Law: aligned tensors of one function with the same weights are equal, entry by entry, to rounding."""
    alignment, left, right = aligned(seeded(Plain), candidate(), morph)
    events = alignment.events(left, right)
    off = [str(event) for event in events if not measured(event, left, right, 1e-13).is_within]
    assert [] == off
    assert len(events) > 20


def test_a_fused_module_faces_three() -> None:
    """One node holds q, k and v on one side and qkv on the other; each has its own third of the channels."""
    alignment, _, _ = aligned(seeded(Plain), Interleaved(), INTERLEAVED)
    node = next(node for node in alignment.nodes if "layers.1.q" in node.reference)
    assert (("layers.1.q", "layers.1.k", "layers.1.v"), ("blocks.1.attn.qkv",)) == (node.reference, node.candidate)
    taken = sorted(
        entry
        for link in node.links
        if link.border == "out" and link.channels is not None
        for entry in link.channels.candidate
    )
    assert list(range(3 * D)) == taken


def test_raw_parameters_make_no_node_and_uncalled_modules_an_opaque_one() -> None:
    """Positions held as a parameter are said to be unaligned; what nn.MultiheadAttention never calls is spoken of as one block."""
    alignment, _, _ = aligned(seeded(Plain, depth=1), SequenceFirst(1), MULTIHEAD)
    assert "pos" in alignment.unaligned[0]
    assert "embed" in alignment.unaligned[1]
    assert [True] == [node.is_opaque for node in alignment.nodes if node.candidate == ("blocks.0.attn",)]


def test_a_block_without_leaves_inside_is_opaque() -> None:
    """nn.MultiheadAttention against itself: its output is compared, as a leaf's is."""
    alignment, _, _ = aligned(seeded(SequenceFirst), SequenceFirst(), SAME)
    kinds = {node.reference[0]: (node.kind, node.is_opaque) for node in alignment.nodes}
    assert ("block", True) == kinds["blocks.0.attn"]
    assert ("block", False) == kinds["blocks.0"]


def test_a_layer_that_is_called_often_is_aligned_call_by_call() -> None:
    """Two passes through shared layers are two events each, in the order of the calls."""
    alignment, left, right = aligned(seeded(Plain, depth=1, shared=2), Plain(1, shared=2), SAME)
    calls = [
        event.candidate.call for event in alignment.events(left, right) if str(event.reference.module) == "layers.0.fc1"
    ]
    assert [0, 0, 1, 1] == calls


class Unrolled(Plain):
    """The reference's shared layer, twice."""

    def __init__(self) -> None:
        super().__init__(depth=2)


def test_copies_of_a_shared_layer_are_aligned_with_its_calls() -> None:
    """One module called twice faces two modules that hold its copies, in the order in which they run."""
    morph = "layers.0.{t*} <-> layers.{=r}.{t*} where r=2\n** <-> **\n"
    alignment, left, right = aligned(seeded(Plain, depth=1, shared=2), Unrolled(), morph)
    found = {
        (event.reference.call, event.candidate.module)
        for event in alignment.events(left, right)
        if event.reference.module == "layers.0.fc1"
    }
    assert {(0, "layers.0.fc1"), (1, "layers.1.fc1")} == found


class Backward(nn.Linear):
    """A Linear whose code turns its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.T, self.bias)


def test_a_module_that_turns_its_weight_is_still_aligned() -> None:
    """The fault must not take away the place where it is to be found."""
    candidate = Fused()
    candidate.blocks[1].attn.out.__class__ = Backward
    alignment, _, _ = aligned(seeded(Plain), candidate, FUSED)
    assert "blocks.1.attn.out" in {name for node in alignment.nodes for name in node.candidate}


def test_outputs_without_a_common_name_or_shape_are_refused() -> None:
    """The message lists what both give, and how to pair them."""
    left = Capture({}, (), (), {"a": torch.zeros(2, 3).numpy(), "b": torch.zeros(2, 3).numpy()})
    right = Capture({}, (), (), {"c": torch.zeros(2, 3).numpy(), "d": torch.zeros(2, 3).numpy()})
    with pytest.raises(UsageError, match="outputs="):
        output_links(left, right, None, ("R", "C"))
    links, notes = output_links(left, right, {"b": "c"}, ("R", "C"))
    assert (1, 0) == (links[0].reference_index, links[0].candidate_index)
    assert any("`a` of R" in note for note in notes)
    with pytest.raises(UsageError, match="has no output `e`"):
        output_links(left, right, {"b": "e"}, ("R", "C"))
