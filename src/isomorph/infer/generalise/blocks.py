"""Rules put in blocks: prefixes that many rules share on both sides are written once.

Of all pairs of prefixes the one that saves most text is taken, again and again, inside blocks too. Rules keep the order that first
match needs: `above` says which must stand before which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isomorph.infer.generalise.patterns import SEPARATORS, Index, Labels, Rule, Star, Template, Token, token_axes

LINE = 32
"""What a line costs, in characters."""

Prefixes = tuple[Template, Template]


@dataclass(frozen=True)
class Block:
    """`left <-> right:` and what stands in it; the prefixes are full, with those of the blocks around."""

    prefixes: Prefixes
    body: tuple[Node, ...]


Node = Rule | Block


def width(template: Iterable[Token]) -> int:
    """About how many characters a template takes."""
    total = 0
    for token in template:
        if isinstance(token, str):
            total += len(token)
        elif isinstance(token, Labels):
            total += 3 + sum(len(label) + 1 for label in token.labels)
        elif isinstance(token, Index):
            total += 3 + 2 * bool(token.offset) + 3 * bool(token.pad)
        else:
            total += 2
    return total


def blocks(rules: Sequence[Rule], above: Mapping[int, frozenset[int]]) -> tuple[Node, ...]:
    """The rules in blocks, sorted. `above[k]` are the numbers of the rules that rule k must stand above."""
    numbered = {id(rule): number for number, rule in enumerate(rules)}
    order = _Order(numbered, above)
    return _arranged(list(rules), ((), ()), order)


@dataclass(frozen=True)
class _Order:
    numbers: Mapping[int, int]
    above: Mapping[int, frozenset[int]]

    def rules(self, node: Node) -> set[int]:
        found: set[int] = set()
        waiting = [node]
        while waiting:
            one = waiting.pop()
            if isinstance(one, Block):
                waiting.extend(one.body)
            else:
                found.add(self.numbers[id(one)])
        return found

    def below(self, of: set[int]) -> set[int]:
        """All that must stand below some of these, at any distance."""
        found: set[int] = set()
        waiting = list(of)
        while waiting:
            for number in self.above.get(waiting.pop(), ()):
                if number not in found:
                    found.add(number)
                    waiting.append(number)
        return found

    def may_join(self, inside: set[int]) -> bool:
        """False when a rule outside must stand between two of these."""
        outside = self.below(inside) - inside
        return not (self.below(outside) & inside)


def _arranged(rules: list[Rule], prefixes: Prefixes, order: _Order) -> tuple[Node, ...]:
    nodes: list[Node] = []
    found: dict[Prefixes, dict[int, Rule]] = {}
    pairs = {id(rule): _pairs(rule, prefixes) for rule in rules}
    for rule in rules:
        for pair in pairs[id(rule)]:
            found.setdefault(pair, {})[id(rule)] = rule
    whole = Counter(rule.group[0] for rule in rules if rule.group is not None)
    found = {pair: _with_whole_questions(members, whole) for pair, members in found.items()}
    found = {pair: members for pair, members in found.items() if len(members) > 1}
    left = {id(rule): rule for rule in rules}
    while True:
        best = max(found, key=lambda pair: _saved(pair, found[pair], prefixes), default=None)
        if best is None or _saved(best, found[best], prefixes) <= 0:
            break
        members = list(found.pop(best).values())
        inside = {order.numbers[id(rule)] for rule in members}
        if not order.may_join(inside):
            continue
        nodes.append(Block(best, _arranged(members, best, order)))
        for rule in members:
            del left[id(rule)]
            for pair in pairs[id(rule)]:
                if pair in found:
                    found[pair].pop(id(rule), None)
    nodes.extend(left.values())
    return _sorted(nodes, order)


def _with_whole_questions(members: Mapping[int, Rule], whole: Mapping[int, int]) -> dict[int, Rule]:
    """The members without the alternatives of a question that has others elsewhere: they stay together."""
    here = Counter(rule.group[0] for rule in members.values() if rule.group is not None)
    return {k: rule for k, rule in members.items() if rule.group is None or here[rule.group[0]] == whole[rule.group[0]]}


def _saved(pair: Prefixes, members: Mapping[int, Rule], outer: Prefixes) -> int:
    """How many characters a block with this pair of prefixes saves; nothing for a block of one."""
    if len(members) < 2:
        return 0
    left, right = (width(prefix[len(around) :]) for prefix, around in zip(pair, outer, strict=True))
    saved = sum(left * rule.n_left + right * (len(rule.names) - rule.n_left) - 2 for rule in members.values())
    return saved - (left + right + 6 + LINE)


def _pairs(rule: Rule, outer: Prefixes) -> list[Prefixes]:
    if rule.n_left == len(rule.names) or rule.n_left == 0:
        return []
    sides = (rule.names[: rule.n_left], rule.names[rule.n_left :])
    cuts = [_cuts(names, len(around)) for names, around in zip(sides, outer, strict=True)]
    found = []
    for one in cuts[0]:
        axes = _axes(sides[0][0][:one])
        for other in cuts[1]:
            if (one, other) != (len(outer[0]), len(outer[1])) and axes == _axes(sides[1][0][:other]):
                found.append((sides[0][0][:one], sides[1][0][:other]))
    return found


def _axes(template: Template) -> set[str]:
    return {axis for token in template for axis in token_axes(token)}


def _cuts(names: Sequence[Template], start: int) -> list[int]:
    """Where a prefix of all these names may end: behind a separator, with no `**`, no tensor axis and no tie in it."""
    found = [start]
    first = names[0]
    for end in range(start + 1, len(first)):
        token = first[end - 1]
        if any(len(name) <= end or name[end - 1] != token for name in names[1:]):
            break
        if isinstance(token, Star) or (isinstance(token, Index | Labels) and token.tied):
            break
        if any(axis.startswith("a") for axis in token_axes(token)):
            break
        if isinstance(token, str) and token in SEPARATORS:
            found.append(end)
    return found


def _sorted(nodes: Sequence[Node], order: _Order) -> tuple[Node, ...]:
    """First come, first served, but what must stand above does."""
    inside = [order.rules(node) for node in nodes]
    first = [min(_place(node)) for node in nodes]
    waits: list[set[int]] = [set() for _ in nodes]
    for k, numbers in enumerate(inside):
        below = order.below(numbers)
        for j, others in enumerate(inside):
            if j != k and below & others:
                waits[j].add(k)
    done: list[int] = []
    left = sorted(range(len(nodes)), key=lambda k: (first[k], k))
    while left:
        chosen = next((k for k in left if waits[k] <= set(done)), left[0])
        done.append(chosen)
        left.remove(chosen)
    return tuple(nodes[k] for k in done)


def _place(node: Node) -> tuple[int, ...]:
    waiting = [node]
    found: list[int] = []
    while waiting:
        one = waiting.pop()
        if isinstance(one, Block):
            waiting.extend(one.body)
        else:
            found.append(one.covers[0])
    return tuple(found)
