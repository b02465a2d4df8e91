"""Answers to questions: numbers, words, files; what fits nothing is said with what may have been meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isomorph.errors import FormatError, UsageError
from isomorph.infer.answers import answered, chosen, place_of, read_answers
from isomorph.infer.nouns import Alternative, Coverage, Inference, Part, Question, Relation, axis, copy_of

TURNED = Relation(
    (Part(("a.w",), (axis("i"), axis("o"))),),
    (Part(("b.w",), (axis("o"), axis("i"))),),
    {"o": 4, "i": 4},
    evidence="names",
)
SQUARE = Question(
    "b.{}.w",
    "orientation",
    "is b.{}.w transposed?",
    (
        Alternative((copy_of("a.w", "b.w", (4, 4), "names"),), "as it is"),
        Alternative((TURNED,), "transposed: out and in change places"),
    ),
    likely=1,
    why="`kernel` is [in out] elsewhere",
)
ORDER = Question(
    "qkv order",
    "order",
    "in which order are q, k and v?",
    tuple(Alternative((copy_of("q", "qkv", (3,), "names"),), words) for words in ("q, k, v", "q, v, k", "k, q, v")),
)


@pytest.mark.parametrize(
    ("question", "answer", "place"),
    [
        (SQUARE, 1, 0),
        (SQUARE, "2", 1),
        (SQUARE, "transposed", 1),
        (SQUARE, "As  it IS", 0),
        (SQUARE, 0, None),
        (SQUARE, 3, None),
        (SQUARE, True, None),
        (SQUARE, 1.0, None),
        (SQUARE, "", None),
        (ORDER, "q", None),
        (ORDER, "q, v", 1),
        (ORDER, "q, k, v", 0),
    ],
)
def test_an_answer_is_a_number_or_words(question: Question, answer: object, place: int | None) -> None:
    """Words may be cut short where no other alternative begins so; a number counts from 1."""
    assert place == place_of(question, answer)


def test_what_was_chosen_rests_on_the_answer() -> None:
    (relation,) = answered(SQUARE, 1, "answer")
    assert (relation.evidence, relation.note) == ("answer", "answer: transposed: out and in change places")
    assert relation.left == TURNED.left


def test_all_wrong_answers_are_said_at_once() -> None:
    """Unknown keys with near misses, and alternatives that are not there with those that are."""
    with pytest.raises(UsageError) as refused:
        chosen([SQUARE, ORDER], {"b.{}.v": 1, "qkv order": 4, "b.{}.w": 1})
    assert str(refused.value).splitlines() == [
        "no question has the key b.{}.v; did you mean b.{}.w?",
        "qkv order: 4 is none of its alternatives: 1 q, k, v; 2 q, v, k; 3 k, q, v",
    ]
    with pytest.raises(UsageError, match=r"no question has the key x: nothing is asked"):
        chosen([], {"x": 1})
    with pytest.raises(UsageError, match=r"no question has the key zzzz; asked is b\.\{\}\.w, qkv order"):
        chosen([SQUARE, ORDER], {"zzzz": 1})


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('"b.{}.w" = 2\n"qkv order" = "q, k, v"\n')
    (tmp_path / "a.json").write_text('{"b.{}.w": 2, "qkv order": "q, k, v"}')
    for name in ("a.toml", "a.json"):
        answers = read_answers(tmp_path / name)
        assert {"b.{}.w": 1, "qkv order": 0} == chosen([SQUARE, ORDER], answers)


def test_what_json_printed_is_a_file_of_answers(tmp_path: Path) -> None:
    """The round trip: the document with an `answer` filled in; questions without one stay open."""
    found = Inference("x <-> y\n", Coverage(1, 1, {}, (1, 1), (), (), 1), (SQUARE, ORDER))
    document = found.to_json()
    assert [(one["key"], one["likely"], one["answer"]) for one in document["questions"]] == [
        ("b.{}.w", 2, None),
        ("qkv order", None, None),
    ]
    document["questions"][0]["answer"] = document["questions"][0]["likely"]
    (tmp_path / "open.json").write_text(json.dumps(document))
    assert {"b.{}.w": 2} == read_answers(tmp_path / "open.json")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "b.{}.w = 2\n", "not TOML ("),
        ("a.json", "{", "not JSON ("),
        ("a.json", "[1]", "holds a list, not answers by key"),
        ("a.json", '{"k": 1.5}', "the answer to k is 1.5: neither a number nor words"),
        ("a.json", '{"k": null}', "the answer to k is None"),
        ("a.json", '{"questions": [{"answer": 1}]}', "question 1 has no key"),
        ("a.json", "[" * 100_000, "not JSON ("),
    ],
)
def test_a_file_that_holds_no_answers(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError) as refused:
        read_answers(tmp_path / name)
    assert said in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file of answers"):
        read_answers(tmp_path / "nope.toml")
    with pytest.raises(FormatError, match="a folder, not a file of answers"):
        read_answers(tmp_path)
