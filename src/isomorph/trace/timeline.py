"""A run -> the moment at which each tensor at a border existed: calls nest, so two lists of calls tell one order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isomorph.trace.nouns import Border, Call, Capture


def places(seen: Capture) -> Mapping[tuple[Call, Border], int]:
    """When each call began ("in") and returned ("out"), counted from 0.

    >>> seen = Capture({}, (Call("", 0), Call("a", 0), Call("b", 0)), (Call("a", 0), Call("b", 0), Call("", 0)), {})
    >>> [f"{call.module or 'model'} {border}" for call, border in sorted(places(seen), key=places(seen).get)]
    ['model in', 'a in', 'a out', 'b in', 'b out', 'model out']
    """
    found: dict[tuple[Call, Border], int] = {}
    open_calls: list[Call] = []
    ended = list(reversed(seen.ended))

    def close() -> None:
        while open_calls and ended and open_calls[-1] == ended[-1]:
            found[open_calls.pop(), "out"] = len(found)
            ended.pop()

    for call in seen.began:
        open_calls.append(call)
        found[call, "in"] = len(found)
        close()
    for call in ended[::-1]:  # calls whose nesting is not told (a module that another thread ran)
        found.setdefault((call, "out"), len(found))
    return found


def calls_of(seen: Capture, modules: Sequence[str]) -> list[Call]:
    """The calls of these modules, in the order in which they began."""
    wanted = set(modules)
    return [call for call in seen.began if call.module in wanted]


def first_calls(seen: Capture) -> dict[str, int]:
    """Module -> the place of its first call among all that began."""
    return {call.module: number for number, call in reversed(list(enumerate(seen.began)))}
