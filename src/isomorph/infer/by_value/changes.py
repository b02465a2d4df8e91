"""What was done to the values on the way: casts, w + 1, w - 1, -w, w * c, exp(w), log(w). Found from sketches, confirmed by hashes.

    sketch(s), sketch(t) ──extremes fit──▶ candidates ──apply to all of s, hash, add up──▶ the total of t ──▶ Change

Each candidate is carried out by the operators of the notation, so that what is confirmed is what a plan computes, bit for bit.
Order plays no part: t may be s in any layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isomorph.errors import CheckError, MorphError
from isomorph.formats.base import Checkpoint
from isomorph.infer.by_value.fingerprint import Print
from isomorph.infer.by_value.hashing import MASK, TILE, hash_elements, total
from isomorph.infer.by_value.maps import FIXED, NEG, Group, Map, near_ends, step_of
from isomorph.infer.by_value.runs import runs
from isomorph.infer.by_value.scales import numbers_near
from isomorph.infer.by_value.sketches import Sketch, sketch, sketch_of
from isomorph.language.tree import Op
from isomorph.operators.casting import to_f64
from isomorph.operators.numbers import FLOATS, widens
from isomorph.operators.registry import build
from isomorph.tensors import DTYPES, DType, dtype

Array = np.ndarray[Any, np.dtype[Any]]

MOST_TRIED = 6
"""So many numbers `c` that fit the extremes are tried on the whole tensor."""
FEWEST = 4
"""Fewer different numbers than these do not tell a scaling from chance."""


@dataclass(frozen=True)
class Change:
    """Operators in the direction source -> target, and what they do in words. No operators: nothing changes."""

    operators: tuple[Op, ...]
    words: str


def cast_change(source: DType, target: DType, *, exact: bool, saturate: bool = False) -> Change:
    """The cast from one dtype to the other; no operator where they are equal. `exact`: `->`, else `~>`."""
    if source == target:
        return Change((), "")
    op = Op("cast", source.name, target.name, rounding=not exact, saturate=saturate and not exact)
    return Change((op,), f"{source} {'->' if exact else '~>'} {target}" + (" saturate" if op.saturate else ""))


def apply(values: Array, change: Change, source: DType | None = None) -> Array:
    """What the plan would make of `values`: an array of the result's values (`dtype.numpy`), of the same shape.

    `values` are of `source` (its bits or its values); where it is not given, the array's own dtype says it. Raises MorphError where
    an operator does not take the dtype, CheckError where it refuses an element.
    """
    kind = source if source is not None else dtype(values.dtype.name)
    array = np.ascontiguousarray(values).view(kind.bits)
    for op in change.operators:
        operator = build(op)
        made = operator.result(kind)
        array = operator.apply(array, kind)
        kind = made
    return array.view(kind.numpy)


def result(change: Change, source: DType) -> DType:
    """The dtype that a change makes of `source`. Raises MorphError."""
    for op in change.operators:
        source = build(op).result(source)
    return source


def value_changes(
    source: Checkpoint,
    s: str,
    target: Checkpoint,
    t: str,
    print_of_source: Print | None = None,
    print_of_target: Print | None = None,
    *,
    max_memory: int = 256 << 20,
) -> list[Change]:
    """The changes that make the elements of tensor `s` those of `t`, whatever their order; the simplest first, often one or none.

    A change without operators (and a cast alone) is not looked for: prints show those. Both tensors are read once for their
    sketches, and `s` once for each candidate that the sketches leave; the prints, where they are known, spare more. Of many
    tensors, `changes_of_leftovers` reads each once.
    """
    spec, other = source.manifest[s], target.manifest[t]
    if print_of_source is not None and print_of_target is not None and print_of_source.same > print_of_target.same:
        return []
    if not (spec.dtype.is_float and other.dtype.is_float) or spec.numel != other.numel or not spec.numel:
        return []
    mine = sketch(source, s, max_memory=max_memory // 4)
    its = sketch(target, t, max_memory=max_memory // 4)
    wanted = print_of_target.total if print_of_target is not None else _total(target, t, Change((), ""), max_memory)
    return _confirmed(source, s, mine, its, wanted, max_memory)


def changes_of_leftovers(
    source: Checkpoint,
    source_names: Iterable[str],
    target: Checkpoint,
    target_names: Iterable[str],
    *,
    prints: Mapping[str, Print] | None = None,
    max_memory: int = 256 << 20,
) -> dict[str, list[tuple[str, Change]]]:
    """For many tensors at once: target name -> (source name, change) that make it, simplest first; only targets that have any.

    Each tensor is read once for its sketch. Pairs are then compared by their sketches, and `source` is read again only for pairs
    whose extremes fit to the last bit. `prints`: of the targets, where they are known.
    """
    mine_of, its_of = _floats_by_size(source, source_names), _floats_by_size(target, target_names)
    both = set(mine_of.values()) & set(its_of.values())
    mine = _sketches(source, [name for name, size in mine_of.items() if size in both], max_memory)
    its = _sketches(target, [name for name, size in its_of.items() if size in both], max_memory)
    by_size: dict[tuple[int, int], list[str]] = {}
    for name, one in its.items():
        by_size.setdefault((one.n_finite, one.n_nan), []).append(name)
    groups = {size: Group(names, [its[name] for name in names]) for size, names in by_size.items()}
    wanted: dict[str, int] = {}
    found: dict[str, list[tuple[str, Change]]] = {}
    for s, one in mine.items():
        group = groups.get((one.n_finite, one.n_nan))
        for t in group.alike(one) if group is not None else ():
            if t not in wanted:
                known = (prints or {}).get(t)
                wanted[t] = known.total if known is not None else _total(target, t, Change((), ""), max_memory)
            for change in _confirmed(source, s, one, its[t], wanted[t], max_memory):
                found.setdefault(t, []).append((s, change))
    return {t: sorted(found[t], key=lambda pair: len(pair[1].operators)) for t in its if t in found}


def array_changes(values: Array, made: Array, source: DType | None = None, target: DType | None = None) -> list[Change]:
    """The same for two arrays: a part of a fused tensor and what may have been made of it. Order plays no part."""
    kind = source if source is not None else dtype(values.dtype.name)
    other = target if target is not None else dtype(made.dtype.name)
    if not (kind.is_float and other.is_float) or values.size != made.size or not values.size:
        return []
    bits = np.ascontiguousarray(values).reshape(-1).view(kind.bits)
    others = np.ascontiguousarray(made).reshape(-1).view(other.bits)
    wanted = total(hash_elements(others, other))
    return list(_tried(lambda: [bits], sketch_of([bits], kind), sketch_of([others], other), wanted))


# ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _floats_by_size(checkpoint: Checkpoint, names: Iterable[str]) -> dict[str, int]:
    """Name -> number of elements, of floating tensors that have any."""
    specs = {name: checkpoint.manifest[name] for name in names}
    return {name: spec.numel for name, spec in specs.items() if spec.dtype.is_float and spec.numel}


def _sketches(checkpoint: Checkpoint, names: Iterable[str], max_memory: int) -> dict[str, Sketch]:
    found = {name: sketch(checkpoint, name, max_memory=max_memory // 4) for name in names}
    return {name: one for name, one in found.items() if one.n_finite}


def _confirmed(source: Checkpoint, s: str, mine: Sketch, its: Sketch, wanted: int, max_memory: int) -> list[Change]:
    return list(_tried(lambda: runs(source, s, max_memory=max_memory // 4), mine, its, wanted))


def _tried(read: Callable[[], Iterable[Array]], mine: Sketch, its: Sketch, wanted: int) -> Iterator[Change]:
    """The changes of `mine` to `its` that give the wanted total. One for each map, and one number for scaling."""
    if mine.n_finite != its.n_finite or not mine.n_finite or mine.n_nan != its.n_nan:
        return
    for each in FIXED:
        if not near_ends(each.operators, mine, its):
            continue
        kinds = _computing(mine.dtype, its.dtype)
        for kind in kinds[:1] if each.operators == (NEG,) else kinds:
            change = _with_casts(each, mine.dtype, kind, its.dtype)
            if _fits(change, each.turns, mine, its) and _total_of(read(), mine.dtype, change) == wanted:
                yield _exactly(read, change, mine.dtype, wanted)
                break
    tried = 0
    for kind, each in _scalings(mine, its):
        change = _with_casts(each, mine.dtype, kind, its.dtype)
        if _fits(change, each.turns, mine, its):
            if _total_of(read(), mine.dtype, change) == wanted:
                yield _exactly(read, change, mine.dtype, wanted)
                return
            tried += 1
            if tried == MOST_TRIED:
                return


def _scalings(mine: Sketch, its: Sketch) -> Iterator[tuple[DType, Map]]:
    """`mul c`, for every likely c that takes the extremes to the extremes, and the dtype to compute it in; none where there are
    too few numbers to say so."""
    if mine.n_distinct < FEWEST:
        return
    slack = 2 * step_of(mine.dtype, its.dtype)
    x = np.concatenate([mine.lows, mine.highs])
    for sign in ("", "-"):
        lows, highs = (its.lows, its.highs) if not sign else (-its.highs[::-1], -its.lows[::-1])
        y = np.concatenate([lows, highs])
        if x[0] * y[-1] != 0 and abs(x[0] * y[-1] - x[-1] * y[0]) > 2 * slack * abs(x[0] * y[-1]):
            continue
        sure = (np.abs(x) > 0) & (np.abs(y) > 2.0 ** (1 - FLOATS[its.dtype.name].bias))
        if not sure.any():
            continue
        with np.errstate(all="ignore"):
            ratios = y[sure] / x[sure]
        low, high = float(ratios.max() * (1 - slack)), float(ratios.min() * (1 + slack))
        if not low > 0 or low > high:
            continue
        for kind in _computing(mine.dtype, its.dtype):
            for text in numbers_near(low, high, kind):
                if text != "1":
                    yield kind, Map((Op("mul", number=sign + text),), f"w * {sign}{text}", turns=bool(sign))


def _computing(source: DType, target: DType) -> list[DType]:
    """The dtypes in which a map may have been computed: the wider one first; f32 between two narrow ones."""
    wide = target if widens(source, target) else source if widens(target, source) else DTYPES["f32"]
    found = [wide, source, target]
    if wide.nbytes < 4:
        found.append(DTYPES["f32"])
    return [kind for kind in dict.fromkeys(found) if kind.nbytes > 1]


def _with_casts(each: Map, source: DType, kind: DType, target: DType) -> Change:
    """The map computed in `kind`, with the casts before and after."""
    before = cast_change(source, kind, exact=widens(source, kind))
    after = cast_change(kind, target, exact=widens(kind, target))
    words = ", ".join(part for part in (before.words, each.words, after.words) if part)
    return Change((*before.operators, *each.operators, *after.operators), words)


# ── confirming ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _fits(change: Change, turns: bool, mine: Sketch, its: Sketch) -> bool:
    """The extremes go to the extremes, every one of them exactly."""
    lows, highs = (mine.highs, mine.lows) if turns else (mine.lows, mine.highs)
    for values, others in ((lows, its.lows), (highs, its.highs)):
        try:
            made = apply(values.astype(mine.dtype.numpy), change, mine.dtype)
        except (CheckError, MorphError):
            return False
        if not np.array_equal(np.sort(to_f64(made.view(its.dtype.bits), its.dtype)), others):
            return False
    return True


def _total(checkpoint: Checkpoint, name: str, change: Change, max_memory: int) -> int:
    found = _total_of(runs(checkpoint, name, max_memory=max_memory // 4), checkpoint.manifest[name].dtype, change)
    assert found is not None
    return found


def _total_of(parts: Iterable[Array], kind: DType, change: Change) -> int | None:
    """The sum of the hashes of what the change makes; None where an element is refused."""
    found = 0
    made = result(change, kind)
    for part in parts:
        for start in range(0, len(part), TILE):
            try:
                values = apply(part[start : start + TILE], change, kind)
            except CheckError:
                return None
            found += total(hash_elements(values.view(made.bits), made))
    return found & MASK


def _exactly(read: Callable[[], Iterable[Array]], change: Change, kind: DType, wanted: int) -> Change:
    """The same change with `->` in the place of each `~>` where nothing was rounded."""
    if not any(op.rounding for op in change.operators):
        return change
    operators = tuple(replace(op, rounding=False) for op in change.operators)
    exact = Change(operators, change.words.replace("~>", "->"))
    return exact if _total_of(read(), kind, exact) == wanted else change
