"""Values -> moves: layouts are read off elements and rows, also where values repeat; what they find is confirmed element by element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_relations import Case, cases, effect, same_effect

from isomorph.engine.arrays import arrays
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.infer.by_value.arrange.find import arrange, confirmed
from isomorph.infer.by_value.changes import Change
from isomorph.infer.factor.relation import as_rule_text, groups, relation
from isomorph.language.morph import Morph
from isomorph.language.tree import Op
from isomorph.plan.moves import Box, Fill, Move
from isomorph.plan.prove import make_plan

Array = np.ndarray[Any, np.dtype[Any]]
Shapes = Mapping[str, tuple[int, ...]]

F32, BF16 = np.dtype("f4"), np.dtype(ml_dtypes.bfloat16)


def values(shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> Array:
    """Normal numbers: in f32 or bf16; half of them zero; a third of the rows zero."""
    found = rng.standard_normal(shape).astype(BF16 if kind == "bf16" else F32)
    if kind == "zeros":
        return found * (rng.random(shape) < 0.5).astype(F32)
    if kind == "rows" and shape:
        found[rng.random(shape[0]) < 0.3] = 0
    return np.asarray(found)


def made(rule: str, source: Mapping[str, Array]) -> tuple[ArrayCheckpoint, ArrayCheckpoint, tuple[Move, ...]]:
    """The source, what the rule makes of it, and the moves that did."""
    checkpoint = ArrayCheckpoint(source)
    plan = make_plan(Morph.parse(rule).programs(), checkpoint.manifest)
    return checkpoint, ArrayCheckpoint({name: array.copy() for name, array in arrays(plan, checkpoint)}), plan.moves


QKV = {"q": (24, 24), "k": (24, 24), "v": (24, 24)}
GROUPED = {"q": (72, 24), "k": (24, 24), "v": (24, 24)}
EXPERTS = {f"x.{e}.{w}": (12, 24) for e in range(4) for w in range(2)}
RULES: list[tuple[str, Shapes]] = [
    ("w [o i] <-> v [i o]", {"w": (24, 36)}),
    ("w [o i] <-> v [i o]", {"w": (24, 24)}),
    ("w [(h d) i] <-> v [i h d] where h=4", {"w": (24, 24)}),
    ("{p=q|k|v} [o i] <-> f [(p o) i]", QKV),
    ("{p=q|k|v} [o i] <-> f [i (p o)]", QKV),
    ("f [(p o) i] <-> {p=q|k|v} [i o]", {"f": (72, 24)}),
    ("{p=q|k|v} [(h d) i] <-> f [(h p d) i] where h=4", QKV),
    ("q [(g r d) i], k [(g d) i], v [(g d) i] <-> f [(g (r + 1 + 1) d) i] where g=4, r=3", GROUPED),
    ("q [(g r d) i], k [(g d) i], v [(g d) i] <-> f [i (g (r + 1 + 1) d)] where g=4, r=3", GROUPED),
    ("q [a i], k [b i], v [b i] <-> f [(a + b + b) i]", GROUPED),
    ("q [a i], k [b i], v [b i] <-> f [i (a + b + b)]", GROUPED),
    (
        "q [(g r d)], k [(g d)], v [(g d)] <-> f [(g (r + 1 + 1) d)] where g=4, r=3",
        {"q": (720,), "k": (240,), "v": (240,)},
    ),
    ("{p=q|k|v} [(h d)] <-> f [(h p d)] where h=12", {"q": (768,), "k": (768,), "v": (768,)}),
    ("w [(h half 2) i] <-> v [(h 2 half) i] where h=4", {"w": (48, 24)}),
    ("w [i (h half 2)] <-> v [(h 2 half) i] where h=4", {"w": (24, 48)}),
    ("w [(h half 2)] <-> v [(h 2 half)] where h=12", {"w": (768,)}),
    ("e [(v + pad) d] <-> w [v d], drop [pad d] where v=25", {"e": (32, 24)}),
    ("e [i (a + b)] <-> v [a i], drop [b i] where a=10", {"e": (24, 24)}),
    ("w [v d], 0 [pad d] <-> e [(v + pad) d] where pad=7", {"w": (25, 24)}),
    ("w [d v], -1.5 [pad d] <-> e [(v + pad) d] where pad=7", {"w": (24, 25)}),
    ("q [d], 0 [d], v [d] <-> b [(d + d + d)]", {"q": (48,), "v": (48,)}),
    ("x.{e}.{w} [f d] <-> y [e (w f) d] where e=4, w=2", EXPERTS),
    ("x.{e}.{w} [f d] <-> y [e d (w f)] where e=4, w=2", EXPERTS),
    ("x.{e}.{w} [f d] <-> y [e d (f w)] where e=4, w=2", EXPERTS),
    ("x.{l} [(h k) d] <-> y [d l h k] where h=4, l=3", {f"x.{number}": (24, 24) for number in range(3)}),
    ("x.{r} [o i] <-> y [o (r i)] where r=4", {f"x.{number}": (24, 12) for number in range(4)}),
    ("w [o c y x] <-> v [y x c o]", {"w": (24, 3, 4, 4)}),
    ("w [o c y x] <-> v [o (y x c)]", {"w": (24, 3, 4, 4)}),
    ("w [o i] <-> v [1 o 1 i]", {"w": (24, 24)}),
    ("w [(h d)] <-> v [d h] where h=4", {"w": (240,)}),
    ("w [] <-> v [1]", {"w": ()}),
    ("w [(h d) i], b [(h d)] <-> v [h d (i + 1)] where h=4", {"w": (24, 12), "b": (24,)}),
    ("m [(h (n + v)) c] <-> k [h c n], w [h v c] where h=4, n=5, v=3", {"m": (32, 24)}),
]


@pytest.mark.parametrize("kind", ["f32", "bf16", "zeros", "rows"])
@pytest.mark.parametrize(("rule", "shapes"), RULES, ids=[rule.split(" where")[0] for rule, _ in RULES])
def test_the_layout_is_read_off_the_values(rule: str, shapes: Shapes, kind: str) -> None:
    rng = np.random.default_rng(0)
    source, target, moves = made(rule, {name: values(shape, kind, rng) for name, shape in shapes.items()})
    found = arrange(source, list(source.manifest), target, list(target.manifest))
    assert found is not None
    expected = relation(moves, source.manifest, target.manifest)
    one = relation(found, source.manifest, target.manifest)
    assert expected is not None and one is not None
    assert as_rule_text(one)[0] == as_rule_text(expected)[0]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cases(), st.integers(0, 1 << 20), st.sampled_from(["f32", "bf16"]))
def test_a_random_rule_is_read_off_what_it_makes(case: Case, seed: int, kind: str) -> None:
    """f32: the very elements. bf16: elements of the same value, every one."""
    rng = np.random.default_rng(seed)
    source, target, moves = made(case.text, {name: values(each.shape, kind, rng) for name, each in case.source.items()})
    for group in groups(moves):
        read = list(dict.fromkeys(move.source.tensor for move in group if isinstance(move.source, Box)))
        written = list(dict.fromkeys(move.target.tensor for move in group))
        found = arrange(source, read, target, written)
        if kind == "f32":
            assert found is not None
            assert same_effect(
                effect(found, source.manifest, target.manifest), effect(group, source.manifest, target.manifest)
            )
        if found is not None:
            assert confirmed(found, source, target)


def test_what_no_layout_explains_is_none() -> None:
    rng = np.random.default_rng(1)
    w = rng.standard_normal((6, 8)).astype(F32)
    source = ArrayCheckpoint({"w": w})
    assert arrange(source, ["w"], ArrayCheckpoint({"v": rng.standard_normal((6, 8)).astype(F32)}), ["v"]) is None
    shuffled = rng.permutation(w.reshape(-1)).reshape(6, 8)
    assert arrange(source, ["w"], ArrayCheckpoint({"v": shuffled}), ["v"]) is None
    flat = ArrayCheckpoint({"w": w.reshape(-1)}), ArrayCheckpoint({"v": shuffled.reshape(-1)})
    assert arrange(flat[0], ["w"], flat[1], ["v"]) is None
    assert arrange(source, ["w"], ArrayCheckpoint({"v": w[::-1].copy()}), ["v"]) is None  # six rows, turned round
    assert arrange(source, ["w"], ArrayCheckpoint({"v": np.tile(w, (1, 9))[:, ::-1].copy()}), ["v"]) is None
    assert arrange(source, ["w"], ArrayCheckpoint({"v": w.astype(np.float64)}), ["v"]) is None


def test_one_wrong_element_is_enough_to_refuse() -> None:
    w = np.random.default_rng(2).standard_normal((64, 48)).astype(F32)
    v = w.T.copy()
    v[31, 17] = np.nextafter(v[31, 17], np.float32(9))
    source, target = ArrayCheckpoint({"w": w}), ArrayCheckpoint({"v": v})
    truth = (Move(Box("v", 0, (48, 64), (64, 1)), Box("w", 0, (48, 64), (1, 48))),)
    assert not confirmed(truth, source, target)
    found = arrange(source, ["w"], target, ["v"])
    assert found is None or all(isinstance(move.source, Box) for move in found) is False


def test_equal_bits_are_asked_for_not_equal_numbers() -> None:
    moves = (Move(Box("v", 0, (2,), (1,)), Box("w", 0, (2,), (1,))),)
    plus, minus = np.array([0.0, 1.0], F32), np.array([-0.0, 1.0], F32)
    assert not confirmed(moves, ArrayCheckpoint({"w": plus}), ArrayCheckpoint({"v": minus}))
    nan = np.array([np.nan, 1.0], F32)
    assert confirmed(moves, ArrayCheckpoint({"w": nan}), ArrayCheckpoint({"v": nan.copy()}))


def test_moves_that_leave_elements_open_are_not_confirmed() -> None:
    w = np.ones(4, F32)
    moves = (Move(Box("v", 0, (3,), (1,)), Box("w", 0, (3,), (1,))),)
    assert not confirmed(moves, ArrayCheckpoint({"w": w}), ArrayCheckpoint({"v": w}))


def test_a_constant_tensor_is_the_identity_and_undecided() -> None:
    source, target = ArrayCheckpoint({"w": np.ones((4, 4), F32)}), ArrayCheckpoint({"v": np.ones((4, 4), F32)})
    found = arrange(source, ["w"], target, ["v"])
    assert found is not None and not found.is_decided
    assert found == (Move(Box("v", 0, (16,), (1,)), Box("w", 0, (16,), (1,))),)


def test_a_symmetric_matrix_is_undecided_another_is_not() -> None:
    w = np.random.default_rng(3).standard_normal((8, 8)).astype(F32)
    for matrix, is_decided in ((w + w.T, False), (w, True)):
        source = ArrayCheckpoint({"w": matrix})
        found = arrange(source, ["w"], ArrayCheckpoint({"v": matrix.copy()}), ["v"])
        assert found is not None and found.is_decided is is_decided


def test_guesses_go_first_and_only_when_they_hold() -> None:
    w = np.random.default_rng(4).standard_normal((8, 8)).astype(F32)
    w = w + w.T
    transposed = (Move(Box("v", 0, (8, 8), (8, 1)), Box("w", 0, (8, 8), (1, 8))),)
    wrong = (Move(Box("v", 0, (8, 8), (8, 1)), Box("w", 0, (8, 8), (8, 1))),)
    source, target = ArrayCheckpoint({"w": w}), ArrayCheckpoint({"v": w.copy()})
    assert arrange(source, ["w"], target, ["v"], guesses=[transposed]) == transposed
    w[0, 1] += 1
    source, target = ArrayCheckpoint({"w": w}), ArrayCheckpoint({"v": w.T.copy()})
    assert arrange(source, ["w"], target, ["v"], guesses=[wrong]) == transposed


def test_a_change_acts_before_values_are_compared() -> None:
    rng = np.random.default_rng(5)
    q, k = (rng.standard_normal((12, 8)).astype(F32) for _ in range(2))
    fused = np.concatenate([q, k]).astype(np.float16).T.copy()
    cast = Change((Op("cast", "f32", "f16", rounding=True),), "f32 ~> f16")
    source, target = ArrayCheckpoint({"q": q, "k": k}), ArrayCheckpoint({"f": fused})
    found = arrange(source, ["q", "k"], target, ["f"], change=cast)
    assert found is not None and all(move.operators == cast.operators for move in found)
    one = relation(found, source.manifest, target.manifest)
    assert one is not None and one.operators == cast.operators
    each = arrange(source, ["q", "k"], target, ["f"], change={"q": cast, "k": cast})
    assert each == found
    assert arrange(source, ["q", "k"], target, ["f"], change={"q": cast}) is None


def test_what_an_operator_refuses_is_no_layout() -> None:
    source, target = ArrayCheckpoint({"w": np.array([1e30], F32)}), ArrayCheckpoint({"v": np.array([1], np.float16)})
    assert arrange(source, ["w"], target, ["v"], change=Change((Op("cast", "f32", "f16"),), "")) is None


def test_padding_is_a_fill_of_the_value_there() -> None:
    w = np.random.default_rng(6).standard_normal((20, 8)).astype(BF16)
    padded = np.concatenate([w, np.full((4, 8), 0.5, BF16)])
    found = arrange(ArrayCheckpoint({"w": w}), ["w"], ArrayCheckpoint({"v": padded}), ["v"])
    assert found is not None
    fills = [move for move in found if isinstance(move.source, Fill)]
    assert [(move.target.offset, move.target.numel) for move in fills] == [(160, 32)]
    assert isinstance(fills[0].source, Fill) and fills[0].source.value == 0.5


def test_integers_and_bools_are_arranged_alike() -> None:
    rng = np.random.default_rng(7)
    for array in (rng.integers(-1000, 1000, (24, 36)), rng.random((24, 36)) < 0.5):
        source, target = ArrayCheckpoint({"w": array}), ArrayCheckpoint({"v": array.T.copy()})
        found = arrange(source, ["w"], target, ["v"])
        assert found is not None and confirmed(found, source, target)


@pytest.mark.parametrize(
    ("rule", "shapes"),
    [
        ("{p=q|k|v} [(h d)] <-> f [(h p d)] where h=12", {"q": (768,), "k": (768,), "v": (768,)}),
        ("q [a], k [b], v [b] <-> f [(a + b + b)]", {"q": (768,), "k": (256,), "v": (256,)}),
        ("f [(g (a + b + b))] <-> q [(g a)], k [(g b)], v [(g b)] where g=4, b=64", {"f": (1280,)}),
        ("w [(h half 2)] <-> v [(h 2 half)] where h=12", {"w": (768,)}),
        ("w [(h 3 d)] <-> v [(3 h d)] where h=16", {"w": (3072,)}),
        ("w [(h d)] <-> v [d h] where h=12", {"w": (768,)}),
    ],
)
def test_vectors_of_few_values_are_tried_with_the_usual_layouts(rule: str, shapes: Shapes) -> None:
    rng = np.random.default_rng(9)
    source, target, moves = made(rule, {name: rng.integers(-3, 4, shape).astype(F32) for name, shape in shapes.items()})
    found = arrange(source, list(source.manifest), target, list(target.manifest))
    expected = relation(moves, source.manifest, target.manifest)
    assert found is not None and found.is_decided and expected is not None
    one = relation(found, source.manifest, target.manifest)
    assert one is not None
    assert as_rule_text(one)[0] == as_rule_text(expected)[0]


def test_vectors_that_several_usual_layouts_explain_are_undecided() -> None:
    parts = {name: np.full(12, number, F32) for number, name in enumerate("ab")}
    parts["c"] = parts["b"].copy()
    source = ArrayCheckpoint(parts)
    target = ArrayCheckpoint({"f": np.concatenate(list(parts.values()))})
    found = arrange(source, list(parts), target, ["f"])
    assert found is not None and not found.is_decided


def test_large_tensors_are_arranged_by_rows_within_the_memory_that_is_given() -> None:
    rng = np.random.default_rng(8)
    parts = {name: rng.standard_normal((512, 640)).astype(BF16) for name in "qkv"}
    heads = [part.reshape(8, 64, 640) for part in parts.values()]
    fused = np.stack(heads, 1).reshape(-1, 640).T.copy()
    source, target = ArrayCheckpoint(parts), ArrayCheckpoint({"f": fused})
    found = arrange(source, list(parts), target, ["f"], max_memory=1 << 20)
    assert found is not None
    one = relation(found, source.manifest, target.manifest)
    assert one is not None
    assert as_rule_text(one)[0].split(" where")[0] == "l0.{a} [(b c) d] <-> r0 [d (b a c)]"
