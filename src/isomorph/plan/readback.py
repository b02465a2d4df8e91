"""Statement 20: every name that a stage makes, read backward, goes to its own rule, its own term and its own values."""

from __future__ import annotations

from isomorph.errors import Gap
from isomorph.language.names import TwoCuts, Unsized
from isomorph.language.rules import Rule, shown
from isomorph.plan.gaps import MOST_SHOWN, rule_gap
from isomorph.plan.instances import Made
from isomorph.plan.match import Matcher, Taken
from isomorph.plan.stage import Stage


def read_back(stage: Stage, made: Made) -> list[Gap]:
    """Statement 20: every name that is made goes back to its own rule, its own term and its own values."""
    gaps: list[Gap] = []
    matcher = Matcher(stage.inverse)
    twice = set(made.written_twice)
    for name, (rule, term, values) in made.made_by.items():
        if name in twice:
            continue
        try:
            taken = matcher.take(name)
        except TwoCuts as error:
            gaps.append(
                rule_gap(
                    rule.rule, "two-cuts", f"`{name}`, which this rule makes, can be read back in two ways by {error.pattern}",
                    tensors=(name,),
                )
            )  # fmt: skip
            continue
        except Unsized as error:
            axis = shown(error.axes[0])
            gaps.append(
                rule_gap(
                    rule.rule,
                    "size",
                    f"`{name}` cannot be read back while the size of {axis} is not known",
                    find=axis,
                    hint=f"Give it: --set {axis}=N, or  where {axis}=…",
                    tensors=(name,),
                )
            )
            continue
        if rule.rule.arrow == "->":
            if taken is None or taken[0].rule.arrow != "<->":
                continue
        elif taken is not None:
            back, part, read = taken
            if back.number == rule.number and back.left[part].index == term and read.items() <= values.items():
                continue
        gaps.append(_readback_gap(rule.rule, name, taken))
        if len(gaps) >= MOST_SHOWN:
            break
    return gaps


def _readback_gap(rule: Rule, name: str, taken: Taken | None) -> Gap:
    if taken is None:
        back, hint = "by no rule", "Write its name so that this rule reads it back"
    elif taken[0].rule.number == rule.number:
        back, hint = "by the same rule with other values", "Write the holes so that one name has one reading"
    else:
        other = taken[0].rule.origin
        back = f"by line {other.line}:  {other.text}"
        hint = (
            "Make the two right sides disjoint, move the special rule above the general one, or make the rule one-way"
        )
    return rule_gap(
        rule,
        "readback",
        f"`{name}`, made by  {rule.origin.text}  would be read back {back}",
        hint=hint,
        tensors=(name,),
    )
