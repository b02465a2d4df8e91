"""Morph: files, chains, inverses."""

from __future__ import annotations

from pathlib import Path

import pytest

from isomorph.errors import FormatError, MorphError
from isomorph.language import builder
from isomorph.language.morph import Morph
from isomorph.language.parse import parse
from isomorph.language.unparse import unparse


def test_use_reads_beside_the_reader(tmp_path: Path) -> None:
    """A used file finds its own files beside itself, in another folder too."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "main.morph").write_text("a. <-> b.:\n  use parts/one\n")
    (tmp_path / "parts" / "one.morph").write_text("use two.morph\n")
    (tmp_path / "parts" / "two.morph").write_text("x <-> y\n")
    (program,) = Morph.read(tmp_path / "main.morph").programs()
    assert ["x <-> y"] == [rule.origin.text for rule in program.rules]
    assert program.rules[0].origin.file.endswith("two.morph")


def test_a_file_that_uses_itself_is_a_circle(tmp_path: Path) -> None:
    """The circle is found though the paths are written differently."""
    (tmp_path / "main.morph").write_text("use ./main\n")
    with pytest.raises(MorphError, match="in a circle"):
        Morph.read(tmp_path / "main.morph").programs()


def test_files_that_are_no_morphs_are_refused(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8: one clear FormatError."""
    (tmp_path / "bytes.morph").write_bytes(b"\xff\xfe\x00")
    for path, mention in (
        (tmp_path / "no.morph", "no such"),
        (tmp_path, "folder"),
        (tmp_path / "bytes.morph", "UTF-8"),
    ):
        with pytest.raises(FormatError, match=mention):
            Morph.read(path)
    (tmp_path / "main.morph").write_text("use bytes\nuse missing\n")
    with pytest.raises(MorphError) as refused:
        Morph.read(tmp_path / "main.morph").programs()
    assert ["use", "use"] == [gap.kind for gap in refused.value.gaps]
    assert "main.morph:2: there is no morph `missing`" in str(refused.value)
    assert "name a .morph file in this one's folder, a layout (family/layout: `isomorph layouts`), or package" in str(
        refused.value
    )
    (tmp_path / "main.morph").write_text("use maim\n")
    with pytest.raises(MorphError, match=r"did you mean `main`\?"):
        Morph.read(tmp_path / "main.morph").programs()


def test_a_chain_is_read_in_order_and_inverted_as_a_whole() -> None:
    """The inverse of first @ second is inverse second @ inverse first; twice is the morph itself."""
    chain = Morph.parse("a <-> b | add 1") @ Morph.parse("b -> c")
    assert ["<->", "->"] == [program.rules[0].arrow for program in chain.programs()]
    assert ["<-", "<->"] == [program.rules[0].arrow for program in chain.inverse.programs()]
    assert chain == chain.inverse.inverse
    assert chain.programs() == chain.inverse.inverse.programs()


def test_the_gaps_of_all_stages_come_together() -> None:
    """One report for a chain."""
    with pytest.raises(MorphError) as refused:
        (Morph.parse("a [x] <-> b [y]") @ Morph.parse("assert config.n == 1")).programs({"n": 2})
    assert {"unpaired", "assert"} == refused.value.kinds


INVERSES = [
    ("a [o i] -> b [i o]", "b [i o] <- a [o i]\n"),
    ("a. <-> b.:\n  paths . <-> /\n  ** <->? **\n", "b. <-> a.:\n  paths / <-> .\n  ** <->? **\n"),
    ("drop? a, b", "drop <->? a\ndrop <->? b\n"),
    ("use inverse f\nuse g", "use f\nuse inverse g\n"),
    ("| neg\na <-> b | f16 -> f32, add 1", "b <-> a | neg, add -1, f32 -> f16\n"),
    ("a <-> b | mul 3", "# no text undoes this: a <-> b | mul 3\n"),
]


@pytest.mark.parametrize(("text", "inverse"), INVERSES)
def test_an_inverse_has_a_text(text: str, inverse: str) -> None:
    """Sides, arrows, prefixes and operators change; what cannot be written stays as a comment."""
    assert inverse == Morph.parse(text).inverse.text


@pytest.mark.parametrize("text", [text for text, _ in INVERSES if "use" not in text and "mul" not in text])
def test_the_text_of_an_inverse_means_the_inverse(text: str) -> None:
    """Its rules name the same tensors, in the same order, as the inverted program."""

    def sides(morph: Morph) -> list[tuple[list[object], str, list[object]]]:
        (program,) = morph.programs()
        return [
            ([term.head for term in rule.left], rule.arrow, [term.head for term in rule.right])
            for rule in program.rules
        ]

    morph = Morph.parse(text)
    assert sides(morph.inverse) == sides(Morph.parse(morph.inverse.text))


def test_a_built_morph_is_the_one_that_is_read() -> None:
    """The builder makes the tree that its text gives."""
    built = builder.morph(
        builder.where(h="config.heads", d=4),
        builder.scope("enc.", "", [
            builder.operators("f16 -> f32"),
            builder.rule(["q.{l} [(h d)]", "0 [h d]"], "qk.{l} [(1 + 1) (h d)]", where={"h": 2}, maybe=True, comment="two"),
            builder.drop("**.ids", maybe=True),
        ]),
        builder.when('config.act == "gelu"', [builder.use("act", inverse=True)]),
        builder.require("config.n > 1"),
        builder.paths(".", "/"),
        builder.rule("**", "**", arrow="->"),
        version=1,
    )  # fmt: skip
    text = """\
isomorph 1
where h=config.heads, d=4
enc. <-> :
  | f16 -> f32
  q.{l} [(h d)], 0 [h d] <->? qk.{l} [(1 + 1) (h d)] where h=2  # two
  drop? **.ids
when config.act == "gelu":
  use inverse act
assert config.n > 1
paths . <-> /
** -> **
"""
    assert text == unparse(built)
    assert built == parse(text)


def test_a_fault_of_a_built_morph_shows_the_rule() -> None:
    """There is no line to name; the rule is written out."""
    with pytest.raises(MorphError, match=r"a \[x\] <-> b \[y\]"):
        Morph.of(builder.morph(builder.rule("a [x]", "b [y]"))).programs()
