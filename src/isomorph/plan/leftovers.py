"""What a stage leaves over: keys that no rule takes, rules that take no key. With near misses, and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from isomorph.errors import Gap, near_misses
from isomorph.language.names import TwoCuts, Unsized
from isomorph.language.rules import Rule
from isomorph.plan.folding import fold_numbers, folded, template
from isomorph.plan.gaps import MOST_SHOWN, cut, rule_gap
from isomorph.plan.stage import Stage, StageRule
from isomorph.tensors import Manifest

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
LONGEST_PATTERN = 500
"""Characters of a name, or of a pattern that anybody would copy."""
MOST_IDLE = 24
MOST_TEXTS = 200
"""Rules without a tensor that are explained one by one; and of the others, so many are shown."""


def unmatched_gaps(stage: Stage, names: Sequence[str], manifest: Manifest) -> list[Gap]:
    """One gap for all keys that no rule takes."""
    if not names:
        return []
    details = _listing(stage, names, manifest)
    count = "1 tensor has" if len(names) == 1 else f"{len(names):,} tensors have"
    file = stage.program.file
    return [
        Gap(
            "unmatched",
            f"{count} no rule",
            file=None if file == "<morph>" else file,
            details=tuple(details),
            hint=f"To leave {'it' if len(names) == 1 else 'them'} out, add:  drop {', '.join(_patterns(names))}",
            tensors=tuple(names),
        )
    ]


def _listing(stage: Stage, names: Sequence[str], manifest: Manifest) -> list[str]:
    """The names with their specs and near misses; where they are many, those that differ in numbers alone as one."""
    if len(names) <= MOST_SHOWN:
        return [f"`{cut(name, LONGEST_PATTERN)}` {manifest[name].shown}{_nearest(stage, name)}" for name in names]
    alike: dict[tuple[str, str], list[str]] = {}
    for name in names:
        alike.setdefault((template(name), manifest[name].shown), []).append(name)
    details = []
    for (_, shown), same in list(alike.items())[:MOST_SHOWN]:
        times = f" × {len(same):,}" if len(same) > 1 else ""
        details.append(f"`{cut(fold_numbers(same), LONGEST_PATTERN)}` {shown}{times}{_nearest(stage, same[0])}")
    rest = [name for same in list(alike.values())[MOST_SHOWN:] for name in same]
    if rest:
        details.append(f"… and {len(rest):,} more: {' · '.join(folded(rest))}  (--json lists all)")
    return details


MOST_PATTERNS = 3


def _patterns(names: Sequence[str]) -> list[str]:
    """A few patterns for `drop` that take these names: as they are, with `*` for numbers, by their last piece, by their first."""
    if max(map(len, names)) > LONGEST_PATTERN:
        return ["**"]
    if len(names) <= MOST_PATTERNS:
        return [_quoted(name) for name in names]
    if not all(_is_plain(name) for name in names):
        return ["**"]
    for made in (
        [_NUMBER.sub("*", name) for name in names],
        [name if "." not in name else f"**.{name.rpartition('.')[2]}" for name in names],
        [name if "." not in name else f"{name.partition('.')[0]}.**" for name in names],
    ):
        found = list(dict.fromkeys(made))
        if len(found) <= MOST_PATTERNS:
            return found
    return ["**"]


def _is_plain(name: str) -> bool:
    plain = name and not any(character in ' ,[]{}*"#' or not character.isprintable() for character in name)
    return bool(plain) and not name.endswith(":") and name not in ("drop", "arange")


def _quoted(name: str) -> str:
    if _is_plain(name):
        return name
    return '"' + "".join("\\" + c if c in '"\\{*' else c for c in name) + '"'


def _nearest(stage: Stage, name: str) -> str:
    texts = {term.pattern.text: rule for rule in stage.rules for term in rule.left}
    generalised = ".".join("{l}" if piece.isdigit() else piece for piece in name.split("."))
    for shape in (name, generalised):
        likely = near_misses(shape, (text for text in texts if text not in ("**", "*")), 1)
        if likely:
            line = texts[likely[0]].rule.origin.line
            return f" (did you mean `{likely[0]}`, line {line}?)"
    return ""


def idle_gaps(stage: Stage, numbers: Sequence[int], manifest: Manifest) -> list[Gap]:
    """A gap for each rule that took no key; where they are many, the rest in one gap, by their texts."""
    gaps = [_idle_gap(stage, number, manifest) for number in numbers[:MOST_IDLE]]
    rest = [stage.rules[number].rule.origin for number in numbers[MOST_IDLE:]]
    if rest:
        details = [f"line {origin.line}:  {cut(origin.text)}" for origin in rest[:MOST_TEXTS]]
        if len(rest) > MOST_TEXTS:
            details.append(f"… and {len(rest) - MOST_TEXTS} more")
        gaps.append(Gap("idle", f"{len(rest)} more rules fit no tensor", details=tuple(details)))
    return gaps


def _idle_gap(stage: Stage, number: int, manifest: Manifest) -> Gap:
    rule = stage.rules[number]
    above = [other for other in stage.rules[:number] if other.left]
    details: list[str] = []
    hint = "Mend its name, or let it be absent: " + ("drop?" if rule.is_drop else "`?` after the arrow")
    for term in rule.left:
        for name in manifest:
            try:
                fits = term.pattern.read(name) is not None
            except (TwoCuts, Unsized):
                continue
            if fits:
                taker = _taker(above, name)
                if taker is not None:
                    details.append(f"`{name}` fits, but line {taker.origin.line} took it:  {cut(taker.origin.text)}")
                    hint = f"Move it above line {taker.origin.line}: the first rule that fits a name takes it"
                break
        else:
            likely = near_misses(term.pattern.text, manifest, 1) if len(manifest) <= 20000 else ()
            if likely:
                details.append(f"no tensor is called {term.pattern.text} (did you mean `{likely[0]}`?)")
    origin = rule.rule.origin
    is_whole = origin.text.strip() == origin.line_text.strip()
    return rule_gap(
        rule.rule,
        "idle",
        "no tensor fits this rule" if is_whole else f"no tensor fits this rule:  {cut(origin.text)}",
        details=details,
        hint=hint,
    )


def _taker(above: Sequence[StageRule], name: str) -> Rule | None:
    for rule in above:
        for term in rule.left:
            try:
                if term.pattern.read(name) is not None:
                    return rule.rule
            except (TwoCuts, Unsized):
                continue
    return None
