"""Moves -> relations: the axes that were written come back, or coarser ones of the same effect."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from random_relations import Case, cases, effect, same_effect

from isomorph.infer.factor.relation import as_rule_text, groups, moves_of, relation
from isomorph.infer.nouns import Dropped, Filled, Part, Relation
from isomorph.language.morph import Morph
from isomorph.language.tree import Op
from isomorph.plan.moves import Box, Fill, Mix, Move
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest, TensorSpec, dtype, spec


def plan_of(text: str, **tensors: str) -> Plan:
    return make_plan(Morph.parse(text).programs(), Manifest({name: spec(each) for name, each in tensors.items()}))


def written(text: str, **tensors: str) -> str:
    """The one relation of a rule, as rule text without its sizes."""
    plan = plan_of(text, **tensors)
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None
    return as_rule_text(found)[0].split(" where")[0]


@pytest.mark.parametrize(
    ("rule", "tensors", "expected"),
    [
        ("w [o i] <-> v [o i]", {"w": "f32[4,6]"}, "l0 [a b] <-> r0 [a b]"),
        ("w [o i] <-> v [i o]", {"w": "f32[4,4]"}, "l0 [a b] <-> r0 [b a]"),
        ("w [(h d) i] <-> v [i h d] where h=2", {"w": "f32[4,6]"}, "l0 [(a b) c] <-> r0 [c a b]"),
        (
            "w [(h half 2) i] <-> v [(h 2 half) i] where h=3",
            {"w": "f32[24,7]"},
            "l0 [(a b c) d] <-> r0 [(a c b) d]",
        ),
        ("w [o c y x] <-> v [y x c o]", {"w": "f32[8,3,2,2]"}, "l0 [a b c d] <-> r0 [c d b a]"),
        ("w [o c y x] <-> v [o (y x c)]", {"w": "f32[8,3,2,2]"}, "l0 [a b c d] <-> r0 [a (c d b)]"),
        ("w [d] <-> v [1 1 d]", {"w": "f32[8]"}, "l0 [a] <-> r0 [1 1 a]"),
        ("w [] <-> v [1]", {"w": "f32[]"}, "l0 [] <-> r0 [1]"),
        (
            "{p=q|k|v} [o i] <-> f [(p o) i]",
            {"q": "f32[4,6]", "k": "f32[4,6]", "v": "f32[4,6]"},
            "l0.{a} [b c] <-> r0 [(a b) c]",
        ),
        (
            "q [a i], k [b i], v [b i] <-> f [(a + b + b) i]",
            {"q": "f32[4,6]", "k": "f32[2,6]", "v": "f32[2,6]"},
            "l0 [a b], l1 [c b], l2 [c b] <-> r0 [(a + c + c) b]",
        ),
        (
            "q [(g r d) i], k [(g d) i], v [(g d) i] <-> f [(g (r + 1 + 1) d) i] where g=3, r=4",
            {"q": "f32[24,7]", "k": "f32[6,7]", "v": "f32[6,7]"},
            "l0 [(a b) c], l1 [(a d) c], l2 [(a d) c] <-> r0 [(a (b + d + d)) c]",
        ),
        (
            "x.{e}.{w=a|b} [f d] <-> y [e (w f) d]",
            {f"x.{e}.{w}": "f32[4,3]" for e in range(3) for w in "ab"},
            "l0.{a}.{b} [c d] <-> r0 [a (b c) d]",
        ),
        (
            "x.{l} [(h k) d] <-> y [d l h k] where h=2",
            {f"x.{number}": "f32[6,5]" for number in range(3)},
            "l0.{a} [(b c) d] <-> r0 [d a b c]",
        ),
        (
            "x.{e} [(r a) i] <-> y.{r} [e a i] where r=2",
            {f"x.{number}": "f32[4,3]" for number in range(3)},
            "l0.{a} [(b c) d] <-> r0.{b} [a c d]",
        ),
        (
            "e [(v + pad) d] <-> w [v d], drop [pad d] where v=5",
            {"e": "f32[8,3]"},
            "l0 [(a + b) c] <-> r0 [a c], drop [b c]",
        ),
        (
            "q [d], 0 [d], v [d] <-> b [(d + d + d)]",
            {"q": "f32[4]", "v": "f32[4]"},
            "l0 [a], 0 [a], l2 [a] <-> r0 [(a + a + a)]",
        ),
        ("x [(a + b)] <-> y [(b + a)] where a=2", {"x": "f32[4]"}, "l0 [(a + b)] <-> r0 [(b + a)]"),
        ("x [(a + b) i] <-> y [(a + b) i] where a=2", {"x": "f32[4,3]"}, "l0 [a b] <-> r0 [a b]"),
        ("x [a b] <-> {=y|z} [b a]", {"x": "f32[4,3]"}, "l0 [a b] <-> r0.{=cr0} [b a]"),
        ("0.1:f32 [m] <-> y [m] where m=3", {}, "0.1:f32 [a] <-> r0 [a]"),
        ("arange:i64 [m] <-> y [1 m] where m=3", {}, "arange:i64 [a] <-> r0 [1 a]"),
        (
            "x [s (t (1 + 1 + p))] <-> drop [s t], y [(t (1 + p)) s] where s=5, t=5",
            {"x": "f32[5,20]"},
            "l0 [a (b (1 + 1 + c))] <-> drop [a b], r1 [(b (1 + c)) a]",
        ),
    ],
)
def test_the_axes_of_a_rule_come_back(rule: str, tensors: dict[str, str], expected: str) -> None:
    assert written(rule, **tensors) == expected


def test_equal_sizes_share_a_letter_only_where_the_blocks_still_pair() -> None:
    plan = plan_of("x [(a + b) i] <-> y [i (b + a)] where a=2", x="f32[4,3]")
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None
    assert as_rule_text(found)[0].startswith("l0 [(a + b) c] <-> r0 [c (b + a)]")
    assert found.sizes == {"a": 2, "b": 2, "c": 3}


def test_names_of_a_stack_are_row_major_along_its_axes() -> None:
    plan = plan_of("x.{e}.{w=a|b} [f] <-> y [(w f) e]", **{f"x.{e}.{w}": "f32[4]" for e in range(3) for w in "ab"})
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None
    (part,) = found.left
    assert isinstance(part, Part) and len(part.along) == 2
    assert [found.sizes[axis] for axis in part.along] == [2, 3]
    assert part.names == ("x.0.a", "x.1.a", "x.2.a", "x.0.b", "x.1.b", "x.2.b")


def test_a_stack_of_targets_is_in_the_order_of_what_it_is_read_from_whatever_the_order_of_the_file() -> None:
    plan = plan_of("f [(p o) i] <-> {p=q|k|v} [o i]", f="f32[6,4]")
    for order in ("qkv", "kqv", "vkq"):
        found = relation(plan.moves, plan.source, {name: plan.manifest[name] for name in order})
        assert found is not None
        assert found.right == (Part(("q", "k", "v"), ((("b",),), (("c",),)), along=("a",)),)


def test_a_tensor_that_is_written_twice_is_one_part_with_a_copy() -> None:
    plan = plan_of("x <-> {=y|z}", x="f32[4,3]")
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None
    assert found.right == (Part(("y",), ((("a",),), (("b",),)), copies=(("z",),)),)
    assert found.targets == ("y", "z")


def test_sums_within_products_are_symbols_with_a_size() -> None:
    plan = plan_of("q [(g a)], k [(g b)] <-> f [(g (a + b))] where g=3, a=4", q="f32[12]", k="f32[6]")
    found = relation(plan.moves, plan.source, plan.manifest, evidence="catalogue", note="why")
    assert found is not None
    (part,) = found.right
    assert isinstance(part, Part)
    assert part.dims == ((("a", "sum1"),),)
    assert found.sums == {"sum1": (("b",), ("c",))}
    assert found.sizes["sum1"] == 6 and found.shape(part) == (18,)
    assert (found.evidence, found.note) == ("catalogue", "why")


def test_operators_are_those_given_else_those_of_all_moves() -> None:
    specs = {"x": spec("f32[3]")}, {"y": spec("f16[3]")}
    cast = Op("cast", "f32", "f16")
    moves = [Move(Box("y", 0, (3,), (1,)), Box("x", 0, (3,), (1,)), (cast,))]
    found = relation(moves, *specs)
    assert found is not None and found.operators == (cast,)
    found = relation(moves, *specs, operators=(Op("neg"), cast))
    assert found is not None and found.operators == (Op("neg"), cast)
    mixed = [
        Move(Box("y", 0, (1,), (1,)), Box("x", 0, (1,), (1,)), (cast,)),
        Move(Box("y", 1, (2,), (1,)), Box("x", 1, (2,), (1,))),
    ]
    assert relation(mixed, *specs) is None


def test_constants_stand_where_they_are_read_with_a_dtype_only_where_nothing_else_says_it() -> None:
    plan = plan_of("-0.5 [2], x [n] <-> y [(2 + n)]", x="bf16[3]")
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None
    assert found.left[0] == Filled("-0.5", ((("b",),),))
    plan = plan_of("inf:bf16 [n] <-> y [n] where n=2")
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None
    assert found.left == (Filled("inf", ((("a",),),), dtype("bf16")),)


def test_what_is_not_read_is_dropped() -> None:
    plan = plan_of("x [(a + b) (c + d)] <-> y [d b], drop [a c], drop [b c], drop [a d] where a=1, c=2", x="f32[5,5]")
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None
    assert sum(isinstance(part, Dropped) for part in found.right) == 3
    assert same_effect(
        effect(plan.moves, plan.source, plan.manifest),
        effect(moves_of(found, plan.source, plan.manifest), plan.source, plan.manifest),
    )


def test_a_source_and_a_target_may_have_one_name() -> None:
    plan = plan_of("w [o i] <-> w [i o]", w="f32[4,6]")
    found = relation(plan.moves, plan.source, plan.manifest)
    assert found is not None and (found.sources, found.targets) == (("w",), ("w",))


@pytest.mark.parametrize(
    "moves",
    [
        [Move(Box("y", 0, (3,), (1,)), Box("x", 0, (3,), (1,)))],  # half of y stays open
        [Move(Box("y", k, (), ()), Box("x", 5 - k, (), ())) for k in range(6) if k < 5],
        [Move(Box("y", 0, (6,), (1,)), Mix((Box("x", 0, (6,), (1,)),)))],
        [
            Move(Box("y", 0, (3,), (1,)), Box("x", 0, (3,), (1,))),
            Move(Box("y", 3, (3,), (1,)), Box("x", 1, (3,), (1,))),
        ],
        [Move(Box("y", 0, (6,), (1,)), Fill(Fraction(1, 3), dtype("i32"), (6,)))],
        [Move(Box("y", 0, (6,), (1,)), Fill(Fraction(2), dtype("f32"), (6,), (1,)))],
    ],
)
def test_moves_that_are_no_relation(moves: list[Move]) -> None:
    assert relation(moves, {"x": spec("f32[6]")}, {"y": spec("f32[6]")}) is None


def test_a_reshape_without_common_axes_is_no_relation() -> None:
    moves = [Move(Box("y", 0, (6,), (1,)), Box("x", 0, (6,), (1,)))]
    found = relation(moves, {"x": spec("f32[2,3]")}, {"y": spec("f32[3,2]")})
    if found is not None:  # then it is cut in pieces, and still right
        again = moves_of(found, {"x": spec("f32[2,3]")}, {"y": spec("f32[3,2]")})
        specs = {"x": spec("f32[2,3]")}, {"y": spec("f32[3,2]")}
        assert same_effect(effect(moves, *specs), effect(again, *specs))


def test_groups_are_linked_by_tensors_they_share() -> None:
    plan = plan_of(
        "a.* <-> b.*\n{p=q|k} [o] <-> f [(p o)]", **{"a.x": "f32[2]", "a.y": "f32[2]", "q": "f32[3]", "k": "f32[3]"}
    )
    found = [sorted({move.target.tensor for move in group}) for group in groups(plan.moves)]
    assert sorted(found) == [["b.x"], ["b.y"], ["f"]]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_a_rule_is_found_again_from_its_moves(case: Case) -> None:
    """rule ─plan▶ moves ─▶ relation ─▶ moves ─▶ the same effect; and planned as text, again."""
    plan = case.plan
    again: list[Move] = []
    for group in groups(plan.moves):
        found = relation(group, plan.source, plan.manifest)
        assert found is not None
        again.extend(moves_of(found, plan.source, plan.manifest))
        assert same_effect(planned(found, plan), effect(group, plan.source, plan.manifest))
    expected = effect(plan.moves, plan.source, plan.manifest)
    assert same_effect(effect(again, plan.source, plan.manifest), expected)


def planned(found: Relation, plan: Plan) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """The effect of the relation's own rule text, carried out by the planner, told in the names of `plan`."""
    text, sources, targets = as_rule_text(found)
    made = make_plan(
        Morph.parse(text).programs(),
        Manifest({sources[name]: each for name, each in plan.source.items() if name in sources}),
    )
    back = {new: old for old, new in targets.items()}
    into = {new: old for old, new in sources.items()}
    moves = [
        Move(
            Box(back[move.target.tensor], move.target.offset, move.target.shape, move.target.strides),
            Box(into[move.source.tensor], move.source.offset, move.source.shape, move.source.strides)
            if isinstance(move.source, Box)
            else move.source,
        )
        for move in made.moves
    ]
    return effect(
        moves, plan.source, {name: TensorSpec(each.dtype, each.shape) for name, each in plan.manifest.items()}
    )
