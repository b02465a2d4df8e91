"""Layers that one side has and the other does not: then nothing says which of them were kept.

A layout read at the smaller count would say that layer i is layer i. A distilled model may have every second layer,
or the last ones.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator

_INDEX = re.compile(r"(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])|(?<=_)\d+(?=[./_])|(?<=[a-z])\d+(?=[./])")
_NUMBER = re.compile(r"\d+")
_PIECE = re.compile(r"[./]")


def cut(names: Iterable[str], used: Collection[str]) -> frozenset[str]:
    """The names in containers of which some instances are used and others, that hold the same, are not at all."""
    held: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    alive: dict[str, set[str]] = defaultdict(set)
    every = list(names)
    for name in every:
        for prefix, value, rest in _indices(name):
            held[prefix][value].add(rest)
            if name in used:
                alive[prefix].add(value)
    found = {prefix for prefix, values in held.items() if _is_cut(values, alive[prefix])}
    return frozenset(name for name in every if any(prefix in found for prefix, _, _ in _indices(name)))


def _is_cut(values: dict[str, set[str]], alive: set[str]) -> bool:
    kept = {rest for value in alive for rest in values[value]}
    return any(not kept.isdisjoint(rests) for value, rests in values.items() if value not in alive)


def _indices(name: str) -> Iterator[tuple[str, str, str]]:
    """What stands before each number that has a module behind it; the number; and that module, other numbers left out."""
    for found in _INDEX.finditer(name):
        rest = name[found.end() :]
        if len([piece for piece in _PIECE.split(rest) if piece]) > 1:
            yield name[: found.start()], found.group(), _NUMBER.sub("{}", rest)
