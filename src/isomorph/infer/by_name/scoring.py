"""How much the names of two modules speak for them being one: a sum of log-likelihood ratios, or None where they exclude it.

After Fellegi and Sunter (1969): each feature adds what it is worth; the numbers were set on the conversions that are in the tests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from isomorph.infer.by_name.classes import HOLE, TensorClass
from isomorph.infer.by_name.links import Ranked, Ranks, ranks
from isomorph.infer.by_name.modules import PROJECTIONS, Module

HEADS = frozenset({
    "lm_head", "classifier", "nsp", "pooler", "transform", "head_dense", "vision_projection", "text_projection",
    "dist_classifier", "embedding", "projection_in",
})  # fmt: skip
EMBEDDINGS = frozenset(["word", "position", "token_type", "patch", "embedding"])
NOISE = frozenset({
    "model", "module", "layer", "layers", "block", "blocks", "h", "self", "attn", "attention", "mlp", "weight", "bias", "params",
    "target", "backbone", "base", "transformer", "encoder", "decoder", "embeddings", "embedding", "bert", "net", "network", "main",
    "root", "state", "dict", "kernel", "proj", "dense", "linear", "norm",
})  # fmt: skip
"""Words that are everywhere: they are no evidence of their own."""

LAYERED = frozenset({"block", "attention", "mlp"})
ROLE, NAME, CERTAIN, MARGIN = 6.0, 4.0, 4.0, 2.0
"""What an equal role is worth, and an equal name within the layer; what is certain, and by how much it must lead."""


@dataclass(frozen=True)
class Side:
    """One checkpoint, read."""

    modules: tuple[Module, ...]
    classes: tuple[TensorClass, ...]
    """All of them, those that are settled too: they say what values an index takes."""
    roles: frozenset[str] = frozenset()
    """The roles of all its modules that have a weight, of those that are settled too."""

    @staticmethod
    def of(modules: tuple[Module, ...], classes: tuple[TensorClass, ...]) -> Side:
        """A side of which nothing is settled."""
        return Side(modules, classes, frozenset(one.reading.role for one in modules if "weight" in one.leaves))

    @cached_property
    def ranks(self) -> Ranks:
        """The values of every index."""
        return ranks(self.classes)

    @cached_property
    def ranked(self) -> dict[str, Ranked]:
        """Template -> the class by ranks."""
        return {each.template: Ranked(each, self.ranks) for module in self.modules for each in module.leaves.values()}

    @cached_property
    def modalities(self) -> frozenset[str]:
        """The towers that names of this side mention."""
        return frozenset(tower for module in self.modules for tower in _modality(module))

    @cached_property
    def has_both_stacks(self) -> bool:
        """True when there are layers of an encoder and layers of a decoder, and the names say which."""
        stacks = {
            tower for module in self.modules if module.reading.context in LAYERED for tower in module.reading.towers
        }
        return {"stack.encoder", "stack.decoder"} <= stacks

    @cached_property
    def has_layers(self) -> bool:
        """True when layers have an index on this side: what stands outside of them is then no stack of them."""
        return any(module.container for module in self.modules)

    @cached_property
    def crossed(self) -> frozenset[tuple[str, ...]]:
        """Layers that have a cross attention."""
        return frozenset(module.scope for module in self.modules if module.reading.kind == "cross")

    def kind(self, module: Module) -> str:
        """Which attention a module is of: where a layer has a cross attention, the other one is its self attention."""
        reading = module.reading
        if reading.kind or reading.context != "attention":
            return reading.kind
        return "self" if module.scope in self.crossed else ""


def _modality(module: Module) -> frozenset[str]:
    return frozenset(tower for tower in module.reading.towers if tower.startswith("tower."))


class Scorer:
    """Scores modules of two sides against each other."""

    def __init__(self, source: Side, target: Side) -> None:
        self.source, self.target = source, target
        counts = Counter(word for side in (source, target) for module in side.modules for word in set(module.words))
        total = len(source.modules) + len(target.modules)
        self._words: dict[Module, tuple[list[str], frozenset[str]]] = {}
        self.weight = {word: math.log(1 + total / count) for word, count in counts.items()}

    def score(self, s: Module, t: Module) -> float | None:
        """The score of one module against one: what they are, and where they are."""
        role = self.role(s, t)
        place = self.place(s, t)
        return None if role is None or place is None else role + place

    def role(self, s: Module, t: Module) -> float | None:
        """By what they are called within their layer."""
        one, other = s.reading, t.reading
        a, b = one.role, other.role
        if "buffer" in (a, b) and a != b:
            return None
        value = self._names(s, t)
        if not a or not b:
            if one.rank and other.rank and one.rank[1] == other.rank[1]:
                value += 2 if one.rank == other.rank else -4
            if a in PROJECTIONS or b in PROJECTIONS:
                contexts = {one.context, other.context}
                value -= 3 if contexts == {"attention", "mlp"} else 0
            return value
        if a == b:
            if a == "box" and one.rank and other.rank and one.rank[1] == other.rank[1]:
                value += 0 if one.rank == other.rank else -4
            vague = a in ("norm.?", "norm.mlp", "norm.inner", "embedding", "layer_scale")
            return value + (1 if vague else ROLE)
        if a.startswith("norm") and b.startswith("norm"):
            return self._norms(a, b, value)
        if a in HEADS and b in HEADS:
            return value - 2
        if {a, b} == {"up", "gate_up"}:
            return value + ROLE - 1
        if {a, b} == {"word", "lm_head"}:
            return None if b in self.source.roles else value - 6
        if "embedding" in (a, b) and (a in EMBEDDINGS and b in EMBEDDINGS):
            return value
        if a.startswith("layer_scale") and b.startswith("layer_scale") and "layer_scale" in (a, b):
            return value
        return None

    @staticmethod
    def _norms(a: str, b: str, value: float) -> float | None:
        if "norm.?" in (a, b):
            return value if a.startswith("norm:") or b.startswith("norm:") else None
        if a.startswith("norm:") and b.startswith("norm:"):
            return value - 1 if a[5] == b[5] or ("/" in a + b and a.split("/")[-1] != b.split("/")[-1]) else None
        if {a, b} == {"norm.final", "norm.fc"}:
            return value - 2
        return value - 1 if {a, b} == {"norm.inner", "norm.mlp"} else None

    def _names(self, s: Module, t: Module) -> float:
        if s.inside and s.inside == t.inside and s.raw[len(s.block) :] == t.raw[len(t.block) :]:
            return NAME
        (left, a), (right, b) = self._telling(s), self._telling(t)
        if not a or not b:
            return 0.0
        if a == b and left != right:
            return NAME - MARGIN  # `token_to_image` is not `image_to_token`
        both = math.fsum(self.weight[word] for word in a & b)
        return 3 * both / math.fsum(self.weight[word] for word in a | b)

    def _telling(self, module: Module) -> tuple[list[str], frozenset[str]]:
        """The words of a module that are evidence: in order, and as a set."""
        if module not in self._words:
            words = [word for word in module.inside or module.words if word not in NOISE and word[0] != "#"]
            self._words[module] = words, frozenset(words)
        return self._words[module]

    def place(self, s: Module, t: Module) -> float | None:
        """By where they are: tower, encoder or decoder, which attention, in layers or outside."""
        value = 0.0
        one, other = s.reading, t.reading
        a, b = _modality(s), _modality(t)
        shared = self.source.modalities & self.target.modalities
        if a & b:
            value += 2
        elif a & shared and b & shared:
            return None
        elif (a & self.target.modalities and not b) or (b & self.source.modalities and not a):
            value -= 3
        if self.source.has_both_stacks or self.target.has_both_stacks:
            c, d = one.towers - a, other.towers - b
            both = self.source.has_both_stacks and self.target.has_both_stacks
            if c and d:
                if not c & d:
                    return None
                value += 2
            elif both and (c or d):
                value -= 1
        kinds = {self.source.kind(s), self.target.kind(t)}
        if kinds == {"self", "cross"}:
            return None
        if kinds == {"", "cross"}:
            value -= 3
        if one.is_shared != other.is_shared:
            value -= 8
        if one.in_experts != other.in_experts and one.context == other.context == "mlp":
            value -= 3
        if bool(s.block) != bool(t.block):
            side = self.target if s.block else self.source
            value -= 3 if "outside" in (one.context, other.context) or side.has_layers else 0
        return value + _numbers(s, t)


def _numbers(s: Module, t: Module) -> float:
    """The literal numbers on the way to the layer: stages of other widths."""
    a, b = s.stages, t.stages
    if len(a) != len(b):
        return 0.0
    value = 0.0
    for one, other in zip(a, b, strict=True):
        if one.split("/")[1] == other.split("/")[1]:
            value += 1 if one == other else -5
    return value


def parent(module: Module) -> tuple[str, ...]:
    """The words of all pieces but its last."""
    last = module.pieces[-1] if module.pieces else 0
    return tuple(word for word, piece in zip(module.raw, module.pieces, strict=True) if piece < last)


def is_in_layers(module: Module) -> bool:
    """True when one of its words is an index."""
    return HOLE in module.raw


def siblings(found: Sequence[Module]) -> Iterable[tuple[Module, ...]]:
    """Modules of one parent."""
    grouped: dict[tuple[str, ...], list[Module]] = {}
    for module in found:
        grouped.setdefault(parent(module), []).append(module)
    return (tuple(group) for group in grouped.values())
