"""The names that a template stands for, with their numbers left open: whether a hole would take another tensor's name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from isomorph.infer.generalise.patterns import Index, Labels, Rule, Template, Token, is_number, tokens

MOST_SPELLED = 4000
"""So many names of a join are written out to see whether they are another's."""


def is_free(made: Rule, members: Iterable[Rule], taken: AbstractSet[str]) -> bool:
    """No name that the join makes beyond its members is one that is there, as far as its numbers are left open."""
    if (
        sum(math.prod(len(token.labels) for token in name if isinstance(token, Labels)) for name in made.names)
        > MOST_SPELLED
    ):
        return True  # the plan will tell
    own = {text for rule in members for name in rule.names for text in spelled(name)}
    full = {text for name in made.names for text in spelled(name)}
    return not ((full - own) & taken)


def spelled(name: Template) -> Iterator[str]:
    """All texts of a name, by its labels; numbers are written `#`, stars `*`."""
    ranges = {token.axis or f"={k}": len(token.labels) for k, token in enumerate(name) if isinstance(token, Labels)}
    for numbers in itertools.product(*(range(size) for size in ranges.values())):
        at = dict(zip(ranges, numbers, strict=True))
        yield blank("".join(_text(token, at.get(_axis(token, k), 0)) for k, token in enumerate(name)))


def _axis(token: Token, place: int) -> str:
    return token.axis or f"={place}" if isinstance(token, Labels) else ""


def _text(token: Token, at: int) -> str:
    if isinstance(token, Labels):
        return token.labels[at]
    return token if isinstance(token, str) else "0" if isinstance(token, Index) else "*"


def blank(name: str) -> str:
    """The name with `#` for every number."""
    return "".join("#" if is_number(token) else token for token in tokens(name))
