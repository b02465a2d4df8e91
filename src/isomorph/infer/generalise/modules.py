"""Rules -> a module: blocks, drops, what is said once for the file, comments.

The text is canonical: the module is parsed again from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from isomorph.infer.generalise.blocks import Block, Node, blocks
from isomorph.infer.generalise.letters import letters
from isomorph.infer.generalise.notes import note, one_line, shared_notes
from isomorph.infer.generalise.order import Names, Separators, above
from isomorph.infer.generalise.patterns import Rule, Star, Template
from isomorph.infer.generalise.questions import asked, closed, order, words
from isomorph.infer.generalise.sizes import sensible_key
from isomorph.infer.generalise.wheres import hoisted
from isomorph.infer.generalise.writing import Given, Letters, equation, name_tree
from isomorph.infer.nouns import Question
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
    Op,
    OperatorLine,
    Paths,
    Scope,
    Statement,
    Term,
)
from isomorph.language.unparse import unparse

WIDEST = 130
SPARE = "what no answer takes"

Config = Mapping[str, object] | None
Group = tuple[int, int] | None


@dataclass(frozen=True)
class Page:
    """What a module is written with, besides its rules. `names` are those of the relations by the numbers that rules cover."""

    names: Mapping[int, Names]
    separators: Separators
    config: Config = None
    title: tuple[str, ...] = ()
    line: tuple[Op, ...] = ()
    questions: tuple[Question, ...] = ()

    def module(self, rules: Sequence[Rule], *, is_open: bool = True, is_flat: bool = False) -> Module:
        """The rules as a module. `is_open` False: alternatives as rules like any other, for the plan; `is_flat`: without blocks."""
        return self.written(rules, is_open=is_open, is_flat=is_flat)[0]

    def written(
        self, rules: Sequence[Rule], *, is_open: bool = True, is_flat: bool = False
    ) -> tuple[Module, tuple[Group, ...]]:
        """The module, and the group of each of its equations in the order of the text."""
        rules, shared = shared_notes(rules)
        nodes: Sequence[Node] = rules if is_flat else blocks(rules, above(rules, self.names, self.separators))
        statements = hoisted(self._statements(nodes, ((), ()), is_open))
        if self.line:
            statements.insert(0, OperatorLine(self.line))
        left, right = self.separators
        if (
            left
            and right
            and any(isinstance(one, Star) and one.path for rule in rules for name in rule.names for one in name)
        ):
            statements.insert(0, Paths(left, right))
        title = (*self.title, *shared)
        if title and statements:
            first = statements[0]
            above_it = (*(one_line(line).strip() for line in title), *first.comments.above)
            statements[0] = replace(first, comments=replace(first.comments, above=above_it))
        groups = tuple(rule.group for rule in in_order(nodes) if not is_drop(rule))
        return parse(unparse(Module(tuple(statements)))), groups

    def _statements(self, nodes: Sequence[Node], outer: tuple[Template, Template], is_open: bool) -> list[Statement]:
        found: list[Statement] = []
        last: tuple[int, int] | None = None
        for node in nodes:
            if isinstance(node, Block):
                found.append(self._scope(node, outer, is_open))
                continue
            if is_drop(node):
                _drop(found, node)
                continue
            found.append(self._equation(node, outer, last))
            last = node.group
            if not is_open:
                found[-1] = closed(found[-1])
        return found

    def _scope(self, block: Block, outer: tuple[Template, Template], is_open: bool) -> Scope:
        named = self.letters(_first(block))
        given: Given = {}
        left = name_tree(block.prefixes[0][len(outer[0]) :], named, given)
        right = name_tree(block.prefixes[1][len(outer[1]) :], named, {}, (given,))
        return Scope(left, right, tuple(self._statements(block.body, block.prefixes, is_open)))

    def letters(self, rule: Rule) -> Letters:
        """The names of a rule's axes; bound ones by what the config calls them."""
        wanted: dict[str, str] = {}
        for axis, size in rule.sizes:
            name = _called(self.config, size)
            if name and name not in wanted.values():
                wanted[axis] = name
        return letters(rule, wanted)

    def _equation(self, rule: Rule, outer: tuple[Template, Template], last: Group) -> Equation:
        """The rule; an alternative with its question above it, unless `last`, that of the line above, is of the same."""
        named = self.letters(rule)
        where = [Binding(named[axis], _expression(self.config, size)) for axis, size in rule.sizes]
        comments = Comments(end=SPARE if rule.maybe else note(rule.notes))
        if rule.group is not None:
            question = self.questions[rule.group[0]]
            is_first = last is None or last[0] != rule.group[0]
            said = None if rule.group == last else words(question, order(question)[rule.group[1]])
            comments = Comments(asked(question) if is_first else (), said)
        return equation(rule, named, outer, where=where, comments=comments)


def in_order(nodes: Sequence[Node]) -> Iterator[Rule]:
    """The rules as they stand in the text."""
    waiting = list(reversed(nodes))
    while waiting:
        node = waiting.pop()
        if isinstance(node, Block):
            waiting.extend(reversed(node.body))
        else:
            yield node


def is_drop(rule: Rule) -> bool:
    """True for `drop X`."""
    return len(rule.left) == len(rule.right) == 1 and rule.right[0].head is None and rule.right[0].dims is None


def _first(block: Block) -> Rule:
    """A rule of the block; its prefixes are those of all."""
    node: Node = block
    while isinstance(node, Block):
        node = node.body[0]
    return node


def _drop(statements: list[Statement], rule: Rule) -> None:
    """`drop X`, beside others where the line has room."""
    term = Term(name_tree(rule.names[0], {}, {}))
    last = statements[-1] if statements else None
    if isinstance(last, DropStatement) and last.maybe == rule.maybe:
        wider = replace(last, terms=(*last.terms, term))
        if len(unparse(Module((wider,)))) <= WIDEST:
            statements[-1] = wider
            return
    said = Comments(end=SPARE) if rule.maybe else Comments()
    statements.append(DropStatement((term,), rule.maybe, said))


def _called(config: Config, size: int) -> str:
    key = sensible_key(config, size)
    if key is None:
        return ""
    last = key.rpartition(".")[2].lower()
    return "heads" if "head" in last and "dim" not in last else "e" if "expert" in last else ""


def _expression(config: Config, size: int) -> Expression:
    key = sensible_key(config, size)
    return Number(size) if key is None else ConfigPath(tuple(key.split(".")))
