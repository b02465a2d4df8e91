"""Classes -> modules: a weight, its bias and its statistics together, with what the words of the field say of them.

The name is read from left to right, each phrase in the context that the ones before it made: `output.dense` is the attention's
output projection below `attention`, the second matrix of the mlp below a layer. What the siblings decide comes after: of two
numbered matrices of an mlp the first goes up; the norms of a block are counted in the order in which they act.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from isomorph.infer.by_name.classes import CONTAINERS, HOLE, TensorClass
from isomorph.infer.by_name.lexicon import Lexicon, Meaning, lexicon

PROJECTIONS = frozenset(
    ["query", "key", "value", "out", "qkv", "kv", "up", "down", "gate", "gate_up", "router", "shared_router"]
)
WEAK = frozenset({"out", "down", "up", "numbered"})
"""What `proj`, `dense`, `output` may mean where nothing more telling stands."""
PLURAL = frozenset(["layers", "blocks", "encoderblock", "decoderblock", "resblocks", "encoder_layers"])
"""Containers that need no number: their layers are stacked into one tensor."""
COLLECTIONS = (("params",), ("batch", "stats"))
"""What the variables of a Flax model are filed under."""
_RANK = re.compile(r"#([0-9]+)/([0-9]+)")


@dataclass(frozen=True)
class Reading:
    """What the words of a module's name say."""

    role: str = ""
    kind: str = ""
    """Of an attention: `self` or `cross`."""
    context: str = "outside"
    towers: frozenset[str] = frozenset()
    rank: tuple[int, int] | None = None
    """The last literal number among its siblings, where it tells them apart."""
    is_shared: bool = False
    in_experts: bool = False
    known: frozenset[int] = frozenset()
    """Which of its words the lexicon knows."""


@dataclass(frozen=True, eq=False)
class Module:
    """Classes of one parent, by leaf (`weight`, `bias`, …)."""

    words: tuple[str, ...]
    raw: tuple[str, ...]
    pieces: tuple[int, ...]
    leaves: Mapping[str, TensorClass]
    reading: Reading = field(default_factory=Reading)

    @cached_property
    def main(self) -> TensorClass:
        """Its weight, or else its largest tensor."""
        return self.leaves.get("weight") or max(self.leaves.values(), key=lambda each: len(each.shape))

    @cached_property
    def path(self) -> str:
        """Its words, for the eye and for sorting."""
        return ".".join(self.raw)

    @cached_property
    def container(self) -> tuple[str, ...]:
        """Its words up to the first index: the stack of layers that it is in; () outside."""
        return self.raw[: self.raw.index(HOLE) + 1] if HOLE in self.raw else ()

    @cached_property
    def block(self) -> tuple[str, ...]:
        """Its words up to the last index: the layer that it is in."""
        last = max((at for at, word in enumerate(self.raw) if word == HOLE), default=-1)
        return self.raw[: last + 1]

    @cached_property
    def scope(self) -> tuple[str, ...]:
        """Its layer; where layers are stacked into one tensor, its tower."""
        return self.block or ("", *sorted(self.reading.towers))

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The literal numbers among its words up to the last index."""
        return tuple(word for word in self.words[: len(self.block)] if word.startswith("#"))

    @cached_property
    def inside(self) -> tuple[str, ...]:
        """Its words after the last index."""
        return self.words[len(self.block) :]


def modules(found: Iterable[TensorClass], book: Lexicon | None = None) -> tuple[Module, ...]:
    """The modules of these classes, read."""
    book = book or lexicon()
    grouped: dict[tuple[str, ...], dict[str, tuple[TensorClass, tuple[int, ...]]]] = defaultdict(dict)
    for each in found:
        leaf, kept = leaf_of(each, book)
        stem = tuple(each.raw[at] for at in kept)
        if leaf in grouped[stem]:
            stem, kept = each.raw, tuple(range(len(each.raw)))
        grouped[stem][leaf] = (each, kept)
    made = []
    for stem, leaves in grouped.items():
        if not leaves:
            continue
        first, kept = next(iter(leaves.values()))
        module = Module(
            tuple(first.words[at] for at in kept),
            stem,
            tuple(first.pieces[at] for at in kept),
            {leaf: each for leaf, (each, _) in leaves.items()},
        )
        made.append(reading_of(module, book))
    return tuple(_ordered_norms(_numbered_mlps(_doubtful(made, book))))


def _doubtful(made: list[Module], book: Lexicon) -> list[Module]:
    """Without the role of an output for what only ends in `proj`, beside another output of the same attention: `omega_proj`."""
    out = list(made)
    groups: dict[object, list[int]] = defaultdict(list)
    for at, module in enumerate(made):
        reading = module.reading
        if reading.role == "out" and len(module.main.shape) > 1:
            groups[module.scope, reading.kind, reading.towers, module.raw[: _last_piece(module)]].append(at)
    for group in groups.values():
        unknown = [
            at for at in group if not made[at].reading.known.issuperset(range(_last_piece(made[at]), len(made[at].raw)))
        ]
        for at in unknown if len(group) > 1 else ():
            out[at] = replace(made[at], reading=replace(made[at].reading, role=""))
    return out


def _last_piece(module: Module) -> int:
    return module.pieces.index(module.pieces[-1])


def leaf_of(each: TensorClass, book: Lexicon) -> tuple[str, tuple[int, ...]]:
    """What its last words say the tensor is, and which words are left: all where nothing says it (it is a weight then).
    Of the names of Flax, the collection is left out, so that a norm's statistics are of the module of its scale."""
    leaf, kept = _leaf(each, book)
    for collection in COLLECTIONS:
        if each.raw[: len(collection)] == collection and each.pieces[len(collection) :][:1] > each.pieces[:1]:
            return leaf, tuple(at for at in kept if at >= len(collection)) or kept
    return leaf, kept


def _leaf(each: TensorClass, book: Lexicon) -> tuple[str, tuple[int, ...]]:
    raw, pieces = each.raw, each.pieces
    everything = tuple(range(len(raw)))
    start = len(raw) - 1
    while start > 0 and pieces[start - 1] == pieces[-1]:
        start -= 1
    whole = raw[start:]
    if start > 1 and raw[start - 1 :] in book.leaves:
        return book.leaves[raw[start - 1 :]], everything[: start - 1]
    if start > 0 and whole in book.leaves:
        return book.leaves[whole], everything[:start]
    if raw[-1] == HOLE and raw[-2:-1] in book.endings and len(raw) > 2:
        return book.endings[raw[-2:-1]], (*everything[:-2], everything[-1])
    if raw[-1:] in book.endings and raw[-2:] != ("attention", "bias"):
        return book.endings[raw[-1:]], everything[:-1]
    return "weight", everything


def reading_of(module: Module, book: Lexicon) -> Module:
    """The module with what the words of its name say. A vector in a shortcut (`downsample.1`) is its norm, and
    what has a bias is no token (DETR's `class_embed`)."""
    reading = _read(module, book)
    if reading.role == "class_token" and "bias" in module.leaves:
        reading = replace(reading, role="classifier")
    if reading.role == "shortcut" and len(module.main.shape) == 1:
        reading = replace(reading, role="norm.shortcut")
    return replace(module, reading=reading)


def _read(module: Module, book: Lexicon) -> Reading:
    raw, words = module.raw, module.words
    role = kind = ""
    context = "outside"
    towers: set[str] = set()
    rank: tuple[int, int] | None = None
    shared = experts = False
    known: set[int] = set()
    at = 0
    while at < len(raw):
        step = 1
        tables = (context, "any", "outside") if context == "block" and HOLE not in raw else (context, "any")
        found = book.look_up(tables, raw, module.pieces, at)
        if context == "outside":
            inner = book.look_up(("block",), raw, module.pieces, at)
            if inner is not None and (inner[1].is_place or not inner[1].tag) and (found is None or inner[0] > found[0]):
                found = inner
                context = "block"
        number = _RANK.fullmatch(words[at])
        if raw[at] == HOLE:
            if context in ("outside", "embedding", "head"):
                context, role = "block", ""
            rank = None
        elif found is not None:
            step, meaning = found
            known.update(range(at, at + step))
            tag, _, flag = meaning.tag.partition("+")
            shared, experts = shared or flag == "shared", experts or flag == "experts"
            if tag.startswith(("tower.", "stack.")):
                if context != "block" or tag.startswith("tower."):
                    towers.add(tag)
            elif tag == "shared":
                shared = True
            elif tag == "experts":
                experts = True
            elif tag == "self":
                kind = kind or "self"
            elif tag.startswith("norm"):
                role = _norm(tag, role, context)
                towers.update(f"stack.{word}" for word in raw[at : at + step] if word in ("encoder", "decoder"))
            elif tag and _is_new(tag, meaning, role, context, rank):
                role = tag
            if meaning.context and not role.startswith("norm"):
                context = meaning.context
                kind = meaning.kind or kind
                rank = rank if context == "attention" else None
        elif number is not None:
            rank = (int(number[1]), int(number[2]))
            if raw[at - 1] in CONTAINERS and context == "outside":
                context, role = "block", ""
        elif raw[at] in PLURAL and context in ("outside", "embedding"):
            context, role = "block", ""
        if raw[at].isdigit() and at and raw[at - 1] in CONTAINERS and context in ("outside", "embedding"):
            context, role = "block", ""
        at += step
    if context == "embedding" and not role:
        role = "embedding"
    return Reading(
        "" if role == "numbered" else role, kind, context, frozenset(towers), rank, shared, experts, frozenset(known)
    )


def _is_new(tag: str, meaning: Meaning, role: str, context: str, rank: tuple[int, int] | None) -> bool:
    """True when a phrase says more than those before it: `proj` after `query`, or after a number, says nothing."""
    if role.startswith("norm") or (tag in ("lm_head", "classifier") and role and not meaning.context):
        return False
    if tag in WEAK and rank is not None and context == "mlp":
        return False
    return not (role in PROJECTIONS and tag in WEAK and not (context == "block" and meaning.context))


def _norm(tag: str, role: str, context: str) -> str:
    """A norm's place, from its own words or from what it stands in: 10 before attention … 39 after the mlp."""
    if tag not in ("norm", "norm.15", "norm.inner"):
        return tag
    if role.startswith("norm."):
        return role
    if role == "shortcut":
        return "norm.shortcut"
    beside = {
        ("attention", "out"): "norm.19",
        ("attention", "qkv"): "norm.10",
        ("attention", "query"): "norm.q",
        ("attention", "key"): "norm.k",
        ("mlp", "down"): "norm.39",
        ("mlp", "up"): "norm.30",
        ("mlp", "linear_fc1"): "norm.30",
    }
    if (context, role) in beside:
        return beside[context, role]
    if context == "attention":
        return "norm.12"
    if context == "mlp":
        return "norm.inner" if tag == "norm.inner" else "norm.mlp"
    if context == "block":
        return "norm.15"
    return "norm.final" if context == "outside" else "norm.pre" if context == "embedding" else "norm.head"


def _siblings(made: Sequence[Module], wanted: str) -> Iterable[list[int]]:
    groups: dict[object, list[int]] = defaultdict(list)
    for at, module in enumerate(made):
        reading = module.reading
        if wanted == "mlp" and reading.context == "mlp" and not reading.role.startswith("norm"):
            groups[(module.scope, reading.is_shared, _sub_block(module), reading.in_experts)].append(at)
        if wanted == "norm" and reading.role.startswith("norm.") and reading.context in ("block", "attention", "mlp"):
            groups[module.scope].append(at)
    return groups.values()


def _sub_block(module: Module) -> tuple[str, ...]:
    """Literal numbers of whole pieces before the last one, which tell apart the mlps of one layer."""
    whole = [
        at
        for at, word in enumerate(module.words)
        if word.startswith("#") and module.pieces.count(module.pieces[at]) == 1
    ]
    return tuple(module.words[at] for at in whole if at >= len(module.block) and at < len(module.words) - 2)


def _numbered_mlps(made: list[Module]) -> list[Module]:
    """Up, gate and down for the matrices of an mlp that only their numbers or shapes tell apart."""
    out = list(made)
    for group in _siblings(made, "mlp"):
        matrices = [at for at in group if len(made[at].main.shape) > 1]
        roles = {made[at].reading.role for at in matrices}
        open_ = [at for at in matrices if not made[at].reading.role]
        for at in matrices:
            if made[at].reading.role in ("linear_fc1", "linear_fc2"):
                new = "down" if made[at].reading.role == "linear_fc2" else "up"
                out[at] = replace(made[at], reading=replace(made[at].reading, role=new))
        ranks = [made[at].reading.rank for at in open_]
        names: list[str] = []
        numbered = all(rank is not None and rank[1] == len(open_) for rank in ranks)
        order = sorted(open_, key=lambda at: made[at].reading.rank or (0, 0))
        if len(open_) == 1 and "down" in roles and "up" not in roles:
            names = ["up"]
        elif numbered and len(open_) == 2:
            # the activated one is the gate: T5's wi_0, LitGPT's fc_1
            names = ["gate", "up"] if "down" in roles else ["up", "down"]
            if roles.isdisjoint({"down", "gate", "gate_up"}) and "up" in roles:
                names = ["gate", "down"]  # DBRX: w1, v1, w2
            elif not roles.isdisjoint({"gate", "up", "gate_up"}):
                names = []
        elif numbered and len(open_) == 3 and len(matrices) == 3:
            one, two, three = (sorted(made[at].main.shape) and made[at].main.shape for at in order)
            if one == three != two:
                names = ["gate", "down", "up"]
            elif one == two != three:
                names = ["gate", "up", "down"]
        for at, role in zip(order, names, strict=False):
            out[at] = replace(made[at], reading=replace(made[at].reading, role=role))
    return out


def _ordered_norms(made: list[Module]) -> list[Module]:
    """Which norm of its block each is: `norm:a`, `norm:c`, `norm:m` act around the attention, the cross attention and the mlp;
    with a digit where there are two. By the places that their names say, and by their numbers."""
    out = list(made)
    crossed = {module.scope for module in made if module.reading.kind == "cross"}
    unknown = {module.scope for module in made if not module.reading.role and len(module.main.shape) == 1}
    for group in _siblings(made, "norm"):
        placed = [at for at in group if made[at].reading.role.removeprefix("norm.").isdigit()]
        if not placed:
            continue
        block = made[placed[0]].scope
        named = _places([made[at] for at in placed], block in crossed, block in unknown)
        for at, role in zip(placed, named, strict=True):
            out[at] = replace(made[at], reading=replace(made[at].reading, role=role))
    return out


def _places(norms: Sequence[Module], is_crossed: bool, has_unknown: bool) -> list[str]:
    places = [int(module.reading.role.removeprefix("norm.")) for module in norms]
    if places == [NUMBERED] and has_unknown:
        return ["norm.?"]  # `norm2` beside another that no word calls a norm: not the first by being alone
    numbered = [at for at, place in enumerate(places) if place == NUMBERED and norms[at].reading.rank is not None]
    order = sorted(numbered, key=lambda at: norms[at].reading.rank or (0, 0))
    if len({norms[at].reading.rank for at in numbered}) < len(numbered):
        return ["norm.?"] * len(norms)
    others = len(norms) - len(numbered)
    if len(numbered) == 2:
        spread = [10, 30]
    elif len(numbered) == 3 and is_crossed and not others:
        spread = [10, 20, 30]
    elif len(numbered) > 2 and not others:
        return [f"norm:{order.index(at) + 1}/{len(norms)}" for at in range(len(norms))]
    else:
        spread = list(range(NUMBERED, NUMBERED + len(numbered)))
    for at, place in zip(order, spread, strict=True):
        places[at] = place
    if len(set(places)) < len(places):
        return ["norm.?"] * len(norms)
    ranked = sorted(places)
    decades = [place // 10 for place in ranked]
    if len(places) == 2 and decades[0] == 1 and (decades[1] == 3 or (ranked[1] in (NUMBERED, 19) and not has_unknown)):
        letters = ["a", "m"]
    elif len(set(decades)) == len(decades) and (len(decades) > 1 or ranked[0] != 19):
        letters = ["?acm"[decade] for decade in decades]
    elif len(places) == 4 and decades[1] == 1 and decades[2] == 3:
        letters = ["a1", "a2", "m1", "m2"]
    elif len(places) == 3 and is_crossed and decades[0] == 1 and not has_unknown:
        letters = ["a", "c", "m"]
    else:
        letters = [f"{'?acm'[place // 10]}.{place % 10}" for place in ranked]
    return [f"norm:{letters[ranked.index(place)]}" for place in places]


NUMBERED = 15
"""The place of a norm that only a number, or nothing, tells from the others of its block."""
