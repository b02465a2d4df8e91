"""Side: what a trace asks of a model, whatever library it is written in. numpy at the border."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from isomorph.tensors import Manifest
from isomorph.trace.nouns import Array, Call, Capture, ModuleFacts, Site

Inputs = Mapping[str, Array] | Sequence[Array]
"""By the names of the forward's parameters, or by position."""


class Side(Protocol):
    """One model. `run` and `replay` never change it; `fill` is for copies."""

    title: str
    """How messages call it: `CLIPModel (torch)`."""
    library: str
    """"torch", "paddle", or "callable" (nothing but outputs is seen)."""
    dtype: str
    """"float64", "float32", "bfloat16", "float16": what its floating parameters are."""

    def manifest(self) -> Manifest:
        """Names and specs of the state dict; empty for a callable."""

    def ties(self) -> Sequence[tuple[str, ...]]:
        """Names of the state dict that are one tensor."""

    def modules(self) -> Mapping[str, ModuleFacts]:
        """By dotted name, in the order of definition; "" is the model. A module under several names stands under the first."""

    def takes(self) -> Sequence[tuple[str, bool]]:
        """The forward's parameters: (name, whether it must be given), without *args and **kwargs."""

    def state(self) -> dict[str, Array]:
        """Values by state-dict name (half precisions as ml_dtypes arrays)."""

    def copy(self, dtype: str) -> Side:
        """An independent copy whose floating parameters and buffers are of `dtype`; in evaluation mode as the model is."""

    def fill(self, state: Mapping[str, Array]) -> None:
        """Overwrite by state-dict name, rounding to this copy's dtype. Only on a copy."""

    def run(
        self, inputs: Inputs, *, watch: Collection[str] | None = None, splice: Mapping[Site, Array] | None = None
    ) -> Capture:
        """Run the model, without gradients; watch these modules (all where None).

        Floating inputs are cast to `dtype`. `splice` puts arrays in the place of tensors at borders while it runs (shape and dtype
        are the tensor's). On torch, a float64 run is float64 throughout: casts to float32 inside it are lifted (and said in
        `lifted`). Raises UsageError with the library's own message when the model does not run.
        """

    def replay(
        self,
        capture: Capture,
        call: Call,
        *,
        inputs: Mapping[int, Array] | None = None,
        state: Mapping[str, Array] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Array]:
        """Run one module alone as it was called in `capture`, and give what comes out, flattened.

        `inputs` replaces tensors that go in, by Site.index; `state` the values of the module's own and its children's entries of
        the state dict (by their full names) and `attributes` its attributes, for this call only.
        """
