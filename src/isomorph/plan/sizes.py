"""Solve the sizes of an instance's axes from the shapes of its tensors (LANGUAGE.md 3, statements 11 and 12).

    qkv [((h + g + g) d) i] is [10 2], where d=2, g=1      ──▶      h = 3, i = 2

Every dim of every tensor is one equation, linear in each of its axes. A dim with one unknown axis gives it; this is repeated until
nothing changes. What contradicts is said at once, with the tensor that shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from isomorph.language.axes import dim_size
from isomorph.language.resolve import dim_axes
from isomorph.language.rules import FlatTerm, shown
from isomorph.language.tree import Axis, Dim, Ellipsis, Integer


class Contradiction(Exception):
    """Sizes that cannot hold together. `axis` is where the caret goes."""

    def __init__(self, message: str, axis: str | None = None) -> None:
        self.message = message
        self.axis = axis
        super().__init__(message)


@dataclass(slots=True)
class Equation:
    """`dim` of `tensor` is `size`; `position` counts from 0."""

    tensor: str
    shape: tuple[int, ...]
    dim: Dim
    position: int
    size: int


@dataclass
class Solution:
    """Sizes by axis; `further` is the shape that `...` stands for (None while no tensor has told)."""

    sizes: dict[str, int]
    further: tuple[int, ...] | None = None
    further_tensor: str = ""
    origins: dict[str, str] | None = None
    """Where each size comes from, for messages: a tensor, `where`, `--set`, labels."""


def dim_text(dim: Dim) -> str:
    """A dim as the notation writes it, axes as their file wrote them."""
    if isinstance(dim, Axis):
        return shown(dim.name)
    if isinstance(dim, Integer):
        return str(dim.value)
    if isinstance(dim, Ellipsis):
        return "..."
    return "(" + " + ".join(" ".join(dim_text(factor) for factor in product.factors) for product in dim.summands) + ")"


def dims_text(dims: Iterable[Dim]) -> str:
    return "[" + " ".join(dim_text(dim) for dim in dims) + "]"


def equations(term: FlatTerm, tensor: str, shape: tuple[int, ...], solution: Solution) -> list[Equation]:
    """The equations of one tensor; what `...` stands for is settled on the way. Raises Contradiction on a wrong number of dims."""
    dims = term.dims
    rank = len(dims)
    at = next((position for position, dim in enumerate(dims) if isinstance(dim, Ellipsis)), None)
    if at is None:
        if rank != len(shape):
            raise Contradiction(
                f"`{tensor}` has {_count(len(shape))} [{_plain(shape)}], but {dims_text(dims)} is written: {_count(rank)}"
            )
        return [Equation(tensor, shape, dim, position, shape[position]) for position, dim in enumerate(dims)]
    extra = len(shape) - (rank - 1)
    if extra < 0:
        raise Contradiction(
            f"`{tensor}` has {_count(len(shape))} [{_plain(shape)}], but {dims_text(dims)} needs at least {rank - 1}"
        )
    further = shape[at : at + extra]
    if solution.further is None:
        solution.further, solution.further_tensor = further, tensor
    elif solution.further != further:
        raise Contradiction(
            f"`...` is [{_plain(further)}] in `{tensor}` [{_plain(shape)}], "
            f"but [{_plain(solution.further)}] in `{solution.further_tensor}` of the same instance"
        )
    before = [Equation(tensor, shape, dim, position, shape[position]) for position, dim in enumerate(dims[:at])]
    after = [
        Equation(tensor, shape, dim, at + extra + number, shape[at + extra + number])
        for number, dim in enumerate(dims[at + 1 :])
    ]
    return before + after


def solve(waiting: Sequence[Equation], solution: Solution) -> list[Equation]:
    """Add to `solution.sizes` all that the equations give. Returns those that still hold two unknowns or more.

    Raises Contradiction.
    """
    sizes = solution.sizes
    origins = solution.origins if solution.origins is not None else {}
    solution.origins = origins
    open_equations = list(waiting)
    while True:
        rest: list[Equation] = []
        for equation in open_equations:
            dim = equation.dim
            if isinstance(dim, Axis):  # by far the most common
                known = sizes.get(dim.name)
                if known is None:
                    sizes[dim.name] = equation.size
                    origins[dim.name] = f"`{equation.tensor}`"
                elif known != equation.size:
                    raise _contradiction(equation, known, origins)
                continue
            unknown = {axis for axis in dim_axes(dim) if axis not in sizes}
            if not unknown:
                total = dim_size(dim, sizes)
                if total != equation.size:
                    raise _contradiction(equation, total, origins)
            elif len(unknown) == 1:
                (axis,) = unknown
                found = _linear(equation, axis, sizes)
                if found is None:
                    rest.append(equation)
                else:
                    sizes[axis] = found
                    origins[axis] = f"`{equation.tensor}`"
            else:
                rest.append(equation)
        if len(rest) == len(open_equations):
            return rest
        open_equations = rest


def _linear(equation: Equation, axis: str, sizes: dict[str, int]) -> int | None:
    """The one unknown of an equation that is linear in it; None when it does not matter (a factor 0)."""
    base = dim_size(equation.dim, {**sizes, axis: 0})
    slope = dim_size(equation.dim, {**sizes, axis: 1}) - base
    if slope == 0:
        if base != equation.size:
            raise _contradiction(equation, base, {})
        return None
    size, remainder = divmod(equation.size - base, slope)
    name = shown(axis)
    where = f"`{equation.tensor}` [{_plain(equation.shape)}]"
    given = _given(equation.dim, sizes)
    if remainder:
        raise Contradiction(
            f"{name} is a fraction: {equation.size} of {where} is {dim_text(equation.dim)}{given}, "
            f"and {equation.size - base} is not a multiple of {slope}",
            axis,
        )
    if size < 0:
        raise Contradiction(
            f"{name} is negative ({size}): {equation.size} of {where} is {dim_text(equation.dim)}{given}", axis
        )
    return size


def _contradiction(equation: Equation, expected: int, origins: Mapping[str, str]) -> Contradiction:
    dim = equation.dim
    here = f"{equation.size} in `{equation.tensor}` [{_plain(equation.shape)}]"
    if isinstance(dim, Axis):
        other = origins.get(dim.name, "where or --set gives it")
        return Contradiction(
            f"{shown(dim.name)} is {expected} ({other}), but {here}: rename one of the two axes, or mend the size",
            dim.name,
        )
    if isinstance(dim, Integer):
        return Contradiction(f"{dim.value} is written for axis {equation.position}, but it is {here}")
    first = next(iter(dim_axes(dim)), None)
    return Contradiction(f"{dim_text(dim)} is {expected}, but it is {here}", first)


def _given(dim: Dim, sizes: Mapping[str, int]) -> str:
    known = [f"{shown(axis)}={sizes[axis]}" for axis in dict.fromkeys(dim_axes(dim)) if axis in sizes]
    return f" with {', '.join(known)}" if known else ""


def _plain(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape))


def _count(number: int) -> str:
    return "one axis" if number == 1 else f"{number} axes"
