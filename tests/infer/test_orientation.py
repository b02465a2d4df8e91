"""Is a matrix turned? What shapes decide is certain; of a square only what convention and all siblings say; the rest is asked once."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposal_truth import Numbers, Truth, judge, written_out
from proposing import converted, headers

from isomorph.infer.by_name.axes import Stack, forms, placements
from isomorph.infer.by_name.propose import propose
from isomorph.infer.nouns import Proposed
from isomorph.plan.plan import Plan

LAYERS = {"embeddings.position_embeddings.weight": (12, 8)} | {
    f"encoder.layer.{n}.{name}": shape
    for n in range(3)
    for name, shape in {
        "attention.query.weight": (8, 8),
        "attention.key.weight": (8, 8),
        "attention.value.weight": (8, 8),
        "attention.output.weight": (8, 8),
        "mlp.fc1.weight": (20, 8),
        "mlp.fc2.weight": (8, 20),
        "norm.weight": (8,),
    }.items()
}


def by_names(plan: Plan) -> tuple[Proposed, dict[str, int]]:
    """What is proposed without the catalogue, and how it stands with the truth."""
    proposed = propose(plan.source, plan.manifest, use_catalogue=False)
    return proposed, judge(proposed, Truth.of_plan(plan)).states


def test_kernel_and_weight_with_siblings_that_agree_are_certain() -> None:
    """`weight` [out in] and `kernel` [in out], and every matrix that is no square is transposed: so are the squares."""
    plan = converted(
        "**_embeddings.weight <-> **_embeddings.weight\n**.norm.weight <-> **.norm.scale\n**.weight [o i] <-> **.kernel [i o]",
        headers(LAYERS),
    )
    proposed, states = by_names(plan)
    assert states == {"right": len(plan.targets)}
    assert proposed.questions == ()


@pytest.mark.parametrize("turn", ["[o i] <-> **.weight [i o]", "[o i] <-> **.weight [o i]"])
def test_weight_and_weight_are_one_question_with_what_siblings_say(turn: str) -> None:
    """The same last word on both sides says nothing: one question for all squares, and the likely answer is that of the others."""
    text = f"**_embeddings.weight <-> **_embeddings.weight\n**.norm.weight <-> **.norm.weight\n**.weight {turn}"
    plan = converted(text.replace("<-> **", "<-> model.**"), headers(LAYERS))
    proposed, states = by_names(plan)
    (question,) = proposed.questions
    assert states == {"right": 10, "asked": 12}
    assert (question.kind, len(question.targets), len(question.alternatives)) == ("orientation", 12, 2)
    assert question.likely is not None
    likely = Proposed((*proposed.relations, *question.alternatives[question.likely].relations))
    assert judge(likely, Truth.of_plan(plan)).states == {"right": 22}
    assert "non-square siblings" in question.why


def test_a_kernel_whose_siblings_are_not_turned_is_asked() -> None:
    """Convention says transposed, siblings say kept: neither is believed."""
    plan = converted(
        "**_embeddings.weight <-> **_embeddings.weight\n**.norm.weight <-> **.norm.scale\n**.weight [o i] <-> **.kernel [o i]",
        headers(LAYERS),
    )
    _, states = by_names(plan)
    assert states == {"right": 10, "asked": 12}


def test_the_very_same_names_and_shapes_are_one_layout() -> None:
    """Equal names and shapes, with matrices that are no squares: nothing is turned."""
    plan = converted("** <-> **", headers(LAYERS))
    proposed, states = by_names(plan)
    assert (states, proposed.questions) == ({"right": 22}, ())


def test_the_very_same_names_with_squares_only_are_asked() -> None:
    """Torch and Paddle can have the same names; where every matrix is a square, nothing shows which of them are turned."""
    squares = {name: shape for name, shape in LAYERS.items() if "mlp" not in name}
    plan = converted(
        "**_embeddings.weight <-> **_embeddings.weight\n**.norm.weight <-> **.norm.weight\n**.weight [o i] <-> **.weight [i o]",
        headers(squares),
    )
    _, states = by_names(plan)
    assert states == {"right": 4, "asked": 12}


def test_convolutions_keep_their_space_in_order() -> None:
    """Of [o c y x] and [y x c o] with equal kernels one way is left where channels differ; where they do not, siblings decide."""
    shapes = {"stem.conv.weight": (16, 3, 5, 5), "block.conv.weight": (16, 16, 3, 3), "neck.conv.weight": (4, 16, 3, 3)}
    plan = converted("**.weight [o c y x] <-> **.kernel [y x c o]", headers(shapes))
    _, states = by_names(plan)
    assert states == {"right": 3}


@given(st.lists(st.integers(2, 7), min_size=1, max_size=4), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_truth_is_among_the_forms(sizes: list[int], random: object) -> None:
    """Law: whatever dims are permuted or merged (in order) into, one of the forms does just that."""
    axes = list(range(len(sizes)))
    random.shuffle(axes)  # type: ignore[attr-defined]  # hypothesis gives random.Random
    cuts = sorted(random.sample(range(1, len(axes)), k=min(1, len(axes) - 1)))  # type: ignore[attr-defined]
    groups = [sorted(axes[a:b]) for a, b in zip([0, *cuts], [*cuts, len(axes)], strict=True)]
    source, target = headers({"a": sizes}), [math.prod(sizes[axis] for axis in group) for group in groups]
    numbers = Numbers(source)
    wanted = numbers.of("a").transpose([axis for group in groups for axis in group]).reshape(target)
    if len(sizes) == 4 and len(target) == 4:
        return  # convolutions: not every order of four dims is one
    found = forms(Stack(("a",), (), tuple(sizes)), Stack(("b",), (), tuple(target)))
    assert any((written_out(form.relation, numbers)["b"] == wanted).all() for form in found)


@given(st.lists(st.integers(2, 5), min_size=1, max_size=4, unique=True))
@settings(max_examples=30, deadline=None)
def test_sizes_that_all_differ_leave_one_way(sizes: list[int]) -> None:
    """Law: a permutation of dims of different sizes is decided by shapes, unless products coincide."""
    for order in permutations(range(len(sizes))):
        target = [sizes[axis] for axis in order]
        assert placements(sizes, target).count(tuple((axis,) for axis in order)) == 1
