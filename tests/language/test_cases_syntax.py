"""The conformance cases, as far as the text alone decides them: parse, flatten, check, and canonical text."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from isomorph.errors import MorphError
from isomorph.language.parse import parse
from isomorph.language.scopes import check, flatten
from isomorph.language.tree import Module
from isomorph.language.unparse import unparse

FOLDER = Path(__file__).parent.parent / "cases"
FOUND_IN_THE_TEXT = {"syntax", "unpaired", "use", "assert"}


def _cases() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.toml")):
        for case in tomllib.loads(path.read_text(encoding="utf-8"))["case"]:
            found.append(pytest.param(case, id=f"{path.stem}: {case['name']}"))
    return found


def _read(case: Mapping[str, Any]) -> None:
    files = case.get("files", {})

    def load(name: str) -> Module:
        return parse(files[name], name)

    for text in (case["morph"], case.get("then")):
        if text is not None:
            flatten(parse(text), load=load, config=case.get("config"))
            check(parse(text), load=load)


def _is_of_the_text(case: Mapping[str, Any]) -> bool:
    error = case.get("error")
    if error is None:
        return False
    return error["kind"] in FOUND_IN_THE_TEXT or (error["kind"] == "tie" and "line 1" in error["mentions"])


@pytest.mark.parametrize("case", [each for each in _cases() if _is_of_the_text(each.values[0])])
def test_a_faulty_text_is_refused_before_any_tensor_is_seen(case: Mapping[str, Any]) -> None:
    """The refusal is of the case's kind and mentions what the case says."""
    with pytest.raises(MorphError) as refused:
        _read(case)
    assert case["error"]["kind"] in refused.value.kinds
    for mention in case["error"]["mentions"]:
        assert mention in str(refused.value)


@pytest.mark.parametrize("case", [each for each in _cases() if not _is_of_the_text(each.values[0])])
def test_every_other_text_is_read_and_written_back(case: Mapping[str, Any]) -> None:
    """A text without a fault of its own flattens, and its canonical text means the same and is its own canonical text."""
    if case.get("error", {}).get("kind") == "config" and "when" in case["morph"]:
        with pytest.raises(MorphError) as refused:
            _read(case)
        assert {"config"} == refused.value.kinds
    else:
        _read(case)
    for text in (case["morph"], case.get("then"), *case.get("files", {}).values()):
        if text is not None:
            module = parse(text)
            canonical = unparse(module)
            assert module == parse(canonical)
            assert canonical == unparse(parse(canonical))
