"""The dims of a term: sizes, blocks, and the index of one element, by plain integer arithmetic (LANGUAGE.md 3 (8)–(12)).

A dim is read like a numeral: a product is mixed radix, its first factor the slowest; a sum is a range for each summand, one
after the other. `choices` says which summand of each sum an element lies in; `Sizes` maps an axis to its size. The further axes
of `...` are `...0`, `...1`, …; an integer n is the axis `#n`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from isomorph.language.tree import Axis, Dim, Ellipsis, Integer, Product, Sum

Sizes = Mapping[str, int]
Choices = tuple[int, ...]
"""The summand taken in every sum that is met, from left to right, sums inside the summand taken included."""


def axis_of(number: Integer) -> str:
    return f"#{number.value}"


def further(rank: int) -> tuple[str, ...]:
    """The names of `rank` further axes."""
    return tuple(f"...{place}" for place in range(rank))


def spread(dims: Sequence[Dim], rank: int) -> tuple[Dim, ...]:
    """The dims with `...` replaced by `rank` axes of their own."""
    spread_dims: list[Dim] = []
    for dim in dims:
        if isinstance(dim, Ellipsis):
            spread_dims.extend(Axis(name) for name in further(rank))
        else:
            spread_dims.append(dim)
    return tuple(spread_dims)


def size_of(dim: Dim, sizes: Sizes) -> int:
    """The size of a dim. KeyError (the axis) when a size is not known."""
    if isinstance(dim, Axis):
        return sizes[dim.name]
    if isinstance(dim, Integer):
        return dim.value
    assert isinstance(dim, Sum)
    return sum(product_size(product, sizes) for product in dim.summands)


def product_size(product: Product, sizes: Sizes) -> int:
    total = 1
    for factor in product.factors:
        total *= size_of(factor, sizes)
    return total


def axes_of(dims: Sequence[Dim]) -> tuple[str, ...]:
    """Every named axis in the dims, each once; no integers, no `...`."""
    found: dict[str, None] = {}
    for dim in dims:
        if isinstance(dim, Axis):
            found[dim.name] = None
        elif isinstance(dim, Sum):
            for product in dim.summands:
                found.update(dict.fromkeys(axes_of(product.factors)))
    return tuple(found)


def blocks_of(dims: Sequence[Dim]) -> Iterator[tuple[Choices, tuple[str, ...]]]:
    """The blocks in reading order, leftmost dim outermost: (choices, axes). An integer n above 1 is the axis `#n`."""
    if not dims:
        yield (), ()
        return
    first, rest = dims[0], dims[1:]
    for choices, axes in _blocks_of_dim(first):
        for more_choices, more_axes in blocks_of(rest):
            yield choices + more_choices, axes + more_axes


def _blocks_of_dim(dim: Dim) -> Iterator[tuple[Choices, tuple[str, ...]]]:
    if isinstance(dim, Axis):
        yield (), (dim.name,)
    elif isinstance(dim, Integer):
        yield (), (() if dim.value == 1 else (axis_of(dim),))
    elif isinstance(dim, Ellipsis):
        yield (), ("...",)
    else:
        assert isinstance(dim, Sum)
        for place, product in enumerate(dim.summands):
            for choices, axes in blocks_of(product.factors):
                yield (place, *choices), axes


def locate(dims: Sequence[Dim], sizes: Sizes, choices: Choices, at: Mapping[str, int]) -> int:
    """The row-major flat index, in a tensor of these dims, of the element of a block at axis values `at` (left out: 0)."""
    left = list(choices)
    flat = 0
    for dim in dims:
        flat = flat * size_of(dim, sizes) + _position(dim, sizes, left, at)
    return flat


def _position(dim: Dim, sizes: Sizes, left: list[int], at: Mapping[str, int]) -> int:
    if isinstance(dim, Axis):
        return at.get(dim.name, 0)
    if isinstance(dim, Integer):
        return at.get(axis_of(dim), 0)
    assert isinstance(dim, Sum)
    taken = left.pop(0)
    start = sum(product_size(product, sizes) for product in dim.summands[:taken])
    inner = 0
    for factor in dim.summands[taken].factors:
        inner = inner * size_of(factor, sizes) + _position(factor, sizes, left, at)
    return start + inner


def take_apart(dims: Sequence[Dim], sizes: Sizes, flat: int) -> tuple[Choices, dict[str, int]]:
    """The inverse of `locate`: which block an element lies in, and its axis values."""
    places: list[int] = []
    for dim in reversed(dims):
        flat, place = divmod(flat, size_of(dim, sizes))
        places.append(place)
    choices: list[int] = []
    at: dict[str, int] = {}
    for dim, place in zip(dims, reversed(places), strict=True):
        _take_dim_apart(dim, sizes, place, choices, at)
    return tuple(choices), at


def _take_dim_apart(dim: Dim, sizes: Sizes, place: int, choices: list[int], at: dict[str, int]) -> None:
    if isinstance(dim, Axis):
        at[dim.name] = place
    elif isinstance(dim, Integer):
        if dim.value != 1:
            at[axis_of(dim)] = place
    else:
        assert isinstance(dim, Sum)
        for taken, product in enumerate(dim.summands):
            width = product_size(product, sizes)
            if place < width:
                choices.append(taken)
                factors: list[tuple[Dim, int]] = []
                for factor in reversed(product.factors):
                    place, digit = divmod(place, size_of(factor, sizes))
                    factors.append((factor, digit))
                for factor, digit in reversed(factors):
                    _take_dim_apart(factor, sizes, digit, choices, at)
                return
            place -= width
        raise IndexError(place)
