"""Tensors found in what goes into a module and comes out of it, replaced in it, and kept apart from what changes later."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from isomorph.trace.flatten import leaves, replace, snapshot


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass(frozen=True)
class Output:
    logits: Any
    states: Any = None


class Cache:
    """An object of no known kind that holds arrays and grows."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.me = self


numbers = st.integers(0, 10**6)
trees = st.recursive(
    numbers.map(lambda number: np.full((2,), number)) | st.none() | numbers | st.just("text"),
    lambda below: (
        st.lists(below, max_size=3)
        | st.lists(below, max_size=3).map(tuple)
        | st.dictionaries(st.sampled_from("abc"), below, max_size=3)
        | st.builds(Pair, below, below)
        | st.builds(Output, below, below)
    ),
    max_leaves=12,
)


def kinds(value: Any) -> Any:
    """The containers of a tree, arrays as one mark."""
    if is_array(value):
        return "array"
    if isinstance(value, Output):
        return Output, kinds(value.logits), kinds(value.states)
    if isinstance(value, dict):
        return dict, {key: kinds(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [kinds(below) for below in value]
    return value


def test_paths_are_keys_fields_and_numbers() -> None:
    """A tensor alone has no path; numbers, None, texts and objects of no known kind are no tensors."""
    one = np.ones(1)
    assert [("", one)] == leaves(one, is_array)
    cache = Cache()
    cache.keys.append(one)
    value = {"a": (one, 3, [one]), "b": Pair(None, one), "c": Output(one, (one, "x")), "d": cache, "e": 1.5}
    assert ["a.0", "a.2.0", "b.second", "c.logits", "c.states.0"] == [path for path, _ in leaves(value, is_array)]


@given(trees, st.data())
def test_what_is_replaced_is_found_in_its_place(tree: Any, data: st.DataObject) -> None:
    """Whatever is replaced, the rest is the same object, the containers are of the same kinds, and the original is as it was."""
    before = leaves(tree, is_array)
    places = data.draw(st.sets(st.sampled_from(range(len(before))))) if before else set()
    new = {place: np.full((3,), -place - 1) for place in places}
    made = replace(tree, new, is_array)
    found = leaves(made, is_array)
    assert [path for path, _ in before] == [path for path, _ in found]
    assert all(one is new.get(place, before[place][1]) for place, (_, one) in enumerate(found))
    assert kinds(tree) == kinds(made)
    assert all(one is other for (_, one), (_, other) in zip(before, leaves(tree, is_array), strict=True))
    assert places or made is tree


def test_transformers_outputs_keep_their_kind() -> None:
    """A ModelOutput is entered by its keys, those that are None left out; replaced in it, its field and its key agree."""
    from transformers.modeling_outputs import BaseModelOutput

    output = BaseModelOutput(last_hidden_state=np.ones(2), hidden_states=(np.ones(1), np.ones(3)))
    assert ["last_hidden_state", "hidden_states.0", "hidden_states.1"] == [path for path, _ in leaves(output, is_array)]
    new = np.zeros(2)
    made = replace(output, {0: new}, is_array)
    assert isinstance(made, BaseModelOutput)
    assert made.last_hidden_state is new and made["last_hidden_state"] is new and made[0] is new
    assert output.last_hidden_state is not new
    assert made.hidden_states is output.hidden_states


@given(trees)
def test_a_snapshot_is_the_same_tree(tree: Any) -> None:
    """Same kinds, and the very same arrays."""
    made = snapshot(tree, is_array)
    assert kinds(tree) == kinds(made)
    assert all(
        one is other for (_, one), (_, other) in zip(leaves(tree, is_array), leaves(made, is_array), strict=True)
    )


def test_a_snapshot_does_not_change_when_its_model_does() -> None:
    """Lists, dicts and objects are copied all the way down, cycles and shared objects as they are; arrays are shared."""
    cache, one = Cache(), np.ones(1)
    shared = [one]
    cache.keys.append({"k": shared})
    made_args, made_cache = snapshot((shared, cache), is_array)
    cache.keys.append(one)
    shared.append(one)
    assert made_cache.me is made_cache
    assert [{"k": [one]}] == made_cache.keys
    assert made_args is made_cache.keys[0]["k"] and made_args[0] is one


def test_containers_that_hold_themselves_come_to_an_end() -> None:
    """A list in itself is walked to a bounded depth."""
    endless: list[Any] = [np.ones(1)]
    endless.append(endless)
    found = leaves(endless, is_array)
    assert "0" == found[0][0] and len(found) < 100
    assert snapshot(endless, is_array)[1] is not endless


def test_subclasses_of_dicts_and_lists_stay_what_they_are() -> None:
    """An OrderedDict and its order are kept."""
    tree = OrderedDict(b=np.ones(1), a=[np.ones(1)])
    made = replace(copy.copy(tree), {1: np.zeros(1)}, is_array)
    assert type(made) is OrderedDict and ["b", "a"] == list(made)
