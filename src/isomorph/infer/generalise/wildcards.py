"""General rules: `**.weight [o i] <-> **/kernel [i o]`, `encoder.** <-> transformer.**`, `** <-> **`, below the special ones.

Every rule whose two names share a run of pieces gives candidates, with `**` in the place of the run. What each would do is found by
letting it read and write the names of all classes. The one that saves most is taken, again and again; what it does right needs no
rule any more, and what it would do wrong keeps its own, above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from isomorph.infer.generalise.ellipsis import base_of, forms
from isomorph.infer.generalise.order import Names, Separators, patterns
from isomorph.infer.generalise.patterns import Form, Index, Labels, Rule, Star, Template, Token, token_axes
from isomorph.infer.generalise.spelling import blank
from isomorph.infer.generalise.words import cost
from isomorph.language.names import NamePattern, TwoCuts, Unsized

MOST_GENERAL = 8
"""General rules of a morph."""
LEAST = 3
"""A general rule stands for so many different paths at least."""
MOST_TRIED = 400
"""Candidates that are held against all classes: those that come from most rules."""
FIRST_TRIES = 3
MANY = 120
"""So many ways to begin are tried, where there are no more classes than these."""
COST = 14
"""A general rule costs a little more than its text: what it takes is not written there."""

Pieces = list[Template]
Wanted = tuple[Form, int | None]
"""A form, and a copy's rank where it matters."""


@dataclass(frozen=True)
class General:
    """A candidate, and the classes that it does right."""

    rule: Rule
    right: frozenset[int]
    meets: frozenset[int]
    """All classes a name of which it would take, on either side."""


def separators(names: Sequence[Sequence[str]]) -> Separators:
    """What `paths` is to say: the separator of each side, (None, None) where they are the same or a side has none."""
    found: list[str] = []
    for side in names:
        counts = {mark: sum(name.count(mark) for name in side) for mark in "./"}
        if not any(counts.values()):
            return None, None
        found.append(max(counts, key=lambda mark: (counts[mark], mark == ".")))
    return (None, None) if found[0] == found[1] else (found[0], found[1])


def generals(
    classes: Sequence[Rule],
    names: Mapping[int, Names],
    marks: Separators,
    labelled: Callable[[Sequence[Rule]], list[Rule]],
) -> list[Rule]:
    """The rules of the classes, some of them general. `labelled` joins classes by labels."""
    special = labelled(classes)
    candidates = _candidates([*classes, *special], classes, names, marks)
    tries = FIRST_TRIES if len(classes) <= MANY else 1
    found = [_greedy(classes, special, candidates, labelled, first) for first in range(tries)]
    return min(found, key=lambda rules: sum(map(cost, rules)))


def _greedy(
    classes: Sequence[Rule],
    special: list[Rule],
    candidates: Sequence[General],
    labelled: Callable[[Sequence[Rule]], list[Rule]],
    first: int,
) -> list[Rule]:
    """The general rules that save most, one after the other; to begin with, the one that comes `first` by what it saves."""
    chosen: list[General] = []
    refused: set[int] = set()
    left = list(range(len(classes)))
    while len(chosen) < MOST_GENERAL:
        shares = _shares(classes, special, left)
        gains = sorted(
            (-gain, number)
            for number, one in enumerate(candidates)
            if number not in refused and _fits(one, chosen) and (gain := _gain(one, shares)) > 0
        )
        place = first if not chosen and not refused else 0
        if len(gains) <= place:
            break
        number = gains[place][1]
        general = candidates[number]
        rest = [k for k in left if k not in general.right]
        remaining = labelled([classes[k] for k in rest])
        if sum(map(cost, remaining)) + cost(general.rule) + COST >= sum(map(cost, special)):
            refused.add(number)
            continue
        covers = tuple(sorted(one for k in left if k in general.right for one in classes[k].covers))
        also = frozenset(one for k in general.right for one in classes[k].covers)
        notes = tuple(dict.fromkeys(note for k in left if k in general.right for note in classes[k].notes))
        chosen.append(replace(general, rule=replace(general.rule, covers=covers, also=also, notes=notes)))
        left, special = rest, remaining
    return [*special, *(one.rule for one in chosen)]


def _shares(classes: Sequence[Rule], special: Sequence[Rule], left: Sequence[int]) -> dict[int, float]:
    """What each class that is left costs: its part of the rule that stands for it."""
    owner = {number: k for k, rule in enumerate(special) for number in rule.covers}
    owners = {k: owner[classes[k].covers[0]] for k in left}
    within: dict[int, int] = {}
    for rule in owners.values():
        within[rule] = within.get(rule, 0) + 1
    costs = [cost(rule) for rule in special]
    return {k: costs[rule] / within[rule] for k, rule in owners.items()}


def _gain(one: General, shares: Mapping[int, float]) -> float:
    here = one.right & shares.keys()
    return sum(shares[k] for k in sorted(here)) - cost(one.rule) - COST if len(here) > 1 else 0.0


def _fits(one: General, chosen: Sequence[General]) -> bool:
    """False when each of two general rules would have to stand above the other."""
    return all(not (one.right & other.meets - other.right and other.right & one.meets - one.right) for other in chosen)


# ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _candidates(
    rules: Sequence[Rule], classes: Sequence[Rule], names: Mapping[int, Names], marks: Separators
) -> list[General]:
    made: dict[object, tuple[Rule, int]] = {}
    for rule in rules:
        for one in _starred(rule, marks):
            key = (one.names, one.form)
            first, count = made.get(key, (one, 0))
            made[key] = (first, count + 1)
    tried = sorted(made.values(), key=lambda pair: -pair[1])[:MOST_TRIED]
    known = [_forms(rule) for rule in classes]
    samples = [_samples(rule, names) for rule in classes]
    judged = (_judged(rule, known, samples, marks) for rule, _ in tried)
    return [one for one in judged if one is not None]


def _samples(rule: Rule, names: Mapping[int, Names]) -> list[tuple[str, str]]:
    ends = dict.fromkeys((rule.covers[0], rule.covers[-1]))
    if len(rule.names) == 2 and all(len(names[k][0]) == len(names[k][1]) == 1 for k in ends):
        return [(names[k][0][0], names[k][1][0]) for k in ends]
    return [(one, "") for k in ends for one in names[k][0]] + [("", one) for k in ends for one in names[k][1]]


def _forms(rule: Rule) -> set[Wanted]:
    """The forms a class can be written in, plain or with `...`; and its own with its rank, for those where `...` is nothing."""
    rank = next(iter(rule.ranks)) if rule.is_copy and len(rule.ranks) == 1 else None
    return {(rule.form, None), (rule.form, rank), *((variant.form, None) for variant, _, _ in forms(rule))}


def _judged(
    rule: Rule,
    known: Sequence[set[Wanted]],
    samples: Sequence[list[tuple[str, str]]],
    marks: Separators,
) -> General | None:
    (left,), (right,) = patterns(rule, marks)
    wanted: set[Wanted] = {(rule.form, None)}
    base = base_of(rule)
    if base is not None:
        wanted.add(base)
    good: set[int] = set()
    meets: set[int] = set()
    seen: set[str] = set()
    for k, (own, pairs) in enumerate(zip(known, samples, strict=True)):
        results = [_result(left, right, one, other) for one, other in pairs]
        if any(result != "no" for result in results):
            meets.add(k)
            if own & wanted and all(result == "right" for result in results):
                good.add(k)
                seen.update(_paths(left, pairs))
    return General(rule, frozenset(good), frozenset(meets)) if len(seen) >= LEAST else None


def _paths(made: NamePattern, pairs: Sequence[tuple[str, str]]) -> set[str]:
    """What `**` stands for, with numbers left open."""
    values = [made.read(one) for one, _ in pairs]
    return {blank(".".join(value)) for read in values if read for value in read.values() if isinstance(value, tuple)}


def _result(left: NamePattern, right: NamePattern, one: str, other: str) -> str:
    """`no` when neither name is taken, `right` when one gives the other and back, else `wrong`."""
    try:
        read = left.read(one) if one else None
        back = right.read(other) if other else None
        if read is None and back is None:
            return "no"
        if read is not None and back is not None and right.write(read) == other and left.write(back) == one:
            return "right"
    except (TwoCuts, Unsized, ValueError, KeyError):
        pass
    return "wrong"


def _starred(rule: Rule, marks: Separators) -> list[Rule]:
    """The rule with `**` for runs of pieces that both names share."""
    if len(rule.left) != 1 or len(rule.right) != 1 or len(rule.names) != 2 or rule.group is not None:
        return []
    bound = {axis for axis, _ in rule.sizes}
    left, right = (_pieces(name, mark) for name, mark in zip(rule.names, marks, strict=True))
    found = []
    for start, other, length in _runs(left, right):
        while start and length and any(isinstance(token, Index) for token in left[start]):
            start, other, length = start + 1, other + 1, length - 1  # a block's prefix ends behind its index
        for kept in range(min(3, length)):
            end = length - kept
            behind = left[start + end :]
            if any(isinstance(token, Index) for piece in behind for token in piece) or not (behind or rule.is_copy):
                continue
            names = []
            for pieces, at, mark in ((left, start, marks[0]), (right, other, marks[1])):
                names.append(_joined([*pieces[:at], (Star(True),), *pieces[at + end :]], mark or _mark(rule.names)))
            if all(_is_sound(name) and bound <= _axes(name) for name in names) and _axes(names[0]) == _axes(names[1]):
                found.append(rule.with_names(names))
    return found


def _is_sound(name: Template) -> bool:
    """Ties stay out, and holes do not touch."""
    return not any(isinstance(token, Labels | Index) and token.tied for token in name)


def _axes(name: Template) -> set[str]:
    return {axis for token in name for axis in token_axes(token) if axis.startswith("n")}


def _mark(names: Sequence[Template]) -> str:
    counts = [sum(token == mark for name in names for token in name) for mark in "./"]
    return "." if counts[0] >= counts[1] else "/"


def _pieces(name: Template, mark: str | None) -> Pieces:
    mark = mark or _mark((name,))
    found: Pieces = []
    piece: list[Token] = []
    for token in name:
        if token == mark:
            found.append(tuple(piece))
            piece = []
        else:
            piece.append(token)
    return [*found, tuple(piece)]


def _joined(pieces: Sequence[Template], mark: str) -> Template:
    made: list[Token] = []
    for number, piece in enumerate(pieces):
        made.extend(piece if number == 0 else (mark, *piece))
    return tuple(made)


def _runs(left: Pieces, right: Pieces) -> list[tuple[int, int, int]]:
    """The longest runs of equal pieces: (start left, start right, length). Tensor axes and ties end a run."""
    found = []
    for i in range(len(left)):
        for j in range(len(right)):
            if not _same(left[i], right[j]) or (i and j and _same(left[i - 1], right[j - 1])):
                continue
            length = 1
            while i + length < len(left) and j + length < len(right) and _same(left[i + length], right[j + length]):
                length += 1
            found.append((i, j, length))
    return found


def _same(one: Template, other: Template) -> bool:
    if one != other or not one:
        return False
    return not any(axis.startswith("a") for token in one for axis in token_axes(token))
