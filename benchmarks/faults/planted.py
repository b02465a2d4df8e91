"""A fault, and the two models and the morph that it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from benchmarks.faults.families import FAMILIES, Array, Family, seeded, trained
from benchmarks.faults.hook import Faults

import isomorph as iso
from isomorph.job.arrays import to_numpy

State = dict[str, Array]
Depth = Literal["first", "middle", "last", "everywhere", "ends"]


@dataclass(frozen=True)
class Fault:
    """One fault of one family.

    `where` are the names of the candidate's modules that may be named as the place; `kinds` the causes that may be named. What is
    wrong is in the candidate's code (`code`: what its Faults say), in its weights (`weights` changes the state that was ported), or
    in the morph that ported it (`morph`: lines by their key, None for a line that is left out). `equivalent` says why the outputs
    do not change: such a fault is not one, and does not count.
    """

    id: str
    family: str
    depth: Depth
    kinds: tuple[str, ...]
    where: tuple[str, ...]
    code: Mapping[str, Any] = field(default_factory=dict)
    weights: Callable[[State, State], None] | None = None
    morph: Mapping[str, str | None] = field(default_factory=dict)
    layers: int = 4
    equivalent: str | None = None


@dataclass(frozen=True)
class Port:
    """What a user holds: two models, the morph that the weights were ported with, inputs."""

    reference: Any
    candidate: Any
    morph: Any
    inputs: tuple[dict[str, Array], dict[str, Array]]


def port(fault: Fault | None, family: Family, *, layers: int = 4, own: str = "trained", seed: int = 1) -> Port:
    """Make both models, port the weights, plant. `own`: the reference's weights, "trained" or "fresh" as modules make them.

    Raises ValueError for a fault that no code asked about, and for one that changed nothing.
    """
    layers = fault.layers if fault else layers
    config, faults = family.config(layers), Faults(dict(fault.code) if fault else {})
    with seeded(seed):
        reference, candidate = family.reference(config).eval(), family.candidate(config, faults)
    if fault is None or "dropout" not in fault.kinds:
        candidate.eval()
    if own == "trained":
        state = trained({name: to_numpy(name, value) for name, value in reference.state_dict().items()}, seed)
        fill(reference, state)
    lines = {**family.lines(config), **(fault.morph if fault else {})}
    morph = iso.morph(text="\n".join(line for line in lines.values() if line) + "\n", file=f"{family.name}.morph")
    made = state_of(morph.plan(reference.state_dict(), like=candidate.state_dict()).state_dict("numpy"))
    if fault and fault.weights:
        before = {name: value.copy() for name, value in made.items()}
        fault.weights(made, {name: to_numpy(name, value) for name, value in candidate.state_dict().items()})
        if all(np.array_equal(before[name], made[name]) for name in made):
            raise ValueError(f"{fault.id}: nothing is planted in the weights")
    fill(candidate, made)
    inputs = family.inputs(config, seed)
    if fault and fault.code:
        outputs(candidate, inputs[1], family.library)
        if missing := set(fault.code) - faults.asked:
            raise ValueError(f"{fault.id}: nothing in the candidate asks for {', '.join(sorted(missing))}")
    return Port(reference, candidate, morph, inputs)


def state_of(state: Mapping[str, Any]) -> State:
    return {name: np.array(value) for name, value in state.items()}


def fill(model: Any, state: State) -> None:
    """Into a torch or a Paddle model, by name."""
    if isinstance(model, torch.nn.Module):
        model.load_state_dict(
            {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}, strict=False
        )
    else:
        _, unexpected = model.set_state_dict(dict(state))
        if unexpected:
            raise ValueError(f"the Paddle model has no {', '.join(unexpected)}")


def outputs(model: Any, inputs: Mapping[str, Array], library: str = "torch") -> dict[str, Array]:
    """What a model gives, by name or number, without gradients. Floating inputs take the dtype of the model."""
    if library == "paddle":
        import paddle

        kind = str(next(iter(model.parameters())).dtype).removeprefix("paddle.")
        given = {name: paddle.to_tensor(value).astype(kind) for name, value in inputs.items()}
        with paddle.no_grad():
            return {"0": model(**given).numpy()}
    kind = next(iter(model.parameters())).dtype
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
    with torch.no_grad():
        found = model(
            **{name: value.to(kind) if value.is_floating_point() else value for name, value in tensors.items()}
        )
    return flat(found)


def flat(found: Any) -> dict[str, Array]:
    """Tensors of a mapping, a NamedTuple or a tuple, nested ones joined by a dot."""
    if isinstance(found, torch.Tensor):
        return {"0": found.double().numpy() if found.is_floating_point() else found.numpy()}
    items = (
        found.items() if isinstance(found, Mapping) else found._asdict().items() if hasattr(found, "_asdict") else None
    )
    made: dict[str, Array] = {}
    for name, value in items if items is not None else enumerate(found):
        if isinstance(value, torch.Tensor):
            made[str(name)] = value.double().numpy()
    return made


def shared(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> list[tuple[Array, Array]]:
    """Outputs that are compared: of one name, else of one place in the order."""
    if same := [name for name in reference if name in candidate]:
        return [(reference[name], candidate[name]) for name in same]
    return list(zip(reference.values(), candidate.values(), strict=False))


def gap(made: Port, dtype: str, library: str) -> float:
    """The largest difference of the outputs over the largest value of the reference's, both models in `dtype`."""
    pairs = shared(*run_both(made, dtype, library))
    return max(float(np.abs(a - b).max() / np.abs(a).max()) if a.shape == b.shape else math_inf for a, b in pairs)


math_inf = float("inf")


def run_both(made: Port, dtype: str, library: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """The outputs of both models in `dtype`; the models are left in it."""
    reference = outputs(made.reference.to(getattr(torch, dtype)), made.inputs[0])
    if library == "paddle":
        candidate = outputs(made.candidate.to(dtype=dtype), made.inputs[1], library)
    else:
        candidate = outputs(made.candidate.to(getattr(torch, dtype)), made.inputs[1])
    return reference, {name: np.asarray(value, np.float64) for name, value in candidate.items()}


def made_by(fault: Fault, **options: Any) -> Port:
    return port(fault, FAMILIES[fault.family], **options)
