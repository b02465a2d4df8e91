"""Plans: their text, their JSON, their way back, and what they say when something is missing."""

from __future__ import annotations

import json

import pytest

from isomorph.errors import MorphError, UsageError
from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.language.tree import Op
from isomorph.plan.folding import fold_numbers, template
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import Manifest, spec

TOWER = """\
vision_model. <-> :
  drop post_layernorm.*
  encoder.layers.{l}.self_attn.{p=q|k|v}_proj.{t} [o ...] <-> transformer.layers.{l}.self_attn.qkv_proj.{t} [(p o) ...]
  encoder.** <-> transformer.**
  ** <-> **
drop **
"""


def clip(layers: int = 3, width: int = 4) -> Manifest:
    tensors = {"logit_scale": "f32[]", "text_model.embeddings.weight": f"f32[7,{width}]"}
    for layer in range(layers):
        head = f"vision_model.encoder.layers.{layer}."
        for part in "kvq":
            tensors[f"{head}self_attn.{part}_proj.weight"] = f"f32[{width},{width}]"
            tensors[f"{head}self_attn.{part}_proj.bias"] = f"f32[{width}]"
        tensors[f"{head}mlp.fc1.weight"] = f"f32[{4 * width},{width}]"
    tensors["vision_model.embeddings.class_embedding"] = f"f32[{width}]"
    tensors["vision_model.post_layernorm.weight"] = f"f32[{width}]"
    return Manifest({name: spec(text) for name, text in tensors.items()}, origin="clip.bin")


def plan_of(text: str, source: Manifest | dict[str, str], **options: object) -> Plan:
    if isinstance(source, dict):
        source = Manifest({name: spec(tensor) for name, tensor in source.items()})
    return make_plan([flatten(parse(text))], source, **options)


def test_the_text_shows_bars_folds_layers_and_counts():
    """Fused tensors are bars of named parts; layers fold; what is dropped, general, square and given back is said."""
    lines = str(plan_of(TOWER, clip())).splitlines()
    assert "25 in = 22 used + 3 dropped · 10 out · 376 elements · 1.5 kB" == lines[0]
    assert lines[1].split("   ")[0].strip() == "transformer.layers.{0..2}.self_attn.qkv_proj.weight"
    assert "[12 4]" in lines[1] and "q 4 │ k 4 │ v 4" in lines[1] and lines[1].endswith("exact")
    text = "\n".join(lines)
    assert "dropped   logit_scale · text_model.embeddings.weight · vision_model.post_layernorm.weight" in text
    assert "3 q_proj [4 4]" in text and "kept (shapes cannot show a transpose)" in text
    assert "general   4 tensors placed by ** (lines 4, 5), 2 dropped by ** (line 6; --all lists them)" in text
    assert "backward  22 tensors return exactly; the 3 dropped do not" in text
    assert "work      22 byte ranges, 0 rearranged, 0 computed · total: each element written once" in text


def test_a_transposed_square_is_said():
    """`[o i]` against `[i o]` on a square is a transpose that no shape shows: the plan says it."""
    text = str(plan_of("w [o i] <-> w [i o]", {"w": "f32[4,4]"}))
    assert "square    1 w [4 4]: transposed" in text
    assert "[o i] → [i o]" in text


def test_the_order_of_fused_parts_is_shown_as_written():
    """A valid but other morph (k before q) shows as another bar."""
    text = str(plan_of("k_proj [g i], q_proj [h i] <-> qk [(g + h) i]", {"q_proj": "f32[4,2]", "k_proj": "f32[2,2]"}))
    assert "k 2 │ q 4" in text


def test_interleaved_parts_are_said_to_be():
    """Parts that alternate are no ranges of the tensor; the bar says so."""
    text = str(plan_of("{p=q|k}.w [(h d) i] <-> qk [(h p d) i] where h=2", {"q.w": "f32[4,2]", "k.w": "f32[4,2]"}))
    assert "q │ k  interleaved along axis 0" in text


@pytest.mark.parametrize(
    "text",
    [
        TOWER,
        "where h=2\n" + TOWER,
        "logit_scale [] <-> s [] | f32 -> f64\n** <-> **",
        "1:f32 [] <-> one []\n** <-> x.**",
    ],
)
def test_json_and_back_is_the_same_plan(text):
    """A plan written as JSON and read again is proved again, and is equal."""
    plan = plan_of(text, clip())
    back = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert plan.digest == back.digest
    assert plan.targets == back.targets
    assert plan.moves == back.moves


def test_an_edited_plan_is_refused():
    """What a plan says it does must be what its morph says."""
    data = plan_of(TOWER, clip()).to_json()
    data["source"]["logit_scale"] = "f32[2]"
    with pytest.raises(UsageError, match="changed after it was proved"):
        Plan.from_json(data)
    with pytest.raises(UsageError, match="no plan of isomorph"):
        Plan.from_json({"hello": 1})


def test_the_inverse_of_a_plan_gives_the_sources_that_were_not_dropped():
    """plan.inverse makes the source's names and specs again."""
    source = clip()
    back = plan_of(TOWER, source).inverse
    assert {name: source[name] for name in back.targets} == {name: t.spec for name, t in back.targets.items()}
    assert 22 == len(back.targets)


def test_every_gap_is_in_one_report_with_its_place():
    """Three defects of three kinds: one error, each with its line and what to do."""
    with pytest.raises(MorphError) as caught:
        plan_of("a [(h d)] <-> b [h d]\nnever <-> made\n", {"a": "f32[6]", "neverr": "f32[1]"})
    text = str(caught.value)
    assert {"size", "idle", "unmatched"} == caught.value.kinds
    assert "line 1: axes h and d have no size" in text and "--set h=N" in text
    assert "line 2: no tensor fits this rule\n    never <-> made" in text
    assert "`neverr` [1] f32 (did you mean `never`, line 2?)" in text
    assert "drop neverr" in text


def test_a_morph_read_in_the_wrong_direction_is_recognised():
    """When nothing fits a left side and everything a right side, that is the one thing that is said, whatever `drop **` took."""
    for text in ("enc.{l}.w <-> layers.{l}.v", "enc.{l}.w <-> layers.{l}.v\ndrop enc.x\ndrop **"):
        with pytest.raises(MorphError) as caught:
            plan_of(text, {"layers.0.v": "f32[1]", "layers.1.v": "f32[1]"})
        (gap,) = caught.value.gaps
        assert "no tensor of SRC fits a left side, all 2 fit a right side: SRC is already the target layout." in str(
            gap
        )
        assert "Did you mean --inverse?" in str(gap)
        assert "`layers.0.v` fits  layers.{l}.v  (line 1)" in str(gap)


def test_one_wrong_size_is_one_gap_whatever_the_number_of_layers():
    """Instances that fail alike are told once, their names folded."""
    with pytest.raises(MorphError) as caught:
        plan_of("l.{l}.q [(h d) i] <-> m.{l}.q [h d i]", {f"l.{k}.q": "f32[8,3]" for k in range(12)}, sizes={"h": 3})
    (gap,) = caught.value.gaps
    assert "8 of `l.{0..11}.q` [8 3] is (h d) with h=3" in gap.message
    assert gap.tensors == tuple(f"l.{k}.q" for k in range(12))


def test_a_missing_config_key_is_shown_where_it_is_asked():
    """A `where` of the file stands above its rules; the caret stands there."""
    with pytest.raises(MorphError) as caught:
        plan_of("where h=config.heads\na [(h d)] <-> b [h d]\n", {"a": "f32[6]"})
    assert "line 1: the config has no key `heads`\n    where h=config.heads\n            ^^^^^^^^^^^^" in str(
        caught.value
    )


def test_a_long_line_is_cut_around_its_caret():
    """A message shows what fits a screen, however long the line is."""
    text = "a [(hh d)] <-> b [hh d], " + ", ".join(f"c{number} [hh d]" for number in range(300))
    with pytest.raises(MorphError) as caught:
        plan_of(text, {"a": "f32[6]"})
    assert max(map(len, str(caught.value).splitlines())) < 200


def test_like_says_it_in_the_words_of_torch():
    """Missing keys, unexpected keys, size mismatch, each with the tensors and near misses."""
    like = Manifest({"b.weight": spec("f32[3,2]"), "c": spec("f32[2]"), "e": spec("f16[1]")}, origin="model.py")
    with pytest.raises(MorphError) as caught:
        plan_of("a <-> b.weight\nd <-> cc\ne <-> e", {"a": "f32[2,3]", "d": "f32[2]", "e": "f32[1]"}, like=like)
    text = str(caught.value)
    assert "Missing key(s) in the result, which model.py has: 1" in text
    assert "Unexpected key(s) in the result, which model.py lacks: 1" in text
    assert "`b.weight`: the result has [2 3], model.py has [3 2] (transposed?)" in text
    assert "`e`: the result is f32, model.py has f16" in text


def test_a_set_axis_that_no_rule_has_is_an_error_with_the_axes():
    """--set of a misspelt axis is not ignored."""
    with pytest.raises(MorphError, match="--set head: no rule has an axis `head`"):
        plan_of("a [(heads d)] <-> b [heads d] where heads=2", {"a": "f32[4]"}, sizes={"head": 2})


def test_a_size_where_no_rule_names_an_axis_says_what_it_is_for():
    """Not a list of nothing."""
    with pytest.raises(MorphError) as caught:
        plan_of("** <-> **", {"a": "f32[4]"}, sizes={"heads": 2})
    advice = "No rule names an axis; a size is given to the axes of a morph (-m M.morph) or a layout (--to)"
    assert str(caught.value) == f"--set heads: no rule has an axis `heads`\n  {advice}"


def test_an_unbound_stack_is_a_warning():
    """The last expert missing is invisible from a source alone: the plan says so, until the size is bound."""
    source = {"x.0": "f32[2]", "x.1": "f32[2]"}
    assert any("e counts 2 by what is there" in line for line in plan_of("x.{e} [d] <-> x [e d]", source).warnings)
    assert () == plan_of("x.{e} [d] <-> x [e d] where e=2", source).warnings


def test_a_failing_rule_of_many_instances_is_told_a_few_times_and_counted():
    """A thousand layers with one defect do not make a thousand paragraphs."""
    source = {f"l.{number}.w": f"f32[{number + 2}]" for number in range(1000)}
    with pytest.raises(MorphError) as caught:
        plan_of("l.{l}.w [3] <-> m.{l} [3]", source)
    assert len(caught.value.gaps) < 20
    assert "more instances of this rule have the same problem" in str(caught.value)


def test_shared_storages_are_written_out_and_the_plan_says_the_cost():
    """Names that lie on the same bytes are all written; the text says how many bytes more."""
    source = Manifest({"a": spec("f32[1000]"), "b": spec("f32[1000]")}, shared=(("a", "b"),))
    assert "1 group of names on the same bytes in the source; each name is written out: 4 kB more" in str(
        plan_of("** <-> **", source)
    )


def test_a_cast_of_everything_is_one_line():
    """Tensors whose names and shapes stay are folded, cast or not; their numbers are shown."""
    source = Manifest({f"l.{k}.{n}": spec("f32[2,3]") for k in range(4) for n in "ab"} | {"ids": spec("i64[3]")})
    cast = Op("cast", source="float", target="bf16", rounding=True)
    lines = str(plan_of("** <-> **", source, cast=cast)).splitlines()
    assert ["l.{0..3}.**", "8", "unchanged", "|", "float", "~>", "bf16", "rounding"] == lines[1].split()
    assert ["ids", "unchanged", "exact"] == lines[2].split()


def test_names_with_braces_of_their_own_are_shown():
    """A name may look like a folded one."""
    text = str(plan_of("** <-> x.**", {f"a.{k}.w": "f32[1]" for k in ("{}", "0", "1", "{0..1}", "2")}))
    assert "x.a.** 5" in text
    with pytest.raises(MorphError) as caught:
        plan_of("b <-> c", {f"a.{k}.w": "f32[1]" for k in ["{}", *range(30)]})
    assert "`a.{0..29}.w` [1] f32 × 30" in str(caught.value)
    assert "`a.{}.w` [1] f32" in str(caught.value)


def test_numbers_that_are_padded_fold_as_they_are_written():
    """`02` is no `2`, and five thousand digits are no number at all."""
    assert "layers.{00..09}.w" == fold_numbers([f"layers.{k:02}.w" for k in range(10)])
    assert template("a.02") != template("a.2") == template("a.11")
    assert "9" * 5000 == fold_numbers(["9" * 5000])


def test_a_stack_in_order_is_said_in_a_few_words():
    """Layers, one after the other: not a bar of numbers."""
    text = str(plan_of("l.{l}.w [o i] <-> w [o l i]", {f"l.{k}.w": "f32[2,3]" for k in range(5)}))
    assert "w   [2 5 3]   0..4 stacked along axis 1" in text
