"""Planted faults, each found and named: the tensor, the first element, the source element expected, the value found, the cause."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.verify import Report, stream, verify

MORPH = """
vision_model. <-> :
  encoder.layers.{l}.self_attn.{p=q|k|v}_proj.{t} [o ...] <-> layers.{l}.qkv.{t} [(p o) ...]
  encoder.layers.{l}.mlp.weight [o i] <-> layers.{l}.mlp.weight [i o]
  encoder.layers.** <-> layers.**
  ** <-> **
"""
WIDTH = 8
QKV = "layers.1.qkv.weight"

Arrays = dict[str, np.ndarray]


def source_arrays() -> Arrays:
    chance = np.random.default_rng(7)

    def normal(*shape: int) -> np.ndarray:
        return chance.standard_normal(shape).astype(np.float32)

    arrays: Arrays = {"vision_model.emb.weight": normal(13, WIDTH), "vision_model.scale": normal()}
    for layer in range(3):
        at = f"vision_model.encoder.layers.{layer}."
        for part in "qkv":
            arrays[f"{at}self_attn.{part}_proj.weight"] = normal(WIDTH, WIDTH)
            arrays[f"{at}self_attn.{part}_proj.bias"] = normal(WIDTH)
        arrays[f"{at}self_attn.out.weight"] = normal(WIDTH, WIDTH)
        arrays[f"{at}mlp.weight"] = normal(11, WIDTH)
    arrays["vision_model.emb.weight"][5, 3] = 0.0
    arrays["vision_model.emb.weight"][6, 3] = np.nan
    return arrays


def target_arrays(source: Mapping[str, np.ndarray]) -> Arrays:
    made: Arrays = {
        "emb.weight": source["vision_model.emb.weight"].copy(),
        "scale": source["vision_model.scale"].copy(),
    }
    for layer in range(3):
        at, to = f"vision_model.encoder.layers.{layer}.", f"layers.{layer}."
        for kind in ("weight", "bias"):
            parts = [source[f"{at}self_attn.{part}_proj.{kind}"] for part in "qkv"]
            made[f"{to}qkv.{kind}"] = np.concatenate(parts)
        made[f"{to}self_attn.out.weight"] = source[f"{at}self_attn.out.weight"].copy()
        made[f"{to}mlp.weight"] = source[f"{at}mlp.weight"].T.copy()
    return made


def verified(change: Callable[[Arrays], object]) -> Report:
    source = source_arrays()
    target = target_arrays(source)
    change(target)
    return verify([flatten(parse(MORPH))], ArrayCheckpoint(source), ArrayCheckpoint(target))


def test_the_right_target_is_equal_and_says_how_much_was_compared() -> None:
    """Every element of every tensor, counted."""
    report = verified(lambda target: None)
    count = sum(array.size for array in target_arrays(source_arrays()).values())
    assert (True, count, count, 14) == (report.equal, report.elements, report.expected_elements, report.tensors)
    assert str(report).startswith(f"verified  {count:,} of {count:,} elements, bit for bit, by the second path")
    assert report.to_json()["equal"] is True


def one_ulp(target: Arrays) -> None:
    target[QKV].view(np.uint32)[9, 2] += 1


def rows_swapped(target: Arrays) -> None:
    target["emb.weight"][[3, 7]] = target["emb.weight"][[7, 3]]


def columns_swapped(target: Arrays) -> None:
    target["emb.weight"][:, [1, 4]] = target["emb.weight"][:, [4, 1]]


def parts_swapped(target: Arrays) -> None:
    q, k, v = np.split(target[QKV], 3)
    target[QKV] = np.concatenate([q, v, k])


def parts_turned(target: Arrays) -> None:
    q, k, v = np.split(target[QKV], 3)
    target[QKV] = np.concatenate([v, q, k])


def square_transposed(target: Arrays) -> None:
    target["layers.0.self_attn.out.weight"] = target["layers.0.self_attn.out.weight"].T.copy()


def not_transposed(target: Arrays) -> None:
    target["layers.2.mlp.weight"] = target["layers.2.mlp.weight"].T.copy().reshape(WIDTH, 11)


def layers_swapped(target: Arrays) -> None:
    one, two = "layers.0.self_attn.out.weight", "layers.2.self_attn.out.weight"
    target[one], target[two] = target[two], target[one]


def nan_bits(target: Arrays) -> None:
    target["emb.weight"].view(np.uint32)[6, 3] ^= 1


def minus_zero(target: Arrays) -> None:
    target["emb.weight"][5, 3] = -0.0


def interleaved(target: Arrays) -> None:
    weight = target["layers.0.self_attn.out.weight"]
    target["layers.0.self_attn.out.weight"] = (
        weight.reshape(2, 2, 2, WIDTH).transpose(0, 2, 1, 3).reshape(WIDTH, WIDTH).copy()
    )


def heads_swapped(target: Arrays) -> None:
    weight = target["layers.0.self_attn.out.weight"]
    target["layers.0.self_attn.out.weight"] = weight.reshape(4, 2, WIDTH)[[0, 2, 1, 3]].reshape(WIDTH, WIDTH).copy()


def rounded(target: Arrays) -> None:
    target["emb.weight"] = target["emb.weight"].astype(np.float16).astype(np.float32)


def byte_order(target: Arrays) -> None:
    target["scale"] = target["scale"].byteswap().reshape(())
    target["layers.0.qkv.bias"] = target["layers.0.qkv.bias"].byteswap()


def displaced(target: Arrays) -> None:
    target["emb.weight"] = np.roll(target["emb.weight"].reshape(-1), 3).reshape(13, WIDTH)
    target["emb.weight"].reshape(-1)[:3] = 1


def zeros(target: Arrays) -> None:
    target["layers.1.mlp.weight"][:] = 0


def negated(target: Arrays) -> None:
    target["layers.1.mlp.weight"] *= -1


def nearly(target: Arrays) -> None:
    target["layers.1.mlp.weight"] *= np.float32(1.00001)


def part_transposed(target: Arrays) -> None:
    q, k, v = np.split(target[QKV], 3)
    target[QKV] = np.concatenate([q, k.T, v])


def parts_rotated(target: Arrays) -> None:
    q, k, v = np.split(target[QKV], 3)
    q, k = (part.reshape(2, 2, 2, WIDTH).transpose(0, 2, 1, 3).reshape(WIDTH, WIDTH) for part in (q, k))
    target[QKV] = np.concatenate([q, k, v])


def head_major(target: Arrays) -> None:
    weight = target[QKV].reshape(3, 4, 2, WIDTH)  # (p h d) -> (h p d): each head's q, k and v beside each other
    target[QKV] = weight.transpose(1, 0, 2, 3).reshape(3 * WIDTH, WIDTH).copy()


def element_major(target: Arrays) -> None:
    target[QKV] = target[QKV].reshape(3, WIDTH, WIDTH).transpose(1, 0, 2).reshape(3 * WIDTH, WIDTH).copy()


def cut(target: Arrays) -> None:
    target["layers.1.mlp.weight"].view(np.uint32)[...] &= np.uint32(0xFFFF0000)


def one_more(target: Arrays) -> None:
    target["layers.1.mlp.weight"] += np.float32(1)


def scaled(target: Arrays) -> None:
    target["layers.1.mlp.weight"] *= np.float32(8**-0.5)


def whole_numbers(target: Arrays) -> None:
    weight = target["layers.1.mlp.weight"]
    target["layers.1.mlp.weight"] = weight.astype(np.int32).view(np.float32)


FAULTS = [
    (
        part_transposed,
        QKV,
        WIDTH * (WIDTH - 1),
        (WIDTH, 1),
        "vision_model.encoder.layers.1.self_attn.k_proj.weight[0, 1]",
        "part k, by itself: transposed: equal to the expected tensor's transpose",
    ),
    (
        parts_rotated,
        QKV,
        2 * 4 * WIDTH,
        (1, 0),
        "vision_model.encoder.layers.1.self_attn.q_proj.weight[1, 0]",
        "parts q and k, each by itself: rows are interleaved within each of 2 groups (heads)",
    ),
    (
        head_major,
        QKV,
        None,
        (2, 0),
        "vision_model.encoder.layers.1.self_attn.q_proj.weight[2, 0]",
        "rows are interleaved in blocks of 2 (heads): read as (3 4 2) where (4 3 2) is meant",
    ),
    (
        element_major,
        QKV,
        None,
        (1, 0),
        "vision_model.encoder.layers.1.self_attn.q_proj.weight[1, 0]",
        "rows are interleaved: read as (3 8) where (8 3) is meant",
    ),
    (
        cut,
        "layers.1.mlp.weight",
        None,
        (0, 0),
        "vision_model.encoder.layers.1.mlp.weight[0, 0]",
        "cut to bf16, not rounded",
    ),
    (
        one_more,
        "layers.1.mlp.weight",
        None,
        (0, 0),
        "vision_model.encoder.layers.1.mlp.weight[0, 0]",
        "every element is one more",
    ),
    (
        scaled,
        "layers.1.mlp.weight",
        None,
        (0, 0),
        "vision_model.encoder.layers.1.mlp.weight[0, 0]",
        "every element is 0.353553 times",
    ),
    (
        whole_numbers,
        "layers.1.mlp.weight",
        None,
        (0, 0),
        "vision_model.encoder.layers.1.mlp.weight[0, 0]",
        "its bits are those of i32, read as f32",
    ),
    (one_ulp, QKV, 1, (9, 2), "vision_model.encoder.layers.1.self_attn.k_proj.weight[1, 2]", "one element, by one ulp"),
    (rows_swapped, "emb.weight", 2 * WIDTH, (3, 0), "vision_model.emb.weight[3, 0]", "rows 3 and 7 are swapped"),
    (columns_swapped, "emb.weight", 26, (0, 1), "vision_model.emb.weight[0, 1]", "columns 1 and 4 are swapped"),
    (
        parts_swapped,
        QKV,
        2 * WIDTH * WIDTH,
        (WIDTH, 0),
        "vision_model.encoder.layers.1.self_attn.k_proj.weight[0, 0]",
        "parts k and v are swapped; read as q v k the tensor is equal",
    ),
    (
        parts_turned,
        QKV,
        3 * WIDTH * WIDTH,
        (0, 0),
        "vision_model.encoder.layers.1.self_attn.q_proj.weight[0, 0]",
        "parts stand in another order; read as v q k the tensor is equal",
    ),
    (
        square_transposed,
        "layers.0.self_attn.out.weight",
        WIDTH * (WIDTH - 1),
        (0, 1),
        "vision_model.encoder.layers.0.self_attn.out.weight[0, 1]",
        "transposed: equal to the expected tensor's transpose",
    ),
    (nan_bits, "emb.weight", 1, (6, 3), "vision_model.emb.weight[6, 3]", "NaN bits differ (one element)"),
    (minus_zero, "emb.weight", 1, (5, 3), "vision_model.emb.weight[5, 3]", "-0.0 for 0.0"),
    (
        interleaved,
        "layers.0.self_attn.out.weight",
        4 * WIDTH,
        (1, 0),
        "vision_model.encoder.layers.0.self_attn.out.weight[1, 0]",
        "rows are interleaved within each of 2 groups (heads)",
    ),
    (
        heads_swapped,
        "layers.0.self_attn.out.weight",
        4 * WIDTH,
        (2, 0),
        "vision_model.encoder.layers.0.self_attn.out.weight[2, 0]",
        "blocks (heads) 1 and 2 of 2 rows each are swapped",
    ),
    (rounded, "emb.weight", None, (0, 0), "vision_model.emb.weight[0, 0]", "equal after rounding to f16"),
    (displaced, "emb.weight", None, (0, 0), "vision_model.emb.weight[0, 0]", "equal up to an offset of 3 elements"),
    (zeros, "layers.1.mlp.weight", 11 * WIDTH, (0, 0), "vision_model.encoder.layers.1.mlp.weight[0, 0]", "all zeros"),
    (negated, "layers.1.mlp.weight", 11 * WIDTH, (0, 0), "vision_model.encoder.layers.1.mlp.weight[0, 0]", "negated"),
    (nearly, "layers.1.mlp.weight", None, (0, 0), "vision_model.encoder.layers.1.mlp.weight[0, 0]", "nearly equal"),
    (
        not_transposed,
        "layers.2.mlp.weight",
        None,
        (0, 1),
        "vision_model.encoder.layers.2.mlp.weight[1, 0]",
        "reshaped where it should be transposed",
    ),
]


@pytest.mark.parametrize(
    ("fault", "tensor", "count", "index", "source", "cause"), FAULTS, ids=[each[0].__name__ for each in FAULTS]
)
def test_a_fault_is_found_and_named(
    fault: Callable[[Arrays], object], tensor: str, count: int | None, index: tuple[int, ...], source: str, cause: str
) -> None:
    """One tensor differs, at the right element, with the right cause; all others were compared too."""
    report = verified(fault)
    (difference,) = report.differences
    assert not report.equal
    assert report.elements == report.expected_elements
    assert tensor == difference.tensor
    assert count in (difference.count, None)
    assert difference.first is not None
    assert (index, source) == (difference.first.index, difference.first.source)
    assert difference.cause is not None
    assert difference.cause.startswith(cause)
    text = str(report)
    assert text.startswith(f"DIFFERENT 1 of 14: {tensor}, {difference.count:,} of ")
    assert f"is {difference.first.found}, expected {difference.first.expected} = {source}" in text
    assert report.to_json()["differences"][0]["first"]["source"] == source


def test_two_swapped_layers_are_named_at_both() -> None:
    """Each says which tensor it is equal to."""
    report = verified(layers_swapped)
    one, two = "layers.0.self_attn.out.weight", "layers.2.self_attn.out.weight"
    causes = {difference.tensor: difference.cause for difference in report.differences}
    assert causes == {
        one: f"equal to {two}: the two tensors are swapped",
        two: f"equal to {one}: the two tensors are swapped",
    }


def test_bytes_in_the_wrong_order_are_named() -> None:
    report = verified(byte_order)
    causes = {difference.tensor: difference.cause for difference in report.differences}
    assert causes["layers.0.qkv.bias"] == "byte order: equal with the bytes of every element reversed"
    assert set(causes) == {"scale", "layers.0.qkv.bias"}


def test_a_missing_tensor_is_named() -> None:
    report = verified(lambda target: target.pop("scale"))
    assert report.missing == ["scale"]
    assert report.elements == report.expected_elements - 1
    assert "DIFFERENT 1 of 14: scale: missing from the target" in str(report)


def test_a_misspelt_tensor_is_missing_and_one_too_many_and_the_two_are_put_together() -> None:
    def misspell(target: Arrays) -> None:
        target["emb.weigth"] = target.pop("emb.weight")

    report = verified(misspell)
    assert (report.missing, report.unexpected) == (["emb.weight"], ["emb.weigth"])
    assert "the target has `emb.weigth`, which nothing makes" in str(report)


def test_one_tensor_too_many_is_named() -> None:
    report = verified(lambda target: target.update(extra=np.zeros(3, np.float32)))
    assert report.unexpected == ["extra"]
    assert not report.equal
    assert "extra: in the target, and nothing makes it" in str(report)


def test_a_wrong_dtype_is_named() -> None:
    report = verified(lambda target: target.update({QKV: target[QKV].astype(np.float64)}))
    (difference,) = report.differences
    assert (difference.tensor, difference.problem) == (QKV, "its dtype is f64, expected f32")
    assert report.elements < report.expected_elements


def test_a_wrong_shape_is_named() -> None:
    report = verified(lambda target: target.update({"emb.weight": target["emb.weight"].T.copy()}))
    (difference,) = report.differences
    assert difference.problem == "its shape is [8, 13], expected [13, 8]"
    assert difference.cause == "its axes stand in another order"


def test_nothing_to_compare_is_no_pass() -> None:
    """Empty checkpoints, and no morph at all."""
    empty = ArrayCheckpoint({})
    assert not verify([flatten(parse("w <->? w"))], empty, empty).equal
    assert not verify([], empty, empty).equal
    assert "NOT VERIFIED" in str(verify([flatten(parse("w <->? w"))], empty, empty))


def test_a_tie_whose_copies_differ_is_a_problem_though_the_target_is_equal() -> None:
    """The element that differs is named in both copies."""
    one, two = np.arange(6, dtype=np.float32), np.arange(6, dtype=np.float32)
    two[4] = 9
    source = ArrayCheckpoint({"a": one, "b": two})
    report = verify([flatten(parse("{=a|b} <-> w"))], source, ArrayCheckpoint({"w": one}))
    (problem,) = report.problems
    assert not report.equal
    assert problem.kind == "tie"
    assert "one element differs; a[4] is 4.0, not 9.0 = b[4]" in problem.message


def test_a_cast_asked_for_from_outside_comes_last() -> None:
    """--dtype bf16: rounded once, to nearest even, and compared with that."""
    import ml_dtypes

    from isomorph.language.tree import Op

    weight = np.random.default_rng(1).standard_normal((300, 301)).astype(np.float32)
    target = weight.T.astype(ml_dtypes.bfloat16)
    program = flatten(parse("w [o i] <-> w [i o]"))
    given = ArrayCheckpoint({"w": weight})
    cast = Op("cast", source="float", target="bf16", rounding=True)
    report = verify([program], given, ArrayCheckpoint({"w": target}), cast=cast, max_memory=1 << 20)
    assert report.equal, str(report)
    assert report.rounding == 1
    target.view(np.uint16)[4, 5] ^= 1
    (difference,) = verify([program], given, ArrayCheckpoint({"w": target}), cast=cast).differences
    assert difference.first is not None
    assert (difference.first.index, difference.first.source) == ((4, 5), "w[5, 4] | float ~> bf16")


def test_an_exact_cast_that_would_round_is_named_at_its_element() -> None:
    """The morph itself does not hold for this source: a problem, never a pass, whatever the target holds."""
    weight = np.ones((7, 5), np.float32)
    weight[3, 2] = 0.1
    target = ArrayCheckpoint({"v": np.ones((5, 7), np.float16)})
    report = verify([flatten(parse("w [o i] <-> v [i o] | f32 -> f16"))], ArrayCheckpoint({"w": weight}), target)
    (problem,) = report.problems
    assert not report.equal
    assert problem.kind == "cast"
    assert problem.message.startswith("`v`[2, 3] = w[3, 2] | f32 -> f16: ")
    assert "NOT VERIFIED" in str(report)


def test_two_readings_that_disagree_are_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast reading of a tensor is confirmed by the plain one; where it is not, nothing is called equal."""
    monkeypatch.setattr(stream, "agrees", lambda *args: False)
    report = verified(lambda target: None)
    assert not report.equal
    assert "the verifier's two readings of the morph disagree" in str(report)


def test_progress_counts_every_byte_of_the_target_once() -> None:
    source = source_arrays()
    target = ArrayCheckpoint(target_arrays(source))
    seen: list[int] = []
    report = verify([flatten(parse(MORPH))], ArrayCheckpoint(source), target, progress=seen.append)
    assert sum(seen) == target.manifest.nbytes == report.nbytes
