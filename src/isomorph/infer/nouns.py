"""Relation, Question, Draft, Inference: what inference finds, before and after it is a morph. Plain data; opens no file.

A Relation is one equation of the notation about *these* tensors: names without holes, axes with sizes. Evidence of any kind ends in
relations; generalising turns many of them into few rules. A Question is a choice between relations that the evidence leaves open.

    values ─┐
    names ──┼─▶ Relations, Questions ─▶ Draft ──generalise──▶ Module (the morph) ──plan, read-back, verify──▶ Inference
    layouts ┘
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isomorph.language.tree import Op
from isomorph.tensors import DType

Product = tuple[str, ...]
"""Axes, outermost first; `()` is the unit axis."""
Dim = tuple[Product, ...]
"""A sum of products: one dim of a tensor. `(("h", "d"),)` is `(h d)`, `(("q",), ("k",))` is `(q + k)`, `((),)` is `1`."""

Evidence = Literal["values", "names", "catalogue", "function", "answer", "constant"]
"""What a relation rests on. `values`: the elements themselves; `function`: both models were run."""
EVIDENCE: tuple[Evidence, ...] = ("values", "constant", "catalogue", "function", "answer", "names")


@dataclass(frozen=True, slots=True)
class Part:
    """One tensor of a relation, or a grid of tensors that differ in their names alone.

    `names` are row-major along `along`: one name where `along` is empty, three for `along=("p",)` with `p` of size 3, sixteen for
    ("e", "w") of 8 and 2. The axes of `along` are axes of each of these tensors that stand before its dims (LANGUAGE.md 3.7).
    `copies` are further grids of names, each as long as `names`, whose tensors equal these bit for bit (ties).
    """

    names: tuple[str, ...]
    dims: tuple[Dim, ...]
    along: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()

    @property
    def every(self) -> Iterator[str]:
        """All names, copies too."""
        yield from self.names
        for copy in self.copies:
            yield from copy


@dataclass(frozen=True, slots=True)
class Filled:
    """A constant tensor: `text` as the notation writes the number (`0`, `-1.5`, `arange`), with its dtype."""

    text: str
    dims: tuple[Dim, ...]
    dtype: DType | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """The tensor that goes nowhere: elements of the other side that this side does not hold."""

    dims: tuple[Dim, ...]


Side = tuple[Part | Filled | Dropped, ...]


@dataclass(frozen=True)
class Relation:
    """`left <-> right | operators`: an equation between these tensors of the source (left) and of the target (right).

    Axes are symbols without meaning beyond the relation (`a`, `b`, …, or better ones where they are known), each with its size.
    Every axis is used on both sides, the blocks of the two sides pair as in LANGUAGE.md 3.8 to 3.10, and the shapes of all
    tensors follow. Operators act in the direction source -> target; `one_way` marks those that cannot be undone.
    """

    left: Side
    right: Side
    sizes: Mapping[str, int]
    operators: tuple[Op, ...] = ()
    one_way: bool = False
    evidence: Evidence = "values"
    note: str = ""
    """Why, for people: `decided by row sums`, `by the names of its siblings: its values are all 1`."""
    sums: Mapping[str, Dim] = field(default_factory=dict)
    """Sums inside products: a symbol in a product -> the sum that stands there, `(g s d)` with s -> (("r",), (), ()) is
    `(g (r + 1 + 1) d)`. Its size is in `sizes`; it is no axis of its own, and stands in one place only."""

    @property
    def sources(self) -> tuple[str, ...]:
        """All source names, copies too."""
        return tuple(name for part in self.left if isinstance(part, Part) for name in part.every)

    @property
    def targets(self) -> tuple[str, ...]:
        """All target names, copies too."""
        return tuple(name for part in self.right if isinstance(part, Part) for name in part.every)

    def shape(self, part: Part | Filled | Dropped) -> tuple[int, ...]:
        """The shape of each tensor of a part."""
        return tuple(sum(math.prod(self.sizes[axis] for axis in product) for product in dim) for dim in part.dims)


def axis(name: str) -> Dim:
    """A dim that is one axis."""
    return ((name,),)


UNIT: Dim = ((),)


def copy_of(
    source: str, target: str, shape: tuple[int, ...], evidence: Evidence = "values", note: str = ""
) -> Relation:
    """The relation of two tensors of one shape that are equal, element by element."""
    letters = [f"a{number}" for number in range(len(shape))]
    dims = tuple(UNIT if size == 1 else axis(letter) for letter, size in zip(letters, shape, strict=True))
    sizes = {letter: size for letter, size in zip(letters, shape, strict=True) if size != 1}
    return Relation((Part((source,), dims),), (Part((target,), dims),), sizes, evidence=evidence, note=note)


@dataclass(frozen=True)
class Alternative:
    """One answer to a question: the relations it would give (for all members of the class), and what it means, in words."""

    relations: tuple[Relation, ...]
    words: str


@dataclass(frozen=True)
class Question:
    """What the evidence does not decide, one for a class of tensors. Its alternatives hold the truth, or it must not be asked.

    `key` is stable from run to run and unique: the class of target names with `{}` in the place of numbers that vary, and the kind
    where there are several. `kind`: `orientation` (is a matrix transposed), `order` (of fused or stacked parts), `source` (which
    tensor it is), `outlier` (one member is unlike its siblings), `size` (how an axis is cut). `likely` is the number of the
    alternative that weaker evidence speaks for, with `why`; nothing is decided by it.
    """

    key: str
    kind: Literal["orientation", "order", "source", "outlier", "size"]
    text: str
    alternatives: tuple[Alternative, ...]
    likely: int | None = None
    why: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The target tensors that it is about."""
        return tuple(
            dict.fromkeys(name for one in self.alternatives for each in one.relations for name in each.targets)
        )


@dataclass(frozen=True)
class Silent:
    """A target tensor whose values do not say which source it is: all are one value, or several sources are equal to it.

    `candidates` are the sources that hold these very values (of one shape up to unit dims, or with `relation` shapes that a name
    may decide between). `value` is the text of the constant that fills it, where one does; such a tensor may also be made of it.
    """

    target: str
    candidates: tuple[str, ...]
    value: str | None = None
    relations: tuple[Relation, ...] = ()
    """What the values do say, where they say it: for a candidate, how it would make the target (transposed, cast). The names choose
    among them; a candidate without one makes the target as it is."""
    alike: tuple[str, ...] = ()
    """All sources that are filled with that one value, whatever their shapes: several of them together might be the target."""


@dataclass(frozen=True)
class Outlier:
    """One member of a class unlike its siblings: `encoder.layers.3.linear1.weight is NOT transposed; its 11 siblings are`."""

    target: str
    text: str
    found: Relation
    expected: Relation | None = None


@dataclass(frozen=True)
class Matched:
    """What the values say. Each target tensor is in one relation, or silent, or unplaced; outliers' found relations are not in
    `relations`."""

    relations: tuple[Relation, ...]
    silent: tuple[Silent, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    unused: tuple[str, ...] = ()
    """Sources whose values are nowhere in the target (silent ones not counted)."""
    unplaced: tuple[str, ...] = ()
    """Targets whose values are nowhere in the source."""
    approximate: Mapping[str, str] = field(default_factory=dict)
    """Unplaced target -> what it is nearest to, in words (`layers.0.w: cosine 0.9998, a fine-tuned copy?`)."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposed:
    """What names, shapes and layouts say. A target is in a relation, in a question, or unplaced."""

    relations: tuple[Relation, ...]
    questions: tuple[Question, ...] = ()
    unused: tuple[str, ...] = ()
    unplaced: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """What goes into the morph: every target is in `relations`, `questions` or `unplaced`; sources likewise, or dropped."""

    relations: tuple[Relation, ...]
    questions: tuple[Question, ...] = ()
    dropped: tuple[str, ...] = ()
    """Sources that go nowhere: `drop X` in the morph."""
    unplaced: tuple[str, ...] = ()
    """Targets that nothing makes: `drop <-> Y` in the morph."""


@dataclass(frozen=True)
class Coverage:
    """How much was placed, and by what. Counts of target tensors and of their elements."""

    targets: int
    elements: int
    placed: Mapping[Evidence, tuple[int, int]]
    """Evidence -> (tensors, elements) of targets in relations that stand."""
    asked: tuple[int, int]
    unplaced: tuple[str, ...]
    dropped: tuple[str, ...]
    sources: int
    verified: int | None = None
    """Elements compared bit for bit; None where there were no values to compare or questions stood in the way."""

    @property
    def is_whole(self) -> bool:
        """True when every target is placed and nothing is asked."""
        return not self.unplaced and self.asked[0] == 0


@dataclass(frozen=True)
class Inference:
    """The result of `iso.infer`: the morph, how much it covers, what stays open, and what each relation rests on."""

    text: str
    coverage: Coverage
    questions: tuple[Question, ...] = ()
    evidence: tuple[Relation, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What plan, read-back or verify said against it; empty when it holds."""
    report: Any = None
    """The verifier's report, where values were compared."""
    approximate: Mapping[str, str] = field(default_factory=dict)
    """Unplaced target -> what its values are nearest to, in words."""
    by_values: bool = True
    """Whether both sides had values that were compared."""

    @property
    def is_proved(self) -> bool:
        """True when all is placed, nothing is asked, and the proof holds."""
        return self.coverage.is_whole and not self.questions and not self.problems and bool(self.text)

    def __str__(self) -> str:
        from isomorph.infer.report import text

        return text(self)

    def to_json(self) -> dict[str, Any]:
        """Everything that was found, as data (`infer/report.py` says in which form)."""
        from isomorph.infer.report import to_json

        return to_json(self)
