"""A Correspondence held against the truth: for each target, whether its sources are right, wrong, asked (with or without the truth)
or missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from isomorph.infer.by_name.correspondence import Correspondence, Match

Sources = frozenset[str]


@dataclass
class Score:
    """Counts of target tensors, and the names of those that are wrong or asked without the truth."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[str, Sources, Sources]] = field(default_factory=list)
    """Target, what was said, the truth."""
    bad_choices: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the targets that have a source in truth, those said with certainty, and right."""
        wanted = sum(self.counts[kind] for kind in ("right", "wrong", "asked", "asked without the truth", "unplaced"))
        return self.counts["right"] / max(1, wanted)

    def __iadd__(self, other: Score) -> Score:
        self.counts += other.counts
        self.wrong += other.wrong
        self.bad_choices += other.bad_choices
        self.open += other.open
        return self


def score(found: Correspondence, truth: Mapping[str, Iterable[str]], copies: Iterable[Iterable[str]] = ()) -> Score:
    """Each target of `truth` (target -> its sources; none where nothing makes it) looked up in what was found.

    `copies` are groups of sources that hold the same values: any of them is right.
    """
    head: dict[str, str] = {}
    for group in copies:
        names = sorted(group)
        for name in names:
            head[name] = head.get(names[0], names[0])

    def plain(names: Iterable[str]) -> Sources:
        return frozenset(head.get(name, name) for name in names)

    said = {target: plain(sources) for target, sources in pairs(found.matches)}
    asked: dict[str, list[Sources]] = {}
    for choice in found.choices:
        options = [dict(pairs(option)) for option in choice.options]
        for target in choice.targets:
            asked[target] = [plain(option.get(target, ())) for option in options]
    out = Score()
    for target, sources in truth.items():
        right = plain(sources)
        if target in said:
            kind = "right" if said[target] == right else "wrong"
            if kind == "wrong":
                out.wrong.append((target, said[target], right))
        elif not right:
            kind = "nothing, rightly" if target not in asked or frozenset() in asked[target] else "asked for nothing"
        elif target in asked:
            kind = "asked" if right in asked[target] else "asked without the truth"
            (out.open if kind == "asked" else out.bad_choices).append(target)
        else:
            kind = "unplaced"
            out.open.append(target)
        out.counts[kind] += 1
    return out


def pairs(matches: Iterable[Match]) -> Iterable[tuple[str, frozenset[str]]]:
    """Target -> its sources, for every link."""
    for match in matches:
        for link in match.links:
            sources = frozenset(link.source_names)
            for target in link.target_names:
                yield target, sources
