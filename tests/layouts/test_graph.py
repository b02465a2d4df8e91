"""The catalogue as a graph: every layout of a family to every other and back, on checkpoints whose every element is its own number.

Sizes are different primes wherever they are free, so that no conversion is right by coincidence. The expected result is what the
hub is in the target's layout; a conversion may make less of it (what the source does not carry), never other elements.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from isomorph.engine.arrays import arrays
from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.job.port import Port, make_port
from isomorph.layouts.catalogue import Layout, every, find, layouts
from isomorph.layouts.recognise import recognise
from isomorph.plan.moves import names_of
from isomorph.plan.prove import make_plan
from isomorph.testing.layouts import hub_probe, in_layout, plan_into, probe_config, probe_sizes

Arrays = dict[str, np.ndarray[Any, Any]]

WHOLE = ("clip", "vit", "bert", "t5")
"""Families whose every ordered pair of layouts is tried; of the others every layout is led to the hub and back."""


@cache
def probe_of(layout: str) -> Arrays:
    """The family's index checkpoint in this layout."""
    found = find(layout)
    return in_layout(found, hub_probe(found.family.name))


@cache
def inexact(layout: str) -> frozenset[str]:
    """The tensors of a layout that are computed from the hub's (DINOv2's class token plus its position in timm): no numbers of it."""
    found = find(layout)
    if found.is_hub:
        return frozenset()
    plan = plan_into(found, hub_probe(found.family.name))
    return frozenset(name for name, target in plan.targets.items() if target.klass != "exact")


def settled(source: Layout, target: Layout, tensors: Arrays) -> Port:
    family = source.family.name
    port = make_port(to=str(target), from_=str(source), config=probe_config(family))
    return replace(port, sizes=probe_sizes(family)).settled(ArrayCheckpoint(tensors).manifest)


def carried_out(plan: Any, tensors: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays(plan, ArrayCheckpoint(tensors))}


def check_pair(source: Layout, target: Layout) -> int:
    """One conversion there and back; how many elements were compared, -1 where the target must have what the source has not."""
    tensors, expected = probe_of(str(source)), probe_of(str(target))
    port = settled(source, target, tensors)
    assert port.route is not None
    manifest, base = ArrayCheckpoint(tensors).manifest, port.route.base
    try:
        plan = port.plan(manifest)
    except MorphError as refused:
        if "would leave out the head that this" in str(refused):
            return -1
        assert "must have tensors that this" in str(refused)
        without = make_plan(port.programs, manifest, config=port.config, sizes=port.sizes)
        assert {base + name for name in without.targets} < set(expected), "refused, though nothing is lacking"
        return -1
    made = carried_out(plan, tensors)
    computed = {
        move.target.tensor
        for move in plan.moves
        if plan.targets[move.target.tensor].klass != "exact" or inexact(str(source)) & set(names_of(move.source))
    }
    for name, array in made.items():
        assert array.shape == expected[base + name].shape, f"{source} -> {target}: {name}"
        if name in computed:
            continue
        np.testing.assert_array_equal(array, expected[base + name], err_msg=f"{source} -> {target}: {name}")
    # what was dropped, or was not there, does not come back
    if computed or plan.lossy or plan.unmade or plan.idle_later:
        return sum(array.size for array in made.values())
    back = carried_out(plan.inverse, made)
    for name, array in back.items():
        np.testing.assert_array_equal(array, tensors[name], err_msg=f"{source} -> {target} -> {source}: {name}")
    made_anew = {name for check in plan.checks if check.kind == "constant" for name in names_of(check.source)}
    assert set(back) >= set(tensors) - set(plan.dropped) - made_anew
    return sum(array.size for array in made.values())


PAIRS = [(str(one), name) for name in WHOLE for one in layouts(name)]


@pytest.mark.parametrize(("source", "family"), PAIRS, ids=[source for source, _ in PAIRS])
def test_a_layout_leads_to_every_other_of_its_family(source: str, family: str):
    """Through the hub, as one plan: the elements are those of the target's own index checkpoint, and come back."""
    others = [target for target in layouts(family) if str(target) != source and shares(find(source), target)]
    compared = [check_pair(find(source), target) for target in others]
    assert 0 not in compared
    assert sum(count > 0 for count in compared) >= min(3, len(others)), "a refusal is an exception"


def shares(source: Layout, target: Layout) -> bool:
    """Whether there is a tensor of the hub that both carry (a text tower and a vision tower have none)."""
    return bool(numbers(str(source)) & numbers(str(target)))


@cache
def numbers(layout: str) -> frozenset[float]:
    """A sample of the numbers that a layout's index checkpoint holds: the hub's, whatever they are called here."""
    return frozenset(float(array.reshape(-1)[0]) for array in probe_of(layout).values() if array.size) - {0.0, 1.0}


@pytest.mark.parametrize("source", [str(one) for one in every() if one.family.name not in WHOLE and not one.is_hub])
def test_a_layout_leads_to_its_hub_and_the_hub_to_it(source: str):
    layout = find(source)
    hub = next(one for one in layouts(layout.family.name) if one.is_hub)
    assert check_pair(layout, hub) > 0
    assert check_pair(hub, layout) != 0  # a head of its own has no place where it is tied


@pytest.mark.parametrize("source", [str(one) for one in every()])
def test_a_layout_is_recognised_by_its_names(source: str):
    """It is found first, or named among those that the same names could be."""
    layout = find(source)
    found = recognise(
        ArrayCheckpoint(probe_of(source)).manifest,
        probe_config(layout.family.name),
        sizes=probe_sizes(layout.family.name),
    )
    assert source in [str(found.layout), *(str(other) for other, _ in found.others)]


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("vit/google_npz", "vit/paddle_nn"),
        ("bert/google_tf", "bert/paddle"),
        ("t5/t5x_scanned", "t5/flax"),
        ("clip/openai", "clip/flax"),
    ],
)
def test_one_plan_is_the_two_steps_in_turn(first: str, last: str):
    """Composed through the hub: the same elements, each read once and written once, as two conversions with a file between."""
    source, target = find(first), find(last)
    hub = next(one for one in layouts(source.family.name) if one.is_hub)
    tensors = probe_of(first)
    at_once = settled(source, target, tensors)
    plan = at_once.plan(ArrayCheckpoint(tensors).manifest)
    between = carried_out(settled(source, hub, tensors).plan(ArrayCheckpoint(tensors).manifest), tensors)
    then = carried_out(settled(hub, target, between).plan(ArrayCheckpoint(between).manifest), between)
    made = carried_out(plan, tensors)
    assert list(then) and set(then) == set(made)
    for name, array in made.items():
        np.testing.assert_array_equal(array, then[name])
    assert sum(move.target.numel for move in plan.moves) == sum(array.size for array in made.values())
