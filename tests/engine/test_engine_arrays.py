from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from engine_plans import plan_of, whole
from engine_strategies import SOURCE_NUMEL, plans
from hypothesis import given, settings

from isomorph.engine.arrays import arrays
from isomorph.errors import CheckError
from isomorph.formats.memory import ArrayCheckpoint
from isomorph.language.rules import Origin, Rule
from isomorph.language.tree import Constant, Op
from isomorph.operators.base import Changes
from isomorph.plan.moves import Box, Check, Fill, Mix, Move
from isomorph.plan.plan import Plan
from isomorph.tensors import DTYPES

F32 = DTYPES["f32"]
ZERO = Fill(Fraction(0), F32, (3,))


def sources(plan: Plan) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    made = {}
    for name, spec in plan.source.items():
        raw = generator.integers(0, 256, SOURCE_NUMEL * spec.dtype.nbytes, dtype=np.uint8)
        made[name] = raw.view(spec.dtype.numpy).reshape(spec.shape)
    return made


@settings(deadline=None, max_examples=60)
@given(plans())
def test_arrays_are_what_a_plain_loop_gathers(plan: Plan):
    """Bit for bit, NaN included, whatever the boxes."""
    from engine_plans import naive

    given_arrays = sources(plan)
    found = {name: array.tobytes() for name, array in arrays(plan, ArrayCheckpoint(given_arrays))}
    assert naive(plan, given_arrays) == found


def rule_with(text: str, line: int) -> Rule:
    from isomorph.language.rules import FlatTerm

    origin = Origin("port.morph", line, "q [d], 0 [d] <-> qk [(d + d)]", "q [d], 0 [d] <-> qk [(d + d)]")
    return Rule(0, (FlatTerm(Constant(text), ()),), (), "<->", origin)


def checkpoint() -> ArrayCheckpoint:
    return ArrayCheckpoint(
        {
            "a": np.array([1, 2, 3], "f4"),
            "b": np.array([1, 2, 4], "f4"),
            "zero": np.array([[0, 0, -0.0]], "f4"),
            "steps": np.array([0, 1, 3], "i8"),
            "tenth": np.array([[1, 2], [0.1, 1e30]], "f4"),
        }
    )


def failure(
    checks: list[Check], moves: list[Move] | None = None, target: str = "f32[3]", rules: tuple[Rule, ...] = ()
) -> CheckError:
    source = checkpoint()
    plan = plan_of(source.manifest, {"t": target}, moves or [Move(whole("t", (3,)), whole("a", (3,)))], checks)
    plan = Plan(plan.source, plan.targets, plan.moves, plan.checks, rules, ())
    with pytest.raises(CheckError) as caught:
        list(arrays(plan, source))
    return caught.value


def test_a_tie_names_both_copies_the_element_and_both_values():
    """The first element that differs."""
    error = failure([Check("tie", whole("a", (3,)), whole("b", (3,)))])
    assert error.kinds == {"tie"}
    assert "the copies a and b differ: a[2] is 3.0, b[2] is 4.0" in str(error)


def test_a_constant_names_the_tensor_the_element_the_constant_and_the_line():
    """As the morph writes it; -0 is not 0."""
    error = failure([Check("constant", Box("zero", 0, (3,), (1,)), ZERO, rule=0)], rules=(rule_with("0", 7),))
    assert error.kinds == {"constant"}
    assert "port.morph:7: zero[0, 2] is -0.0, not the constant 0 (0.0 in f32)" in str(error)


def test_an_arange_that_does_not_hold_is_called_arange():
    """Counted along its axis."""
    expected = Fill(Fraction(0), DTYPES["i64"], (3,), (1,))
    error = failure([Check("constant", whole("steps", (3,)), expected)])
    assert "steps[2] is 3, not the constant arange (2 in i64)" in str(error)


def test_a_constant_is_checked_after_its_operators():
    """2 a - 2, 4, 6 - is not 2."""
    expected = Fill(Fraction(2), F32, (3,))
    error = failure([Check("constant", whole("a", (3,)), expected, (Op("mul", number="2"),))])
    assert "a[1] is 4.0 after its operators, not the constant 2" in str(error)


def test_all_checks_that_do_not_hold_are_reported_together():
    """One error, a gap each."""
    error = failure(
        [
            Check("tie", whole("a", (3,)), whole("b", (3,))),
            Check("tie", whole("a", (3,)), whole("a", (3,))),
            Check("constant", Box("zero", 0, (3,), (1,)), ZERO),
        ]
    )
    assert [gap.kind for gap in error.gaps] == ["tie", "constant"]


def test_an_exact_cast_names_the_target_element_and_where_it_comes_from():
    """Indices on both sides, through the transposition."""
    cast = Op("cast", source="f32", target="f16")
    error = failure([], [Move(whole("t", (2, 2)), Box("tenth", 0, (2, 2), (1, 2)), (cast,))], "f16[2,2]")
    assert error.kinds == {"cast"}
    assert "t[0, 1]: 0.10000000149011612 is not exactly a f16 (`f32 -> f16` does not round) (from tenth[1, 0])" in str(
        error
    )


def test_an_overflow_says_saturate():
    """And the largest number."""
    cast = Op("cast", source="float", target="f16", rounding=True)
    error = failure([], [Move(whole("t", (4,)), whole("tenth", (4,)), (cast,))], "f16[4]")
    assert "t[3]" in str(error) and "overflows f16, whose largest number is 65504.0" in str(error)
    assert "f32 ~> f16 saturate" in str(error)


def test_sums_constants_and_operators_act_in_order():
    """(a + (b + 1)) * 2, and a constant beside it."""
    source = checkpoint()
    mix = Mix((whole("a", (3,)), Mix((whole("b", (3,)),), (Op("add", number="1"),))), (Op("mul", number="2"),))
    moves = [Move(Box("t", 0, (3,), (1,)), mix), Move(Box("t", 3, (2,), (1,)), Fill(Fraction(5), F32, (2,), (3,)))]
    found = dict(arrays(plan_of(source.manifest, {"t": "f32[5]"}, moves), source))
    assert found["t"].tolist() == [6, 10, 16, 5, 8]


def test_what_rounding_changed_is_counted_by_target():
    """How many elements, and by how much."""
    source = checkpoint()
    cast = Op("cast", source="f32", target="bf16", rounding=True)
    changes: dict[str, Changes] = {}
    plan = plan_of(source.manifest, {"t": "bf16[2,2]"}, [Move(whole("t", (2, 2)), whole("tenth", (2, 2)), (cast,))])
    assert [(name, array.shape) for name, array in arrays(plan, source, changes=changes)] == [("t", (2, 2))]
    assert (changes["t"].elements, changes["t"].changed) == (4, 2)
    before = np.float32(1e30)
    exact = abs(float(before) - float(before.astype(DTYPES["bf16"].numpy)))
    assert exact <= changes["t"].largest <= 2.0 ** (99 - 8)  # half a unit in the last place: 1e30 lies above 2**99
