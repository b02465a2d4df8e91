"""How the elements lie in a relation: asked of `arrange`, siblings' layouts first.

One tensor of a class is looked into; for the others its moves, with the names exchanged, are a guess that is only confirmed. So a
class comes out in one form, and what a member's own values leave open (a symmetric matrix, equal rows) is as in its siblings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from isomorph.infer.by_value.arrange.find import arrange, confirmed
from isomorph.infer.by_value.changes import Change
from isomorph.infer.by_value.copies import is_silent
from isomorph.infer.by_value.forms import renamed, renamed_moves
from isomorph.infer.by_value.ledger import Ledger
from isomorph.infer.by_value.siblings import kept_to, partners, stem
from isomorph.infer.by_value.templates import named
from isomorph.infer.factor.relation import relation as relation_of
from isomorph.infer.nouns import Relation
from isomorph.language.tree import Op
from isomorph.plan.boxes import row_major
from isomorph.plan.moves import Box, Fill, Move

MOST_GUESSES = 4


@dataclass(frozen=True)
class _Known:
    """Moves of one member of a class, and the relation that says them."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    moves: tuple[Move, ...]
    relation: Relation
    is_decided: bool


class Laying:
    """Finds relations between tensors that are known to hold the same elements; remembers what siblings looked like."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.scene = ledger, ledger.scene
        self._known: dict[object, list[_Known]] = {}
        self._open: list[tuple[object, _Known]] = []

    def relation(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        change: Change | None = None,
        zeros: Sequence[str] = (),
        note: str = "",
    ) -> Relation | None:
        """The relation between these tensors, or None where no layout explains the values.

        `zeros`: sources of zeros, one of which may be what fills a gap. `change`: if not given, the cast between their dtypes.
        """
        if change is None:
            cast = self.scene.operators(sources, targets)
            change = Change(cast, "") if cast else None
        key = (
            tuple(sorted({named(name).template for name in sources})),
            tuple(sorted({named(name).template for name in targets})),
        )
        siblings = self._alike(key, sources, targets)
        operators = () if change is None else change.operators
        guesses = [renamed_moves(one.moves, names, operators) for one, names in siblings]
        modules = list(self._of_module(sources, targets, operators))
        guesses += [moves for _, moves in modules]
        found = arrange(
            self.scene.source,
            list(sources),
            self.scene.target,
            list(targets),
            change=change,
            guesses=guesses,
            max_memory=self.scene.max_memory,
        )
        if found is None:
            return None
        for (one, names), guess in zip(siblings, guesses, strict=False):
            if guess == tuple(found):
                return replace(renamed(one.relation, names), operators=operators, note=note)
        for relation, guess in modules:
            if guess == tuple(found):
                return replace(relation, note=note or "laid out as the weight of its module")
        moves = self._with_zeros(tuple(found), zeros)
        made = relation_of(
            moves,
            {name: self.scene.source.manifest[name] for name in dict.fromkeys((*sources, *_read(moves)))},
            {name: self.scene.target.manifest[name] for name in targets},
            operators=operators,
            note=note,
        )
        if made is None:
            return None
        known = self._known.setdefault(key, [])
        one = _Known(tuple(sources), tuple(targets), moves, made, found.is_decided)
        known.insert(0, one)
        del known[MOST_GUESSES:]
        if not one.is_decided:
            self._open.append((key, one))
        return made

    def settle(self) -> None:
        """Lay what its own values left open as its siblings lie, where they allow it; else say that it is open."""
        places = {id(relation): place for place, relation in enumerate(self.ledger.relations)}
        for key, one in self._open:
            if id(one.relation) not in places:
                continue
            for known, names in self._alike(key, one.sources, one.targets):
                guess = renamed_moves(known.moves, names, known.relation.operators)
                change = Change(known.relation.operators, "") if known.relation.operators else None
                if known.is_decided and confirmed(guess, self.scene.source, self.scene.target, change):
                    note = "its values allow other layouts; taken as its siblings are"
                    made = replace(renamed(known.relation, names), note=note)
                    self.ledger.relations[places[id(one.relation)]] = made
                    break
            else:
                self.ledger.notes.append(
                    f"`{one.targets[0]}`: other layouts explain its values as well; the plainest was taken"
                )

    def _alike(
        self, key: object, sources: Sequence[str], targets: Sequence[str]
    ) -> list[tuple[_Known, dict[str, str]]]:
        """Members of the class whose tensors have the shapes of these, with their names -> these names."""
        found = []
        for one in self._known.get(key, ()):
            if len(one.sources) != len(sources) or len(one.targets) != len(targets):
                continue
            extra = [name for name in one.relation.sources if name not in one.sources]
            pairs = [
                *((was, now, self.scene.sources) for was, now in _paired(one.sources, sources)),
                *((was, now, self.scene.targets) for was, now in _paired(one.targets, targets)),
            ]
            if not extra and all(prints[was].shape == prints[now].shape for was, now, prints in pairs):
                found.append((one, {was: now for was, now, _ in pairs}))
        return found

    def _of_module(
        self, sources: Sequence[str], targets: Sequence[str], operators: tuple[Op, ...]
    ) -> Iterator[tuple[Relation, tuple[Move, ...]]]:
        """What a vector's weight suggests, where the vector itself may say too little."""
        source, target = self.scene.source.manifest, self.scene.target.manifest
        if any(sum(size != 1 for size in target[name].shape) != 1 for name in targets):
            return
        for relation in self.ledger.by_stem.get(stem(targets[0]), ()):
            names = partners(relation, sources, targets)
            if names is not None:
                yield from kept_to(relation, names, source, target, operators)

    def _with_zeros(self, moves: tuple[Move, ...], zeros: Sequence[str]) -> tuple[Move, ...]:
        """Zeros read from the one source that holds just so many of them, in the place of a fill."""
        fills = [number for number, move in enumerate(moves) if isinstance(move.source, Fill)]
        if len(fills) != 1:
            return moves
        move = moves[fills[0]]
        held = [name for name in zeros if self.scene.sources[name].numel == move.target.numel]
        if len(held) != 1 or not is_silent(self.scene.sources[held[0]]):
            return moves
        box = Box(held[0], 0, move.target.shape, row_major(move.target.shape))
        return (*moves[: fills[0]], replace(move, source=box), *moves[fills[0] + 1 :])


def _paired(these: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    """Tensors of one member of a class with those of another: by their templates where each has its own, else in order."""
    of = {named(name).template: name for name in others}
    mine = [named(name).template for name in these]
    if len(set(mine)) == len(mine) == len(of) == len(others) and set(mine) == set(of):
        return [(name, of[template]) for name, template in zip(these, mine, strict=True)]
    return list(zip(these, others, strict=True))


def _read(moves: Sequence[Move]) -> list[str]:
    return [move.source.tensor for move in moves if isinstance(move.source, Box)]
