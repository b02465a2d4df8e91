"""Two models -> the inputs that both are run on."""

from __future__ import annotations

from dataclasses import dataclass

from isomorph.trace.nouns import Array
from isomorph.trace.protocol import Inputs


@dataclass(frozen=True)
class Probe:
    """One input, as each side takes it.

    `others` is for the reference: other values of the same kind and shapes, with the same padding. `padding` is the mask of the
    main tokens, [batch, position], true where a position is real; None where nothing is padded.
    """

    name: str
    reference: Inputs
    candidate: Inputs
    others: Inputs
    padding: Array | None = None
