"""Name -> tokens: words and numbers, as people separate them; and which numbers count instances."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\x00-\x7f]+")
_PIECES = "./:|>\\"
"""What separates modules; `_`, `-` and a change of case only separate words."""


class Token(NamedTuple):
    """A word (lower case) or a number of a name, where it stands, and the piece of the path that it is in."""

    text: str
    start: int
    end: int
    piece: int

    @property
    def is_number(self) -> bool:
        """True for digits."""
        return self.text[:1].isdigit() and self.text.isascii()


@lru_cache(maxsize=1 << 16)
def tokens(name: str) -> tuple[Token, ...]:
    """The tokens of a name.

    >>> [token.text for token in tokens("h.10.selfAttn/ln_1.weight:0")]
    ['h', '10', 'self', 'attn', 'ln', '1', 'weight']

    TensorFlow's `:0` and `/.ATTRIBUTES/VARIABLE_VALUE` at the end are no tokens.
    Words end at separators, where the case changes, and between letters and digits. A name without any (`?`, ``) is one word.
    """
    body = name.removesuffix(":0").removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
    found: list[Token] = []
    piece = 0
    at = 0
    for each in _TOKEN.finditer(body):
        piece += sum(body.count(mark, at, each.start()) for mark in _PIECES)
        at = each.end()
        found.append(Token(each.group().lower(), each.start(), each.end(), piece))
    return tuple(found) or (Token(body, 0, len(body), 0),)


def words(text: str) -> tuple[str, ...]:
    """The texts of the tokens: how phrases of the lexicon are compared with names."""
    return tuple(token.text for token in tokens(text))
