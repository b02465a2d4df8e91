"""Targets whose values say nothing: names place them, in the form of the weight beside them, among what their values allow."""

from __future__ import annotations

from pathlib import Path

import pytest
from proposal_truth import Truth, judge
from proposing import NAMES, converted, headers, manifest_of, true_plan, unpacked

from isomorph.infer.by_name.propose import propose
from isomorph.infer.factor.relation import groups, relation
from isomorph.infer.nouns import Filled, Proposed, Relation, Silent
from isomorph.plan.moves import names_of
from isomorph.plan.plan import Plan
from isomorph.tensors import Manifest


def relations(plan: Plan, wanted: set[str]) -> list[Relation]:
    """What a plan says of these targets, as relations."""
    found = []
    for group in groups([move for move in plan.moves if move.target.tensor in wanted]):
        read = {name: plan.source[name] for move in group for name in names_of(move.source)}
        one = relation(group, read, {move.target.tensor: plan.manifest[move.target.tensor] for move in group})
        assert one is not None
        found.append(one)
    return found


def held(manifest: Manifest, name: str, target: Manifest) -> tuple[str, ...]:
    """The vectors that hold what a silent target may hold: of its length, all zeros, say."""
    return tuple(each for each in manifest if is_vector(manifest, each) and manifest[each].numel == target[name].numel)


def is_vector(manifest: Manifest, name: str) -> bool:
    return sum(size != 1 for size in manifest[name].shape) < 2


@pytest.mark.parametrize("name", NAMES)
def test_vectors_without_values_go_where_their_weights_went(name: str, tmp_path: Path) -> None:
    """Every bias and every norm of a pair silent, all matrices known by values: names place all of them right, and ask nothing."""
    pair = unpacked(name, tmp_path)
    plan = true_plan(pair)
    source, target = manifest_of(pair.source), manifest_of(pair.target)
    vectors = {
        each for each in target if is_vector(target, each) and target[each].dtype.is_float and target[each].numel > 1
    }
    linked = [
        {move.target.tensor for move in group}
        for group in groups(plan.moves)
        if not vectors.issuperset({move.target.tensor for move in group})
    ]
    vectors -= {each for group in linked for each in group}
    known = relations(plan, set(target) - vectors)
    silent = [Silent(each, held(source, each, target), "0") for each in target if each in vectors]
    proposed = propose(source, target, configs=(pair.config, None), known=known, silent=silent, use_catalogue=False)
    score = judge(Proposed((*known, *proposed.relations), proposed.questions), Truth.of_plan(plan))
    assert score.of("wrong") == []
    assert score.of("asked") == []
    assert all("placed by its name" in one.note or one.evidence == "constant" for one in proposed.relations)


def test_a_bias_keeps_the_order_of_its_fused_weight() -> None:
    """v, k, q one after another in the weight: in the bias too, though any order of zeros is the same."""
    shapes = {
        f"h.{n}.attn.{p}_proj.{t}": shape
        for n in (0, 1)
        for p in "qkv"
        for t, shape in (("weight", (6, 4)), ("bias", (6,)))
    }
    plan = converted("h.{l}.attn.{p=v|k|q}_proj.{t} [o ...] <-> h.{l}.attn.qkv.{t} [(p o) ...]", headers(shapes))
    known = relations(plan, {"h.0.attn.qkv.weight", "h.1.attn.qkv.weight"})
    silent = [Silent(f"h.{n}.attn.qkv.bias", (), "0") for n in (0, 1)]
    proposed = propose(plan.source, plan.manifest, known=known, silent=silent, use_catalogue=False)
    assert judge(Proposed((*known, *proposed.relations)), Truth.of_plan(plan)).states == {"right": 4}


def test_a_square_of_one_value_is_turned_as_its_siblings_are() -> None:
    """A matrix of zeros says nothing of its orientation; the others of its kind are transposed."""
    shapes = {f"h.{n}.{m}.weight": shape for n in (0, 1) for m, shape in (("q_proj", (5, 5)), ("fc1", (9, 5)))}
    plan = converted("h.{l}.{m}.weight [o i] <-> h.{l}.{m}.kernel [i o]", headers(shapes))
    known = relations(plan, {"h.0.fc1.kernel", "h.1.fc1.kernel", "h.0.q_proj.kernel"})
    silent = [Silent("h.1.q_proj.kernel", ("h.1.q_proj.weight",), "0")]
    proposed = propose(plan.source, plan.manifest, known=known, silent=silent, use_catalogue=False)
    assert judge(Proposed((*known, *proposed.relations)), Truth.of_plan(plan)).states == {"right": 4}


def test_where_no_source_is_left_it_is_made_of_its_constant() -> None:
    """A bias that the source does not have, all zeros: a constant, and the note says why."""
    source, target = headers({"fc.weight": (4, 3)}), headers({"fc.weight": (4, 3), "fc.bias": (4,)})
    known = relations(converted("** <-> **", source), {"fc.weight"})
    (found,) = propose(source, target, known=known, silent=[Silent("fc.bias", (), "0")]).relations
    assert (found.evidence, found.note) == ("constant", "no source is left that could be it")
    assert isinstance(found.left[0], Filled)


def test_names_that_say_nothing_are_asked() -> None:
    """Two vectors of ones whose names nobody knows: each could be either, or neither."""
    source, target = headers({"u1": (4,), "u2": (4,)}), headers({"zork": (4,), "blib": (4,)})
    silent = [Silent(name, ("u1", "u2"), "1") for name in target]
    proposed = propose(source, target, silent=silent, use_catalogue=False)
    assert proposed.relations == ()
    assert {"source"} == {one.kind for one in proposed.questions}
    assert {name for one in proposed.questions for name in one.targets} == {"zork", "blib"}


def test_values_come_before_names() -> None:
    """A source that a target is named like, and whose values are others, is not its source."""
    source = headers({"a.bias": (4,), "b.bias": (4,), "a.weight": (4, 4), "b.weight": (4, 4)})
    plan = converted("** <-> **", source)
    known = relations(plan, {"a.weight", "b.weight"})
    silent = [Silent("a.bias", ("b.bias",), "0")]
    proposed = propose(source, plan.manifest, known=known, silent=silent)
    assert "a.bias" not in {name for one in proposed.relations for name in one.sources}
