"""All ways in which modules of the source could make modules of the target, each with its links and its score."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from isomorph.infer.by_name.correspondence import Bundle, Link
from isomorph.infer.by_name.links import alike, link, padded
from isomorph.infer.by_name.modules import Module
from isomorph.infer.by_name.scoring import ROLE, Scorer, Side, parent

FUSED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "qkv": (("query", "key", "value"), ("query", "kv")),
    "kv": (("key", "value"),),
    "gate_up": (("gate", "up"),),
    "up": (("gate", "up"),),
}
"""A fused role -> the roles it is made of."""
PADDED = frozenset({"word", "lm_head", "position"})
MOST_SIBLINGS = 6
"""Of how many modules without a known role combinations are tried."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """These source modules make these target modules: one of each, or several on one side."""

    sources: tuple[Module, ...]
    targets: tuple[Module, ...]
    links: Mapping[str, tuple[Link, ...]]
    """Leaf -> the links of its tensors."""
    score: float
    is_whole: bool = True
    """False when only some of the members have a counterpart, or a side is padded."""

    @property
    def why(self) -> str:
        """What it rests on."""
        roles = dict.fromkeys(module.reading.role for module in (*self.sources, *self.targets) if module.reading.role)
        return " + ".join(roles) or "names"


def single(scorer: Scorer, s: Module, t: Module) -> Candidate | None:
    """One module of each side, where names and shapes allow it."""
    score = scorer.score(s, t)
    if score is None:
        return None
    links: dict[str, tuple[Link, ...]] = {}
    whole = True
    main = True
    for leaf in s.leaves.keys() & t.leaves.keys():
        found = _leaf_link(scorer, (s,), (t,), leaf)
        if found is None and leaf == "weight":
            found = _padded_link(scorer, s, t) if s.reading.role == t.reading.role in PADDED else None
            main = found is not None
            score -= 1
        if found is not None:
            links[leaf], entire = found
            whole = whole and entire
    if not main or not links:
        return None
    exact = s.main.shape == t.main.shape
    missing = len(s.leaves.keys() ^ t.leaves.keys())
    return Candidate((s,), (t,), links, score + 0.5 * exact - 0.25 * missing - (0 if whole else 1), whole)


def _leaf_link(
    scorer: Scorer, sources: Sequence[Module], targets: Sequence[Module], leaf: str
) -> tuple[tuple[Link, ...], bool] | None:
    left = [scorer.source.ranked[module.leaves[leaf].template] for module in sources]
    right = [scorer.target.ranked[module.leaves[leaf].template] for module in targets]
    if len(left) == len(right) == 1:
        a, b = left[0], right[0]
        if not _may_balance(a.of.shape, len(a.names), b.of.shape, len(b.names)):
            return None
        roles = [_role(sources[0], targets[0])]
        if len(a.sizes) >= len(b.sizes):
            return link(b, left, roles, is_target=True)
        return link(a, right, roles, is_target=False)
    if len(right) == 1:
        return link(right[0], left, [module.reading.role for module in sources], is_target=True)
    return link(left[0], right, [module.reading.role for module in targets], is_target=False)


def _role(s: Module, t: Module) -> str:
    """What the tensors of both are: what either name says, fused ones first. Where neither says it, a matrix of three squares may
    be queries, keys and values."""
    roles = [role for role in (s.reading.role, t.reading.role) if role]
    rows = sorted(size for size in s.main.shape if size != 1)
    if not roles and len(rows) == 2 and rows[1] == 3 * rows[0]:
        return "qkv"
    return next((role for role in roles if role in FUSED and role != "up"), next(iter(roles), ""))


def _may_balance(one: tuple[int, ...], count: int, other: tuple[int, ...], others: int) -> bool:
    """A quick look before the members are compared."""
    if count == others == 1:
        return alike(one, other)
    return alike(one, other) or math.prod(one) * count == math.prod(other) * others or count == others


def _padded_link(scorer: Scorer, s: Module, t: Module) -> tuple[tuple[Link, ...], bool] | None:
    a, b = s.leaves["weight"], t.leaves["weight"]
    if len(a.members) != 1 or len(b.members) != 1 or not padded(a.shape, b.shape):
        return None
    names = [next(iter(each.members.values())) for each in (a, b)]
    surplus = math.prod(a.shape) - math.prod(b.shape)
    return (
        Link((Bundle((names[0],), (), s.reading.role),), (Bundle((names[1],), (), t.reading.role),), surplus),
    ), True


def candidates(scorer: Scorer) -> list[Candidate]:
    """All candidates, in the order of targets, then sources."""
    out = [found for s, t in _pairs(scorer) if (found := single(scorer, s, t)) is not None]
    if _has_class_row(scorer):
        doubtful = {"class_token", "position"}
        out = [each for each in out if not {each.sources[0].reading.role, each.targets[0].reading.role} <= doubtful]
    out += fused(scorer, into_target=True)
    out += fused(scorer, into_target=False)
    return out


def _pairs(scorer: Scorer) -> Iterator[tuple[Module, Module]]:
    """The modules whose weights could be one another's by their shapes alone: thousands of modules have few shapes."""
    fitting: dict[_Weight | None, list[Module]] = {}
    weights = [(s, _weight(s, scorer.source)) for s in scorer.source.modules]
    for t in scorer.target.modules:
        weight = _weight(t, scorer.target)
        if weight not in fitting:
            fitting[weight] = [s for s, other in weights if _could_be(other, weight)]
        for s in fitting[weight]:
            yield s, t


_Weight = tuple[tuple[int, ...], int, str]
"""The shape of a weight, its count, and the role of its module where that may be padded."""


def _weight(module: Module, side: Side) -> _Weight | None:
    found = module.leaves.get("weight")
    role = module.reading.role
    if found is None:
        return None
    return found.shape, len(side.ranked[found.template].names), role if role in PADDED else ""


def _could_be(one: _Weight | None, other: _Weight | None) -> bool:
    if one is None or other is None:
        return True
    return _may_balance(*one[:2], *other[:2]) or one[2] == other[2] != ""


def _has_class_row(scorer: Scorer) -> bool:
    """True when one side has a position more, by one, than the other and both have a class token: the row of that token may be in
    the positions or added to the token, which is a sum of two tensors. Then neither is said."""
    rows: list[set[int]] = []
    for side in (scorer.source, scorer.target):
        width = {
            module.main.shape[-1]
            for module in side.modules
            if module.reading.role == "class_token" and module.main.shape
        }
        positions = [module.main.shape for module in side.modules if module.reading.role == "position"]
        rows.append({math.prod(shape) // shape[-1] for shape in positions if shape and shape[-1] in width})
    return any(one + 1 in rows[1] or one - 1 in rows[1] for one in rows[0] - rows[1])


def fused(scorer: Scorer, *, into_target: bool) -> Iterator[Candidate]:
    """Several modules of one side that are one module of the other."""
    whole, parts = (scorer.target, scorer.source) if into_target else (scorer.source, scorer.target)
    groups = list(_groups(parts.modules))
    taken = {(module.scope, module.reading.role) for module in whole.modules}
    for one in whole.modules:
        role = one.reading.role
        if role and role not in FUSED:
            continue
        if role == "up" and (one.scope, "gate") in taken:
            continue
        for group, fits in groups:
            if role and role not in fits:
                continue
            if not _could_fuse(one, group):
                continue
            score = _context(scorer, one, group, into_target)
            if score is None:
                continue
            named = bool(role) and all(module.reading.role for module in group)
            sources, targets = (group, (one,)) if into_target else ((one,), group)
            links = {}
            entire = True
            for leaf in one.leaves:
                if all(leaf in module.leaves for module in group):
                    found = _leaf_link(scorer, sources, targets, leaf)
                    if found is not None:
                        links[leaf], each = found
                        entire = entire and each
            main = next(iter({"weight"} & one.leaves.keys()), None)
            if links and (main is None or main in links):
                yield Candidate(sources, targets, links, score + (ROLE + 2 if named else 0), entire)


def _could_fuse(one: Module, group: Sequence[Module]) -> bool:
    """Whether the elements of their weights agree, where each of them is one tensor; a quick look."""
    whole = one.leaves.get("weight")
    if whole is None:
        return True
    parts = [module.leaves.get("weight") for module in group]
    if any(part is None for part in parts):
        return False
    found = [part for part in parts if part is not None]
    if any(len(each.members) > 1 for each in (whole, *found)):
        return True
    return math.prod(whole.shape) == sum(math.prod(part.shape) for part in found)


def _context(scorer: Scorer, one: Module, group: Sequence[Module], into_target: bool) -> float | None:
    found = []
    for module in group:
        value = scorer.place(module, one) if into_target else scorer.place(one, module)
        if value is None:
            return None
        found.append(value)
    return sum(found) / len(found)


def _groups(modules: Sequence[Module]) -> Iterator[tuple[tuple[Module, ...], frozenset[str]]]:
    """Sets of sibling modules that may be one on the other side, and the fused roles they may have there."""
    below: dict[tuple[object, ...], list[Module]] = defaultdict(list)
    for module in modules:
        below[(parent(module), module.reading.kind, module.reading.is_shared)].append(module)
    for siblings in below.values():
        by_role: dict[str, list[Module]] = defaultdict(list)
        for module in siblings:
            by_role[module.reading.role].append(module)
        wanted: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for role, ways in FUSED.items():
            for way in ways:
                wanted[way].add(role)
        for way, roles in wanted.items():
            if all(len(by_role[role]) == 1 for role in way):
                yield tuple(by_role[role][0] for role in way), frozenset(roles)
        unknown = [module for module in by_role[""] if len(module.main.shape) > 1]
        if 2 <= len(unknown) <= MOST_SIBLINGS:
            for length, roles in ((2, {"kv", "gate_up", "up"}), (3, {"qkv"})):
                for chosen in itertools.combinations(unknown, length):
                    yield chosen, frozenset(roles)
