"""What a stage leaves over: keys that no rule takes, rules that take no key. With near misses, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from isomorph.errors import Gap, MorphError, near_misses
from isomorph.language.names import TwoCuts, Unsized
from isomorph.language.rules import Rule
from isomorph.plan.gaps import MOST_SHOWN, listed, rule_gap
from isomorph.plan.match import Matcher, Matching
from isomorph.plan.stage import Stage, StageRule
from isomorph.tensors import Manifest

MOST_IDLE = 24
MOST_TEXTS = 200
"""Rules without a tensor that are explained one by one; and of the others, so many are shown."""


def unmatched_gaps(stage: Stage, matching: Matching, manifest: Manifest) -> list[Gap]:
    if not matching.unmatched:
        return []
    names = matching.unmatched
    details = [f"`{name}` {manifest[name].shown}{_nearest(stage, name)}" for name in names[:MOST_SHOWN]]
    if len(names) > MOST_SHOWN:
        details.append(f"… and {len(names) - MOST_SHOWN} more: {listed(names[MOST_SHOWN:], 60)}")
    hint = "To leave out what is not wanted, add:  drop " + ", ".join(_quoted(name) for name in names[:3])
    turned = _fits_the_other_way(stage, manifest) if not matching.groups else 0
    if turned:
        whole = "all" if turned == len(manifest) else f"{turned} of"
        hint = (
            f"No tensor fits a left side, {whole} {len(manifest)} fit a right side: this is already the target layout. "
            "Did you mean --inverse?"
        )
    count = "1 tensor has" if len(names) == 1 else f"{len(names)} tensors have"
    file = stage.program.file
    return [
        Gap(
            "unmatched",
            f"{count} no rule",
            file=None if file == "<morph>" else file,
            details=tuple(details),
            hint=hint,
            tensors=tuple(names),
        )
    ]


def _quoted(name: str) -> str:
    plain = name and not any(character in ' ,[]{}*"#' or not character.isprintable() for character in name)
    if plain and not name.endswith(":") and name not in ("drop", "arange"):
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


def _fits_the_other_way(stage: Stage, manifest: Manifest) -> int:
    matcher = Matcher(stage.inverse)
    count = 0
    for name in manifest:
        try:
            count += matcher.take(name) is not None
        except (TwoCuts, Unsized, MorphError):
            continue
    return count


def idle_gaps(stage: Stage, numbers: Sequence[int], manifest: Manifest) -> list[Gap]:
    """A gap for each rule that took no key; where they are many, the rest in one gap, by their texts."""
    gaps = [_idle_gap(stage, number, manifest) for number in numbers[:MOST_IDLE]]
    rest = [stage.rules[number].rule.origin for number in numbers[MOST_IDLE:]]
    if rest:
        details = [f"line {origin.line}:  {origin.text}" for origin in rest[:MOST_TEXTS]]
        if len(rest) > MOST_TEXTS:
            details.append(f"… and {len(rest) - MOST_TEXTS} more")
        gaps.append(Gap("idle", f"{len(rest)} more rules fit no tensor", details=tuple(details)))
    return gaps


def _idle_gap(stage: Stage, number: int, manifest: Manifest) -> Gap:
    rule = stage.rules[number]
    above = [other for other in stage.rules[:number] if other.left]
    details: list[str] = []
    for term in rule.left:
        for name in manifest:
            try:
                fits = term.pattern.read(name) is not None
            except (TwoCuts, Unsized):
                continue
            if fits:
                taker = _taker(above, name)
                if taker is not None:
                    details.append(f"`{name}` fits, but line {taker.origin.line} took it:  {taker.origin.text}")
                break
        else:
            likely = near_misses(term.pattern.text, manifest, 1) if len(manifest) <= 20000 else ()
            if likely:
                details.append(f"no tensor is called {term.pattern.text} (did you mean `{likely[0]}`?)")
    return rule_gap(
        rule.rule,
        "idle",
        f"no tensor fits this rule:  {rule.rule.origin.text}",
        details=details,
        hint="Mend its name, move it above the general rule that hides it, or let it be absent: `?` after the arrow or after drop",
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
