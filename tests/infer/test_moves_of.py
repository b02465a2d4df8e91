"""Relations -> moves; and all moves of the catalogue, of the pairs, there and back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))  # where `peers` is

import pytest
from random_relations import effect, same_effect

from isomorph.formats.registry import open_checkpoint
from isomorph.infer.factor.relation import as_rule_text, groups, moves_of, relation
from isomorph.infer.nouns import Dropped, Filled, Part, Relation
from isomorph.layouts.catalogue import families, layouts
from isomorph.plan.moves import Box, Fill, Move
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import dtype, spec
from isomorph.testing.layouts import hub_probe, plan_into
from peers import NAMES, unpacked

FUSED = Relation(
    (Part(("q", "k"), ((("o",),),), ("p",)),), (Part(("f",), ((("p", "o"),),), copies=(("g",),)),), {"p": 2, "o": 3}
)


def test_a_stack_and_a_copy_are_written_out() -> None:
    moves = moves_of(FUSED, {"q": spec("f32[3]"), "k": spec("f32[3]")}, {"f": spec("f32[6]"), "g": spec("f32[6]")})
    assert moves == tuple(
        Move(Box(target, offset, (3,), (1,)), Box(source, 0, (3,), (1,)))
        for target in ("f", "g")
        for offset, source in ((0, "q"), (3, "k"))
    )


def test_constants_are_fills_and_what_is_dropped_does_not_move() -> None:
    one = Relation(
        (Part(("x",), ((("a",), ("b",)),)), Filled("0.5", ((("c",),),))),
        (Part(("y",), ((("c",), ("a",)),)), Dropped(((("b",),),))),
        {"a": 2, "b": 1, "c": 3},
    )
    moves = moves_of(one, {"x": spec("f16[3]")}, {"y": spec("f16[5]")})
    assert [move.target.offset for move in moves] == [0, 3]
    assert isinstance(moves[0].source, Fill) and moves[0].source.dtype == dtype("f16")
    assert moves[1].source == Box("x", 0, (2,), (1,))


def test_shapes_that_are_not_those_of_the_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`q` has the shape \(4,\), its axes \(3,\)"):
        moves_of(FUSED, {"q": spec("f32[4]"), "k": spec("f32[3]")}, {"f": spec("f32[6]"), "g": spec("f32[6]")})


def test_sides_that_do_not_pair_are_refused() -> None:
    wrong = Relation((Part(("x",), ((("a",),),)),), (Part(("y",), ((("b",),),)),), {"a": 2, "b": 2})
    with pytest.raises(ValueError, match="the two sides do not hold the same blocks of axes"):
        moves_of(wrong, {"x": spec("f32[2]")}, {"y": spec("f32[2]")})


def test_a_constant_without_a_dtype_is_refused() -> None:
    wrong = Relation((Filled("0", ((("a",),),)),), (Part(("y",), ((("a",),),)),), {"a": 2})
    with pytest.raises(ValueError, match="the constant 0 has no dtype"):
        moves_of(wrong, {}, {"y": spec("f32[2]")})


def form(group: Sequence[Move], plan: Plan) -> object:
    """Moves without the names of their tensors: layers are alike."""
    number: dict[str, int] = {}
    found = []
    for move in group:
        source = move.source.tensor if isinstance(move.source, Box) else ""
        places = [number.setdefault(name, len(number)) for name in ("<" + source, ">" + move.target.tensor)]
        shapes = plan.source[source].shape if source else (), plan.manifest[move.target.tensor].shape
        boxes = [(box.offset, box.shape, box.strides) for box in (move.source, move.target) if isinstance(box, Box)]
        found.append((tuple(places), shapes, tuple(boxes)))
    return tuple(found)


def all_come_back(plan: Plan) -> None:
    """Each group of moves is a relation that does the same. Of groups that are alike, one is looked at."""
    for group in {form(each, plan): each for each in groups(plan.moves)}.values():
        if not all(isinstance(move.source, Box | Fill) for move in group):
            continue  # sums and operators along axes are no matter of layout
        found = relation(group, plan.source, plan.manifest)
        assert found is not None, sorted({move.target.tensor for move in group})
        again = moves_of(found, plan.source, plan.manifest)
        used = {name: each for name, each in plan.source.items() if name in found.sources}
        assert same_effect(effect(group, used, plan.manifest), effect(again, used, plan.manifest)), as_rule_text(found)


@pytest.mark.parametrize("family", families())
def test_every_layout_of_the_catalogue_is_relations(family: str) -> None:
    hub = hub_probe(family)
    for layout in layouts(family):
        if not layout.is_hub:
            all_come_back(plan_into(layout, hub))


@pytest.mark.parametrize("name", NAMES)
def test_every_pair_is_relations(name: str, tmp_path: Path) -> None:
    pair = unpacked(name, tmp_path)
    with open_checkpoint(pair.source) as checkpoint:
        all_come_back(make_plan([pair.program], checkpoint.manifest, config=pair.config))
