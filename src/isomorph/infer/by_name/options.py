"""What is not certain -> choices: every way that names and shapes allow, few enough to be asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from isomorph.infer.by_name.candidates import Candidate
from isomorph.infer.by_name.correspondence import Choice, Match
from isomorph.infer.by_name.modules import Module

MOST_TOGETHER = 6
"""Joint assignments of several targets that one question offers; beyond that each target has its own question."""
MOST_OPTIONS = 24
Write = Callable[[Candidate], tuple[Match, ...]]


def choices(component: Sequence[Candidate], write: Write, placed: Collection[str]) -> Iterator[Choice]:
    """The choices of candidates that share modules. Targets that stay without one have too many ways, or clash with
    what is placed."""
    targets = list(dict.fromkeys(module for each in component for module in each.targets))
    if len(component) == 1:
        yield from _choice([write(component[0]), ()], placed)
        return
    together = _assignments(component, targets)
    if together is not None:
        yield from _choice([tuple(match for each in way for match in write(each)) for way in together], placed)
        return
    seen: set[Module] = set()
    for target in targets:
        own = [each for each in component if target in each.targets]
        group = {module for each in own for module in each.targets}
        if seen & group or len(own) > MOST_OPTIONS:
            continue
        own = [each for each in component if group & set(each.targets)]
        if any(set(each.targets) != group for each in own):
            continue
        seen |= group
        ways = [write(each) for each in sorted(own, key=lambda each: -each.score)]
        yield from _choice([*ways, ()], placed)


def _assignments(component: Sequence[Candidate], targets: Sequence[Module]) -> list[tuple[Candidate, ...]] | None:
    """All ways to make the most of these targets, each source used once; None where they are too many to be asked together."""
    if len(targets) > MOST_TOGETHER:
        return None
    found: list[tuple[Candidate, ...]] = []
    stack: list[tuple[int, tuple[Candidate, ...]]] = [(0, ())]
    while stack:
        at, way = stack.pop()
        if at == len(targets):
            found.append(way)
            if len(found) > 200:
                return None
            continue
        used = {module for each in way for module in (*each.sources, *each.targets)}
        if targets[at] not in used:
            for each in component:
                if each.targets[0] is targets[at] and used.isdisjoint((*each.sources, *each.targets)):
                    stack.append((at + 1, (*way, each)))
        stack.append((at + 1, way))
    most = max(sum(len(each.targets) for each in way) for way in found)
    full = [way for way in found if sum(len(each.targets) for each in way) == most]
    if most < len(targets) or len(full) > MOST_TOGETHER:
        return None
    return sorted(full, key=lambda way: -sum(each.score for each in way))


def _choice(ways: Sequence[tuple[Match, ...]], placed: Collection[str]) -> Iterator[Choice]:
    options = list(dict.fromkeys(ways))
    names = list(dict.fromkeys(name for way in options for match in way for name in match.targets))
    if not names or any(name in placed for name in names):
        return
    keys = list(dict.fromkeys(match.key for way in options for match in way))
    likely = 0 if len(options) > 1 and _lead(options) > 1 else None
    yield Choice(", ".join(keys), tuple(options), "the names do not say which", likely)


def _lead(options: Sequence[tuple[Match, ...]]) -> float:
    scores = [sum(match.score for match in way) for way in options]
    return scores[0] - max(scores[1:])
