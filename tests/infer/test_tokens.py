"""Names into tokens, and tokens into classes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isomorph.infer.by_name.classes import TensorClass, classes
from isomorph.infer.by_name.tokens import tokens, words
from isomorph.tensors import TensorSpec, dtype

F32 = dtype("f32")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "model layers 0 self attn q proj weight"),
        (
            "Transformer/encoderblock_11/MlpBlock_3/Dense_0/kernel",
            "transformer encoderblock 11 mlp block 3 dense 0 kernel",
        ),
        ("bert/encoder/layer_._0/attention/self/query/kernel:0", "bert encoder layer 0 attention self query kernel"),
        ("model/layer_with_weights-3/gamma/.ATTRIBUTES/VARIABLE_VALUE", "model layer with weights 3 gamma"),
        ("consolidated.00::layers.0.attention.wq.weight", "consolidated 00 layers 0 attention wq weight"),
        ("h.0.attn.LayerNorm.gamma", "h 0 attn layer norm gamma"),
        ("blk.0.ffn_gate_inp.weight", "blk 0 ffn gate inp weight"),
        ("", ""),
    ],
)
def test_words_end_where_people_end_them(name: str, expected: str) -> None:
    assert " ".join(words(name)) == expected


@given(st.text(max_size=60))
def test_tokens_lie_in_the_name_in_order(name: str) -> None:
    found = tokens(name)
    assert all(name[token.start : token.end].lower() == token.text for token in found)
    assert all(one.end <= other.start and one.piece <= other.piece for one, other in itertools.pairwise(found))


def made(*names: str, **shapes: tuple[int, ...]) -> dict[str, TensorClass]:
    specs = {name: TensorSpec(F32, (8, 8)) for name in names}
    specs.update({name.replace("__", "."): TensorSpec(F32, shape) for name, shape in shapes.items()})
    return {each.template: each for each in classes(specs)}


def layers(pattern: str, *inside: str, count: int = 3, first: int = 0) -> list[str]:
    return [pattern.format(layer) + each for layer in range(first, first + count) for each in inside]


def test_layers_count() -> None:
    found = made(*layers("h.{}.", "attn.q.weight", "attn.k.weight", "mlp.0.weight"))
    assert set(found) == {"h.{}.attn.q.weight", "h.{}.attn.k.weight", "h.{}.mlp.0.weight"}
    assert found["h.{}.attn.q.weight"].extents == (3,)


def test_siblings_that_hold_other_things_keep_their_number() -> None:
    """T5's sub-layers, first and second norm, and `mlp.0`, `mlp.2` of other shapes."""
    found = made(
        *layers(
            "block.{}.",
            "layer.0.SelfAttention.q.weight",
            "layer.1.DenseReluDense.wi.weight",
            "norm1.weight",
            "norm2.weight",
        )
    )
    assert "block.{}.layer.0.SelfAttention.q.weight" in found
    assert "block.{}.norm1.weight" in found
    assert found["block.{}.norm1.weight"].words[3] == "#0/2"


def test_two_attentions_of_one_shape_are_not_counted() -> None:
    found = made(
        *layers("blocks.{}.", "attn1.to_q.weight", "attn1.to_k.weight", "attn2.to_q.weight", "attn2.to_k.weight")
    )
    assert set(found) >= {"blocks.{}.attn1.to_q.weight", "blocks.{}.attn2.to_q.weight"}


def test_stages_of_other_widths_keep_their_number_and_their_blocks_count() -> None:
    specs = {
        f"stages.{stage}.{block}.conv{number}.weight": TensorSpec(F32, (8 << stage, 8 << stage, 3, 3))
        for stage in range(3)
        for block in range(2)
        for number in (1, 2)
    }
    assert next(each.template for each in classes(specs)) == "stages.0.{}.conv1.weight"


def test_a_run_of_layers_in_a_longer_list() -> None:
    inside = ("attn.q.weight", "attn.q.bias", "attn.k.weight", "attn.k.bias", "mlp.a.weight", "mlp.b.weight")
    found = made(
        "sequential.0.word_embeddings.weight", *layers("sequential.{}.", *inside, first=2), "sequential.6.norm.weight"
    )
    assert set(found) >= {
        "sequential.{}.attn.q.weight",
        "sequential.0.word_embeddings.weight",
        "sequential.6.norm.weight",
    }


def test_keras_numbers_begin_with_none() -> None:
    found = made(
        *[f"layers/{block}/attn/{each}" for block in ("block", "block_1", "block_2") for each in ("q/w", "k/w")]
    )
    (first,) = [each for template, each in found.items() if template.endswith("q/w")]
    assert list(first.members.values()) == [
        "layers/block/attn/q/w",
        "layers/block_1/attn/q/w",
        "layers/block_2/attn/q/w",
    ]


def test_every_tensor_is_in_one_class() -> None:
    names = [*layers("a.{}.", "x.0.w", "x.1.w", "y.w"), "z", "0", "a.b.0", "a.b.1"]
    found = made(*names)
    assert sorted(name for each in found.values() for name in each.members.values()) == sorted(names)
