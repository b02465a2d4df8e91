"""Two models -> copies that are run: one of the candidate, up to three of the reference, filled alike for each regime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from isomorph.errors import UsageError
from isomorph.trace.bridge import Bridge
from isomorph.trace.floor import COARSE, EPSILON, Floor, floor_of
from isomorph.trace.nouns import Array
from isomorph.trace.probes import Probe
from isomorph.trace.protocol import Side
from isomorph.trace.regimes import Regime

UNMEASURED = 1024.0
"""Steps of the dtype that are allowed where the reference has no finer run to be held against."""


@dataclass
class Prepared:
    """Copies in the run's dtype, and of the reference one coarser and one finer for its floor (None: it does not run so)."""

    reference: Side
    candidate: Side
    coarse: Side
    fine: Side | None
    bridge: Bridge
    dtype: str
    own: tuple[Mapping[str, Array], Mapping[str, Array]]
    state: Mapping[str, Array] = field(default_factory=dict)
    """What the reference holds now; `expected` what the morph makes of it, `actual` what the candidate holds."""
    expected: Mapping[str, Array] = field(default_factory=dict)
    actual: Mapping[str, Array] = field(default_factory=dict)

    def fill(self, regime: Regime, original: Side, probe: Probe, seed: int) -> None:
        """Write a regime's weights into all copies; "own weights" puts back what each had."""
        is_float32 = self.fine is not None and self.coarse.dtype == "float32"
        copies = (self.fine, self.coarse) if self.fine is not None and is_float32 else None
        drawn = regime.state(original, seed, probe, copies)
        if drawn is None:
            self.state, self.actual = self.own
            self.expected = self._made(self.state)
        else:
            self.state = self.bridge.kept({**self.own[0], **drawn})
            self.expected = self._made(self.state)
            self.actual = {**self.own[1], **self.expected}
        if self.own[0]:
            for side in {id(side): side for side in (self.reference, self.coarse) if side is not None}.values():
                side.fill(self.state)
            if self.fine is not None and self.fine is not self.reference:
                self.fine.fill(self.coarse.state())
        if self.own[1]:
            self.candidate.fill(self.actual)

    def _made(self, state: Mapping[str, Array]) -> dict[str, Array]:
        """What the morph makes, of the names that the candidate has."""
        if not state:
            return {}
        made = self.bridge.forward(state)
        return {name: array for name, array in made.items() if name in self.own[1]}

    def floor(self, probe: Probe) -> Floor:
        """The reference's tolerances with the weights it holds now, on the probe's other inputs."""
        if self.fine is None:
            least = UNMEASURED * EPSILON[self.dtype]
            return Floor({}, least, least, 0.0)
        coarse = self.coarse.run(probe.others)
        return floor_of(coarse, self.fine.run(probe.others), self.dtype, probe.padding)


def prepared(
    reference: Side, candidate: Side, bridge: Bridge, probe: Probe, dtype: str | None
) -> tuple[Prepared, tuple[str, ...]]:
    """Copies in float64 where both run so, else in float32 (a note says so; so are functions); in `dtype` where that is given.

    Raises UsageError with the library's own message where a model does not run, and for shapes that the morph does not make.
    """
    notes: list[str] = []
    chosen = dtype
    sides: tuple[Side, Side] | None = None
    if chosen is None and "callable" in (reference.library, candidate.library):
        chosen = "float32"  # the weights inside a function cannot be made another dtype
        sides = _running(reference, candidate, chosen, probe)
    elif chosen is None:
        try:
            sides = _running(reference, candidate, "float64", probe)
            chosen = "float64"
        except UsageError as refused:
            sides = _running(reference, candidate, "float32", probe)
            chosen = "float32"
            notes.append(f"run in float32, for float64 does not run: {_first_line(refused)}")
    else:
        sides = _running(reference, candidate, chosen, probe)
    _check_fit(bridge, candidate)
    one, other = sides
    coarse = one if COARSE[chosen] == chosen else reference.copy(COARSE[chosen])
    fine: Side | None = one if chosen == "float64" else None
    if fine is None:
        try:
            fine = reference.copy("float64")
            fine.run(probe.others, watch=())
        except UsageError as refused:
            fine = None
            notes.append(
                "the reference does not run in float64, so its own gap is not known, and "
                f"{UNMEASURED * EPSILON[chosen]:.0e} is allowed: {_first_line(refused)}"
            )
    return Prepared(one, other, coarse, fine, bridge, chosen, (reference.state(), candidate.state())), tuple(notes)


def _running(reference: Side, candidate: Side, dtype: str, probe: Probe) -> tuple[Side, Side]:
    one, other = reference.copy(dtype), candidate.copy(dtype)
    one.run(probe.reference, watch=())
    other.run(probe.candidate, watch=())
    return one, other


def _check_fit(bridge: Bridge, candidate: Side) -> None:
    held = candidate.manifest()
    wrong = [
        f"`{name}` is {list(held[name].shape)}, the morph makes {list(target.spec.shape)}"
        for name, target in bridge.plan.targets.items()
        if name in held.tensors and held[name].shape != target.spec.shape
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UsageError(
            f"the morph does not fit {candidate.title}: {wrong[0]}{more}. Correct the morph, or its sizes with --set"
        )
    if len(held) and bridge.plan.targets and not any(name in held.tensors for name in bridge.plan.targets):
        raise UsageError(
            f"the morph makes no tensor that {candidate.title} has: it makes {next(iter(bridge.plan.targets))!r} …, "
            f"the candidate has {next(iter(held))!r} …. If the morph leads the other way, give --inverse"
        )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
