"""What values do not say is not said: constants, equal tensors, strangers; and members that are unlike their siblings."""

from __future__ import annotations

import numpy as np
import pytest
from matching import Array, matched, written

DRAW = np.random.default_rng(4)
LAYERS = 12


def weight(*shape: int) -> Array:
    return DRAW.standard_normal(shape).astype(np.float32)


def test_nothing_and_nothing() -> None:
    found = matched({}, {})
    assert (found.relations, found.unplaced, found.unused) == ((), (), ())
    assert matched({"a": weight(3)}, {}).unused == ("a",)
    assert matched({}, {"a": weight(3)}).unplaced == ("a",)


def test_strangers_are_not_placed() -> None:
    source = {f"l.{n}.w": weight(16, 16) for n in range(20)}
    found = matched(source, {f"m.{n}.w": weight(16, 16) for n in range(20)})
    assert (len(found.unplaced), len(found.unused), found.relations) == (20, 20, ())


def test_noise_on_either_side_is_left_over() -> None:
    shared = {f"l.{n}.w": weight(16, 8) for n in range(6)}
    source = {**shared, **{f"noise.{n}": weight(16, 8) for n in range(5)}}
    target = {f"m.{n}.w": shared[f"l.{n}.w"].T.copy() for n in range(6)} | {"other": weight(16, 8)}
    found = matched(source, target)
    assert found.unplaced == ("other",)
    assert found.unused == tuple(f"noise.{n}" for n in range(5))


def test_norms_of_ones_are_silent_with_all_candidates() -> None:
    source = {f"h.{n}.{p}": np.ones(8, np.float32) for n in range(2) for p in "ab"}
    found = matched(source, {f"k.{n}": np.ones(8, np.float32) for n in range(3)})
    assert [one.candidates for one in found.silent] == [tuple(source)] * 3
    assert {one.value for one in found.silent} == {"1"}
    assert found.unused == ()


def test_a_constant_that_no_source_holds_is_made() -> None:
    found = matched({"a": weight(4)}, {"bias": np.zeros((3, 1), np.float32), "ids": np.arange(6)[None]})
    assert sorted(written(one) for one in found.relations) == ["0 [a 1] <-> bias [a 1]", "arange [a] <-> ids [1 a]"]
    assert {one.evidence for one in found.relations} == {"constant"}


def test_a_scale_of_its_own_is_a_copy() -> None:
    scale = np.array(2.6592, np.float32)
    found = matched({"logit_scale": scale, "n": np.array(1)}, {"s": scale, "m": np.array(1)})
    assert [written(one) for one in found.relations] == ["logit_scale [] <-> s []"]
    assert [one.target for one in found.silent] == ["m"]


def test_tensors_without_elements() -> None:
    empty = np.zeros((0, 4), np.float32)
    found = matched({"a": empty, "b": weight(3)}, {"x": empty})
    assert [(one.target, one.candidates) for one in found.silent] == [("x", ("a",))]


def test_masks_equal_in_all_layers_are_no_tie() -> None:
    mask = np.tril(np.ones((8, 8), bool))
    found = matched({f"h.{n}.mask": mask for n in range(3)}, {f"k.{n}.mask": mask for n in range(3)})
    assert [len(one.relations) for one in found.silent] == [3, 3, 3]
    assert (found.relations, found.unused) == ((), ())


def test_ties_of_one_side_and_of_both() -> None:
    table = weight(16, 8)
    assert written(matched({"w": table}, {"a": table, "b": table}).relations[0]) == "w [a b] <-> a=b [a b]"
    assert written(matched({"a": table, "b": table}, {"w": table.T.copy()}).relations[0]) == "a=b [a b] <-> w [b a]"
    assert (
        written(matched({"a": table, "b": table}, {"x": table, "y": table}).relations[0]) == "a=b [a b] <-> x=y [a b]"
    )


def test_equal_tensors_in_two_layouts_are_placed_by_names() -> None:
    table = weight(16, 8)
    found = matched({"embed": table, "head": table}, {"embed": table, "out": table.T.copy()})
    assert [one.candidates for one in found.silent] == [("embed", "head")] * 2
    assert [written(one) for one in found.silent[1].relations] == [
        "embed [a b] <-> out [b a]",
        "head [a b] <-> out [b a]",
    ]


def test_one_tensor_makes_one_layout_only() -> None:
    table = weight(16, 8)
    found = matched({"w": table}, {"a": table, "b": table.T.copy()})
    assert found.unplaced == ("b",)
    assert found.notes == (
        "`b` holds what `w` holds, which makes another target already, in another layout or dtype; a tensor is written to one of them only",
    )


def test_a_symmetric_matrix_lies_as_its_siblings() -> None:
    source = {f"l.{n}.w": weight(8, 8) for n in range(4)}
    source["l.1.w"] = source["l.1.w"] + source["l.1.w"].T
    found = matched(source, {f"m.{n}.w": source[f"l.{n}.w"].T.copy() for n in range(4)})
    assert {(one.left[0].dims, one.right[0].dims) for one in found.relations} == {
        (found.relations[0].left[0].dims, found.relations[0].right[0].dims)
    }
    assert (found.outliers, [one.note for one in found.relations][1]) == (
        (),
        "its values are the same along several axes; taken as its siblings are",
    )


# ── outliers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def layers() -> dict[str, Array]:
    return {f"e.layers.{n}.linear1.weight": weight(24, 24) for n in range(LAYERS)}


def test_one_layer_is_not_transposed() -> None:
    source = layers()
    target = {f"f.{n}.kernel": array if n == 3 else array.T.copy() for n, array in enumerate(source.values())}
    found = matched(source, target)
    assert [one.text for one in found.outliers] == ["f.3.kernel is NOT transposed; its 11 siblings are"]
    expected = found.outliers[0].expected
    assert expected is not None and written(expected) == "e.layers.3.linear1.weight [a b] <-> f.3.kernel [b a]"


def test_two_layers_are_exchanged() -> None:
    source = layers()
    order = [0, 1, 2, 4, 3, *range(5, LAYERS)]
    found = matched(source, {f"f.{n}.w": source[f"e.layers.{m}.linear1.weight"] for n, m in enumerate(order)})
    assert [one.text for one in found.outliers] == [
        "f.3.w comes from e.layers.4.linear1.weight; by its 10 siblings it would come from e.layers.3.linear1.weight",
        "f.4.w comes from e.layers.3.linear1.weight; by its 10 siblings it would come from e.layers.4.linear1.weight",
    ]


def test_one_layer_is_not_scaled() -> None:
    source = layers()
    target = {f"f.{n}.w": array if n == 5 else array * np.float32(0.125) for n, array in enumerate(source.values())}
    assert [one.text for one in matched(source, target).outliers] == [
        "f.5.w has no operator; its 11 siblings have mul 0.125"
    ]


def test_two_parts_of_one_layer_are_exchanged() -> None:
    source = {f"e.{n}.{p}": weight(24, 24) for n in range(LAYERS) for p in "qkv"}
    target = {
        f"f.{n}.qkv": np.concatenate([source[f"e.{n}.{p}"] for p in ("qvk" if n == 2 else "qkv")])
        for n in range(LAYERS)
    }
    assert [one.text for one in matched(source, target).outliers] == [
        "f.2.qkv comes from e.2.q, e.2.v, e.2.k; by its 11 siblings it would come from e.2.q, e.2.k, e.2.v"
    ]


@pytest.mark.parametrize("step", [2, 3])
def test_a_pattern_is_no_outlier(step: int) -> None:
    source = dict(list(layers().items())[:6])
    target = {f"f.{n}.w": array if n % step else array.T.copy() for n, array in enumerate(source.values())}
    assert matched(source, target).outliers == ()


def test_layers_in_another_order_are_no_outliers() -> None:
    source = layers()
    order = DRAW.permutation(LAYERS)
    found = matched(source, {f"f.{n}.w": source[f"e.layers.{m}.linear1.weight"] for n, m in enumerate(order)})
    assert (found.outliers, len(found.relations)) == ((), LAYERS)
    turned = {f"f.{n}.w": source[f"e.layers.{LAYERS - 1 - n}.linear1.weight"] for n in range(LAYERS)}
    assert matched(source, turned).outliers == ()
