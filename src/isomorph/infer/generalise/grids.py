"""Grids of labels that are not full: `key.weight` joins `{p=query|value|out}.{t=weight|bias}`, though there is no `key.bias`.

One rule is laid upon another with one of the other's holes read as one of its labels. Where they then differ in one place of each
name, that place becomes a hole, or its hole gets a label more. It is done only where no tensor has a name that the grid adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from isomorph.infer.generalise.labels import MOST_LABELS, bone, counts, touching
from isomorph.infer.generalise.parts import common
from isomorph.infer.generalise.patterns import SEPARATORS, Labels, Rule, Template, Token, tokens
from isomorph.infer.generalise.spelling import is_free
from isomorph.infer.generalise.words import cost, is_writable, ordered, strangeness

MOST_RULES = 150
"""Above so many rules nothing is laid upon anything here."""


def absorbed(rules: Sequence[Rule], taken: AbstractSet[str]) -> list[Rule]:
    """Fewer rules, in the order they were in."""
    current = list(rules)
    if len(current) > MOST_RULES:
        return current
    while True:
        found = _first(current, taken)
        if found is None:
            return current
        one, other, made = found
        current = [made if k == one else rule for k, rule in enumerate(current) if k != other]


def _first(rules: Sequence[Rule], taken: AbstractSet[str]) -> tuple[int, int, Rule] | None:
    """The join that saves most: (the rule that takes, the one that is taken, what they make)."""
    best: tuple[float, int, int, Rule] | None = None
    for one, rule in enumerate(rules):
        if not any(counts(token) for name in rule.names for token in name):
            continue
        for other, guest in enumerate(rules):
            if one == other or rule.form != guest.form or len(rule.names) != len(guest.names):
                continue
            for made in _laid(rule, guest):
                gain = cost(rule) + cost(guest) - cost(made)
                if gain > 0 and (best is None or gain > best[0]) and is_free(made, (rule, guest), taken):
                    best = (gain, one, other, made)
    return None if best is None else best[1:]


def _laid(rule: Rule, guest: Rule) -> Iterator[Rule]:
    """What the two make, with one hole of the first read as each of its labels."""
    lists = {
        token.axis: len(token.labels)
        for name in rule.names
        for token in name
        if isinstance(token, Labels) and counts(token)
    }
    for axis, count in lists.items():
        for place in range(count):
            made = _joined(rule, guest, axis, place)
            if made is not None:
                yield made


def _joined(rule: Rule, guest: Rule, axis: str, place: int) -> Rule | None:
    names: list[Template] = []
    kinds: set[str] = set()
    added: list[str] = []
    ends = []
    for name, other in zip(rule.names, guest.names, strict=True):
        special, origin = _special(name, axis, place)
        if len(special) == len(name) and axis not in {token.axis for token in name if isinstance(token, Labels)}:
            return None
        bones = [_bones(special), _bones(other)]
        prefix, suffix = common(bones)  # type: ignore[arg-type] # bones stand for tokens
        here, there = special[prefix : len(special) - suffix], other[prefix : len(other) - suffix]
        if not there or not here or not all(isinstance(token, str) for token in there):
            return None
        first, last = origin[prefix], origin[len(special) - suffix - 1]
        text = "".join(map(str, there))
        if len(here) == 1 and isinstance(here[0], Labels) and counts(here[0]):
            kinds.add(here[0].axis)
            names.append((*name[:first], replace(here[0], labels=(*here[0].labels, text)), *name[first + 1 :]))
        elif (wide := _wider(name[first : last + 1])) is not None:
            while prefix and origin[prefix - 1] == first:  # the label whole
                prefix -= 1
            while suffix and origin[len(special) - suffix] == last:
                suffix -= 1
            text = "".join(map(str, other[prefix : len(other) - suffix]))
            if any(mark in one for mark in SEPARATORS for one in (text, *wide.labels)):
                return None  # words of different modules
            kinds.add(wide.axis)
            names.append((*name[:first], replace(wide, labels=(*wide.labels, text)), *name[last + 1 :]))
        elif all(isinstance(token, str) for token in here) and all(
            isinstance(name[k], str) for k in range(first, last + 1)
        ):
            kinds.add("new")
            names.append((*name[:first], Labels("new", ("".join(map(str, here)), text)), *name[last + 1 :]))
        else:
            return None
        added.append(text)
        ends.append((bones[0][:prefix], bones[0][len(special) - suffix :]))
    if len(kinds) != 1:
        return None
    holes = [[token for token in name if isinstance(token, Labels) and token.axis in kinds] for name in names]
    if any(
        len(one) != 1 or len(set(one[0].labels)) != len(one[0].labels) or len(one[0].labels) > MOST_LABELS
        for one in holes
    ):
        return None
    if not _within(rule, guest, axis):
        return None
    rows = ordered(list(zip(*(one[0].labels for one in holes), strict=True)))
    columns = list(zip(*rows, strict=True))
    names = [tuple(_with(token, kinds, columns[k]) for token in name) for k, name in enumerate(names)]
    made = rule.with_names(names, sorted((*rule.covers, *guest.covers)))
    if not all(map(is_writable, added)) or touching(made) or strangeness(ends, [one[0].labels for one in holes]):
        return None
    notes = tuple(dict.fromkeys((*rule.notes, *guest.notes)))
    return replace(made, ranks=rule.ranks | guest.ranks, notes=notes)


def _wider(tokens: Sequence[Token]) -> Labels | None:
    """A hole and the texts around it as one hole: `{n=self|cross}_attention` as `{n=self_attention|cross_attention}`."""
    holes = [token for token in tokens if isinstance(token, Labels) and counts(token)]
    if len(holes) != 1 or any(not isinstance(token, str) and token != holes[0] for token in tokens):
        return None
    at = tokens.index(holes[0])
    before, after = ("".join(map(str, part)) for part in (tokens[:at], tokens[at + 1 :]))
    return replace(holes[0], labels=tuple(before + label + after for label in holes[0].labels))


def _with(token: Token, axes: set[str], labels: tuple[str, ...]) -> Token:
    return replace(token, labels=labels) if isinstance(token, Labels) and token.axis in axes else token


def _within(rule: Rule, guest: Rule, axis: str) -> bool:
    """The guest's own holes must be holes of the rule, with labels that pair alike."""
    own = [
        _pairs(rule, token.axis)
        for name in guest.names
        for token in name
        if isinstance(token, Labels) and counts(token)
    ]
    del axis
    theirs = [
        _pairs(guest, token.axis)
        for name in guest.names
        for token in name
        if isinstance(token, Labels) and counts(token)
    ]
    every = {pair for axes in _all_pairs(rule) for pair in axes}
    return all(pair in every for pairs in theirs for pair in pairs) and bool(own or not theirs)


def _all_pairs(rule: Rule) -> list[set[tuple[str, ...]]]:
    axes = dict.fromkeys(
        token.axis for name in rule.names for token in name if isinstance(token, Labels) and counts(token)
    )
    return [_pairs(rule, axis) for axis in axes]


def _pairs(rule: Rule, axis: str) -> set[tuple[str, ...]]:
    """The labels of an axis, one of each name together."""
    columns = [
        token.labels for name in rule.names for token in name if isinstance(token, Labels) and token.axis == axis
    ]
    return set(zip(*columns, strict=True))


def _bones(name: Template) -> tuple[object, ...]:
    """Bones of the tokens, holes by their labels alone where the axes are not of one numbering."""
    return tuple(
        ("labels", token.labels) if counts(token) and isinstance(token, Labels) else bone(token) for token in name
    )


def _special(name: Template, axis: str, place: int) -> tuple[Template, list[int]]:
    """The name with the hole of an axis read as one label, and for each token the place it comes from."""
    found: list[Token] = []
    origin: list[int] = []
    for k, token in enumerate(name):
        if isinstance(token, Labels) and token.axis == axis:
            made: Sequence[Token] = tokens(token.labels[place])
        else:
            made = (token,)
        found.extend(made)
        origin.extend([k] * len(made))
    return tuple(found), origin
