"""Sums, stacks, slices, padding, casts and changes: what is made of several sources, or of a part of one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matching import Array, matched, written

from isomorph.infer.by_value.siblings import stem
from isomorph.infer.by_value.sums import WORD, Item, Pool, items
from isomorph.infer.by_value.templates import grid, likeness, named, suggestions

DRAW = np.random.default_rng(3)


def weight(*shape: int) -> Array:
    return DRAW.standard_normal(shape).astype(np.float32)


def test_a_name_is_a_template_and_its_numbers() -> None:
    assert named("h.10.ln_1.weight") == ("h.{}.ln_{}.weight", (10, 1))
    assert stem("h.0.attn.in_proj_bias") == "h.0.attn.in_proj"


def test_numbers_follow_those_of_the_target() -> None:
    assert next(suggestions((3,), (3, 1), (5,))) == (5, 1)
    assert (4, 7) in list(suggestions((3,), (2, 7), (5,)))
    assert likeness((3, 1, None), (1, 3, 3)) == 2


def test_a_grid_with_a_gap_is_none() -> None:
    members: dict[tuple[int, ...], str] = {(0, 0): "a", (0, 1): "b", (1, 0): "c"}
    assert grid(members, (0, 1)) is None
    assert grid({**members, (1, 1): "d"}, (0, 1)) == ("a", "b", "c", "d")


@given(st.lists(st.integers(1, WORD - 1), min_size=6, max_size=12, unique=True), st.randoms(use_true_random=False))
def test_a_sum_of_up_to_four_is_found(keys: list[int], draw: object) -> None:
    import random

    assert isinstance(draw, random.Random)
    pool = Pool([Item((f"t{place}",), key, 10, "t{}", (place,)) for place, key in enumerate(keys)])
    chosen = draw.sample(range(len(keys)), draw.randint(1, 4))
    hits = pool.hits(sum(keys[place] for place in chosen), 10 * len(chosen), zeros=0)
    assert {f"t{place}" for place in chosen} in [{item.names[0] for item in hit} for hit in hits]


def test_stacks_are_items_and_silent_tensors_are_not() -> None:
    keys = {"l.0.w": 5, "l.1.w": 7, "l.0.g": 0, "l.1.g": 0}
    found = items(keys, dict.fromkeys(keys, 4), {"l.0.g", "l.1.g"})
    assert [(item.names, item.key) for item in found] == [
        (("l.0.w",), 5),
        (("l.1.w",), 7),
        (("l.0.w", "l.1.w"), 12),
    ]


def test_heads_of_three_sources_interleaved() -> None:
    source = {f"h.{n}.{p}": weight(12, 8) for n in range(4) for p in "qkv"}
    target = {
        f"g.{n}.qkv": np.stack([source[f"h.{n}.{p}"].reshape(3, 4, 8) for p in "qkv"], 1).reshape(36, 8)
        for n in range(4)
    }
    found = matched(source, target)
    assert len(found.relations) == 4
    assert len({(one.left[0].dims, one.right[0].dims) for one in found.relations}) == 1
    back = matched(target, source)
    assert (back.unplaced, len(back.relations)) == ((), 4)


def test_ranks_of_what_is_fused() -> None:
    whole = {f"{n}.{p}": weight(24, 16) for n in range(2) for p in "qkv"}
    ranks = {
        f"rank{r}.{n}.qkv": np.concatenate([whole[f"{n}.{p}"][12 * r : 12 * r + 12] for p in "qkv"])
        for r in range(2)
        for n in range(2)
    }
    for source, target in ((ranks, whole), (whole, ranks)):
        found = matched(source, target)
        assert (found.unplaced, found.unused, len(found.relations)) == ((), (), 2)


def test_a_stack_may_have_members_that_are_constant() -> None:
    source = {f"l.{n}.g": weight(8) for n in range(4)}
    source["l.2.g"][:] = 1
    stacked = {"g": np.stack([source[f"l.{n}.g"] for n in range(4)])}
    assert len(matched(source, stacked).relations) == len(matched(stacked, source).relations) == 1


@pytest.mark.parametrize("value", [0, 1])
def test_padding_and_what_is_cut_off(value: int) -> None:
    table = weight(100, 16)
    padded = np.concatenate([table, np.full((28, 16), value, np.float32)])
    assert written(matched({"e": table}, {"w": padded}).relations[0]) == f"e [a b], {value} [c b] <-> w [a+c b]"
    assert written(matched({"e": padded}, {"w": table}).relations[0]) == "e [a+b c] <-> w [a c], drop [b c]"
    assert written(matched({"e": table}, {"w": table[:, :12]}).relations[0]) == "e [a b+c] <-> w [a b], drop [a c]"


def test_a_bias_that_one_side_does_not_have() -> None:
    query, value = weight(32), weight(32)
    target = {"qkv.bias": np.concatenate([query, np.zeros(32, np.float32), value])}
    found = matched({"q_bias": query, "v_bias": value}, target)
    assert written(found.relations[0]) == "q_bias [a], 0 [a], v_bias [a] <-> qkv.bias [a+a+a]"
    found = matched({"q.bias": query, "v.bias": value, "k.bias": np.zeros(32, np.float32)}, target)
    assert set(found.relations[0].sources) == {"q.bias", "k.bias", "v.bias"}


def test_biases_of_zeros_are_fused_as_their_weights_are() -> None:
    source = {f"e.{n}.{p}.weight": weight(24, 24) for n in range(2) for p in "qkv"}
    source |= {f"e.{n}.{p}.bias": np.zeros(24, np.float32) for n in range(2) for p in "qkv"}
    target = {f"f.{n}.qkv.weight": np.concatenate([source[f"e.{n}.{p}.weight"] for p in "qkv"]) for n in range(2)}
    target |= {f"f.{n}.qkv.bias": np.zeros(72, np.float32) for n in range(2)}
    for left, right in ((source, target), (target, source)):
        found = matched(left, right)
        assert (found.silent, found.unplaced) == ((), ())
        assert [one.evidence for one in found.relations] == ["values", "values", "names", "names"]


def test_a_rotary_bias_of_half_precision_lies_as_its_weight() -> None:
    def halves(array: Array) -> Array:
        return np.ascontiguousarray(array.reshape(4, 8, 2, -1).swapaxes(1, 2).reshape(array.shape))

    source = {f"l.{n}.q.weight": weight(64, 16) for n in range(3)} | {f"l.{n}.q.bias": weight(64) for n in range(3)}
    source = {name: array.astype(ml_dtypes.bfloat16) for name, array in source.items()}
    found = matched(source, {name.replace("l.", "h."): halves(array) for name, array in source.items()})
    assert (found.unplaced, len(found.relations)) == ((), 6)
    assert {one.right[0].dims[0] for one in found.relations} == {found.relations[0].right[0].dims[0]}


def test_casts_are_alike_though_one_would_be_exact() -> None:
    source = {f"e.{n}.w": weight(24, 24) for n in range(3)}
    target = {f"f.{n}.w": source[f"e.{n}.w"].astype(np.float16).T.copy() for n in range(3)}
    source["e.1.w"] = target["f.1.w"].T.astype(np.float32)
    found = matched(source, target)
    assert {one.operators[0].rounding for one in found.relations} == {True}
    back = matched(target, {name: array.astype(np.float32) for name, array in target.items()})
    assert {one.operators[0].rounding for one in back.relations} == {False}


def test_one_is_added() -> None:
    source = {f"e.{n}.norm": weight(24) for n in range(4)}
    found = matched(source, {f"f.{n}.norm": array + 1 for n, array in enumerate(source.values())})
    assert [(one.sources, one.operators[0].name) for one in found.relations] == [((name,), "add") for name in source]


def test_a_constant_is_changed_as_its_siblings_are() -> None:
    source = {f"e.{n}.norm": weight(24) for n in range(4)}
    source["e.2.norm"][:] = 1
    found = matched(source, {f"f.{n}.norm": array - 1 for n, array in enumerate(source.values())})
    assert sorted((one.sources, one.evidence) for one in found.relations) == [
        ((name,), "names" if name == "e.2.norm" else "values") for name in source
    ]
    assert {one.operators for one in found.relations} == {found.relations[0].operators}
