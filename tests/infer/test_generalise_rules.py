"""Few relations, and the text that a person would write for them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.errors import MorphError
from isomorph.infer.generalise import generalise
from isomorph.infer.generalise.questions import chosen
from isomorph.infer.nouns import Alternative, Draft, Filled, Part, Question, Relation, axis, copy_of
from isomorph.language.morph import Morph
from isomorph.language.parse import parse
from isomorph.language.tree import Op
from isomorph.language.unparse import unparse
from isomorph.plan.moves import Move
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import DTYPES, DType, Manifest, TensorSpec

F32 = DTYPES["f32"]


def manifests(draft: Draft, dtype: DType = F32, made: DType = F32) -> tuple[Manifest, Manifest]:
    """The tensors that a draft is about, those of dropped and unplaced names [2]."""
    sides: tuple[dict[str, TensorSpec], dict[str, TensorSpec]] = ({}, {})
    every = [*draft.relations, *(one for q in draft.questions for each in q.alternatives for one in each.relations)]
    for relation in every:
        for side, found, kind in ((relation.left, sides[0], dtype), (relation.right, sides[1], made)):
            for part in side:
                if isinstance(part, Part):
                    found.update(dict.fromkeys(part.every, TensorSpec(kind, relation.shape(part))))
    sides[0].update(dict.fromkeys(draft.dropped, TensorSpec(dtype, (2,))))
    sides[1].update(dict.fromkeys(draft.unplaced, TensorSpec(made, (2,))))
    return Manifest(sides[0]), Manifest(sides[1])


def text_of(draft: Draft, config: Mapping[str, object] | None = None, **dtypes: DType) -> str:
    """The morph of a draft; what it must be whatever the draft: exact, and its own canonical text."""
    source, target = manifests(draft, **dtypes)
    text = unparse(generalise(draft, source, target, config=config))
    assert unparse(parse(text)) == text
    assert unparse(generalise(draft, source, target, config=config)) == text
    if not draft.questions:
        exact(text, draft, source, target, config)
    return text


def exact(
    text: str, draft: Draft, source: Manifest, target: Manifest, config: Mapping[str, object] | None = None
) -> Plan:
    """Each relation is one instance of the plan; the way back is accepted."""
    unplaced = set(draft.unplaced)
    wanted = Manifest({name: spec for name, spec in target.items() if name not in unplaced})
    plan = make_plan(Morph.parse(text).programs(config), source, config=config, like=wanted)
    made = {(frozenset(one.sources), frozenset(one.targets)) for one in plan.instances if one.targets}
    assert made == {(frozenset(one.sources), frozenset(one.targets)) for one in draft.relations}
    assert set(plan.dropped) == set(draft.dropped)
    if not any(one.one_way for one in draft.relations):
        turned = [program.inverse for program in plan.programs]
        back = make_plan(turned, target, config=config)
        assert back.targets.keys() == {name for one in draft.relations for name in one.sources}
    return plan


def moves_in(plan: Plan) -> dict[str, set[Move]]:
    """What is moved into each target."""
    found: dict[str, set[Move]] = {}
    for move in plan.moves:
        found.setdefault(move.target.tensor, set()).add(move)
    return found


def copies(pairs: Sequence[tuple[str, str]], shape: tuple[int, ...] = (3,)) -> list[Relation]:
    return [copy_of(one, other, shape) for one, other in pairs]


def turned(one: str, other: str, o: int = 4, i: int = 5) -> Relation:
    """`one [o i] <-> other [i o]`."""
    return Relation(
        (Part((one,), (axis("a"), axis("b"))),), (Part((other,), (axis("b"), axis("a"))),), {"a": o, "b": i}
    )


def test_numbers_are_indices() -> None:
    relations = copies([(f"h.{n}.w", f"layers.{n}.weight") for n in range(12)])
    assert text_of(Draft(tuple(relations))) == "h.{l}.w <-> layers.{l}.weight\n"


def test_numbers_shifted_padded_and_turned() -> None:
    shifted = [(f"a.{n}.x", f"b.{n + 1}.x") for n in range(5)]
    padded = [(f"c.{n}.x", f"d.{n:02}.x") for n in range(11)]
    back = [(f"e.{n}.x", f"f.{5 - n}.x") for n in range(6)]
    text = text_of(Draft(tuple(copies([*shifted, *padded, *back]))))
    assert text.splitlines() == ["a.{l}.x <-> b.{l+1}.x", "c.{l}.x <-> d.{l:02}.x", "e.{l}.x <-> f.{5-l}.x"]


def test_one_number_is_two() -> None:
    """Blocks counted through on one side, stage by stage on the other."""
    relations = copies([(f"blocks.{s * 4 + j}.w", f"stages.{s}.layers.{j}.w") for s in range(3) for j in range(4)])
    text = text_of(Draft(tuple(relations)))
    assert text == "blocks.{(l j)}.w <-> stages.{l}.layers.{j}.w where j=4\n"


def test_numbers_that_no_formula_links_are_labels() -> None:
    pairs = [(f"h.{n}.mlp.{a}.w", f"g.{n}.fc{b}.w") for n in range(3) for a, b in ((0, 1), (2, 2), (7, 3))]
    assert text_of(Draft(tuple(copies(pairs)))) == "h.{l}.mlp.{n=0|2|7}.w <-> g.{l}.fc{n=1|2|3}.w\n"


def test_the_words_of_a_fused_tensor() -> None:
    def fused(layer: int, kind: str, rest: tuple[int, ...]) -> Relation:
        further = tuple(axis(f"r{k}") for k in range(len(rest)))
        left = Part(tuple(f"l.{layer}.{p}_proj.{kind}" for p in "qkv"), (axis("o"), *further), along=("p",))
        right = Part((f"l.{layer}.qkv.{kind}",), ((("p", "o"),), *further))
        return Relation((left,), (right,), {"p": 3, "o": 4, **{f"r{k}": n for k, n in enumerate(rest)}})

    relations = [fused(n, kind, rest) for n in range(2) for kind, rest in (("weight", (5,)), ("bias", ()))]
    assert (
        text_of(Draft(tuple(relations)))
        == "l.{l}.{p=q|k|v}_proj.{t=weight|bias} [o ...] <-> l.{l}.qkv.{t} [(p o) ...]\n"
    )


def test_one_axis_of_names_that_are_two() -> None:
    names = tuple(f"experts.{e}.{w}" for e in range(4) for w in ("w1", "w3"))
    left = Part(names, (axis("f"), axis("d")), along=("a",))
    right = Part(("gate_up",), ((("a", "f"),), axis("d")))
    relation = Relation((left,), (right,), {"a": 8, "f": 3, "d": 5})
    text = text_of(Draft((relation, copy_of("x", "y", (2,)))))
    assert text.splitlines()[0].startswith("experts.{e}.w{p=1|3} [o i] <-> gate_up [(e p o) i]")


def test_a_grid_that_is_not_full() -> None:
    """Whisper's keys have no bias."""
    words = {"query": "q", "key": "k", "value": "v", "out": "out"}
    pairs = [
        (f"b.{n}.attn.{p}.{t}", f"l.{n}.self_attn.{q}_proj.{t}")
        for n in range(2)
        for p, q in words.items()
        for t in ("weight", "bias")
        if (p, t) != ("key", "bias")
    ]
    text = text_of(Draft(tuple(copies(pairs))))
    assert text == "b.{l}.attn.{p=query|key|value|out}.* <-> l.{l}.self_attn.{p=q|k|v|out}_proj.*\n"


def test_wildcards_stand_below_what_they_would_do_wrong() -> None:
    paths = [f"enc.{n}.{m}" for n in range(2) for m in ("attn.q", "attn.k", "mlp.up", "mlp.down")]
    relations = [turned(f"{path}.weight", f"{path.replace('.', '/')}/kernel") for path in paths]
    relations += copies([(f"{path}.bias", f"{path.replace('.', '/')}/bias") for path in paths])
    relations += copies([(f"enc.{n}.norm.weight", f"enc/{n}/norm/scale") for n in range(2)], (4,))
    lines = text_of(Draft(tuple(relations))).splitlines()
    assert lines[0] == "paths . <-> /"
    assert len(lines) <= 4
    norm = next(k for k, line in enumerate(lines) if "norm" in line)
    general = next(k for k, line in enumerate(lines) if line.startswith("**"))
    assert norm < general


def test_an_outlier_is_not_hidden() -> None:
    """One matrix of twelve is not transposed: it stands alone, above the others."""
    relations = [turned(f"h.{n}.fc.weight", f"l.{n}.fc.weight", 4, 4) for n in range(12) if n != 3]
    relations.append(copy_of("h.3.fc.weight", "l.3.fc.weight", (4, 4)))
    lines = text_of(Draft(tuple(relations))).splitlines()
    assert lines == [
        "h.3.fc.weight <-> l.3.fc.weight",
        "h.{l}.fc.weight [o i] <-> l.{l}.fc.weight [i o]",
    ]


def test_copies_are_ties() -> None:
    left = Part(("wte.weight",), (axis("v"), axis("d")), copies=(("head.weight",),))
    relation = Relation((left,), (Part(("emb.w",), (axis("v"), axis("d"))),), {"v": 7, "d": 3})
    assert text_of(Draft((relation,))) == "{=wte|head}.weight <-> emb.w\n"


def test_many_copies_are_numbered() -> None:
    names = [f"l.{n}.inv_freq" for n in range(9)]
    left = Part((names[0],), (axis("d"),), copies=tuple((name,) for name in names[1:]))
    relation = Relation((left,), (Part(("inv_freq",), (axis("d"),)),), {"d": 4})
    assert text_of(Draft((relation,))) == "l.{=r}.inv_freq <-> inv_freq where r=9\n"


def test_constants_take_their_dtype_from_beside() -> None:
    left = (Part(("proj",), (axis("d"), axis("p"))), Filled("0", (axis("p"),), F32))
    right = (Part(("head.weight",), (axis("p"), axis("d"))), Part(("head.bias",), (axis("p"),)))
    assert text_of(Draft((Relation(left, right, {"d": 3, "p": 5}),))) == (
        "proj [i o], 0 [o] <-> head.weight [o i], head.bias [o]\n"
    )
    made = Relation((Filled("2.5", (), F32),), (Part(("scale",), ()),), {})
    assert "2.5:f32 [] <-> scale []" in text_of(Draft((made, copy_of("a", "b", (2,)))))


def test_what_goes_nowhere_is_said_in_few_words() -> None:
    relations = copies([("v.a", "a"), ("v.b.c", "b.c")])
    gone = (*tuple(f"text.layers.{n}.{t}" for n in range(3) for t in ("w", "b")), "scale")
    lines = text_of(Draft(tuple(relations), dropped=gone, unplaced=("new.one",))).splitlines()
    assert "drop text.layers.**, scale" in lines
    assert "drop <-> new.one" in lines


def test_a_drop_stands_above_the_wildcard_that_would_take_it() -> None:
    names = [f"m.{x}.{t}" for x in ("a", "b", "c", "d") for t in ("weight", "bias", "scale")]
    text = text_of(Draft(tuple(copies([(name, name[2:]) for name in names])), dropped=("m.e.weight",)))
    assert text.splitlines() == ["drop m.e.weight", "m.** <-> **"]


def test_a_cast_of_everything_is_said_once() -> None:
    cast = (Op("cast", source="f32", target="bf16", rounding=True),)
    relations = [
        Relation(one.left, one.right, one.sizes, cast) for one in copies([("a.x", "b.y"), ("a.z", "c"), ("q", "r")])
    ]
    lines = text_of(Draft(tuple(relations)), made=DTYPES["bf16"]).splitlines()
    assert lines[0] == "| f32 ~> bf16"
    assert not any("|" in line for line in lines[1:])


def test_sizes_that_no_shape_tells_come_from_the_config() -> None:
    left = Part(("w",), ((("h", "d"),), axis("i")))
    right = Part(("v",), ((("d", "h"),), axis("i")))
    draft = Draft((Relation((left,), (right,), {"h": 4, "d": 6, "i": 5}),))
    assert text_of(draft) in ("w [(h d) i] <-> v [(d h) i] where h=4\n", "w [(h d) i] <-> v [(d h) i] where d=6\n")
    config = {"model": {"num_attention_heads": 4}, "layers": 6, "blocks": 6}
    assert "where heads=config.model.num_attention_heads" in text_of(draft, config)


def test_sums_inside_products() -> None:
    """Grouped queries: each group's queries, its key, its value."""
    q = Part(("q",), ((("g", "r", "d"),), axis("i")))
    k, v = (Part((name,), ((("g", "d"),), axis("i"))) for name in "kv")
    fused = Part(("qkv",), ((("g", "s", "d"),), axis("i")))
    sizes = {"g": 5, "r": 7, "d": 11, "i": 2, "s": 9}
    relation = Relation((q, k, v), (fused,), sizes, sums={"s": (("r",), (), ())})
    text = text_of(Draft((relation,)))
    assert "+ 1 + 1)" in text


def test_names_that_need_quotes() -> None:
    names = ['a b"c', "{x}.w", "*", "drop", "a,b", "\u00e9.w", "1:x", "where", "x::y"]
    text_of(Draft(tuple(copies([(name, f"t.{n}") for n, name in enumerate(names[:-1])]))))
    text_of(Draft(tuple(copies([(f"t.{n}", name) for n, name in enumerate(names[:-1])]))))


def test_opaque_names_are_a_table() -> None:
    rng = random.Random(5)
    words = ["".join(rng.choice("abcdefgh") for _ in range(7)) for _ in range(40)]
    text = text_of(Draft(tuple(copies(list(zip(words[:20], words[20:], strict=True))))))
    assert all(len(line) < 200 for line in text.splitlines())


def test_names_that_no_text_can_hold_are_left_out_and_said() -> None:
    relations = copies([("a", "b"), ("c\nd", "e")])
    source, target = manifests(Draft(tuple(relations)))
    text = unparse(generalise(Draft(tuple(relations)), source, target))
    assert text.splitlines() == ["# not written: what makes 'e' has no text", "a <-> b", "drop <-> e"]


def test_nothing_is_nothing() -> None:
    assert text_of(Draft(())) == ""


def question() -> tuple[Draft, Question]:
    names = [(f"h.{n}.weight", f"l.{n}.weight") for n in range(3)]
    straight = Alternative(tuple(copy_of(one, other, (4, 4)) for one, other in names), "as it is")
    across = Alternative(tuple(turned(one, other, 4, 4) for one, other in names), "transposed")
    one = Question(
        "l.{}.weight", "orientation", "Is l.{}.weight transposed?", (straight, across), 1, "its siblings are"
    )
    rest = copies([(f"h.{n}.{x}", f"l.{n}.{x}") for n in range(3) for x in ("a.b", "c.b", "d.b")])
    return Draft(tuple(rest), (one,)), one


def test_a_question_is_open_alternatives_the_likely_first() -> None:
    draft, _ = question()
    text = text_of(draft)
    lines = text.splitlines()
    at = next(k for k, line in enumerate(lines) if line.startswith("? "))
    assert lines[at - 1] == "# question: Is l.{}.weight transposed?  (key l.{}.weight)"
    assert lines[at] == "? h.{l}.weight [o i] <-> l.{l}.weight [i o]  # likely: transposed (its siblings are)"
    assert lines[at + 1] == "? h.{l}.weight <-> l.{l}.weight  # as it is"
    source, target = manifests(draft)
    with pytest.raises(MorphError, match="alternative"):
        make_plan(Morph.parse(text).programs(None), source, like=target)


def test_an_answer_makes_it_a_rule() -> None:
    draft, one = question()
    settled = chosen(draft, {one.key: 1})
    assert not settled.questions and len(settled.relations) == 12
    assert "h.{l}.weight [o i] <-> l.{l}.weight [i o]" in text_of(settled)
    with pytest.raises(IndexError, match="2 alternatives"):
        chosen(draft, {one.key: 2})
    with pytest.raises(KeyError):
        chosen(draft, {"no such": 0})


def test_a_source_that_was_not_chosen_is_dropped() -> None:
    one = Question(
        "y",
        "source",
        "Which?",
        (Alternative((copy_of("a", "y", (2,)),), "a"), Alternative((copy_of("b", "y", (2,)),), "b")),
    )
    assert chosen(Draft((), (one,)), {"y": 0}).dropped == ("b",)


def test_notes_are_said() -> None:
    relations = copies([("a", "b")])
    noted = Relation(relations[0].left, relations[0].right, relations[0].sizes, note="by names: its values are all 1")
    assert text_of(Draft((noted,))) == "a <-> b  # by names: its values are all 1\n"


WORDS = st.sampled_from(["q", "k", "attn", "mlp", "norm", "weight", "bias", "0", "1", "2", "10", "fc1", "fc2", "a_b"])
NAMES = st.lists(WORDS, min_size=1, max_size=4).map(".".join)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES, st.booleans()), max_size=14), st.lists(NAMES, max_size=3))
def test_whatever_the_names_the_morph_is_exact(pairs: list[tuple[str, str, bool]], gone: list[str]) -> None:
    """Law: any bijection of names, any of the matrices transposed, comes out exactly."""
    sources: dict[str, tuple[str, bool]] = {}
    for one, other, across in pairs:
        if one not in sources and other not in {name for name, _ in sources.values()}:
            sources[one] = (other, across)
    relations = [turned(one, f"t.{other}", 3, 3) if across else copy_of(one, f"t.{other}", (3, 3)) for one, (other, across) in sources.items()]  # fmt: skip
    dropped = tuple(dict.fromkeys(name for name in gone if name not in sources))
    draft = Draft(tuple(relations), dropped=dropped)
    text = text_of(draft)
    if relations:
        source, target = manifests(draft)
        plan = exact(text, draft, source, target)
        for one, (other, across) in sources.items():
            (move,) = [move for move in plan.moves if move.target.tensor == f"t.{other}"]
            assert (move.source.tensor, move.is_range) == (one, not across)  # type: ignore[union-attr]
