"""Keras's numbers: `block`, `block_1`, `block_2` are block 0, 1, 2, written `block{l:_}`.

Where a side has a piece `w` and beside it, under the same path, a piece `w_1`, both end in a number, and 0
is not written.
"""

from __future__ import annotations

from collections.abc import Iterable

from isomorph.infer.generalise.patterns import SEPARATORS, Rule, Template, Token, tokens

Bases = frozenset[tuple[str, str]]
"""(what stands before a piece, the piece without its number)."""


class Tail(str):
    """The end of a piece that is numbered so: `_3`, or nothing for 0."""

    __slots__ = ()

    @property
    def number(self) -> int:
        """What it counts."""
        return int(self[1:] or "0")


def bases(names: Iterable[str]) -> Bases:
    """The pieces of names that are numbered so."""
    plain: set[tuple[str, str]] = set()
    first: set[tuple[str, str]] = set()
    for name in names:
        at = 0
        for end in [k for k, char in enumerate(name) if char in SEPARATORS] + [len(name)]:
            piece = name[at:end]
            if piece.endswith("_1") and len(piece) > len("_1"):
                first.add((name[:at], piece.removesuffix("_1")))
            else:
                plain.add((name[:at], piece))
            at = end + 1
    return frozenset(plain & first)


def tailed(rule: Rule, sides: tuple[Bases, Bases]) -> Rule:
    """The rule (of one relation) with the tails of its names as tokens of their own."""
    if not any(sides):
        return rule
    names = [_tailed(name, sides[k >= rule.n_left]) for k, name in enumerate(rule.names)]
    return rule if tuple(names) == rule.names else rule.with_names(names)


def _tailed(name: Template, known: Bases) -> Template:
    """The pieces before the first hole, with their tails; and the rest as it is."""
    found: list[Token] = []
    piece: list[str] = []
    path = ""
    for k, token in enumerate((*name, ".")):
        if not isinstance(token, str):
            return (*found, *piece, *name[k:])
        if token not in SEPARATORS:
            piece.append(token)
            continue
        found.extend(_piece(path, piece, known))
        found.append(token)
        path += "".join(piece) + token
        piece = []
    return tuple(found[:-1])


def _piece(path: str, piece: list[str], known: Bases) -> list[str]:
    number = piece[-1] if len(piece) > 2 and piece[-2] == "_" else ""
    if number.isdigit() and number.isascii() and number[0] != "0" and (path, "".join(piece[:-2])) in known:
        return [*piece[:-2], Tail("".join(piece[-2:]))]
    return [*piece, Tail("")] if (path, "".join(piece)) in known else piece


def untailed(rule: Rule) -> Rule:
    """The rule with the tails that no index took as the texts they are."""
    if not any(isinstance(token, Tail) for name in rule.names for token in name):
        return rule
    return rule.with_names([_untailed(name) for name in rule.names])


def _untailed(name: Template) -> Template:
    found: list[Token] = []
    for token in name:
        found.extend(tokens(str(token)) if isinstance(token, Tail) else (token,))
    return tuple(found)
