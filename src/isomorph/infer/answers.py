"""Questions + answers (a mapping, a file, a person at a terminal) -> the alternatives that were chosen.

An answer is the number of an alternative as it is shown, from 1, or its words:

    {"blocks.{}.attn.qkv.weight": 1, "blocks.{}.attn.proj.weight": "transposed"}

A file holds the same as TOML or JSON. What `--json` printed is such a file too, once the `answer` of its questions is filled in.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isomorph.errors import FormatError, UsageError, near_misses, printable
from isomorph.infer.nouns import Evidence, Question, Relation

MOST_BYTES = 16 << 20
MOST_LISTED = 6


def chosen(questions: Sequence[Question], answers: Mapping[str, int | str]) -> dict[str, int]:
    """Key -> the place of an alternative among its question's, from 0. Raises UsageError: all that is wrong, near misses too."""
    known = {question.key: question for question in questions}
    found: dict[str, int] = {}
    wrong: list[str] = []
    for key, answer in answers.items():
        question = known.get(key)
        if question is None:
            wrong.append(_unknown(key, list(known)))
            continue
        place = place_of(question, answer)
        if place is None:
            wrong.append(_no_alternative(question, answer))
        else:
            found[key] = place
    if wrong:
        raise UsageError("\n".join(wrong))
    return found


def place_of(question: Question, answer: object) -> int | None:
    """Which alternative an answer means: its number from 1, its words, or a beginning of them that no other has."""
    many = len(question.alternatives)
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    if isinstance(answer, str) and answer.strip().isascii() and answer.strip().isdigit() and len(answer) < 9:
        answer = int(answer)
    if isinstance(answer, int):
        return answer - 1 if 1 <= answer <= many else None
    said = [" ".join(one.words.lower().split()) for one in question.alternatives]
    wanted = " ".join(answer.lower().split())
    for fits in (
        [place for place, words in enumerate(said) if words == wanted],
        [place for place, words in enumerate(said) if wanted and words.startswith(wanted)],
    ):
        if len(fits) == 1:
            return fits[0]
    return None


def answered(question: Question, place: int, evidence: Evidence, note: str = "") -> tuple[Relation, ...]:
    """The relations of the alternative that was chosen, resting on that choice."""
    why = note or f"{evidence}: {question.alternatives[place].words}"
    return tuple(replace(one, evidence=evidence, note=why) for one in question.alternatives[place].relations)


def read_answers(path: Path) -> dict[str, int | str]:
    """Key -> answer, from a .json or .toml file; questions whose answer is null or missing are left out.

    Raises FormatError for what is no such file, OSError for one that cannot be read.
    """
    if not path.is_file():
        raise FormatError(path, "a folder, not a file of answers" if path.is_dir() else "no such file of answers")
    if path.stat().st_size > MOST_BYTES:
        raise FormatError(path, f"{path.stat().st_size:,} bytes are no file of answers")
    form = 'KEY = NUMBER  a line, KEY in quotes:  "blocks.{}.attn.qkv.weight" = 1'
    try:
        text = path.read_text(encoding="utf-8")
        found: Any = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # JSON's, TOML's and Unicode's errors are ValueErrors
        kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
        raise FormatError(path, f"not {kind} ({error})", f"Write it as  {form}") from None
    if isinstance(found, Mapping) and isinstance(found.get("questions"), list):
        found = _filled_in(path, found["questions"])
    if not isinstance(found, Mapping):
        raise FormatError(path, f"holds a {type(found).__name__}, not answers by key", f"Write it as  {form}")
    for key, answer in found.items():
        if isinstance(answer, bool) or not isinstance(answer, int | str):
            said = printable(repr(answer), 60)
            raise FormatError(
                path,
                f"the answer to {printable(str(key))} is {said}: neither a number nor words",
                f"Write it as  {form}",
            )
    return dict(found)


def _filled_in(path: Path, questions: Sequence[Any]) -> dict[str, Any]:
    """The answers in a list of questions, as `--json` prints it."""
    found: dict[str, Any] = {}
    for number, one in enumerate(questions, 1):
        if not isinstance(one, Mapping) or not isinstance(one.get("key"), str):
            raise FormatError(path, f"question {number} has no key", "See what --json prints")
        if one.get("answer") is not None:
            found[one["key"]] = one["answer"]
    return found


def _unknown(key: str, keys: Sequence[str]) -> str:
    near = near_misses(key, keys)
    if near:
        return f"no question has the key {printable(key)}; did you mean {' or '.join(near)}?"
    if not keys:
        return f"no question has the key {printable(key)}: nothing is asked"
    more = f" … and {len(keys) - MOST_LISTED} more" if len(keys) > MOST_LISTED else ""
    return f"no question has the key {printable(key)}; asked is {', '.join(keys[:MOST_LISTED])}{more}"


def _no_alternative(question: Question, answer: object) -> str:
    listed = "; ".join(f"{number} {one.words}" for number, one in enumerate(question.alternatives, 1))
    return f"{question.key}: {printable(repr(answer), 80)} is none of its alternatives: {listed}"
