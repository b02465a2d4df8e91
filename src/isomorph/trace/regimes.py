"""Weights that show a fault: the reference's state, drawn anew. They are written into copies of both models, through the morph."""

from __future__ import annotations

from dataclasses import dataclass

from isomorph.trace.nouns import Array
from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side


@dataclass(frozen=True)
class Regime:
    """One way to fill the models: "own weights", "hot", "low-scale"."""

    name: str

    def state(self, reference: Side, seed: int = 0, probe: Probe | None = None) -> dict[str, Array] | None:
        """Values for the reference's state dict, in float64 where floating; None: each side keeps its own weights.

        With a probe, gains are lowered until the reference's own float32 gap on it is at most 1e-3 at its outputs.
        """
        if self.name == "own weights":
            return None
        raise NotImplementedError(self.name)


REGIMES = (Regime("own weights"), Regime("hot"), Regime("low-scale"))
