"""What a reader sees: questions whole and at one place, labels that are words, few comments; and what hard numberings come to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from test_generalise_rules import copies, manifests, moves_in, text_of, turned

from isomorph.errors import MorphError
from isomorph.infer.generalise import generalise
from isomorph.infer.generalise.questions import chosen
from isomorph.infer.nouns import Alternative, Draft, Part, Question, Relation, axis, copy_of
from isomorph.language.morph import Morph
from isomorph.language.unparse import unparse
from isomorph.plan.prove import make_plan


def layers(count: int, pairs: Sequence[tuple[str, str]]) -> list[Relation]:
    """These copies in so many layers."""
    return copies([(f"enc.{n}.{one}", f"h.{n}.{other}") for n in range(count) for one, other in pairs])


def alternatives(straight: Sequence[tuple[str, str]]) -> tuple[Alternative, Alternative]:
    """Kept, or transposed."""
    return (
        Alternative(tuple(copy_of(one, other, (4, 4)) for one, other in straight), "kept"),
        Alternative(tuple(turned(one, other, 4, 4) for one, other in straight), "transposed"),
    )


def open_draft() -> Draft:
    """Squares of two modules, two norms, a head that may be made by nothing, an outlier whose siblings are certain."""
    rest = layers(3, [("attn.q.bias", "att.wq.b"), ("attn.k.bias", "att.wk.b"), ("out.bias", "wo.b"), ("up", "ff")])
    rest += [turned(f"enc.{n}.fc.weight", f"h.{n}.fc.w", 4, 4) for n in range(3) if n != 1]
    squares = [(f"enc.{n}.{one}.weight", f"h.{n}.{other}.w") for one, other in (("attn.q", "att.wq"), ("attn.k", "att.wk"), ("out", "wo")) for n in range(3)]  # fmt: skip
    norms = [
        Alternative(tuple(copy_of(f"enc.{n}.{a}", f"h.{n}.{b}", (4,)) for n in range(3) for a, b in zip(order, ("n1", "n2"), strict=True)), " ".join(order))
        for order in (("before", "after"), ("after", "before"))
    ]  # fmt: skip
    head = (Alternative((copy_of("norm", "final", (4,)),), "norm"), Alternative((), "nothing makes it"))
    swapped = alternatives([("enc.1.fc.weight", "h.1.fc.w")])
    return Draft(
        tuple(rest),
        (
            Question("h.{}.att.wq.w orientation", "orientation", "are they transposed?", alternatives(squares), 1, "as siblings"),
            Question("h.{}.n1 source", "source", "two norms: which is which?", tuple(norms)),
            Question("final source", "source", "what makes final?", head),
            Question("h.1.fc.w outlier", "outlier", "h.1.fc.w is NOT transposed; its siblings are", swapped),
        ),
    )  # fmt: skip


def test_all_questions_are_in_the_text_and_a_plan_refuses_them() -> None:
    draft = open_draft()
    source, target = manifests(draft)
    text = text_of(draft)
    for question in draft.questions:
        assert sum(question.text in line for line in text.splitlines()) == 1
        assert f"(key {question.key})" in text
    with pytest.raises(MorphError) as refused:
        make_plan(Morph.parse(text).programs(None), source, like=target)
    assert {gap.kind for gap in refused.value.gaps} == {"open"}


def test_a_question_stands_whole_in_one_place_the_likely_first() -> None:
    lines = text_of(open_draft()).splitlines()
    at = next(k for k, line in enumerate(lines) if "are they transposed?" in line)
    followed = list(itertools.takewhile(lambda line: line.lstrip().startswith("? "), lines[at + 1 :]))
    assert len(followed) == 4
    assert "likely: transposed (as siblings)" in followed[0] and "[i o]" in followed[1]
    assert followed[2].endswith("# kept") and "[" not in followed[3]


@pytest.mark.parametrize("answers", list(itertools.product((0, 1), repeat=4)), ids=str)
def test_the_text_with_one_alternative_of_each_left_does_exactly_that(answers: tuple[int, ...]) -> None:
    """A person deletes the lines that do not hold, and the `?` of those that do."""
    draft = open_draft()
    source, target = manifests(draft)
    held = chosen(draft, {one.key: place for one, place in zip(draft.questions, answers, strict=True)})
    words = {question.alternatives[place].words for question, place in zip(draft.questions, answers, strict=True)}
    kept: list[str] = []
    number, holds = -1, True
    keys = {f"(key {one.key})": k for k, one in enumerate(draft.questions)}
    for line in text_of(draft).splitlines():
        number = next((k for key, k in keys.items() if key in line), number)
        if not line.lstrip().startswith("? "):
            kept.append(line)
            continue
        rule, _, said = line.replace("? ", "", 1).partition("  # ")
        if said:
            mine = draft.questions[number].alternatives[answers[number]].words
            holds = said.removeprefix("likely: ").partition(" (")[0] == mine
        if holds:
            kept.append(rule)
    assert words
    text = "\n".join(kept) + "\n"
    unmade = {name for name in target if name not in {one for each in held.relations for one in each.targets}}
    wanted = type(target)({name: spec for name, spec in target.items() if name not in unmade})
    plan = make_plan(Morph.parse(text).programs(None), source, like=wanted)
    direct = make_plan(Morph.parse(unparse(generalise(held, source, target))).programs(None), source, like=wanted)
    assert moves_in(plan) == moves_in(direct)
    assert set(plan.dropped) == set(direct.dropped) == set(held.dropped)


def test_questions_and_unplaced_targets_leave_the_rest_general() -> None:
    draft = open_draft()
    wide = layers(12, [("a.weight", "x.w"), ("a.bias", "x.b"), ("c.weight", "y.w"), ("c.bias", "y.b")])
    noise = (*(f"h.{n}.noise" for n in range(12)), "new.scale")
    source, target = manifests(Draft((*draft.relations, *wide), draft.questions, unplaced=noise))
    text = unparse(generalise(Draft((*draft.relations, *wide), draft.questions, unplaced=noise), source, target))
    assert sum(not line.lstrip().startswith("#") for line in text.splitlines()) <= 24, text


def test_labels_are_whole_words() -> None:
    pairs = [
        (f"m.{n}.dense_{a}.w", f"l.{n}.{b}") for n in range(2) for a, b in (("h_to_4h", "up"), ("4h_to_h", "down"))
    ]
    assert "dense_{n=h_to_4h|4h_to_h}.w" in text_of(Draft(tuple(copies(pairs))))
    crossed = [(f"b.{n}.{a}.{t}", f"l.{n}.{b}_attn.{t}") for n in range(2) for a, b in (("attn", "self"), ("cross_attn", "encoder")) for t in "qk"]  # fmt: skip
    assert "{n=attn|cross_attn}." in text_of(Draft(tuple(copies(crossed))))


def test_a_word_said_twice_is_one_hole_twice() -> None:
    pairs = [(f"{s}.{n}.w", f"t/{s}/{s}_{n}") for s in ("encoder", "decoder") for n in ("norm", "last")]
    text = text_of(Draft(tuple(copies(pairs))))
    assert "{s}/{s}_" in text or "{s}_" in text, text
    assert "encoder/encoder" not in text


def test_labels_are_in_the_order_of_numbers_and_of_the_field() -> None:
    pairs = [(f"b.{n}.{a}.w", f"l.{n}.{b}.w") for n in range(2) for a, b in (("2", "v"), ("1", "k"), ("0", "q"))]
    assert text_of(Draft(tuple(copies(pairs)))) == "b.{l}.{n=0|1|2}.w <-> l.{l}.{n=q|k|v}.w\n"


def test_a_further_word_widens_a_hole() -> None:
    pairs = [(f"d.{n}.{k}.norm", f"l.{n}.pre_{word}_norm") for n in range(2) for k, word in enumerate(("self_attention", "cross_attention", "mlp"))]  # fmt: skip
    assert text_of(Draft(tuple(copies(pairs)))) in (
        "d.{l}.{n=0|1|2}.norm <-> l.{l}.pre_{n=self_attention|cross_attention|mlp}_norm\n",
        "d.{l}.{n}.norm <-> l.{l}.pre_{n=self_attention|cross_attention|mlp}_norm\n",
    )


def test_keras_numbers_its_blocks_from_nothing() -> None:
    pairs = [(f"blocks.{n}.{a}", f"top/block{f'_{n}' if n else ''}/{a}") for n in range(12) for a in ("up", "down")]
    text = text_of(Draft(tuple(copies(pairs))))
    assert "block{l:_}/" in text and len(text.splitlines()) <= 3, text


def test_stages_that_are_counted_through_with_a_gap() -> None:
    """A U-Net counts resnets and the downsampler between stages through."""
    pairs = [(f"in.{1 + 3 * s + j}.0.{a}", f"down.{s}.resnets.{j}.{b}") for s in range(4) for j in range(2) for a, b in (("a", "x"), ("b", "y"))]  # fmt: skip
    pairs += [(f"in.{3 + 3 * s}.0.op", f"down.{s}.downsample.conv") for s in range(3)]
    lines = text_of(Draft(tuple(copies(pairs)))).splitlines()
    assert any("in.{(l j)+1}.0." in line or "{(l j)+1}.0." in line for line in lines), lines
    assert len(lines) <= 8, lines


def test_stages_of_unequal_lengths_are_bounded() -> None:
    """Ranges that no product explains: each is kept to its own."""
    starts = {0: range(2), 1: range(2, 5), 2: range(5, 9)}
    pairs = [(f"b.{n}.{a}", f"s.{stage}.{n - own.start}.{a}") for stage, own in starts.items() for n in own for a in ("up", "down")]  # fmt: skip
    lines = text_of(Draft(tuple(copies(pairs)))).splitlines()
    assert len(lines) <= 9, lines


def test_layers_reversed() -> None:
    pairs = [(f"b.{n}.{a}", f"t.{11 - n}.{a}") for n in range(12) for a in ("up", "down", "norm")]
    assert text_of(Draft(tuple(copies(pairs)))) == "b.{l}.** <-> t.{11-l}.**\n"


def test_what_many_rules_rest_on_is_said_once() -> None:
    unit = Relation((Part(("c",), (((),), axis("a"))),), (Part(("z",), (axis("a"),)),), {"a": 3})
    found = [copy_of("a", "x", (3,)), turned("b", "y"), unit]
    noted = [
        Relation(one.left, one.right, one.sizes, note=f"placed by its name: its values are all {k % 2}")
        for k, one in enumerate(found)
    ]
    lines = text_of(Draft(tuple(noted))).splitlines()
    assert lines[0] == "# placed by its name: its values are all 0, its values are all 1"
    assert len(lines) == 4 and not any("#" in line for line in lines[1:])


def test_parts_keep_the_word_of_their_kind() -> None:
    """Fused halves by their number: no hole cuts `fc1` elsewhere than before its number."""
    left = Part(("m.fc1", "m.fc2"), (axis("o"), axis("i")), along=("p",))
    right = Part(("m.fused",), ((("p", "o"),), axis("i")))
    text = text_of(Draft((Relation((left,), (right,), {"p": 2, "o": 3, "i": 5}),)))
    assert text == "m.fc{p=1|2} [o i] <-> m.fused [(p o) i]\n"
