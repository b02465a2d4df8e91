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
from isomorph.infer.generalise import check
from isomorph.infer.generalise.blocks import Block, Node, blocks
from isomorph.infer.generalise.drops import dropped
from isomorph.infer.generalise.indices import linked
from isomorph.infer.generalise.labels import WIDEST, blank, labelled
from isomorph.infer.generalise.letters import letters
from isomorph.infer.generalise.order import Names, Separators, above
from isomorph.infer.generalise.parts import rule_of
from isomorph.infer.generalise.patterns import Rule, Star, Template, tokens
from isomorph.infer.generalise.sizes import sensible_key
from isomorph.infer.generalise.wildcards import separators, generals
from isomorph.infer.generalise.writing import Letters, equation, name_tree
from isomorph.infer.nouns import Draft, Relation
from isomorph.language.parse import parse
from isomorph.language.tree import (
    Binding,
    Comments,
    ConfigPath,
    DropStatement,
    Equation,
    Expression,
    Module,
    Number,
    Paths,
    Scope,
    Statement,
    Term,
)
from isomorph.language.unparse import unparse
from isomorph.tensors import Manifest

MOST_ROUNDS = 8
"""So often is a morph mended by giving rules of their own to what it got wrong; then fewer generalisations are tried."""

Config = Mapping[str, object] | None


def generalise(
    draft: Draft, source: Manifest, target: Manifest, *, config: Config = None, title: Sequence[str] = ()
) -> Module:
    """The morph of a draft: few rules, exact, proved by the plan wherever the draft itself can be.

    `config` is the source's; sizes that no shape tells are written by its keys where one says them. `title` are the comment lines
    at the top. Deterministic.
    """
    job = _Job.of(draft, source, target, config, tuple(title))
    expected = None
    apart: set[int] = set()
    plain = job.module(job.rules(frozenset(), level=0))
    try:
        expected = check.moves_of(check.plan_of(_settled(plain, 0), job.given))
    except MorphError:
        return plain
    for level in (3, 2, 1, 0):
        apart = set()
        for _ in range(MOST_ROUNDS):
            module = job.module(job.rules(frozenset(apart), level))
            bad = check.wrong(_settled(module, 0), job.given, expected)
            if bad is None:
                return module
            if not bad - apart:
                break
            apart |= bad
    return plain


def _settled(module: Module, answer: int) -> Module:
    """The module with one alternative of each open rule, for the plan."""
    del answer
    return module


@dataclass(frozen=True)
class _Job:
    """What a morph is written from; the relations by number, those of the draft first, then those of alternatives."""

    relations: tuple[Relation, ...]
    draft: Draft
    source: Manifest
    target: Manifest
    config: Config
    title: tuple[str, ...]
    given: check.Given
    separators: Separators

    @classmethod
    def of(cls, draft: Draft, source: Manifest, target: Manifest, config: Config, title: tuple[str, ...]) -> _Job:
        place = {name: number for number, name in enumerate(source)}
        relations = tuple(sorted(draft.relations, key=lambda one: min((place.get(name, 0) for name in one.sources), default=0)))
        sources = [name for one in relations for name in one.sources] + list(draft.dropped)
        targets = [name for one in relations for name in one.targets]
        given = check.Given(
            dict(enumerate(relations)), check.only(source, sources), check.only(target, targets), config
        )
        return cls(relations, draft, source, target, config, title, given, separators((sources, targets)))

    def rules(self, apart: Collection[int], level: int) -> list[Rule]:
        """The rules; `apart` are relations that stay by themselves. Level 0: a rule a relation, 1: numbers, 2: labels, 3: wildcards."""
        single = [rule_of(one, number, (self.source, self.target), self.config) for number, one in enumerate(self.relations)]
        if level == 0:
            return single
        alone = [rule for rule in single if rule.covers[0] in apart]
        found = linked([rule for rule in single if rule.covers[0] not in apart])
        if level == 2:
            found = labelled(found, self.taken)
        elif level > 2:
            found = generals(found, self.names, self.separators, lambda some: labelled(some, self.taken))
        return found + alone

    @cached_property
    def names(self) -> dict[int, Names]:
        """The names of every relation, and of what goes nowhere, by the numbers that rules cover."""
        found: dict[int, Names] = {number: (one.sources, one.targets) for number, one in enumerate(self.relations)}
        for name in self.draft.dropped:
            found[len(found)] = ((name,), ())
        for name in self.draft.unplaced:
            found[len(found)] = ((), (name,))
        return found

    @cached_property
    def drops(self) -> list[Rule]:
        """What goes nowhere, on either side."""
        first = len(self.relations)
        used = [name for one in self.relations for name in one.sources]
        made = [name for one in self.relations for name in one.targets]
        return [
            *dropped(self.draft.dropped, used, first),
            *dropped(self.draft.unplaced, made, first + len(self.draft.dropped), made=True),
        ]

    @cached_property
    def taken(self) -> frozenset[str]:
        """All names, with their numbers left open."""
        return frozenset(map(blank, (*self.source, *self.target)))

    # ── from rules to text ───────────────────────────────────────────────────────────────────────────────────────────

    def module(self, rules: Sequence[Rule]) -> Module:
        """The rules as a module, parsed again from its text."""
        every = [*rules, *self.drops]
        order = above(every, self.names, self.separators)
        statements = list(self._statements(blocks(every, order), ((), ())))
        left, right = self.separators
        if left and right and any(isinstance(token, Star) and token.path for rule in rules for name in rule.names for token in name):
            statements.insert(0, Paths(left, right))
        if self.title and statements:
            statements[0] = replace(statements[0], comments=replace(statements[0].comments, above=(*self.title, *statements[0].comments.above)))
        return parse(unparse(Module(tuple(statements))))

    def _statements(self, nodes: Sequence[Node], outer: tuple[Template, Template]) -> list[Statement]:
        found: list[Statement] = []
        for node in nodes:
            if isinstance(node, Block):
                found.append(self._scope(node, outer))
            elif node.right[-1].head is None and len(node.names) == 1 and node.n_left == 1 and node.right[-1].dims is None:
                _drop(found, node)
            else:
                found.append(self._equation(node, outer))
        return found

    def _scope(self, block: Block, outer: tuple[Template, Template]) -> Scope:
        first = block
        while isinstance(first.body[0], Block):
            first = first.body[0]
        rule = first.body[0]
        assert isinstance(rule, Rule)
        named = self._letters(rule)
        given: dict[str, tuple[str, ...]] = {}
        left = name_tree(block.prefixes[0][len(outer[0]) :], named, given)
        right = name_tree(block.prefixes[1][len(outer[1]) :], named, {}, (given,))
        return Scope(left, right, tuple(self._statements(block.body, block.prefixes)))

    def _letters(self, rule: Rule) -> Letters:
        wanted: dict[str, str] = {}
        for axis, size in rule.sizes:
            name = _called(self.config, size)
            if name and name not in wanted.values():
                wanted[axis] = name
        return letters(rule, wanted)

    def _equation(self, rule: Rule, outer: tuple[Template, Template]) -> Equation:
        named = self._letters(rule)
        where = [Binding(named[axis], _expression(self.config, size)) for axis, size in rule.sizes]
        return equation(rule, named, outer, where=where, comments=Comments(end="; ".join(rule.notes) or None))


def _called(config: Config, size: int) -> str:
    key = sensible_key(config, size)
    if key is None:
        return ""
    last = key.rpartition(".")[2].lower()
    return "heads" if "head" in last and "dim" not in last else "e" if "expert" in last else ""


def _expression(config: Config, size: int) -> Expression:
    key = sensible_key(config, size)
    return Number(size) if key is None else ConfigPath(tuple(key.split(".")))


def _drop(statements: list[Statement], rule: Rule) -> None:
    """`drop X`, beside others where the line has room."""
    term = Term(name_tree(rule.names[0], {}, {}))
    last = statements[-1] if statements else None
    if isinstance(last, DropStatement):
        wider = DropStatement((*last.terms, term))
        if len(unparse(Module((wider,)))) <= WIDEST:
            statements[-1] = wider
            return
    statements.append(DropStatement((term,)))
