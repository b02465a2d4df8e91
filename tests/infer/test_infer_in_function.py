"""Questions are settled by running both models: one combination of alternatives makes them one function, and it is found."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path

import torch
from torch import Tensor, nn

import isomorph as iso
from isomorph.infer.draft import drafted
from isomorph.infer.nouns import Alternative, Draft, Part, Question, Relation, axis, copy_of
from isomorph.infer.run import Decision
from isomorph.job.arrays import manifest_of
from isomorph.job.infer import opened
from isomorph.job.infer_in_function import decider
from isomorph.job.shared_channels import shared
from isomorph.trace.sides import side_of

sys.path.insert(0, str(Path(__file__).parent.parent / "trace"))
import hand_written
import twins

D, LAYERS = twins.D, 2


def copies(pairs: Sequence[tuple[str, str]], shapes: dict[str, tuple[int, ...]]) -> list[Relation]:
    return [copy_of(one, other, shapes[one], "names") for one, other in pairs]


def turned(source: str, target: str) -> Relation:
    """A square matrix, transposed."""
    left, right = Part((source,), (axis("i"), axis("o"))), Part((target,), (axis("o"), axis("i")))
    return Relation((left,), (right,), {"o": D, "i": D}, evidence="names")


def fused(names: Sequence[str], target: str, *, is_bias: bool) -> Relation:
    """q, k, v in this order, one after the other."""
    more = () if is_bias else (axis("i"),)
    sizes = {"p": 3, "o": D} if is_bias else {"p": 3, "o": D, "i": D}
    left = Part(tuple(names), (axis("o"), *more), ("p",))
    return Relation((left,), (Part((target,), ((("p", "o"),), *more)),), sizes, evidence="names")


def question(key: str, kind: str, alternatives: Iterator[tuple[str, list[Relation]]]) -> Question:
    made = tuple(Alternative(tuple(relations), words) for words, relations in alternatives)
    return Question(key, kind, key, made, likely=0)  # type: ignore[arg-type] # kinds as texts


def orders(kind: str) -> Iterator[tuple[str, list[Relation]]]:
    for order in list(permutations("qkv"))[::-1]:
        yield (
            ", ".join(order),
            [
                fused(
                    [f"layers.{layer}.{p}.{kind}" for p in order],
                    f"blocks.{layer}.attn.qkv.{kind}",
                    is_bias=kind == "bias",
                )
                for layer in range(LAYERS)
            ],
        )


def orientations() -> Iterator[tuple[str, list[Relation]]]:
    names = [(f"layers.{layer}.o.weight", f"blocks.{layer}.attn.out.weight") for layer in range(LAYERS)]
    yield "transposed", [turned(one, other) for one, other in names]
    yield "as it is", [copy_of(one, other, (D, D), "names") for one, other in names]


def norms(left: str = "layers.{}.ln{}", right: str = "blocks.{}.n{}") -> Iterator[tuple[str, list[Relation]]]:
    for words, numbers in (("the other", (2, 1)), ("the same", (1, 2))):
        yield (
            words,
            [
                copy_of(f"{left.format(layer, number)}.{kind}", f"{right.format(layer, place)}.{kind}", (D,), "names")
                for layer in range(LAYERS)
                for place, number in enumerate(numbers, 1)
                for kind in ("weight", "bias")
            ],
        )


def draft_of(reference: nn.Module, candidate: nn.Module, *questions: Question) -> Draft:
    """What is certain between the two twins, and these questions."""
    source, target = manifest_of(reference), manifest_of(candidate)
    shapes = {name: spec.shape for name, spec in source.items()}
    pairs = [("word.weight", "embed.tokens.weight"), ("pos.weight", "embed.positions")]
    for kind in ("weight", "bias"):
        pairs += [(f"norm.{kind}", f"final.{kind}"), (f"head.{kind}", f"classify.{kind}")]
        for layer in range(LAYERS):
            pairs += [
                (f"layers.{layer}.fc1.{kind}", f"blocks.{layer}.mlp.up.{kind}"),
                (f"layers.{layer}.fc2.{kind}", f"blocks.{layer}.mlp.down.{kind}"),
            ]
    pairs += [(f"layers.{layer}.o.bias", f"blocks.{layer}.attn.out.bias") for layer in range(LAYERS)]
    return drafted(copies(pairs, shapes), questions, source, target)


def decide(reference: object, candidate: object, draft: Draft) -> Decision:
    with opened(reference, "SRC", runs=True) as first, opened(candidate, "DST", runs=True) as second:
        return decider(first, second)(draft)


QUESTIONS = (
    question("qkv.weight", "order", orders("weight")),
    question("qkv.bias", "order", orders("bias")),
    question("out", "orientation", orientations()),
    question("norms", "source", norms()),
)


def test_four_questions_are_settled_in_few_runs() -> None:
    """Two orders of q, k and v, a square matrix, two norms: 144 combinations; what is likely is wrong in each."""
    reference, candidate = twins.seeded(twins.Plain), twins.seeded(twins.Fused, seed=1)
    before = {name: value.clone() for name, value in candidate.state_dict().items()}
    found = decide(reference, candidate, draft_of(reference, candidate, *QUESTIONS))
    assert {"qkv.weight": 5, "qkv.bias": 5, "out": 1, "norms": 1} == found.places
    assert found.notes[0].startswith("in function: 4 of 4 questions decided by ")
    assert "weights drawn anew, in float64; under any other the outputs differ by " in found.notes[0]
    assert all(torch.equal(value, before[name]) for name, value in candidate.state_dict().items())


def test_what_makes_no_difference_stays_open() -> None:
    """The bias of k is invisible to attention (softmax does not see a shift), so where its block lies cannot be decided by it."""

    class Deaf(twins.Fused):
        """The final norm's weights do nothing: the head reads what came before."""

        def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x, mask)
            return {"hidden": x}

    class Plainly(twins.Plain):
        def forward(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
            x = self.word(ids) + self.pos(torch.arange(ids.shape[1]))
            for layer in self.layers:
                x = layer(x, mask)
            return {"hidden": x}

    reference, candidate = twins.seeded(Plainly), twins.seeded(Deaf, seed=1)
    unused = question(
        "final",
        "source",
        iter(
            [
                ("weight", [copy_of("norm.weight", "final.weight", (D,)), copy_of("norm.bias", "final.bias", (D,))]),
                ("bias", [copy_of("norm.bias", "final.weight", (D,)), copy_of("norm.weight", "final.bias", (D,))]),
            ]
        ),
    )
    whole = draft_of(reference, candidate, unused, *QUESTIONS)
    relations = [one for one in whole.relations if "final" not in one.targets[0]]
    draft = drafted(relations, whole.questions, manifest_of(reference), manifest_of(candidate))
    found = decide(reference, candidate, draft)
    assert {"qkv.weight": 5, "qkv.bias": 5, "out": 1, "norms": 1} == found.places
    assert (
        found.notes[1]
        == "final: several of its alternatives make the two agree on everything that was run; it stays open"
    )


def test_a_candidate_that_computes_something_else_decides_nothing() -> None:
    """Another activation: no combination agrees, and that is said with what comes nearest."""

    class Other(twins.Mlp):
        def act(self, x: Tensor) -> Tensor:
            return torch.relu(x)

    class OtherBlock(twins.FusedBlock):
        mlp_kind = Other

    class OtherModel(twins.Fused):
        block = OtherBlock

    reference, candidate = twins.seeded(twins.Plain), twins.seeded(OtherModel, seed=1)
    found = decide(reference, candidate, draft_of(reference, candidate, *QUESTIONS))
    assert found.places == {}
    assert "under no alternatives that were tried do the two agree" in found.notes[0]
    assert found.notes[1].startswith("they are nearest with qkv.weight: ")


def test_two_vits_are_paired_without_any_weights(tmp_path: Path) -> None:
    """isomorph's ViT and one written by hand: names leave five questions, running both decides them, and the morph is right."""
    reference, candidate = hand_written.reference(), hand_written.candidate()
    by_names = iso.infer(reference, candidate, names_only=True)
    assert len(by_names.questions) >= 4
    found = iso.infer(reference, candidate, names_only=True, resolve="trace")
    assert found.is_proved, str(found)
    assert found.coverage.placed["function"][0] >= 20
    assert "(heads d)" in found.text or "(h d)" in found.text
    state = found.morph.plan(reference, heads=3).state_dict("torch") if "where" not in found.text else None
    state = state or found.morph.plan(reference, config={"num_attention_heads": 3}).state_dict("torch")
    candidate.load_state_dict(state)
    pixels = torch.randn(2, 3, 20, 20)
    with torch.no_grad():
        expected = reference(pixels).last_hidden_state
        torch.testing.assert_close(candidate(pixels)["last_hidden_state"], expected, rtol=1e-4, atol=1e-5)


def test_an_alternative_that_is_no_map_is_wrong_and_no_error() -> None:
    """Shapes that do not fit the candidate."""
    reference, candidate = twins.seeded(twins.Plain), twins.seeded(twins.Fused, seed=1)
    odd = question(
        "out",
        "orientation",
        iter(
            [
                (
                    "as it is",
                    [copy_of(f"layers.{n}.o.weight", f"blocks.{n}.attn.out.weight", (D, D)) for n in range(LAYERS)],
                ),
                (
                    "of another",
                    [copy_of(f"layers.{n}.fc1.weight", f"blocks.{n}.attn.out.weight", (24, D)) for n in range(LAYERS)],
                ),
            ]
        ),
    )
    found = decide(reference, candidate, draft_of(reference, candidate, QUESTIONS[0], QUESTIONS[1], odd, QUESTIONS[3]))
    assert found.places["out"] == 0


def test_channels_of_both_models_are_found_whatever_their_layout() -> None:
    """Sums do not see the order of elements: a fused tensor holds the channels of its parts."""
    reference, candidate = twins.seeded(twins.Plain), twins.seeded(twins.Fused)
    same = twins.filled(candidate, reference, twins.bridge_of(reference, twins.FUSED))
    seen, other = (side_of(model).run(twins.probe().reference) for model in (reference, same))
    every = shared(seen, seen, 1e-4)
    assert shared(seen, other, 1e-4) == every - 1, "positions come out of a module in one of the two alone"
    assert shared(seen, side_of(twins.seeded(twins.Fused, seed=5)).run(twins.probe().reference), 1e-4) < every / 2
