"""Pairs of names made to mislead: what is stated as certain must be right, and a choice must hold the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from name_scores import score

from isomorph.infer.by_name.correspond import correspond
from isomorph.infer.by_name.correspondence import Correspondence
from isomorph.tensors import Manifest, TensorSpec, dtype

F32 = dtype("f32")
LAYERS = 3
Row = tuple[str, tuple[int, ...], str | Sequence[str], tuple[int, ...]]


def manifest(shapes: Mapping[str, tuple[int, ...]]) -> Manifest:
    return Manifest({name: TensorSpec(F32, shape) for name, shape in shapes.items()})


def pair(*rows: Row, shift: int = 0) -> tuple[Manifest, Manifest, dict[str, list[str]]]:
    """Target name, its shape, its sources, their shape; `{}` is a layer on both sides, `shift` later in the target."""
    source: dict[str, tuple[int, ...]] = {}
    target: dict[str, tuple[int, ...]] = {}
    truth: dict[str, list[str]] = {}
    for name, shape, sources, source_shape in rows:
        listed = [sources] if isinstance(sources, str) else list(sources)
        for layer in range(LAYERS if any("{}" in each for each in (name, *listed)) else 1):
            made = [each.format(layer) for each in listed if each]
            source.update(dict.fromkeys(made, source_shape))
            if name:
                target[name.format(layer + shift)] = shape
                truth[name.format(layer + shift)] = made
    return manifest(source), manifest(target), truth


D = (16, 16)
PLAIN: tuple[Row, ...] = (
    ("emb.weight", (50, 16), "model.embed_tokens.weight", (50, 16)),
    ("l.{}.up.w", (64, 16), "model.layers.{}.mlp.fc1.weight", (64, 16)),
    ("l.{}.dn.w", (64, 16), "model.layers.{}.mlp.fc2.weight", (16, 64)),
)


def attention(q: str, k: str, v: str, o: str) -> tuple[Row, ...]:
    return tuple(
        (f"l.{{}}.{new}", D, f"model.layers.{{}}.self_attn.{old}_proj.weight", D)
        for new, old in ((q, "q"), (k, "k"), (v, "v"), (o, "o"))
    )


TRAPS: dict[str, tuple[Manifest, Manifest, dict[str, list[str]]]] = {
    "q, k, v and o are called a, b, c and d": pair(*PLAIN, *attention("att.c", "att.a", "att.d", "att.b")),
    "nonsense": pair(*PLAIN, *attention("zorp.w", "blim.w", "quux.w", "frob.w")),
    "two norms of one shape": pair(
        *PLAIN,
        ("l.{}.alpha_vec", (16,), "model.layers.{}.post_attention_layernorm.weight", (16,)),
        ("l.{}.omega_vec", (16,), "model.layers.{}.input_layernorm.weight", (16,)),
    ),
    "w1, w2 and w3 in another order, all square": pair(
        ("layers.{}.mlp.w1.weight", D, "layers.{}.feed_forward.w3.weight", D),
        ("layers.{}.mlp.w2.weight", D, "layers.{}.feed_forward.w1.weight", D),
        ("layers.{}.mlp.w3.weight", D, "layers.{}.feed_forward.w2.weight", D),
    ),
    "w1 and w2 go up, w3 goes down": pair(
        ("layers.{}.mlp.w1.weight", (64, 16), "layers.{}.feed_forward.gate_proj.weight", (64, 16)),
        ("layers.{}.mlp.w2.weight", (64, 16), "layers.{}.feed_forward.up_proj.weight", (64, 16)),
        ("layers.{}.mlp.w3.weight", (16, 64), "layers.{}.feed_forward.down_proj.weight", (16, 64)),
    ),
    "a module more on each side, of one shape": pair(
        *PLAIN,
        *attention("attn.q", "attn.k", "attn.v", "attn.o"),
        ("l.{}.adapter.w", D, (), ()),
        ("", (), "model.layers.{}.extra_gate.weight", D),
    ),
    "towers without a name, of one shape": pair(
        ("a.l.{}.fc1.weight", (64, 16), "text.layers.{}.fc1.weight", (64, 16)),
        ("a.l.{}.fc2.weight", (16, 64), "text.layers.{}.fc2.weight", (16, 64)),
        ("b.l.{}.fc1.weight", (64, 16), "vision.layers.{}.fc1.weight", (64, 16)),
        ("b.l.{}.fc2.weight", (16, 64), "vision.layers.{}.fc2.weight", (16, 64)),
    ),
    "encoder and decoder": pair(
        *(
            (f"{new}.blocks.{{}}.{a}.kernel", D, f"{old}.layers.{{}}.{b}.weight", D)
            for new, old in (("enc", "encoder"), ("dec", "decoder"))
            for a, b in (
                ("att.query", "self_attn.q_proj"),
                ("att.key", "self_attn.k_proj"),
                ("att.value", "self_attn.v_proj"),
            )
        ),
        ("dec.blocks.{}.cross_att.query.kernel", D, "decoder.layers.{}.encoder_attn.q_proj.weight", D),
        ("dec.blocks.{}.cross_att.key.kernel", D, "decoder.layers.{}.encoder_attn.k_proj.weight", D),
    ),
    "layers from 1": pair(
        *(
            (f"net.block_{{}}.{a}", D, f"h.{{}}.attn.{b}.weight", D)
            for a, b in (("query.w", "q_proj"), ("key.w", "k_proj"), ("value.w", "v_proj"), ("proj.w", "o_proj"))
        ),
        ("net.block_{}.ln_1.g", (16,), "h.{}.ln_1.weight", (16,)),
        ("net.block_{}.ln_2.g", (16,), "h.{}.ln_2.weight", (16,)),
        shift=1,
    ),
    "four norms against two": pair(
        ("blk.{}.attn_norm.weight", (16,), "layers.{}.input_layernorm.weight", (16,)),
        ("blk.{}.post_attention_norm.weight", (16,), "layers.{}.post_attention_layernorm.weight", (16,)),
        ("blk.{}.ffn_norm.weight", (16,), "layers.{}.pre_feedforward_layernorm.weight", (16,)),
        ("blk.{}.post_ffw_norm.weight", (16,), "layers.{}.post_feedforward_layernorm.weight", (16,)),
    ),
    "a base model into one with a head": pair(
        ("model.embed_tokens.weight", (50, 16), "embed_tokens.weight", (50, 16)),
        ("lm_head.weight", (50, 16), (), ()),
        ("model.layers.{}.self_attn.q_proj.weight", D, "layers.{}.self_attn.q_proj.weight", D),
    ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_nothing_wrong_is_said_and_choices_hold_the_truth(trap: str) -> None:
    source, target, truth = TRAPS[trap]
    found = score(correspond(source, target), truth)
    assert not found.wrong
    assert not found.bad_choices


def certain(found: Correspondence) -> set[str]:
    return {name for match in found.matches for name in match.targets}


@pytest.mark.parametrize(
    "trap", ["layers from 1", "encoder and decoder", "w1 and w2 go up, w3 goes down", "four norms against two"]
)
def test_what_the_words_say_is_certain(trap: str) -> None:
    source, target, truth = TRAPS[trap]
    found = correspond(source, target)
    assert certain(found) == set(truth)
    assert not found.choices


def test_squares_without_telling_names_are_asked_together_or_each() -> None:
    source, target, _ = TRAPS["nonsense"]
    found = correspond(source, target)
    asked = {name for choice in found.choices for name in choice.targets}
    assert {name for name in target if any(word in name for word in ("zorp", "blim", "quux", "frob"))} <= asked


def test_a_target_is_said_once() -> None:
    for source, target, _ in TRAPS.values():
        found = correspond(source, target)
        said = [name for match in found.matches for name in match.targets]
        asked = [name for choice in found.choices for name in choice.targets]
        assert len(said) == len(set(said))
        assert sorted([*set(said), *asked, *found.unplaced]) == sorted(target)


def test_a_student_and_a_teacher_in_one_file_are_no_copies() -> None:
    """Both have all that the target needs: nothing of it is stated."""
    tower = {"pos_embed": (1, 10, 16), "cls_token": (1, 1, 16), "norm.weight": (16,), "norm.bias": (16,)}
    block = {"attn.proj.weight": (16, 16), "mlp.fc1.weight": (48, 16), "mlp.fc2.weight": (16, 48)}
    tower |= {f"blocks.{layer}.{name}": shape for layer in range(3) for name, shape in block.items()}
    source = {
        f"{who}.{name}": TensorSpec(dtype("f32"), shape)
        for who in ("student", "teacher")
        for name, shape in tower.items()
    }
    target = {f"backbone.{name}": TensorSpec(dtype("f32"), shape) for name, shape in tower.items()}
    found = correspond(Manifest(source), Manifest(target))
    assert [match.key for match in found.matches] == []
