"""Names that no text of the notation can hold (none at all, line breaks, thousands of characters) -> set aside, and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from isomorph.errors import printable
from isomorph.formats.base import Checkpoint
from isomorph.infer.generalise.patterns import tokens
from isomorph.infer.nouns import Inference
from isomorph.infer.subset import Subset, only
from isomorph.language.name_syntax import ESCAPES, LONGEST
from isomorph.tensors import Manifest

MOST_LISTED = 4
MOST_WORDS = 100
"""Words and separators of a name that rules are looked for in; a model's names have a fifth of it."""


def is_sayable(name: str) -> bool:
    """Whether a rule can name this tensor: in one line of text, not too long, nor of hundreds of pieces."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    written = len(name) + sum(map(name.count, ESCAPES)) + len('""')
    return (
        bool(name) and "\n" not in name and "\r" not in name and written <= LONGEST and len(tokens(name)) <= MOST_WORDS
    )


def sayable(side: Checkpoint | Manifest) -> tuple[Checkpoint | Manifest, tuple[str, ...]]:
    """The side without the tensors that no rule can name; and their names."""
    manifest = side.manifest if isinstance(side, Checkpoint) else side
    unsaid = tuple(name for name in manifest if not is_sayable(name))
    if not unsaid:
        return side, ()
    kept = [name for name in manifest if is_sayable(name)]
    return (Subset(side, kept) if isinstance(side, Checkpoint) else only(side, kept)), unsaid


def with_unsaid(found: Inference, unsaid: tuple[Sequence[str], Sequence[str]], target: Manifest) -> Inference:
    """The inference, which knows nothing of these sources and targets, with them. Sources make it no proof: no plan takes them."""
    lost, unmade = unsaid
    if not lost and not unmade:
        return found
    seen = found.coverage
    covered = replace(
        seen,
        targets=seen.targets + len(unmade),
        elements=seen.elements + sum(target[name].numel for name in unmade),
        sources=seen.sources + len(lost),
        unplaced=(*seen.unplaced, *unmade),
        dropped=(*seen.dropped, *lost),
    )
    problems = [f"{_said(lost, 'SRC')}; no plan takes it: rename first"] if lost else []
    notes = [_said(unmade, "DST")] if unmade else []
    return replace(found, coverage=covered, problems=(*found.problems, *problems), notes=(*found.notes, *notes))


def _said(names: Sequence[str], side: str) -> str:
    shown = ", ".join(printable(repr(name), 60) for name in names[:MOST_LISTED])
    more = f" … and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"no morph can name {_count(len(names))} of {side} (a name that is empty, broken or too long): {shown}{more}"


def _count(number: int) -> str:
    return f"{number:,} tensor{'' if number == 1 else 's'}"
