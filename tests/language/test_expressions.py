"""Values of expressions and tests."""

from __future__ import annotations

from typing import Any

import pytest

from isomorph.errors import MorphError
from isomorph.language import tree
from isomorph.language.expressions import evaluate, holds, whole_number
from isomorph.language.parse import parse

CONFIG: dict[str, Any] = {
    "hidden": 12,
    "heads": [3, 2],
    "text": {"act": "gelu", "tied": True},
    "ratio": 4.0,
    "eps": 1e-5,
    "none": None,
}


def expression(text: str) -> tree.Expression:
    statement = parse(f"where x={text}").statements[0]
    assert isinstance(statement, tree.Where)
    return statement.bindings[0].value


def condition(text: str) -> tree.Test:
    statement = parse(f"assert {text}").statements[0]
    assert isinstance(statement, tree.Assert)
    return statement.test


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2*3 - 4//3", 6), ("-7//2", -4), ("-(7//2)", -3), ("7%4", 3), ("(1+2)*3", 9), ("2 - 1 - 1", 0),
        ("config.hidden//config.heads[p]", 6), ("len(config.heads)", 2), ("config.ratio*2", 8), ("h*d", 6), ('config["hidden"]', 12),
    ],
)  # fmt: skip
def test_values(text: str, value: int) -> None:
    """Arithmetic is that of whole numbers; floats of the config that are whole count as whole."""
    assert value == whole_number(expression(text), {"p": 1, "h": 2, "d": 3}, CONFIG)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('config.text.act == "gelu"', True), ("config.text.tied", True), ("not config.text.tied or config.hidden > 3", True),
        ("not config.text.tied and config.hidden > 3", False), ("config.text.tied == true", True), ("config.none", False),
        ("config.hidden == 12 and config.hidden != 12 or config.text.tied", True), ('"a" < "b"', True),
    ],
)  # fmt: skip
def test_tests(text: str, value: bool) -> None:
    """`not` binds tightest, `and` before `or`."""
    assert value is holds(condition(text), {}, CONFIG)


@pytest.mark.parametrize(
    ("text", "kind", "mention"),
    [
        ("config.hiden", "config", "did you mean `config.hidden`"), ("config.text.act", "config", 'the text "gelu"'),
        ("config.eps", "config", "1e-05"), ("config.text.tied", "config", "true"), ("config.heads[5]", "config", "2 entries"),
        ("config.hidden.x", "config", "config.hidden is 12"), ("1//0", "size", "division"), ("1 % (2-2)", "size", "division"),
        ("y", "size", "`y` has no value"), ("config.hidden[0]", "config", "no entries"), ("len(config.hidden)", "config", "len"),
        ("*".join(["999999999"] * 9), "size", "beyond any size"), ("config.none", "config", "null"),
    ],
)  # fmt: skip
def test_what_has_no_value_is_one_clear_gap(text: str, kind: str, mention: str) -> None:
    """A missing key, a value of the wrong type, a division by zero and a huge number are gaps with a kind, never other errors."""
    with pytest.raises(MorphError) as refused:
        whole_number(expression(text), {}, CONFIG)
    assert {kind} == refused.value.kinds
    assert mention in str(refused.value)


def test_evaluate_gives_config_values_as_they_are() -> None:
    """Without arithmetic a value keeps its type."""
    assert [3, 2] == evaluate(expression("config.heads"), {}, CONFIG)
