"""Blocks, their places in a tensor, and how they pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import MorphError
from isomorph.language import tree
from isomorph.language.axes import blocks, dim_size, pair, place, tensor_shape
from isomorph.language.parse import parse
from isomorph.language.resolve import dim_axes
from isomorph.language.rules import Rule
from isomorph.language.scopes import flatten


def dims_of(text: str) -> tuple[tree.Dim, ...]:
    statement = parse(f"x {text} <-> drop").statements[0]
    assert isinstance(statement, tree.Equation)
    return statement.left[0].dims or ()


def rule_of(text: str) -> Rule:
    return flatten(parse(text)).rules[0]


def test_blocks_come_in_reading_order_leftmost_dim_outermost() -> None:
    """Two sums make four blocks, the last dim turning fastest; units are no axes."""
    assert ["[a c]", "[a d]", "[b c]", "[b d]"] == [str(block) for block in blocks(dims_of("[(a + b) (c + d 1)]"))]


def test_name_axes_stand_first_and_lie_outside_the_tensor() -> None:
    """A stack axis belongs to the block and has no stride."""
    dims = dims_of("[o i]")
    (block,) = blocks(dims, ("e",))
    assert ["e", "o", "i"] == [factor.key for factor in block.factors]
    assert {"o": 3, "i": 1} == dict(place(dims, block, {"o": 2, "i": 3, "e": 5}).strides)


def test_the_worked_example() -> None:
    """k within grouped qkv: offset and strides as the module's docstring says."""
    dims = dims_of("[(g (r + 1 + 1) d) i]")
    sizes = {"g": 2, "r": 3, "d": 4, "i": 5}
    placed = place(dims, blocks(dims)[1], sizes)
    assert (3 * 4 * 5, {"g": 100, "d": 5, "i": 1}) == (placed.offset, dict(placed.strides))
    assert (40, 5) == tensor_shape(dims, sizes)


def test_further_axes_have_strides_of_their_own() -> None:
    """`...` is placed between its neighbours, row-major, whatever its rank."""
    dims = dims_of("[o ... e]")
    placed = place(dims, blocks(dims)[0], {"o": 2, "e": 3}, (4, 5))
    assert ((15, 3), {"o": 60, "e": 1}) == (placed.further, dict(placed.strides))
    assert (2, 4, 5, 3) == tensor_shape(dims, {"o": 2, "e": 3}, (4, 5))


axes = st.sampled_from("abcdefgh")
random_dims = st.lists(
    st.recursive(
        st.one_of(st.builds(tree.Axis, axes), st.builds(tree.Integer, st.integers(1, 3))),
        lambda inner: st.builds(
            tree.Sum,
            st.lists(
                st.builds(tree.Product, st.lists(inner, min_size=1, max_size=2).map(tuple)), min_size=1, max_size=3
            ).map(tuple),
        ),
        max_leaves=5,
    ),
    max_size=3,
).map(tuple)


@settings(max_examples=200, deadline=None)
@given(random_dims, st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_the_blocks_of_a_term_cover_its_tensor_once(dims: tuple[tree.Dim, ...], numbers: list[int]) -> None:
    """Every element of a tensor lies in exactly one block: a term is the disjoint union of its blocks."""
    sizes = dict(zip("abcdefgh", numbers, strict=True))
    try:
        found = blocks(dims)
    except MorphError:
        return  # an axis twice in a block
    shape = tensor_shape(dims, sizes)
    hits = np.zeros(math.prod(shape), int)
    for block in found:
        placed = place(dims, block, sizes)
        keys = [factor.key for factor in block.factors]
        for index in np.ndindex(*(int(key) if key.isdigit() else sizes[key] for key in keys)):
            hits[placed.offset + sum(at * placed.strides[key] for at, key in zip(index, keys, strict=True))] += 1
    assert [1] * math.prod(shape) == hits.tolist()


def test_dim_size_adds_products() -> None:
    """A dim is a polynomial in its axes."""
    (dim,) = dims_of("[(h d + g (2 + d) + 1)]")
    assert 3 * 4 + 2 * (2 + 4) + 1 == dim_size(dim, {"h": 3, "d": 4, "g": 2})
    assert ["h", "d", "g", "d"] == list(dim_axes(dim))


def test_equal_sets_pair_in_order() -> None:
    """The order of terms and summands decides among blocks of the same axes, whatever the order of their axes."""
    pairs = pair(rule_of("a [o i], b [i o] <-> c [i o], d [o i]"))
    assert [(0, 0), (1, 1)] == [(each.left[0].term, each.right[0].term) for each in pairs]


def test_sum_waives_multiplicity_on_the_summed_side() -> None:
    """`| sum` gathers the left blocks of the same axes, in order; read backward the sides change places."""
    rule = rule_of("a [d], b [d] -> s [d] | sum")
    (gathered,) = pair(rule)
    assert ([0, 1], [0]) == ([each.term for each in gathered.left], [each.term for each in gathered.right])
    (turned,) = pair(rule.inverse)
    assert ([0], [0, 1]) == ([each.term for each in turned.left], [each.term for each in turned.right])


@pytest.mark.parametrize(
    ("text", "kind", "mentions"),
    [
        ("a [d heads] <-> b [d]", "unpaired", ["`heads` only on the left", "line 1"]),
        ("a [d], b [d] -> s [d], t [d] | sum", "unpaired", ["[d]"]),
        ("a [(x y) x] <-> b [x y x]", "syntax", ["axis `x` stands twice"]),
        ("a [3 (3 d)] <-> b [d]", "syntax", ["the size 3 stands twice"]),
        ("a.{e} [d] <-> b [d]", "unpaired", ["`e` only on the left", "{=e}"]),
        ("a [" + " ".join(f"(a{n} + b{n})" for n in range(30)) + "] <-> b [c]", "syntax", ["over a billion blocks"]),
    ],
)
def test_what_does_not_pair_is_said(text: str, kind: str, mentions: list[str]) -> None:
    """The gap has its kind and names the axes."""
    with pytest.raises(MorphError) as refused:
        rule_of(text)
    assert {kind} == refused.value.kinds
    for mention in mentions:
        assert mention in str(refused.value)
