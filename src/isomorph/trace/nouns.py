"""What a trace is made of: plain data that every step reads. No library, no model, nothing is run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Border = Literal["in", "out"]


class Site(NamedTuple):
    """One tensor at the border of a module, in one run.

    `module` is its dotted name ("" is the model), `call` counts its calls in the run from 0, `index` counts the tensors that go in
    (positional arguments in order, then keywords in order, nested ones flattened) or come out (flattened).
    """

    module: str
    call: int
    border: Border
    index: int = 0  # type: ignore[assignment] # a place is not sought in a site

    def __str__(self) -> str:
        again = f" (call {self.call})" if self.call else ""
        which = f"[{self.index}]" if self.index else ""
        return f"{self.module or 'the model'}{again}, {'input' if self.border == 'in' else 'output'}{which}"


class Call(NamedTuple):
    """One call of one module."""

    module: str
    call: int


@dataclass(frozen=True)
class ModuleFacts:
    """One module of a side: its class, the names of the state dict that are its own (not its children's), and its plain attributes.

    `attributes` holds public (and well-known private) instance attributes that are numbers, booleans or texts: eps, num_heads,
    approximate, training …
    """

    name: str
    kind: str
    own: tuple[str, ...]
    children: tuple[str, ...]
    attributes: Mapping[str, int | float | bool | str]
    buffers: tuple[str, ...] = ()
    """Those of `own` that are no parameters: running means, tables of positions or frequencies."""


@dataclass
class Capture:
    """What one run of one side showed.

    `values`: floating tensors as the run's dtype (half precisions widened to float32), whole numbers as int64, booleans as bool.
    `began` lists calls in the order in which they began, `ended` in the order in which they returned. `outputs` are the model's,
    flattened: keys of mappings, fields of dataclasses and NamedTuples, numbers of tuples, joined by "."; a single tensor is "".
    `frames` holds what `Side.replay` needs of each call; opaque.
    """

    values: dict[Site, Array]
    began: tuple[Call, ...]
    ended: tuple[Call, ...]
    outputs: dict[str, Array]
    frames: dict[Call, Any] = field(default_factory=dict, repr=False)
    dtypes: dict[Site, str] = field(default_factory=dict, repr=False)
    """What the tensors were in the run itself: "float32", "bfloat16", "int64" …"""


@dataclass(frozen=True)
class Channels:
    """Which entries along one axis of a reference tensor are which of a candidate's: the morph's own axes.

    Entry `reference[i]` along `reference_axis` is entry `candidate[i]` along `candidate_axis` (axes of the tensors at a border; may
    be negative). All other axes correspond in whatever order their sizes say.
    """

    reference_axis: int
    candidate_axis: int
    reference: Array
    candidate: Array


@dataclass(frozen=True)
class Link:
    """A tensor at a border of a reference module, and one of a candidate module, that should be equal.

    `channels` None: all entries, in the same order.
    """

    border: Border
    reference: str
    candidate: str
    channels: Channels | None = None
    order: tuple[tuple[int, ...], ...] | None = None
    """How the other axes correspond, where sizes leave a choice (arrange.Arrangement.signature)."""
    reference_index: int = 0
    candidate_index: int = 0
    """Site.index of the two tensors."""
    names: tuple[str, str] | None = None
    """Of the models' outputs: what each side calls it."""
    taken: tuple[int, tuple[int, ...]] | None = None
    """The reference's tensor has an axis more, of which the candidate took one position for each row (it pools first): the axis,
    and the positions; an Alignment's own links know none yet, those of its events do."""


@dataclass(frozen=True)
class Node:
    """Modules whose parameters correspond, and so should what goes in and comes out.

    A leaf's modules own all their parameters themselves (Linear, LayerNorm, Embedding …); a fused one faces several. Those of a
    block hold, with all below them, corresponding sets of parameters. `parameters` are pairs (reference, candidate) of names.
    `is_opaque`: a block that is treated as a leaf, because a side does not call the modules inside it (nn.MultiheadAttention).
    """

    kind: Literal["leaf", "block"]
    reference: tuple[str, ...]
    candidate: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    links: tuple[Link, ...]
    is_opaque: bool = False


@dataclass(frozen=True)
class Event:
    """Two tensors of one run each that should be equal: a link at one call. Outputs of the models have node None.

    `place` is the moment of the reference's run at which its tensor existed (inputs when a call began, outputs when it returned).
    """

    node: Node | None
    link: Link
    reference: Site
    candidate: Site
    place: int

    def __str__(self) -> str:
        return str(self.candidate)


@dataclass(frozen=True)
class Measure:
    """One event, compared elementwise.

    `error`: the largest absolute difference over the largest absolute value of the reference. `tolerance` is in the same unit.
    `elements` counts what was compared (padded positions are left out). `problem` says why nothing could be compared, or "NaN",
    "Inf".
    """

    event: Event
    error: float
    tolerance: float
    elements: int
    problem: str | None = None

    @property
    def is_within(self) -> bool:
        return self.problem is None and self.error <= self.tolerance


@dataclass(frozen=True)
class Cause:
    """A hypothesis that was carried out, and by how much it explains the divergence.

    `kind` is a slug of the taxonomy ("weight-transposed", "norm-eps", "attention-scale" …; "unknown"). `says` is a clause without a
    full stop: "weight is transposed". `residual` is the error that is left (unit of Measure.error) when it is undone in the
    candidate, or done in the reference; `floor` what the reference's own noise is there. `repairs`: what undoes it was carried out
    on the candidate's own module, not only predicted by a formula.
    """

    kind: str
    says: str
    residual: float
    floor: float
    repairs: bool = False


@dataclass(frozen=True)
class Suspect:
    """Where the first divergence is.

    "module": the candidate's module (an aligned leaf or an opaque block), given inputs within tolerance, gives an output over it.
    "stretch": between aligned modules: `before` are the last events within tolerance that lead there, `at` is the first over.
    `candidate`/`reference` are the names to say: of a stretch, the innermost modules that hold it.
    """

    kind: Literal["module", "stretch"]
    candidate: str
    reference: str
    at: Event
    before: tuple[Event, ...]
    error: float
    tolerance: float


@dataclass(frozen=True)
class Finding:
    """One divergence: where, seen in which runs ("own weights, short"), and what explains it (several causes tie; never empty)."""

    suspect: Suspect
    runs: tuple[str, ...]
    causes: tuple[Cause, ...]
    shape: tuple[str, ...] = ()
    """Lines that show the error by position, head and channel; for an unknown cause."""
    places: tuple[str, ...] = ()
    """Where else in the candidate the same is found: the same module of other layers, `suspect.candidate` first."""

    @property
    def sentence(self) -> str:
        """`encoder.layers.3.mlp.fc1: weight is transposed; with its transpose the output agrees to 3e-16 (floor 1e-15)`."""
        where = self.suspect.candidate or "the model"
        said = " · or ".join(cause.says for cause in self.causes)
        best = self.causes[0]
        if best.kind == "unknown":
            return f"{where}: {said}"
        return f"{where}: {said}; with that undone the output agrees to {best.residual:.0e} (floor {best.floor:.0e})"


@dataclass(frozen=True)
class WeightDifference:
    """A tensor of the candidate that is not what the morph makes of the reference's."""

    name: str
    sources: tuple[str, ...]
    elements: int
    differing: int
    cause: str | None


@dataclass(frozen=True)
class Run:
    """One regime with one probe: what was compared, in the reference's order; the models' outputs are the events without a node."""

    regime: str
    probe: str
    measures: tuple[Measure, ...]

    @property
    def name(self) -> str:
        return f"{self.regime}, {self.probe}"

    @property
    def is_within(self) -> bool:
        return all(measure.is_within for measure in self.measures if measure.event.node is None)


@dataclass(frozen=True)
class TraceReport:
    """What a trace found. `findings` empty: the two are one function on everything that was run."""

    reference: str
    candidate: str
    dtype: str
    runs: tuple[Run, ...]
    findings: tuple[Finding, ...]
    weights: tuple[WeightDifference, ...] = ()
    nodes: tuple[Node, ...] = ()
    unaligned: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """Modules with parameters that no node holds: of the reference, of the candidate."""
    notes: tuple[str, ...] = ()
    morph: str = ""

    @property
    def diverged(self) -> bool:
        """Something was found, or an output is over its tolerance by more than float32 rounds, or nothing was compared."""
        return (
            bool(self.findings)
            or not self.compared
            or any(
                one.problem is not None or not is_of_single(self.dtype, one.error, one.tolerance) for one in self.over
            )
        )

    @property
    def over(self) -> tuple[Measure, ...]:
        """Outputs that are over their tolerance."""
        outputs = (one for run in self.runs for one in run.measures if one.event.node is None)
        return tuple(one for one in outputs if not one.is_within)

    @property
    def compared(self) -> int:
        """Elements, in all runs."""
        return sum(measure.elements for run in self.runs for measure in run.measures)

    def __str__(self) -> str:
        from isomorph.trace.report import text

        return text(self)

    def to_json(self) -> dict[str, Any]:
        """Everything that was found and measured, as data."""
        from isomorph.trace.report import to_json

        return to_json(self)

    def _repr_html_(self) -> str:
        from isomorph.trace.report import to_html

        return to_html(self)


SINGLE = 2.0**29
"""How much coarser float32 rounds than float64."""


def is_of_single(dtype: str, error: float, tolerance: float) -> bool:
    """In a float64 run, a difference that no float32 run could see: of a table or a step that one side computes in float32."""
    return dtype == "float64" and error <= tolerance * SINGLE
