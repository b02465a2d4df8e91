"""By values: what is placed, whether the morph gives the target bit for bit, and how long it is."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from conversions import Example
from judged import outcome

from isomorph.formats.memory import ArrayCheckpoint


@dataclass
class Row:
    """One example. `exact`: every target, bit for bit; `again`: with other weights too (None where there are none to try)."""

    name: str
    targets: int
    right: int = 0
    wrong: int = 0
    asked: int = 0
    unplaced: int = 0
    proved: bool = False
    exact: bool = False
    again: bool | None = None
    honest: bool = True
    lines: int = 0
    hand: int | None = None
    seconds: float = 0.0
    megabytes: float = 0.0
    whole: bool = True
    notes: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def row(example: Example) -> Row:
    """What values say of an example."""
    from isomorph.infer.run import infer

    nbytes = sum(array.nbytes for side in (example.source, example.target) for array in side.values())
    found = Row(str(example), len(example.target), hand=example.hand_lines, megabytes=nbytes / 1e6, whole=example.whole)
    began = time.perf_counter()
    try:
        inference = infer(ArrayCheckpoint(example.source), ArrayCheckpoint(example.target), configs=example.configs)
    except Exception as error:  # a benchmark lists what fails, and goes on
        found.notes, found.honest = f"{type(error).__name__}: {error}"[:300], False
        found.seconds = time.perf_counter() - began
        return found
    found.seconds = time.perf_counter() - began
    seen = outcome(example, inference)
    found.right, found.wrong = seen.score.count("right"), seen.score.count("wrong")
    found.asked = seen.score.count("asked") + seen.score.count("asked without the truth")
    found.unplaced = seen.score.count("unplaced")
    found.proved, found.exact, found.honest = inference.is_proved, seen.is_exact, seen.is_honest
    found.again = None if example.again is None or not seen.is_exact else not seen.again
    found.lines = seen.lines
    said = [f"wrong: {name}" for name in seen.wrong[:3]]
    said += [f"bits: {name}" for name in seen.bits[:3]]
    said += [f"again: {name}" for name in seen.again[:2]]
    said += [] if seen.is_exact else [f"problem: {one}" for one in inference.problems[:2]]
    said += [f"refused: {seen.refused.splitlines()[0]}"] if seen.refused else []
    found.notes = "; ".join(said)[:400]
    return found
