"""Is a square matrix transposed? Certain where the field's convention and every sibling say the same; else it is asked.

A sibling is a tensor of the same kind (a linear layer, an embedding, a convolution) with the same last word on both sides, whose
shape does decide. Flax, Keras, TensorFlow and T5X call a matrix [in out] `kernel`; torch's `weight` is [out in].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from isomorph.infer.by_name.axes import Form
from isomorph.infer.by_name.correspondence import Link
from isomorph.infer.by_name.tokens import words
from isomorph.infer.nouns import Part, Relation
from isomorph.tensors import Manifest

CONVENTION: Mapping[tuple[str, str], str] = {
    ("weight", "kernel"): "transposed",
    ("kernel", "weight"): "transposed",
    ("kernel", "kernel"): "kept",
    ("weight", "embedding"): "kept",
    ("embedding", "weight"): "kept",
    ("weight", "embeddings"): "kept",
    ("embeddings", "weight"): "kept",
    ("embedding", "embedding"): "kept",
}
"""Last words of source and target -> what becomes of a matrix between them, as the libraries that use these words have it."""
EMBEDDINGS = frozenset(
    {
        "embed",
        "embedding",
        "embeddings",
        "emb",
        "embd",
        "embedder",
        "wte",
        "wpe",
        "shared",
        "position",
        "positional",
        "pos",
    }
)
NO_EMBEDDING = frozenset({"proj", "projection", "patch", "dense", "kernel", "conv", "attention", "mlp"})

Class = tuple[str, str, str]
"""The kind of a tensor, and the last words of its source and of its target."""


@dataclass(frozen=True)
class Member:
    """A link, the forms that are left for it, and what it is called in questions (the template of its target)."""

    link: Link
    key: str
    forms: tuple[Form, ...]
    kind: Class
    role: str = ""

    @property
    def is_in_layers(self) -> bool:
        """Whether an index counts it."""
        return "{}" in self.key

    @property
    def turns(self) -> tuple[tuple[str, str], ...]:
        """The ways in which its dims may lie."""
        return tuple(dict.fromkeys((form.turn, form.cut) for form in self.forms))

    @property
    def orders(self) -> tuple[str, ...]:
        """The ways in which its parts may lie."""
        return tuple(dict.fromkeys(form.order for form in self.forms))


def leaf(name: str) -> str:
    """The last word of a name: `kernel` of `dense/kernel:0`."""
    return name.removesuffix(":0").replace("/", ".").rsplit(".", 1)[-1].rsplit(":", 1)[-1].lower()


def kind_of(source: str, target: str, sides: tuple[Manifest, Manifest]) -> Class:
    """What kind of tensor a pair is: `convolution`, `embedding` or `linear`; and the last words."""
    ranks = {len(sides[0][source].shape), len(sides[1][target].shape)}
    kind = "linear"
    if ranks & {4, 5}:
        kind = "convolution"
    elif _is_embedding(source) or _is_embedding(target):
        kind = "embedding"
    return kind, leaf(source), leaf(target)


def _is_embedding(name: str) -> bool:
    found = frozenset(words(name.removesuffix(leaf(name)))) or frozenset(words(name))
    return bool(found & EMBEDDINGS) and not found & NO_EMBEDDING


@dataclass(frozen=True)
class Siblings:
    """How many tensors of each class are turned how, where nothing else was possible."""

    turns: Mapping[Class, Counter[str]]
    in_layers: Mapping[Class, Counter[str]] = field(default_factory=dict)
    """The same of those inside numbered layers: a tied head beside them may lie otherwise."""

    def near(self, member: Member) -> Counter[str]:
        """The turns of a member's class: those in layers, for one that is in a layer."""
        return self.in_layers.get(member.kind, Counter()) if member.is_in_layers else self.of(member.kind)

    def of(self, kind: Class) -> Counter[str]:
        """The turns of a class."""
        return self.turns.get(kind, Counter())

    def likely(self, kind: Class) -> str | None:
        """The turn of most siblings; of any last words where none have these; None without any."""
        found = self.of(kind)
        if not found:
            for each in sorted(self.turns):
                if each[0] == kind[0]:
                    found = found + self.turns[each]
        return max(sorted(found), key=found.__getitem__) if found else None


def siblings(members: Sequence[Member], known: Sequence[Relation], sides: tuple[Manifest, Manifest]) -> Siblings:
    """What the members that have one turn left, and the known relations that are no squares, say."""
    turns: dict[Class, Counter[str]] = {}
    in_layers: dict[Class, Counter[str]] = {}
    for member in members:
        found = {form.turn for form in member.forms}
        if len(found) == 1 and "" not in found:
            turns.setdefault(member.kind, Counter()).update(found)
            if member.is_in_layers:
                in_layers.setdefault(member.kind, Counter()).update(found)
    for relation in known:
        turn = turn_of(relation)
        if turn:
            kind = kind_of(relation.sources[0], relation.targets[0], sides)
            turns.setdefault(kind, Counter())[turn] += 1
    return Siblings(turns, in_layers)


def turn_of(relation: Relation) -> str:
    """`kept` or `transposed` for a relation of two matrices that have the same two axes, "" for another."""
    if len(relation.left) != 1 or len(relation.right) != 1:
        return ""
    left, right = relation.left[0], relation.right[0]
    if not (isinstance(left, Part) and isinstance(right, Part)) or left.along or right.along or len(left.names) != 1:
        return ""
    here = [product for dim in left.dims for product in dim if product]
    there = [product for dim in right.dims for product in dim if product]
    if len(here) != 2 or len(there) != 2:
        return ""
    if {*here[0]} == {*there[0]}:
        return "kept"
    return "transposed" if {*here[0]} == {*there[1]} and {*here[1]} == {*there[0]} else ""


def settled(member: Member, around: Siblings, is_same: bool) -> Member:
    """The member without the turns that convention and siblings rule out, or as it was."""
    turns = {turn for turn, _ in member.turns}
    if len(turns) < 2:
        return member
    if is_same and "kept" in turns:
        return _only(member, "kept")
    seen = around.of(member.kind)
    if len(seen) != 1:
        return member
    (turn,) = seen
    is_sure = member.kind[0] == "convolution" or turn == CONVENTION.get((member.kind[1], member.kind[2]))
    return _only(member, turn) if turn in turns and is_sure else member


def _only(member: Member, turn: str) -> Member:
    return replace(member, forms=tuple(form for form in member.forms if form.turn == turn))


def is_same_layout(source: Manifest, target: Manifest) -> bool:
    """Whether both sides have the very same names and shapes, and some matrix that is no square and no embedding shows by each last
    word that nothing is turned."""
    if set(source) != set(target) or any(source[name].shape != target[name].shape for name in source):
        return False
    squares: set[str] = set()
    shown: set[str] = set()
    for name, spec in source.items():
        if len(spec.shape) == 2 and not _is_embedding(name):
            (squares if spec.shape[0] == spec.shape[1] else shown).add(leaf(name))
    return squares <= shown
