"""Words in their context: what the names of many packages are read as."""

from __future__ import annotations

import pytest

from isomorph.infer.by_name.classes import classes
from isomorph.infer.by_name.lexicon import lexicon, parse
from isomorph.infer.by_name.modules import Module, modules
from isomorph.tensors import TensorSpec, dtype

F32 = dtype("f32")


def read(*names: str, shape: tuple[int, ...] = (8, 8)) -> dict[str, Module]:
    return {module.path: module for module in modules(classes({name: TensorSpec(F32, shape) for name in names}))}


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("bert.encoder.layer.0.attention.self.query.weight", "query"),
        ("bert.encoder.layer.0.attention.output.dense.weight", "out"),
        ("bert.encoder.layer.0.output.dense.weight", "down"),
        ("bert.encoder.layer.0.intermediate.dense.weight", "up"),
        ("transformer.h.0.attn.c_proj.weight", "out"),
        ("transformer.h.0.mlp.c_proj.weight", "down"),
        ("encoder.block.0.layer.0.SelfAttention.o.weight", "out"),
        ("encoder.block.0.layer.1.DenseReluDense.wo.weight", "down"),
        ("blk.0.attn_output.weight", "out"),
        ("blk.0.ffn_down.weight", "down"),
        ("decoder.layers.0.self_attention.linear_qkv.weight", "qkv"),
        ("decoder.layers.0.mlp.linear_fc2.weight", "down"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.weight", "out"),
        ("layers.0.feed_forward.w2.weight", ""),
        ("model.layers.0.block_sparse_moe.gate.weight", "router"),
        ("model.layers.0.mlp.gate_proj.weight", "gate"),
        ("output.weight", "lm_head"),
        ("cls_token", "class_token"),
        ("cls.seq_relationship.weight", "nsp"),
        ("patch_embed.proj.weight", "patch"),
        ("model.norm.weight", "norm.final"),
        ("transformer.wpe.weight", "position"),
        ("roberta.embeddings.token_type_embeddings.weight", "token_type"),
        ("frobnicator.7.zorp", ""),
    ],
)
def test_a_word_speaks_in_its_context(name: str, role: str) -> None:
    (module,) = read(name).values()
    assert module.reading.role == role


def places(*names: str) -> list[str]:
    found = read(*[f"layers.{layer}.{name}" for layer in range(2) for name in names], shape=(8,))
    return [module.reading.role for module in found.values()]


@pytest.mark.parametrize(
    "names",
    [
        ("input_layernorm.weight", "post_attention_layernorm.weight"),
        ("ln_1.weight", "ln_2.weight"),
        ("norm1.weight", "norm2.weight"),
        ("LayerNorm_0.scale", "LayerNorm_2.scale"),
        ("attention.output.LayerNorm.weight", "output.LayerNorm.weight"),
        ("self_attn_layer_norm.weight", "final_layer_norm.weight"),
        ("attention_norm.weight", "ffn_norm.weight"),
        ("sa_layer_norm.weight", "output_layer_norm.weight"),
        ("layernorm_before.weight", "layernorm_after.weight"),
        ("self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight"),
    ],
)
def test_the_two_norms_of_a_layer(names: tuple[str, str]) -> None:
    assert places(*names) == ["norm:a", "norm:m"]


def test_four_norms() -> None:
    names = ["input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"]
    assert places(*[f"{name}.weight" for name in names]) == ["norm:a1", "norm:a2", "norm:m1", "norm:m2"]


def test_a_norm_beside_unknown_vectors_is_not_guessed() -> None:
    assert "norm:m" not in places("input_layernorm.weight", "post_attention_layernorm.weight", "zorp.weight")


def mlp(**shapes: tuple[int, ...]) -> list[str]:
    specs = {f"layers.0.feed_forward.{name}.weight": TensorSpec(F32, shape) for name, shape in shapes.items()}
    return [module.reading.role for module in modules(classes(specs))]


def test_w1_w2_w3_are_told_apart_by_shape_alone() -> None:
    assert mlp(w1=(32, 8), w2=(8, 32), w3=(32, 8)) == ["gate", "down", "up"]
    assert mlp(w1=(32, 8), w2=(32, 8), w3=(8, 32)) == ["gate", "up", "down"]
    assert mlp(w1=(8, 8), w2=(8, 8), w3=(8, 8)) == ["", "", ""]


def test_leaves_of_one_module() -> None:
    (module,) = read("h.0.ln.gamma", "h.0.ln.beta", shape=(8,)).values()
    assert set(module.leaves) == {"weight", "bias"}
    (module,) = read(
        "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked", shape=(8,)
    ).values()
    assert set(module.leaves) == {"weight", "bias", "mean", "var", "count"}


def test_each_phrase_of_the_file_has_one_meaning_in_a_context() -> None:
    assert lexicon().longest >= 5
    with pytest.raises(ValueError, match=r"lexicon: \[block\] 'a b' is 'key' and 'query'"):
        parse('[leaf]\nweight = ["w"]\n[block]\nkey = ["a_b"]\nquery = ["a.b"]\n')
