"""Rules while they are being found: names as tokens with holes, tensors as sums of products, and which relations a rule covers.

    Relation ──parts──▶ Rule (names as they are) ──indices, labels, wildcards──▶ fewer Rules ──blocks──▶ Module

Axes are strings. `a0`, `a1`, … are axes of the tensors, in order of appearance; `n0`, `n1`, … count instances; a numeral is a size
that is written as such. Only `letters.py` gives them the names that people read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from isomorph.language.tree import Op

Product = tuple[Any, ...]
"""Axes, and sums that stand in a product: str or Dim."""
Dim = tuple[Product, ...]

SEPARATORS = "./"
MARKS = "._/-:"


@dataclass(frozen=True, slots=True)
class Index:
    """A number: `offset + sign * axis`; of several axes their row-major number. `pad` as in tree.Hole. `tied`: equal copies."""

    axes: tuple[str, ...]
    offset: int = 0
    sign: int = 1
    pad: str | None = None
    tied: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """One of several texts. `axis` is "" for a tie."""

    axis: str
    labels: tuple[str, ...]
    tied: bool = False


@dataclass(frozen=True, slots=True)
class Star:
    """`*`, or `**` where `path`."""

    path: bool


Token = str | Index | Labels | Star
Template = tuple[Token, ...]

REST: Dim = (("...",),)
"""The dim `...`."""


@dataclass(frozen=True, slots=True)
class Filling:
    """A constant: `text` as the notation writes it, `dtype` where it must be said."""

    text: str
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A tensor: `head` is its name, a constant, or None for `drop`. `dims` None is `[...]`."""

    head: Template | Filling | None
    dims: tuple[Dim, ...] | None

    @property
    def name(self) -> Template | None:
        """The template of a named term."""
        return self.head if isinstance(self.head, tuple) else None


Form = tuple[object, ...]


@dataclass(frozen=True)
class Rule:
    """One equation, and the numbers of the relations that it is to stand for.

    `group` is None, or (question, alternative) of an open one; `maybe` marks a drop that may take nothing.
    `sizes` are those of the axes that no shape tells. `ranks` are the
    ranks of the first named tensor. `notes` are what is to be said of it. Canonical: see `canonical`.
    """

    left: tuple[Term, ...]
    right: tuple[Term, ...]
    covers: tuple[int, ...]
    operators: tuple[Op, ...] = ()
    one_way: bool = False
    group: tuple[int, int] | None = None
    maybe: bool = False
    sizes: tuple[tuple[str, int], ...] = ()
    ranks: frozenset[int] = frozenset()
    notes: tuple[str, ...] = field(default=(), compare=False)
    laid: bool = field(default=False, compare=False)
    """Written in a form with `...` where `...` is no axis at all."""
    also: frozenset[int] = field(default=frozenset(), compare=False)
    """Relations that a general rule would do right, whether or not it is their turn."""

    @cached_property
    def names(self) -> tuple[Template, ...]:
        """The templates of all named terms, those on the left first."""
        return tuple(term.head for term in (*self.left, *self.right) if isinstance(term.head, tuple))

    @cached_property
    def n_left(self) -> int:
        """How many of `names` are on the left."""
        return sum(isinstance(term.head, tuple) for term in self.left)

    @cached_property
    def form(self) -> Form:
        """All but the names: two rules of one form differ in names alone."""
        return self.form_of(tuple(term.dims for term in (*self.left, *self.right)))

    def form_of(self, dims: Sequence[tuple[Dim, ...] | None]) -> Form:
        """The form with other dims."""
        sides = tuple((along(term), given) for term, given in zip((*self.left, *self.right), dims, strict=True))
        return (len(self.left), sides, self.operators, self.one_way, self.group, self.sizes)

    @property
    def is_copy(self) -> bool:
        """True for one tensor that is the other."""
        return len(self.left) == len(self.right) == 1 and self.left[0].dims is None and self.right[0].dims is None

    def with_names(self, names: Sequence[Template], covers: Iterable[int] | None = None) -> Rule:
        """The same with other names, in the order of `names`; made canonical."""
        given = iter(names)
        left, right = (
            tuple(replace(term, head=next(given)) if isinstance(term.head, tuple) else term for term in side)
            for side in (self.left, self.right)
        )
        kept = self.covers if covers is None else tuple(covers)
        return canonical(replace(self, left=left, right=right, covers=kept))

    def with_dims(self, dims: Sequence[tuple[Dim, ...] | None]) -> Rule:
        """The same with other dims, in order of the terms."""
        given = iter(dims)
        left, right = (tuple(replace(term, dims=next(given)) for term in side) for side in (self.left, self.right))
        return replace(self, left=left, right=right)


def along(term: Term) -> object:
    """What a form says of a term's head: the tensor axes that stand in its name, and its ties; or the constant."""
    if not isinstance(term.head, tuple):
        return term.head
    axes = sorted({axis for token in term.head for axis in token_axes(token) if axis.startswith("a")})
    return ("name", tuple(axes), sum(isinstance(token, Index | Labels) and token.tied for token in term.head))


def token_axes(token: Token) -> tuple[str, ...]:
    """The axes of a hole."""
    if isinstance(token, Index):
        return token.axes
    return (token.axis,) if isinstance(token, Labels) and token.axis else ()


def tokens(name: str) -> tuple[str, ...]:
    """A name cut into separators and marks, numbers and words."""
    found: list[str] = []
    kind = ""
    for char in name:
        now = "mark" if char in MARKS else "digit" if char.isascii() and char.isdigit() else "word"
        if now == kind and now != "mark":
            found[-1] += char
        else:
            found.append(char)
        kind = now
    return tuple(found)


def is_number(token: Token) -> bool:
    """True for digits that may be an index."""
    return isinstance(token, str) and token.isascii() and token.isdigit() and len(token) <= 18


def canonical(rule: Rule) -> Rule:
    """The rule with its axes numbered: tensor axes as they come in names and dims, then the axes that count, by the names."""
    renamed: dict[str, str] = {}
    counts: dict[str, str] = {}
    tensor_axes = _tensor_axes(rule)
    for axis in tensor_axes:
        renamed.setdefault(axis, f"a{len(renamed)}")
    for name in rule.names:
        for token in name:
            for axis in token_axes(token):
                if axis not in renamed and axis not in counts:
                    counts[axis] = f"n{len(counts)}"
    renamed.update(counts)
    return rename(rule, renamed)


def _tensor_axes(rule: Rule) -> dict[str, None]:
    """The axes of dims, and those of names that are no instances': in one order for all rules of a form."""
    in_dims = {
        axis: None
        for term in (*rule.left, *rule.right)
        for axis in dims_axes(term.dims)
        if axis != "..." and not axis.isdigit()
    }
    left, right = (
        {axis for name in names for token in name for axis in token_axes(token) if not _tied(token)}
        for names in (rule.names[: rule.n_left], rule.names[rule.n_left :])
    )
    counting = (left & right) - in_dims.keys()
    for token in (token for name in rule.names for token in name):
        for axis in token_axes(token):
            if axis not in counting:
                in_dims.setdefault(axis, None)
    return in_dims


def _tied(token: Token) -> bool:
    return isinstance(token, Index | Labels) and token.tied


def dims_axes(dims: tuple[Dim, ...] | None) -> Iterator[str]:
    """All axes of dims in reading order, as often as they come."""
    for dim in dims or ():
        for product in dim:
            for factor in product:
                if isinstance(factor, str):
                    yield factor
                else:
                    yield from dims_axes((factor,))


def map_axes(dim: Dim, change: Callable[[str], Sequence[Any]]) -> Dim:
    """The dim with factors in the place of each axis."""
    return tuple(
        tuple(
            found
            for factor in product
            for found in (change(factor) if isinstance(factor, str) else (map_axes(factor, change),))
        )
        for product in dim
    )


def rename(rule: Rule, names: dict[str, str]) -> Rule:
    """The rule with other axes."""

    def of_token(token: Token) -> Token:
        if isinstance(token, Index):
            return replace(token, axes=tuple(names.get(axis, axis) for axis in token.axes))
        if isinstance(token, Labels) and token.axis:
            return replace(token, axis=names.get(token.axis, token.axis))
        return token

    def of_term(term: Term) -> Term:
        head = tuple(map(of_token, term.head)) if isinstance(term.head, tuple) else term.head
        dims = term.dims
        if dims is not None:
            dims = tuple(map_axes(dim, lambda axis: (names.get(axis, axis),)) for dim in dims)
        return Term(head, dims)

    return replace(
        rule,
        left=tuple(map(of_term, rule.left)),
        right=tuple(map(of_term, rule.right)),
        sizes=tuple(sorted((names.get(axis, axis), size) for axis, size in rule.sizes)),
    )
