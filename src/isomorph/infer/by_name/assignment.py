"""Candidates -> those that are certain, to a fix-point: what leads all that stand against it is taken, and clears the field.

A candidate is taken when its evidence is enough and leads every other candidate for its targets or its sources by a margin. What is
taken excludes others, so that more come to lead: two norms, one of them named, settle both. At the end, what no other
candidate stands against is taken by exclusion, if nothing of its layer is left over on either side. Containers (stacks
of layers) are matched first, by all that is in them: the layers of one go to the layers of one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from isomorph.infer.by_name.candidates import Candidate
from isomorph.infer.by_name.modules import Module
from isomorph.infer.by_name.scoring import CERTAIN, MARGIN

Same = Callable[[Module, Module], bool]
Container = tuple[str, ...]


def settle(
    candidates: Sequence[Candidate], are_copies: Same, everything: Sequence[Module]
) -> tuple[list[Candidate], list[Candidate]]:
    """The certain candidates, and those that remain possible for what is not settled. `everything`: the modules of both sides."""
    alive = _within_containers(candidates)
    taken: list[Candidate] = []
    while True:
        found = _leading(alive, are_copies)
        if not found:
            found = _excluded(alive, taken, everything)
        if not found:
            return taken, alive
        taken += found
        for each in found:
            alive = [other for other in alive if other is not each and not _clash(each, other, are_copies)]


def _clash(taken: Candidate, other: Candidate, are_copies: Same) -> bool:
    if not set(taken.targets).isdisjoint(other.targets):
        return True
    if set(taken.sources).isdisjoint(other.sources) or _serve_copies(taken, other, are_copies):
        return False
    return not all(are_copies(module, module) for module in taken.sources)


def _serve_copies(one: Candidate, other: Candidate, are_copies: Same) -> bool:
    """True when one source makes two targets that are copies."""
    if len(one.targets) != 1 or len(other.targets) != 1:
        return False
    return one.targets[0] is not other.targets[0] and are_copies(one.targets[0], other.targets[0])


def _leading(alive: Sequence[Candidate], are_copies: Same) -> list[Candidate]:
    """Those that lead all that stand against them. Two of them never stand against each other."""
    by_module: dict[Module, list[Candidate]] = defaultdict(list)
    for each in alive:
        for module in (*each.sources, *each.targets):
            by_module[module].append(each)
    out: list[Candidate] = []
    for each in alive:
        if each.score < CERTAIN:
            continue
        against = [
            other
            for module in (*each.sources, *each.targets)
            for other in by_module[module]
            if other is not each and not _agree(each, other, are_copies)
        ]
        if all(each.score - other.score >= MARGIN for other in against) and not any(
            taken is not each and not set(each.targets).isdisjoint(taken.targets) for taken in out
        ):
            out.append(each)
    return out


def _agree(one: Candidate, other: Candidate, are_copies: Same) -> bool:
    """True when both may be said: sources that are copies of each other serve any number of targets, and the better is taken."""
    if len(one.sources) != 1 or len(other.sources) != 1:
        return False
    a, b = one.sources[0], other.sources[0]
    if a is b:
        return _serve_copies(one, other, are_copies) or (
            are_copies(a, a) and set(one.targets).isdisjoint(other.targets)
        )
    return are_copies(a, b) and one.targets == other.targets and one.score >= other.score


def _excluded(alive: Sequence[Candidate], taken: Sequence[Candidate], everything: Iterable[Module]) -> list[Candidate]:
    """Candidates that nothing stands against, in layers or among whatever is outside, where nothing else is left over."""
    by_module: dict[Module, int] = defaultdict(int)
    for each in alive:
        for module in (*each.sources, *each.targets):
            by_module[module] += 1
    matched = {
        (source.container, target.container) for each in taken for source in each.sources for target in each.targets
    }
    settled = {module for each in taken for module in (*each.sources, *each.targets)}
    alone = [
        each
        for each in alive
        if all(by_module[module] == 1 for module in (*each.sources, *each.targets))
        and each.is_whole
        and each.score > -1
        and (each.sources[0].container, each.targets[0].container) in matched
        and _is_telling(each)
    ]
    settled.update(module for each in alone for module in (*each.sources, *each.targets))
    open_blocks = {
        module.block
        for module in everything
        if module not in settled and module.reading.role != "buffer" and module.block
    }
    return [each for each in alone if not any(module.block in open_blocks for module in (*each.sources, *each.targets))]


def _is_telling(each: Candidate) -> bool:
    """In a layer, the last one left is what it is; outside, a vector without a name may be anything."""
    return bool(each.targets[0].container) or len([size for size in each.targets[0].main.shape if size > 1]) > 1


def _within_containers(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Without the candidates that cross stacks of layers, where it is clear which stack is which."""
    best: dict[tuple[Container, Container], dict[Module, float]] = defaultdict(dict)
    for each in candidates:
        t, s = each.targets[0].container, each.sources[0].container
        if t and s:
            for module in each.targets:
                held = best[t, s]
                held[module] = max(held.get(module, 0.0), each.score)
    totals: dict[Container, dict[Container, float]] = defaultdict(dict)
    for (t, s), held in best.items():
        totals[t][s] = sum(held.values())
    chosen = {t: _clear(found) for t, found in totals.items()}
    return [
        each
        for each in candidates
        if not each.targets[0].container
        or not each.sources[0].container
        or chosen[each.targets[0].container] in (None, each.sources[0].container)
    ]


def _clear(found: dict[Container, float]) -> Container | None:
    order = sorted(found, key=lambda container: (-found[container], container))
    if len(order) == 1 or found[order[0]] >= 1.25 * found[order[1]] + MARGIN:
        return order[0]
    return None


def components(alive: Iterable[Candidate]) -> list[list[Candidate]]:
    """Candidates that share modules, directly or through others, in the order of the first."""
    alive = list(alive)
    head = list(range(len(alive)))

    def find(at: int) -> int:
        while head[at] != at:
            head[at] = head[head[at]]
            at = head[at]
        return at

    first: dict[Module, int] = {}
    for at, each in enumerate(alive):
        for module in (*each.sources, *each.targets):
            other = first.setdefault(module, at)
            a, b = find(at), find(other)
            head[max(a, b)] = min(a, b)
    grouped: dict[int, list[Candidate]] = defaultdict(list)
    for at, each in enumerate(alive):
        grouped[find(at)].append(each)
    return list(grouped.values())
