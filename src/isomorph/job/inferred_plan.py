"""The morph of a trace, inferred from the names and shapes of two state dicts: the last resort, and only where it is certain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isomorph.errors import Gap
from isomorph.tensors import Manifest

LEAST = 0.5
"""How much of the candidate must be placed: what is less is not two implementations of one model."""
MOST_LISTED = 4


@dataclass(frozen=True)
class Inferred:
    """A morph's text, with what is said of it; or why there is none."""

    text: str = ""
    notes: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()


def inferred(
    reference: Manifest, candidate: Manifest, configs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]
) -> Inferred:
    """What names, shapes and the catalogue say without a doubt. Nothing that is open is decided here."""
    from isomorph.infer.run import infer

    found = infer(reference, candidate, configs=configs)
    seen = found.coverage
    if found.questions:
        keys = ", ".join(one.key for one in found.questions[:MOST_LISTED])
        more = f" … and {len(found.questions) - MOST_LISTED} more" if len(found.questions) > MOST_LISTED else ""
        said = f"names and shapes lead from one to the other but for {len(found.questions)} questions: {keys}{more}"
        hint = "`isomorph infer REFERENCE CANDIDATE --resolve trace -o port.morph` settles them by running both"
        return Inferred(gaps=(Gap("layout", said, hint=hint),))
    if found.problems or not found.text or seen.targets - len(seen.unplaced) < LEAST * seen.targets:
        return Inferred()
    by = ", ".join(f"{count:,} {evidence}" for evidence, (count, _) in seen.placed.items())
    note = f"no morph was given, and no layout recognised: it was inferred from names and shapes (tensors by evidence: {by})"
    return Inferred(found.text, (note, *found.notes))
