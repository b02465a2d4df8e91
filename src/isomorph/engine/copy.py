"""A Piece -> its bytes in a buffer: ranges are read straight into it, elements made in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.engine.arrays import fill_from
from isomorph.engine.pieces import Bytes, Clone, Make, Piece
from isomorph.formats.base import Checkpoint
from isomorph.operators.base import Changes
from isomorph.plan.plan import Plan

Array = np.ndarray[Any, Any]


def produce(plan: Plan, source: Checkpoint, piece: Piece, buffer: Array, changes: dict[str, Changes]) -> None:
    """Fill `buffer` (u1, as long as the piece). What rounding casts change is counted in `changes`, by target."""
    for part in piece.parts:
        if isinstance(part, Clone):
            continue  # no byte of it passes through memory
        place = buffer[part.offset - piece.offset :][: part.nbytes]
        if isinstance(part, Bytes):
            place[...] = np.frombuffer(part.data, np.uint8)
        elif not isinstance(part, Make):
            source.pread(part.file, part.source_offset, place.data)
        elif part.nbytes:
            bits = plan.targets[part.name].spec.dtype.bits
            # A tensor may lie at any byte of the file: then it is made elsewhere and copied.
            aligned = place.ctypes.data % min(part.itemsize, 8) == 0
            flat = place.view(bits) if aligned else np.empty(part.stop - part.start, bits)
            counted = Changes()
            for move in part.moves:
                fill_from(plan, move, source, flat, part.start, counted)
            if not aligned:
                place[...] = flat.view(np.uint8)
            if counted.elements:
                changes.setdefault(part.name, Changes()).add(counted)
