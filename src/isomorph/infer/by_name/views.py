"""Both sides with the sources called as their relatives are: how names are compared, and the way back to the names of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isomorph.infer.by_name.relatives import Relatives, Round
from isomorph.infer.nouns import Alternative, Part, Question, Relation, Side, Silent
from isomorph.tensors import Manifest

_NUMBER = re.compile(r"\d+")
MOST_SAID = 4


@dataclass(frozen=True)
class View:
    """The tensors of a round. `back`: what a source is called here -> its name."""

    source: Manifest
    target: Manifest
    known: tuple[Relation, ...]
    silent: Mapping[str, Silent]
    back: Mapping[str, str]

    def original(self, relation: Relation) -> Relation:
        """The relation about the tensors of the file."""
        return _called(relation, self.back)

    def asked(self, question: Question) -> Question:
        """The question about the tensors of the file."""
        if all(new == name for new, name in self.back.items()):
            return question
        ways = tuple(
            Alternative(tuple(self.original(each) for each in one.relations), one.words)
            for one in question.alternatives
        )
        words = [_words(one) or one.words for one in ways]
        if len(set(words)) == len(words):
            ways = tuple(Alternative(one.relations, said) for one, said in zip(ways, words, strict=True))
        return replace(question, alternatives=ways)


def seen(
    each: Round,
    relatives: Relatives,
    source: Manifest,
    target: Manifest,
    known: Sequence[Relation],
    silent: Mapping[str, Silent],
) -> View:
    """The view of a round: its sources, its targets, and what is known of them."""
    names = each.sources(relatives, source)
    targets = each.targets(relatives, target)
    held = frozenset(targets)
    return View(
        Manifest(
            {new: source[name] for name, new in names.items()},
            shared=tuple(
                tuple(names[name] for name in group) for group in source.shared if all(name in names for name in group)
            ),
        ),
        Manifest({name: target[name] for name in targets}, shared=target.shared),
        tuple(
            _called(one, names)
            for one in known
            if held.issuperset(one.targets) and all(name in names for name in one.sources)
        ),
        {name: _silent(one, names) for name, one in silent.items() if name in held},
        {new: name for name, new in names.items()},
    )


def _silent(one: Silent, names: Mapping[str, str]) -> Silent:
    return replace(
        one,
        candidates=tuple(names[name] for name in one.candidates if name in names),
        relations=tuple(_called(each, names) for each in one.relations if all(name in names for name in each.sources)),
    )


def _called(relation: Relation, names: Mapping[str, str]) -> Relation:
    """The relation with its sources under these names."""
    left: Side = tuple(
        replace(
            part,
            names=tuple(names[name] for name in part.names),
            copies=tuple(tuple(names[name] for name in copy) for copy in part.copies),
        )
        if isinstance(part, Part)
        else part
        for part in relation.left
    )
    return replace(relation, left=left)


def _words(way: Alternative) -> str:
    """What makes what, numbers left out, for the first few."""
    said = dict.fromkeys(
        f"{', '.join(one.targets)} from {' + '.join(one.sources) or 'no source'}" for one in way.relations
    )
    plain = dict.fromkeys(_NUMBER.sub("{}", each) for each in said)
    shown = list(plain if len(plain) == len(said) else said)
    return "; ".join(shown[:MOST_SAID]) + (" …" if len(shown) > MOST_SAID else "")
