"""Items of several elements (q4_k, f4) stay whole: seen by walking one step inside them, on both sides of a rule.

An item is thought of as one more axis, innermost in its tensor. The target must have that axis in the same place: behind the axis
that stands last in the source.
"""

from __future__ import annotations

from collections.abc import Sequence

from isomorph.language.tree import Axis, Dim, Integer, Sum
from isomorph.tensors import DType
from isomorph.verify.shapes import Choices, axis_of


def parts_items(kind: DType, read: Sequence[Dim], chosen: Choices, made: Sequence[Dim], taken: Choices) -> bool:
    """True when items of `kind` of a block that is read (its dims, `...` spread out) are not whole in the one that is made."""
    rank = len(kind.block)
    if not rank:
        return False
    if len(read) < rank or len(made) < rank:
        return True
    sides = []
    for dims, choices in ((read, chosen), (made, taken)):
        left = list(choices)
        walked = [_axes(dim, left) for dim in dims]
        sides.append([axes[-1:] for axes in walked[-1:]] if rank == 1 else walked[-rank:])
    return sides[0] != sides[1]


def _axes(dim: Dim, choices: list[int]) -> list[str]:
    """The axes of a dim under these choices of summands, slowest first; units are none."""
    if isinstance(dim, Axis):
        return [dim.name]
    if isinstance(dim, Integer):
        return [] if dim.value == 1 else [axis_of(dim)]
    if not isinstance(dim, Sum):
        raise TypeError(f"{dim} is not spread out")
    product = dim.summands[choices.pop(0)]
    return [axis for factor in product.factors for axis in _axes(factor, choices)]
