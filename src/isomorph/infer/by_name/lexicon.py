"""The words of the field, from lexicon.toml, looked up by context."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from isomorph.infer.by_name.tokens import words

Phrase = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a phrase says: a tag (`query`, `norm.10`, `tower.vision`, ""), and the context from there on ("" leaves it)."""

    tag: str
    context: str = ""
    kind: str = ""
    """Of attention: `self`, `cross`, or "" when the phrase does not say."""

    @property
    def is_place(self) -> bool:
        """True for a norm's place among those of its block (`norm.10`)."""
        return self.tag.startswith("norm.") and self.tag[5:].isdigit()


@dataclass(frozen=True)
class Lexicon:
    """Phrases by context; leaf words by what they are."""

    contexts: Mapping[str, Mapping[Phrase, Meaning]]
    leaves: Mapping[Phrase, str]
    endings: Mapping[Phrase, str]
    """Leaf words that may also be the end of a piece (`in_proj_weight`)."""
    longest: int

    def look_up(
        self, tables: Sequence[str], found: Sequence[str], pieces: Sequence[int], at: int
    ) -> tuple[int, Meaning] | None:
        """The longest phrase of these contexts that begins at this token: how many tokens it takes, and its meaning.

        A norm's place in its block is said within one piece: `attn_norm` is a norm of the block, `attn.norm` one of the attention.
        """
        for length in range(min(self.longest, len(found) - at), 0, -1):
            phrase = tuple(found[at : at + length])
            for table in tables:
                meaning = self.contexts.get(table, {}).get(phrase)
                if meaning is not None and (not meaning.is_place or pieces[at] == pieces[at + length - 1]):
                    return length, meaning
        return None


@cache
def lexicon() -> Lexicon:
    """The lexicon of this package, read once. Raises ValueError where a phrase has two meanings in one context."""
    text = files("isomorph.infer.by_name").joinpath("lexicon.toml").read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> Lexicon:
    """A lexicon from its text. Raises ValueError where a phrase has two meanings in one context."""
    tables = tomllib.loads(text)
    leaves: dict[Phrase, str] = {}
    endings: dict[Phrase, str] = {}
    for leaf, phrases in tables.pop("leaf").items():
        for phrase in phrases:
            leaves[words(phrase)] = leaf
            if phrase.startswith("*"):
                endings[words(phrase)] = leaf
    contexts: dict[str, dict[Phrase, Meaning]] = {}
    for name, table in tables.items():
        into = contexts.setdefault(name, {})
        for key, phrases in table.items():
            meaning = _meaning(key)
            for phrase in map(words, phrases):
                if into.get(phrase, meaning) != meaning:
                    raise ValueError(
                        f"lexicon: [{name}] {' '.join(phrase)!r} is {into[phrase].tag!r} and {meaning.tag!r}"
                    )
                into[phrase] = meaning
    longest = max(len(phrase) for table in contexts.values() for phrase in table)
    return Lexicon(contexts, leaves, endings, longest)


def _meaning(key: str) -> Meaning:
    tag, arrow, after = key.partition("->")
    context, _, kind = after.strip().partition(" ")
    return Meaning(tag.strip(), context if arrow else "", kind)
