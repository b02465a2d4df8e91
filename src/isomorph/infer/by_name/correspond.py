"""Two manifests -> Correspondence: by names and shapes, which source tensors make which target tensors.

    names ── classes ── modules ── candidates ── settle ──▶ matches, choices

Nothing is decided by the order in a file. What is certain rests on words that the lexicon knows in their context, on
equal names, on relations already known from values, or on there being nothing else; the rest are choices that hold the
truth, or unplaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from isomorph.infer.by_name.anchors import Anchors
from isomorph.infer.by_name.assignment import components, settle
from isomorph.infer.by_name.candidates import Candidate, candidates, single
from isomorph.infer.by_name.classes import TensorClass, classes
from isomorph.infer.by_name.closure import Closure
from isomorph.infer.by_name.correspondence import Choice, Correspondence, Link, Match
from isomorph.infer.by_name.modules import Module, modules
from isomorph.infer.by_name.options import choices
from isomorph.infer.by_name.scoring import CERTAIN, ROLE, Scorer, Side
from isomorph.infer.by_name.stages import stages
from isomorph.infer.by_name.ties import COPIED, Ties
from isomorph.infer.nouns import Relation
from isomorph.tensors import Manifest


def correspond(
    source: Manifest,
    target: Manifest,
    *,
    known: Sequence[Relation] = (),
    sizes: Mapping[str, int] | None = None,
    silent: Mapping[str, Sequence[str]] | None = None,
) -> Correspondence:
    """Which source tensors make which target tensors.

    `known` are relations that are certain already: their targets are not in the result, and their modules settle those of their
    siblings. `silent` restricts a target to sources that its values allow. `sizes` is not used yet (names and shapes say enough).
    """
    left, right = classes(source), classes(target)
    sides = Side.of(modules(left), left), Side.of(modules(right), right)
    anchors = Anchors(known, silent or {})
    ties = Ties(sides[0].modules, source), Ties(sides[1].modules, target)

    def are_copies(one: Module, other: Module) -> bool:
        return ties[0].are_copies(one, other) or ties[1].are_copies(one, other)

    closure = Closure(sides[0].modules, sides[1].modules)
    wide = anchors.apply(stages(Scorer(*sides), source, target))
    scorer = Scorer(*_rest(sides, wide, ()))
    everything = (*scorer.source.modules, *scorer.target.modules)
    taken, open_ = settle(anchors.apply(candidates(scorer)), are_copies, everything)
    taken += wide
    tied, maybe = _tied(scorer, taken, open_)
    taken += tied
    for _ in range(2):
        rest = _rest(sides, taken, open_)
        modules_left = (*rest[0].modules, *rest[1].modules)
        more, again = settle(anchors.apply(candidates(Scorer(*rest))), are_copies, modules_left)
        if not more:
            open_ += again
            break
        taken += more
    return _written(source, target, taken, [*open_, *maybe], anchors, closure)


def _tied(
    scorer: Scorer, taken: Sequence[Candidate], open_: Sequence[Candidate]
) -> tuple[list[Candidate], list[Candidate]]:
    """Targets that are copies of tensors that are placed: an embedding for each of two stacks; and, as a question, a
    head that may be tied to the embedding (or new)."""
    placed = {module for each in (*taken, *open_) for module in each.targets}
    used = {module for each in taken for module in each.sources}
    out: list[Candidate] = []
    maybe: list[Candidate] = []
    for t in scorer.target.modules:
        role = t.reading.role
        if t in placed or role not in COPIED | {"lm_head"} or "weight" not in t.leaves:
            continue
        of_words = role in ("word", "lm_head") and role not in scorer.source.roles
        wanted = {"word", "lm_head"} if of_words else {role}
        found = []
        for s in used:
            if s.reading.role in wanted:
                as_one = replace(t, reading=replace(t.reading, role=s.reading.role))
                made = single(scorer, s, as_one)
                if made is not None and "weight" in made.links and made.score >= CERTAIN - 2:
                    links = {
                        leaf: link for leaf, link in made.links.items() if leaf == "weight" or s.reading.role == role
                    }
                    found.append(replace(made, targets=(t,), links=links))
        if len(found) == 1:
            if found[0].sources[0].reading.role == role:
                out += found
            else:
                maybe += found
    return out, maybe


def _rest(sides: tuple[Side, Side], taken: Sequence[Candidate], open_: Sequence[Candidate]) -> tuple[Side, Side]:
    """The leaves that are in no link yet: a bias whose weight went elsewhere."""
    done: set[str] = set()
    for each in taken:
        for links in each.links.values():
            for link in links:
                done.update(link.source_names)
                done.update(link.target_names)
    waiting = {id(module) for each in open_ for module in (*each.sources, *each.targets)}
    out = []
    for side in sides:
        kept = []
        for module in side.modules:
            leaves = {leaf: one for leaf, one in module.leaves.items() if not done.intersection(one.members.values())}
            if leaves and id(module) not in waiting:
                kept.append(module if len(leaves) == len(module.leaves) else replace(module, leaves=leaves))
        out.append(Side(tuple(kept), side.classes, side.roles))
    return out[0], out[1]


Spoken = tuple[Choice, frozenset[str]]
"""A choice, and the sources that it uses whatever is answered."""


def _written(
    source: Manifest,
    target: Manifest,
    taken: Sequence[Candidate],
    open_: Sequence[Candidate],
    anchors: Anchors,
    closure: Closure,
) -> Correspondence:
    placed: set[str] = set(anchors.targets)
    used: set[str] = set(anchors.sources)
    matches: list[Match] = []
    for each in taken:
        for match in written(each, anchors):
            links = tuple(link for link in match.links if placed.isdisjoint(link.target_names))
            if links:
                matches.append(replace(match, links=links))
                placed.update(matches[-1].targets)
                used.update(matches[-1].sources)
    asked: list[Choice] = []
    certain = frozenset(used)
    open_choices = [
        choice
        for component in components(open_)
        for choice in choices(component, lambda each: written(each, anchors), placed)
    ]
    for choice in _closed(open_choices, closure, certain):
        if placed.isdisjoint(choice.targets):
            asked.append(choice)
            placed.update(choice.targets)
            used.update(name for option in choice.options for match in option for name in match.sources)
    order = {name: at for at, name in enumerate(target)}
    matches.sort(key=lambda match: order[match.targets[0]])
    asked.sort(key=lambda choice: order[choice.targets[0]])
    return Correspondence(
        tuple(matches),
        tuple(asked),
        tuple(name for name in source if name not in used),
        tuple(name for name in target if name not in placed),
    )


def _closed(open_: Sequence[Choice], closure: Closure, certain: frozenset[str]) -> list[Choice]:
    """The choices that hold, when each may count on what the others use whatever is answered. To a fix-point."""
    left = [(one, _always(one)) for one in open_]
    while True:
        kept = [(one, names) for one, names in left if closure.holds(one, certain | _spoken_for(one, left))]
        if len(kept) == len(left):
            return [one for one, _ in kept]
        left = kept


def _always(choice: Choice) -> frozenset[str]:
    """The sources that a choice uses whatever is answered."""
    used = ({name for match in option for name in match.sources} for option in choice.options)
    return frozenset(set.intersection(*used)) if choice.options else frozenset()


def _spoken_for(choice: Choice, others: Sequence[Spoken]) -> frozenset[str]:
    """Sources that other choices, of other targets, use whatever is answered."""
    own = set(choice.targets)
    return frozenset().union(*(names for other, names in others if names and own.isdisjoint(other.targets)))


def written(each: Candidate, anchors: Anchors) -> tuple[Match, ...]:
    """A candidate as matches: one for each leaf, without what is known already."""
    out = []
    for leaf in sorted(each.links, key=lambda leaf: (leaf != "weight", leaf)):
        links: tuple[Link, ...] = tuple(
            link for link in each.links[leaf] if not anchors.targets.issuperset(link.target_names)
        )
        key = ", ".join(module.leaves[leaf].template for module in each.targets)
        if links:
            out.append(Match(key, links, each.score, each.why))
    return tuple(out)


__all__ = ["CERTAIN", "ROLE", "TensorClass", "correspond"]
