"""Elements that are carried in items (q4_k, f4) may not be parted: what lies within an item stays innermost.

An item of `w [o i]` is a run of elements along `i`. So `w [o i] <-> w.t [i o]` would put whole runs where single elements belong,
and is refused; axes outside of the items may be renamed, split, merged, stacked and reordered as those of any other dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isomorph.language.axes import Block, TermBlock
from isomorph.language.tree import Dim, Ellipsis
from isomorph.plan.kinds import Part, Unsettled
from isomorph.plan.stage import StageRule
from isomorph.tensors import DType


def require_whole(
    rule: StageRule, part: Part, left: TermBlock, right: TermBlock, further: Sequence[int], source: str, target: str
) -> None:
    """Raise Unsettled where a block that is read has items whose elements would not lie together in the target."""
    kind = next((spec.dtype for spec in part.specs if spec.dtype.block), None)
    if kind is None:
        return
    read, made = rule.rule.left[left.term].dims, rule.rule.right[right.term].dims
    if within(read, left.block, kind, further) == within(made, right.block, kind, further) != ():
        return
    axes = "axis" if len(kind.block) == 1 else f"{len(kind.block)} axes"
    raise Unsettled(
        "block",
        f"`{target}` would part the items of `{source}`: {items_text(kind)} over its last {axes}",
        hint=f"Of {kind} only what is outside of the items can be moved; keep its last {axes} last, or dequantize it first",
        tensors=(source, target),
    )


def items_text(kind: DType) -> str:
    """`q4_k holds 256 elements in 144 bytes`."""
    return (
        f"an item of {kind} holds {kind.elements:,} elements in {kind.nbytes:,} byte{'' if kind.nbytes == 1 else 's'}"
    )


def counts_items(parts: Iterable[Part]) -> str | None:
    """What to say where sizes contradict each other and some tensors are counted in items; None where none are."""
    kind = next((spec.dtype for part in parts for spec in part.specs if spec.dtype.block), None)
    if kind is None:
        return None
    return (
        f"{items_text(kind)}, and its last axis counts items: a rule that ties it to an axis of elements does not hold of it. "
        "Dequantize first, or take another layout"
    )


def one_type(found: Iterable[DType]) -> str:
    """What to do where parts of several dtypes would make one tensor."""
    kinds = [kind for kind in found if kind.kind == "opaque"]
    if not kinds:
        return "A tensor has one dtype. Add a cast:  | float -> f32"
    return f"A tensor has one dtype, and {kinds[0]} is carried whole, never cast: dequantize first, or keep the parts apart"


def within(dims: Sequence[Dim], block: Block, kind: DType, further: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """The axes that the items of `kind` run along: of one dim its innermost axis, of several every axis of theirs.

    Empty where the tensor has fewer dims than an item.
    """
    axes: list[tuple[str, ...]] = []
    for number, dim in enumerate(dims):
        if isinstance(dim, Ellipsis):
            axes.extend((f"...{place}",) for place in range(len(further)))
        else:
            axes.append(tuple(factor.key for factor in block.factors if factor.dim == number))
    last = axes[len(axes) - len(kind.block) :] if len(axes) >= len(kind.block) else []
    return tuple(last) if len(kind.block) > 1 else tuple(keys[-1:] for keys in last)
