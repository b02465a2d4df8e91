"""Random rules of one instance: blocks that share axes, put into tensors in two different ways; and what moves do, as index arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from isomorph.language.morph import Morph
from isomorph.plan.moves import Box, Fill, Move
from isomorph.plan.plan import Plan
from isomorph.plan.prove import make_plan
from isomorph.tensors import DType, Manifest, TensorSpec, dtype

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """A rule with all sizes bound, and the tensors that it reads."""

    text: str
    source: Manifest

    @property
    def plan(self) -> Plan:
        return make_plan(Morph.parse(self.text).programs(), self.source)


@st.composite
def cases(draw: st.DrawFn, of: DType = dtype("f32"), constants: bool = True) -> Case:  # noqa: B008
    """1 to 4 blocks of the same shared axes, each with an axis of its own or none; terms that are sums, products, stacks."""
    shared = [f"s{k}" for k in range(draw(st.integers(1, 3)))]
    count = draw(st.integers(1, 4))
    own = [f"p{k}" if draw(st.booleans()) or count == 1 else "1" for k in range(count)]
    axes = [*shared, *(name for name in own if name != "1")]
    sizes = {axis: draw(st.integers(2, 5)) for axis in axes}
    drop = draw(st.integers(0, count - 1)) if count > 1 and draw(st.booleans()) and own[-1] != "1" else None
    zero = draw(st.integers(0, count - 1)) if constants and count > 1 and draw(st.integers(0, 3)) == 0 else None
    stacked: set[str] = set()
    left, names = _side(draw, "x", shared, own, sizes, zero, "0", stacked)
    right, _ = _side(draw, "y", shared, own, sizes, drop if drop != zero else None, "drop", stacked)
    bound = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    source = Manifest({name: TensorSpec(of, shape) for name, shape in names.items()})
    return Case(f"{', '.join(left)} <-> {', '.join(right)} where {bound}", source)


def _side(
    draw: st.DrawFn,
    letter: str,
    shared: Sequence[str],
    own: Sequence[str],
    sizes: Mapping[str, int],
    special: int | None,
    head: str,
    stacked: set[str],
) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """The terms of one side, and the tensors they name. `stacked`: axes in names of the other side, which these may not have."""
    terms: list[str] = []
    tensors: dict[str, tuple[int, ...]] = {}
    pending = list(range(len(own)))
    while pending:
        taken = [pending.pop(0)]
        if taken[0] != special:
            while pending and pending[0] != special and draw(st.booleans()):
                taken.append(pending.pop(0))
        is_named = taken[0] != special
        name = f"{letter}{len(terms)}"
        free = [axis for axis in shared if axis not in stacked]
        along = (
            draw(st.sampled_from(free))
            if is_named and len(shared) > 1 and free and draw(st.integers(0, 3)) == 0
            else None
        )
        if along:
            stacked.add(along)
        dims = _dims(draw, [axis for axis in shared if axis != along], [own[k] for k in taken], is_named)
        shape = tuple(_size(dim, sizes) for dim in dims)
        written = " ".join(_text(dim) for dim in dims)
        terms.append(f"{name}.{{{along}}} [{written}]" if along else f"{name if is_named else head} [{written}]")
        if is_named:
            for number in range(sizes[along]) if along else [None]:
                tensors[name if number is None else f"{name}.{number}"] = shape
    return terms, tensors


Tree = str | tuple[str, list["Tree"]]
"""An axis, or ("*" or "+", its parts)."""


def _dims(draw: st.DrawFn, shared: Sequence[str], own: Sequence[str], grouped: bool) -> list[Tree]:
    """Dims of one tensor: the shared axes in some order, grouped, and the sum of the own ones somewhere among them."""
    axes: list[Tree] = list(draw(st.permutations(list(shared))))
    parts: list[Tree] = [("+", list(own))] if len(own) > 1 else [axis for axis in own if axis != "1"]
    if len(own) == 1 and own[0] == "1" and draw(st.booleans()):
        parts = ["1"]
    if parts and axes and len(own) > 1 and draw(st.integers(0, 2)) == 0:
        inner = axes.pop()
        parts = [("+", [("*", [each, inner] if draw(st.booleans()) else [inner, each]) for each in own])]
    for part in parts:
        axes.insert(draw(st.integers(0, len(axes))), part)
    dims: list[Tree] = []
    for axis in axes:
        if dims and grouped and draw(st.integers(0, 2)) == 0:
            last = dims.pop()
            dims.append(("*", [*(last[1] if isinstance(last, tuple) and last[0] == "*" else [last]), axis]))
        else:
            dims.append(axis)
    return dims


def _text(tree: Tree) -> str:
    if isinstance(tree, str):
        return tree
    kind, parts = tree
    if kind == "+":
        return f"({' + '.join(_summand(part) for part in parts)})"
    return f"({' '.join(_text(part) for part in parts)})"


def _summand(tree: Tree) -> str:
    return " ".join(_text(part) for part in tree[1]) if isinstance(tree, tuple) and tree[0] == "*" else _text(tree)


def _size(tree: Tree, sizes: Mapping[str, int]) -> int:
    if isinstance(tree, str):
        return 1 if tree == "1" else sizes[tree]
    each = [_size(part, sizes) for part in tree[1]]
    return sum(each) if tree[0] == "+" else math.prod(each)


# ── what moves do ────────────────────────────────────────────────────────────────────────────────────────────────────


def effect(
    moves: Sequence[Move], source: Mapping[str, TensorSpec], target: Mapping[str, TensorSpec]
) -> dict[str, Array]:
    """Target name -> for each flat element, the number of the source element that fills it, counted through all sources (-2 - v:
    the constant v; -1: nothing does)."""
    base, at = {}, 0
    for name, spec in source.items():
        base[name] = at
        at += spec.numel
    found: dict[str, Array] = {}
    for move in moves:
        filled = found.setdefault(move.target.tensor, np.full(target[move.target.tensor].numel, -1, np.int64))
        if isinstance(move.source, Box):
            filled[_places(move.target)] = _places(move.source) + base[move.source.tensor]
        else:
            assert isinstance(move.source, Fill)
            filled[_places(move.target)] = -2 - int(move.source.value)
    return found


def _places(box: Box) -> Array:
    found = np.full(box.shape, box.offset, np.int64)
    for axis, (size, stride) in enumerate(zip(box.shape, box.strides, strict=True)):
        found += (np.arange(size) * stride).reshape([-1 if k == axis else 1 for k in range(len(box.shape))])
    return found


def same_effect(first: Mapping[str, Array], second: Mapping[str, Array]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
