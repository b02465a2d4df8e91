"""The terms of a sum, laid elsewhere: tables from another row on, class tokens at the end, positions for some tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from isomorph.trace.diagnose.stretch import Stretch
from isomorph.trace.diagnose.terms import Term, moved, table_term
from isomorph.trace.nouns import Array

SHIFTS = (1, 2, -1, -2, 3, 4)


def layouts(stretch: Stretch, used: Sequence[Term], shape: tuple[int, ...]) -> Iterator[tuple[list[Term], str, str]]:
    """(terms, words, slug) of each change."""
    for i, term in enumerate(used):
        for shift, other in _shifted(stretch, term, shape):
            yield [*used[:i], other, *used[i + 1 :]], f"positions are shifted by {shift}", "position-offset"
        for words, rolled in _rolled(stretch, term, shape):
            yield [*used[:i], rolled, *used[i + 1 :]], words, "position-order"
        turned = _turned(stretch, term, shape)
        if turned is not None:
            yield [*used[:i], turned, *used[i + 1 :]], "positions are counted from the end", "position-offset"
    classes = [i for i, term in enumerate(used) if term.role == "class token" or _is_short(term, shape, 1)]
    bodies = [i for i, term in enumerate(used) if _is_short(term, shape, shape[1] - 1)] if len(shape) == 3 else []
    if len(shape) != 3 or not bodies:
        return
    last = shape[1] - 1
    ends = [
        moved(term, shape, last) if i in classes else moved(term, shape, 0) if i in bodies else term
        for i, term in enumerate(used)
    ]
    if classes:
        yield ends, "the class token is at the end, the reference's at the front", "class-token"
    for i, term in enumerate(used):
        table = _table_of(stretch, term, shape)
        if table is None:
            continue
        for row, words in ((0, "its first rows"), (1, "its rows from 1 on")):
            over = table_term(term.name, table, shape, row, place=1)
            if over is not None:
                says = f"positions are added before the class token: the patches get {words}, the class token none"
                yield [*used[:i], over, *used[i + 1 :]], says, "class-token"
                if classes:
                    late = table_term(term.name, table, shape, row)
                    if late is not None:
                        says = f"the class token is at the end; positions begin with row {row}"
                        yield [*ends[:i], late, *ends[i + 1 :]], says, "class-token"
    for i in classes:
        rest = used[i].rest
        if rest is not None:
            everywhere = Term(used[i].name, rest[0][:, :1], rest[1][:, :1], "class token")
            yield (
                [*used[:i], everywhere, *used[i + 1 :]],
                "the class token is added at every position",
                "class-token",
            )


def _is_short(term: Term, shape: tuple[int, ...], length: int) -> bool:
    return (
        term.rest is not None
        and term.role != "table"
        and term.rest[0].ndim == 3 == len(shape)
        and term.rest[0].shape[1] == length
    )


def _table_of(stretch: Stretch, term: Term, shape: tuple[int, ...]) -> Array | None:
    """The table whose rows, in order, a term is; None where it is no such thing."""
    if term.role == "table" and term.rest is not None:
        return term.rest[0]
    rows = term.reference.reshape(-1, shape[-1])[: shape[1]] if term.role == "tensor" and len(shape) == 3 else None
    if rows is None or len(rows) != shape[1]:
        return None
    for values in stretch.scene.state_reference.values():
        table = np.asarray(values)
        if table.ndim == 2 and table.shape[1] == shape[-1] and len(table) >= shape[1] and table.dtype.kind not in "iub":
            table = table.astype(np.float64)
            start = np.flatnonzero((table == rows[0]).all(axis=1))
            if start.size and np.array_equal(table[start[0] : start[0] + len(rows)], rows):
                return np.asarray(table)
    return None


def _first_row(term: Term, table: Array, shape: tuple[int, ...]) -> int:
    if term.role == "table":
        return term.row
    return int(np.flatnonzero((table == term.reference.reshape(-1, shape[-1])[0]).all(axis=1))[0])


def _shifted(stretch: Stretch, term: Term, shape: tuple[int, ...]) -> Iterator[tuple[int, Term]]:
    table = _table_of(stretch, term, shape)
    if table is None:
        return
    row = _first_row(term, table, shape)
    for shift in SHIFTS:
        other = table_term(term.name, table, shape, row + shift)
        if other is not None:
            yield shift, other


def _rolled(stretch: Stretch, term: Term, shape: tuple[int, ...]) -> Iterator[tuple[str, Term]]:
    """The same rows, moved round by one: the first position's row is the last, or the last position's the first."""
    table = _table_of(stretch, term, shape)
    if table is None:
        return
    row = _first_row(term, table, shape)
    rows = table[None, row : row + shape[1]]
    for step, words in (
        (1, "the first position gets the last row, the others the rows before theirs"),
        (-1, "the last position gets the first row, the others the rows after theirs"),
    ):
        moved_rows = np.roll(rows, step, axis=1)
        yield (
            f"positions are moved round by one: {words}",
            Term(term.name, moved_rows, moved_rows, "table", rest=(table, table)),
        )


def _turned(stretch: Stretch, term: Term, shape: tuple[int, ...]) -> Term | None:
    table = _table_of(stretch, term, shape)
    if table is None:
        return None
    row = _first_row(term, table, shape)
    rows = table[None, row : row + shape[1]][:, ::-1]
    return Term(term.name, rows, rows, "table", rest=(table, table))
