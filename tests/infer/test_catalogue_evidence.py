"""What the catalogue says of two sides: certain where all readings agree, asked where they do not, silent where a side is other."""

from __future__ import annotations

from proposal_truth import Truth, judge
from proposing import converted, headers

from isomorph.infer.by_name.agreement import agreed
from isomorph.infer.by_name.catalogue import readings
from isomorph.infer.by_name.propose import propose
from isomorph.infer.nouns import Part
from isomorph.layouts.catalogue import find
from isomorph.layouts.compose import plan_makeable
from isomorph.layouts.hub import schema
from isomorph.plan.plan import Plan
from isomorph.tensors import Manifest

LLAMA = {"layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "width": 32, "ffn": 80, "vocab": 50}
META = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 32, "head_dim": 8}


def llama(to: str) -> Plan:
    """Llama as transformers writes it, planned into another layout."""
    layout = find(f"llama/{to}")
    sizes = layout.family.complete(LLAMA)
    hub = schema("llama").expand(sizes, [])
    return plan_makeable(layout.morph.inverse.programs(META), hub, layout.family, sizes, META)


def test_heads_that_nothing_states_are_asked() -> None:
    """Llama in Meta's layout has its rows rotated head by head: how wide a head is decides, and is asked if no config says it."""
    plan = llama("meta")
    certain = propose(plan.source, plan.manifest, configs=({"model_type": "llama", **META}, None))
    assert judge(certain, Truth.of_plan(plan)).states == {"right": len(plan.targets)}
    asked = propose(plan.source, plan.manifest)
    score = judge(asked, Truth.of_plan(plan))
    assert (score.count("wrong"), score.count("asked without the truth")) == (0, 0)
    assert sorted(score.of("asked")) == [f"layers.{n}.attention.w{p}.weight" for n in (0, 1) for p in "kq"]
    assert {"size"} == {one.kind for one in asked.questions}


def test_what_every_shape_does_not_agree_with_is_no_reading() -> None:
    """One tensor of another shape than the layout says: the catalogue has nothing to say of this pair."""
    plan = llama("litgpt")
    shapes = {name: spec.shape for name, spec in plan.manifest.items()}
    assert readings(plan.source, headers(shapes))
    shapes["transformer.h.1.mlp.proj.weight"] = (32, 81)
    assert readings(plan.source, headers(shapes)) == ()


def test_more_norms_in_a_layer_mean_another_model() -> None:
    """Gemma 2 has Llama's names and two norms more; what Llama calls `post_attention_layernorm` is another one there."""
    plan = llama("litgpt")
    more = [f"model.layers.{n}.{w}_feedforward_layernorm.weight" for n in (0, 1) for w in ("pre", "post")]
    source = Manifest({**plan.source, **headers(dict.fromkeys(more, (32,)))})
    there = [f"transformer.h.{n}.post_{w}_norm.weight" for n in (0, 1) for w in ("attention", "mlp")]
    target = Manifest({**plan.manifest, **headers(dict.fromkeys(there, (32,)))})
    assert readings(source, target) == ()


def test_a_head_beside_the_model_does_not_hide_it() -> None:
    """Tensors outside the layers that no layout knows are left to other evidence; the rest is as certain as without them."""
    plan = llama("litgpt")
    source = Manifest({**plan.source, **headers({"value_head.summary.weight": (1, 32)})})
    target = Manifest({**plan.manifest, **headers({"v_head.weight": (1, 32)})})
    told = agreed(readings(source, target, (META, None)), source, target, target)
    assert set(plan.targets) == told.targets


def test_copies_that_a_layout_ties_are_copies_of_the_relation() -> None:
    """BERT's decoder is its word embedding: the relation has both names on the left, so that reading checks that they are equal."""
    layout = find("bert/hf_v4")
    sizes = layout.family.complete(
        {"layers": 1, "heads": 2, "width": 16, "ffn": 40, "vocab": 30, "positions": 12, "types": 2}
    )
    hub = schema("bert").expand(sizes, ["predictions", "pooler", "seq_relationship"])
    source = plan_makeable(layout.morph.inverse.programs({}), hub, layout.family, sizes, {}).manifest
    flax = find("bert/flax")
    target = plan_makeable(flax.morph.inverse.programs({}), hub, flax.family, sizes, {}).manifest
    found = propose(source, target)
    words = next(one for one in found.relations if "bert.embeddings.word_embeddings.weight" in one.sources)
    assert isinstance(words.left[0], Part)
    assert set(words.sources) == {"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"}
    assert found.unplaced == ()


def test_two_sides_of_two_families_have_no_reading() -> None:
    """Llama's names on one side, others on the other: nothing leads there."""
    assert readings(llama("litgpt").source, headers({"fc.weight": (3, 4)})) == ()
    plan = converted("** <-> x.**", headers({"fc.weight": (3, 4)}))
    assert readings(plan.source, plan.manifest) == ()
