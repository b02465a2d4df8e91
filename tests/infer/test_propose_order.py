"""How parts lie in a fused tensor is asked, and the truth is among the answers; of rotary models also how rows are rotated."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proposal_truth import Score, Truth, judge
from proposing import converted, headers

from isomorph.infer.by_name.propose import propose
from isomorph.plan.plan import Plan

Config = dict[str, int]


def attention(
    heads: int, groups: int, width: int, *, bias: bool = False, positions: bool = True
) -> dict[str, tuple[int, ...]]:
    """Two layers with attention of these heads, and a model around them."""
    d = 30
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (70, d), "norm.weight": (d,)}
    if positions:
        shapes["embed_positions.weight"] = (90, d)
    for n in range(2):
        at = f"layers.{n}.self_attn."
        for p, rows in (("q", heads * width), ("k", groups * width), ("v", groups * width)):
            shapes[f"{at}{p}_proj.weight"] = (rows, d)
            if bias:
                shapes[f"{at}{p}_proj.bias"] = (rows,)
        shapes[f"{at}o_proj.weight"] = (d, heads * width)
        shapes |= {f"layers.{n}.mlp.fc1.weight": (44, d), f"layers.{n}.mlp.fc2.weight": (d, 44)}
    return shapes


REST = (
    "layers.{l}.self_attn.o_proj.weight <-> h.{l}.attn.out_proj.weight\nlayers.{l}.mlp.** <-> h.{l}.mlp.**\n** <-> **"
)
EQUAL = {
    "one after another": "[(p o) ...]",
    "of each head": "[(h p d) ...]",
    "row by row": "[(o p) ...]",
}


def scored(plan: Plan, config: Config | None = None) -> Score:
    """The verdicts by names alone."""
    return judge(propose(plan.source, plan.manifest, configs=(config, None), use_catalogue=False), Truth.of_plan(plan))


@pytest.mark.parametrize("layout", EQUAL)
@pytest.mark.parametrize("order", ["q|k|v", "v|k|q"])
def test_fused_queries_keys_and_values_are_asked_with_the_truth(layout: str, order: str) -> None:
    """Weights and biases in one question; orders other than q, k, v where they lie one after another."""
    if layout != "one after another" and order != "q|k|v":
        order = "q|k|v"
    left = "[(h d) ...]" if "h" in EQUAL[layout] else "[o ...]"
    rule = f"layers.{{l}}.self_attn.{{p={order}}}_proj.{{t=weight|bias}} {left} <-> h.{{l}}.attn.qkv.{{t}} {EQUAL[layout]} where h=3, d=8"
    if "h" not in EQUAL[layout]:
        rule = rule.removesuffix(" where h=3, d=8")
    plan = converted(f"{rule}\n{REST}", headers(attention(3, 3, 8, bias=True)))
    score = scored(plan, {"num_attention_heads": 3})
    assert {one.target for one in score.verdicts if one.state == "asked"} == {
        f"h.{n}.attn.qkv.{t}" for n in (0, 1) for t in ("weight", "bias")
    }
    assert (score.count("wrong"), score.count("asked without the truth"), score.count("unplaced")) == (0, 0, 0)


@given(st.integers(1, 3), st.integers(2, 4), st.sampled_from([4, 8, 16]), st.booleans(), st.booleans())
@settings(max_examples=15, deadline=None)
def test_groups_are_asked_with_the_truth(groups: int, repeat: int, width: int, is_grouped: bool, is_told: bool) -> None:
    """Law: fewer keys than queries, one after another or group by group, heads stated or not: the truth is among the answers."""
    right = "[(g (r + 1 + 1) d) i]" if is_grouped else "[(g r d + g d + g d) i]"
    at = "layers.{l}.self_attn."
    left = f"{at}q_proj.weight [(g r d) i], {at}k_proj.weight [(g d) i], {at}v_proj.weight [(g d) i]"
    rule = f"{left} <-> h.{{l}}.attn.qkv.weight {right} where g={groups}, r={repeat}, d={width}"
    plan = converted(f"{rule}\n{REST}", headers(attention(groups * repeat, groups, width)))
    config = {"num_attention_heads": groups * repeat, "num_key_value_heads": groups} if is_told else None
    score = scored(plan, config)
    assert score.of("asked without the truth") == []
    assert score.of("wrong") == []
    assert {"h.0.attn.qkv.weight", "h.1.attn.qkv.weight"} <= set(score.of("asked"))


def test_rows_of_queries_and_keys_may_be_rotated_where_no_positions_are_learned() -> None:
    """Nothing in the shapes says that rows go from halves to pairs; without learned positions it is asked, for q and k at once."""
    text = (
        "layers.{l}.self_attn.{p=q|k}_proj.weight [(h two half) i] <-> h.{l}.attn.w{p}.weight [(h half two) i] where two=2, half=4\n"
        "layers.{l}.self_attn.v_proj.weight <-> h.{l}.attn.wv.weight\n" + REST
    )
    plan = converted(text, headers(attention(4, 2, 8, positions=False)))
    proposed = propose(plan.source, plan.manifest, configs=({"head_dim": 8}, None), use_catalogue=False)
    score = judge(proposed, Truth.of_plan(plan))
    assert (score.count("wrong"), score.count("asked without the truth")) == (0, 0)
    (question,) = (one for one in proposed.questions if one.kind == "order")
    assert sorted(question.targets) == sorted(f"h.{n}.attn.w{p}.weight" for n in (0, 1) for p in "qk")


def test_fused_on_both_sides_is_no_copy_for_certain() -> None:
    """A qkv on either side has one shape, whatever lies in it: of each head on one side, one after another on the other."""
    shapes = {
        name.replace("q_proj", "qkv"): shape
        for name, shape in attention(3, 3, 8).items()
        if not {"k_proj", "v_proj"} & set(name.split("."))
    }
    shapes |= {f"layers.{n}.self_attn.qkv.weight": (72, 30) for n in (0, 1)}
    rule = "layers.{l}.self_attn.qkv.weight [(h p d) i] <-> h.{l}.attn.c_attn.weight [(p h d) i] where h=3, p=3"
    plan = converted(f"{rule}\n{REST}", headers(shapes))
    score = scored(plan, {"num_attention_heads": 3})
    assert (score.count("wrong"), score.count("asked without the truth")) == (0, 0)
    assert score.of("asked") == ["h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight"]


def test_rows_that_one_side_lacks_are_asked_where_they_lie() -> None:
    """A padded vocabulary: at the end or at the start, both are answers."""
    shapes = attention(3, 3, 8)
    plan = converted(
        "embed_tokens.weight [(v + pad) d] <-> wte.weight [v d], drop [pad d] where v=64\n** <-> **", headers(shapes)
    )
    score = scored(plan)
    assert (score.of("wrong"), score.of("asked")) == ([], ["wte.weight"])
