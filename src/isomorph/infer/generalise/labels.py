"""Rules that differ in one place of their names become one, with labels there: `{p=query|key|value}` <-> `{p=q|k|v}`.

Two rules of one form are laid upon each other: what their names begin and end with is kept, what lies between becomes labels. The
smallest differences are joined first, so that words of one kind come together before anything else, and only where text is saved.
A grid of labels need not be full where no tensor has the names that it lacks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from isomorph.infer.generalise.blocks import LINE, width
from isomorph.infer.generalise.ellipsis import forms
from isomorph.infer.generalise.letters import torch_first
from isomorph.infer.generalise.patterns import REST, SEPARATORS, Form, Index, Labels, Rule, Template, Term, Token
from isomorph.infer.generalise.spelling import is_free
from isomorph.infer.generalise.words import Skeleton, cost, is_writable, ordered, strangeness

MOST_LABELS = 12
"""Labels of one hole; a longer list is a table, not a rule."""
MANY = 160
"""Above so many rules of a form not every pair is tried."""
MOST_PAIRS, FEWEST = 8000, 6
"""Of more, each is laid upon those that stand next to it: so many pairs in all, but so many for each at least."""
WIDEST = 130

Key = tuple[Form, tuple[tuple[Skeleton, Skeleton], ...]]


@dataclass(frozen=True)
class _Join:
    stage: int
    awkward: bool
    size: float
    gain: float
    made: Rule
    members: frozenset[int]


def joined_once(rules: Sequence[Rule], taken: AbstractSet[str]) -> list[Rule] | None:
    """One round of joins that do not touch each other, or None when none saves anything."""
    joins: list[_Join] = []
    for form, members in _buckets(rules).items():
        for key, group in _groups(form, members).items():
            found = _joined(
                rules,
                key,
                {number: members[number] for number in sorted(group, key=lambda k: members[k].covers[0])},
                taken,
            )
            if found is not None:
                joins.append(found)
    joins.sort(key=lambda join: (join.awkward, join.size, -join.gain, min(join.members)))
    used: set[int] = set()
    made: list[Rule] = []
    first = min((join.stage for join in joins), default=0)
    for join in (join for join in joins if join.stage == first):
        if not (join.members & used):
            used |= join.members
            made.append(join.made)
    if not made:
        return None
    return [rule for number, rule in enumerate(rules) if number not in used] + made


def _buckets(rules: Sequence[Rule]) -> dict[Form, dict[int, Rule]]:
    """Rules by every form that they can be written in, each with its rules in that form."""
    made: dict[Form, dict[int, Rule]] = {}
    bases: dict[tuple[Form, int | None], set[Form]] = {}
    variants: dict[Form, Rule] = {}
    for number, rule in enumerate(rules):
        made.setdefault(rule.form, {})[number] = rule
        for variant, base, rank in forms(rule):
            made.setdefault(variant.form, {})[number] = variant
            variants.setdefault(variant.form, variant)
            bases.setdefault((base, rank), set()).add(variant.form)
    for number, rule in enumerate(rules):
        rank = next(iter(rule.ranks)) if rule.is_copy and len(rule.ranks) == 1 else None
        for form in sorted(bases.get((rule.form, rank), ()), key=repr):
            shape = variants[form]
            if len(shape.names) == len(rule.names):
                left, right = _headed(shape.left, rule.left), _headed(shape.right, rule.right)
                own = replace(rule, left=left, right=right, operators=shape.operators, laid=True)
                made[form].setdefault(number, own)
    return {form: members for form, members in made.items() if len(members) > 1 and _is_own(form, members, rules)}


def _is_own(form: Form, members: Mapping[int, Rule], rules: Sequence[Rule]) -> bool:
    """False for a form with `...` that some rule would have to be put into, but none has or needs to meet another."""
    forms_there = {rules[number].form for number in members}
    return form in forms_there or len(forms_there) > 1


def _headed(terms: Sequence[Term], heads: Sequence[Term]) -> tuple[Term, ...]:
    return tuple(replace(term, head=other.head) for term, other in zip(terms, heads, strict=True))


def _groups(form: Form, members: Mapping[int, Rule]) -> dict[Key, set[int]]:
    """Rules that are alike but for one region in each name: key is what they share."""
    bones = {number: [tuple(map(bone, name)) for name in rule.names] for number, rule in members.items()}
    order = sorted(bones, key=lambda number: (str(bones[number]), number))
    reach = len(order) if len(order) <= MANY else max(FEWEST, MOST_PAIRS // len(order))
    found: dict[Key, set[int]] = {}
    for at, one in enumerate(order):
        for other in order[at + 1 : at + 1 + reach]:
            ends = []
            for first, second in zip(bones[one], bones[other], strict=True):
                shared = _ends(first, second)
                if shared is None:
                    break
                ends.append(shared)
            else:
                found.setdefault((form, tuple(ends)), set()).update((one, other))
    return found


def bone(token: Token) -> object:
    """What must be equal of a token: labels that count may differ."""
    if isinstance(token, Labels) and token.axis.startswith("n"):
        return ("labels", token.axis)
    return token


def _ends(first: Skeleton, second: Skeleton) -> tuple[Skeleton, Skeleton] | None:
    """The common beginning and end of two names, None where they are the same or a hole lies between."""
    shortest = min(len(first), len(second))
    prefix = 0
    while prefix < shortest and first[prefix] == second[prefix]:
        prefix += 1
    suffix = 0
    while suffix < shortest - prefix and first[-1 - suffix] == second[-1 - suffix]:
        suffix += 1
    middles = (first[prefix : len(first) - suffix], second[prefix : len(second) - suffix])
    if middles[0] == middles[1] or not all(isinstance(token, str) for middle in middles for token in middle):
        return None
    return first[:prefix], first[len(first) - suffix :]


def _joined(rules: Sequence[Rule], key: Key, chosen: Mapping[int, Rule], taken: AbstractSet[str]) -> _Join | None:
    """The join of these rules (in the form of the key), where it is one and saves text."""
    _, ends = key
    if not 2 <= len(chosen) <= MOST_LABELS:
        return None
    laid = [number for number, rule in chosen.items() if rule.laid]
    if len(laid) == len(chosen) or (laid and not _in_last_piece(chosen.values(), ends)):
        return None
    regions: list[list[str]] = []
    for k, (prefix, suffix) in enumerate(ends):
        texts = []
        for rule in chosen.values():
            middle = rule.names[k][len(prefix) : len(rule.names[k]) - len(suffix)]
            if not all(isinstance(token, str) for token in middle):
                return None
            texts.append("".join(map(str, middle)))
        if len(set(texts)) != len(texts):
            return None
        regions.append(texts)
    regions = [list(texts) for texts in zip(*ordered(list(zip(*regions, strict=True))), strict=True)]
    lists = _united([rule.names for rule in chosen.values()])
    if lists is None:
        return None
    first = next(iter(chosen.values()))
    names: list[Template] = []
    for k, (prefix, suffix) in enumerate(ends):
        name = first.names[k]
        hole = Labels("new", tuple(regions[k]))
        names.append((*name[: len(prefix)], hole, *name[len(name) - len(suffix) :]))
    seen = iter(lists)
    names = [tuple(next(seen) if counts(token) and token.axis != "new" else token for token in name) for name in names]  # type: ignore[union-attr]
    covers = sorted(number for rule in chosen.values() for number in rule.covers)
    base = replace(
        first,
        laid=False,
        ranks=frozenset().union(*(rule.ranks for rule in chosen.values())),
        notes=_notes(chosen.values()),
    )
    made = base.with_names(names, covers)
    if touching(made) or not all(is_writable(text) for texts in regions for text in texts):
        return None
    gain = sum(cost(rules[number]) for number in chosen) - cost(made) - strangeness(ends, regions)
    if gain <= 0 or (max(sum(map(width, made.names)), 0) > WIDEST and gain < LINE * len(chosen)):
        return None
    if not is_free(made, chosen.values(), taken):
        return None
    size = sum(max(map(len, texts)) + 6 * any("." in text or "/" in text for text in texts) for texts in regions)
    return _Join(_stage(chosen.values(), ends), _awkward(made), size / len(regions), gain, made, frozenset(chosen))


def _in_last_piece(rules: Iterable[Rule], ends: Sequence[tuple[Skeleton, Skeleton]]) -> bool:
    """True when the rules differ in the last piece of their names alone, as weight and bias of one module do."""
    for rule in rules:
        for name, (prefix, suffix) in zip(rule.names, ends, strict=True):
            rest = name[len(prefix) : len(name) - len(suffix)]
            if any(token in SEPARATORS for token in (*suffix, *rest) if isinstance(token, str)):
                return False
    return True


def _stage(rules: Iterable[Rule], ends: Sequence[tuple[Skeleton, Skeleton]]) -> int:
    """0: weight and bias of a module; 1: modules of a layer; 2: whole towers. Lower ones are joined to the end first."""
    rules = tuple(rules)
    if _in_last_piece(rules, ends):
        return 0
    return 2 if any(isinstance(token, Index) for _, suffix in ends for token in suffix) else 1


def touching(rule: Rule) -> bool:
    """True when two holes stand side by side: no reader can tell where one ends."""
    return any(
        not isinstance(one, str) and not isinstance(other, str)
        for name in rule.names
        for one, other in itertools.pairwise(name)
    )


def _awkward(rule: Rule) -> bool:
    """True for `[... i]` on the side whose matrices are [out in]: the bias is an o, not an i."""
    first = torch_first(rule)[0][0].dims
    return first is not None and REST in first and first[-1] != REST


def _notes(rules: Iterable[Rule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(note for rule in rules for note in rule.notes))


def counts(token: Token) -> bool:
    """True for a label hole whose axis counts instances."""
    return isinstance(token, Labels) and token.axis.startswith("n")


def _united(every: Sequence[Sequence[Template]]) -> list[Labels] | None:
    """The label holes that all of these names have, with the labels of all; None where labels do not pair alike."""
    holes = [
        [token for name in names for token in name if isinstance(token, Labels) and counts(token)] for names in every
    ]
    if len({len(one) for one in holes}) != 1:
        return None
    axes = [token.axis for token in holes[0]]
    if any([token.axis for token in one] != axes for one in holes):
        return None
    columns: dict[str, list[tuple[str, ...]]] = {}
    for axis in dict.fromkeys(axes):
        places = [k for k, one in enumerate(axes) if one == axis]
        rows: dict[tuple[str, ...], None] = {}
        for one in holes:
            rows.update(dict.fromkeys(zip(*(one[k].labels for k in places), strict=True)))
        for column in zip(*rows, strict=True):
            if len(set(column)) != len(column):
                return None
        if len(rows) > MOST_LABELS:
            return None
        columns[axis] = ordered(list(rows))
    found = []
    count: dict[str, int] = {}
    for token in holes[0]:
        at = count.setdefault(token.axis, 0)
        count[token.axis] += 1
        found.append(replace(token, labels=tuple(row[at] for row in columns[token.axis])))
    return found
