"""Every conformance case of the notation, planned and carried out in memory, forward and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isomorph.engine.arrays import arrays
from isomorph.errors import MorphError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.testing.cases import Arrays, Case, load_cases, stored

CASES = list(load_cases(Path(__file__).parent.parent / "cases"))


def carry_out(case: Case, source: Arrays, *, inverse: bool) -> tuple[Plan, Arrays]:
    with ArrayCheckpoint(source) as checkpoint:
        plan = make_plan(
            case.programs(inverse=inverse),
            checkpoint.manifest,
            config=case.facts.get("config"),
            sizes=case.facts.get("set"),
        )
        return plan, {name: array.copy() for name, array in arrays(plan, checkpoint)}


def assert_same(expected: Arrays, found: Arrays) -> None:
    assert sorted(expected) == sorted(found)
    for name, array in expected.items():
        assert (array.dtype, array.shape) == (found[name].dtype, found[name].shape), name
        assert array.tobytes() == found[name].tobytes(), f"{name}: {array.tolist()} != {found[name].tolist()}"


def test_there_are_cases():
    """The suite is the whole norm: 442 cases, and the project's own."""
    assert len(CASES) >= 442


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case):
    """A case gives exactly its targets, classes and dropped names, as JSON too, and reads back; or its error, with all that it mentions."""
    if case.error is not None:
        with pytest.raises(MorphError) as caught:
            carry_out(case, case.arrays(), inverse=case.is_inverse)
        assert case.error["kind"] in caught.value.kinds, str(caught.value)
        for mention in case.error["mentions"]:
            assert mention in str(caught.value)
        return
    source = case.arrays()
    plan, made = carry_out(case, source, inverse=case.is_inverse)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))).digest == plan.digest
    assert_same({name: stored(values, tensor) for name, (tensor, values) in case.target.items()}, made)
    classes = {name: target.klass for name, target in plan.targets.items() if target.klass != "exact"}
    assert case.facts.get("class", {}) == classes
    assert sorted(case.facts.get("dropped", [])) == sorted(plan.dropped)
    _, back = carry_out(case, made, inverse=not case.is_inverse)
    expected = {name: source[name] for name in case.facts.get("back", list(source)) if name in source}
    for name in set(case.facts.get("back", ())) - set(source):
        expected[name] = back[name]  # an alias that comes back present; its values are in back_values
    for name, values in case.facts.get("back_values", {}).items():
        from isomorph.tensors import TensorSpec
        from isomorph.tensors import dtype as dtype_of

        tensor = TensorSpec(dtype_of(str(back[name].dtype)), back[name].shape)
        expected[name] = stored(values, tensor)
    assert_same(expected, back)
