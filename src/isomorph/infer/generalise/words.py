"""What text costs a reader, and which words belong together: q k v, weight and bias, encoder and decoder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from isomorph.infer.generalise.blocks import LINE, width
from isomorph.infer.generalise.letters import KINDS, MODELS, PARTS, STACKS
from isomorph.infer.generalise.patterns import SEPARATORS, Index, Labels, Rule, Template

Skeleton = tuple[object, ...]

STRANGE = 45
"""Characters that it must save to put names together that share no word."""
KIN = KINDS | STACKS | MODELS | PARTS | frozenset(map(str, range(10)))
ORDER = [
    "q",
    "query",
    "wq",
    "k",
    "key",
    "wk",
    "v",
    "value",
    "wv",
    "qkv",
    "o",
    "out",
    "output",
    "wo",
    "gate",
    "w1",
    "up",
    "w3",
    "down",
    "w2",
    "weight",
    "kernel",
    "gamma",
    "scale",
    "bias",
    "beta",
    "self",
    "cross",
    "encoder",
    "decoder",
    "vision",
    "visual",
    "image",
    "text",
    "pre",
    "before",
    "post",
    "after",
    "input",
    "attention",
    "intermediate",
    "fc",
    "proj",
]
UNWRITABLE = frozenset('{}[]|"\\*=,#')
_WORDS = re.compile(r"[^a-z0-9]+")
"""Characters of a line, about."""


def cost(rule: Rule) -> float:
    """What a rule costs to read, in characters: its line, its names, its labels. Up to its last index it is a block's prefix."""
    given: dict[str, tuple[str, ...]] = {}
    return LINE + sum(_name_cost(name, given) for name in rule.names)


def _name_cost(name: Template, given: dict[str, tuple[str, ...]]) -> float:
    last = max((k for k, token in enumerate(name) if isinstance(token, Index)), default=-1)
    total = 0.0
    for k, token in enumerate(name):
        one: float = width((token,))
        if isinstance(token, Labels):
            if token.axis and given.get(token.axis) == token.labels:
                one = 3
            else:
                given[token.axis] = token.labels
                shape = {label.count(".") + label.count("/") for label in token.labels}
                one += (6 * (len(shape) > 1) + 6 * (max(shape) > 0)) * len(token.labels)
                one += 3 * max(0, len(token.labels) - 5)
        total += one * (0.2 if k <= last else 1)
    return total


def is_writable(label: str) -> bool:
    """False for a text that no label may be: the marks of holes and quotes, blanks, `::`."""
    return "::" not in label and not any(
        char in UNWRITABLE or not char.isprintable() or char.isspace() for char in label
    )


def strangeness(ends: Sequence[tuple[Skeleton, Skeleton]], regions: Sequence[Sequence[str]]) -> int:
    """What it costs to put things together that have little to do with each other: whole pieces, and no words of one kind."""
    for (prefix, suffix), texts in zip(ends, regions, strict=True):
        words = {word for text in texts for word in _WORDS.sub(" ", text.lower()).split()}
        if words <= KIN and all(texts):
            return 0
        inside = bool(prefix) and prefix[-1] not in (*SEPARATORS,), bool(suffix) and suffix[0] not in (*SEPARATORS,)
        if any(inside) and not any("." in text or "/" in text for text in texts):
            return 0
    return STRANGE


def ordered(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Labels in the order of the field (q k v, weight bias, encoder decoder), of their numbers, or as they came."""
    columns = list(zip(*rows, strict=True))
    keys = [
        *([_leading(text) for text in column] for column in columns),
        *([_rank(text) for text in column] for column in columns),
    ]
    for ranks in keys:
        if None not in ranks and len(set(ranks)) > 1:
            return [rows[k] for _, k in sorted((rank or 0, k) for k, rank in enumerate(ranks))]
    return rows


def _leading(text: str) -> int | None:
    """The number that a label begins with."""
    digits = "".join(itertools.takewhile(lambda char: char.isascii() and char.isdigit(), text))
    return int(digits) if digits and len(digits) <= 18 else None


def _rank(text: str) -> int | None:
    """The place of a label in the usual order, by its first word that has one."""
    for word in _WORDS.sub(" ", text.lower()).split():
        if word in ORDER:
            return ORDER.index(word)
    return None
