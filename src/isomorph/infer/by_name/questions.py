"""Members whose forms are not settled -> Questions, one for all that surely answer alike; and choices of source as questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile

from isomorph.infer.by_name.axes import Form
from isomorph.infer.by_name.correspondence import Choice
from isomorph.infer.by_name.orientation import Member, Siblings
from isomorph.infer.nouns import Alternative, Question, Relation

MOST_ALTERNATIVES = 96
"""Of more, a person can choose none: what leads to so many is left unplaced."""
MOST_SHOWN = 5
PLAIN = frozenset(["the names do not say which"])
"""Reasons that go without saying."""
LAST = frozenset(["weight", "bias", "kernel", "scale", "gamma", "beta"])
"""Last words of names that say what of a module it is."""
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
    shown = shortly(list(dict.fromkeys(name for key in keys for name in key.split(", "))))
    if has_orders:
        parts = ", ".join(dict.fromkeys(name for member in group[:1] for name in _parts(member)))
        text = f"{shown}: in which order do {parts} lie{', and is it transposed' if has_turns else ''}?"
        if count > 1:
            text += f" ({count} tensors)"
        why = "the usual order" if likely is not None else ""
        return Question(f"{keys[0]} order", "order", text, alternatives, likely, why)
    what = "tensors of equal sizes" if kind[0] != "linear" else "square matrices"
    text = f"how do the dims of the {count} {what} {shown} lie?" if count > 1 else f"how do the dims of {shown} lie?"
    if {way[0] for way in ways} == {"kept", "transposed"} and len(ways) == 2:
        text = f"are the {count} {what} {shown} transposed?" if count > 1 else f"is {shown} transposed?"
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
        said = turn
        if len({one[1] for one in ways if one[0] == turn}) > 1:
            said += f" with axes {cut}"
        words.append(said)
    if len({one[2] for one in ways}) > 1:
        words.append(order)
    return "; ".join(words)


def _because(turn: str | None, near: Mapping[str, int]) -> str:
    if turn is None:
        return ""
    if near:
        count, every = near.get(turn, 0), sum(near.values())
        if count == every:
            return f"as its {count} non-square siblings are" if count > 1 else "as its non-square sibling is"
        return f"as {count} of its {every} non-square siblings are"
    return f"most tensors of its kind are {turn}"


def choice(
    found: Choice, members_of: Callable[[object], Sequence[Member] | None], around: Siblings
) -> tuple[Question | None, tuple[Relation, ...]]:
    """A choice of sources as a question with complete relations; where shapes leave one option in one form, its relations."""
    alternatives: list[Alternative] = []
    likely = None
    keys: dict[str, None] = {}
    sources: list[list[str]] = []
    for number, option in enumerate(found.options):
        members: list[Member] = []
        for match in option:
            several = members_of(match)
            if several is None:
                break
            members.extend(several)
        else:
            keys.update((member.key, None) for member in members)
            sources.append([name for member in members for name in member.link.source_names] or [""])
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
    names = list(dict.fromkeys(name for key in keys for name in key.split(", ")))
    text = f"which sources make {shortly(names)}?"
    if len({frozenset(one) for one in sources}) == 1 and len(sources) > 1:
        text = f"{shortly(names)}: which is which?"
    if len(found.targets) > 1:
        text += f" ({len(found.targets)} tensors)"
    if found.why and found.why not in PLAIN:
        text += f"; {found.why}"
    return Question(f"{found.key} source", "source", text, tuple(alternatives), likely, found.why), ()


def _sources(members: Sequence[Member], found: Choice) -> str:
    """What an option says, in the names of the first tensors of each class."""
    if not members:
        return "nothing makes it"
    said: dict[str, list[str]] = {}
    for member in members:
        source = " + ".join(_module(_NUMBER.sub("{}", bundle.names[0])) for bundle in member.link.sources)
        targets = said.setdefault(source, [])
        if _module(member.key) not in targets:
            targets.append(_module(member.key))
    made, read = _ends([shortly(targets) for targets in said.values()]), _ends(list(said))
    shown = [f"{target} from {source}" for target, source in zip(made, read, strict=True)]
    return ", ".join(shown[:4]) + (" …" if len(shown) > 4 else "")


def _module(name: str) -> str:
    """The name without its last word, which is `weight` or `bias`."""
    head, mark, last = name.rpartition("." if "." in name else "/")
    return head if mark and last.partition(":")[0] in LAST and " + " not in name else name


def shortly(names: Sequence[str]) -> str:
    """Names of one question in few words: `stack.{}.n{1|2}.*` for the weights and biases of two norms."""
    modules = list(dict.fromkeys(_module(name) for name in names))
    ending = ""
    if len(modules) < len(names):
        ending = ("." if "." in modules[0] or "/" not in names[0] else "/") + "*"
    elif len({name.removeprefix(module) for name, module in zip(names, modules, strict=True)}) == 1:
        ending = names[0].removeprefix(modules[0])
    else:
        modules = list(names)
    if len(modules) == 1:
        return modules[0] + ending
    first = _shared(modules)
    first = (
        first[: 1 + max(first.rfind(mark) for mark in "._/")]
        if first[-1:].isalnum() and not _cut_at_digit(first, modules)
        else first
    )
    last = _shared([module[len(first) :][::-1] for module in modules])[::-1]
    last = last[min((at for at in (last.find(mark) for mark in "._/") if at >= 0), default=len(last)) :]
    middles = [module[len(first) : len(module) - len(last)] for module in modules]
    if len(middles) > MOST_SHOWN:
        middles = [*middles[: MOST_SHOWN - 1], f"{len(middles) - MOST_SHOWN + 1} more"]
    return f"{first}{{{'|'.join(middles)}}}{last}{ending}"


def _ends(names: Sequence[str]) -> list[str]:
    """Several names without the path that they share."""
    shared = _shared(names) if len(names) > 1 else ""
    cut = 1 + max(shared.rfind(mark) for mark in "./")
    return [name[cut:] for name in names]


def _shared(texts: Sequence[str]) -> str:
    """What all of them begin with."""
    return "".join(chars[0] for chars in takewhile(lambda chars: len(set(chars)) == 1, zip(*texts, strict=False)))


def _cut_at_digit(prefix: str, names: Sequence[str]) -> bool:
    """Whether numbers alone stand behind the common beginning."""
    return not prefix[-1:].isdigit() and all(name[len(prefix) : len(prefix) + 1].isdigit() for name in names)
