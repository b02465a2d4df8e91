"""What a sum may be made of: tensors before it laid over its positions, and tables and tokens that no module owns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from isomorph.trace.diagnose.stretch import Atom, Goal, Stretch, is_same, own_parameters
from isomorph.trace.nouns import Array, Site

MOST_TERMS = 26


@dataclass(frozen=True)
class Term:
    """A tensor that broadcasts to the sum's shape.

    `role`: "tensor" (was seen before), "class token", "table" (rows of it by position), "vector". `place` is where its first
    position lies, `row` the first row of a table. `rest` is the raw tensor, for laying it elsewhere.
    """

    name: str
    reference: Array
    candidate: Array
    role: str = "tensor"
    moment: int = -1
    place: int = 0
    row: int = 0
    atom: Atom | None = None
    is_lookup: bool = False
    rest: tuple[Array, Array] | None = None

    @property
    def is_position(self) -> bool:
        """A table by position; by its name, where that tells."""
        return self.role == "table" or "pos" in self._named

    @property
    def is_type(self) -> bool:
        """By its name."""
        return "type" in self._named or "segment" in self._named

    @property
    def is_embedding(self) -> bool:
        """Rows that were looked up."""
        return self.role != "tensor" or self.is_lookup or "embed" in self._named

    @property
    def _named(self) -> str:
        module = self.atom.site.module if self.atom is not None and self.atom.site is not None else ""
        return f"{self.name} {module.rpartition('.')[2]}".lower()


LEVELS = ("seen on both sides", "of modules with parameters", "all")


def terms_of(stretch: Stretch, goal: Goal, level: str = "all") -> list[Term]:
    """For the reference's sum: the last tensors before it first, then raw parameters.

    `level` is one of LEVELS: what only the reference shows may be the divergence itself, so it is left out as long as possible.
    """
    shape = goal.reference.shape
    modules = stretch.modules

    def belongs(term: Term) -> bool:
        atom = term.atom
        if atom is None or atom.is_paired or level == "all":
            return True
        return level == LEVELS[1] and atom.site is not None and bool(modules[atom.site.module].own)

    found: list[Term] = []
    for term in (*filter(belongs, _tensors(stretch, goal)), *_parameters(stretch, shape)):
        if any(is_same(term.reference, other.reference) for other in found):
            continue
        found.append(term)
        if len(found) >= MOST_TERMS:
            break
    return found


def _tensors(stretch: Stretch, goal: Goal) -> Iterator[Term]:
    shape = goal.reference.shape
    for atom in stretch.atoms:
        if atom.moment >= goal.moment:
            continue
        laid = _tokens(atom.reference, shape)
        other = _tokens(atom.candidate, shape)
        if laid is None or other is None:
            continue
        term = Term(
            atom.name, *_placed(laid, other, shape, 0), "tensor", atom.moment, atom=atom, is_lookup=_is_lookup(stretch, atom),
            rest=(laid, other),
        )  # fmt: skip
        if laid.ndim == 3 and len(shape) == 3 and laid.shape[1] not in (1, shape[1]):
            yield moved(term, shape, shape[1] - laid.shape[1])
        else:
            yield term


def _is_lookup(stretch: Stretch, atom: Atom) -> bool:
    """Whether a module that takes whole numbers gave it."""
    if atom.site is None or atom.site.border != "out":
        return False
    entered = stretch.scene.seen_reference.values.get(Site(atom.site.module, atom.site.call, "in", 0))
    return entered is not None and entered.dtype.kind in "iu"


def _tokens(values: Array, shape: tuple[int, ...]) -> Array | None:
    """A tensor as tokens: [B T D] (or fewer tokens than the sum has) of [B T D], [T D], [B D h w]; None where it is none."""
    width = shape[-1]
    if values.shape == shape:
        return values
    if values.ndim == 4 and len(shape) == 3 and values.shape[1] == width and values.shape[0] == shape[0]:
        values = values.reshape(*values.shape[:2], -1).transpose(0, 2, 1)
    if (
        values.ndim == 2
        and len(shape) == 3
        and values.shape[1] == width
        and values.shape[0] in (shape[1], shape[1] - 1)
    ):
        values = values[None]
    if values.ndim != len(shape) or values.ndim < 2 or values.shape[-1] != width:
        return None
    if values.shape[0] not in (1, shape[0]):
        return None
    if len(shape) == 3 and values.shape[1] in (1, shape[1], shape[1] - 1, shape[1] - 2):
        return values
    return values if values.shape[1:] == shape[1:] else None


def _placed(one: Array, two: Array, shape: tuple[int, ...], place: int) -> tuple[Array, Array]:
    return lay(one, shape, place), lay(two, shape, place)


def lay(values: Array, shape: tuple[int, ...], place: int) -> Array:
    """Tokens at positions from `place` on, zeros elsewhere; as they are where there is one for each position."""
    if values.ndim != 3 or len(shape) != 3 or values.shape[1] == shape[1]:
        return values
    made = np.zeros((values.shape[0], *shape[1:]))
    stop = min(place + values.shape[1], shape[1])
    made[:, place:stop] = values[:, : stop - place]
    return made


def moved(term: Term, shape: tuple[int, ...], place: int) -> Term:
    """The term, laid from another position on."""
    if term.rest is None:
        return term
    one, two = _placed(*term.rest, shape, place)
    return replace(term, reference=one, candidate=two, place=place)


def _parameters(stretch: Stretch, shape: tuple[int, ...]) -> Iterator[Term]:
    for name, values in own_parameters(stretch.scene).items():
        yield from parameter_terms(name, values, shape, rows=(0, 1, 2))


def parameter_terms(name: str, values: Array, shape: tuple[int, ...], rows: tuple[int, ...]) -> Iterator[Term]:
    """A raw parameter as a class token, a table whose rows are positions, or a vector for all positions."""
    if values.ndim == 0 or values.shape[-1] != shape[-1]:
        return
    short = name.removesuffix(".weight").rsplit(".", 1)[-1]
    flat = values.reshape(-1, shape[-1])
    if len(shape) == 3 and len(flat) == 1:
        token = flat[None]
        yield Term(short, *_placed(token, token, shape, 0), "class token", rest=(token, token))
    if len(flat) == 1 and values.ndim == 1:
        yield Term(short, flat.reshape(shape[-1]), flat.reshape(shape[-1]), "vector")
    if len(shape) == 3 and len(flat) > 1:
        for row in rows:
            term = table_term(short, flat, shape, row)
            if term is not None:
                yield term


def table_term(name: str, table: Array, shape: tuple[int, ...], row: int, place: int = 0) -> Term | None:
    """Rows of a table from `row` on, at the positions from `place` on; None where they do not reach to the last."""
    length = shape[1] - place
    if row < 0 or row + length > len(table):
        return None
    rows = table[None, row : row + length]
    laid = lay(rows, shape, place)
    return Term(name, laid, laid, "table", place=place, row=row, rest=(table, table))
