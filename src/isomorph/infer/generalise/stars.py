"""`norm.{t=weight|bias} <-> layernorm.{t}` is `norm.* <-> layernorm.*`: a copy is a copy whatever its last piece is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isomorph.infer.generalise.order import Names, Separators, patterns, reads
from isomorph.infer.generalise.patterns import SEPARATORS, Labels, Rule, Star, token_axes


def starred(rules: Sequence[Rule], names: Mapping[int, Names], separators: Separators) -> list[Rule]:
    """The rules, with `*` for the labels of a last piece that both sides share; only where it takes no other tensor's name."""
    return [_starred(rule, names, separators) for rule in rules]


def _starred(rule: Rule, names: Mapping[int, Names], separators: Separators) -> Rule:
    if not rule.is_copy or rule.group is not None:
        return rule
    if not all(rule.names):  # a tensor without a name
        return rule
    last = [name[-1] for name in rule.names]
    hole = last[0]
    if not isinstance(hole, Labels) or hole.tied or any(token != hole for token in last):
        return rule
    if any(len(name) < 2 or name[-2] not in (*SEPARATORS,) for name in rule.names):
        return rule
    if any(hole.axis in token_axes(token) for name in rule.names for token in name[:-1]):
        return rule
    if any(isinstance(token, Star) for name in rule.names for token in name):
        return rule
    made = rule.with_names([(*name[:-1], Star(False)) for name in rule.names])
    own = set(rule.covers)
    for side, read in enumerate(patterns(made, separators)):
        for number, both in names.items():
            if number not in own and any(reads(one, name) for one in read for name in both[side]):
                return rule
    return made
