"""Blocks, `use`, `when`, `where`, `|` and `paths` carried to flat rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from isomorph.errors import MorphError
from isomorph.language.parse import parse
from isomorph.language.rules import FullName, IndexHole, LabelHole, Literal, PathHole, PieceHole, Program, Rule
from isomorph.language.scopes import check, flatten
from isomorph.language.tree import Module
from isomorph.language.unparse import expression_text, operators_text


def loader(files: Mapping[str, str]) -> Callable[[str], Module]:
    return lambda name: parse(files[name], name)


def program(text: str, files: Mapping[str, str] | None = None, config: Mapping[str, object] | None = None) -> Program:
    return flatten(parse(text), load=loader(files or {}), config=config)


def name(rule: Rule, side: str = "left", term: int = 0) -> FullName:
    head = (rule.left if side == "left" else rule.right)[term].head
    assert isinstance(head, FullName)
    return head


def sizes(rule: Rule) -> dict[str, list[str]]:
    return {axis: [expression_text(value) for value in values] for axis, values in rule.where.items()}


def test_prefixes_join_and_neighbouring_texts_merge() -> None:
    """A full name is prefix and name; wildcards are numbered through both."""
    (rule,) = program("a.*. <-> *.b.:\n  x.*.** <-> *.y.**").rules
    assert (Literal("a."), PieceHole("*1"), Literal(".x."), PieceHole("*2"), Literal("."), PathHole("*3")) == name(
        rule
    ).pieces
    assert ("a.*.x.*.**", "*.b.*.y.**") == (name(rule).text, name(rule, "right").text)


def test_a_bare_hole_takes_the_labels_given_before_it() -> None:
    """Last given before it in its name, else first in another name of its side, else on the other side."""
    (rule,) = program("{p=a|b}.{p=c|d}.{p} [x], {p} [y] <-> {p=e|f}.{p} [x], {p} [y]").rules
    assert LabelHole("p", ("c", "d")) == name(rule).pieces[-1]
    assert LabelHole("p", ("a", "b")) == name(rule, term=1).pieces[-1]
    assert LabelHole("p", ("e", "f")) == name(rule, "right").pieces[-1]
    (other,) = program("{p}.w <-> {p=q|k}.w").rules
    assert LabelHole("p", ("q", "k")) == name(other).pieces[0]


def test_an_index_anywhere_makes_the_pieces_of_its_axis_numeric() -> None:
    """`{l}` on one side and `{l+1}` on the other: words do not fit `{l}`."""
    (rule,) = program("a.{l} <-> b.{config.n-1-l:02}").rules
    assert PieceHole("l", numeric=True) == name(rule).pieces[-1]
    hole = name(rule, "right").pieces[-1]
    assert isinstance(hole, IndexHole)
    assert (("l",), -1, "02", "config.n - 1") == (hole.axes, hole.sign, hole.pad, expression_text(hole.offset))


def test_where_rule_over_block_over_file() -> None:
    """The innermost block that binds an axis wins, from its line on; what a size is computed from comes along."""
    text = "where h=2, g=8\na. <-> b.:\n  u [(h d)] <-> u [h d]\n  where h=g//2\n  v [(h d)] <-> v [h d]\n  w [(h d)] <-> w [h d] where h=1"
    assert [{"h": ["2"]}, {"h": ["g//2"], "g": ["8"]}, {"h": ["1"]}] == [sizes(rule) for rule in program(text).rules]


def test_two_bindings_of_one_block_are_both_kept() -> None:
    """Neither is said to win: they are there to contradict each other."""
    (rule,) = program("where h=2\nwhere h=3\na [(h d)] <-> b [h d]").rules
    assert {"h": ["2", "3"]} == sizes(rule)


def test_the_reader_wins_over_all_of_a_used_file() -> None:
    """`where` of the reader reaches in by name; the used file's axes are its own otherwise."""
    (rule,) = program(
        "where h=2\nl.{l}. <-> m.{l}.:\n  use f", {"f": "where k=3\nw.{l} [(h k d)] <-> w.{l} [h k d] where h=5"}
    ).rules
    assert {"h'1": ["2"], "k'1": ["3"]} == sizes(rule)
    assert ("l", "l'1") == name(rule).axes


def test_operators_from_the_innermost_block_outward() -> None:
    """A rule's own, then each block's lines above it, top to bottom."""
    text = "| add 1\na. <-> b.:\n  | neg\n  | exp\n  w <-> w | mul 2\n  | log"
    assert ["mul 2, neg, exp, add 1"] == [operators_text(rule.operators) for rule in program(text).rules]


def test_use_inverse_turns_the_file_before_prefixes_and_operators() -> None:
    """Sides, arrows, paths and operators of the file are inverted; what the reader adds is as written."""
    (rule,) = program("| neg\na. <-> b.:\n  use inverse f", {"f": "paths . <-> /\nx.** -> y/** | add 1, mul 2"}).rules
    assert ("a.y/**", "b.x.**", "<-") == (name(rule).text, name(rule, "right").text, rule.arrow)
    assert [("mul", True), ("add", True), ("neg", False)] == [(op.name, op.inverted) for op in rule.operators]
    assert PathHole("*1", "/") == name(rule).pieces[-1]
    assert PathHole("*1", ".") == name(rule, "right").pieces[-1]


def test_use_with_a_question_mark_lets_every_rule_of_the_file_be_idle() -> None:
    """`use?` marks each rule `maybe`."""
    assert [True, True] == [rule.maybe for rule in program("use? f", {"f": "a <-> b\ndrop c"}).rules]


def test_drop_is_one_rule_a_term_and_says_so() -> None:
    """The text of each is what one would write for it alone."""
    assert ["drop a.*", "drop b [x]"] == [rule.origin.text for rule in program("drop a.*, b [x]  # gone").rules]
    assert "drop? e.*" == program("  # c\ndrop? e.*   # gone").rules[0].origin.text


def test_when_chooses_and_assert_refuses() -> None:
    """A `when` that does not hold contributes no rule; an `assert` that does not hold quotes its test."""
    text = "where n=config.layers\nwhen n > 2:\n  a <-> b\nwhen not config.big:\n  c <-> d\n"
    assert ["a <-> b"] == [rule.origin.text for rule in program(text, config={"layers": 3, "big": True}).rules]
    with pytest.raises(MorphError, match=r'config.kind == "vit" does not hold') as refused:
        program('assert config.kind == "vit"\na <-> b', config={"kind": "bert"})
    assert {"assert"} == refused.value.kinds
    assert "config.kind is 'bert'" in str(refused.value)


def test_rules_that_do_not_hold_are_checked_all_the_same() -> None:
    """A fault inside a false `when`, or in a used file, is a fault of the text."""
    text = "when config.no:\n  a [x] <-> b [y]\nuse f"
    with pytest.raises(MorphError) as refused:
        program(text, {"f": "c [u] <-> d [v]"}, {"no": False})
    assert ["unpaired", "unpaired"] == [gap.kind for gap in refused.value.gaps]
    assert "f:1: " in str(refused.value)
    with pytest.raises(MorphError):
        check(parse(text), load=loader({"f": "c <-> d"}))


def test_use_in_a_circle_names_the_files() -> None:
    """Both files are in the message, and nothing recurses."""
    with pytest.raises(MorphError, match="one uses two uses one") as refused:
        program("use one", {"one": "use two", "two": "use inverse one"})
    assert {"use"} == refused.value.kinds


def test_use_that_doubles_at_every_step_ends() -> None:
    """Files that use the next one twice would be read 2**40 times."""
    files = {f"f{number}": f"use f{number + 1}\nuse f{number + 1}" for number in range(40)}
    with pytest.raises(MorphError, match="more than 1000 times or 32 deep"):
        program("use f0", files | {"f40": "a <-> b"})


def test_a_missing_file_is_offered_its_near_misses() -> None:
    """A loader that knows its names helps."""

    class Folder:
        def __call__(self, name: str) -> Module:
            raise FileNotFoundError(name)

        def names(self) -> list[str]:
            return ["attention", "mlp"]

    with pytest.raises(MorphError, match="did you mean `attention`") as refused:
        flatten(parse("a <-> b\nuse atention"), load=Folder())
    assert "line 2" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "kind", "mention"),
    [
        ("{x*}.{x*} <-> {x*}", "syntax", "{x*} stands twice"),
        ("{=x*} <-> y", "tie", "ties a path"),
        ("{x*} <-> {x}", "syntax", "a path"),
        ("{p=a|b} <-> {p=x|y|z}", "syntax", "2 labels and 3 labels"),
        ("a.* <-> 0:f32 []", "syntax", "the other side has no name"),
        ("a.* <-> b", "syntax", "wildcards pair one by one"),
        ("a.{l}, b <-> c.{l}", "syntax", "`l` counts instances"),
        ("a.{l} [l] <-> b.{l} [l]", "syntax", "no axis in brackets"),
        ("r{=r}.{r} [] <-> w [r]", "tie", "tied"),
        ("a::b::c <-> d", "syntax", "`::` stands twice"),
        ("arange:i64 [a b] <-> x [a b]", "syntax", "exactly one axis"),
        ("arange:i64 <-> x", "syntax", "exactly one axis"),
        ("a [d], b [d] <-> c [d] | sum", "syntax", "one way"),
        ("0 [d] <-> drop [d]", "syntax", "names no tensor"),
        ("drop a.{l} [l l]", "syntax", "stands twice"),
    ],
)
def test_static_checks(text: str, kind: str, mention: str) -> None:
    """Each fault of a rule is found in its text, with its line."""
    with pytest.raises(MorphError) as refused:
        check(parse("\n" + text))
    assert {kind} == refused.value.kinds
    assert mention in str(refused.value)
    assert "line 2" in str(refused.value)
