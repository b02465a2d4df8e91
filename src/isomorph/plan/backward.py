"""What reading a morph the other way gives back, proved by planning it."""

from __future__ import annotations

from collections import Counter

from isomorph.errors import MorphError
from isomorph.plan.moves import names_of
from isomorph.plan.plan import Plan


def backward(plan: Plan) -> str:
    """What reading the morph the other way gives back, proved by planning it."""
    try:
        back = plan.inverse
    except MorphError as error:
        first = error.gaps[0]
        more = f" (and {len(error.gaps) - 1} more)" if len(error.gaps) > 1 else ""
        rule = f": {first.text}" if first.kind == "idle" and first.text is not None else ""
        return f"not without more: {first.message}{rule}{more}"
    classes = Counter(target.klass for target in back.targets.values() if target.name in plan.source)
    rounded = [name for name, target in plan.targets.items() if target.klass != "exact"]
    lossy_sources = {
        source for move in plan.moves if move.target.tensor in set(rounded) for source in names_of(move.source)
    }
    exact = sum(
        1
        for name, target in back.targets.items()
        if name in plan.source and target.klass == "exact" and name not in lossy_sources
    )
    parts = []
    if exact:
        parts.append(f"{exact:,} tensors return exactly" if exact > 1 else "1 tensor returns exactly")
    rest = sum(classes.values()) - exact
    if rest:
        parts.append(f"{rest:,} return rounded" if rest > 1 else "1 returns rounded")
    gone = [name for name in plan.source if name not in back.targets]
    if gone:
        dropped = set(plan.dropped)
        one_way = {name for name, target in plan.targets.items() if target.klass == "one-way"}
        once = {source for move in plan.moves if move.target.tensor in one_way for source in names_of(move.source)}
        spent = sum(1 for name in gone if name not in dropped and name in once)
        left = sum(1 for name in gone if name in dropped)
        part = len(gone) - left - spent
        if left:
            parts.append(f"the {left:,} dropped do not" if left > 1 else "the dropped one does not")
        if spent:
            parts.append(f"{spent:,} that go one way do not" if spent > 1 else "1 that goes one way does not")
        if part:
            parts.append(f"{part:,} that lost a part do not" if part > 1 else "1 that lost a part does not")
    return "; ".join(parts) or "nothing returns"
