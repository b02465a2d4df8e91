"""Random rules over prime sizes: the target made the obvious way with numpy is what verify expects, whole, and through a chain."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isomorph.formats.memory import ArrayCheckpoint
from isomorph.language.parse import parse
from isomorph.language.scopes import flatten
from isomorph.verify import verify

PRIMES = {"a": 2, "b": 3, "c": 5, "d": 7}
WHERE = " where " + ", ".join(f"{axis}={size}" for axis, size in PRIMES.items())

Grouping = list[list[str]]


@st.composite
def groupings(draw: st.DrawFn) -> Grouping:
    """The four axes in any order, cut into dims anywhere."""
    order = draw(st.permutations(sorted(PRIMES)))
    cuts = sorted(draw(st.sets(st.integers(1, 3))))
    return [list(order[start:stop]) for start, stop in pairwise([0, *cuts, 4])]


def written(grouping: Grouping) -> str:
    return "[" + " ".join(f"({' '.join(axes)})" for axes in grouping) + "]"


def axes_of(grouping: Grouping) -> list[str]:
    return [axis for axes in grouping for axis in axes]


def arranged(grouping: Grouping, values: np.ndarray) -> np.ndarray:
    """`values` [a b c d] in the shape of a grouping."""
    order = [sorted(PRIMES).index(axis) for axis in axes_of(grouping)]
    return np.ascontiguousarray(
        values.transpose(order).reshape([prod(PRIMES[axis] for axis in axes) for axes in grouping])
    )


def numbered() -> np.ndarray:
    return np.arange(prod(PRIMES.values()), dtype=np.int32).reshape([PRIMES[axis] for axis in sorted(PRIMES)])


@settings(max_examples=60, deadline=None)
@given(groupings(), groupings(), st.integers(0, 209))
def test_products_in_any_order(left: Grouping, right: Grouping, changed: int) -> None:
    """Equal both ways; and one element changed is found at its index."""
    program = flatten(parse(f"x {written(left)} <-> y {written(right)}{WHERE}"))
    one = ArrayCheckpoint({"x": arranged(left, numbered())})
    two = arranged(right, numbered())
    assert verify([program], one, ArrayCheckpoint({"y": two})).equal
    assert verify([program.inverse], ArrayCheckpoint({"y": two}), one).equal
    two.reshape(-1)[changed] = -1
    (difference,) = verify([program], one, ArrayCheckpoint({"y": two})).differences
    assert difference.first is not None
    assert difference.first.index == tuple(int(at) for at in np.unravel_index(changed, two.shape))
    assert difference.first.found == "-1"


@settings(max_examples=60, deadline=None)
@given(groupings(), groupings(), groupings(), groupings())
def test_chains_of_groupings_that_share_no_grain(
    first: Grouping, second: Grouping, third: Grouping, last: Grouping
) -> None:
    """`second` and `third` are two readings of one flat tensor: the stages cut it where no axis of the other does."""
    flat = prod(PRIMES.values())
    programs = [
        flatten(parse(f"x {written(first)} <-> m [({' '.join(axes_of(second))})]{WHERE}")),
        flatten(parse(f"m [({' '.join(axes_of(third))})] <-> y {written(last)}{WHERE}")),
    ]
    middle = arranged([axes_of(second)], numbered()).reshape(flat)
    axes = axes_of(third)
    back = middle.reshape([PRIMES[axis] for axis in axes]).transpose([axes.index(axis) for axis in sorted(PRIMES)])
    source, target = ArrayCheckpoint({"x": arranged(first, numbered())}), arranged(last, back)
    report = verify(programs, source, ArrayCheckpoint({"y": target}))
    assert report.equal, str(report)
    target.reshape(-1)[[0, -1]] = target.reshape(-1)[[-1, 0]]
    assert not verify(programs, source, ArrayCheckpoint({"y": target})).equal


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([2, 3, 5, 7]), min_size=2, max_size=4),
    st.integers(1, 3),
    st.booleans(),
    st.permutations(range(3)),
)
def test_sums_of_unequal_parts(sizes: list[int], heads: int, inside: bool, order: list[int]) -> None:
    """Parts joined along an axis, outermost or within each head, moved elsewhere by a second stage."""
    names = [f"p{place}" for place in range(len(sizes))]
    joined = "(" + " + ".join(names) + ")"
    fused = f"[(h {joined}) i]" if inside else f"[h {joined} i]"
    where = " where h=" + ", ".join([str(heads), *(f"{name}={size}" for name, size in zip(names, sizes, strict=True))])
    text = ", ".join(f"{name} [h {name} i]" for name in names) + f" <-> m {fused}{where}"
    total = sum(sizes)
    arrays = {
        name: np.random.default_rng(size).integers(0, 1 << 30, (heads, size, 3)).astype(np.int32)
        for name, size in zip(names, sizes, strict=True)
    }
    axes = "hti"
    second = (
        f"m [{'(h t)' if inside else 'h t'} i] <-> y [{' '.join(axes[at] for at in order)}] where h={heads}, t={total}"
    )
    programs = [flatten(parse(text)), flatten(parse(second))]
    whole = np.concatenate([arrays[name] for name in names], axis=1).transpose(order)
    target = ArrayCheckpoint({"y": np.ascontiguousarray(whole)})
    source = ArrayCheckpoint(arrays)
    report = verify(programs, source, target, max_memory=1 << 12)
    assert report.equal, str(report)
    backward = verify([stage.inverse for stage in reversed(programs)], target, source)
    assert backward.equal, str(backward)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 4), st.sampled_from(["u1", "u2", "f4", "f8", "c16"]))
def test_tiles_of_any_size_cover_a_transposed_stack(rows: int, columns: int, count: int, kind: str) -> None:
    """Files, not arrays in memory, would read the same; here many tiles, of every width, among them 16 bytes."""
    chance = np.random.default_rng(rows)
    arrays = {f"e.{at}.w": chance.integers(0, 200, (rows, columns)).astype(kind) for at in range(count)}
    target = np.stack([arrays[f"e.{at}.w"].T for at in range(count)], axis=1)
    program = flatten(parse("e.{e}.w [o i] <-> w [i e o]"))
    report = verify([program], ArrayCheckpoint(arrays), ArrayCheckpoint({"w": target}), max_memory=4096)
    assert report.equal, str(report)
    assert report.elements == rows * columns * count
