"""Is what lies under the final name what this plan makes? Every byte is made again and compared; nothing is written.

A run that was killed between giving the name and clearing away its journal has done its work: `--resume` must find that out, and
not by believing a size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from isomorph.engine.budget import Budget
from isomorph.engine.checks import carry_out
from isomorph.engine.checksums import Crcs, record_crcs
from isomorph.engine.copy import produce
from isomorph.engine.journal import Progress
from isomorph.engine.pieces import moves_by_target, parts_of, pieces_of
from isomorph.engine.places import Place
from isomorph.errors import Different, RefusedError
from isomorph.formats.base import Checkpoint, FileLayout
from isomorph.operators.base import Changes
from isomorph.plan.plan import Plan


def take_finished(
    plan: Plan,
    source: Checkpoint,
    place: Place,
    budget: Budget,
    verify: Callable[[Path], Any] | None,
    changes: dict[str, Changes],
) -> Any:
    """What `verify` says of a target that is there and is finished; what lay about beside it is removed.

    RefusedError, nothing having been touched, where the target is something else; Different, SourceChanged.
    """
    carry_out(plan, source)
    if not is_finished(plan, source, place, budget, changes):
        place.check()
        raise RefusedError(place.shown, "changed while it was looked at; not touched", "Try again")
    source.check_unchanged()
    verified = None if verify is None else verify(place.target)
    if getattr(verified, "equal", True) is False:
        raise Different(verified)
    source.check_unchanged()
    place.remove_temporary()
    return verified


def is_finished(plan: Plan, source: Checkpoint, place: Place, budget: Budget, changes: dict[str, Changes]) -> bool:
    """True when every file of the target lies under its final name with exactly the bytes that the plan gives it.

    What rounding casts change is counted in `changes`, by target.
    """
    descriptors: list[int] = []
    try:
        for path, layout in zip(place.finals, place.layout.files, strict=True):  # all sizes before the first byte
            try:
                descriptors.append(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
            except OSError:
                return False
            found = os.fstat(descriptors[-1])
            if not stat.S_ISREG(found.st_mode) or found.st_size != layout.nbytes:
                return False
        return all(
            _is_equal(plan, source, layout, descriptor, budget, changes)
            for layout, descriptor in zip(place.layout.files, descriptors, strict=True)
        )
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _is_equal(
    plan: Plan, source: Checkpoint, layout: FileLayout, descriptor: int, budget: Budget, changes: dict[str, Changes]
) -> bool:
    crcs = Crcs(layout.records, Progress(0, 0), {})
    for piece in pieces_of(parts_of(plan, moves_by_target(plan), layout, source, budget), budget.chunk):
        buffer: np.ndarray[Any, Any] = np.empty(piece.nbytes, np.uint8)
        produce(plan, source, piece, buffer, changes)
        if not _holds(descriptor, piece.offset, buffer.data):
            return False
        for stretch in record_crcs(piece, buffer, layout.records, {}) if layout.records else ():
            crcs.add(*stretch)
    trailer = () if layout.trailer is None else layout.trailer(crcs.finish())
    return all(_holds(descriptor, literal.offset, memoryview(literal.data)) for literal in trailer)


def _holds(descriptor: int, offset: int, wanted: memoryview) -> bool:
    """True when the file has these bytes there."""
    done = 0
    while done < len(wanted):
        found = os.pread(descriptor, min(len(wanted) - done, 1 << 24), offset + done)
        if not found or found != wanted[done : done + len(found)]:
            return False
        done += len(found)
    return True
