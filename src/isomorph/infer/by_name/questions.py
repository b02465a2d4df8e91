"""Members whose forms are not settled -> Questions, one for all that surely answer alike; and choices of source as questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from isomorph.infer.by_name.axes import Form
from isomorph.infer.by_name.correspondence import Choice
from isomorph.infer.by_name.orientation import Member, Siblings
from isomorph.infer.nouns import Alternative, Question, Relation

MOST_ALTERNATIVES = 96
"""Of more, a person can choose none: what leads to so many is left unplaced."""
_NUMBER = re.compile(r"\d+")

Way = tuple[str, str, str]
"""Turn, cut and order."""


def asked(members: Sequence[Member], around: Siblings) -> tuple[list[Question], list[str]]:
    """The questions about these members, and the targets of those that cannot be asked (too many forms)."""
    found: list[Question] = []
    left: list[str] = []
    for group in _alike(members, around):
        question = _question(group, around)
        if question is None:
            left.extend(name for member in group for name in member.link.target_names)
        else:
            found.append(question)
    return found, left


def _alike(members: Sequence[Member], around: Siblings) -> Iterator[list[Member]]:
    """Members that one answer settles: those with the same orders to choose from; squares of one kind whose siblings agree."""
    groups: dict[object, list[Member]] = {}
    for member in members:
        if len(member.orders) > 1:
            groups.setdefault(("order", member.role, member.orders), []).append(member)
        else:
            mixed = len(around.near(member)) > 1
            own = member.key if mixed else str(member.is_in_layers and len(around.of(member.kind)) > 1)
            groups.setdefault(("orientation", member.kind, frozenset(member.turns), own), []).append(member)
    for group in groups.values():
        ways = {frozenset(member.turns) for member in group if len(member.turns) > 1}
        if len(ways) < 2:
            yield group
        else:
            for way in sorted(ways, key=sorted):
                yield [member for member in group if frozenset(member.turns) == way]
            rest = [member for member in group if len(member.turns) < 2]
            if rest:
                yield rest


def ways_of(members: Sequence[Member]) -> list[Way]:
    """Every turn, cut and order that all of these members can be in together."""
    turns = list(dict.fromkeys(turn for member in members if len(member.turns) > 1 for turn in member.turns)) or [
        ("", "")
    ]
    orders = list(dict.fromkeys(order for member in members if len(member.orders) > 1 for order in member.orders)) or [
        ""
    ]
    ways = [(*turn, order) for turn in turns for order in orders]
    return [way for way in ways if all(_in(member, way) is not None for member in members)]


def _in(member: Member, way: Way) -> Form | None:
    """The form that a member has in this way; what it has no choice of is as it is."""
    turn, cut, order = way
    found = [
        form
        for form in member.forms
        if (len(member.turns) == 1 or (form.turn, form.cut) == (turn, cut))
        and (len(member.orders) == 1 or form.order == order)
    ]
    return found[0] if len(found) == 1 else None


def relations_in(members: Sequence[Member], way: Way) -> tuple[Relation, ...]:
    """The relations of members that are all in this way."""
    found = [_in(member, way) for member in members]
    return tuple(form.relation for form in found if form is not None)


def _question(group: Sequence[Member], around: Siblings) -> Question | None:
    ways = ways_of(group)
    if not 1 < len(ways) <= MOST_ALTERNATIVES:
        return None
    has_orders, has_turns = len({way[2] for way in ways}) > 1, len({way[:2] for way in ways}) > 1
    kind = group[0].kind
    near = around.near(group[0])
    turn = max(sorted(near), key=near.__getitem__) if near else around.likely(kind)
    likely = next(
        (number for number, way in enumerate(ways) if way[0] == turn), 0 if turn is None or has_orders else None
    )
    alternatives = tuple(
        Alternative(relations_in(group, way), _words(way, ways, near or around.of(kind))) for way in ways
    )
    keys = list(dict.fromkeys(member.key for member in group))
    count = sum(len(list(member.link.target_names)) for member in group)
    shown = ", ".join(keys[:2]) + (f" and {len(keys) - 2} more" if len(keys) > 2 else "")
    if has_orders:
        parts = ", ".join(dict.fromkeys(name for member in group[:1] for name in _parts(member)))
        text = f"{shown} ({count} tensors): in which order do the elements lie ({parts})?"
        if has_turns:
            text = f"{text[:-1]}, and is it transposed?"
        why = "the usual order" if likely is not None else ""
        return Question(f"{keys[0]} order", "order", text, alternatives, likely, why)
    what = "of equal sizes" if kind[0] != "linear" else "square"
    text = f"{shown} ({count} tensors): {what}, so that shapes do not say how the dims lie"
    return Question(
        f"{keys[0]} orientation", "orientation", text, alternatives, likely, _because(turn, near or around.of(kind))
    )


def _parts(member: Member) -> list[str]:
    """The tensors of the first layer that a question of order is about."""
    link = member.link
    several = link.sources if len(link.sources) > 1 else link.targets
    return [bundle.role or _NUMBER.sub("{}", bundle.names[0]) for bundle in several]


def _words(way: Way, ways: Sequence[Way], near: Mapping[str, int]) -> str:
    """What tells a way from the others."""
    turn, cut, order = way
    words = []
    if len({one[:2] for one in ways}) > 1:
        said = {"kept": "kept", "transposed": "transposed: [o i] <-> [i o]"}.get(turn, turn)
        if len({one[1] for one in ways if one[0] == turn}) > 1:
            said += f" with axes {cut}"
        count = near.get(turn, 0)
        if count:
            said += f", as its {count} non-square siblings are" if count > 1 else ", as its non-square sibling is"
        words.append(said)
    if len({one[2] for one in ways}) > 1:
        words.append(order)
    return "; ".join(words)


def _because(turn: str | None, near: Mapping[str, int]) -> str:
    if turn is None:
        return ""
    if near:
        return f"{near.get(turn, 0)} of {sum(near.values())} siblings with the same last word are {turn}"
    return f"most tensors of its kind are {turn}"


def choice(
    found: Choice, members_of: Callable[[object], Sequence[Member] | None], around: Siblings
) -> tuple[Question | None, tuple[Relation, ...]]:
    """A choice of sources as a question with complete relations; where shapes leave one option in one form, its relations."""
    alternatives: list[Alternative] = []
    likely = None
    for number, option in enumerate(found.options):
        members: list[Member] = []
        for match in option:
            several = members_of(match)
            if several is None:
                break
            members.extend(several)
        else:
            ways = ways_of(members)
            if likely is None and found.likely == number:
                likely = len(alternatives)
            for way in ways:
                words = _sources(members, found)
                if len(ways) > 1:
                    words += "; " + _words(way, ways, around.near(members[0]))
                alternatives.append(Alternative(relations_in(members, way), words))
    if len(alternatives) == 1:
        return None, alternatives[0].relations
    if not 1 < len(alternatives) <= MOST_ALTERNATIVES:
        return None, ()
    targets = [_NUMBER.sub("{}", name) for name in found.targets]
    shown = ", ".join(list(dict.fromkeys(targets))[:3])
    text = f"names and shapes do not say what makes {shown} ({len(targets)} tensors)" + (
        f": {found.why}" if found.why else ""
    )
    return Question(f"{found.key} source", "source", text, tuple(alternatives), likely, found.why), ()


def _sources(members: Sequence[Member], found: Choice) -> str:
    """What an option says, in the names of the first tensors of each class."""
    if not members:
        return "nothing makes it"
    said: dict[str, str] = {}
    for member in members:
        if member.key not in said:
            said[member.key] = " + ".join(_NUMBER.sub("{}", bundle.names[0]) for bundle in member.link.sources)
    shown = [f"{target} from {source}" for target, source in said.items()]
    return "; ".join(shown[:4]) + (" …" if len(shown) > 4 else "")
