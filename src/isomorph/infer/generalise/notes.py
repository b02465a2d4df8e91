"""What is said of rules: what one of them rests on stands at its end, what several rest on once at the top."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from isomorph.infer.generalise.patterns import Rule

REPEATED = 3
"""A note of so many rules is said at the top."""
LONGEST = 90
_NUMBER = re.compile(r"\d+")
_QUOTED = re.compile(r"`[^`]*`")


def note(notes: Sequence[str]) -> str | None:
    """The end of a line that says what was decided by what."""
    said = "; ".join(_merged(notes))
    return (said if len(said) <= LONGEST else said[: LONGEST - 1] + "…") or None


def shared_notes(rules: Sequence[Rule]) -> tuple[list[Rule], list[str]]:
    """The rules without the notes that several of them have, and those notes, to be said once."""
    rules = [replace(rule, notes=_folded(rule.notes)) if rule.notes else rule for rule in rules]
    counts = Counter(_stem(one) for rule in rules for one in rule.notes)
    shared = {stem for stem in counts if sum(stem in map(_stem, rule.notes) for rule in rules) >= REPEATED}
    if not shared:
        return rules, []
    gone = dict.fromkeys(one for rule in rules for one in rule.notes if _stem(one) in shared)
    kept = [replace(rule, notes=tuple(one for one in rule.notes if _stem(one) not in shared)) for rule in rules]
    lines = []
    for line in _merged(list(gone)):
        many = sum(line.partition(": ")[0] in map(_stem, rule.notes) for rule in rules)
        lines.append(line if many == len(rules) else f"{line} ({many} rules)")
    return kept, [line if len(line) <= LONGEST else line[: LONGEST - 1] + "…" for line in lines]


def _stem(text: str) -> str:
    return text.partition(": ")[0]


def _folded(notes: Sequence[str]) -> tuple[str, ...]:
    """Notes that differ in the numbers of names alone are one."""
    one = {_QUOTED.sub(lambda found: _NUMBER.sub("{}", found[0]), one_line(text).strip()): None for text in notes}
    return tuple(one)


def _merged(notes: Sequence[str]) -> list[str]:
    """`by its name: all 1` and `by its name: all 0` in one: `by its name: all 1, all 0`."""
    reasons: dict[str, dict[str, None]] = {}
    for text in notes:
        stem, _, reason = one_line(text).strip().partition(": ")
        reasons.setdefault(stem, {}).update({reason: None} if reason else {})
    return [f"{stem}: {', '.join(several)}" if several else stem for stem, several in reasons.items()]


def one_line(text: str) -> str:
    """A text as a comment can hold it: what cannot be printed is a blank."""
    return "".join(char if char.isprintable() else " " for char in text)
