"""Attention between projections: which rule the reference computes, which one the candidate does, and what differs.

q, k and v are found among the outputs before the divergence by trying; nothing is read from either side's code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from isomorph.trace.diagnose.attention_fit import Aim, Hints, Three, fit, may_be_values, orders, solve_number
from isomorph.trace.diagnose.attention_formula import Attention, Buckets, attend, split_heads
from isomorph.trace.diagnose.attention_nan import blind_rows, broken_rows
from isomorph.trace.diagnose.attention_rates import rates_words, solve_rates
from isomorph.trace.diagnose.attention_raw import explained_raw, raw_goals
from isomorph.trace.diagnose.attention_readings import Reading, fused_readings, of_three, other_readings, same_reading
from isomorph.trace.diagnose.attention_variants import Variant, fill_words, scale_words, variants
from isomorph.trace.diagnose.stretch import Atom, Goal, Stretch, facts_numbers
from isomorph.trace.nouns import Array, Cause, Site

if TYPE_CHECKING:
    from isomorph.trace.scene import Scene

MOST_SOURCES = 6
MOST_TABLE_ROWS = 1024
MOST_HEADS = 128
MOST_DISTANCE = 320
MOST_WINDOW = 600


def hypotheses(scene: Scene) -> Iterator[Cause]:
    """What the candidate's attention does otherwise."""
    stretch = Stretch(scene)
    for goal in stretch.goals:
        if goal.reference.ndim != 3 or goal.reference.shape[1] < 2:
            continue
        found = explained(stretch, goal)
        if found is not None:
            rule, atoms, reading = found
            yield from differences(stretch, goal, rule, atoms, reading)
            return
        for raw, three in raw_goals(stretch, goal):
            aim = aim_of(stretch, raw, raw.reference, with_finish=True)
            found = explained_raw(stretch, three, aim, hints_of(scene))
            if found is not None:
                yield from differences(stretch, raw, *found)
                return


def explained(stretch: Stretch, goal: Goal) -> tuple[Attention, list[Atom], Reading] | None:
    """The reference's own rule, what its q, k and v were taken from, and how."""
    aim = aim_of(stretch, goal, goal.reference, with_finish=False)
    hints = hints_of(stretch.scene)
    sources = list(_sources(stretch, goal))
    tensors = [atom.reference for atom in sources]
    for order in orders(tensors, goal.reference.shape):
        chosen = [sources[i] for i in order]
        three = of_three(chosen, "reference")
        rule = fit(aim, three, hints, stretch.limit)
        if rule is not None:
            stretch.noise = 4 * aim.error(rule, three)
            return rule, chosen, Reading(three)
    for atom in sources:
        if atom.reference.shape[:2] != goal.reference.shape[:2]:
            continue
        for reading in fused_readings(atom.reference, goal.reference.shape[2]):
            if not may_be_values(aim, reading.three[2], stretch.limit):
                continue
            if reading.heads is None:
                rule = fit(aim, reading.three, hints, stretch.limit)
            else:
                rule = fit(aim, reading.three, replace(hints, heads=(reading.heads,)), stretch.limit)
            if rule is not None:
                stretch.noise = 4 * aim.error(rule, reading.three)
                return rule, [atom], reading
    return None


def aim_of(stretch: Stretch, goal: Goal, target: Array, *, with_finish: bool) -> Aim:
    """What a rule is measured by; `with_finish`: the target is the candidate's, behind the last module where only that is seen."""
    padding = stretch.padding
    shape = target.shape
    kept = None
    if padding is not None and shape[:2] == padding.shape:
        kept = padding
    return Aim(target, padding, kept, bias_tables(stretch), goal.finish if with_finish else None)


def bias_tables(stretch: Stretch) -> dict[str, Array]:
    """Matrices that may hold a bias by bucket and head: narrow ones that whole numbers are looked up in, or that no module owns."""
    scene = stretch.scene
    values = scene.seen_reference.values
    multiplies: set[str] = set()
    for name, facts in scene.reference.modules().items():
        entered = values.get(Site(name, 0, "in", 0))
        if not facts.children and entered is not None and entered.dtype.kind == "f":
            multiplies.update(facts.own)  # what multiplies is no table
    found: dict[str, Array] = {}
    for name, held in scene.state_reference.items():
        shape = np.shape(held)
        if (
            name not in multiplies
            and len(shape) == 2
            and 1 < min(shape) <= MOST_HEADS
            and max(shape) <= MOST_TABLE_ROWS
        ):
            found[name] = np.asarray(held, np.float64)
    return found


def hints_of(scene: Scene) -> Hints:
    """Where to begin, from the reference's attributes."""
    heads = [int(n) for n in facts_numbers(scene, "head", "n_h") if n >= 1 and int(n) == n]
    distances = [int(n) for n in facts_numbers(scene, "distance") if n >= 2]
    thetas = [float(n) for n in facts_numbers(scene, "theta", "rope_base") if n > 1]
    scales = [float(n) for n in facts_numbers(scene, "scal") if 0 < n <= 8]
    windows = [int(n) for n in facts_numbers(scene, "window") if n >= 1]
    return Hints(tuple(heads), tuple(scales[:4]), tuple(thetas[:4]), tuple(distances), tuple(windows[:2]))


def _sources(stretch: Stretch, goal: Goal) -> Iterator[Atom]:
    """The last tensors [B S W] before the goal that modules with parameters gave, in the order in which they came."""
    batch = goal.reference.shape[0]
    modules = stretch.modules
    found: list[Atom] = []
    for atom in stretch.atoms:
        if atom.site is None or atom.site.border != "out" or atom.moment >= goal.moment:
            continue
        if not modules[atom.site.module].own:
            continue
        flat = _flat(atom, goal.reference.shape[1])
        if flat is not None and flat.reference.shape[0] == batch and flat.reference.shape[1] > 1:
            found.append(flat)
        if len(found) == MOST_SOURCES:
            break
    yield from reversed(found[:3])
    yield from found[3:]


def _flat(atom: Atom, length: int) -> Atom | None:
    """[B S W] of [B S W], [B S H D] or [B H S D]."""
    shape = atom.reference.shape
    if len(shape) == 3:
        return atom
    if len(shape) != 4:
        return None

    def flat(x: Array) -> Array:
        ordered = x if x.shape[1] == length else x.transpose(0, 2, 1, 3)
        return ordered.reshape(*ordered.shape[:2], -1)

    return replace(atom, reference=flat(atom.reference), candidate=flat(atom.candidate))


def differences(stretch: Stretch, goal: Goal, rule: Attention, atoms: list[Atom], read: Reading) -> Iterator[Cause]:
    """The candidate's rule: the reference's with one change, or with its q, k and v read in another way."""
    aim = aim_of(stretch, goal, goal.candidate, with_finish=True)
    given = candidate_three(atoms, read)
    width = given[0].shape[2]
    bad = broken_rows(aim)
    if bad is not None:
        blind = list(blind_rows(aim, rule, given, variants(rule, width), bad, stretch.limit))
        for variant, error in blind:
            yield stretch.cause(variant.kind, variant.says, error)
        if blind or aim.error(rule, given) <= stretch.limit:
            return  # else something is off in other rows too
    found: list[tuple[Variant, float]] = []
    tried: list[tuple[float, Variant]] = []
    for variant in variants(rule, width, tuple(aim.tables)):
        error = aim.error(variant.rule, given, rows=aim.rows)
        tried.append((error, variant))
        if error <= stretch.limit or variant.rule.half is not None:
            whole = aim.error(variant.rule, given)
            if whole <= stretch.limit:
                found.append((variant, whole))
    if not found:
        found += _read_otherwise(stretch, aim, rule, atoms, read, given)
    if not found:
        found += _solved(aim, rule, given, stretch.limit)
    if not found:
        found += _heads_moved(aim, rule, given, stretch.limit)
    if not found:
        found += _rounded(stretch, aim, rule, given)
    if not found:
        found += _two_changes(aim, given, tried, width, stretch.limit)
    if not found and tried:
        error, variant = min(tried, key=lambda one: one[0])
        whole = aim.error(variant.rule, given)
        if whole < stretch.scene.suspect.error:
            found.append((variant, whole))
    for variant, error in found:
        yield stretch.cause(variant.kind, variant.says, error)


def candidate_three(atoms: list[Atom], read: Reading) -> Three:
    """The candidate's q, k and v, read as the reference's are."""
    if len(atoms) == 3:
        return of_three(atoms, "candidate")
    made = same_reading(atoms[0].candidate, read.three[0].shape[2], read)
    return made.three if made is not None else read.three


def _read_otherwise(
    stretch: Stretch, aim: Aim, rule: Attention, atoms: list[Atom], read: Reading, given: Three
) -> Iterator[tuple[Variant, float]]:
    """The same rule on a fused tensor that is cut in another way, without biases, or on channels in the candidate's own order."""
    for reading in other_readings(stretch, atoms, read, given, rule.heads):
        yield from _fits(aim, Variant(reading.kind, reading.says, rule), reading.three, stretch.limit)
    raw = [_raw(stretch, atom) for atom in atoms]
    if len(raw) != 3 or any(one is None or one.shape != x.shape for one, x in zip(raw, given, strict=True)):
        return
    q, k, _ = raw
    if q is None or k is None or np.array_equal(q, given[0]):
        return
    three: Three = (q, k, given[2])
    words = "q's and k's rows are in another order than the code takes them"
    yield from _fits(aim, Variant("rotary-style", words, rule), three, stretch.limit)
    for variant in variants(rule, q.shape[2]):
        if variant.kind.startswith("rotary"):
            yield from _fits(aim, variant, three, stretch.limit)


def _fits(aim: Aim, variant: Variant, three: Three, limit: float) -> Iterator[tuple[Variant, float]]:
    if aim.error(variant.rule, three, rows=aim.rows) <= limit:
        error = aim.error(variant.rule, three)
        if error <= limit:
            yield variant, error


def _raw(stretch: Stretch, atom: Atom) -> Array | None:
    """The candidate's tensor as it is, in its own order of channels."""
    if atom.event is None:
        return None
    values = stretch.scene.seen_candidate.values.get(atom.event.candidate)
    if values is None or values.ndim != 3 or values.shape[:2] != atom.reference.shape[:2]:
        return None
    return np.asarray(values, np.float64)


def _solved(aim: Aim, rule: Attention, given: Three, limit: float) -> Iterator[tuple[Variant, float]]:
    """One number of the rule, solved for: the scale, the mask's value, rotary's theta, how much bias is added."""
    width = given[0].shape[2]
    each = width // rule.heads
    grid = [rule.scale * factor for factor in (1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.9, 1.1, 1.25, 2, 4, 8, 16, 64, -1)]
    solved = solve_number(aim, given, lambda number: replace(rule, scale=number), grid)
    if solved is not None and solved[2] <= limit:
        says = scale_words(solved[1], rule.scale, each, width)
        yield Variant("attention-scale", says, solved[0]), solved[2]
    mask = rule.mask
    yield from _windows(aim, rule, given, limit)
    if mask.causal is not None or mask.padding is not None:
        for how in ("add", "set"):

            def masked(number: float, how: str = how) -> Attention:
                return replace(rule, mask=replace(mask, fill=number, how=how))  # type: ignore[arg-type] # one of two

            solved = solve_number(aim, given, masked, (-30.0, -20.0, -10.0, -7.0, -5.0, -3.0, -1.0, 0.5, 3.0))
            if solved is not None and solved[2] <= limit:
                yield Variant("mask-constant", fill_words(float(f"{solved[1]:.6g}"), how), solved[0]), solved[2]
    if rule.rotary is not None:
        rotary = rule.rotary
        solved = solve_number(
            aim,
            given,
            lambda number: replace(rule, rotary=replace(rotary, theta=number)),
            list(np.geomspace(10, 1e8, 141)),
        )
        if solved is not None and solved[2] <= limit:
            says = f"rotary's theta is {solved[1]:.6g}, the reference's {rotary.theta:g}"
            yield Variant("rotary-theta", says, solved[0]), solved[2]
            return
        rates = solve_rates(aim, given, rule)
        if rates is not None and rates[1] <= limit and rates[0].rotary is not None:
            yield Variant("rotary-positions", rates_words(rates[0].rotary.times), rates[0]), rates[1]
            return
    if rule.bias is not None:
        bias: Buckets = rule.bias
        for distance in range(2, MOST_DISTANCE):
            says = f"the relative position buckets end at {distance}, the reference's at {bias.max_distance}"
            other = replace(rule, bias=replace(bias, max_distance=distance))
            yield from _fits(aim, Variant("relative-bias", says, other), given, limit)
        solved = solve_number(
            aim,
            given,
            lambda number: replace(rule, bias=replace(bias, times=number)),
            (-1.0, 0.1, 0.3, 0.5, 2.0, 3.0, 8.0),
        )
        if solved is not None and solved[2] <= limit:
            says = f"the relative position bias is multiplied by {solved[1]:.6g}"
            yield Variant("relative-bias", says, solved[0]), solved[2]
    cap = solve_number(aim, given, lambda number: replace(rule, soft_cap=number), (1.0, 5.0, 20.0, 30.0, 50.0))
    if cap is not None and cap[2] <= limit:
        yield (
            Variant("attention-soft-cap", f"scores are capped at {cap[1]:.6g}, the reference's are not", cap[0]),
            cap[2],
        )


def _windows(aim: Aim, rule: Attention, given: Three, limit: float) -> Iterator[tuple[Variant, float]]:
    """Every number of keys that a query may see, on the rows that tell."""
    for window in range(1, min(given[1].shape[1], MOST_WINDOW)):
        if window != rule.mask.window:
            other = (
                f"the reference {rule.mask.window}" if rule.mask.window is not None else "the reference has no window"
            )
            says = f"a query sees {window} key{'s' if window > 1 else ''} at most (its window), {other}"
            variant = Variant("mask-window", says, replace(rule, mask=replace(rule.mask, window=window)))
            yield from _fits(aim, variant, given, limit)


def _heads_moved(aim: Aim, rule: Attention, given: Three, limit: float) -> Iterator[tuple[Variant, float]]:
    """Heads merged in another order: each head of the candidate is one of the reference's."""
    if aim.carried is not None or aim.target.shape[2] % rule.heads:
        return
    right = attend(rule, given, real=aim.real, tables=dict(aim.tables), rows=aim.rows)
    mine, theirs = split_heads(right, rule.heads, "h d"), split_heads(aim.target[:, aim.rows], rule.heads, "h d")
    gaps = np.abs(mine[:, None] - theirs[:, :, None]).max(axis=(0, 3, 4))
    order = tuple(int(i) for i in gaps.argmin(axis=1))
    if sorted(order) == list(range(rule.heads)) and order != tuple(range(rule.heads)):
        says = f"heads are in the order {' '.join(map(str, order))}"
        yield from _fits(aim, Variant("heads-permuted", says, replace(rule, head_order=order)), given, limit)


def _rounded(stretch: Stretch, aim: Aim, rule: Attention, given: Three) -> Iterator[tuple[Variant, float]]:
    """Scores or probabilities that went through a narrower dtype: nearly all entries agree, single ones round the other way."""
    plain = aim.difference(rule, given)
    if plain is None or not plain.size:
        return
    before = float(np.quantile(np.abs(plain), 0.75)) / aim.top
    for variant in variants(rule, given[0].shape[2]):
        if variant.rule.half is None:
            continue
        left = aim.difference(variant.rule, given)
        if left is None:
            continue
        error = float(np.quantile(np.abs(left), 0.75)) / aim.top
        if error <= max(stretch.limit, before / 50):
            says = f"{variant.says} (measured on three quarters of the entries: single ones round the other way)"
            yield replace(variant, says=says), error


def _two_changes(
    aim: Aim, given: Three, tried: list[tuple[float, Variant]], width: int, limit: float
) -> Iterator[tuple[Variant, float]]:
    """The changes that come closest alone, each with a second one."""
    for _, first in sorted(tried, key=lambda one: one[0])[:3]:
        for second in variants(first.rule, width, tuple(aim.tables)):
            both = Variant(first.kind, f"{first.says}; {second.says}", second.rule)
            yield from _fits(aim, both, given, limit)
