"""Where the relatives of a target are from: which modules, and which blocks (layers, stages), known relations lead to each other.

    known      blocks.5.attn.qkv.weight  <->  stages.1.blocks.2.attn.qkv.weight        and the other matrices of that block
    so         blocks.5.attn.qkv.*       is   stages.1.blocks.2.attn.qkv.*             a module
               blocks.5.*                is   stages.1.blocks.2.*                      a block

Written under the names of their relatives, sources can be compared with targets by what is left of their names, whatever became of
the layers: reversed, every second one, cut into stages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from isomorph.infer.nouns import Relation

MOST_ROUNDS = 16
"""A block that more blocks than this are made of is taken for so many."""
MOST = 0.75
"""The share of a block's known targets that must come from one block."""

STATISTICS = "batch_stats"
"""What Flax files the statistics of norms under; the other variables are under `params`."""
_PIECE = re.compile(r"[./]")
_LAST = re.compile(
    r"(?:running_(?:mean|var)|num_batches_tracked|moving_(?:mean|variance)|weights?|kernel|bias(?:es)?|gamma|beta|scale|mean|var"
    r"|w|b|g)(?::0)?\Z"
)
_KINDS = {
    "bias": "bias", "biases": "bias", "beta": "bias", "b": "bias", "running_mean": "mean", "moving_mean": "mean", "mean": "mean",
    "running_var": "var", "moving_variance": "var", "var": "var", "num_batches_tracked": "count",
}  # fmt: skip
_DIGITS = re.compile(r"\d+")


def module(name: str) -> str:
    """What a tensor belongs to: its name without the word that says what it is there; the whole name where no such word ends it.

    >>> module("h.0.attn.in_proj_weight"), module("h/0/kernel:0"), module("cls_token")
    ('h.0.attn.in_proj_', 'h/0/', 'cls_token')
    """
    found = _LAST.search(name)
    return name[: found.start()] if found and name[found.start() - 1 : found.start()] in ("", ".", "/", "_") else name


def kind(name: str) -> str:
    """What a tensor is in its module, by its last word: `scale`, `bias`, `mean`, `var`; "" where that does not say.

    >>> kind("bn1.running_var"), kind("ln/gamma"), kind("cls_token")
    ('var', 'scale', '')
    """
    found = _LAST.search(name) if module(name) != name else None
    return _KINDS.get(found.group().removesuffix(":0"), "scale") if found else ""


def prefixes(name: str) -> Iterator[str]:
    """The modules that a name lies in, outermost first, each with the separator at its end.

    >>> list(prefixes("h.0.w"))
    ['h.', 'h.0.']
    """
    for found in _PIECE.finditer(name):
        yield name[: found.end()]


def blocks(names: Iterable[str]) -> frozenset[str]:
    """Prefixes that end in a number and hold several modules: instances of something that there may be several of. Of `block`,
    `block_1`, `block_2` the first is one too, as Keras counts."""
    held: dict[str, set[str]] = {}
    for name in names:
        of = module(name)
        for prefix in prefixes(of):
            some = held.setdefault(prefix, set())
            if len(some) < 2:
                some.add(of)
    return frozenset(
        prefix
        for prefix, some in held.items()
        if len(some) > 1 and (_DIGITS.search(_last(prefix)) or f"{prefix[:-1]}_1{prefix[-1]}" in held)
    )


@dataclass(frozen=True)
class Relatives:
    """`modules`: source module -> target module. `blocks`: target block -> source block. `lost`: source blocks that go nowhere
    though others of their kind do. `wrappers`: what all names of a side begin with."""

    modules: Mapping[str, str]
    blocks: Mapping[str, str]
    lost: frozenset[str]
    wrappers: tuple[str, str] = ("", "")

    @staticmethod
    def of(
        known: Sequence[Relation],
        source: Sequence[str] | Mapping[str, object],
        target: Sequence[str] | Mapping[str, object],
    ) -> Relatives:
        """What known relations say of modules and blocks."""
        here, there = blocks(source), blocks(target)
        found = _blocks(known, here, there)
        used = set(found.values())
        reached = {prefix for relation in known for name in relation.sources for prefix in prefixes(name)}
        kinds = {_DIGITS.sub("#", block) for block in used}
        lost = frozenset(block for block in here if block not in reached and _DIGITS.sub("#", block) in kinds)
        return Relatives(
            _modules(known), {**found, **_aligned(known, found)}, lost, (_wrapper(source), _wrapper(target))
        )

    def block_of(self, target: str) -> str | None:
        """The source block that a target's block is from."""
        there = self.target_block(target)
        return None if there is None else self.blocks[there]

    def target_block(self, target: str) -> str | None:
        """The innermost block of the target that it is known where it is from."""
        return next((one for one in reversed(list(prefixes(_of_flax(target)))) if one in self.blocks), None)

    def allows(self, relation: Relation) -> bool:
        """Whether the sources of a relation are of the blocks that the known relatives of its targets are from."""
        for name in relation.targets:
            block = self.block_of(name)
            if block is not None and not all(self._is_of(one, block) for one in relation.sources):
                return False
        return True

    def near(self, source: str, target: str) -> bool:
        """Whether nothing known keeps a source from being a part of a target: both in blocks that belong together, or in none."""
        block = self.block_of(target)
        if block is not None:
            return self._is_of(source, block)
        return self.lost.union(self.blocks.values()).isdisjoint(prefixes(source))

    @staticmethod
    def _is_of(source: str, block: str) -> bool:
        """True where the source lies in no block that is like that one, or like one around it, and is another."""
        kinds = {_DIGITS.sub("#", one): one for one in prefixes(source)}
        return all(kinds.get(_DIGITS.sub("#", one), one) == one for one in prefixes(block))

    def rounds(self, wanted: Iterable[str]) -> Iterator[Round]:
        """All sources under the names of their relatives; then, again, those that further targets are made of. `wanted` are the
        targets that are looked for: modules of a kind that has none of them keep their names."""
        open_ = {_DIGITS.sub("#", module(name)) for name in wanted}
        modules = {here: there for here, there in self.modules.items() if _DIGITS.sub("#", there) in open_}
        several: dict[str, list[str]] = {}
        for there, here in self.blocks.items():
            several.setdefault(here, []).append(there)
        for number in range(max(1, min(MOST_ROUNDS, max(map(len, several.values()), default=0)))):
            given = {here: found[number] for here, found in several.items() if len(found) > number}
            served = frozenset(given.values())
            yield Round({**given, **modules} if number == 0 else given, served, is_first=number == 0)


@dataclass(frozen=True)
class Round:
    """Names for sources: prefix -> prefix of the target. `blocks` are the target's blocks that it serves."""

    given: Mapping[str, str]
    blocks: frozenset[str]
    is_first: bool

    def sources(self, relatives: Relatives, names: Iterable[str]) -> dict[str, str]:
        """Source -> what it is called in this round; not all of them are in it."""
        kept = (name for name in names if relatives.lost.isdisjoint(prefixes(name)))
        found = renamed(kept, self.given, relatives.wrappers if self.given else ("", ""))
        if self.is_first:
            return found
        return {name: new for name, new in found.items() if any(one in self.given for one in prefixes(name))}

    def targets(self, relatives: Relatives, names: Iterable[str]) -> list[str]:
        """The targets of this round."""
        found = []
        for name in names:
            block = relatives.target_block(name)
            if block in self.blocks or (block is None and self.is_first):
                found.append(name)
        return found


def renamed(names: Iterable[str], given: Mapping[str, str], wrappers: tuple[str, str] = ("", "")) -> dict[str, str]:
    """Name -> the name with its longest known prefix replaced, or else its wrapper. One that would be called as another is stands
    apart, under `other.`: it is no relative."""
    names = list(names)
    starts = {name: next((one for one in _starts(name) if one in given), None) for name in names}
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=lambda name: starts[name] is None):
        its = starts[name]
        new = wrappers[1] + name[len(wrappers[0]) :] if its is None else given[its] + name[len(its) :]
        while new in taken:
            new = f"other.{new}"
        taken.add(new)
        found[name] = new
    return {name: found[name] for name in names}


def _starts(name: str) -> Iterator[str]:
    yield module(name)
    yield from reversed(list(prefixes(name)))


def _wrapper(names: Iterable[str]) -> str:
    common: list[str] | None = None
    for name in names:
        own = list(prefixes(name))
        common = own if common is None else common[: sum(one == other for one, other in zip(common, own, strict=False))]
    return common[-1] if common else ""


def _of_flax(name: str) -> str:
    """A statistic of a Flax model, in the module that its scale is in."""
    return f"params{name[len(STATISTICS) :]}" if name.startswith((f"{STATISTICS}.", f"{STATISTICS}/")) else name


def _last(prefix: str) -> str:
    return _PIECE.split(prefix)[-2]


def _modules(known: Sequence[Relation]) -> dict[str, str]:
    found: dict[str, str] = {}
    for relation in known:
        if len(relation.sources) == len(relation.targets) == 1:
            here, there = module(relation.sources[0]), module(relation.targets[0])
            if here != relation.sources[0] and there != relation.targets[0]:
                found.setdefault(here, there)
    return found


def _aligned(known: Sequence[Relation], found: Mapping[str, str]) -> dict[str, str]:
    """Target prefix -> source prefix of modules that end alike, where all that is known of either leads to the other and the
    blocks do not say it: `layers.0.downsample.` of `layers.1.downsample.`."""
    forth: dict[str, set[str | None]] = {}
    back: dict[str, set[str | None]] = {}
    for relation in known:
        ours = [_alike(relation.sources[0], there) for there in relation.targets] if len(relation.sources) == 1 else []
        pairs = {there: here for both in ours for here, there in both}
        for name in relation.targets:
            for there in prefixes(name):
                forth.setdefault(there, set()).add(pairs.get(there))
        mirrored = {here: there for there, here in pairs.items()}
        for name in relation.sources:
            for here in prefixes(name):
                back.setdefault(here, set()).add(mirrored.get(here))
    made: dict[str, str] = {}
    for there, several in forth.items():
        (said, *others) = several
        block = next((found[one] for one in reversed(list(prefixes(there))) if one in found), None)
        if said is None or others or back[said] != {there} or block is None or said.startswith(block):
            continue
        made[there] = said
    return made


def _alike(source: str, target: str) -> list[tuple[str, str]]:
    """The prefixes of both names that are followed by the same pieces up to the last one."""
    here, there = list(prefixes(source)), list(prefixes(target))
    found = []
    for one, other in zip(reversed(here), reversed(there), strict=False):
        found.append((one, other))
        if _last(one) != _last(other):
            break
    return found


def _blocks(known: Sequence[Relation], here: frozenset[str], there: frozenset[str]) -> dict[str, str]:
    votes: dict[str, Counter[str]] = {}
    totals: Counter[str] = Counter()
    for relation in known:
        common = None
        for name in relation.sources:
            own = [one for one in prefixes(name) if one in here]
            common = own if common is None else [one for one in common if one in own]
        if common is None:
            continue
        for name in relation.targets:
            for block in prefixes(name):
                if block in there:
                    totals[block] += 1
                    votes.setdefault(block, Counter()).update(common)
    found: dict[str, str] = {}
    for block in sorted(votes, key=len):
        enough = [one for one, count in votes[block].items() if count >= MOST * totals[block]]
        best = max(enough, key=len, default=None)
        above = next((found[one] for one in reversed(list(prefixes(block))[:-1]) if one in found), None)
        if best is not None and best != above:
            found[block] = best
    return found
