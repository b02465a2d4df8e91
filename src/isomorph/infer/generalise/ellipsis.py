"""Forms with `...`.

`[(p o) i] <-> [o i]` is `[(p o) ...] <-> [o ...]`, and with nothing in the place of `...` it is the bias's form.
"""

from __future__ import annotations

from isomorph.infer.generalise.parts import plain
from isomorph.infer.generalise.patterns import REST, Dim, Form, Rule, canonical, dims_axes, token_axes


def forms(rule: Rule) -> list[tuple[Rule, Form, int | None]]:
    """(the rule with `...`, the form it has where `...` is no axis at all, its rank where that form is a copy's).

    Further axes are a run of whole dims that all terms have, next to each other and in the same order.
    """
    if any(term.dims is None or REST in term.dims for term in (*rule.left, *rule.right)):
        return []
    named = {axis for name in rule.names for token in name for axis in token_axes(token)}
    bound = {axis for axis, _ in rule.sizes}
    first = rule.left[0].dims or ()
    found: list[tuple[Rule, Form, int | None]] = []
    for start in range(len(first)):
        for end in range(len(first), start, -1):
            run = first[start:end]
            axes = list(dims_axes(run))
            if any(len(dim) != 1 or len(dim[0]) != 1 or not isinstance(dim[0][0], str) for dim in run):
                continue
            if any(axis in named or axis in bound or axis.isdigit() for axis in axes):
                continue
            places = [_places(term.dims or (), run, set(axes)) for term in (*rule.left, *rule.right)]
            if any(place is None for place in places):
                continue
            with_rest = []
            without = []
            for term, place in zip((*rule.left, *rule.right), places, strict=True):
                assert place is not None and term.dims is not None
                before, after = term.dims[:place], term.dims[place + len(run) :]
                with_rest.append((*before, REST, *after))
                without.append((*before, *after))
            short = plain(canonical(rule.with_dims(without)))
            found.append((canonical(rule.with_dims(with_rest)), short.form, len(without[0]) if short.is_copy else None))
    return found


def base_of(rule: Rule) -> tuple[Form, int | None] | None:
    """The form of a rule with `...` where that is no axis at all, with its rank where it is a copy's."""
    dims = [term.dims for term in (*rule.left, *rule.right)]
    if not any(REST in (one or ()) for one in dims):
        return None
    without = [None if one is None else tuple(dim for dim in one if dim != REST) for one in dims]
    short = plain(canonical(rule.with_dims(without)))
    return short.form, len(without[0] or ()) if short.is_copy else None


def _places(dims: tuple[Dim, ...], run: tuple[Dim, ...], axes: set[str]) -> int | None:
    """Where the run stands in these dims, when its axes stand nowhere else."""
    starts = [k for k in range(len(dims) - len(run) + 1) if dims[k : k + len(run)] == run]
    if len(starts) != 1:
        return None
    others = dims[: starts[0]] + dims[starts[0] + len(run) :]
    return None if axes & set(dims_axes(others)) else starts[0]
