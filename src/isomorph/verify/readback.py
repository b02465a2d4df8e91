"""Read-back: every name a rule makes must be read, backward, by the same rule, term and values (LANGUAGE.md 3 (20))."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from isomorph.errors import Gap, MorphError
from isomorph.language.rules import FullName, Program, Rule
from isomorph.verify.instances import make_reader, take
from isomorph.verify.reading import Value
from isomorph.verify.sizes import gap

Made = tuple[Rule, int, Mapping[str, Value], Mapping[str, Value]]
"""(rule, number of the right term, values of its axes, values of its ties) of a name that was made."""


def read_back(
    program: Program,
    names: Iterable[str],
    made: Callable[[str], Made],
    given: Mapping[str, int],
    config: Mapping[str, object],
) -> list[Gap]:
    """A gap for every one of `names` that another rule, another term or other values than `made` says would take."""
    forward: dict[int, Rule] = {}
    readers = []
    for rule in program.rules:
        try:
            readers.append(make_reader(rule.inverse, given, config))
        except MorphError:
            return []  # said already, reading forward
        forward[id(readers[-1])] = rule
    unread: list[Gap] = []
    gaps: list[Gap] = []
    for name, reader, back_place, reading in take(readers, names, given, config, unread):
        rule, place, axes, ties = made(name)
        back = forward[id(reader)]
        if rule.arrow == "->":
            wrong = back.arrow == "<->"
        else:
            wrong = (
                back is not rule
                or back_place != place
                or reading.ties != dict(ties)
                or not _same(rule, place, axes, reading.axes)
            )
        if wrong:
            text = f"`{name}`, made by `{rule.origin.text}`, reads back by `{back.origin.text}`"
            gaps.append(
                gap(
                    "readback",
                    rule,
                    text if back is not rule else f"`{name}` does not read back as it was made",
                    [name],
                )
            )
    return [each for each in unread if not all(made(name)[0].arrow == "->" for name in each.tensors)] + gaps


def _same(rule: Rule, place: int, made: Mapping[str, Value], read: Mapping[str, Value]) -> bool:
    head = rule.right[place].head
    assert isinstance(head, FullName)
    return all(made.get(axis) == read.get(axis) for axis in head.axes)
