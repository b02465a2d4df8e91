"""Relations -> the shortest readable morph whose expansion is exactly these relations, in both directions.

Draft ──parts──▶ one rule a relation ──indices──▶ one a class ──labels, wildcards──▶ few ──blocks──▶ Module ──check──▶
                                ▲                                                                            │
                                └──── a relation that the plan does not find again becomes a rule of its own ◀┘
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from isomorph.errors import MorphError
from isomorph.infer.generalise import check, ranges
from isomorph.infer.generalise.borders import bordered
from isomorph.infer.generalise.drops import dropped
from isomorph.infer.generalise.indices import linked
from isomorph.infer.generalise.joining import labelled
from isomorph.infer.generalise.modules import Config, Group, Page
from isomorph.infer.generalise.numbering import Bases, bases, tailed, untailed
from isomorph.infer.generalise.order import Names
from isomorph.infer.generalise.parts import rule_of
from isomorph.infer.generalise.patterns import Rule
from isomorph.infer.generalise.questions import order, settled, sometimes
from isomorph.infer.generalise.spelling import blank
from isomorph.infer.generalise.stars import starred
from isomorph.infer.generalise.wheres import common_operators
from isomorph.infer.generalise.wildcards import generals, separators
from isomorph.infer.nouns import Draft, Relation
from isomorph.infer.subset import only
from isomorph.language.tree import Module
from isomorph.tensors import Manifest

MOST_ROUNDS = 8
"""So often is a morph mended by giving rules of their own to what it got wrong; then fewer generalisations are tried."""
MOST_CHOICES = 4
"""So many alternatives of each question are proved."""
MANY_RELATIONS, SOME = 1500, 40
"""Of more relations than this, so many of each form are held against their own moves; the others against their names alone."""
MANY_CLASSES = 300
"""Above so many classes wildcards are weighed against classes as they are, not against what labels would make of them."""
MOST_CLASSES = 1500
"""More classes than these are a table: they are not joined by labels."""
WILDCARDS, LABELS, NUMBERS, SINGLE = 3, 2, 1, 0


def generalise(
    draft: Draft, source: Manifest, target: Manifest, *, config: Config = None, title: Sequence[str] = ()
) -> Module:
    """The morph of a draft: few rules, exact, proved by the plan wherever the draft itself can be.

    `config` is the source's; sizes that no shape tells are written by its keys where one says them. `title` are the comment lines
    at the top. Open questions are alternatives, `? rule`, each of which is proved. Deterministic.
    """
    return open_and_likely(draft, source, target, config=config, title=title)[0]


def open_and_likely(
    draft: Draft,
    source: Manifest,
    target: Manifest,
    *,
    config: Config = None,
    title: Sequence[str] = (),
    places: Mapping[str, int] | None = None,
) -> tuple[Module, Module]:
    """What `generalise` gives; and the same with one alternative of each question as a rule: by `places` (key -> its place, from
    0), else the likely one or the first."""
    job = _Job.of(draft, source, target, config, tuple(title))
    plain = job.rules(frozenset(), SINGLE)
    tests = job.tests(plain)
    for level in (WILDCARDS, LABELS, NUMBERS):
        apart: set[int] = set()
        for _ in range(MOST_ROUNDS):
            rules = job.rules(frozenset(apart), level)
            try:
                module, order = job.page.written(rules)
                bad = job.wrong(module, order, tests)
            except (MorphError, ValueError):  # no text says it: fewer generalisations may
                break
            if bad is None:
                return module, job.likely(module, order, places or {})
            if not bad - apart:
                break
            apart |= bad
    module, order = job.page.written(plain)
    return module, job.likely(module, order, places or {})


@dataclass(frozen=True)
class _Test:
    """One way to answer all questions: the relations that then hold, and their moves, where the plain list can be planned."""

    choice: int
    given: check.Given
    moves: check.Moves | None


@dataclass(frozen=True)
class _Job:
    """What a morph is written from. The relations by number: those of the draft, then those of alternatives, with their group."""

    relations: tuple[Relation, ...]
    groups: tuple[tuple[int, int] | None, ...]
    draft: Draft
    source: Manifest
    target: Manifest
    page: Page
    spare: tuple[list[str], list[str]]
    """Sources and targets that some alternatives leave over."""

    @classmethod
    def of(cls, draft: Draft, source: Manifest, target: Manifest, config: Config, title: tuple[str, ...]) -> _Job:
        place = {name: number for number, name in enumerate(source)}
        draft, unsaid = _sayable(draft, (source, target))
        title = (*title, *unsaid)
        certain = sorted(draft.relations, key=lambda one: min((place.get(name, 0) for name in one.sources), default=0))
        open_ones = [
            ((number, rank), relation)
            for number, question in enumerate(draft.questions)
            for rank, at in enumerate(order(question))
            for relation in question.alternatives[at].relations
        ]
        relations = (*certain, *(relation for _, relation in open_ones))
        groups = (*(None for _ in certain), *(group for group, _ in open_ones))
        line = common_operators(relations, source)
        names: dict[int, Names] = {number: (one.sources, one.targets) for number, one in enumerate(relations)}
        for name in draft.dropped:
            names[len(names)] = ((name,), ())
        for name in draft.unplaced:
            names[len(names)] = ((), (name,))
        spare = sometimes(draft)
        for name in spare[0]:
            names[len(names)] = ((name,), ())
        for name in spare[1]:
            names[len(names)] = ((), (name,))
        both = [[name for pair in names.values() for name in pair[side]] for side in (0, 1)]
        page = Page(names, separators(both), config, title, line, draft.questions)
        return cls(relations, groups, draft, source, target, page, spare)

    # ── rules ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def rules(self, apart: Collection[int], level: int) -> list[Rule]:
        """The rules, with those of what goes nowhere; `apart` are relations that stay by themselves."""
        if level == SINGLE:
            return [*self.single, *self.drops]
        alone = [rule for rule in self.single if rule.covers[0] in apart]
        open_ones = self._linked(
            [rule for rule in self.single if rule.group is not None and rule.covers[0] not in apart]
        )
        found = self._linked([rule for rule in self.single if rule.group is None and rule.covers[0] not in apart])
        found = ranges.apart(found, self.single.__getitem__)
        if level > NUMBERS:
            open_ones = self._labelled(open_ones)
            if level == WILDCARDS:
                joined = self._labelled if len(found) <= MANY_CLASSES else list
                found = generals(found, self.page.names, self.page.separators, joined)
            if level == LABELS or len(found) > MANY_CLASSES:
                found = [
                    *self._labelled([rule for rule in found if not rule.also]),
                    *(rule for rule in found if rule.also),
                ]
            found = starred([bordered(rule) for rule in found], self.page.names, self.page.separators)
            open_ones = [bordered(rule) for rule in open_ones]
        return [*found, *open_ones, *alone, *self.drops]

    def _linked(self, rules: Sequence[Rule]) -> list[Rule]:
        return [untailed(rule) for rule in linked([tailed(rule, self.numbered) for rule in rules])]

    @cached_property
    def numbered(self) -> tuple[Bases, Bases]:
        """The pieces of either side that are numbered as Keras does it."""
        return bases(self.source), bases(self.target)

    def _labelled(self, rules: Sequence[Rule]) -> list[Rule]:
        return labelled(rules, self.taken) if len(rules) <= MOST_CLASSES else list(rules)

    @cached_property
    def single(self) -> list[Rule]:
        """A rule for each relation."""
        return [
            replace(self._rule(one, number), group=group)
            for number, (one, group) in enumerate(zip(self.relations, self.groups, strict=True))
        ]

    def _rule(self, relation: Relation, number: int) -> Rule:
        if self.page.line:
            relation = replace(relation, operators=())
        return rule_of(relation, number, (self.source, self.target), self.page.config, self.shapes)

    @cached_property
    def shapes(self) -> dict[object, Rule]:
        """Rules of relations by all but their names, as they are met: thousands of relations have few shapes."""
        return {}

    @cached_property
    def taken(self) -> frozenset[str]:
        """All names, with their numbers left open."""
        return frozenset(map(blank, (*self.source, *self.target)))

    @cached_property
    def drops(self) -> list[Rule]:
        """What goes nowhere, on either side."""
        first = len(self.relations)
        used, made = (
            {name for pair in list(self.page.names.values())[:first] for name in pair[side]} for side in (0, 1)
        )
        last = first + len(self.draft.dropped) + len(self.draft.unplaced)
        return [
            *dropped(self.draft.dropped, used, first),
            *dropped(self.draft.unplaced, made, first + len(self.draft.dropped), made=True),
            *dropped(self.spare[0], used - set(self.spare[0]), last, maybe=True),
            *dropped(self.spare[1], made - set(self.spare[1]), last + len(self.spare[0]), made=True, maybe=True),
        ]

    # ── proof ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def tests(self, plain: Sequence[Rule]) -> list[_Test]:
        """What rules are proved against: one test for each round of answers."""
        found = []
        most = max((len(question.alternatives) for question in self.draft.questions), default=1)
        for choice in range(min(most, MOST_CHOICES)):
            held = {k: one for k, one in enumerate(self.relations) if self._holds(self.groups[k], choice)}
            sources = [name for one in held.values() for name in one.sources] + [*self.draft.dropped, *self.spare[0]]
            targets = [name for one in held.values() for name in one.targets]
            given = check.Given(
                held,
                only(self.source, sources),
                only(self.target, targets),
                self.page.config,
                only(self.target, [*targets, *self.draft.unplaced, *self.spare[1]]),
            )
            try:
                moves = self._moves(plain, held, choice)
            except MorphError:
                moves = None  # the draft cannot be planned as it is: what is written is held against its names alone
            found.append(_Test(choice, given, moves))
        return found

    def _moves(self, plain: Sequence[Rule], held: Mapping[int, Relation], choice: int) -> check.Moves:
        """The moves of the relations as they are; of thousands that have one form, of some."""
        forms: dict[object, int] = {}
        some: dict[int, Relation] = {}
        for rule in plain:
            number = rule.covers[0]
            if number in held:
                forms[rule.form] = forms.get(rule.form, 0) + 1
                if len(held) <= MANY_RELATIONS or forms[rule.form] <= SOME:
                    some[number] = held[number]
        sources = [name for one in some.values() for name in one.sources]
        targets = [name for one in some.values() for name in one.targets]
        given = check.Given(some, only(self.source, sources), only(self.target, targets), self.page.config)
        rules = [rule for rule in plain if rule.covers[0] in some]
        return check.moves_of(check.plan_of(self._flat(rules, choice), given))

    def wrong(self, whole: Module, groups: Sequence[Group], tests: Sequence[_Test]) -> frozenset[int] | None:
        """The relations that the module does not say as they are, whatever is answered; None when it says them all."""
        for test in tests:
            module = settled(whole, groups, self._ranks(test.choice)) if self.draft.questions else whole
            bad = check.wrong(module, test.given, test.moves)
            if bad is not None:
                return bad
        return None

    def likely(self, whole: Module, groups: Sequence[Group], places: Mapping[str, int]) -> Module:
        """The module with all questions answered, by `places` or as in the first round."""
        ranks = {
            number: order(one).index(places[one.key]) if one.key in places else 0
            for number, one in enumerate(self.draft.questions)
        }
        return settled(whole, groups, ranks) if self.draft.questions else whole

    def _holds(self, group: tuple[int, int] | None, choice: int) -> bool:
        return group is None or group[1] == self._ranks(choice)[group[0]]

    def _ranks(self, choice: int) -> dict[int, int]:
        """Question -> the rank of its alternative in a round."""
        return {k: min(choice, len(one.alternatives) - 1) for k, one in enumerate(self.draft.questions)}

    def _flat(self, rules: Sequence[Rule], choice: int) -> Module:
        held = [rule for rule in rules if self._holds(rule.group, choice)]
        return self.page.module(held, is_open=False, is_flat=True)


def _sayable(draft: Draft, sides: tuple[Manifest, Manifest]) -> tuple[Draft, list[str]]:
    """The draft without what no text can say (names with line breaks, copies that differ in several places); and that, in words."""
    kept: list[Relation] = []
    unsaid: list[Relation] = []
    shapes: dict[object, Rule] = {}
    for one in draft.relations:
        try:
            rule_of(one, 0, sides, None, shapes)
            good = all(map(_is_one_line, (*one.sources, *one.targets)))
        except ValueError:
            good = False
        (kept if good else unsaid).append(one)
    gone = [name for name in (*draft.dropped, *(name for one in unsaid for name in one.sources)) if _is_one_line(name)]
    left = [name for name in (*draft.unplaced, *(name for one in unsaid for name in one.targets)) if _is_one_line(name)]
    said = [f"not written: what makes {one.targets[0]!r} has no text" for one in unsaid if one.targets]
    return replace(draft, relations=tuple(kept), dropped=tuple(gone), unplaced=tuple(left)), said


def _is_one_line(name: str) -> bool:
    return "\n" not in name and "\r" not in name
