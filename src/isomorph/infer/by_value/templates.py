"""Names with their numbers taken out: siblings have one template, and what made one of them tells where to look for the others'.

    encoder.layers.3.norm1.weight  ->  ("encoder.layers.{}.norm{}.weight", (3, 1))

Names are only a hint here: whatever they suggest is held against the values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import NamedTuple

_NUMBER = re.compile(r"\d+")

Index = tuple[int | None, ...]
"""The numbers of a name, in order. None: this number runs over a stack."""

MOST_GUESSES = 64
"""How many names a recipe may suggest for one tensor: slots that could follow several numbers multiply."""


class Named(NamedTuple):
    """A name as template and numbers."""

    template: str
    numbers: tuple[int, ...]


def named(name: str) -> Named:
    """Take the numbers out of a name.

    >>> named("h.10.ln_1")
    Named(template='h.{}.ln_{}', numbers=(10, 1))
    """
    return Named(_NUMBER.sub("{}", name), tuple(int(digits) for digits in _NUMBER.findall(name)))


def by_template(names: Iterable[str]) -> dict[str, dict[tuple[int, ...], str]]:
    """template -> numbers -> name, in the order of `names` (of `1` and `01`, the first)."""
    found: dict[str, dict[tuple[int, ...], str]] = {}
    for name in names:
        template, index = named(name)
        found.setdefault(template, {}).setdefault(index, name)
    return found


def suggestions(example_of: Index, example: Index, wanted: Index) -> Iterator[Index]:
    """If a tensor of numbers `example_of` came with one of `example`, the numbers that may come with `wanted`, likeliest first.

    Each number of the example either follows a number of the target (the same, then at the same distance), or stays as it is; equal
    numbers follow alike.

    >>> list(suggestions((3,), (3, 1), (5,)))[:2]
    [(5, 1), (5, 3)]
    """
    numbers = [number for number in dict.fromkeys(example) if number is not None]
    options = [tuple(dict.fromkeys(_followed(number, example_of, wanted))) for number in numbers]
    seen: set[Index] = set()
    for chosen in islice(product(*options), MOST_GUESSES):
        follows = dict(zip(numbers, chosen, strict=True))
        found = tuple(None if number is None else follows[number] for number in example)
        if found not in seen:
            seen.add(found)
            yield found


def _followed(number: int, example_of: Index, wanted: Index) -> Iterator[int]:
    known = [(was, now) for was, now in zip(example_of, wanted, strict=True) if was is not None and now is not None]
    yield from (now for was, now in known if was == number)
    yield number
    yield from (now + number - was for was, now in known if was != number and now + number - was >= 0)


def likeness(one: Sequence[int | None], other: Sequence[int | None]) -> int:
    """How many numbers two indices share, counted with multiplicity."""
    left = [number for number in other if number is not None]
    shared = 0
    for number in one:
        if number in left:
            left.remove(number)
            shared += 1
    return shared


def grid(members: Mapping[tuple[int, ...], str], free: Sequence[int]) -> tuple[str, ...] | None:
    """The names of a full grid over the numbers at the places `free`, row-major; None when a member is missing."""
    values = [sorted({index[slot] for index in members}) for slot in free]
    others = next(iter(members))
    names = []
    for chosen in product(*values):
        index = list(others)
        for slot, value in zip(free, chosen, strict=True):
            index[slot] = value
        name = members.get(tuple(index))
        if name is None:
            return None
        names.append(name)
    return tuple(names)
